//! A small bounded map from address (or pair of addresses) to value where the entry with the earliest time makes room.
//!
//! Ordered, so that the same calls forget the same entries (no hash order), and no peer can make it slow or large.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::time::Instant;

/// At most `limit` addresses.
#[derive(Debug)]
pub(crate) struct ByAddress<V, K = IpAddr> {
    entries: BTreeMap<K, (Instant, V)>,
    by_time: BTreeSet<(Instant, K)>,
    limit: usize,
}

impl<V, K: Ord + Copy> ByAddress<V, K> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: BTreeMap::new(), by_time: BTreeSet::new(), limit }
    }

    /// The address's time and value.
    pub(crate) fn get(&self, address: K) -> Option<(Instant, &V)> {
        self.entries.get(&address).map(|(time, value)| (*time, value))
    }

    /// Sets an address's time and value. A new address in a full map replaces the one with the earliest time.
    pub(crate) fn set(&mut self, address: K, time: Instant, value: V) {
        if let Some((old, _)) = self.entries.insert(address, (time, value)) {
            self.by_time.remove(&(old, address));
        } else if self.entries.len() > self.limit
            && let Some((_, earliest)) = self.by_time.pop_first()
        {
            self.entries.remove(&earliest);
        }
        self.by_time.insert((time, address));
    }

    /// Forgets an address.
    pub(crate) fn remove(&mut self, address: K) {
        if let Some((time, _)) = self.entries.remove(&address) {
            self.by_time.remove(&(time, address));
        }
    }

    /// The earliest time and its address.
    pub(crate) fn earliest(&self) -> Option<(Instant, K)> {
        self.by_time.first().copied()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.by_time.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_makes_room() {
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let at = Instant::from_millis;
        let mut map = ByAddress::new(2);
        map.set(address(1), at(10), 'a');
        map.set(address(2), at(5), 'b');
        map.set(address(1), at(3), 'c'); // the time of an address may move
        map.set(address(3), at(1), 'd');
        assert_eq!(map.len(), 2);
        assert_eq!(map.get(address(1)), None);
        assert_eq!(map.earliest(), Some((at(1), address(3))));
        map.remove(address(3));
        assert_eq!(map.earliest(), Some((at(5), address(2))));
        assert_eq!(map.len(), 1);
    }
}
