//! Linux's timer wheel: how late a timer fires, by how long it was to run.
//!
//! Rules: Linux `calc_index()`; specification 7 ("lateness up to one slot of its level").

use lastack_core::time::{Duration, Instant};

/// One jiffy at HZ=250.
const TICK: Duration = Duration::from_millis(4);

/// The wheel of a machine whose jiffies began at some phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wheel {
    phase: Duration,
    /// The deadline last asked about, and when it was first seen.
    armed: Option<(Instant, Instant)>,
}

impl Wheel {
    /// `phase`: how far into a slot the machine's clock was at time 0.
    pub(crate) fn new(phase: Duration) -> Self {
        Self { phase, armed: None }
    }

    /// When a timer that is due `at` fires, if it is armed since the first call that named it.
    pub(crate) fn fires(&mut self, at: Instant, now: Instant) -> Instant {
        let since = match self.armed {
            Some((known, since)) if known == at => since,
            _ => now,
        };
        self.armed = Some((at, since));
        let tick = TICK.as_nanos() as u64;
        let granularity = match at.saturating_since(since).as_nanos() as u64 / tick {
            0..63 => 1,
            63..504 => 8,
            504..4032 => 64,
            4032..32256 => 512,
            _ => 4096,
        };
        let phase = self.phase.as_nanos() as u64;
        let slot = granularity * tick;
        let expires = (at.as_nanos() + phase).div_ceil(tick) * tick;
        Instant::from_nanos((expires / slot + 1) * slot - phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_within_one_slot_of_the_level() {
        for (delay, slot) in [(40, 4), (200, 4), (400, 32), (3000, 256), (60_000, 2048), (329_000, 16_384)] {
            for phase in [0, 3, 17, 100] {
                let mut wheel = Wheel::new(Duration::from_millis(phase));
                let now = Instant::from_millis(1_000_003);
                let at = now + Duration::from_millis(delay);
                let late = wheel.fires(at, now).saturating_since(at);
                assert!(
                    late > Duration::ZERO && late <= Duration::from_millis(slot + 4),
                    "{delay} {phase}: {late:?}"
                );
            }
        }
    }
}
