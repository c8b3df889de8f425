use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use lastack_core::time::Instant;
use lastack_core::wire::segment::{Flags, SegmentHeader};
use lastack_core::wire::{IpFields, emit};

use super::*;
use crate::Memory;
use crate::device::MAX_PACKET;

const OURS: &str = "192.0.2.1:80";
const THEIRS: &str = "192.0.2.2:4000";

/// A packet from `src` to `dst` whose sequence number is `n`.
fn packet(src: &str, dst: &str, n: u32, payload: usize, flags: Flags) -> Transmit {
    let (src, dst): (std::net::SocketAddr, std::net::SocketAddr) =
        (src.parse().unwrap(), dst.parse().unwrap());
    let ip = IpFields { src: src.ip(), dst: dst.ip(), ttl: 64, tos: 0, id: 1 };
    let header = SegmentHeader {
        src_port: src.port(),
        dst_port: dst.port(),
        seq: lastack_core::tcp::seq::SeqNum(n),
        flags,
        ..SegmentHeader::default()
    };
    let mut out =
        Transmit { payload: vec![Bytes::from(vec![7; payload])], segment_size: 1460, ..Transmit::default() };
    emit::tcp(&mut out, &ip, &header);
    out
}

fn up(n: u32) -> Transmit {
    packet(THEIRS, OURS, n, 10, Flags::ACK)
}

fn down(n: u32) -> Transmit {
    packet(OURS, THEIRS, n, 10, Flags::ACK)
}

fn sequence(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[24..28].try_into().unwrap())
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("it ends") })
}

async fn receive(device: &impl Device) -> io::Result<(Vec<u8>, RxMeta)> {
    let mut buf = BytesMut::with_capacity(MAX_PACKET);
    let meta = poll_fn(|cx| device.poll_recv(cx, &mut buf)).await?;
    Ok((buf.to_vec(), meta))
}

/// What there is to receive without waiting.
fn received_now(device: &impl Device) -> Vec<u32> {
    let mut all = Vec::new();
    loop {
        let mut buf = BytesMut::with_capacity(MAX_PACKET);
        match device.poll_recv(&mut Context::from_waker(Waker::noop()), &mut buf) {
            Poll::Ready(Ok(_)) => all.push(sequence(&buf)),
            Poll::Ready(Err(_)) | Poll::Pending => return all,
        }
    }
}

fn lossy(percent: f64) -> Conditions {
    Conditions { loss: Loss::Random(Share::percent(percent)), ..Conditions::default() }
}

fn delayed(ms: u64) -> Conditions {
    Conditions { delay: Duration::from_millis(ms), ..Conditions::default() }
}

#[test]
fn a_seed_repeats_which_packets_are_lost_both_ways() {
    let survivors = |seed| {
        run(async {
            let (left, right) = Memory::pair(1500);
            let (device, link) = Impaired::new(left, seed, vec![Rule::all(lossy(20.0))]).unwrap();
            let (mut there, mut back) = (Vec::new(), Vec::new());
            for n in 0..2000 {
                device.send(&down(n)).unwrap();
                there.extend(received_now(&right));
                right.send(&up(n)).unwrap();
                back.extend(received_now(&device));
            }
            (there, back, link.report())
        })
    };
    let (there, back, report) = survivors(7);
    let (again_there, again_back, again) = survivors(7);
    assert_eq!((&there, &back), (&again_there, &again_back), "seed 7");
    assert_ne!(there, back, "each direction has decisions of its own");
    assert_ne!(survivors(8).0, there);
    let rule = &report.rules[0];
    assert_eq!(rule.inbound.decisions, again.rules[0].inbound.decisions);
    assert_eq!(rule.outbound.counters.packets, 2000);
    assert_eq!(rule.outbound.arrived + rule.outbound.counters.lost, 2000);
    assert!((320..480).contains(&rule.inbound.counters.lost), "{rule:?}");
}

