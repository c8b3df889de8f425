//! The way out: header values become the head of a [`Transmit`].
//!
//! Owns:    composing IP and transport header in front of the payload that already lies in the `Transmit`.
//! Output:  TCP and UDP with a partial checksum (the device or [`Transmit::finish_checksum`] completes it), ICMP complete.
//! Not here: what to send (`tcp`, `udp`, `ip::icmp`), cutting super-segments (`offload`).

use core::net::IpAddr;

use bytes::Bytes;

use crate::wire::checksum::Checksum;
use crate::wire::icmp::{ErrorKind, Icmp, Version};
use crate::wire::ip::{IpFields, MAX_LEN, protocol};
use crate::wire::ipv4::Ipv4Fields;
use crate::wire::ipv6::Ipv6Fields;
use crate::wire::segment::SegmentHeader;
use crate::wire::transmit::{Transmit, TxChecksum};
use crate::wire::{icmp, ipv4, ipv6, tcp, udp};

/// Composes a TCP segment in front of `out.payload`.
///
/// The caller has put payload and `segment_size` there, at most 65,535 bytes with the headers.
///
/// # Example
/// ```
/// use lastack_core::wire::segment::{Flags, SegmentHeader};
/// use lastack_core::wire::transmit::{RxMeta, Transmit};
/// use lastack_core::wire::{self, Body, IpFields, emit};
/// let ip = IpFields { src: [192, 0, 2, 1].into(), dst: [192, 0, 2, 2].into(), ttl: 64, tos: 0, id: 1 };
/// let header = SegmentHeader { src_port: 49152, dst_port: 80, flags: Flags::SYN, ..SegmentHeader::default() };
/// let mut out = Transmit::default();
/// emit::tcp(&mut out, &ip, &header);
/// out.finish_checksum();
/// let packet = wire::parse(&out.to_vec().into(), RxMeta::default()).unwrap();
/// assert!(matches!(packet.body, Body::Tcp(segment) if segment.header == header));
/// ```
pub fn tcp(out: &mut Transmit, ip: &IpFields, header: &SegmentHeader) {
    let mut header = tcp::emit(header);
    let len = header.as_slice().len() + out.payload_len();
    header.set_checksum(pseudo_header(ip, protocol::TCP, len).fold());
    let start = push_ip(out, ip, protocol::TCP, len);
    out.head.extend_from_slice(header.as_slice());
    out.checksum = TxChecksum::Partial { start, offset: tcp::CHECKSUM_AT as u16 };
}

/// Composes a UDP datagram in front of `out.payload`; with `out.segment_size`, several of one flow (USO).
pub fn udp(out: &mut Transmit, ip: &IpFields, src_port: u16, dst_port: u16) {
    let len = udp::HEADER_LEN + out.payload_len();
    let header = udp::UdpHeader {
        src_port,
        dst_port,
        len: len.min(MAX_LEN) as u16,
        checksum: pseudo_header(ip, protocol::UDP, len).fold(),
    };
    let start = push_ip(out, ip, protocol::UDP, len);
    out.head.extend_from_slice(&udp::emit(&header));
    out.checksum = TxChecksum::Partial { start, offset: udp::CHECKSUM_AT as u16 };
}

/// Composes an ICMP message of the addresses' version, an echo with its payload.
///
/// An error goes out with nothing quoted: use [`icmp_error`].
pub fn icmp(out: &mut Transmit, ip: &IpFields, message: &Icmp) {
    out.payload.clear();
    if let Icmp::EchoRequest(echo) | Icmp::EchoReply(echo) = message {
        out.payload.push(echo.payload.clone());
    }
    push_icmp(out, ip, icmp::emit(Version::of(ip.dst), message));
}

/// Composes an ICMP error that quotes `quoted`, the first bytes of the packet it is about.
pub fn icmp_error(out: &mut Transmit, ip: &IpFields, kind: ErrorKind, quoted: Bytes) {
    out.payload.clear();
    out.payload.push(quoted);
    push_icmp(out, ip, icmp::emit_error(Version::of(ip.dst), kind));
}

fn push_icmp(out: &mut Transmit, ip: &IpFields, mut header: [u8; icmp::HEADER_LEN]) {
    let len = header.len() + out.payload_len();
    let (protocol, mut sum) = match Version::of(ip.dst) {
        Version::V4 => (protocol::ICMP, Checksum::new()),
        Version::V6 => (protocol::ICMPV6, pseudo_header(ip, protocol::ICMPV6, len)),
    };
    sum.add(&header);
    for slice in &out.payload {
        sum.add(slice);
    }
    header[icmp::CHECKSUM_AT..icmp::CHECKSUM_AT + 2].copy_from_slice(&sum.finish().to_be_bytes());
    push_ip(out, ip, protocol, len);
    out.head.extend_from_slice(&header);
    out.segment_size = 0;
    out.checksum = TxChecksum::Complete;
}

fn pseudo_header(ip: &IpFields, protocol: u8, len: usize) -> Checksum {
    Checksum::pseudo_header(ip.src, ip.dst, protocol, len.min(MAX_LEN) as u32)
}

/// Starts `out.head` with the IP header for `len` bytes behind it; gives its length.
fn push_ip(out: &mut Transmit, ip: &IpFields, protocol: u8, len: usize) -> u16 {
    out.head.clear();
    match (ip.src, ip.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let fields = Ipv4Fields { src, dst, ttl: ip.ttl, tos: ip.tos, id: ip.id, protocol };
            out.head.extend_from_slice(&ipv4::emit(&fields, len));
            ipv4::HEADER_LEN as u16
        }
        (src, dst) => {
            let [src, dst] = [src, dst].map(|address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            });
            let fields =
                Ipv6Fields { src, dst, hop_limit: ip.ttl, traffic_class: ip.tos, next_header: protocol };
            out.head.extend_from_slice(&ipv6::emit(&fields, len));
            ipv6::HEADER_LEN as u16
        }
    }
}
