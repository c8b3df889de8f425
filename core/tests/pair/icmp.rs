//! ICMP errors to requests and to sockets (`IP_RECVERR`, the error queue), and what a link says to everybody.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use lastack_core::error::{QueuedError, RecvError, SocketError};
use lastack_core::id::ConnectionId;
use lastack_core::ip::icmp;
use lastack_core::observe::{DropReason, EventKind, EventMask};
use lastack_core::sim::{Fate, Host, Sim};
use lastack_core::stack::ListenOptions;
use lastack_core::tcp::options::{TcpOption, TcpOptions};
use lastack_core::tcp::state::TcpState;
use lastack_core::wire;
use lastack_core::wire::icmp::{ErrorKind, Version};
use lastack_core::wire::transmit::{RxMeta, Transmit};

use super::*;

/// An ICMP error about `packet`, from a router.
fn error_about(packet: &Bytes, kind: ErrorKind) -> Bytes {
    let ip = wire::parse(packet, RxMeta::default()).expect("a sound packet").ip;
    let mut out = Transmit::default();
    icmp::error(&mut out, packet, &ip, kind, [192, 0, 2, 254].into(), 1);
    out.to_vec().into()
}

/// Linux `tcp_req_err`: a SYN-ACK that cannot arrive ends the request; one nobody wants does not.
#[test]
fn a_syn_ack_that_cannot_arrive_ends_its_request() {
    for (code, ends) in [(0, true), (1, true), (3, false), (13, false)] {
        let (mut sim, client, server) = Sim::pair(900);
        let now = sim.now();
        sim.stack(server).listen(now, ListenOptions::new(([10, 0, 0, 2], 80).into())).expect("free");
        let syn_ack = Rc::new(RefCell::new(Bytes::new()));
        let seen_here = Rc::clone(&syn_ack);
        sim.on_packet(move |seen| {
            if seen.from == server {
                *seen_here.borrow_mut() = Bytes::copy_from_slice(seen.packet);
                return Fate::Drop;
            }
            Fate::Pass
        });
        sim.stack(client)
            .connect(now, ([10, 0, 0, 2], 80).into(), None, TcpOptions::default())
            .expect("free");
        sim.run_for(ms(1));
        assert_eq!(states(&sim, server), [TcpState::NewSynRecv]);
        let error = error_about(&syn_ack.borrow(), ErrorKind::Unreachable { code });
        let now = sim.now();
        sim.stack(server).handle_packet(now, error, RxMeta::default());
        assert_eq!(states(&sim, server).is_empty(), ends, "code {code}");
        assert_eq!(sim.peek(server).counters().listen_drops, u64::from(ends), "code {code}");
    }
}

#[test]
fn an_error_about_nobodys_packet_is_dropped_with_a_reason() {
    let (mut sim, client, server) = Sim::pair(901);
    sim.observe(EventMask::DROP, true);
    let packet = Rc::new(RefCell::new(Bytes::new()));
    let seen_here = Rc::clone(&packet);
    sim.on_packet(move |seen| {
        *seen_here.borrow_mut() = Bytes::copy_from_slice(seen.packet);
        Fate::Drop
    });
    let now = sim.now();
    let id = sim.stack(client).connect(now, ([10, 0, 0, 2], 80).into(), None, TcpOptions::default());
    sim.run_for(ms(1));
    close(&mut sim, client, id.expect("free"));
    let error = error_about(&packet.borrow(), ErrorKind::Unreachable { code: 1 });
    let now = sim.now();
    for host in [client, server] {
        sim.stack(host).handle_packet(now, error.clone(), RxMeta::default());
    }
    let reasons: Vec<_> = sim.take_events().into_iter().map(|(host, event)| (host, event.kind)).collect();
    assert_eq!(
        reasons,
        [
            (client, EventKind::Drop(DropReason::IcmpUnmatched)),
            // It is not for the other host at all.
            (server, EventKind::Drop(DropReason::NotLocal))
        ]
    );
}

