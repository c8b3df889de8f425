//! Two stacks in virtual time: what a connection does from its first segment to its last, as an application sees it.

mod pair {
    mod closing;
    mod data;
    mod determinism;
    mod forced;
    mod handshake;
    mod icmp;
    mod kill;
    mod many;
    mod pending;
    mod ports;
    mod time_wait;
    mod udp;

    use lastack_core::Stack;
    use lastack_core::error::{RecvError, SocketError};
    use lastack_core::id::ConnectionId;
    use lastack_core::observe::SocketRow;
    use lastack_core::sim::{Host, Sim};
    use lastack_core::tcp::state::TcpState;
    use lastack_core::time::Duration;

    pub(crate) const SECOND: Duration = Duration::from_secs(1);

    pub(crate) fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// The states of a host's sockets, listeners left out.
    pub(crate) fn states(sim: &Sim, host: Host) -> Vec<TcpState> {
        let rows = sim.peek(host).sockets(sim.now());
        rows.map(|row| row.state).filter(|state| *state != TcpState::Listen).collect()
    }

    pub(crate) fn only_row(sim: &Sim, host: Host) -> SocketRow {
        let mut rows: Vec<SocketRow> = sim.peek(host).sockets(sim.now()).collect();
        assert_eq!(rows.len(), 1, "{rows:#?}");
        rows.remove(0)
    }

    /// Nothing is left: no socket, nothing waits for time, nobody counts as established.
    pub(crate) fn assert_nothing_left(sim: &Sim, hosts: &[Host]) {
        for host in hosts {
            let stack: &Stack = sim.peek(*host);
            let rows: Vec<SocketRow> = stack.sockets(sim.now()).collect();
            assert!(rows.is_empty(), "{host:?}: {rows:#?}");
            assert_eq!(stack.socket_count(), 0, "{host:?}");
            assert_eq!(stack.poll_timeout(), None, "{host:?}: something waits for time");
            assert_eq!(stack.counters().curr_estab, 0, "{host:?}: CurrEstab");
        }
    }

    pub(crate) fn expect_error(sim: &mut Sim, host: Host, id: ConnectionId, error: SocketError) {
        let mut sink = Vec::new();
        assert_eq!(sim.read_all(host, id, &mut sink), Err(RecvError::Socket(error)));
        assert_eq!(sim.read_all(host, id, &mut sink), Ok(true), "told once, then end of file");
    }

    /// Reads until end of file.
    pub(crate) fn read_to_end(sim: &mut Sim, host: Host, id: ConnectionId) -> Vec<u8> {
        let mut data = Vec::new();
        let ended = sim.run_until(600 * SECOND, |sim| sim.read_all(host, id, &mut data).expect("no error"));
        assert!(ended, "end of file came");
        data
    }

    pub(crate) fn close(sim: &mut Sim, host: Host, id: ConnectionId) {
        let now = sim.now();
        sim.stack(host).close(now, id);
    }

    pub(crate) fn send(sim: &mut Sim, host: Host, id: ConnectionId, data: &[u8]) {
        let now = sim.now();
        assert_eq!(sim.stack(host).send(now, id, data), Ok(data.len()));
    }

    pub(crate) fn sysctl(sim: &mut Sim, host: Host, name: &str, value: &str) {
        sim.stack(host).sysctl_set(name, value).expect("a valid setting");
    }

    /// Bytes that repeat late and tell places apart.
    pub(crate) fn pattern(len: usize, salt: u64) -> Vec<u8> {
        let mut x = salt | 1;
        (0..len)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x >> 32) as u8
            })
            .collect()
    }
}
