//! The payload given by the application and not yet acknowledged, as shared slices in order.
//!
//! Owns:    the slices and the growing tail that tiny writes are copied into.
//! Input:   writes at the end, acknowledgments at the front.
//! Output:  slices of any range, shared, never copied.
//! Limits:  a range never takes more than [`MAX_PIECES`] slices: [`PayloadQueue::prepare`] copies them together first.
//! Beside:  what was written and not sent, cut as it was written ([`Chunk`]), and what a write sent before it ended ([`SendPlan`]).
//! Not here: how much may be queued (`buffer`), SYN and FIN (`send`).

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::tcp::send::SendPlan;
use crate::tcp::seq::SeqNum;

/// Writes shorter than this are copied into the tail, bytes.
const COALESCE_BELOW: usize = 2048;
/// First and largest capacity of the tail, bytes.
const TAIL_MIN: usize = 2048;
const TAIL_MAX: usize = 65_536;
/// `writev` takes 1,024 pieces, headers included.
const MAX_PIECES: usize = 1000;

#[derive(Debug)]
struct Slice {
    start: SeqNum,
    bytes: Bytes,
}

impl Slice {
    fn end(&self) -> SeqNum {
        self.start + self.bytes.len() as u32
    }
}

/// What was written into one super-segment and was not sent yet (Linux: an `sk_buff` of `sk_write_queue`). It begins where the one
/// before it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub(super) end: SeqNum,
    /// PSH is due at its end.
    pub(super) psh: bool,
    /// A record ends with it (`MSG_EOR`).
    pub(super) eor: bool,
}

/// Payload from `start` to `end` of sequence space; no memory while it is empty.
#[derive(Debug)]
pub(super) struct PayloadQueue {
    start: SeqNum,
    end: SeqNum,
    held: Option<Box<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    slices: VecDeque<Slice>,
    /// Begins where the last slice ends.
    tail: BytesMut,
    /// The slice that was last prepared: the next piece of new data begins there or in the one behind.
    hint: usize,
    unsent: VecDeque<Chunk>,
    /// What a write sent before it ended, and was not asked for yet.
    planned: VecDeque<SendPlan>,
}

impl Held {
    fn freeze_tail(&mut self, end: SeqNum) {
        if !self.tail.is_empty() {
            let bytes = self.tail.split().freeze();
            let start = end - bytes.len() as u32;
            self.slices.push_back(Slice { start, bytes });
        }
    }

    /// Copies the slices `first..last` together.
    fn compact(&mut self, first: usize, last: usize) {
        let slices = &mut self.slices;
        let length = slices.range(first..last).map(|slice| slice.bytes.len()).sum();
        let mut joined = BytesMut::with_capacity(length);
        for slice in slices.range(first..last) {
            joined.extend_from_slice(&slice.bytes);
        }
        slices[first].bytes = joined.freeze();
        slices.drain(first + 1..last);
        self.hint = first;
    }

    fn index_of(&self, seq: SeqNum) -> usize {
        let slices = &self.slices;
        // Repeats are at the front, new data where the last piece ended: look there before searching.
        if let Some(first) = slices.front()
            && seq.before(first.end())
        {
            return 0;
        }
        for index in [self.hint, self.hint + 1] {
            if let Some(slice) = slices.get(index)
                && seq.at_or_after(slice.start)
                && seq.before(slice.end())
            {
                return index;
            }
        }
        slices.partition_point(|slice| slice.end().at_or_before(seq))
    }
}

impl PayloadQueue {
    pub(super) fn new(start: SeqNum) -> Self {
        Self { start, end: start, held: None }
    }

    /// Payload bytes queued.
    pub(super) fn len(&self) -> u32 {
        self.end.since(self.start)
    }

    /// First sequence number after the payload.
    pub(super) fn end(&self) -> SeqNum {
        self.end
    }

    /// What was written and not sent, in order.
    pub(super) fn unsent(&self) -> &VecDeque<Chunk> {
        static NONE: VecDeque<Chunk> = VecDeque::new();
        self.held.as_ref().map_or(&NONE, |held| &held.unsent)
    }

    /// A chunk begins where the last one ends.
    pub(super) fn begin_chunk(&mut self, at: SeqNum) {
        self.held.get_or_insert_default().unsent.push_back(Chunk { end: at, psh: false, eor: false });
    }

    pub(super) fn last_chunk(&mut self) -> Option<&mut Chunk> {
        self.held.as_mut()?.unsent.back_mut()
    }

    pub(super) fn first_chunk(&mut self) -> Option<&mut Chunk> {
        self.held.as_mut()?.unsent.front_mut()
    }

    /// Everything before `snd_nxt` was sent. The last chunk that is gone with it, if PSH or a record's end is due there.
    pub(super) fn chunks_sent(&mut self, snd_nxt: SeqNum) -> (bool, bool) {
        let Some(held) = &mut self.held else { return (false, false) };
        let (mut psh, mut eor) = (false, false);
        while let Some(first) = held.unsent.front()
            && first.end.at_or_before(snd_nxt)
        {
            (psh, eor) = (psh || first.psh, first.eor);
            held.unsent.pop_front();
        }
        (psh, eor)
    }

