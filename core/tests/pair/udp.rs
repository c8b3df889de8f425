//! UDP and ICMP.

use bytes::Bytes;
use lastack_core::error::UdpError;
use lastack_core::sim::{Host, Sim};
use lastack_core::stack::{Datagram, Readiness, Unreachable};
use lastack_core::wire::icmp::{Echo, Icmp};
use lastack_core::wire::transmit::{RxMeta, Transmit};
use lastack_core::wire::{self, Body, IpFields, emit};
use lastack_core::{Config, SocketEvent};

use super::*;

fn send(
    sim: &mut Sim,
    host: Host,
    id: lastack_core::id::UdpId,
    to: &str,
    data: &[u8],
) -> Result<(), UdpError> {
    let now = sim.now();
    let to = to.parse().expect("address");
    sim.stack(host).udp_send(now, id, None, to, Bytes::copy_from_slice(data))
}

fn recv(sim: &mut Sim, host: Host, id: lastack_core::id::UdpId) -> Result<Datagram, UdpError> {
    let now = sim.now();
    sim.stack(host).udp_recv(now, id)
}

fn bind(sim: &mut Sim, host: Host, local: &str) -> lastack_core::id::UdpId {
    let now = sim.now();
    sim.stack(host).udp_bind(now, local.parse().expect("address")).expect("free")
}

#[test]
fn datagrams_of_every_size_arrive_whole() {
    let (mut sim, a, b) = Sim::pair(700);
    let (at_a, at_b) = (bind(&mut sim, a, "10.0.0.1:0"), bind(&mut sim, b, "0.0.0.0:53"));
    for len in [0, 1, 1472, 1473, 4000, 65_507] {
        let data = pattern(len, 700);
        send(&mut sim, a, at_a, "10.0.0.2:53", &data).expect("room");
        sim.run_for(ms(1));
        assert_eq!(sim.stack(b).poll_event(), Some(SocketEvent::Udp(at_b, Readiness::READABLE)));
        let got = recv(&mut sim, b, at_b).expect("arrived");
        assert!(got.data == data, "{len} bytes");
        assert_eq!(Some(got.from), sim.peek(a).udp_addr(at_a));
        let now = sim.now();
        let answer = sim.stack(b).udp_send(now, at_b, Some(got.to), got.from, got.data);
        assert_eq!(answer, Ok(()), "{len} bytes back");
        sim.run_for(ms(1));
        assert!(recv(&mut sim, a, at_a).expect("came back").data == data, "{len} bytes back");
    }
    assert_eq!(sim.peek(b).counters().ip_reasm_oks, 3);
    assert_eq!(send(&mut sim, a, at_a, "10.0.0.2:53", &vec![0; 65_508]), Err(UdpError::MessageTooLong));
}

#[test]
fn ipv6_fragments_too() {
    let mut sim = Sim::new(701);
    let host = |n: u16| Config {
        addresses: vec![(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into(), 64)],
        ..Config::default()
    };
    let (a, b) = (sim.add(host(1)), sim.add(host(2)));
    let (at_a, at_b) = (bind(&mut sim, a, "[::]:9"), bind(&mut sim, b, "[::]:53"));
    let data = pattern(10_000, 701);
    send(&mut sim, a, at_a, "[2001:db8::2]:53", &data).expect("room");
    sim.run_for(ms(1));
    assert!(recv(&mut sim, b, at_b).expect("arrived").data == data);
}

#[test]
fn a_port_nobody_has_is_told_once() {
    let (mut sim, a, b) = Sim::pair(702);
    let id = bind(&mut sim, a, "10.0.0.1:9");
    send(&mut sim, a, id, "10.0.0.2:53", b"anybody?").expect("room");
    sim.run_for(ms(1));
    assert_eq!(sim.peek(b).counters().udp_no_ports, 1);
    assert_eq!(sim.peek(b).counters().icmp_out_dest_unreachs, 1);
    assert_eq!(recv(&mut sim, a, id), Err(UdpError::ConnectionRefused));
    assert_eq!(recv(&mut sim, a, id), Err(UdpError::WouldBlock));
}

#[test]
fn any_takes_every_destination_and_answers_from_it() {
    let mut sim = Sim::new(703);
    let a = sim.add(Config { addresses: vec![([10, 0, 0, 1].into(), 24)], ..Config::default() });
    let any = sim.add(Config {
        addresses: vec![([10, 0, 0, 2].into(), 24)],
        any_address: true,
        ..Config::default()
    });
    let at_a = bind(&mut sim, a, "10.0.0.1:0");
    let now = sim.now();
    let at_any = sim.stack(any).udp_bind_any(now).expect("the first");
    send(&mut sim, a, at_a, "203.0.113.53:53", b"question").expect("room");
    sim.run_for(ms(1));
    let question = recv(&mut sim, any, at_any).expect("arrived");
    assert_eq!(question.to, ([203, 0, 113, 53], 53).into());
    let now = sim.now();
    sim.stack(any)
        .udp_send(now, at_any, Some(question.to), question.from, Bytes::from_static(b"answer"))
        .expect("room");
    sim.run_for(ms(1));
    let answer = recv(&mut sim, a, at_a).expect("arrived");
    assert_eq!((&answer.data[..], answer.from), (&b"answer"[..], question.to));
    // Or says that there is nobody.
    let now = sim.now();
    sim.stack(any).udp_unreachable(now, &question, Unreachable::Port);
    sim.run_for(ms(1));
    assert_eq!(recv(&mut sim, a, at_a), Err(UdpError::ConnectionRefused));
}

#[test]
fn own_addresses_answer_a_ping_others_do_not() {
    for (dst, answered) in [([10, 0, 0, 2], true), ([203, 0, 113, 9], false)] {
        let mut sim = Sim::new(704);
        let host = sim.add(Config {
            addresses: vec![([10, 0, 0, 2].into(), 24)],
            any_address: true,
            ..Config::default()
        });
        let mut ping = Transmit::default();
        let ip = IpFields { src: [10, 0, 0, 1].into(), dst: dst.into(), ttl: 64, tos: 0, id: 1 };
        let echo = Echo { ident: 7, seq: 9, payload: Bytes::from_static(b"0123456789") };
        emit::icmp(&mut ping, &ip, &Icmp::EchoRequest(echo.clone()));
        let now = sim.now();
        sim.stack(host).handle_packet(now, ping.to_vec().into(), RxMeta::default());
        let mut out = Transmit::default();
        assert_eq!(sim.stack(host).poll_transmit(now, &mut out), answered, "{dst:?}");
        if answered {
            let reply = wire::parse(&out.to_vec().into(), RxMeta::default()).expect("a sound packet");
            assert_eq!(reply.ip.dst, ip.src);
            assert!(matches!(reply.body, Body::Icmp(Icmp::EchoReply(back)) if back == echo));
        }
    }
}
