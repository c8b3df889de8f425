//! The pcapng format: one section, one interface of raw IP packets, nanosecond times, comments.
//!
//! Owns:    the bytes of each block.
//! Rules:   draft-ietf-opsawg-pcapng: blocks are a multiple of 4 bytes, their length stands at both ends.
//! Not here: files and threads (`capture`).

use lastack_core::time::Instant;

/// Link type of packets that begin with their IPv4 or IPv6 header (`LINKTYPE_RAW`).
const LINKTYPE_RAW: u16 = 101;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IFDROP: u16 = 5;

/// Which way a packet went, seen from the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The stack received it.
    Inbound = 1,
    /// The stack sent it.
    Outbound = 2,
}

/// Appends blocks to a buffer.
#[derive(Debug)]
struct Block<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Block<'a> {
    fn begin(out: &'a mut Vec<u8>, kind: u32) -> Self {
        let start = out.len();
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        Self { out, start }
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn padded(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
        self
    }

    fn option(&mut self, code: u16, value: &[u8]) -> &mut Self {
        // An option's length has 16 bits.
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.u16(code).u16(value.len() as u16).padded(value)
    }

    fn time(&mut self, at: Instant) -> &mut Self {
        let nanos = at.as_nanos();
        self.u32((nanos >> 32) as u32).u32(nanos as u32)
    }

    fn end(&mut self) {
        let len = (self.out.len() - self.start + 4) as u32;
        self.out.extend_from_slice(&len.to_le_bytes());
        self.out[self.start + 4..self.start + 8].copy_from_slice(&len.to_le_bytes());
    }
}

/// What a file begins with: the section and its only interface. `application` wrote it, `interface` names the link.
pub fn write_header(out: &mut Vec<u8>, application: &str, interface: &str) {
    let mut section = Block::begin(out, SECTION_HEADER);
    // Byte-order magic, version 1.0, section length unknown (-1).
    section.u32(0x1a2b_3c4d).u16(1).u16(0).u32(u32::MAX).u32(u32::MAX);
    section.option(SHB_USERAPPL, application.as_bytes()).option(OPT_END, &[]).end();

    let mut description = Block::begin(out, INTERFACE_DESCRIPTION);
    // Link type, reserved, no snapshot length; times in units of 10^-9 s.
    description.u16(LINKTYPE_RAW).u16(0).u32(0);
    description.option(IF_NAME, interface.as_bytes()).option(IF_TSRESOL, &[9]).option(OPT_END, &[]).end();
}

/// One packet, with an optional comment that readers show beside it.
pub fn write_packet(
    out: &mut Vec<u8>,
    at: Instant,
    direction: Direction,
    packet: &[u8],
    comment: Option<&str>,
) {
    let mut block = Block::begin(out, ENHANCED_PACKET);
    let len = packet.len() as u32;
    block.u32(0).time(at).u32(len).u32(len).padded(packet);
    block.option(EPB_FLAGS, &(direction as u32).to_le_bytes());
    if let Some(comment) = comment {
        block.option(OPT_COMMENT, comment.as_bytes());
    }
    block.option(OPT_END, &[]).end();
}

/// How many packets were not written.
pub fn write_dropped(out: &mut Vec<u8>, at: Instant, dropped: u64) {
    let mut block = Block::begin(out, INTERFACE_STATISTICS);
    block.u32(0).time(at);
    block.option(ISB_IFDROP, &dropped.to_le_bytes()).option(OPT_END, &[]).end();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type and body of each block; the lengths at both ends must agree.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let len = word(4) as usize;
            assert_eq!(len % 4, 0);
            assert_eq!(word(len - 4) as usize, len);
            found.push((word(0), bytes[8..len - 4].to_vec()));
            bytes = &bytes[len..];
        }
        found
    }

    #[test]
    fn blocks_are_framed_and_padded() {
        let mut out = Vec::new();
        write_header(&mut out, "lastack", "tun0");
        let at = Instant::from_nanos(0x1122_3344_5566_7788);
        write_packet(&mut out, at, Direction::Outbound, &[0x45, 1, 2, 3, 4], Some("curl"));
        write_dropped(&mut out, at, 3);
        let found = blocks(&out);
        let kinds: Vec<u32> = found.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION_HEADER, INTERFACE_DESCRIPTION, ENHANCED_PACKET, INTERFACE_STATISTICS]);
        let expected = [
            &[0, 0, 0, 0, 0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55, 5, 0, 0, 0, 5, 0, 0, 0][..],
            &[
                0x45, 1, 2, 3, 4, 0, 0, 0, 2, 0, 4, 0, 2, 0, 0, 0, 1, 0, 4, 0, b'c', b'u', b'r', b'l', 0, 0,
                0, 0,
            ],
        ]
        .concat();
        assert_eq!(found[2].1, expected);
    }
}
