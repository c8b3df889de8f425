//! The IPv4 header.
//!
//! Owns:    parse, with the header checksum verified and options walked; emit, without options, DF set.
//! Rules:   RFC 791, RFC 1122 3.2.1. Linux: `ip_rcv_core()`.
//! Not here: reassembly (`ip::fragments`), whose addresses are ours (`stack`).

use core::net::{IpAddr, Ipv4Addr};

use crate::observe::DropReason;
use crate::wire::checksum::Checksum;
use crate::wire::ip::{FragmentInfo, IpHeader, MAX_LEN};

/// Header without options, bytes.
pub const HEADER_LEN: usize = 20;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

/// Parses the header at the start of `packet`; for a fragment also says which.
///
/// # Errors
/// [`DropReason::PacketTooSmall`], [`DropReason::IpHeader`], [`DropReason::IpChecksum`].
#[inline(always)] // see `packet`
pub fn parse(packet: &[u8]) -> Result<(IpHeader, Option<FragmentInfo>), DropReason> {
    let header = packet.first_chunk::<HEADER_LEN>().ok_or(DropReason::PacketTooSmall)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_len < HEADER_LEN {
        return Err(DropReason::IpHeader);
    }
    let total_len = u16::from_be_bytes([header[2], header[3]]);
    let full = packet.get(..header_len).ok_or(DropReason::PacketTooSmall)?;
    // Linux: ip_rcv_core(): checksum before the length, then "skb->len < len" and "len < iph->ihl * 4".
    let mut sum = Checksum::new();
    sum.add(full);
    if !sum.is_valid() {
        return Err(DropReason::IpChecksum);
    }
    if packet.len() < usize::from(total_len) {
        return Err(DropReason::PacketTooSmall);
    }
    if usize::from(total_len) < header_len {
        return Err(DropReason::IpHeader);
    }
    if header_len > HEADER_LEN {
        options(&full[HEADER_LEN..])?;
    }
    let id = u16::from_be_bytes([header[4], header[5]]);
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let offset = (flags & 0x1fff) * 8;
    let more = flags & MORE_FRAGMENTS != 0;
    let fragment = (more || offset != 0).then_some(FragmentInfo {
        id: u32::from(id),
        offset,
        more,
        unfragmentable_len: header_len as u32,
        next_header_at: 9,
    });
    let ip = IpHeader {
        src: address([header[12], header[13], header[14], header[15]]),
        dst: address([header[16], header[17], header[18], header[19]]),
        protocol: header[9],
        ttl: header[8],
        tos: header[1],
        id,
        dont_fragment: flags & DONT_FRAGMENT != 0,
        header_len: header_len as u32,
        total_len: u32::from(total_len),
    };
    Ok((ip, fragment))
}

/// Options mean nothing here, but they must be well-formed, and nobody routes through us.
///
/// Linux: ip_rcv_options(), ip_options_compile(); source routes are refused where `accept_source_route` is 0.
#[cold]
fn options(mut options: &[u8]) -> Result<(), DropReason> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let [kind, rest @ ..] = options {
        options = match *kind {
            END => break,
            NOP => rest,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(DropReason::IpHeader),
            _ => {
                let len = rest.first().copied().filter(|len| *len >= 2).ok_or(DropReason::IpHeader)?;
                options.get(usize::from(len)..).ok_or(DropReason::IpHeader)?
            }
        };
    }
    Ok(())
}

fn address(octets: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(octets))
}

/// What goes into an emitted header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4Fields {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Time to live.
    pub ttl: u8,
    /// TOS, ECN bits included.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Protocol number of the payload.
    pub protocol: u8,
}

