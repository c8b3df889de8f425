//! Two stacks that talk over a link which the input makes bad: packets are lost, repeated, late, damaged or forged.
//!
//! Damage that a checksum catches must be invisible to the applications: every byte read is the byte that was written
//! there, and end of file comes behind the last one. With forged packets (damage that the checksum does not catch) only
//! the promises about panics, ends and empty tables hold.

use core::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use lastack_core::error::{RecvError, SendError};
use lastack_core::id::{ConnectionId, ListenerId};
use lastack_core::observe::EventMask;
use lastack_core::stack::{Config, ListenOptions, Shutdown, Stack};
use lastack_core::tcp::options::{TcpOption, TcpOptions};
use lastack_core::time::{Duration, Instant};
use lastack_core::wire::offload::Segments;
use lastack_core::wire::transmit::{RxMeta, Transmit, TxChecksum};

use super::{Input, describe, trace};

const MAX_STEPS: usize = 600;
const MAX_CONNECTIONS: u16 = 6;
/// More of anything in one go than two small stacks can have a reason for.
const ENDLESS: usize = 50_000;
/// Half the round trip.
const DELAY: Duration = Duration::from_millis(5);
const PORT: u16 = 80;
/// What a run may set differently from the defaults.
const SETTINGS: [(&str, &str); 6] = [
    ("tcp_sack", "0"),
    ("tcp_timestamps", "0"),
    ("tcp_window_scaling", "0"),
    ("tcp_congestion_control", "reno"),
    ("tcp_shrink_window", "1"),
    ("tcp_rmem", "4096 8192 16384"),
];

/// Input: two bytes configure, then operations of the applications and fates of packets.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut pair = Pair::new(input.u8(), input.u8());
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        pair.step(&mut input);
    }
    pair.end();
}

/// A packet on its way.
#[derive(Clone)]
struct InFlight {
    due: Instant,
    to: usize,
    packet: Bytes,
    meta: RxMeta,
    /// Changed on its way, in one byte: two changes could make up for each other in the checksum.
    is_damaged: bool,
}

/// One end of a connection, and what its application knows.
struct End {
    id: ConnectionId,
    /// The client's port: names the connection on both sides.
    port: u16,
    written: usize,
    read: usize,
    shut: bool,
    /// Read to the end of file.
    finished: bool,
    /// An error was told: nothing more is promised.
    failed: bool,
    closed: bool,
}

struct Pair {
    now: Instant,
    stacks: [Stack; 2],
    listener: ListenerId,
    ends: [Vec<End>; 2],
    opened: u16,
    link: Vec<InFlight>,
    /// Checksums are finished in software and verified; else super-segments pass whole.
    is_plain: bool,
    /// Forged packets may appear.
    is_forging: bool,
    out: Transmit,
    buffer: Vec<u8>,
}

