//! Every way to close (specification 1.3 to 1.7).

use lastack_core::error::{SendError, SocketError};
use lastack_core::id::ConnectionId;
use lastack_core::observe::{Ending, EventKind, EventMask, Life, ResetReason};
use lastack_core::sim::{Fate, Host, Sim};
use lastack_core::stack::{Readiness, Shutdown};
use lastack_core::tcp::options::TcpOption;
use lastack_core::tcp::state::TcpState;

use super::*;

const CLIENT: usize = 0;

fn open(seed: u64) -> (Sim, [Host; 2], [ConnectionId; 2]) {
    let (mut sim, client, server) = Sim::pair(seed);
    sim.wires(|wire| {
        wire.delay(ms(1));
    });
    sim.observe(EventMask::ALL, true);
    let (a, b) = sim.establish(client, server, 80);
    sim.run_for(ms(100));
    (sim, [client, server], [a, b])
}

fn shutdown(sim: &mut Sim, host: Host, id: ConnectionId, how: Shutdown) {
    let now = sim.now();
    assert_eq!(sim.stack(host).shutdown(now, id, how), Ok(()));
}

fn set(sim: &mut Sim, host: Host, id: ConnectionId, option: TcpOption) {
    let now = sim.now();
    assert_eq!(sim.stack(host).set_option(now, id, option), Ok(()));
}

/// The lives of connections that are gone, by host.
fn lives(sim: &mut Sim, host: Host) -> Vec<Life> {
    let events = sim.take_events();
    let of_host = events.into_iter().filter(|(at, _)| *at == host);
    of_host
        .filter_map(|(_, event)| match event.kind {
            EventKind::Destroyed(life) => Some(*life),
            _ => None,
        })
        .collect()
}

fn state(sim: &Sim, host: Host) -> Option<TcpState> {
    states(sim, host).first().copied()
}

#[test]
fn two_fins_and_a_minute_of_time_wait() {
    let (mut sim, [client, server], [a, b]) = open(200);
    close(&mut sim, client, a);
    sim.run_for(ms(100));
    assert_eq!(state(&sim, client), Some(TcpState::FinWait2));
    assert_eq!(state(&sim, server), Some(TcpState::CloseWait));
    assert!(sim.peek(server).readiness(b).intersects(Readiness::PEER_CLOSED));
    close(&mut sim, server, b);
    sim.run_for(ms(100));
    assert_eq!(states(&sim, server), []);
    let row = only_row(&sim, client);
    assert_eq!((row.state, row.orphan), (TcpState::TimeWait, true));
    sim.run_for(59 * SECOND);
    assert_eq!(states(&sim, client), [TcpState::TimeWait]);
    sim.run_for(2 * SECOND);
    assert_nothing_left(&sim, &[client, server]);
    assert_eq!(sim.peek(client).counters().tw, 1);
    let life = lives(&mut sim, server)[0];
    assert_eq!((life.ending, life.unread_bytes, life.unacked_bytes), (Some(Ending::Fin), 0, 0));
}

