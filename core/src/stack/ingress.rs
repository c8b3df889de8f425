//! The way in: one packet, from the link to its socket.
//!
//! Input:   bytes with what the device says about them.
//! Rules:   specification 5.1: count, parse, reassemble, one lookup, listener, else a reset. Linux: `ip_rcv`, `tcp_v4_rcv`,
//!          `udp_rcv`, `icmp_rcv`.
//! Differs: a segment for our own source address is dropped as if it had come from outside: a stack has no loopback.

use core::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::error::{QueuedError, SocketError, UdpError};
use crate::id::FourTuple;
use crate::ip::{icmp, pmtu};
use crate::observe::life::Ending;
use crate::observe::{DropReason, Event, EventKind, EventMask, ResetReason};
use crate::ping::Ping;
use crate::stack::demux::{SocketKey, SocketKind};
use crate::stack::notices::Notice;
use crate::stack::sockets::{Holder, NOT_PENDING};
use crate::stack::tuple::Packed;
use crate::stack::{Datagram, Stack};
use crate::tcp::connection::{Disposition, IcmpError};
use crate::tcp::half_open::HalfOpenVerdict;
use crate::tcp::reset::answer_with_reset;
use crate::tcp::seq::SeqNum;
use crate::tcp::time_wait::TimeWaitVerdict;
use crate::time::Instant;
use crate::udp::Delivery;
use crate::wire::icmp::{Echo, ErrorKind, Icmp, Quote, Version};
use crate::wire::ip::protocol;
use crate::wire::segment::Segment;
use crate::wire::transmit::RxMeta;
use crate::wire::{self, Body, IpHeader, Packet};

/// A segment as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) segment: &'a Segment,
    /// Its packet, from the IP header to the end of the TCP options.
    pub(crate) headers: &'a [u8],
}

impl Stack {
    pub(crate) fn on_packet(&mut self, now: Instant, packet: &Bytes, meta: RxMeta) {
        self.world.counters.ip_in_receives += 1;
        match wire::parse(packet, meta) {
            Ok(parsed) => {
                self.count_ecn(&parsed);
                self.on_parsed(now, packet, parsed);
            }
            Err(reason) => self.drop_unparsed(now, reason),
        }
    }

    /// Linux `ip_rcv_core`: a super-segment counts as the packets it was.
    fn count_ecn(&mut self, packet: &Packet) {
        let counters = &mut self.world.counters;
        let counter = match packet.ip.ecn() {
            0 => &mut counters.ip_in_no_ect_pkts,
            1 => &mut counters.ip_in_ect1_pkts,
            2 => &mut counters.ip_in_ect0_pkts,
            _ => &mut counters.ip_in_ce_pkts,
        };
        *counter += match &packet.body {
            Body::Tcp(segment) => u64::from(segment.segs),
            _ => 1,
        };
    }

