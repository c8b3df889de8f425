//! RACK: a segment is lost when one sent later has arrived and the reordering window has passed.
//!
//! Owns:    the most recently sent delivered segment, its round-trip time, the width of the reordering window.
//! Rules:   RFC 8985 6; Linux `tcp_recovery.c`.
//! Cost:    each call looks at what it marks lost plus one record, whatever is in flight.
//! Differs: the reordering window starts at `min_rtt / 4` as in Linux.

use crate::observe::CaState;
use crate::tcp::context::Cx;
use crate::tcp::send::Sender;
use crate::tcp::send::ack::us_between;
use crate::tcp::send::probe::TIMEOUT_MIN_US;
use crate::tcp::send::recovery::Rexmit;
use crate::tcp::send::segments::{Marks, SentSegment};
use crate::tcp::send::timer::Pending;
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// Linux `TCP_RACK_RECOVERY_THRESH`: recoveries a widened window lasts.
pub(super) const RECOVERY_THRESH: u8 = 16;

/// RACK's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rack {
    pub(super) sent_at: Instant,
    pub(super) end_seq: SeqNum,
    rtt_us: u32,
    /// `delivered` when the window was last widened.
    last_delivered: u32,
    reo_wnd_steps: u8,
    pub(super) reo_wnd_persist: u8,
    pub(super) dsack_seen: bool,
    /// Something was delivered since losses were last looked for.
    pub(super) advanced: bool,
}

impl Default for Rack {
    fn default() -> Self {
        Self {
            sent_at: Instant::ZERO,
            end_seq: SeqNum(0),
            rtt_us: 0,
            last_delivered: 0,
            reo_wnd_steps: 1,
            reo_wnd_persist: 0,
            dsack_seen: false,
            advanced: false,
        }
    }
}

impl Rack {
    /// The delivered segment was sent after (`sent_at`, `end`), sequence numbers deciding ties.
    fn is_after(&self, sent_at: Instant, end: SeqNum) -> bool {
        self.sent_at > sent_at || (self.sent_at == sent_at && self.end_seq.after(end))
    }
}

impl Sender {
    /// The record at `position` was delivered (Linux `tcp_rack_advance`). Call before it leaves the time order.
    pub(super) fn rack_advance(&mut self, position: usize, now: Instant) {
        let segment = *self.segments.at(position).expect("a delivered record");
        let rtt_us = us_between(segment.sent_at, now);
        // A repeat cannot be answered faster than the least RTT: it was the original that arrived.
        if segment.marks.has(Marks::RETRANS.with(Marks::EVER_RETRANS)) && rtt_us < self.rtt.min.get() {
            return;
        }
        self.rack.advanced = true;
        self.rack.rtt_us = rtt_us;
        let newer = segment.sent_at > self.rack.sent_at
            || (segment.sent_at == self.rack.sent_at && segment.end.after(self.rack.end_seq));
        if newer {
            self.rack.sent_at = segment.sent_at;
            self.rack.end_seq = segment.end;
            self.segments.rack_advanced(position);
        }
    }

    /// Linux `tcp_rack_reo_wnd`, microseconds.
    fn reordering_window_us(&self, cx: &Cx<'_>) -> u32 {
        if self.recovery.reord_seen == 0 {
            // No reordering seen on this path: be quick in recovery, or once enough was SACKed.
            if self.recovery.ca_state >= CaState::Recovery
                || (self.counts.sacked_out >= self.recovery.reordering && cx.sysctl.tcp_recovery & 4 == 0)
            {
                return 0;
            }
        }
        (self.rtt.min.get() >> 2)
            .saturating_mul(u32::from(self.rack.reo_wnd_steps))
            .min(self.rtt.smoothed_us())
    }

    /// Microseconds until `segment` counts as lost; 0 or less: it does (Linux `tcp_rack_skb_timeout`).
    pub(super) fn rack_timeout_us(&self, segment: &SentSegment, window_us: u32, now: Instant) -> i64 {
        i64::from(self.rack.rtt_us) + i64::from(window_us) - i64::from(us_between(segment.sent_at, now))
    }

    /// Marks what is lost; returns microseconds until the last doubtful segment is decided (Linux `tcp_rack_detect_loss`).
    fn rack_detect_loss(&mut self, cx: &mut Cx<'_>) -> u32 {
        let window_us = self.reordering_window_us(cx);
        while let Some(segment) = self.segments.oldest().copied() {
            if !self.rack.is_after(segment.sent_at, segment.end) {
                return 0;
            }
            if self.rack_timeout_us(&segment, window_us, cx.now) > 0 {
                // Those behind it were sent later, so they wait longer: the last one decides.
                let last = self.segments.newest_before_rack().copied().unwrap_or(segment);
                return self.rack_timeout_us(&last, window_us, cx.now).max(0) as u32;
            }
            let position = self.segments.position(segment.start);
            self.mark_lost(position, cx);
            self.segments.settle(position);
        }
        0
    }

    /// After an ACK (Linux `tcp_rack_mark_lost`): true when the reorder timer was armed.
    pub(super) fn rack_mark_lost(&mut self, cx: &mut Cx<'_>) -> bool {
        if !self.rack.advanced {
            return false;
        }
        self.rack.advanced = false;
        let timeout_us = self.rack_detect_loss(cx);
        if timeout_us > 0 {
            let after = timeout_us.saturating_add(TIMEOUT_MIN_US).min(self.rtt.rto_us);
            self.timer.arm(Pending::Reorder, cx.now, after);
        }
        timeout_us > 0
    }

    /// The reorder timer fired (Linux `tcp_rack_reo_timeout`).
    pub(super) fn on_reorder_timer(&mut self, cx: &mut Cx<'_>) {
        let in_flight = self.counts.in_flight();
        let lost = self.recovery.totals.lost;
        self.rack_detect_loss(cx);
        if self.counts.in_flight() != in_flight {
            if self.recovery.ca_state != CaState::Recovery {
                self.enter_recovery(false, cx);
                let newly_lost = self.recovery.totals.lost.wrapping_sub(lost) > 0;
                self.reduce_cwnd(1, false, newly_lost);
            }
            self.recovery.rexmit = Rexmit::Lost;
        }
        if !self.timer.is(Pending::Retransmit) {
            self.rearm_rto(cx.now);
        }
    }

    /// DSACKs widen the window once a round trip (Linux `tcp_rack_update_reo_wnd`).
    pub(super) fn rack_adapt(&mut self, prior_delivered: Option<u32>, cx: &Cx<'_>) {
        let Some(prior) = prior_delivered else { return };
        if cx.sysctl.tcp_recovery & 2 != 0 {
            return;
        }
        if (prior.wrapping_sub(self.rack.last_delivered) as i32) < 0 {
            self.rack.dsack_seen = false;
        }
        if self.rack.dsack_seen {
            self.rack.reo_wnd_steps = self.rack.reo_wnd_steps.saturating_add(1);
            self.rack.dsack_seen = false;
            self.rack.last_delivered = self.totals.delivered;
            self.rack.reo_wnd_persist = RECOVERY_THRESH;
        } else if self.rack.reo_wnd_persist == 0 {
            self.rack.reo_wnd_steps = 1;
        }
    }
}
