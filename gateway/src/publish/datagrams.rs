//! Datagrams from outside: each client of a published UDP port has a flow, with a connected socket of its own.
//!
//! Owns:    [`Desk`], the published socket's task; the sockets of its flows.
//! Rules:   Linux gives a datagram to the connected socket of its client before the one that is connected to nobody, so
//!          the published socket sees the first datagrams of a client only, and ICMP errors about a client reach its
//!          flow. They have the same port, which only `SO_REUSEADDR` on all of them allows; the published socket has it
//!          for that moment only, so that no other program can share the port. Until a flow's socket is connected to its
//!          client, everybody's datagrams may come to it: they are taken as what came to the published one. A flow
//!          answers from the address that its client called.
//! Not here: carrying a flow's datagrams (`udp`).

use std::collections::VecDeque;
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
use crate::udp::{self, Begun, Carrier, Flows};

/// Datagrams kept that came to a flow's socket before it was connected; the loss of more is the network's.
const MAX_EARLY: usize = 64;

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
    /// Takes datagrams as they come.
    pub(super) async fn serve(&self, socket: &AsyncFd<OwnedFd>) {
        // Where it is not told, the address that the socket is bound to is what the client called.
        let _ = datagram::tell_destination(socket.get_ref(), self.place.is_ipv6());
        loop {
            let take = |socket: &OwnedFd| datagram::take(socket, &self.session.pool);
            match socket.async_io(Interest::READABLE, take).await {
                Ok((Received { from: Some(client), to, .. }, data)) => {
                    let called = SocketAddr::new(to.unwrap_or(self.place.ip()), self.place.port());
                    self.take(socket, client, called, data).await;
                }
                Ok(_) => {}
                // An error of some datagram that was sent: its flow is told by its own socket.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// One datagram from `client`, who called `called`; and what came to its flow's socket before that was connected.
    async fn take(&self, socket: &AsyncFd<OwnedFd>, client: SocketAddr, called: SocketAddr, data: Bytes) {
        let mut waiting = VecDeque::from([(client, data)]);
        while let Some((client, data)) = waiting.pop_front() {
            let pair = self.pair(client);
            if !self.flows.came(&pair, data.len()) {
                let Some(begun) = self.flows.enter(&self.session, pair) else { continue };
                // A flow that cannot be had: its datagram is lost.
                let Ok(own) = bound(socket, called) else { continue };
                let Ok(own) = connected(own, client) else { continue };
                waiting.extend(self.early(&own, MAX_EARLY.saturating_sub(waiting.len())));
                self.begin(begun, own, pair, client, called);
                self.flows.came(&pair, data.len());
            }
            // What the link cannot carry is lost, as on any link.
            let datagram = Datagram { from: pair.1, to: pair.0, data, dont_fragment: false };
            let _ = self.flows.any.send(&datagram).await;
        }
    }

    /// The program's end of a flow, and `client` as the program sees it.
    fn pair(&self, client: SocketAddr) -> udp::Pair {
        let is_ipv6 = client.is_ipv6();
        let local = SocketAddr::new(GUEST[usize::from(is_ipv6)].0, self.inside);
        (local, SocketAddr::new(seen_inside(client.ip(), is_ipv6), client.port()))
    }

    /// What a flow's own socket was sent before it was connected, by whomever.
    fn early(&self, own: &std::net::UdpSocket, most: usize) -> Vec<(SocketAddr, Bytes)> {
        let taken = std::iter::from_fn(|| datagram::take(own, &self.session.pool).ok());
        taken.take(most).filter_map(|(received, data)| Some((received.from?, data))).collect()
    }

    /// Begins the flow that was entered as `begun`.
    fn begin(
        &self,
        begun: Begun,
        own: std::net::UdpSocket,
        pair: udp::Pair,
        client: SocketAddr,
        called: SocketAddr,
    ) {
        let mut flow = Flow {
            owner: self.session.server(Protocol::Udp, self.inside),
            host_local: Some(called),
            host_remote: Some(client),
            ..udp::blank(&self.session, Direction::In, pair)
        };
        if flow.owner.is_none() && self.session.takes(Protocol::Udp, pair.0, pair.1) == Some(false) {
            // Until somebody answers. Where nothing tells, it is not said: then nothing came back.
            flow.how = FlowEnd::Refused;
        }
        let counted: Counted = self.counts.come();
        let carrier = Carrier::new(self.session.clone(), self.flows.clone(), flow);
        tokio::spawn(async move {
            carrier.run(begun, async move { UdpSocket::from_std(own) }).await;
            drop(counted);
        });
    }
}

/// A socket on the published address `called`. Until it is connected, it is sent what others send there too.
fn bound(published: &AsyncFd<OwnedFd>, called: SocketAddr) -> io::Result<OwnedFd> {
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
    Ok(own)
}

fn connected(own: OwnedFd, client: SocketAddr) -> io::Result<std::net::UdpSocket> {
    rustix::net::connect(&own, &client)?;
    Ok(own.into())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdSocket;

    use super::*;
    use crate::publish::{Port, bind};
    use crate::session::GatewayConfig;
    use crate::stage::{Stage, play};

    #[test]
    fn what_others_send_before_a_flows_socket_is_connected_is_kept() {
        play(async {
            let stage = Stage::new(GatewayConfig::default());
            let [client, other] = [(); 2].map(|()| StdSocket::bind("127.0.0.1:0").unwrap());
            let free = StdSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let port: Port = format!("127.0.0.1:{free}:80/udp").parse().unwrap();
            let (fd, place) = bind::bind(&port).unwrap().remove(0);
            let desk = Desk {
                session: stage.session.clone(),
                flows: stage.flows.clone(),
                counts: Arc::default(),
                inside: port.inside,
                place,
            };
            let published = crate::sys::register(fd, Interest::READABLE).unwrap();
            let own = bound(&published, place).unwrap();
            for data in [b"one", b"two"] {
                other.send_to(data, place).unwrap();
            }
            let at = client.local_addr().unwrap();
            let own = connected(own, at).unwrap();
            client.send_to(b"its own", place).unwrap();
            let ready = UdpSocket::from_std(own.try_clone().unwrap()).unwrap();
            ready.readable().await.unwrap();
            let from = other.local_addr().unwrap();
            assert_eq!(desk.early(&own, 1), [(from, Bytes::from("one"))]);
            assert_eq!(desk.early(&own, 9), [(from, Bytes::from("two")), (at, Bytes::from("its own"))]);
            assert_eq!(desk.early(&own, 9), []);
        });
    }
}
