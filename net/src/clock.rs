//! The only clock: monotonic, and readable as wall time.
//!
//! Owns:    [`Clock`], which turns the machine's time into the core's [`Instant`].
//! Rules:   the epoch is Unix's, read once at the start; from there on time is monotonic, so that events carry
//!          plain Unix nanoseconds and a stepped wall clock moves no timer.

use std::time::{SystemTime, UNIX_EPOCH};

use lastack_core::time::{Duration, Instant};

/// Reads the time. Copies tell the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: std::time::Instant,
    started_unix: Instant,
}

impl Clock {
    /// A clock that begins at the wall clock's time.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: std::time::Instant::now(), started_unix: Instant::ZERO + unix }
    }

    /// The time now.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]
    pub fn now(&self) -> Instant {
        self.started_unix + std::time::Instant::now().duration_since(self.started)
    }

    /// The machine's own form of `instant`, for timers; `None` where there is no such time.
    pub(crate) fn to_std(self, instant: Instant) -> Option<std::time::Instant> {
        instant
            .is_armed()
            .then(|| self.started.checked_add(instant.saturating_since(self.started_unix)))
            .flatten()
    }

    /// Time from now until `instant`; zero when it has passed.
    pub(crate) fn until(&self, instant: Instant) -> Duration {
        instant.saturating_since(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_keeps_its_distance_from_the_start() {
        let clock = Clock::start();
        let deadline = clock.started_unix + Duration::from_secs(5);
        assert_eq!(clock.to_std(deadline).unwrap() - clock.started, Duration::from_secs(5));
        assert_eq!(clock.to_std(Instant::FAR_FUTURE), None);
    }

    #[test]
    fn time_counts_from_the_unix_epoch() {
        let first = Clock::start().now();
        assert!(first > Instant::ZERO + Duration::from_secs(1_700_000_000), "{first:?}");
    }
}