#[test]
fn link_noise_is_ignored_on_purpose_and_counted() {
    let mut sim = Sim::new(902);
    let host = sim.add(lastack_core::Config {
        addresses: vec![([10, 0, 0, 1].into(), 24), ("fe80::1".parse().expect("address"), 64)],
        any_address: true,
        ..Default::default()
    });
    let now = sim.now();
    let addresses = [
        ("10.0.0.9", "224.0.0.251"),
        ("10.0.0.9", "10.0.0.255"),
        ("10.0.0.9", "255.255.255.255"),
        ("fe80::9", "ff02::16"),
        ("fe80::9", "ff02::fb"),
    ];
    for (src, dst) in addresses {
        let ip = wire::IpFields {
            src: src.parse().expect("address"),
            dst: dst.parse().expect("address"),
            ttl: 1,
            tos: 0,
            id: 0,
        };
        let mut out = Transmit { payload: vec![Bytes::from_static(b"noise")], ..Transmit::default() };
        wire::emit::udp(&mut out, &ip, 5353, 5353);
        out.finish_checksum();
        sim.stack(host).handle_packet(now, out.to_vec().into(), RxMeta::default());
    }
    assert_eq!(sim.peek(host).counters().link_noise, addresses.len() as u64);
    assert!(!sim.stack(host).poll_transmit(now, &mut Transmit::default()), "nobody is answered");
}

/// Where a program in front connects to whatever a SYN wanted, it must not be led to its own loopback. The counters are those
/// of Linux 6.18 for the same packets from a TUN; its reasons are `IP_LOCALNET` and `IP_INHDR`.
#[test]
fn a_loopback_address_that_comes_by_the_link_is_dropped_though_every_address_is_taken() {
    let mut sim = Sim::new(903);
    let own = ("127.9.9.9".parse().expect("address"), 32);
    let addresses = vec![([192, 0, 2, 1].into(), 24), ("2001:db8::1".parse().expect("address"), 64), own];
    let config = lastack_core::Config { addresses, any_address: true, ..Default::default() };
    let host = sim.add(config);
    let now = sim.now();
    let any = sim.stack(host).udp_bind_any(now).expect("nobody else takes all");
    let mut taken = |src: &str, dst: &str| {
        let (src, dst) = (src.parse().expect("address"), dst.parse().expect("address"));
        let ip = wire::IpFields { src, dst, ttl: 64, tos: 0, id: 0 };
        let mut out = Transmit { payload: vec![Bytes::from_static(b"x")], ..Transmit::default() };
        wire::emit::udp(&mut out, &ip, 1000, 2000);
        out.finish_checksum();
        sim.stack(host).handle_packet(now, out.to_vec().into(), RxMeta::default());
        assert!(!sim.stack(host).poll_transmit(now, &mut Transmit::default()), "nobody is answered");
        let datagram = sim.stack(host).udp_recv(now, any);
        let counters = sim.peek(host).counters();
        (
            datagram.is_ok(),
            counters.martian_destinations,
            counters.ip_in_hdr_errors,
            counters.ip_in_addr_errors,
        )
    };
    assert_eq!(taken("192.0.2.7", "198.51.100.1"), (true, 0, 0, 0));
    assert_eq!(taken("192.0.2.7", "127.0.0.1"), (false, 1, 0, 0));
    assert_eq!(taken("127.0.0.1", "127.255.0.1"), (false, 2, 0, 0));
    assert_eq!(taken("2001:db8::7", "::1"), (false, 3, 1, 0));
    assert_eq!(
        taken("192.0.2.7", "127.9.9.9"),
        (true, 3, 1, 0),
        "the link's own address, as with route_localnet"
    );
}

/// Two hosts of one family, and the last packet that the first of them sent; nothing arrives while `cut` is true.
struct Watched {
    sim: Sim,
    hosts: [Host; 2],
    sent: Rc<RefCell<Bytes>>,
    cut: Rc<RefCell<bool>>,
}

impl Watched {
    fn new(seed: u64, v6: bool) -> Self {
        let mut sim = Sim::new(seed);
        let hosts = [1, 2].map(|n| {
            let address = if v6 { format!("fd00::{n}") } else { format!("10.0.0.{n}") };
            let address = address.parse().expect("an address");
            sim.add(lastack_core::Config {
                addresses: vec![(address, if v6 { 64 } else { 24 })],
                ..Default::default()
            })
        });
        let (sent, cut) = (Rc::new(RefCell::new(Bytes::new())), Rc::new(RefCell::new(false)));
        let (seen_here, cut_here, first) = (Rc::clone(&sent), Rc::clone(&cut), hosts[0]);
        sim.on_packet(move |seen| {
            if seen.from == first {
                *seen_here.borrow_mut() = Bytes::copy_from_slice(seen.packet);
            }
            if *cut_here.borrow() { Fate::Drop } else { Fate::Pass }
        });
        Self { sim, hosts, sent, cut }
    }

