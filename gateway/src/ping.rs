//! Pings: whom the program pings is pinged from this host, and what comes back is what the program is told.
//!
//! Owns:    [`forward`], the bounded table of those who ping; each one's task, idle time and line in the journal.
//! Rules:   ping(8) without privilege: a datagram socket of ICMP, which Linux gives to groups within
//!          `net.ipv4.ping_group_range` (IPv6 too). Where this host's user is not among them, the program is told that it is
//!          prohibited, and the journal why. Rules are those of connections; a ping has no port.
//! Not here: pings of the stack's own addresses, which it answers itself.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lastack::core::time::Instant;
use lastack::{Ping, PingAny, Unreachable};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::addresses::Destination;
use crate::journal::{Direction, Entry, Flow, FlowEnd, FlowProtocol};
use crate::pool::Pool;
use crate::rules::Verdict;
use crate::session::{Limit, Note, Session};
use crate::sys::{self, datagram};

/// Who pings whom, at most.
const MAX_PINGERS: usize = 256;
/// Pings of one that may wait for its socket.
const QUEUE: usize = 64;
/// Silence that ends it; ping(8) waits 10 s for an answer.
const IDLE: Duration = Duration::from_secs(11);
/// Of the header: type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

/// Who pings, whom, under which identifier.
type Key = (IpAddr, IpAddr, u16);

/// Forwards pings until the session is over or the stack has stopped; then every one who pinged is written down.
pub(crate) async fn forward(session: Arc<Session>, pings: PingAny) {
    let pings = Arc::new(pings);
    let mut table = HashMap::<Key, mpsc::Sender<Ping>>::new();
    let mut pingers = JoinSet::<Key>::new();
    loop {
        let ping = tokio::select! {
            ping = pings.recv() => ping,
            Some(ended) = pingers.join_next() => {
                // One with the same key may have begun since.
                if let Ok(key) = ended && table.get(&key).is_some_and(mpsc::Sender::is_closed) {
                    table.remove(&key);
                }
                continue;
            }
            () = session.over() => break,
        };
        let Ok(ping) = ping else { break };
        let key = (ping.from, ping.to, ping.ident);
        match table.get(&key).filter(|queue| !queue.is_closed()) {
            Some(queue) => {
                if queue.try_send(ping).is_err() {
                    session.limit_bit(Limit::Pings);
                }
            }
            None if table.len() >= MAX_PINGERS => session.limit_bit(Limit::Pings),
            None => {
                let Some(pinger) = Pinger::begin(&session, &pings, &ping) else { continue };
                let (queue, waiting) = mpsc::channel(QUEUE);
                // The queue is empty and open: the first fits.
                let _ = queue.try_send(ping);
                table.insert(key, queue);
                let session = session.clone();
                pingers.spawn(async move {
                    pinger.run(&session, waiting).await;
                    key
                });
            }
        }
    }
    while pingers.join_next().await.is_some() {}
}

/// One who pings one.
struct Pinger {
    pings: Arc<PingAny>,
    pool: Arc<Pool>,
    flow: Flow,
    /// What was asked last: an error is about that.
    last: Option<Ping>,
    /// When anything last came or left.
    last_at: Instant,
}

impl Pinger {
    /// `None`: who is pinged may not be, which is told and written down.
    fn begin(session: &Session, pings: &Arc<PingAny>, first: &Ping) -> Option<Self> {
        let remote = SocketAddr::new(first.to, 0);
        let pair = (SocketAddr::new(first.from, first.ident), remote);
        let mut flow = Flow {
            protocol: FlowProtocol::Icmp,
            host_remote: Some(remote),
            ..crate::udp::blank(session, Direction::Out, pair)
        };
        if session.verdict(remote) == Verdict::Deny {
            pings.unreachable(first, Unreachable::Prohibited);
            (flow.how, flow.host_remote) = (FlowEnd::Denied, None);
            session.tell(Note::Ended(Entry::Flow(flow)));
            return None;
        }
        if session.addresses.destination(remote) == Destination::Martian {
            (flow.how, flow.host_remote) = (FlowEnd::MartianDestination, None);
            session.tell(Note::Ended(Entry::Flow(flow)));
            return None;
        }
        let (pings, pool, last_at) = (pings.clone(), session.pool.clone(), flow.opened);
        Some(Self { pings, pool, flow, last: None, last_at })
    }