#[test]
fn a_delay_is_each_way_and_order_is_kept() {
    run(async {
        let (left, right) = Memory::pair(1500);
        let conditions = Conditions { jitter: Duration::from_millis(3), ..delayed(10) };
        let (device, link) = Impaired::new(left, 7, vec![Rule::all(conditions)]).unwrap();
        let clock = Clock::start();
        let started = clock.now();
        for n in 0..20 {
            right.send(&up(n)).unwrap();
            device.send(&down(n)).unwrap();
        }
        assert!(received_now(&right).is_empty());
        for n in 0..20 {
            assert_eq!(sequence(&receive(&device).await.unwrap().0), n);
        }
        // The least that can be said of any machine: not before its time.
        assert!(clock.now().saturating_since(started) >= Duration::from_micros(6_900));
        // The same driver sends what is due.
        let sent = poll_fn(|cx| {
            let mut buf = BytesMut::with_capacity(MAX_PACKET);
            assert!(device.poll_recv(cx, &mut buf).is_pending());
            match link.report().rules[0].outbound.arrived {
                20 => Poll::Ready(received_now(&right)),
                _ => Poll::Pending,
            }
        });
        assert_eq!(sent.await, (0..20).collect::<Vec<_>>());
        let delays = link.report().rules[0].outbound.delays.unwrap();
        assert!(delays.min >= Duration::from_micros(6_900) && delays.mean >= delays.min, "{delays:?}");
    });
}

#[test]
fn super_segments_are_cut_before_anything_is_decided() {
    run(async {
        let (left, right) = Memory::pair_with_offload(1500);
        let (device, link) = Impaired::new(left, 7, vec![Rule::all(Conditions::default())]).unwrap();
        right.send(&packet(THEIRS, OURS, 0, 4000, Flags::ACK)).unwrap();
        for (size, seq) in [(1500, 0), (1500, 1460), (1120, 2920)] {
            let (packet, meta) = receive(&device).await.unwrap();
            assert_eq!((packet.len(), sequence(&packet)), (size, seq));
            assert_eq!((meta.segment_size, meta.checksum_valid), (0, false), "the checksum is finished");
            let parsed = lastack_core::wire::parse(&Bytes::from(packet), RxMeta::default());
            assert!(parsed.is_ok(), "and it is right");
        }
        device.send(&packet(OURS, THEIRS, 0, 4000, Flags::ACK)).unwrap();
        assert_eq!(received_now(&right), [0, 1460, 2920]);
        let report = link.report();
        assert_eq!((report.rules[0].inbound.arrived, report.rules[0].outbound.arrived), (3, 3));
    });
}

#[test]
fn without_rules_super_segments_stay_whole() {
    run(async {
        let (left, right) = Memory::pair_with_offload(1500);
        let (device, _link) = Impaired::new(left, 7, Vec::new()).unwrap();
        right.send(&packet(THEIRS, OURS, 0, 4000, Flags::ACK)).unwrap();
        let (packet, meta) = receive(&device).await.unwrap();
        assert_eq!((packet.len(), meta.segment_size), (4040, 1460));
    });
}

#[test]
fn rules_are_by_ends_and_the_first_that_matches_counts() {
    run(async {
        let (left, right) = Memory::pair(1500);
        let ours = OURS.parse().unwrap();
        let rules = vec![
            Rule::matching("web", move |ends| ends.local == ours, lossy(100.0), Conditions::default()),
            Rule::all(Conditions::default()),
        ];
        let (device, link) = Impaired::new(left, 7, rules).unwrap();
        right.send(&up(1)).unwrap();
        right.send(&packet(THEIRS, "192.0.2.1:81", 2, 10, Flags::ACK)).unwrap();
        device.send(&down(3)).unwrap();
        assert_eq!(received_now(&device), [2]);
        assert_eq!(received_now(&right), [3], "one direction only");
        let lost = link.report().rules.iter().map(|rule| rule.inbound.counters.lost).collect::<Vec<_>>();
        assert_eq!(lost, [1, 0]);
    });
}

