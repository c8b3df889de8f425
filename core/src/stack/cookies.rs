//! SYN cookies: a SYN answered without remembering it.
//!
//! Owns:    two secrets.
//! Rules:   specification 4.5. Linux: `secure_tcp_syn_cookie`, `cookie_v4_check`, `cookie_init_timestamp`. The options the
//!          SYN offered ride in the low six bits of our timestamp; without timestamps there are none.
//! Differs: in Linux a late data segment of a connection that is gone may pass for the final ACK, when as many bytes went each
//!          way (the client's number is only added), or up to three more one way (so is the index of the segment size): the new
//!          connection then misses these bytes. Here the number is hashed too, and the index takes the highest bits.

use core::hash::Hasher;

use crate::id::{FourTuple, ListenerId};
use crate::observe::DropReason;
use crate::rng::{HashKey, Rng};
use crate::stack::Stack;
use crate::stack::sockets::Holder;
use crate::stack::tuple::Packed;
use crate::tcp::ecn::Ecn;
use crate::tcp::half_open::HalfOpen;
use crate::tcp::mss::{checked_mss, default_mss};
use crate::tcp::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::wire::segment::{Flags, Options, Segment, SegmentHeader};

/// Linux `MAX_SYNCOOKIE_AGE`, 2: minutes begun since the cookie was made.
const MAX_AGE: u32 = 2;
/// Linux `tcp_synq_no_recent_overflow`: after this long without overflow an ACK cannot be a cookie's.
const RECENT: Duration = Duration::from_secs(60 * MAX_AGE as u64);
const MASK: u32 = (1 << 24) - 1;
/// What a cookie says takes the two highest bits of these.
const DATA_SHIFT: u32 = 22;
const MSS_V4: [u16; 4] = [536, 1300, 1440, 1460];
const MSS_V6: [u16; 4] = [1220, 1420, 1440, 8940];

/// Bits of the timestamp that carry options.
const TS_BITS: u32 = 6;
const TS_WSCALE: u32 = 0xf;
const TS_SACK: u32 = 1 << 4;
const TS_ECN: u32 = 1 << 5;

/// The secrets behind cookies.
#[derive(Debug)]
pub(crate) struct Cookies {
    keys: [HashKey; 2],
}

impl Cookies {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self { keys: [rng.key(), rng.key()] }
    }

    /// Grows with the client's number, as every initial sequence number of a pair should.
    fn base(&self, tuple: &Packed, seq: SeqNum) -> u32 {
        let mut hasher = self.keys[0].wire_hasher();
        tuple.write(&mut hasher);
        (hasher.finish() as u32).wrapping_add(seq.0)
    }

    fn mask(&self, tuple: &Packed, seq: SeqNum, count: u32) -> u32 {
        let mut hasher = self.keys[1].wire_hasher();
        tuple.write(&mut hasher);
        hasher.write_u32(seq.0);
        hasher.write_u32(count);
        hasher.finish() as u32
    }

    /// The initial sequence number that says `data` to who knows the secrets.
    fn make(&self, tuple: &Packed, seq: SeqNum, data: u32, now: Instant) -> SeqNum {
        let count = minutes(now);
        let low = self.mask(tuple, seq, count).wrapping_add(data << DATA_SHIFT) & MASK;
        SeqNum(self.base(tuple, seq).wrapping_add(count << 24).wrapping_add(low))
    }

    /// What a cookie says; `None`: too old, or not ours.
    fn check(&self, tuple: &Packed, seq: SeqNum, cookie: SeqNum, now: Instant) -> Option<u32> {
        let count = minutes(now);
        let rest = cookie.0.wrapping_sub(self.base(tuple, seq));
        let age = count.wrapping_sub(rest >> 24) & 0xff;
        if age >= MAX_AGE {
            return None;
        }
        let said = rest.wrapping_sub(self.mask(tuple, seq, count.wrapping_sub(age))) & MASK;
        (said.trailing_zeros() >= DATA_SHIFT).then_some(said >> DATA_SHIFT)
    }
}

fn minutes(now: Instant) -> u32 {
    (now.as_millis() / 60_000) as u32
}

fn table(tuple: &Packed) -> [u16; 4] {
    if matches!(tuple, Packed::V4(_)) { MSS_V4 } else { MSS_V6 }
}

