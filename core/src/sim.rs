//! A world in virtual time: stacks, and wires between them that lose, delay, reorder, repeat and refuse.
//!
//! Owns:    the clock, the hosts, the packets in flight, and a hash of everything that happened.
//! Input:   what the caller does to the hosts' stacks between two steps.
//! Output:  the same for the same seed and the same calls, to the byte: [`Sim::hash`] says so in eight bytes.
//! Rules:   what leaves a stack as one super-segment crosses the wire as the packets it stands for ([`crate::wire::offload`]).
//! Not here: real time, real devices.
//!
//! # Example
//! A connection over a bad wire; an hour of waiting would take milliseconds.
//! ```
//! use lastack_core::sim::Sim;
//! use lastack_core::time::Duration;
//!
//! let (mut sim, client, server) = Sim::pair(7);
//! sim.wires(|wire| {
//!     wire.delay(Duration::from_millis(10)).loss_percent(5.0).reorder_percent(2.0);
//! });
//! let (at_client, at_server) = sim.establish(client, server, 80);
//! let sent: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
//! let received = sim.transfer(client, at_client, server, at_server, &sent);
//! assert!(received == sent, "seed 7");
//! ```

mod wire;

use core::fmt::Write as _;
use core::hash::Hasher;
use core::net::IpAddr;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use siphasher::sip::SipHasher13;

use crate::error::RecvError;
use crate::id::ConnectionId;
use crate::ip::icmp;
use crate::observe::{Event, EventMask};
use crate::rng::Rng;
use crate::stack::{Config, ListenOptions, SocketEvent, Stack};
use crate::tcp::options::TcpOptions;
use crate::time::{Duration, Instant};
use crate::wire::icmp::ErrorKind;
use crate::wire::offload::Segments;
use crate::wire::transmit::{RxMeta, Transmit};

pub use wire::{Fate, Wire};

/// One of the simulation's hosts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Host(usize);

/// A packet as a hook sees it, before the wire's impairments.
#[derive(Clone, Copy, Debug)]
pub struct InFlight<'a> {
    /// When it was sent.
    pub at: Instant,
    /// Who sent it.
    pub from: Host,
    /// Its bytes, starting with the IP header.
    pub packet: &'a [u8],
}

/// Packets a host takes before it is asked for its answers, as a driver reads them.
const BATCH: usize = 64;

type Hook = Box<dyn FnMut(&InFlight<'_>) -> Fate>;

struct Node {
    stack: Stack,
    addresses: Vec<IpAddr>,
    wire: Wire,
}

/// A packet that will arrive: when, in which order, where.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Arrival {
    at: Instant,
    order: u64,
    to: usize,
    packet: Bytes,
}

/// The simulation.
pub struct Sim {
    now: Instant,
    nodes: Vec<Node>,
    in_flight: BinaryHeap<Reverse<Arrival>>,
    order: u64,
    rng: Rng,
    hook: Option<Hook>,
    log: SipHasher13,
    kept: Option<Vec<(Host, Event)>>,
    out: Transmit,
    scratch: Vec<u8>,
    /// How long nothing must happen for [`Sim::drive`] to call it quiet. Default 10 s.
    pub patience: Duration,
}

impl core::fmt::Debug for Sim {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Sim")
            .field("now", &self.now)
            .field("hosts", &self.nodes.len())
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}

