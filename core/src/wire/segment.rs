//! A TCP segment as clean values: what the parser yields and what output composes.
//!
//! Inside the door only these exist; bounds, byte order and checksums are `wire::tcp`'s business.

use core::net::IpAddr;

use bytes::Bytes;

use crate::tcp::seq::{SeqNum, SeqRange};

/// TCP's flag bits, in their wire positions (RFC 9293 3.1; `AE` is RFC 9768's, the former NS).
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// No flag at all.
    pub const NONE: Self = Self(0);
    /// Sender is finished.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment field counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN echo.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x80);
    /// Accurate ECN.
    pub const AE: Self = Self(0x100);

    /// True when every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True when any bit of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The union.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `self` without the bits of `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// SYN is set.
    pub const fn syn(self) -> bool {
        self.contains(Self::SYN)
    }
    /// FIN is set.
    pub const fn fin(self) -> bool {
        self.contains(Self::FIN)
    }
    /// RST is set.
    pub const fn rst(self) -> bool {
        self.contains(Self::RST)
    }
    /// ACK is set.
    pub const fn ack(self) -> bool {
        self.contains(Self::ACK)
    }
    /// PSH is set.
    pub const fn psh(self) -> bool {
        self.contains(Self::PSH)
    }
    /// URG is set.
    pub const fn urg(self) -> bool {
        self.contains(Self::URG)
    }
    /// ECE is set.
    pub const fn ece(self) -> bool {
        self.contains(Self::ECE)
    }
    /// CWR is set.
    pub const fn cwr(self) -> bool {
        self.contains(Self::CWR)
    }
}

impl core::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

/// packetdrill's spelling: `S.`, `P.`, `F.`, `R`, `-` for none.
impl core::fmt::Display for Flags {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        const LETTERS: [(Flags, &str); 9] = [
            (Flags::SYN, "S"),
            (Flags::FIN, "F"),
            (Flags::RST, "R"),
            (Flags::PSH, "P"),
            (Flags::ACK, "."),
            (Flags::URG, "U"),
            (Flags::ECE, "E"),
            (Flags::CWR, "W"),
            (Flags::AE, "A"),
        ];
        if self.0 == 0 {
            return f.write_str("-");
        }
        for (flag, letter) in LETTERS {
            if self.contains(flag) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl core::fmt::Debug for Flags {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// The timestamps option (RFC 7323).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timestamps {
    /// The sender's clock.
    pub tsval: u32,
    /// Echo of the receiver's clock; 0 when ACK is clear.
    pub tsecr: u32,
}

/// Up to four SACK blocks, in wire order (RFC 2018; the first may be a DSACK, RFC 2883).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SackBlocks {
    blocks: [SeqRange; 4],
    len: u8,
}

impl SackBlocks {
    /// No block.
    pub const NONE: Self = Self { blocks: [SeqRange { start: SeqNum(0), end: SeqNum(0) }; 4], len: 0 };

    /// Appends a block; a fifth is left out.
    pub fn push(&mut self, block: SeqRange) {
        if let Some(slot) = self.blocks.get_mut(usize::from(self.len)) {
            *slot = block;
            self.len += 1;
        }
    }

    /// The blocks in wire order.
    pub fn as_slice(&self) -> &[SeqRange] {
        &self.blocks[..usize::from(self.len)]
    }

    /// True when there is no block.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A Fast Open cookie (RFC 7413): none, or 4 to 16 bytes, an even number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FastOpenCookie {
    bytes: [u8; 16],
    len: u8,
}

impl FastOpenCookie {
    /// A cookie of these bytes; `None` when it has a length that no cookie has.
    pub fn new(cookie: &[u8]) -> Option<Self> {
        let mut bytes = [0; 16];
        if !cookie.is_empty() && (cookie.len() < 4 || cookie.len() % 2 == 1) {
            return None;
        }
        bytes.get_mut(..cookie.len())?.copy_from_slice(cookie);
        Some(Self { bytes, len: cookie.len() as u8 })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// It is a request.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The Fast Open option (RFC 7413), only in segments with SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FastOpen {
    /// In its experimental form: kind 254 with 0xF989 (RFC 6994) instead of kind 34.
    pub experimental: bool,
    /// The cookie; an empty one asks for one.
    pub cookie: FastOpenCookie,
}

/// The options this stack knows; unknown kinds are skipped by the parser.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Maximum segment size, bytes (kind 2); only in segments with SYN.
    pub mss: Option<u16>,
    /// Window shift as received, possibly above 14 (kind 3); only with SYN.
    pub wscale: Option<u8>,
    /// SACK permitted (kind 4); only with SYN.
    pub sack_permitted: bool,
    /// Timestamps (kind 8).
    pub timestamps: Option<Timestamps>,
    /// SACK blocks (kind 5).
    pub sack: SackBlocks,
    /// Fast Open (kind 34, or 254); only with SYN.
    pub fast_open: Option<FastOpen>,
}

/// A TCP header, parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegmentHeader {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first octet (of SYN, if set).
    pub seq: SeqNum,
    /// Acknowledgment field, meaningful when [`Flags::ACK`] is set; kept even when it is not.
    pub ack: SeqNum,
    /// Flag bits.
    pub flags: Flags,
    /// Window field as on the wire, not scaled.
    pub wnd: u16,
    /// Urgent pointer field.
    pub urg: u16,
    /// Options.
    pub options: Options,
}

/// One received segment: header, payload, and what IP said.
///
/// The payload shares the received buffer. A super-segment (from TSO/GRO) is one `Segment` with `segs > 1`.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Source address (the remote end).
    pub src: IpAddr,
    /// Destination address (our end).
    pub dst: IpAddr,
    /// The TCP header.
    pub header: SegmentHeader,
    /// Payload bytes.
    pub payload: Bytes,
    /// How many wire segments this stands for, at least 1.
    pub segs: u16,
    /// TOS or traffic class of the IP header, the ECN bits included.
    pub tos: u8,
    /// IP TTL or hop limit.
    pub ttl: u8,
    /// Bytes of the buffer that `payload` keeps alive; at least `payload.len()`.
    pub truesize: u32,
}

impl Segment {
    /// The two ECN bits of the IP header: 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE.
    pub const fn ecn(&self) -> u8 {
        self.tos & 3
    }

    /// TOS or traffic class without the ECN bits: what an answer has.
    pub const fn class(&self) -> u8 {
        self.tos & !3
    }

    /// Sequence numbers taken: payload, plus one each for SYN and FIN.
    pub fn seq_len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.header.flags.syn()) + u32::from(self.header.flags.fin())
    }

    /// First sequence number after this segment (Linux `end_seq`).
    pub fn end_seq(&self) -> SeqNum {
        self.header.seq + self.seq_len()
    }
}
