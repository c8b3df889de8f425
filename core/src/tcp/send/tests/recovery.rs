//! Loss found and repaired, or found not to be one: SACK, RACK, TLP, F-RTO, undo, NewReno.

use super::harness::{Bench, Sent, config};
use crate::observe::CaState;
use crate::tcp::send::{PlanKind, SenderConfig};
use crate::time::Duration;
use crate::wire::segment::SackBlocks;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Ten segments of 1000 bytes left at 0, RTT 4 ms; it is 4 ms now.
fn ten_in_flight(config: &SenderConfig) -> Bench {
    let mut bench = Bench::established(config);
    bench.write(10_000);
    assert_eq!(bench.poll().len(), 10);
    bench.wait(ms(4));
    bench.sent.clear();
    bench
}

fn offsets(bench: &Bench) -> Vec<(i64, PlanKind)> {
    bench.sent.iter().map(|sent| (sent.offset, sent.kind)).collect()
}

fn state(bench: &Bench) -> CaState {
    bench.sender.recovery.ca_state
}

#[test]
fn three_sacks_start_recovery_at_once() {
    let mut bench = ten_in_flight(&config());
    bench.ack_sack(0, &[(1_000, 2_000)]);
    assert_eq!(state(&bench), CaState::Disorder, "one may be reordering: wait a quarter RTT");
    bench.ack_sack(0, &[(1_000, 3_000)]);
    bench.ack_sack(0, &[(1_000, 4_000)]);
    assert_eq!(offsets(&bench), [(0, PlanKind::Retransmit)]);
    assert_eq!(state(&bench), CaState::Recovery);
    assert_eq!(bench.sender.cwnd.window.snd_ssthresh, 7, "CUBIC: 10 * 717 / 1024");
    let counters = &bench.world.counters;
    assert_eq!((counters.tcp_sack_recovery, counters.tcp_fast_retrans), (1, 1));
}

#[test]
fn the_reorder_timer_waits_a_quarter_of_the_rtt_and_two_milliseconds() {
    let mut bench = ten_in_flight(&config());
    bench.ack_sack(0, &[(1_000, 2_000)]);
    bench.fire();
    let first = bench.sent[0];
    assert_eq!((first.at_us, first.offset), (4_000 + 1_000 + 2_000, 0));
    assert_eq!(state(&bench), CaState::Recovery);
}

#[test]
fn recovery_ends_at_ssthresh_when_high_seq_is_acknowledged() {
    let mut bench = ten_in_flight(&config());
    for end in [2_000, 3_000, 4_000] {
        bench.ack_sack(0, &[(1_000, end)]);
    }
    bench.wait(ms(4));
    bench.ack(10_000);
    assert_eq!(state(&bench), CaState::Open);
    assert_eq!(bench.cwnd(), 8, "ssthresh, and one for the seven segments of this ACK");
    assert!(!bench.sender.deadline().is_armed());
}

#[test]
fn a_lost_repeat_is_found_and_repeated_again() {
    let mut bench = ten_in_flight(&config());
    for end in [2_000, 3_000, 4_000] {
        bench.ack_sack(0, &[(1_000, end)]);
    }
    bench.write(3_000);
    bench.poll();
    for end in [5_000, 6_000, 7_000, 8_000, 9_000, 10_000] {
        bench.ack_sack(0, &[(1_000, end)]);
    }
    // New data sent after the repeat is SACKed a round trip later: the repeat is lost.
    bench.wait(ms(4));
    bench.sent.clear();
    bench.ack_sack(0, &[(1_000, 11_000)]);
    bench.wait(ms(3));
    bench.ack_sack(0, &[(1_000, 12_000)]);
    assert!(offsets(&bench).contains(&(0, PlanKind::Retransmit)), "{:?}", bench.sent);
    assert_eq!(bench.world.counters.tcp_lost_retransmit, 1);
}

#[test]
fn a_probe_repeats_the_last_segment_after_two_round_trips() {
    let mut bench = Bench::established(&config());
    bench.write(3_000);
    bench.poll();
    bench.fire();
    let probe = *bench.sent.last().unwrap();
    let expected = Sent {
        at_us: 2 * 4_000 + 2_000,
        offset: 2_000,
        len: 1_000,
        fin: false,
        psh: true,
        kind: PlanKind::LossProbe,
    };
    assert_eq!(probe, expected);
    // Both copies arrived: no reduction.
    bench.wait(ms(4));
    bench.ack_sack(3_000, &[(2_000, 3_000)]);
    assert_eq!((bench.cwnd(), state(&bench)), (10, CaState::Open));
    assert_eq!(bench.world.counters.tcp_loss_probe_recovery, 0);
}

#[test]
fn a_probe_that_repaired_a_loss_costs_a_reduction() {
    let mut bench = Bench::established(&config());
    bench.write(3_000);
    bench.poll();
    bench.fire();
    bench.write(1_000);
    bench.poll();
    bench.wait(ms(4));
    bench.ack(4_000);
    assert_eq!(bench.world.counters.tcp_loss_probe_recovery, 1);
    assert_eq!(bench.cwnd(), 7);
}

