//! The virtio network header before each packet of a TUN or packet socket: 10 bytes, in the machine's byte order.

use lastack_core::wire::transmit::{RxMeta, Transmit, TxChecksum};

/// Length of the header without the mergeable-buffers field.
pub(crate) const HEADER_LEN: usize = 10;
/// A packet with nothing left to do.
pub(crate) const PLAIN: [u8; HEADER_LEN] = [0; HEADER_LEN];

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Place of the UDP checksum in its header; TCP's is 16.
const UDP_CHECKSUM: u16 = 6;
/// Place and bit of CWR in the TCP header.
const TCP_FLAGS: usize = 13;
const CWR: u8 = 0x80;

/// The header of a packet that leaves behind a link header of `link` bytes (a TUN has none): lengths and places
/// count from the link header's first byte.
pub(crate) fn header(packet: &Transmit, link: u16) -> [u8; HEADER_LEN] {
    let TxChecksum::Partial { start, offset } = packet.checksum else { return PLAIN };
    let gso = if packet.segment_size == 0 { GSO_NONE } else { gso_type(&packet.head, start, offset) };
    encode(NEEDS_CSUM, gso, link + packet.head.len() as u16, packet.segment_size, link + start, offset)
}

fn gso_type(head: &[u8], start: u16, offset: u16) -> u8 {
    if offset == UDP_CHECKSUM {
        return GSO_UDP_L4;
    }
    let family = if head.first().is_some_and(|first| first >> 4 == 6) { GSO_TCPV6 } else { GSO_TCPV4 };
    // Linux: SKB_GSO_TCP_ECN: the device must clear CWR behind the first segment.
    let has_cwr = head.get(usize::from(start) + TCP_FLAGS).is_some_and(|flags| flags & CWR != 0);
    if has_cwr { family | GSO_ECN } else { family }
}

fn encode(flags: u8, gso: u8, head: u16, segment: u16, start: u16, offset: u16) -> [u8; HEADER_LEN] {
    let mut header = [flags, gso, 0, 0, 0, 0, 0, 0, 0, 0];
    for (place, value) in header[2..].chunks_exact_mut(2).zip([head, segment, start, offset]) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
    header
}

/// What the header of a received packet says. An empty one (no virtio header on this device) says nothing.
/// `hdr_len` is not looked at: for forwarded packets it is not to be trusted.
pub(crate) fn meta(header: &[u8], truesize: u32) -> RxMeta {
    let &[flags, gso, _, _, size_0, size_1, ..] = header else {
        return RxMeta { truesize, ..RxMeta::default() };
    };
    RxMeta {
        checksum_valid: flags & (NEEDS_CSUM | DATA_VALID) != 0,
        segment_size: if gso & !GSO_ECN == GSO_NONE { 0 } else { u16::from_ne_bytes([size_0, size_1]) },
        truesize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transmit(version: u8, checksum: TxChecksum, segment_size: u16) -> Transmit {
        let mut head = vec![0; 60];
        head[0] = version << 4;
        Transmit { head, payload: Vec::new(), segment_size, checksum }
    }

    #[test]
    fn a_finished_packet_has_an_empty_header() {
        assert_eq!(header(&transmit(4, TxChecksum::Complete, 0), 0), PLAIN);
    }

    #[test]
    fn a_super_segment_names_its_kind_and_size() {
        let tcp = |version| {
            transmit(
                version,
                TxChecksum::Partial { start: if version == 4 { 20 } else { 40 }, offset: 16 },
                1448,
            )
        };
        assert_eq!(header(&tcp(4), 0), encode(NEEDS_CSUM, GSO_TCPV4, 60, 1448, 20, 16));
        assert_eq!(header(&tcp(6), 0), encode(NEEDS_CSUM, GSO_TCPV6, 60, 1448, 40, 16));
        let udp = transmit(4, TxChecksum::Partial { start: 20, offset: 6 }, 1472);
        assert_eq!(header(&udp, 0), encode(NEEDS_CSUM, GSO_UDP_L4, 60, 1472, 20, 6));

        let mut with_cwr = tcp(4);
        with_cwr.head[20 + TCP_FLAGS] = CWR;
        assert_eq!(header(&with_cwr, 0)[1], GSO_TCPV4 | GSO_ECN);
    }

    #[test]
    fn one_segment_with_a_partial_sum_is_not_marked_for_cutting() {
        let header = header(&transmit(4, TxChecksum::Partial { start: 20, offset: 16 }, 0), 0);
        assert_eq!(header, encode(NEEDS_CSUM, GSO_NONE, 60, 0, 20, 16));
    }

    #[test]
    fn behind_a_link_header_every_place_moves() {
        let packet = transmit(4, TxChecksum::Partial { start: 20, offset: 16 }, 1448);
        assert_eq!(super::header(&packet, 14), encode(NEEDS_CSUM, GSO_TCPV4, 74, 1448, 34, 16));
        assert_eq!(super::header(&transmit(4, TxChecksum::Complete, 0), 14), PLAIN);
    }

    #[test]
    fn a_received_header_is_read_back() {
        let merged = encode(NEEDS_CSUM, GSO_TCPV4 | GSO_ECN, 0, 1448, 20, 16);
        let expected = RxMeta { checksum_valid: true, segment_size: 1448, truesize: 9 };
        assert_eq!(meta(&merged, 9), expected);
        // Linux may leave a size in a header that is not GSO.
        let single = encode(DATA_VALID, GSO_NONE, 0, 1448, 0, 0);
        assert_eq!(meta(&single, 9), RxMeta { checksum_valid: true, segment_size: 0, truesize: 9 });
        assert_eq!(meta(&PLAIN, 9), RxMeta { truesize: 9, ..RxMeta::default() });
        assert_eq!(meta(&[], 9), RxMeta { truesize: 9, ..RxMeta::default() });
    }
}
