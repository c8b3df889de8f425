//! UDP sockets: who gets a datagram, and the bounded queues each way.
//!
//! Owns:    sockets by id and by address; received datagrams not yet read; bytes given and not yet sent.
//! Rules:   RFC 768. Linux: `__udp4_lib_lookup`, `udp_queue_rcv_skb`; queues are bounded as `rmem_default` and `wmem_default` do.
//! Differs: a socket bound to a port hears of a port unreachable (`ECONNREFUSED`, once), which Linux tells connected sockets only.
//! Not here: composing packets (`stack::egress`), ICMP (`ip::icmp`).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::error::UdpError;
use crate::id::UdpId;
use crate::rng::{HashKey, Rng};
use crate::stack::slab::Arena;
use crate::stack::{Datagram, Readiness};

/// Linux `net.core.rmem_default`, bytes: what a socket may hold unread, bookkeeping included.
const RECEIVE_LIMIT: usize = 212_992;
/// Linux `net.core.wmem_default`, bytes: what a socket may have given and not yet sent.
const SEND_LIMIT: usize = 212_992;
/// Charged for a datagram besides its bytes, so that empty ones are bounded too.
const DATAGRAM_CHARGE: usize = 256;

/// One socket.
#[derive(Debug)]
struct UdpSocket {
    /// `None`: takes what nobody else wants.
    local: Option<SocketAddr>,
    received: VecDeque<Datagram>,
    received_bytes: usize,
    sending_bytes: usize,
    /// A send was refused for want of room: say when there is some.
    wants_room: bool,
    error: Option<UdpError>,
    ready: Readiness,
    has_event: bool,
}

/// All UDP sockets.
#[derive(Debug)]
pub(crate) struct UdpSockets {
    all: Arena<UdpSocket>,
    places: HashMap<SocketAddr, UdpId, HashKey>,
    /// Sockets a port, of any address: a free port needs one look.
    ports: HashMap<u16, u32, HashKey>,
    any: Option<UdpId>,
}

/// What became of a received datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delivery {
    /// Queued; true: the socket must be put on the list of events.
    Queued(UdpId, bool),
    /// The socket's queue is full.
    Full,
    /// Nobody has the port.
    NoSocket,
}

