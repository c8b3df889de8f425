//! Marking segments lost, and sending them again.
//!
//! Rules:   Linux `tcp_mark_skb_lost`, `tcp_xmit_retransmit_queue`, `__tcp_retransmit_skb`, `tcp_retrans_try_collapse`,
//!          `tcp_simple_retransmit`.
//! Cost:    the search for the next segment to repeat starts at a hint that only a new loss moves back.

use crate::observe::CaState;
use crate::observe::event::EventKind;
use crate::tcp::context::Cx;
use crate::tcp::send::recovery::Rexmit;
use crate::tcp::send::segments::Marks;
use crate::tcp::send::timer::Pending;
use crate::tcp::send::{Due, Phase, PlanKind, SendPlan, Sender};
use crate::tcp::state::TcpState;

impl Sender {
    /// Linux `tcp_mark_skb_lost`.
    pub(super) fn mark_lost(&mut self, position: usize, cx: &mut Cx<'_>) {
        let segment = self.segments.at_mut(position);
        let segs = u32::from(segment.segs);
        if segment.marks.has(Marks::SACKED) {
            return;
        }
        if !segment.marks.has(Marks::LOST) {
            segment.marks = segment.marks.with(Marks::LOST);
            self.counts.lost_out += segs;
        } else if segment.marks.has(Marks::RETRANS) {
            segment.marks = segment.marks.without(Marks::RETRANS);
            self.counts.retrans_out -= segs;
            cx.counters.tcp_lost_retransmit += u64::from(segs);
        } else {
            return;
        }
        self.recovery.hint = self.recovery.hint.min(segment.start);
        self.recovery.totals.lost = self.recovery.totals.lost.wrapping_add(segs);
    }

    /// NewReno: the first segment is lost, and nothing is known of the others.
    pub(super) fn mark_head_lost(&mut self, cx: &mut Cx<'_>) {
        let Some(head) = self.segments.front() else { return };
        if head.marks.has(Marks::LOST) {
            return;
        }
        let mss = u32::from(head.mss);
        if head.segs > 1 && head.len() > mss {
            self.split_segment(0, mss);
        }
        self.mark_lost(0, cx);
        self.segments.park(0);
    }

    /// A record with `marks` stands for `fewer` segments less (Linux `tcp_adjust_pcount`).
    fn shrink_counts(&mut self, marks: Marks, fewer: i64) {
        self.counts.shrink(marks, fewer);
        if !self.sack && fewer > 0 {
            // Without SACK the duplicates belong to nobody: some go with the segments.
            self.counts.sacked_out = self.counts.sacked_out.saturating_sub(fewer as u32);
        }
    }

    /// Cuts a record; a cut off the segment grid changes how many segments it stands for.
    pub(super) fn split_segment(&mut self, position: usize, len: u32) {
        let before = *self.segments.at(position).expect("a record to cut");
        self.segments.split(position, len);
        let after =
            [position, position + 1].map(|part| i64::from(self.segments.at(part).expect("both parts").segs));
        self.shrink_counts(before.marks, i64::from(before.segs) - after[0] - after[1]);
    }

    /// The record's payload is cut into segments of `mss` bytes from now on (Linux `tcp_set_skb_tso_segs`).
    fn recut(&mut self, position: usize, mss: u32) {
        let segment = self.segments.at_mut(position);
        let (marks, before) = (segment.marks, i64::from(segment.segs));
        segment.mss = mss.min(u32::from(u16::MAX)) as u16;
        segment.recount();
        let after = i64::from(segment.segs);
        self.shrink_counts(marks, before - after);
    }

    /// The next lost segment the window lets out (Linux `tcp_xmit_retransmit_queue`).
    pub(super) fn next_retransmission(&mut self, mss: u32, cx: &mut Cx<'_>) -> Option<SendPlan> {
        let room = self.cwnd.window.snd_cwnd.checked_sub(self.counts.in_flight()).filter(|room| *room > 0)?;
        if self.counts.retrans_out >= self.counts.lost_out {
            return None;
        }
        let mut position = self.segments.position(self.recovery.hint);
        loop {
            let segment = self.segments.at(position)?;
            if segment.marks.has(Marks::LOST) && !segment.marks.has(Marks::SACKED.with(Marks::RETRANS)) {
                break;
            }
            position += 1;
        }
        let segs = room.min(self.tso_segs(mss, cx));
        let plan = self.transmit_again(position, segs, mss, PlanKind::Retransmit, cx)?;
        self.recovery.hint = plan.seq + plan.len;
        let sent = u32::from(self.segments.at(position).expect("just sent").segs);
        let counter = if self.recovery.ca_state == CaState::Loss {
            &mut cx.counters.tcp_slow_start_retrans
        } else {
            &mut cx.counters.tcp_fast_retrans
        };
        *counter += u64::from(sent);
        if self.in_cwnd_reduction() {
            self.recovery.prr.out += sent;
        }
        if position == 0 && !self.timer.is(Pending::Reorder) {
            self.timer.arm(Pending::Retransmit, cx.now, self.rtt.rto_us);
        }
        Some(plan)
    }

