//! Opening: queues, overflow, cookies, refusal, giving up.

use std::cell::Cell;
use std::rc::Rc;

use lastack_core::error::{AcceptError, ConnectError, SocketError};
use lastack_core::id::{ConnectionId, ListenerId};
use lastack_core::observe::{EventKind, EventMask};
use lastack_core::sim::{Fate, Host, Sim};
use lastack_core::stack::{ListenOptions, Readiness};
use lastack_core::tcp::options::{TcpOption, TcpOptions};
use lastack_core::tcp::state::TcpState;
use lastack_core::{Config, SocketEvent};

use super::*;

fn listen(sim: &mut Sim, host: Host, backlog: u32) -> ListenerId {
    let now = sim.now();
    let options = ListenOptions { backlog, ..ListenOptions::new(([10, 0, 0, 2], 80).into()) };
    sim.stack(host).listen(now, options).expect("the port is free")
}

fn connect(sim: &mut Sim, host: Host) -> ConnectionId {
    let now = sim.now();
    sim.stack(host)
        .connect(now, ([10, 0, 0, 2], 80).into(), None, TcpOptions::default())
        .expect("a port is free")
}

/// TCP flags byte of a packet without IP options.
fn flags(packet: &[u8]) -> u8 {
    packet[33]
}
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

#[test]
fn three_segments_open_a_connection() {
    let (mut sim, client, server) = Sim::pair(1);
    sim.observe(EventMask::LIFE, true);
    sim.wires(|wire| {
        wire.delay(ms(10));
    });
    let (a, b) = sim.establish(client, server, 80);
    assert_eq!((sim.wire(client).packets(), sim.wire(server).packets()), (2, 1));
    assert_eq!(sim.peek(client).state(a), Some(TcpState::Established));
    assert_eq!(sim.peek(server).state(b), Some(TcpState::Established));
    assert_eq!(
        sim.peek(client).tuple(a).map(|t| (t.remote, t.local)),
        sim.peek(server).tuple(b).map(|t| (t.local, t.remote))
    );
    let counters = [sim.peek(client).counters(), sim.peek(server).counters()];
    assert_eq!((counters[0].active_opens, counters[0].curr_estab, counters[0].out_segs), (1, 1, 2));
    assert_eq!((counters[1].passive_opens, counters[1].curr_estab, counters[1].in_segs), (1, 1, 2));

    let changes: Vec<_> = sim
        .take_events()
        .into_iter()
        .filter_map(|(host, event)| match event.kind {
            EventKind::StateChange { old, new } => Some((host, old, new)),
            _ => None,
        })
        .collect();
    use TcpState::{Close, Established, SynRecv, SynSent};
    assert_eq!(
        changes,
        [
            (client, Close, SynSent),
            (client, SynSent, Established),
            (server, Close, SynRecv),
            (server, SynRecv, Established)
        ]
    );
    assert_eq!(
        sim.poll_event(),
        Some((client, SocketEvent::Connection(a, Readiness::CONNECTED.with(Readiness::WRITABLE))))
    );
}

#[test]
fn a_closed_port_refuses() {
    let (mut sim, client, server) = Sim::pair(2);
    let id = connect(&mut sim, client);
    sim.drive();
    assert_eq!(sim.peek(server).counters().out_rsts, 1);
    assert_eq!(sim.peek(client).state(id), Some(TcpState::Close));
    assert_eq!(sim.stack(client).take_error(id), Some(SocketError::ConnectionRefused));
    assert_eq!(sim.peek(client).counters().attempt_fails, 1);
    close(&mut sim, client, id);
    assert_nothing_left(&sim, &[client, server]);
}

