//! CUBIC as Linux does it: fast convergence, Reno-friendliness, HyStart by ACK train and by delay.
//!
//! Owns:    the curve (`K`, origin, epoch), the Reno estimate, HyStart's round.
//! Rules:   RFC 9438; Linux `tcp_cubic.c`: beta 717/1024, C 0.4 as 410/1024, time in 1/1024 s.
//! Differs: Linux's jiffies are milliseconds here, and its table-based cube root is exact.

use crate::observe::Counters;
use crate::tcp::congestion::{RttSample, Window};
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

const SCALE: u32 = 1024;
const BETA: u32 = 717;
/// C, in 1/1024: `bic_scale` 41 times 10.
const CUBE_RTT_SCALE: u64 = 410;
/// 2^(10 + 3 * 10) / C: turns segments into cubed 1/1024 s.
const CUBE_FACTOR: u64 = (1 << 40) / CUBE_RTT_SCALE;
/// 8 times the acknowledged segments a window for one of Reno's steps at this beta: 8 * (1 + beta) / 3 / (1 - beta).
const BETA_SCALE: u64 = 8 * (SCALE + BETA) as u64 / 3 / (SCALE - BETA) as u64;

/// HyStart begins at this window, segments.
const HYSTART_LOW_WINDOW: u32 = 16;
/// ACKs closer than this belong to one train, microseconds.
const HYSTART_ACK_DELTA_US: u32 = 2_000;
const HYSTART_MIN_SAMPLES: u8 = 8;
const HYSTART_DELAY_MIN_US: u32 = 4_000;
const HYSTART_DELAY_MAX_US: u32 = 16_000;

/// The algorithm's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cubic {
    last_max_cwnd: u32,
    last_cwnd: u32,
    last_time_ms: u32,
    origin_point: u32,
    /// Time to the origin point, 1/1024 s.
    k: u32,
    /// Least round-trip time seen, microseconds; 0: none.
    delay_min_us: u32,
    /// `None`: no epoch, the next ACK begins one.
    epoch_start_ms: Option<u32>,
    ack_cnt: u32,
    /// What Reno would have (Linux `tcp_cwnd`).
    reno_cwnd: u32,
    /// Segments to acknowledge for one step.
    cnt: u32,
    round_start_us: u32,
    last_ack_us: u32,
    round_end: SeqNum,
    round_min_us: u32,
    samples: u8,
    /// HyStart has ended slow start.
    found: bool,
}

fn ms(at: Instant) -> u32 {
    at.as_millis() as u32
}

fn us(at: Instant) -> u32 {
    at.as_micros() as u32
}

impl Cubic {
    pub(crate) fn new(now: Instant, snd_nxt: SeqNum) -> Self {
        Self {
            last_max_cwnd: 0,
            last_cwnd: 0,
            last_time_ms: 0,
            origin_point: 0,
            k: 0,
            delay_min_us: 0,
            epoch_start_ms: None,
            ack_cnt: 0,
            reno_cwnd: 0,
            cnt: 0,
            round_start_us: us(now),
            last_ack_us: us(now),
            round_end: snd_nxt,
            round_min_us: u32::MAX,
            samples: 0,
            found: false,
        }
    }

    /// Linux `cubictcp_recalc_ssthresh`.
    pub(crate) fn ssthresh(&mut self, snd_cwnd: u32) -> u32 {
        self.epoch_start_ms = None;
        // Fast convergence (RFC 9438 4.7): a flow below its last maximum leaves room for others.
        self.last_max_cwnd = if snd_cwnd < self.last_max_cwnd {
            (u64::from(snd_cwnd) * u64::from(SCALE + BETA) / u64::from(2 * SCALE)) as u32
        } else {
            snd_cwnd
        };
        ((u64::from(snd_cwnd) * u64::from(BETA) / u64::from(SCALE)) as u32).max(2)
    }

    /// Linux `bictcp_update`: how many segments must be acknowledged for one more.
    pub(crate) fn segments_per_step(&mut self, cwnd: u32, acked: u32, now: Instant) -> u32 {
        let now_ms = ms(now);
        self.ack_cnt = self.ack_cnt.saturating_add(acked);
        if self.last_cwnd == cwnd && now_ms.wrapping_sub(self.last_time_ms) <= 1000 / 32 {
            return self.cnt;
        }
        // The curve moves at most once a millisecond; a reduction ends the epoch and so forces it.
        if self.epoch_start_ms.is_none() || now_ms != self.last_time_ms {
            self.follow_curve(cwnd, acked, now_ms);
        }
        self.be_reno_friendly(cwnd);
        self.cnt = self.cnt.max(2); // at most half a segment for each acknowledged
        self.cnt
    }

