//! ICMP for both IP versions, as one vocabulary.
//!
//! Owns:    parse and emit of echo, unreachable, packet too big, time exceeded and parameter problem; the parser of
//!          what an error quotes.
//! Rules:   RFC 792, RFC 1191 4, RFC 4443. Linux: `icmp_unreach()`, `icmpv6_notify()`.
//! Not here: when to send one, and what one means to a socket (`ip::icmp`).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use crate::observe::DropReason;
use crate::tcp::seq::SeqNum;
use crate::wire::ip::protocol;

/// Fixed part of every message, bytes.
pub const HEADER_LEN: usize = 8;
/// Place of the checksum field in the header.
pub const CHECKSUM_AT: usize = 2;

/// IP version, where a message's numbers depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Version {
    /// ICMP (RFC 792).
    V4,
    /// ICMPv6 (RFC 4443).
    V6,
}

impl Version {
    /// The version that `address` belongs to.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Icmp {
    /// Ping.
    EchoRequest(Echo),
    /// Ping's answer.
    EchoReply(Echo),
    /// Something was wrong with a packet; see what it quotes.
    Error {
        /// What was wrong.
        kind: ErrorKind,
        /// The packet that was wrong, as far as the message has it and this stack understands it.
        quote: Option<Quote>,
    },
    /// Any other message: neighbour discovery, listener reports, redirects, timestamps.
    Other {
        /// Type number.
        kind: u8,
        /// Code number.
        code: u8,
    },
}

/// Echo request or reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Echo {
    /// Identifier.
    pub ident: u16,
    /// Sequence number.
    pub seq: u16,
    /// The bytes to send back.
    pub payload: Bytes,
}

/// What an ICMP error says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorKind {
    /// Destination unreachable, with the version's own code ([`mod@unreachable`]). IPv4's code 4 is [`ErrorKind::PacketTooBig`].
    Unreachable {
        /// IPv4: type 3; IPv6: type 1.
        code: u8,
    },
    /// Fragmentation needed and DF set (IPv4), packet too big (IPv6).
    PacketTooBig {
        /// MTU of the next hop, bytes; IPv4 routers older than RFC 1191 say 0.
        mtu: u32,
    },
    /// TTL exceeded (code 0) or reassembly time exceeded (code 1).
    TimeExceeded {
        /// Code number, the same in both versions.
        code: u8,
    },
    /// A header field made no sense.
    ParameterProblem {
        /// Code number.
        code: u8,
        /// Place of the field, bytes.
        pointer: u32,
    },
}

/// Codes of "destination unreachable".
pub mod unreachable {
    /// IPv4: no route to the network.
    pub const NET_V4: u8 = 0;
    /// IPv4: the host does not answer.
    pub const HOST_V4: u8 = 1;
    /// IPv4: nobody speaks this protocol there.
    pub const PROTOCOL_V4: u8 = 2;
    /// IPv4: nobody has this port.
    pub const PORT_V4: u8 = 3;
    /// IPv4: fragmentation needed and DF set.
    pub const FRAGMENTATION_NEEDED_V4: u8 = 4;
    /// IPv4: a firewall refused (communication administratively prohibited).
    pub const PROHIBITED_V4: u8 = 13;
    /// IPv6: no route to the destination.
    pub const NO_ROUTE_V6: u8 = 0;
    /// IPv6: a firewall refused (communication administratively prohibited).
    pub const PROHIBITED_V6: u8 = 1;
    /// IPv6: the address does not answer.
    pub const ADDRESS_V6: u8 = 3;
    /// IPv6: nobody has this port.
    pub const PORT_V6: u8 = 4;
}

/// The packet that an error is about: what its first bytes still tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quote {
    /// Its source: this stack, for an error that concerns it.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// Its protocol.
    pub protocol: u8,
    /// First two bytes behind the IP header: source port, or (ICMP) type and code.
    pub src_port: u16,
    /// Next two bytes: destination port, or (ICMP) checksum.
    pub dst_port: u16,
    /// TCP's sequence number.
    pub seq: Option<SeqNum>,
    /// Bytes quoted behind the IP header.
    pub len: u16,
}

/// Parses one message. The checksum is the caller's business.
///
/// # Errors
/// [`DropReason::PacketTooSmall`] below eight bytes.
pub fn parse(version: Version, message: &Bytes) -> Result<Icmp, DropReason> {
    let [kind, code, _, _, a, b, c, d] =
        *message.first_chunk::<HEADER_LEN>().ok_or(DropReason::PacketTooSmall)?;
    let echo = || Echo {
        ident: u16::from_be_bytes([a, b]),
        seq: u16::from_be_bytes([c, d]),
        payload: message.slice(HEADER_LEN..),
    };
    let error = match (version, kind, code) {
        (Version::V4, 8, 0) | (Version::V6, 128, 0) => return Ok(Icmp::EchoRequest(echo())),
        (Version::V4, 0, 0) | (Version::V6, 129, 0) => return Ok(Icmp::EchoReply(echo())),
        (Version::V4, 3, unreachable::FRAGMENTATION_NEEDED_V4) => {
            ErrorKind::PacketTooBig { mtu: u32::from(u16::from_be_bytes([c, d])) }
        }
        (Version::V4, 3, code) | (Version::V6, 1, code) => ErrorKind::Unreachable { code },
        (Version::V6, 2, _) => ErrorKind::PacketTooBig { mtu: u32::from_be_bytes([a, b, c, d]) },
        (Version::V4, 11, code) | (Version::V6, 3, code) => ErrorKind::TimeExceeded { code },
        (Version::V4, 12, code) => ErrorKind::ParameterProblem { code, pointer: u32::from(a) },
        (Version::V6, 4, code) => {
            ErrorKind::ParameterProblem { code, pointer: u32::from_be_bytes([a, b, c, d]) }
        }
        _ => return Ok(Icmp::Other { kind, code }),
    };
    Ok(Icmp::Error { kind: error, quote: quote(version, &message[HEADER_LEN..]) })
}

