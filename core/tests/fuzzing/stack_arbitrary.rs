//! One stack against an adversary: random packets, times and commands in any order.
//!
//! What must hold whatever happens: no panic; every packet sent is valid and fits the link; output, events and due
//! timers come to an end; counters and tables agree; and when everything is closed, nothing is left.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use lastack_core::id::{ConnectionId, ListenerId, PendingId, UdpId};
use lastack_core::observe::EventMask;
use lastack_core::stack::{
    AnyOptions, Config, KillTarget, ListenOptions, Shutdown, SocketEvent, Stack, Unreachable,
};
use lastack_core::tcp::options::{CongestionKind, TcpOption, TcpOptions};
use lastack_core::tcp::seq::{SeqNum, SeqRange};
use lastack_core::time::{Duration, Instant};
use lastack_core::wire::icmp::ErrorKind;
use lastack_core::wire::offload::Segments;
use lastack_core::wire::segment::{Flags, Options, SackBlocks, SegmentHeader, Timestamps};
use lastack_core::wire::transmit::{RxMeta, Transmit};
use lastack_core::wire::{Body, IpFields, emit, parse};

use super::{Input, describe, repair_ipv4, trace};

/// Commands and packets a run may have: enough for any depth, and an end.
const MAX_STEPS: usize = 600;

/// More of anything in one go than a stack with so few sockets can have a reason for.
const ENDLESS: usize = 50_000;

/// Input: the first byte configures, then operations.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new(input.u8());
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        world.settle();
    }
    world.end();
}

/// One conversation as the peer sees it: where it stands and what would fit next.
#[derive(Clone, Copy)]
struct Flow {
    local: SocketAddr,
    peer: SocketAddr,
    /// Behind the last byte the stack sent.
    stack_end: SeqNum,
    /// The next byte the stack expects.
    stack_expects: SeqNum,
    /// The stack's last timestamp.
    tsval: Option<u32>,
}

struct World {
    stack: Stack,
    now: Instant,
    mtu: u32,
    flows: Vec<Flow>,
    next_flow: usize,
    listeners: Vec<ListenerId>,
    connections: Vec<ConnectionId>,
    pendings: Vec<PendingId>,
    udps: Vec<UdpId>,
    out: Transmit,
    buffer: Vec<u8>,
}

const LOCAL_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const LOCAL_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const PEER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));

impl World {
    fn new(flags: u8) -> Self {
        let config = Config {
            addresses: vec![(LOCAL_V4, 24), (LOCAL_V6, 64)],
            any_address: flags & 1 != 0,
            gso_max_segs: if flags & 2 != 0 { 1 } else { 64 },
            max_connections: 24,
            event_limit: 64,
            ..Config::default()
        };
        let (mtu, now) = (config.mtu, Instant::from_millis(1_000));
        let mut stack = Stack::new(config, now);
        stack.observe(EventMask::ALL);
        if flags & 4 != 0 {
            let _ = stack.sysctl_set("tcp_max_syn_backlog", "2");
        }
        Self {
            stack,
            now,
            mtu,
            flows: Vec::new(),
            next_flow: 0,
            listeners: Vec::new(),
            connections: Vec::new(),
            pendings: Vec::new(),
            udps: Vec::new(),
            out: Transmit::default(),
            buffer: Vec::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let now = self.now;
        let op = input.u8() % 24;
        trace(|| format!("{now:?} op {op}"));
        match op {
            0 => self.raw_packet(input),
            1..=5 => self.segment(input),
            6 => self.icmp_error(input),
            7 => {
                self.now += Duration::from_micros(1 << (input.u8() % 34));
                self.stack.handle_timeout(self.now);
            }
            8 => {
                if let Some(due) = self.stack.poll_timeout() {
                    self.now = self.now.max(due);
                    self.stack.handle_timeout(self.now);
                }
            }
            9 => {
                let mut options = ListenOptions::new(self.local(input));
                options.backlog = u32::from(input.u8() % 4);
                if self.listeners.len() < 4
                    && let Ok(id) = self.stack.listen(now, options)
                {
                    self.listeners.push(id);
                }
            }
            10 => {
                let options =
                    AnyOptions { max_pending: 1 + u32::from(input.u8() % 8), ..AnyOptions::default() };
                if let Ok(id) = self.stack.listen_any(now, options) {
                    self.listeners.push(id);
                }
            }
            11 => {
                for listener in &self.listeners {
                    if let Ok(id) = self.stack.accept(now, *listener) {
                        self.connections.push(id);
                    }
                }
            }
            12 => {
                let remote = match input.u8() {
                    byte if byte & 1 == 0 => SocketAddr::new(PEER_V4, 80 + u16::from(byte & 2)),
                    byte => SocketAddr::new(PEER_V6, 80 + u16::from(byte & 2)),
                };
                if let Ok(id) = self.stack.connect(now, remote, None, TcpOptions::default()) {
                    self.connections.push(id);
                }
            }
            13 => {
                if let Some(id) = self.connection(input) {
                    let len = usize::from(input.u16()) * usize::from(1 + input.u8() % 16);
                    let _ = self.stack.send(now, id, &vec![0x61; len]);
                }
            }
            14 => {
                if let Some(id) = self.connection(input) {
                    let mut buffer = vec![0; usize::from(input.u16())];
                    let _ = self.stack.recv(now, id, &mut buffer);
                }
            }
            15 => {
                if let Some(id) = self.connection(input) {
                    let flags = input.u8();
                    if flags & 1 == 0 {
                        let _ =
                            self.stack.send_bytes(now, id, Bytes::from(vec![0x62; usize::from(flags) * 9]));
                    } else {
                        let _ = self.stack.recv_chunk(now, id, usize::from(flags) * 9);
                    }
                }
            }
            16 => {
                if let Some(id) = self.connection(input) {
                    let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][usize::from(input.u8() % 3)];
                    let _ = self.stack.shutdown(now, id, how);
                }
            }
            17 => self.let_go(input),
            18 => {
                if let Some(id) = self.connection(input) {
                    let _ = self.stack.set_option(now, id, option(input));
                } else if let Some(id) = self.listeners.first() {
                    let _ = self.stack.set_listener_option(*id, option(input));
                }
            }
            19 => self.decide(input),
            20 => self.udp(input),
            21 => self.sysctl(input),
            22 => {
                self.mtu = 1280 + u32::from(input.u8()) * 16;
                self.stack.handle_link(now, self.mtu);
            }
            _ => self.look(input),
        }
    }

