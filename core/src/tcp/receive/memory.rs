//! What queued data costs: Linux's memory for each packet, which the receive buffer is counted in.
//!
//! Owns:    the charge of the receive queue, packet by packet, until the packet has been read whole.
//! Rules:   Linux `skb->truesize` of a packet that came through a TUN (`tun_alloc_skb()`, `__alloc_skb()`) and that nobody
//!          else (a sniffer) holds, `sk_rmem_alloc`, `tcp_try_coalesce()`, `tcp_collapse()`.
//! Not here: the bytes themselves (`receive`), what is ahead of a hole (`reorder`).

use std::collections::VecDeque;

/// Linux `sizeof(struct sk_buff)`, aligned.
const SK_BUFF: u32 = 256;
/// Linux `sizeof(struct skb_shared_info)`, aligned.
const SHARED_INFO: u32 = 320;
/// Room in front of a packet (Linux `NET_SKB_PAD`), and what sizes are a multiple of.
const CACHE_LINE: u32 = 64;
/// Linux `SKB_SMALL_HEAD_CACHE_SIZE` of a kernel with small link headers.
const SMALL_HEAD: u32 = 576;
const PAGE: u32 = 4096;
/// Most bytes of payload that are copied together (Linux `SKB_MAX_ORDER(0, 0)`).
pub(crate) const COPY_MAX: u32 = PAGE - SHARED_INFO;

/// The head that is allocated for `len` bytes.
fn head_of(len: u32) -> u32 {
    let needed = len.next_multiple_of(CACHE_LINE) + SHARED_INFO;
    if needed <= SMALL_HEAD { SMALL_HEAD } else { needed.next_power_of_two() }
}

/// What one packet costs, and what it has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Charge {
    /// Linux `truesize`, bytes.
    pub(crate) truesize: u32,
    /// Bytes that fit behind its payload (Linux `skb_tailroom()`).
    room: u32,
}

impl Charge {
    /// A packet of `len` bytes, IP header included.
    pub(crate) fn of(len: u32) -> Self {
        let head = head_of(CACHE_LINE + len);
        Self { truesize: head + SK_BUFF, room: head - SHARED_INFO - CACHE_LINE - len }
    }

    /// `segs` packets of `len` bytes that the device merged.
    pub(crate) fn of_merged(len: u32, segs: u32) -> Self {
        Self { truesize: Self::of(len).truesize.saturating_mul(segs), room: 0 }
    }

    /// One that `used` bytes of payload are copied to, made for `len` (Linux `alloc_skb()` in `tcp_collapse()`).
    pub(crate) fn of_copy(len: u32, used: u32) -> Self {
        let head = head_of(len);
        Self { truesize: head + SK_BUFF, room: head - SHARED_INFO - used }
    }

    /// A packet with `len` bytes of payload that follow fits behind this one's, and goes there (Linux `skb_try_coalesce`).
    pub(crate) fn takes(&mut self, len: u32) -> bool {
        let fits = len <= self.room;
        if fits {
            self.room -= len;
        }
        fits
    }
}

#[derive(Clone, Copy, Debug)]
struct Record {
    /// Not read yet.
    len: u32,
    /// The application has read some of it.
    begun: bool,
    charge: Charge,
}

/// The charge of the receive queue. Empty, it owns no memory.
#[derive(Debug, Default)]
pub(super) struct Memory(Option<Box<Charged>>);

#[derive(Debug, Default)]
struct Charged {
    records: VecDeque<Record>,
    total: u32,
    /// A page more than the charge needs is reserved.
    has_reserve: bool,
}

/// What is left of the last page of `total` bytes.
fn rest_of_page(total: u32) -> u32 {
    total.wrapping_neg() % PAGE
}

impl Memory {
    /// Linux `sk_rmem_alloc`, less what is ahead of a hole.
    pub(super) fn total(&self) -> u32 {
        self.0.as_ref().map_or(0, |charged| charged.total)
    }

    /// A packet with `len` bytes follows; 0: a FIN alone. `joins`: it may go where the packet before it has room. True when it did.
    pub(super) fn push(&mut self, len: u32, charge: Charge, joins: bool) -> bool {
        if let Some(last) = self.0.as_mut().and_then(|charged| charged.records.back_mut())
            && joins
            && last.charge.takes(len)
        {
            last.len += len;
            return true;
        }
        let charged = self.0.get_or_insert_default();
        charged.has_reserve &= charge.truesize <= rest_of_page(charged.total);
        charged.records.push_back(Record { len, begun: false, charge });
        charged.total = charged.total.saturating_add(charge.truesize);
        false
    }

    /// Memory is reserved page by page (Linux `sk_forward_alloc`): what is not charged of it.
    pub(super) fn forward_alloc(&self, elsewhere: u64) -> u32 {
        let reserve = if self.0.as_ref().is_some_and(|charged| charged.has_reserve) { PAGE } else { 0 };
        rest_of_page((u64::from(self.total()) + elsewhere) as u32) + reserve
    }

    /// A page was reserved for a packet that joined another one.
    pub(super) fn keep_reserve(&mut self) {
        if let Some(charged) = &mut self.0 {
            charged.has_reserve = true;
        }
    }

