//! The one link: our addresses, what it can carry, and what is known of the paths behind it.
//!
//! Owns:    addresses, MTU and offload limits, IPv4 identification, path MTUs, fragments, the rate of ICMP errors.
//! Rules:   RFC 1122 3.2.1. Linux: `ip_route_input`, `ip_select_ident`.
//! Differs: one link and no routing table; every destination is on the link or behind it.

use core::net::IpAddr;

use crate::ip::fragments::{FragmentLimits, Fragments};
use crate::ip::icmp::RateLimit;
use crate::ip::pmtu::PathMtu;
use crate::stack::Config;
use crate::time::Instant;

/// The link and what lies behind it.
#[derive(Debug)]
pub(crate) struct Link {
    addresses: Vec<(IpAddr, u8)>,
    any_address: bool,
    pub(crate) mtu: u32,
    pub(crate) gso_max_segs: u16,
    pub(crate) gso_max_size: u32,
    next_id: u16,
    pub(crate) paths: PathMtu,
    pub(crate) fragments: Fragments,
    pub(crate) icmp_rate: RateLimit,
}

impl Link {
    pub(crate) fn new(config: &Config, first_id: u16, now: Instant) -> Self {
        Self {
            addresses: config.addresses.clone(),
            any_address: config.any_address,
            mtu: config.mtu,
            gso_max_segs: config.gso_max_segs.max(1),
            gso_max_size: config.gso_max_size,
            next_id: first_id,
            paths: PathMtu::new(),
            fragments: Fragments::new(FragmentLimits::default()),
            icmp_rate: RateLimit::new(now),
        }
    }

    /// One of the stack's own addresses.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(own, _)| *own == address)
    }

    /// A packet for `address` is for us; so may a socket be bound there.
    pub(crate) fn accepts(&self, address: IpAddr) -> bool {
        self.any_address || self.is_own(address)
    }

    /// IPv4's broadcast of one of our networks.
    pub(crate) fn is_broadcast(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        address.is_broadcast()
            || self.addresses.iter().any(|(own, prefix)| match own {
                IpAddr::V4(own) if *prefix < 31 => {
                    let host_bits = u32::MAX.checked_shr(u32::from(*prefix)).unwrap_or(0);
                    u32::from(*own) | host_bits == u32::from(address)
                }
                _ => false,
            })
    }

    /// The address that speaks to `destination`.
    pub(crate) fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().map(|(own, _)| *own).find(|own| own.is_ipv4() == destination.is_ipv4())
    }

    /// Largest packet to `destination`, bytes.
    pub(crate) fn mtu_for(&self, now: Instant, destination: IpAddr) -> u32 {
        self.paths.get(now, destination).map_or(self.mtu, |path| path.min(self.mtu))
    }

    /// Identification of the next IPv4 packet, which stands for `segs` wire packets.
    pub(crate) fn take_id(&mut self, segs: u16) -> u16 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(segs.max(1));
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_broadcasts_and_sources() {
        let config = Config {
            addresses: vec![
                ([192, 0, 2, 1].into(), 24),
                ([198, 51, 100, 1].into(), 31),
                ("2001:db8::1".parse().expect("address"), 64),
            ],
            ..Config::default()
        };
        let link = Link::new(&config, 0, Instant::ZERO);
        assert!(link.accepts([198, 51, 100, 1].into()) && !link.accepts([192, 0, 2, 2].into()));
        assert!(link.is_broadcast([192, 0, 2, 255].into()) && link.is_broadcast([255; 4].into()));
        assert!(!link.is_broadcast([198, 51, 100, 1].into()), "a /31 has no broadcast");
        assert_eq!(link.source_for([203, 0, 113, 9].into()), Some([192, 0, 2, 1].into()));
    }
}
