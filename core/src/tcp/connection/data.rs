//! Text and FIN: into the receive queue, or ahead of a hole (Linux `tcp_data_queue`, `tcp_data_queue_ofo`, `tcp_fin`).

use bytes::Bytes;

use crate::observe::life::Side;
use crate::observe::reason::{DropReason, ResetReason};
use crate::stack::Readiness;
use crate::tcp::ack_policy::{MAX_QUICKACKS, Unacknowledged};
use crate::tcp::connection::{Connection, Disposition, Step};
use crate::tcp::context::Cx;
use crate::tcp::half_open::TIMESTAMPS_LEN;
use crate::tcp::paws::ts_clock;
use crate::tcp::receive::Charge;
use crate::tcp::reorder::{Piece, Queued};
use crate::tcp::seq::{SeqNum, SeqRange};
use crate::tcp::state::TcpState;
use crate::wire::segment::Segment;

/// ACKs at once after a mark: the sender's window may be very small.
const ECN_QUICKACKS: u8 = 2;

impl Connection {
    /// "sixth, check the URG bit" (Linux `tcp_urg`).
    pub(super) fn on_urgent(&mut self, segment: &Segment, cx: &mut Cx<'_>) {
        let header = &segment.header;
        if header.flags.urg() {
            let (stdurg, inline) = (cx.sysctl.tcp_stdurg, self.options.oobinline);
            self.recv.announce_urgent(header.seq, header.urg, stdurg, inline);
        }
        if self.recv.mark.take_from(header.seq, &segment.payload) && !self.orphan {
            self.tell(Readiness::PRIORITY);
        }
    }

    /// "seventh, process the segment text" and "eighth, check the FIN bit".
    pub(super) fn on_text(&mut self, segment: &Segment, predicted: bool, cx: &mut Cx<'_>) -> Step {
        let header = &segment.header;
        match self.state {
            // Only what is old may still come: it is acknowledged again.
            TcpState::CloseWait | TcpState::Closing | TcpState::LastAck
                if !header.seq.before(self.recv.rcv_nxt) =>
            {
                return Step::Continue(());
            }
            TcpState::FinWait1
            | TcpState::FinWait2
            | TcpState::CloseWait
            | TcpState::Closing
            | TcpState::LastAck => {
                // RFC 1122 4.2.2.13 (RFC 2525 2.17): data after the application closed is answered with RST.
                let text_end = segment.end_seq() - u32::from(header.flags.fin());
                if self.rcv_shutdown && segment.seq_len() > 0 && text_end.after(self.recv.rcv_nxt) {
                    return Step::Break(self.abort_on_data(segment, cx));
                }
            }
            _ => {}
        }
        // The SYN-ACK of a simultaneous open comes here too: its SYN is old data, answered with a DSACK.
        if segment.seq_len() == 0 {
            return Step::Continue(());
        }
        self.queue_text(segment, predicted, cx)
    }

    fn queue_text(&mut self, segment: &Segment, predicted: bool, cx: &mut Cx<'_>) -> Step {
        let (seq, end_seq) = (segment.header.seq, segment.end_seq());
        let (rcv_nxt, window) = (self.recv.rcv_nxt, self.recv.receive_window());
        let dsack = self.sack && cx.sysctl.tcp_dsack;
        self.reorder.forget_dsack();
        if seq == rcv_nxt {
            // "Some stacks are known to send bare FIN packets in zero window."
            if window == 0 && !segment.payload.is_empty() {
                // Differs from Linux, where both ends may wait for ever: nothing is left to read, so it is what lies
                // behind the hole that keeps the window closed. The peer still has it.
                if self.recv.readable() == 0 {
                    self.prune_reorder(cx);
                }
                cx.counters.tcp_zero_window_drop += 1;
                self.out_of_window(DropReason::TcpZeroWindow, cx);
                return Step::Continue(());
            }
            return self.queue_in_order(segment, 0, predicted, cx);
        }
        if end_seq.at_or_before(rcv_nxt) {
            // "A retransmit, 2nd most common case. Force an immediate ack."
            cx.counters.delayed_ack_lost += 1;
            self.reorder.set_dsack(SeqRange::new(seq, end_seq), rcv_nxt, dsack, cx.counters);
            self.out_of_window(DropReason::TcpOldData, cx);
            return Step::Continue(());
        }
        // "Out of window. F.e. zero window probe."
        if !seq.before(rcv_nxt + window) {
            self.out_of_window(DropReason::TcpOverWindow, cx);
            return Step::Continue(());
        }
        if seq.before(rcv_nxt) {
            // "Partial packet, seq < rcv_next < end_seq"
            self.reorder.set_dsack(SeqRange::new(seq, rcv_nxt), rcv_nxt, dsack, cx.counters);
            if window == 0 {
                cx.counters.tcp_zero_window_drop += 1;
                self.out_of_window(DropReason::TcpZeroWindow, cx);
                return Step::Continue(());
            }
            return self.queue_in_order(segment, rcv_nxt.since(seq), false, cx);
        }
        self.queue_out_of_order(segment, cx);
        Step::Continue(())
    }

