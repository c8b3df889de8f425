//! What was received, as it was on the wire: for devices that look at single packets.

use bytes::Bytes;
use lastack_core::wire::transmit::{RxMeta, Transmit, TxChecksum};

/// A received packet as the `Transmit` that would put the same on a wire.
pub(crate) fn undo_offload(out: &mut Transmit, packet: &[u8], meta: RxMeta) {
    out.clear();
    let (start, protocol) = match packet.first().map(|first| first >> 4) {
        Some(4) => (usize::from(packet[0] & 15) * 4, packet.get(9)),
        _ => (40, packet.get(6)),
    };
    let (head, offset) = match protocol {
        Some(&6) => {
            let words = packet.get(start + 12).map_or(5, |byte| byte >> 4);
            (start + usize::from(words) * 4, 16)
        }
        Some(&17) => (start + 8, 6),
        _ => (packet.len(), 0),
    };
    let (head, payload) = packet.split_at(head.min(packet.len()));
    out.head.extend_from_slice(head);
    out.payload.push(Bytes::copy_from_slice(payload));
    out.segment_size = meta.segment_size;
    if offset != 0 {
        // Whatever the checksum field holds (a partial sum, or a finished one): it is made anew.
        out.checksum = TxChecksum::Partial { start: start as u16, offset };
    }
}
