//! What a sender leaves for the next connection over the same way, and what it takes over.
//!
//! Rules: Linux `tcp_update_metrics`, `tcp_init_metrics`, in their order and fixed point.

use crate::observe::CaState;
use crate::sysctl::Sysctl;
use crate::tcp::congestion::INFINITE_SSTHRESH;
use crate::tcp::metrics::Way;
use crate::tcp::send::Sender;

impl Sender {
    /// The way's metrics after this connection; `None`: they stay as they are.
    pub(crate) fn measured(&self, known: Option<Way>, sysctl: &Sysctl) -> Option<Way> {
        if self.backoff > 0 || self.rtt.srtt_us == 0 {
            // "This session failed to estimate rtt. Why? Probably, no packets returned in time. Reset our results."
            return known.map(|way| Way { rtt_us: 0, ..way });
        }
        let mut way = known.unwrap_or_default();
        let (srtt, mdev) = (self.rtt.srtt_us, self.rtt.mdev_us);
        let error = i64::from(way.rtt_us) - i64::from(srtt);
        // "If newly calculated rtt larger than stored one, store new one. Otherwise, use EWMA."
        way.rtt_us = if error <= 0 { srtt } else { way.rtt_us - (error >> 3) as u32 };
        let deviation = ((error.unsigned_abs() >> 1) as u32).max(mdev);
        way.rttvar_us = if deviation >= way.rttvar_us {
            deviation
        } else {
            way.rttvar_us - ((way.rttvar_us - deviation) >> 2)
        };
        let (cwnd, ssthresh) = (self.cwnd.window.snd_cwnd, self.cwnd.window.snd_ssthresh);
        let saves_ssthresh = !sysctl.tcp_no_ssthresh_metrics_save;
        if ssthresh >= INFINITE_SSTHRESH {
            // "Slow start still did not finish."
            if saves_ssthresh && way.ssthresh > 0 && cwnd >> 1 > way.ssthresh {
                way.ssthresh = cwnd >> 1;
            }
            way.cwnd = way.cwnd.max(cwnd);
        } else if cwnd >= ssthresh && self.recovery.ca_state == CaState::Open {
            // "Cong. avoidance phase, cwnd is reliable."
            if saves_ssthresh {
                way.ssthresh = ssthresh.max(cwnd >> 1);
            }
            way.cwnd = (way.cwnd + cwnd) >> 1;
        } else {
            // "Else slow start did not finish, cwnd is non-sense, ssthresh may be also invalid."
            way.cwnd = (way.cwnd + ssthresh) >> 1;
            if saves_ssthresh && way.ssthresh > 0 && ssthresh > way.ssthresh {
                way.ssthresh = ssthresh;
            }
            let reordering = self.recovery.reordering;
            if way.reordering < reordering && reordering != sysctl.tcp_reordering {
                way.reordering = reordering;
            }
        }
        Some(way)
    }

    /// A connection begins. Only the first RTO comes from the cached round trip, not the estimator.
    pub(super) fn take_over(&mut self, way: Option<Way>, sysctl: &Sysctl) {
        let way = way.unwrap_or_default();
        if way.ssthresh > 0 && !sysctl.tcp_no_ssthresh_metrics_save {
            self.cwnd.window.snd_ssthresh = way.ssthresh;
        }
        if way.reordering > 0 {
            self.recovery.reordering = way.reordering;
        }
        if way.rtt_us > self.rtt.srtt_us {
            let rtt = way.rtt_us >> 3;
            self.rtt.rto_us = rtt.saturating_add((2 * rtt).max(self.rtt.rto_min_us)).min(self.rtt.rto_max_us);
        } else if self.rtt.srtt_us == 0 {
            self.rtt.no_handshake_sample();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::context::testing::TestCx;
    use crate::tcp::options::TcpOptions;
    use crate::tcp::seq::SeqNum;
    use crate::time::{Duration, Instant};

    fn sender(rtt: Option<Duration>, way: Option<Way>) -> Sender {
        let mut world = TestCx::at(Instant::from_millis(1_000));
        let config = crate::tcp::send::SenderConfig {
            mss: 1460,
            sack: true,
            timestamps: false,
            gso_max_segs: 1,
            handshake_rtt: rtt,
            syn_ack_repeats: None,
            way,
            net_header_len: 20,
        };
        Sender::established(SeqNum(1), 65_535, &config, &TcpOptions::default(), &world.cx())
    }

    const MS: u32 = 1_000;

    #[test]
    fn a_longer_round_trip_replaces_the_cached_one_and_a_shorter_one_pulls_it_down() {
        let sysctl = Sysctl::default();
        let short = sender(Some(Duration::from_millis(10)), None);
        let way = short.measured(None, &sysctl).expect("measured");
        assert_eq!((way.rtt_us, way.cwnd, way.ssthresh), (80 * MS, 10, 0));
        let long =
            sender(Some(Duration::from_millis(50)), None).measured(Some(way), &sysctl).expect("measured");
        assert_eq!(long.rtt_us, 400 * MS);
        let back = short.measured(Some(long), &sysctl).expect("measured");
        assert_eq!(back.rtt_us, 400 * MS - 40 * MS, "an eighth of the way");
    }

    #[test]
    fn without_a_sample_the_cached_round_trip_is_forgotten() {
        let silent = sender(None, None);
        assert_eq!(silent.measured(None, &Sysctl::default()), None);
        let way = Way { rtt_us: 80 * MS, cwnd: 10, ..Way::default() };
        assert_eq!(silent.measured(Some(way), &Sysctl::default()), Some(Way { rtt_us: 0, ..way }));
    }

    #[test]
    fn a_cached_round_trip_sets_the_first_rto_only() {
        let way = Way { rtt_us: 8 * 300 * MS, reordering: 7, ssthresh: 5, ..Way::default() };
        let next = sender(Some(Duration::from_millis(10)), Some(way));
        assert_eq!((next.rtt.srtt_us, next.rtt.rto_us), (80 * MS, 900 * MS));
        assert_eq!(next.recovery.reordering, 7);
        assert_eq!(next.cwnd.window.snd_ssthresh, INFINITE_SSTHRESH, "not saved, not used");
        assert_eq!(sender(None, Some(way)).rtt.rto_us, 900 * MS, "nor is it 3 s");
    }
}
