//! ICMP as a host: which message answers which packet, what a received error means, what is noise.
//!
//! Owns:    echo replies, errors with their quotes, the rate limit for errors, the verdicts on received messages.
//! Rules:   RFC 1122 3.2.2, RFC 1812 4.3.2, RFC 4443 2.4, RFC 6069. Linux: `icmp_send()`, `icmp_err_convert`, `icmp6_send()`,
//!          `icmpv6_err_convert()`, `inet_peer_xrlim_allow()`, `net.ipv4.icmp_{ratelimit, msgs_per_sec, msgs_burst}`.
//! Differs: echo requests to multicast addresses are ignored for IPv6 too; timestamp requests are not answered.
//! Not here: the bytes (`wire::icmp`), finding the socket a quote belongs to (`stack`).

use core::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;

use crate::error::SocketError;
use crate::ip::by_address::ByAddress;
use crate::stack::Unreachable;
use crate::time::{Duration, Instant};
use crate::wire::icmp::{Echo, ErrorKind, Icmp, Version, unreachable};
use crate::wire::ip::protocol;
use crate::wire::segment::SegmentHeader;
use crate::wire::transmit::Transmit;
use crate::wire::{Body, IpFields, IpHeader, Packet, emit};

/// RFC 1812 4.3.2.3: as much of the packet as fits in 576 bytes with the new headers.
const MAX_QUOTE_V4: usize = 576 - 20 - 8;
/// RFC 4443 2.4(c): as much of the packet as fits in the least MTU.
const MAX_QUOTE_V6: usize = 1280 - 40 - 8;

/// TTL and hop limit of what this module sends (Linux `ip_default_ttl`).
const TTL: u8 = 64;

/// Composes the answer to an echo request that came with header `ip`.
pub fn echo_reply(out: &mut Transmit, ip: &IpHeader, echo: &Echo, id: u16) {
    // Linux: icmp_reply(): the same TOS back.
    let fields = IpFields { src: ip.dst, dst: ip.src, ttl: TTL, tos: ip.tos, id };
    emit::icmp(out, &fields, &Icmp::EchoReply(echo.clone()));
}

/// Composes an error about `packet`, whose header is `ip`, to its source. `from`: one of our addresses.
///
/// Ask [`may_be_answered`] and [`RateLimit::allow`] first.
pub fn error(out: &mut Transmit, packet: &Bytes, ip: &IpHeader, kind: ErrorKind, from: IpAddr, id: u16) {
    let (tos, max) = match ip.src {
        // Linux: icmp_send(): RT_TOS(iph->tos) | IPTOS_PREC_INTERNETCONTROL, without ECN.
        IpAddr::V4(_) => (ip.tos & 0x1c | 0xc0, MAX_QUOTE_V4),
        IpAddr::V6(_) => (0, MAX_QUOTE_V6),
    };
    let quoted = packet.slice(..packet.len().min(ip.total_len as usize).min(max));
    let fields = IpFields { src: from, dst: ip.src, ttl: TTL, tos, id };
    emit::icmp_error(out, &fields, kind, quoted);
}

/// The head of a segment that was received and is not kept, in wire form: for the quote of an error about it.
///
/// `ip` as the segment came: its source, its destination.
pub fn quote_segment(ip: &IpFields, header: &SegmentHeader) -> Bytes {
    let mut out = Transmit::default();
    emit::tcp(&mut out, ip, header);
    out.finish_checksum();
    Bytes::from(out.head)
}

/// A datagram that was received and is kept only as payload, in wire form: for the quote of an error about it.
pub fn quote_datagram(ip: &IpFields, src_port: u16, dst_port: u16, payload: Bytes) -> Bytes {
    let mut out = Transmit { payload: vec![payload], ..Transmit::default() };
    emit::udp(&mut out, ip, src_port, dst_port);
    out.finish_checksum();
    Bytes::from(out.to_vec())
}

/// An echo request that was received, in wire form: for the quote of an error about it.
pub fn quote_echo(ip: &IpFields, echo: Echo) -> Bytes {
    let mut out = Transmit::default();
    emit::icmp(&mut out, ip, &Icmp::EchoRequest(echo));
    Bytes::from(out.to_vec())
}

