//! The door: one received packet becomes one clean value, or a reason why not.
//!
//! Owns:    [`parse`], which walks IP, verifies every checksum the device did not, and parses the transport header.
//! Input:   bytes as a device gave them; nothing about them is believed.
//! Output:  [`Packet`]; its payload is a slice of the same buffer.
//! Rules:   RFC 791, RFC 8200, RFC 9293 3.1, RFC 768, RFC 4443. Linux: `ip_rcv()`, `tcp_v4_rcv()` up to the socket lookup.
//! Not here: whose address it is, reassembly (`ip::fragments`), what a message means (`tcp`, `udp`, `ip::icmp`).

use core::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;

use crate::observe::DropReason;
use crate::wire::checksum::Checksum;
use crate::wire::icmp::{Icmp, Version};
use crate::wire::ip::{FragmentInfo, IpHeader, protocol};
use crate::wire::segment::Segment;
use crate::wire::transmit::RxMeta;
use crate::wire::{icmp, ipv4, ipv6, tcp, udp};

/// A received packet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The IP header.
    pub ip: IpHeader,
    /// What it carries.
    pub body: Body,
}

/// What an IP packet carries.
#[derive(Clone, Debug)]
pub enum Body {
    /// A TCP segment.
    Tcp(Segment),
    /// A UDP datagram.
    Udp(Datagram),
    /// An ICMP message.
    Icmp(Icmp),
    /// A part of a datagram, for `ip::fragments`.
    Fragment(Fragment),
    /// A protocol this stack does not speak: its number.
    Other(u8),
}

/// A UDP datagram, or several of one flow that the device merged (USO).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Source port; 0: no answer wanted.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Payload.
    pub payload: Bytes,
    /// Payload bytes a datagram where the device merged several, else 0.
    pub segment_size: u16,
}

impl Datagram {
    /// The datagrams as they were sent: one, or `segment_size` bytes each.
    pub fn payloads(&self) -> impl Iterator<Item = Bytes> + '_ {
        let size = match usize::from(self.segment_size) {
            0 => self.payload.len().max(1),
            size => size,
        };
        let count = self.payload.len().div_ceil(size).max(1);
        (0..count).map(move |n| {
            let start = n * size;
            self.payload.slice(start..self.payload.len().min(start + size))
        })
    }
}

/// A fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where it belongs.
    pub info: FragmentInfo,
    /// Its part of the datagram.
    pub payload: Bytes,
}

/// Parses one packet.
///
/// Total: any bytes give a packet or a reason. Nothing is allocated; the payload is a slice of `packet`.
///
/// # Errors
/// The reason to drop it. Who counts and records that is the caller.
///
/// # Example
/// ```
/// use bytes::Bytes;
/// use lastack_core::observe::DropReason;
/// use lastack_core::wire::{self, transmit::RxMeta};
/// let not_ip = Bytes::from_static(&[0x00, 0x01]);
/// assert_eq!(wire::parse(&not_ip, RxMeta::default()).unwrap_err(), DropReason::IpHeader);
/// ```
pub fn parse(packet: &Bytes, meta: RxMeta) -> Result<Packet, DropReason> {
    let (ip, fragment) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => ipv4::parse(packet)?,
        Some(6) => ipv6::parse(packet)?,
        Some(_) => return Err(DropReason::IpHeader),
        None => return Err(DropReason::PacketTooSmall),
    };
    // RFC 1122 3.2.1.3, RFC 4291 2.7: no packet has such a source.
    if ip.src.is_multicast() || ip.src == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(DropReason::InvalidSource);
    }
    let (start, end) = (ip.header_len as usize, ip.total_len as usize);
    let body = match (ip.protocol, fragment) {
        (_, Some(info)) => Body::Fragment(Fragment { info, payload: packet.slice(start..end) }),
        (protocol::TCP, None) => Body::Tcp(parse_tcp(&ip, packet, meta)?),
        (protocol::UDP, None) => Body::Udp(parse_udp(&ip, packet, meta)?),
        (protocol::ICMP, None) if ip.src.is_ipv4() => {
            if !meta.checksum_valid {
                let mut sum = Checksum::new();
                sum.add(&packet[start..end]);
                valid(sum, DropReason::IcmpChecksum)?;
            }
            Body::Icmp(icmp::parse(Version::V4, &packet.slice(start..end))?)
        }
        (protocol::ICMPV6, None) if ip.src.is_ipv6() => {
            verify(&ip, &packet[start..end], meta, DropReason::IcmpChecksum)?;
            Body::Icmp(icmp::parse(Version::V6, &packet.slice(start..end))?)
        }
        (other, None) => Body::Other(other),
    };
    Ok(Packet { ip, body })
}

#[inline(always)] // into `parse`: a header copied through a `Result` costs more than reading it
fn parse_tcp(ip: &IpHeader, packet: &Bytes, meta: RxMeta) -> Result<Segment, DropReason> {
    let (start, end) = (ip.header_len as usize, ip.total_len as usize);
    // Linux: tcp_v4_rcv() looks at the data offset before the checksum.
    let (header, header_len) = tcp::parse(&packet[start..end])?;
    verify(ip, &packet[start..end], meta, DropReason::TcpChecksum)?;
    if ip.src.is_unspecified() {
        return Err(DropReason::InvalidSource);
    }
    let payload = packet.slice(start + header_len..end);
    let segs = match meta.segment_size {
        0 => 1,
        size => payload.len().div_ceil(usize::from(size)).clamp(1, usize::from(u16::MAX)) as u16,
    };
    Ok(Segment {
        src: ip.src,
        dst: ip.dst,
        header,
        payload,
        segs,
        tos: ip.tos,
        ttl: ip.ttl,
        truesize: meta.truesize.max(u32::try_from(packet.len()).unwrap_or(u32::MAX)),
    })
}

fn parse_udp(ip: &IpHeader, packet: &Bytes, meta: RxMeta) -> Result<Datagram, DropReason> {
    let (start, end) = (ip.header_len as usize, ip.total_len as usize);
    let header = udp::parse(&packet[start..end])?;
    let end = start + usize::from(header.len);
    match (header.checksum, ip.src) {
        // RFC 768: zero says that the sender computed none. RFC 8200 8.1: not with IPv6.
        (0, IpAddr::V4(_)) => {}
        (0, IpAddr::V6(_)) => return Err(DropReason::UdpChecksum),
        _ => verify(ip, &packet[start..end], meta, DropReason::UdpChecksum)?,
    }
    Ok(Datagram {
        src_port: header.src_port,
        dst_port: header.dst_port,
        payload: packet.slice(start + udp::HEADER_LEN..end),
        segment_size: meta.segment_size,
    })
}

/// Verifies a transport checksum with pseudo-header, unless the device did.
fn verify(ip: &IpHeader, transport: &[u8], meta: RxMeta, reason: DropReason) -> Result<(), DropReason> {
    if meta.checksum_valid {
        return Ok(());
    }
    let mut sum = Checksum::pseudo_header(ip.src, ip.dst, ip.protocol, transport.len() as u32);
    sum.add(transport);
    valid(sum, reason)
}

fn valid(sum: Checksum, reason: DropReason) -> Result<(), DropReason> {
    if sum.is_valid() { Ok(()) } else { Err(reason) }
}
