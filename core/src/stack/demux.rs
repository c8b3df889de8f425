//! Who gets a segment: one table for connections, half-open ones and mini sockets.
//!
//! Owns:    [`Demux`], from 4-tuple to [`SocketKey`]; the stores behind the keys are [`crate::stack::sockets`]'s.
//! Rules:   one lookup a segment, under a secret key (an outsider cannot aim for collisions). Linux: `__inet_lookup_established`.
//! Not here: listeners (`listeners`), UDP.

use hashbrown::HashTable;

/// Which store a key points into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub(crate) enum SocketKind {
    Connection = 0,
    HalfOpenV4 = 1,
    HalfOpenV6 = 2,
    TimeWaitV4 = 3,
    TimeWaitV6 = 4,
}

/// Names one socket in four bytes: its kind and its place in that kind's store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SocketKey(u32);

const INDEX_BITS: u32 = 29;
const KINDS: [SocketKind; SocketKey::KINDS] = [
    SocketKind::Connection,
    SocketKind::HalfOpenV4,
    SocketKind::HalfOpenV6,
    SocketKind::TimeWaitV4,
    SocketKind::TimeWaitV6,
];

impl SocketKey {
    /// Kinds there are.
    pub(crate) const KINDS: usize = 5;

    pub(crate) const fn new(kind: SocketKind, index: u32) -> Self {
        debug_assert!(index < 1 << INDEX_BITS, "a store has fewer than 2^29 places");
        Self((kind as u32) << INDEX_BITS | index)
    }

    pub(crate) const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    pub(crate) const fn raw(self) -> u32 {
        self.0
    }

    pub(crate) const fn kind(self) -> SocketKind {
        KINDS[self.kind_index()]
    }

    pub(crate) const fn kind_index(self) -> usize {
        (self.0 >> INDEX_BITS) as usize
    }

    pub(crate) const fn index(self) -> u32 {
        self.0 & ((1 << INDEX_BITS) - 1)
    }
}

impl core::fmt::Debug for SocketKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}({})", self.kind(), self.index())
    }
}

/// A table of keys; what they stand for is asked of the stores.
#[derive(Debug, Default)]
pub(crate) struct Demux(HashTable<SocketKey>);

impl Demux {
    #[inline]
    pub(crate) fn find(&self, hash: u64, is_it: impl FnMut(&SocketKey) -> bool) -> Option<SocketKey> {
        self.0.find(hash, is_it).copied()
    }

    /// Adds a key that is not in the table. `rehash` gives a key's hash, when the table grows.
    pub(crate) fn insert(&mut self, hash: u64, key: SocketKey, rehash: impl Fn(&SocketKey) -> u64) {
        self.0.insert_unique(hash, key, rehash);
    }

    pub(crate) fn remove(&mut self, hash: u64, key: SocketKey) -> bool {
        match self.0.find_entry(hash, |other| *other == key) {
            Ok(entry) => {
                entry.remove();
                true
            }
            Err(_) => false,
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_four_bytes_and_keeps_kind_and_place() {
        assert_eq!(size_of::<SocketKey>(), 4);
        for kind in KINDS {
            let key = SocketKey::new(kind, (1 << INDEX_BITS) - 1);
            assert_eq!((key.kind(), key.index()), (kind, (1 << INDEX_BITS) - 1));
            assert_eq!(SocketKey::from_raw(key.raw()), key);
        }
    }

    #[test]
    fn found_and_removed_by_key() {
        let mut table = Demux::default();
        let [a, b] = [SocketKind::Connection, SocketKind::TimeWaitV4].map(|kind| SocketKey::new(kind, 3));
        table.insert(42, a, |_| 42);
        assert!(!table.remove(42, b));
        assert_eq!(table.find(42, |_| true), Some(a));
        assert!(table.remove(42, a) && !table.remove(42, a));
        assert_eq!(table.len(), 0);
    }
}
