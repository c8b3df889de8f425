//! What the peer says it holds: SACK blocks, duplicates among them, reordering, and NewReno's guess without SACK.
//!
//! Owns:    the ranges already SACKed, so that a block seen before costs one lookup.
//! Input:   SACK blocks as received. Nothing in them is believed before [`Sender::block_is_valid`].
//! Rules:   RFC 2018, RFC 2883 (DSACK), RFC 6582; Linux `tcp_sacktag_write_queue`, `tcp_check_dsack`,
//!          `tcp_check_sack_reordering`, `tcp_add_reno_sack`.
//! Limits:  a range stands for at least one record, so there are never more ranges than records.

use std::collections::VecDeque;

use crate::observe::CaState;
use crate::tcp::context::Cx;
use crate::tcp::send::Sender;
use crate::tcp::send::ack::{AckView, Flag, Work};
use crate::tcp::send::segments::Marks;
use crate::tcp::seq::{SeqNum, SeqRange};

/// Disjoint ranges in order, none touching another.
#[derive(Clone, Debug)]
pub(super) struct SackedRanges(VecDeque<SeqRange>);

impl SackedRanges {
    pub(super) const EMPTY: Self = Self(VecDeque::new());

    /// End of the highest range (Linux `tcp_highest_sack_seq`).
    pub(super) fn highest(&self) -> Option<SeqNum> {
        self.0.back().map(|range| range.end)
    }

    pub(super) fn clear(&mut self) {
        self.0 = VecDeque::new();
    }

    /// Forgets everything below `una`.
    pub(super) fn trim(&mut self, una: SeqNum) {
        while let Some(first) = self.0.front_mut() {
            if first.end.at_or_before(una) {
                self.0.pop_front();
                continue;
            }
            first.start = first.start.max(una);
            return;
        }
        if self.0.capacity() != 0 {
            self.0 = VecDeque::new();
        }
    }

    /// The first gap that begins in `[from, to)`: what of it was not known.
    fn next_gap(&self, from: SeqNum, to: SeqNum) -> Option<SeqRange> {
        let mut index = self.0.partition_point(|range| range.end.at_or_before(from));
        let mut start = from;
        if let Some(range) = self.0.get(index)
            && range.start.at_or_before(from)
        {
            start = range.end;
            index += 1;
        }
        let end = self.0.get(index).map_or(to, |range| range.start.min(to));
        start.before(end).then_some(SeqRange::new(start, end))
    }

    /// Adds a range.
    fn insert(&mut self, new: SeqRange) {
        let first = self.0.partition_point(|range| range.end.before(new.start));
        let last = self.0.partition_point(|range| range.start.at_or_before(new.end));
        if first == last {
            self.0.insert(first, new);
            return;
        }
        let start = self.0[first].start.min(new.start);
        let end = self.0[last - 1].end.max(new.end);
        self.0[first] = SeqRange::new(start, end);
        if last - first > 1 {
            self.0.drain(first + 1..last);
        }
    }
}

impl Sender {
    /// End of the highest SACKed segment; `snd_una` when there is none.
    pub(super) fn highest_sack_seq(&self) -> SeqNum {
        match self.recovery.sacked.highest() {
            Some(seq) if self.counts.sacked_out > 0 => seq,
            _ => self.snd_una,
        }
    }

    /// Linux `tcp_sacktag_write_queue`.
    pub(super) fn take_sacks(&mut self, view: &AckView<'_>, work: &mut Work, cx: &mut Cx<'_>) {
        let wire = view.sack.as_slice();
        let has_dsack = self.check_dsack(wire, view, work, cx);
        if view.ack.before(work.prior_una - self.max_window) || self.counts.packets_out == 0 {
            return;
        }
        let mut blocks = [SeqRange::default(); 4];
        let (mut used, mut duplicate) = (0, None);
        for (index, block) in wire.iter().enumerate() {
            let is_dsack = index == 0 && has_dsack;
            if !self.block_is_valid(*block, is_dsack) {
                let counter = match (is_dsack, self.recovery.undo_marker) {
                    (true, None) => &mut cx.counters.tcp_dsack_ignored_no_undo,
                    (true, Some(_)) => &mut cx.counters.tcp_dsack_ignored_old,
                    // Old blocks on a reordered ACK are nothing special.
                    (false, _) if view.ack != self.snd_una && !block.end.after(self.snd_una) => continue,
                    (false, _) => &mut cx.counters.tcp_sack_discard,
                };
                *counter += 1;
            } else if block.end.after(work.prior_una) {
                if is_dsack {
                    self.take_duplicate(*block, work);
                    duplicate = Some(*block);
                }
                blocks[used] = *block;
                used += 1;
            }
        }
        let base = self.snd_una;
        blocks[..used].sort_unstable_by_key(|block| block.start.since(base) as i32);
        let last = core::mem::replace(&mut self.recovery.last_blocks, blocks);
        // Linux: what the ACK before this one reported was looked at then, unless all of it has been acknowledged since.
        let was_used =
            if self.counts.sacked_out == 0 { 0 } else { last.iter().filter(|b| !b.is_empty()).count() };
        let mut known = &last[..was_used];
        for block in &blocks[..used] {
            known = self.take_block(*block, duplicate == Some(*block), known, work, cx);
        }
        if self.recovery.ca_state != CaState::Loss || self.recovery.undo_marker.is_some() {
            self.check_reordering(work.reord, false, cx);
        }
    }

