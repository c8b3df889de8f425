//! The Internet checksum: a 16-bit one's-complement sum, kept wide until the end.
//!
//! Owns:    [`Checksum`], a running sum over slices of any length, odd ones included.
//! Rules:   RFC 1071 (the sum does not care about byte order or word size), RFC 9293 3.1 and RFC 8200 8.1 (pseudo-headers).
//! Not here: where a checksum field lies (`tcp`, `udp`, `icmp`, `ipv4`), who has to finish it (`transmit`).

use core::net::IpAddr;

/// A running checksum.
///
/// # Example
/// ```
/// use lastack_core::wire::checksum::Checksum;
/// let mut sum = Checksum::new();
/// sum.add(&[0x00, 0x01, 0xf2]); // an odd slice: the next one goes on in the middle of a word
/// sum.add(&[0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
/// assert_eq!(sum.fold(), 0xddf2); // RFC 1071 section 3
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum {
    /// 16-bit words in memory order, summed without folding.
    sum: u64,
    /// True in the middle of a word.
    odd: bool,
}

impl Checksum {
    /// Nothing summed yet.
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// The pseudo-header's sum. `len`: transport header and payload, bytes.
    ///
    /// The family is the addresses' own; both must be of the same.
    pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> Self {
        let mut sum = Self::new();
        for address in [src, dst] {
            match address {
                IpAddr::V4(address) => sum.add(&address.octets()),
                IpAddr::V6(address) => sum.add(&address.octets()),
            }
        }
        sum.add_u16(u16::from(protocol));
        sum.add_u16((len >> 16) as u16);
        sum.add_u16(len as u16);
        sum
    }

    /// Adds the bytes of one slice, going on where the last one ended.
    pub fn add(&mut self, bytes: &[u8]) {
        let part = sum_words(bytes);
        if self.odd {
            // RFC 1071 2(B): a sum that starts one byte later is the same sum with its bytes swapped.
            self.sum += u64::from(fold(part).swap_bytes());
        } else {
            self.sum += part;
        }
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// Adds one 16-bit number. Only between words, that is after slices of even length in all.
    pub fn add_u16(&mut self, value: u16) {
        debug_assert!(!self.odd, "a number starts a word");
        self.sum += u64::from(value.to_be());
    }

    /// The sum in 16 bits, not complemented: the partial form that virtio's `NEEDS_CSUM` wants in the field.
    pub fn fold(self) -> u16 {
        u16::from_be(fold(self.sum))
    }

    /// The value for a checksum field that was summed as zero (or as partial sum).
    pub fn finish(self) -> u16 {
        !self.fold()
    }

    /// True when the summed bytes, their checksum field included, are in order.
    pub fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }
}

/// Sum of the 16-bit words in memory order; an odd last byte is the first half of a word.
///
/// 32-bit words into 64-bit lanes: no carry is lost below 2^32 words, and the compiler vectorises it.
fn sum_words(bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<64>();
    let mut lanes = [0u64; 8];
    for chunk in chunks {
        let (words, _) = chunk.as_chunks::<4>();
        for (i, word) in words.iter().enumerate() {
            lanes[i % 8] += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut sum: u64 = 0;
    for lane in lanes {
        sum += u64::from(lane as u32) + (lane >> 32);
    }
    let (words, rest) = rest.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let (halves, rest) = rest.as_chunks::<2>();
    for half in halves {
        sum += u64::from(u16::from_ne_bytes(*half));
    }
    if let [last] = rest {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    // Below 2^32 again and again: a Checksum may take very many slices before it overflows.
    u64::from(sum as u32) + (sum >> 32)
}

/// 64 bits to 16 with end-around carry.
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 spelled out: one word at a time, carry added at once.
    fn model(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum as u16
    }

    proptest! {
        #[test]
        fn equals_the_obvious_sum(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let mut sum = Checksum::new();
            sum.add(&bytes);
            prop_assert_eq!(sum.fold(), model(&bytes));
        }

        #[test]
        fn cutting_into_slices_changes_nothing(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            cuts in prop::collection::vec(0usize..90, 0..12),
        ) {
            let mut sum = Checksum::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (slice, after) = rest.split_at(cut.min(rest.len()));
                sum.add(slice);
                rest = after;
            }
            sum.add(rest);
            prop_assert_eq!(sum.fold(), model(&bytes));
        }

        #[test]
        fn a_finished_field_verifies(mut bytes in prop::collection::vec(any::<u8>(), 4..200), at in 0usize..2) {
            let at = 2 * at;
            bytes[at..at + 2].fill(0);
            let mut sum = Checksum::new();
            sum.add(&bytes);
            bytes[at..at + 2].copy_from_slice(&sum.finish().to_be_bytes());
            let mut check = Checksum::new();
            check.add(&bytes);
            prop_assert!(check.is_valid());
        }
    }

    #[test]
    fn many_full_slices_do_not_overflow() {
        let slice = vec![0xff; 65_535];
        let mut sum = Checksum::new();
        for _ in 0..1000 {
            sum.add(&slice);
        }
        assert_eq!(sum.fold(), 0xffff);
    }
}
