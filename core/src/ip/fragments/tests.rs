use proptest::prelude::*;

use super::*;
use crate::wire::ip::IpFields;
use crate::wire::transmit::{RxMeta, Transmit};
use crate::wire::{Body, emit, parse};

fn v4() -> IpFields {
    IpFields { src: [192, 0, 2, 1].into(), dst: [192, 0, 2, 2].into(), ttl: 64, tos: 0, id: 77 }
}

fn v6() -> IpFields {
    let address = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    IpFields { src: address(1), dst: address(2), ..v4() }
}

/// A whole UDP packet without DF.
fn whole(ip: &IpFields, payload: Vec<u8>) -> Bytes {
    let mut out = Transmit { payload: vec![Bytes::from(payload)], ..Transmit::default() };
    emit::udp(&mut out, ip, 1, 2);
    out.finish_checksum();
    let mut packet = out.to_vec();
    if ip.src.is_ipv4() {
        packet[6] = 0;
        ipv4::set_checksum(&mut packet[..20]);
    }
    Bytes::from(packet)
}

/// One fragment of `whole`: the payload bytes `range`.
fn fragment(whole: &[u8], range: core::ops::Range<usize>, more: bool) -> Bytes {
    let is_v4 = whole[0] >> 4 == 4;
    let offset_and_more = (range.start as u16) | if is_v4 { 0 } else { u16::from(more) };
    let mut packet;
    if is_v4 {
        packet = whole[..20].to_vec();
        packet[2..4].copy_from_slice(&(20 + range.len() as u16).to_be_bytes());
        let flags = if more { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&(flags | (offset_and_more / 8)).to_be_bytes());
        ipv4::set_checksum(&mut packet);
        packet.extend_from_slice(&whole[20..][range]);
    } else {
        packet = whole[..40].to_vec();
        packet[4..6].copy_from_slice(&(8 + range.len() as u16).to_be_bytes());
        let [a, b] = offset_and_more.to_be_bytes();
        packet.extend_from_slice(&[packet[6], 0, a, b, 0, 0, 0, 77]);
        packet[6] = 44;
        packet.extend_from_slice(&whole[40..][range]);
    }
    Bytes::from(packet)
}

fn cut(whole: &[u8], size: usize) -> Vec<Bytes> {
    let len = whole.len() - if whole[0] >> 4 == 4 { 20 } else { 40 };
    let starts = (0..len).step_by(size);
    starts.map(|start| fragment(whole, start..len.min(start + size), start + size < len)).collect()
}

fn push(fragments: &mut Fragments, now: Instant, packet: &Bytes) -> Result<Option<Bytes>, DropReason> {
    let parsed = parse(packet, RxMeta::default()).expect("our own packet");
    let Body::Fragment(fragment) = &parsed.body else { panic!("a fragment") };
    fragments.push(now, packet, &parsed.ip, fragment)
}

fn is_empty(fragments: &Fragments) -> bool {
    let empty = fragments.datagrams.is_empty();
    assert_eq!(empty, fragments.deadlines.is_empty());
    assert_eq!(empty, fragments.memory() == 0);
    empty
}

proptest! {
    #[test]
    fn any_order_with_duplicates_gives_the_packet_back(
        is_v4 in any::<bool>(),
        payload in prop::collection::vec(any::<u8>(), 100..3000),
        units in 1usize..40,
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..400),
    ) {
        let packet = whole(&if is_v4 { v4() } else { v6() }, payload);
        let pieces = cut(&packet, units * 8);
        prop_assume!(pieces.len() > 1);
        let mut fragments = Fragments::new(FragmentLimits::default());
        let mut missing: Vec<usize> = (0..pieces.len()).collect();
        let mut done = None;
        // At random with repeats, then what is still missing, backwards.
        let random = order.iter().map(|index| index.index(pieces.len())).collect::<Vec<_>>();
        for n in random.into_iter().chain((0..pieces.len()).rev()) {
            if done.is_some() {
                break;
            }
            missing.retain(|m| *m != n);
            done = push(&mut fragments, Instant::ZERO, &pieces[n]).expect("consistent fragments");
            prop_assert_eq!(done.is_some(), missing.is_empty());
        }
        prop_assert_eq!(done, Some(packet));
        prop_assert!(is_empty(&fragments));
    }

    /// Whatever comes: no panic, the books stay right, and after the last deadline nothing is left.
    #[test]
    fn any_fragments_leave_the_books_right(
        pieces in prop::collection::vec((0usize..40, 1usize..40, any::<bool>(), any::<bool>(), 0u8..4), 0..60),
    ) {
        let limits = FragmentLimits { high_thresh: 6000, ..FragmentLimits::default() };
        let mut fragments = Fragments::new(limits);
        let packets = [whole(&v4(), vec![1; 900]), whole(&v6(), vec![1; 900])];
        for (start, units, more, is_v4, ecn) in pieces {
            let mut packet = fragment(&packets[usize::from(is_v4)], start * 8..(start + units) * 8, more).to_vec();
            if packet[0] == 0x45 {
                packet[1] = ecn;
                ipv4::set_checksum(&mut packet[..20]);
            }
            let parsed = parse(&Bytes::from(packet.clone()), RxMeta::default());
            if !matches!(parsed.map(|packet| packet.body), Ok(Body::Fragment(_))) {
                continue; // offset 0 and no more: a whole packet
            }
            let _ = push(&mut fragments, Instant::ZERO, &Bytes::from(packet));
            let books: usize = fragments.datagrams.values().map(|datagram| datagram.charge).sum();
            prop_assert_eq!(books, fragments.memory());
            prop_assert!(books <= limits.high_thresh);
        }
        while fragments.expire(Instant::FAR_FUTURE).is_some() {}
        prop_assert!(is_empty(&fragments));
    }
}

