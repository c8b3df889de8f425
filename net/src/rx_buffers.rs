//! Receive buffers: one 64 KiB buffer serves every small packet; big ones keep theirs and it comes back later.
//!
//! Owns:    the buffer to read into, and a bounded row of buffers that the stack still shares.
//! Rules:   nothing is allocated while buffers come back. What the stack keeps of a small packet it copies
//!          (copy-break), so that the buffer is free again when `handle_packet` returns.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::device::MAX_PACKET;

/// Buffers in the row, at most. Beyond it a buffer is given up when the stack lets go of it.
const ROW_LIMIT: usize = 64;
/// How many of the oldest shared buffers are looked at before a new one is made.
const LOOK_AT: usize = 4;

/// The driver's receive buffers.
#[derive(Debug)]
pub(crate) struct RxBuffers {
    current: BytesMut,
    /// Handles of buffers whose packets are still in use, oldest first.
    shared: VecDeque<BytesMut>,
}

impl RxBuffers {
    pub(crate) fn new() -> Self {
        Self { current: BytesMut::with_capacity(MAX_PACKET), shared: VecDeque::new() }
    }

    /// An empty buffer with room for [`MAX_PACKET`].
    pub(crate) fn for_next_packet(&mut self) -> &mut BytesMut {
        debug_assert!(self.current.is_empty(), "the last packet was taken");
        if !self.current.try_reclaim(MAX_PACKET) {
            let fresh = self.reclaim_shared();
            let kept = std::mem::replace(&mut self.current, fresh);
            if self.shared.len() < ROW_LIMIT {
                self.shared.push_back(kept);
            }
        }
        &mut self.current
    }

    /// The packet that was read. It shares the buffer; nothing is copied.
    pub(crate) fn take_packet(&mut self) -> Bytes {
        self.current.split().freeze()
    }

    fn reclaim_shared(&mut self) -> BytesMut {
        for _ in 0..self.shared.len().min(LOOK_AT) {
            let mut oldest = self.shared.pop_front().expect("length was checked");
            if oldest.try_reclaim(MAX_PACKET) {
                return oldest;
            }
            self.shared.push_back(oldest);
        }
        BytesMut::with_capacity(MAX_PACKET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffers: &mut RxBuffers, len: usize) -> Bytes {
        let buf = buffers.for_next_packet();
        assert!(buf.is_empty() && buf.capacity() >= MAX_PACKET);
        buf.resize(len, 7);
        buffers.take_packet()
    }

    #[test]
    fn a_packet_that_was_let_go_gives_its_buffer_back() {
        let mut buffers = RxBuffers::new();
        let first = read(&mut buffers, 1500).as_ptr();
        for _ in 0..100 {
            assert_eq!(read(&mut buffers, 1500).as_ptr(), first);
        }
    }

    #[test]
    fn a_kept_packet_is_never_written_over() {
        let mut buffers = RxBuffers::new();
        let kept: Vec<Bytes> = (0..200).map(|_| read(&mut buffers, 60_000)).collect();
        let mut places: Vec<_> = kept.iter().map(|packet| packet.as_ptr()).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 200);
        assert!(buffers.shared.len() <= ROW_LIMIT);
    }

    #[test]
    fn buffers_of_a_queue_that_drains_are_used_again() {
        let mut buffers = RxBuffers::new();
        let mut queue = VecDeque::new();
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let packet = read(&mut buffers, 60_000);
            places.insert(packet.as_ptr() as usize);
            queue.push_back(packet);
            if queue.len() > 8 {
                queue.pop_front();
            }
        }
        assert!(places.len() <= 12, "{} buffers for a queue of 8", places.len());
    }
}
