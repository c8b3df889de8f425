//! The whole wire against itself (parse∘emit) and against `etherparse` as second opinion.

use core::net::IpAddr;

use bytes::Bytes;
use etherparse::{NetSlice, SlicedPacket, TcpOptionElement, TransportSlice};
use proptest::prelude::*;

use crate::observe::DropReason;
use crate::wire::arbitrary::{ip_fields, segment_header};
use crate::wire::icmp::{Echo, ErrorKind, Icmp, Quote, Version};
use crate::wire::ip::{IpFields, IpHeader};
use crate::wire::offload::Segments;
use crate::wire::segment::{Flags, SegmentHeader};
use crate::wire::transmit::{RxMeta, Transmit, TxChecksum};
use crate::wire::{Body, emit, ipv4, parse};

/// Payload in slices of odd and even lengths, as a send queue gives them.
fn slices() -> impl Strategy<Value = Vec<Bytes>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700).prop_map(Bytes::from), 0..6)
}

fn concat(slices: &[Bytes]) -> Vec<u8> {
    slices.concat()
}

fn transmit(payload: Vec<Bytes>, segment_size: u16) -> Transmit {
    Transmit { payload, segment_size, ..Transmit::default() }
}

fn finished(mut out: Transmit) -> Bytes {
    out.finish_checksum();
    assert_eq!(out.checksum, TxChecksum::Complete);
    Bytes::from(out.to_vec())
}

fn packets(out: &Transmit) -> Vec<Bytes> {
    let (mut segments, mut packet, mut all) = (Segments::new(out), Vec::new(), Vec::new());
    while segments.next_packet(&mut packet) {
        all.push(Bytes::copy_from_slice(&packet));
    }
    all
}

fn assert_ip(ip: &IpHeader, fields: &IpFields, len: usize) {
    assert_eq!((ip.src, ip.dst, ip.ttl, ip.tos), (fields.src, fields.dst, fields.ttl, fields.tos));
    assert_eq!(ip.total_len as usize, len);
    assert!(ip.dont_fragment);
    if fields.src.is_ipv4() {
        assert_eq!(ip.id, fields.id);
    }
}

/// What etherparse reads, its own checksums checked.
struct Opinion {
    src: IpAddr,
    dst: IpAddr,
    ttl: u8,
    transport: Transport,
    payload: Vec<u8>,
}

enum Transport {
    Tcp(etherparse::TcpHeader),
    Udp(etherparse::UdpHeader),
}

fn second_opinion(packet: &[u8]) -> Opinion {
    let sliced = SlicedPacket::from_ip(packet).expect("etherparse accepts the packet");
    let (src, dst, ttl): (IpAddr, IpAddr, u8) = match sliced.net.as_ref().expect("IP") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            (header.source_addr().into(), header.destination_addr().into(), header.ttl())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into(), ip.header().hop_limit())
        }
        NetSlice::Arp(_) => unreachable!("no ARP in an IP packet"),
    };
    let (transport, payload) = match sliced.transport.expect("a transport header") {
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            let expected = match (src, dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => {
                    header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), tcp.payload())
                }
                (IpAddr::V6(src), IpAddr::V6(dst)) => {
                    header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), tcp.payload())
                }
                _ => unreachable!("one family"),
            };
            assert_eq!(Ok(header.checksum), expected);
            let payload = tcp.payload().to_vec();
            (Transport::Tcp(header), payload)
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let expected = match (src, dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => {
                    header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), udp.payload())
                }
                (IpAddr::V6(src), IpAddr::V6(dst)) => {
                    header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), udp.payload())
                }
                _ => unreachable!("one family"),
            };
            assert_eq!(Ok(header.checksum), expected);
            (Transport::Udp(header), udp.payload().to_vec())
        }
        other => unreachable!("TCP or UDP, not {other:?}"),
    };
    Opinion { src, dst, ttl, transport, payload }
}

