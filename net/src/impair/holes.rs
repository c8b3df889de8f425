//! Connections whose packets vanish.

use std::collections::{HashSet, VecDeque};

use super::ends::{Ends, Parsed};

/// Connections remembered as cut.
const LIMIT: usize = 65_536;

/// The black holes of a link.
#[derive(Debug, Default)]
pub(super) struct Holes {
    cut: HashSet<Ends>,
    /// Oldest first; may still name ends that are not cut any more.
    order: VecDeque<Ends>,
    /// Packets that vanished.
    pub(super) swallowed: u64,
}

impl Holes {
    pub(super) fn cut(&mut self, ends: Ends) {
        if self.cut.insert(ends) {
            self.order.push_back(ends);
        }
        while self.order.len() > LIMIT {
            if let Some(oldest) = self.order.pop_front() {
                self.cut.remove(&oldest);
            }
        }
    }

    pub(super) fn swallow_inbound(&mut self, packet: &[u8]) -> bool {
        if self.cut.is_empty() {
            return false;
        }
        let Some(parsed) = Parsed::read(packet) else { return false };
        let ends = parsed.inbound();
        if parsed.is_first_syn && self.cut.remove(&ends) {
            self.order.retain(|other| *other != ends);
        }
        self.swallow(&ends)
    }

    pub(super) fn swallows_outbound(&mut self, packet: &[u8]) -> bool {
        if self.cut.is_empty() {
            return false;
        }
        Parsed::read(packet).is_some_and(|parsed| self.swallow(&parsed.outbound()))
    }

    fn swallow(&mut self, ends: &Ends) -> bool {
        let vanishes = self.cut.contains(ends);
        self.swallowed += u64::from(vanishes);
        vanishes
    }
}
