//! Resets in answer to a segment (Linux `tcp_v4_send_reset`; specification 1.10, 13.11).

use crate::id::FourTuple;
use crate::observe::reason::ResetReason;
use crate::tcp::context::Cx;
use crate::tcp::options::Hop;
use crate::tcp::seq::SeqNum;
use crate::wire::segment::{Flags, Segment, SegmentHeader};

/// The RST that answers `segment`; `None` when it is a RST itself: a reset never answers a reset.
pub(crate) fn reset_for(segment: &Segment) -> Option<SegmentHeader> {
    let header = &segment.header;
    if header.flags.rst() {
        return None;
    }
    let reply =
        SegmentHeader { src_port: header.dst_port, dst_port: header.src_port, ..SegmentHeader::default() };
    // RFC 9293 3.10.7.1: "If the ACK bit is off, sequence number zero is used, <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>.
    // If the ACK bit is on, <SEQ=SEG.ACK><CTL=RST>."
    Some(if header.flags.ack() {
        SegmentHeader { seq: header.ack, flags: Flags::RST, ..reply }
    } else {
        SegmentHeader { seq: SeqNum(0), ack: segment.end_seq(), flags: Flags::RST | Flags::ACK, ..reply }
    })
}

/// Sends the RST that answers `segment`, unless it is one.
pub(crate) fn answer_with_reset(
    cookie: u64,
    tuple: &FourTuple,
    segment: &Segment,
    reason: ResetReason,
    cx: &mut Cx<'_>,
) {
    if let Some(header) = reset_for(segment) {
        cx.send_reset(cookie, tuple, header, Hop::answering(segment), reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use core::net::{IpAddr, Ipv4Addr};

    fn segment(flags: Flags, seq: u32, ack: u32, len: usize) -> Segment {
        Segment {
            src: IpAddr::V4(Ipv4Addr::LOCALHOST),
            dst: IpAddr::V4(Ipv4Addr::LOCALHOST),
            header: SegmentHeader {
                src_port: 1,
                dst_port: 2,
                seq: SeqNum(seq),
                ack: SeqNum(ack),
                flags,
                ..SegmentHeader::default()
            },
            payload: Bytes::from(vec![0; len]),
            segs: 1,
            tos: 0,
            ttl: 64,
            truesize: len as u32,
        }
    }

    /// Specification 13.11.
    #[test]
    fn resets_as_linux_synthesises_them() {
        let reset = reset_for(&segment(Flags::ACK, 10, 20, 0)).expect("an ACK is answered");
        assert_eq!((reset.flags, reset.seq, reset.src_port, reset.dst_port), (Flags::RST, SeqNum(20), 2, 1));
        let reset = reset_for(&segment(Flags::SYN, 10, 0, 0)).expect("a SYN is answered");
        assert_eq!((reset.flags, reset.seq, reset.ack), (Flags::RST | Flags::ACK, SeqNum(0), SeqNum(11)));
        let reset = reset_for(&segment(Flags::FIN, 10, 0, 3)).expect("a FIN is answered");
        assert_eq!((reset.flags, reset.ack, reset.wnd), (Flags::RST | Flags::ACK, SeqNum(14), 0));
        assert_eq!(reset_for(&segment(Flags::RST, 10, 0, 0)), None);
    }
}
