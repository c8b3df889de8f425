//! The one timer of the sending half, shared by four purposes as Linux's `icsk_pending` says.
//!
//! Owns:    which purpose is pending and when it fires.
//! Not here: what happens when it fires (`recovery`, `tlp`, `rack`, `probe`).

use crate::time::{Duration, Instant};

/// What the timer is armed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pending {
    /// Linux `ICSK_TIME_RETRANS`.
    Retransmit,
    /// Linux `ICSK_TIME_LOSS_PROBE`.
    LossProbe,
    /// Linux `ICSK_TIME_REO_TIMEOUT`.
    Reorder,
    /// Linux `ICSK_TIME_PROBE0`.
    WindowProbe,
}

/// The timer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    pub(super) at: Instant,
    pub(super) pending: Option<Pending>,
}

impl Timer {
    pub(super) const IDLE: Self = Self { at: Instant::FAR_FUTURE, pending: None };

    /// Fires `after_us` microseconds from `now`, for `purpose` and nothing else.
    pub(super) fn arm(&mut self, purpose: Pending, now: Instant, after_us: u32) {
        self.pending = Some(purpose);
        self.at = now + Duration::from_micros(u64::from(after_us));
    }

    pub(super) fn cancel(&mut self) {
        *self = Self::IDLE;
    }

    pub(super) fn is(&self, purpose: Pending) -> bool {
        self.pending == Some(purpose)
    }
}
