//! What the sender was waiting for: stopwatches behind `tcpi_busy_time`, `rwnd_limited`, `sndbuf_limited`.
//!
//! Rules:   Linux `tcp_chrono_start`, `tcp_chrono_stop`: one runs at a time, the more interesting wins. They tick in
//!          milliseconds, as Linux's in jiffies.

use crate::time::Instant;

/// What a stopwatch measures, the more interesting later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) enum Limit {
    /// Nothing queued.
    #[default]
    Idle,
    /// Something queued or in flight.
    Busy,
    /// The peer's window holds it up.
    Window,
    /// The send buffer holds it up.
    SendBuffer,
}

/// The stopwatches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chrono {
    running: Limit,
    since_ms: u32,
    spent_ms: [u32; 3],
}

impl Chrono {
    /// `limit` holds, unless something more interesting does.
    #[inline]
    pub(super) fn start(&mut self, limit: Limit, now: Instant) {
        if limit > self.running {
            self.set(limit, now);
        }
    }

    /// `limit` no longer holds; `idle`: nothing is queued or in flight.
    #[inline]
    pub(super) fn stop(&mut self, limit: Limit, idle: bool, now: Instant) {
        if idle {
            if self.running != Limit::Idle {
                self.set(Limit::Idle, now);
            }
        } else if self.running == limit && limit != Limit::Busy {
            self.set(Limit::Busy, now);
        }
    }

    fn set(&mut self, limit: Limit, now: Instant) {
        let now_ms = now.as_millis() as u32;
        if self.running > Limit::Idle {
            let spent = &mut self.spent_ms[self.running as usize - 1];
            *spent = spent.saturating_add(now_ms.wrapping_sub(self.since_ms));
        }
        self.since_ms = now_ms;
        self.running = limit;
    }

    /// Microseconds busy in all, held up by the window, and by the send buffer.
    pub(super) fn read(&self, now: Instant) -> (u64, u64, u64) {
        let mut copy = *self;
        copy.set(self.running, now);
        let [busy, window, buffer] = copy.spent_ms.map(|ms| u64::from(ms) * 1000);
        (busy + window + buffer, window, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_interesting_limit_wins() {
        let at = Instant::from_millis;
        let mut c = Chrono::default();
        c.start(Limit::Busy, at(0));
        c.start(Limit::Window, at(10));
        c.start(Limit::Busy, at(20)); // less interesting: ignored
        c.stop(Limit::Window, false, at(30));
        c.stop(Limit::Busy, true, at(35));
        assert_eq!(c.read(at(100)), (35_000, 20_000, 0));
    }
}