    fn out_of_window(&mut self, reason: DropReason, cx: &mut Cx<'_>) {
        self.drop(reason, cx);
        self.acks.enter_quickack(MAX_QUICKACKS, self.recv.rcv_wnd);
        self.acks.schedule();
    }

    /// The first `skip` bytes are there already.
    fn queue_in_order(&mut self, segment: &Segment, skip: u32, predicted: bool, cx: &mut Cx<'_>) -> Step {
        let payload = segment.payload.slice(skip.min(segment.payload.len() as u32) as usize..);
        let len = payload.len() as u32;
        let charge = self.charge_of(segment);
        // Linux: what was predicted goes into memory that is reserved already, whatever the buffer's limit is.
        if !predicted && !self.make_room(segment.header.seq, cx) {
            // Linux: ICSK_ACK_NOMEM: the ACK says window 0, and the segment is dropped unless the queue is empty.
            self.acks.no_memory = true;
            self.acks.schedule();
            self.acks.send_now();
            if self.recv.readable() > 0 && len > 0 {
                cx.counters.tcp_rcv_q_drop += 1;
                self.drop(DropReason::ReceiveBuffer, cx);
                return Step::Continue(());
            }
        }
        let reserves = charge.truesize > self.forward_alloc();
        let joined = self.deliver(payload, segment.truesize, charge, skip == 0, cx);
        if joined && reserves {
            self.recv.keep_reserve();
        }
        if len > 0 {
            self.on_data_event(segment, charge, cx);
        }
        if segment.header.flags.fin() {
            self.on_fin(cx)?;
        }
        if !self.reorder.is_empty() {
            self.fill_hole(joined, cx)?;
        }
        self.reorder.forget_blocks(self.recv.rcv_nxt);
        if self.is_readable() {
            self.tell(Readiness::READABLE);
        }
        Step::Continue(())
    }

    /// What `rcv_nxt` has reached is delivered (Linux `tcp_ofo_queue`). `joins`: it may go behind the packet before it. That
    /// cannot be the packet that has just come: a sniffer of it, as every judge of packets is one, has not let go of it.
    fn fill_hole(&mut self, mut joins: bool, cx: &mut Cx<'_>) -> Step {
        let (covered, dsack) = (self.recv.rcv_nxt, self.sack && cx.sysctl.tcp_dsack);
        while let Some(mut piece) = self.reorder.pop(self.recv.rcv_nxt, covered, dsack, cx.counters) {
            let whole = piece.range.start == self.recv.rcv_nxt;
            piece.trim_front(self.recv.rcv_nxt);
            self.deliver(piece.data, piece.truesize, piece.charge, whole && joins, cx);
            joins = true;
            if piece.fin {
                self.on_fin(cx)?;
            }
        }
        if self.reorder.is_empty() && self.acks.is_scheduled() {
            // RFC 5681 4.2: "SHOULD send immediate ACK, when gap in queue is filled."
            self.acks.send_now();
        }
        Step::Continue(())
    }

    /// `joins`: it may go behind the packet before it. True when it did.
    fn deliver(
        &mut self,
        payload: Bytes,
        truesize: u32,
        charge: Charge,
        joins: bool,
        cx: &mut Cx<'_>,
    ) -> bool {
        self.life.bytes_received += payload.len() as u64;
        self.recv.push(payload, truesize, charge, joins, cx.counters)
    }

    /// Memory that is reserved and holds nothing (Linux `sk_forward_alloc`).
    pub(super) fn forward_alloc(&self) -> u32 {
        let elsewhere = u64::from(self.reorder.charge()) + self.send.queued_bytes();
        self.recv.forward_alloc(elsewhere)
    }

    /// What the packet that brought `segment` costs.
    pub(super) fn charge_of(&self, segment: &Segment) -> Charge {
        let options = if segment.header.options.timestamps.is_some() { TIMESTAMPS_LEN } else { 0 };
        let headers = self.header_overhead() + options;
        let (len, segs) = (segment.payload.len() as u32, u32::from(segment.segs.max(1)));
        if segs == 1 {
            Charge::of(headers + len)
        } else {
            Charge::of_merged(headers + len.div_ceil(segs), segs)
        }
    }

