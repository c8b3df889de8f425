//! One direction of a wire, with everything that can go wrong on it.

use crate::impair::{Carried, Chance, Conditions, Loss, Path, QueueLimit, Share};
use crate::rng::HashKey;
use crate::time::{Duration, Instant};

/// What becomes of a packet, as a hook decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fate {
    /// The wire's impairments decide.
    #[default]
    Pass,
    /// Lost.
    Drop,
    /// So much later than the others, past the impairments.
    Late(Duration),
    /// Arrives twice, past the impairments.
    Twice,
}

/// One direction of a wire. Everything is off at first: packets arrive at once and in order.
#[derive(Debug)]
pub struct Wire {
    path: Path,
    delay: Duration,
    jitter: Duration,
    /// Packets since [`Wire::loss_every`] was called.
    sent: u64,
    loss_every: Option<u64>,
    mtu: Option<u32>,
    black_hole: bool,
    cut: bool,
    /// What hooks, cuts and sizes did, beside the path's own counters.
    entered: u64,
    dropped: u64,
    repeated: u64,
}

impl Wire {
    pub(super) fn new(key: HashKey) -> Self {
        let conditions = Conditions { jitter_reorders: true, ..Conditions::default() };
        Self {
            path: Path::with_chance(Chance::from_key(key), conditions),
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            sent: 0,
            loss_every: None,
            mtu: None,
            black_hole: false,
            cut: false,
            entered: 0,
            dropped: 0,
            repeated: 0,
        }
    }

    /// Every packet takes this long.
    pub fn delay(&mut self, delay: Duration) -> &mut Self {
        self.delay = delay;
        self.set_delay()
    }

    /// Up to so much longer, each packet for itself: packets overtake one another.
    pub fn jitter(&mut self, jitter: Duration) -> &mut Self {
        self.jitter = jitter;
        self.set_delay()
    }

    /// A path's jitter goes both ways, a wire's only adds.
    fn set_delay(&mut self) -> &mut Self {
        let conditions = self.path.conditions_mut();
        conditions.delay = self.delay + self.jitter / 2;
        conditions.jitter = self.jitter / 2;
        self
    }

    /// Loses every `n`th packet, counted from now; 0: none.
    pub fn loss_every(&mut self, n: u64) -> &mut Self {
        self.loss_every = (n > 0).then_some(n);
        self.sent = 0;
        self
    }

    /// Loses so many of a hundred, by the seed.
    pub fn loss_percent(&mut self, percent: f64) -> &mut Self {
        self.path.conditions_mut().loss = Loss::Random(Share::percent(percent));
        self
    }

    /// Holds back so many of a hundred, by the seed, until others have overtaken them ([`Wire::reorder_by`]).
    pub fn reorder_percent(&mut self, percent: f64) -> &mut Self {
        self.path.conditions_mut().reorder = Share::percent(percent);
        self
    }

    /// How long a packet is held back to be overtaken. Default 5 ms.
    pub fn reorder_by(&mut self, delay: Duration) -> &mut Self {
        self.path.conditions_mut().reorder_by = delay;
        self
    }

    /// Delivers so many of a hundred twice, by the seed.
    pub fn duplicate_percent(&mut self, percent: f64) -> &mut Self {
        self.path.conditions_mut().duplicate = Share::percent(percent);
        self
    }

    /// Takes packets of at most so many bytes; the router before it says so by ICMP.
    pub fn mtu(&mut self, mtu: u32) -> &mut Self {
        (self.mtu, self.black_hole) = (Some(mtu), false);
        self
    }

    /// Takes packets of at most so many bytes, and nobody says a word about the others.
    pub fn black_hole_mtu(&mut self, mtu: u32) -> &mut Self {
        (self.mtu, self.black_hole) = (Some(mtu), true);
        self
    }

    /// Carries so many bits a second; at most `queue` bytes wait for their turn.
    pub fn rate(&mut self, bits_per_second: u64, queue: u64) -> &mut Self {
        let conditions = self.path.conditions_mut();
        conditions.rate = Some(bits_per_second);
        conditions.queue = QueueLimit { packets: u32::MAX, bytes: queue };
        self
    }

    /// Cuts the wire, or mends it.
    pub fn cut(&mut self, cut: bool) -> &mut Self {
        self.cut = cut;
        self
    }

