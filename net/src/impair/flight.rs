//! Packets on their way in one direction, by the time they arrive.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use lastack_core::time::{Duration, Instant};

use super::{FLIGHT_BYTES, FLIGHT_PACKETS};

/// What is due so soon is due now: a wake less, and no packet noticeably early.
const SLACK: Duration = Duration::from_micros(50);
/// Buffers kept for later packets.
const SPARE: usize = 1024;

/// One packet on its way.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) at: Instant,
    order: u64,
    pub(super) entered: Instant,
    /// Index of the rule that it is under; `None`: of none.
    pub(super) rule: Option<usize>,
    /// Which packet of that rule and direction.
    pub(super) ordinal: u64,
    pub(super) packet: Vec<u8>,
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for InFlight {}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The packets of one direction.
#[derive(Debug, Default)]
pub(super) struct Flight {
    heap: BinaryHeap<Reverse<InFlight>>,
    bytes: usize,
    order: u64,
    spare: Vec<Vec<u8>>,
}

/// There is no room for it.
#[derive(Debug)]
pub(super) struct Full;

impl Flight {
    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// When the next arrives.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(first)| first.at)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next().is_some_and(|at| at <= now + SLACK)
    }

    /// A packet begins its way.
    pub(super) fn push(
        &mut self,
        (entered, at): (Instant, Instant),
        rule: Option<usize>,
        ordinal: u64,
        bytes: &[u8],
    ) -> Result<(), Full> {
        if self.heap.len() >= FLIGHT_PACKETS || self.bytes + bytes.len() > FLIGHT_BYTES {
            return Err(Full);
        }
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.clear();
        packet.extend_from_slice(bytes);
        self.bytes += packet.len();
        self.order += 1;
        self.heap.push(Reverse(InFlight { at, order: self.order, entered, rule, ordinal, packet }));
        Ok(())
    }

    /// The next packet, if it has arrived.
    pub(super) fn pop(&mut self, now: Instant) -> Option<InFlight> {
        if !self.is_due(now) {
            return None;
        }
        let Reverse(first) = self.heap.pop()?;
        self.bytes -= first.packet.len();
        Some(first)
    }

    /// Gives a packet's buffer back.
    pub(super) fn reuse(&mut self, packet: Vec<u8>) {
        if self.spare.len() < SPARE {
            self.spare.push(packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_arrive_by_time_and_those_of_one_time_in_their_order() {
        let mut flight = Flight::default();
        let ms = Instant::from_millis;
        for (n, at) in [3, 1, 1, 2].into_iter().enumerate() {
            flight.push((ms(0), ms(at)), None, n as u64, &[n as u8]).unwrap();
        }
        assert!(flight.pop(ms(0)).is_none());
        let order: Vec<u64> = std::iter::from_fn(|| flight.pop(ms(5))).map(|packet| packet.ordinal).collect();
        assert_eq!(order, [1, 2, 3, 0]);
        assert!(flight.is_empty() && flight.bytes == 0);
    }

    #[test]
    fn bytes_and_packets_are_bounded() {
        let mut flight = Flight::default();
        let big = vec![0; 64 << 10];
        let mut count = 0;
        while flight.push((Instant::ZERO, Instant::ZERO), None, 0, &big).is_ok() {
            count += 1;
        }
        assert_eq!(count, FLIGHT_BYTES / big.len());
        let mut flight = Flight::default();
        for _ in 0..FLIGHT_PACKETS {
            flight.push((Instant::ZERO, Instant::ZERO), None, 0, &[0]).unwrap();
        }
        assert!(flight.push((Instant::ZERO, Instant::ZERO), None, 0, &[0]).is_err());
    }
}
