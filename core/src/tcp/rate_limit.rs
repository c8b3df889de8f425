//! Answers to invalid segments are rate limited, so that two confused ends cannot keep each other busy (RFC 5961 10).
//!
//! Linux: `tcp_oow_rate_limited`, `tcp_send_challenge_ack`.

use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// One socket's allowance: one answer every `tcp_invalid_ratelimit`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RateLimit {
    last: Option<Instant>,
}

impl RateLimit {
    /// True when the answer must be withheld; false uses the allowance up.
    pub(crate) fn is_exceeded(&mut self, now: Instant, every: Duration) -> bool {
        if let Some(last) = self.last
            && now.saturating_since(last) < every
        {
            return true;
        }
        self.last = Some(now);
        false
    }
}

/// The stack's challenge ACKs of one second (RFC 5961 7; Linux `tcp_challenge_ack_limit`).
///
/// How many there are is drawn anew each second between half and one and a half of the limit, so that nobody can count
/// who else used some (CVE-2016-5696).
#[derive(Debug)]
pub(crate) struct ChallengeBudget {
    second: u64,
    left: u32,
    rng: Rng,
}

impl ChallengeBudget {
    pub(crate) fn new(rng: Rng) -> Self {
        Self { second: u64::MAX, left: 0, rng }
    }

    /// Takes one, if there is one. `limit` of `i32::MAX`: no limit.
    pub(crate) fn allow(&mut self, now: Instant, limit: u32) -> bool {
        if limit == i32::MAX as u32 {
            return true;
        }
        let second = now.as_millis() / 1000;
        if second != self.second {
            self.second = second;
            // Linux: get_random_u32_inclusive(half, ack_limit + half - 1), half being rounded up. A limit of 0 makes
            // that range wrap to every number: hardly a limit at all.
            let half = limit.div_ceil(2);
            self.left = match limit {
                0 => self.rng.next_u64() as u32,
                limit => half + self.rng.below(limit),
            };
        }
        let is_left = self.left > 0;
        self.left -= u32::from(is_left);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_each_interval_and_zero_means_unlimited() {
        let every = Duration::from_millis(500);
        let mut limit = RateLimit::default();
        assert!(!limit.is_exceeded(Instant::ZERO, every));
        assert!(limit.is_exceeded(Instant::from_millis(499), every));
        assert!(!limit.is_exceeded(Instant::from_millis(500), every));
        assert!(!limit.is_exceeded(Instant::from_millis(500), Duration::ZERO));
    }

    fn in_a_second(budget: &mut ChallengeBudget, second: u64, limit: u32) -> usize {
        (0..1000).filter(|ms| budget.allow(Instant::from_millis(second * 1000 + ms), limit)).count()
    }

    #[test]
    fn between_half_and_one_and_a_half_of_the_limit_a_second() {
        let mut budget = ChallengeBudget::new(Rng::from_number(1));
        let counts: Vec<usize> = (0..200).map(|second| in_a_second(&mut budget, second, 100)).collect();
        assert!(counts.iter().all(|n| (50..150).contains(n)), "{counts:?}");
        assert!(counts.iter().any(|n| *n < 70) && counts.iter().any(|n| *n > 130), "{counts:?}");
        assert_eq!(in_a_second(&mut budget, 500, 1), 1);
        assert_eq!(in_a_second(&mut budget, 501, i32::MAX as u32), 1000);
    }
}