/// The options of a SYN in the low bits of a clock that reads `now_ms`, at or before it.
fn encode_timestamp(now_ms: u32, options: &Options, ecn: bool) -> u32 {
    let wscale = options.wscale.map_or(TS_WSCALE, |shift| u32::from(shift.min(14)));
    let bits = wscale | if options.sack_permitted { TS_SACK } else { 0 } | if ecn { TS_ECN } else { 0 };
    let stamped = now_ms >> TS_BITS << TS_BITS | bits;
    if stamped > now_ms { stamped.wrapping_sub(1 << TS_BITS) } else { stamped }
}

impl Stack {
    /// Answers a SYN with a cookie; nothing is kept.
    pub(crate) fn send_syn_cookie(
        &mut self,
        now: Instant,
        id: ListenerId,
        packed: &Packed,
        tuple: &FourTuple,
        syn: &Segment,
    ) {
        let mut syn = syn.clone();
        let with_ts = syn.header.options.timestamps.is_some() && self.world.sysctl.tcp_timestamps != 0;
        if !with_ts {
            // "in cookie mode without TS, SACK/WS/TS are all ignored"
            syn.header.options = Options { mss: syn.header.options.mss, ..Options::default() };
            syn.header.flags = Flags::SYN;
        }
        let missing = default_mss(tuple.remote.ip());
        let Some(listener) = self.listeners.get(id) else { return };
        let mss = checked_mss(syn.header.options.mss, missing, &listener.options, &self.world.sysctl);
        let index = table(packed).iter().rposition(|entry| *entry <= mss).unwrap_or(0);
        let iss = self.cookies.make(packed, syn.header.seq, index as u32, now);
        let ts_offset = self.isn.ts_offset(packed, self.world.sysctl.tcp_timestamps);
        let now_ms = now.as_millis() as u32;
        let ecn = Ecn::accepts(&syn, &self.world.sysctl);
        let offered = Options {
            wscale: syn.header.options.wscale.filter(|_| self.world.sysctl.tcp_window_scaling),
            sack_permitted: syn.header.options.sack_permitted && self.world.sysctl.tcp_sack,
            ..Options::default()
        };
        let shifted = ts_offset.wrapping_add(encode_timestamp(now_ms, &offered, ecn).wrapping_sub(now_ms));
        let advmss = self.advmss(now, tuple.remote.ip());
        let mut cx = self.world.cx(now);
        let mut once = HalfOpen::new(&syn, iss, shifted, advmss, missing, &listener.options, &cx);
        once.send_syn_ack(tuple, &listener.options, None, &mut cx);
        self.world.counters.syncookies_sent += 1;
    }

    /// An ACK for a listener that may answer a cookie. True: it did, and was dealt with.
    pub(crate) fn on_cookie_ack(
        &mut self,
        now: Instant,
        id: ListenerId,
        packed: &Packed,
        tuple: &FourTuple,
        segment: &Segment,
    ) -> bool {
        let Some(listener) = self.listeners.get(id) else { return false };
        let sysctl = &self.world.sysctl;
        let recent = listener.overflowed.is_some_and(|at| now.saturating_since(at) < RECENT);
        if sysctl.tcp_syncookies == 0 || !recent {
            return false;
        }
        let (irs, iss) = (segment.header.seq - 1, segment.header.ack - 1);
        let ts_offset = self.isn.ts_offset(packed, sysctl.tcp_timestamps);
        let said = self.cookies.check(packed, irs, iss, now);
        let mss = said.and_then(|index| table(packed).get(index as usize).copied());
        let (Some(mss), Some(options)) = (mss, self.cookie_options(segment, ts_offset)) else {
            self.world.counters.syncookies_failed += 1;
            return false;
        };
        self.world.counters.syncookies_recv += 1;
        if listener.accept_queue_is_full() || self.is_full() {
            self.world.counters.listen_overflows += 1;
            self.world.counters.listen_drops += 1;
            self.world.cx(now).drop_segment(0, tuple, DropReason::ListenOverflow);
            return true;
        }
        // The SYN as it must have been.
        let with_ecn =
            options.timestamps.is_some_and(|seen| seen.tsecr.wrapping_sub(ts_offset) & TS_ECN != 0);
        let asks = if with_ecn { Flags::ECE | Flags::CWR } else { Flags::NONE };
        let syn = Segment {
            header: SegmentHeader { seq: irs, flags: Flags::SYN | asks, options, ..segment.header },
            tos: segment.class(),
            payload: bytes::Bytes::new(),
            ..segment.clone()
        };
        let cookie = self.sockets.new_cookie();
        let Some(half_open) = self.new_half_open(now, id, packed, tuple, &syn, iss) else { return true };
        let half_open = half_open.of_cookie(mss);
        let setup = self.child_setup(now, &half_open, cookie, tuple);
        let child = self.child(now, id, &setup, &half_open, &segment.header, Holder::AcceptQueue(id));
        let Some(child) = child else { return true };
        self.enqueue_child(id, child);
        self.first_segment(now, child, segment);
        true
    }