fn assert_tcp_header(theirs: &etherparse::TcpHeader, ours: &SegmentHeader) {
    assert_eq!((theirs.source_port, theirs.destination_port), (ours.src_port, ours.dst_port));
    assert_eq!((theirs.sequence_number, theirs.acknowledgment_number), (ours.seq.0, ours.ack.0));
    assert_eq!((theirs.window_size, theirs.urgent_pointer), (ours.wnd, ours.urg));
    let bits = [
        (theirs.fin, Flags::FIN),
        (theirs.syn, Flags::SYN),
        (theirs.rst, Flags::RST),
        (theirs.psh, Flags::PSH),
        (theirs.ack, Flags::ACK),
        (theirs.urg, Flags::URG),
        (theirs.ece, Flags::ECE),
        (theirs.cwr, Flags::CWR),
        (theirs.ns, Flags::AE),
    ];
    for (bit, flag) in bits {
        assert_eq!(bit, ours.flags.contains(flag), "{flag}");
    }
    let (mut mss, mut wscale, mut sack_permitted, mut timestamps, mut sack) =
        (None, None, false, None, vec![]);
    for option in theirs.options_iterator() {
        // They do not know Fast Open, and read no further.
        if ours.options.fast_open.is_some() && option.is_err() {
            break;
        }
        match option.expect("well-formed options") {
            TcpOptionElement::Noop => {}
            TcpOptionElement::MaximumSegmentSize(value) => mss = Some(value),
            TcpOptionElement::WindowScale(value) => wscale = Some(value),
            TcpOptionElement::SelectiveAcknowledgementPermitted => sack_permitted = true,
            TcpOptionElement::Timestamp(tsval, tsecr) => timestamps = Some((tsval, tsecr)),
            TcpOptionElement::SelectiveAcknowledgement(first, rest) => {
                sack = std::iter::once(first).chain(rest.into_iter().flatten()).collect();
            }
        }
    }
    let options = &ours.options;
    assert_eq!((mss, wscale, sack_permitted), (options.mss, options.wscale, options.sack_permitted));
    assert_eq!(timestamps, options.timestamps.map(|ts| (ts.tsval, ts.tsecr)));
    let blocks: Vec<_> = options.sack.as_slice().iter().map(|block| (block.start.0, block.end.0)).collect();
    assert!(sack == blocks || ours.options.fast_open.is_some(), "{sack:?}, {blocks:?}");
}

