//! What queued data costs: Linux's memory for each packet, which the receive buffer is counted in.
//!
//! Owns:    the charge of the receive queue, packet by packet, until the packet has been read whole.
//! Rules:   Linux `skb->truesize` of a packet that came through a TUN (`tun_alloc_skb()`, `__alloc_skb()`), `sk_rmem_alloc`,
//!          `tcp_collapse()`.
//! Differs: a small packet costs its own head, where Linux copies it behind the one before if there is room and nobody else
//!          (a sniffer) holds that one.
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

/// What one packet costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Charge {
    /// Linux `truesize`, bytes.
    pub(crate) truesize: u32,
}

impl Charge {
    /// A packet of `len` bytes, IP header included.
    pub(crate) fn of(len: u32) -> Self {
        let needed = (CACHE_LINE + len).next_multiple_of(CACHE_LINE) + SHARED_INFO;
        let head = if needed <= SMALL_HEAD { SMALL_HEAD } else { needed.next_power_of_two() };
        Self { truesize: head + SK_BUFF }
    }

    /// `segs` packets of `len` bytes that the device merged.
    pub(crate) fn of_merged(len: u32, segs: u32) -> Self {
        Self { truesize: Self::of(len).truesize.saturating_mul(segs) }
    }
}

#[derive(Clone, Copy, Debug)]
struct Record {
    len: u32,
    truesize: u32,
}

/// The charge of the receive queue. Empty, it owns no memory.
#[derive(Debug, Default)]
pub(super) struct Memory(Option<Box<Charged>>);

#[derive(Debug, Default)]
struct Charged {
    records: VecDeque<Record>,
    total: u32,
}

impl Memory {
    /// Linux `sk_rmem_alloc`, less what is ahead of a hole.
    pub(super) fn total(&self) -> u32 {
        self.0.as_ref().map_or(0, |charged| charged.total)
    }

    /// `len` bytes follow.
    pub(super) fn push(&mut self, len: u32, charge: Charge) {
        let charged = self.0.get_or_insert_default();
        charged.records.push_back(Record { len, truesize: charge.truesize });
        charged.total = charged.total.saturating_add(charge.truesize);
    }

    /// `len` bytes were read: packets read whole are free.
    pub(super) fn take(&mut self, mut len: u32) {
        let Some(charged) = &mut self.0 else { return };
        while len > 0
            && let Some(first) = charged.records.front_mut()
        {
            if first.len > len {
                first.len -= len;
                return;
            }
            len -= first.len;
            charged.total = charged.total.saturating_sub(first.truesize);
            charged.records.pop_front();
        }
        if charged.records.is_empty() {
            self.0 = None;
        }
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Linux `tcp_collapse()`: from the first packet that costs more than its share (`window_of`), all are copied together
    /// into page-sized pieces. How many were.
    pub(super) fn collapse(&mut self, window_of: impl Fn(u32) -> u32) -> usize {
        let Some(charged) = &mut self.0 else { return 0 };
        let Some(first) = charged.records.iter().position(|record| window_of(record.truesize) > record.len)
        else {
            return 0;
        };
        let collapsed = charged.records.len() - first;
        let mut left: u32 = charged.records.drain(first..).map(|record| record.len).sum();
        while left > 0 {
            let len = left.min(PAGE - SHARED_INFO);
            let head = (len + SHARED_INFO).next_power_of_two().min(PAGE);
            charged.records.push_back(Record { len, truesize: head + SK_BUFF });
            left -= len;
        }
        charged.total = charged.records.iter().map(|record| record.truesize).sum();
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
        memory.push(1000, Charge::of(1040));
        memory.push(1000, Charge::of(1040));
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
            memory.push(len, Charge::of(len + 40));
        }
        memory.collapse(|space| space * 162 / 256);
        assert_eq!(memory.total(), 2 * 2304 + 512 + 256);
    }
}
