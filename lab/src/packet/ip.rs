//! IPv4 and IPv6 headers, without options or extensions, and the Internet checksum.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Malformed, malformed};

/// What scripts can say about an IP header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IpHeader {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Protocol or next header.
    pub protocol: u8,
    /// TOS or traffic class, the ECN bits included.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv6 flow label; 0 for IPv4.
    pub flow_label: u32,
}

impl IpHeader {
    /// A header with TTL 255 and nothing else set.
    pub fn new(src: IpAddr, dst: IpAddr, protocol: u8) -> Self {
        Self { src, dst, protocol, tos: 0, ttl: 255, flow_label: 0 }
    }
}

/// RFC 1071 over `bytes`, starting from `initial`; 0 for data whose checksum field is right.
pub fn checksum(initial: u32, bytes: &[u8]) -> u16 {
    let mut sum = initial;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(super) fn pseudo_sum(ip: &IpHeader, len: usize) -> u32 {
    let words =
        |octets: &[u8]| octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = |address: IpAddr| -> u32 {
        match address {
            IpAddr::V4(address) => words(&address.octets()),
            IpAddr::V6(address) => words(&address.octets()),
        }
    };
    let total = sum(ip.src) + sum(ip.dst) + u32::from(ip.protocol) + len as u32;
    (total & 0xffff) + (total >> 16)
}

pub(super) fn parse_ip(bytes: &[u8]) -> Result<(IpHeader, &[u8]), Malformed> {
    match bytes.first().map(|byte| byte >> 4) {
        Some(4) => parse_v4(bytes),
        Some(6) => parse_v6(bytes),
        Some(version) => malformed(format!("IP version {version}")),
        None => malformed("an empty packet"),
    }
}

fn parse_v4(bytes: &[u8]) -> Result<(IpHeader, &[u8]), Malformed> {
    if bytes.len() < 20 {
        return malformed("the IPv4 header is cut short");
    }
    if bytes[0] != 0x45 {
        return malformed("the IPv4 header has options");
    }
    if checksum(0, &bytes[..20]) != 0 {
        return malformed("the IPv4 header checksum is wrong");
    }
    let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    if total != bytes.len() {
        return malformed(format!("the IPv4 total length says {total}, the packet has {}", bytes.len()));
    }
    let address =
        |at: usize| IpAddr::V4(Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]));
    let header = IpHeader {
        src: address(12),
        dst: address(16),
        protocol: bytes[9],
        tos: bytes[1],
        ttl: bytes[8],
        flow_label: 0,
    };
    Ok((header, &bytes[20..]))
}

fn parse_v6(bytes: &[u8]) -> Result<(IpHeader, &[u8]), Malformed> {
    if bytes.len() < 40 {
        return malformed("the IPv6 header is cut short");
    }
    let total = 40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    if total != bytes.len() {
        return malformed(format!(
            "the IPv6 payload length says {total} in all, the packet has {}",
            bytes.len()
        ));
    }
    let first = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let address = |at: usize| {
        let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("16 bytes of a checked header");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let header = IpHeader {
        src: address(8),
        dst: address(24),
        protocol: bytes[6],
        tos: (first >> 20) as u8,
        ttl: bytes[7],
        flow_label: first & 0xf_ffff,
    };
    Ok((header, &bytes[40..]))
}

pub(super) fn compose_ip(ip: &IpHeader, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40 + payload.len());
    match (ip.src, ip.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            bytes.extend([0x45, ip.tos]);
            bytes.extend((20 + payload.len() as u16).to_be_bytes());
            bytes.extend([0, 0, 0, 0, ip.ttl, ip.protocol, 0, 0]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            let sum = checksum(0, &bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes.extend((6 << 28 | u32::from(ip.tos) << 20 | ip.flow_label).to_be_bytes());
            bytes.extend((payload.len() as u16).to_be_bytes());
            bytes.extend([ip.protocol, ip.ttl]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
        }
        (src, dst) => unreachable!("the interpreter never mixes families: {src} and {dst}"),
    }
    bytes.extend(payload);
    bytes
}
