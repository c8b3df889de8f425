//! Segmentation in software: what a device without TSO, USO and checksum offload must be given.
//!
//! Owns:    [`Segments`], which cuts one [`Transmit`] into plain packets with every length, number and checksum finished.
//! Rules:   Linux: `tcp_gso_segment()`, `__udp_gso_segment()`, `inet_gso_segment()`.
//! Not here: IP fragments; merging on the way in (what arrives merged, arrives merged).

use crate::wire::checksum::Checksum;
use crate::wire::ip::protocol;
use crate::wire::segment::Flags;
use crate::wire::transmit::{Transmit, TxChecksum};
use crate::wire::{ipv4, ipv6, tcp, udp};

/// The plain packets of one [`Transmit`], in order.
///
/// # Example
/// ```
/// use bytes::Bytes;
/// use lastack_core::wire::offload::Segments;
/// use lastack_core::wire::segment::SegmentHeader;
/// use lastack_core::wire::transmit::Transmit;
/// use lastack_core::wire::{IpFields, emit};
/// let ip = IpFields { src: [192, 0, 2, 1].into(), dst: [192, 0, 2, 2].into(), ttl: 64, tos: 0, id: 1 };
/// let mut out = Transmit { payload: vec![Bytes::from(vec![7; 4000])], segment_size: 1460, ..Transmit::default() };
/// emit::tcp(&mut out, &ip, &SegmentHeader::default());
/// let (mut segments, mut packet, mut sizes) = (Segments::new(&out), Vec::new(), Vec::new());
/// while segments.next_packet(&mut packet) {
///     sizes.push(packet.len());
/// }
/// assert_eq!(sizes, [1500, 1500, 1120]);
/// ```
#[derive(Debug)]
pub struct Segments<'a> {
    transmit: &'a Transmit,
    kind: Kind,
    /// Payload bytes a packet.
    size: usize,
    /// Payload bytes in packets made so far.
    sent: usize,
    payload_len: usize,
    packets: u16,
    /// Next payload byte: slice, place in it.
    cursor: (usize, usize),
    done: bool,
}

/// What has to be finished in each packet.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Nothing: one packet with every checksum in place, or of a protocol that is never cut.
    Plain,
    Tcp {
        start: usize,
    },
    Udp {
        start: usize,
    },
}

impl<'a> Segments<'a> {
    /// Begins with the first packet of `transmit`; there is none in an empty one.
    pub fn new(transmit: &'a Transmit) -> Self {
        let payload_len = transmit.payload_len();
        let kind = kind(transmit, payload_len);
        let size = match (kind, usize::from(transmit.segment_size)) {
            (Kind::Plain, _) | (_, 0) => payload_len,
            (_, size) => size,
        };
        let done = transmit.is_empty();
        Self { transmit, kind, size, sent: 0, payload_len, packets: 0, cursor: (0, 0), done }
    }

    /// Writes the next packet into `packet`, whose old content goes and whose capacity stays. False: no more.
    pub fn next_packet(&mut self, packet: &mut Vec<u8>) -> bool {
        if self.done {
            return false;
        }
        let offset = self.sent;
        let len = self.size.min(self.payload_len - offset);
        packet.clear();
        packet.extend_from_slice(&self.transmit.head);
        self.copy_payload(len, packet);
        self.sent += len;
        self.done = self.sent >= self.payload_len;
        match self.kind {
            Kind::Plain => {}
            Kind::Tcp { start } => {
                self.finish_ip(packet);
                finish_tcp(packet, start, offset as u32, offset == 0, self.done);
                finish_checksum(packet, start, protocol::TCP);
            }
            Kind::Udp { start } => {
                self.finish_ip(packet);
                let len = (packet.len() - start) as u16;
                packet[start + 4..start + 6].copy_from_slice(&len.to_be_bytes());
                finish_checksum(packet, start, protocol::UDP);
            }
        }
        self.packets = self.packets.wrapping_add(1);
        true
    }

    fn copy_payload(&mut self, mut len: usize, packet: &mut Vec<u8>) {
        let (mut slice, mut at) = self.cursor;
        while len > 0 {
            let Some(bytes) = self.transmit.payload.get(slice) else { break };
            let end = bytes.len().min(at + len);
            packet.extend_from_slice(&bytes[at..end]);
            len -= end - at;
            at = end;
            if at == bytes.len() {
                (slice, at) = (slice + 1, 0);
            }
        }
        self.cursor = (slice, at);
    }

    /// Lengths, and for IPv4 an identification a packet.
    fn finish_ip(&self, packet: &mut [u8]) {
        let len = packet.len();
        if packet[0] >> 4 == 4 {
            let id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(self.packets);
            packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            ipv4::set_checksum(&mut packet[..ipv4::HEADER_LEN]);
        } else {
            packet[4..6].copy_from_slice(&((len - ipv6::HEADER_LEN) as u16).to_be_bytes());
        }
    }
}

/// Decides by the head that `emit` wrote: no IPv4 options, no IPv6 extension headers.
fn kind(transmit: &Transmit, payload_len: usize) -> Kind {
    let is_cut = transmit.segment_size != 0 && payload_len > usize::from(transmit.segment_size);
    if !is_cut && transmit.checksum == TxChecksum::Complete {
        return Kind::Plain;
    }
    let head = &transmit.head;
    let (start, protocol) = match head.first() {
        Some(0x45) => (ipv4::HEADER_LEN, head.get(9)),
        Some(byte) if byte >> 4 == 6 => (ipv6::HEADER_LEN, head.get(6)),
        _ => return Kind::Plain,
    };
    match protocol {
        Some(&protocol::TCP) if head.len() >= start + tcp::HEADER_LEN => Kind::Tcp { start },
        Some(&protocol::UDP) if head.len() >= start + udp::HEADER_LEN => Kind::Udp { start },
        _ => Kind::Plain,
    }
}

/// Linux: tcp_gso_segment(): FIN and PSH belong to the last packet, CWR to the first.
fn finish_tcp(packet: &mut [u8], start: usize, offset: u32, is_first: bool, is_last: bool) {
    let seq: [u8; 4] = packet[start + 4..start + 8].try_into().unwrap_or_default();
    let seq = u32::from_be_bytes(seq).wrapping_add(offset);
    packet[start + 4..start + 8].copy_from_slice(&seq.to_be_bytes());
    let flags = &mut packet[start + 13];
    if !is_first {
        *flags &= !(Flags::CWR.0 as u8);
    }
    if !is_last {
        *flags &= !(Flags::FIN.with(Flags::PSH).0 as u8);
    }
}

fn finish_checksum(packet: &mut [u8], start: usize, protocol: u8) {
    let at = start + if protocol == protocol::UDP { udp::CHECKSUM_AT } else { tcp::CHECKSUM_AT };
    packet[at..at + 2].fill(0);
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    let len = (packet.len() - start) as u32;
    let mut sum = Checksum::new();
    sum.add(addresses);
    sum.add_u16(u16::from(protocol));
    sum.add_u16((len >> 16) as u16);
    sum.add_u16(len as u16);
    sum.add(&packet[start..]);
    let value = match sum.finish() {
        0 if protocol == protocol::UDP => 0xffff,
        value => value,
    };
    packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
