//! A mixed load for hours behind one `lastack run` on a bad link, and whether memory, descriptors and connections stay flat.
//!
//! | module | is |
//! |---|---|
//! | [`load`] | the program behind `lastack run`: so many small dealings a second, each with a known ending |
//! | [`service`] | the server on the host's loopback, which checks what it is sent |
//! | [`steady`] | samples of the carrier's process, and the rule for "flat" |
//!
//! All three agree on [`Noise`]: bytes that both ends can make from a seed, so that each checks the other's.

pub mod load;
pub mod service;
pub mod steady;

/// Bytes made from a seed; no two places are alike, so a lost, swapped or repeated segment shows.
#[derive(Clone, Debug)]
pub struct Noise(u64);

impl Noise {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // SplitMix64's step, so that neighbouring seeds are far apart; a xorshift must not start at 0.
        let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((state ^ (state >> 31)) | 1)
    }

    /// The next number of the sequence.
    pub fn next_number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The next bytes of the sequence. All but the last call must ask for a multiple of eight.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.next_number().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }

    /// The first `len` bytes of `seed`'s sequence.
    #[must_use]
    pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Self::new(seed).fill(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_the_same_in_pieces_and_another_for_another_seed() {
        let mut pieces = vec![0; 100];
        let mut noise = Noise::new(7);
        for piece in pieces.chunks_mut(24) {
            noise.fill(piece);
        }
        assert_eq!(pieces, Noise::bytes(7, 100));
        assert_ne!(Noise::bytes(7, 100), Noise::bytes(8, 100));
    }
}
