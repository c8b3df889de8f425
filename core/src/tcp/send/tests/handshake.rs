//! SYN: repetition, giving up, and what the handshake leaves behind (specification 3.5, 13.6).

use super::harness::{Bench, ISS, config};
use crate::error::SocketError;
use crate::tcp::send::{AckVerdict, TimerVerdict};
use crate::time::Duration;
use crate::wire::segment::SackBlocks;

fn syn_times(retries: u8, linear: u8) -> (Vec<u64>, u64) {
    let mut bench = Bench::connecting(|world| {
        world.sysctl.tcp_syn_retries = retries;
        world.sysctl.tcp_syn_linear_timeouts = linear;
    });
    bench.poll();
    bench.run_to_the_end(50);
    let (died, verdict) = bench.died.expect("nobody answers");
    assert_eq!(verdict, TimerVerdict::GiveUp(SocketError::TimedOut));
    let seconds = bench.times().iter().map(|us| us / 1_000_000).collect();
    assert!(bench.times().iter().all(|us| us % 1_000_000 == 0));
    assert_eq!(bench.world.counters.tcp_syn_retrans, bench.sent.len() as u64 - 1);
    assert_eq!(bench.world.counters.retrans_segs, bench.sent.len() as u64 - 1);
    assert_eq!(bench.world.counters.out_segs, 1);
    assert_eq!(bench.world.counters.tcp_timeouts, bench.sent.len() as u64);
    (seconds, died / 1_000_000)
}

#[test]
fn syn_is_repeated_linearly_then_exponentially() {
    assert_eq!(syn_times(6, 4), (vec![0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67], 131));
    assert_eq!(syn_times(6, 0), (vec![0, 1, 3, 7, 15, 31, 63], 127));
}

#[test]
fn syn_with_few_retries_dies_by_elapsed_time() {
    assert_eq!(syn_times(1, 4), (vec![0, 1, 2], 3));
    assert_eq!(syn_times(2, 4), (vec![0, 1, 2, 3, 4, 5], 7));
    assert_eq!(syn_times(3, 0), (vec![0, 1, 3, 7], 15));
}

#[test]
fn an_answered_syn_gives_the_first_sample_and_ten_segments() {
    let mut bench = Bench::connecting(|_| {});
    assert_eq!(bench.poll().len(), 1, "only the SYN");
    bench.write(50_000);
    bench.wait(Duration::from_millis(40));
    let sack = SackBlocks::NONE;
    let view = bench.view(0, 60_000, &sack);
    let AckVerdict::Taken(acked) = bench.take(&view) else { panic!("the SYN is acknowledged") };
    assert!(acked.syn && acked.advanced && acked.bytes == 0);
    let config = crate::tcp::send::SenderConfig { handshake_rtt: None, ..config() };
    bench.sender.finish_connect(60_000, &config, &mut bench.world.cx());
    assert_eq!(bench.sender.srtt(), Some(Duration::from_millis(40)));
    let plans = bench.poll();
    assert_eq!(plans.len(), 10);
    assert_eq!(plans[0].seq, ISS + 1);
}

#[test]
fn a_repeated_syn_leaves_a_window_of_one_and_three_seconds() {
    let mut bench = Bench::connecting(|_| {});
    bench.poll();
    bench.wait(Duration::from_millis(3_500));
    let sack = SackBlocks::NONE;
    let view = bench.view(0, 60_000, &sack);
    bench.take(&view);
    let config = crate::tcp::send::SenderConfig { handshake_rtt: None, ..config() };
    bench.sender.finish_connect(60_000, &config, &mut bench.world.cx());
    assert_eq!(bench.cwnd(), 1);
    assert_eq!(bench.sender.rto(), Duration::from_secs(3));
    assert!(!bench.sender.deadline().is_armed());
}
