//! The UDP header.
//!
//! Owns:    parse and emit of its eight bytes.
//! Rules:   RFC 768. Linux: `__udp4_lib_rcv()` (a length beyond the packet is an error, padding is cut off).
//! Not here: the checksum (`packet` verifies, `emit` prepares).

use crate::observe::DropReason;

/// Header, bytes.
pub const HEADER_LEN: usize = 8;
/// Place of the checksum field in the header.
pub const CHECKSUM_AT: usize = 6;

/// A UDP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UdpHeader {
    /// Source port; 0: no answer wanted.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Header and payload, bytes, at least 8.
    pub len: u16,
    /// Checksum field; 0: none was computed.
    pub checksum: u16,
}

/// Parses the header at the start of `datagram`.
///
/// # Errors
/// [`DropReason::PacketTooSmall`] when there are fewer bytes than 8 or than the length field says.
pub fn parse(datagram: &[u8]) -> Result<UdpHeader, DropReason> {
    let [a, b, c, d, e, f, g, h] = *datagram.first_chunk::<HEADER_LEN>().ok_or(DropReason::PacketTooSmall)?;
    let len = u16::from_be_bytes([e, f]);
    if usize::from(len) < HEADER_LEN || usize::from(len) > datagram.len() {
        return Err(DropReason::PacketTooSmall);
    }
    Ok(UdpHeader {
        src_port: u16::from_be_bytes([a, b]),
        dst_port: u16::from_be_bytes([c, d]),
        len,
        checksum: u16::from_be_bytes([g, h]),
    })
}

/// The header in wire form.
pub fn emit(header: &UdpHeader) -> [u8; HEADER_LEN] {
    let [a, b] = header.src_port.to_be_bytes();
    let [c, d] = header.dst_port.to_be_bytes();
    let [e, f] = header.len.to_be_bytes();
    let [g, h] = header.checksum.to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_field_is_believed_only_within_the_packet() {
        let header = UdpHeader { src_port: 1, dst_port: 2, len: 10, checksum: 3 };
        let mut bytes = emit(&header).to_vec();
        assert_eq!(parse(&bytes), Err(DropReason::PacketTooSmall));
        bytes.extend_from_slice(&[0; 4]);
        assert_eq!(parse(&bytes), Ok(header));
        bytes[5] = 7;
        assert_eq!(parse(&bytes), Err(DropReason::PacketTooSmall));
        assert_eq!(parse(&bytes[..7]), Err(DropReason::PacketTooSmall));
    }
}