    fn follow_curve(&mut self, cwnd: u32, acked: u32, now_ms: u32) {
        self.last_cwnd = cwnd;
        self.last_time_ms = now_ms;
        let epoch_start_ms = *self.epoch_start_ms.get_or_insert_with(|| {
            self.ack_cnt = acked;
            self.reno_cwnd = cwnd;
            if self.last_max_cwnd <= cwnd {
                self.k = 0;
                self.origin_point = cwnd;
            } else {
                self.k = cube_root(CUBE_FACTOR * u64::from(self.last_max_cwnd - cwnd));
                self.origin_point = self.last_max_cwnd;
            }
            now_ms
        });
        let elapsed_ms = u64::from(now_ms.wrapping_sub(epoch_start_ms)) + u64::from(self.delay_min_us / 1000);
        let t = (elapsed_ms << 10) / 1000;
        let distance = t.abs_diff(u64::from(self.k)).min(1 << 17);
        let delta = ((CUBE_RTT_SCALE * distance * distance * distance) >> 40).min(u64::from(u32::MAX)) as u32;
        let target = if t < u64::from(self.k) {
            self.origin_point.saturating_sub(delta)
        } else {
            self.origin_point.saturating_add(delta)
        };
        self.cnt = if target > cwnd { cwnd / (target - cwnd) } else { 100 * cwnd };
        // Nothing is known about the path yet: 5 % a round trip.
        if self.last_max_cwnd == 0 && self.cnt > 20 {
            self.cnt = 20;
        }
    }

    fn be_reno_friendly(&mut self, cwnd: u32) {
        let per_step = ((u64::from(cwnd) * BETA_SCALE) >> 3).max(1) as u32;
        if self.ack_cnt > per_step {
            // As many whole steps as leave at least 1.
            let steps = (self.ack_cnt - 1) / per_step;
            self.ack_cnt -= steps * per_step;
            self.reno_cwnd += steps;
        }
        if self.reno_cwnd > cwnd {
            self.cnt = self.cnt.min(cwnd / (self.reno_cwnd - cwnd));
        }
    }

    /// Linux `cubictcp_acked`.
    pub(crate) fn on_rtt(
        &mut self,
        sample: &RttSample,
        window: &mut Window,
        now: Instant,
        counters: &mut Counters,
    ) {
        // Samples right after a fast recovery say nothing about the path.
        if self.epoch_start_ms.is_some_and(|start| ms(now).wrapping_sub(start) < 1000) {
            return;
        }
        let delay = sample.rtt_us.max(1);
        if self.delay_min_us == 0 || delay < self.delay_min_us {
            self.delay_min_us = delay;
        }
        if !self.found && window.in_slow_start() {
            self.hystart(delay, sample, window, now, counters);
        }
    }

    fn hystart(
        &mut self,
        delay: u32,
        sample: &RttSample,
        window: &mut Window,
        now: Instant,
        counters: &mut Counters,
    ) {
        let now_us = us(now);
        if sample.snd_una.after(self.round_end) {
            self.round_start_us = now_us;
            self.last_ack_us = now_us;
            self.round_end = sample.snd_nxt;
            self.round_min_us = u32::MAX;
            self.samples = 0;
        }
        if window.snd_cwnd < HYSTART_LOW_WINDOW {
            return;
        }
        // A train of close ACKs longer than half the path's delay: the path is full.
        if now_us.wrapping_sub(self.last_ack_us) <= HYSTART_ACK_DELTA_US {
            self.last_ack_us = now_us;
            if now_us.wrapping_sub(self.round_start_us) > self.delay_min_us >> 1 {
                self.found = true;
                counters.tcp_hystart_train_detect += 1;
                counters.tcp_hystart_train_cwnd += u64::from(window.snd_cwnd);
                window.snd_ssthresh = window.snd_cwnd;
            }
        }
        // The least delay of a round rose: a queue builds up.
        self.round_min_us = self.round_min_us.min(delay);
        if self.samples < HYSTART_MIN_SAMPLES {
            self.samples += 1;
        } else {
            let rise = (self.delay_min_us >> 3).clamp(HYSTART_DELAY_MIN_US, HYSTART_DELAY_MAX_US);
            if self.round_min_us > self.delay_min_us.saturating_add(rise) {
                self.found = true;
                counters.tcp_hystart_delay_detect += 1;
                counters.tcp_hystart_delay_cwnd += u64::from(window.snd_cwnd);
                window.snd_ssthresh = window.snd_cwnd;
            }
        }
    }

