//! Local ports: which are taken, and which one `connect` or `bind(0)` chooses.
//!
//! Owns:    a count of sockets a local port, and the state of the choice.
//! Rules:   RFC 6056 algorithm 4 as Linux does it (`__inet_hash_connect`): `connect` first tries ports of the parity of
//!          the range's low end, `bind(0)` of the other (`inet_csk_find_open_port`). Specification 4.7 and 2.6.
//! Not here: what makes a pair free (`connect` asks the table), listeners.

use core::hash::Hasher;
use core::net::{IpAddr, SocketAddr};

use crate::rng::{HashKey, Rng};
use crate::time::Instant;

/// Sockets on one local port, connections and mini sockets alike.
#[derive(Clone, Copy, Default, Debug)]
struct PortUse {
    all: u32,
    /// Of these, without `SO_REUSEADDR`.
    unshared: u32,
    /// Of these, on a port that their application chose: `connect` passes the port by.
    bound: u32,
}

const PAGE: usize = 256;
/// Entries of Linux's `table_perturb`, as it was before 5.19; enough to keep destinations apart.
const PERTURB: usize = 256;

/// Where the choice goes on for destinations that share a slot.
#[derive(Clone, Copy, Debug)]
struct Perturb {
    offset: u32,
    /// The destination (for ten seconds) whose first parity had no free port left: begin with the other.
    crowded: u64,
}

/// Which local ports are in use, and where the next choice begins.
#[derive(Debug)]
pub(crate) struct Ports {
    pages: [Option<Box<[PortUse; PAGE]>>; 65_536 / PAGE],
    secret: HashKey,
    rng: Rng,
    perturb: Box<[Perturb]>,
}

/// How a socket uses its port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(crate) reuseaddr: bool,
    pub(crate) bound: bool,
}

impl Ports {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self {
            pages: [const { None }; 65_536 / PAGE],
            secret: rng.key(),
            perturb: (0..PERTURB).map(|_| Perturb { offset: rng.next_u64() as u32, crowded: 0 }).collect(),
            rng: Rng::new(&rng.seed()),
        }
    }

    fn get(&self, port: u16) -> PortUse {
        match &self.pages[usize::from(port) / PAGE] {
            Some(page) => page[usize::from(port) % PAGE],
            None => PortUse::default(),
        }
    }

    fn get_mut(&mut self, port: u16) -> &mut PortUse {
        let page =
            self.pages[usize::from(port) / PAGE].get_or_insert_with(|| Box::new([PortUse::default(); PAGE]));
        &mut page[usize::from(port) % PAGE]
    }

    /// A socket takes `port`.
    pub(crate) fn acquire(&mut self, port: u16, how: Use) {
        let entry = self.get_mut(port);
        entry.all += 1;
        entry.unshared += u32::from(!how.reuseaddr);
        entry.bound += u32::from(how.bound);
    }

    /// A socket that took `port` in the same way gives it back.
    pub(crate) fn release(&mut self, port: u16, how: Use) {
        let entry = self.get_mut(port);
        entry.all = entry.all.saturating_sub(1);
        entry.unshared = entry.unshared.saturating_sub(u32::from(!how.reuseaddr));
        entry.bound = entry.bound.saturating_sub(u32::from(how.bound));
    }

    /// True when some socket on `port`, whatever its address, forbids a new bind (Linux `inet_bind_conflict`): then look closer.
    pub(crate) fn may_conflict(&self, port: u16, reuseaddr: bool) -> bool {
        let entry = self.get(port);
        if reuseaddr { entry.unshared > 0 } else { entry.all > 0 }
    }

    /// True when `connect` must pass `port` by: its bind bucket belongs to somebody.
    pub(crate) fn is_bound(&self, port: u16) -> bool {
        self.get(port).bound > 0
    }

    /// Chooses a source port for `connect`; `try_port` says whether one will do, by giving something.
    pub(crate) fn choose_for_connect<T>(
        &mut self,
        now: Instant,
        range: [u16; 2],
        source: IpAddr,
        remote: SocketAddr,
        mut try_port: impl FnMut(u16) -> Option<T>,
    ) -> Option<(u16, T)> {
        let hash = self.offset(now, source, remote);
        let slot = hash as usize % PERTURB;
        let low = u32::from(range[0]);
        let span = even(u32::from(range[1]) + 1 - low);
        let Perturb { offset, crowded } = self.perturb[slot];
        let offset = offset.wrapping_add((hash >> 32) as u32) % span;
        // Differs: Linux walks through the crowded half of the range again for every connection.
        let parities = if crowded == hash { [1, 0] } else { [0, 1] };
        for parity in parities {
            let start = (offset & !1) + parity;
            for step in (0..span).step_by(2) {
                let port = (low + (start + step) % span) as u16;
                if self.is_bound(port) {
                    continue;
                }
                if let Some(found) = try_port(port) {
                    // Linux: "a little bit of randomness to the next source port that will be chosen".
                    let tries = step.max(self.rng.below(8) * 2);
                    self.perturb[slot].offset = self.perturb[slot].offset.wrapping_add(tries + 2);
                    return Some((port, found));
                }
            }
            if span == 1 {
                break;
            }
            self.perturb[slot].crowded = if parity == 0 { hash } else { 0 };
        }
        None
    }

    /// Chooses a port that nobody uses for `bind(0)`. With `SO_REUSEADDR` the lower half of the range comes first.
    pub(crate) fn choose_for_bind(
        &mut self,
        range: [u16; 2],
        reuseaddr: bool,
        is_free: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let (low, high) = (u32::from(range[0]), u32::from(range[1]) + 1);
        let half = low + ((high - low) >> 2 << 1);
        let parts: [(u32, u32); 2] = if reuseaddr && high - low >= 4 {
            [(low, half), (half, high)]
        } else {
            [(low, high), (high, high)]
        };
        for (low, high) in parts {
            if low == high {
                continue;
            }
            let span = even(high - low);
            let offset = self.rng.below(span);
            for parity in [1, 0] {
                let start = (offset & !1) + parity;
                for step in (0..span).step_by(2) {
                    let port = (low + (start + step) % span) as u16;
                    if self.get(port).all == 0 && is_free(port) {
                        return Some(port);
                    }
                }
            }
        }
        None
    }

    /// Nobody uses any port.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let counts = self.pages.iter().flatten().flat_map(|page| page.iter());
        counts.into_iter().all(|port| port.all + port.unshared + port.bound == 0)
    }

    /// Linux `secure_ipv4_port_ephemeral`: another place to begin for every destination, and every ten seconds.
    fn offset(&self, now: Instant, source: IpAddr, remote: SocketAddr) -> u64 {
        let mut hasher = self.secret.wire_hasher();
        for ip in [source, remote.ip()] {
            match ip {
                IpAddr::V4(ip) => hasher.write(&ip.octets()),
                IpAddr::V6(ip) => hasher.write(&ip.octets()),
            }
        }
        hasher.write_u16(remote.port());
        hasher.write_u64(now.as_nanos() / 10_000_000_000);
        hasher.finish()
    }
}

