//! The clock: the one place of this crate that reads time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch, now.
#[allow(clippy::disallowed_methods, reason = "this module is the clock")]
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A point on the monotonic clock, for durations.
#[allow(clippy::disallowed_methods, reason = "this module is the clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Waits; for the pause between two snapshots, which is a measurement and not a synchronisation.
#[allow(clippy::disallowed_methods, reason = "this module is the clock")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock tracepoints are stamped with.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Processor time that the calling thread has taken, its system calls included.
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