proptest! {
    #[test]
    fn tcp_survives_the_wire(fields in ip_fields(), header in segment_header(), payload in slices()) {
        let bytes = concat(&payload);
        let mut out = transmit(payload, 0);
        emit::tcp(&mut out, &fields, &header);
        let packet = finished(out);

        let parsed = parse(&packet, RxMeta { truesize: 9, ..RxMeta::default() }).expect("our own packet");
        assert_ip(&parsed.ip, &fields, packet.len());
        let Body::Tcp(segment) = parsed.body else { panic!("TCP went in") };
        prop_assert_eq!(segment.header, header);
        prop_assert_eq!(&segment.payload, &bytes);
        prop_assert_eq!((segment.src, segment.dst, segment.ttl), (fields.src, fields.dst, fields.ttl));
        prop_assert_eq!((segment.tos, segment.segs), (fields.tos, 1));
        prop_assert_eq!(segment.truesize as usize, packet.len());

        let opinion = second_opinion(&packet);
        prop_assert_eq!((opinion.src, opinion.dst, opinion.ttl), (fields.src, fields.dst, fields.ttl));
        prop_assert_eq!(opinion.payload, bytes);
        let Transport::Tcp(theirs) = opinion.transport else { panic!("TCP went in") };
        assert_tcp_header(&theirs, &header);
    }

    #[test]
    fn udp_survives_the_wire(fields in ip_fields(), ports in any::<(u16, u16)>(), payload in slices()) {
        let bytes = concat(&payload);
        let mut out = transmit(payload, 0);
        emit::udp(&mut out, &fields, ports.0, ports.1);
        let packet = finished(out);

        let parsed = parse(&packet, RxMeta::default()).expect("our own packet");
        assert_ip(&parsed.ip, &fields, packet.len());
        let Body::Udp(datagram) = parsed.body else { panic!("UDP went in") };
        prop_assert_eq!((datagram.src_port, datagram.dst_port), ports);
        prop_assert_eq!(&datagram.payload, &bytes);

        let opinion = second_opinion(&packet);
        prop_assert_eq!(opinion.payload, bytes);
        let Transport::Udp(theirs) = opinion.transport else { panic!("UDP went in") };
        prop_assert_eq!((theirs.source_port, theirs.destination_port), ports);
    }

    #[test]
    fn cut_segments_carry_the_same_bytes(
        fields in ip_fields(), header in segment_header(), payload in slices(), size in 1u16..1500,
    ) {
        let bytes = concat(&payload);
        let mut out = transmit(payload, size);
        emit::tcp(&mut out, &fields, &header);
        let packets = packets(&out);
        prop_assert_eq!(packets.len(), bytes.len().div_ceil(usize::from(size)).max(1));

        let mut joined = Vec::new();
        for (n, packet) in packets.iter().enumerate() {
            let opinion = second_opinion(packet); // every checksum
            let parsed = parse(packet, RxMeta::default()).expect("our own packet");
            let id = fields.id.wrapping_add(n as u16);
            assert_ip(&parsed.ip, &IpFields { id, ..fields }, packet.len());
            let Body::Tcp(segment) = parsed.body else { panic!("TCP went in") };
            let mut flags = header.flags;
            if n > 0 {
                flags = flags.without(Flags::CWR);
            }
            if n + 1 < packets.len() {
                flags = flags.without(Flags::FIN | Flags::PSH);
            }
            let seq = header.seq + joined.len() as u32;
            // The parser sees handshake options only with SYN, which cutting leaves alone.
            prop_assert_eq!(segment.header, SegmentHeader { seq, flags, ..header });
            prop_assert_eq!(&segment.payload, &opinion.payload);
            joined.extend_from_slice(&segment.payload);
        }
        prop_assert_eq!(joined, bytes);
    }

    #[test]
    fn cut_datagrams_carry_the_same_bytes(fields in ip_fields(), payload in slices(), size in 1u16..1500) {
        let bytes = concat(&payload);
        let mut out = transmit(payload, size);
        emit::udp(&mut out, &fields, 5, 6);
        let mut joined = Vec::new();
        for packet in packets(&out) {
            second_opinion(&packet);
            let parsed = parse(&packet, RxMeta::default()).expect("our own packet");
            let Body::Udp(datagram) = parsed.body else { panic!("UDP went in") };
            prop_assert!(datagram.payload.len() <= usize::from(size));
            joined.extend_from_slice(&datagram.payload);
        }
        prop_assert_eq!(joined, bytes);
    }

    #[test]
    fn cutting_nothing_equals_finishing(fields in ip_fields(), header in segment_header(), payload in slices()) {
        let mut out = transmit(payload, 0);
        emit::tcp(&mut out, &fields, &header);
        prop_assert_eq!(packets(&out), vec![finished(out.clone())]);
        out.finish_checksum();
        prop_assert_eq!(packets(&out), vec![Bytes::from(out.to_vec())]);
    }

    #[test]
    fn echo_survives_the_wire(
        fields in ip_fields(), numbers in any::<(u16, u16)>(),
        payload in prop::collection::vec(any::<u8>(), 0..300), is_reply in any::<bool>(),
    ) {
        let echo = Echo { ident: numbers.0, seq: numbers.1, payload: payload.into() };
        let message = if is_reply { Icmp::EchoReply(echo) } else { Icmp::EchoRequest(echo) };
        let mut out = Transmit::default();
        emit::icmp(&mut out, &fields, &message);
        let packet = Bytes::from(out.to_vec());
        assert_icmp_checksum(&packet);
        let parsed = parse(&packet, RxMeta::default()).expect("our own packet");
        assert_ip(&parsed.ip, &fields, packet.len());
        let Body::Icmp(parsed) = parsed.body else { panic!("ICMP went in") };
        prop_assert_eq!(parsed, message);
    }

    #[test]
    fn errors_tell_which_segment_they_quote(
        fields in ip_fields(), inner in segment_header(), kind in error_kind(), cut in 8usize..60,
    ) {
        let mut about = Transmit::default();
        emit::tcp(&mut about, &fields, &inner);
        let ip_len = if fields.src.is_ipv4() { 20 } else { 40 };
        let quoted = Bytes::from(about.to_vec()).slice(..ip_len + cut.min(about.len() - ip_len));
        let kind = match kind {
            ErrorKind::PacketTooBig { mtu } if fields.src.is_ipv4() => ErrorKind::PacketTooBig { mtu: mtu & 0xffff },
            ErrorKind::ParameterProblem { code, pointer } if fields.src.is_ipv4() => {
                ErrorKind::ParameterProblem { code, pointer: pointer & 0xff }
            }
            ErrorKind::Unreachable { code: 4 } if fields.src.is_ipv4() => ErrorKind::PacketTooBig { mtu: 0 },
            kind => kind,
        };
        let mut out = Transmit::default();
        emit::icmp_error(&mut out, &fields, kind, quoted);
        let packet = Bytes::from(out.to_vec());
        assert_icmp_checksum(&packet);
        let parsed = parse(&packet, RxMeta::default()).expect("our own packet");
        let Body::Icmp(parsed) = parsed.body else { panic!("ICMP went in") };
        // The outer and the inner IP header, and ICMP's.
        let headers = if fields.src.is_ipv4() { 20 + 8 + 20 } else { 40 + 8 + 40 };
        let quote = Quote {
            src: fields.src,
            dst: fields.dst,
            protocol: 6,
            src_port: inner.src_port,
            dst_port: inner.dst_port,
            seq: Some(inner.seq),
            len: (packet.len() - headers) as u16,
        };
        prop_assert_eq!(parsed, Icmp::Error { kind, quote: Some(quote) });
    }

    #[test]
    fn no_bytes_make_the_door_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200), version in prop_oneof![Just(4u8), Just(6)],
        checksum_valid in any::<bool>(), segment_size in any::<u16>(),
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | *first & 0x0f;
        }
        let meta = RxMeta { checksum_valid, segment_size, truesize: 0 };
        let _ = parse(&Bytes::from(bytes), meta);
    }

    /// Random bytes seldom pass the first check, so valid packets with a few bytes changed.
    #[test]
    fn no_damage_makes_the_door_panic(
        fields in ip_fields(), header in segment_header(), payload in slices(),
        damage in prop::collection::vec((0usize..120, any::<u8>()), 1..6), cut in any::<prop::sample::Index>(),
    ) {
        let mut out = transmit(payload, 0);
        emit::tcp(&mut out, &fields, &header);
        let mut bytes = out.to_vec();
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if bytes.len() > 20 && bytes[0] == 0x45 {
            ipv4::set_checksum(&mut bytes[..20]);
        }
        let packet = Bytes::from(bytes);
        for checksum_valid in [false, true] {
            if let Ok(parsed) = parse(&packet, RxMeta { checksum_valid, ..RxMeta::default() }) {
                prop_assert!(parsed.ip.total_len as usize <= packet.len());
            }
        }
    }
}