#[test]
fn a_probe_prefers_new_data_and_ignores_nagle() {
    let mut bench = Bench::established(&config());
    bench.write(10);
    bench.poll();
    bench.write(10);
    assert!(bench.poll().is_empty(), "Nagle holds the second small segment");
    bench.fire();
    let probe = *bench.sent.last().unwrap();
    assert_eq!((probe.offset, probe.len, probe.kind), (10, 10, PlanKind::New));
    assert_eq!(bench.world.counters.tcp_loss_probes, 1);
}

fn timed_out(config: &SenderConfig) -> Bench {
    let mut bench = Bench::established(config);
    bench.write(5_000);
    bench.poll();
    while bench.world.counters.tcp_timeouts == 0 {
        bench.fire();
    }
    bench
}

#[test]
fn a_timeout_repeats_the_head_alone() {
    let mut bench = timed_out(&SenderConfig { sack: false, ..config() });
    let last = *bench.sent.last().unwrap();
    assert_eq!((last.at_us, last.offset, last.len), (204_000, 0, 1_000));
    assert_eq!((state(&bench), bench.cwnd()), (CaState::Loss, 1));
    assert_eq!(bench.sender.counts.lost_out, 5);
    // Slow start from one segment: two for the next ACK.
    bench.wait(ms(4));
    bench.sent.clear();
    bench.ack(1_000);
    assert_eq!(offsets(&bench), [(1_000, PlanKind::Retransmit), (2_000, PlanKind::Retransmit)]);
    assert_eq!(bench.world.counters.tcp_slow_start_retrans, 2);
}

#[test]
fn frto_finds_a_spurious_timeout_by_new_data() {
    let mut bench = timed_out(&config());
    assert_eq!(bench.cwnd(), 1);
    bench.write(5_000);
    assert!(bench.poll().is_empty());
    bench.sent.clear();
    // The delayed original's ACK: two new segments go out instead of repeats.
    bench.ack(1_000);
    assert_eq!(offsets(&bench), [(5_000, PlanKind::New), (6_000, PlanKind::New)]);
    // The ACK of data never repeated proves that the time-out was spurious.
    bench.ack(2_000);
    assert_eq!(bench.world.counters.tcp_spurious_rtos, 1);
    assert_eq!(state(&bench), CaState::Open);
    assert!(bench.cwnd() >= 10, "{}", bench.cwnd());
    assert_eq!(bench.sender.counts.lost_out, 0);
}

#[test]
fn frto_repeats_when_the_loss_was_real() {
    let mut bench = timed_out(&config());
    bench.write(5_000);
    bench.poll();
    bench.ack(1_000);
    bench.sent.clear();
    bench.wait(ms(4));
    bench.ack_sack(1_000, &[(5_000, 6_000)]);
    assert_eq!(bench.world.counters.tcp_spurious_rtos, 0);
    assert!(offsets(&bench).contains(&(1_000, PlanKind::Retransmit)), "{:?}", bench.sent);
    assert_eq!(state(&bench), CaState::Loss);
}

#[test]
fn a_timestamp_older_than_the_repeat_undoes_the_timeout() {
    let mut bench = timed_out(&SenderConfig { sack: true, ..config() });
    let sent_ms = 1_000; // the original's timestamp: the bench starts at 1000 ms
    let none = SackBlocks::NONE;
    let mut view = bench.view(1_000, 1_000_000, &none);
    view.tsecr = Some(sent_ms);
    bench.take(&view);
    assert_eq!(bench.world.counters.tcp_loss_undo, 1);
    assert_eq!((state(&bench), bench.cwnd() >= 10), (CaState::Open, true));
}

#[test]
fn dsacks_for_every_repeat_undo_the_reduction() {
    let mut bench = ten_in_flight(&config());
    for end in [2_000, 3_000, 4_000] {
        bench.ack_sack(0, &[(1_000, end)]);
    }
    assert_eq!(bench.sender.cwnd.window.snd_ssthresh, 7);
    bench.wait(ms(2));
    bench.ack(10_000); // the original was only late
    bench.wait(ms(2));
    bench.ack_sack(10_000, &[(0, 1_000)]); // and so the repeat came twice
    let counters = &bench.world.counters;
    assert_eq!((counters.tcp_dsack_recv, counters.tcp_dsack_undo), (1, 1));
    assert!(bench.cwnd() >= 10, "{}", bench.cwnd());
}

#[test]
fn a_peer_that_takes_back_its_sack_is_timed_out_quickly_and_believed_no_more() {
    let mut bench = ten_in_flight(&config());
    for end in [2_000, 3_000, 4_000] {
        bench.ack_sack(0, &[(1_000, end)]);
    }
    bench.wait(ms(4));
    bench.sent.clear();
    bench.ack(1_000); // 1000..4000 was SACKed, yet is not acknowledged
    bench.fire();
    assert_eq!(bench.now_us(), 8_000 + 10_000, "10 ms after");
    assert_eq!(bench.world.counters.tcp_sack_reneging, 1);
    assert_eq!(bench.sender.counts.sacked_out, 0);
    assert_eq!(offsets(&bench), [(1_000, PlanKind::Retransmit)]);
}

