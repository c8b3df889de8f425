//! Is a segment of a synchronised state acceptable? (Linux `tcp_validate_incoming`; RFC 9293 3.10.7.4, RFC 5961, RFC 7323 5.)

use crate::observe::reason::DropReason;
use crate::tcp::ack_policy::MAX_QUICKACKS;
use crate::tcp::connection::{Connection, Disposition, Step};
use crate::tcp::context::Cx;
use crate::tcp::seq::SeqRange;
use crate::tcp::state::TcpState;
use crate::wire::segment::Segment;

/// Why a sequence number is not acceptable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outside {
    Left,
    Right,
}

impl Connection {
    /// First to fourth check. `Break`: the segment is done with.
    pub(super) fn validate(&mut self, segment: &Segment, cx: &mut Cx<'_>) -> Step {
        let header = &segment.header;
        let flags = header.flags;
        if !flags.ack() && !flags.rst() && !flags.syn() {
            self.drop(DropReason::TcpNoAck, cx);
            return Step::Break(Disposition::Keep);
        }
        // RFC 7323 5.3 R1, before the sequence number. A RST passes.
        if self.is_too_old(segment, cx) && !flags.rst() {
            if flags.syn() {
                return self.challenge_syn(cx);
            }
            // Linux tcp_disordered_ack_check(): "Old ACK are common, increment PAWS_OLD_ACK and do not send a dupack."
            if flags.ack() && segment.seq_len() == 0 && header.seq.before(self.recv.rcv_nxt) {
                cx.counters.paws_old_ack += 1;
                self.drop(DropReason::TcpPaws, cx);
                return Step::Break(Disposition::Keep);
            }
            cx.counters.paws_estab += 1;
            self.drop(DropReason::TcpPaws, cx);
            if self.answer_is_limited(segment, cx) {
                cx.counters.tcp_ack_skipped_paws += 1;
            } else {
                self.send_dup_ack(segment, cx);
            }
            return Step::Break(Disposition::Keep);
        }
        // "first, check sequence number".
        if let Some(side) = self.outside_window(segment) {
            if flags.rst() {
                if self.resets_after_fin(segment) {
                    return Step::Break(self.on_reset(cx));
                }
                self.drop(DropReason::TcpOverWindow, cx);
                return Step::Break(Disposition::Keep);
            }
            if flags.syn() {
                return self.challenge_syn(cx);
            }
            let reason = match side {
                Outside::Left => DropReason::TcpOldSequence,
                Outside::Right => {
                    cx.counters.beyond_window += 1;
                    DropReason::TcpInvalidSequence
                }
            };
            self.drop(reason, cx);
            if self.answer_is_limited(segment, cx) {
                cx.counters.tcp_ack_skipped_seq += 1;
            } else {
                self.send_dup_ack(segment, cx);
            }
            return Step::Break(Disposition::Keep);
        }
        // "second, check the RST bit"; RFC 5961 3.2, extended by Linux to the highest SACK block.
        if flags.rst() {
            let exact = header.seq == self.recv.rcv_nxt
                || self.resets_after_fin(segment)
                || (self.sack && self.reorder.highest_block_end() == Some(header.seq));
            return if exact {
                Step::Break(self.on_reset(cx))
            } else {
                self.suspect_reset_before_data(cx);
                self.challenge_ack(DropReason::TcpReset, cx)
            };
        }
        // "fourth, check the SYN bit"; RFC 5961 4.2. The SYN-ACK of a simultaneous open is the exception.
        if flags.syn() {
            let finishes_simultaneous_open = self.state == TcpState::SynRecv
                && flags.ack()
                && segment.end_seq() == header.seq + 1
                && header.seq + 1 == self.recv.rcv_nxt
                && header.ack == self.send.snd_nxt();
            if !finishes_simultaneous_open {
                return self.challenge_syn(cx);
            }
        }
        if !flags.ack() {
            self.drop(DropReason::TcpNoAck, cx);
            return Step::Break(Disposition::Keep);
        }
        Step::Continue(())
    }

    fn challenge_syn(&mut self, cx: &mut Cx<'_>) -> Step {
        if self.state == TcpState::Established {
            cx.counters.in_errs += 1;
        }
        cx.counters.tcp_syn_challenge += 1;
        self.challenge_ack(DropReason::TcpInvalidSyn, cx)
    }

    /// Linux `tcp_paws_discard`: too old, and not merely a pure ACK that was overtaken.
    fn is_too_old(&self, segment: &Segment, cx: &Cx<'_>) -> bool {
        let (Some(ts), Some(seen)) = (self.ts(), segment.header.options.timestamps) else { return false };
        if !ts.discards(seen.tsval, cx.now) {
            return false;
        }
        // "1. Pure ACK with correct sequence number. 2. ... and duplicate ACK. 3. ... and does not update window.
        // 4. ... and sits in replay window."
        let header = &segment.header;
        !(header.flags.ack()
            && segment.seq_len() == 0
            && header.seq == self.recv.rcv_nxt
            && header.ack == self.send.snd_una()
            && !self.send.may_update_window(header.seq, header.ack, u32::from(header.wnd) << self.snd_wscale)
            && i128::from(ts.lag(seen.tsval)) <= (self.send.rto() * 6 / 5).as_millis() as i128)
    }

    /// Linux `tcp_sequence`, as of 6.17: the end beyond the edge counts too unless nothing waits to be read.
    fn outside_window(&self, segment: &Segment) -> Option<Outside> {
        let (seq, end_seq) = (segment.header.seq, segment.end_seq());
        if end_seq.before(self.recv.rcv_wup) {
            return Some(Outside::Left);
        }
        let edge = self.recv.rcv_nxt + self.recv.receive_window();
        if seq.after(edge) {
            return Some(Outside::Right);
        }
        let end_of_text = end_seq - u32::from(segment.header.flags.fin());
        // A FIN that nobody has read about waits in the receive queue too.
        let waits = self.recv.readable() > 0 || (self.recv.fin && !self.eof_read);
        (end_of_text.after(edge) && waits).then_some(Outside::Right)
    }

    /// Linux `tcp_reset_check`: after a FIN, a RST at `rcv_nxt - 1` comes from a peer that never counted it.
    fn resets_after_fin(&self, segment: &Segment) -> bool {
        segment.header.flags.rst()
            && segment.header.seq == self.recv.rcv_nxt - 1
            && matches!(self.state, TcpState::CloseWait | TcpState::LastAck | TcpState::Closing)
    }

    /// Linux `tcp_oow_rate_limited`: "Data packets without SYNs are not likely part of an ACK loop."
    fn answer_is_limited(&mut self, segment: &Segment, cx: &Cx<'_>) -> bool {
        if segment.seq_len() != 0 && !segment.header.flags.syn() {
            return false;
        }
        self.challenge.is_exceeded(cx.now, cx.sysctl.tcp_invalid_ratelimit)
    }

    /// Linux `tcp_send_dupack`: repeated data is told with a DSACK.
    fn send_dup_ack(&mut self, segment: &Segment, cx: &mut Cx<'_>) {
        let (seq, end_seq) = (segment.header.seq, segment.end_seq());
        if end_seq != seq && seq.before(self.recv.rcv_nxt) {
            cx.counters.delayed_ack_lost += 1;
            self.acks.enter_quickack(MAX_QUICKACKS, self.recv.rcv_wnd);
            let range = SeqRange::new(seq, end_seq.min(self.recv.rcv_nxt));
            self.reorder.set_dsack(range, self.recv.rcv_nxt, self.sack && cx.sysctl.tcp_dsack, cx.counters);
        }
        self.acks.send_now();
    }
}
