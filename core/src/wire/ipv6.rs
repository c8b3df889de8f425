//! The IPv6 header and its extension headers.
//!
//! Owns:    parse: walks hop-by-hop, routing, destination options and fragment headers, at most [`MAX_EXTENSIONS`]; emit.
//! Rules:   RFC 8200, RFC 6946 (atomic fragments are whole packets). Linux: `ip6_rcv_core()`, `ip6_parse_tlv()`.
//! Differs: an option or routing header that forbids processing drops the packet without a parameter problem message.
//! Not here: reassembly (`ip::fragments`), jumbograms (refused: the option is unknown, its type says discard).

use core::net::{IpAddr, Ipv6Addr};

use crate::observe::DropReason;
use crate::wire::ip::{FragmentInfo, IpHeader, MAX_LEN, protocol};

/// Fixed header, bytes.
pub const HEADER_LEN: usize = 40;

/// Extension headers walked before a packet is refused.
pub const MAX_EXTENSIONS: usize = 8;

const FRAGMENT_HEADER_LEN: usize = 8;

/// Parses the headers at the start of `packet`; for a fragment also says which.
///
/// # Errors
/// [`DropReason::PacketTooSmall`], [`DropReason::IpHeader`].
#[inline(always)] // see `packet`
pub fn parse(packet: &[u8]) -> Result<(IpHeader, Option<FragmentInfo>), DropReason> {
    let header = packet.first_chunk::<HEADER_LEN>().ok_or(DropReason::PacketTooSmall)?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::IpHeader);
    }
    let total_len = HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let packet = packet.get(..total_len).ok_or(DropReason::PacketTooSmall)?;
    let walk = match header[6] {
        protocol::TCP | protocol::UDP | protocol::ICMPV6 => {
            Walk { protocol: header[6], header_len: HEADER_LEN, fragment: None }
        }
        _ => walk(packet, header[6])?,
    };
    let ip = IpHeader {
        src: address(&packet[8..24]),
        dst: address(&packet[24..40]),
        protocol: walk.protocol,
        ttl: header[7],
        tos: header[0] << 4 | header[1] >> 4,
        id: 0,
        dont_fragment: true,
        header_len: walk.header_len as u32,
        total_len: total_len as u32,
    };
    Ok((ip, walk.fragment))
}

fn address(bytes: &[u8]) -> IpAddr {
    let octets: [u8; 16] = bytes.try_into().unwrap_or_default();
    IpAddr::V6(Ipv6Addr::from(octets))
}

struct Walk {
    protocol: u8,
    header_len: usize,
    fragment: Option<FragmentInfo>,
}

/// From the fixed header to the first header that is not an extension, or to the fragment header's end.
fn walk(packet: &[u8], first: u8) -> Result<Walk, DropReason> {
    let mut next_header = first;
    let mut next_header_at = 6;
    let mut at = HEADER_LEN;
    for n in 0..=MAX_EXTENSIONS {
        let extension_len = match next_header {
            // RFC 8200 4.1: hop-by-hop options only directly behind the fixed header.
            protocol::HOP_BY_HOP if n > 0 => return Err(DropReason::IpHeader),
            protocol::HOP_BY_HOP | protocol::DESTINATION_OPTIONS => {
                let extension = extension(packet, at)?;
                options(&extension[2..])?;
                extension.len()
            }
            protocol::ROUTING => {
                let extension = extension(packet, at)?;
                // RFC 8200 4.4: unknown types are skipped when no segment is left, else the packet is discarded;
                // RFC 5095 made type 0 unknown, and this stack forwards for nobody.
                if extension[3] != 0 {
                    return Err(DropReason::IpHeader);
                }
                extension.len()
            }
            protocol::FRAGMENT => {
                let fragment = fragment(packet, at)?;
                let info = FragmentInfo {
                    unfragmentable_len: at as u32,
                    next_header_at: next_header_at as u32,
                    ..fragment
                };
                if info.offset != 0 || info.more {
                    return Ok(Walk {
                        protocol: packet[at],
                        header_len: at + FRAGMENT_HEADER_LEN,
                        fragment: Some(info),
                    });
                }
                FRAGMENT_HEADER_LEN
            }
            _ => return Ok(Walk { protocol: next_header, header_len: at, fragment: None }),
        };
        // `extension` and `fragment` saw these bytes.
        next_header = packet[at];
        next_header_at = at;
        at += extension_len;
    }
    Err(DropReason::IpHeader)
}

/// An extension header in the common form: next header, length in 8-byte units beyond the first.
fn extension(packet: &[u8], at: usize) -> Result<&[u8], DropReason> {
    let rest = packet.get(at..).unwrap_or_default();
    let units = rest.get(1).ok_or(DropReason::PacketTooSmall)?;
    rest.get(..(usize::from(*units) + 1) * 8).ok_or(DropReason::PacketTooSmall)
}

fn fragment(packet: &[u8], at: usize) -> Result<FragmentInfo, DropReason> {
    let header: &[u8; FRAGMENT_HEADER_LEN] =
        packet.get(at..).and_then(<[u8]>::first_chunk).ok_or(DropReason::PacketTooSmall)?;
    let field = u16::from_be_bytes([header[2], header[3]]);
    Ok(FragmentInfo {
        id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        offset: field & 0xfff8,
        more: field & 1 != 0,
        unfragmentable_len: 0,
        next_header_at: 0,
    })
}

