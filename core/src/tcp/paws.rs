//! Timestamps: our clock on the wire, the peer's last value, and protection against wrapped sequence numbers.
//!
//! Rules: RFC 7323 3–5. Linux: `tcp_paws_check`, `tcp_paws_discard`, `tcp_paws_reject`, `tcp_replace_ts_recent`.

use crate::time::{Duration, Instant};

/// Linux `TCP_PAWS_24DAYS`.
const PAWS_24_DAYS: Duration = Duration::from_secs(60 * 60 * 24 * 24);
/// Linux `TCP_PAWS_MSL`.
const PAWS_MSL: Duration = Duration::from_secs(60);
/// Linux `TCP_PAWS_WINDOW`: a value one older is still taken in a synchronised state.
const PAWS_WINDOW: i32 = 1;

/// Timestamp state of a connection that agreed on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TsState {
    /// The peer's value to echo; 0 before the first.
    pub(crate) recent: u32,
    /// When `recent` was stored.
    pub(crate) stored: Instant,
    /// Added to our millisecond clock on the wire.
    pub(crate) offset: u32,
}

/// Our timestamp clock on the wire: milliseconds plus the pair's offset.
pub(crate) fn ts_clock(now: Instant, offset: u32) -> u32 {
    (now.as_millis() as u32).wrapping_add(offset)
}

impl TsState {
    /// Stores the peer's value (RFC 7323 4.3: only from segments at or left of the last ACK sent; the caller checked).
    pub(crate) fn store(&mut self, tsval: u32, now: Instant) {
        if self.passes(tsval, 0, now) {
            self.recent = tsval;
            self.stored = now;
        }
    }

    /// Linux `tcp_paws_check`.
    fn passes(&self, tsval: u32, window: i32, now: Instant) -> bool {
        self.recent.wrapping_sub(tsval) as i32 <= window
            || now.saturating_since(self.stored) >= PAWS_24_DAYS
            || self.recent == 0
    }

    /// True when a segment in a synchronised state is too old, apart from the harmless disordered pure ACK.
    pub(crate) fn discards(&self, tsval: u32, now: Instant) -> bool {
        !self.passes(tsval, PAWS_WINDOW, now)
    }

    /// How much older than the last stored value, milliseconds; negative when newer.
    pub(crate) fn lag(&self, tsval: u32) -> i32 {
        self.recent.wrapping_sub(tsval) as i32
    }

    /// Linux `tcp_paws_reject`, for half-open and mini sockets: a RST is let through once the value is a minute old.
    pub(crate) fn rejects(&self, tsval: u32, rst: bool, now: Instant) -> bool {
        let lets_rst_through = rst && now.saturating_since(self.stored) >= PAWS_MSL;
        !lets_rst_through && !self.passes(tsval, 0, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_is_refused_until_24_days_have_passed() {
        let mut ts = TsState { recent: 0, stored: Instant::ZERO, offset: 0 };
        let now = Instant::from_millis(1_000);
        ts.store(500, now);
        assert!(!ts.discards(500, now) && !ts.discards(499, now) && ts.discards(498, now));
        assert!(ts.rejects(499, false, now));
        assert!(!ts.discards(10, now + PAWS_24_DAYS));
        ts.store(100, now);
        assert_eq!(ts.recent, 500, "an older value is never stored");
        ts.store(u32::MAX / 2 + 400, now);
        assert_eq!(ts.recent, u32::MAX / 2 + 400, "newer across the sign bit");
    }

    #[test]
    fn old_rst_is_let_through_after_a_minute() {
        let mut ts = TsState { recent: 0, stored: Instant::ZERO, offset: 0 };
        ts.store(500, Instant::ZERO);
        assert!(ts.rejects(400, true, Instant::from_millis(59_999)));
        assert!(!ts.rejects(400, true, Instant::from_millis(60_000)));
    }
}