    /// Linux `cookie_timestamp_decode`; `None`: it says what we would not have agreed to.
    fn cookie_options(&self, segment: &Segment, ts_offset: u32) -> Option<Options> {
        let Some(seen) = segment.header.options.timestamps else { return Some(Options::default()) };
        let sysctl = &self.world.sysctl;
        if sysctl.tcp_timestamps == 0 {
            return None;
        }
        let bits = seen.tsecr.wrapping_sub(ts_offset);
        let sack_permitted = bits & TS_SACK != 0;
        let wscale = (bits & TS_WSCALE != TS_WSCALE).then_some((bits & TS_WSCALE) as u8);
        if (sack_permitted && !sysctl.tcp_sack) || (wscale.is_some() && !sysctl.tcp_window_scaling) {
            return None;
        }
        Some(Options { timestamps: Some(seen), sack_permitted, wscale, ..Options::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(port: u16) -> Packed {
        let [local, remote] = ["192.0.2.1:80".parse(), format!("198.51.100.7:{port}").parse()]
            .map(|address| address.expect("address"));
        Packed::new(&FourTuple { local, remote }).expect("one family")
    }

    #[test]
    fn a_cookie_says_its_data_for_two_minutes() {
        let cookies = Cookies::new(&mut Rng::from_number(1));
        let (tuple, seq) = (packed(40_000), SeqNum(0xffff_fff0));
        let made = Instant::from_millis(59_000);
        for data in 0..4 {
            let cookie = cookies.make(&tuple, seq, data, made);
            assert_eq!(cookies.check(&tuple, seq, cookie, made), Some(data));
            assert_eq!(cookies.check(&tuple, seq, cookie, Instant::from_millis(119_999)), Some(data));
            assert_eq!(cookies.check(&tuple, seq, cookie, Instant::from_millis(120_000)), None, "too old");
        }
    }

    #[test]
    fn somebody_elses_cookie_says_nothing() {
        let cookies = Cookies::new(&mut Rng::from_number(1));
        let now = Instant::from_millis(1);
        let cookie = cookies.make(&packed(40_000), SeqNum(1), 3, now);
        let hits = (0..1000)
            .filter(|port| {
                cookies.check(&packed(1000 + port), SeqNum(1), cookie, now).is_some_and(|data| data < 4)
            })
            .count();
        assert_eq!(hits, 0);
    }

    /// Found by `stack::tests`: late data of a connection that was reset became a connection with its first bytes missing.
    #[test]
    fn a_segment_a_few_bytes_on_is_not_the_final_ack() {
        let cookies = Cookies::new(&mut Rng::from_number(1));
        let (tuple, seq, now) = (packed(40_000), SeqNum(1), Instant::from_millis(1));
        let cookie = cookies.make(&tuple, seq, 3, now);
        assert!((1..2000).all(|late| cookies.check(&tuple, seq + late, cookie, now).is_none()));
        assert!((1..2000).all(|late| cookies.check(&tuple, seq + late, cookie + late, now).is_none()));
    }

    #[test]
    fn timestamps_carry_the_options_and_never_lie_ahead() {
        for now_ms in [0x1000, 0x103f, 0x1011, 64] {
            let options = Options { wscale: Some(7), sack_permitted: true, ..Options::default() };
            let stamped = encode_timestamp(now_ms, &options, true);
            assert!(stamped <= now_ms && now_ms - stamped < 128);
            assert_eq!(stamped & 0x3f, 7 | TS_SACK | TS_ECN);
            assert_eq!(encode_timestamp(now_ms, &Options::default(), false) & 0x3f, 0xf);
        }
    }
}
