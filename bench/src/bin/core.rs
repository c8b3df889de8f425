//! What the core costs by itself: two stacks in one thread, packets handed over in memory, no device and no system call.
//!
//! ```text
//! core [--seconds 1] [--idle 100000] [--only WORDS]
//! ```
//! Prints one row each. "Idle" is how many other established connections the two stacks hold meanwhile: what a packet
//! costs must not depend on them. Times are of both ends together and of one thread; only ratios within one run mean
//! something.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use lastack_core::error::RecvError;
use lastack_core::id::{ConnectionId, ListenerId};
use lastack_core::stack::{ListenOptions, Readiness};
use lastack_core::tcp::options::TcpOptions;
use lastack_core::time::Instant;
use lastack_core::wire;
use lastack_core::wire::offload::Segments;
use lastack_core::wire::transmit::{RxMeta, Transmit, TxChecksum};
use lastack_core::{Config, SocketEvent, Stack};
use lastack_e2e::clock;

const SERVER: [u8; 4] = [10, 0, 0, 2];
const MESSAGE: usize = 64;
const CHUNK: usize = 256 * 1024;
/// Connections to one port that leave room for those that are measured.
const A_PORT: usize = 25_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).map(String::as_str)
    };
    let seconds = Duration::from_secs_f64(value("--seconds").and_then(|n| n.parse().ok()).unwrap_or(1.0));
    let idle: usize = value("--idle").and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let only = value("--only").unwrap_or("");
    let row = |name: &str, figure: &dyn Fn() -> String| {
        if name.contains(only) {
            println!("{name:<58} {}", figure());
        }
    };

    row("memory of one idle connection", &|| memory(idle));
    row("parse of a data segment, checksum vouched for", &|| parse(seconds));
    for others in [0, 10_000, idle] {
        row(&format!("ping-pong of {MESSAGE} B, {others} idle"), &|| ping_pong(others, seconds));
    }
    row("bulk, super-segments", &|| bulk(0, false, seconds));
    row("bulk, MTU 1500, cut and summed in software", &|| bulk(0, true, seconds));
    row(&format!("bulk, MTU 1500, cut and summed in software, {idle} idle"), &|| bulk(idle, true, seconds));
    for at_once in [1, 1000] {
        row(&format!("connect, {MESSAGE} B there and back, close; {at_once} at once"), &|| {
            short(at_once, seconds)
        });
    }
}

/// Two stacks and what lies between them.
struct Pair {
    client: Stack,
    server: Stack,
    epoch: std::time::Instant,
    listeners: Vec<ListenerId>,
    out: Transmit,
    scratch: Vec<u8>,
    /// Super-segments are cut and checksums computed, as for a link that can do neither.
    is_plain: bool,
}