#[test]
fn an_overlap_drops_the_whole_datagram() {
    for ip in [v4(), v6()] {
        let packet = whole(&ip, vec![7; 200]);
        let mut fragments = Fragments::new(FragmentLimits::default());
        assert_eq!(push(&mut fragments, Instant::ZERO, &fragment(&packet, 0..80, true)), Ok(None));
        let overlapping = fragment(&packet, 72..160, true);
        assert_eq!(push(&mut fragments, Instant::ZERO, &overlapping), Err(DropReason::FragReassembly));
        assert!(is_empty(&fragments));
    }
}

#[test]
fn a_fragment_within_received_bytes_is_a_duplicate() {
    let packet = whole(&v4(), vec![7; 200]);
    let mut fragments = Fragments::new(FragmentLimits::default());
    for range in [0..80, 80..160, 40..120, 0..160] {
        assert_eq!(push(&mut fragments, Instant::ZERO, &fragment(&packet, range, true)), Ok(None));
    }
    assert_eq!(push(&mut fragments, Instant::ZERO, &fragment(&packet, 160..208, false)), Ok(Some(packet)));
}

#[test]
fn a_fragment_that_fills_a_gap_and_more_is_an_overlap() {
    let packet = whole(&v4(), vec![7; 300]);
    let mut fragments = Fragments::new(FragmentLimits::default());
    for range in [0..80, 160..240] {
        assert_eq!(push(&mut fragments, Instant::ZERO, &fragment(&packet, range, true)), Ok(None));
    }
    let wide = fragment(&packet, 40..208, true);
    assert_eq!(push(&mut fragments, Instant::ZERO, &wide), Err(DropReason::FragReassembly));
    assert!(is_empty(&fragments));
}

/// Linux: ip_frag_reasm(): a sender that sets DF on its fragments gets it back.
#[test]
fn dont_fragment_of_the_first_fragment_is_kept() {
    for flag in [0, 0x40] {
        let packet = whole(&v4(), vec![7; 200]);
        let mut fragments = Fragments::new(FragmentLimits::default());
        let mut done = None;
        for part in cut(&packet, 104) {
            let mut part = part.to_vec();
            part[6] |= flag;
            ipv4::set_checksum(&mut part[..20]);
            done = push(&mut fragments, Instant::ZERO, &Bytes::from(part)).expect("consistent fragments");
        }
        let whole = done.expect("complete");
        assert_eq!(parse(&whole, RxMeta::default()).expect("valid").ip.dont_fragment, flag != 0);
    }
}

#[test]
fn two_ends_or_bytes_beyond_the_end_drop_the_datagram() {
    let packet = whole(&v4(), vec![7; 200]);
    let contradictions = [
        (fragment(&packet, 80..160, false), fragment(&packet, 160..200, false)),
        (fragment(&packet, 80..160, false), fragment(&packet, 160..200, true)),
        (fragment(&packet, 80..160, true), fragment(&packet, 40..72, false)),
    ];
    for (first, second) in contradictions {
        let mut fragments = Fragments::new(FragmentLimits::default());
        assert_eq!(push(&mut fragments, Instant::ZERO, &first), Ok(None));
        assert_eq!(push(&mut fragments, Instant::ZERO, &second), Err(DropReason::FragReassembly));
        assert!(is_empty(&fragments));
    }
}

#[test]
fn time_over_gives_the_first_fragment_if_it_came() {
    for (ip, time) in [(v4(), 30), (v6(), 60)] {
        let packet = whole(&ip, vec![7; 200]);
        let (first, second) = (fragment(&packet, 0..80, true), fragment(&packet, 80..160, true));
        for (piece, expected) in [(&first, Some(first.clone())), (&second, None)] {
            let mut fragments = Fragments::new(FragmentLimits::default());
            let start = Instant::from_millis(10);
            assert_eq!(push(&mut fragments, start, piece), Ok(None));
            let deadline = start + Duration::from_secs(time);
            assert_eq!(fragments.poll_timeout(), Some(deadline));
            assert_eq!(fragments.expire(deadline - Duration::from_nanos(1)), None);
            assert_eq!(fragments.expire(deadline), Some(Expired { first: expected }));
            assert!(is_empty(&fragments));
        }
    }
}

