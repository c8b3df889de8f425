//! What a segment costs: `cargo test --release -p lastack-core --lib send::tests::speed -- --ignored --nocapture`.
//!
//! Prints; never passes or fails by time.
use bytes::Bytes;

use super::harness::{Bench, config};
use crate::tcp::send::SenderConfig;
use crate::tcp::seq::SeqRange;
use crate::time::Duration;
use crate::wire::segment::SackBlocks;

const MSS: u32 = 1448;
const WINDOW: u32 = u32::MAX >> 2;

/// Nanoseconds this thread has run (`/proc/thread-self/schedstat`): other work on the machine does not count.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).expect("a number")
}

/// Sends `total` bytes with a window of `cwnd` segments; the peer acknowledges each plan.
fn transfer(gso_max_segs: u16, cwnd: u32, total: u64) -> (f64, u64, u64) {
    let mut bench = bench(gso_max_segs, cwnd);
    let chunk = Bytes::from(vec![1u8; 65_536]);
    let none = SackBlocks::NONE;
    let mut out = Vec::with_capacity(64);
    let mut flight = Vec::new();
    let (mut plans, mut segments, mut acked) = (0u64, 0u64, 0u64);
    let start = cpu_ns();
    while acked < total {
        while bench.sender.unacked_payload() < u64::from(cwnd) * u64::from(MSS) + 65_536 {
            bench.sender.push(chunk.clone(), &mut bench.world.cx());
        }
        flight.clear();
        while let Some(plan) = bench.sender.poll_plan(&bench.options, 0, &mut bench.world.cx()) {
            out.clear();
            bench.sender.copy_payload(&plan, &mut out);
            plans += 1;
            segments += u64::from(plan.len.div_ceil(MSS));
            acked += u64::from(plan.len);
            flight.push(plan.seq + plan.len);
        }
        bench.world.now += Duration::from_micros(100);
        for end in &flight {
            let mut view = bench.view(0, WINDOW, &none);
            view.ack = *end;
            let _ = bench.sender.on_ack(&view, &bench.options, &mut bench.world.cx());
        }
    }
    ((cpu_ns() - start) as f64, plans, segments)
}

/// Of `cwnd` segments in flight one in `lost_of` is lost; every other one is SACKed by an ACK of its own.
/// Nanoseconds an ACK, what it lets out included.
fn recovery(cwnd: u32, lost_of: u32) -> f64 {
    let mut bench = bench(1, cwnd);
    bench.sender.push(Bytes::from(vec![1u8; (cwnd * MSS) as usize]), &mut bench.world.cx());
    while bench.sender.poll_plan(&bench.options, 0, &mut bench.world.cx()).is_some() {}
    bench.world.now += Duration::from_micros(100);
    let mut islands = std::collections::VecDeque::<SeqRange>::new();
    let mut acks = 0;
    let start = cpu_ns();
    for n in 0..cwnd {
        if n.is_multiple_of(lost_of) {
            continue;
        }
        let block = SeqRange::new(Bench::seq(n * MSS), Bench::seq((n + 1) * MSS));
        match islands.front_mut() {
            Some(island) if island.end == block.start => island.end = block.end,
            _ => islands.push_front(block),
        }
        islands.truncate(3);
        let mut sack = SackBlocks::NONE;
        for island in &islands {
            sack.push(*island);
        }
        let view = bench.view(0, WINDOW, &sack);
        let _ = bench.sender.on_ack(&view, &bench.options, &mut bench.world.cx());
        while bench.sender.poll_plan(&bench.options, 0, &mut bench.world.cx()).is_some() {}
        acks += 1;
    }
    (cpu_ns() - start) as f64 / f64::from(acks)
}

fn bench(gso_max_segs: u16, cwnd: u32) -> Bench {
    let config =
        SenderConfig { mss: MSS, gso_max_segs, handshake_rtt: Some(Duration::from_micros(100)), ..config() };
    let mut bench = Bench::established(&config);
    bench.sender.sndbuf = u32::MAX;
    bench.sender.sndbuf_locked = true;
    bench.sender.cwnd.window.snd_cwnd = cwnd;
    bench.sender.cwnd.window.snd_ssthresh = cwnd;
    bench.sender.snd_wnd = WINDOW;
    bench
}

#[test]
#[ignore = "prints timings"]
fn nanoseconds_a_segment() {
    for (name, gso, cwnd, total) in [
        ("super-segments, window 100", 45, 100, 20_000_000_000),
        ("super-segments, window 2000", 45, 2_000, 20_000_000_000),
        ("single segments, window 100", 1, 100, 3_000_000_000),
        ("single segments, window 2000", 1, 2_000, 3_000_000_000),
    ] {
        let (ns, plans, segments) = transfer(gso, cwnd, total);
        println!("{name}: {:.1} ns a segment, {:.1} ns a plan", ns / segments as f64, ns / plans as f64);
    }
    for cwnd in [10_000, 100_000] {
        for lost_of in [u32::MAX, 50, 2] {
            println!("SACK, window {cwnd}, one in {lost_of} lost: {:.1} ns an ACK", recovery(cwnd, lost_of));
        }
    }
}
