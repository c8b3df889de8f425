//! The two ends of a packet.

use std::net::{IpAddr, SocketAddr};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The two ends of what a packet belongs to. The port is 0 where a packet has none (ICMP, later fragments).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ends {
    /// The stack's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

/// What the filters look at.
pub(super) struct Parsed {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// TCP: SYN without ACK.
    pub(super) is_first_syn: bool,
}

impl Parsed {
    pub(super) fn inbound(&self) -> Ends {
        Ends { local: self.destination, remote: self.source }
    }

    pub(super) fn outbound(&self) -> Ends {
        Ends { local: self.source, remote: self.destination }
    }

    /// Reads a packet that begins with the IP header; `None`: it is none.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let first = *packet.first()?;
        let (source, destination, protocol, start) = match first >> 4 {
            4 => {
                let is_later_fragment = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x1fff != 0;
                let protocol = if is_later_fragment { 0 } else { *packet.get(9)? };
                (v4(packet, 12)?, v4(packet, 16)?, protocol, usize::from(first & 15) * 4)
            }
            6 => (v6(packet, 8)?, v6(packet, 24)?, *packet.get(6)?, 40),
            _ => return None,
        };
        let port = |at: usize| match (protocol, packet.get(at..at + 2)) {
            (TCP | UDP, Some(bytes)) => u16::from_be_bytes([bytes[0], bytes[1]]),
            _ => 0,
        };
        let flags = if protocol == TCP { packet.get(start + 13).copied().unwrap_or(0) } else { 0 };
        Some(Self {
            source: SocketAddr::new(source, port(start)),
            destination: SocketAddr::new(destination, port(start + 2)),
            is_first_syn: flags & 0x12 == 0x02,
        })
    }
}

fn v4(packet: &[u8], at: usize) -> Option<IpAddr> {
    Some(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?.into())
}

fn v6(packet: &[u8], at: usize) -> Option<IpAddr> {
    Some(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_found_in_both_families_and_never_beyond_the_packet() {
        let mut v4 = vec![0x45; 1];
        v4.resize(40, 0);
        v4[9] = TCP;
        v4[12..16].copy_from_slice(&[10, 0, 0, 1]);
        v4[16..20].copy_from_slice(&[10, 0, 0, 2]);
        v4[20..24].copy_from_slice(&[0, 80, 1, 0]);
        v4[33] = 0x02;
        let parsed = Parsed::read(&v4).unwrap();
        assert_eq!(parsed.inbound().local, "10.0.0.2:256".parse().unwrap());
        assert_eq!(parsed.outbound().local, "10.0.0.1:80".parse().unwrap());
        assert!(parsed.is_first_syn);
        // A later fragment has no ports.
        v4[7] = 1;
        assert_eq!(Parsed::read(&v4).unwrap().source.port(), 0);
        let mut v6 = vec![0x60; 1];
        v6.resize(44, 0);
        v6[6] = UDP;
        v6[40..44].copy_from_slice(&[0, 53, 0, 1]);
        assert_eq!(Parsed::read(&v6).unwrap().source, "[::]:53".parse().unwrap());
        for len in 0..v6.len() {
            let _ = Parsed::read(&v6[..len]);
            let _ = Parsed::read(&v4[..len.min(v4.len())]);
        }
    }
}