/// RFC 1122 3.2.2, RFC 4443 2.4(e): no error about an error, about what was sent to many, or to nobody in particular.
///
/// Later fragments (no error about these either) never come here: they have no verdict until they are whole.
pub fn may_be_answered(packet: &Packet) -> bool {
    let is_icmp = matches!(packet.body, Body::Icmp(Icmp::Error { .. } | Icmp::Other { .. }));
    !is_icmp && !packet.ip.src.is_unspecified() && !is_for_many(packet.ip.dst)
}

/// The error that says `why` for this IP version.
pub fn unreachable(version: Version, why: Unreachable) -> ErrorKind {
    let code = match (version, why) {
        (Version::V4, Unreachable::Net) => unreachable::NET_V4,
        (Version::V4, Unreachable::Host) => unreachable::HOST_V4,
        (Version::V4, Unreachable::Port) => unreachable::PORT_V4,
        (Version::V4, Unreachable::Prohibited) => unreachable::PROHIBITED_V4,
        (Version::V6, Unreachable::Net) => unreachable::NO_ROUTE_V6,
        (Version::V6, Unreachable::Host) => unreachable::ADDRESS_V6,
        (Version::V6, Unreachable::Port) => unreachable::PORT_V6,
        (Version::V6, Unreachable::Prohibited) => unreachable::PROHIBITED_V6,
        (_, Unreachable::TooBig { mtu }) => return ErrorKind::PacketTooBig { mtu },
    };
    ErrorKind::Unreachable { code }
}

/// The error for a protocol nobody speaks: protocol unreachable, or (IPv6) unrecognised next header in the fixed header.
pub fn protocol_unreachable(version: Version) -> ErrorKind {
    match version {
        Version::V4 => ErrorKind::Unreachable { code: unreachable::PROTOCOL_V4 },
        // RFC 4443 3.4, code 1; the field's place is 6 where no extension header comes before.
        Version::V6 => ErrorKind::ParameterProblem { code: 1, pointer: 6 },
    }
}

/// What a received error means to the socket its quote belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meaning {
    /// What the application is told, at once or when the connection is given up.
    pub error: SocketError,
    /// Linux's `fatal`/`harderr`: a UDP socket is told only of these. TCP does not look at it: an error ends a
    /// connection attempt and is soft for an established connection.
    pub is_hard: bool,
    /// RFC 6069: the network said that it dropped the segment, one step of RTO back-off may be taken back.
    pub reverts_backoff: bool,
}

/// The meaning of an error, or `None` where it is for somebody else: path MTU discovery, or nobody.
pub fn meaning(version: Version, kind: ErrorKind) -> Option<Meaning> {
    use SocketError::{
        ConnectionRefused, HostDown, HostIsolated, HostUnreachable, NetworkUnreachable, PermissionDenied,
        ProtocolError, ProtocolUnreachable, SourceRouteFailed,
    };
    let (error, is_hard) = match (version, kind) {
        (_, ErrorKind::PacketTooBig { .. }) => return None,
        (_, ErrorKind::TimeExceeded { .. }) => (HostUnreachable, false),
        (_, ErrorKind::ParameterProblem { .. }) => (ProtocolError, true),
        // Linux: icmp_err_convert[].
        (Version::V4, ErrorKind::Unreachable { code }) => match code {
            0 | 11 => (NetworkUnreachable, false),
            1 | 12 => (HostUnreachable, false),
            2 => (ProtocolUnreachable, true),
            3 => (ConnectionRefused, true),
            5 => (SourceRouteFailed, false),
            6 | 9 => (NetworkUnreachable, true),
            7 => (HostDown, true),
            8 => (HostIsolated, true),
            10 | 13 | 14 | 15 => (HostUnreachable, true),
            _ => return None,
        },
        // Linux: icmpv6_err_convert(), tab_unreach[].
        (Version::V6, ErrorKind::Unreachable { code }) => match code {
            0 => (NetworkUnreachable, false),
            1 | 5 | 6 => (PermissionDenied, true),
            2 | 3 => (HostUnreachable, false),
            4 => (ConnectionRefused, true),
            _ => (ProtocolError, true),
        },
    };
    // Linux: tcp_v4_err() for net and host unreachable, tcp_v6_err() for no route.
    let reverts_backoff = match version {
        Version::V4 => matches!(kind, ErrorKind::Unreachable { code: 0 | 1 }),
        Version::V6 => matches!(kind, ErrorKind::Unreachable { code: 0 }),
    };
    Some(Meaning { error, is_hard, reverts_backoff })
}

