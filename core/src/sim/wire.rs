//! One direction of a wire, with everything that can go wrong on it.

use crate::rng::{HashKey, Rng};
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
    rng: Rng,
    sent: u64,
    delay: Duration,
    jitter: Duration,
    loss_every: Option<u64>,
    /// Of a million packets.
    loss: u32,
    reorder: u32,
    duplicate: u32,
    reorder_by: Duration,
    mtu: Option<u32>,
    black_hole: bool,
    /// Bits a second.
    rate: Option<u64>,
    /// Bytes that may wait for their turn at that rate.
    queue: u64,
    busy_until: Instant,
    cut: bool,
    /// Packets that came, that were lost, that overtook or were overtaken on purpose, that came twice.
    counts: [u64; 4],
}

const MILLION: u32 = 1_000_000;

fn parts(percent: f64) -> u32 {
    (percent.clamp(0.0, 100.0) * f64::from(MILLION) / 100.0) as u32
}

impl Wire {
    pub(super) fn new(key: HashKey) -> Self {
        Self {
            rng: Rng::from_key(key),
            sent: 0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss_every: None,
            loss: 0,
            reorder: 0,
            duplicate: 0,
            reorder_by: Duration::from_millis(5),
            mtu: None,
            black_hole: false,
            rate: None,
            queue: u64::MAX,
            busy_until: Instant::ZERO,
            cut: false,
            counts: [0; 4],
        }
    }

    /// Every packet takes this long.
    pub fn delay(&mut self, delay: Duration) -> &mut Self {
        self.delay = delay;
        self
    }

    /// Up to so much longer, each packet for itself: packets overtake one another.
    pub fn jitter(&mut self, jitter: Duration) -> &mut Self {
        self.jitter = jitter;
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
        self.loss = parts(percent);
        self
    }

    /// Holds back so many of a hundred, by the seed, until others have overtaken them ([`Wire::reorder_by`]).
    pub fn reorder_percent(&mut self, percent: f64) -> &mut Self {
        self.reorder = parts(percent);
        self
    }

    /// How long a packet is held back to be overtaken. Default 5 ms.
    pub fn reorder_by(&mut self, delay: Duration) -> &mut Self {
        self.reorder_by = delay;
        self
    }

    /// Delivers so many of a hundred twice, by the seed.
    pub fn duplicate_percent(&mut self, percent: f64) -> &mut Self {
        self.duplicate = parts(percent);
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
        (self.rate, self.queue) = (Some(bits_per_second.max(1)), queue);
        self
    }

    /// Cuts the wire, or mends it.
    pub fn cut(&mut self, cut: bool) -> &mut Self {
        self.cut = cut;
        self
    }

    /// Packets that entered the wire.
    pub fn packets(&self) -> u64 {
        self.counts[0]
    }

    /// Of these, lost.
    pub fn lost(&self) -> u64 {
        self.counts[1]
    }

    /// Of these, held back.
    pub fn reordered(&self) -> u64 {
        self.counts[2]
    }

    /// Of these, delivered twice.
    pub fn duplicated(&self) -> u64 {
        self.counts[3]
    }

    /// To the router behind the wire and back.
    pub(super) fn round_trip_to_router(&self) -> Duration {
        self.delay
    }

    fn chance(&mut self, parts: u32) -> bool {
        parts > 0 && self.rng.below(MILLION) < parts
    }

    /// When the packet and its copy arrive; and the MTU it was too big for, where the sender is told.
    pub(super) fn carry(
        &mut self,
        now: Instant,
        len: usize,
        fate: Fate,
    ) -> ([Option<Instant>; 2], Option<u32>) {
        self.sent += 1;
        self.counts[0] += 1;
        let at = now + self.delay;
        match fate {
            Fate::Drop => {
                self.counts[1] += 1;
                return ([None, None], None);
            }
            Fate::Late(late) => return ([Some(at + late), None], None),
            Fate::Twice => {
                self.counts[3] += 1;
                return ([Some(at), Some(at)], None);
            }
            Fate::Pass => {}
        }
        if let Some(mtu) = self.mtu.filter(|mtu| len > *mtu as usize) {
            self.counts[1] += 1;
            return ([None, None], (!self.black_hole).then_some(mtu));
        }
        let every = self.loss_every.is_some_and(|n| self.sent.is_multiple_of(n));
        if self.cut || every || self.chance(self.loss) {
            self.counts[1] += 1;
            return ([None, None], None);
        }
        let Some(mut at) = self.queued(now, len) else {
            self.counts[1] += 1;
            return ([None, None], None);
        };
        at += self.delay;
        if !self.jitter.is_zero() {
            let nanos = u32::try_from(self.jitter.as_nanos()).unwrap_or(u32::MAX);
            at += Duration::from_nanos(u64::from(self.rng.below(nanos)));
        }
        if self.chance(self.reorder) {
            self.counts[2] += 1;
            at += self.reorder_by;
        }
        let copy = self.chance(self.duplicate).then_some(at);
        self.counts[3] += u64::from(copy.is_some());
        ([Some(at), copy], None)
    }

    /// When the packet has left at the wire's rate; `None`: the queue is full.
    fn queued(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let Some(rate) = self.rate else { return Some(now) };
        let start = self.busy_until.max(now);
        let waiting = start.saturating_since(now).as_nanos() * u128::from(rate) / 8_000_000_000;
        if waiting + len as u128 > u128::from(self.queue) {
            return None;
        }
        let nanos = len as u128 * 8_000_000_000 / u128::from(rate);
        self.busy_until = start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(self.busy_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> Wire {
        Wire::new(Rng::from_number(9).key())
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
