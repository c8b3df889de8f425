//! Forwards datagrams: one connected host socket a flow, as long as anybody sends.
//!
//! Owns:    the table of flows, bounded; each flow's task, idle time and line in the journal.
//! Rules:   a flow is one pair of addresses. Rules and addresses are those of connections. An ICMP error that the host
//!          gets is passed on.
//! Not here: questions for the resolver (`dns`).

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lastack::core::time::Instant;
use lastack::{Datagram, UdpAny, Unreachable};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::addresses::Destination;
use crate::dns::{self, Route};
use crate::journal::{Entry, Flow, FlowEnd};
use crate::owner::Protocol;
use crate::rules::Verdict;
use crate::session::{Note, Session};

/// Silence that ends a flow.
const IDLE: Duration = Duration::from_secs(60);
/// Silence that ends a flow to a resolver: an answer comes soon or never.
const IDLE_DNS: Duration = Duration::from_secs(10);
/// Datagrams that may wait for one flow's socket; more are dropped, as a socket buffer would.
const QUEUE: usize = 256;
/// The largest datagram.
const MAX_DATAGRAM: usize = 65_536;

type Key = (SocketAddr, SocketAddr);
type Flows = Arc<Mutex<HashMap<Key, mpsc::Sender<Bytes>>>>;

/// Forwards until the stack has stopped.
pub(crate) async fn forward(session: Arc<Session>, any: UdpAny) {
    let any = Arc::new(any);
    let flows: Flows = Arc::default();
    while let Ok(datagram) = any.recv().await {
        if dns::route(&session, datagram.to) == Some(Route::Resolver) {
            dns::datagram(&session, &any, datagram);
            continue;
        }
        let key = (datagram.from, datagram.to);
        let known = lock(&flows).get(&key).cloned();
        match known {
            // A full queue drops the datagram; a closed one belongs to a flow that is just ending.
            Some(queue) if !queue.is_closed() => drop(queue.try_send(datagram.data)),
            _ if lock(&flows).len() >= session.max_flows => {}
            _ => begin(&session, &any, &flows, &datagram),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin(session: &Arc<Session>, any: &Arc<UdpAny>, flows: &Flows, first: &Datagram) {
    // Noise of the link that no host would forward.
    if first.to.ip().is_multicast() || first.to.ip() == Ipv4Addr::BROADCAST {
        return;
    }
    let verdict = match dns::route(session, first.to) {
        Some(Route::Server) => Verdict::Allow,
        Some(Route::Refused) => Verdict::Deny,
        Some(Route::Resolver) | None => session.verdict(first.to),
    };
    let destination = match verdict {
        Verdict::Allow => session.addresses.destination(first.to),
        Verdict::Deny => Destination::Nowhere,
    };
    let flow = Flow {
        id: session.number(),
        owner: session.owner(Protocol::Udp, first.from, first.to),
        local: first.from,
        remote: first.to,
        host_remote: None,
        device: session.device,
        opened: session.net.now(),
        duration_us: 0,
        bytes_up: 0,
        bytes_down: 0,
        datagrams_up: 0,
        datagrams_down: 0,
        how: FlowEnd::Idle,
    };
    let Destination::Host(to) = destination else {
        any.unreachable(first, Unreachable::Port);
        let how = if verdict == Verdict::Deny { FlowEnd::Denied } else { FlowEnd::Refused };
        session.tell(Note::Ended(Entry::Flow(Flow { how, ..flow })));
        return;
    };
    let (queue, datagrams) = mpsc::channel(QUEUE);
    // The queue is empty and open: the first datagram fits.
    let _ = queue.try_send(first.data.clone());
    let key = (first.from, first.to);
    lock(flows).insert(key, queue);
    let (session, any, flows) = (session.clone(), any.clone(), flows.clone());
    tokio::spawn(async move {
        let mut carrier =
            Carrier { flow: Flow { host_remote: Some(to), ..flow }, any, last: session.net.now() };
        tokio::select! {
            result = carrier.carry(&session, to, datagrams) => {
                if let Err(error) = result {
                    carrier.flow.how = end_of(&error);
                }
            }
            () = session.over() => {}
        }
        lock(&flows).remove(&key);
        carrier.flow.duration_us = carrier.last.saturating_since(carrier.flow.opened).as_micros() as u64;
        session.tell(Note::Ended(Entry::Flow(carrier.flow)));
    });
}

fn end_of(error: &io::Error) -> FlowEnd {
    if error.raw_os_error() == Some(libc::ECONNREFUSED) { FlowEnd::Refused } else { FlowEnd::Unreachable }
}

struct Carrier {
    flow: Flow,
    any: Arc<UdpAny>,
    last: Instant,
}

impl Carrier {
    /// Carries datagrams both ways until nobody sends any, or the socket cannot be had.
    async fn carry(
        &mut self,
        session: &Session,
        to: SocketAddr,
        mut datagrams: mpsc::Receiver<Bytes>,
    ) -> io::Result<()> {
        let socket = connected(to).await.inspect_err(|_| self.report(Bytes::new(), Unreachable::Host))?;
        let idle = if to.port() == 53 { IDLE_DNS } else { IDLE };
        let mut buffer = BytesMut::new();
        loop {
            // Room is taken when there is something to put in it.
            tokio::select! {
                sent = timeout(idle, datagrams.recv()) => {
                    let Ok(Some(data)) = sent else { return Ok(()) };
                    self.flow.datagrams_up += 1;
                    self.flow.bytes_up += data.len() as u64;
                    if let Err(error) = socket.send(&data).await {
                        self.refused(&error, data);
                    }
                }
                ready = socket.ready(Interest::READABLE | Interest::ERROR) => {
                    if ready?.is_error()
                        && let Some(error) = pending_error(&socket)
                    {
                        self.refused(&error, Bytes::new());
                        continue;
                    }
                    buffer.clear();
                    buffer.reserve(MAX_DATAGRAM);
                    match socket.try_recv_buf(&mut buffer) {
                        Ok(len) => {
                            self.flow.how = FlowEnd::Idle;
                            self.flow.datagrams_down += 1;
                            self.flow.bytes_down += len as u64;
                            let data = Bytes::copy_from_slice(&buffer);
                            let (from, to) = (self.flow.remote, self.flow.local);
                            // A datagram that the link cannot carry is lost, as on any link.
                            let _ = self.any.send(&Datagram { from, to, data }).await;
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        Err(error) => self.refused(&error, Bytes::new()),
                    }
                    if buffer.capacity() > 0 {
                        buffer = BytesMut::new();
                    }
                }
            }
            self.last = session.net.now();
        }
    }

    /// Passes an ICMP error on.
    fn refused(&mut self, error: &io::Error, data: Bytes) {
        self.flow.how = end_of(error);
        let why = match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Unreachable::Port,
            Some(libc::ENETUNREACH) => Unreachable::Net,
            Some(libc::EACCES | libc::EPERM) => Unreachable::Prohibited,
            Some(libc::EHOSTUNREACH) => Unreachable::Host,
            // Too big, no memory: not the network's word.
            _ => return,
        };
        self.report(data, why);
    }

    fn report(&self, data: Bytes, why: Unreachable) {
        let (from, to) = (self.flow.local, self.flow.remote);
        self.any.unreachable(&Datagram { from, to, data }, why);
    }
}

/// The socket's pending error, if any; without one it is not ready for an error any more.
fn pending_error(socket: &UdpSocket) -> Option<io::Error> {
    let take = || socket.take_error()?.ok_or_else(|| io::ErrorKind::WouldBlock.into());
    socket.try_io(Interest::ERROR, take).ok()
}

async fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}