/// What every link carries and this stack ignores on purpose: multicast and broadcast, neighbour and router discovery,
/// listener reports, duplicate address detection.
///
/// A TUN device has no link layer, so nobody there needs an answer to find us.
pub fn is_link_noise(packet: &Packet) -> bool {
    let IpHeader { src, dst, protocol, .. } = packet.ip;
    let is_discovery = match (&packet.body, Version::of(src)) {
        // Redirect, router advertisement and solicitation.
        (Body::Icmp(Icmp::Other { kind, .. }), Version::V4) => matches!(kind, 5 | 9 | 10),
        // MLD, neighbour discovery, redirect, MLDv2, multicast router discovery.
        (Body::Icmp(Icmp::Other { kind, .. }), Version::V6) => matches!(kind, 130..=137 | 143 | 151..=153),
        _ => protocol == protocol::IGMP && src.is_ipv4(),
    };
    is_discovery || is_for_many(dst) || src.is_unspecified()
}

/// Multicast or limited broadcast. Nobody's address (`0.0.0.0`, `::`) counts as everybody's.
fn is_for_many(address: IpAddr) -> bool {
    address.is_multicast() || address.is_unspecified() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// How fast errors may be sent: so many to one destination, so many in all.
///
/// Linux's idea and defaults. Echo replies and packet-too-big are never limited; an answer that a program decided on
/// (a refused SYN) is not to be asked for here.
#[derive(Debug)]
pub struct RateLimit {
    /// Time: when the bucket was last taken from.
    destinations: ByAddress<Duration>,
    all: (Instant, Duration),
}

/// Linux `net.ipv4.icmp_ratelimit`: time between two errors to one destination once the burst is used up.
const ONE_EVERY_V4: Duration = Duration::from_secs(1);
/// Linux `net.ipv6.icmp.ratelimit`, 100 ms on 6.18.
const ONE_EVERY_V6: Duration = Duration::from_millis(100);
/// Linux `XRLIM_BURST_FACTOR`: errors to one destination after a pause.
const BURST: u32 = 6;
/// Linux `icmp_msgs_per_sec`, 1000: one a millisecond in all.
const ALL_ONE_EVERY: Duration = Duration::from_millis(1);
/// Linux `icmp_msgs_burst`.
const ALL_BURST: u32 = 50;
/// Destinations remembered; more forget the one that got its error the longest ago.
const MAX_DESTINATIONS: usize = 1024;

impl RateLimit {
    /// Full buckets.
    pub fn new(now: Instant) -> Self {
        Self { destinations: ByAddress::new(MAX_DESTINATIONS), all: (now, ALL_ONE_EVERY * ALL_BURST) }
    }

    /// True when an error of `kind` may go to `destination` now; it is counted as sent.
    pub fn allow(&mut self, now: Instant, destination: IpAddr, kind: ErrorKind) -> bool {
        if matches!(kind, ErrorKind::PacketTooBig { .. }) {
            return true;
        }
        let one_every = if destination.is_ipv4() { ONE_EVERY_V4 } else { ONE_EVERY_V6 };
        let full = one_every * BURST;
        let (last, saved) =
            self.destinations.get(destination).map_or((now, full), |(last, saved)| (last, *saved));
        // Time saved up pays for messages: as many as fit, never more than the burst.
        let saved = (saved + now.saturating_since(last)).min(full);
        let all = (self.all.1 + now.saturating_since(self.all.0)).min(ALL_ONE_EVERY * ALL_BURST);
        let (Some(saved), Some(all)) = (saved.checked_sub(one_every), all.checked_sub(ALL_ONE_EVERY)) else {
            return false;
        };
        self.destinations.set(destination, now, saved);
        self.all = (now, all);
        true
    }
}

#[cfg(test)]
mod tests;
