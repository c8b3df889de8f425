//! The segments on the wire and not yet acknowledged, found by sequence number and by time of sending.
//!
//! Owns:    one [`SentSegment`] a transmitted piece, a super-segment being one record until something demands a split.
//! Rules:   two orders over one slab, as Linux's `tcp_rtx_queue` and `tsorted_sent_queue`. The time order holds only what RACK
//!          still has to judge: neither SACKed nor lost. What RACK has judged comes back when it is sent again, what something
//!          else marked lost (a time-out) also when that is undone.
//! Cost:    front and back O(1), by sequence number O(log n), a split moves 4 bytes a record.
//! Not here: what the marks mean (`scoreboard`, `recovery`), sums over them (`Counts`).

use std::collections::VecDeque;

use crate::tcp::send::on_demand::{OnDemand, Quiet};
use crate::tcp::send::rate::{Phases, TxStamps};
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// A place in the slab that is none.
pub(super) const NIL: u32 = u32::MAX;

/// Marks of a record (Linux `TCPCB_*` and header flags).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Marks(u16);

impl Marks {
    pub(super) const NONE: Self = Self(0);
    /// Linux `TCPCB_SACKED_ACKED`.
    pub(super) const SACKED: Self = Self(1);
    /// Linux `TCPCB_LOST`.
    pub(super) const LOST: Self = Self(2);
    /// Linux `TCPCB_SACKED_RETRANS`: a repeat is in flight.
    pub(super) const RETRANS: Self = Self(4);
    /// Linux `TCPCB_EVER_RETRANS`.
    pub(super) const EVER_RETRANS: Self = Self(8);
    pub(super) const SYN: Self = Self(16);
    pub(super) const FIN: Self = Self(32);
    pub(super) const PSH: Self = Self(64);
    /// A record ends with it (Linux `eor`).
    pub(super) const EOR: Self = Self(128);
    /// Out of the time order because something else than RACK marked it lost.
    const PARKED: Self = Self(256);

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// One piece of sequence space on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentSegment {
    pub(super) start: SeqNum,
    /// SYN and FIN included.
    pub(super) end: SeqNum,
    /// When it was last sent.
    pub(super) sent_at: Instant,
    /// Payload bytes a wire segment.
    pub(super) mss: u16,
    /// Wire segments (Linux `tcp_skb_pcount`).
    pub(super) segs: u16,
    pub(super) marks: Marks,
    /// Taken when it was last sent.
    pub(super) tx: TxStamps,
    /// Neighbours in the time order; of a free record, `newer` is the next free one.
    older: u32,
    newer: u32,
}

impl SentSegment {
    pub(super) fn new(
        start: SeqNum,
        end: SeqNum,
        mss: u16,
        marks: Marks,
        sent_at: Instant,
        tx: TxStamps,
    ) -> Self {
        let mut segment = Self { start, end, sent_at, mss, segs: 1, marks, tx, older: NIL, newer: NIL };
        segment.recount();
        segment
    }

    /// Payload bytes.
    pub(super) fn len(&self) -> u32 {
        self.end.since(self.start)
            - u32::from(self.marks.has(Marks::SYN))
            - u32::from(self.marks.has(Marks::FIN))
    }

    /// Linux `tcp_set_skb_tso_segs`.
    pub(super) fn recount(&mut self) {
        let mss = u32::from(self.mss).max(1);
        self.segs = self.len().div_ceil(mss).clamp(1, u32::from(u16::MAX)) as u16;
    }
}

impl Quiet for Orders {
    fn quiet() -> &'static Self {
        static EMPTY: Orders = Orders::EMPTY;
        &EMPTY
    }
    fn new() -> Self {
        Self::EMPTY
    }
}

impl Segments {
    /// Takes the first record away; the memory goes back with the last.
    pub(super) fn take_front(&mut self) -> Option<SentSegment> {
        let orders = self.present()?;
        let front = orders.pop_front();
        if orders.is_empty() {
            self.release();
        }
        front
    }
}