    fn on_parsed(&mut self, now: Instant, bytes: &Bytes, packet: Packet) {
        let IpHeader { src, dst, .. } = packet.ip;
        if icmp::is_link_noise(&packet) || self.link.is_broadcast(dst) {
            self.world.counters.link_noise += 1;
            return self.drop_packet(now, &packet, DropReason::LinkNoise);
        }
        if !self.link.accepts(dst) {
            self.world.counters.ip_in_addr_errors += 1;
            return self.drop_packet(now, &packet, DropReason::NotLocal);
        }
        if dst.is_loopback() && !self.link.is_own(dst) {
            return self.drop_martian_destination(now, &packet);
        }
        if self.link.is_own(src) || self.link.is_broadcast(src) || (src.is_loopback() && !dst.is_loopback()) {
            // Linux: a martian source.
            self.world.counters.ip_in_addr_errors += 1;
            return self.drop_packet(now, &packet, DropReason::InvalidSource);
        }
        match packet.body {
            Body::Tcp(segment) => {
                self.world.counters.ip_in_delivers += 1;
                self.world.counters.in_segs += u64::from(segment.segs);
                let tuple = FourTuple {
                    local: SocketAddr::new(dst, segment.header.dst_port),
                    remote: SocketAddr::new(src, segment.header.src_port),
                };
                let end = packet.ip.total_len as usize - segment.payload.len();
                self.on_tcp(now, tuple, Arrival { segment: &segment, headers: &bytes[..end] });
            }
            Body::Udp(ref datagram) => {
                self.world.counters.ip_in_delivers += 1;
                self.on_udp(now, bytes, &packet, datagram);
            }
            Body::Icmp(ref message) => {
                self.world.counters.ip_in_delivers += 1;
                self.world.counters.icmp_in_msgs += 1;
                self.on_icmp(now, &packet.ip, message);
            }
            Body::Fragment(ref fragment) => {
                self.world.counters.ip_reasm_reqds += 1;
                match self.link.fragments.push(now, bytes, &packet.ip, fragment) {
                    Ok(None) => {}
                    Ok(Some(whole)) => {
                        self.world.counters.ip_reasm_oks += 1;
                        match wire::parse(&whole, RxMeta::default()) {
                            // A reassembled packet is whole: it cannot be a fragment once more.
                            Ok(Packet { body: Body::Fragment(_), .. }) => {
                                self.drop_unparsed(now, DropReason::FragReassembly);
                            }
                            Ok(parsed) => self.on_parsed(now, &whole, parsed),
                            Err(reason) => self.drop_unparsed(now, reason),
                        }
                    }
                    Err(reason) => {
                        self.world.counters.ip_reasm_fails += 1;
                        self.drop_packet(now, &packet, reason);
                    }
                }
            }
            Body::Other(_) => {
                self.world.counters.ip_in_unknown_protos += 1;
                self.answer_with_icmp(now, bytes, &packet, icmp::protocol_unreachable(Version::of(src)));
                self.drop_packet(now, &packet, DropReason::IpNoProto);
            }
        }
    }

    // ---- TCP

    /// One segment of a pair: the table, else a listener, else nobody.
    #[inline]
    pub(crate) fn on_tcp(&mut self, now: Instant, tuple: FourTuple, arrival: Arrival<'_>) {
        let Some(packed) = Packed::new(&tuple) else { return };
        let Some(key) = self.sockets.find(&packed) else {
            return self.on_listener_segment(now, &packed, &tuple, arrival);
        };
        let segment = arrival.segment;
        match key.kind() {
            SocketKind::Connection => {
                let id = self.sockets.connection_id(key);
                let Some(socket) = self.sockets.connection_mut(id) else { return };
                if socket.connection.options().is_from_too_far(segment) {
                    self.world.counters.tcp_min_ttl_drop += 1;
                    return;
                }
                let disposition = socket.connection.on_segment(segment, &mut self.world.cx(now));
                self.settle(now, id, disposition);
            }
            SocketKind::HalfOpenV4 | SocketKind::HalfOpenV6 => {
                self.on_half_open_segment(now, key, &packed, &tuple, arrival);
            }
            SocketKind::TimeWaitV4 | SocketKind::TimeWaitV6 => {
                self.on_time_wait_segment(now, key, &packed, &tuple, arrival);
            }
        }
    }

    /// No socket has the pair: perhaps one listens (Linux `tcp_rcv_state_process`, case TCP_LISTEN).
    fn on_listener_segment(
        &mut self,
        now: Instant,
        packed: &Packed,
        tuple: &FourTuple,
        arrival: Arrival<'_>,
    ) {
        let segment = arrival.segment;
        let Some(id) = self.listeners.find(tuple.local, self.sockets.hash(packed)) else {
            return self.no_socket(now, tuple, segment);
        };
        let flags = segment.header.flags;
        let is_any = self.listeners.get(id).is_some_and(|listener| listener.any.is_some());
        if self.listeners.get(id).is_some_and(|listener| listener.options.is_from_too_far(segment)) {
            self.world.counters.tcp_min_ttl_drop += 1;
        } else if flags.rst() {
            // RFC 9293 3.10.7.2: "An incoming RST segment could not be valid […] and should be ignored."
            self.world.cx(now).drop_segment(0, tuple, DropReason::TcpReset);
        } else if flags.ack() {
            if !flags.syn() && !is_any && self.on_cookie_ack(now, id, packed, tuple, segment) {
                return;
            }
            // "Any acknowledgment is bad if it arrives on a connection still in the LISTEN state."
            let reason = if is_any { ResetReason::NoSocket } else { ResetReason::Flags };
            self.world.cx(now).drop_segment(0, tuple, DropReason::TcpFlags);
            answer_with_reset(0, tuple, segment, reason, &mut self.world.cx(now));
        } else if !flags.syn() || flags.fin() {
            // Linux: SYN with FIN is dropped silently, as is anything that is neither SYN nor ACK nor RST.
            self.world.cx(now).drop_segment(0, tuple, DropReason::TcpFlags);
        } else if is_any {
            self.on_any_syn(now, id, packed, tuple, arrival, None);
        } else {
            self.on_syn(now, id, packed, tuple, arrival, None);
        }
    }