    /// The first chunk, which begins at `snd_nxt`, takes payload from the one behind it until it has `most` bytes (Linux `tcp_grow_skb`).
    pub(super) fn grow_first(&mut self, snd_nxt: SeqNum, most: u32) {
        let Some(held) = &mut self.held else { return };
        let (Some(first), Some(next)) = (held.unsent.front().copied(), held.unsent.get(1).copied()) else {
            return;
        };
        let missing = most.saturating_sub(first.end.since(snd_nxt));
        if first.eor || missing == 0 {
            return;
        }
        if missing < next.end.since(first.end) {
            held.unsent[0].end += missing;
        } else {
            held.unsent.pop_front();
            held.unsent[0].psh |= first.psh;
        }
    }

    /// Sent on paper: leaves with the next poll.
    pub(super) fn plan(&mut self, plan: SendPlan) {
        self.held.get_or_insert_default().planned.push_back(plan);
    }

    /// The first of those.
    pub(super) fn first_plan(&self) -> Option<&SendPlan> {
        self.held.as_ref()?.planned.front()
    }

    /// Takes back those whose segments are larger than `size`; true: one of them was to tell of a reduced window.
    pub(super) fn drop_plans_larger_than(&mut self, size: u32) -> bool {
        let Some(held) = &mut self.held else { return false };
        let is_too_large = |plan: &SendPlan| plan.len.min(plan.segment_size) > size;
        let tells = held.planned.iter().any(|plan| plan.cwr && is_too_large(plan));
        held.planned.retain(|plan| !is_too_large(plan));
        tells
    }

    /// The next of those whose payload still waits for an acknowledgment. True: one that does not any more was to tell of a reduced
    /// window.
    pub(super) fn take_plan(&mut self) -> (Option<SendPlan>, bool) {
        let Some(held) = self.held.as_mut() else { return (None, false) };
        let mut untold = false;
        while let Some(mut plan) = held.planned.pop_front() {
            let acked = (self.start.0.wrapping_sub(plan.seq.0) as i32).max(0) as u32;
            if acked < plan.len {
                (plan.seq, plan.len) = (plan.seq + acked, plan.len - acked);
                return (Some(plan), untold);
            }
            untold |= plan.cwr;
        }
        (None, untold)
    }

