//! What is forced on a connection from outside: forgotten without a word, a window held at zero.

use lastack_core::error::SocketError;
use lastack_core::id::ConnectionId;
use lastack_core::observe::Ending;
use lastack_core::sim::{Host, Sim};
use lastack_core::tcp::state::TcpState;

use super::*;

fn open(seed: u64) -> (Sim, [Host; 2], [ConnectionId; 2]) {
    let (mut sim, client, server) = Sim::pair(seed);
    sim.wires(|wire| {
        wire.delay(ms(1));
    });
    let (a, b) = sim.establish(client, server, 80);
    sim.run_for(ms(100));
    (sim, [client, server], [a, b])
}

#[test]
fn an_abandoned_connection_says_nothing_until_it_is_spoken_to() {
    let (mut sim, [client, server], [a, b]) = open(700);
    let (now, before) = (sim.now(), sim.wire(server).packets());
    sim.stack(server).abandon(now, b);
    sim.run_for(60 * SECOND);
    assert_eq!(sim.wire(server).packets(), before, "not a word");
    assert_eq!(states(&sim, client), [TcpState::Established], "the other end knows nothing");
    assert_eq!(sim.peek(server).life(b).and_then(|life| life.ending), Some(Ending::Abandoned));
    expect_error(&mut sim, server, b, SocketError::ConnectionAborted);
    close(&mut sim, server, b);
    assert_nothing_left(&sim, &[server]);

    let now = sim.now();
    sim.stack(client).send(now, a, b"anybody there?").expect("there is room");
    sim.run_for(ms(10));
    assert_eq!(sim.peek(server).counters().out_rsts, 1);
    expect_error(&mut sim, client, a, SocketError::ConnectionReset);
    close(&mut sim, client, a);
    assert_nothing_left(&sim, &[client]);
}

#[test]
fn a_held_window_is_zero_at_once_and_what_was_offered_is_still_taken() {
    let (mut sim, [client, server], [a, b]) = open(701);
    let now = sim.now();
    // On its way when the window closes.
    sim.stack(client).send(now, a, &[7; 5000]).expect("there is room");
    sim.step_before(now);
    sim.stack(server).hold_window(now, b, true);
    sim.run_for(SECOND);
    assert_eq!(sim.peek(server).recv_available(b), 5000);
    assert_eq!(sim.peek(server).counters().tcp_to_zero_window_adv, 1);

    let now = sim.now();
    sim.stack(client).send(now, a, &[8; 5000]).expect("there is room");
    sim.run_for(3600 * SECOND);
    assert_eq!(sim.peek(server).recv_available(b), 5000, "nothing more is sent");
    let info = sim.peek(client).tcp_info(sim.now(), a).expect("it lives");
    assert_eq!((info.snd_wnd, info.unacked), (0, 0), "{info:?}");
    assert!(info.probes > 0 || info.backoff > 0, "the window is probed: {info:?}");
    assert_eq!(states(&sim, client), [TcpState::Established], "answered probes go on for ever");

    // Reading opens no window that is held.
    let mut got = Vec::new();
    sim.read_all(server, b, &mut got).expect("no error");
    sim.run_for(300 * SECOND);
    assert_eq!((got.len(), sim.peek(server).recv_available(b)), (5000, 0));

    let now = sim.now();
    sim.stack(server).hold_window(now, b, false);
    sim.run_for(SECOND);
    sim.read_all(server, b, &mut got).expect("no error");
    assert_eq!(got.len(), 10_000, "let go, it is told at once");
    assert_eq!(sim.peek(server).counters().tcp_from_zero_window_adv, 1);
}
