//! What a bad wire does to packets: loss, delay, rate, reordering, duplicates, decided packet by packet.
//!
//! Owns:    [`Conditions`] (what is asked for), [`Path`] (one direction of a wire that is so), [`PathCounters`].
//! Input:   the time and length of each packet, in the order they enter.
//! Output:  what becomes of it ([`Carried`]); a log of the decisions ([`DecisionLog`]).
//! Rules:   every random decision is a function of seed, direction and the packet's ordinal, and of nothing else: not of
//!          time, not of other settings. So a seed repeats a run's decisions although its packets come at other times.
//! Not here: holding packets until they arrive (`sim` in virtual time, `lastack::impair` in real time).
//!
//! # Example
//! ```
//! use lastack_core::impair::{Carried, Conditions, Loss, Path, Share};
//! use lastack_core::time::{Duration, Instant};
//! let conditions = Conditions {
//!     loss: Loss::Random(Share::percent(5.0)),
//!     delay: Duration::from_millis(20),
//!     ..Conditions::default()
//! };
//! let mut path = Path::new(7, "up", conditions);
//! for _ in 0..1000 {
//!     if let Carried::Arrives { at, .. } = path.carry(Instant::ZERO, 1500) {
//!         assert_eq!(at, Instant::from_millis(20));
//!     }
//! }
//! assert!((30..70).contains(&path.counters().lost));
//! ```

mod decide;

use std::collections::VecDeque;

use crate::time::{Duration, Instant};

pub(crate) use decide::{Chance, Decisions};
pub use decide::{Decision, DecisionLog};

/// Packets whose departure is remembered, whatever the limit.
const WAITING: usize = 65_536;

/// A share of all packets, in millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Share(u32);

impl Share {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self(1_000_000);

    /// So many of a hundred, 0 to 100, to a ten-thousandth; what lies outside becomes the nearer end.
    pub fn percent(percent: f64) -> Self {
        Self((percent.clamp(0.0, 100.0) * 10_000.0).round() as u32)
    }

    /// The share as a fraction, 0 to 1.
    pub fn as_fraction(self) -> f64 {
        f64::from(self.0) / 1e6
    }

    /// True unless the share is nothing.
    pub fn is_some(self) -> bool {
        self.0 > 0
    }
}

/// Which packets are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each for itself (Bernoulli).
    Random(Share),
    /// In bursts (Gilbert–Elliott): a chain of two states that steps once a packet.
    Bursts {
        /// From good to bad, a packet.
        to_bad: Share,
        /// From bad to good, a packet.
        to_good: Share,
        /// Lost while good.
        in_good: Share,
        /// Lost while bad.
        in_bad: Share,
    },
}

impl Loss {
    /// `share` of all packets, in bursts of `mean` packets on average (at least 1): everything is lost while bad, and
    /// nothing while good. `None` where no chain does that: 100 %, or good times would be shorter than a packet.
    ///
    /// # Example
    /// ```
    /// use lastack_core::impair::{Loss, Share};
    /// assert!(Loss::bursts(Share::percent(2.0), 20.0).is_some());
    /// assert!(Loss::bursts(Share::percent(90.0), 1.0).is_none());
    /// ```
    pub fn bursts(share: Share, mean: f64) -> Option<Self> {
        let lost = share.as_fraction();
        let to_good = 1.0 / mean;
        let to_bad = to_good * lost / (1.0 - lost);
        if !(mean >= 1.0 && (0.0..=1.0).contains(&to_bad)) {
            return None;
        }
        Some(Self::Bursts {
            to_bad: Share::percent(to_bad * 100.0),
            to_good: Share::percent(to_good * 100.0),
            in_good: Share::NONE,
            in_bad: Share::ALL,
        })
    }
}

/// How much may wait for its turn at a limited rate; what comes on top is lost (tail drop).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLimit {
    /// Packets; more than 65,536 are never held.
    pub packets: u32,
    /// Bytes.
    pub bytes: u64,
}

impl Default for QueueLimit {
    /// 1000 packets, Linux's `txqueuelen`, of any size.
    fn default() -> Self {
        Self { packets: 1000, bytes: u64::MAX }
    }
}

/// What one direction of a wire does. By default: nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conditions {
    /// Which packets are lost.
    pub loss: Loss,
    /// How long every packet takes.
    pub delay: Duration,
    /// Up to so much less or more, each packet for itself and all values alike; never less than nothing.
    pub jitter: Duration,
    /// Whether jitter may let packets overtake one another; else a packet waits for those before it, and what waits
    /// comes later than its own jitter says.
    pub jitter_reorders: bool,
    /// Bits of IP packet a second.
    pub rate: Option<u64>,
    /// What may wait for its turn at that rate.
    pub queue: QueueLimit,
    /// Packets that are held back to be overtaken.
    pub reorder: Share,
    /// How long these are held back. Default 5 ms.
    pub reorder_by: Duration,
    /// Packets that arrive twice, the copy behind the packet.
    pub duplicate: Share,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            loss: Loss::None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            jitter_reorders: false,
            rate: None,
            queue: QueueLimit::default(),
            reorder: Share::NONE,
            reorder_by: Duration::from_millis(5),
            duplicate: Share::NONE,
        }
    }
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carried {
    /// It arrives.
    Arrives {
        /// When.
        at: Instant,
        /// Once more, at the same time behind it.
        twice: bool,
    },
    /// It does not.
    Lost(LostBy),
}