/// Linux: both parities must have as many ports, unless there is but one.
fn even(span: u32) -> u32 {
    if span > 1 { span & !1 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Ports {
        Ports::new(&mut Rng::from_number(3))
    }

    fn connect(
        ports: &mut Ports,
        range: [u16; 2],
        dport: u16,
        mut free: impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        let remote = SocketAddr::from(([198, 51, 100, 7], dport));
        let source = IpAddr::from([192, 0, 2, 1]);
        let choice = |port| free(port).then_some(());
        ports.choose_for_connect(Instant::ZERO, range, source, remote, choice).map(|(port, ())| port)
    }

    #[test]
    fn connect_takes_the_low_ends_parity_first_and_every_port_in_the_end() {
        let (mut ports, range) = (ports(), [32_768, 32_867]);
        let mut taken = Vec::new();
        while let Some(port) = connect(&mut ports, range, 80, |port| !taken.contains(&port)) {
            taken.push(port);
        }
        assert!(taken[..50].iter().all(|port| port % 2 == 0), "{taken:?}");
        taken.sort_unstable();
        assert_eq!(taken, (32_768..=32_867).collect::<Vec<_>>());
    }

    #[test]
    fn a_crowded_half_is_not_walked_through_again() {
        let (mut ports, range) = (ports(), [32_768, 60_999]);
        let mut taken: std::collections::BTreeSet<u16> =
            (32_768..61_000).filter(|port| port % 2 == 0).collect();
        let mut tries = 0;
        for _ in 0..10_000 {
            let free = |port| {
                tries += 1;
                !taken.contains(&port)
            };
            let port = connect(&mut ports, range, 80, free).expect("the odd ones are free");
            taken.insert(port);
        }
        assert!(tries < 10 * 10_000, "{tries} looks");
    }

    #[test]
    fn other_destinations_begin_elsewhere() {
        let mut ports = ports();
        let firsts: std::collections::BTreeSet<_> =
            (0..20).map(|dport| connect(&mut ports, [32_768, 60_999], 80 + dport, |_| true)).collect();
        assert!(firsts.len() > 15, "{firsts:?}");
    }

    #[test]
    fn a_bound_port_is_passed_by() {
        let mut ports = ports();
        ports.acquire(1000, Use { reuseaddr: true, bound: true });
        assert_eq!(connect(&mut ports, [1000, 1000], 80, |_| true), None);
        ports.release(1000, Use { reuseaddr: true, bound: true });
        assert_eq!(connect(&mut ports, [1000, 1000], 80, |_| true), Some(1000));
    }

    #[test]
    fn bind_takes_the_other_parity_and_the_lower_half_for_reuse() {
        let mut ports = ports();
        for _ in 0..50 {
            let port = ports.choose_for_bind([32_768, 60_999], false, |_| true).expect("a free port");
            assert_eq!(port % 2, 1);
            let port = ports.choose_for_bind([32_768, 60_999], true, |_| true).expect("a free port");
            assert!(port % 2 == 1 && port < 32_768 + 14_116);
        }
        assert_eq!(ports.choose_for_bind([5000, 5009], true, |port| port == 5008), Some(5008));
        assert_eq!(ports.choose_for_bind([5000, 5009], true, |_| false), None);
    }

    #[test]
    fn a_socket_without_reuse_forbids_a_bind() {
        let mut ports = ports();
        assert!(!ports.may_conflict(80, false));
        ports.acquire(80, Use { reuseaddr: true, bound: false });
        assert!(ports.may_conflict(80, false) && !ports.may_conflict(80, true));
        ports.acquire(80, Use { reuseaddr: false, bound: false });
        assert!(ports.may_conflict(80, true));
    }
}
