//! One flow: its datagrams both ways, its errors both ways, its line in the journal.
//!
//! Owns:    [`Carrier`].
//! Rules:   an ICMP error that the host gets is passed on. A datagram that must not be fragmented is not; one that is too
//!          big for the path is answered with what the path carries. Datagrams of one size that wait together leave in
//!          one system call (`UDP_SEGMENT`), and come in one (`UDP_GRO`): each is a datagram of its own all the same.
//!          What a socket was sent by others before it was connected is not the flow's (connecting does not empty the queue).
//! Not here: which flows there are (`udp`), the host's socket of a published port (`publish`).

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use lastack::core::time::Instant;
use lastack::{Datagram, Unreachable};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Begun, Flows};
use crate::journal::{Direction, Entry, Flow, FlowEnd};
use crate::session::{Note, Session};
use crate::sys::datagram;

/// Silence that ends a flow to a resolver: an answer comes soon or never.
const IDLE_DNS: Duration = Duration::from_secs(10);
/// Datagrams that may leave in one call: Linux's `UDP_MAX_SEGMENTS` is 128, it was 64.
const MAX_SEGMENTS: usize = 64;
/// Bytes of these.
const MAX_SEGMENTED: usize = 65_000;

/// What the program sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    data: Bytes,
    dont_fragment: bool,
}

impl Sent {
    pub(crate) fn of(datagram: Datagram) -> Self {
        Self { data: datagram.data, dont_fragment: datagram.dont_fragment }
    }
}

/// Carries one flow.
pub(crate) struct Carrier {
    session: Arc<Session>,
    flows: Arc<Flows>,
    flow: Flow,
    last: Instant,
    /// The host's socket must not fragment.
    dont_fragment: Option<bool>,
}

impl Carrier {
    pub(crate) fn new(session: Arc<Session>, flows: Arc<Flows>, flow: Flow) -> Self {
        let last = flow.opened;
        Self { session, flows, flow, last, dont_fragment: None }
    }

    /// Carries datagrams over the connected socket that `socket` gives, and writes down what became of the flow.
    pub(crate) async fn run(
        mut self,
        begun: Begun,
        socket: impl Future<Output = io::Result<UdpSocket>> + Send,
    ) {
        let Begun { datagrams, came, entered } = begun;
        let session = self.session.clone();
        tokio::select! {
            result = self.carry(socket, datagrams) => {
                if let Err(error) = result {
                    self.flow.how = end_of(&error);
                }
            }
            () = session.over() => {}
        }
        self.flow.datagrams_down += came.datagrams.load(Ordering::Relaxed);
        self.flow.bytes_down += came.bytes.load(Ordering::Relaxed);
        self.flow.duration_us = self.last.saturating_since(self.flow.opened).as_micros() as u64;
        session.tell(Note::Ended(Entry::Flow(self.flow)));
        // Behind its line: who waits for the last flow finds it written down.
        drop(entered);
    }