    /// Appends a slice without copying, or a tiny one by copying.
    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() < COALESCE_BELOW {
            self.push_slice(&data);
        } else {
            let held = self.held.get_or_insert_default();
            held.freeze_tail(self.end);
            let start = self.end;
            self.end += data.len() as u32;
            held.slices.push_back(Slice { start, bytes: data });
        }
    }

    /// Appends by copying.
    pub(super) fn push_slice(&mut self, mut data: &[u8]) {
        let held = self.held.get_or_insert_default();
        while !data.is_empty() {
            let mut room = held.tail.capacity() - held.tail.len();
            if room == 0 {
                let grown = (held.tail.len() * 2).max(TAIL_MIN);
                held.freeze_tail(self.end);
                let capacity = data.len().max(grown).min(TAIL_MAX);
                held.tail = BytesMut::with_capacity(capacity);
                room = held.tail.capacity();
            }
            let n = room.min(data.len());
            held.tail.extend_from_slice(&data[..n]);
            self.end += n as u32;
            data = &data[n..];
        }
    }

    /// Forgets everything before `una`; gives the memory back when nothing is left.
    pub(super) fn acked(&mut self, una: SeqNum) {
        if !una.after(self.start) {
            return;
        }
        let una = una.min(self.end);
        self.start = una;
        if una == self.end {
            self.held = None;
            return;
        }
        let Some(held) = &mut self.held else { return };
        while let Some(first) = held.slices.front_mut() {
            if first.end().at_or_before(una) {
                held.slices.pop_front();
                held.hint = held.hint.saturating_sub(1);
            } else {
                if first.start.before(una) {
                    first.bytes.advance(una.since(first.start) as usize);
                    first.start = una;
                }
                return;
            }
        }
        let tail_start = self.end - held.tail.len() as u32;
        if tail_start.before(una) {
            held.tail.advance(una.since(tail_start) as usize);
        }
    }

    /// Makes `[from, to)` readable by [`PayloadQueue::copy`]: freezes the tail where it is touched, and copies
    /// too many tiny slices together.
    pub(super) fn prepare(&mut self, from: SeqNum, to: SeqNum) {
        let Some(held) = &mut self.held else { return };
        if to.after(self.end - held.tail.len() as u32) {
            held.freeze_tail(self.end);
        }
        let first = held.index_of(from);
        held.hint = first;
        // Few slices in all: no need to count those of the range.
        if held.slices.len() - first > MAX_PIECES {
            let last = held.slices.partition_point(|slice| slice.start.before(to));
            if last - first > MAX_PIECES {
                held.compact(first, last);
            }
        }
    }

    /// Appends the slices of `[from, from + len)`, shared. The range was prepared.
    pub(super) fn copy(&self, from: SeqNum, len: u32, out: &mut Vec<Bytes>) {
        let Some(held) = &self.held else { return };
        let to = from + len;
        let mut at = from;
        for slice in held.slices.range(held.index_of(from).min(held.slices.len())..) {
            if !at.before(to) {
                break;
            }
            let skip = at.since(slice.start) as usize;
            let take = (to.since(at) as usize).min(slice.bytes.len() - skip);
            out.push(slice.bytes.slice(skip..skip + take));
            at += take as u32;
        }
        debug_assert_eq!(at, to, "the range was queued and prepared");
    }

    /// Drops everything; sequence space stays.
    pub(super) fn clear(&mut self) {
        self.start = self.end;
        self.held = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(queue: &mut PayloadQueue, from: SeqNum, len: u32) -> (Vec<u8>, usize) {
        queue.prepare(from, from + len);
        let mut out = Vec::new();
        queue.copy(from, len, &mut out);
        (out.concat(), out.len())
    }

    #[test]
    fn large_slices_are_shared_not_copied() {
        let mut queue = PayloadQueue::new(SeqNum(u32::MAX - 10));
        let data = Bytes::from(vec![7u8; 5000]);
        let place = data.as_ptr();
        queue.push(data);
        queue.prepare(SeqNum(u32::MAX - 10), SeqNum(u32::MAX - 10) + 5000);
        let mut out = Vec::new();
        queue.copy(SeqNum(u32::MAX - 10) + 100, 1000, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].as_ptr(), place.wrapping_add(100));
    }

    #[test]
    fn tiny_writes_grow_one_tail() {
        let mut queue = PayloadQueue::new(SeqNum(0));
        for i in 0..2000u32 {
            queue.push_slice(&[i as u8]);
        }
        let (bytes, pieces) = read(&mut queue, SeqNum(0), 2000);
        assert!(bytes.iter().enumerate().all(|(i, b)| *b == i as u8));
        assert_eq!(pieces, 1);
    }

    fn chunk(queue: &mut PayloadQueue, end: u32, psh: bool, eor: bool) {
        queue.begin_chunk(SeqNum(end));
        *queue.last_chunk().expect("begun") = Chunk { end: SeqNum(end), psh, eor };
    }

    fn ends(queue: &PayloadQueue) -> Vec<(u32, bool)> {
        queue.unsent().iter().map(|chunk| (chunk.end.0, chunk.psh)).collect()
    }

    #[test]
    fn the_first_chunk_grows_by_one_other_and_not_past_a_record() {
        let mut queue = PayloadQueue::new(SeqNum(0));
        for (end, psh, eor) in
            [(500, true, false), (1000, false, false), (1500, true, true), (2000, true, false)]
        {
            chunk(&mut queue, end, psh, eor);
        }
        queue.grow_first(SeqNum(0), 2896);
        assert_eq!(
            ends(&queue),
            [(1000, true), (1500, true), (2000, true)],
            "one, with what is marked in either"
        );
        queue.grow_first(SeqNum(0), 1200);
        assert_eq!(ends(&queue), [(1200, true), (1500, true), (2000, true)]);
        assert_eq!(queue.chunks_sent(SeqNum(1200)), (true, false));
        queue.grow_first(SeqNum(1200), 2896);
        assert_eq!(ends(&queue), [(1500, true), (2000, true)], "a record ends there");
        assert_eq!(queue.chunks_sent(SeqNum(1400)), (false, false), "part of it stays");
        assert_eq!(queue.chunks_sent(SeqNum(1500)), (true, true));
    }

    #[test]
    fn a_writev_never_takes_more_than_its_pieces() {
        let mut queue = PayloadQueue::new(SeqNum(0));
        for i in 0..5000u32 {
            queue.push_slice(&[i as u8]);
            queue.prepare(SeqNum(i), SeqNum(i + 1)); // each byte was sent alone
        }
        let (bytes, pieces) = read(&mut queue, SeqNum(0), 5000);
        assert!(bytes.iter().enumerate().all(|(i, b)| *b == i as u8));
        assert!(pieces <= MAX_PIECES, "{pieces}");
    }

    #[test]
    fn acknowledged_bytes_are_given_back() {
        let mut queue = PayloadQueue::new(SeqNum(10));
        queue.push(Bytes::from(vec![1u8; 4000]));
        queue.push_slice(&[2u8; 500]);
        queue.acked(SeqNum(10) + 4100);
        assert_eq!(queue.len(), 400);
        assert_eq!(read(&mut queue, SeqNum(4110), 400).0, vec![2u8; 400]);
        queue.acked(SeqNum(10) + 4500);
        assert_eq!((queue.len(), queue.held.is_some()), (0, false));
    }
}