fn error_kind() -> impl Strategy<Value = ErrorKind> {
    prop_oneof![
        any::<u8>().prop_map(|code| ErrorKind::Unreachable { code }),
        any::<u32>().prop_map(|mtu| ErrorKind::PacketTooBig { mtu }),
        any::<u8>().prop_map(|code| ErrorKind::TimeExceeded { code }),
        any::<(u8, u32)>().prop_map(|(code, pointer)| ErrorKind::ParameterProblem { code, pointer }),
    ]
}

fn assert_icmp_checksum(packet: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).expect("etherparse accepts the packet");
    match (sliced.net.expect("IP"), sliced.transport.expect("ICMP")) {
        (NetSlice::Ipv4(_), TransportSlice::Icmpv4(icmp)) => {
            let sum = etherparse::checksum::Sum16BitWords::new().add_slice(icmp.slice());
            assert_eq!(sum.ones_complement(), 0);
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let (src, dst) = (ip.header().source(), ip.header().destination());
            assert!(icmp.is_checksum_valid(src, dst));
        }
        other => unreachable!("ICMP of the address family, not {other:?}"),
    }
}

fn fields() -> IpFields {
    IpFields { src: [192, 0, 2, 1].into(), dst: [192, 0, 2, 2].into(), ttl: 64, tos: 0, id: 9 }
}