/// Why a packet was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LostBy {
    /// The asked-for loss.
    Loss,
    /// The queue before the rate limit was full.
    QueueFull,
}

impl LostBy {
    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::QueueFull => "queue-full",
        }
    }
}

/// What a path did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathCounters {
    /// Packets that entered.
    pub packets: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Of the packets, lost as asked.
    pub lost: u64,
    /// Lost because the queue before the rate limit was full.
    pub queue_full: u64,
    /// Held back to be overtaken.
    pub held_back: u64,
    /// Arrived twice.
    pub duplicated: u64,
}

/// One direction of a wire.
#[derive(Debug)]
pub struct Path {
    conditions: Conditions,
    decisions: Decisions,
    counters: PathCounters,
    /// When the last packet has left at the limited rate.
    busy_until: Instant,
    /// When each packet that waits for its turn will have left.
    waiting: VecDeque<Instant>,
    /// When the last packet that was not held back arrives.
    last_arrival: Instant,
}

impl Path {
    /// A wire in `conditions`; its decisions follow from `seed` and `direction`, any text that tells it from others.
    pub fn new(seed: u64, direction: &str, conditions: Conditions) -> Self {
        Self::with_chance(Chance::new(seed, direction), conditions)
    }

    pub(crate) fn with_chance(chance: Chance, conditions: Conditions) -> Self {
        Self {
            conditions,
            decisions: Decisions::new(chance),
            counters: PathCounters::default(),
            busy_until: Instant::ZERO,
            waiting: VecDeque::new(),
            last_arrival: Instant::ZERO,
        }
    }

    /// What it does.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Changes what it does to packets from now on.
    pub fn conditions_mut(&mut self) -> &mut Conditions {
        &mut self.conditions
    }

    /// What it did.
    pub fn counters(&self) -> &PathCounters {
        &self.counters
    }

    /// What it decided.
    pub fn log(&self) -> &DecisionLog {
        self.decisions.log()
    }

    /// The next packet enters, `len` bytes long. `now` must not go back.
    pub fn carry(&mut self, now: Instant, len: usize) -> Carried {
        self.counters.packets += 1;
        self.counters.bytes += len as u64;
        let decision = self.decisions.next(&self.conditions);
        if decision.is_lost {
            self.counters.lost += 1;
            return Carried::Lost(LostBy::Loss);
        }
        let Some(left) = self.queued(now, len) else {
            self.counters.queue_full += 1;
            return Carried::Lost(LostBy::QueueFull);
        };
        let mut at = self.jittered(left + self.conditions.delay, left, decision.jitter);
        if decision.is_held_back {
            self.counters.held_back += 1;
            at += self.conditions.reorder_by;
        } else {
            if !self.conditions.jitter_reorders {
                at = at.max(self.last_arrival);
            }
            self.last_arrival = at;
        }
        self.counters.duplicated += u64::from(decision.is_duplicated);
        Carried::Arrives { at, twice: decision.is_duplicated }
    }

    /// `fraction`: of 2^32, where in the range from `-jitter` to `+jitter`.
    fn jittered(&self, at: Instant, earliest: Instant, fraction: u32) -> Instant {
        let jitter = self.conditions.jitter;
        if jitter.is_zero() {
            return at;
        }
        let span = u128::from(u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX)) * 2;
        let offset =
            Duration::from_nanos(u64::try_from((span * u128::from(fraction)) >> 32).unwrap_or(u64::MAX));
        let nanos = (at + offset).saturating_since(Instant::ZERO).saturating_sub(jitter);
        (Instant::ZERO + nanos).max(earliest)
    }

    /// When the packet has left at the limited rate; `None`: no room to wait.
    fn queued(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let Some(rate) = self.conditions.rate.map(|rate| u128::from(rate.max(1))) else { return Some(now) };
        while self.waiting.front().is_some_and(|left| *left <= now) {
            self.waiting.pop_front();
        }
        let limit = self.conditions.queue;
        let start = self.busy_until.max(now);
        let waiting_bytes = start.saturating_since(now).as_nanos() * rate / 8_000_000_000;
        if self.waiting.len() >= (limit.packets as usize).min(WAITING)
            || waiting_bytes + len as u128 > u128::from(limit.bytes)
        {
            return None;
        }
        let nanos = len as u128 * 8_000_000_000 / rate;
        self.busy_until = start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.waiting.push_back(self.busy_until);
        Some(self.busy_until)
    }
}

#[cfg(test)]
mod tests;
