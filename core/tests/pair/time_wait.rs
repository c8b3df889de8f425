//! TIME-WAIT: what comes back into it, and who may take its pair over (specification 2).

use lastack_core::error::ConnectError;
use lastack_core::id::ConnectionId;
use lastack_core::sim::{Host, Sim};
use lastack_core::stack::ListenOptions;
use lastack_core::tcp::options::TcpOptions;
use lastack_core::tcp::state::TcpState;

use super::*;

/// A connection whose client closed first: its pair is in TIME-WAIT at the client.
fn closed_by_client(sim: &mut Sim, client: Host, server: Host) {
    let (a, b) = sim.establish(client, server, 80);
    sim.run_for(ms(100));
    close(sim, client, a);
    sim.run_for(ms(100));
    close(sim, server, b);
    sim.run_for(ms(100));
    assert_eq!(states(sim, client), [TcpState::TimeWait]);
    let now = sim.now();
    sim.stack(server).listen(now, ListenOptions::new(([10, 0, 0, 2], 80).into())).expect("free again");
}

fn connect(sim: &mut Sim, client: Host) -> Result<ConnectionId, ConnectError> {
    let now = sim.now();
    sim.stack(client).connect(now, ([10, 0, 0, 2], 80).into(), None, TcpOptions::default())
}

/// Specification 12, experiment 18.
#[test]
fn only_tw_reuse_with_timestamps_lets_connect_take_a_pair_over() {
    for (reuse, timestamps, taken_over) in
        [("0", "1", false), ("1", "1", true), ("2", "1", false), ("0", "0", false), ("1", "0", false)]
    {
        let case = format!("tcp_tw_reuse = {reuse}, tcp_timestamps = {timestamps}");
        let (mut sim, client, server) = Sim::pair(300);
        sysctl(&mut sim, client, "ip_local_port_range", "40000 40000");
        sysctl(&mut sim, client, "tcp_tw_reuse", reuse);
        sysctl(&mut sim, client, "tcp_timestamps", timestamps);
        closed_by_client(&mut sim, client, server);
        sim.run_for(ms(650));
        assert_eq!(connect(&mut sim, client), Err(ConnectError::AddrNotAvailable), "too young: {case}");
        sim.run_for(ms(600));
        let answer = connect(&mut sim, client);
        assert_eq!(answer.is_ok(), taken_over, "{case}");
        if let Ok(id) = answer {
            sim.run_for(ms(100));
            assert_eq!(sim.peek(client).state(id), Some(TcpState::Established));
            assert_eq!(sim.peek(client).counters().tw_recycled, 1);
            assert!(!states(&sim, client).contains(&TcpState::TimeWait));
        }
    }
}

#[test]
fn a_server_in_time_wait_takes_an_acceptable_syn() {
    let (mut sim, client, server) = Sim::pair(301);
    let now = sim.now();
    let reuse = TcpOptions { reuseaddr: true, ..TcpOptions::default() };
    let listen = ListenOptions { options: reuse.clone(), ..ListenOptions::new(([10, 0, 0, 2], 80).into()) };
    let listener = sim.stack(server).listen(now, listen).expect("free");
    let from = ([10, 0, 0, 1], 40_000).into();
    let connect = |sim: &mut Sim| {
        let now = sim.now();
        let id = sim.stack(client).connect(now, ([10, 0, 0, 2], 80).into(), Some(from), reuse.clone());
        sim.run_for(ms(10));
        let now = sim.now();
        (id.expect("the port is ours"), sim.stack(server).accept(now, listener).expect("finished"))
    };
    let (a, b) = connect(&mut sim);
    close(&mut sim, server, b);
    sim.run_for(ms(100));
    close(&mut sim, client, a);
    sim.run_for(ms(100));
    assert_eq!(states(&sim, server), [TcpState::TimeWait]);
    let (a, b) = connect(&mut sim);
    assert_eq!(states(&sim, server), [TcpState::Established]);
    let data = pattern(10_000, 301);
    assert!(sim.transfer(client, a, server, b, &data) == data);
}

/// Experiment 17.
#[test]
fn no_buckets_no_time_wait() {
    let (mut sim, client, server) = Sim::pair(302);
    sysctl(&mut sim, client, "tcp_max_tw_buckets", "0");
    let (a, b) = sim.establish(client, server, 80);
    close(&mut sim, client, a);
    sim.run_for(ms(100));
    assert_eq!(states(&sim, client), [], "FIN-WAIT-2 of an orphan went too");
    assert_eq!(sim.peek(client).counters().tcp_time_wait_overflow, 1);
    close(&mut sim, server, b);
    sim.run_for(ms(100));
    assert_eq!(sim.peek(client).counters().out_rsts, 1, "the late FIN is answered with RST");
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn time_wait_lasts_as_long_as_one_says() {
    let (mut sim, client, server) = Sim::pair(303);
    sysctl(&mut sim, client, "tcp_timewait_len", "5");
    closed_by_client(&mut sim, client, server);
    sim.run_for(4 * SECOND);
    assert_eq!(states(&sim, client), [TcpState::TimeWait]);
    sim.run_for(SECOND);
    assert_eq!(states(&sim, client), []);
}

#[test]
fn the_cookie_stays_from_syn_to_the_end_of_time_wait() {
    let (mut sim, client, server) = Sim::pair(304);
    let (a, b) = sim.establish(client, server, 80);
    let cookie = sim.peek(client).cookie(a).expect("held");
    close(&mut sim, client, a);
    sim.run_for(ms(100));
    assert_eq!(only_row(&sim, client).cookie, cookie);
    close(&mut sim, server, b);
    sim.run_for(ms(100));
    let row = only_row(&sim, client);
    assert_eq!((row.cookie, row.state), (cookie, TcpState::TimeWait));
    let timer = row.timer.expect("runs");
    assert!((59_000..=60_000).contains(&timer.expires_ms), "{timer:?}");
}
