//! Captures made of segments, and files made of bytes.

use std::net::SocketAddr;

use lastack_core::tcp::seq::SeqNum;
use lastack_core::tcp::state::TcpState;
use lastack_core::wire::segment::{Flags, SegmentHeader};
use pcap_parser::Linktype;

use super::conversation::{Conversation, ResetKind, Side};
use super::frame::{self, NotSeen, Seen};
use super::*;
use crate::doctor::{Limits, examine};
use crate::row::Certainty;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

fn client() -> SocketAddr {
    "10.0.0.1:40000".parse().unwrap()
}

fn server() -> SocketAddr {
    "10.0.0.2:80".parse().unwrap()
}

/// `S`, `.`, `F`, `R` as packet scripts write them.
fn flags(text: &str) -> Flags {
    text.chars().fold(Flags::NONE, |all, letter| {
        all | match letter {
            'S' => Flags::SYN,
            'F' => Flags::FIN,
            'R' => Flags::RST,
            'P' => Flags::PSH,
            '.' => Flags::ACK,
            other => panic!("{other}"),
        }
    })
}

fn seen(from: SocketAddr, what: &str, seq: u32, len: u32, ack: u32, wnd: u16) -> Seen {
    let to = if from == client() { server() } else { client() };
    let header = SegmentHeader {
        src_port: from.port(),
        dst_port: to.port(),
        seq: SeqNum(seq),
        ack: SeqNum(ack),
        flags: flags(what),
        wnd,
        ..SegmentHeader::default()
    };
    Seen { src: from, dst: to, header, len }
}

/// A conversation of segments at their times, and the names of the events.
fn play(segments: &[(u64, Seen)]) -> (Conversation, Vec<&'static str>) {
    let mut names = Vec::new();
    let mut conversation = Conversation::new(segments[0].0, &segments[0].1);
    for (at, segment) in segments {
        conversation.segment(*at, segment, &mut |event| names.push(event.name));
    }
    (conversation, names)
}

/// SYN, SYN-ACK, ACK; the client's numbers begin at 100, the server's at 500.
fn handshake() -> Vec<(u64, Seen)> {
    vec![
        (0, seen(client(), "S", 100, 0, 0, 64_000)),
        (MS, seen(server(), "S.", 500, 0, 101, 64_000)),
        (2 * MS, seen(client(), ".", 101, 0, 501, 64_000)),
    ]
}

fn with(more: &[(u64, Seen)]) -> Vec<(u64, Seen)> {
    handshake().into_iter().chain(more.iter().copied()).collect()
}

#[test]
fn clean_close_names_who_was_first_and_where_time_wait_is() {
    let (conversation, names) = play(&with(&[
        (10 * MS, seen(client(), "P.", 101, 50, 501, 64_000)),
        (11 * MS, seen(server(), "P.", 501, 900, 151, 64_000)),
        (12 * MS, seen(server(), "F.", 1401, 0, 151, 64_000)),
        (13 * MS, seen(client(), "F.", 151, 0, 1402, 64_000)),
        (14 * MS, seen(server(), ".", 1402, 0, 152, 64_000)),
    ]));
    assert_eq!(conversation.how(), How::Fin);
    assert_eq!(conversation.closed_by(), "second");
    assert_eq!(conversation.states, [TcpState::Close, TcpState::TimeWait]);
    assert_eq!(conversation.bytes(), [50, 900]);
    assert_eq!(conversation.handshake_us(), Some(2000));
    let (words, certainty) = conversation.explain(20 * MS);
    assert_eq!(certainty, Certainty::Observed);
    assert!(words.en.contains("10.0.0.2:80 closed first"), "{}", words.en);
    assert!(names.iter().all(|name| *name == "inet_sock_set_state"), "{names:?}");
    assert!(conversation.row(Side::Second, 1, 61 * S).is_none(), "TIME-WAIT is over after 60 s");
}

#[test]
fn crossing_fins_are_a_simultaneous_close() {
    let (conversation, _) = play(&with(&[
        (10 * MS, seen(client(), "F.", 101, 0, 501, 64_000)),
        (10 * MS, seen(server(), "F.", 501, 0, 101, 64_000)),
        (11 * MS, seen(client(), ".", 102, 0, 502, 64_000)),
        (11 * MS, seen(server(), ".", 502, 0, 102, 64_000)),
    ]));
    assert_eq!(conversation.closed_by(), "both");
    assert_eq!(conversation.states, [TcpState::TimeWait; 2]);
}