    /// Room for a packet at `seq` (Linux `tcp_try_rmem_schedule`, `tcp_prune_queue`); false: there is none.
    fn make_room(&mut self, seq: SeqNum, cx: &mut Cx<'_>) -> bool {
        if self.recv.can_ingest(self.reorder.charge()) {
            return true;
        }
        cx.counters.prune_called += 1;
        self.acks.clear_quick();
        let may_grow = !cx.limits.under_pressure && cx.limits.is_below_low(cx.sysctl);
        let advmss = self.advmss_less_options();
        self.recv.clamp_window(self.reorder.charge(), advmss, may_grow, cx.sysctl);
        if self.recv.can_ingest(self.reorder.charge()) {
            return true;
        }
        let goal = self.recv.rcvbuf() >> 3;
        let collapsed =
            self.reorder.collapse(goal, |space| self.recv.window_of(space)) + self.recv.collapse();
        cx.counters.tcp_rcv_collapsed += collapsed as u64;
        let mut pruned = false;
        while !self.recv.can_ingest(self.reorder.charge()) && self.reorder.prune(seq, goal) {
            pruned = true;
        }
        cx.counters.ofo_pruned += u64::from(pruned);
        let fits = self.recv.can_ingest(self.reorder.charge());
        cx.counters.rcv_pruned += u64::from(!fits);
        fits
    }

    /// Linux `tcp_event_data_recv`.
    fn on_data_event(&mut self, segment: &Segment, charge: Charge, cx: &mut Cx<'_>) {
        let len = segment.payload.len() as u32;
        let seg_len = len.div_ceil(u32::from(segment.segs.max(1)));
        match (self.ts(), segment.header.options.timestamps) {
            (Some(ts), Some(seen)) => {
                let tsecr = if seen.tsecr == 0 { 0 } else { seen.tsecr.wrapping_sub(ts.offset) };
                self.recv.measure_rtt_by_echo(tsecr, ts_clock(cx.now, 0), seg_len, self.acks.rcv_mss());
            }
            _ => self.recv.measure_rtt_by_window(cx.now),
        }
        let env = self.ack_env(cx);
        self.measure_segment(segment, charge);
        self.acks.on_data(&env);
        self.on_ecn_bits(segment);
        // Linux tcp_event_data_recv(): "if (skb->len >= 128)".
        if len >= 128 {
            self.grow_window(segment, charge, self.reorder.charge(), cx);
        }
    }

    /// Linux `tcp_data_ecn_check`: data only, in order or not.
    fn on_ecn_bits(&mut self, segment: &Segment) {
        if self.ecn.on_data(segment.ecn()) {
            self.acks.enter_quickack(ECN_QUICKACKS, self.recv.rcv_wnd);
        }
    }

    /// Linux `tcp_measure_rcv_mss`.
    fn measure_segment(&mut self, segment: &Segment, charge: Charge) {
        let seg_len = (segment.payload.len() as u32).div_ceil(u32::from(segment.segs.max(1)));
        let (flags, options) = (segment.header.flags, &segment.header.options);
        let timestamps = |on: bool| if on { TIMESTAMPS_LEN } else { 0 };
        let blocks = match options.sack.as_slice().len() as u32 {
            0 => 0,
            // Two bytes of padding in front, as everybody writes them.
            blocks => 4 + 8 * blocks,
        };
        let header_len = 20 + timestamps(options.timestamps.is_some()) + blocks;
        let own_len = 20 + timestamps(self.has_timestamps);
        let rcv_mss = self.acks.rcv_mss();
        let advmss = self.advmss_less_options();
        self.acks.measure_rcv_mss(seg_len, header_len, own_len, flags, advmss);
        if seg_len > rcv_mss {
            self.recv.on_rcv_mss(segment.payload.len() as u32, charge);
        }
    }

    /// Linux `tcp_grow_window`. `ofo`: what is charged ahead of holes.
    fn grow_window(&mut self, segment: &Segment, charge: Charge, ofo: u32, cx: &Cx<'_>) {
        let len = segment.payload.len() as u32;
        let advmss = self.advmss_less_options();
        if cx.limits.under_pressure {
            // Linux tcp_adjust_rcv_ssthresh().
            self.recv.rcv_ssthresh = self.recv.rcv_ssthresh.min(4 * advmss);
            return;
        }
        if self.recv.grow_window(len, charge, advmss, self.acks.rcv_mss(), ofo, cx.sysctl) {
            self.acks.quick_once();
        }
    }