impl Pair {
    fn new(flags: u8, sysctls: u8) -> Self {
        let now = Instant::from_millis(1_000);
        let address = |n: u8| -> IpAddr {
            if flags & 4 == 0 {
                IpAddr::from([192, 0, 2, n])
            } else {
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)])
            }
        };
        let stack = |n: u8| {
            let config = Config {
                seed: [n; 32],
                addresses: vec![(address(n), 24)],
                event_limit: 64,
                ..Config::default()
            };
            let mut stack = Stack::new(config, now);
            stack.observe(EventMask::ALL);
            // Bits 0..5 for both ends, 6 and 7: only one of them.
            let is_changed = match sysctls >> 6 {
                0 => true,
                only => only & n != 0,
            };
            for (bit, (name, value)) in SETTINGS.iter().enumerate() {
                if is_changed && sysctls >> bit & 1 != 0 {
                    stack.sysctl_set(name, value).expect("a setting and a value that exist");
                }
            }
            stack
        };
        let mut stacks = [stack(1), stack(2)];
        let listener = stacks[1]
            .listen(now, ListenOptions::new(SocketAddr::new(address(2), PORT)))
            .expect("the port is free");
        Self {
            now,
            stacks,
            listener,
            ends: [Vec::new(), Vec::new()],
            opened: 0,
            link: Vec::new(),
            is_plain: flags & 1 == 0,
            is_forging: flags & 2 != 0,
            out: Transmit::default(),
            buffer: Vec::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.u8();
        trace(|| format!("{:?} op {} side {}", self.now, op & 15, op >> 7));
        let side = usize::from(op >> 7);
        match op & 15 {
            0 => self.connect(),
            1 | 2 => self.write(side, input),
            3 => {
                let n = usize::from(input.u16());
                self.read(side, n);
            }
            4 => self.read_all(side),
            5 => {
                if let Some(end) = self.end_of(side, input) {
                    let id = end.id;
                    end.shut = true;
                    let _ = self.stacks[side].shutdown(self.now, id, Shutdown::Write);
                }
            }
            6 => self.close(side, input),
            7 => {
                let option = [
                    TcpOption::NoDelay(op & 16 != 0),
                    TcpOption::Cork(op & 16 != 0),
                    TcpOption::KeepAlive(op & 16 != 0),
                    TcpOption::RcvBuf(i32::from(op) * 100),
                    TcpOption::SndBuf(i32::from(op) * 100),
                ][usize::from(input.u8() % 5)];
                if let Some(id) = self.end_of(side, input).map(|end| end.id) {
                    let _ = self.stacks[side].set_option(self.now, id, option);
                }
            }
            8 => {
                self.now += Duration::from_micros(1 << (input.u8() % 30));
            }
            9..=11 => self.fate(input),
            12 => {
                let mtu = 1280 + u32::from(input.u8()) * 4;
                self.stacks[side].handle_link(self.now, mtu);
            }
            _ => {
                self.advance();
            }
        }
        self.settle();
    }

    fn connect(&mut self) {
        if self.opened == MAX_CONNECTIONS {
            return;
        }
        self.opened += 1;
        let port = 40_000 + self.opened;
        let remote = self.stacks[1].listener_addr(self.listener).expect("it listens");
        let local = SocketAddr::new(if remote.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() }, port);
        let id = self.stacks[0]
            .connect(self.now, remote, Some(local), TcpOptions::default())
            .expect("a fresh port to a reachable address");
        self.ends[0].push(End::new(id, port));
    }

    fn end_of(&mut self, side: usize, input: &mut Input<'_>) -> Option<&mut End> {
        let n = usize::from(input.u8());
        let open: Vec<usize> = (0..self.ends[side].len()).filter(|n| !self.ends[side][*n].closed).collect();
        let chosen = *open.get(n % open.len().max(1))?;
        self.ends[side].get_mut(chosen)
    }

    fn write(&mut self, side: usize, input: &mut Input<'_>) {
        let len = usize::from(input.u16());
        let now = self.now;
        let Some(end) = self.end_of(side, input) else { return };
        let (id, port, written) = (end.id, end.port, end.written);
        let data = pattern(port, side, written, len);
        let result = self.stacks[side].send(now, id, &data);
        let end = self.ends[side].iter_mut().find(|end| end.port == port).expect("found by its port before");
        match result {
            Ok(taken) => {
                assert!(taken == 0 || !end.shut, "written behind the FIN");
                end.written += taken;
            }
            Err(SendError::WouldBlock) => {}
            Err(SendError::BrokenPipe) if end.shut => {}
            // An error is told once: reading would go on to "end of file" now.
            Err(_) => end.failed = true,
        }
    }

    fn read_all(&mut self, side: usize) {
        self.read(side, usize::MAX);
    }

    /// Every application on this side reads at most `max` bytes and checks them.
    fn read(&mut self, side: usize, max: usize) {
        let (mine, theirs) = match &mut self.ends {
            [client, server] if side == 0 => (client, server),
            [client, server] => (server, client),
        };
        for end in mine.iter_mut().filter(|end| !end.closed && !end.finished && !end.failed) {
            let mut left = max;
            while left > 0 {
                match self.stacks[side].recv_chunk(self.now, end.id, left.min(70_000)) {
                    Ok(Some(chunk)) => {
                        assert!(!chunk.is_empty() && chunk.len() <= left, "an empty or overlong chunk");
                        if !self.is_forging {
                            let written = pattern(end.port, 1 - side, end.read, chunk.len());
                            assert!(chunk == written, "wrong bytes at {} of {}", end.read, end.port);
                        }
                        end.read += chunk.len();
                        left -= chunk.len();
                    }
                    Ok(None) => {
                        end.finished = true;
                        let peer = theirs.iter().find(|peer| peer.port == end.port);
                        if let Some(peer) = peer
                            && !self.is_forging
                        {
                            assert!(peer.shut || peer.closed || peer.failed, "end of file without a FIN");
                            assert_eq!(end.read, peer.written, "end of file before the last byte");
                        }
                        break;
                    }
                    Err(RecvError::WouldBlock) => break,
                    Err(_) => {
                        end.failed = true;
                        break;
                    }
                }
            }
        }
    }

    fn close(&mut self, side: usize, input: &mut Input<'_>) {
        let (now, how) = (self.now, input.u8());
        let Some(end) = self.end_of(side, input) else { return };
        end.closed = true;
        let id = end.id;
        if how & 7 == 0 {
            self.stacks[side].abort(now, id);
            self.lose_promise(side, id);
        } else {
            if self.stacks[side].recv_available(id) > 0 {
                self.lose_promise(side, id); // data unread: RST, the peer may lose bytes on their way
            }
            self.stacks[side].close(now, id);
        }
    }

    /// The peer of this end may see an error instead of the rest.
    fn lose_promise(&mut self, side: usize, id: ConnectionId) {
        let port = self.ends[side].iter().find(|end| end.id == id).map(|end| end.port);
        for end in self.ends[1 - side].iter_mut().filter(|end| Some(end.port) == port) {
            end.failed = true;
        }
    }

    /// Something happens to a packet on the link.
    fn fate(&mut self, input: &mut Input<'_>) {
        let (fate, n) = (input.u8(), usize::from(input.u8()));
        if self.link.is_empty() {
            return;
        }
        let n = n % self.link.len();
        let len = self.link[n].packet.len();
        trace(|| format!("  fate {} of {}", fate & 7, describe(&self.link[n].packet, self.link[n].meta)));
        match fate & 7 {
            0 | 1 => {
                self.link.remove(n);
            }
            2 => {
                let copy = self.link[n].clone();
                self.link.push(copy);
            }
            3 => self.link[n].due += Duration::from_millis(1 << (fate >> 4)),
            4 if self.is_plain && len > 0 && !self.link[n].is_damaged => {
                let (at, bits) = (usize::from(input.u16()) % len, input.u8());
                let mut bytes = self.link[n].packet.to_vec();
                if !is_outside_checksums(&bytes, at) {
                    bytes[at] ^= bits;
                    self.link[n].packet = Bytes::from(bytes);
                    self.link[n].is_damaged = true;
                }
            }
            5 if len > 0 => self.link[n].packet.truncate(usize::from(input.u16()) % len),
            6 if self.is_forging => {
                let (at, bits) = (usize::from(input.u8() % 80), input.u8());
                let mut bytes = self.link[n].packet.to_vec();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
                super::repair_ipv4(&mut bytes);
                self.link[n].packet = Bytes::from(bytes);
                self.link[n].meta.checksum_valid = true;
            }
            _ => self.link[n].due = self.now,
        }
    }

    /// Time goes on to whatever is next.
    fn advance(&mut self) -> bool {
        let arrival = self.link.iter().map(|packet| packet.due);
        let timers = self.stacks.iter().filter_map(Stack::poll_timeout);
        match arrival.chain(timers).min() {
            Some(due) => {
                self.now = self.now.max(due);
                true
            }
            None => false,
        }
    }

    /// Delivers what is due, lets timers run, collects what is sent, accepts who came.
    fn settle(&mut self) {
        for n in 0.. {
            assert!(n < ENDLESS, "no rest at {:?}", self.now);
            let mut due = Vec::new();
            let now = self.now;
            self.link.sort_by_key(|packet| packet.due); // stable: in order where nothing was delayed
            while self.link.first().is_some_and(|packet| packet.due <= now) {
                due.push(self.link.remove(0));
            }
            let mut is_quiet = due.is_empty();
            for InFlight { to, packet, meta, .. } in due {
                trace(|| format!("{now:?} {}", describe(&packet, meta)));
                self.stacks[to].handle_packet(now, packet, meta);
            }
            for side in [0, 1] {
                if self.stacks[side].poll_timeout().is_some_and(|due| due <= now) {
                    self.stacks[side].handle_timeout(now);
                    is_quiet = false;
                }
                self.transmit(side);
                while self.stacks[side].poll_event().is_some() {}
                while self.stacks[side].poll_observed().is_some() {}
            }
            while let Ok(id) = self.stacks[1].accept(now, self.listener) {
                let port = self.stacks[1].tuple(id).expect("just accepted").remote.port();
                self.ends[1].push(End::new(id, port));
            }
            if is_quiet {
                break;
            }
        }
    }

    fn transmit(&mut self, side: usize) {
        let (due, to) = (self.now + DELAY, 1 - side);
        for n in 0.. {
            assert!(n < ENDLESS, "packets without end");
            if !self.stacks[side].poll_transmit(self.now, &mut self.out) {
                break;
            }
            if self.is_plain {
                let mut cut = Segments::new(&self.out);
                while cut.next_packet(&mut self.buffer) {
                    let packet = Bytes::copy_from_slice(&self.buffer);
                    self.link.push(InFlight { due, to, packet, meta: RxMeta::default(), is_damaged: false });
                }
            } else {
                let meta = RxMeta {
                    checksum_valid: self.out.checksum != TxChecksum::Complete,
                    segment_size: self.out.segment_size,
                    truesize: 0,
                };
                self.link.push(InFlight {
                    due,
                    to,
                    packet: Bytes::from(self.out.to_vec()),
                    meta,
                    is_damaged: false,
                });
            }
        }
    }

    /// The link is good again and the applications finish: everything arrives, everything goes away.
    fn end(mut self) {
        let mut quiet_rounds = 0;
        for n in 0.. {
            assert!(n < ENDLESS, "no end: {:?}", self.rows());
            let any = self.finish_applications();
            self.settle();
            if self.advance() || any {
                quiet_rounds = 0;
                continue;
            }
            quiet_rounds += 1; // the applications have not yet seen what settled last
            if quiet_rounds > 1 && !self.give_up() {
                break;
            }
        }
        self.stacks[1].close_listener(self.now, self.listener);
        self.settle();
        for stack in &self.stacks {
            assert_eq!(stack.socket_count(), 0, "left: {:?}", self.rows());
        }
    }

    /// Reads all there is, writes no more, closes what is finished or failed. True: an application did something.
    fn finish_applications(&mut self) -> bool {
        let mut any = false;
        for side in [0, 1] {
            self.read_all(side);
            for n in 0..self.ends[side].len() {
                let end = &mut self.ends[side][n];
                let id = end.id;
                if end.closed {
                    continue;
                }
                if !end.shut {
                    end.shut = true;
                    any = true;
                    let _ = self.stacks[side].shutdown(self.now, id, Shutdown::Write);
                }
                let end = &mut self.ends[side][n];
                if end.finished || end.failed {
                    end.closed = true;
                    any = true;
                    if self.stacks[side].recv_available(id) > 0 {
                        self.lose_promise(side, id);
                    }
                    self.stacks[side].close(self.now, id);
                }
            }
        }
        any
    }

    /// Nothing happens any more. Who still waits, waits for a peer that is gone without a word: as it may be in TCP,
    /// but only after that peer has failed. Their applications give up.
    fn give_up(&mut self) -> bool {
        let mut any = false;
        for side in [0, 1] {
            for n in 0..self.ends[side].len() {
                let (port, id) = (self.ends[side][n].port, self.ends[side][n].id);
                if self.ends[side][n].closed {
                    continue;
                }
                // A closed one may have given up as an orphan, which nobody is told.
                let peer = self.ends[1 - side].iter().find(|end| end.port == port);
                let peer_is_gone = peer.is_none_or(|end| end.failed || end.closed);
                assert!(peer_is_gone || self.is_forging, "{port} hangs: {:?}", self.rows());
                self.ends[side][n].closed = true;
                self.stacks[side].close(self.now, id);
                any = true;
            }
        }
        any
    }

    fn rows(&self) -> Vec<lastack_core::observe::SocketRow> {
        self.stacks.iter().flat_map(|stack| stack.sockets(self.now)).collect()
    }
}

