//! Forwards every TCP connection that the program tries: dials first, answers then.
//!
//! Owns:    [`Gateway`] and the making of one forwarded connection, from its SYN to both ends established.
//! Rules:   the SYN is held until the host's connect has an answer, so that a refused port is refused, an unreachable
//!          one unreachable, a silent one silent. SYNs that are repeated meanwhile join the first. A program that has
//!          gone by then answers our SYN-ACK with RST, which resets the host's side; where nothing answers it, the
//!          connection is wanted as long as the program's kernel has a socket for it.
//! Not here: an established connection (`carry`), those that come from outside (`publish`), judging (`verdict`), datagrams
//!          (`udp`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lastack::{AnyOptions, Net, PendingConnection, TcpOptions, TcpStream};
use tokio::task::JoinHandle;

use crate::addresses::Destination;
use crate::carry::{Kept, blank, carry, inside, since, tell_ended, verdict};
use crate::dns::{self, Route, Served};
use crate::host::{Dialled, HostStream};
use crate::journal::{ClosedBy, Connection, Direction, How, Reason, Verdict, states};
use crate::owner::Protocol;
use crate::ping;
use crate::publish::Publisher;
use crate::relay::Relay;
use crate::rules;
use crate::session::{GatewayConfig, Listener, Note, OpenGuard, Phase, Session};
use crate::udp::{self, Flows};
use crate::verdict::{Answer, judge_dial};

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
    flows: Arc<Flows>,
    publisher: Publisher,
    tasks: Vec<JoinHandle<()>>,
    /// Ends by itself when the session is over.
    pings: JoinHandle<()>,
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
            // The program's kernel and the remote end have had their say about Nagle: forwarded at once. A port of
            // theirs may be the port that a client of a published one comes from.
            AnyOptions {
                max_pending: config.max_pending,
                options: TcpOptions { nodelay: true, reuseaddr: true, ..TcpOptions::default() },
            };
        let mut incoming = net.incoming(options)?;
        let datagrams = lastack::UdpAny::bind(&net)?;
        let pings = lastack::PingAny::bind(&net)?;
        let session = Arc::new(Session::new(net, config, listener));
        let flows = Flows::new(datagrams);
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
            tokio::spawn(udp::forward(session.clone(), flows.clone())),
        ];
        let pings = tokio::spawn(ping::forward(session.clone(), pings));
        let publisher = Publisher::new(session.clone(), flows.clone());
        Ok(Self { session, flows, publisher, tasks, pings })
    }

    /// The ports of the host that lead to the program.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
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
        self.publisher.close();
    }

    /// Stops: what is still open is told as open, then reset.
    pub async fn stop(mut self) {
        self.publisher.close();
        self.session.advance(Phase::Over);
        self.session.idle().await;
        self.flows.empty().await;
        // No error: nobody aborts it.
        let _ = (&mut self.pings).await;
        self.session.tell_limits();
        for task in self.tasks.drain(..) {
            task.abort();
            // Aborted on purpose.
            let _ = task.await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.publisher.close();
        self.session.advance(Phase::Over);
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// One connection's life. What making takes is much more than what carrying takes: it is boxed, and gone while the
/// connection lives.
#[allow(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
fn connection(session: Arc<Session>, pending: PendingConnection) -> impl Future<Output = ()> + Send {
    let made = Box::pin(make(session.clone(), pending));
    async move {
        // `let … else`: what an `if let` binds would be kept beside the future that takes it.
        let Some((guard, kept, relay)) = made.await else { return };
        carry(session, guard, kept, relay).await;
    }
}

/// Makes a connection; one that does not come about is written down.
async fn make(session: Arc<Session>, pending: PendingConnection) -> Option<(OpenGuard, Kept, Relay)> {
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
            Some((guard, kept, Relay::new(inside, outside)))
        }
        None => {
            tell_ended(&session, record);
            None
        }
    }
}

/// Both ends of a connection that was made.
struct Ends {
    inside: TcpStream,
    outside: HostStream,
}

