//! Path MTU: what routers said about the way to a destination.
//!
//! Owns:    [`PathMtu`], a bounded memory of destinations whose path is narrower than the link.
//! Input:   packet-too-big and fragmentation-needed errors whose quote was already found to be ours.
//! Output:  the MTU for a destination.
//! Rules:   RFC 1191, RFC 8201. Linux: `__ip_rt_update_pmtu()`, `net.ipv4.route.{mtu_expires, min_pmtu}`.
//! Not here: whether to believe an error (`tcp` checks its sequence number), probing (`tcp`).

use core::net::IpAddr;

use crate::ip::by_address::ByAddress;
use crate::time::{Duration, Instant};

/// Linux `net.ipv4.route.mtu_expires`, 600 s: afterwards the path may have become wider.
pub const MTU_EXPIRES: Duration = Duration::from_secs(600);

/// Linux `net.ipv4.route.min_pmtu`, bytes: an IPv4 router that says less is believed only down to this.
pub const MIN_PMTU_V4: u32 = 552;

/// RFC 8200 5: every IPv6 link carries packets of so many bytes.
pub const MIN_PMTU_V6: u32 = 1280;

/// Destinations remembered; more forget the one that would expire next.
pub const MAX_DESTINATIONS: usize = 1024;

/// Destinations whose path is narrower than the link.
///
/// # Example
/// ```
/// use lastack_core::ip::pmtu::PathMtu;
/// use lastack_core::time::{Duration, Instant};
/// let (mut paths, dst) = (PathMtu::new(), [192, 0, 2, 1].into());
/// assert_eq!(paths.on_too_big(Instant::ZERO, dst, 1400, 1500), Some(1400));
/// assert_eq!(paths.get(Instant::ZERO, dst), Some(1400));
/// assert_eq!(paths.get(Instant::ZERO + Duration::from_secs(600), dst), None);
/// ```
#[derive(Debug)]
pub struct PathMtu {
    /// Time: when the entry expires.
    paths: ByAddress<u32>,
}

impl Default for PathMtu {
    fn default() -> Self {
        Self::new()
    }
}

impl PathMtu {
    /// Knows nothing.
    pub fn new() -> Self {
        Self { paths: ByAddress::new(MAX_DESTINATIONS) }
    }

    /// The path's MTU, bytes, where it is known to be less than the link's.
    pub fn get(&self, now: Instant, dst: IpAddr) -> Option<u32> {
        self.paths.get(dst).filter(|(expires, _)| now < *expires).map(|(_, mtu)| *mtu)
    }

    /// A router said that `mtu` is the most for the next hop towards `dst`. The path's new MTU, or `None` where that
    /// changes nothing: it is not less than what is known, or not possible.
    pub fn on_too_big(&mut self, now: Instant, dst: IpAddr, mtu: u32, link_mtu: u32) -> Option<u32> {
        let known = self.get(now, dst).unwrap_or(link_mtu);
        let mtu = plausible(dst, mtu)?;
        // RFC 8201 4: an error never increases the estimate.
        if mtu >= known {
            return None;
        }
        // Entries that have expired go first, they have the earliest time.
        self.paths.set(dst, now + MTU_EXPIRES, mtu);
        Some(mtu)
    }

    /// When the next entry expires: the paths behind it may be tried with the link's MTU again.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.paths.earliest().map(|(expires, _)| expires)
    }

    /// Forgets one entry that has expired by `now` and tells whose.
    pub fn expire(&mut self, now: Instant) -> Option<IpAddr> {
        let (expires, dst) = self.paths.earliest()?;
        (expires <= now).then(|| {
            self.paths.remove(dst);
            dst
        })
    }
}

/// What a router's word is taken for; `None`: it cannot be.
pub(crate) fn plausible(dst: IpAddr, mtu: u32) -> Option<u32> {
    match dst {
        // Linux: __ip_rt_update_pmtu(): below min_pmtu it is min_pmtu; 0 from routers older than RFC 1191 as well.
        IpAddr::V4(_) => Some(mtu.max(MIN_PMTU_V4)),
        // RFC 8201 4: less than the least possible MUST be discarded.
        IpAddr::V6(_) if mtu < MIN_PMTU_V6 => None,
        IpAddr::V6(_) => Some(mtu),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    #[test]
    fn a_path_only_becomes_narrower_until_it_expires() {
        let mut paths = PathMtu::new();
        let now = Instant::from_millis(7);
        assert_eq!(paths.on_too_big(now, v4(1), 1500, 1500), None);
        assert_eq!(paths.on_too_big(now, v4(1), 1400, 1500), Some(1400));
        assert_eq!(paths.on_too_big(now, v4(1), 1450, 1500), None);
        assert_eq!(paths.on_too_big(now, v4(1), 1300, 1500), Some(1300));
        assert_eq!(paths.get(now, v4(2)), None);

        let later = now + MTU_EXPIRES;
        assert_eq!(paths.next_expiry(), Some(later));
        assert_eq!(paths.expire(later - Duration::from_nanos(1)), None);
        assert_eq!(paths.get(later, v4(1)), None);
        assert_eq!(paths.on_too_big(later, v4(1), 1450, 1500), Some(1450));
        assert_eq!(paths.expire(later), None, "the new entry is young");
        assert_eq!(paths.expire(later + MTU_EXPIRES), Some(v4(1)));
        assert_eq!(paths.next_expiry(), None);
    }

    #[test]
    fn absurd_values_are_bounded() {
        let mut paths = PathMtu::new();
        let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
        assert_eq!(paths.on_too_big(Instant::ZERO, v4(1), 0, 1500), Some(552));
        assert_eq!(paths.on_too_big(Instant::ZERO, v4(2), 0, 500), None, "the link is narrower still");
        assert_eq!(paths.on_too_big(Instant::ZERO, v6, 1279, 1500), None);
        assert_eq!(paths.on_too_big(Instant::ZERO, v6, 1280, 1500), Some(1280));
    }

    #[test]
    fn memory_is_bounded() {
        let mut paths = PathMtu::new();
        for n in 0..3 * MAX_DESTINATIONS as u32 {
            paths.on_too_big(Instant::from_millis(u64::from(n)), v4(n), 1400, 1500);
        }
        assert_eq!(paths.paths.len(), MAX_DESTINATIONS);
        assert_eq!(paths.get(Instant::from_millis(4000), v4(3 * MAX_DESTINATIONS as u32 - 1)), Some(1400));
    }
}