impl UdpSockets {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self {
            all: Arena::new(),
            places: HashMap::with_hasher(rng.key()),
            ports: HashMap::with_hasher(rng.key()),
            any: None,
        }
    }

    /// True when some socket has this port.
    pub(crate) fn uses_port(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    pub(crate) fn bind(&mut self, local: SocketAddr) -> Result<UdpId, UdpError> {
        if self.uses_port(local.port()) && self.conflict(local) {
            return Err(UdpError::AddrInUse);
        }
        let id = self.add(Some(local));
        self.places.insert(local, id);
        *self.ports.entry(local.port()).or_insert(0) += 1;
        Ok(id)
    }

    pub(crate) fn bind_any(&mut self) -> Result<UdpId, UdpError> {
        if self.any.is_some() {
            return Err(UdpError::AddrInUse);
        }
        let id = self.add(None);
        self.any = Some(id);
        Ok(id)
    }

    fn add(&mut self, local: Option<SocketAddr>) -> UdpId {
        let (index, generation) = self.all.insert(UdpSocket {
            local,
            received: VecDeque::new(),
            received_bytes: 0,
            sending_bytes: 0,
            wants_room: false,
            error: None,
            ready: Readiness::default(),
            has_event: false,
        });
        UdpId { index, generation }
    }

    fn conflict(&self, local: SocketAddr) -> bool {
        self.all.iter().any(|(_, _, other)| {
            other.local.is_some_and(|other| {
                other.port() == local.port() && crate::stack::listeners::overlap(other.ip(), local.ip())
            })
        })
    }

    /// True: the socket was on the list of events.
    pub(crate) fn close(&mut self, id: UdpId) -> bool {
        let Some(socket) = self.all.remove(id.index, id.generation) else { return false };
        match socket.local {
            None => self.any = None,
            Some(local) => {
                self.places.remove(&local);
                if let Some(count) = self.ports.get_mut(&local.port()) {
                    *count -= 1;
                    if *count == 0 {
                        self.ports.remove(&local.port());
                    }
                }
            }
        }
        socket.has_event
    }

    /// Where the socket is bound; an accept-any socket is bound nowhere.
    pub(crate) fn local(&self, id: UdpId) -> Option<SocketAddr> {
        self.get(id)?.local
    }

    pub(crate) fn exists(&self, id: UdpId) -> bool {
        self.get(id).is_some()
    }

    fn get(&self, id: UdpId) -> Option<&UdpSocket> {
        self.all.get(id.index, id.generation)
    }

    fn get_mut(&mut self, id: UdpId) -> Option<&mut UdpSocket> {
        self.all.get_mut(id.index, id.generation)
    }

    /// Who has `destination`: the exact address before any address before accept-any.
    fn find(&self, destination: SocketAddr) -> Option<UdpId> {
        let port = destination.port();
        if !self.ports.contains_key(&port) {
            return self.any;
        }
        let any_v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        let any_v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        let wildcard = if destination.is_ipv4() { any_v4 } else { any_v6 };
        let found = [destination, wildcard, any_v6].iter().find_map(|place| self.places.get(place).copied());
        found.or(self.any)
    }

    /// Queues a datagram for whoever has its destination.
    pub(crate) fn deliver(&mut self, datagram: Datagram) -> Delivery {
        let Some(id) = self.find(datagram.to) else { return Delivery::NoSocket };
        let Some(socket) = self.get_mut(id) else { return Delivery::NoSocket };
        let charge = datagram.data.len() + DATAGRAM_CHARGE;
        // Linux: one datagram is always admitted to an empty queue.
        if socket.received_bytes + charge > RECEIVE_LIMIT && !socket.received.is_empty() {
            return Delivery::Full;
        }
        socket.received_bytes += charge;
        socket.received.push_back(datagram);
        Delivery::Queued(id, socket.tell(Readiness::READABLE))
    }

    /// An ICMP error about a datagram from `local`. Gives the socket if it must be put on the list of events.
    pub(crate) fn fail(&mut self, local: SocketAddr, error: UdpError) -> Option<UdpId> {
        let id = self.find(local).filter(|id| Some(*id) != self.any)?;
        let socket = self.get_mut(id)?;
        socket.error = Some(error);
        socket.tell(Readiness::ERROR.with(Readiness::READABLE)).then_some(id)
    }

    pub(crate) fn receive(&mut self, id: UdpId) -> Result<Datagram, UdpError> {
        let socket = self.get_mut(id).ok_or(UdpError::NotConnected)?;
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let datagram = socket.received.pop_front().ok_or(UdpError::WouldBlock)?;
        socket.received_bytes -= datagram.data.len() + DATAGRAM_CHARGE;
        Ok(datagram)
    }

    /// Takes room for a datagram of `len` bytes on its way out.
    pub(crate) fn reserve(&mut self, id: UdpId, len: usize) -> Result<(), UdpError> {
        let socket = self.get_mut(id).ok_or(UdpError::NotConnected)?;
        if socket.sending_bytes > 0 && socket.sending_bytes + len + DATAGRAM_CHARGE > SEND_LIMIT {
            socket.wants_room = true;
            return Err(UdpError::WouldBlock);
        }
        socket.sending_bytes += len + DATAGRAM_CHARGE;
        Ok(())
    }

    /// The datagram left. True: the socket must be put on the list of events, it has room again.
    pub(crate) fn sent(&mut self, id: UdpId, len: usize) -> bool {
        let Some(socket) = self.get_mut(id) else { return false };
        socket.sending_bytes -= len + DATAGRAM_CHARGE;
        // Linux `sock_writeable`: at half.
        if socket.wants_room && socket.sending_bytes * 2 <= SEND_LIMIT {
            socket.wants_room = false;
            return socket.tell(Readiness::WRITABLE);
        }
        false
    }

    /// What became true since it was last told.
    pub(crate) fn take_readiness(&mut self, id: UdpId) -> Option<Readiness> {
        let socket = self.get_mut(id)?;
        socket.has_event = false;
        let ready = core::mem::take(&mut socket.ready);
        (ready != Readiness::default()).then_some(ready)
    }
}

