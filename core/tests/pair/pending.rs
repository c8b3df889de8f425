//! Accept-any: SYNs that wait for a decision.

use lastack_core::error::SocketError;
use lastack_core::id::{ConnectionId, ListenerId, PendingId};
use lastack_core::observe::{DropReason, EventKind, EventMask};
use lastack_core::sim::{Fate, Host, Sim};
use lastack_core::stack::{AnyOptions, Gone, PendingSyn, Unreachable};
use lastack_core::tcp::options::TcpOptions;
use lastack_core::tcp::state::TcpState;
use lastack_core::{Config, SocketEvent};

use super::*;

/// A client, and a stack that takes SYNs for any destination.
fn world(seed: u64) -> (Sim, Host, Host, ListenerId) {
    let mut sim = Sim::new(seed);
    let client = sim.add(Config { addresses: vec![([10, 0, 0, 1].into(), 24)], ..Config::default() });
    let any = sim.add(Config {
        addresses: vec![([10, 0, 0, 2].into(), 24)],
        any_address: true,
        ..Config::default()
    });
    sim.observe(EventMask::ALL, true);
    let now = sim.now();
    let listener = sim.stack(any).listen_any(now, AnyOptions::default()).expect("the first");
    (sim, client, any, listener)
}

fn dial(sim: &mut Sim, client: Host) -> ConnectionId {
    let now = sim.now();
    let to = ([203, 0, 113, 9], 443).into();
    let id = sim.stack(client).connect(now, to, None, TcpOptions::default()).expect("a port is free");
    sim.run_for(ms(1));
    id
}

fn pending(sim: &mut Sim, any: Host, listener: ListenerId) -> PendingSyn {
    sim.stack(any).next_pending(listener).expect("a SYN waits")
}

fn events(sim: &mut Sim, host: Host) -> Vec<SocketEvent> {
    core::iter::from_fn(|| sim.stack(host).poll_event()).collect()
}

fn done(sim: &mut Sim, any: Host, id: PendingId) -> Option<Result<ConnectionId, SocketError>> {
    events(sim, any).into_iter().find_map(|event| match event {
        SocketEvent::PendingDone(done, result) if done == id => Some(result),
        _ => None,
    })
}

#[test]
fn nothing_is_answered_before_the_decision() {
    let (mut sim, client, any, listener) = world(600);
    dial(&mut sim, client);
    assert_eq!(events(&mut sim, any), [SocketEvent::Pending(listener)]);
    let syn = pending(&mut sim, any, listener);
    assert_eq!(syn.tuple.local, ([203, 0, 113, 9], 443).into());
    assert_eq!(sim.stack(any).next_pending(listener), None, "each is given once");
    sim.run_for(10 * SECOND);
    assert_eq!(sim.wire(any).packets(), 0);
    // The repeats joined it.
    let joined = sim
        .take_events()
        .iter()
        .filter(|(host, event)| *host == any && event.kind == EventKind::Drop(DropReason::SynJoined))
        .count();
    assert_eq!(joined, 6, "repeats at 1, 2, 3, 4, 5 and 7 s");
    assert_eq!(sim.peek(any).counters().pending_syns, 1);
}

#[test]
fn an_accepted_one_becomes_a_connection() {
    let (mut sim, client, any, listener) = world(601);
    let a = dial(&mut sim, client);
    let syn = pending(&mut sim, any, listener);
    let now = sim.now();
    assert_eq!(sim.stack(any).pending_accept(now, syn.id), Ok(()));
    assert_eq!(sim.stack(any).pending_refuse(now, syn.id), Err(Gone), "decided");
    sim.run_for(ms(1));
    let b = done(&mut sim, any, syn.id).expect("told").expect("connected");
    assert_eq!(sim.peek(any).cookie(b), Some(syn.cookie));
    assert_eq!(sim.peek(client).state(a), Some(TcpState::Established));
    let data = pattern(100_000, 601);
    assert!(sim.transfer(client, a, any, b, &data) == data);
    assert!(sim.transfer(any, b, client, a, &data) == data);
    close(&mut sim, client, a);
    sim.run_for(ms(100));
    close(&mut sim, any, b);
    sim.run_for(61 * SECOND);
    let now = sim.now();
    sim.stack(any).close_listener(now, listener);
    assert_nothing_left(&sim, &[client, any]);
}

