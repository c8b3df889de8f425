//! A connection that is established: carried to its end, judged, written down. The same whoever opened it.
//!
//! Owns:    what of a connection's record is kept while it lives ([`Kept`]), the task that carries it, its line in the journal.
//! Rules:   an idle connection is the future of [`carry`]: it holds little, and all else follows at the end.
//! Not here: making connections (`forward`, `publish`), carrying bytes (`relay`), judging (`verdict`).

use std::net::SocketAddr;
use std::sync::Arc;

use lastack::core::tcp::state::TcpState;
use lastack::core::time::Instant;

use crate::journal::{
    Certainty, ClosedBy, Connection, Direction, Entry, How, Inside, Outside, Reason, Verdict, first_state,
    states,
};
use crate::owner::Owner;
use crate::relay::{Outcome, Relay};
use crate::session::{Note, OpenGuard, Opened, Session};
use crate::verdict::judge;

/// The record of a connection of which nothing else is known.
pub(crate) fn blank(
    session: &Session,
    id: u64,
    direction: Direction,
    (local, remote): (SocketAddr, SocketAddr),
    opened: Instant,
) -> Connection {
    Connection {
        id,
        owner: None,
        local,
        remote,
        host_local: None,
        host_remote: None,
        device: session.device,
        direction,
        opened,
        handshake_us: None,
        duration_us: 0,
        bytes_up: 0,
        bytes_down: 0,
        inside: None,
        outside: None,
        verdict: verdict(ClosedBy::Nobody, How::Open, None),
        host_errno: None,
        lost_up: 0,
        lost_down: 0,
        unread_bytes: None,
        injected: None,
        states: Vec::new(),
    }
}

/// A verdict on what was seen, where who closed it also ended it.
pub(crate) fn verdict(closed_by: ClosedBy, how: How, reason: Option<Reason>) -> Verdict {
    Verdict { closed_by, how, reason, certainty: Certainty::Observed, ended_by: closed_by }
}

/// Microseconds since `opened`.
pub(crate) fn since(session: &Session, opened: Instant) -> u64 {
    session.net.now().saturating_since(opened).as_micros() as u64
}

/// Writes down a connection that has ended.
pub(crate) fn tell_ended(session: &Session, mut record: Box<Connection>) {
    record.duration_us = since(session, record.opened);
    if record.states.is_empty() {
        record.states = vec![(first_state(record.direction), 0), (TcpState::Close, record.duration_us)];
    }
    session.tell(Note::Ended(Entry::Connection(*record)));
}

/// What the record of a connection that is carried has to keep; its addresses are its sockets'. All else follows at the
/// end.
pub(crate) struct Kept {
    id: u64,
    direction: Direction,
    owner: Option<Owner>,
    host_remote: SocketAddr,
    opened: Instant,
    handshake_us: u64,
}

impl Kept {
    /// Of a connection that was established just now.
    pub(crate) fn of(record: Connection, session: &Session) -> Self {
        let handshake_us = since(session, record.opened);
        let Connection { id, direction, owner, host_remote, opened, .. } = record;
        let host_remote = host_remote.expect("it has a host's side");
        Self { id, direction, owner, host_remote, opened, handshake_us }
    }

    fn opened(&self, (local, remote): (SocketAddr, SocketAddr)) -> Opened {
        Opened {
            id: self.id,
            direction: self.direction,
            owner: self.owner.clone(),
            local,
            remote,
            host_remote: self.host_remote,
            handshake_us: Some(self.handshake_us),
        }
    }

    fn record(self, session: &Session, ends: (SocketAddr, SocketAddr)) -> Connection {
        let Self { id, direction, owner, host_remote, opened, handshake_us } = self;
        let mut record = blank(session, id, direction, ends, opened);
        record.owner = owner;
        record.host_remote = Some(host_remote);
        record.handshake_us = Some(handshake_us);
        record
    }
}

/// Both ends are connected: carries the connection to its end. An idle connection is this future: it holds little.
#[allow(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
pub(crate) fn carry(
    session: Arc<Session>,
    guard: OpenGuard,
    kept: Kept,
    mut relay: Relay,
) -> impl Future<Output = ()> + Send {
    async move {
        let (local, remote) = relay.addresses();
        session.tell(Note::Opened(kept.opened((local, remote))));
        let destination = if kept.direction == Direction::In { local } else { remote };
        relay.inject(session.injections.armed(destination, &session.names, &session.net));
        if relay.is_armed() {
            // Boxed: few connections need it.
            Box::pin(run_forced(&session, &mut relay)).await;
        } else {
            tokio::select! {
                biased;
                () = relay.run(&session.policy) => {}
                () = session.over() => {}
            }
        }
        finish(&session, kept, relay);
        drop(guard);
    }
}

/// Closes both ends, judges, writes down and tells.
fn finish(session: &Session, kept: Kept, relay: Relay) {
    let ends = relay.addresses();
    // Only who was called has an address that says anything.
    let host_local = if kept.direction == Direction::In { relay.host_local() } else { None };
    let outcome = relay.finish();
    let host_remote = kept.host_remote;
    let mut record = Box::new(kept.record(session, ends));
    record.host_local = host_local;
    record.verdict = judge(&outcome, |by| session.claim_abort(by, host_remote));
    write_down(&mut record, &outcome);
    tell_ended(session, record);
}

/// Carries a connection that something is forced on.
async fn run_forced(session: &Session, relay: &mut Relay) {
    tokio::select! {
        biased;
        () = relay.run(&session.policy) => return,
        () = session.over() => return,
        () = session.ownerless() => {}
    }
    // Nobody is left to see what would be forced yet; what was forced already will not mend.
    if relay.disarm() {
        tokio::select! {
            biased;
            () = relay.run(&session.policy) => {}
            () = session.over() => {}
        }
    }
}

fn write_down(record: &mut Connection, outcome: &Outcome) {
    let Outcome { life, inside, outside, .. } = outcome;
    if let Some(established) = life.established_at {
        record.handshake_us = Some(established.saturating_since(life.opened_at).as_micros() as u64);
    }
    record.bytes_up = outcome.bytes_up;
    record.bytes_down = outcome.bytes_down;
    record.lost_up = outcome.lost_up;
    record.lost_down = outcome.lost_down;
    record.injected = outcome.injected;
    record.inside = Some(self::inside(inside));
    record.outside = Some(Outside {
        rtt_us: outside.rtt_us,
        retransmits: outside.retransmits,
        unacked_bytes: outside.unacked_bytes,
    });
    record.states = states(life, record.direction);
}

/// The figures of the leg to the program.
pub(crate) fn inside(info: &lastack::core::observe::TcpInfo) -> Inside {
    Inside {
        segments_up: info.segs_in,
        segments_down: info.segs_out,
        retransmits: info.total_retrans,
        rtt_us: info.rtt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what an async function of four arguments gives.
    fn future_size<A, B, C, D, F: Future>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn connection_that_is_carried_holds_little() {
        let size = future_size(carry);
        assert!(
            size <= 608,
            "{size} bytes, of these the relay {}, the rest of the record {}",
            size_of::<Relay>(),
            size_of::<Kept>()
        );
    }
}
