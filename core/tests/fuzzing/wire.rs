//! Any bytes through the door, the fragment queue and the ICMP verdicts, and back out.

use bytes::Bytes;
use lastack_core::ip::fragments::{FragmentLimits, Fragments};
use lastack_core::ip::icmp;
use lastack_core::time::{Duration, Instant};
use lastack_core::wire::icmp::{ErrorKind, Version};
use lastack_core::wire::offload::Segments;
use lastack_core::wire::transmit::{RxMeta, Transmit};
use lastack_core::wire::{Body, IpFields, Packet, emit, parse};

use super::{Input, repair_ipv4};

/// Input: packets, each as flags, length and bytes.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let limits = FragmentLimits { high_thresh: 64 << 10, ..FragmentLimits::default() };
    let mut fragments = Fragments::new(limits);
    let mut now = Instant::ZERO;
    while !input.is_empty() {
        let flags = input.u8();
        let len = usize::from(input.u16() % 2048);
        let mut bytes = input.bytes(len).to_vec();
        if flags & 1 != 0 {
            repair_ipv4(&mut bytes);
        }
        let meta =
            RxMeta { checksum_valid: flags & 2 != 0, segment_size: u16::from(flags >> 4) * 100, truesize: 0 };
        if flags & 4 != 0 {
            now += Duration::from_secs(9);
        }
        packet(&mut fragments, now, &Bytes::from(bytes), meta);
        assert!(fragments.memory() <= limits.high_thresh);
    }
    while fragments.expire(Instant::FAR_FUTURE).is_some() {}
    assert_eq!((fragments.memory(), fragments.poll_timeout()), (0, None));
}

fn packet(fragments: &mut Fragments, now: Instant, bytes: &Bytes, meta: RxMeta) {
    let Ok(packet) = parse(bytes, meta) else { return };
    assert!(packet.ip.header_len <= packet.ip.total_len && packet.ip.total_len as usize <= bytes.len());
    verdicts(bytes, &packet);
    match packet.body {
        Body::Tcp(segment) => {
            let ip = IpFields { src: segment.src, dst: segment.dst, ttl: segment.ttl, tos: 0, id: 0 };
            // What was parsed can be sent, cut to pieces, and means the same.
            let size = meta.segment_size.max(1) as usize;
            assert_eq!(
                usize::from(segment.segs),
                match meta.segment_size {
                    0 => 1,
                    _ => segment.payload.len().div_ceil(size).max(1),
                }
            );
            let payload = segment.payload.clone();
            let mut out =
                Transmit { payload: vec![payload], segment_size: meta.segment_size, ..Transmit::default() };
            emit::tcp(&mut out, &ip, &segment.header);
            let mut again = out.clone();
            again.finish_checksum();
            let Ok(Packet { body: Body::Tcp(same), .. }) = parse(&again.to_vec().into(), RxMeta::default())
            else {
                panic!("an emitted segment is refused")
            };
            assert_eq!((same.header, &same.payload), (segment.header, &segment.payload));
            let (mut cut, mut buffer, mut joined) = (Segments::new(&out), Vec::new(), Vec::new());
            while cut.next_packet(&mut buffer) {
                let Ok(Packet { body: Body::Tcp(part), .. }) =
                    parse(&Bytes::copy_from_slice(&buffer), RxMeta::default())
                else {
                    panic!("a cut segment is refused")
                };
                assert_eq!(part.header.seq, segment.header.seq + joined.len() as u32);
                joined.extend_from_slice(&part.payload);
            }
            assert_eq!(joined, segment.payload);
        }
        Body::Udp(datagram) => {
            let joined: Vec<u8> = datagram.payloads().flatten().collect();
            assert_eq!(joined, datagram.payload);
        }
        Body::Fragment(ref fragment) => {
            while fragments.expire(now).is_some() {}
            if let Ok(Some(whole)) = fragments.push(now, bytes, &packet.ip, fragment) {
                let _ = parse(&whole, meta);
            }
        }
        Body::Icmp(_) | Body::Other(_) => {}
    }
}

fn verdicts(bytes: &Bytes, packet: &Packet) {
    let _ = icmp::is_link_noise(packet);
    if !icmp::may_be_answered(packet) {
        return;
    }
    let kind = icmp::unreachable(Version::of(packet.ip.src), lastack_core::stack::Unreachable::Port);
    let mut out = Transmit::default();
    icmp::error(&mut out, bytes, &packet.ip, kind, packet.ip.dst, 0);
    let answer = parse(&out.to_vec().into(), RxMeta::default()).expect("an emitted error is accepted");
    let Body::Icmp(lastack_core::wire::icmp::Icmp::Error { kind: heard, .. }) = answer.body else {
        panic!("an error becomes something else")
    };
    assert_eq!(heard, kind);
    assert!(icmp::meaning(Version::of(packet.ip.src), kind).is_some());
    assert_eq!(icmp::meaning(Version::V4, ErrorKind::PacketTooBig { mtu: 0 }), None);
}