fn fields_v6() -> IpFields {
    let address = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    IpFields { src: address(1), dst: address(2), ..fields() }
}

fn tcp_packet(fields: &IpFields, payload: &[u8]) -> Vec<u8> {
    let mut out = transmit(vec![Bytes::copy_from_slice(payload)], 0);
    emit::tcp(&mut out, fields, &SegmentHeader::default());
    out.finish_checksum();
    out.to_vec()
}

#[test]
fn a_wrong_checksum_is_noticed_unless_the_device_vouches() {
    for fields in [fields(), fields_v6()] {
        let mut bytes = tcp_packet(&fields, b"payload");
        *bytes.last_mut().expect("not empty") ^= 1;
        let packet = Bytes::from(bytes);
        assert_eq!(parse(&packet, RxMeta::default()).unwrap_err(), DropReason::TcpChecksum);
        assert!(parse(&packet, RxMeta { checksum_valid: true, ..RxMeta::default() }).is_ok());
    }
}

#[test]
fn a_merged_packet_counts_its_segments() {
    for (payload, segment_size, segs) in [(0, 1460, 1), (1460, 1460, 1), (1461, 1460, 2), (14600, 1460, 10)] {
        let packet = Bytes::from(tcp_packet(&fields(), &vec![0; payload]));
        let meta = RxMeta { segment_size, ..RxMeta::default() };
        let Ok(Body::Tcp(segment)) = parse(&packet, meta).map(|packet| packet.body) else {
            panic!("our own packet")
        };
        assert_eq!(segment.segs, segs, "{payload} bytes");
    }
}

#[test]
fn the_payload_is_the_received_buffer() {
    let packet = Bytes::from(tcp_packet(&fields(), b"payload"));
    let Ok(Body::Tcp(segment)) = parse(&packet, RxMeta::default()).map(|packet| packet.body) else {
        panic!("our own packet")
    };
    assert_eq!(segment.payload.as_ptr(), packet[40..].as_ptr());
}

#[test]
fn sources_that_no_packet_may_have_are_refused() {
    let refused = |src: IpAddr, dst: IpAddr| {
        let packet = Bytes::from(tcp_packet(&IpFields { src, dst, ..fields() }, b""));
        assert_eq!(parse(&packet, RxMeta::default()).unwrap_err(), DropReason::InvalidSource, "{src}");
    };
    for src in [[224, 0, 0, 1], [255, 255, 255, 255], [0, 0, 0, 0]] {
        refused(src.into(), fields().dst);
    }
    refused([0xff02, 0, 0, 0, 0, 0, 0, 1].into(), fields_v6().dst);
}

