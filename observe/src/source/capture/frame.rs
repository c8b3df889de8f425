//! One captured frame as a TCP segment, also when the capture kept only its first bytes.
//!
//! Input:   a frame and its link type.
//! Output:  [`Seen`]: addresses, the TCP header, the payload's true length.
//! Rules:   lengths are IP's, not the capture's: a short snapshot length cuts bytes off, not sequence numbers.
//!          Checksums are not verified: a capture at the sender sees them before the device has filled them in.
//! Not here: what segments mean (`end`, `conversation`).

use std::net::{IpAddr, SocketAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket};
use lastack_core::tcp::seq::SeqNum;
use lastack_core::wire::segment::SegmentHeader;
use lastack_core::wire::tcp;
use pcap_parser::Linktype;

/// A TCP segment that was seen on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    pub(super) header: SegmentHeader,
    /// Payload bytes it had, captured or not.
    pub(super) len: u32,
}

impl Seen {
    /// First sequence number after it.
    pub(super) fn end_seq(&self) -> SeqNum {
        self.header.seq + self.seq_len()
    }

    /// Sequence numbers it takes.
    pub(super) fn seq_len(&self) -> u32 {
        self.len + u32::from(self.header.flags.syn()) + u32::from(self.header.flags.fin())
    }
}

/// Why a frame is not a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotSeen {
    /// Something other than TCP.
    NotTcp,
    /// TCP, but fragmented, malformed, or cut before the end of its header.
    Unreadable,
    /// A link layer that is not known.
    Link,
}

/// The segment in a frame.
pub(super) fn segment(link: Linktype, bytes: &[u8]) -> Result<Seen, NotSeen> {
    let packet = slice(link, bytes)?;
    let (src, dst, ip_payload, captured) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let total = usize::from(header.total_len()).checked_sub(header.slice().len());
            (IpAddr::from(header.source_addr()), IpAddr::from(header.destination_addr()), total, ip.payload())
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let extensions = ip.extensions().slice().len();
            let total = usize::from(header.payload_length()).checked_sub(extensions);
            (IpAddr::from(header.source_addr()), IpAddr::from(header.destination_addr()), total, ip.payload())
        }
        _ => return Err(NotSeen::NotTcp),
    };
    if captured.ip_number != etherparse::IpNumber::TCP {
        return Err(NotSeen::NotTcp);
    }
    if captured.fragmented {
        return Err(NotSeen::Unreadable);
    }
    let bytes = captured.payload;
    // A length of 0 is a super-segment above 64 KiB (`tcpdump` on a host with BIG TCP): all there is was captured.
    let ip_payload = ip_payload.filter(|len| *len > 0).unwrap_or(bytes.len());
    let header_len = usize::from(bytes.get(12).ok_or(NotSeen::Unreadable)? >> 4) * 4;
    let header_bytes = bytes.get(..header_len).ok_or(NotSeen::Unreadable)?;
    let (header, _) = tcp::parse(header_bytes).map_err(|_| NotSeen::Unreadable)?;
    let len = ip_payload.checked_sub(header_len).ok_or(NotSeen::Unreadable)?;
    Ok(Seen {
        src: SocketAddr::new(src, header.src_port),
        dst: SocketAddr::new(dst, header.dst_port),
        header,
        len: u32::try_from(len).map_err(|_| NotSeen::Unreadable)?,
    })
}

/// Walks the link layer.
fn slice(link: Linktype, bytes: &[u8]) -> Result<LaxSlicedPacket<'_>, NotSeen> {
    /// What `LINUX_SLL` and `LINUX_SLL2` put before the packet, and where the EtherType stands in it.
    const SLL: (usize, usize) = (16, 14);
    const SLL2: (usize, usize) = (20, 0);
    let after = |(skip, at): (usize, usize)| {
        let kind = bytes.get(at..at + 2).ok_or(NotSeen::Unreadable)?;
        let rest = bytes.get(skip..).ok_or(NotSeen::Unreadable)?;
        Ok(LaxSlicedPacket::from_ether_type(u16::from_be_bytes([kind[0], kind[1]]).into(), rest))
    };
    let ip = |bytes| LaxSlicedPacket::from_ip(bytes).map_err(|_| NotSeen::NotTcp);
    match link {
        Linktype::ETHERNET => LaxSlicedPacket::from_ethernet(bytes).map_err(|_| NotSeen::Unreadable),
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => ip(bytes),
        // BSD's numbers for raw IP, as some programs still write them.
        Linktype(12 | 14) => ip(bytes),
        Linktype::NULL | Linktype::LOOP => ip(bytes.get(4..).ok_or(NotSeen::Unreadable)?),
        Linktype::LINUX_SLL => after(SLL),
        Linktype::LINUX_SLL2 => after(SLL2),
        _ => Err(NotSeen::Link),
    }
}
