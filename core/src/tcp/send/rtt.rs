//! Round-trip time and the retransmission time-out that follows from it.
//!
//! Owns:    `srtt`, `mdev`, `rttvar` in Linux's fixed point, the RTO, and the windowed minimum.
//! Input:   samples in microseconds; the sender decides which are allowed (Karn, RTTM).
//! Rules:   Linux `tcp_rtt_estimator`, `__tcp_set_rto`, `minmax_running_min`; RFC 6298.
//! Differs: from RFC 6298 2.4 as Linux does: the floor of 200 ms is on the variance, so RTO is `srtt` plus at least 200 ms.
//! Not here: backoff (`timer`), which segment gives a sample (`ack`).

use crate::tcp::seq::SeqNum;
use crate::time::Duration;

/// Linux `TCP_TIMEOUT_INIT`, the first RTO of a SYN, microseconds.
pub(super) const TIMEOUT_INIT_US: u32 = 1_000_000;
/// Linux `TCP_TIMEOUT_FALLBACK` (RFC 6298 5.7): the RTO when the handshake gave no sample, microseconds.
pub(super) const TIMEOUT_FALLBACK_US: u32 = 3_000_000;
/// Linux `TCP_RTO_MIN`, microseconds: base of the give-up model and of the window probe.
pub(super) const RTO_MIN_US: u32 = 200_000;

/// The estimator. `srtt_us` holds 8 times, `mdev_us`, `mdev_max_us` and `rttvar_us` hold 4 times the value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    pub(super) srtt_us: u32,
    pub(super) mdev_us: u32,
    mdev_max_us: u32,
    rttvar_us: u32,
    rtt_seq: SeqNum,
    /// Linux `icsk_rto`, microseconds.
    pub(super) rto_us: u32,
    pub(super) rto_min_us: u32,
    pub(super) rto_max_us: u32,
    pub(super) min: MinRtt,
}

impl Rtt {
    pub(super) fn new(rto_min: Duration, rto_max: Duration) -> Self {
        let rto_max_us = micros(rto_max);
        Self {
            srtt_us: 0,
            // Linux `tcp_init_sock`: mdev_us = TCP_TIMEOUT_INIT, so that ss shows a deviation before the first sample.
            mdev_us: TIMEOUT_INIT_US,
            mdev_max_us: 0,
            rttvar_us: 0,
            rtt_seq: SeqNum(0),
            rto_us: TIMEOUT_INIT_US.min(rto_max_us),
            rto_min_us: micros(rto_min),
            rto_max_us,
            min: MinRtt::default(),
        }
    }

    /// Linux `tcp_rtt_estimator` and `tcp_set_rto`.
    pub(super) fn sample(&mut self, rtt_us: u32, snd_una: SeqNum, snd_nxt: SeqNum) {
        let m = rtt_us.min(i32::MAX as u32 >> 4);
        if self.srtt_us == 0 {
            self.srtt_us = m << 3;
            self.mdev_us = m << 1; // so that RTO = 3 * rtt
            self.rttvar_us = self.mdev_us.max(self.rto_min_us);
            self.mdev_max_us = self.rttvar_us;
            self.rtt_seq = snd_nxt;
        } else {
            let error = i64::from(m) - i64::from(self.srtt_us >> 3);
            self.srtt_us = (i64::from(self.srtt_us) + error) as u32; // srtt = 7/8 srtt + 1/8 m
            let mut change = error.abs() - i64::from(self.mdev_us >> 2);
            // Linux: a falling RTT must not raise the deviation as fast as a rising one.
            if error < 0 && change > 0 {
                change >>= 3;
            }
            self.mdev_us = (i64::from(self.mdev_us) + change) as u32;
            if self.mdev_us > self.mdev_max_us {
                self.mdev_max_us = self.mdev_us;
                self.rttvar_us = self.rttvar_us.max(self.mdev_max_us);
            }
            if snd_una.after(self.rtt_seq) {
                if self.mdev_max_us < self.rttvar_us {
                    self.rttvar_us -= (self.rttvar_us - self.mdev_max_us) >> 2;
                }
                self.rtt_seq = snd_nxt;
                self.mdev_max_us = self.rto_min_us;
            }
        }
        self.srtt_us = self.srtt_us.max(1);
        self.rto_us = self.base_rto().min(self.rto_max_us);
    }

    /// Linux `__tcp_set_rto`: `srtt + rttvar`, microseconds, without backoff.
    pub(super) fn base_rto(&self) -> u32 {
        (self.srtt_us >> 3).saturating_add(self.rttvar_us)
    }

    /// No sample from the handshake: 3 s until there is one (Linux `tcp_init_metrics`).
    pub(super) fn no_handshake_sample(&mut self) {
        self.rttvar_us = TIMEOUT_FALLBACK_US;
        self.mdev_us = TIMEOUT_FALLBACK_US;
        self.mdev_max_us = TIMEOUT_FALLBACK_US;
        self.rto_us = TIMEOUT_FALLBACK_US.min(self.rto_max_us);
    }