impl Sim {
    /// A world without hosts. Every choice in it follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            // Not zero: a clock that reads zero hides bugs.
            now: Instant::from_millis(1_000_000),
            nodes: Vec::new(),
            in_flight: BinaryHeap::new(),
            order: 0,
            rng: Rng::from_number(seed),
            hook: None,
            log: SipHasher13::new(),
            kept: None,
            out: Transmit::default(),
            scratch: Vec::new(),
            patience: Duration::from_secs(10),
        }
    }

    /// Two hosts, 10.0.0.1 and 10.0.0.2, with Linux's settings.
    pub fn pair(seed: u64) -> (Self, Host, Host) {
        let mut sim = Self::new(seed);
        let host = |n: u8| Config { addresses: vec![([10, 0, 0, n].into(), 24)], ..Config::default() };
        let (a, b) = (sim.add(host(1)), sim.add(host(2)));
        (sim, a, b)
    }

    /// Adds a host. A seed of zeros is replaced by one that follows from the simulation's.
    pub fn add(&mut self, mut config: Config) -> Host {
        if config.seed == [0; 32] {
            config.seed = self.rng.seed();
        }
        let addresses = config.addresses.iter().map(|(address, _)| *address).collect();
        let mut stack = Stack::new(config, self.now);
        stack.observe(EventMask::ALL);
        self.nodes.push(Node { stack, addresses, wire: Wire::new(self.rng.key()) });
        Host(self.nodes.len() - 1)
    }

    /// The clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A host's stack, to be told and asked at [`Sim::now`].
    pub fn stack(&mut self, host: Host) -> &mut Stack {
        &mut self.nodes[host.0].stack
    }

    /// A host's stack, to look at.
    pub fn peek(&self, host: Host) -> &Stack {
        &self.nodes[host.0].stack
    }

    /// The wire that a host's packets leave on.
    pub fn wire(&mut self, host: Host) -> &mut Wire {
        &mut self.nodes[host.0].wire
    }

    /// Does the same to every host's wire.
    pub fn wires(&mut self, mut change: impl FnMut(&mut Wire)) {
        self.nodes.iter_mut().for_each(|node| change(&mut node.wire));
    }

    /// Looks at every packet and may decide what becomes of it, before the wire's own impairments.
    pub fn on_packet(&mut self, hook: impl FnMut(&InFlight<'_>) -> Fate + 'static) {
        self.hook = Some(Box::new(hook));
    }

    /// Chooses which events every host records (and the hash covers), and whether they are kept for [`Sim::take_events`].
    pub fn observe(&mut self, mask: EventMask, keep: bool) {
        self.nodes.iter_mut().for_each(|node| node.stack.observe(mask));
        self.kept = keep.then(Vec::new);
    }

    /// The events kept since the last call.
    pub fn take_events(&mut self) -> Vec<(Host, Event)> {
        self.collect_events();
        self.kept.as_mut().map(core::mem::take).unwrap_or_default()
    }

    /// A hash of every packet sent, with its time and fate, and of every event recorded so far.
    pub fn hash(&mut self) -> u64 {
        self.collect_events();
        self.log.finish()
    }

    // ---- time

    /// Sends what the hosts owe, then goes to the next moment at which something happens, and lets it happen.
    /// False: nothing will ever happen by itself.
    pub fn step(&mut self) -> bool {
        self.step_before(Instant::FAR_FUTURE)
    }

    /// [`Sim::step`], unless the next moment lies after `limit`.
    pub fn step_before(&mut self, limit: Instant) -> bool {
        self.send_owed();
        let Some(next) = self.next_moment().filter(|next| *next <= limit) else { return false };
        self.now = self.now.max(next);
        let mut batch = 0;
        while self.in_flight.peek().is_some_and(|Reverse(arrival)| arrival.at <= self.now) {
            let Some(Reverse(arrival)) = self.in_flight.pop() else { break };
            self.nodes[arrival.to].stack.handle_packet(self.now, arrival.packet, RxMeta::default());
            batch += 1;
            if batch % BATCH == 0 {
                self.send_owed();
            }
        }
        for node in &mut self.nodes {
            if node.stack.poll_timeout().is_some_and(|at| at <= self.now) {
                node.stack.handle_timeout(self.now);
            }
        }
        self.collect_events();
        self.send_owed();
        true
    }

    /// Steps until nothing happened for [`Sim::patience`]: timers further away are left alone.
    pub fn drive(&mut self) {
        self.send_owed();
        while self.step_before(self.now + self.patience) {}
    }

    /// Steps for `duration`; the clock ends there.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step_before(end) {}
        self.now = end;
    }

    /// Steps until `done`, at most for `limit`. True: it was reached.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if !self.step_before(end) {
                return done(self);
            }
        }
    }

    /// The next thing some host's application waits for.
    pub fn poll_event(&mut self) -> Option<(Host, SocketEvent)> {
        self.nodes
            .iter_mut()
            .enumerate()
            .find_map(|(n, node)| node.stack.poll_event().map(|event| (Host(n), event)))
    }

    /// Packets on their way.
    pub fn packets_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn next_moment(&self) -> Option<Instant> {
        let arrival = self.in_flight.peek().map(|Reverse(arrival)| arrival.at);
        self.nodes.iter().filter_map(|node| node.stack.poll_timeout()).chain(arrival).min()
    }

    // ---- packets

    fn send_owed(&mut self) {
        let mut out = core::mem::take(&mut self.out);
        let mut packet = core::mem::take(&mut self.scratch);
        for from in 0..self.nodes.len() {
            while self.nodes[from].stack.poll_transmit(self.now, &mut out) {
                let mut segments = Segments::new(&out);
                while segments.next_packet(&mut packet) {
                    self.send(from, &packet);
                }
            }
        }
        (self.out, self.scratch) = (out, packet);
    }

    /// One packet enters the wire of host `from`.
    fn send(&mut self, from: usize, packet: &[u8]) {
        let seen = InFlight { at: self.now, from: Host(from), packet };
        let fate = self.hook.as_mut().map_or(Fate::Pass, |hook| hook(&seen));
        let (copies, too_big) = self.nodes[from].wire.carry(self.now, packet.len(), fate);
        self.log.write_u64(self.now.as_nanos());
        self.log.write_usize(from);
        self.log.write(packet);
        if let Some(mtu) = too_big {
            self.log.write_u32(mtu);
            self.answer_too_big(from, packet, mtu);
        }
        let to = destination(packet)
            .and_then(|address| self.nodes.iter().position(|node| node.addresses.contains(&address)))
            // In a world of two, whatever is not for oneself is for the other: an accept-any host takes it.
            .or_else(|| (self.nodes.len() == 2).then_some(1 - from));
        let Some(to) = to else { return };
        for at in copies.into_iter().flatten() {
            self.log.write_u64(at.as_nanos());
            self.deliver(at, to, Bytes::copy_from_slice(packet));
        }
    }

    fn deliver(&mut self, at: Instant, to: usize, packet: Bytes) {
        self.order += 1;
        self.in_flight.push(Reverse(Arrival { at, order: self.order, to, packet }));
    }

    /// The router behind the wire says that the packet is too big.
    fn answer_too_big(&mut self, from: usize, packet: &[u8], mtu: u32) {
        let packet = Bytes::copy_from_slice(packet);
        let Ok(parsed) = crate::wire::parse(&packet, RxMeta::default()) else { return };
        let router = match parsed.ip.src {
            IpAddr::V4(_) => IpAddr::from([192, 0, 2, 254]),
            IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe]),
        };
        let mut out = Transmit::default();
        icmp::error(&mut out, &packet, &parsed.ip, ErrorKind::PacketTooBig { mtu }, router, 0);
        let at = self.now + self.nodes[from].wire.round_trip_to_router();
        self.deliver(at, from, Bytes::from(out.to_vec()));
    }

    fn collect_events(&mut self) {
        for n in 0..self.nodes.len() {
            while let Some(event) = self.nodes[n].stack.poll_observed() {
                self.log.write_usize(n);
                let _ = write!(Hashed(&mut self.log), "{event:?}");
                if let Some(kept) = &mut self.kept {
                    kept.push((Host(n), event));
                }
            }
        }
    }

    // ---- what tests do again and again

    /// Opens a connection to `port` of `server`, which listens for it only so long. Both ends' ids.
    ///
    /// # Panics
    /// When the wire lets no handshake through within five minutes.
    pub fn establish(&mut self, client: Host, server: Host, port: u16) -> (ConnectionId, ConnectionId) {
        let now = self.now;
        let address = (self.nodes[server.0].addresses[0], port).into();
        // As servers do, so that the port can be listened on again during TIME-WAIT.
        let options = TcpOptions { reuseaddr: true, ..TcpOptions::default() };
        let listen = ListenOptions { options, ..ListenOptions::new(address) };
        let listener = self.stack(server).listen(now, listen).expect("the port is free to listen on");
        let at_client = self
            .stack(client)
            .connect(now, address, None, TcpOptions::default())
            .expect("a source port is free");
        let mut at_server = None;
        self.run_until(Duration::from_secs(300), |sim| {
            let now = sim.now;
            at_server = at_server.or_else(|| sim.stack(server).accept(now, listener).ok());
            at_server.is_some()
        });
        let now = self.now;
        self.stack(server).close_listener(now, listener);
        (at_client, at_server.expect("the handshake finishes within five minutes"))
    }

    /// Sends `data` from one end to the other and gives what arrived. Stops early when nothing moves any more.
    pub fn transfer(
        &mut self,
        from: Host,
        from_id: ConnectionId,
        to: Host,
        to_id: ConnectionId,
        data: &[u8],
    ) -> Vec<u8> {
        let (mut given, mut received) = (0, Vec::with_capacity(data.len()));
        self.run_until(Duration::from_secs(3600), |sim| {
            let now = sim.now;
            if given < data.len() {
                given += sim.stack(from).send(now, from_id, &data[given..]).unwrap_or(0);
            }
            sim.read_all(to, to_id, &mut received).is_err() || received.len() >= data.len()
        });
        received
    }

    /// Reads what there is into `into`. `Ok(true)`: end of file.
    pub fn read_all(&mut self, host: Host, id: ConnectionId, into: &mut Vec<u8>) -> Result<bool, RecvError> {
        let now = self.now;
        loop {
            match self.stack(host).recv_chunk(now, id, usize::MAX) {
                Ok(Some(chunk)) => into.extend_from_slice(&chunk),
                Ok(None) => return Ok(true),
                Err(RecvError::WouldBlock) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Text that is hashed and not kept.
struct Hashed<'a>(&'a mut SipHasher13);

impl core::fmt::Write for Hashed<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// The destination address of a packet.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(16..20)?.try_into().ok().map(|octets: [u8; 4]| octets.into()),
        6 => packet.get(24..40)?.try_into().ok().map(|octets: [u8; 16]| octets.into()),
        _ => None,
    }
}
