//! Ending connections from outside, in every state (specification 10.2).

use lastack_core::error::{AcceptError, RecvError, SocketError};
use lastack_core::sim::Sim;
use lastack_core::stack::{Gone, KillTarget, ListenOptions, Shutdown};
use lastack_core::tcp::options::TcpOptions;
use lastack_core::tcp::state::TcpState;

use super::*;

/// Brings the client's connection into `state` and says whether its application still holds it.
fn bring(sim: &mut Sim, client: Host, server: Host, state: TcpState) -> Option<ConnectionId> {
    let now = sim.now();
    let to = ([10, 0, 0, 2], 80).into();
    if state == TcpState::SynSent {
        sim.wire(client).cut(true);
        return Some(sim.stack(client).connect(now, to, None, TcpOptions::default()).expect("free"));
    }
    let (a, b) = sim.establish(client, server, 80);
    sim.run_for(ms(100));
    let now = sim.now();
    match state {
        TcpState::Established => return Some(a),
        TcpState::FinWait1 => {
            sim.wire(client).cut(true);
            close(sim, client, a);
            sim.run_for(ms(1));
            sim.wire(client).cut(false);
        }
        TcpState::FinWait2 => {
            sim.stack(client).shutdown(now, a, Shutdown::Write).expect("connected");
            sim.run_for(ms(100));
            return Some(a);
        }
        TcpState::CloseWait => {
            close(sim, server, b);
            sim.run_for(ms(100));
            return Some(a);
        }
        TcpState::LastAck => {
            close(sim, server, b);
            sim.run_for(ms(100));
            sim.wire(client).cut(true);
            close(sim, client, a);
            sim.run_for(ms(1));
            sim.wire(client).cut(false);
        }
        TcpState::Closing => {
            sim.wire(client).cut(true);
            close(sim, client, a);
            close(sim, server, b);
            sim.run_for(ms(1));
            sim.wire(client).cut(false);
        }
        TcpState::TimeWait => {
            close(sim, client, a);
            sim.run_for(ms(100));
            close(sim, server, b);
            sim.run_for(ms(100));
        }
        other => panic!("no recipe for {other}"),
    }
    None
}

#[test]
fn every_state_ends_as_linux_ends_it() {
    use TcpState::{CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, SynSent, TimeWait};
    let rows = [
        (Established, 1),
        (CloseWait, 1),
        (FinWait1, 1),
        (FinWait2, 1),
        (LastAck, 0),
        (Closing, 0),
        (SynSent, 0),
        (TimeWait, 0),
    ];
    for (state, resets) in rows {
        for by_cookie in [true, false] {
            let (mut sim, client, server) = Sim::pair(500);
            let held = bring(&mut sim, client, server, state);
            let row = only_row(&sim, client);
            assert_eq!(row.state, state);
            let target = if by_cookie {
                KillTarget::Cookie(row.cookie)
            } else {
                KillTarget::Tuple(lastack_core::id::FourTuple { local: row.local, remote: row.remote })
            };
            let (now, before) = (sim.now(), sim.peek(client).counters().out_rsts);
            assert_eq!(sim.stack(client).kill(now, target), Ok(state));
            assert_eq!(sim.stack(client).kill(now, target), Err(Gone), "{state}: only once");
            assert_eq!(sim.peek(client).counters().out_rsts - before, resets, "{state}");
            if let Some(id) = held {
                let mut sink = Vec::new();
                assert_eq!(
                    sim.read_all(client, id, &mut sink),
                    if state == CloseWait {
                        Ok(true)
                    } else {
                        Err(RecvError::Socket(SocketError::ConnectionAborted))
                    },
                    "{state}"
                );
                close(&mut sim, client, id);
            }
            assert_eq!(sim.peek(client).socket_count(), 0, "{state}");
            assert_eq!(sim.peek(client).counters().curr_estab, 0, "{state}");
        }
    }
}

#[test]
fn a_killed_listener_accepts_no_more() {
    let (mut sim, client, server) = Sim::pair(501);
    let now = sim.now();
    let listener =
        sim.stack(server).listen(now, ListenOptions::new(([10, 0, 0, 2], 80).into())).expect("free");
    let id = sim.stack(client).connect(now, ([10, 0, 0, 2], 80).into(), None, TcpOptions::default());
    sim.run_for(ms(1));
    let cookie = sim.peek(server).sockets(sim.now()).next().expect("the listener").cookie;
    let now = sim.now();
    assert_eq!(sim.stack(server).kill(now, KillTarget::Cookie(cookie)), Ok(TcpState::Listen));
    assert_eq!(sim.stack(server).accept(now, listener), Err(AcceptError::NoSuchListener));
    sim.run_for(ms(1));
    assert_eq!(sim.stack(client).take_error(id.expect("free")), Some(SocketError::ConnectionReset));
}

#[test]
fn a_killed_request_is_just_removed() {
    let (mut sim, client, server) = Sim::pair(502);
    let now = sim.now();
    let listener =
        sim.stack(server).listen(now, ListenOptions::new(([10, 0, 0, 2], 80).into())).expect("free");
    sim.wire(server).cut(true);
    sim.stack(client).connect(now, ([10, 0, 0, 2], 80).into(), None, TcpOptions::default()).expect("free");
    sim.run_for(ms(1));
    let row = sim.peek(server).sockets(sim.now()).nth(1).expect("the request");
    assert_eq!(row.state, TcpState::NewSynRecv);
    let now = sim.now();
    assert_eq!(sim.stack(server).kill(now, KillTarget::Cookie(row.cookie)), Ok(TcpState::NewSynRecv));
    sim.stack(server).close_listener(now, listener);
    assert_eq!(sim.peek(server).counters().out_rsts, 0);
    assert_nothing_left(&sim, &[server]);
}