#[test]
fn memory_is_bounded() {
    let limits = FragmentLimits::default();
    let mut fragments = Fragments::new(limits);
    let mut refused = 0;
    for id in 0..20_000u16 {
        let packet = whole(&IpFields { id, ..v4() }, vec![0; 900]);
        match push(&mut fragments, Instant::ZERO, &fragment(&packet, 0..400, true)) {
            Ok(None) => assert_eq!(refused, 0, "room once more without a reason"),
            Err(DropReason::FragLimit) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0 && fragments.memory() <= limits.high_thresh);
    assert!(fragments.memory() > limits.high_thresh - 2000, "the room is used");
}

#[test]
fn ipv4_cuts_a_crooked_fragment_and_ipv6_refuses_it() {
    let mut fragments = Fragments::new(FragmentLimits::default());
    let packet = whole(&v4(), vec![7; 200]);
    assert_eq!(push(&mut fragments, Instant::ZERO, &fragment(&packet, 0..83, true)), Ok(None));
    assert_eq!(push(&mut fragments, Instant::ZERO, &fragment(&packet, 80..208, false)), Ok(Some(packet)));
    let packet = whole(&v6(), vec![7; 200]);
    let crooked = fragment(&packet, 0..83, true);
    assert_eq!(push(&mut fragments, Instant::ZERO, &crooked), Err(DropReason::FragReassembly));
    assert!(is_empty(&fragments));
}

#[test]
fn congestion_experienced_by_one_fragment_counts_for_the_packet() {
    let with_ecn = |packet: &Bytes, ecn: u8| {
        let mut bytes = packet.to_vec();
        if bytes[0] >> 4 == 4 {
            bytes[1] |= ecn;
            ipv4::set_checksum(&mut bytes[..20]);
        } else {
            bytes[1] |= ecn << 4;
        }
        Bytes::from(bytes)
    };
    for ip in [v4(), v6()] {
        let packet = whole(&ip, vec![7; 200]);
        let parts = [fragment(&packet, 0..80, true), fragment(&packet, 80..208, false)];
        for (first, second, expected) in
            [(2, 3, Some(3)), (3, 2, Some(3)), (2, 2, Some(2)), (0, 0, Some(0)), (0, 3, None), (1, 0, None)]
        {
            let mut fragments = Fragments::new(FragmentLimits::default());
            assert_eq!(push(&mut fragments, Instant::ZERO, &with_ecn(&parts[0], first)), Ok(None));
            let done = push(&mut fragments, Instant::ZERO, &with_ecn(&parts[1], second));
            let ecn = done
                .ok()
                .flatten()
                .map(|packet| parse(&packet, RxMeta::default()).expect("a valid packet").ip.ecn());
            assert_eq!(ecn, expected, "{first} and {second}");
            assert!(is_empty(&fragments));
        }
    }
}

#[test]
fn no_datagram_grows_over_64_kib() {
    let mut fragments = Fragments::new(FragmentLimits::default());
    let packet = whole(&v4(), vec![0; 64]);
    let mut bytes = fragment(&packet, 0..64, true).to_vec();
    bytes[6..8].copy_from_slice(&(65_528u16 / 8).to_be_bytes()); // the last place there is
    ipv4::set_checksum(&mut bytes[..20]);
    assert_eq!(push(&mut fragments, Instant::ZERO, &Bytes::from(bytes)), Err(DropReason::FragReassembly));
    assert!(is_empty(&fragments));
}

#[test]
fn ipv6_headers_before_the_fragment_header_are_kept() {
    let inner = whole(&v6(), vec![5; 100]);
    let hop_by_hop = [17, 0, 1, 4, 0, 0, 0, 0];
    let expected = {
        let mut packet = inner[..40].to_vec();
        packet[4..6].copy_from_slice(&(8 + 108u16).to_be_bytes());
        packet[6] = 0;
        packet.extend_from_slice(&hop_by_hop);
        packet.extend_from_slice(&inner[40..]);
        Bytes::from(packet)
    };
    let part = |range, more| {
        let mut packet = fragment(&inner, range, more).to_vec();
        let len = u16::from_be_bytes([packet[4], packet[5]]) + 8;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        packet[6] = 0;
        packet.splice(40..40, [44, 0, 1, 4, 0, 0, 0, 0]);
        Bytes::from(packet)
    };
    let mut fragments = Fragments::new(FragmentLimits::default());
    assert_eq!(push(&mut fragments, Instant::ZERO, &part(56..108, false)), Ok(None));
    assert_eq!(push(&mut fragments, Instant::ZERO, &part(0..56, true)), Ok(Some(expected.clone())));
    assert!(matches!(parse(&expected, RxMeta::default()).expect("valid").body, Body::Udp(_)));
}
