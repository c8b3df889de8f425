use super::*;
use crate::tcp::seq::SeqNum;
use crate::wire::icmp::Quote;
use crate::wire::parse;
use crate::wire::segment::Flags;
use crate::wire::transmit::RxMeta;

fn v4() -> IpFields {
    IpFields { src: [192, 0, 2, 1].into(), dst: [192, 0, 2, 2].into(), ttl: 64, tos: 0x12, id: 1 }
}

fn v6() -> IpFields {
    let address = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    IpFields { src: address(1), dst: address(2), ..v4() }
}

fn door(bytes: Bytes) -> Packet {
    parse(&bytes, RxMeta::default()).expect("our own packet")
}

fn udp(ip: &IpFields, len: usize) -> Bytes {
    quote_datagram(ip, 5000, 53, Bytes::from(vec![0; len]))
}

fn icmp(ip: &IpFields, message: Icmp) -> Packet {
    let mut out = Transmit::default();
    emit::icmp(&mut out, ip, &message);
    door(Bytes::from(out.to_vec()))
}

#[test]
fn an_echo_goes_back_as_it_came() {
    for ip in [v4(), v6()] {
        let request = Echo { ident: 7, seq: 9, payload: Bytes::from_static(b"ping") };
        let packet = icmp(&ip, Icmp::EchoRequest(request.clone()));
        let mut out = Transmit::default();
        echo_reply(&mut out, &packet.ip, &request, 3);
        let reply = door(Bytes::from(out.to_vec()));
        assert_eq!((reply.ip.src, reply.ip.dst, reply.ip.tos), (ip.dst, ip.src, ip.tos));
        assert!(matches!(reply.body, Body::Icmp(Icmp::EchoReply(echo)) if echo == request));
    }
}

#[test]
fn an_error_quotes_as_much_as_the_rules_allow() {
    for (ip, max) in [(v4(), 576), (v6(), 1280)] {
        for (payload, all) in [(10, true), (1400, false)] {
            let packet = udp(&ip, payload);
            let parsed = door(packet.clone());
            let mut out = Transmit::default();
            let kind = unreachable(Version::of(ip.dst), Unreachable::Port);
            error(&mut out, &packet, &parsed.ip, kind, ip.dst, 0);
            if all {
                assert_eq!(out.payload[0], packet);
            } else {
                assert_eq!(out.len(), max);
            }
            let Body::Icmp(Icmp::Error { kind: heard, quote: Some(quote) }) =
                door(Bytes::from(out.to_vec())).body
            else {
                panic!("an error with a quote")
            };
            assert_eq!(heard, kind);
            let headers = if ip.src.is_ipv4() { 20 + 8 + 20 } else { 40 + 8 + 40 };
            let len = (out.len() - headers) as u16;
            let expected = Quote {
                src: ip.src,
                dst: ip.dst,
                protocol: 17,
                src_port: 5000,
                dst_port: 53,
                seq: None,
                len,
            };
            assert_eq!(quote, expected);
        }
    }
}

#[test]
fn an_error_to_ipv4_has_internetwork_control_precedence() {
    let packet = udp(&v4(), 1);
    let parsed = door(packet.clone());
    let mut out = Transmit::default();
    error(&mut out, &packet, &parsed.ip, ErrorKind::TimeExceeded { code: 0 }, v4().dst, 0);
    assert_eq!(out.head[1], 0xd0, "the packet's TOS 0x12 without ECN");
}

#[test]
fn a_segment_that_is_gone_can_still_be_quoted() {
    let header = SegmentHeader {
        src_port: 40_000,
        dst_port: 80,
        seq: SeqNum(77),
        flags: Flags::SYN,
        ..SegmentHeader::default()
    };
    for ip in [v4(), v6()] {
        let packet = quote_segment(&ip, &header);
        let parsed = door(packet.clone());
        let mut out = Transmit::default();
        let kind = unreachable(Version::of(ip.src), Unreachable::Host);
        error(&mut out, &packet, &parsed.ip, kind, ip.dst, 0);
        let Body::Icmp(Icmp::Error { quote: Some(quote), .. }) = door(Bytes::from(out.to_vec())).body else {
            panic!("an error with a quote")
        };
        assert_eq!((quote.src_port, quote.dst_port, quote.seq), (40_000, 80, Some(SeqNum(77))));
    }
}