/// The header bytes for `payload_len` bytes of payload: DF set, no options, checksum in place.
///
/// A total above 65,535 bytes is written as 65,535; callers keep super-segments below that.
pub fn emit(fields: &Ipv4Fields, payload_len: usize) -> [u8; HEADER_LEN] {
    let total_len = (HEADER_LEN + payload_len).min(MAX_LEN) as u16;
    let mut header = [0; HEADER_LEN];
    header[0] = 0x45;
    header[1] = fields.tos;
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    header[4..6].copy_from_slice(&fields.id.to_be_bytes());
    header[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
    header[8] = fields.ttl;
    header[9] = fields.protocol;
    header[12..16].copy_from_slice(&fields.src.octets());
    header[16..20].copy_from_slice(&fields.dst.octets());
    // From the fields, not from the bytes just written: reading those back at once stalls (18 instead of 35 ns a packet).
    // Addresses, protocol and length are what a pseudo-header has too.
    let (src, dst) = (fields.src.into(), fields.dst.into());
    let mut sum = Checksum::pseudo_header(src, dst, fields.protocol, u32::from(total_len));
    for word in [0x4500 | u16::from(fields.tos), fields.id, DONT_FRAGMENT, u16::from(fields.ttl) << 8] {
        sum.add_u16(word);
    }
    header[10..12].copy_from_slice(&sum.finish().to_be_bytes());
    header
}

/// Computes the header checksum of `header` (options included) and stores it.
pub(crate) fn set_checksum(header: &mut [u8]) {
    if let Some(field) = header.get_mut(10..12) {
        field.fill(0);
    }
    let mut sum = Checksum::new();
    sum.add(header);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&sum.finish().to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Ipv4Fields {
        Ipv4Fields {
            src: Ipv4Addr::new(192, 0, 2, 1),
            dst: Ipv4Addr::new(198, 51, 100, 2),
            ttl: 64,
            tos: 2,
            id: 7,
            protocol: 6,
        }
    }

    #[test]
    fn padding_behind_the_total_length_is_not_payload() {
        let mut packet = emit(&fields(), 4).to_vec();
        packet.extend_from_slice(&[1, 2, 3, 4, 0, 0, 0]);
        let (ip, fragment) = parse(&packet).expect("valid");
        assert_eq!((ip.header_len, ip.total_len, fragment), (20, 24, None));
    }

    #[test]
    fn every_broken_header_has_its_reason() {
        let good = emit(&fields(), 4);
        let mut packet = good.to_vec();
        packet.extend_from_slice(&[0; 4]);
        assert!(parse(&packet).is_ok());
        assert_eq!(parse(&packet[..19]), Err(DropReason::PacketTooSmall));
        assert_eq!(parse(&packet[..23]), Err(DropReason::PacketTooSmall));

        let mut broken = packet.clone();
        broken[8] ^= 1;
        assert_eq!(parse(&broken), Err(DropReason::IpChecksum));

        let mut broken = packet.clone();
        broken[0] = 0x44;
        assert_eq!(parse(&broken), Err(DropReason::IpHeader));

        let mut broken = packet.clone();
        broken[2..4].copy_from_slice(&19u16.to_be_bytes());
        set_checksum(&mut broken[..20]);
        assert_eq!(parse(&broken), Err(DropReason::IpHeader));

        let mut broken = packet;
        broken[0] = 0x4f;
        assert_eq!(parse(&broken), Err(DropReason::PacketTooSmall), "options past the end");
    }

    #[test]
    fn options_are_walked_and_source_routes_refused() {
        let with_options = |options: [u8; 8]| {
            let mut packet = emit(&fields(), 8).to_vec();
            packet[0] = 0x47;
            packet.extend_from_slice(&options);
            set_checksum(&mut packet);
            parse(&packet).map(|(ip, _)| ip.header_len)
        };
        assert_eq!(with_options([1, 148, 4, 0, 0, 0, 0, 0]), Ok(28), "router alert");
        assert_eq!(with_options([0, 131, 7, 4, 0, 0, 0, 0]), Ok(28), "nothing counts behind the end");
        assert_eq!(with_options([1, 131, 7, 4, 0, 0, 0, 0]), Err(DropReason::IpHeader), "loose source route");
        assert_eq!(
            with_options([137, 7, 4, 0, 0, 0, 0, 0]),
            Err(DropReason::IpHeader),
            "strict source route"
        );
        assert_eq!(with_options([7, 1, 0, 0, 0, 0, 0, 0]), Err(DropReason::IpHeader), "length 1");
        assert_eq!(with_options([7, 9, 0, 0, 0, 0, 0, 0]), Err(DropReason::IpHeader), "past the end");
        assert_eq!(with_options([1, 1, 1, 1, 1, 1, 1, 7]), Err(DropReason::IpHeader), "kind without length");
    }

    #[test]
    fn fragments_are_told_apart() {
        for (flags, offset, more) in [(0x2000u16, 0u16, true), (0x2001, 8, true), (0x00b9, 1480, false)] {
            let mut packet = emit(&fields(), 4).to_vec();
            packet.extend_from_slice(&[0; 4]);
            packet[6..8].copy_from_slice(&flags.to_be_bytes());
            set_checksum(&mut packet[..20]);
            let (ip, fragment) = parse(&packet).expect("valid");
            let fragment = fragment.expect("a fragment");
            assert_eq!((fragment.id, fragment.offset, fragment.more), (7, offset, more));
            assert!(!ip.dont_fragment);
        }
    }
}