    /// Packets that entered the wire.
    pub fn packets(&self) -> u64 {
        self.entered
    }

    /// Of these, lost.
    pub fn lost(&self) -> u64 {
        self.dropped + self.path.counters().lost + self.path.counters().queue_full
    }

    /// Of these, held back.
    pub fn reordered(&self) -> u64 {
        self.path.counters().held_back
    }

    /// Of these, delivered twice.
    pub fn duplicated(&self) -> u64 {
        self.repeated + self.path.counters().duplicated
    }

    /// To the router behind the wire and back.
    pub(super) fn round_trip_to_router(&self) -> Duration {
        self.delay
    }

    /// When the packet and its copy arrive; and the MTU it was too big for, where the sender is told.
    pub(super) fn carry(
        &mut self,
        now: Instant,
        len: usize,
        fate: Fate,
    ) -> ([Option<Instant>; 2], Option<u32>) {
        self.sent += 1;
        self.entered += 1;
        let at = now + self.delay;
        match fate {
            Fate::Drop => return self.drop(None),
            Fate::Late(late) => return ([Some(at + late), None], None),
            Fate::Twice => {
                self.repeated += 1;
                return ([Some(at), Some(at)], None);
            }
            Fate::Pass => {}
        }
        if let Some(mtu) = self.mtu.filter(|mtu| len > *mtu as usize) {
            return self.drop((!self.black_hole).then_some(mtu));
        }
        if self.cut || self.loss_every.is_some_and(|n| self.sent.is_multiple_of(n)) {
            return self.drop(None);
        }
        match self.path.carry(now, len) {
            Carried::Arrives { at, twice } => ([Some(at), twice.then_some(at)], None),
            Carried::Lost(_) => ([None, None], None),
        }
    }

    fn drop(&mut self, too_big_for: Option<u32>) -> ([Option<Instant>; 2], Option<u32>) {
        self.dropped += 1;
        ([None, None], too_big_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> Wire {
        Wire::new(crate::rng::Rng::from_number(9).key())
    }

    fn arrivals(wire: &mut Wire, n: usize) -> Vec<Option<Instant>> {
        (0..n).map(|_| wire.carry(Instant::ZERO, 1000, Fate::Pass).0[0]).collect()
    }

    #[test]
    fn every_third_is_lost() {
        let mut wire = wire();
        wire.loss_every(3);
        let lost: Vec<bool> = arrivals(&mut wire, 6).iter().map(Option::is_none).collect();
        assert_eq!(lost, [false, false, true, false, false, true]);
        assert_eq!((wire.packets(), wire.lost()), (6, 2));
    }

    #[test]
    fn percentages_are_met_and_repeatable() {
        let run = || {
            let mut wire = wire();
            wire.loss_percent(10.0).reorder_percent(5.0).duplicate_percent(2.0);
            let arrivals = arrivals(&mut wire, 10_000);
            (arrivals, wire.lost(), wire.reordered(), wire.duplicated())
        };
        let (first, lost, reordered, duplicated) = run();
        assert!((900..1100).contains(&lost), "{lost}");
        assert!((400..520).contains(&reordered), "{reordered}");
        assert!((130..230).contains(&duplicated), "{duplicated}");
        assert_eq!(run().0, first);
    }

    #[test]
    fn a_rate_spaces_packets_and_a_queue_ends() {
        let mut wire = wire();
        // 1000 bytes take 1 ms.
        wire.rate(8_000_000, 3000).delay(Duration::from_millis(10));
        let at = |ms| Some(Instant::from_millis(ms));
        assert_eq!(arrivals(&mut wire, 4), [at(11), at(12), at(13), None]);
    }

    #[test]
    fn too_big_is_told_unless_the_hole_is_black() {
        let mut wire = wire();
        wire.mtu(999);
        assert_eq!(wire.carry(Instant::ZERO, 1000, Fate::Pass), ([None, None], Some(999)));
        wire.black_hole_mtu(999);
        assert_eq!(wire.carry(Instant::ZERO, 1000, Fate::Pass), ([None, None], None));
        assert!(wire.carry(Instant::ZERO, 999, Fate::Pass).0[0].is_some());
    }
}
