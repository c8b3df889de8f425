//! Packets on the lab's side of the wire: composed and parsed independently of the stack under test.
//!
//! Owns:    [`TcpPacket`] with its options *in wire order*, byte for byte; UDP and ICMP as far as scripts need.
//! Differs: the stack's own `wire` module keeps options as a set and skips unknown kinds; a judge may not.
//! Not here: script numbers ([`crate::run`] maps them to live ones).

use core::net::IpAddr;

pub use lastack_core::wire::segment::Flags as TcpFlags;

mod ip;
mod tcp_options;

pub use ip::{IpHeader, checksum};
pub use tcp_options::{AccEcnOrder, TcpOption, options_len};

use ip::{compose_ip, parse_ip, pseudo_sum};
use tcp_options::{compose_options, parse_options};

/// The flags of an ACE counter: AE, CWR, ECE as a three-bit number (RFC 9768 3.1).
pub fn flags_from_ace(ace: u8) -> TcpFlags {
    let mut flags = TcpFlags::NONE;
    for (bit, flag) in [(4, TcpFlags::AE), (2, TcpFlags::CWR), (1, TcpFlags::ECE)] {
        if ace & bit != 0 {
            flags = flags.with(flag);
        }
    }
    flags
}

/// One TCP segment on the wire; its payload is zeros, as all payload in scripts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpPacket {
    /// The IP header.
    pub ip: IpHeader,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Flags.
    pub flags: TcpFlags,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment field, whether or not ACK is set.
    pub ack: u32,
    /// Window field.
    pub win: u16,
    /// Urgent pointer field.
    pub urg: u16,
    /// Options in order.
    pub options: Vec<TcpOption>,
    /// Payload bytes.
    pub len: u32,
}

/// A UDP datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UdpPacket {
    /// The IP header.
    pub ip: IpHeader,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Payload bytes.
    pub len: u16,
}

/// An ICMP message; what it quotes is kept as bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IcmpPacket {
    /// The IP header.
    pub ip: IpHeader,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The second word: MTU, identifier and so on.
    pub word: u32,
    /// What follows.
    pub quoted: Vec<u8>,
}

/// A packet, parsed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WirePacket {
    /// TCP.
    Tcp(TcpPacket),
    /// UDP.
    Udp(UdpPacket),
    /// ICMPv4 or ICMPv6.
    Icmp(IcmpPacket),
    /// Anything else.
    Other(IpHeader),
}

/// Why a packet cannot be a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed(pub String);

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Malformed {}

pub(crate) fn malformed<T>(message: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(message.into()))
}

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;

impl WirePacket {
    /// Parses a raw IP packet and verifies every checksum in it.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (ip, payload) = parse_ip(bytes)?;
        let sum = || checksum(pseudo_sum(&ip, payload.len()), payload);
        match ip.protocol {
            PROTOCOL_TCP if sum() != 0 => malformed("the TCP checksum is wrong"),
            PROTOCOL_TCP => parse_tcp(ip, payload).map(Self::Tcp),
            PROTOCOL_UDP if payload.len() < 8 => malformed("the UDP header is cut short"),
            PROTOCOL_UDP => {
                let word = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
                if word(6) != 0 && sum() != 0 {
                    return malformed("the UDP checksum is wrong");
                }
                let len = (payload.len() - 8) as u16;
                Ok(Self::Udp(UdpPacket { ip, src_port: word(0), dst_port: word(2), len }))
            }
            PROTOCOL_ICMP | PROTOCOL_ICMPV6 => {
                if payload.len() < 8 {
                    return malformed("the ICMP header is cut short");
                }
                let initial = if ip.protocol == PROTOCOL_ICMP { 0 } else { pseudo_sum(&ip, payload.len()) };
                if checksum(initial, payload) != 0 {
                    return malformed("the ICMP checksum is wrong");
                }
                let word = u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]);
                let quoted = payload[8..].to_vec();
                Ok(Self::Icmp(IcmpPacket { ip, kind: payload[0], code: payload[1], word, quoted }))
            }
            _ => Ok(Self::Other(ip)),
        }
    }

    /// The IP header.
    pub fn ip(&self) -> &IpHeader {
        match self {
            Self::Tcp(packet) => &packet.ip,
            Self::Udp(packet) => &packet.ip,
            Self::Icmp(packet) => &packet.ip,
            Self::Other(ip) => ip,
        }
    }
}

fn parse_tcp(ip: IpHeader, bytes: &[u8]) -> Result<TcpPacket, Malformed> {
    if bytes.len() < 20 {
        return malformed("the TCP header is cut short");
    }
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let long = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let header_len = usize::from(bytes[12] >> 4) * 4;
    if header_len < 20 || header_len > bytes.len() {
        return malformed(format!("the TCP data offset says {header_len} bytes"));
    }
    if bytes[12] & 0x0e != 0 {
        return malformed("reserved TCP bits are set");
    }
    let payload = &bytes[header_len..];
    if payload.iter().any(|byte| *byte != 0) {
        return malformed("the payload is not all zeros");
    }
    Ok(TcpPacket {
        ip,
        src_port: word(0),
        dst_port: word(2),
        flags: TcpFlags(word(12) & 0x1ff),
        seq: long(4),
        ack: long(8),
        win: word(14),
        urg: word(18),
        options: parse_options(&bytes[20..header_len])?,
        len: payload.len() as u32,
    })
}