#[test]
fn half_closed_still_receives() {
    let (mut sim, [client, server], [a, b]) = open(201);
    send(&mut sim, client, a, b"request");
    shutdown(&mut sim, client, a, Shutdown::Write);
    let now = sim.now();
    assert_eq!(sim.stack(client).send(now, a, b"x"), Err(SendError::BrokenPipe));
    assert_eq!(read_to_end(&mut sim, server, b), b"request");
    let answer = pattern(200_000, 201);
    assert!(sim.transfer(server, b, client, a, &answer) == answer);
    close(&mut sim, server, b);
    assert_eq!(read_to_end(&mut sim, client, a), b"");
    close(&mut sim, client, a);
    sim.run_for(61 * SECOND);
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn both_close_at_once() {
    let (mut sim, [client, server], [a, b]) = open(202);
    close(&mut sim, client, a);
    close(&mut sim, server, b);
    sim.run_for(ms(100));
    assert_eq!(states(&sim, client), [TcpState::TimeWait]);
    assert_eq!(states(&sim, server), [TcpState::TimeWait]);
    sim.run_for(61 * SECOND);
    assert_nothing_left(&sim, &[client, server]);
}

/// RFC 2525 2.17.
#[test]
fn unread_data_at_close_resets() {
    let (mut sim, [client, server], [a, b]) = open(203);
    send(&mut sim, client, a, b"never read");
    sim.run_for(ms(100));
    close(&mut sim, server, b);
    sim.run_for(ms(100));
    assert_eq!(sim.peek(server).counters().tcp_abort_on_close, 1);
    expect_error(&mut sim, client, a, SocketError::ConnectionReset);
    let life = lives(&mut sim, server)[0];
    assert_eq!(life.ending, Some(Ending::ResetSent(ResetReason::AbortOnClose)));
    assert_eq!(life.unread_bytes, 10);
    close(&mut sim, client, a);
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn an_unread_fin_does_not_reset() {
    let (mut sim, [client, server], [a, b]) = open(204);
    close(&mut sim, client, a);
    sim.run_for(ms(100));
    close(&mut sim, server, b);
    sim.run_for(ms(100));
    assert_eq!((sim.peek(server).counters().out_rsts, sim.peek(client).counters().out_rsts), (0, 0));
}

#[test]
fn linger_zero_resets_whatever_is_queued() {
    let (mut sim, [client, server], [a, b]) = open(205);
    set(&mut sim, client, a, TcpOption::Linger(Some(0)));
    close(&mut sim, client, a);
    sim.run_for(ms(100));
    assert_eq!(sim.peek(client).counters().tcp_abort_on_data, 1);
    assert_eq!(sim.peek(client).counters().estab_resets, 1);
    expect_error(&mut sim, server, b, SocketError::ConnectionReset);
    close(&mut sim, server, b);
    assert_nothing_left(&sim, &[client, server]);
}

/// The RST is where the peer waits, whatever was written and has not left: not a challenge for it.
#[test]
fn abort_right_after_a_write_resets_at_once() {
    let (mut sim, [client, server], [a, b]) = open(207);
    let now = sim.now();
    assert!(sim.stack(client).send(now, a, &[7; 200_000]).expect("room") > 0);
    sim.stack(client).abort(now, a);
    sim.run_for(ms(100));
    expect_error(&mut sim, server, b, SocketError::ConnectionReset);
    let counters = sim.peek(server).counters();
    assert_eq!((counters.tcp_challenge_ack, counters.estab_resets), (0, 1));
    close(&mut sim, server, b);
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn abort_discards_and_resets() {
    let (mut sim, [client, server], [a, b]) = open(206);
    sim.wire(client).cut(true);
    send(&mut sim, client, a, &pattern(10_000, 206));
    sim.run_for(ms(10));
    sim.wire(client).cut(false);
    let now = sim.now();
    sim.stack(client).abort(now, a);
    sim.run_for(ms(100));
    expect_error(&mut sim, server, b, SocketError::ConnectionReset);
    assert_eq!(lives(&mut sim, client)[0].unacked_bytes, 10_000);
    close(&mut sim, server, b);
    assert_nothing_left(&sim, &[client, server]);
}

/// Specification 1.6.
#[test]
fn data_after_close_is_answered_with_a_reset() {
    let (mut sim, [client, server], [a, b]) = open(207);
    close(&mut sim, client, a);
    sim.run_for(ms(100));
    assert_eq!(state(&sim, client), Some(TcpState::FinWait2), "a mini socket");
    send(&mut sim, server, b, b"too late");
    sim.run_for(ms(100));
    assert_eq!(states(&sim, client), []);
    assert_eq!(sim.peek(client).counters().tcp_abort_on_data, 0, "the mini socket does not count it");
    let now = sim.now();
    assert_eq!(sim.stack(server).send(now, b, b"x"), Err(SendError::Socket(SocketError::BrokenPipe)));
    close(&mut sim, server, b);
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn data_after_shutdown_of_both_directions_is_answered_with_a_reset() {
    let (mut sim, [client, server], [a, b]) = open(208);
    shutdown(&mut sim, client, a, Shutdown::Both);
    send(&mut sim, server, b, b"crossing");
    sim.run_for(ms(100));
    assert_eq!(sim.peek(client).counters().tcp_abort_on_data, 1);
    assert_eq!(sim.stack(client).take_error(a), Some(SocketError::ConnectionReset));
    close(&mut sim, client, a);
    close(&mut sim, server, b);
    assert_nothing_left(&sim, &[client, server]);
}

/// Specification 13.4: how long an orphan's FIN-WAIT-2 lasts.
#[test]
fn fin_wait_2_of_an_orphan_lasts_as_linux_lets_it() {
    for (timeout, seconds) in [(3, 3), (60, 60), (61, 2), (75, 30), (90, 60), (120, 120), (200, 280)] {
        let (mut sim, [client, server], [a, b]) = open(209);
        sysctl(&mut sim, client, "tcp_fin_timeout", &timeout.to_string());
        close(&mut sim, client, a);
        // The ACK of the FIN may be a delayed one.
        assert!(sim.run_until(SECOND, |sim| state(sim, client) == Some(TcpState::FinWait2)));
        let start = sim.now();
        assert!(
            sim.run_until(400 * SECOND, |sim| states(sim, client).is_empty()),
            "tcp_fin_timeout = {timeout}"
        );
        assert_eq!(sim.now().saturating_since(start), seconds * SECOND, "tcp_fin_timeout = {timeout}");
        assert_eq!(sim.peek(client).counters().out_rsts, 0, "tcp_fin_timeout = {timeout}");
        // The peer learns it from the reset that answers its FIN.
        close(&mut sim, server, b);
        sim.run_for(ms(100));
        assert_nothing_left(&sim, &[client, server]);
        assert_eq!(sim.peek(client).counters().out_rsts, 1);
    }
}

#[test]
fn fin_wait_2_with_an_owner_waits_for_ever() {
    let (mut sim, [client, server], [a, b]) = open(210);
    sysctl(&mut sim, client, "tcp_fin_timeout", "3");
    shutdown(&mut sim, client, a, Shutdown::Write);
    sim.run_for(7200 * SECOND);
    assert_eq!(sim.peek(client).state(a), Some(TcpState::FinWait2));
    send(&mut sim, server, b, b"still here");
    close(&mut sim, server, b);
    assert_eq!(read_to_end(&mut sim, client, a), b"still here");
    close(&mut sim, client, a);
    sim.run_for(61 * SECOND);
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn linger2_below_zero_resets_instead_of_waiting() {
    let (mut sim, [client, server], [a, b]) = open(211);
    set(&mut sim, client, a, TcpOption::Linger2(-1));
    close(&mut sim, client, a);
    sim.run_for(ms(100));
    assert_eq!(sim.peek(client).counters().tcp_abort_on_data, 1);
    assert_eq!(states(&sim, client), []);
    close(&mut sim, server, b);
    sim.run_for(ms(100));
    assert_nothing_left(&sim, &[client, server]);

    let (mut sim, [client, server], [a, b]) = open(212);
    set(&mut sim, client, a, TcpOption::Linger2(-1));
    shutdown(&mut sim, client, a, Shutdown::Write);
    sim.run_for(ms(100));
    close(&mut sim, client, a);
    sim.run_for(ms(100));
    assert_eq!(sim.peek(client).counters().tcp_abort_on_linger, 1);
    close(&mut sim, server, b);
    assert_nothing_left(&sim, &[client, server]);
}

/// Specification 3.3: about 102 to 105 s, no RST.
#[test]
fn fin_wait_1_of_an_orphan_gives_up_a_silent_peer() {
    let (mut sim, [client, _], [a, _]) = open(213);
    sysctl(&mut sim, client, "tcp_fin_timeout", "3");
    sim.wire(client).cut(true);
    close(&mut sim, client, a);
    let start = sim.now();
    assert!(sim.run_until(200 * SECOND, |sim| states(sim, client).is_empty()));
    let lived = sim.now().saturating_since(start).as_secs();
    assert!((102..=106).contains(&lived), "{lived} s");
    let counters = sim.peek(client).counters();
    assert_eq!((counters.tcp_abort_on_timeout, counters.out_rsts), (1, 0));
    assert_eq!(sim.peek(client).poll_timeout(), None);
}

#[test]
fn last_ack_gives_up_a_silent_peer() {
    let (mut sim, [client, server], [a, b]) = open(214);
    close(&mut sim, client, a);
    sim.run_for(ms(100));
    sim.wire(server).cut(true);
    close(&mut sim, server, b);
    assert_eq!(state(&sim, server), Some(TcpState::LastAck));
    let start = sim.now();
    assert!(sim.run_until(200 * SECOND, |sim| states(sim, server).is_empty()));
    let lived = sim.now().saturating_since(start).as_secs();
    assert!((102..=106).contains(&lived), "{lived} s");
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn a_lost_fin_is_repeated_and_a_lost_last_ack_is_answered_from_time_wait() {
    let (mut sim, [client, server], [a, b]) = open(215);
    let mut fins = 0;
    sim.on_packet(move |seen| {
        // The first FIN of each side gets lost.
        let is_fin = seen.packet[33] & 1 != 0;
        fins += u32::from(is_fin);
        if is_fin && fins <= 2 { Fate::Drop } else { Fate::Pass }
    });
    close(&mut sim, client, a);
    assert_eq!(read_to_end(&mut sim, server, b), b"");
    close(&mut sim, server, b);
    sim.run_for(5 * SECOND);
    assert_eq!(states(&sim, client), [TcpState::TimeWait]);
    assert_eq!(states(&sim, server), []);
    // Loses every ACK that TIME-WAIT sends at first.
    let (mut sim, [client, server], [a, b]) = open(216);
    close(&mut sim, client, a);
    sim.run_for(ms(100));
    sim.wire(client).cut(true);
    close(&mut sim, server, b);
    sim.run_for(3 * SECOND);
    assert_eq!(states(&sim, server), [TcpState::LastAck]);
    sim.wire(client).cut(false);
    sim.run_for(10 * SECOND);
    assert_eq!(states(&sim, server), []);
    sim.run_for(61 * SECOND);
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn closing_before_the_handshake_ends_sends_nothing() {
    let (mut sim, client, server) = Sim::pair(217);
    sim.wires(|wire| {
        wire.delay(ms(10));
    });
    let now = sim.now();
    let to = ([10, 0, 0, 2], 80).into();
    let id = sim.stack(client).connect(now, to, None, Default::default()).expect("free");
    close(&mut sim, client, id);
    sim.drive();
    assert_nothing_left(&sim, &[client, server]);
    assert_eq!(sim.peek(client).counters().out_rsts, 0);
}

#[test]
fn too_many_orphans_are_reset() {
    let (mut sim, [client, server], [a, b]) = open(218);
    sysctl(&mut sim, client, "tcp_max_orphans", "0");
    sim.wire(server).cut(true);
    close(&mut sim, client, a);
    sim.run_for(ms(10));
    assert_eq!(sim.peek(client).counters().tcp_abort_on_memory, 1);
    expect_error(&mut sim, server, b, SocketError::ConnectionReset);
    close(&mut sim, server, b);
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn an_id_is_dead_after_close() {
    let (mut sim, hosts, [a, _]) = open(219);
    let client = hosts[CLIENT];
    close(&mut sim, client, a);
    let now = sim.now();
    assert_eq!(sim.stack(client).send(now, a, b"x"), Err(SendError::NotConnected));
    assert_eq!(sim.peek(client).state(a), None);
    assert_eq!(states(&sim, client), [TcpState::FinWait1], "the orphan lives on");
}
