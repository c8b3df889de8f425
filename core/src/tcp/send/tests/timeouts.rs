//! RTO, give-up, persist: the vectors of specification 13.2 and 13.3, exact under virtual time.

use super::harness::{Bench, config};
use crate::error::SocketError;
use crate::tcp::options::TcpOptions;
use crate::tcp::send::{PlanKind, SenderConfig, TimerVerdict};
use crate::time::Duration;

/// RTO of the bench: srtt 4 ms + 200 ms.
const R: u64 = 204_000;

fn silent_fin(orphan_retries: u8) -> Bench {
    let mut bench = Bench::with(&config(), TcpOptions::default(), |world| {
        world.sysctl.tcp_orphan_retries = orphan_retries;
    });
    bench.orphan = true;
    bench.close();
    bench.poll();
    bench.run_to_the_end(50);
    bench
}

#[test]
fn fin_to_a_silent_peer_is_probed_then_repeated_with_backoff() {
    let bench = silent_fin(0);
    // TLP at 2*srtt + 200 ms but not after the RTO; then RTO firings at r*2^k.
    let mut expected = vec![0, R];
    expected.extend((1..=8).map(|k| R << k));
    assert_eq!(bench.times(), expected);
    assert!(bench.sent.iter().all(|sent| sent.fin && sent.len == 0));
    assert_eq!(bench.sent[1].kind, PlanKind::LossProbe);
    assert_eq!(bench.died, Some((R << 9, TimerVerdict::GiveUp(SocketError::TimedOut))));
    let counters = &bench.world.counters;
    assert_eq!((counters.tcp_timeouts, counters.tcp_loss_probes, counters.tcp_abort_on_timeout), (9, 1, 1));
}

#[test]
fn death_of_a_silent_orphan_by_orphan_retries() {
    for (n, k) in [(1, 3), (2, 4), (3, 5), (5, 6), (8, 9)] {
        let bench = silent_fin(n);
        assert_eq!(bench.died.map(|(at, _)| at), Some(R << k), "tcp_orphan_retries = {n}");
    }
}

#[test]
fn owned_data_dies_after_retries2() {
    let mut bench = Bench::established(&config());
    bench.write(100);
    bench.poll();
    bench.run_to_the_end(50);
    // 0.204 * 2^10 = 208.9 s, then six times 120 s.
    assert_eq!(bench.died.map(|(at, _)| at), Some((R << 10) + 6 * 120_000_000));
}

#[test]
fn without_sack_there_is_no_probe() {
    let mut bench = Bench::established(&SenderConfig { sack: false, ..config() });
    bench.orphan = true;
    bench.close();
    bench.poll();
    bench.run_to_the_end(50);
    let expected: Vec<u64> = (0..=8).map(|k| R * ((1 << k) - 1)).collect();
    assert_eq!(bench.times(), expected);
    assert_eq!(bench.died.map(|(at, _)| at), Some(R * 511));
}

fn zero_window(orphan: bool, answers: bool, tune: impl FnOnce(&mut Bench)) -> Bench {
    let mut bench = Bench::established(&config());
    bench.ack_window(0, 0, &[]);
    bench.write(5_000);
    bench.orphan = orphan;
    tune(&mut bench);
    bench.poll();
    for _ in 0..60 {
        if bench.died.is_some() {
            break;
        }
        bench.fire();
        if answers && bench.died.is_none() {
            bench.ack_window(0, 0, &[]);
        }
    }
    bench
}

#[test]
fn window_probes_back_off_and_are_one_below_the_window() {
    let bench = zero_window(true, false, |_| {});
    let expected: Vec<u64> = (0..8).map(|k| R * ((2 << k) - 1)).collect();
    assert_eq!(bench.times(), expected);
    assert!(bench.sent.iter().all(|s| s.kind == PlanKind::WindowProbe && s.len == 0 && s.offset == -1));
    assert_eq!(bench.died.map(|(at, _)| at), Some(R * 511), "silent orphan: 104 s");
    assert_eq!(bench.world.counters.tcp_win_probe, 8);
}

