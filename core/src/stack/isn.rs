//! Initial sequence numbers and timestamp offsets (RFC 6528, RFC 7323 5.4).
//!
//! Owns:    two secrets.
//! Rules:   ISN = SipHash(4-tuple) + clock / 64 ns. Linux: `secure_tcp_seq`, `secure_tcp_ts_off`.

use core::hash::Hasher;

use crate::rng::{HashKey, Rng};
use crate::stack::tuple::Packed;
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// The secrets behind initial sequence numbers and timestamp offsets.
#[derive(Debug)]
pub(crate) struct Isn {
    seq: HashKey,
    ts: HashKey,
}

impl Isn {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self { seq: rng.key(), ts: rng.key() }
    }

    /// The initial sequence number of a connection that begins now.
    pub(crate) fn iss(&self, tuple: &Packed, now: Instant) -> SeqNum {
        // Linux: seq_scale(): one step every 64 ns, round once in 274 s.
        SeqNum((hash(&self.seq, tuple) as u32).wrapping_add((now.as_nanos() >> 6) as u32))
    }

    /// What is added to our timestamp clock for this pair; 0 unless `tcp_timestamps` is 1.
    pub(crate) fn ts_offset(&self, tuple: &Packed, tcp_timestamps: u8) -> u32 {
        if tcp_timestamps == 1 { hash(&self.ts, tuple) as u32 } else { 0 }
    }
}

fn hash(key: &HashKey, tuple: &Packed) -> u64 {
    let mut hasher = key.wire_hasher();
    tuple.write(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::FourTuple;

    fn packed(remote: &str) -> Packed {
        let local = "192.0.2.1:80".parse().expect("address");
        Packed::new(&FourTuple { local, remote: remote.parse().expect("address") }).expect("one family")
    }

    #[test]
    fn grows_one_step_every_64_nanoseconds() {
        let isn = Isn::new(&mut Rng::from_number(1));
        let tuple = packed("198.51.100.7:40000");
        let first = isn.iss(&tuple, Instant::from_nanos(6400));
        assert_eq!(isn.iss(&tuple, Instant::from_nanos(6400 + 64 * 1000)), first + 1000);
    }

    #[test]
    fn other_pairs_have_other_numbers() {
        let isn = Isn::new(&mut Rng::from_number(1));
        let (a, b) = (packed("198.51.100.7:40000"), packed("198.51.100.7:40001"));
        assert_ne!(isn.iss(&a, Instant::ZERO), isn.iss(&b, Instant::ZERO));
        assert_ne!(isn.ts_offset(&a, 1), isn.ts_offset(&b, 1));
        assert_eq!(isn.ts_offset(&a, 2), 0, "tcp_timestamps = 2: no offset");
    }
}