impl Pair {
    fn new(idle: usize) -> Self {
        let epoch = clock::now();
        let now = Instant::ZERO;
        let stack = |n: u8| {
            let address = (IpAddr::from([10, 0, 0, n]), 24);
            Stack::new(Config { addresses: vec![address], seed: [n; 32], ..Config::default() }, now)
        };
        let (client, mut server) = (stack(1), stack(2));
        let options = |port| ListenOptions { backlog: 4096, ..ListenOptions::new((SERVER, port).into()) };
        let ports = 80..=80 + idle.div_ceil(A_PORT) as u16;
        let listeners = ports.map(|port| server.listen(now, options(port)).expect("free")).collect();
        let (out, scratch) = (Transmit::default(), Vec::new());
        let mut this = Self { client, server, epoch, listeners, out, scratch, is_plain: false };
        // The last port is for what is measured.
        for n in 0..idle {
            this.open(n / A_PORT);
        }
        this
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.epoch.elapsed().as_nanos() as u64)
    }

    /// The port that idle connections have not taken.
    fn free(&self) -> usize {
        self.listeners.len() - 1
    }

    /// A connection to the `nth` listener, both ends established.
    fn open(&mut self, nth: usize) -> (ConnectionId, ConnectionId) {
        let now = self.now();
        let to = SocketAddr::from((SERVER, 80 + nth as u16));
        let here = self.client.connect(now, to, None, TcpOptions::default()).expect("a port is free");
        self.carry();
        let there = self.server.accept(now, self.listeners[nth]).expect("established");
        self.settle();
        (here, there)
    }

    /// Carries packets both ways until neither has any.
    fn carry(&mut self) {
        let now = self.now();
        let Self { client, server, out, scratch, is_plain, .. } = self;
        let mut cross = |from: &mut Stack, to: &mut Stack| {
            let mut moved = false;
            while from.poll_transmit(now, out) {
                moved = true;
                hand_over(now, out, scratch, *is_plain, to);
            }
            moved
        };
        while cross(client, server) | cross(server, client) {}
    }

    /// Takes the events that nobody waits for.
    fn settle(&mut self) {
        while self.client.poll_event().is_some() {}
        while self.server.poll_event().is_some() {}
    }

    /// Deadlines that are due.
    fn tick(&mut self) {
        let now = self.now();
        for stack in [&mut self.client, &mut self.server] {
            if stack.poll_timeout().is_some_and(|at| at <= now) {
                stack.handle_timeout(now);
            }
        }
    }
}

fn hand_over(now: Instant, out: &Transmit, scratch: &mut Vec<u8>, is_plain: bool, to: &mut Stack) {
    if is_plain {
        let mut segments = Segments::new(out);
        while segments.next_packet(scratch) {
            to.handle_packet(now, Bytes::copy_from_slice(scratch), RxMeta::default());
        }
        return;
    }
    let meta = RxMeta {
        checksum_valid: out.checksum != TxChecksum::Complete,
        segment_size: out.segment_size,
        ..RxMeta::default()
    };
    to.handle_packet(now, out.to_vec().into(), meta);
}

/// Reads all there is; how much.
fn drain(stack: &mut Stack, now: Instant, id: ConnectionId) -> Result<usize, RecvError> {
    let mut total = 0;
    loop {
        match stack.recv_chunk(now, id, usize::MAX) {
            Ok(Some(chunk)) => total += chunk.len(),
            Ok(None) | Err(RecvError::WouldBlock) => return Ok(total),
            Err(error) => return Err(error),
        }
    }
}

fn ping_pong(idle: usize, time: Duration) -> String {
    let mut pair = Pair::new(idle);
    let (here, there) = pair.open(pair.free());
    let message = [7; MESSAGE];
    let trip = |pair: &mut Pair| {
        let now = pair.now();
        assert_eq!(pair.client.send(now, here, &message), Ok(MESSAGE));
        pair.carry();
        assert_eq!(drain(&mut pair.server, now, there), Ok(MESSAGE));
        assert_eq!(pair.server.send(now, there, &message), Ok(MESSAGE));
        pair.carry();
        assert_eq!(drain(&mut pair.client, now, here), Ok(MESSAGE));
        pair.settle();
        pair.tick();
    };
    let each = ns_each(time, || trip(&mut pair));
    format!("{each:.0} ns a round trip (2 data segments, both ends)")
}

fn bulk(idle: usize, is_plain: bool, time: Duration) -> String {
    let mut pair = Pair::new(idle);
    let (here, there) = pair.open(pair.free());
    pair.is_plain = is_plain;
    let chunk = Bytes::from(vec![7; CHUNK]);
    let (begun, mut bytes) = (clock::now(), 0);
    while begun.elapsed() < time {
        let now = pair.now();
        let mut room = pair.client.send_space(here);
        while room > 0 {
            let piece = chunk.slice(..room.min(CHUNK));
            room -= piece.len();
            pair.client.send_bytes(now, here, piece).expect("there is room");
        }
        pair.carry();
        bytes += drain(&mut pair.server, now, there).expect("open");
        pair.carry();
        pair.settle();
        pair.tick();
    }
    let repeated = pair.client.counters().by_name("TcpRetransSegs");
    assert_eq!(repeated, Some(0), "nothing is lost in memory");
    format!("{:.1} Gbit/s", bytes as f64 * 8.0 / begun.elapsed().as_nanos() as f64)
}