#[test]
fn refused_syn_is_a_refusal() {
    let (conversation, names) =
        play(&[(0, seen(client(), "S", 100, 0, 0, 64_000)), (MS, seen(server(), "R.", 0, 0, 101, 0))]);
    assert_eq!(conversation.how(), How::Refused);
    assert_eq!(conversation.reason(), Some("no-listener"));
    assert_eq!(names, ["inet_sock_set_state", "tcp_send_reset", "inet_sock_set_state"]);
}

#[test]
fn reset_with_ack_may_be_unread_data_or_linger_and_says_so() {
    let (conversation, _) = play(&with(&[
        (10 * MS, seen(client(), "P.", 101, 50, 501, 64_000)),
        (11 * MS, seen(server(), "R.", 501, 0, 151, 64_000)),
    ]));
    assert_eq!(conversation.reset.unwrap().kind, ResetKind::Abort);
    let (words, certainty) = conversation.explain(S);
    assert_eq!(certainty, Certainty::Possible);
    assert!(words.en.contains("closed with data unread") && words.en.contains("SO_LINGER 0"));
}

#[test]
fn reset_that_answers_data_after_a_fin_is_data_after_close() {
    let (conversation, _) = play(&with(&[
        (10 * MS, seen(server(), "F.", 501, 0, 101, 64_000)),
        (11 * MS, seen(client(), ".", 101, 0, 502, 64_000)),
        (12 * MS, seen(client(), "P.", 101, 10, 502, 64_000)),
        (13 * MS, seen(server(), "R", 502, 0, 0, 0)),
    ]));
    assert_eq!(conversation.reason(), Some("data-after-close"));
    assert_eq!(conversation.explain(S).1, Certainty::Inferred);
}

#[test]
fn reset_after_long_silence_names_a_middlebox_as_possible() {
    let (conversation, _) = play(&with(&[
        (400 * S, seen(client(), "P.", 101, 10, 501, 64_000)),
        (400 * S + MS, seen(server(), "R", 501, 0, 0, 0)),
    ]));
    assert_eq!(conversation.reset.unwrap().kind, ResetKind::Unknown);
    let (words, certainty) = conversation.explain(401 * S);
    assert_eq!(certainty, Certainty::Possible);
    assert!(words.en.contains("middlebox") && words.en.contains("6m 39s"), "{}", words.en);
}

/// A reader that never reads: the server fills the client's window and probes it.
fn zero_window() -> Vec<(u64, Seen)> {
    with(&[
        (10 * MS, seen(server(), ".", 501, 1000, 101, 64_000)),
        (11 * MS, seen(client(), ".", 101, 0, 1501, 0)),
        (220 * MS, seen(server(), ".", 1500, 0, 101, 64_000)),
        (221 * MS, seen(client(), ".", 101, 0, 1501, 0)),
        (640 * MS, seen(server(), ".", 1500, 0, 101, 64_000)),
        (641 * MS, seen(client(), ".", 101, 0, 1501, 0)),
    ])
}

#[test]
fn zero_window_stall_is_seen_with_its_probes() {
    let (conversation, names) = play(&zero_window());
    assert_eq!(names.iter().filter(|name| **name == "window_probe").count(), 2);
    assert_eq!(names.iter().filter(|name| **name == "zero_window").count(), 1);
    let row = conversation.row(Side::Second, 1, 20 * S).expect("the server's end is open");
    let timer = row.socket.timer.expect("it probes");
    assert_eq!(timer.kind, lastack_core::observe::TimerKind::Persist);
    assert_eq!(row.socket.state_age_ms, Some(19_989), "since the window closed");
    let (words, certainty) = conversation.explain(20 * S);
    assert_eq!(certainty, Certainty::Observed);
    assert!(words.en.contains("its program does not read"), "{}", words.en);
}

