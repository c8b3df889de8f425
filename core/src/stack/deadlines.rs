//! Deadlines: who has to be called when.
//!
//! Owns:    one deadline a socket, in a hierarchical wheel: 11 levels of 64 slots, the lowest one nanosecond wide.
//! Input:   a socket's key with its time ([`Deadlines::file`]), the clock.
//! Output:  the keys that are due, in order of time, first filed first.
//! Rules:   never early and never out of order; filing, moving, removing and taking are O(1) (at most 11 steps down
//!          in an entry's life). A socket has one entry, so nothing piles up.
//! Differs: Linux's wheel fires up to an eighth of the delay late; this one is exact.
//! Not here: what a deadline means. A socket whose deadline moved later leaves its entry alone and files anew when called.

use crate::stack::demux::SocketKey;
use crate::stack::slab::Pages;
use crate::time::Instant;

const LEVELS: usize = 11;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;

const NONE: u32 = u32::MAX;
/// The `prev` of a slot's first entry. Like `NONE` it is no socket's key.
const HEAD: u32 = u32::MAX - 1;

/// One entry's links. `prev` is `NONE` while nothing is filed.
#[derive(Clone, Copy, Debug)]
struct Node {
    at: u64,
    prev: u32,
    next: u32,
}

const IDLE: Node = Node { at: 0, prev: NONE, next: NONE };

#[derive(Clone, Copy, Debug)]
struct Slot {
    head: u32,
    tail: u32,
    /// The earliest time ever filed here since the slot was empty: exact unless that entry was taken out.
    earliest: u64,
}

const EMPTY: Slot = Slot { head: NONE, tail: NONE, earliest: u64::MAX };

/// The wheel.
#[derive(Debug)]
pub(crate) struct Deadlines {
    /// Where the wheel stands: nothing filed is earlier.
    elapsed: u64,
    /// Slots in use, a bit each, by level.
    occupied: [u64; LEVELS],
    slots: Box<[Slot]>,
    nodes: [Pages<Node>; SocketKey::KINDS],
}