    /// Idle time does not count on the curve (Linux `cubictcp_cwnd_event`).
    pub(crate) fn on_restart(&mut self, now: Instant, last_sent: Instant) {
        if let Some(start) = &mut self.epoch_start_ms {
            let now_ms = ms(now);
            let idle = now_ms.wrapping_sub(ms(last_sent));
            if (idle as i32) > 0 {
                *start = start.wrapping_add(idle);
                if (start.wrapping_sub(now_ms) as i32) > 0 {
                    *start = now_ms;
                }
            }
        }
    }
}

/// The whole part of the cube root.
fn cube_root(a: u64) -> u32 {
    if a == 0 {
        return 0;
    }
    // From above, Newton's steps fall until they reach it.
    let mut x = 1u64 << (64 - a.leading_zeros()).div_ceil(3);
    loop {
        let next = (2 * x + a / (x * x)) / 3;
        if next >= x {
            return x as u32;
        }
        x = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::congestion::{Congestion, INFINITE_SSTHRESH};
    use crate::tcp::options::CongestionKind;

    #[test]
    fn cube_roots_are_exact() {
        for x in [1u64, 2, 3, 10, 1000, 46_340, 2_000_000] {
            assert_eq!(u64::from(cube_root(x * x * x)), x);
            assert_eq!(u64::from(cube_root(x * x * x + 1)), x);
            assert_eq!(u64::from(cube_root(x * x * x - 1)), x - 1);
        }
        assert_eq!(cube_root(u64::MAX), 2_642_245);
    }

    #[test]
    fn beta_and_fast_convergence() {
        let mut c = Cubic::new(Instant::ZERO, SeqNum(0));
        assert_eq!(c.ssthresh(100), 70);
        assert_eq!(c.last_max_cwnd, 100);
        assert_eq!(c.ssthresh(70), 49);
        assert_eq!(c.last_max_cwnd, 59, "70 * (1 + 0.7) / 2: below its last maximum");
        assert_eq!(c.ssthresh(2), 2);
    }

    #[test]
    fn the_curve_comes_back_to_the_maximum_after_k() {
        let mut cc = Congestion::new(CongestionKind::Cubic);
        let mut w = Window { snd_cwnd: 1000, snd_ssthresh: 0, snd_cwnd_cnt: 0 };
        w.snd_ssthresh = cc.ssthresh(w.snd_cwnd, Instant::ZERO, SeqNum(0));
        w.snd_cwnd = w.snd_ssthresh;
        // K = cbrt(1000 * 0.3 / 0.4) = 9.1 s; an RTT of 100 ms acknowledges a window.
        let mut at_k = 0;
        for round in 0..200u64 {
            for part in 0..10 {
                let now = Instant::from_millis(round * 100 + part * 10);
                let acked = w.snd_cwnd / 10;
                cc.on_acked(&mut w, acked, now, SeqNum(0));
            }
            if round == 91 {
                at_k = w.snd_cwnd;
            }
        }
        assert!((980..=1010).contains(&at_k), "{at_k} at K");
        assert!(w.snd_cwnd > 1300, "{} well behind K: convex again", w.snd_cwnd);
    }

    #[test]
    fn hystart_leaves_slow_start_when_delay_rises() {
        let mut counters = Counters::default();
        let mut c = Cubic::new(Instant::ZERO, SeqNum(0));
        let mut w = Window { snd_cwnd: 40, snd_ssthresh: INFINITE_SSTHRESH, snd_cwnd_cnt: 0 };
        for i in 0..40u64 {
            let rtt_us = if i < 10 { 20_000 } else { 40_000 };
            let sample = RttSample {
                rtt_us,
                snd_una: SeqNum(i as u32 * 1000),
                snd_nxt: SeqNum(i as u32 * 1000 + 9_000),
            };
            c.on_rtt(&sample, &mut w, Instant::from_millis(5 * i), &mut counters);
        }
        assert_eq!(counters.tcp_hystart_delay_detect, 1);
        assert_eq!(w.snd_ssthresh, 40);
    }

    #[test]
    fn hystart_leaves_slow_start_when_the_train_is_long() {
        let mut counters = Counters::default();
        let mut c = Cubic::new(Instant::ZERO, SeqNum(0));
        let mut w = Window { snd_cwnd: 40, snd_ssthresh: INFINITE_SSTHRESH, snd_cwnd_cnt: 0 };
        for i in 0..12u64 {
            let sample = RttSample { rtt_us: 20_000, snd_una: SeqNum(1), snd_nxt: SeqNum(90_000) };
            c.on_rtt(&sample, &mut w, Instant::from_millis(30 + i), &mut counters);
        }
        assert_eq!((counters.tcp_hystart_train_detect, w.snd_ssthresh), (1, 40));
    }
}