    async fn run(mut self, session: &Session, waiting: mpsc::Receiver<Ping>) {
        tokio::select! {
            () = self.carry(session, waiting) => {}
            () = session.over() => {}
        }
        let Self { mut flow, last_at, .. } = self;
        flow.duration_us = last_at.saturating_since(flow.opened).as_micros() as u64;
        session.tell(Note::Ended(Entry::Flow(flow)));
    }

    async fn carry(&mut self, session: &Session, mut waiting: mpsc::Receiver<Ping>) {
        let socket = socket(self.flow.remote.ip());
        loop {
            let readable = async {
                match &socket {
                    Ok(socket) => socket.ready(Interest::READABLE | Interest::ERROR).await.map(Some),
                    Err(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                ping = timeout(IDLE, waiting.recv()) => {
                    let Ok(Some(ping)) = ping else { return };
                    self.last_at = session.net.now();
                    self.flow.datagrams_up += 1;
                    self.flow.bytes_up += ping.payload.len() as u64;
                    let mut sent = match &socket {
                        Ok(socket) => send(socket, &ping),
                        Err(error) => Err(io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(0))),
                    };
                    if let (Ok(socket), Err(error)) = (&socket, &sent) {
                        // An answer to the one before, if this one can leave now: it has not.
                        let again = send(socket, &ping);
                        if again.is_ok() {
                            self.failed(error);
                        }
                        sent = again;
                    }
                    self.last = Some(ping);
                    if let Err(error) = sent {
                        self.failed(&error);
                    }
                }
                ready = readable => {
                    let Ok(Some(mut guard)) = ready else { return };
                    let got = receive(guard.get_inner(), &self.pool);
                    if !matches!(&got, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                        self.last_at = session.net.now();
                    }
                    match got {
                        Ok(Some((seq, payload))) => self.answered(seq, payload),
                        Ok(None) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                        Err(error) => self.failed(&error),
                    }
                }
            }
        }
    }

    fn answered(&mut self, seq: u16, payload: Bytes) {
        self.flow.how = FlowEnd::Idle;
        self.flow.datagrams_down += 1;
        self.flow.bytes_down += payload.len() as u64;
        let (from, to) = (self.flow.local, self.flow.remote);
        self.pings.reply(&Ping { from: from.ip(), to: to.ip(), ident: from.port(), seq, payload });
    }

    /// Passes on what this host was told, or tells it that this host may not.
    fn failed(&mut self, error: &io::Error) {
        let Some(last) = &self.last else { return };
        let (why, how) = match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => (Unreachable::Prohibited, FlowEnd::NotPermitted),
            Some(libc::ENETUNREACH) => (Unreachable::Net, FlowEnd::Unreachable),
            Some(libc::EHOSTUNREACH | libc::ECONNREFUSED) => (Unreachable::Host, FlowEnd::Unreachable),
            // No room, no memory: lost, as on any link.
            _ => return,
        };
        self.flow.how = how;
        self.pings.unreachable(last, why);
    }
}

/// A socket that pings `to`.
fn socket(to: IpAddr) -> io::Result<AsyncFd<OwnedFd>> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(protocol))?;
    rustix::net::connect(&fd, &SocketAddr::new(to, 0))?;
    sys::register(fd, Interest::READABLE)
}

fn send(socket: &AsyncFd<OwnedFd>, ping: &Ping) -> io::Result<()> {
    // The kernel fills in checksum and identifier.
    let kind = if ping.to.is_ipv4() { 8 } else { 128 };
    let [a, b] = ping.seq.to_be_bytes();
    let header: [u8; HEADER] = [kind, 0, 0, 0, 0, 0, a, b];
    datagram::send(socket, &[IoSlice::new(&header), IoSlice::new(&ping.payload)], None)
}

/// An answer's sequence number and bytes; `None`: it was something else.
fn receive(socket: &OwnedFd, pool: &Pool) -> io::Result<Option<(u16, Bytes)>> {
    if let Ok(Err(error)) = sockopt::socket_error(socket) {
        return Err(error.into());
    }
    let (_, mut message) = datagram::take(socket, pool)?;
    if message.len() < HEADER {
        return Ok(None);
    }
    let header = message.split_to(HEADER);
    let is_answer = matches!(header[0], 0 | 129);
    Ok(is_answer.then(|| (u16::from_be_bytes([header[6], header[7]]), message)))
}
