//! What leaves, when and how large: windows, Nagle, PSH, super-segments, buffers.

use super::harness::{Bench, config};
use crate::tcp::options::TcpOptions;
use crate::tcp::send::{AckVerdict, AckView, PlanKind, SenderConfig, Write};
use crate::time::Duration;
use crate::wire::segment::SackBlocks;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn lens(bench: &Bench) -> Vec<u32> {
    bench.sent.iter().map(|sent| sent.len).collect()
}

#[test]
fn ten_segments_first_then_two_for_each_acknowledged() {
    for gso_max_segs in [1, 44] {
        let mut bench = Bench::established(&SenderConfig { gso_max_segs, ..config() });
        bench.write(40_000);
        bench.poll();
        assert_eq!(lens(&bench).iter().sum::<u32>(), 10_000);
        bench.wait(ms(4));
        bench.sent.clear();
        bench.ack(2_000);
        assert_eq!(lens(&bench).iter().sum::<u32>(), 4_000, "gso {gso_max_segs}");
    }
}

#[test]
fn a_super_segment_is_at_most_half_the_window() {
    let mut bench = Bench::established(&SenderConfig {
        gso_max_segs: 44,
        handshake_rtt: Some(Duration::from_micros(100)),
        ..config()
    });
    bench.write(40_000);
    bench.poll();
    assert_eq!(lens(&bench), [5_000, 5_000]);
}

#[test]
fn nagle_holds_the_second_small_segment_until_the_first_is_acknowledged() {
    let mut bench = Bench::established(&config());
    for _ in 0..3 {
        bench.write(1);
        bench.poll();
    }
    assert_eq!(lens(&bench), [1]);
    bench.wait(ms(4));
    bench.ack(1);
    assert_eq!(lens(&bench), [1, 2]);
}

#[test]
fn minshall_lets_a_partial_segment_follow_full_ones() {
    let mut bench = Bench::established(&config());
    bench.write(2_500);
    bench.poll();
    assert_eq!(lens(&bench), [1_000, 1_000, 500]);
    bench.write(1_700);
    bench.poll();
    assert_eq!(lens(&bench)[3..], [1_000], "the 700 wait for the 500's ACK");
}

#[test]
fn nodelay_and_fin_pass_nagle() {
    let mut bench = Bench::established(&config());
    bench.options.nodelay = true;
    for _ in 0..3 {
        bench.write(1);
        bench.poll();
    }
    assert_eq!(lens(&bench), [1, 1, 1]);
    bench.options.nodelay = false;
    bench.write(5);
    assert!(bench.poll().is_empty());
    bench.close();
    bench.poll();
    let last = *bench.sent.last().unwrap();
    assert_eq!((last.len, last.fin, last.psh), (5, true, true), "the FIN joins the unsent segment");
}

#[test]
fn setting_nodelay_pushes_what_is_held() {
    let mut bench = Bench::established(&config());
    bench.options.cork = true;
    bench.write(10);
    assert!(bench.poll().is_empty());
    bench.sender.push_pending();
    assert!(bench.sender.wants_to_send(&bench.options, bench.world.now));
    assert_eq!(bench.poll().len(), 1);
}

#[test]
fn push_marks_the_end_of_a_write_and_each_half_window() {
    let mut bench = Bench::established(&config());
    bench.write(3_000);
    bench.poll();
    assert_eq!(bench.sent.iter().map(|s| s.psh).collect::<Vec<_>>(), [false, false, true]);
    let mut bench = Bench::established(&config());
    bench.ack_window(0, 4_000, &[]);
    bench.sender.max_window = 4_000;
    bench.write(4_000);
    bench.poll();
    assert_eq!(bench.sent.iter().map(|s| s.psh).collect::<Vec<_>>(), [false, false, true, true]);
}

#[test]
fn a_full_segment_that_does_not_fit_the_window_is_not_cut() {
    let mut bench = Bench::established(&config());
    bench.ack_window(0, 2_500, &[]);
    bench.write(5_000);
    bench.poll();
    assert_eq!(lens(&bench), [1_000, 1_000]);
}

#[test]
fn a_tiny_window_halves_the_segments() {
    let mut world = Bench::established(&config());
    world.sender.max_window = 1_000;
    world.sender.sync_mss();
    assert_eq!(world.sender.mss, 500, "Linux tcp_bound_to_half_wnd()");
    world.sender.max_window = 500;
    world.sender.sync_mss();
    assert_eq!(world.sender.mss, 500);
}

#[test]
fn the_window_may_open_but_old_segments_do_not_shrink_it() {
    let mut bench = Bench::established(&config());
    bench.write(1_000);
    bench.poll();
    let none = SackBlocks::NONE;
    let mut view = bench.view(0, 50_000, &none);
    view.seq += 100;
    bench.take(&view);
    assert_eq!(bench.sender.snd_wnd(), 50_000);
    let mut old = bench.view(0, 10, &none);
    old.seq += 50;
    bench.take(&old);
    assert_eq!(bench.sender.snd_wnd(), 50_000);
}