/// RFC 8200 4.2: an unknown option's two highest bits say whether to skip it (00) or to discard the packet.
/// Every option but padding is unknown here; router alert (5) is of the kind to skip.
fn options(mut options: &[u8]) -> Result<(), DropReason> {
    while let [kind, rest @ ..] = options {
        if *kind == 0 {
            options = rest; // Pad1
            continue;
        }
        let [len, rest @ ..] = rest else { return Err(DropReason::IpHeader) };
        if *kind >> 6 != 0 {
            return Err(DropReason::IpHeader);
        }
        options = rest.get(usize::from(*len)..).ok_or(DropReason::IpHeader)?;
    }
    Ok(())
}

/// What goes into an emitted header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6Fields {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Hop limit.
    pub hop_limit: u8,
    /// Traffic class, ECN bits included.
    pub traffic_class: u8,
    /// Protocol of the payload.
    pub next_header: u8,
}

/// The header bytes for `payload_len` bytes of payload; flow label 0.
///
/// A payload above 65,535 bytes is written as 65,535; callers keep super-segments below that.
pub fn emit(fields: &Ipv6Fields, payload_len: usize) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[0] = 0x60 | fields.traffic_class >> 4;
    header[1] = fields.traffic_class << 4;
    let payload_len = payload_len.min(MAX_LEN) as u16;
    header[4..6].copy_from_slice(&payload_len.to_be_bytes());
    header[6] = fields.next_header;
    header[7] = fields.hop_limit;
    header[8..24].copy_from_slice(&fields.src.octets());
    header[24..40].copy_from_slice(&fields.dst.octets());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet with these extension headers (next-header bytes filled in) and `payload_len` zero bytes.
    fn packet(extensions: &[(u8, Vec<u8>)], last: u8, payload_len: usize) -> Vec<u8> {
        let fields = Ipv6Fields {
            src: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            dst: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
            hop_limit: 64,
            traffic_class: 0xb9,
            next_header: extensions.first().map_or(last, |(kind, _)| *kind),
        };
        let len: usize = extensions.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut packet = emit(&fields, len + payload_len).to_vec();
        for (i, (_, bytes)) in extensions.iter().enumerate() {
            let start = packet.len();
            packet.extend_from_slice(bytes);
            packet[start] = extensions.get(i + 1).map_or(last, |(kind, _)| *kind);
        }
        packet.resize(packet.len() + payload_len, 0);
        packet
    }

    #[test]
    fn extension_headers_are_walked() {
        let hop = vec![0, 0, 5, 2, 0, 0, 1, 0]; // router alert, PadN
        let routing = vec![0, 2, 0, 0].into_iter().chain([0; 20]).collect::<Vec<u8>>(); // 24 bytes, 0 segments left
        let destination = vec![0, 0, 1, 4, 0, 0, 0, 0];
        let packet = packet(&[(0, hop), (43, routing), (60, destination)], 6, 20);
        let (ip, fragment) = parse(&packet).expect("valid");
        assert_eq!((ip.protocol, ip.header_len, fragment), (6, 40 + 8 + 24 + 8, None));
        assert_eq!((ip.tos, ip.ecn(), ip.ttl), (0xb9, 1, 64));
    }

    #[test]
    fn an_atomic_fragment_is_a_whole_packet() {
        let packet = packet(&[(44, vec![0, 0, 0, 0, 0, 0, 0, 9])], 17, 8);
        let (ip, fragment) = parse(&packet).expect("valid");
        assert_eq!((ip.protocol, ip.header_len, fragment), (17, 48, None));
    }

    #[test]
    fn a_fragment_says_what_belongs_to_the_first_header() {
        let hop = vec![0, 0, 1, 4, 0, 0, 0, 0];
        let packet = packet(&[(0, hop), (44, vec![0, 0, 0x05, 0xa9, 0, 1, 0, 2])], 17, 8);
        let (ip, fragment) = parse(&packet).expect("valid");
        let fragment = fragment.expect("a fragment");
        assert_eq!(ip.header_len, 56);
        assert_eq!((fragment.offset, fragment.more, fragment.id), (0x5a8, true, 0x1_0002));
        assert_eq!((fragment.unfragmentable_len, fragment.next_header_at), (48, 40));
    }

    #[test]
    fn hop_by_hop_anywhere_else_is_refused() {
        let pad = vec![0, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(parse(&packet(&[(60, pad.clone()), (0, pad)], 6, 20)), Err(DropReason::IpHeader));
    }

    #[test]
    fn options_that_forbid_processing_are_obeyed() {
        for (kind, allowed) in [(0x1e, true), (0x5e, false), (0x9e, false), (0xc2, false)] {
            let option = vec![0, 0, kind, 4, 0, 0, 0, 0];
            assert_eq!(parse(&packet(&[(60, option)], 6, 20)).is_ok(), allowed, "option {kind:#x}");
        }
    }

    #[test]
    fn a_routing_header_with_segments_left_is_refused() {
        let routing = vec![0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(parse(&packet(&[(43, routing)], 6, 20)), Err(DropReason::IpHeader));
    }

    #[test]
    fn a_chain_of_extensions_is_bounded() {
        let pad = (60u8, vec![0u8, 0, 1, 4, 0, 0, 0, 0]);
        assert!(parse(&packet(&vec![pad.clone(); MAX_EXTENSIONS], 6, 20)).is_ok());
        assert_eq!(parse(&packet(&vec![pad; MAX_EXTENSIONS + 1], 6, 20)), Err(DropReason::IpHeader));
    }
}