#[test]
fn window_that_opens_again_ends_the_stall() {
    let mut segments = zero_window();
    segments.push((S, seen(client(), ".", 101, 0, 1501, 30_000)));
    let (conversation, names) = play(&segments);
    assert!(names.contains(&"window_opened"));
    let row = conversation.row(Side::Second, 1, 20 * S).unwrap();
    assert_eq!(row.socket.timer, None);
}

#[test]
fn unanswered_fin_is_repeated_and_waits() {
    let (conversation, names) = play(&with(&[
        (10 * MS, seen(client(), "F.", 101, 0, 501, 64_000)),
        (210 * MS, seen(client(), "F.", 101, 0, 501, 64_000)),
        (620 * MS, seen(client(), "F.", 101, 0, 501, 64_000)),
        (1440 * MS, seen(client(), "F.", 101, 0, 501, 64_000)),
    ]));
    assert_eq!(names.iter().filter(|name| **name == "tcp_retransmit_skb").count(), 3);
    let row = conversation.row(Side::First, 1, 2 * S).unwrap();
    assert_eq!((row.socket.state, row.socket.send_q), (TcpState::FinWait1, 1));
    let timer = row.socket.timer.unwrap();
    assert_eq!((timer.retrans, timer.expires_ms), (3, 1080), "the interval doubles: 820 ms, then 1640");
    assert_eq!(row.socket.state_age_ms, Some(1990));
    assert!(conversation.explain(2 * S).0.en.contains("repeated its FIN 3 times"));
}

#[test]
fn overtaken_segment_is_no_repeat() {
    let (conversation, names) = play(&with(&[
        (10 * MS, seen(client(), ".", 201, 100, 501, 64_000)),
        (10 * MS + 1000, seen(client(), ".", 101, 100, 501, 64_000)),
    ]));
    assert!(!names.contains(&"tcp_retransmit_skb"), "{names:?}");
    assert_eq!((conversation.repeats(), conversation.bytes()), ([0, 0], [200, 0]));
}

#[test]
fn hole_that_is_filled_later_than_a_round_trip_is_a_repeat() {
    let (conversation, _) = play(&with(&[
        (10 * MS, seen(client(), ".", 201, 100, 501, 64_000)),
        (60 * MS, seen(client(), ".", 101, 100, 501, 64_000)),
    ]));
    assert_eq!(conversation.repeats(), [1, 0]);
}

#[test]
fn keepalive_is_no_repeat() {
    let (conversation, names) = play(&with(&[
        (75 * S, seen(client(), ".", 100, 0, 501, 64_000)),
        (75 * S + MS, seen(server(), ".", 501, 0, 101, 64_000)),
    ]));
    assert!(names.contains(&"keepalive_probe"));
    assert_eq!(conversation.repeats(), [0, 0]);
}

#[test]
fn capture_that_begins_in_the_middle_knows_no_windows() {
    let (conversation, _) =
        play(&[(0, seen(client(), "P.", 1000, 10, 500, 200)), (MS, seen(server(), ".", 500, 0, 1010, 300))]);
    assert_eq!(conversation.states, [TcpState::Established; 2]);
    assert_eq!(conversation.ends[0].window, None, "its scale is not known");
    assert_eq!(conversation.handshake_us(), None);
    assert_eq!(conversation.row(Side::First, 1, S).unwrap().socket.age_ms, None);
}

#[test]
fn second_syn_of_the_same_pair_is_another_connection() {
    let (conversation, _) = play(&handshake());
    assert!(conversation.is_over_for(&seen(client(), "S", 9000, 0, 0, 64_000)));
    assert!(!conversation.is_over_for(&seen(client(), "S", 100, 0, 0, 64_000)), "the same SYN, repeated");
}

#[test]
fn one_stalled_connection_of_a_capture_is_a_finding() {
    let mut capture = Capture { ends_ns: 20 * S, ..Capture::default() };
    capture.conversations.push(play(&zero_window()).0);
    let (before, now) = capture.snapshots();
    let limits = Limits { usual_pile: 1, ..Limits::default() };
    let findings = examine(&now, Some(&before), &limits);
    let ids: Vec<_> = findings.iter().map(|finding| finding.rule.id).collect();
    assert_eq!(ids, ["established.zero-window"]);
}