impl UdpSocket {
    /// True when the socket must be put on the list of events: it was not there.
    fn tell(&mut self, ready: Readiness) -> bool {
        self.ready = self.ready.with(ready);
        !core::mem::replace(&mut self.has_event, true)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn sockets() -> UdpSockets {
        UdpSockets::new(&mut Rng::from_number(1))
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    fn datagram(to: &str, len: usize) -> Datagram {
        Datagram {
            from: at("198.51.100.7:9"),
            to: at(to),
            data: Bytes::from(vec![7; len]),
            dont_fragment: true,
        }
    }

    #[test]
    fn exact_before_wildcard_before_any() {
        let mut sockets = sockets();
        let any = sockets.bind_any().expect("first");
        assert_eq!(sockets.bind_any(), Err(UdpError::AddrInUse));
        let exact = sockets.bind(at("192.0.2.1:53")).expect("free");
        assert_eq!(sockets.bind(at("0.0.0.0:53")), Err(UdpError::AddrInUse));
        let wildcard = sockets.bind(at("0.0.0.0:54")).expect("free");
        for (to, id) in
            [("192.0.2.1:53", exact), ("192.0.2.2:53", any), ("192.0.2.2:54", wildcard), ("192.0.2.1:9", any)]
        {
            assert_eq!(sockets.deliver(datagram(to, 1)).id(), Some(id), "{to}");
        }
        sockets.close(exact);
        assert_eq!(sockets.deliver(datagram("192.0.2.1:53", 1)).id(), Some(any));
        assert!(!sockets.uses_port(53) && sockets.uses_port(54));
    }

    impl Delivery {
        fn id(self) -> Option<UdpId> {
            match self {
                Self::Queued(id, _) => Some(id),
                _ => None,
            }
        }
    }

    #[test]
    fn the_receive_queue_is_bounded_and_one_always_fits() {
        let mut sockets = sockets();
        let id = sockets.bind(at("192.0.2.1:53")).expect("free");
        let mut queued = 0;
        while matches!(sockets.deliver(datagram("192.0.2.1:53", 0)), Delivery::Queued(..)) {
            queued += 1;
        }
        assert_eq!(queued, RECEIVE_LIMIT / DATAGRAM_CHARGE);
        assert_eq!(sockets.deliver(datagram("192.0.2.1:53", 0)), Delivery::Full);
        for _ in 0..queued {
            sockets.receive(id).expect("queued");
        }
        assert_eq!(sockets.receive(id), Err(UdpError::WouldBlock));
        assert!(matches!(sockets.deliver(datagram("192.0.2.1:53", 300_000)), Delivery::Queued(..)));
    }

    #[test]
    fn a_refused_send_is_told_when_there_is_room() {
        let mut sockets = sockets();
        let id = sockets.bind(at("192.0.2.1:53")).expect("free");
        let mut given = 0;
        while sockets.reserve(id, 1000).is_ok() {
            given += 1;
        }
        let told: Vec<bool> = (0..given).map(|_| sockets.sent(id, 1000)).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        assert_eq!(sockets.take_readiness(id), Some(Readiness::WRITABLE));
        assert_eq!(sockets.take_readiness(id), None);
    }

    #[test]
    fn a_port_unreachable_is_told_once() {
        let mut sockets = sockets();
        let id = sockets.bind(at("192.0.2.1:53")).expect("free");
        assert_eq!(sockets.fail(at("192.0.2.1:53"), UdpError::ConnectionRefused), Some(id));
        assert_eq!(sockets.fail(at("192.0.2.1:54"), UdpError::ConnectionRefused), None);
        assert_eq!(sockets.receive(id), Err(UdpError::ConnectionRefused));
        assert_eq!(sockets.receive(id), Err(UdpError::WouldBlock));
    }
}
