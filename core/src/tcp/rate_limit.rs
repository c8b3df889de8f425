//! Answers to invalid segments are rate limited, so that two confused ends cannot keep each other busy (RFC 5961 10).
//!
//! Linux: `tcp_oow_rate_limited`, `tcp_send_challenge_ack`.

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
}
