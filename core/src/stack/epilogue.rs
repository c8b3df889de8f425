//! Ends that are not known yet: an orphan in FIN-WAIT-2 whose block is gone and whose mini socket still waits for the peer.
//!
//! Owns:    the records of such lives, while somebody listens to [`EventMask::LIFE`].
//! Input:   the block's end; the mini socket's FIN, reset, expiry.
//! Output:  [`EventKind::Destroyed`], once, when it is known how it ended.
//! Limit:   one record a mini socket, so `tcp_max_tw_buckets` bounds them.

use std::collections::BTreeMap;

use crate::observe::life::Ending;
use crate::observe::{Event, EventKind, EventMask, Life};
use crate::stack::Stack;
use crate::stack::demux::SocketKey;
use crate::time::Instant;

/// By cookie.
pub(crate) type Epilogues = BTreeMap<u64, Life>;

impl Stack {
    /// The block ends, and how its connection ends is not known.
    pub(crate) fn keep_life(&mut self, cookie: u64, life: Life) {
        if self.world.events.mask().intersects(EventMask::LIFE) {
            self.epilogues.insert(cookie, Life { ending: None, ended_at: None, ..life });
        }
    }

    /// A mini socket has reached the end of its FIN-WAIT-2. Not the first telling: nothing happens.
    pub(crate) fn end_life(&mut self, now: Instant, key: SocketKey, ending: Ending) {
        if self.epilogues.is_empty() {
            return;
        }
        let Some(cookie) = self.sockets.time_wait_mut(key).map(|found| found.cookie) else { return };
        let Some(mut life) = self.epilogues.remove(&cookie) else { return };
        let tuple = self.sockets.tuple(key);
        life.ending = Some(ending);
        life.ended_at = Some(now);
        if ending == Ending::Fin {
            life.fin_received_at = Some(now);
        }
        self.world.events.emit(EventMask::LIFE, || Event {
            at: now,
            cookie,
            tuple,
            kind: EventKind::Destroyed(Box::new(life)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::reason::ResetReason;
    use crate::sim::{Host, Sim};
    use crate::stack::{KillTarget, Shutdown};
    use crate::time::Duration;

    /// A client that has closed, whose server has acknowledged that and not closed: the lives told so far, the server's end.
    fn half_closed() -> (Sim, Host, Host, crate::id::ConnectionId) {
        let (mut sim, client, server) = Sim::pair(7);
        let (id, other) = sim.establish(client, server, 80);
        sim.observe(EventMask::LIFE, true);
        let now = sim.now();
        sim.stack(client).close(now, id);
        sim.run_for(Duration::from_secs(1));
        assert_eq!(endings(&mut sim, client), [], "nothing has ended yet");
        (sim, client, server, other)
    }

    fn endings(sim: &mut Sim, host: Host) -> Vec<Option<Ending>> {
        let destroyed = |(at, event): (Host, Event)| match event.kind {
            EventKind::Destroyed(life) if at == host => Some(life.ending),
            _ => None,
        };
        sim.take_events().into_iter().filter_map(destroyed).collect()
    }

    #[test]
    fn a_fin_that_comes_while_the_mini_socket_waits_is_told_as_one() {
        let (mut sim, client, server, other) = half_closed();
        let now = sim.now();
        sim.stack(server).shutdown(now, other, Shutdown::Write).expect("in CLOSE-WAIT");
        sim.run_for(Duration::from_secs(1));
        assert_eq!(endings(&mut sim, client), [Some(Ending::Fin)]);
        sim.run_for(Duration::from_secs(100));
        assert_eq!(endings(&mut sim, client), [], "told once");
    }

    #[test]
    fn without_a_fin_it_has_expired() {
        let (mut sim, client, ..) = half_closed();
        sim.run_for(Duration::from_secs(100));
        assert_eq!(endings(&mut sim, client), [Some(Ending::FinWait2Expired)]);
    }

    #[test]
    fn a_reset_or_a_kill_is_told_as_what_it_is() {
        let (mut sim, client, server, other) = half_closed();
        let now = sim.now();
        sim.stack(server).abort(now, other);
        sim.run_for(Duration::from_secs(1));
        assert_eq!(endings(&mut sim, client), [Some(Ending::ResetReceived)]);

        let (mut sim, client, server, other) = half_closed();
        let now = sim.now();
        sim.stack(server).send(now, other, b"late").expect("room");
        sim.run_for(Duration::from_secs(1));
        assert_eq!(endings(&mut sim, client), [Some(Ending::ResetSent(ResetReason::TimeWaitSocket))]);

        let (mut sim, client, server, other) = half_closed();
        let (now, tuple) = (sim.now(), sim.peek(server).tuple(other).expect("held"));
        let mirrored = crate::id::FourTuple { local: tuple.remote, remote: tuple.local };
        sim.stack(client).kill(now, KillTarget::Tuple(mirrored)).expect("a mini socket");
        assert_eq!(endings(&mut sim, client), [Some(Ending::Killed)]);
    }
}
