//! Data that arrived ahead of a hole, and the SACK blocks that tell the peer about it.
//!
//! Owns:    the out-of-order queue, `selective_acks` (most recent first), the pending DSACK.
//! Input:   segments right of `rcv_nxt`; the new `rcv_nxt` when a hole fills.
//! Output:  data in order; the blocks for the next ACK.
//! Rules:   RFC 2018, RFC 2883. Linux: `tcp_data_queue_ofo`, `tcp_ofo_queue`, `tcp_sack_new_ofo_skb`, `tcp_dsack_set`.
//!          Short of memory: `tcp_prune_ofo_queue` here, `tcp_collapse_ofo_queue` in `collapse`.
//! Differs: Linux looks for a segment's place in a tree and reports what it overlaps on the way: with three pieces over one
//!          another `TCPDSACKOfoSent` may count one more there.

mod collapse;

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};

use crate::observe::Counters;
use crate::tcp::receive::Charge;
use crate::tcp::seq::{SeqNum, SeqRange};
use crate::wire::segment::SackBlocks;

/// Linux keeps at most four blocks (`TCP_NUM_SACKS`).
const MAX_BLOCKS: usize = 4;
/// Linux `TCP_SACK_BLOCKS_EXPECTED`.
const BLOCKS_EXPECTED: usize = 2;

/// A piece of the stream ahead of a hole.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) range: SeqRange,
    pub(crate) data: Bytes,
    /// The FIN follows `data` (and takes the last sequence number of `range`).
    pub(crate) fin: bool,
    /// Bytes of the buffer `data` keeps alive.
    pub(crate) truesize: u32,
    /// What its packet costs.
    pub(crate) charge: Charge,
}

impl Piece {
    /// What is left of `start` is gone.
    pub(crate) fn trim_front(&mut self, start: SeqNum) {
        let cut = start.since(self.range.start).min(self.data.len() as u32);
        self.data.advance(cut as usize);
        self.range.start = start;
    }

    /// `next` follows and goes where this one has room (Linux `tcp_ooo_try_coalesce`).
    fn takes(&mut self, next: &Piece) -> bool {
        let takes =
            self.range.end == next.range.start && !self.fin && self.charge.takes(next.data.len() as u32);
        if takes {
            append(&mut self.data, &next.data);
            self.truesize = self.truesize.max(self.data.len() as u32);
            self.range.end = next.range.end;
            self.fin |= next.fin;
        }
        takes
    }
}

/// Copies only where somebody else holds `data` too, or its buffer is full.
fn append(data: &mut Bytes, more: &[u8]) {
    let mut joined =
        core::mem::take(data).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    joined.extend_from_slice(more);
    *data = joined.freeze();
}

/// What became of a segment ahead of a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Queued {
    /// All of it was there.
    Known,
    /// It went behind another packet's data, where that had room.
    Joined,
    /// Its packet is kept.
    Kept,
}

/// The out-of-order queue of one connection. Empty, it owns no memory.
#[derive(Debug, Default)]
pub(crate) struct Reorder {
    /// Keyed by distance from `origin`, so that order survives the wrap of sequence numbers.
    pieces: BTreeMap<u32, Piece>,
    /// Any number at or left of every piece, less than 2^31 away.
    origin: SeqNum,
    blocks: [SeqRange; MAX_BLOCKS],
    block_count: u8,
    dsack: Option<SeqRange>,
    charge: u32,
}

impl Reorder {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes charged to the receive buffer.
    pub(crate) fn charge(&self) -> u32 {
        self.charge
    }

    /// From `rcv_nxt` to the end of the last piece, bytes; 0 without one.
    pub(crate) fn span(&self, rcv_nxt: SeqNum) -> u32 {
        self.pieces.last_key_value().map_or(0, |(_, last)| last.range.end.since(rcv_nxt))
    }

    /// One piece, with the FIN.
    pub(crate) fn is_only_a_fin(&self) -> bool {
        self.pieces.len() == 1 && self.pieces.values().all(|piece| piece.fin)
    }

    /// The piece at the end begins at or right of `seq`.
    fn ends_after(&self, seq: SeqNum) -> bool {
        self.pieces.last_key_value().is_some_and(|(_, last)| !seq.after(last.range.start))
    }

    /// Drops pieces from the end, none left of `keep`, until `goal` bytes are free (Linux `tcp_prune_ofo_queue`). False: none
    /// was dropped.
    pub(crate) fn prune(&mut self, keep: SeqNum, goal: u32) -> bool {
        let before = self.charge;
        while self.ends_after(keep)
            && let Some((_, piece)) = self.pieces.pop_last()
        {
            self.charge -= charge_of(&piece);
            if before - self.charge >= goal {
                break;
            }
        }
        if self.charge != before {
            self.reset_blocks();
        }
        self.charge != before
    }