    /// Smoothed RTT in microseconds, 0 without a sample.
    pub(super) fn smoothed_us(&self) -> u32 {
        self.srtt_us >> 3
    }

    /// The RTO `backoff` steps up, at most the maximum (Linux `inet_csk_rto_backoff`).
    pub(super) fn backed_off_us(&self, base_us: u32, backoff: u8) -> u32 {
        let wide = u64::from(base_us) << backoff.min(31);
        wide.min(u64::from(self.rto_max_us)) as u32
    }
}

/// Microseconds of a duration, at most `u32::MAX`.
pub(super) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// Minimum over a sliding window in constant space: the best, and the best of the time after it, twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct MinRtt([Sample; 3]);

#[derive(Clone, Copy, Debug)]
struct Sample {
    at_ms: u32,
    rtt_us: u32,
}

impl Default for MinRtt {
    fn default() -> Self {
        Self([Sample { at_ms: 0, rtt_us: u32::MAX }; 3])
    }
}

impl MinRtt {
    /// The minimum in microseconds; `u32::MAX` without a sample.
    pub(super) fn get(&self) -> u32 {
        self.0[0].rtt_us
    }

    /// Takes a sample; `window_ms` is how long one stays.
    pub(super) fn sample(&mut self, at_ms: u32, rtt_us: u32, window_ms: u32) {
        let new = Sample { at_ms, rtt_us };
        let age = |sample: Sample| at_ms.wrapping_sub(sample.at_ms);
        let [best, second, third] = &mut self.0;
        if rtt_us <= best.rtt_us || age(*third) > window_ms {
            self.0 = [new; 3];
            return;
        }
        if rtt_us <= second.rtt_us {
            *second = new;
            *third = new;
        } else if rtt_us <= third.rtt_us {
            *third = new;
        }
        if age(*best) > window_ms {
            self.0 = [self.0[1], self.0[2], new];
            if age(self.0[0]) > window_ms {
                self.0 = [self.0[1], self.0[2], new];
            }
        } else if second.at_ms == best.at_ms && age(*best) > window_ms / 4 {
            *second = new;
            *third = new;
        } else if third.at_ms == second.at_ms && age(*best) > window_ms / 2 {
            *third = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtt() -> Rtt {
        Rtt::new(Duration::from_millis(200), Duration::from_secs(120))
    }

    #[test]
    fn rto_is_srtt_plus_at_least_200_ms() {
        let mut r = rtt();
        assert_eq!(r.rto_us, 1_000_000, "before any sample");
        r.sample(4_000, SeqNum(1), SeqNum(1));
        assert_eq!(r.rto_us, 204_000);
        r.sample(4_000, SeqNum(2), SeqNum(2));
        assert_eq!(r.rto_us, 204_000);
    }

    #[test]
    fn first_sample_gives_three_times_the_rtt_when_long() {
        let mut r = rtt();
        r.sample(500_000, SeqNum(1), SeqNum(1));
        assert_eq!(r.rto_us, 1_500_000);
        assert_eq!(r.smoothed_us(), 500_000);
    }

    #[test]
    fn a_spike_raises_the_rto_at_once_and_it_decays_a_quarter_a_round() {
        let mut r = rtt();
        r.sample(100_000, SeqNum(1), SeqNum(10));
        let quiet = r.rto_us;
        r.sample(900_000, SeqNum(5), SeqNum(20)); // not yet past rtt_seq
        assert!(r.rto_us > quiet);
        let mut last = r.rto_us;
        for round in 0..40u32 {
            let seq = SeqNum(100 + round * 10);
            r.sample(100_000, seq, seq);
            assert!(r.rto_us <= last, "round {round}");
            last = r.rto_us;
        }
        assert!((300_000..=310_000).contains(&last), "{last}: back to srtt + 200 ms");
    }

    #[test]
    fn falling_rtt_is_damped() {
        let mut r = rtt();
        r.sample(400_000, SeqNum(1), SeqNum(1));
        let before = r.mdev_us;
        r.sample(1_000, SeqNum(1), SeqNum(1));
        assert!(r.mdev_us < before + 100_000, "mdev {} from {before}", r.mdev_us);
    }

    #[test]
    fn min_rtt_forgets_after_the_window() {
        let mut m = MinRtt::default();
        m.sample(0, 100, 1_000);
        m.sample(500, 300, 1_000);
        m.sample(900, 250, 1_000);
        assert_eq!(m.get(), 100);
        m.sample(1_100, 400, 1_000);
        assert_eq!(m.get(), 250);
        m.sample(1_200, 50, 1_000);
        assert_eq!(m.get(), 50);
    }
}
