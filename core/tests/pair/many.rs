//! Many connections: all of them come, all of them go.

use lastack_core::Config;
use lastack_core::id::ConnectionId;
use lastack_core::sim::Sim;
use lastack_core::stack::ListenOptions;
use lastack_core::tcp::options::TcpOptions;
use lastack_core::tcp::state::TcpState;

use super::*;

#[test]
fn ten_thousand_open_speak_close_and_leave_nothing() {
    const COUNT: usize = 10_000;
    let (mut sim, client, server) = Sim::pair(800);
    sim.wires(|wire| {
        wire.delay(ms(1));
    });
    let now = sim.now();
    sysctl(&mut sim, server, "somaxconn", "65535");
    let listen = ListenOptions { backlog: 65_535, ..ListenOptions::new(([10, 0, 0, 2], 80).into()) };
    let listener = sim.stack(server).listen(now, listen).expect("free");
    let at_client: Vec<ConnectionId> = (0..COUNT)
        .map(|_| {
            sim.stack(client)
                .connect(now, ([10, 0, 0, 2], 80).into(), None, TcpOptions::default())
                .expect("a port is free")
        })
        .collect();
    sim.run_for(ms(50));
    let now = sim.now();
    let at_server: Vec<ConnectionId> =
        core::iter::from_fn(|| sim.stack(server).accept(now, listener).ok()).collect();
    assert_eq!(at_server.len(), COUNT);
    assert_eq!(sim.peek(client).counters().curr_estab, COUNT as u64);
    for (n, id) in at_client.iter().enumerate() {
        sim.stack(client).send(now, *id, &(n as u64).to_be_bytes()).expect("room");
    }
    sim.run_for(ms(500));
    let now = sim.now();
    let mut seen: Vec<u64> = at_server
        .iter()
        .map(|id| {
            let mut word = [0; 8];
            assert_eq!(sim.stack(server).recv(now, *id, &mut word), Ok(8));
            u64::from_be_bytes(word)
        })
        .collect();
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..COUNT as u64));
    for id in &at_client {
        sim.stack(client).close(now, *id);
    }
    sim.run_for(ms(500));
    for id in &at_server {
        close(&mut sim, server, *id);
    }
    sim.run_for(ms(500));
    assert_eq!(states(&sim, client), vec![TcpState::TimeWait; COUNT]);
    sim.run_for(61 * SECOND);
    let now = sim.now();
    sim.stack(server).close_listener(now, listener);
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn each_socket_is_once_on_the_list_of_events() {
    let (mut sim, client, server) = Sim::pair(801);
    let (a, b) = sim.establish(client, server, 80);
    while sim.poll_event().is_some() {}
    for n in 0..100u8 {
        send(&mut sim, client, a, &[n]);
        sim.run_for(ms(100));
    }
    let events: Vec<_> = core::iter::from_fn(|| sim.stack(server).poll_event()).collect();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(sim.peek(server).recv_available(b), 100);
}

/// A stack of its own, so that nobody speaks: a packet costs the same whatever else there is.
#[test]
fn rows_come_in_the_same_order_every_time() {
    let mut sim = Sim::new(802);
    let host = sim.add(Config { addresses: vec![([10, 0, 0, 1].into(), 24)], ..Config::default() });
    let now = sim.now();
    for port in 1..200 {
        sim.stack(host)
            .connect(now, ([10, 0, 0, 2], port).into(), None, TcpOptions::default())
            .expect("free");
    }
    let look = |sim: &Sim| -> Vec<u64> { sim.peek(host).sockets(now).map(|row| row.cookie).collect() };
    let first = look(&sim);
    assert_eq!(first, look(&sim));
    assert_eq!(first.len(), sim.peek(host).socket_count());
}
