//! Taking a reduction back when it proves needless: by timestamps (Eifel), by DSACK, or by F-RTO.
//!
//! Rules:   RFC 3522, RFC 3708; Linux `tcp_may_undo`, `tcp_packet_delayed`, `tcp_try_undo_*`.

use crate::observe::CaState;
use crate::tcp::context::Cx;
use crate::tcp::send::ack::{Echo, Work};
use crate::tcp::send::rack::{RECOVERY_THRESH, Rack};
use crate::tcp::send::segments::Marks;
use crate::tcp::send::{Phase, Sender};
use crate::time::Instant;

impl Sender {
    /// Linux `tcp_init_undo`.
    pub(super) fn init_undo(&mut self) {
        self.recovery.undo_marker = Some(self.snd_una);
        // Repeats still in flight may be DSACKed later, a loss probe as well.
        let mut pending = i64::from(self.counts.retrans_out);
        if self.recovery.tlp_high_seq.is_some() && self.recovery.tlp_retrans {
            pending += 1;
        }
        // 0 would mean "may undo now".
        self.recovery.undo_retrans = if pending == 0 { -1 } else { pending };
    }

    /// Linux `tcp_packet_delayed`: the ACK answers the original, not the repeat.
    fn packet_delayed(&self, echo: &Echo) -> bool {
        match self.recovery.retrans_stamp {
            Some(stamp) => echo.is_before(stamp),
            // No repeat has left yet. Without SACK the stamp may have been cleared at high_seq; in SYN-SENT the SYN-ACK clears it.
            None => {
                (self.sack || self.snd_una.before(self.recovery.high_seq)) && self.phase != Phase::SynSent
            }
        }
    }

    /// Linux `tcp_may_undo`.
    fn may_undo(&self, echo: &Echo) -> bool {
        self.recovery.undo_marker.is_some() && (self.recovery.undo_retrans == 0 || self.packet_delayed(echo))
    }

    /// Linux `tcp_undo_cwnd_reduction`.
    fn undo_cwnd_reduction(&mut self, unmark_loss: bool, now: Instant) {
        if unmark_loss {
            for position in 0..self.segments.count() {
                let segment = self.segments.at_mut(position);
                segment.marks = segment.marks.without(Marks::LOST);
            }
            self.counts.lost_out = 0;
            let Rack { sent_at, end_seq, .. } = self.rack;
            if let Some(orders) = self.segments.present() {
                orders.unpark(sent_at, end_seq);
            }
        }
        if self.recovery.prior_ssthresh != 0 {
            let window = &mut self.cwnd.window;
            window.snd_cwnd = window.snd_cwnd.max(self.recovery.prr.prior_cwnd);
            if self.recovery.prior_ssthresh > window.snd_ssthresh {
                window.snd_ssthresh = self.recovery.prior_ssthresh;
                self.cwr_owed = false;
            }
        }
        self.cwnd.stamp = now;
        self.recovery.undo_marker = None;
        self.rack.advanced = true; // Linux: force RACK to look again
    }

    /// Linux `tcp_is_non_sack_preventing_reopen`: NewReno holds the state until something above `high_seq` is acknowledged.
    fn reno_holds(&mut self) -> bool {
        if self.snd_una != self.recovery.high_seq || self.sack {
            return false;
        }
        if !self.any_retrans_done() {
            self.recovery.forget_retrans_stamp();
        }
        true
    }

    /// Everything up to `high_seq` is acknowledged (Linux `tcp_try_undo_recovery`); true: NewReno holds the state.
    pub(super) fn try_undo_recovery(&mut self, echo: &Echo, cx: &mut Cx<'_>) -> bool {
        if self.may_undo(echo) {
            let state = self.recovery.ca_state;
            self.undo_cwnd_reduction(false, cx.now);
            if state == CaState::Loss {
                cx.counters.tcp_loss_undo += 1;
            } else {
                cx.counters.tcp_full_undo += 1;
            }
        } else {
            self.rack.reo_wnd_persist = self.rack.reo_wnd_persist.saturating_sub(1);
        }
        if self.reno_holds() {
            return true;
        }
        self.set_ca_state(CaState::Open, cx);
        self.recovery.is_sack_reneg = false;
        false
    }

    /// Every repeat was DSACKed (Linux `tcp_try_undo_dsack`).
    pub(super) fn try_undo_dsack(&mut self, cx: &mut Cx<'_>) -> bool {
        if self.recovery.undo_marker.is_none() || self.recovery.undo_retrans != 0 {
            return false;
        }
        self.rack.reo_wnd_persist = (self.rack.reo_wnd_persist + 1).min(RECOVERY_THRESH);
        self.undo_cwnd_reduction(false, cx.now);
        cx.counters.tcp_dsack_undo += 1;
        true
    }

    /// A time-out was spurious (Linux `tcp_try_undo_loss`); `proven`: by F-RTO.
    pub(super) fn try_undo_loss(&mut self, work: &Work, proven: bool, cx: &mut Cx<'_>) -> bool {
        if !proven && !self.may_undo(&work.echo) {
            return false;
        }
        self.undo_cwnd_reduction(true, cx.now);
        cx.counters.tcp_loss_undo += 1;
        if proven {
            cx.counters.tcp_spurious_rtos += 1;
        }
        self.retransmits = 0;
        if self.reno_holds() {
            return true;
        }
        if proven || self.sack {
            self.set_ca_state(CaState::Open, cx);
            self.recovery.is_sack_reneg = false;
        }
        true
    }

    /// A partial ACK in Recovery that answers an original (Linux `tcp_try_undo_partial`); true: send nothing again now.
    pub(super) fn try_undo_partial(&mut self, work: &mut Work, cx: &mut Cx<'_>) -> bool {
        if self.recovery.undo_marker.is_none() || !self.packet_delayed(&work.echo) {
            return false;
        }
        self.check_reordering(work.prior_una, true, cx);
        if self.counts.retrans_out != 0 {
            return true;
        }
        if !self.any_retrans_done() {
            self.recovery.forget_retrans_stamp();
        }
        self.undo_cwnd_reduction(true, cx.now);
        cx.counters.tcp_partial_undo += 1;
        self.keep_open(cx);
        false
    }
}
