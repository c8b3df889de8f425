//! The network between the two ends, and everything a story lets go wrong on it.
//!
//! Owns:    packets on their way, in the order of their arrival; faults by direction; a middlebox that forgets.
//! Output:  for each packet sent its [`Fate`].

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::{BTreeMap, BinaryHeap};

use super::Side;

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It arrives.
    Arrives {
        /// When, since the story began.
        #[serde(serialize_with = "super::record::seconds")]
        at: Duration,
    },
    /// The network lost it.
    Lost,
    /// A middlebox no longer knew the connection.
    Forgotten,
}

/// When, in which order, to whom, what.
type Arrival = (Duration, u64, Side, Vec<u8>);

/// What is on the wire, and what the wire does.
#[derive(Debug)]
pub(super) struct Wire {
    /// One way.
    pub(super) delay: Duration,
    /// By sender: nothing gets through.
    pub(super) cut: [bool; 2],
    /// By sender: so many of the next segments with data are lost.
    pub(super) lose_data: [u32; 2],
    /// By sender: of the segments with data every n-th is lost; 0: none.
    pub(super) lose_every: [u32; 2],
    /// By sender: the next segment with data is that much later than the others.
    pub(super) hold_data: [Option<Duration>; 2],
    /// Flows idle for longer are forgotten, and what comes then is dropped.
    pub(super) forgets_after: Option<Duration>,
    last_seen: BTreeMap<usize, Duration>,
    data_seen: [u32; 2],
    in_flight: BinaryHeap<Reverse<Arrival>>,
    order: u64,
}

impl Wire {
    pub(super) fn new(delay: Duration) -> Self {
        Self {
            delay,
            cut: [false; 2],
            lose_data: [0; 2],
            lose_every: [0; 2],
            hold_data: [None; 2],
            forgets_after: None,
            last_seen: BTreeMap::new(),
            data_seen: [0; 2],
            in_flight: BinaryHeap::new(),
            order: 0,
        }
    }

    /// A packet leaves `from` at `at`. Times are of the stage's clock, the fate's since `origin`.
    pub(super) fn carry(
        &mut self,
        at: Duration,
        origin: Duration,
        from: Side,
        flow: usize,
        has_data: bool,
        packet: Vec<u8>,
    ) -> Fate {
        let side = from as usize;
        let seen = self.last_seen.insert(flow, at).unwrap_or(at);
        if self.forgets_after.is_some_and(|limit| at.saturating_sub(seen) > limit) {
            // What was forgotten stays so: nothing that is refused refreshes the entry.
            self.last_seen.insert(flow, Duration::ZERO);
            return Fate::Forgotten;
        }
        if self.cut[side] {
            return Fate::Lost;
        }
        let mut arrives = at + self.delay;
        if has_data {
            self.data_seen[side] += 1;
            let nth = self.lose_every[side];
            if nth > 0 && self.data_seen[side].is_multiple_of(nth) {
                return Fate::Lost;
            }
            if self.lose_data[side] > 0 {
                self.lose_data[side] -= 1;
                return Fate::Lost;
            }
            arrives += self.hold_data[side].take().unwrap_or_default();
        }
        self.order += 1;
        self.in_flight.push(Reverse((arrives, self.order, from.other(), packet)));
        Fate::Arrives { at: arrives.saturating_sub(origin) }
    }

    /// When the next packet arrives.
    pub(super) fn next_arrival(&self) -> Option<Duration> {
        self.in_flight.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next packet that has arrived by `now`, and for whom.
    pub(super) fn take_arrived(&mut self, now: Duration) -> Option<(Side, Vec<u8>)> {
        if self.next_arrival()? > now {
            return None;
        }
        self.in_flight.pop().map(|Reverse((_, _, to, packet))| (to, packet))
    }
}
