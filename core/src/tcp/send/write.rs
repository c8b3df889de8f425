//! How what is written is cut into super-segments, and when a write sends before it has ended.
//!
//! Owns:    nothing; the queue keeps the [`Chunk`](super::queue::Chunk)s.
//! Rules:   Linux `tcp_sendmsg_locked`, `tcp_push`, `tcp_xmit_size_goal`; ends of records (`MSG_EOR`) are `tcp_skb_can_collapse_to`.
//! Not here: how much fits (`buffer`), what of it leaves (`output`).

use bytes::Bytes;

use crate::tcp::context::Cx;
use crate::tcp::options::TcpOptions;
use crate::tcp::send::chrono::Limit;
use crate::tcp::send::nagle::Hold;
use crate::tcp::send::output::Due;
use crate::tcp::send::recovery::Rexmit;
use crate::tcp::send::{Phase, Sender};
use crate::tcp::seq::SeqNum;

/// Largest super-segment, bytes (Linux `sk_gso_max_size`).
const GSO_MAX: u32 = 65_535 - 192;

/// What the application says of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Write {
    Plain,
    /// `MSG_MORE`: until something else happens a partial segment stays.
    More,
    /// `MSG_OOB`: the last byte is urgent.
    Urgent,
}

impl Sender {
    /// Copies of `data` what there is room for into the queue; returns how many bytes. Room is looked at before each new
    /// super-segment, not before each byte.
    pub(crate) fn push_slice(
        &mut self,
        data: &[u8],
        write: Write,
        options: &TcpOptions,
        options_len: u32,
        cx: &mut Cx<'_>,
    ) -> usize {
        let lowat = options.notsent_lowat.unwrap_or(cx.sysctl.tcp_notsent_lowat);
        let (mss, goal) = self.goal(write, options_len);
        let mut taken = 0;
        while taken < data.len() {
            let mut room = self.room_in_last_chunk(goal);
            if room == 0 {
                if self.is_full() || self.write_seq.since(self.snd_nxt) >= lowat {
                    break;
                }
                room = goal;
            }
            let part = &data[taken..data.len().min(taken + room as usize)];
            if taken == 0 {
                self.before_write(cx);
            }
            self.queue.push_slice(part);
            self.append(part.len() as u32, goal, taken == 0);
            taken += part.len();
            if taken < data.len() {
                self.push_full_chunk(goal, mss, write, cx);
            }
        }
        if taken < data.len() {
            self.nospace = true;
        }
        if taken > 0 {
            if taken < data.len() {
                // Linux, "wait_for_space": tcp_push() with TCP_NAGLE_PUSH and without MSG_MORE.
                self.mark_push();
                if write == Write::Urgent {
                    self.mark_urgent();
                }
                self.send_on_paper(Hold::Nothing, mss, cx);
            }
            self.after_write(write);
        }
        taken
    }

    /// Queues payload; tiny slices are coalesced into the last one (copied), large ones shared. The caller looked at [`Sender::is_full`].
    pub(crate) fn push(&mut self, data: Bytes, options_len: u32, cx: &mut Cx<'_>) {
        if data.is_empty() {
            return;
        }
        self.before_write(cx);
        let (mss, goal) = self.goal(Write::Plain, options_len);
        let mut left = data.len() as u32;
        let mut first = true;
        self.queue.push(data);
        while left > 0 {
            let part = match self.room_in_last_chunk(goal) {
                0 => goal,
                room => room,
            }
            .min(left);
            self.append(part, goal, first);
            (left, first) = (left - part, false);
            if left > 0 {
                self.push_full_chunk(goal, mss, Write::Plain, cx);
            }
        }
        self.after_write(Write::Plain);
    }

    fn before_write(&mut self, cx: &mut Cx<'_>) {
        debug_assert!(!self.fin_queued, "nothing follows a FIN");
        self.push_now = false;
        // Linux tcp_skb_entail().
        self.restart_after_idle(cx);
        self.chrono.start(Limit::Busy, cx.now);
    }

    /// `len` more bytes, in the last chunk or a new one.
    fn append(&mut self, len: u32, goal: u32, first: bool) {
        if self.room_in_last_chunk(goal) == 0 {
            self.queue.begin_chunk(self.write_seq);
        }
        self.write_seq += len;
        let end = self.write_seq;
        let chunk = self.queue.last_chunk().expect("begun above at the latest");
        chunk.end = end;
        chunk.psh &= !first;
    }

