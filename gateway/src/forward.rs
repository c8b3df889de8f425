//! Forwards every TCP connection that is tried: dials first, answers then.
//!
//! Owns:    [`Gateway`] and the life of one forwarded connection, from its SYN to its line in the journal.
//! Rules:   the SYN is held until the host's connect has an answer, so that a refused port is refused, an unreachable
//!          one unreachable, a silent one silent. SYNs that are repeated meanwhile join the first. A program that has
//!          gone by then answers our SYN-ACK with RST, which resets the host's side.
//! Not here: carrying bytes (`relay`), judging (`verdict`), datagrams (`udp`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lastack::core::tcp::state::TcpState;
use lastack::core::time::Instant;
use lastack::{AnyOptions, Net, PendingConnection, TcpOptions, TcpStream};
use tokio::task::JoinHandle;

use crate::addresses::{self, Destination};
use crate::dns::{self, Route, Served};
use crate::host::HostStream;
use crate::journal::{
    Certainty, ClosedBy, Connection, Direction, Entry, How, Inside, Outside, Reason, Verdict, states,
};
use crate::owner::{Owner, Protocol};
use crate::relay::{Outcome, Relay};
use crate::rules;
use crate::session::{GatewayConfig, Listener, Note, OpenGuard, Opened, Phase, Session};
use crate::udp;
use crate::verdict::{Answer, judge, judge_dial};

/// How often it is looked whether the program still waits for a connection that is slow in the making.
const STILL_WAITING: Duration = Duration::from_secs(3);
/// How long, and how often, a host that is short of ports or descriptors is tried again.
const RETRY: Duration = Duration::from_millis(50);
const RETRIES: u32 = 200;
/// How long the host's counters may collect changes that belong to somebody else.
const REFRESH: Duration = Duration::from_millis(250);