    /// Specification 1.10 and 13.11.
    fn no_socket(&mut self, now: Instant, tuple: &FourTuple, segment: &Segment) {
        let mut cx = self.world.cx(now);
        cx.drop_segment(0, tuple, DropReason::NoSocket);
        answer_with_reset(0, tuple, segment, ResetReason::NoSocket, &mut cx);
    }

    fn on_half_open_segment(
        &mut self,
        now: Instant,
        key: SocketKey,
        packed: &Packed,
        tuple: &FourTuple,
        arrival: Arrival<'_>,
    ) {
        let segment = arrival.segment;
        let Some(found) = self.sockets.half_open_mut(key) else { return };
        let (id, cookie, pending) = (found.listener, found.cookie, *found.pending);
        if pending != NOT_PENDING && self.on_undecided_segment(now, key, tuple, arrival) {
            return;
        }
        let Some(listener) = self.listeners.get_mut(id) else {
            // Specification 1.8: the listener closed, the request simply stopped.
            self.sockets.remove_half_open(key);
            return self.on_listener_segment(now, packed, tuple, arrival);
        };
        let Some(found) = self.sockets.half_open_mut(key) else { return };
        let half_open = found.half_open;
        let verdict =
            half_open.on_segment(cookie, tuple, segment, &listener.options, false, &mut self.world.cx(now));
        match verdict {
            HalfOpenVerdict::Keep => {
                let deadline = half_open.deadline;
                self.sockets.deadlines.file(key, deadline);
            }
            HalfOpenVerdict::Kill => self.end_half_open(key, SocketError::ConnectionReset),
            HalfOpenVerdict::Complete if pending == NOT_PENDING && listener.accept_queue_is_full() => {
                if half_open.on_accept_overflow(cookie, tuple, segment, &mut self.world.cx(now)) {
                    self.end_half_open(key, SocketError::ConnectionAborted);
                }
            }
            HalfOpenVerdict::Complete => {
                let Some((half_open, _)) = self.sockets.finish_half_open(key) else { return };
                listener.half_open_gone(&half_open);
                let holder = if pending == NOT_PENDING { Holder::AcceptQueue(id) } else { Holder::App };
                let setup = self.child_setup(now, &half_open, cookie, tuple);
                let child = self.child(now, id, &setup, &half_open, &segment.header, holder);
                let Some(child) = child else { return };
                if pending == NOT_PENDING {
                    self.enqueue_child(id, child);
                } else {
                    // The application learns the id first, then what it is ready for.
                    self.pending_done(pending, Ok(child));
                }
                self.first_segment(now, child, segment);
            }
        }
    }

    /// A new child takes the segment that finished its handshake.
    pub(crate) fn first_segment(&mut self, now: Instant, child: crate::id::ConnectionId, segment: &Segment) {
        let Some(socket) = self.sockets.connection_mut(child) else { return };
        let disposition = socket.connection.on_segment(segment, &mut self.world.cx(now));
        self.settle(now, child, disposition);
    }