/// The client closes first, so that its half stays in TIME-WAIT.
fn short(at_once: usize, time: Duration) -> String {
    let mut pair = Pair::new(0);
    pair.client.sysctl_set("tcp_tw_reuse", "1").expect("in range");
    // Ports are many enough that none is taken over within the time.
    let listener = pair.listeners[0];
    let (begun, mut done) = (clock::now(), 0_u64);
    let mut most = u64::MAX;
    while begun.elapsed() < time && done < most {
        let now = pair.now();
        let to = SocketAddr::from((SERVER, 80));
        let opened: Vec<ConnectionId> = (0..at_once)
            .map_while(|_| pair.client.connect(now, to, None, TcpOptions::default()).ok())
            .collect();
        if opened.len() < at_once {
            most = done;
        }
        pair.carry();
        for id in &opened {
            assert_eq!(pair.client.send(now, *id, &[7; MESSAGE]), Ok(MESSAGE));
        }
        pair.carry();
        while let Ok(id) = pair.server.accept(now, listener) {
            assert_eq!(drain(&mut pair.server, now, id), Ok(MESSAGE));
            assert_eq!(pair.server.send(now, id, &[7; MESSAGE]), Ok(MESSAGE));
        }
        pair.carry();
        for id in opened {
            assert_eq!(drain(&mut pair.client, now, id), Ok(MESSAGE));
            pair.client.close(now, id);
            done += 1;
        }
        pair.carry();
        while let Some(event) = pair.server.poll_event() {
            if let SocketEvent::Connection(id, ready) = event
                && ready.intersects(Readiness::READABLE)
            {
                pair.server.close(now, id);
            }
        }
        pair.carry();
        pair.settle();
        pair.tick();
    }
    assert_eq!(pair.server.socket_count(), pair.listeners.len(), "nothing is left at the server");
    format!("{:.0} connections/s", done as f64 / begun.elapsed().as_secs_f64())
}

/// Of both ends, from the difference in this process's resident memory.
fn memory(idle: usize) -> String {
    const FEW: usize = 1000;
    let pair = Pair::new(FEW);
    let few = resident();
    drop(pair);
    let pair = Pair::new(idle.max(2 * FEW));
    let ends = 2 * (idle.max(2 * FEW) - FEW);
    let each = resident().saturating_sub(few) as f64 / ends as f64;
    assert_eq!(pair.client.socket_count(), idle.max(2 * FEW));
    format!("{each:.0} B of resident memory an end ({} ends)", 2 * idle.max(2 * FEW))
}

/// Bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of it");
    line.trim_end_matches("kB").trim().parse::<usize>().expect("a number") * 1024
}

fn parse(time: Duration) -> String {
    let mut pair = Pair::new(0);
    let (here, _) = pair.open(pair.free());
    let now = pair.now();
    assert_eq!(pair.client.send(now, here, &[7; 1000]), Ok(1000));
    assert!(pair.client.poll_transmit(now, &mut pair.out));
    let bytes = Bytes::from(pair.out.to_vec());
    let meta = RxMeta { checksum_valid: true, ..RxMeta::default() };
    let each = ns_each(time, || {
        let parsed = wire::parse(std::hint::black_box(&bytes), meta);
        assert!(std::hint::black_box(parsed).is_ok());
    });
    format!("{each:.1} ns")
}

fn ns_each(time: Duration, mut step: impl FnMut()) -> f64 {
    const BATCH: u32 = 100;
    let (begun, mut steps) = (clock::now(), 0_u64);
    while begun.elapsed() < time {
        (0..BATCH).for_each(|_| step());
        steps += u64::from(BATCH);
    }
    begun.elapsed().as_nanos() as f64 / steps as f64
}