    /// Queues a segment right of `rcv_nxt`, whole; what is there already is reported, if `dsack`.
    ///
    /// A piece overlaps its neighbours at most in part: each begins and ends right of the one before.
    pub(crate) fn insert(
        &mut self,
        rcv_nxt: SeqNum,
        piece: Piece,
        dsack: bool,
        counters: &mut Counters,
    ) -> Queued {
        if self.pieces.is_empty() {
            self.origin = rcv_nxt;
        }
        let range = piece.range;
        let key = range.start.since(self.origin);
        if let Some((_, left)) = self.pieces.range_mut(..=key).next_back()
            && range.start.at_or_before(left.range.end)
        {
            if left.takes(&piece) {
                counters.tcp_rcv_coalesce += 1;
                return Queued::Joined;
            }
            let left = left.range;
            if range.end.at_or_before(left.end) {
                counters.tcp_ofo_merge += 1;
                self.set_dsack(range, rcv_nxt, dsack, counters);
                return Queued::Known;
            }
            if range.start.after(left.start) && range.start.before(left.end) {
                self.set_dsack(SeqRange::new(range.start, left.end), rcv_nxt, dsack, counters);
            }
        }
        // What it covers it replaces.
        while let Some((&right_key, right)) = self.pieces.range(key..).next() {
            let right = right.range;
            if right.start.at_or_after(range.end) {
                break;
            }
            if right.end.after(range.end) {
                self.extend_dsack(SeqRange::new(right.start, range.end), rcv_nxt, dsack, counters);
                break;
            }
            self.extend_dsack(right, rcv_nxt, dsack, counters);
            counters.tcp_ofo_merge += 1;
            if let Some(gone) = self.pieces.remove(&right_key) {
                self.charge -= charge_of(&gone);
            }
        }
        self.charge += charge_of(&piece);
        self.pieces.insert(key, piece);
        Queued::Kept
    }

    /// The next piece that `rcv_nxt` reaches; it may begin left of it.
    ///
    /// `covered`: how far in-order data reached when it arrived; what lies left of it came twice (a DSACK, if `dsack`).
    pub(crate) fn pop(
        &mut self,
        rcv_nxt: SeqNum,
        covered: SeqNum,
        dsack: bool,
        counters: &mut Counters,
    ) -> Option<Piece> {
        loop {
            let entry = self.pieces.first_entry()?;
            if entry.get().range.start.after(rcv_nxt) {
                return None;
            }
            let piece = entry.remove();
            self.charge -= charge_of(&piece);
            if piece.range.start.before(covered) {
                let twice = SeqRange::new(piece.range.start, piece.range.end.min(covered));
                self.extend_dsack(twice, rcv_nxt, dsack, counters);
            }
            if piece.range.end.after(rcv_nxt) {
                return Some(piece);
            }
        }
    }

    /// Drops everything (memory pressure, or the peer's FIN). Gives the number of pieces.
    pub(crate) fn purge(&mut self) -> usize {
        let count = self.pieces.len();
        self.pieces.clear();
        self.charge = 0;
        self.reset_blocks();
        count
    }

    /// Linux `tcp_sack_reset`: nothing is told, neither of what is here nor of what came twice.
    fn reset_blocks(&mut self) {
        self.block_count = 0;
        self.dsack = None;
    }

    /// Linux `tcp_sack_remove`: forgets blocks that `rcv_nxt` has passed.
    pub(crate) fn forget_blocks(&mut self, rcv_nxt: SeqNum) {
        if self.pieces.is_empty() {
            self.block_count = 0;
            return;
        }
        let mut kept = 0;
        for n in 0..usize::from(self.block_count) {
            if rcv_nxt.before(self.blocks[n].start) {
                self.blocks[kept] = self.blocks[n];
                kept += 1;
            }
        }
        self.block_count = kept as u8;
    }

    /// Linux `tcp_dsack_set`: this range was received twice. Counts by where it lies.
    pub(crate) fn set_dsack(
        &mut self,
        range: SeqRange,
        rcv_nxt: SeqNum,
        enabled: bool,
        counters: &mut Counters,
    ) {
        if enabled {
            if range.start.before(rcv_nxt) {
                counters.tcp_dsack_old_sent += 1;
            } else {
                counters.tcp_dsack_ofo_sent += 1;
            }
            self.dsack = Some(range);
        }
    }