#[test]
fn newreno_repeats_one_segment_a_round_trip_and_sends_new_data_for_duplicates() {
    let config = SenderConfig { sack: false, timestamps: false, ..config() };
    let mut bench = ten_in_flight(&config);
    bench.write(5_000);
    assert!(bench.poll().is_empty(), "the window is full");
    bench.ack(0);
    bench.ack(0);
    // RFC 3042: a new segment for each of the first two duplicates.
    assert_eq!(offsets(&bench), [(10_000, PlanKind::New), (11_000, PlanKind::New)]);
    bench.ack(0);
    assert_eq!(offsets(&bench)[2], (0, PlanKind::Retransmit));
    assert_eq!(state(&bench), CaState::Recovery);
    for _ in 0..5 {
        bench.ack(0); // eight of the ten arrived
    }
    bench.wait(ms(4));
    bench.sent.clear();
    bench.ack(3_000); // partial
    assert_eq!(offsets(&bench)[0], (3_000, PlanKind::Retransmit));
    assert_eq!(state(&bench), CaState::Recovery);
    bench.wait(ms(4));
    bench.ack(12_000);
    // RFC 6582: held until something above is acknowledged.
    assert_eq!(state(&bench), CaState::Recovery);
    assert_eq!(bench.world.counters.tcp_reno_recovery, 1);
    bench.wait(ms(4));
    bench.ack(bench.sender.snd_nxt().since(Bench::seq(0)));
    assert_eq!(state(&bench), CaState::Open);
}

#[test]
fn a_hole_that_fills_late_raises_the_reordering_degree() {
    let mut bench = ten_in_flight(&config());
    bench.ack_sack(0, &[(1_000, 3_000)]);
    bench.ack(3_000);
    assert_eq!(bench.world.counters.tcp_sack_reorder, 1);
    assert_eq!(bench.world.counters.retrans_segs, 0);
    assert_eq!(state(&bench), CaState::Open);
}

#[test]
fn small_segments_are_repeated_together() {
    let mut bench = Bench::established(&SenderConfig { sack: false, ..config() });
    bench.options.nodelay = true;
    for _ in 0..5 {
        bench.write(100);
        bench.poll();
    }
    assert_eq!(bench.sent.len(), 5);
    bench.fire();
    let last = *bench.sent.last().unwrap();
    assert_eq!((last.offset, last.len, last.psh), (0, 500, true));
    assert_eq!(bench.sender.counts.packets_out, 1);
}

#[test]
fn a_smaller_mss_sends_again_what_is_too_big_without_blaming_the_window() {
    let mut bench = ten_in_flight(&config());
    bench.sender.set_mss(500, &mut bench.world.cx());
    bench.poll();
    assert_eq!(state(&bench), CaState::Loss);
    assert!(bench.sent.iter().all(|sent| sent.len <= 500 && sent.kind == PlanKind::Retransmit));
    assert!(!bench.sent.is_empty());
    assert_eq!(bench.world.counters.tcp_timeouts, 0);
}

#[test]
fn a_sack_inside_a_super_segment_splits_it_at_segment_bounds() {
    let mut bench = Bench::established(&SenderConfig { gso_max_segs: 44, ..config() });
    bench.write(10_000);
    bench.poll();
    let records = bench.sent.len();
    assert!(records < 10, "super-segments");
    bench.wait(ms(4));
    bench.ack_sack(0, &[(2_500, 4_500)]); // whole segments only: 3000..4000
    assert_eq!(bench.sender.counts.sacked_out, 1);
    bench.ack_sack(0, &[(6_000, 7_000)]);
    bench.ack_sack(0, &[(2_000, 5_000)]);
    assert_eq!(bench.sender.counts.sacked_out, 4);
    bench.ack_sack(0, &[(2_000, 5_000)]);
    assert_eq!(bench.sender.counts.sacked_out, 4, "known already");
}

#[test]
fn sack_blocks_that_cannot_be_are_ignored() {
    let mut bench = ten_in_flight(&config());
    bench.ack_sack(0, &[(9_000, 12_000)]); // beyond snd_nxt
    bench.ack_sack(0, &[(3_000, 2_000)]); // reversed
    assert_eq!(bench.sender.counts.sacked_out, 0);
    assert_eq!(bench.world.counters.tcp_sack_discard, 2);
}

#[test]
fn an_echo_of_congestion_reduces_once_a_window() {
    let mut bench = ten_in_flight(&config());
    let none = SackBlocks::NONE;
    for ack in [1_000, 2_000] {
        let mut view = bench.view(ack, 1_000_000, &none);
        view.ece = true;
        bench.take(&view);
    }
    assert_eq!(state(&bench), CaState::Cwr);
    assert_eq!(bench.sender.cwnd.window.snd_ssthresh, 7);
    bench.write(20_000);
    let plans = bench.poll();
    assert!(plans[0].cwr && plans[1..].iter().all(|plan| !plan.cwr), "CWR on the first new segment");
}