fn begin(session: &Session, pending: &PendingConnection) -> Connection {
    let (local, remote) = (pending.peer_addr(), pending.destination());
    let mut record = blank(session, session.number(), Direction::Out, (local, remote), pending.arrived());
    record.owner = session.owner(Protocol::Tcp, local, remote);
    record
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
    let host_remote = match session.addresses.destination(record.remote) {
        Destination::Host(host_remote) => host_remote,
        Destination::Closed => {
            record.verdict = verdict(ClosedBy::Lastack, How::Denied, Some(Reason::LoopbackClosed));
            let _ = pending.refuse();
            return None;
        }
        Destination::Nobody => {
            record.verdict = verdict(ClosedBy::Remote, How::Refused, Some(Reason::NoListener));
            let _ = pending.refuse();
            return None;
        }
        Destination::Martian => {
            record.verdict = verdict(ClosedBy::Lastack, How::Denied, Some(Reason::MartianDestination));
            let _ = pending.drop();
            return None;
        }
    };
    record.host_remote = Some(host_remote);
    if !session.has_room() {
        record.verdict = verdict(ClosedBy::Lastack, How::Refused, Some(Reason::ConnectionLimit));
        let _ = pending.refuse();
        return None;
    }
    let mut pending = pending;
    let Some(dialled) = dial(session, &mut pending, host_remote, record).await else {
        record.verdict = verdict(ClosedBy::Nobody, How::Timeout, Some(Reason::ProgramGone));
        let _ = pending.drop();
        return None;
    };
    match dialled {
        Ok(host) => match while_wanted(session, record, pending.accept()).await {
            Some(Ok(inside)) => Some(Ends { inside, outside: host.with_pool(session.pool.clone()) }),
            gone => {
                host.reset();
                record.verdict = unanswered(gone.is_some());
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

/// Our SYN-ACK came too late: it was answered with a RST, or by nobody.
fn unanswered(is_reset: bool) -> Verdict {
    let by = if is_reset { ClosedBy::Program } else { ClosedBy::Nobody };
    verdict(by, How::Refused, Some(Reason::ProgramGone))
}

/// A connection with questions for the resolver: it ends in the stack.
async fn answer(session: &Arc<Session>, pending: PendingConnection, record: &mut Connection) {
    let mut stream = match while_wanted(session, record, pending.accept()).await {
        Some(Ok(stream)) => stream,
        gone => {
            record.verdict = unanswered(gone.is_some());
            return;
        }
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
    record.states = life.as_ref().map(|life| states(life, Direction::Out)).unwrap_or_default();
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
            match connect(session, to).await {
                Err(error) if tries < RETRIES && is_shortage(&error) => {
                    tries += 1;
                    tokio::time::sleep(RETRY).await;
                }
                result => return result,
            }
        }
    };
    let connect = async {
        tokio::select! {
            // First: most times there is nothing to wait for.
            biased;
            result = connect => Some(result),
            _ = pending.gone() => None,
        }
    };
    while_wanted(session, record, connect).await.flatten()
}

/// What `making` gives; `None`: the program has no socket for the connection any more, so nobody waits for it.
async fn while_wanted<T>(
    session: &Session,
    record: &Connection,
    making: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(making);
    let mut is_ownerless = false;
    loop {
        tokio::select! {
            biased;
            made = &mut making => return Some(made),
            () = tokio::time::sleep(STILL_WAITING) => {}
            () = session.ownerless(), if !is_ownerless => is_ownerless = true,
        }
        if !session.has_socket(Protocol::Tcp, record.local, record.remote) {
            return None;
        }
    }
}

async fn connect(session: &Session, to: SocketAddr) -> io::Result<HostStream> {
    let dialled = match session.beside() {
        Some(beside) => beside.run(move || Dialled::new(to)).await,
        None => Dialled::new(to),
    };
    HostStream::dialled(dialled?).await
}

fn is_shortage(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|errno| judge_dial(errno).0 == Answer::Retry)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what an async function of two arguments gives.
    fn future_size<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn connection_that_lives_holds_little_of_its_making() {
        let size = future_size(connection);
        assert!(size <= 656, "{size} bytes: its task is one class of memory larger");
    }
}
