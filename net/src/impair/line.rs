//! What a bad link has: rules with their state, packets on their way, holes.

use std::io;
use std::task::Waker;

use bytes::BytesMut;
use lastack_core::impair::{Carried, Path};
use lastack_core::time::Instant;
use lastack_core::wire::offload::Segments;
use lastack_core::wire::transmit::{RxMeta, Transmit};

use super::Rule;
use super::ends::{Ends, Parsed};
use super::flight::{Flight, InFlight};
use super::holes::Holes;
use super::report::{Measured, Report, RuleReport};
use crate::received::undo_offload;

/// A rule at work.
struct Active {
    rule: Rule,
    inbound: Direction,
    outbound: Direction,
}

/// One direction under one rule.
struct Direction {
    path: Path,
    measured: Measured,
}

impl Direction {
    /// Lets a packet enter `flight`, or not.
    fn carry(&mut self, now: Instant, rule: usize, packet: &[u8], flight: &mut Flight) {
        let Carried::Arrives { at, twice } = self.path.carry(now, packet.len()) else { return };
        let ordinal = self.path.counters().packets;
        for _ in 0..=u8::from(twice) {
            if flight.push((now, at), Some(rule), ordinal, packet).is_err() {
                self.measured.flight_full += 1;
            }
        }
    }
}

/// A bad link's state.
pub(super) struct Line {
    seed: u64,
    rules: Vec<Active>,
    pub(super) inbound: Flight,
    outbound: Flight,
    pub(super) holes: Holes,
    /// Packets of no rule that found no room.
    unruled_full: u64,
    /// A packet as it comes from the device.
    pub(super) received: BytesMut,
    undone: Transmit,
    cut: Vec<u8>,
    /// The packet that is due, as the device takes it; and whence it is.
    leaving: Transmit,
    leaving_from: Option<InFlight>,
    /// The device had no room.
    pub(super) is_blocked: bool,
    /// The device has failed.
    pub(super) failed: Option<io::Error>,
    pub(super) driver: Option<Waker>,
}

impl Line {
    pub(super) fn new(seed: u64, rules: Vec<Rule>) -> Self {
        let active = |rule: Rule| Active {
            inbound: Direction::new(Path::new(seed, &format!("inbound {}", rule.name), rule.inbound)),
            outbound: Direction::new(Path::new(seed, &format!("outbound {}", rule.name), rule.outbound)),
            rule,
        };
        Self {
            seed,
            rules: rules.into_iter().map(active).collect(),
            inbound: Flight::default(),
            outbound: Flight::default(),
            holes: Holes::default(),
            unruled_full: 0,
            received: BytesMut::new(),
            undone: Transmit::default(),
            cut: Vec::new(),
            leaving: Transmit::default(),
            leaving_from: None,
            is_blocked: false,
            failed: None,
            driver: None,
        }
    }

    /// True when super-segments need not be cut.
    pub(super) fn is_whole(&self) -> bool {
        self.rules.is_empty()
    }

    /// `self.received` has come from the device.
    pub(super) fn enter_inbound(&mut self, now: Instant, meta: RxMeta) {
        let received = std::mem::take(&mut self.received);
        if !meta.checksum_valid && meta.segment_size == 0 {
            self.one_inbound(now, &received);
        } else {
            let (mut undone, mut packet) = (std::mem::take(&mut self.undone), std::mem::take(&mut self.cut));
            undo_offload(&mut undone, &received, meta);
            let mut segments = Segments::new(&undone);
            while segments.next_packet(&mut packet) {
                self.one_inbound(now, &packet);
            }
            undone.clear();
            (self.undone, self.cut) = (undone, packet);
        }
        self.received = received;
    }

    fn one_inbound(&mut self, now: Instant, packet: &[u8]) {
        if self.holes.swallow_inbound(packet) {
            return;
        }
        let rule = self.rule_of(packet, Parsed::inbound);
        match rule {
            Some(n) => self.rules[n].inbound.carry(now, n, packet, &mut self.inbound),
            None => self.unruled_full += u64::from(self.inbound.push((now, now), None, 0, packet).is_err()),
        }
    }

    /// The stack sends `packet`.
    pub(super) fn enter_outbound(&mut self, now: Instant, packet: &Transmit) {
        let mut piece = std::mem::take(&mut self.cut);
        let mut segments = Segments::new(packet);
        while segments.next_packet(&mut piece) {
            if self.holes.swallows_outbound(&piece) {
                continue;
            }
            match self.rule_of(&piece, Parsed::outbound) {
                Some(n) => self.rules[n].outbound.carry(now, n, &piece, &mut self.outbound),
                None => {
                    self.unruled_full += u64::from(self.outbound.push((now, now), None, 0, &piece).is_err())
                }
            }
        }
        self.cut = piece;
    }

    fn rule_of(&self, packet: &[u8], ends: impl Fn(&Parsed) -> Ends) -> Option<usize> {
        let ends = ends(&Parsed::read(packet)?);
        self.rules.iter().position(|active| (active.rule.matches)(&ends))
    }

    /// Hands over the next packet that has come for the stack. False: none is due.
    pub(super) fn pop_inbound(&mut self, now: Instant, take: impl FnOnce(&[u8])) -> bool {
        let Some(arrived) = self.inbound.pop(now) else { return false };
        if let Some(n) = arrived.rule {
            self.rules[n].inbound.measured.arrived(&arrived, now);
        }
        take(&arrived.packet);
        self.inbound.reuse(arrived.packet);
        true
    }

    /// The packet that is to be given to the device now: the same until [`Line::sent_outbound`].
    pub(super) fn next_outbound(&mut self, now: Instant) -> Option<&Transmit> {
        if self.leaving_from.is_none() {
            let due = self.outbound.pop(now)?;
            self.leaving.clear();
            self.leaving.head.extend_from_slice(&due.packet);
            self.leaving_from = Some(due);
        }
        Some(&self.leaving)
    }

    /// The device has taken it.
    pub(super) fn sent_outbound(&mut self, now: Instant) {
        let Some(sent) = self.leaving_from.take() else { return };
        if let Some(n) = sent.rule {
            self.rules[n].outbound.measured.arrived(&sent, now);
        }
        self.outbound.reuse(sent.packet);
    }

    /// When something has to be released. What waits for room in the device needs no clock.
    pub(super) fn next_deadline(&self) -> Instant {
        let outbound = if self.is_blocked { None } else { self.outbound.next() };
        self.inbound.next().into_iter().chain(outbound).min().unwrap_or(Instant::FAR_FUTURE)
    }

    pub(super) fn report(&self) -> Report {
        let rules = self.rules.iter().map(|active| RuleReport {
            name: active.rule.name.clone(),
            inbound: active.inbound.measured.report(&active.inbound.path),
            outbound: active.outbound.measured.report(&active.outbound.path),
        });
        Report {
            seed: self.seed,
            rules: rules.collect(),
            black_holed: self.holes.swallowed,
            flight_full: self.unruled_full,
        }
    }
}

impl Direction {
    fn new(path: Path) -> Self {
        Self { path, measured: Measured::default() }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("seed", &self.seed)
            .field("rules", &self.rules.iter().map(|active| &active.rule).collect::<Vec<_>>())
            .field("is_blocked", &self.is_blocked)
            .finish_non_exhaustive()
    }
}
