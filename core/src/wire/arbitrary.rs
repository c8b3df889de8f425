//! Strategies for property tests: headers as the stack could send them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use crate::tcp::seq::{SeqNum, SeqRange};
use crate::wire::ip::IpFields;
use crate::wire::segment::{FastOpen, FastOpenCookie, Flags, Options, SackBlocks, SegmentHeader, Timestamps};
use crate::wire::tcp;

/// A header that survives the wire: handshake options only with SYN, no more SACK blocks than fit.
pub(crate) fn segment_header() -> impl Strategy<Value = SegmentHeader> {
    let numbers = any::<(u16, u16, u32, u32, u16, u16)>();
    (numbers, 0u16..0x200, options()).prop_map(|(numbers, flags, mut options)| {
        let (src_port, dst_port, seq, ack, wnd, urg) = numbers;
        let flags = Flags(flags);
        if !flags.syn() {
            (options.mss, options.wscale, options.sack_permitted) = (None, None, false);
            options.fast_open = None;
        }
        if tcp::options_len(&Options { sack: SackBlocks::NONE, fast_open: None, ..options }) + 20 > 40 {
            options.fast_open = None;
        }
        while tcp::options_len(&Options { sack: SackBlocks::NONE, ..options }) + sack_len(&options) > 40 {
            options.sack = without_last(options.sack);
        }
        SegmentHeader { src_port, dst_port, seq: SeqNum(seq), ack: SeqNum(ack), flags, wnd, urg, options }
    })
}

fn sack_len(options: &Options) -> usize {
    match options.sack.as_slice().len() {
        0 => 0,
        blocks => 4 + 8 * blocks,
    }
}

fn without_last(blocks: SackBlocks) -> SackBlocks {
    let mut fewer = SackBlocks::NONE;
    if let [kept @ .., _] = blocks.as_slice() {
        kept.iter().for_each(|block| fewer.push(*block));
    }
    fewer
}

fn options() -> impl Strategy<Value = Options> {
    let block = any::<(u32, u32)>().prop_map(|(start, end)| SeqRange::new(SeqNum(start), SeqNum(end)));
    let timestamps = any::<(u32, u32)>().prop_map(|(tsval, tsecr)| Timestamps { tsval, tsecr });
    (
        prop::option::of(1u16..),
        prop::option::of(any::<u8>()),
        any::<bool>(),
        prop::option::of(timestamps),
        prop::collection::vec(block, 0..=4),
        prop::option::of((any::<bool>(), prop::sample::select(vec![0, 4, 8, 16]))),
    )
        .prop_map(|(mss, wscale, sack_permitted, timestamps, blocks, cookie)| {
            let fast_open = cookie.map(|(experimental, len)| FastOpen {
                experimental,
                cookie: FastOpenCookie::new(&[7; 16][..len]).expect("a cookie's length"),
            });
            let mut sack = SackBlocks::NONE;
            blocks.into_iter().for_each(|block| sack.push(block));
            Options { mss, wscale, sack_permitted, timestamps, sack, fast_open }
        })
}

/// Addresses of either family that a packet may have as source and destination.
pub(crate) fn ip_fields() -> impl Strategy<Value = IpFields> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(src, dst)| {
        let src = Ipv4Addr::from([src[0] % 223 + 1, src[1], src[2], src[3]]);
        (IpAddr::V4(src), IpAddr::V4(Ipv4Addr::from(dst)))
    });
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(mut src, dst)| {
        src[0] = 0x20 | src[0] & 0x1f;
        (IpAddr::V6(Ipv6Addr::from(src)), IpAddr::V6(Ipv6Addr::from(dst)))
    });
    (prop_oneof![v4, v6], any::<(u8, u8, u16)>()).prop_map(|((src, dst), (ttl, tos, id))| IpFields {
        src,
        dst,
        ttl,
        tos,
        id,
    })
}
