//! ICMP errors to sockets that are not connections yet, and what a link says to everybody.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use lastack_core::ip::icmp;
use lastack_core::observe::{DropReason, EventKind, EventMask};
use lastack_core::sim::{Fate, Sim};
use lastack_core::stack::ListenOptions;
use lastack_core::tcp::options::TcpOptions;
use lastack_core::tcp::state::TcpState;
use lastack_core::wire;
use lastack_core::wire::icmp::ErrorKind;
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
