//! A million connections over a bad wire: every byte arrives, nothing is left, and the same seed gives the same history.
//!
//! `LASTACK_MILLION=1000000 cargo test --release -p lastack-core --test million` runs the big count; 20,000 without.

use std::collections::VecDeque;

use lastack_core::SocketEvent;
use lastack_core::id::{ConnectionId, ListenerId};
use lastack_core::observe::EventMask;
use lastack_core::sim::{Host, Sim};
use lastack_core::stack::{ListenOptions, Readiness};
use lastack_core::tcp::options::TcpOptions;
use lastack_core::time::Duration;

/// Connections at one moment.
const AT_ONCE: usize = 500;
/// Ports the server listens on: so many times 28,232 pairs.
const PORTS: u16 = 64;

/// One connection's data: a request that names itself, and an answer of a length that follows from it.
fn request(n: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes
}

fn answer(request: &[u8; 16]) -> Vec<u8> {
    let mut x = u64::from_be_bytes(request[8..].try_into().expect("eight bytes")) | 1;
    // Most are short; one in sixteen takes a few segments.
    let len = if x & 0xf0 == 0 { (x >> 40) as usize % 6000 } else { (x >> 40) as usize % 300 };
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 24) as u8
        })
        .collect()
}

/// What one end still has to do, by the place of its connection id.
#[derive(Default)]
struct End {
    id: Option<ConnectionId>,
    request: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
    received: usize,
}

struct Run {
    sim: Sim,
    client: Host,
    server: Host,
    clients: Vec<End>,
    servers: Vec<End>,
    opened: u64,
    finished: u64,
    count: u64,
    intact: u64,
}

fn place(ends: &mut Vec<End>, id: ConnectionId) -> &mut End {
    if ends.len() <= id.index() {
        ends.resize_with(id.index() + 1, End::default);
    }
    &mut ends[id.index()]
}

impl Run {
    fn open(&mut self) {
        let now = self.sim.now();
        let to = ([10, 0, 0, 2], 1000 + (self.opened % u64::from(PORTS)) as u16).into();
        let id = self
            .sim
            .stack(self.client)
            .connect(now, to, None, TcpOptions::default())
            .expect("a port is free");
        let request = request(self.opened);
        self.opened += 1;
        let end = place(&mut self.clients, id);
        *end = End { id: Some(id), request: request.to_vec(), answer: answer(&request), ..End::default() };
    }

    /// Sends the request, reads the answer to its end, closes.
    fn on_client(&mut self, id: ConnectionId) {
        let now = self.sim.now();
        let stack = self.sim.stack(self.client);
        let end = place(&mut self.clients, id);
        if end.id != Some(id) {
            return;
        }
        if end.sent < end.request.len() {
            end.sent += stack.send(now, id, &end.request[end.sent..]).unwrap_or(0);
        }
        loop {
            match stack.recv_chunk(now, id, usize::MAX) {
                Ok(Some(chunk)) => {
                    let expected = end.answer.get(end.received..end.received + chunk.len());
                    assert!(
                        expected == Some(&chunk[..]),
                        "connection {:?}: wrong bytes at {}",
                        end.request,
                        end.received
                    );
                    end.received += chunk.len();
                }
                Ok(None) => break,
                Err(lastack_core::error::RecvError::WouldBlock) => return,
                Err(error) => panic!("connection {:?}: {error}", end.request),
            }
        }
        assert_eq!(end.received, end.answer.len(), "the answer ends where it should");
        self.intact += 1;
        self.finished += 1;
        end.id = None;
        stack.close(now, id);
    }

    /// Reads the request, sends the answer, closes first.
    fn on_server(&mut self, id: ConnectionId) {
        let now = self.sim.now();
        let stack = self.sim.stack(self.server);
        let end = place(&mut self.servers, id);
        if end.id != Some(id) {
            *end = End { id: Some(id), ..End::default() };
        }
        while end.request.len() < 16 {
            match stack.recv_chunk(now, id, 16 - end.request.len()) {
                Ok(Some(chunk)) => end.request.extend_from_slice(&chunk),
                Err(lastack_core::error::RecvError::WouldBlock) => return,
                other => panic!("the request ended early: {other:?}"),
            }
            if end.request.len() == 16 {
                end.answer = answer(end.request[..].try_into().expect("sixteen bytes"));
            }
        }
        if end.sent < end.answer.len() {
            end.sent += stack.send(now, id, &end.answer[end.sent..]).unwrap_or(0);
        }
        if end.sent == end.answer.len() {
            end.id = None;
            stack.close(now, id);
        }
    }

