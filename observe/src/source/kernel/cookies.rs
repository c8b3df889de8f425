//! Sets and maps of numbers that the kernel gave out one after another: hashed by one multiplication.
//!
//! Differs: the standard hasher withstands numbers that an attacker chose; nobody chooses these.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use lastack_core::tcp::state::TcpState;

/// Which sockets of a dump have been told, and in which state.
pub(super) type Cookies = HashSet<(u64, TcpState), BuildHasherDefault<Multiply>>;
/// A set of inode numbers.
pub(super) type Inodes = HashSet<u32, BuildHasherDefault<Multiply>>;

/// 2^64 divided by the golden ratio: neighbours end up far apart (Fibonacci hashing).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Multiplies to 128 bits and folds the halves, so that low and high bits of a number both tell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Multiply(u64);

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        let product = u128::from(self.0 ^ n) * u128::from(GOLDEN);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_and_states_are_told_apart() {
        let mut seen = Cookies::default();
        for cookie in 0..10_000 {
            assert!(seen.insert((cookie, TcpState::Established)));
            assert!(seen.insert((cookie, TcpState::TimeWait)));
            assert!(!seen.insert((cookie, TcpState::Established)));
        }
    }

    #[test]
    fn numbers_in_a_row_spread_over_the_table() {
        let place = |n: u64| {
            let mut hasher = Multiply::default();
            hasher.write_u64(n);
            hasher.finish() % 4096
        };
        // Cookies go up by one; on a host with several processors by other steps.
        for step in [1, 2, 64, 4096, 65_536] {
            let taken: HashSet<u64> = (0..4096).map(|n| place(n * step)).collect();
            assert!(taken.len() > 2048, "step {step}: {} places", taken.len());
        }
    }
}