    /// New text arrives: what was to be reported about older text is not (Linux `tcp_data_queue`: `rx_opt.dsack = 0`).
    pub(crate) fn forget_dsack(&mut self) {
        self.dsack = None;
    }

    /// Linux `tcp_dsack_extend`.
    fn extend_dsack(&mut self, range: SeqRange, rcv_nxt: SeqNum, enabled: bool, counters: &mut Counters) {
        match &mut self.dsack {
            Some(old) if range.start.at_or_before(old.end) && old.start.at_or_before(range.end) => {
                *old = SeqRange::new(old.start.min(range.start), old.end.max(range.end));
            }
            Some(_) => {}
            None => self.set_dsack(range, rcv_nxt, enabled, counters),
        }
    }

    /// Right edge of the rightmost block: a RST exactly there is accepted (RFC 5961, Linux).
    pub(crate) fn highest_block_end(&self) -> Option<SeqNum> {
        self.blocks[..usize::from(self.block_count)].iter().map(|block| block.end).reduce(SeqNum::max)
    }

    /// Number of blocks the next ACK will carry, at most `room`.
    pub(crate) fn block_count(&self, room: usize) -> usize {
        (usize::from(self.block_count) + usize::from(self.dsack.is_some())).min(room)
    }

    /// The blocks for an ACK with room for `room` of them: the DSACK first, then most recent first. The DSACK is told once.
    pub(crate) fn take_blocks(&mut self, room: usize) -> SackBlocks {
        let mut out = SackBlocks::NONE;
        let dsack = self.dsack.take();
        for block in
            dsack.into_iter().chain(self.blocks[..usize::from(self.block_count)].iter().copied()).take(room)
        {
            out.push(block);
        }
        out
    }

    /// The blocks without the DSACK, for a reset (Linux `tcp_send_active_reset` carries them).
    pub(crate) fn peek_blocks(&self, room: usize) -> SackBlocks {
        let mut out = SackBlocks::NONE;
        for block in self.blocks[..usize::from(self.block_count)].iter().take(room) {
            out.push(*block);
        }
        out
    }

    /// Which block `range` belongs to; the number of blocks if to none.
    fn block_of(&self, range: SeqRange) -> usize {
        let count = usize::from(self.block_count);
        self.blocks[..count].iter().position(|block| touches(*block, range)).unwrap_or(count)
    }

    /// Telling of `range` moves more than the two most recent blocks: an ACK that was held back leaves first, for it may be
    /// the only one to tell of the others (Linux `tcp_sack_compress_send_ack`).
    pub(crate) fn crowds(&self, range: SeqRange) -> bool {
        self.block_of(range) >= BLOCKS_EXPECTED
    }

    /// Linux `tcp_sack_new_ofo_skb`: the block that grew moves to the front; adjacent blocks merge.
    pub(crate) fn remember(&mut self, range: SeqRange) {
        let count = usize::from(self.block_count);
        let n = self.block_of(range);
        if n < count {
            self.blocks[n] = union(self.blocks[n], range);
            self.blocks[..=n].rotate_right(1);
            self.merge_into_first();
            return;
        }
        let count = count.min(MAX_BLOCKS - 1);
        self.blocks[..=count].rotate_right(1);
        self.blocks[0] = range;
        self.block_count = (count + 1) as u8;
    }

    /// Linux `tcp_sack_maybe_coalesce`.
    fn merge_into_first(&mut self) {
        let mut n = 1;
        while n < usize::from(self.block_count) {
            if touches(self.blocks[0], self.blocks[n]) {
                self.blocks[0] = union(self.blocks[0], self.blocks[n]);
                self.blocks.copy_within(n + 1.., n);
                self.block_count -= 1;
            } else {
                n += 1;
            }
        }
    }
}

fn touches(a: SeqRange, b: SeqRange) -> bool {
    b.start.at_or_before(a.end) && a.start.at_or_before(b.end)
}

fn union(a: SeqRange, b: SeqRange) -> SeqRange {
    SeqRange::new(a.start.min(b.start), a.end.max(b.end))
}