/// Reads the quoted packet: cut short, its lengths beyond the message, its checksum perhaps rewritten on the way.
fn quote(version: Version, packet: &[u8]) -> Option<Quote> {
    let (src, dst, protocol, transport) = match version {
        Version::V4 => {
            let header = packet.first_chunk::<20>()?;
            let header_len = usize::from(header[0] & 0x0f) * 4;
            // A later fragment has no ports.
            let is_later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
            if header[0] >> 4 != 4 || header_len < 20 || is_later_fragment {
                return None;
            }
            let src = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
            let dst = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
            (IpAddr::V4(src), IpAddr::V4(dst), header[9], packet.get(header_len..)?)
        }
        Version::V6 => {
            let header = packet.first_chunk::<40>()?;
            if header[0] >> 4 != 6 {
                return None;
            }
            let src: [u8; 16] = header[8..24].try_into().ok()?;
            let dst: [u8; 16] = header[24..40].try_into().ok()?;
            let (protocol, transport) = quoted_transport(header[6], &packet[40..])?;
            (IpAddr::V6(Ipv6Addr::from(src)), IpAddr::V6(Ipv6Addr::from(dst)), protocol, transport)
        }
    };
    // RFC 792: an error quotes at least these eight bytes.
    let [a, b, c, d, e, f, g, h] = *transport.first_chunk::<8>()?;
    Some(Quote {
        src,
        dst,
        protocol,
        src_port: u16::from_be_bytes([a, b]),
        dst_port: u16::from_be_bytes([c, d]),
        seq: (protocol == protocol::TCP).then(|| SeqNum(u32::from_be_bytes([e, f, g, h]))),
        len: transport.len().min(65_535) as u16,
    })
}

/// Skips a quoted packet's extension headers; Linux: `ipv6_skip_exthdr()`.
fn quoted_transport(mut next_header: u8, mut rest: &[u8]) -> Option<(u8, &[u8])> {
    for _ in 0..=super::ipv6::MAX_EXTENSIONS {
        let len = match next_header {
            protocol::HOP_BY_HOP | protocol::DESTINATION_OPTIONS | protocol::ROUTING => {
                (usize::from(*rest.get(1)?) + 1) * 8
            }
            // A later fragment has no ports.
            protocol::FRAGMENT if u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]) & 0xfff8 != 0 => {
                return None;
            }
            protocol::FRAGMENT => 8,
            _ => return Some((next_header, rest)),
        };
        next_header = *rest.first()?;
        rest = rest.get(len..)?;
    }
    None
}

/// The fixed part of `message` in wire form, checksum field 0. An error's quote or an echo's payload follows it.
pub fn emit(version: Version, message: &Icmp) -> [u8; HEADER_LEN] {
    let echo = |kind: u8, echo: &Echo| {
        let [a, b] = echo.ident.to_be_bytes();
        let [c, d] = echo.seq.to_be_bytes();
        [kind, 0, 0, 0, a, b, c, d]
    };
    match (version, message) {
        (Version::V4, Icmp::EchoRequest(request)) => echo(8, request),
        (Version::V6, Icmp::EchoRequest(request)) => echo(128, request),
        (Version::V4, Icmp::EchoReply(reply)) => echo(0, reply),
        (Version::V6, Icmp::EchoReply(reply)) => echo(129, reply),
        (version, Icmp::Error { kind, .. }) => emit_error(version, *kind),
        (_, Icmp::Other { kind, code }) => [*kind, *code, 0, 0, 0, 0, 0, 0],
    }
}

/// The fixed part of an error in wire form, checksum field 0.
pub fn emit_error(version: Version, kind: ErrorKind) -> [u8; HEADER_LEN] {
    let (kind, code, [a, b, c, d]) = match (version, kind) {
        (Version::V4, ErrorKind::Unreachable { code }) => (3, code, [0; 4]),
        (Version::V6, ErrorKind::Unreachable { code }) => (1, code, [0; 4]),
        (Version::V4, ErrorKind::PacketTooBig { mtu }) => {
            (3, unreachable::FRAGMENTATION_NEEDED_V4, mtu.min(0xffff).to_be_bytes())
        }
        (Version::V6, ErrorKind::PacketTooBig { mtu }) => (2, 0, mtu.to_be_bytes()),
        (Version::V4, ErrorKind::TimeExceeded { code }) => (11, code, [0; 4]),
        (Version::V6, ErrorKind::TimeExceeded { code }) => (3, code, [0; 4]),
        (Version::V4, ErrorKind::ParameterProblem { code, pointer }) => (12, code, [pointer as u8, 0, 0, 0]),
        (Version::V6, ErrorKind::ParameterProblem { code, pointer }) => (4, code, pointer.to_be_bytes()),
    };
    [kind, code, 0, 0, a, b, c, d]
}