    /// Forgets a half-open connection that came to nothing.
    pub(crate) fn end_half_open(&mut self, key: SocketKey, error: SocketError) {
        let Some(found) = self.sockets.half_open_mut(key) else { return };
        let pending = *found.pending;
        let Some((half_open, listener)) = self.sockets.remove_half_open(key) else { return };
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.half_open_gone(&half_open);
        }
        if pending != NOT_PENDING {
            self.pending_done(pending, Err(error));
        }
    }

    fn on_time_wait_segment(
        &mut self,
        now: Instant,
        key: SocketKey,
        packed: &Packed,
        tuple: &FourTuple,
        arrival: Arrival<'_>,
    ) {
        let segment = arrival.segment;
        let hash = self.sockets.hash(packed);
        let Some(found) = self.sockets.time_wait_mut(key) else { return };
        let cookie = found.cookie;
        match found.mini.on_segment(cookie, tuple, segment, &mut self.world.cx(now)) {
            TimeWaitVerdict::Keep => {
                let (expires, waits_for_fin) = (found.mini.expires, found.mini.is_fin_wait_2());
                self.sockets.deadlines.file(key, expires);
                if !waits_for_fin {
                    self.end_life(now, key, Ending::Fin);
                }
            }
            TimeWaitVerdict::Kill => {
                let reset = segment.header.flags.rst();
                let sent = Ending::ResetSent(ResetReason::TimeWaitSocket);
                self.end_life(now, key, if reset { Ending::ResetReceived } else { sent });
                self.remove_time_wait(key);
            }
            TimeWaitVerdict::NewSyn { iss } => {
                let Some(id) = self.listeners.find(tuple.local, hash) else {
                    found.mini.ack_syn(tuple, &mut self.world.cx(now));
                    return;
                };
                if segment.header.flags.fin() {
                    self.world.cx(now).drop_segment(cookie, tuple, DropReason::TcpFlags);
                } else if self.listeners.get(id).is_some_and(|listener| listener.any.is_some()) {
                    self.on_any_syn(now, id, packed, tuple, arrival, Some((key, iss)));
                } else {
                    self.remove_time_wait(key);
                    self.on_syn(now, id, packed, tuple, arrival, Some(iss));
                }
            }
        }
    }

    // ---- UDP

    fn on_udp(&mut self, now: Instant, bytes: &Bytes, packet: &Packet, datagram: &wire::Datagram) {
        let from = SocketAddr::new(packet.ip.src, datagram.src_port);
        let to = SocketAddr::new(packet.ip.dst, datagram.dst_port);
        let headers = if to.is_ipv4() { 28 } else { 48 };
        for data in datagram.payloads() {
            // What the link does not carry came in fragments.
            let dont_fragment = packet.ip.dont_fragment && data.len() + headers <= self.link.mtu as usize;
            match self.udp.deliver(Datagram { from, to, data, dont_fragment }) {
                Delivery::Queued(id, is_new) => {
                    self.world.counters.udp_in_datagrams += 1;
                    if is_new {
                        self.notices.push(Notice::Udp(id));
                    }
                }
                Delivery::Full => {
                    self.world.counters.udp_in_errors += 1;
                    self.world.counters.udp_rcvbuf_errors += 1;
                    self.drop_packet(now, packet, DropReason::ReceiveBuffer);
                }
                Delivery::NoSocket => {
                    self.world.counters.udp_no_ports += 1;
                    let kind = icmp::unreachable(Version::of(packet.ip.src), super::Unreachable::Port);
                    self.answer_with_icmp(now, bytes, packet, kind);
                    return self.drop_packet(now, packet, DropReason::NoSocket);
                }
            }
        }
    }

    // ---- ICMP

    fn on_icmp(&mut self, now: Instant, ip: &IpHeader, message: &Icmp) {
        match message {
            Icmp::EchoRequest(echo) => {
                self.world.counters.icmp_in_echos += 1;
                let Echo { ident, seq, payload } = echo.clone();
                if self.link.is_own(ip.dst) {
                    self.send_echo_reply(*ip, Echo { ident, seq, payload });
                } else if self.pings.push(Ping { from: ip.src, to: ip.dst, ident, seq, payload }) {
                    self.notices.push(Notice::Ping);
                }
            }
            Icmp::Error { kind, quote } => {
                if matches!(kind, ErrorKind::Unreachable { .. } | ErrorKind::PacketTooBig { .. }) {
                    self.world.counters.icmp_in_dest_unreachs += 1;
                }
                match quote {
                    Some(quote) => self.on_icmp_error(now, *kind, quote),
                    None => self.world.counters.icmp_in_errors += 1,
                }
            }
            Icmp::EchoReply(_) | Icmp::Other { .. } => {}
        }
    }

    /// An error about a packet that we sent, as far as we know.
    fn on_icmp_error(&mut self, now: Instant, kind: ErrorKind, quote: &Quote) {
        let tuple = FourTuple {
            local: SocketAddr::new(quote.src, quote.src_port),
            remote: SocketAddr::new(quote.dst, quote.dst_port),
        };
        let matched = match (quote.protocol, quote.seq) {
            (protocol::TCP, Some(seq)) => self.on_tcp_error(now, &tuple, seq, kind, quote.len),
            (protocol::UDP, _) => self.on_udp_error(now, &tuple, kind),
            _ => false,
        };
        if !matched {
            self.world.cx(now).drop_segment(0, &tuple, DropReason::IcmpUnmatched);
        }
    }

    fn on_tcp_error(
        &mut self,
        now: Instant,
        tuple: &FourTuple,
        seq: SeqNum,
        kind: ErrorKind,
        quoted: u16,
    ) -> bool {
        let version = Version::of(tuple.remote.ip());
        let Some(key) = Packed::new(tuple).and_then(|packed| self.sockets.find(&packed)) else {
            self.world.counters.icmp_in_errors += 1;
            return false;
        };
        match key.kind() {
            SocketKind::Connection => {
                let (remote, link_mtu) = (tuple.remote.ip(), self.link.mtu);
                let error = match kind {
                    ErrorKind::PacketTooBig { mtu } => {
                        // One without effect is judged by its sequence number all the same.
                        IcmpError::PacketTooBig(pmtu::plausible(remote, mtu).unwrap_or(link_mtu))
                    }
                    _ => match icmp::meaning(version, kind) {
                        Some(meaning) => IcmpError::Error(meaning.error, meaning.reverts_backoff),
                        None => return false,
                    },
                };
                let id = self.sockets.connection_id(key);
                let Some(socket) = self.sockets.connection_mut(id) else { return false };
                let outside = self.world.counters.out_of_window_icmps;
                let counts = match error {
                    IcmpError::PacketTooBig(mtu) => socket.connection.is_narrowed_by(mtu, &self.world.sysctl),
                    IcmpError::Error(..) => true,
                };
                let disposition = socket.connection.on_icmp(seq, error, &mut self.world.cx(now));
                if let (IcmpError::Error(error, _), Disposition::Closed) = (error, &disposition) {
                    socket.connection.queue_error(QueuedError { error, version, kind, quoted });
                }
                // What the connection did not believe is not remembered for others either.
                if let ErrorKind::PacketTooBig { mtu } = kind
                    && counts
                    && self.world.counters.out_of_window_icmps == outside
                {
                    self.link.paths.on_too_big(now, remote, mtu, link_mtu);
                }
                self.settle(now, id, disposition);
                true
            }
            SocketKind::HalfOpenV4 | SocketKind::HalfOpenV6 => {
                // Linux: tcp_req_err(): the SYN-ACK cannot arrive.
                let Some(found) = self.sockets.half_open_mut(key) else { return false };
                if seq != found.half_open.iss {
                    self.world.counters.out_of_window_icmps += 1;
                } else if is_fatal_for_request(version, kind) {
                    self.world.counters.listen_drops += 1;
                    let error =
                        icmp::meaning(version, kind).map_or(SocketError::HostUnreachable, |m| m.error);
                    self.end_half_open(key, error);
                }
                true
            }
            SocketKind::TimeWaitV4 | SocketKind::TimeWaitV6 => true,
        }
    }

    fn on_udp_error(&mut self, now: Instant, tuple: &FourTuple, kind: ErrorKind) -> bool {
        let remote = tuple.remote.ip();
        if let ErrorKind::PacketTooBig { mtu } = kind {
            if self.udp.uses_port(tuple.local.port()) {
                self.link.paths.on_too_big(now, remote, mtu, self.link.mtu);
            }
            return true;
        }
        let Some(meaning) = icmp::meaning(Version::of(remote), kind) else { return false };
        if meaning.is_hard {
            let error = match meaning.error {
                SocketError::ConnectionRefused => UdpError::ConnectionRefused,
                _ => UdpError::HostUnreachable,
            };
            if let Some(id) = self.udp.fail(tuple.local, error) {
                self.notices.push(Notice::Udp(id));
            }
        }
        true
    }

    // ---- drops

    fn drop_unparsed(&mut self, now: Instant, reason: DropReason) {
        let counters = &mut self.world.counters;
        match reason {
            DropReason::TcpChecksum => {
                counters.in_segs += 1;
                counters.in_errs += 1;
                counters.in_csum_errors += 1;
            }
            DropReason::TcpHeader => {
                counters.in_segs += 1;
                counters.in_errs += 1;
            }
            DropReason::UdpChecksum => {
                counters.udp_in_errors += 1;
                counters.udp_in_csum_errors += 1;
            }
            DropReason::IcmpChecksum => {
                counters.icmp_in_msgs += 1;
                counters.icmp_in_errors += 1;
            }
            DropReason::InvalidSource => counters.ip_in_addr_errors += 1,
            _ => counters.ip_in_hdr_errors += 1,
        }
        self.world.events.emit(EventMask::DROP, || Event {
            at: now,
            cookie: 0,
            tuple: None,
            kind: EventKind::Drop(reason),
        });
    }

    /// Linux: `ip_route_input_slow()`, `ip6_rcv_core()`. What came from outside is not for this host's inside, whoever takes
    /// every address: a program in front that connects where a SYN wanted to go would connect to its own loopback.
    fn drop_martian_destination(&mut self, now: Instant, packet: &Packet) {
        let counters = &mut self.world.counters;
        counters.martian_destinations += 1;
        // RFC 4291 2.5.3: "A packet received on an interface with a destination address of loopback must be dropped."
        let reason = match packet.ip.dst {
            IpAddr::V4(_) => DropReason::LocalNet,
            IpAddr::V6(_) => {
                counters.ip_in_hdr_errors += 1;
                DropReason::IpHeader
            }
        };
        self.drop_packet(now, packet, reason);
    }

    /// Records a packet dropped before any socket; ports where it has some.
    fn drop_packet(&mut self, now: Instant, packet: &Packet, reason: DropReason) {
        let (src, dst) = (packet.ip.src, packet.ip.dst);
        self.world.events.emit(EventMask::DROP, || {
            let (src_port, dst_port) = match &packet.body {
                Body::Tcp(segment) => (segment.header.src_port, segment.header.dst_port),
                Body::Udp(datagram) => (datagram.src_port, datagram.dst_port),
                Body::Icmp(_) | Body::Fragment(_) | Body::Other(_) => (0, 0),
            };
            let tuple =
                FourTuple { local: SocketAddr::new(dst, dst_port), remote: SocketAddr::new(src, src_port) };
            Event { at: now, cookie: 0, tuple: Some(tuple), kind: EventKind::Drop(reason) }
        });
    }

    /// Sends an ICMP error about a packet, where one may be sent and the rate allows it.
    fn answer_with_icmp(&mut self, now: Instant, bytes: &Bytes, packet: &Packet, kind: ErrorKind) {
        let (src, dst): (IpAddr, IpAddr) = (packet.ip.src, packet.ip.dst);
        if icmp::may_be_answered(packet) && self.link.icmp_rate.allow(now, src, kind) {
            self.queue_icmp_error(bytes.clone(), packet.ip, kind, dst);
        }
    }
}

/// Linux `tcp_v4_err`: errors that end a request; port and protocol unreachable do not.
fn is_fatal_for_request(version: Version, kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::ParameterProblem { .. } | ErrorKind::TimeExceeded { .. } => true,
        ErrorKind::Unreachable { code } => match version {
            Version::V4 => code <= 1,
            Version::V6 => code == 0 || code == 3,
        },
        ErrorKind::PacketTooBig { .. } => false,
    }
}