    fn raw_packet(&mut self, input: &mut Input<'_>) {
        let flags = input.u8();
        let len = usize::from(input.u16() % 2048);
        let mut packet = input.bytes(len).to_vec();
        if flags & 1 != 0 {
            repair_ipv4(&mut packet);
        }
        let meta = RxMeta { checksum_valid: flags & 2 != 0, segment_size: u16::from(flags) * 8, truesize: 0 };
        self.stack.handle_packet(self.now, Bytes::from(packet), meta);
    }

    fn local(&self, input: &mut Input<'_>) -> SocketAddr {
        let byte = input.u8();
        let address = [LOCAL_V4, LOCAL_V6, Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        SocketAddr::new(address[usize::from(byte & 3)], [80, 81, 82, 0][usize::from(byte >> 2 & 3)])
    }

    fn connection(&self, input: &mut Input<'_>) -> Option<ConnectionId> {
        let n = usize::from(input.u8());
        (!self.connections.is_empty()).then(|| self.connections[n % self.connections.len()])
    }

    /// A flow the stack has spoken on, or a new one.
    fn flow(&self, choice: u8) -> Flow {
        if choice & 0x80 == 0 && !self.flows.is_empty() {
            return self.flows[usize::from(choice) % self.flows.len()];
        }
        let (local, peer) = if choice & 1 == 0 { (LOCAL_V4, PEER_V4) } else { (LOCAL_V6, PEER_V6) };
        Flow {
            local: SocketAddr::new(local, 80 + u16::from(choice >> 1 & 3)),
            peer: SocketAddr::new(peer, 40_000 + u16::from(choice >> 3 & 7)),
            stack_end: SeqNum(0),
            stack_expects: SeqNum(5_000),
            tsval: None,
        }
    }

    /// A segment near what the stack expects.
    fn segment(&mut self, input: &mut Input<'_>) {
        const FLAGS: [Flags; 8] = [
            Flags::SYN,
            Flags::ACK,
            Flags(Flags::ACK.0 | Flags::PSH.0),
            Flags(Flags::SYN.0 | Flags::ACK.0),
            Flags(Flags::FIN.0 | Flags::ACK.0),
            Flags::RST,
            Flags(Flags::RST.0 | Flags::ACK.0),
            Flags(Flags::ACK.0 | Flags::URG.0 | Flags::ECE.0 | Flags::CWR.0),
        ];
        let flow = self.flow(input.u8());
        let shape = input.u8();
        let flags = if shape & 8 == 0 { FLAGS[usize::from(shape & 7)] } else { Flags(input.u16() & 0x1ff) };
        let distances = input.u8();
        let wnd = match shape >> 6 {
            0 => 0,
            1 => 65_535,
            _ => input.u16(),
        };
        let len = match shape >> 4 & 3 {
            0 => 0,
            1 => usize::from(input.u8()),
            2 => 1_400,
            _ => usize::from(input.u16() % 40_000),
        };
        let seq = flow.stack_expects + distance(distances >> 4, input);
        let mut options = Options::default();
        if flags.syn() {
            let bits = input.u8();
            options.mss = (bits & 1 != 0).then(|| u16::from(bits) * 12);
            options.wscale = (bits & 2 != 0).then_some(bits >> 4);
            options.sack_permitted = bits & 4 != 0;
        }
        // Old, current and wild timestamps.
        if let Some(tsecr) = flow.tsval.or(flags.syn().then_some(0)) {
            let tsval = (self.now.as_millis() as u32).wrapping_sub(u32::from(distances & 1) * 5_000);
            options.timestamps = Some(Timestamps { tsval, tsecr: tsecr.wrapping_add(u32::from(shape & 1)) });
        }
        if distances & 3 == 3 {
            let mut sack = SackBlocks::NONE;
            for _ in 0..input.u8() % 5 {
                let start = flow.stack_end - distance(input.u8() & 15, input);
                sack.push(SeqRange::new(start, start + u32::from(input.u16())));
            }
            options.sack = sack;
        }
        let header = SegmentHeader {
            src_port: flow.peer.port(),
            dst_port: flow.local.port(),
            seq,
            ack: flow.stack_end - distance(distances >> 2 & 15, input),
            flags,
            wnd,
            urg: u16::from(shape & 1) * 3,
            options,
        };
        let ip = IpFields {
            src: flow.peer.ip(),
            dst: flow.local.ip(),
            ttl: 64,
            tos: if flags.urg() { 3 } else { 0 },
            id: 0,
        };
        let mut packet = Transmit::default();
        packet.payload.push(Bytes::from(vec![0x63; len]));
        emit::tcp(&mut packet, &ip, &header);
        let segment_size = if len > 1_400 { 1_400 } else { 0 };
        let meta = RxMeta { checksum_valid: true, segment_size, truesize: 0 };
        let packet = Bytes::from(packet.to_vec());
        trace(|| format!("  in  {}", describe(&packet, meta)));
        self.stack.handle_packet(self.now, packet, meta);
    }

    fn icmp_error(&mut self, input: &mut Input<'_>) {
        let flow = self.flow(input.u8());
        let (shape, number) = (input.u8(), input.u16());
        let kind = match shape & 3 {
            0 => ErrorKind::PacketTooBig { mtu: u32::from(number) },
            1 => ErrorKind::TimeExceeded { code: 0 },
            _ => ErrorKind::Unreachable { code: shape >> 2 & 15 },
        };
        let about = SegmentHeader {
            src_port: flow.local.port(),
            dst_port: flow.peer.port(),
            seq: flow.stack_end - distance(shape >> 4, input),
            ..SegmentHeader::default()
        };
        let ip = IpFields { src: flow.local.ip(), dst: flow.peer.ip(), ttl: 9, tos: 0, id: 0 };
        let quoted = lastack_core::ip::icmp::quote_segment(&ip, &about);
        let back = IpFields { src: ip.dst, dst: ip.src, ..ip };
        let mut packet = Transmit::default();
        emit::icmp_error(&mut packet, &back, kind, quoted);
        self.stack.handle_packet(self.now, Bytes::from(packet.to_vec()), RxMeta::default());
    }

    fn let_go(&mut self, input: &mut Input<'_>) {
        let (n, how) = (usize::from(input.u8()), input.u8());
        if how & 7 == 7 {
            if !self.listeners.is_empty() {
                let id = self.listeners.swap_remove(n % self.listeners.len());
                self.stack.close_listener(self.now, id);
            }
            return;
        }
        if self.connections.is_empty() {
            return;
        }
        let id = self.connections.swap_remove(n % self.connections.len());
        match how & 7 {
            0 => self.stack.abort(self.now, id),
            1 => {
                if let Some(cookie) = self.stack.cookie(id) {
                    let _ = self.stack.kill(self.now, KillTarget::Cookie(cookie));
                }
                self.stack.close(self.now, id);
            }
            _ => self.stack.close(self.now, id),
        }
        // A dead id is refused, whatever it is asked for.
        assert_eq!(self.stack.tuple(id), None);
        assert!(self.stack.send(self.now, id, b"x").is_err());
    }

    fn decide(&mut self, input: &mut Input<'_>) {
        for listener in &self.listeners {
            if let Some(pending) = self.stack.next_pending(*listener) {
                self.pendings.push(pending.id);
            }
        }
        if self.pendings.is_empty() {
            return;
        }
        let (n, how) = (usize::from(input.u8()), input.u8());
        let id = self.pendings.swap_remove(n % self.pendings.len());
        let _ = match how & 7 {
            0 => self.stack.pending_refuse(self.now, id),
            1 => self.stack.pending_drop(self.now, id),
            2 => self.stack.pending_unreachable(self.now, id, Unreachable::Host),
            3 => self.stack.pending_unreachable(self.now, id, Unreachable::Prohibited),
            _ => self.stack.pending_accept(self.now, id),
        };
        // Twice is once too many: told so, not obeyed, not a panic.
        if how & 8 != 0 {
            let _ = self.stack.pending_refuse(self.now, id);
        }
    }

    fn udp(&mut self, input: &mut Input<'_>) {
        let shape = input.u8();
        match shape & 3 {
            0 if self.udps.len() < 4 => {
                let local = self.local(input);
                let id = if shape & 4 == 0 {
                    self.stack.udp_bind(self.now, local)
                } else {
                    self.stack.udp_bind_any(self.now)
                };
                self.udps.extend(id);
            }
            1 => {
                if let Some(id) = self.udps.first() {
                    let data = Bytes::from(vec![0x64; usize::from(input.u16()) % 1_200]);
                    let to = SocketAddr::new(if shape & 4 == 0 { PEER_V4 } else { PEER_V6 }, 53);
                    let from = (shape & 8 != 0).then(|| self.local(input));
                    let _ = self.stack.udp_send(self.now, *id, from, to, data);
                }
            }
            2 => {
                for id in &self.udps {
                    if let Ok(datagram) = self.stack.udp_recv(self.now, *id)
                        && shape & 4 != 0
                    {
                        self.stack.udp_unreachable(self.now, &datagram, Unreachable::Port);
                    }
                }
            }
            _ => {
                if let Some(id) = self.udps.pop() {
                    self.stack.udp_close(id);
                    assert_eq!(self.stack.udp_addr(id), None);
                }
            }
        }
    }

    fn sysctl(&mut self, input: &mut Input<'_>) {
        const NAMES: [&str; 12] = [
            "tcp_sack",
            "tcp_timestamps",
            "tcp_window_scaling",
            "tcp_syncookies",
            "tcp_abort_on_overflow",
            "tcp_rfc1337",
            "tcp_ecn",
            "tcp_recovery",
            "tcp_mtu_probing",
            "tcp_tw_reuse",
            "tcp_slow_start_after_idle",
            "tcp_no_such_setting",
        ];
        let name = NAMES[usize::from(input.u8()) % NAMES.len()];
        let value = (input.u8() % 4).to_string();
        if self.stack.sysctl_set(name, &value).is_ok() {
            assert!(self.stack.sysctl_get(name).is_ok());
        }
    }

    fn look(&mut self, input: &mut Input<'_>) {
        if let Some(id) = self.connection(input) {
            let _ = (self.stack.readiness(id), self.stack.life(id), self.stack.tcp_info(self.now, id));
            let _ = (self.stack.state(id), self.stack.options(id).is_some(), self.stack.take_error(id));
            let _ = (self.stack.send_space(id), self.stack.recv_available(id));
        }
        for listener in &self.listeners {
            let _ = self.stack.listener_addr(*listener);
        }
    }

    /// Runs the stack until it has nothing more to say now, and checks it.
    fn settle(&mut self) {
        for n in 0.. {
            assert!(n < ENDLESS, "a due timer does not go away");
            self.transmit();
            match self.stack.poll_timeout() {
                Some(due) if due <= self.now => self.stack.handle_timeout(self.now),
                _ => break,
            }
        }
        for n in 0.. {
            assert!(n < ENDLESS, "events without end");
            match self.stack.poll_event() {
                Some(SocketEvent::PendingDone(_, Ok(id))) => self.connections.push(id),
                Some(_) => {}
                None => break,
            }
        }
        while self.stack.poll_observed().is_some() {}
        let rows: Vec<_> = self.stack.sockets(self.now).collect();
        assert_eq!(rows.len(), self.stack.socket_count());
        let established = rows.iter().filter(|row| row.state.counts_as_established()).count();
        assert_eq!(established as u64, self.stack.counters().curr_estab);
    }

    fn transmit(&mut self) {
        let mut out = core::mem::take(&mut self.out);
        for n in 0.. {
            assert!(n < ENDLESS, "packets without end");
            if !self.stack.poll_transmit(self.now, &mut out) {
                break;
            }
            assert!(!out.is_empty() && out.len() <= 65_535);
            let mut cut = Segments::new(&out);
            while cut.next_packet(&mut self.buffer) {
                let packet = Bytes::copy_from_slice(&self.buffer);
                trace(|| format!("{:?} out {}", self.now, describe(&packet, RxMeta::default())));
                let parsed = parse(&packet, RxMeta::default()).expect("what the stack sends is valid");
                if let Body::Tcp(segment) = parsed.body {
                    assert!(packet.len() <= self.mtu.max(1280) as usize, "{} bytes", packet.len());
                    remember(&mut self.flows, &mut self.next_flow, &segment);
                }
            }
        }
        self.out = out;
    }

    /// Lets go of everything; then time alone must clear every table.
    fn end(mut self) {
        for id in core::mem::take(&mut self.listeners) {
            self.stack.close_listener(self.now, id);
        }
        for id in core::mem::take(&mut self.udps) {
            self.stack.udp_close(id);
        }
        self.settle();
        for n in 0.. {
            assert!(n < ENDLESS, "still there: {:?}", self.stack.sockets(self.now).collect::<Vec<_>>());
            for id in core::mem::take(&mut self.connections) {
                self.stack.close(self.now, id);
            }
            self.settle();
            let Some(due) = self.stack.poll_timeout() else { break };
            self.now = due;
            self.stack.handle_timeout(due);
        }
        let left: Vec<_> = self.stack.sockets(self.now).collect();
        assert!(left.is_empty(), "left: {left:?}");
        assert_eq!(self.stack.socket_count(), 0);
    }
}

/// Distances that lie on and around the edges of windows.
fn distance(choice: u8, input: &mut Input<'_>) -> u32 {
    match choice {
        0..=6 => 0,
        7 => 1,
        8 => 1u32.wrapping_neg(),
        9 => 1_400,
        10 => 1_400u32.wrapping_neg(),
        11 => u32::from(input.u8()),
        12 => 65_535,
        13 => 1 << 31,
        _ => u32::from(input.u16()).wrapping_sub(0x4000),
    }
}

fn option(input: &mut Input<'_>) -> TcpOption {
    let (kind, value) = (input.u8(), input.u8());
    let (on, n) = (value & 1 != 0, i32::from(value));
    match kind % 19 {
        0 => TcpOption::NoDelay(on),
        1 => TcpOption::Cork(on),
        2 => TcpOption::MaxSeg(n * 10),
        3 => TcpOption::KeepAlive(on),
        4 => TcpOption::KeepIdle(n),
        5 => TcpOption::KeepIntvl(n),
        6 => TcpOption::KeepCnt(n),
        7 => TcpOption::UserTimeout(n * 100),
        8 => TcpOption::Linger(on.then_some(u32::from(value >> 1))),
        9 => TcpOption::Linger2(n - 100),
        10 => TcpOption::DeferAccept(n),
        11 => TcpOption::WindowClamp(n * 1_000),
        12 => TcpOption::QuickAck(on),
        13 => TcpOption::Congestion(if on { CongestionKind::Reno } else { CongestionKind::Cubic }),
        14 => TcpOption::RcvBuf(n * 1_000),
        15 => TcpOption::SndBuf(n * 1_000),
        16 => TcpOption::RcvLowat(n * 100),
        17 => TcpOption::NotsentLowat(u32::from(value) * 100),
        _ => TcpOption::RtoMaxMs(n * 500),
    }
}

/// Keeps the few newest flows.
fn remember(flows: &mut Vec<Flow>, next: &mut usize, segment: &lastack_core::wire::segment::Segment) {
    const MAX_FLOWS: usize = 8;
    let header = &segment.header;
    let local = SocketAddr::new(segment.src, header.src_port);
    let peer = SocketAddr::new(segment.dst, header.dst_port);
    let place = match flows.iter().position(|flow| (flow.local, flow.peer) == (local, peer)) {
        Some(place) => place,
        None if flows.len() < MAX_FLOWS => {
            flows.push(Flow { local, peer, stack_end: SeqNum(0), stack_expects: SeqNum(5_000), tsval: None });
            flows.len() - 1
        }
        None => {
            *next = (*next + 1) % MAX_FLOWS;
            flows[*next] = Flow { local, peer, stack_expects: SeqNum(5_000), ..flows[*next] };
            *next
        }
    };
    let flow = &mut flows[place];
    flow.stack_end = segment.end_seq();
    if header.flags.ack() {
        flow.stack_expects = header.ack;
    }
    flow.tsval = header.options.timestamps.map(|timestamps| timestamps.tsval);
}