#[test]
fn a_cut_connection_vanishes_both_ways_until_a_new_one_begins() {
    for rules in [Vec::new(), vec![Rule::all(Conditions::default())]] {
        run(async {
            let (left, right) = Memory::pair(1500);
            let (device, link) = Impaired::new(left, 7, rules).unwrap();
            link.cut(Ends { local: OURS.parse().unwrap(), remote: THEIRS.parse().unwrap() });
            right.send(&up(1)).unwrap();
            right.send(&packet("192.0.2.2:4001", OURS, 2, 10, Flags::ACK)).unwrap();
            device.send(&down(3)).unwrap();
            assert_eq!(received_now(&device), [2], "another connection of the same server lives");
            assert!(received_now(&right).is_empty());
            right.send(&packet(THEIRS, OURS, 4, 0, Flags::SYN)).unwrap();
            right.send(&up(5)).unwrap();
            assert_eq!(received_now(&device), [4, 5]);
            device.send(&down(6)).unwrap();
            assert_eq!(received_now(&right), [6]);
            assert_eq!(link.report().black_holed, 2);
        });
    }
}

#[test]
fn a_device_without_room_holds_the_stack_back_and_nothing_is_lost() {
    run(async {
        let (left, right) = Memory::pair(1500);
        let (device, _link) = Impaired::new(left, 7, vec![Rule::all(Conditions::default())]).unwrap();
        let (mut sent, mut got) = (0, Vec::new());
        while device.send(&down(sent)).is_ok() {
            sent += 1;
        }
        assert!(sent > 500, "the memory link holds that many");
        assert!(poll_fn(|cx| Poll::Ready(device.poll_writable(cx))).await.is_pending());
        while got.len() < sent as usize {
            got.extend(received_now(&right));
            poll_fn(|cx| device.poll_writable(cx)).await.unwrap();
        }
        assert_eq!(got, (0..sent).collect::<Vec<_>>());
        device.send(&down(sent)).unwrap();
        assert_eq!(received_now(&right), [sent]);
    });
}

#[test]
fn what_is_on_its_way_arrives_before_the_end_of_the_link() {
    run(async {
        let (left, right) = Memory::pair(1500);
        let (device, _link) = Impaired::new(left, 7, vec![Rule::all(delayed(5))]).unwrap();
        right.send(&up(1)).unwrap();
        drop(right);
        assert_eq!(sequence(&receive(&device).await.unwrap().0), 1);
        assert_eq!(receive(&device).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn reordering_and_duplicates_are_measured_where_they_arrive() {
    run(async {
        let (left, right) = Memory::pair(1500);
        let conditions = Conditions {
            reorder: Share::percent(10.0),
            reorder_by: Duration::from_millis(1),
            duplicate: Share::percent(10.0),
            ..Conditions::default()
        };
        let (device, link) = Impaired::new(left, 7, vec![Rule::all(conditions)]).unwrap();
        for n in 0..400 {
            right.send(&up(n)).unwrap();
        }
        let mut got = Vec::new();
        let expected = 400 + {
            got.push(sequence(&receive(&device).await.unwrap().0));
            link.report().rules[0].inbound.counters.duplicated
        };
        // All 400 may have entered in several batches.
        while link.report().rules[0].inbound.counters.packets < 400 || (got.len() as u64) < expected {
            got.push(sequence(&receive(&device).await.unwrap().0));
        }
        while (got.len() as u64) < 400 + link.report().rules[0].inbound.counters.duplicated {
            got.push(sequence(&receive(&device).await.unwrap().0));
        }
        let report = &link.report().rules[0].inbound;
        assert_eq!(report.arrived, got.len() as u64);
        assert!(report.counters.held_back > 20 && report.overtaken > 0, "{report:?}");
        assert!(report.counters.duplicated > 20, "{report:?}");
        let mut distinct = got.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct, (0..400).collect::<Vec<_>>());
        assert!(!got.is_sorted());
    });
}

#[test]
fn a_timer_is_set_to_what_comes_first() {
    run(async {
        let clock = Clock::start();
        let timer = Timer::new().unwrap();
        assert_eq!(timer.is_set_to(), Instant::FAR_FUTURE);
        let deadline = clock.now() + Duration::from_millis(2);
        poll_fn(|cx| timer.poll_until(&clock, deadline, cx)).await.unwrap();
        assert!(clock.now() >= deadline);
        assert_eq!(timer.is_set_to(), Instant::FAR_FUTURE);
    });
}