#[test]
fn acknowledgments_of_the_impossible_are_refused() {
    let mut bench = Bench::established(&config());
    bench.write(1_000);
    bench.poll();
    let none = SackBlocks::NONE;
    let mut view = bench.view(1_001, 50_000, &none);
    assert_eq!(bench.take(&view), AckVerdict::Unsent);
    bench.ack(1_000);
    view.ack = Bench::seq(0);
    assert!(matches!(bench.take(&view), AckVerdict::Taken(acked) if acked.old));
    view.ack = Bench::seq(0) - 1;
    assert_eq!(bench.take(&view), AckVerdict::TooOld, "older than everything we sent");
}

#[test]
fn idleness_halves_the_window_for_each_rto_down_to_ten() {
    let mut bench = Bench::established(&config());
    bench.sender.cwnd.window.snd_cwnd = 80;
    bench.write(1);
    bench.poll();
    bench.ack(1);
    let cwnd = bench.cwnd();
    bench.wait(ms(204 * 2 + 100));
    bench.write(1);
    assert_eq!(bench.cwnd(), cwnd / 4);
    bench.poll();
    bench.ack(2);
    bench.wait(Duration::from_secs(60));
    bench.write(1);
    assert_eq!(bench.cwnd(), 10);
}

#[test]
fn the_send_buffer_starts_and_grows_as_in_linux() {
    let ethernet = SenderConfig { mss: 1460, timestamps: false, ..config() };
    let mut bench = Bench::established(&ethernet);
    assert_eq!(bench.sender.sndbuf(), 46_080);
    assert_eq!(bench.sender.free_space(0), 64_240, "one super-segment, whole");
    let data = vec![0u8; 200_000];
    let taken = bench.sender.push_slice(&data, Write::Plain, &bench.options, 0, &mut bench.world.cx());
    assert_eq!(
        taken, 78_840,
        "more than half of the peer's window is pushed: ten segments leave, and their room is filled"
    );
    assert!(!bench.sender.is_writeable(&bench.options, &bench.world.cx()));
    bench.poll();
    let mut acked = 0;
    while acked < 60_000 {
        bench.wait(ms(4));
        acked = bench.sender.snd_nxt().since(Bench::seq(0));
        bench.ack(acked);
    }
    assert!(bench.sender.sndbuf() >= 2 * 46_080, "{}: follows the window", bench.sender.sndbuf());
    assert!(bench.sender.is_writeable(&bench.options, &bench.world.cx()));
}

/// Room that is told is room that is there, also where SACK blocks make the super-segments smaller.
#[test]
fn no_room_is_told_where_nothing_is_taken() {
    let options = TcpOptions { sndbuf: Some(200_000), ..TcpOptions::default() };
    for options_len in [0, 12, 20, 28] {
        let mut bench = Bench::with(&config(), options.clone(), |_| {});
        let data = vec![0u8; 1_000_000];
        let write = |bench: &mut Bench| {
            bench.sender.push_slice(&data, Write::Plain, &options, options_len, &mut bench.world.cx())
        };
        while write(&mut bench) > 0 {}
        assert_eq!(bench.sender.free_space(options_len), 0, "{options_len} bytes of SACK");
    }
}

/// A bench whose application has written what no poll has asked for; the bytes that a write has sent on paper.
fn written_and_not_polled() -> (Bench, u32) {
    let mut bench = Bench::established(&config());
    let data = vec![0u8; 2_000_000];
    bench.sender.push_slice(&data, Write::Plain, &bench.options, 0, &mut bench.world.cx());
    let sent = bench.sender.snd_nxt().since(Bench::seq(0));
    assert!(sent > 0 && bench.sender.has_unsent(), "{sent}");
    (bench, sent)
}

#[test]
fn window_that_shuts_before_a_burst_is_over_is_probed() {
    let (mut bench, sent) = written_and_not_polled();
    assert_eq!(bench.ack_window(sent, 0, &[]), [], "all of it is acknowledged, and there is no window");
    assert!(bench.sender.deadline().is_armed(), "nobody would ask for the window again");
    bench.fire();
    assert_eq!(bench.sent.last().map(|sent| sent.kind), Some(PlanKind::WindowProbe));
}

#[test]
fn what_has_not_left_is_not_sent_again() {
    let (mut bench, sent) = written_and_not_polled();
    let at = bench.sender.deadline();
    bench.wait(at.saturating_since(bench.world.now) + ms(1));
    assert_eq!(bench.sent.iter().map(|sent| sent.len).sum::<u32>(), sent, "each byte once");
    assert!(bench.sent.iter().all(|sent| sent.kind == PlanKind::New), "{:?}", bench.sent);
    assert_eq!(bench.world.counters.tcp_timeouts, 0);
}

