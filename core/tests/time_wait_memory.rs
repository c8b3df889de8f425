//! Ports run out and are taken over again: 30,000 connections from one address to one service, closed here first.
//!
//! Alone in its program, because the memory of the whole program is measured.

use lastack_core::error::ConnectError;
use lastack_core::id::{ConnectionId, ListenerId};
use lastack_core::sim::{Host, Sim};
use lastack_core::stack::ListenOptions;
use lastack_core::tcp::options::TcpOptions;
use lastack_core::tcp::state::TcpState;
use lastack_core::time::Duration;

/// Ports of the default `ip_local_port_range`.
const PORTS: usize = 28_232;
/// The most that a connection in TIME-WAIT may take of the memory, everything included.
const BYTES: usize = 256;
/// The most that each step of a connection may take, in virtual time.
const PATIENCE: Duration = Duration::from_secs(1);

struct World {
    sim: Sim,
    client: Host,
    server: Host,
    listener: ListenerId,
}

impl World {
    fn new(reuse: &str) -> Self {
        let (mut sim, client, server) = Sim::pair(20);
        // Slow enough that the first pair is old enough when the last has been used, and none has expired.
        sim.wires(|wire| {
            wire.delay(Duration::from_micros(20));
        });
        sim.stack(client).sysctl_set("tcp_tw_reuse", reuse).expect("in range");
        let now = sim.now();
        let options = ListenOptions { backlog: 16, ..ListenOptions::new(([10, 0, 0, 2], 80).into()) };
        let listener = sim.stack(server).listen(now, options).expect("free");
        Self { sim, client, server, listener }
    }

    /// A whole life: the client closes first.
    fn connect_and_close(&mut self) -> Result<(), ConnectError> {
        let now = self.sim.now();
        // Its listener.
        let quiet = self.sim.peek(self.server).socket_count();
        let to = ([10, 0, 0, 2], 80).into();
        let here = self.sim.stack(self.client).connect(now, to, None, TcpOptions::default())?;
        let mut there: Option<ConnectionId> = None;
        let (listener, server) = (self.listener, self.server);
        let accepted = self.sim.run_until(PATIENCE, |sim| {
            let now = sim.now();
            there = there.or_else(|| sim.stack(server).accept(now, listener).ok());
            there.is_some()
        });
        assert!(accepted, "the handshake ends");
        let there = there.expect("accepted");
        self.close(self.client, here);
        let has_read_the_fin =
            move |sim: &mut Sim| sim.peek(server).state(there) == Some(TcpState::CloseWait);
        assert!(self.sim.run_until(PATIENCE, has_read_the_fin), "the FIN arrives");
        self.close(server, there);
        let is_over = move |sim: &mut Sim| sim.peek(server).socket_count() == quiet;
        assert!(self.sim.run_until(PATIENCE, is_over), "the last ACK arrives");
        while self.sim.poll_event().is_some() {}
        Ok(())
    }

    fn close(&mut self, host: Host, id: ConnectionId) {
        let now = self.sim.now();
        self.sim.stack(host).close(now, id);
    }

    fn time_waits(&self) -> usize {
        let rows = self.sim.peek(self.client).sockets(self.sim.now());
        rows.filter(|row| row.state == TcpState::TimeWait).count()
    }
}

/// Memory of this program that is in use, bytes.
fn resident() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kib.trim().trim_end_matches(" kB").parse::<usize>().ok().map(|kib| kib * 1024)
}

#[test]
fn without_reuse_ports_run_out_in_small_records_and_with_it_30_000_succeed() {
    let mut world = World::new("0");
    let warm = 1_000;
    for n in 0..warm {
        assert_eq!(world.connect_and_close(), Ok(()), "connection {n}");
    }
    let before = resident();
    for n in warm..PORTS {
        assert_eq!(world.connect_and_close(), Ok(()), "connection {n}");
    }
    assert_eq!(world.time_waits(), PORTS);
    if let (Some(before), Some(after)) = (before, resident()) {
        let each = after.saturating_sub(before) / (PORTS - warm);
        println!("{PORTS} TIME-WAITs, {each} bytes each");
        assert!(each < BYTES, "{each} bytes for each of {PORTS} TIME-WAITs");
    }
    assert_eq!(world.connect_and_close(), Err(ConnectError::AddrNotAvailable));
    let counters = world.sim.peek(world.client).counters();
    assert_eq!((counters.tw_recycled, counters.tcp_time_wait_overflow), (0, 0));

    let mut world = World::new("1");
    for n in 0..30_000 {
        assert_eq!(world.connect_and_close(), Ok(()), "connection {n}");
    }
    let counters = world.sim.peek(world.client).counters();
    assert_eq!((counters.active_opens, counters.tcp_time_wait_overflow), (30_000, 0));
    assert!(counters.tw_recycled >= 30_000 - PORTS as u64, "{} pairs taken over", counters.tw_recycled);
}
