//! The payload given by the application and not yet acknowledged, as shared slices in order.
//!
//! Owns:    the slices and the growing tail that tiny writes are copied into.
//! Input:   writes at the end, acknowledgments at the front.
//! Output:  slices of any range, shared, never copied.
//! Limits:  a range never takes more than [`MAX_PIECES`] slices: [`PayloadQueue::prepare`] copies them together first.
//! Not here: how much may be queued (`buffer`), SYN and FIN (`send`).

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

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
    /// Where records end (`MSG_EOR`), in order.
    record_ends: VecDeque<SeqNum>,
    /// Bytes of the last super-segment written.
    last_filled: u32,
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

    /// Where records end behind `seq`, in order.
    pub(super) fn record_ends_after(&self, seq: SeqNum) -> impl ExactSizeIterator<Item = SeqNum> {
        static NONE: VecDeque<SeqNum> = VecDeque::new();
        let ends = self.held.as_ref().map_or(&NONE, |held| &held.record_ends);
        ends.range(ends.partition_point(|end| end.at_or_before(seq))..).copied()
    }

    /// A record ends with what is queued.
    pub(super) fn end_record(&mut self) {
        let end = self.end;
        if let Some(held) = self.held.as_mut().filter(|held| held.record_ends.back() != Some(&end)) {
            held.record_ends.push_back(end);
        }
    }

    /// Bytes of the last super-segment written; 0 when nothing is queued.
    pub(super) fn last_filled(&self) -> u32 {
        self.held.as_ref().map_or(0, |held| held.last_filled)
    }

    pub(super) fn set_last_filled(&mut self, bytes: u32) {
        if let Some(held) = &mut self.held {
            held.last_filled = bytes;
        }
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
        while held.record_ends.front().is_some_and(|end| end.at_or_before(una)) {
            held.record_ends.pop_front();
        }
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