#[test]
fn an_orphan_whose_peer_answers_dies_when_the_backoff_reaches_rto_max() {
    let bench = zero_window(true, true, |_| {});
    assert_eq!(bench.died.map(|(at, _)| at), Some(R * 1023 + 120_000_000));
}

#[test]
fn an_owned_connection_whose_peer_answers_lives_on() {
    let bench = zero_window(false, true, |_| {});
    assert_eq!(bench.died, None);
    let last = bench.sent.len();
    assert_eq!(bench.sent[last - 1].at_us - bench.sent[last - 2].at_us, 120_000_000);
}

#[test]
fn an_owned_connection_whose_peer_is_silent_dies_after_retries2_probes() {
    let bench = zero_window(false, false, |bench| bench.world.sysctl.tcp_retries2 = 4);
    assert_eq!(bench.died.map(|(at, _)| at), Some(R * 31));
}

#[test]
fn user_timeout_bounds_a_zero_window_from_the_first_probe() {
    let bench = zero_window(false, true, |bench| bench.options.user_timeout = Duration::from_secs(3));
    assert_eq!(bench.died.map(|(at, _)| at), Some(R + 3_000_000));
}

#[test]
fn user_timeout_bounds_unacknowledged_data_from_the_first_repeat() {
    let mut bench = Bench::established(&config());
    bench.options.user_timeout = Duration::from_secs(3);
    bench.write(100);
    bench.poll();
    bench.run_to_the_end(50);
    assert_eq!(bench.died.map(|(at, _)| at), Some(2 * R + 3_000_000), "TLP, RTO, then 3 s");
}

#[test]
fn a_window_smaller_than_the_head_is_filled_by_the_probe_timer() {
    let mut bench = Bench::established(&config());
    bench.ack_window(0, 10, &[]);
    bench.write(100);
    assert!(bench.poll().is_empty());
    bench.fire();
    let sent = bench.sent[0];
    assert_eq!((sent.at_us, sent.offset, sent.len, sent.psh), (R, 0, 10, true));
    assert_eq!(bench.sender.packets_out(), 1);
}

#[test]
fn a_cork_holds_two_hundred_milliseconds_and_no_more() {
    let mut bench = Bench::established(&config());
    bench.options.cork = true;
    bench.write(1);
    assert!(bench.poll().is_empty());
    bench.fire();
    assert_eq!((bench.sent[0].at_us, bench.sent[0].len), (R, 1));
}

#[test]
fn rto_is_doubled_and_an_ack_brings_it_back() {
    let mut bench = Bench::established(&SenderConfig { sack: false, ..config() });
    bench.write(100);
    bench.poll();
    bench.fire();
    bench.fire();
    assert_eq!(bench.sender.rto(), Duration::from_micros(4 * R));
    bench.ack(100);
    assert!(!bench.sender.deadline().is_armed());
    // Karn: no sample from a repeat, so the backoff stays until there is one.
    assert_eq!(bench.sender.rto(), Duration::from_micros(4 * R));
    bench.write(100);
    bench.poll();
    bench.wait(Duration::from_millis(4));
    bench.ack(200);
    assert_eq!(bench.sender.rto(), Duration::from_micros(R));
}

#[test]
fn icmp_unreachable_reverts_one_backoff_step() {
    let mut bench = Bench::established(&SenderConfig { sack: false, ..config() });
    bench.write(100);
    bench.poll();
    bench.fire();
    assert_eq!(bench.sender.rto(), Duration::from_micros(2 * R));
    let una = bench.sender.snd_una();
    bench.sender.revert_backoff(una, &mut bench.world.cx());
    assert_eq!(bench.sender.rto(), Duration::from_micros(R));
    assert_eq!(bench.sender.deadline(), bench.world.now + Duration::from_micros(R));
}
