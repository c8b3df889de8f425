//! Secrets and choices, all from one seed: the same seed gives the same choices, always.
//!
//! Owns:    [`Rng`], a stream of numbers, and [`HashKey`], a secret for a keyed hash.
//! Input:   the 32-byte seed of [`crate::Config`].
//! Rules:   both are SipHash (2-4 where an outsider sees results, 1-3 for tables inside), a keyed pseudo-random function.
//! Not here: asking the OS for entropy (the caller does).

use core::hash::Hasher;

use siphasher::sip::{SipHasher13, SipHasher24};

/// A secret 128-bit key. Never printed.
#[derive(Clone, Copy)]
pub(crate) struct HashKey(u64, u64);

impl HashKey {
    /// The key that these two words are.
    pub(crate) const fn new(first: u64, second: u64) -> Self {
        Self(first, second)
    }

    /// A keyed hash for tables inside the stack: SipHash-1-3.
    pub(crate) fn table_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }

    /// A keyed hash whose results the network sees: SipHash-2-4.
    pub(crate) fn wire_hasher(&self) -> SipHasher24 {
        SipHasher24::new_with_keys(self.0, self.1)
    }
}

impl core::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashKey(secret)")
    }
}

/// Builds table hashers for `hashbrown` maps.
impl core::hash::BuildHasher for HashKey {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        self.table_hasher()
    }
}

/// A stream of unpredictable, repeatable numbers: SipHash-2-4 of a counter.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    key: HashKey,
    counter: u64,
}

impl Rng {
    /// The stream that belongs to `seed`.
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        let word = |i: usize| {
            u64::from_le_bytes([
                seed[i],
                seed[i + 1],
                seed[i + 2],
                seed[i + 3],
                seed[i + 4],
                seed[i + 5],
                seed[i + 6],
                seed[i + 7],
            ])
        };
        // All 256 bits count: the second half, hashed under the first, becomes the key.
        let outer = HashKey(word(0), word(8));
        let half = |label: u64| {
            let mut hasher = outer.wire_hasher();
            hasher.write_u64(word(16));
            hasher.write_u64(word(24));
            hasher.write_u64(label);
            hasher.finish()
        };
        Self { key: HashKey(half(0), half(1)), counter: 0 }
    }

    /// The stream that belongs to a short seed, for simulations.
    pub(crate) fn from_number(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self::new(&bytes)
    }

    /// The stream of a secret.
    pub(crate) fn from_key(key: HashKey) -> Self {
        Self { key, counter: 0 }
    }

    /// The next number.
    pub(crate) fn next_u64(&mut self) -> u64 {
        let mut hasher = self.key.wire_hasher();
        hasher.write_u64(self.counter);
        self.counter += 1;
        hasher.finish()
    }

    /// A number below `limit`, each as likely as the next (to one part in 2^32); 0 when `limit` is 0.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        ((u64::from(self.next_u64() as u32) * u64::from(limit)) >> 32) as u32
    }

    /// A fresh secret.
    pub(crate) fn key(&mut self) -> HashKey {
        HashKey(self.next_u64(), self.next_u64())
    }

    /// A fresh 32-byte seed, for a stack inside a simulation.
    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        for chunk in seed.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes());
        }
        seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_numbers_other_seed_others() {
        let (mut a, mut b, mut c) = (Rng::new(&[7; 32]), Rng::new(&[7; 32]), Rng::new(&[8; 32]));
        let first: Vec<u64> = (0..8).map(|_| a.next_u64()).collect();
        assert_eq!(first, (0..8).map(|_| b.next_u64()).collect::<Vec<_>>());
        assert_ne!(first, (0..8).map(|_| c.next_u64()).collect::<Vec<_>>());
    }

    #[test]
    fn every_byte_of_the_seed_counts() {
        let base = Rng::new(&[0; 32]).next_u64();
        for i in 0..32 {
            let mut seed = [0; 32];
            seed[i] = 1;
            assert_ne!(Rng::new(&seed).next_u64(), base, "byte {i}");
        }
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut rng = Rng::from_number(1);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[rng.below(7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn secrets_are_not_printed() {
        let shown = format!("{:?}", Rng::new(&[0xab; 32]));
        assert_eq!(shown, "Rng { key: HashKey(secret), counter: 0 }");
    }
}