fn charge_of(piece: &Piece) -> u32 {
    piece.charge.truesize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u32, end: u32) -> Piece {
        let data: Vec<u8> = (start..end).map(|n| n as u8).collect();
        Piece {
            range: SeqRange::new(SeqNum(start), SeqNum(end)),
            truesize: data.len() as u32,
            charge: Charge::of(40 + data.len() as u32),
            data: data.into(),
            fin: false,
        }
    }

    fn blocks(reorder: &mut Reorder) -> Vec<(u32, u32)> {
        reorder.take_blocks(4).as_slice().iter().map(|block| (block.start.0, block.end.0)).collect()
    }

    fn insert(reorder: &mut Reorder, start: u32, end: u32) -> Counters {
        let mut counters = Counters::default();
        reorder.insert(SeqNum(1), piece(start, end), true, &mut counters);
        reorder.remember(SeqRange::new(SeqNum(start), SeqNum(end)));
        counters
    }

    #[test]
    fn most_recent_block_comes_first_and_neighbours_merge() {
        let mut reorder = Reorder::default();
        insert(&mut reorder, 1001, 2001);
        insert(&mut reorder, 3001, 4001);
        assert_eq!(blocks(&mut reorder), [(3001, 4001), (1001, 2001)]);
        insert(&mut reorder, 2001, 3001);
        assert_eq!(blocks(&mut reorder), [(1001, 4001)]);
    }

    #[test]
    fn duplicate_out_of_order_data_is_a_dsack_and_its_block_follows() {
        let mut reorder = Reorder::default();
        insert(&mut reorder, 1001, 4001);
        let counters = insert(&mut reorder, 2001, 3001);
        assert_eq!(blocks(&mut reorder), [(2001, 3001), (1001, 4001)]);
        assert_eq!((counters.tcp_dsack_ofo_sent, counters.tcp_ofo_merge), (1, 1));
        assert_eq!(blocks(&mut reorder), [(1001, 4001)], "a DSACK is told once");
    }

    #[test]
    fn only_what_is_covered_whole_counts_as_merged() {
        let mut reorder = Reorder::default();
        let mut merged = |start, end| insert(&mut reorder, start, end).tcp_ofo_merge;
        assert_eq!([merged(1001, 2001), merged(1501, 3001), merged(1601, 4001)], [0; 3]);
        assert_eq!(merged(1601, 4501), 1, "the same beginning, and more");
        assert_eq!(merged(501, 5001), 3, "all of them");
        assert_eq!(merged(501, 5001), 1, "and again");
    }

    #[test]
    fn a_third_block_is_one_too_many_to_wait() {
        let mut reorder = Reorder::default();
        insert(&mut reorder, 1001, 1101);
        insert(&mut reorder, 2001, 2101);
        let crowds = |start, end| reorder.crowds(SeqRange::new(SeqNum(start), SeqNum(end)));
        assert!(!crowds(1101, 1201) && !crowds(2101, 2201), "each grows a block that is told already");
        assert!(crowds(3001, 3101));
    }

    /// Every byte of the stream comes out once and in order, whatever overlaps arrive, across the wrap.
    #[test]
    fn overlaps_in_any_order_give_the_stream() {
        let mut seed = 0x5eed_u64;
        let mut random = move |limit: u32| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as u32 % limit
        };
        for round in 0..200 {
            let base = SeqNum(u32::MAX - 300);
            let mut reorder = Reorder::default();
            let mut counters = Counters::default();
            let mut got = Vec::new();
            let mut rcv_nxt = base;
            for _ in 0..60 {
                let start = 1 + random(600);
                let len = 1 + random(80);
                let range = SeqRange::new(base + start, base + start + len);
                if range.start.at_or_before(rcv_nxt) {
                    continue;
                }
                let data: Vec<u8> = (start..start + len).map(|n| n as u8).collect();
                let charge = Charge::of(40 + len);
                let piece = Piece { range, truesize: len, charge, data: data.into(), fin: false };
                reorder.insert(rcv_nxt, piece, true, &mut counters);
                reorder.remember(range);
            }
            // Fill every hole one byte at a time.
            while rcv_nxt.since(base) < 700 {
                while let Some(mut piece) = reorder.pop(rcv_nxt, rcv_nxt, false, &mut counters) {
                    piece.trim_front(rcv_nxt);
                    assert_eq!(piece.range.len() as usize, piece.data.len());
                    got.extend_from_slice(&piece.data);
                    rcv_nxt = piece.range.end;
                }
                reorder.forget_blocks(rcv_nxt);
                got.push(rcv_nxt.since(base) as u8);
                rcv_nxt += 1;
            }
            let want: Vec<u8> = (0..got.len() as u32).map(|n| n as u8).collect();
            assert_eq!(got, want, "round {round}");
            assert!(reorder.is_empty() && reorder.charge() == 0);
        }
    }

    #[test]
    fn empty_queue_owns_no_memory() {
        assert!(size_of::<Reorder>() <= 96, "{}", size_of::<Reorder>());
    }
}