/// Specification 3.5: 131 s, ten repeats.
#[test]
fn silence_is_given_up_after_131_seconds() {
    let (mut sim, client, server) = Sim::pair(3);
    sim.wire(client).cut(true);
    let start = sim.now();
    let id = connect(&mut sim, client);
    let failed = sim.run_until(200 * SECOND, |sim| sim.peek(client).state(id) == Some(TcpState::Close));
    assert!(failed);
    assert_eq!(sim.now().saturating_since(start), 131 * SECOND);
    assert_eq!(sim.wire(client).packets(), 11);
    assert_eq!(sim.stack(client).take_error(id), Some(SocketError::TimedOut));
    close(&mut sim, client, id);
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn a_lost_syn_and_a_lost_syn_ack_are_repeated() {
    for (loser, repeats) in [(0, "SYN"), (1, "SYN-ACK")] {
        let (mut sim, client, server) = Sim::pair(4);
        let first = Rc::new(Cell::new(true));
        let victim = [client, server][loser];
        sim.on_packet(
            move |seen| {
                if seen.from == victim && first.replace(false) { Fate::Drop } else { Fate::Pass }
            },
        );
        let start = sim.now();
        sim.establish(client, server, 80);
        assert_eq!(sim.now().saturating_since(start), SECOND, "{repeats}");
        let repeated: u64 =
            [client, server].iter().map(|host| sim.peek(*host).counters().tcp_syn_retrans).sum();
        assert!(repeated >= 1, "{repeats}");
    }
}

#[test]
fn both_sides_may_open_at_once() {
    let (mut sim, left, right) = Sim::pair(5);
    sim.wires(|wire| {
        wire.delay(ms(10));
    });
    let now = sim.now();
    let places = [([10, 0, 0, 1], 5000).into(), ([10, 0, 0, 2], 6000).into()];
    let a = sim.stack(left).connect(now, places[1], Some(places[0]), TcpOptions::default()).expect("free");
    let b = sim.stack(right).connect(now, places[0], Some(places[1]), TcpOptions::default()).expect("free");
    sim.drive();
    assert_eq!(sim.peek(left).state(a), Some(TcpState::Established));
    assert_eq!(sim.peek(right).state(b), Some(TcpState::Established));
    let data = pattern(5000, 5);
    assert_eq!(sim.transfer(left, a, right, b, &data), data);
}

// ---- queues (specification 4.1, 4.2, 13.13)

#[test]
fn the_accept_queue_holds_one_more_than_the_backlog() {
    let (mut sim, client, server) = Sim::pair(6);
    let listener = listen(&mut sim, server, 1);
    for _ in 0..4 {
        connect(&mut sim, client);
        sim.run_for(ms(1));
    }
    let row = sim.peek(server).sockets(sim.now()).next().expect("the listener");
    assert_eq!((row.state, row.recv_q, row.send_q), (TcpState::Listen, 2, 1));
    let counters = sim.peek(server).counters();
    assert_eq!((counters.listen_overflows, counters.listen_drops), (2, 2), "two SYNs were dropped");
    // Room again: the repeated SYNs get in.
    let now = sim.now();
    for _ in 0..2 {
        assert!(sim.stack(server).accept(now, listener).is_ok());
    }
    assert_eq!(sim.stack(server).accept(now, listener), Err(AcceptError::WouldBlock));
    sim.run_for(2 * SECOND);
    let now = sim.now();
    assert!(sim.stack(server).accept(now, listener).is_ok());
    assert!(sim.stack(server).accept(now, listener).is_ok());
}

/// One fills half of the accept queue; of two more at once the second finds it full with its final ACK.
fn overflow_at_final_ack(sim: &mut Sim, client: Host, server: Host) -> Vec<ConnectionId> {
    sim.wires(|wire| {
        wire.delay(ms(10));
    });
    let mut ids = vec![connect(sim, client)];
    sim.run_for(ms(100));
    ids.extend([connect(sim, client), connect(sim, client)]);
    sim.run_for(ms(100));
    assert_eq!(sim.peek(server).counters().listen_overflows, 1);
    ids
}

#[test]
fn a_final_ack_at_a_full_queue_is_ignored_and_tried_again() {
    let (mut sim, client, server) = Sim::pair(7);
    let listener = listen(&mut sim, server, 1);
    let ids = overflow_at_final_ack(&mut sim, client, server);
    // The client believes in its connection; the server does not yet.
    assert!(ids.iter().all(|id| sim.peek(client).state(*id) == Some(TcpState::Established)));
    assert_eq!(states(&sim, server).iter().filter(|state| **state == TcpState::NewSynRecv).count(), 1);
    let now = sim.now();
    assert!(sim.stack(server).accept(now, listener).is_ok());
    sim.run_for(2 * SECOND);
    let now = sim.now();
    assert!(sim.stack(server).accept(now, listener).is_ok());
    assert!(sim.stack(server).accept(now, listener).is_ok(), "the repeated SYN-ACK brought the ACK again");
}

#[test]
fn abort_on_overflow_resets_instead() {
    let (mut sim, client, server) = Sim::pair(8);
    sysctl(&mut sim, server, "tcp_abort_on_overflow", "1");
    listen(&mut sim, server, 1);
    let ids = overflow_at_final_ack(&mut sim, client, server);
    let reset = ids.iter().filter(|id| sim.peek(client).state(**id) == Some(TcpState::Close)).count();
    assert_eq!(reset, 1);
    assert_eq!(sim.peek(server).counters().embryonic_rsts, 1);
}

/// Specification 12, experiment 23: backlog 4, ten SYNs whose SYN-ACKs get lost.
#[test]
fn a_full_syn_queue_makes_cookies_or_drops() {
    for (syncookies, half_open, cookies, drops) in [("1", 5, 5, 0), ("0", 5, 0, 5), ("2", 0, 10, 0)] {
        let (mut sim, client, server) = Sim::pair(9);
        sysctl(&mut sim, server, "tcp_syncookies", syncookies);
        listen(&mut sim, server, 4);
        sim.wire(server).cut(true);
        for _ in 0..10 {
            connect(&mut sim, client);
        }
        sim.run_for(ms(10));
        let counters = sim.peek(server).counters();
        assert_eq!(states(&sim, server).len(), half_open, "tcp_syncookies = {syncookies}");
        assert_eq!(counters.syncookies_sent, cookies, "tcp_syncookies = {syncookies}");
        assert_eq!(counters.tcp_req_q_full_drop, drops, "tcp_syncookies = {syncookies}");
        assert_eq!(counters.listen_drops, drops, "tcp_syncookies = {syncookies}");
    }
}

#[test]
fn a_cookie_becomes_a_connection_with_all_its_options() {
    let (mut sim, client, server) = Sim::pair(10);
    sim.wires(|wire| {
        wire.delay(ms(10));
    });
    sysctl(&mut sim, server, "tcp_syncookies", "2");
    let (a, b) = sim.establish(client, server, 80);
    let now = sim.now();
    let counters = sim.peek(server).counters();
    assert_eq!((counters.syncookies_sent, counters.syncookies_recv, counters.syncookies_failed), (1, 1, 0));
    let (at_client, at_server) =
        (sim.peek(client).tcp_info(now, a).expect("held"), sim.peek(server).tcp_info(now, b).expect("held"));
    assert_eq!(at_server.options, 7, "timestamps, SACK, window scale");
    assert_eq!(at_client.options, 7);
    assert_eq!((at_client.snd_wscale, at_server.snd_wscale), (at_server.rcv_wscale, at_client.rcv_wscale));
    let data = pattern(300_000, 10);
    assert_eq!(sim.transfer(client, a, server, b, &data), data);
    assert_eq!(sim.transfer(server, b, client, a, &data), data);
}

#[test]
fn a_cookie_without_timestamps_carries_only_the_segment_size() {
    let (mut sim, client, server) = Sim::pair(11);
    sysctl(&mut sim, server, "tcp_syncookies", "2");
    sysctl(&mut sim, client, "tcp_timestamps", "0");
    let (a, b) = sim.establish(client, server, 80);
    let now = sim.now();
    assert_eq!(sim.peek(client).tcp_info(now, a).expect("held").options, 0);
    let data = pattern(100_000, 11);
    assert_eq!(sim.transfer(client, a, server, b, &data), data);
}

// ---- listeners

#[test]
fn deferred_accept_waits_for_data() {
    let (mut sim, client, server) = Sim::pair(12);
    let listener = listen(&mut sim, server, 8);
    sim.stack(server).set_listener_option(listener, TcpOption::DeferAccept(10)).expect("in range");
    let id = connect(&mut sim, client);
    sim.run_for(ms(10));
    let now = sim.now();
    assert_eq!(sim.peek(client).state(id), Some(TcpState::Established));
    assert_eq!(sim.stack(server).accept(now, listener), Err(AcceptError::WouldBlock));
    assert_eq!(sim.peek(server).counters().tcp_defer_accept_drop, 1);
    send(&mut sim, client, id, b"GET");
    sim.run_for(ms(10));
    let now = sim.now();
    let child = sim.stack(server).accept(now, listener).expect("data came");
    assert_eq!(sim.peek(server).recv_available(child), 3);
}

#[test]
fn children_inherit_the_listeners_options() {
    let (mut sim, client, server) = Sim::pair(13);
    let now = sim.now();
    let options = TcpOptions { nodelay: true, ttl: 33, user_timeout: ms(7), ..TcpOptions::default() };
    let listen = ListenOptions { options: options.clone(), ..ListenOptions::new(([0, 0, 0, 0], 80).into()) };
    let listener = sim.stack(server).listen(now, listen).expect("free");
    connect(&mut sim, client);
    sim.run_for(ms(1));
    let now = sim.now();
    let child = sim.stack(server).accept(now, listener).expect("finished");
    assert_eq!(sim.peek(server).options(child), Some(&options));
}

/// Specification 1.8.
#[test]
fn a_closed_listener_forgets_requests_and_resets_children() {
    let (mut sim, client, server) = Sim::pair(14);
    let listener = listen(&mut sim, server, 8);
    let accepted = connect(&mut sim, client);
    sim.run_for(ms(1));
    // This one's final ACK gets lost.
    sim.on_packet(move |seen| if flags(seen.packet) == ACK { Fate::Drop } else { Fate::Pass });
    let half_open = connect(&mut sim, client);
    sim.run_for(ms(1));
    assert_eq!(states(&sim, server), [TcpState::Established, TcpState::NewSynRecv]);
    sim.on_packet(|_| Fate::Pass);

    let now = sim.now();
    sim.stack(server).close_listener(now, listener);
    sim.run_for(ms(1));
    assert_eq!(sim.stack(client).take_error(accepted), Some(SocketError::ConnectionReset));
    let now = sim.now();
    let late = sim.stack(client).send(now, half_open, b"late");
    assert!(late.is_ok());
    sim.run_for(ms(1));
    assert_eq!(
        sim.stack(client).take_error(half_open),
        Some(SocketError::ConnectionReset),
        "RST for a late ACK"
    );
    close(&mut sim, client, accepted);
    close(&mut sim, client, half_open);
    sim.run_for(2 * SECOND);
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn a_request_nobody_finishes_is_gone_after_63_seconds() {
    let (mut sim, client, server) = Sim::pair(15);
    let listener = listen(&mut sim, server, 8);
    sim.on_packet(move |seen| if flags(seen.packet) == SYN_ACK { Fate::Drop } else { Fate::Pass });
    let id = connect(&mut sim, client);
    sim.run_for(ms(1));
    let now = sim.now();
    sim.stack(client).abort(now, id);
    let start = sim.now();
    assert!(sim.run_until(100 * SECOND, |sim| states(sim, server).is_empty()));
    let lived = sim.now().saturating_since(start) + ms(1);
    assert_eq!(lived, 63 * SECOND);
    sim.stack(server).close_listener(now, listener);
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn a_full_stack_says_so() {
    let mut sim = Sim::new(16);
    let small =
        Config { addresses: vec![([10, 0, 0, 1].into(), 24)], max_connections: 2, ..Config::default() };
    let client = sim.add(small);
    let now = sim.now();
    let to = ([10, 0, 0, 2], 80).into();
    for _ in 0..2 {
        assert!(sim.stack(client).connect(now, to, None, TcpOptions::default()).is_ok());
    }
    assert_eq!(
        sim.stack(client).connect(now, to, None, TcpOptions::default()),
        Err(ConnectError::LimitReached)
    );
}

#[test]
fn impossible_destinations_are_refused_at_once() {
    let (mut sim, client, _) = Sim::pair(17);
    let now = sim.now();
    for (to, error) in [
        ("10.0.0.2:0", ConnectError::InvalidDestination),
        ("224.0.0.1:80", ConnectError::InvalidDestination),
        ("10.0.0.255:80", ConnectError::InvalidDestination),
        ("[2001:db8::1]:80", ConnectError::NetworkUnreachable),
    ] {
        let to = to.parse().expect("address");
        assert_eq!(sim.stack(client).connect(now, to, None, TcpOptions::default()), Err(error), "{to}");
    }
    let elsewhere = "10.0.0.9:0".parse().expect("address");
    let to = ([10, 0, 0, 2], 80).into();
    assert_eq!(
        sim.stack(client).connect(now, to, Some(elsewhere), TcpOptions::default()),
        Err(ConnectError::AddrNotAvailable)
    );
}