    /// Linux: "if (forced_push(tp)) … else if (skb == tcp_send_head(sk)) tcp_push_one()".
    fn push_full_chunk(&mut self, goal: u32, mss: u32, write: Write, cx: &mut Cx<'_>) {
        if self.room_in_last_chunk(goal) > 0 || write == Write::Urgent {
            return;
        }
        if self.is_push_forced() {
            self.mark_push();
            self.send_on_paper(Hold::Nothing, mss, cx);
        } else if self.queue.unsent().len() == 1 {
            self.send_on_paper(Hold::PushOne, mss, cx);
        }
    }

    /// Sends of what was written so far, before the write ends: it is on the wire with the next polls.
    fn send_on_paper(&mut self, hold: Hold, mss: u32, cx: &mut Cx<'_>) {
        // What is to be repeated comes first: then nothing leaves before the poll.
        if self.phase != Phase::Established
            || self.due != Due::Nothing
            || self.recovery.rexmit != Rexmit::None
        {
            return;
        }
        self.deferred = false;
        self.burst.new_stamp();
        while let Some(plan) = self.next_new(mss, hold, cx) {
            self.queue.plan(plan);
            if hold == Hold::PushOne {
                break;
            }
        }
    }

    /// Where the next new segment begins for the peer: what was sent on paper is not on the wire.
    pub(crate) fn next_on_wire(&self) -> SeqNum {
        self.queue.first_plan().map_or(self.snd_nxt, |plan| plan.seq.max(self.snd_una))
    }

    fn after_write(&mut self, write: Write) {
        if write != Write::More || self.is_push_forced() {
            self.mark_push();
        }
        self.more = write == Write::More;
        self.deferred = false;
        if self.is_full() {
            self.nospace = true;
        }
        self.burst.new_stamp();
        self.unsettled = true;
    }

    /// Linux `tcp_mark_push`: PSH at the end of what is queued.
    pub(super) fn mark_push(&mut self) {
        if let Some(chunk) = self.queue.last_chunk() {
            chunk.psh = true;
            self.pushed_seq = self.write_seq;
        }
    }

    /// Linux `forced_push`: at least each half of the peer's window.
    fn is_push_forced(&self) -> bool {
        self.write_seq.after(self.pushed_seq + (self.max_window >> 1))
    }

    /// What was written so far ends a record: the next write begins a new super-segment.
    pub(crate) fn end_record(&mut self) {
        if let Some(chunk) = self.queue.last_chunk() {
            chunk.eor = true;
        }
    }

    /// Payload that is next to be sent: of one super-segment as it was written.
    pub(super) fn next_payload(&self) -> u32 {
        self.queue
            .unsent()
            .front()
            .map_or(0, |chunk| chunk.end.since(self.snd_nxt))
            .min(self.unsent_payload())
    }

    /// The next `size` bytes may leave as one segment (Linux `tcp_can_coalesce_send_queue_head`).
    pub(super) fn may_join(&self, size: u32) -> bool {
        let end = self.snd_nxt + size;
        self.queue.unsent().iter().take_while(|chunk| chunk.end.before(end)).all(|chunk| !chunk.eor)
    }

    /// Payload of a segment now, and of a super-segment that is filled.
    pub(super) fn goal(&self, write: Write, options_len: u32) -> (u32, u32) {
        let mss = u32::from(self.mss).saturating_sub(options_len).max(1);
        (mss, if write == Write::Urgent { mss } else { self.size_goal(mss) })
    }

    /// Linux `tcp_xmit_size_goal`: no more than half of the largest window the peer ever had.
    fn size_goal(&self, mss: u32) -> u32 {
        let bound = match self.max_window {
            0 => GSO_MAX,
            window if window > u32::from(crate::tcp::mss::MSS_DEFAULT) => GSO_MAX.min(window / 2),
            window => window,
        };
        (bound / mss).max(1) * mss
    }

    /// Bytes the last unsent super-segment still takes; 0: the next byte begins a new one.
    pub(super) fn room_in_last_chunk(&self, goal: u32) -> u32 {
        let unsent = self.queue.unsent();
        let Some(last) = unsent.back().filter(|last| !last.eor) else { return 0 };
        let start = unsent.len().checked_sub(2).map_or(self.snd_nxt, |n| unsent[n].end);
        goal.saturating_sub(last.end.since(SeqNum::max(start, self.snd_nxt)))
    }
}