/// A running gateway: everything that a stack's peers try to reach is reached from this host.
///
/// # Example
/// ```no_run
/// use lastack_gateway::{Gateway, GatewayConfig, Note};
/// # async fn example(net: lastack::Net) -> std::io::Result<()> {
/// let gateway = Gateway::start(net, GatewayConfig::default(), |note| {
///     if let Note::Ended(entry) = note {
///         println!("{entry:?}");
///     }
/// })?;
/// // …
/// gateway.stop().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Gateway {
    session: Arc<Session>,
    tasks: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts forwarding on `net`, in the runtime this is called in. `listener` is told what happens; it must not wait.
    ///
    /// # Errors
    /// Somebody else takes all SYNs or all datagrams of this stack already; or black holes are to be injected, and
    /// there is no link to make them in.
    pub fn start(
        net: Net,
        config: GatewayConfig,
        listener: impl Fn(Note) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        if config.injections.lacks_link() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "black holes need an impaired link"));
        }
        let listener: Box<Listener> = Box::new(listener);
        let options =
            // The program's kernel and the remote end have had their say about Nagle: forwarded at once.
            AnyOptions { max_pending: config.max_pending, options: TcpOptions { nodelay: true, ..TcpOptions::default() } };
        let mut incoming = net.incoming(options)?;
        let datagrams = lastack::UdpAny::bind(&net)?;
        let session = Arc::new(Session::new(net, config, listener));
        let accept = {
            let session = session.clone();
            async move {
                while let Ok(pending) = incoming.next().await {
                    tokio::spawn(connection(session.clone(), pending));
                }
            }
        };
        let refresh = {
            let session = session.clone();
            async move {
                loop {
                    tokio::time::sleep(REFRESH).await;
                    session.refresh_aborts();
                }
            }
        };
        let tasks = vec![
            tokio::spawn(accept),
            tokio::spawn(refresh),
            tokio::spawn(udp::forward(session.clone(), datagrams)),
        ];
        Ok(Self { session, tasks })
    }

    /// Connections that are open or being made.
    pub fn open(&self) -> usize {
        self.session.open()
    }

    /// Goes up whenever bytes of a connection move.
    pub fn progress(&self) -> u64 {
        self.session.policy.progress.load(Ordering::Relaxed)
    }

    /// Waits until no connection is open or being made.
    pub async fn idle(&self) {
        self.session.idle().await;
    }

    /// No process is left in the namespace: connections that nobody waits for any more are not made.
    pub fn ownerless(&self) {
        self.session.advance(Phase::Ownerless);
    }

    /// Stops: what is still open is told as open, then reset.
    pub async fn stop(mut self) {
        self.session.advance(Phase::Over);
        self.session.idle().await;
        for task in self.tasks.drain(..) {
            task.abort();
            // Aborted on purpose.
            let _ = task.await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.session.advance(Phase::Over);
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// One connection's life: made here, carried in a task of its own. What making takes is much more than what carrying
/// takes, and is gone while the connection lives.
async fn connection(session: Arc<Session>, pending: PendingConnection) {
    let guard = session.count_open();
    let mut record = Box::new(begin(&session, &pending));
    let ends = tokio::select! {
        biased;
        ends = attempt(&session, pending, &mut record) => ends,
        // Only a connection that is not established yet is dropped here: a relay watches for itself.
        () = session.over() => {
            record.verdict = verdict(ClosedBy::Nobody, How::Open, None);
            None
        }
    };
    match ends {
        Some(Ends { inside, outside }) => {
            let kept = Kept::of(*record, &session);
            tokio::spawn(carry(session, guard, kept, Relay::new(inside, outside)));
        }
        None => tell_ended(&session, record),
    }
}

/// Both ends of a connection that was made.
struct Ends {
    inside: TcpStream,
    outside: HostStream,
}

fn tell_ended(session: &Session, mut record: Box<Connection>) {
    record.duration_us = since(session, record.opened);
    if record.states.is_empty() {
        record.states = vec![(TcpState::SynRecv, 0), (TcpState::Close, record.duration_us)];
    }
    session.tell(Note::Ended(Entry::Connection(*record)));
}

fn begin(session: &Session, pending: &PendingConnection) -> Connection {
    let (local, remote) = (pending.peer_addr(), pending.destination());
    let mut record = blank(session, session.number(), local, remote, pending.arrived());
    record.owner = session.owner(Protocol::Tcp, local, remote);
    record
}

/// The record of a connection of which nothing else is known.
fn blank(session: &Session, id: u64, local: SocketAddr, remote: SocketAddr, opened: Instant) -> Connection {
    Connection {
        id,
        owner: None,
        local,
        remote,
        host_remote: None,
        device: session.device,
        direction: Direction::Out,
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

fn verdict(closed_by: ClosedBy, how: How, reason: Option<Reason>) -> Verdict {
    Verdict { closed_by, how, reason, certainty: Certainty::Observed, ended_by: closed_by }
}

fn since(session: &Session, opened: Instant) -> u64 {
    session.net.now().saturating_since(opened).as_micros() as u64
}

/// Decides, dials, answers; everything learnt goes into `record`. `None`: there is nothing to carry.
async fn attempt(
    session: &Arc<Session>,
    pending: PendingConnection,
    record: &mut Connection,
) -> Option<Ends> {
    let route = dns::route(session, record.remote);
    if route == Some(Route::Resolver) {
        answer(session, pending, record).await;
        return None;
    }
    let is_server = route == Some(Route::Server);
    if route == Some(Route::Refused) || !is_server && session.verdict(record.remote) == rules::Verdict::Deny {
        record.verdict = verdict(ClosedBy::Lastack, How::Denied, Some(Reason::DeniedByRule));
        let _ = pending.refuse();
        return None;
    }
    let Destination::Host(host_remote) = session.addresses.destination(record.remote) else {
        // The resolver's address has one port; the host's may be closed as a whole.
        record.verdict = if addresses::HOST.contains(&record.remote.ip()) {
            verdict(ClosedBy::Lastack, How::Denied, Some(Reason::LoopbackClosed))
        } else {
            verdict(ClosedBy::Remote, How::Refused, Some(Reason::NoListener))
        };
        let _ = pending.refuse();
        return None;
    };
    record.host_remote = Some(host_remote);
    let mut pending = pending;
    let Some(dialled) = dial(session, &mut pending, host_remote, record).await else {
        record.verdict = verdict(ClosedBy::Nobody, How::Timeout, Some(Reason::ProgramGone));
        let _ = pending.drop();
        return None;
    };
    match dialled {
        Ok(host) => match pending.accept().await {
            Ok(inside) => Some(Ends { inside, outside: host.with_pool(session.pool.clone()) }),
            Err(_) => {
                host.reset();
                record.verdict = verdict(ClosedBy::Program, How::Refused, Some(Reason::ProgramGone));
                None
            }
        },
        Err(error) => {
            record.host_errno = error.raw_os_error();
            let (answer, verdict) = judge_dial(error.raw_os_error().unwrap_or(0));
            record.verdict = verdict;
            let _ = match answer {
                Answer::Refuse => pending.refuse(),
                Answer::Unreachable(why) => pending.unreachable(why),
                Answer::Silence | Answer::Retry => pending.drop(),
            };
            None
        }
    }
}

/// A connection with questions for the resolver: it ends in the stack.
async fn answer(session: &Arc<Session>, pending: PendingConnection, record: &mut Connection) {
    let Ok(mut stream) = pending.accept().await else {
        record.verdict = verdict(ClosedBy::Program, How::Refused, Some(Reason::ProgramGone));
        return;
    };
    record.handshake_us = Some(since(session, record.opened));
    let served = tokio::select! {
        biased;
        served = dns::connection(session, &mut stream) => served,
        () = session.over() => return,
    };
    let life = stream.life();
    if let Some(info) = stream.tcp_info() {
        (record.bytes_up, record.bytes_down) = (info.bytes_received, info.bytes_acked);
        record.inside = Some(inside(&info));
    }
    record.verdict = match served {
        Served::ByProgram => verdict(ClosedBy::Program, How::Fin, None),
        Served::Reset => verdict(ClosedBy::Program, How::Reset, Some(Reason::ResetByPeer)),
        Served::Idle => verdict(ClosedBy::Lastack, How::Fin, None),
    };
    stream.close().await;
    record.states = life.as_ref().map(states).unwrap_or_default();
}

/// Connects from the host; `None`: the program has stopped waiting.
async fn dial(
    session: &Session,
    pending: &mut PendingConnection,
    to: SocketAddr,
    record: &Connection,
) -> Option<io::Result<HostStream>> {
    let mut tries = 0;
    let connect = async {
        loop {
            match HostStream::connect(to).await {
                Err(error) if tries < RETRIES && is_shortage(&error) => {
                    tries += 1;
                    tokio::time::sleep(RETRY).await;
                }
                result => return result,
            }
        }
    };
    tokio::pin!(connect);
    let mut is_ownerless = false;
    loop {
        tokio::select! {
            result = &mut connect => return Some(result),
            _ = pending.gone() => return None,
            () = tokio::time::sleep(STILL_WAITING) => {}
            () = session.ownerless(), if !is_ownerless => is_ownerless = true,
        }
        if !session.has_socket(record.local, record.remote) {
            return None;
        }
    }
}

fn is_shortage(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|errno| judge_dial(errno).0 == Answer::Retry)
}

/// What the record of a connection that is carried has to keep; its addresses are its sockets'. All else follows at the
/// end.
struct Kept {
    id: u64,
    owner: Option<Owner>,
    host_remote: SocketAddr,
    opened: Instant,
    handshake_us: u64,
}

impl Kept {
    fn of(record: Connection, session: &Session) -> Self {
        let handshake_us = since(session, record.opened);
        let Connection { id, owner, host_remote, opened, .. } = record;
        Self { id, owner, host_remote: host_remote.expect("it was dialled"), opened, handshake_us }
    }

    fn opened(&self, (local, remote): (SocketAddr, SocketAddr)) -> Opened {
        Opened {
            id: self.id,
            owner: self.owner.clone(),
            local,
            remote,
            host_remote: self.host_remote,
            handshake_us: Some(self.handshake_us),
        }
    }

    fn record(self, session: &Session, local: SocketAddr, remote: SocketAddr) -> Connection {
        let Self { id, owner, host_remote, opened, handshake_us } = self;
        let mut record = blank(session, id, local, remote, opened);
        record.owner = owner;
        record.host_remote = Some(host_remote);
        record.handshake_us = Some(handshake_us);
        record
    }
}

/// Both ends are connected: carries the connection to its end. An idle connection is this future: it holds little.
#[allow(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
fn carry(
    session: Arc<Session>,
    guard: OpenGuard,
    kept: Kept,
    mut relay: Relay,
) -> impl Future<Output = ()> + Send {
    async move {
        session.tell(Note::Opened(kept.opened(relay.addresses())));
        relay.inject(session.injections.armed(relay.addresses().1, &session.names, &session.net));
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
    let (local, remote) = relay.addresses();
    let outcome = relay.finish();
    let host_remote = kept.host_remote;
    let mut record = Box::new(kept.record(session, local, remote));
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
    record.states = states(life);
}

fn inside(info: &lastack::core::observe::TcpInfo) -> Inside {
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
