//! Tail loss probe: the last segment is not left to the retransmission timer.
//!
//! Owns:    nothing; `tlp_high_seq` and `tlp_retrans` are in `recovery`, which clears them.
//! Rules:   RFC 8985 7; Linux `tcp_schedule_loss_probe`, `tcp_send_loss_probe`, `tcp_process_tlp_ack`.

use crate::observe::CaState;
use crate::observe::event::EventKind;
use crate::tcp::context::Cx;
use crate::tcp::send::ack::{Flag, Work};
use crate::tcp::send::nagle::Hold;
use crate::tcp::send::output::Due;
use crate::tcp::send::probe::TIMEOUT_MIN_US;
use crate::tcp::send::rtt::TIMEOUT_INIT_US;
use crate::tcp::send::timer::Pending;
use crate::tcp::send::{PlanKind, SendPlan, Sender};
use crate::tcp::seq::SeqNum;

impl Sender {
    /// Arms the probe where one is allowed. `advancing`: the retransmission timer restarts now (Linux `advancing_rto`).
    pub(super) fn schedule_loss_probe(&mut self, advancing: bool, cx: &Cx<'_>) -> bool {
        if !matches!(cx.sysctl.tcp_early_retrans, 3 | 4)
            || self.counts.packets_out == 0
            || !self.sack
            || !matches!(self.recovery.ca_state, CaState::Open | CaState::Cwr)
        {
            return false;
        }
        let mut timeout_us = if self.rtt.srtt_us == 0 {
            TIMEOUT_INIT_US
        } else if self.counts.packets_out == 1 {
            // The peer may delay the ACK of a lone segment.
            (self.rtt.srtt_us >> 2) + self.rtt.rto_min_us
        } else {
            (self.rtt.srtt_us >> 2) + TIMEOUT_MIN_US
        };
        let rto_us = if advancing { i64::from(self.rtt.rto_us) } else { self.rto_left_us(cx.now) };
        if rto_us > 0 {
            timeout_us = timeout_us.min(rto_us.min(i64::from(u32::MAX)) as u32);
        }
        self.timer.arm(Pending::LossProbe, cx.now, timeout_us.min(self.rtt.rto_max_us));
        true
    }

    /// The probe's time has come; it leaves at the next poll.
    pub(super) fn on_loss_probe_timer(&mut self, cx: &mut Cx<'_>) {
        if self.recovery.tlp_high_seq.is_some() {
            self.rearm_rto(cx.now); // at most one outstanding
        } else {
            self.timer.cancel();
            self.due = Due::LossProbe;
        }
    }

    /// Linux `tcp_send_loss_probe`: one new segment if there is one, else the last again.
    pub(super) fn send_loss_probe(&mut self, mss: u32, cx: &mut Cx<'_>) -> Option<SendPlan> {
        if self.counts.packets_out == 0 {
            return None;
        }
        let mut plan = None;
        let mut repeated = false;
        if self.has_unsent() && self.head_fits_window(mss) {
            plan = self.next_new(mss, Hold::ProbeNow, cx);
        } else if let Some(last) = self.segments.count().checked_sub(1) {
            let segment = self.segments.at(last).expect("counted");
            // Linux: "(pcount - 1) * mss", with what a segment holds now.
            let (len, before_last) = (segment.len(), u32::from(segment.segs - 1) * mss);
            let position = if segment.segs > 1 && len > before_last {
                self.split_segment(last, before_last);
                last + 1
            } else {
                last
            };
            plan = self.transmit_again(position, 1, mss, PlanKind::LossProbe, cx);
            repeated = plan.is_some();
        }
        if plan.is_some() {
            self.recovery.tlp_retrans = repeated;
            self.recovery.tlp_high_seq = Some(self.snd_nxt);
            cx.counters.tcp_loss_probes += 1;
            Self::emit(cx, || EventKind::LossProbe);
            self.burst.probed = true;
            self.timer.cancel(); // so that the RTO restarts from now
        } else {
            self.timer.pending = Some(Pending::LossProbe); // nothing could be sent: the RTO of the head's transmission goes on
        }
        self.rearm_rto(cx.now);
        plan
    }

    /// Linux `tcp_process_tlp_ack`: was the probe needed?
    pub(super) fn on_tlp_ack(&mut self, ack: SeqNum, work: &Work, cx: &mut Cx<'_>) {
        let Some(high) = self.recovery.tlp_high_seq else { return };
        if ack.before(high) {
            return;
        }
        if !self.recovery.tlp_retrans || work.has(Flag::DSACK_TLP) {
            self.recovery.tlp_high_seq = None;
        } else if ack.after(high) {
            // A loss was repaired: the window must shrink as if it had been seen.
            self.begin_cwnd_reduction(cx.now);
            self.set_ca_state(CaState::Cwr, cx);
            self.end_cwnd_reduction(cx.now);
            self.keep_open(cx);
            cx.counters.tcp_loss_probe_recovery += 1;
        } else if !work.has(Flag::SND_UNA_ADVANCED | Flag::NOT_DUP | Flag::DATA_SACKED) {
            self.recovery.tlp_high_seq = None; // both copies arrived: no loss
        }
    }
}
