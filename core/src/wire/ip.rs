//! What both IP versions have in common: the parsed header and the fields to send.

use core::net::IpAddr;

/// IP protocol numbers (IPv6: next header) that this stack knows.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 multicast group management.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6: nothing follows.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// What an IPv4 total length or an IPv6 payload length can say, bytes.
pub const MAX_LEN: usize = 65_535;

/// An IP header as received; extension headers are behind us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpHeader {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Protocol of what follows; after the extension headers for IPv6.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class, the ECN bits included.
    pub tos: u8,
    /// IPv4: the identification field. IPv6: 0.
    pub id: u16,
    /// IPv4: the don't-fragment bit. IPv6: always true, routers do not fragment.
    pub dont_fragment: bool,
    /// From the packet's first byte to what `protocol` names, bytes.
    pub header_len: u32,
    /// Header and payload, bytes; what lies behind that in the buffer is padding.
    pub total_len: u32,
}

impl IpHeader {
    /// The two ECN bits: 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE.
    pub const fn ecn(&self) -> u8 {
        self.tos & 3
    }
}

/// Where a fragment belongs and how to get its datagram's header back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentInfo {
    /// Identification: 16 bits for IPv4, 32 for IPv6.
    pub id: u32,
    /// Place in the datagram's payload, bytes; a multiple of 8, at most 65,528.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
    /// Bytes of the packet that every fragment repeats: the IPv4 header, or the IPv6 headers before the fragment header.
    pub unfragmentable_len: u32,
    /// IPv6: where in these bytes the field lies that names the fragment header. IPv4: 9, the protocol field.
    pub next_header_at: u32,
}

/// What a sender decides about the IP header.
///
/// Both addresses must be of one family; a mixed pair is sent as IPv6 with the IPv4 one mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpFields {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class, the ECN bits included.
    pub tos: u8,
    /// IPv4 identification; not sent with IPv6.
    pub id: u16,
}
