//! Pings: whom the program pings is pinged from this host, and what comes back is what the program is told.
//!
//! Owns:    [`forward`], the bounded table of those who ping; each one's task, idle time and line in the journal.
//! Rules:   ping(8) without privilege: a datagram socket of ICMP, which Linux gives to groups within
//!          `net.ipv4.ping_group_range` (IPv6 too). Where this host's user is not among them, the program is told that it is
//!          prohibited, and the journal why. Rules are those of connections; a ping has no port.
//! Not here: pings of the stack's own addresses, which it answers itself.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lastack::{Ping, PingAny, Unreachable};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::journal::{Direction, Entry, Flow, FlowEnd, FlowProtocol};
use crate::rules::Verdict;
use crate::session::{Limit, Note, Session};
use crate::sys;

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
type Table = Arc<Mutex<HashMap<Key, mpsc::Sender<Ping>>>>;

/// Forwards pings until the stack has stopped.
pub(crate) async fn forward(session: Arc<Session>, pings: PingAny) {
    let pings = Arc::new(pings);
    let table = Table::default();
    while let Ok(ping) = pings.recv().await {
        let key = (ping.from, ping.to, ping.ident);
        let (known, count) = {
            let table = lock(&table);
            (table.get(&key).filter(|queue| !queue.is_closed()).cloned(), table.len())
        };
        match known {
            Some(queue) => {
                if queue.try_send(ping).is_err() {
                    session.limit_bit(Limit::Pings);
                }
            }
            None if count >= MAX_PINGERS => session.limit_bit(Limit::Pings),
            None => begin(&session, &pings, &table, ping),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin(session: &Arc<Session>, pings: &Arc<PingAny>, table: &Table, first: Ping) {
    let key = (first.from, first.to, first.ident);
    let remote = SocketAddr::new(first.to, 0);
    let mut flow = Flow {
        protocol: FlowProtocol::Icmp,
        host_remote: Some(remote),
        owner: None,
        ..crate::udp::blank(session, Direction::Out, (SocketAddr::new(first.from, first.ident), remote))
    };
    if session.verdict(remote) == Verdict::Deny {
        pings.unreachable(&first, Unreachable::Prohibited);
        (flow.how, flow.host_remote) = (FlowEnd::Denied, None);
        return session.tell(Note::Ended(Entry::Flow(flow)));
    }
    let (queue, waiting) = mpsc::channel(QUEUE);
    // The queue is empty and open: the first fits.
    let _ = queue.try_send(first);
    lock(table).insert(key, queue);
    let (session, pings, table) = (session.clone(), pings.clone(), table.clone());
    tokio::spawn(async move {
        let opened = flow.opened;
        let mut pinger = Pinger { pings, flow, last: None };
        tokio::select! {
            () = pinger.carry(waiting) => {}
            () = session.over() => {}
        }
        lock(&table).remove(&key);
        let Pinger { mut flow, .. } = pinger;
        flow.duration_us = session.net.now().saturating_since(opened).as_micros() as u64;
        session.tell(Note::Ended(Entry::Flow(flow)));
    });
}

/// One who pings one.
struct Pinger {
    pings: Arc<PingAny>,
    flow: Flow,
    /// What was asked last: an error is about that.
    last: Option<Ping>,
}

impl Pinger {
    async fn carry(&mut self, mut waiting: mpsc::Receiver<Ping>) {
        let socket = socket(self.flow.remote.ip());
        let mut buffer = Vec::new();
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
                    self.flow.datagrams_up += 1;
                    self.flow.bytes_up += ping.payload.len() as u64;
                    let sent = match &socket {
                        Ok(socket) => send(socket, &ping),
                        Err(error) => Err(io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(0))),
                    };
                    self.last = Some(ping);
                    if let Err(error) = sent {
                        self.failed(&error);
                    }
                }
                ready = readable => {
                    let Ok(Some(mut guard)) = ready else { return };
                    match receive(guard.get_inner(), &mut buffer) {
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
    let message = [&[kind, 0, 0, 0, 0, 0, a, b], &ping.payload[..]].concat();
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::send(socket, &message, flags)?;
    Ok(())
}

/// An answer's sequence number and bytes; `None`: it was something else.
fn receive(socket: &OwnedFd, buffer: &mut Vec<u8>) -> io::Result<Option<(u16, Bytes)>> {
    if let Ok(Err(error)) = sockopt::socket_error(socket) {
        return Err(error.into());
    }
    buffer.resize(65_536, 0);
    let (len, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
    let message = &buffer[..len];
    let answer = message.split_at_checked(HEADER).filter(|(header, _)| matches!(header[0], 0 | 129));
    Ok(answer.map(|(header, payload)| {
        (u16::from_be_bytes([header[6], header[7]]), Bytes::copy_from_slice(payload))
    }))
}