/// An Ethernet frame with a TCP segment of `payload` bytes, by a second implementation.
fn ethernet(payload: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(40_000, 80, 7, 1024)
        .ack(9);
    let mut frame = Vec::new();
    builder.write(&mut frame, &vec![0; payload]).unwrap();
    frame
}

#[test]
fn cut_frame_keeps_its_true_length() {
    let frame = ethernet(1000);
    let whole = frame::segment(Linktype::ETHERNET, &frame).unwrap();
    let cut = frame::segment(Linktype::ETHERNET, &frame[..60]).unwrap();
    assert_eq!((whole.len, cut.len), (1000, 1000));
    assert_eq!(frame::segment(Linktype::ETHERNET, &frame[..50]).unwrap_err(), NotSeen::Unreadable);
}

#[test]
fn every_link_layer_leads_to_the_same_segment() {
    let frame = ethernet(3);
    let ip = &frame[14..];
    let behind = |header: &[u8]| [header, ip].concat();
    let sll: Vec<u8> = [vec![0; 14], vec![8, 0]].concat();
    let sll2: Vec<u8> = [vec![8, 0], vec![0; 18]].concat();
    let vlan: Vec<u8> = [&frame[..12], &[0x81, 0, 0, 5, 8, 0], ip].concat();
    for (link, bytes) in [
        (Linktype::ETHERNET, frame.clone()),
        (Linktype::ETHERNET, vlan),
        (Linktype::RAW, ip.to_vec()),
        (Linktype::IPV4, ip.to_vec()),
        (Linktype::NULL, behind(&[2, 0, 0, 0])),
        (Linktype::LINUX_SLL, behind(&sll)),
        (Linktype::LINUX_SLL2, behind(&sll2)),
    ] {
        let seen = frame::segment(link, &bytes).unwrap_or_else(|e| panic!("{link:?}: {e:?}"));
        assert_eq!((seen.src.to_string().as_str(), seen.len), ("10.0.0.1:40000", 3), "{link:?}");
    }
    assert_eq!(frame::segment(Linktype(9999), &frame).unwrap_err(), NotSeen::Link);
}

/// A pcap file of one frame, in either byte order and clock.
fn pcap(big_endian: bool, nanoseconds: bool) -> Vec<u8> {
    let n = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let h = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let frame = ethernet(10);
    let len = n(frame.len() as u32);
    let magic = n(if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 });
    [
        &magic[..],
        &h(2),
        &h(4),
        &n(0),
        &n(0),
        &n(65_535),
        &n(1),
        &n(1_700_000_000),
        &n(if nanoseconds { 250_000_000 } else { 250_000 }),
        &len,
        &len,
        &frame,
    ]
    .concat()
}

fn read(bytes: &[u8]) -> io::Result<Capture> {
    let mut capture = Capture::default();
    let end = file::read(io::Cursor::new(bytes.to_vec()), |frame| capture.frame(&frame, &mut |_| {}))?;
    capture.figures.is_cut = matches!(end, file::End::Cut);
    Ok(capture)
}

#[test]
fn every_kind_of_pcap_has_the_same_time_and_segment() {
    for (big_endian, nanoseconds) in [(false, false), (false, true), (true, false), (true, true)] {
        let bytes = pcap(big_endian, nanoseconds);
        assert!(file::is_capture(bytes[..4].try_into().unwrap()));
        let capture = read(&bytes).unwrap();
        assert_eq!(capture.ends_ns, 1_700_000_000_250_000_000);
        assert_eq!(capture.figures.segments, 1);
    }
}

#[test]
fn file_that_was_cut_off_is_read_up_to_there() {
    let bytes = pcap(false, false);
    let capture = read(&[&bytes[..], &bytes[24..50]].concat()).unwrap();
    assert_eq!((capture.figures.segments, capture.figures.is_cut), (1, true));
    assert!(!read(&bytes).unwrap().figures.is_cut);
}

#[test]
fn what_is_no_capture_is_an_error_and_no_panic() {
    assert!(read(b"").is_err());
    assert!(read(b"{\"schema\":1}").is_err());
    let bytes = pcap(false, false);
    // Any damage gives a capture or an error.
    for at in 0..bytes.len() {
        for bit in [1, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= bit;
            let _ = read(&damaged);
        }
    }
}