    /// Linux `tcp_check_dsack`: the first block may report what arrived twice.
    fn check_dsack(
        &mut self,
        wire: &[SeqRange],
        view: &AckView<'_>,
        work: &mut Work,
        cx: &mut Cx<'_>,
    ) -> bool {
        let block = wire[0];
        if block.start.before(view.ack) {
            cx.counters.tcp_dsack_recv += 1;
        } else if wire.len() > 1 && wire[1].covers(block) {
            cx.counters.tcp_dsack_ofo_recv += 1;
        } else {
            return false;
        }
        let Some(segs) = self.dsack_seen(block, work) else { return false };
        // For data already forgotten there is no record: count.
        if let Some(marker) = self.recovery.undo_marker
            && self.recovery.undo_retrans > 0
            && !block.end.after(work.prior_una)
            && block.end.after(marker)
        {
            self.recovery.undo_retrans = (self.recovery.undo_retrans - i64::from(segs)).max(0);
        }
        true
    }

    /// Linux `tcp_dsack_seen`: duplicated segments, `None` where the report cannot be true.
    fn dsack_seen(&mut self, block: SeqRange, work: &mut Work) -> Option<u32> {
        let mss = u32::from(self.mss);
        if !block.start.before(block.end) || block.len() > self.max_window {
            return None;
        }
        let mut segs = 1;
        if block.len() > mss {
            segs = block.len().div_ceil(mss);
        } else if self.recovery.tlp_high_seq == Some(block.end) {
            work.set(Flag::DSACK_TLP);
        }
        self.recovery.totals.dsack_dups = self.recovery.totals.dsack_dups.saturating_add(segs);
        // More duplicates than we ever repeated: the network made them.
        if self.recovery.totals.dsack_dups > self.recovery.totals.retrans {
            return None;
        }
        if self.recovery.reord_seen > 0 && !work.has(Flag::DSACK_TLP) {
            self.rack.dsack_seen = true;
        }
        work.set(Flag::DSACKING_ACK);
        self.totals.delivered = self.totals.delivered.wrapping_add(segs); // a needless repeat was delivered
        Some(segs)
    }

    /// Linux `tcp_is_sackblock_valid`.
    fn block_is_valid(&self, block: SeqRange, is_dsack: bool) -> bool {
        let SeqRange { start, end } = block;
        if end.after(self.snd_nxt) || !start.before(end) || !start.before(self.snd_nxt) {
            return false;
        }
        if start.after(self.snd_una) {
            return true;
        }
        let (true, Some(marker)) = (is_dsack, self.recovery.undo_marker) else { return false };
        // A DSACK lies wholly below snd_una, and not before the episode that may be undone.
        !end.after(self.snd_una)
            && (!start.before(marker)
                || (end.after(marker) && !start.before(end - self.max_window.min(i32::MAX as u32))))
    }

    /// A DSACK above `snd_una`: repeats in it were needless (the DSACK part of Linux `tcp_sacktag_one`).
    fn take_duplicate(&mut self, block: SeqRange, work: &mut Work) {
        let mut position = self.segments.position(block.start);
        while let Some(segment) = self.segments.at(position).copied() {
            if !segment.start.before(block.end) {
                break;
            }
            let inside = block.covers(SeqRange::new(segment.start, segment.end));
            if inside && segment.marks.has(Marks::RETRANS.with(Marks::EVER_RETRANS)) {
                let segs = u32::from(segment.segs);
                if let Some(marker) = self.recovery.undo_marker
                    && self.recovery.undo_retrans > 0
                    && segment.end.after(marker)
                {
                    self.recovery.undo_retrans = (self.recovery.undo_retrans - i64::from(segs)).max(0);
                }
                if segment.marks.has(Marks::SACKED) && segment.start.before(work.reord) {
                    work.reord = segment.start;
                }
                if segment.marks.has(Marks::RETRANS) && !segment.marks.has(Marks::LOST) {
                    self.counts.retrans_out -= segs;
                    let segment = self.segments.at_mut(position);
                    segment.marks = segment.marks.without(Marks::RETRANS);
                }
            }
            position += 1;
        }
    }