    /// `len` bytes were read: packets read whole are free.
    pub(super) fn take(&mut self, mut len: u32) {
        let Some(charged) = &mut self.0 else { return };
        while len > 0
            && let Some(first) = charged.records.front_mut()
        {
            if first.len > len {
                first.len -= len;
                first.begun = true;
                return;
            }
            len -= first.len;
            charged.total = charged.total.saturating_sub(first.charge.truesize);
            charged.has_reserve = false;
            charged.records.pop_front();
        }
        if charged.records.is_empty() {
            self.0 = None;
        }
    }

    /// The end of file was read: a FIN's packet is free.
    pub(super) fn take_fin(&mut self) {
        if let Some(charged) = &mut self.0
            && let Some(fin) = charged.records.pop_back_if(|last| last.len == 0)
        {
            charged.total -= fin.charge.truesize;
            if charged.records.is_empty() {
                self.0 = None;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Linux `tcp_collapse()`: from the first packet that costs more than its share (`window_of`), or is read in part, all are
    /// copied together into page-sized pieces. How many were.
    pub(super) fn collapse(&mut self, window_of: impl Fn(u32) -> u32) -> usize {
        let Some(charged) = &mut self.0 else { return 0 };
        let is_worth_it = |record: &Record| record.begun || window_of(record.charge.truesize) > record.len;
        let Some(first) = charged.records.iter().position(is_worth_it) else { return 0 };
        let collapsed = charged.records.len() - first;
        let mut left: u32 = charged.records.drain(first..).map(|record| record.len).sum();
        while left > 0 {
            let len = left.min(COPY_MAX);
            let charge = Charge::of_copy(len, len);
            charged.records.push_back(Record { len, begun: false, charge });
            left -= len;
        }
        charged.has_reserve = false;
        charged.total = charged.records.iter().map(|record| record.charge.truesize).sum();
        collapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_costs_its_allocation() {
        let of = |len| Charge::of(len).truesize;
        assert_eq!((of(1500), of(1040), of(140), of(640)), (2304, 2304, 832, 1280));
        assert_eq!(Charge::of_merged(1500, 3).truesize, 3 * 2304);
        assert_eq!(of(9000), 16_384 + 256);
    }

    #[test]
    fn a_packet_is_free_once_it_is_read_whole() {
        let mut memory = Memory::default();
        memory.push(1000, Charge::of(1040), true);
        memory.push(1000, Charge::of(1040), true);
        memory.take(999);
        assert_eq!(memory.total(), 2 * 2304);
        memory.take(1);
        assert_eq!(memory.total(), 2304);
        memory.take(1000);
        assert!(memory.0.is_none());
    }

    #[test]
    fn only_wasteful_packets_collapse() {
        let mut memory = Memory::default();
        for len in [1460, 1460, 1, 1, 1] {
            memory.push(len, Charge::of(len + 40), false);
        }
        assert_eq!(memory.collapse(|space| space * 162 / 256), 3);
        assert_eq!(memory.total(), 2 * 2304 + 832);
        memory.take(1);
        assert_eq!(memory.collapse(|space| space * 162 / 256), 3, "the first is read in part");
        assert_eq!(memory.total(), 4096 + 256);
    }

    #[test]
    fn a_small_packet_goes_behind_the_one_before() {
        let mut memory = Memory::default();
        assert!(!memory.push(1000, Charge::of(1040), true));
        assert!(memory.push(600, Charge::of(640), true), "624 bytes of room");
        assert!(!memory.push(25, Charge::of(65), true), "24 left");
        assert!(!memory.push(10, Charge::of(50), false), "its beginning came before");
        assert!(memory.push(0, Charge::of(40), true), "a FIN needs no room");
        assert_eq!(memory.total(), 2304 + 2 * 832);
        memory.take(1600);
        assert_eq!(memory.total(), 2 * 832);
        memory.take_fin();
        assert_eq!(memory.total(), 2 * 832, "it went with the data");
    }

    #[test]
    fn a_fin_alone_is_charged_until_it_is_read() {
        let mut memory = Memory::default();
        memory.push(1460, Charge::of(1500), true);
        assert!(!memory.push(0, Charge::of(40), false));
        memory.take(1460);
        assert_eq!(memory.total(), 832);
        memory.take_fin();
        assert!(memory.0.is_none());
    }

    #[test]
    fn memory_is_reserved_page_by_page() {
        let mut memory = Memory::default();
        assert_eq!(memory.forward_alloc(0), 0);
        for _ in 0..4 {
            memory.push(50, Charge::of(90), false);
        }
        assert_eq!((memory.forward_alloc(0), memory.forward_alloc(832)), (4096 - 4 * 832, 4096 - 64));
        assert!(memory.push(50, Charge::of(90), true));
        memory.keep_reserve();
        assert_eq!(memory.forward_alloc(0), 2 * 4096 - 4 * 832, "reserved for nothing");
        memory.push(50, Charge::of(90), false);
        assert_eq!(memory.forward_alloc(0), 2 * 4096 - 5 * 832);
    }
}
