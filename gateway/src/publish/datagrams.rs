//! Datagrams from outside: each client of a published UDP port has a flow, with a connected socket of its own.
//!
//! Owns:    [`Desk`], the published socket's task; the sockets of its flows.
//! Rules:   Linux gives a datagram to the connected socket of its client before the one that is connected to nobody, so
//!          the published socket sees the first datagrams of a client only, and ICMP errors about a client reach its
//!          flow. They have the same port, which only `SO_REUSEADDR` on all of them allows; the published socket has it
//!          for that moment only, so that no other program can share the port. A flow answers from the address that its
//!          client called.
//! Not here: carrying a flow's datagrams (`udp`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use lastack::Datagram;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;

use super::{Counted, Counts};
use crate::addresses::{GUEST, seen_inside};
use crate::journal::{Direction, Flow, FlowEnd};
use crate::owner::Protocol;
use crate::session::Session;
use crate::sys::datagram::{self, Received};
use crate::udp::{self, Carrier, Flows};

/// Takes datagrams of one published socket to one port inside.
pub(super) struct Desk {
    pub(super) session: Arc<Session>,
    pub(super) flows: Arc<Flows>,
    pub(super) counts: Arc<Counts>,
    pub(super) inside: u16,
    /// Where the socket is bound.
    pub(super) place: SocketAddr,
}

impl Desk {
    /// Takes datagrams until nobody is left inside to answer them.
    pub(super) async fn serve(self, socket: AsyncFd<OwnedFd>) {
        // Where it is not told, the address that the socket is bound to is what the client called.
        let _ = datagram::tell_destination(socket.get_ref(), self.place.is_ipv6());
        let session = self.session.clone();
        tokio::select! {
            () = session.ownerless() => {}
            () = self.take_all(&socket) => {}
        }
    }

    async fn take_all(&self, socket: &AsyncFd<OwnedFd>) {
        loop {
            let mut buffer = self.session.pool.take();
            let got =
                socket.async_io(Interest::READABLE, |socket| datagram::receive(socket, &mut buffer)).await;
            let data = Bytes::copy_from_slice(&buffer);
            self.session.pool.put(buffer);
            match got {
                Ok(Received { from: Some(client), to, .. }) => {
                    let called = SocketAddr::new(to.unwrap_or(self.place.ip()), self.place.port());
                    self.take(socket, client, called, data).await;
                }
                Ok(_) => {}
                // An error of some datagram that was sent: its flow is told by its own socket.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// One datagram from `client`, who called `called`.
    async fn take(&self, socket: &AsyncFd<OwnedFd>, client: SocketAddr, called: SocketAddr, data: Bytes) {
        let is_ipv6 = client.is_ipv6();
        let local = SocketAddr::new(GUEST[usize::from(is_ipv6)].0, self.inside);
        let remote = SocketAddr::new(seen_inside(client.ip(), is_ipv6), client.port());
        let pair = (local, remote);
        if !self.flows.came(&pair, data.len()) {
            if !self.begin(socket, pair, client, called) {
                return;
            }
            self.flows.came(&pair, data.len());
        }
        // What the link cannot carry is lost, as on any link.
        let datagram = Datagram { from: remote, to: local, data, dont_fragment: false };
        let _ = self.flows.any.send(&datagram).await;
    }

    /// Begins a flow; false: it cannot be had, so its datagram is lost.
    fn begin(
        &self,
        socket: &AsyncFd<OwnedFd>,
        pair: udp::Pair,
        client: SocketAddr,
        called: SocketAddr,
    ) -> bool {
        let Ok(own) = connected(socket, called, client) else { return false };
        let Some(begun) = self.flows.enter(&self.session, pair) else { return false };
        let mut flow = Flow {
            host_local: Some(called),
            host_remote: Some(client),
            ..udp::blank(&self.session, Direction::In, pair)
        };
        flow.owner = self.session.server(Protocol::Udp, self.inside);
        if flow.owner.is_none() {
            // Until somebody answers.
            flow.how = FlowEnd::Refused;
        }
        let counted: Counted = self.counts.come();
        let carrier = Carrier::new(self.session.clone(), self.flows.clone(), flow);
        tokio::spawn(async move {
            carrier.run(begun, async move { UdpSocket::from_std(own) }).await;
            drop(counted);
        });
        true
    }
}

/// A socket on the published address `called` that is connected to `client`.
fn connected(
    published: &AsyncFd<OwnedFd>,
    called: SocketAddr,
    client: SocketAddr,
) -> io::Result<std::net::UdpSocket> {
    let family = if called.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let own = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    if called.is_ipv6() {
        sockopt::set_ipv6_v6only(&own, true)?;
    }
    sockopt::set_socket_reuseaddr(&own, true)?;
    sockopt::set_socket_reuseaddr(published.get_ref(), true)?;
    let bound = rustix::net::bind(&own, &called);
    // It can be taken back: what matters is what it was when the other was bound.
    sockopt::set_socket_reuseaddr(published.get_ref(), false)?;
    bound?;
    rustix::net::connect(&own, &client)?;
    Ok(own.into())
}
