//! Which names were answered with which addresses: what rules by name are held against.
//!
//! Owns:    [`Names`], bounded: the addresses learnt longest ago are forgotten first.
//! Input:   answers to permitted questions, and the host's `/etc/hosts`, which programs read for themselves.
//! Rules:   an address stands for the name that was asked, not for the aliases on the way to it. It is kept for the
//!          run, not for its time to live: a program may connect late to what it was told early.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Addresses that are remembered.
const MAX_ADDRESSES: usize = 65_536;
/// Names that are remembered of one address: a content network has many behind one.
const MAX_NAMES: usize = 64;

/// Names by address.
#[derive(Debug, Default)]
pub struct Names(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    names: HashMap<IpAddr, Vec<Arc<str>>>,
    /// Addresses in the order they were learnt.
    order: VecDeque<IpAddr>,
}

impl Names {
    /// What a hosts(5) file says.
    pub fn from_hosts(text: &str) -> Self {
        let names = Self::default();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
            for name in words {
                names.learn(&name.to_ascii_lowercase().into(), address);
            }
        }
        names
    }

    /// `name` was answered with `address`.
    pub fn learn(&self, name: &Arc<str>, address: IpAddr) {
        let mut known = self.lock();
        if let Some(names) = known.names.get_mut(&address) {
            if !names.contains(name) && names.len() < MAX_NAMES {
                names.push(name.clone());
            }
            return;
        }
        if known.order.len() == MAX_ADDRESSES
            && let Some(oldest) = known.order.pop_front()
        {
            known.names.remove(&oldest);
        }
        known.order.push_back(address);
        known.names.insert(address, vec![name.clone()]);
    }

    /// The names that were answered with `address`, first learnt first.
    pub fn of(&self, address: IpAddr) -> Vec<Arc<str>> {
        self.lock().names.get(&address).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_file_is_read_as_hosts_5_says() {
        let names = Names::from_hosts("# x\n10.1.2.3 Web.Test web # the web\n\nbad line\n::1 localhost\n");
        let of = |address: &str| names.of(address.parse().unwrap()).join(" ");
        assert_eq!(of("10.1.2.3"), "web.test web");
        assert_eq!(of("::1"), "localhost");
        assert_eq!(of("10.1.2.4"), "");
    }

    #[test]
    fn what_was_learnt_first_is_forgotten_first() {
        let names = Names::default();
        let address = |n: usize| IpAddr::from(std::net::Ipv6Addr::from(n as u128));
        for n in 0..=MAX_ADDRESSES {
            names.learn(&"x.test".into(), address(n));
        }
        assert!(names.of(address(0)).is_empty());
        assert_eq!(names.of(address(1)).len(), 1);
        assert_eq!(names.of(address(MAX_ADDRESSES)).len(), 1);
    }
}
