//! The harness's clock: the only module that reads it or pauses.
//!
//! Real programs run in real time, so the harness must wait. It waits for *something to happen* with an upper
//! bound; nothing passes or fails because a pause was long enough.

use std::time::{Duration, Instant};

/// The time now.
#[allow(clippy::disallowed_methods, reason = "the harness drives real programs: this is its one clock")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets other processes run for `time`. Only for polling a condition (see [`until`]) and for pacing.
#[allow(clippy::disallowed_methods, reason = "the harness drives real programs: this is its one pause")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Polls `condition` every 5 ms until it gives a value, at most for `limit`.
pub fn until<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if now() >= end {
            return None;
        }
        pause(Duration::from_millis(5));
    }
}

/// Nanoseconds of the monotonic clock, the same for every process on this machine.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
