//! Packets that no connection owns and that wait for the link: ICMP, and UDP datagrams.
//!
//! Owns:    the queue; datagrams are bounded by their sockets' limits, ICMP by a count (then `OutboxOverflow`).
//! Rules:   RFC 791 3.2, RFC 8200 4.5: a datagram that does not fit leaves in fragments.

use core::net::SocketAddr;
use std::collections::VecDeque;

use bytes::Bytes;

use crate::id::UdpId;
use crate::wire::IpHeader;
use crate::wire::icmp::{Echo, ErrorKind};

use core::net::IpAddr;

/// ICMP messages that may wait; a caller that polls after each packet never has more than a few.
const ICMP_LIMIT: usize = 1024;

/// One packet that waits.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// An ICMP error about `packet`.
    Error { packet: Bytes, ip: IpHeader, kind: ErrorKind, from: IpAddr },
    /// The answer to an echo request that came with this header.
    EchoReply { ip: IpHeader, echo: Echo },
    /// A UDP datagram, and whose room it takes.
    Datagram { owner: UdpId, from: SocketAddr, to: SocketAddr, data: Bytes },
    /// A part of a datagram, complete: IP header and bytes.
    Fragment(Vec<u8>),
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Outgoing>,
    icmp: usize,
}

impl Outbox {
    /// Queues an ICMP message. False: too many wait.
    pub(crate) fn push_icmp(&mut self, message: Outgoing) -> bool {
        if self.icmp >= ICMP_LIMIT {
            return false;
        }
        self.icmp += 1;
        self.queue.push_back(message);
        true
    }

    /// Queues a datagram; its socket has taken room for it.
    pub(crate) fn push_datagram(&mut self, owner: UdpId, from: SocketAddr, to: SocketAddr, data: Bytes) {
        self.queue.push_back(Outgoing::Datagram { owner, from, to, data });
    }

    /// Puts the fragments of the datagram just taken in its place.
    pub(crate) fn put_fragments(&mut self, fragments: Vec<Vec<u8>>) {
        for fragment in fragments.into_iter().rev() {
            self.queue.push_front(Outgoing::Fragment(fragment));
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Outgoing> {
        let next = self.queue.pop_front()?;
        if matches!(next, Outgoing::Error { .. } | Outgoing::EchoReply { .. }) {
            self.icmp -= 1;
        }
        Some(next)
    }
}

/// Cuts a finished IP packet into fragments for a link of `mtu` bytes. `id` names the datagram.
pub(crate) fn fragment(packet: &[u8], mtu: usize, id: u32) -> Vec<Vec<u8>> {
    let is_v4 = packet[0] >> 4 == 4;
    let header_len = if is_v4 { 20 } else { 40 };
    let extra = if is_v4 { 0 } else { 8 };
    // Every piece but the last is a multiple of eight bytes.
    let room = mtu.saturating_sub(header_len + extra).max(8) & !7;
    let payload = &packet[header_len..];
    let pieces = payload.len().div_ceil(room);
    payload
        .chunks(room)
        .enumerate()
        .map(|(n, piece)| {
            let (offset, more) = ((n * room) as u16, n + 1 < pieces);
            let mut out = Vec::with_capacity(header_len + extra + piece.len());
            out.extend_from_slice(&packet[..header_len]);
            if is_v4 {
                out[2..4].copy_from_slice(&((header_len + piece.len()) as u16).to_be_bytes());
                out[4..6].copy_from_slice(&(id as u16).to_be_bytes());
                out[6..8].copy_from_slice(&(u16::from(more) << 13 | offset >> 3).to_be_bytes());
                out[10..12].fill(0);
                let mut sum = crate::wire::checksum::Checksum::new();
                sum.add(&out[..header_len]);
                out[10..12].copy_from_slice(&sum.finish().to_be_bytes());
            } else {
                out[4..6].copy_from_slice(&((extra + piece.len()) as u16).to_be_bytes());
                let next_header = core::mem::replace(&mut out[6], crate::wire::ip::protocol::FRAGMENT);
                let place = offset | u16::from(more);
                out.extend_from_slice(&[next_header, 0]);
                out.extend_from_slice(&place.to_be_bytes());
                out.extend_from_slice(&id.to_be_bytes());
            }
            out.extend_from_slice(piece);
            out
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::ip::fragments::{FragmentLimits, Fragments};
    use crate::time::Instant;
    use crate::wire::transmit::{RxMeta, Transmit};
    use crate::wire::{Body, IpFields, emit, parse};

    proptest! {
        /// What we cut, any receiver puts together again; here our own.
        #[test]
        fn fragments_fit_the_link_and_make_the_datagram_again(
            is_v4 in any::<bool>(), mtu in 1280usize..9000, id in any::<u32>(), len in 9000usize..60_000,
        ) {
            let [src, dst]: [IpAddr; 2] = if is_v4 {
                [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()]
            } else {
                [[0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into()]
            };
            let payload: Vec<u8> = (0..len).map(|n| ((n * 7) >> 3) as u8).collect();
            let mut out = Transmit { payload: vec![payload.clone().into()], ..Transmit::default() };
            emit::udp(&mut out, &IpFields { src, dst, ttl: 64, tos: 0, id: 0 }, 1, 2);
            out.finish_checksum();
            let mut queue = Fragments::new(FragmentLimits::default());
            let mut whole = None;
            for piece in fragment(&out.to_vec(), mtu, id) {
                prop_assert!(piece.len() <= mtu);
                let piece = Bytes::from(piece);
                let packet = parse(&piece, RxMeta::default()).expect("our own packet");
                let Body::Fragment(part) = &packet.body else { panic!("a fragment") };
                whole = queue.push(Instant::ZERO, &piece, &packet.ip, part).expect("consistent fragments");
            }
            let whole = whole.expect("complete with the last piece");
            let Body::Udp(datagram) = parse(&whole, RxMeta::default()).expect("valid").body else {
                panic!("UDP went in")
            };
            prop_assert_eq!(datagram.payload, payload);
        }
    }
}