#[test]
fn what_has_not_left_and_is_too_large_for_the_path_now_leaves_smaller() {
    let (mut bench, sent) = written_and_not_polled();
    bench.sender.set_mss(500, &mut bench.world.cx());
    let plans = bench.poll();
    assert!(
        !plans.is_empty() && plans.iter().all(|plan| plan.len.min(plan.segment_size) <= 500),
        "{plans:?}"
    );
    let mut acked = 0;
    while acked < sent {
        bench.wait(ms(4));
        acked += 500;
        bench.ack(acked);
    }
    assert_eq!(bench.sender.snd_una(), Bench::seq(sent));
}

#[test]
fn a_window_reduction_is_told_though_the_segment_that_should_was_acknowledged_before_it_left() {
    let mut bench = Bench::established(&config());
    bench.write(1_000);
    bench.poll();
    let sack = SackBlocks::NONE;
    let view = AckView { ece: true, ..bench.view(1_000, 1_000_000, &sack) };
    bench.take(&view);
    bench.poll();
    let data = vec![0u8; 2_000_000];
    bench.sender.push_slice(&data, Write::Plain, &bench.options, 0, &mut bench.world.cx());
    let sent = bench.sender.snd_nxt().since(Bench::seq(0));
    assert!(sent > 1_000, "something was sent on paper");
    let plans = bench.ack(sent);
    assert_eq!(plans.iter().map(|plan| plan.cwr).take(2).collect::<Vec<_>>(), [true, false]);
}

/// A super-segment that is partly filled takes more bytes, but not another slice.
#[test]
fn slices_are_taken_until_the_buffer_is_full_and_no_longer() {
    let options = TcpOptions { sndbuf: Some(200_000), ..TcpOptions::default() };
    let mut bench = Bench::with(&config(), options, |_| {});
    let mut queued = 0;
    while !bench.sender.is_full() {
        bench.write(70_001);
        queued += 70_001;
        assert!(queued <= 200_000 + 70_001, "{queued} bytes");
    }
    assert!(bench.sender.free_space(0) > 0, "the last super-segment is not filled");
}

/// Segments held back for a larger one do not go out because the driver happens to look.
#[test]
fn what_is_deferred_waits_for_an_ack_a_write_or_the_timer() {
    let mut bench = Bench::established(&SenderConfig { gso_max_segs: 64, ..config() });
    bench.sender.cwnd.window.snd_ssthresh = 2; // no slow start: the window stays 10
    bench.write(40_000);
    bench.poll();
    bench.wait(ms(20));
    bench.ack(4_000);
    bench.poll();
    assert_eq!(bench.sender.snd_nxt(), Bench::seq(13_000), "three of four segments leave as one");
    bench.wait(ms(3));
    bench.poll();
    assert_eq!(bench.sender.snd_nxt(), Bench::seq(13_000));
    bench.ack(5_000);
    bench.poll();
    assert_eq!(bench.sender.snd_nxt(), Bench::seq(15_000));
}

/// What a write sent before it ended is acknowledged before it was asked for: it is not sent any more.
#[test]
fn what_leaves_on_paper_may_be_acknowledged_first() {
    let mut bench = Bench::established(&config());
    bench.sender.max_window = 4_000; // pieces of two segments
    bench.write(15_000);
    assert!(bench.sent.is_empty());
    let sent = bench.sender.snd_nxt().since(Bench::seq(0));
    assert!((2_000..15_000).contains(&sent), "{sent} bytes left while they were written");
    bench.ack(1_500);
    bench.poll();
    let first = bench.sent.first().expect("the rest of the second segment");
    assert_eq!((first.offset, first.len), (1_500, 500));
    let mut end = first.offset;
    for sent in &bench.sent {
        assert_eq!(sent.offset, end, "in order, without a hole");
        end += i64::from(sent.len);
    }
}

#[test]
fn a_set_send_buffer_stays() {
    let options = TcpOptions { sndbuf: Some(10_000), ..TcpOptions::default() };
    let bench = Bench::with(&config(), options, |_| {});
    assert_eq!(bench.sender.sndbuf(), 10_000);
}

#[test]
fn notsent_lowat_holds_writeability_not_sending() {
    let mut bench = Bench::established(&config());
    bench.options.notsent_lowat = Some(5_000);
    bench.write(14_999);
    bench.poll();
    assert!(bench.sender.is_writeable(&bench.options, &bench.world.cx()), "4,999 unsent");
    bench.write(1);
    assert!(!bench.sender.is_writeable(&bench.options, &bench.world.cx()));
}

#[test]
fn what_held_the_sender_up_is_timed() {
    let mut bench = Bench::established(&config());
    bench.ack_window(0, 2_000, &[]);
    bench.write(5_000);
    bench.poll();
    bench.wait(ms(3));
    bench.ack_window(2_000, 1_000_000, &[]);
    bench.wait(ms(5));
    bench.ack(5_000);
    bench.wait(ms(50));
    let mut info = crate::observe::TcpInfo::default();
    bench.sender.fill_info(bench.world.now, &mut info);
    assert_eq!((info.busy_time, info.rwnd_limited), (8_000, 3_000));
}
