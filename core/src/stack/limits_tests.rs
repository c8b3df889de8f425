//! Limits of the whole stack: memory pressure, and how many orphans there may be.

use crate::sim::Sim;
use crate::tcp::state::TcpState;
use crate::time::Duration;

#[test]
fn pressure_begins_above_the_second_number_and_ends_below_the_first() {
    let (mut sim, client, server) = Sim::pair(3);
    sim.stack(client).sysctl_set("tcp_mem", "2 4 100").expect("in range");
    let first = sim.establish(client, server, 80).0;
    sim.wires(|wire| {
        wire.cut(true);
    });
    let now = sim.now();
    let pressures = |sim: &Sim| sim.peek(client).counters().tcp_memory_pressures;
    sim.stack(client).send(now, first, &vec![0; 4 * 4096]).expect("room");
    assert_eq!(pressures(&sim), 0, "4 pages are not above 4");
    sim.stack(client).send(now, first, &vec![0; 2 * 4096]).expect("room");
    assert_eq!(pressures(&sim), 1);
    sim.stack(client).send(now, first, &vec![0; 4096]).expect("room");
    assert_eq!(pressures(&sim), 1, "one entry, however long");
    sim.wires(|wire| {
        wire.cut(false);
    });
    sim.run_for(Duration::from_secs(20));
    let now = sim.now();
    sim.stack(client).send(now, first, &vec![0; 6 * 4096]).expect("acknowledged, so there is room");
    assert_eq!(pressures(&sim), 2, "it had ended in between");
}

#[test]
fn an_orphan_too_many_is_reset_at_close() {
    let (mut sim, client, server) = Sim::pair(4);
    sim.stack(client).sysctl_set("tcp_max_orphans", "2").expect("in range");
    let ids = [80, 81, 82].map(|port| sim.establish(client, server, port).0);
    sim.wires(|wire| {
        wire.cut(true);
    });
    let now = sim.now();
    for id in ids {
        sim.stack(client).close(now, id);
    }
    assert_eq!(sim.peek(client).counters().tcp_abort_on_memory, 1);
    let states = sim.peek(client).sockets(now).filter(|row| row.state == TcpState::FinWait1).count();
    assert_eq!(states, 2);
}
