//! Headers of SYNs, where the listener keeps them (`TCP_SAVE_SYN`).
//!
//! Owns:    the bytes of each, from the IP header to the end of the TCP options, by the cookie of the half-open connection and of the
//!          connection it becomes; until they are read, or the socket is gone. Beside the sockets, so that one without costs nothing.
//! Rules:   Linux `tcp_reqsk_record_syn`, `tcp_move_syn`, `tcp_saved_syn_free`. A SYN answered with a cookie is remembered nowhere.
//! Differs: headers longer than [`MAX_LEN`] (IPv6 extension headers without end) are not kept.

use hashbrown::HashMap;

use crate::id::{ConnectionId, ListenerId};
use crate::rng::HashKey;
use crate::stack::Stack;
use crate::stack::ingress::Arrival;
use crate::stack::sockets::Holder;

/// Most bytes that are kept of one: as much as every IPv6 link carries.
const MAX_LEN: usize = 1280;

/// Those of all sockets.
#[derive(Debug)]
pub(crate) struct SavedSyns {
    by_cookie: HashMap<u64, Box<[u8]>, HashKey>,
}

impl SavedSyns {
    pub(crate) fn new(secret: HashKey) -> Self {
        Self { by_cookie: HashMap::with_hasher(secret) }
    }

    /// The socket with this cookie is gone.
    #[inline]
    pub(crate) fn forget(&mut self, cookie: u64) {
        if !self.by_cookie.is_empty() {
            self.take(cookie);
        }
    }

    fn take(&mut self, cookie: u64) -> Option<Box<[u8]>> {
        let headers = self.by_cookie.remove(&cookie);
        if self.by_cookie.is_empty() {
            self.by_cookie.shrink_to_fit();
        }
        headers
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_cookie.is_empty()
    }
}

impl Stack {
    /// A SYN of this listener became the socket with this cookie (Linux `tcp_reqsk_record_syn`).
    pub(crate) fn save_syn(&mut self, id: ListenerId, cookie: u64, syn: Arrival<'_>) {
        let wanted = self.listeners.get(id).is_some_and(|listener| listener.options.save_syn != 0);
        if wanted && syn.headers.len() <= MAX_LEN {
            self.sockets.saved_syns.by_cookie.insert(cookie, syn.headers.into());
        }
    }

    pub(crate) fn saved_syn_of(&self, id: ConnectionId) -> Option<&[u8]> {
        let cookie =
            self.sockets.connection(id).filter(|socket| socket.holder == Holder::App)?.connection.cookie();
        Some(self.sockets.saved_syns.by_cookie.get(&cookie)?)
    }

    pub(crate) fn take_saved_syn_of(&mut self, id: ConnectionId) -> Option<Box<[u8]>> {
        let cookie =
            self.sockets.connection(id).filter(|socket| socket.holder == Holder::App)?.connection.cookie();
        self.sockets.saved_syns.take(cookie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Host, Sim};
    use crate::stack::ListenOptions;
    use crate::tcp::options::{TcpOption, TcpOptions};
    use crate::time::Duration;
    use crate::wire::{self, Body, transmit::RxMeta};

    fn listener(sim: &mut Sim, server: Host, save_syn: u8) -> ListenerId {
        let (now, at) = (sim.now(), ([10, 0, 0, 2], 80).into());
        let options = TcpOptions { save_syn, ..TcpOptions::default() };
        sim.stack(server).listen(now, ListenOptions { options, ..ListenOptions::new(at) }).expect("free")
    }

    fn connect(sim: &mut Sim, client: Host) -> ConnectionId {
        let now = sim.now();
        let to = ([10, 0, 0, 2], 80).into();
        sim.stack(client).connect(now, to, None, TcpOptions::default()).expect("a source port is free")
    }

    fn accept(sim: &mut Sim, server: Host, listener: ListenerId) -> ConnectionId {
        sim.drive();
        let now = sim.now();
        sim.stack(server).accept(now, listener).expect("a connection waits")
    }

    fn kept(sim: &Sim, server: Host) -> usize {
        sim.peek(server).sockets.saved_syns.by_cookie.len()
    }

    #[test]
    fn the_syn_waits_as_it_came_until_it_is_taken() {
        let (mut sim, client, server) = Sim::pair(1);
        let listener = listener(&mut sim, server, 2);
        let at_client = connect(&mut sim, client);
        let id = accept(&mut sim, server, listener);
        let syn = sim.stack(server).saved_syn(id).expect("it is kept").to_vec();
        let packet = wire::parse(&syn.clone().into(), RxMeta::default()).expect("a packet, to its checksum");
        let Body::Tcp(segment) = packet.body else { panic!("not TCP") };
        let tuple = sim.stack(client).tuple(at_client).expect("it lives");
        assert_eq!((segment.src, segment.header.src_port), (tuple.local.ip(), tuple.local.port()));
        assert!(segment.header.flags.syn() && segment.payload.is_empty());
        assert_eq!(sim.stack(server).take_saved_syn(id).as_deref(), Some(syn.as_slice()));
        assert_eq!((sim.peek(server).saved_syn(id), kept(&sim, server)), (None, 0));
        assert_eq!(sim.stack(client).saved_syn(at_client), None, "who connects has none");
    }

    #[test]
    fn nothing_is_kept_for_who_does_not_ask() {
        let (mut sim, client, server) = Sim::pair(2);
        let listener = listener(&mut sim, server, 0);
        connect(&mut sim, client);
        let id = accept(&mut sim, server, listener);
        assert_eq!((sim.peek(server).saved_syn(id), kept(&sim, server)), (None, 0));
        assert_eq!(sim.peek(server).sockets.saved_syns.by_cookie.capacity(), 0);
    }

    #[test]
    fn it_goes_with_its_socket() {
        let (mut sim, client, server) = Sim::pair(3);
        let listener = listener(&mut sim, server, 1);
        // Accepted and closed.
        connect(&mut sim, client);
        let id = accept(&mut sim, server, listener);
        let now = sim.now();
        sim.stack(server).abort(now, id);
        assert_eq!(kept(&sim, server), 0);
        // Half-open, and its SYN-ACKs never arrive.
        sim.wire(server).loss_percent(100.0);
        connect(&mut sim, client);
        sim.run_for(Duration::from_secs(1));
        assert_eq!(kept(&sim, server), 1);
        sim.run_for(Duration::from_secs(200));
        assert_eq!(kept(&sim, server), 0);
        // Finished, not accepted, and the listener closes.
        sim.wire(server).loss_percent(0.0);
        connect(&mut sim, client);
        sim.run_for(Duration::from_secs(1));
        assert_eq!(kept(&sim, server), 1);
        let now = sim.now();
        sim.stack(server).close_listener(now, listener);
        assert_eq!(kept(&sim, server), 0);
    }

    #[test]
    fn a_listener_may_begin_later() {
        let (mut sim, client, server) = Sim::pair(4);
        let listener = listener(&mut sim, server, 0);
        sim.stack(server).set_listener_option(listener, TcpOption::SaveSyn(1)).expect("in range");
        connect(&mut sim, client);
        let id = accept(&mut sim, server, listener);
        assert_eq!(sim.stack(server).saved_syn(id).map(<[u8]>::len), Some(60));
    }
}