/// Specification: what the SYN's sender is told for each answer (feasibility of the forwarder, the errno law).
#[test]
fn unreachable_means_the_same_errno_as_on_linux() {
    let errno =
        |version, why| meaning(version, unreachable(version, why)).map(|meaning| meaning.error.errno_name());
    let table = [
        (Unreachable::Net, "ENETUNREACH", "ENETUNREACH"),
        (Unreachable::Host, "EHOSTUNREACH", "EHOSTUNREACH"),
        (Unreachable::Port, "ECONNREFUSED", "ECONNREFUSED"),
        (Unreachable::Prohibited, "EHOSTUNREACH", "EACCES"),
    ];
    for (why, for_v4, for_v6) in table {
        assert_eq!(errno(Version::V4, why), Some(for_v4));
        assert_eq!(errno(Version::V6, why), Some(for_v6));
    }
    assert_eq!(meaning(Version::V4, ErrorKind::PacketTooBig { mtu: 1400 }), None);
    assert_eq!(meaning(Version::V4, ErrorKind::Unreachable { code: 99 }), None);
    let reverts = |version, code| {
        meaning(version, ErrorKind::Unreachable { code }).is_some_and(|meaning| meaning.reverts_backoff)
    };
    assert!(reverts(Version::V4, 0) && reverts(Version::V4, 1) && !reverts(Version::V4, 3));
    assert!(reverts(Version::V6, 0) && !reverts(Version::V6, 3));
}

#[test]
fn errors_and_multicasts_get_no_error() {
    assert!(may_be_answered(&door(udp(&v4(), 1))));
    assert!(may_be_answered(&door(udp(&v6(), 1))));
    let many = [
        IpFields { dst: [224, 0, 0, 251].into(), ..v4() },
        IpFields { dst: [255, 255, 255, 255].into(), ..v4() },
        IpFields { src: [0, 0, 0, 0].into(), ..v4() },
        IpFields { dst: [0xff02, 0, 0, 0, 0, 0, 0, 1].into(), ..v6() },
        IpFields { src: [0u16; 8].into(), ..v6() },
    ];
    for ip in many {
        let packet = door(udp(&ip, 1));
        assert!(!may_be_answered(&packet), "{ip:?}");
        assert!(is_link_noise(&packet), "{ip:?}");
    }
    let kind = ErrorKind::TimeExceeded { code: 0 };
    let about_error = icmp(&v4(), Icmp::Error { kind, quote: None });
    assert!(!may_be_answered(&about_error));
    assert!(!is_link_noise(&about_error));
}

#[test]
fn discovery_is_noise_and_ping_is_not() {
    let echo = Echo { ident: 1, seq: 1, payload: Bytes::new() };
    for ip in [v4(), v6()] {
        assert!(!is_link_noise(&icmp(&ip, Icmp::EchoRequest(echo.clone()))));
        assert!(!is_link_noise(&door(udp(&ip, 1))));
    }
    for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143, 151] {
        assert!(is_link_noise(&icmp(&v6(), Icmp::Other { kind, code: 0 })), "type {kind}");
    }
    assert!(is_link_noise(&icmp(&v4(), Icmp::Other { kind: 9, code: 0 })));
    assert!(!is_link_noise(&icmp(&v4(), Icmp::Other { kind: 13, code: 0 })), "timestamp request");
}

#[test]
fn errors_to_one_destination_are_limited() {
    let kind = ErrorKind::Unreachable { code: 3 };
    for (to, pause) in [(v4().src, Duration::from_secs(1)), (v6().src, Duration::from_millis(100))] {
        let mut now = Instant::from_millis(5);
        let mut limit = RateLimit::new(now);
        let sent = (0..100).filter(|_| limit.allow(now, to, kind)).count();
        assert_eq!(sent, 6, "the burst");
        assert!(limit.allow(now, v4().dst, kind), "another destination has its own bucket");
        assert!(limit.allow(now, to, ErrorKind::PacketTooBig { mtu: 1400 }), "never limited");
        now += pause - Duration::from_nanos(1);
        assert!(!limit.allow(now, to, kind));
        now += Duration::from_nanos(1);
        assert!(limit.allow(now, to, kind) && !limit.allow(now, to, kind));
    }
}

#[test]
fn errors_to_everybody_are_limited_and_the_memory_is_bounded() {
    let mut limit = RateLimit::new(Instant::ZERO);
    let kind = ErrorKind::Unreachable { code: 3 };
    let address = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
    let sent = (0..1000).filter(|n| limit.allow(Instant::ZERO, address(*n), kind)).count();
    assert_eq!(sent, 50, "icmp_msgs_burst");
    let sent =
        (0..5000).filter(|n| limit.allow(Instant::from_millis(u64::from(*n)), address(*n), kind)).count();
    assert!((4950..=5000).contains(&sent), "one a millisecond: {sent}");
    assert_eq!(limit.destinations.len(), MAX_DESTINATIONS);
}