impl End {
    fn new(id: ConnectionId, port: u16) -> Self {
        Self { id, port, written: 0, read: 0, shut: false, finished: false, failed: false, closed: false }
    }
}

/// `len` bytes from `start` on of what `side` writes on the connection of `port`.
///
/// Cut from one table: whole slices are compared, since the fuzzer watches every comparison.
fn pattern(port: u16, side: usize, start: usize, len: usize) -> Vec<u8> {
    const PERIOD: usize = 65_521; // a prime: no power of two lies on the same byte
    static TABLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let table = TABLE.get_or_init(|| {
        (0..PERIOD as u32).map(|place| place.wrapping_mul(0x9e37_79b1).to_be_bytes()[0]).collect()
    });
    let mut bytes = Vec::with_capacity(len);
    let mut place = (start + usize::from(port) * 7 + side * 1_009) % PERIOD;
    while bytes.len() < len {
        let piece = &table[place..PERIOD.min(place + len - bytes.len())];
        bytes.extend_from_slice(piece);
        place = 0;
    }
    bytes
}

/// IPv6 has no header checksum: traffic class, flow label, hop limit; and a changed version or next header makes
/// another packet of it, not a damaged one.
fn is_outside_checksums(packet: &[u8], at: usize) -> bool {
    packet[0] >> 4 == 6 && at < 8
}