/// Both orders; no memory while nothing is in flight.
pub(super) type Segments = OnDemand<Orders>;

/// Both orders.
#[derive(Debug)]
pub(super) struct Orders {
    slab: Vec<SentSegment>,
    free: u32,
    /// Slab places by sequence number.
    order: VecDeque<u32>,
    oldest: u32,
    newest: u32,
    /// The newest record in the time order that was sent before RACK's most recently sent delivered segment.
    rack_before: u32,
    /// What delivery-rate stamps are taken against.
    pub(super) phases: Phases,
}

impl Orders {
    const EMPTY: Self = Self {
        slab: Vec::new(),
        free: NIL,
        order: VecDeque::new(),
        oldest: NIL,
        newest: NIL,
        rack_before: NIL,
        phases: Phases::NONE,
    };

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.order.len()
    }

    /// The record at `position` of the sequence order.
    pub(super) fn at(&self, position: usize) -> Option<&SentSegment> {
        self.order.get(position).map(|id| &self.slab[*id as usize])
    }

    pub(super) fn at_mut(&mut self, position: usize) -> &mut SentSegment {
        &mut self.slab[self.order[position] as usize]
    }

    pub(super) fn front(&self) -> Option<&SentSegment> {
        self.at(0)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &SentSegment> {
        self.order.iter().map(|id| &self.slab[*id as usize])
    }

    /// Position of the first record that ends after `seq`.
    pub(super) fn position(&self, seq: SeqNum) -> usize {
        match self.front() {
            Some(first) if seq.before(first.end) => 0,
            _ => self.order.partition_point(|id| self.slab[*id as usize].end.at_or_before(seq)),
        }
    }

    /// Appends what was just sent.
    pub(super) fn push(&mut self, segment: SentSegment) {
        let id = self.allocate(segment);
        self.order.push_back(id);
        self.link_newest(id);
    }

    fn pop_front(&mut self) -> Option<SentSegment> {
        let id = self.order.pop_front()?;
        self.unlink(id);
        let segment = self.slab[id as usize];
        self.free_place(id);
        Some(segment)
    }

    /// Cuts the record at `position` so that its first part takes `len` sequence numbers.
    /// FIN, PSH and a record's end stay with the second part (Linux `tcp_fragment`).
    pub(super) fn split(&mut self, position: usize, len: u32) {
        let id = self.order[position];
        let first = &mut self.slab[id as usize];
        debug_assert!(len > 0 && len < first.end.since(first.start), "a cut inside the record");
        let mut second = *first;
        first.end = first.start + len;
        second.start = first.end;
        first.marks = first.marks.without(Marks::FIN.with(Marks::PSH).with(Marks::EOR));
        second.marks = second.marks.without(Marks::SYN);
        first.recount();
        second.recount();
        let newer = first.newer;
        let linked = self.is_linked(id);
        let second_id = self.allocate(second);
        self.order.insert(position + 1, second_id);
        if linked {
            self.slab[second_id as usize].older = id;
            self.slab[second_id as usize].newer = newer;
            self.slab[id as usize].newer = second_id;
            if newer == NIL {
                self.newest = second_id;
            } else {
                self.slab[newer as usize].older = second_id;
            }
            if self.rack_before == id {
                self.rack_before = second_id;
            }
        }
    }

    /// Joins the record after `position` into it (Linux `tcp_collapse_retrans`); the caller adjusts the sums.
    pub(super) fn join_next(&mut self, position: usize) {
        let next_id = self.order.remove(position + 1).expect("a record follows");
        self.unlink(next_id);
        let next = self.slab[next_id as usize];
        self.free_place(next_id);
        let first = self.at_mut(position);
        first.end = next.end;
        let kept = Marks::EVER_RETRANS.with(Marks::FIN).with(Marks::PSH).with(Marks::EOR);
        first.marks = first.marks.with(Marks(next.marks.0 & kept.0));
        first.recount();
    }

    /// Was sent again: last in the time order.
    pub(super) fn resent(&mut self, position: usize, now: Instant, tx: TxStamps) {
        let id = self.order[position];
        self.unlink(id);
        let segment = &mut self.slab[id as usize];
        segment.sent_at = now;
        segment.tx = tx;
        segment.marks = segment.marks.without(Marks::PARKED);
        self.link_newest(id);
    }

    /// Leaves the time order until it is sent again: SACKed, or lost by RACK's verdict (Linux `list_del_init` of `tcp_tsorted_anchor`).
    pub(super) fn settle(&mut self, position: usize) {
        let id = self.order[position];
        self.unlink(id);
        let segment = &mut self.slab[id as usize];
        segment.marks = segment.marks.without(Marks::PARKED);
    }

    /// Leaves the time order while something else than RACK has it marked lost. (In Linux it stays, and RACK passes over it.)
    pub(super) fn park(&mut self, position: usize) {
        let id = self.order[position];
        if self.is_linked(id) {
            self.unlink(id);
            let segment = &mut self.slab[id as usize];
            segment.marks = segment.marks.with(Marks::PARKED);
        }
    }

    /// RACK's segment is now the record at `position`, which still is in the time order.
    pub(super) fn rack_advanced(&mut self, position: usize) {
        let id = self.order[position];
        if self.is_linked(id) {
            self.rack_before = self.slab[id as usize].older;
        }
    }

    /// The record that waits longest in the time order, with its position.
    pub(super) fn oldest(&self) -> Option<&SentSegment> {
        (self.oldest != NIL).then(|| &self.slab[self.oldest as usize])
    }

    /// The newest record sent before RACK's segment that still is in the time order.
    pub(super) fn newest_before_rack(&self) -> Option<&SentSegment> {
        (self.rack_before != NIL).then(|| &self.slab[self.rack_before as usize])
    }

    /// Puts what was parked back into the time order: its losses were none.
    pub(super) fn unpark(&mut self, rack_sent_at: Instant, rack_end: SeqNum) {
        let is_parked = |id: &&u32| self.slab[**id as usize].marks.has(Marks::PARKED);
        let mut by_time: Vec<u32> = self.order.iter().filter(is_parked).copied().collect();
        if by_time.is_empty() {
            return;
        }
        let mut id = self.oldest;
        while id != NIL {
            by_time.push(id);
            id = self.slab[id as usize].newer;
        }
        (self.oldest, self.newest, self.rack_before) = (NIL, NIL, NIL);
        let base = self.slab[self.order[0] as usize].start;
        by_time.sort_by_key(|id| {
            let segment = &self.slab[*id as usize];
            (segment.sent_at, segment.start.since(base))
        });
        for id in by_time {
            let segment = &mut self.slab[id as usize];
            segment.marks = segment.marks.without(Marks::PARKED);
            self.link_newest(id);
        }
        self.find_rack_before(rack_sent_at, rack_end);
    }

    /// RACK's segment after [`Orders::unpark`]: everything sent before (`sent_at`, `end`) is older.
    fn find_rack_before(&mut self, sent_at: Instant, end: SeqNum) {
        let mut id = self.newest;
        while id != NIL {
            let segment = &self.slab[id as usize];
            if segment.sent_at < sent_at || (segment.sent_at == sent_at && segment.end.before(end)) {
                break;
            }
            id = segment.older;
        }
        self.rack_before = id;
    }

    fn allocate(&mut self, segment: SentSegment) -> u32 {
        if self.free == NIL {
            self.slab.push(SentSegment { older: NIL, newer: NIL, ..segment });
            (self.slab.len() - 1) as u32
        } else {
            let id = self.free;
            self.free = self.slab[id as usize].newer;
            self.slab[id as usize] = SentSegment { older: NIL, newer: NIL, ..segment };
            id
        }
    }

    fn free_place(&mut self, id: u32) {
        self.slab[id as usize].newer = self.free;
        self.free = id;
    }

    fn is_linked(&self, id: u32) -> bool {
        let segment = &self.slab[id as usize];
        segment.older != NIL || segment.newer != NIL || self.oldest == id
    }

    fn link_newest(&mut self, id: u32) {
        let newest = self.newest;
        let segment = &mut self.slab[id as usize];
        segment.older = newest;
        segment.newer = NIL;
        if newest == NIL {
            self.oldest = id;
        } else {
            self.slab[newest as usize].newer = id;
        }
        self.newest = id;
    }

    fn unlink(&mut self, id: u32) {
        if !self.is_linked(id) {
            return;
        }
        let SentSegment { older, newer, .. } = self.slab[id as usize];
        if older == NIL {
            self.oldest = newer;
        } else {
            self.slab[older as usize].newer = newer;
        }
        if newer == NIL {
            self.newest = older;
        } else {
            self.slab[newer as usize].older = older;
        }
        if self.rack_before == id {
            self.rack_before = older;
        }
        let segment = &mut self.slab[id as usize];
        (segment.older, segment.newer) = (NIL, NIL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: u32, len: u32, at: u64) -> SentSegment {
        SentSegment::new(
            SeqNum(start),
            SeqNum(start + len),
            100,
            Marks::PSH,
            Instant::from_micros(at),
            TxStamps::default(),
        )
    }

    fn by_time(segments: &Orders) -> Vec<u32> {
        let mut out = Vec::new();
        let mut id = segments.oldest;
        while id != NIL {
            out.push(segments.slab[id as usize].start.0);
            id = segments.slab[id as usize].newer;
        }
        out
    }

    #[test]
    fn a_split_keeps_both_orders_and_the_flags_behind() {
        let mut s = Segments::NONE;
        s.push(segment(0, 450, 1));
        s.push(segment(450, 100, 2));
        s.split(0, 200);
        assert_eq!(s.iter().map(|x| (x.start.0, x.segs)).collect::<Vec<_>>(), [(0, 2), (200, 3), (450, 1)]);
        assert_eq!(by_time(&s), [0, 200, 450]);
        assert!(!s.at(0).unwrap().marks.has(Marks::PSH) && s.at(1).unwrap().marks.has(Marks::PSH));
    }

    #[test]
    fn a_repeat_goes_last_in_time() {
        let mut s = Segments::NONE;
        for i in 0..3 {
            s.push(segment(i * 100, 100, u64::from(i)));
        }
        s.resent(0, Instant::from_micros(9), TxStamps::default());
        assert_eq!(by_time(&s), [100, 200, 0]);
        s.settle(1);
        assert_eq!(by_time(&s), [200, 0]);
        assert_eq!(s.position(SeqNum(150)), 1);
        assert_eq!(s.position(SeqNum(300)), 3);
    }

    #[test]
    fn what_was_parked_comes_back_in_its_place_and_what_was_judged_does_not() {
        let mut s = Segments::NONE;
        for i in 0..5 {
            s.push(segment(i * 100, 100, u64::from(i)));
        }
        s.settle(1);
        for position in 0..4 {
            s.park(position);
        }
        s.resent(0, Instant::from_micros(9), TxStamps::default());
        assert_eq!(by_time(&s), [400, 0]);
        s.unpark(Instant::from_micros(3), SeqNum(500));
        assert_eq!(by_time(&s), [200, 300, 400, 0]);
        assert_eq!(s.newest_before_rack().map(|newest| newest.start), Some(SeqNum(300)));
        s.unpark(Instant::from_micros(3), SeqNum(500));
        assert_eq!(by_time(&s), [200, 300, 400, 0], "nothing is parked any more");
    }

    #[test]
    fn records_and_their_memory_are_given_back() {
        let mut s = Segments::NONE;
        for round in 0..100 {
            s.push(segment(round * 100, 100, u64::from(round)));
            s.push(segment(round * 100 + 50, 50, u64::from(round)));
            s.take_front();
            assert!(s.is_held());
            s.take_front();
            assert!(!s.is_held());
        }
    }
}
