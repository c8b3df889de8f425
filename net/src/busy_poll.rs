//! Whether to look again before sleeping, as Linux's `net.core.busy_poll`.
//!
//! Owns:    how closely messages have come one after the other: small packets, each the first after a sleep or a look in vain.
//! Rules:   only a conversation is waited for: a few messages in a row, each within the time after the one before. One that came
//!          later, or did not come, ends that; an idle or a slow link costs nothing.

use lastack_core::time::{Duration, Instant};

/// Messages within the time, one after the other, that make a conversation.
const ROW: u8 = 4;

#[derive(Debug)]
pub(crate) struct BusyPoll {
    last: Instant,
    row: u8,
}

impl BusyPoll {
    pub(crate) fn new() -> Self {
        Self { last: Instant::ZERO, row: 0 }
    }

    /// A look at `now` has found a message, or none. True: the next is worth looking for, at most for `time` since the last.
    pub(crate) fn looks_again(&mut self, has_found: bool, now: Instant, time: Duration) -> bool {
        let is_close = now.saturating_since(self.last) < time;
        if has_found {
            self.row = if is_close { (self.row + 1).min(ROW) } else { 0 };
            self.last = now;
        }
        self.row == ROW && (is_close || has_found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_micros(100);

    fn at(us: u64) -> Instant {
        Instant::from_micros(1_000_000 + us)
    }

    #[test]
    fn a_conversation_is_waited_for_and_nothing_else() {
        let mut busy = BusyPoll::new();
        for n in 0..=3 {
            assert!(!busy.looks_again(true, at(50 * n), TIME), "packet {n}");
        }
        assert!(busy.looks_again(true, at(200), TIME), "the fifth");
        assert!(busy.looks_again(false, at(299), TIME));
        assert!(!busy.looks_again(false, at(300), TIME), "it did not come in time");
        assert!(!busy.looks_again(true, at(400), TIME), "it came too late: a new row");
        assert!(!busy.looks_again(true, at(450), TIME));
    }

    #[test]
    fn packets_that_are_far_apart_cost_nothing() {
        let mut busy = BusyPoll::new();
        assert!((0..100).all(|n| !busy.looks_again(true, at(100 * n), TIME)));
        let mut off = BusyPoll::new();
        assert!((0..100).all(|n| !off.looks_again(true, at(n), Duration::ZERO)));
    }
}