    fn connect(&mut self, v6: bool, options: TcpOptions) -> ConnectionId {
        let to = if v6 { "[fd00::2]:80" } else { "10.0.0.2:80" }.parse().expect("an address");
        let now = self.sim.now();
        let id = self.sim.stack(self.hosts[0]).connect(now, to, None, options).expect("free");
        self.sim.run_for(ms(1));
        id
    }

    /// A router says this about the last packet.
    fn error(&mut self, kind: ErrorKind) {
        let error = error_about(&self.sent.borrow(), kind);
        let now = self.sim.now();
        self.sim.stack(self.hosts[0]).handle_packet(now, error, RxMeta::default());
    }
}

const HOST_UNREACHABLE: ErrorKind = ErrorKind::Unreachable { code: 1 };
const ADDRESS_UNREACHABLE_V6: ErrorKind = ErrorKind::Unreachable { code: 3 };

/// Linux `tcp_v4_err`: `ip_icmp_error()` queues what ends the attempt; `SO_ERROR` tells the same.
#[test]
fn what_ends_a_connect_waits_in_the_error_queue() {
    let mut world = Watched::new(903, false);
    *world.cut.borrow_mut() = true;
    let id = world.connect(false, TcpOptions::default());
    let quoted = (world.sent.borrow().len() - 20) as u16;
    world.error(HOST_UNREACHABLE);
    let stack = world.sim.stack(world.hosts[0]);
    assert_eq!(stack.state(id), Some(TcpState::Close));
    let error = SocketError::HostUnreachable;
    let told = QueuedError { error, version: Version::V4, kind: HOST_UNREACHABLE, quoted };
    assert_eq!((stack.take_queued_error(id), stack.take_queued_error(id)), (Some(told), None));
    assert_eq!((stack.take_error(id), stack.take_error(id)), (Some(error), None));
}

/// Linux `ipv6_icmp_error()`: "if (!inet6_test_bit(RECVERR6, sk)) return;".
#[test]
fn ipv6_queues_for_who_asks() {
    for asks in [false, true] {
        let mut world = Watched::new(904, true);
        *world.cut.borrow_mut() = true;
        // IP_RECVERR is of IPv4.
        let id = world.connect(true, TcpOptions { recverr: !asks, recverr6: asks, ..TcpOptions::default() });
        world.error(ADDRESS_UNREACHABLE_V6);
        let stack = world.sim.stack(world.hosts[0]);
        let told = stack.take_queued_error(id);
        assert_eq!(
            told.map(|told| (told.version, told.kind)),
            asks.then_some((Version::V6, ADDRESS_UNREACHABLE_V6))
        );
        assert_eq!(stack.take_error(id), Some(SocketError::HostUnreachable), "asks {asks}");
    }
}

/// A living connection: told at once where it is asked for, once, and it goes on; else at the give-up.
#[test]
fn recverr_tells_a_connection_at_once() {
    for (v6, asks) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = Watched::new(905, v6);
        let [client, server] = world.hosts;
        let now = world.sim.now();
        let at = if v6 { "[fd00::2]:80" } else { "10.0.0.2:80" }.parse().expect("an address");
        world.sim.stack(server).listen(now, ListenOptions::new(at)).expect("free");
        let id = world.connect(v6, TcpOptions::default());
        world.sim.drive();
        let now = world.sim.now();
        let option = if v6 { TcpOption::RecvErr6(asks) } else { TcpOption::RecvErr(asks) };
        world.sim.stack(client).set_option(now, id, option).expect("taken");
        *world.cut.borrow_mut() = true;
        world.sim.stack(client).send(now, id, b"lost").expect("there is room");
        world.sim.run_for(ms(1));
        world.error(if v6 { ADDRESS_UNREACHABLE_V6 } else { HOST_UNREACHABLE });
        let (now, stack) = (world.sim.now(), world.sim.stack(client));
        assert_eq!(stack.take_queued_error(id), None, "nothing of a living connection is queued");
        let error = SocketError::HostUnreachable;
        let told = if asks { RecvError::Socket(error) } else { RecvError::WouldBlock };
        assert_eq!(stack.recv(now, id, &mut [0; 8]), Err(told), "v6 {v6}, asks {asks}");
        assert_eq!(stack.recv(now, id, &mut [0; 8]), Err(RecvError::WouldBlock), "once");
        assert_eq!(stack.state(id), Some(TcpState::Established));
        world.sim.run_for(ms(3_600_000));
        let stack = world.sim.stack(client);
        assert_eq!(stack.state(id), Some(TcpState::Close));
        let last = if asks { SocketError::TimedOut } else { error };
        assert_eq!(stack.take_error(id), Some(last), "v6 {v6}, asks {asks}");
    }
}