    /// Sends at most `segs` segments of the record at `position` again (Linux `__tcp_retransmit_skb`).
    pub(super) fn transmit_again(
        &mut self,
        position: usize,
        segs: u32,
        mss: u32,
        kind: PlanKind,
        cx: &mut Cx<'_>,
    ) -> Option<SendPlan> {
        self.forget_mtu_probe();
        let snd_una = self.snd_una;
        let mut segment = *self.segments.at(position)?;
        if segment.start.before(snd_una) {
            // Linux __tcp_retransmit_skb(): tcp_trim_head(); an ACK in the middle of a lone segment has left it whole.
            segment.start = snd_una;
            self.segments.at_mut(position).start = snd_una;
        }
        let window = self.wnd_end().0.wrapping_sub(segment.start.0) as i32;
        let window = if window > 0 {
            window as u32
        } else if segment.start == self.snd_una {
            mss // a shut window: one segment serves as the probe
        } else {
            return None;
        };
        let segs = if self.is_urgent() { 1 } else { segs };
        let limit = mss.saturating_mul(segs);
        let limit = if limit > window && window >= mss { window - window % mss } else { limit.min(window) };
        if u32::from(segment.mss) != mss {
            self.recut(position, mss);
        }
        if segment.len() > limit {
            self.split_segment(position, limit);
        } else {
            self.collapse(position, window.min(mss));
        }
        let at = self.burst.stamp(cx.now);
        let tx = self.tx_stamps(at);
        self.segments.resent(position, at, tx);
        let segment = self.segments.at_mut(position);
        segment.marks = segment.marks.with(Marks::EVER_RETRANS);
        if kind == PlanKind::Retransmit {
            // Linux tcp_retransmit_skb(); a loss probe is not counted as a repeat in flight. A head whose repeat was believed to be in
            // flight when the time-out struck counts twice ("retrans_out leaked"), until nothing is in flight.
            segment.marks = segment.marks.with(Marks::RETRANS);
            self.counts.retrans_out += u32::from(segment.segs);
        }
        let segment = *segment;
        let pieces = u32::from(segment.segs);
        if kind == PlanKind::Retransmit {
            self.recovery.retrans_stamp.get_or_insert(cx.now);
            self.recovery.undo_retrans = self.recovery.undo_retrans.max(0) + i64::from(pieces);
        }
        cx.counters.retrans_segs += u64::from(pieces);
        if segment.marks.has(Marks::SYN) {
            cx.counters.tcp_syn_retrans += 1;
        }
        let len = segment.len();
        self.recovery.totals.retrans = self.recovery.totals.retrans.wrapping_add(pieces);
        self.recovery.totals.bytes_retrans += u64::from(len);
        if len > 0 {
            self.count_data(pieces, len, cx.now);
        }
        if len > 0 {
            self.queue.prepare(segment.start, segment.start + len);
        }
        if kind == PlanKind::Retransmit {
            // The conductor knows the state and fills it in when it signs.
            Self::emit(cx, || EventKind::Retransmit {
                seq: segment.start,
                len: segment.end.since(segment.start),
                state: TcpState::Established,
            });
        }
        Some(SendPlan {
            seq: segment.start,
            len,
            syn: segment.marks.has(Marks::SYN),
            fin: segment.marks.has(Marks::FIN),
            psh: segment.marks.has(Marks::PSH),
            cwr: false,
            segment_size: mss,
            kind,
        })
    }

    /// Joins small segments behind this one to it (Linux `tcp_retrans_try_collapse`).
    fn collapse(&mut self, position: usize, space: u32) {
        let first = *self.segments.at(position).expect("a record");
        if first.marks.has(Marks::SYN.with(Marks::FIN)) || first.segs > 1 || first.len() >= space {
            return;
        }
        let mut room = space - first.len();
        while let Some(next) = self.segments.at(position + 1).copied() {
            let ends_record = self.segments.at(position).is_some_and(|first| first.marks.has(Marks::EOR));
            let joins = next.segs == 1
                && !ends_record
                && !next.marks.has(Marks::SACKED)
                && next.len() <= room
                && !next.end.after(self.wnd_end());
            if !joins {
                return;
            }
            room -= next.len();
            self.shrink_counts(next.marks, i64::from(next.segs));
            self.segments.join_next(position);
            if next.marks.has(Marks::FIN) {
                return;
            }
        }
    }

    /// The path takes less than was sent (Linux `tcp_simple_retransmit`): repeat it, the window is not to blame.
    pub(super) fn resend_too_big(&mut self, cx: &mut Cx<'_>) {
        let mss = u32::from(self.mss);
        // "A fastopen SYN request is stored as two separate packets": both are lost, whatever their sizes.
        let syn_data = self.phase == Phase::SynSent && self.segments.count() > 1;
        self.cwr_owed |= self.queue.drop_plans_larger_than(mss);
        for position in 0..self.segments.count() {
            let segment = self.segments.at(position).expect("counted");
            let size = if segment.segs == 1 { segment.len() } else { u32::from(segment.mss) };
            if syn_data || size > mss {
                self.mark_lost(position, cx);
                self.segments.park(position);
            }
        }
        if self.counts.lost_out == 0 {
            return;
        }
        if syn_data {
            self.due = Due::LostSyn;
        }
        if !self.sack {
            self.limit_reno_sacked();
        }
        self.resend_lost(cx);
    }

    /// Linux `tcp_non_congestion_loss_retransmit`.
    pub(super) fn resend_lost(&mut self, cx: &mut Cx<'_>) {
        if self.recovery.ca_state != CaState::Loss {
            self.recovery.high_seq = self.snd_nxt;
            self.cwnd.window.snd_ssthresh = self.current_ssthresh();
            self.recovery.prior_ssthresh = 0;
            self.recovery.undo_marker = None;
            self.set_ca_state(CaState::Loss, cx);
        }
        self.recovery.rexmit = Rexmit::Lost;
    }
}
