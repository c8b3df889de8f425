//! The random decisions about packets, each a function of seed, direction and ordinal.

use core::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::{Conditions, Loss, Share};
use crate::rng::HashKey;

/// What a decision is about. Each has draws of its own, so that switching one impairment on does not change another.
#[derive(Clone, Copy)]
enum Purpose {
    Loss = 0,
    Burst = 1,
    Jitter = 2,
    Reorder = 3,
    Duplicate = 4,
}

/// A source of draws: the same key, ordinal and purpose give the same draw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance(HashKey);

impl Chance {
    pub(crate) fn new(seed: u64, direction: &str) -> Self {
        let word = |label: u8| {
            let mut hasher = SipHasher13::new();
            hasher.write_u64(seed);
            hasher.write_u8(label);
            hasher.write(direction.as_bytes());
            hasher.finish()
        };
        Self(HashKey::new(word(0), word(1)))
    }

    pub(crate) fn from_key(key: HashKey) -> Self {
        Self(key)
    }

    fn draw(&self, ordinal: u64, purpose: Purpose) -> u64 {
        let mut hasher = self.0.wire_hasher();
        hasher.write_u64(ordinal);
        hasher.write_u8(purpose as u8);
        hasher.finish()
    }

    /// True for `share` of all ordinals.
    fn falls(&self, ordinal: u64, purpose: Purpose, share: Share) -> bool {
        if !share.is_some() {
            return false;
        }
        let millionth = ((self.draw(ordinal, purpose) >> 32) * 1_000_000) >> 32;
        millionth < u64::from(share.0)
    }
}

/// What was decided about one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Decision {
    /// Which packet of its direction, from 1.
    pub ordinal: u64,
    /// It is lost.
    pub is_lost: bool,
    /// Where its jitter lies between the least and the most, of 2^32.
    pub jitter: u32,
    /// It is held back to be overtaken.
    pub is_held_back: bool,
    /// It arrives twice.
    pub is_duplicated: bool,
}

/// Decides about one packet after the other.
#[derive(Debug)]
pub(crate) struct Decisions {
    chance: Chance,
    ordinal: u64,
    /// The state of the Gilbert–Elliott chain.
    is_bad: bool,
    log: DecisionLog,
}

impl Decisions {
    pub(crate) fn new(chance: Chance) -> Self {
        Self { chance, ordinal: 0, is_bad: false, log: DecisionLog::default() }
    }

    pub(crate) fn next(&mut self, conditions: &Conditions) -> Decision {
        self.ordinal += 1;
        let (chance, ordinal) = (self.chance, self.ordinal);
        let mut decision =
            Decision { ordinal, is_lost: self.is_lost(&conditions.loss), ..Decision::default() };
        if !decision.is_lost {
            if !conditions.jitter.is_zero() {
                decision.jitter = (chance.draw(ordinal, Purpose::Jitter) >> 32) as u32;
            }
            decision.is_held_back = chance.falls(ordinal, Purpose::Reorder, conditions.reorder);
            decision.is_duplicated = chance.falls(ordinal, Purpose::Duplicate, conditions.duplicate);
        }
        self.log.add(&decision);
        decision
    }

    fn is_lost(&mut self, loss: &Loss) -> bool {
        let share = match *loss {
            Loss::None => return false,
            Loss::Random(share) => share,
            Loss::Bursts { to_bad, to_good, in_good, in_bad } => {
                let leaves = if self.is_bad { to_good } else { to_bad };
                self.is_bad ^= self.chance.falls(self.ordinal, Purpose::Burst, leaves);
                if self.is_bad { in_bad } else { in_good }
            }
        };
        self.chance.falls(self.ordinal, Purpose::Loss, share)
    }

    pub(crate) fn log(&self) -> &DecisionLog {
        &self.log
    }
}

/// A hash of every decision so far, kept at every power of two: two runs of different length can be compared as far
/// as both went.
#[derive(Clone, Debug, Default)]
pub struct DecisionLog {
    hasher: SipHasher13,
    last: u64,
    marks: Vec<(u64, u64)>,
}

impl DecisionLog {
    fn add(&mut self, decision: &Decision) {
        let Decision { ordinal, is_lost, jitter, is_held_back, is_duplicated } = *decision;
        let bits = u64::from(is_lost) | u64::from(is_held_back) << 1 | u64::from(is_duplicated) << 2;
        self.hasher.write_u64(ordinal);
        self.hasher.write_u64(bits << 32 | u64::from(jitter));
        self.last = ordinal;
        if ordinal.is_power_of_two() {
            self.marks.push((ordinal, self.hasher.finish()));
        }
    }

    /// Ordinal and hash of all decisions up to it: at every power of two, and at the last packet.
    pub fn marks(&self) -> Vec<(u64, u64)> {
        let mut marks = self.marks.clone();
        if self.last > 0 && !self.last.is_power_of_two() {
            marks.push((self.last, self.hasher.finish()));
        }
        marks
    }
}