    fn work(&mut self, listeners: &[ListenerId]) {
        let mut accepted: VecDeque<ConnectionId> = VecDeque::new();
        while let Some((host, event)) = self.sim.poll_event() {
            match event {
                SocketEvent::Connection(id, ready) if host == self.client => {
                    assert!(!ready.intersects(Readiness::ERROR), "a connection failed");
                    self.on_client(id);
                }
                SocketEvent::Connection(id, _) => self.on_server(id),
                SocketEvent::Listener(listener) => {
                    assert!(listeners.contains(&listener));
                    let now = self.sim.now();
                    while let Ok(id) = self.sim.stack(self.server).accept(now, listener) {
                        accepted.push_back(id);
                    }
                }
                other => panic!("{other:?}"),
            }
            while let Some(id) = accepted.pop_front() {
                self.on_server(id);
            }
        }
        while self.opened < self.count && self.opened - self.finished < AT_ONCE as u64 {
            self.open();
        }
    }
}

/// Opens, uses and closes `count` connections; gives the hash of everything that happened.
fn run(seed: u64, count: u64) -> u64 {
    let (mut sim, client, server) = Sim::pair(seed);
    sim.observe(EventMask::LIFE.with(EventMask::RESET).with(EventMask::LOSS), false);
    sim.wires(|wire| {
        wire.delay(Duration::from_millis(2)).loss_percent(1.0).reorder_percent(1.0);
    });
    let now = sim.now();
    for host in [client, server] {
        // The server closes first, and a minute of TIME-WAIT at some thousand connections a second must fit.
        sim.stack(host).sysctl_set("tcp_max_tw_buckets", "4000000").expect("in range");
        sim.stack(host).sysctl_set("tcp_timewait_len", "5").expect("in range");
    }
    let listeners: Vec<ListenerId> = (0..PORTS)
        .map(|n| {
            let options =
                ListenOptions { backlog: 4096, ..ListenOptions::new(([10, 0, 0, 2], 1000 + n).into()) };
            sim.stack(server).listen(now, options).expect("free")
        })
        .collect();
    let (clients, servers) = (Vec::new(), Vec::new());
    let mut run = Run { sim, client, server, clients, servers, opened: 0, finished: 0, count, intact: 0 };
    run.work(&listeners);
    while run.finished < count {
        assert!(run.sim.step(), "seed {seed}: nothing moves, {} of {count} are done", run.finished);
        run.work(&listeners);
    }
    run.sim.run_for(Duration::from_secs(600));
    while run.sim.poll_event().is_some() {}
    let now = run.sim.now();
    for listener in listeners {
        run.sim.stack(server).close_listener(now, listener);
    }
    assert_eq!(run.intact, count, "seed {seed}");
    for host in [client, server] {
        let stack = run.sim.peek(host);
        let left: Vec<_> = stack.sockets(now).take(3).collect();
        assert_eq!(stack.socket_count(), 0, "seed {seed}, {host:?}: {left:#?}");
        assert_eq!(stack.poll_timeout(), None, "seed {seed}, {host:?}");
        assert_eq!(stack.counters().curr_estab, 0, "seed {seed}, {host:?}");
        assert_eq!(stack.counters().tcp_time_wait_overflow, 0, "seed {seed}, {host:?}");
    }
    let lost = run.sim.wire(client).lost() + run.sim.wire(server).lost();
    assert!(lost > count / 20, "seed {seed}: the wire was bad, {lost} packets were lost");
    run.sim.hash()
}

#[test]
fn a_million_connections_all_intact_nothing_left_and_repeatable() {
    let count = match std::env::var("LASTACK_MILLION") {
        Ok(text) => text.parse().expect("LASTACK_MILLION is a number"),
        Err(_) => 20_000,
    };
    let first = run(1, count);
    // The whole run once more: the same history to the last byte.
    assert_eq!(run(1, count), first, "seed 1, {count} connections");
    assert_ne!(run(2, count.min(1000)), run(1, count.min(1000)), "another seed has another history");
}