#[test]
fn udp_without_checksum_is_for_ipv4_only() {
    for (fields, verdict) in [(fields(), Ok(())), (fields_v6(), Err(DropReason::UdpChecksum))] {
        let mut out = transmit(vec![Bytes::from_static(b"x")], 0);
        emit::udp(&mut out, &fields, 1, 2);
        let start = out.head.len() - 8;
        out.head[start + 6..].fill(0);
        let packet = Bytes::from(out.to_vec());
        assert_eq!(parse(&packet, RxMeta::default()).map(|_| ()), verdict);
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
    // Payload chosen so that the sum comes out as zero: the complement of everything else.
    let sum_with = |payload: [u8; 2]| {
        let mut out = transmit(vec![Bytes::copy_from_slice(&payload)], 0);
        emit::udp(&mut out, &fields(), 1, 2);
        let cut = packets(&out).remove(0);
        out.finish_checksum();
        assert_eq!(cut, out.to_vec());
        u16::from_be_bytes([out.head[26], out.head[27]])
    };
    let field = sum_with([0, 0]);
    assert_eq!(sum_with(field.to_be_bytes()), 0xffff);
}

#[test]
fn merged_datagrams_come_apart_again() {
    let mut out = transmit(vec![Bytes::from_static(b"aaaabbbbcc")], 0);
    emit::udp(&mut out, &fields(), 1, 2);
    let packet = finished(out);
    for (segment_size, expected) in [(4, vec!["aaaa", "bbbb", "cc"]), (0, vec!["aaaabbbbcc"])] {
        let meta = RxMeta { segment_size, ..RxMeta::default() };
        let Ok(Body::Udp(datagram)) = parse(&packet, meta).map(|packet| packet.body) else {
            panic!("our own packet")
        };
        assert_eq!(datagram.payloads().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn what_is_not_ours_to_read_is_named_by_its_number() {
    let mut bytes = tcp_packet(&fields(), b"");
    bytes[9] = 132;
    ipv4::set_checksum(&mut bytes[..20]);
    let parsed = parse(&Bytes::from(bytes), RxMeta::default()).expect("an IP packet");
    assert!(matches!(parsed.body, Body::Other(132)));
}

#[test]
fn the_steady_state_allocates_nothing() {
    let mut out = transmit(vec![Bytes::from(vec![1; 64_000])], 1448);
    emit::tcp(&mut out, &fields(), &SegmentHeader::default());
    let mut packet = Vec::new();
    Segments::new(&out).next_packet(&mut packet);
    let (head, buffer) = (out.head.as_ptr(), packet.as_ptr());
    emit::tcp(&mut out, &fields(), &SegmentHeader::default());
    let mut segments = Segments::new(&out);
    while segments.next_packet(&mut packet) {
        assert_eq!(packet.as_ptr(), buffer);
    }
    assert_eq!(out.head.as_ptr(), head);
}

/// A later fragment has no ports: what lies in their place must not be taken for them.
#[test]
fn a_quoted_later_fragment_is_nobodys() {
    let quoted_v4 = |offset: u16| {
        let mut inner = tcp_packet(&fields(), b"payload");
        inner[6..8].copy_from_slice(&offset.to_be_bytes());
        (fields(), inner)
    };
    let quoted_v6 = |offset: u16| {
        let mut inner = tcp_packet(&fields_v6(), b"payload");
        let [a, b] = ((offset * 8) | 1).to_be_bytes();
        inner[6] = 44;
        inner.splice(40..40, [6, 0, a, b, 0, 0, 0, 1]);
        (fields_v6(), inner)
    };
    for (offset, (fields, inner)) in
        [(0, quoted_v4(0)), (1, quoted_v4(1)), (0, quoted_v6(0)), (1, quoted_v6(1))]
    {
        let mut out = Transmit::default();
        emit::icmp_error(&mut out, &fields, ErrorKind::TimeExceeded { code: 0 }, inner.into());
        let Ok(Body::Icmp(Icmp::Error { quote, .. })) =
            parse(&out.to_vec().into(), RxMeta::default()).map(|packet| packet.body)
        else {
            panic!("our own packet")
        };
        assert_eq!(quote.is_some(), offset == 0, "{} offset {offset}", fields.src);
    }
}

#[test]
fn messages_of_the_other_version_are_not_icmp() {
    let mut out = Transmit::default();
    let echo = Echo { ident: 1, seq: 2, payload: Bytes::new() };
    emit::icmp(&mut out, &fields(), &Icmp::EchoRequest(echo));
    let mut bytes = out.to_vec();
    bytes[9] = 58; // ICMPv6 over IPv4
    ipv4::set_checksum(&mut bytes[..20]);
    assert!(matches!(parse(&Bytes::from(bytes), RxMeta::default()).expect("IP").body, Body::Other(58)));
    assert_eq!(Version::of(fields().src), Version::V4);
}