    /// Carries datagrams both ways until nobody sends any, or the socket cannot be had.
    async fn carry(
        &mut self,
        socket: impl Future<Output = io::Result<UdpSocket>>,
        mut datagrams: mpsc::Receiver<Sent>,
    ) -> io::Result<()> {
        let socket = socket.await.inspect_err(|_| self.report(Bytes::new(), Unreachable::Host))?;
        // Kernels before 5.0 receive one at a time.
        let _ = datagram::receive_many(&socket);
        let peer = socket.peer_addr()?;
        let idle = idle(&self.flow, self.session.udp_idle);
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                count = timeout(idle, datagrams.recv_many(&mut waiting, MAX_SEGMENTS)) => {
                    if !matches!(count, Ok(1..)) {
                        return Ok(());
                    }
                    self.send_all(&socket, &mut waiting).await;
                }
                ready = socket.ready(Interest::READABLE | Interest::ERROR) => {
                    if ready?.is_error()
                        && let Some(error) = pending_error(&socket)
                    {
                        self.refused(&socket, &error, Bytes::new());
                        continue;
                    }
                    if !self.receive(&socket, peer).await {
                        continue;
                    }
                }
            }
            self.last = self.session.net.now();
        }
    }

    /// Sends what waits, in as few calls as its sizes allow.
    async fn send_all(&mut self, socket: &UdpSocket, waiting: &mut Vec<Sent>) {
        self.answered(Direction::In);
        let mut rest = &waiting[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(together(rest));
            rest = later;
            self.flow.datagrams_up += now.len() as u64;
            self.flow.bytes_up += now.iter().map(|sent| sent.data.len() as u64).sum::<u64>();
            self.may_fragment(socket, !now[0].dont_fragment);
            let mut sent = send(socket, now).await;
            if let Err(error) = &sent
                && error.raw_os_error() != Some(libc::EMSGSIZE)
            {
                // An answer to a former one, if these can leave now: they have not.
                let again = send(socket, now).await;
                if again.is_ok() || error.raw_os_error() == Some(libc::ECONNREFUSED) {
                    self.refused(socket, error, Bytes::new());
                }
                sent = again;
            }
            if let Err(error) = sent {
                if now.len() == 1 {
                    self.refused(socket, &error, now[0].data.clone());
                    continue;
                }
                // One by one: the path may not carry them, or the device not cut them.
                for one in now {
                    if let Err(error) = send(socket, std::slice::from_ref(one)).await {
                        self.refused(socket, &error, one.data.clone());
                    }
                }
            }
        }
        waiting.clear();
    }

    /// Whoever is called has said something, if the flow was begun in `direction`: it is no refusal, or none any more.
    fn answered(&mut self, direction: Direction) {
        if self.flow.direction == direction {
            self.flow.how = FlowEnd::Idle;
        }
    }

    /// Takes over whether the program lets its datagrams be fragmented.
    fn may_fragment(&mut self, socket: &UdpSocket, may: bool) {
        if self.dont_fragment.replace(!may) == Some(!may) {
            return;
        }
        // A socket that cannot be told fragments: what arrives in pieces arrives.
        let _ = if self.flow.host_remote.is_some_and(|to| to.is_ipv4()) {
            let how = if may { Ipv4PathMtuDiscovery::DONT } else { Ipv4PathMtuDiscovery::DO };
            sockopt::set_ip_mtu_discover(socket, how)
        } else {
            let how = if may { Ipv6PathMtuDiscovery::DONT } else { Ipv6PathMtuDiscovery::DO };
            sockopt::set_ipv6_mtu_discover(socket, how)
        };
    }

    /// Takes what has come from `peer`, and hands it to the program. False: there was nothing of the flow's.
    async fn receive(&mut self, socket: &UdpSocket, peer: SocketAddr) -> bool {
        match socket.try_io(Interest::READABLE, || datagram::take(socket, &self.session.pool)) {
            Ok((got, data)) => {
                let is_ours = got.from == Some(peer);
                if is_ours {
                    self.hand_over(data, got.segment).await;
                }
                is_ours
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                self.refused(socket, &error, Bytes::new());
                true
            }
        }
    }

    /// Hands datagrams of `segment` bytes each, or one, to the program.
    async fn hand_over(&mut self, mut data: Bytes, segment: Option<usize>) {
        let (from, to) = (self.flow.remote, self.flow.local);
        self.answered(Direction::Out);
        loop {
            let size = segment.unwrap_or(data.len()).min(data.len());
            let one = data.split_to(size);
            self.flow.datagrams_down += 1;
            self.flow.bytes_down += one.len() as u64;
            // A datagram that the link cannot carry is lost, as on any link.
            let _ = self.flows.any.send(&Datagram { from, to, data: one, dont_fragment: false }).await;
            if data.is_empty() {
                return;
            }
        }
    }

    /// Passes an ICMP error on.
    fn refused(&mut self, socket: &UdpSocket, error: &io::Error, data: Bytes) {
        let why = match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Unreachable::Port,
            Some(libc::ENETUNREACH) => Unreachable::Net,
            Some(libc::EACCES | libc::EPERM) => Unreachable::Prohibited,
            Some(libc::EHOSTUNREACH) => Unreachable::Host,
            // Not the end of anything: the program's kernel makes its next datagrams smaller.
            Some(libc::EMSGSIZE) if !data.is_empty() => {
                if let Some(mtu) = path_mtu(socket, self.flow.host_remote) {
                    self.report(data, Unreachable::TooBig { mtu });
                }
                return;
            }
            // No memory: not the network's word.
            _ => return,
        };
        self.flow.how = end_of(error);
        self.report(data, why);
    }

    fn report(&self, data: Bytes, why: Unreachable) {
        let (from, to) = (self.flow.local, self.flow.remote);
        self.flows.any.unreachable(&Datagram { from, to, data, dont_fragment: true }, why);
    }
}

/// Silence that ends `flow`: `most`, but less where a resolver is asked.
fn idle(flow: &Flow, most: Duration) -> Duration {
    let called = match flow.direction {
        Direction::Out => flow.remote,
        Direction::In => flow.local,
    };
    if called.port() == 53 { IDLE_DNS.min(most) } else { most }
}

/// How many of the first datagrams can leave in one call: of one size, but for a shorter last one.
fn together(waiting: &[Sent]) -> usize {
    let Sent { data, dont_fragment } = &waiting[0];
    let (size, mut bytes, mut count) = (data.len(), data.len(), 1);
    // Of what must be fragmented each is a call of its own.
    if size == 0 || !dont_fragment {
        return 1;
    }
    for next in &waiting[1..] {
        let len = next.data.len();
        bytes += len;
        if len == 0 || len > size || bytes > MAX_SEGMENTED || next.dont_fragment != *dont_fragment {
            break;
        }
        count += 1;
        if len < size {
            break;
        }
    }
    count
}

/// Sends datagrams that can leave together.
async fn send(socket: &UdpSocket, together: &[Sent]) -> io::Result<()> {
    let parts: Vec<_> = together.iter().map(|sent| IoSlice::new(&sent.data)).collect();
    let segment = (together.len() > 1).then(|| together[0].data.len() as u16);
    socket.async_io(Interest::WRITABLE, || datagram::send(socket, &parts, segment)).await
}

fn path_mtu(socket: &UdpSocket, to: Option<SocketAddr>) -> Option<u32> {
    match to?.is_ipv4() {
        true => sockopt::ip_mtu(socket).ok(),
        false => sockopt::ipv6_mtu(socket).ok(),
    }
}

fn end_of(error: &io::Error) -> FlowEnd {
    if error.raw_os_error() == Some(libc::ECONNREFUSED) { FlowEnd::Refused } else { FlowEnd::Unreachable }
}

/// The socket's pending error, if any; without one it is not ready for an error any more.
fn pending_error(socket: &UdpSocket) -> Option<io::Error> {
    let take = || socket.take_error()?.ok_or_else(|| io::ErrorKind::WouldBlock.into());
    socket.try_io(Interest::ERROR, take).ok()
}

/// A socket of the host that sends to `to`, from an address that leads there.
pub(super) async fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