impl Deadlines {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            elapsed: now.as_nanos(),
            occupied: [0; LEVELS],
            slots: vec![EMPTY; LEVELS * SLOTS].into_boxed_slice(),
            nodes: [const { Pages::new() }; SocketKey::KINDS],
        }
    }

    /// When the socket is to be called, `FAR_FUTURE` if nothing is filed.
    pub(crate) fn filed(&self, key: SocketKey) -> Instant {
        match self.nodes[key.kind_index()].get(key.index()) {
            Some(node) if node.prev != NONE => Instant::from_nanos(node.at),
            _ => Instant::FAR_FUTURE,
        }
    }

    /// Calls the socket at `at` at the latest: files it, moves it earlier, or leaves an earlier entry as it is.
    pub(crate) fn file(&mut self, key: SocketKey, at: Instant) {
        if !at.is_armed() || self.filed(key) <= at {
            return;
        }
        self.remove(key);
        let pages = &mut self.nodes[key.kind_index()];
        while pages.len() <= key.index() as usize {
            pages.push(IDLE);
        }
        self.link(key.raw(), at.as_nanos().max(self.elapsed));
    }

    /// Forgets the socket's entry.
    pub(crate) fn remove(&mut self, key: SocketKey) {
        let Some(node) = self.nodes[key.kind_index()].get_mut(key.index()) else { return };
        if node.prev == NONE {
            return;
        }
        let Node { at, prev, next } = core::mem::replace(node, IDLE);
        // The slot follows from the time at any moment: the wheel never passes a slot without emptying it.
        let place = self.place(at);
        if prev == HEAD {
            self.slots[place].head = next;
        } else {
            self.node(prev).next = next;
        }
        if next == NONE {
            self.slots[place].tail = prev;
        } else {
            self.node(next).prev = prev;
        }
        if self.slots[place].head == NONE {
            self.slots[place] = EMPTY;
            self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        }
    }

    /// When the earliest entry is due; never later than that, and earlier only after the earliest was removed.
    pub(crate) fn next(&self) -> Option<Instant> {
        let (level, slot) = self.first()?;
        Some(Instant::from_nanos(self.slots[level * SLOTS + slot].earliest))
    }

    /// Takes the earliest entry that is due at `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<SocketKey> {
        let now = now.as_nanos();
        while let Some((level, slot)) = self.first() {
            let width = SLOT_BITS * level as u32;
            let above = width + SLOT_BITS;
            let base = if above >= 64 { 0 } else { self.elapsed >> above << above };
            let start = base | (slot as u64) << width;
            if start > now {
                break;
            }
            self.elapsed = self.elapsed.max(start);
            let place = level * SLOTS + slot;
            let head = self.slots[place].head;
            if level == 0 {
                let key = SocketKey::from_raw(head);
                self.remove(key);
                return Some(key);
            }
            // The wheel has reached this slot: everything in it belongs further down now.
            self.slots[place] = EMPTY;
            self.occupied[level] &= !(1 << slot);
            let mut raw = head;
            while raw != NONE {
                let Node { at, next, .. } = *self.node(raw);
                self.link(raw, at);
                raw = next;
            }
        }
        self.elapsed = self.elapsed.max(now);
        None
    }

    /// The first slot in use: the lowest level holds the earliest times.
    fn first(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        Some((level, self.occupied[level].trailing_zeros() as usize))
    }

    /// Level and slot for a time: the level of the highest digit in which it differs from where the wheel stands.
    fn place(&self, at: u64) -> usize {
        let differs = 63 - ((at ^ self.elapsed) | 1).leading_zeros();
        let level = differs / SLOT_BITS;
        let digit = (at >> (level * SLOT_BITS)) as usize & (SLOTS - 1);
        level as usize * SLOTS + digit
    }

    fn link(&mut self, raw: u32, at: u64) {
        let place = self.place(at);
        let tail = self.slots[place].tail;
        let prev = if tail == NONE { HEAD } else { tail };
        *self.node(raw) = Node { at, prev, next: NONE };
        if tail != NONE {
            self.node(tail).next = raw;
        }
        let slot = &mut self.slots[place];
        if tail == NONE {
            slot.head = raw;
        }
        slot.tail = raw;
        slot.earliest = slot.earliest.min(at);
        self.occupied[place / SLOTS] |= 1 << (place % SLOTS);
    }

    fn node(&mut self, raw: u32) -> &mut Node {
        let key = SocketKey::from_raw(raw);
        self.nodes[key.kind_index()].get_mut(key.index()).expect("linked entries exist")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stack::demux::SocketKind;

    fn key(index: u32) -> SocketKey {
        SocketKey::new(SocketKind::Connection, index)
    }

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn exact_to_the_nanosecond_and_never_early() {
        let mut wheel = Deadlines::new(at(5));
        for (index, nanos) in [(0, 60_000_000_000), (1, 200_000_001), (2, 200_000_000), (3, 7)] {
            wheel.file(key(index), at(nanos));
        }
        for (index, nanos) in [(3, 7), (2, 200_000_000), (1, 200_000_001), (0, 60_000_000_000)] {
            assert_eq!(wheel.next(), Some(at(nanos)));
            assert_eq!(wheel.pop(at(nanos - 1)), None, "one nanosecond early");
            assert_eq!(wheel.pop(at(nanos)), Some(key(index)));
        }
        assert_eq!((wheel.next(), wheel.pop(Instant::FAR_FUTURE)), (None, None));
    }

    #[test]
    fn moved_earlier_at_once_and_never_later() {
        let mut wheel = Deadlines::new(at(0));
        wheel.file(key(1), at(100));
        wheel.file(key(1), at(300));
        assert_eq!(wheel.filed(key(1)), at(100), "a later time leaves the entry alone");
        wheel.file(key(1), at(50));
        assert_eq!(wheel.next(), Some(at(50)));
        assert_eq!(wheel.pop(at(1000)), Some(key(1)));
        assert_eq!(wheel.pop(at(1000)), None, "one entry a socket");
    }

    #[test]
    fn a_time_in_the_past_is_due_at_once() {
        let mut wheel = Deadlines::new(at(0));
        assert_eq!(wheel.pop(at(1_000_000)), None);
        wheel.file(key(1), at(5));
        assert_eq!(wheel.pop(at(1_000_000)), Some(key(1)));
    }

    #[test]
    fn same_time_first_filed_first() {
        let mut wheel = Deadlines::new(at(0));
        let when = at(123_456_789);
        (0..100).for_each(|index| wheel.file(key(index), when));
        assert_eq!(wheel.pop(at(100_000_000)), None);
        wheel.file(key(100), when);
        let order: Vec<SocketKey> = core::iter::from_fn(|| wheel.pop(when)).collect();
        assert_eq!(order, (0..=100).map(key).collect::<Vec<_>>());
    }

    proptest! {
        /// Against a sorted list, the slow obvious model.
        #[test]
        fn agrees_with_a_sorted_list(steps in proptest::collection::vec((0u32..40, 0u64..1u64 << 40, 0u8..4), 1..300)) {
            let mut wheel = Deadlines::new(at(0));
            let mut model: Vec<(u64, u64, u32)> = Vec::new(); // time, order, index
            let (mut now, mut order) = (0u64, 0u64);
            for (index, number, what) in steps {
                order += 1;
                match what {
                    0 => {
                        wheel.remove(key(index));
                        model.retain(|entry| entry.2 != index);
                    }
                    1 => {
                        now += number >> 8;
                        while let Some(got) = wheel.pop(at(now)) {
                            model.sort_unstable();
                            let first = model.remove(0);
                            prop_assert!(first.0 <= now);
                            prop_assert_eq!(got, key(first.2));
                        }
                        prop_assert!(model.iter().all(|entry| entry.0 > now));
                    }
                    _ => {
                        let time = now + (number >> (index % 40));
                        wheel.file(key(index), at(time));
                        match model.iter_mut().find(|entry| entry.2 == index) {
                            Some(entry) if entry.0 <= time => {}
                            Some(entry) => *entry = (time, order, index),
                            None => model.push((time, order, index)),
                        }
                    }
                }
                let earliest = model.iter().map(|entry| at(entry.0)).min();
                match (wheel.next(), earliest) {
                    (None, None) => {}
                    (Some(next), Some(earliest)) => prop_assert!(next <= earliest && next >= at(now)),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