impl TcpPacket {
    /// The bytes, checksums filled in.
    pub fn compose(&self) -> Vec<u8> {
        let mut tcp = Vec::with_capacity(60 + self.len as usize);
        tcp.extend(self.src_port.to_be_bytes());
        tcp.extend(self.dst_port.to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        let options = compose_options(&self.options);
        let words = (5 + options.len() / 4) as u16;
        tcp.extend((words << 12 | self.flags.0 & 0x1ff).to_be_bytes());
        tcp.extend(self.win.to_be_bytes());
        tcp.extend([0, 0]);
        tcp.extend(self.urg.to_be_bytes());
        tcp.extend(options);
        tcp.resize(tcp.len() + self.len as usize, 0);
        let sum = checksum(pseudo_sum(&self.ip, tcp.len()), &tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        compose_ip(&self.ip, &tcp)
    }
}

impl UdpPacket {
    /// The bytes, checksums filled in.
    pub fn compose(&self) -> Vec<u8> {
        let mut udp = Vec::with_capacity(8 + usize::from(self.len));
        udp.extend(self.src_port.to_be_bytes());
        udp.extend(self.dst_port.to_be_bytes());
        udp.extend((8 + self.len).to_be_bytes());
        udp.extend([0, 0]);
        udp.resize(8 + usize::from(self.len), 0);
        let sum = checksum(pseudo_sum(&self.ip, udp.len()), &udp);
        // RFC 768: a computed zero is sent as all ones.
        let sum = if sum == 0 { 0xffff } else { sum };
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        compose_ip(&self.ip, &udp)
    }
}

impl IcmpPacket {
    /// The bytes, checksums filled in.
    pub fn compose(&self) -> Vec<u8> {
        let mut icmp = vec![self.kind, self.code, 0, 0];
        icmp.extend(self.word.to_be_bytes());
        icmp.extend(&self.quoted);
        let initial = match self.ip.src {
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => pseudo_sum(&self.ip, icmp.len()),
        };
        let sum = checksum(initial, &icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        compose_ip(&self.ip, &icmp)
    }
}

/// IP protocol number of ICMP for an address family.
pub fn icmp_protocol(address: IpAddr) -> u8 {
    if address.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 }
}

/// IP protocol number of TCP.
pub const TCP: u8 = PROTOCOL_TCP;
/// IP protocol number of UDP.
pub const UDP: u8 = PROTOCOL_UDP;

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(src: &str, dst: &str) -> TcpPacket {
        TcpPacket {
            ip: IpHeader::new(src.parse().unwrap(), dst.parse().unwrap(), TCP),
            src_port: 40000,
            dst_port: 8080,
            flags: TcpFlags::PSH | TcpFlags::ACK,
            seq: 1,
            ack: u32::MAX,
            win: 229,
            urg: 7,
            options: vec![
                TcpOption::Nop,
                TcpOption::Nop,
                TcpOption::Timestamps { val: 100, ecr: 200 },
                TcpOption::Nop,
                TcpOption::Nop,
                TcpOption::Sack(vec![(1, 2), (5, 9)]),
            ],
            len: 333,
        }
    }

    #[test]
    fn a_segment_survives_composing_and_parsing() {
        for (src, dst) in [("192.0.2.1", "192.168.0.1"), ("fd00::1", "fd00::2")] {
            let packet = segment(src, dst);
            assert_eq!(WirePacket::parse(&packet.compose()), Ok(WirePacket::Tcp(packet)));
        }
    }

    #[test]
    fn one_flipped_bit_is_noticed() {
        let bytes = segment("192.0.2.1", "192.168.0.1").compose();
        for at in [12, 25, 33, 60, bytes.len() - 1] {
            let mut broken = bytes.clone();
            broken[at] ^= 1;
            assert!(WirePacket::parse(&broken).is_err(), "byte {at}");
        }
    }

    #[test]
    fn another_parser_agrees() {
        let bytes = segment("192.0.2.1", "192.168.0.1").compose();
        let parsed = etherparse::SlicedPacket::from_ip(&bytes).expect("a valid packet");
        let Some(etherparse::TransportSlice::Tcp(tcp)) = parsed.transport else { panic!("a TCP segment") };
        assert_eq!((tcp.source_port(), tcp.window_size(), tcp.urgent_pointer()), (40000, 229, 7));
        assert_eq!(tcp.payload().len(), 333);
        let ipv4 = etherparse::Ipv4HeaderSlice::from_slice(&bytes).expect("an IPv4 header").to_header();
        assert_eq!(tcp.checksum(), tcp.to_header().calc_checksum_ipv4(&ipv4, tcp.payload()).unwrap());
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        let mut seed = 1u32;
        for len in 0..200 {
            let bytes: Vec<u8> = (0..len)
                .map(|at| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if at == 0 { [0x45, 0x60][len % 2] } else { (seed >> 24) as u8 }
                })
                .collect();
            let _ = WirePacket::parse(&bytes);
        }
    }
}