#[test]
fn a_hole_grows_the_buffer_of_an_accepted_one() {
    let (mut sim, client, any, listener) = world(604);
    sim.wires(|wire| _ = wire.delay(ms(10)));
    sysctl(&mut sim, client, "net.ipv4.tcp_wmem", "4096 200000 4194304"); // takes the second write whole
    let a = dial(&mut sim, client);
    sim.run_for(ms(20));
    let syn = pending(&mut sim, any, listener);
    let now = sim.now();
    assert_eq!(sim.stack(any).pending_accept(now, syn.id), Ok(()));
    sim.run_for(ms(50));
    let b = done(&mut sim, any, syn.id).expect("told").expect("connected");
    assert_eq!(sim.transfer(client, a, any, b, &pattern(40_000, 604)).len(), 40_000);

    // From here nobody reads: only the hole can grow it (Linux tcp_data_queue_ofo(), of a socket that somebody holds).
    let (before, _) = sim.peek(any).buffers(b).expect("lives");
    let mut is_first = true;
    sim.on_packet(move |packet| {
        let drops = packet.from == client && core::mem::take(&mut is_first);
        if drops { Fate::Drop } else { Fate::Pass }
    });
    send(&mut sim, client, a, &pattern(60_000, 604));
    sim.run_for(ms(300));
    let (after, _) = sim.peek(any).buffers(b).expect("lives");
    assert!(after > before, "{before} bytes, then {after}");
}

#[test]
fn each_refusal_looks_as_it_does_without_us() {
    type Decide = fn(&mut Sim, Host, PendingId) -> Result<(), Gone>;
    let rows: [(&str, Decide, SocketError); 5] = [
        (
            "refuse",
            |sim, any, id| {
                let now = sim.now();
                sim.stack(any).pending_refuse(now, id)
            },
            SocketError::ConnectionRefused,
        ),
        (
            "net",
            |sim, any, id| {
                let now = sim.now();
                sim.stack(any).pending_unreachable(now, id, Unreachable::Net)
            },
            SocketError::NetworkUnreachable,
        ),
        (
            "host",
            |sim, any, id| {
                let now = sim.now();
                sim.stack(any).pending_unreachable(now, id, Unreachable::Host)
            },
            SocketError::HostUnreachable,
        ),
        (
            "port",
            |sim, any, id| {
                let now = sim.now();
                sim.stack(any).pending_unreachable(now, id, Unreachable::Port)
            },
            SocketError::ConnectionRefused,
        ),
        (
            "prohibited",
            |sim, any, id| {
                let now = sim.now();
                sim.stack(any).pending_unreachable(now, id, Unreachable::Prohibited)
            },
            SocketError::HostUnreachable,
        ),
    ];
    for (name, decide, error) in rows {
        let (mut sim, client, any, listener) = world(602);
        let id = dial(&mut sim, client);
        let syn = pending(&mut sim, any, listener);
        assert_eq!(decide(&mut sim, any, syn.id), Ok(()), "{name}");
        sim.run_for(ms(1));
        assert_eq!(sim.stack(client).take_error(id), Some(error), "{name}");
        assert_eq!(sim.wire(any).packets(), 1, "{name}");
        close(&mut sim, client, id);
        let now = sim.now();
        sim.stack(any).close_listener(now, listener);
        assert_nothing_left(&sim, &[client, any]);
    }
}

#[test]
fn a_dropped_one_is_pending_anew_when_it_is_repeated() {
    let (mut sim, client, any, listener) = world(603);
    dial(&mut sim, client);
    let first = pending(&mut sim, any, listener);
    let now = sim.now();
    assert_eq!(sim.stack(any).pending_drop(now, first.id), Ok(()));
    assert_eq!(sim.stack(any).pending_accept(now, first.id), Err(Gone));
    sim.run_for(SECOND);
    let second = pending(&mut sim, any, listener);
    assert_ne!(second.id, first.id);
    assert_eq!(second.tuple, first.tuple);
    assert_eq!(sim.wire(any).packets(), 0);
}

#[test]
fn the_clients_reset_to_our_syn_ack_is_told() {
    let (mut sim, client, any, listener) = world(604);
    let id = dial(&mut sim, client);
    let syn = pending(&mut sim, any, listener);
    close(&mut sim, client, id);
    let now = sim.now();
    assert_eq!(sim.stack(any).pending_accept(now, syn.id), Ok(()));
    sim.run_for(ms(1));
    assert_eq!(done(&mut sim, any, syn.id), Some(Err(SocketError::ConnectionReset)));
    let now = sim.now();
    sim.stack(any).close_listener(now, listener);
    assert_nothing_left(&sim, &[client, any]);
}

