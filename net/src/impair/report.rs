//! What was asked of a bad link, and what it did.

use lastack_core::impair::{Conditions, Path, PathCounters};
use lastack_core::time::{Duration, Instant};

use super::flight::InFlight;

/// What a link did.
#[derive(Clone, Debug)]
pub struct Report {
    /// The number that all random decisions follow from.
    pub seed: u64,
    /// Each rule, in order.
    pub rules: Vec<RuleReport>,
    /// Packets of connections that were cut.
    pub black_holed: u64,
    /// Packets of no rule that were lost because too many were on their way.
    pub flight_full: u64,
}

/// What happened under one rule.
#[derive(Clone, Debug)]
pub struct RuleReport {
    /// The rule's name.
    pub name: String,
    /// To packets that the stack received.
    pub inbound: DirectionReport,
    /// To packets that the stack sent.
    pub outbound: DirectionReport,
}

/// One direction: asked, decided, measured.
#[derive(Clone, Debug)]
pub struct DirectionReport {
    /// What was asked for.
    pub conditions: Conditions,
    /// What was decided.
    pub counters: PathCounters,
    /// Packets, copies included, that reached the other side.
    pub arrived: u64,
    /// Of these, packets that a later one had overtaken.
    pub overtaken: u64,
    /// Packets lost because too many were on their way ([`FLIGHT_PACKETS`](super::FLIGHT_PACKETS)).
    pub flight_full: u64,
    /// How long those that arrived were on their way; `None`: none did.
    pub delays: Option<Delays>,
    /// Ordinal and hash of all decisions up to it, at powers of two and at the end: equal for equal seeds as far as
    /// two runs both went.
    pub decisions: Vec<(u64, u64)>,
}

/// Times on the way, the queue before a rate limit included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delays {
    /// The shortest.
    pub min: Duration,
    /// The mean.
    pub mean: Duration,
    /// The longest.
    pub max: Duration,
}

/// What is measured while packets arrive.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) flight_full: u64,
    arrived: u64,
    overtaken: u64,
    newest: u64,
    delay_sum: Duration,
    delay_min: Option<Duration>,
    delay_max: Duration,
}

impl Measured {
    pub(super) fn arrived(&mut self, packet: &InFlight, now: Instant) {
        self.arrived += 1;
        self.overtaken += u64::from(packet.ordinal < self.newest);
        self.newest = self.newest.max(packet.ordinal);
        let delay = now.saturating_since(packet.entered);
        self.delay_sum += delay;
        self.delay_min = Some(self.delay_min.map_or(delay, |least| least.min(delay)));
        self.delay_max = self.delay_max.max(delay);
    }

    pub(super) fn report(&self, path: &Path) -> DirectionReport {
        let Self { flight_full, arrived, overtaken, newest: _, delay_sum, delay_min, delay_max } = *self;
        let mean = |count: u64| {
            Duration::from_nanos(u64::try_from(delay_sum.as_nanos() / u128::from(count)).unwrap_or(u64::MAX))
        };
        DirectionReport {
            conditions: *path.conditions(),
            counters: *path.counters(),
            arrived,
            overtaken,
            flight_full,
            delays: delay_min.map(|min| Delays { min, mean: mean(arrived), max: delay_max }),
            decisions: path.log().marks(),
        }
    }
}
