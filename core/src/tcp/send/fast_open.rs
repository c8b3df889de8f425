//! The sender's part in Fast Open: data in the SYN, and a sender that begins before its SYN-ACK is acknowledged.
//!
//! Rules:   Linux `tcp_send_syn_data`, `tcp_rcv_fastopen_synack`, `tcp_rcv_synrecv_state_fastopen`.

use crate::observe::CaState;
use crate::tcp::context::Cx;
use crate::tcp::options::TcpOptions;
use crate::tcp::send::ack::Echo;
use crate::tcp::send::{AckView, Phase, Sender, Write};
use crate::time::Duration;

impl Sender {
    // ---- the server's side

    /// The SYN-ACK has only been sent; [`Sender::count_syn_ack`] counts it when it is acknowledged.
    pub(crate) fn uncount_syn_ack(&mut self) {
        self.totals.delivered = 0;
    }

    /// Linux `tcp_synack_rtt_meas`: unless data has told a round trip before.
    pub(crate) fn measure_syn_ack(&mut self, rtt: Duration, cx: &Cx<'_>) {
        if self.rtt.srtt_us == 0 {
            self.handshake_sample(rtt, cx);
        }
    }

    /// The SYN-ACK is acknowledged (Linux `tcp_rcv_synrecv_state_fastopen`): its timer ends and the sender's own begins, because data may
    /// be on the wire.
    pub(crate) fn end_opening(&mut self, view: &AckView<'_>, cx: &mut Cx<'_>) {
        if self.recovery.ca_state == CaState::Loss && self.counts.packets_out == 0 {
            self.try_undo_recovery(&Echo::of(view, cx.now), cx);
        }
        if let Some(trouble) = self.recovery.trouble() {
            trouble.totals.end_of_timeouts(cx.now);
        }
        self.retransmits = 0;
        if !self.any_retrans_done() {
            self.recovery.forget_retrans_stamp();
        }
        self.rearm_rto(cx.now);
    }

    /// The SYN-ACK timed out and goes again (Linux `tcp_fastopen_synack_timer`). The second time counts as a time-out of data, of which
    /// nothing is sent again yet.
    pub(crate) fn syn_ack_timed_out(&mut self, cx: &mut Cx<'_>) {
        if self.retransmits == 1 {
            self.enter_loss(cx);
        }
        let trouble = &mut *self.recovery;
        trouble.totals.timed_out(self.retransmits == 0, cx.now);
        trouble.retrans_stamp.get_or_insert(cx.now);
        self.retransmits = self.retransmits.saturating_add(1);
    }

    /// The SYN-ACK was sent again (Linux `tcp_rtx_synack`).
    pub(crate) fn count_syn_ack_repeat(&mut self) {
        self.recovery.totals.retrans += 1;
    }

    // ---- the client's side

    /// Queues data that leaves in the SYN; how much was taken.
    pub(crate) fn put_into_syn(&mut self, data: &[u8], options: &TcpOptions, cx: &mut Cx<'_>) -> usize {
        debug_assert!(self.phase == Phase::SynOwed, "before the SYN");
        self.push_slice(data, Write::Plain, options, 0, cx)
    }

    /// The SYN had data: it is on record behind the SYN.
    pub(crate) fn has_unacked_payload(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Segments sent again so far.
    pub(crate) fn total_retransmits(&self) -> u32 {
        self.recovery.totals.retrans
    }

    /// The SYN-ACK left the SYN's data out: it goes again at once, and the window is not to blame.
    pub(crate) fn lose_syn_data(&mut self, cx: &mut Cx<'_>) {
        for position in 0..self.segments.count() {
            self.mark_lost(position, cx);
            self.segments.park(position);
        }
        self.resend_lost(cx);
    }

    /// "SYN-data is counted as two separate packets in tcp_ack()".
    pub(crate) fn uncount_one_of_two(&mut self) {
        if self.totals.delivered > 1 {
            self.totals.delivered -= 1;
        }
    }
}