    fn queue_out_of_order(&mut self, segment: &Segment, cx: &mut Cx<'_>) {
        let (len, charge) = (segment.payload.len() as u32, self.charge_of(segment));
        self.on_ecn_bits(segment);
        if !self.make_room(segment.header.seq, cx) {
            // Nothing is owed for it: the peer is not told (Linux tcp_data_queue_ofo()).
            cx.counters.tcp_ofo_drop += 1;
            self.drop(DropReason::TcpOfoDrop, cx);
            return;
        }
        cx.counters.tcp_ofo_queue += 1;
        self.rcv_ooopack = self.rcv_ooopack.wrapping_add(u32::from(segment.segs));
        // A small payload would pin its packet's buffer: copied.
        let (data, truesize) = if len * 2 < segment.truesize {
            (Bytes::copy_from_slice(&segment.payload), len)
        } else {
            (segment.payload.clone(), segment.truesize)
        };
        let piece = Piece {
            range: SeqRange::new(segment.header.seq, segment.end_seq()),
            data,
            fin: segment.header.flags.fin(),
            truesize,
            charge,
        };
        self.measure_segment(segment, charge);
        self.acks.schedule();
        let (range, dsack) = (piece.range, self.sack && cx.sysctl.tcp_dsack);
        let queued = self.reorder.insert(self.recv.rcv_nxt, piece, dsack, cx.counters);
        if self.sack {
            if self.reorder.crowds(range) && self.acks.release() {
                self.push_ack(cx);
            }
            self.reorder.remember(range);
        }
        // "For non sack flows, do not grow window to force DUPACK and trigger fast retransmit."
        if self.sack && queued != Queued::Known {
            // Linux tcp_data_queue_ofo() charges the packet only then.
            let own = if queued == Queued::Kept { charge.truesize } else { 0 };
            self.grow_window(segment, charge, self.reorder.charge() - own, cx);
        }
        // Linux: "do not grow rcvbuf for not-yet-accepted or orphaned sockets."
        if self.has_holder && !self.orphan {
            self.recv.grow_for_holes(self.reorder.span(self.recv.rcv_nxt), cx.sysctl);
        }
    }

    /// Linux `tcp_prune_ofo_queue`: the peer still has it.
    fn prune_reorder(&mut self, cx: &mut Cx<'_>) {
        if self.reorder.purge() > 0 {
            cx.counters.ofo_pruned += 1;
        }
    }

    /// Data after close: RST, and the end.
    fn abort_on_data(&mut self, segment: &Segment, cx: &mut Cx<'_>) -> Disposition {
        cx.counters.tcp_abort_on_data += 1;
        self.drop(DropReason::TcpAbortOnData, cx);
        self.reset_by_segment(segment, ResetReason::AbortOnData, cx)
    }

    /// Linux `tcp_fin`: the peer is finished, in order.
    fn on_fin(&mut self, cx: &mut Cx<'_>) -> Step {
        self.recv.take_fin();
        self.acks.schedule();
        self.rcv_shutdown = true;
        self.life.fin_received_at = Some(cx.now);
        self.life.first_close = self.life.first_close.or(Some(Side::Remote));
        self.tell(Readiness(Readiness::READABLE.0 | Readiness::PEER_CLOSED.0));
        match self.state {
            TcpState::SynRecv | TcpState::Established => {
                self.set_state(TcpState::CloseWait, cx);
                // "enters ping-pong mode, the ACK of the FIN may be delayed about 40 ms"
                self.acks.enter_pingpong(cx.sysctl.tcp_pingpong_thresh);
            }
            // These two acknowledge before they forget what came ahead of the FIN.
            TcpState::FinWait1 => {
                self.push_ack(cx);
                self.set_state(TcpState::Closing, cx);
            }
            TcpState::FinWait2 => {
                self.push_ack(cx);
                return Step::Break(self.enter_time_wait(cx));
            }
            _ => {}
        }
        // "It _is_ possible, that we have something out-of-order _after_ FIN."
        self.reorder.purge();
        Step::Continue(())
    }

    /// Linux `tcp_ack_snd_check`, once a segment is processed.
    pub(super) fn settle_ack(&mut self, cx: &mut Cx<'_>) {
        if !self.acks.is_scheduled() || self.acks.is_owed_now() {
            return;
        }
        let charge = self.reorder.charge();
        let (window, half_full) = self.recv.select_window(self.acks.rcv_mss(), charge, cx.sysctl);
        let waiting = self.recv.rcv_nxt.since(self.recv.copied_seq);
        // Linux asks for the window only then, and asking ends quick ACKs (`__tcp_select_window`).
        let asked = self.recv.rcv_nxt.since(self.recv.rcv_wup) > self.acks.rcv_mss();
        if half_full && asked && waiting >= self.options.rcvlowat {
            self.acks.clear_quick();
        }
        let unacknowledged = Unacknowledged {
            rcv_nxt: self.recv.rcv_nxt.0,
            bytes: self.recv.rcv_nxt.since(self.recv.rcv_wup),
            window_holds: waiting < self.options.rcvlowat || window >= self.recv.rcv_wnd,
            has_holes: !self.reorder.is_empty(),
            sack: self.sack,
            comp_nr: cx.sysctl.tcp_comp_sack_nr,
            comp_delay: cx.sysctl.tcp_comp_sack_delay,
            rcv_rtt: match (self.recv.rtt(), self.send.srtt()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        };
        let env = self.ack_env(cx);
        self.acks.on_segment_end(&unacknowledged, &env);
    }
}