    /// Marks what a block newly reports; what the blocks `known` hold is not looked at again. Gives those of them that blocks behind
    /// this one may meet (the loop of Linux `tcp_sacktag_write_queue`).
    fn take_block<'a>(
        &mut self,
        block: SeqRange,
        is_duplicate: bool,
        mut known: &'a [SeqRange],
        work: &mut Work,
        cx: &mut Cx<'_>,
    ) -> &'a [SeqRange] {
        let mut from = block.start;
        loop {
            while let [first, rest @ ..] = known
                && first.end.at_or_before(block.start)
            {
                known = rest;
            }
            match known {
                [first, rest @ ..] if !is_duplicate && first.start.before(block.end) => {
                    if block.start.before(first.start) {
                        self.walk(from, SeqRange::new(block.start, first.start), work, cx);
                    }
                    if !block.end.after(first.end) {
                        return known;
                    }
                    from = first.end;
                    known = rest;
                }
                _ => {
                    self.walk(from, block, work, cx);
                    return known;
                }
            }
        }
    }

    /// Marks what of `block` lies behind `from` (Linux `tcp_sacktag_walk`).
    fn walk(&mut self, from: SeqNum, block: SeqRange, work: &mut Work, cx: &mut Cx<'_>) {
        let mut from = from.max(self.snd_una);
        while let Some(gap) = self.recovery.sacked.next_gap(from, block.end) {
            let mut position = self.segments.position(gap.start);
            while let Some(segment) = self.segments.at(position).copied() {
                if !segment.start.before(gap.end) {
                    break;
                }
                if self.match_to_block(position, block) {
                    self.mark_sacked(position, work, cx);
                }
                position += 1;
            }
            from = gap.end;
            if !from.before(block.end) {
                break;
            }
        }
    }

    /// True when the record at `position` lies in `block`. One that the block covers in part is cut at whole segments, where the block
    /// begins or else where it ends, and the first part is what is asked about (Linux `tcp_match_skb_to_sack`).
    fn match_to_block(&mut self, position: usize, block: SeqRange) -> bool {
        let segment = *self.segments.at(position).expect("a record to match");
        if block.covers(SeqRange::new(segment.start, segment.end)) {
            return true;
        }
        if segment.segs == 1 {
            return false;
        }
        let mss = u32::from(segment.mss);
        let begins_inside = block.start.after(segment.start);
        let len = if begins_inside {
            block.start.since(segment.start).div_ceil(mss) * mss
        } else {
            block.end.since(segment.start) / mss * mss
        };
        if len == 0 || (begins_inside && len >= segment.len()) {
            return false;
        }
        self.split_segment(position, len);
        !begins_inside
    }

    /// Linux `tcp_sacktag_one` for a segment not SACKed before.
    fn mark_sacked(&mut self, position: usize, work: &mut Work, cx: &mut Cx<'_>) {
        self.rack_advance(position, cx.now);
        self.segments.settle(position);
        let segment = *self.segments.at(position).expect("a record to mark");
        let segs = u32::from(segment.segs);
        let mut marks = segment.marks;
        if marks.has(Marks::RETRANS) {
            // Not marked lost: the repeat is believed to be in flight still.
            if marks.has(Marks::LOST) {
                marks = marks.without(Marks::LOST.with(Marks::RETRANS));
                self.counts.lost_out -= segs;
                self.counts.retrans_out -= segs;
            }
        } else {
            if !marks.has(Marks::EVER_RETRANS) {
                // A hole below the highest SACK filled without a repeat: reordering.
                if segment.start.before(self.highest_sack_seq()) && segment.start.before(work.reord) {
                    work.reord = segment.start;
                }
                if !segment.end.after(self.recovery.high_seq) {
                    work.set(Flag::ORIG_SACK_ACKED);
                }
                work.first_sackt.get_or_insert(segment.sent_at);
                work.last_sackt = segment.sent_at;
            }
            if marks.has(Marks::LOST) {
                marks = marks.without(Marks::LOST);
                self.counts.lost_out -= segs;
            }
        }
        self.segments.at_mut(position).marks = marks.with(Marks::SACKED);
        work.set(Flag::DATA_SACKED);
        self.note_delivered(&segment, work);
        self.recovery.sacked.insert(SeqRange::new(segment.start, segment.end));
        self.counts.sacked_out += segs;
        self.totals.delivered = self.totals.delivered.wrapping_add(segs);
    }

    /// Linux `tcp_check_sack_reordering`: `low` was delivered late.
    pub(super) fn check_reordering(&mut self, low: SeqNum, by_timestamp: bool, cx: &mut Cx<'_>) {
        let highest = self.highest_sack_seq();
        if !low.before(highest) {
            return;
        }
        let mss = u32::from(self.mss);
        let degree = highest.since(low).div_ceil(mss);
        if degree > self.recovery.reordering {
            self.recovery.reordering = degree.min(cx.sysctl.tcp_max_reordering);
        }
        self.recovery.reord_seen = self.recovery.reord_seen.saturating_add(1);
        if by_timestamp {
            cx.counters.tcp_ts_reorder += 1;
        } else {
            cx.counters.tcp_sack_reorder += 1;
        }
    }

    /// Without SACK a duplicate ACK says that some segment arrived (Linux `tcp_add_reno_sack`).
    pub(super) fn add_reno_sack(&mut self, duplicates: u32, cx: &mut Cx<'_>) {
        if duplicates == 0 {
            return;
        }
        let before = self.counts.sacked_out;
        self.counts.sacked_out += duplicates;
        self.check_reno_reordering(0, cx);
        let delivered = self.counts.sacked_out.saturating_sub(before);
        self.totals.delivered = self.totals.delivered.wrapping_add(delivered);
    }

    /// `acked` segments left the queue; one was a hole, the others the duplicates told of (Linux `tcp_remove_reno_sacks`).
    pub(super) fn remove_reno_sacks(&mut self, acked: u32, cx: &mut Cx<'_>) {
        if acked > 0 {
            let delivered = acked.saturating_sub(self.counts.sacked_out).max(1);
            self.totals.delivered = self.totals.delivered.wrapping_add(delivered);
            self.counts.sacked_out = self.counts.sacked_out.saturating_sub(acked - 1);
        }
        self.check_reno_reordering(acked, cx);
    }

    /// More duplicates than segments out: reordering (Linux `tcp_check_reno_reordering`).
    fn check_reno_reordering(&mut self, acked: u32, cx: &mut Cx<'_>) {
        if !self.limit_reno_sacked() {
            return;
        }
        self.recovery.reordering = (self.counts.packets_out + acked).min(cx.sysctl.tcp_max_reordering);
        self.recovery.reord_seen = self.recovery.reord_seen.saturating_add(1);
        cx.counters.tcp_reno_reorder += 1;
    }

    /// Linux `tcp_limit_reno_sacked`.
    pub(super) fn limit_reno_sacked(&mut self) -> bool {
        let counts = &mut self.counts;
        let holes = counts.lost_out.max(1).min(counts.packets_out);
        let too_many = counts.sacked_out + holes > counts.packets_out;
        if too_many {
            counts.sacked_out = counts.packets_out - holes;
        }
        too_many
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u32, end: u32) -> SeqRange {
        SeqRange::new(SeqNum(start), SeqNum(end))
    }

    #[test]
    fn known_ranges_leave_only_gaps() {
        let mut known = SackedRanges::EMPTY;
        known.insert(range(10, 20));
        known.insert(range(30, 40));
        assert_eq!(known.next_gap(SeqNum(12), SeqNum(18)), None);
        assert_eq!(known.next_gap(SeqNum(12), SeqNum(35)), Some(range(20, 30)));
        assert_eq!(known.next_gap(SeqNum(30), SeqNum(50)), Some(range(40, 50)));
        assert_eq!(known.next_gap(SeqNum(0), SeqNum(50)), Some(range(0, 10)));
    }

    #[test]
    fn ranges_merge_when_they_touch() {
        let mut known = SackedRanges::EMPTY;
        for r in [range(10, 20), range(30, 40), range(50, 60)] {
            known.insert(r);
        }
        known.insert(range(20, 30));
        assert_eq!(known.0, [range(10, 40), range(50, 60)]);
        known.insert(range(5, 70));
        assert_eq!(known.0, [range(5, 70)]);
        known.trim(SeqNum(60));
        assert_eq!(known.0, [range(60, 70)]);
        known.trim(SeqNum(70));
        assert_eq!(known.0.capacity(), 0);
    }
}
