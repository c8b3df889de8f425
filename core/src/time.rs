//! A point in time, given by the caller; the core never reads a clock.
//!
//! Owns:    [`Instant`], nanoseconds since an epoch that the caller chose.
//! Not here: wall-clock time, sleeping (`lastack`'s clock).

use core::num::NonZeroU64;
use core::ops::{Add, AddAssign, Sub};
pub use core::time::Duration;

/// Nanoseconds since an epoch of the caller's choice; only differences mean anything.
///
/// # Example
/// ```
/// use lastack_core::time::{Duration, Instant};
/// let start = Instant::ZERO;
/// let later = start + Duration::from_millis(200);
/// assert_eq!(later.saturating_since(start), Duration::from_millis(200));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "u64", into = "u64"))]
// One more than the nanoseconds, so that an `Option<Instant>` takes no more room: connections keep many.
pub struct Instant(NonZeroU64);

impl Instant {
    /// The epoch itself.
    pub const ZERO: Self = Self(NonZeroU64::MIN);
    /// Later than anything that happens: the deadline of a timer that is not armed.
    pub const FAR_FUTURE: Self = Self(NonZeroU64::MAX);

    /// `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// `micros` microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self::from_nanos(micros.saturating_mul(1_000))
    }

    /// `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_nanos(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// Whole microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.as_nanos() / 1_000
    }

    /// Whole milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.as_nanos() / 1_000_000
    }

    /// Time from `earlier` to `self`; zero when `earlier` is in fact later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }

    /// True unless this is [`Instant::FAR_FUTURE`].
    pub const fn is_armed(self) -> bool {
        self.0.get() != u64::MAX
    }
}

impl Default for Instant {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<u64> for Instant {
    /// Nanoseconds after the epoch.
    fn from(nanos: u64) -> Self {
        Self::from_nanos(nanos)
    }
}

impl From<Instant> for u64 {
    /// Nanoseconds after the epoch.
    fn from(at: Instant) -> Self {
        at.as_nanos()
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self::from_nanos(
            self.as_nanos().saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl core::fmt::Debug for Instant {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.is_armed() {
            let nanos = self.as_nanos();
            write!(f, "{}.{:09}s", nanos / 1_000_000_000, nanos % 1_000_000_000)
        } else {
            f.write_str("never")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optional_instant_takes_no_more_room() {
        assert_eq!(size_of::<Option<Instant>>(), 8);
    }

    #[test]
    fn the_ends_saturate() {
        assert_eq!(Instant::from_nanos(u64::MAX), Instant::FAR_FUTURE);
        assert_eq!(Instant::FAR_FUTURE + Duration::from_secs(1), Instant::FAR_FUTURE);
        assert_eq!(Instant::ZERO - Duration::from_secs(1), Instant::ZERO);
        assert_eq!(Instant::from_nanos(7).as_nanos(), 7);
        assert!(Instant::ZERO.is_armed() && !Instant::FAR_FUTURE.is_armed());
        assert_eq!(
            format!("{:?} {:?}", Instant::from_millis(1500), Instant::FAR_FUTURE),
            "1.500000000s never"
        );
    }
}