#[test]
fn a_handshake_that_does_not_end_is_told_after_63_seconds() {
    let (mut sim, client, any, listener) = world(605);
    dial(&mut sim, client);
    let syn = pending(&mut sim, any, listener);
    sim.wires(|wire| {
        wire.cut(true);
    });
    let now = sim.now();
    assert_eq!(sim.stack(any).pending_accept(now, syn.id), Ok(()));
    sim.run_for(62 * SECOND);
    assert_eq!(done(&mut sim, any, syn.id), None);
    sim.run_for(SECOND);
    assert_eq!(done(&mut sim, any, syn.id), Some(Err(SocketError::TimedOut)));
}

#[test]
fn only_so_many_may_wait() {
    let (mut sim, client, any, listener) = world(606);
    let now = sim.now();
    sim.stack(any).close_listener(now, listener);
    let few = AnyOptions { max_pending: 3, ..AnyOptions::default() };
    let listener = sim.stack(any).listen_any(now, few).expect("the only one");
    for _ in 0..5 {
        dial(&mut sim, client);
    }
    let counters = sim.peek(any).counters();
    assert_eq!((counters.pending_syns, counters.pending_overflow), (3, 2));
    assert_eq!(sim.wire(any).packets(), 0, "no cookies: a cookie would be an answer");
    let syn = pending(&mut sim, any, listener);
    let now = sim.now();
    sim.stack(any).pending_refuse(now, syn.id).expect("waits");
    sim.run_for(SECOND);
    assert!(sim.peek(any).counters().pending_syns > 3, "there is room again");
}

#[test]
fn a_specific_listener_comes_first() {
    let (mut sim, client, any, _) = world(607);
    let (a, b) = sim.establish(client, any, 80);
    assert_eq!(sim.peek(client).state(a), Some(TcpState::Established));
    assert_eq!(sim.peek(any).state(b), Some(TcpState::Established));
    assert_eq!(sim.peek(any).counters().pending_syns, 0);
}

/// A TIME-WAIT of the pair stays until the SYN is accepted.
#[test]
fn time_wait_survives_a_refused_syn() {
    let (mut sim, client, any, listener) = world(608);
    let from = Some(([10, 0, 0, 1], 40_000).into());
    let reuse = TcpOptions { reuseaddr: true, ..TcpOptions::default() };
    let dial = |sim: &mut Sim| {
        let now = sim.now();
        let to = ([203, 0, 113, 9], 443).into();
        let id = sim.stack(client).connect(now, to, from, reuse.clone()).expect("ours");
        sim.run_for(ms(1));
        id
    };
    let accept = |sim: &mut Sim| {
        let syn = pending(sim, any, listener);
        let now = sim.now();
        sim.stack(any).pending_accept(now, syn.id).expect("waits");
        sim.run_for(ms(1));
        done(sim, any, syn.id).expect("told").expect("connected")
    };
    let a = dial(&mut sim);
    let b = accept(&mut sim);
    close(&mut sim, any, b);
    sim.run_for(ms(100));
    close(&mut sim, client, a);
    sim.run_for(ms(100));
    assert_eq!(states(&sim, any), [TcpState::TimeWait]);

    let refused = dial(&mut sim);
    let syn = pending(&mut sim, any, listener);
    let now = sim.now();
    sim.stack(any).pending_refuse(now, syn.id).expect("waits");
    sim.run_for(ms(1));
    assert_eq!(states(&sim, any), [TcpState::TimeWait], "it is back");
    close(&mut sim, client, refused);

    dial(&mut sim);
    accept(&mut sim);
    assert_eq!(states(&sim, any), [TcpState::Established], "the new connection took the pair over");

    // One that ends while its place is taken ends all the same.
    let now = sim.now();
    sim.stack(any).close_listener(now, listener);
}

#[test]
fn closing_the_listener_ends_what_waits() {
    let (mut sim, client, any, listener) = world(609);
    dial(&mut sim, client);
    let syn = pending(&mut sim, any, listener);
    dial(&mut sim, client);
    let now = sim.now();
    sim.stack(any).close_listener(now, listener);
    assert_eq!(done(&mut sim, any, syn.id), Some(Err(SocketError::ConnectionAborted)));
    assert_nothing_left(&sim, &[any]);
}
