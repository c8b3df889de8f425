//! A path that loses, delays and reorders, and a receiver of few lines: whatever it does, every byte must arrive.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::harness::{Bench, ISS, START, config};
use crate::observe::CaState;
use crate::tcp::options::{CongestionKind, TcpOptions};
use crate::tcp::send::{AckVerdict, PlanKind, SendPlan, SenderConfig};
use crate::tcp::seq::SeqRange;
use crate::time::{Duration, Instant};
use crate::wire::segment::SackBlocks;

/// xorshift64*: enough to shuffle a test.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) seed: u64,
    pub(super) loss: u64,
    pub(super) ack_loss: u64,
    pub(super) reorder: u64,
    pub(super) duplicate: u64,
    pub(super) one_way: Duration,
    /// Packets a second the bottleneck passes, and how many it queues.
    pub(super) rate: u64,
    pub(super) queue: u64,
    pub(super) sack: bool,
    pub(super) timestamps: bool,
    pub(super) gso: u16,
    pub(super) window: u32,
    pub(super) congestion: CongestionKind,
    pub(super) bytes: usize,
    /// The receiver now and then forgets what it SACKed.
    pub(super) renege: u64,
}

pub(super) const PLAIN: Path = Path {
    seed: 1,
    loss: 0,
    ack_loss: 0,
    reorder: 0,
    duplicate: 0,
    one_way: Duration::from_millis(10),
    rate: 10_000,
    queue: 10_000,
    sack: true,
    timestamps: true,
    gso: 1,
    window: 1_000_000,
    congestion: CongestionKind::Cubic,
    bytes: 400_000,
    renege: 0,
};

/// What the path carries, by time and a running number.
#[derive(Debug)]
enum Packet {
    Data { start: u32, bytes: Vec<u8>, fin: bool, ts: u32 },
    Ack { ack: u32, blocks: Vec<(u32, u32)>, tsecr: u32 },
}

#[derive(Debug, Default)]
struct Receiver {
    /// Payload (and FIN) up to here is in order.
    next: u32,
    received: Vec<u8>,
    /// Out of order: start to bytes and FIN.
    later: BTreeMap<u32, (Vec<u8>, bool)>,
    /// Blocks by recency.
    recent: Vec<(u32, u32)>,
    fin: bool,
    tsrecent: u32,
}

impl Receiver {
    fn take(&mut self, start: u32, bytes: &[u8], fin: bool, ts: u32) -> Option<(u32, u32)> {
        let end = start + bytes.len() as u32 + u32::from(fin);
        if start <= self.next && end > start {
            self.tsrecent = ts;
        }
        if end <= self.next {
            return (end > start).then_some((start, end)); // DSACK
        }
        if start > self.next {
            self.later.entry(start).or_insert_with(|| (bytes.to_vec(), fin));
            let (mut low, mut high) = (start, end);
            for (s, (b, f)) in &self.later {
                let e = s + b.len() as u32 + u32::from(*f);
                if *s <= high && e >= low {
                    low = low.min(*s);
                    high = high.max(e);
                }
            }
            self.recent.retain(|(s, e)| *e < low || *s > high);
            self.recent.insert(0, (low, high));
            return None;
        }
        self.accept(start, bytes, fin);
        while let Some((s, (b, f))) = self.later.pop_first() {
            if s > self.next {
                self.later.insert(s, (b, f));
                break;
            }
            self.accept(s, &b, f);
        }
        let next = self.next;
        self.recent.retain(|(_, e)| *e > next);
        None
    }

    fn accept(&mut self, start: u32, bytes: &[u8], fin: bool) {
        let skip = (self.next - start) as usize;
        if skip <= bytes.len() {
            self.received.extend_from_slice(&bytes[skip..]);
            self.next += (bytes.len() - skip) as u32;
            if fin && !self.fin {
                self.fin = true;
                self.next += 1;
            }
        }
    }
}

/// A transfer over a path.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) bench: Bench,
    path: Path,
    dice: Dice,
    receiver: Receiver,
    wire: BTreeMap<(u64, u64), Packet>,
    number: u64,
    bottleneck_free_at: u64,
    pub(super) max_cwnd: u32,
    pub(super) states: Vec<CaState>,
    data: Vec<u8>,
}

impl Transfer {
    pub(super) fn new(path: Path) -> Self {
        let config = SenderConfig {
            sack: path.sack,
            timestamps: path.timestamps,
            gso_max_segs: path.gso,
            handshake_rtt: Some(2 * path.one_way),
            ..config()
        };
        let options = TcpOptions { congestion: Some(path.congestion), ..TcpOptions::default() };
        // Without SACK and timestamps, Karn's rule keeps the RTO at its maximum through an hour of losses, and
        // Linux then gives up although there is progress. Here everything has to arrive.
        let bench = Bench::with(&config, options, |world| world.sysctl.tcp_retries2 = 255);
        let mut dice = Dice::new(path.seed);
        let data = (0..path.bytes).map(|_| dice.below(256) as u8).collect();
        Self {
            bench,
            path,
            dice,
            receiver: Receiver::default(),
            wire: BTreeMap::new(),
            number: 0,
            bottleneck_free_at: 0,
            max_cwnd: 0,
            states: Vec::new(),
            data,
        }
    }

    fn now(&self) -> u64 {
        self.bench.world.now.as_nanos()
    }

    fn carry(&mut self, packet: Packet, lossy: u64) {
        if self.dice.percent(lossy) {
            return;
        }
        let mut at = self.now() + self.path.one_way.as_nanos() as u64;
        if matches!(packet, Packet::Data { .. }) {
            let service = 1_000_000_000 / self.path.rate;
            let start = self.bottleneck_free_at.max(self.now());
            if (start - self.now()) / service > self.path.queue {
                return;
            }
            self.bottleneck_free_at = start + service;
            at = self.bottleneck_free_at + self.path.one_way.as_nanos() as u64;
        }
        if self.dice.percent(self.path.reorder) {
            at += self.dice.below(self.path.one_way.as_nanos() as u64);
        }
        self.number += 1;
        self.wire.insert((at, self.number), packet);
    }

    fn transmit(&mut self, plan: &SendPlan) {
        if plan.kind == PlanKind::WindowProbe {
            self.answer(None);
            return;
        }
        let mut slices: Vec<Bytes> = Vec::new();
        self.bench.sender.copy_payload(plan, &mut slices);
        let payload = slices.concat();
        let start = plan.seq.since(ISS + 1);
        assert_eq!(
            payload,
            &self.data[start as usize..start as usize + payload.len()],
            "seed {}",
            self.path.seed
        );
        let ts = self.bench.world.now.as_millis() as u32;
        let size = plan.segment_size as usize;
        let pieces = payload.len().div_ceil(size).max(1);
        assert!(pieces <= usize::from(self.path.gso), "no larger than the device takes");
        for piece in 0..pieces {
            let bytes = payload[piece * size..payload.len().min((piece + 1) * size)].to_vec();
            let fin = plan.fin && piece == pieces - 1;
            let start = start + (piece * size) as u32;
            if self.dice.percent(self.path.duplicate) {
                self.carry(Packet::Data { start, bytes: bytes.clone(), fin, ts }, 0);
            }
            self.carry(Packet::Data { start, bytes, fin, ts }, self.path.loss);
        }
    }

    fn answer(&mut self, dsack: Option<(u32, u32)>) {
        let mut blocks: Vec<_> = dsack.into_iter().collect();
        blocks.extend(self.receiver.recent.iter().copied());
        blocks.truncate(3);
        let (ack, tsecr) = (self.receiver.next, self.receiver.tsrecent);
        self.carry(Packet::Ack { ack, blocks, tsecr }, self.path.ack_loss);
    }

    fn deliver(&mut self, packet: Packet) {
        match packet {
            Packet::Data { start, bytes, fin, ts } => {
                if self.dice.percent(self.path.renege) {
                    self.receiver.later.clear();
                    self.receiver.recent.clear();
                }
                let dsack = self.receiver.take(start, &bytes, fin, ts);
                self.answer(dsack);
            }
            Packet::Ack { ack, blocks, tsecr } => {
                let mut sack = SackBlocks::NONE;
                if self.path.sack {
                    for (start, end) in blocks {
                        sack.push(SeqRange::new(Bench::seq(start), Bench::seq(end)));
                    }
                }
                let mut view = self.bench.view(ack, self.path.window, &sack);
                view.tsecr = self.path.timestamps.then_some(tsecr);
                let verdict = self.bench.take(&view);
                assert!(
                    matches!(verdict, AckVerdict::Taken(_) | AckVerdict::TooOld),
                    "seed {}: {verdict:?}",
                    self.path.seed
                );
                self.poll();
            }
        }
    }

    pub(super) fn poll(&mut self) {
        for plan in self.bench.poll() {
            self.transmit(&plan);
        }
        self.max_cwnd = self.max_cwnd.max(self.bench.cwnd());
        let state = self.bench.sender.recovery.ca_state;
        if self.states.last() != Some(&state) {
            self.states.push(state);
        }
    }

    /// Pushes as the buffer allows, then closes; returns the seconds it took.
    pub(super) fn run(&mut self) -> f64 {
        let mut pushed = 0;
        for step in 0.. {
            assert!(step < 3_000_000, "seed {}: no end: {:?}", self.path.seed, self.bench.sender);
            while pushed < self.data.len() && self.bench.sender.free_space(0) > 0 {
                let size = [7, 900, 5_000, 40_000][self.dice.below(4) as usize];
                let size = size.min(self.bench.sender.free_space(0)).min(self.data.len() - pushed);
                let piece = Bytes::copy_from_slice(&self.data[pushed..pushed + size]);
                self.bench.sender.push(piece, 0, &mut self.bench.world.cx());
                pushed += size;
                self.poll();
            }
            if pushed < self.data.len() {
                self.bench.sender.on_no_space();
            } else if !self.bench.sender.fin_queued() {
                self.bench.close();
                self.poll();
            }
            if self.receiver.fin && self.bench.sender.snd_una() == self.bench.sender.write_seq {
                break;
            }
            let deadline = self.bench.sender.deadline();
            let arrival = self.wire.first_key_value().map(|((at, _), _)| Instant::from_nanos(*at));
            match arrival {
                Some(at) if at <= deadline => {
                    self.bench.world.now = self.bench.world.now.max(at);
                    let (_, packet) = self.wire.pop_first().expect("looked at");
                    self.deliver(packet);
                }
                _ => {
                    assert!(deadline.is_armed(), "seed {}: nothing will ever happen", self.path.seed);
                    let before = self.bench.sent.len();
                    self.bench.fire();
                    assert_eq!(self.bench.died, None, "seed {}", self.path.seed);
                    let sent: Vec<_> = self.bench.sent[before..].to_vec();
                    for sent in sent {
                        self.transmit(&SendPlan {
                            seq: ISS + 1 + sent.offset as u32,
                            len: sent.len,
                            syn: false,
                            fin: sent.fin,
                            psh: sent.psh,
                            cwr: false,
                            segment_size: 1000,
                            kind: sent.kind,
                        });
                    }
                }
            }
        }
        assert_eq!(self.receiver.received, self.data, "seed {}", self.path.seed);
        assert!(
            !self.bench.sender.deadline().is_armed(),
            "seed {}: nothing left to wait for",
            self.path.seed
        );
        assert_eq!(self.bench.sender.unacked_payload(), 0);
        self.bench.world.now.saturating_since(START).as_secs_f64()
    }
}

fn transfer(path: Path) -> Transfer {
    let mut transfer = Transfer::new(path);
    transfer.run();
    transfer
}

#[test]
fn a_clean_path_needs_no_repeat_and_stays_open() {
    for gso in [1, 44] {
        let t = transfer(Path { gso, ..PLAIN });
        assert_eq!(t.bench.world.counters.retrans_segs, 0, "gso {gso}");
        assert_eq!(t.states, [CaState::Open]);
        assert_eq!(t.bench.world.counters.tcp_delivered, t.bench.world.counters.tcp_orig_data_sent);
    }
}

#[test]
fn losses_are_repaired_by_recovery_not_by_timeouts() {
    let mut t = Transfer::new(Path { loss: 1, bytes: 2_000_000, gso: 44, ..PLAIN });
    let seconds = t.run();
    let counters = &t.bench.world.counters;
    assert!(counters.tcp_sack_recovery > 0 && counters.tcp_fast_retrans > 0);
    assert!(counters.retrans_segs < 60, "{} repeats of about 20 losses", counters.retrans_segs);
    assert!(counters.tcp_timeouts <= 1, "{} time-outs", counters.tcp_timeouts);
    assert!(seconds < 6.0, "{seconds} s");
}

#[test]
fn a_full_queue_makes_a_sawtooth() {
    for congestion in [CongestionKind::Cubic, CongestionKind::Reno] {
        // 2,000 packets a second, 20 ms: 40 packets in flight fill the pipe; 40 more fit the queue.
        let path = Path { rate: 2_000, queue: 40, bytes: 12_000_000, congestion, gso: 44, ..PLAIN };
        let mut t = Transfer::new(path);
        let seconds = t.run();
        let ideal = 12_000.0 / 2_000.0;
        assert!(seconds < ideal * 1.15, "{congestion:?}: {seconds} s of {ideal}");
        assert!(t.states.contains(&CaState::Recovery), "{congestion:?}");
        assert!(!t.states.contains(&CaState::Loss), "{congestion:?}: {:?}", t.bench.world.counters);
        assert!((60..400).contains(&t.max_cwnd), "{congestion:?}: cwnd {}", t.max_cwnd);
    }
}

#[test]
fn reordering_is_learnt() {
    let t = transfer(Path { reorder: 30, bytes: 3_000_000, ..PLAIN });
    let counters = &t.bench.world.counters;
    assert!(counters.tcp_sack_reorder + counters.tcp_ts_reorder > 0);
    assert!(t.bench.sender.recovery.reordering > 3);
    assert!(counters.retrans_segs < 300, "{} of 3,000", counters.retrans_segs);
}

#[test]
fn newreno_gets_through_without_sack() {
    for timestamps in [false, true] {
        let path = Path { sack: false, timestamps, loss: 1, bytes: 1_000_000, ..PLAIN };
        let t = transfer(path);
        assert!(t.bench.world.counters.tcp_reno_recovery > 0);
        assert_eq!(t.bench.world.counters.tcp_loss_probes, 0);
    }
}

/// Every combination of trouble, many seeds.
#[test]
fn every_byte_arrives_whatever_the_path_does() {
    for seed in 0..600u64 {
        let mut dice = Dice::new(seed + 1000);
        let path = Path {
            seed,
            loss: [0, 1, 5, 15, 30][dice.below(5) as usize],
            ack_loss: [0, 1, 30][dice.below(3) as usize],
            reorder: [0, 2, 50][dice.below(3) as usize],
            duplicate: [0, 3][dice.below(2) as usize],
            one_way: Duration::from_micros([50, 3_000, 80_000][dice.below(3) as usize]),
            rate: [500, 20_000][dice.below(2) as usize],
            queue: [5, 60, 10_000][dice.below(3) as usize],
            sack: dice.below(4) != 0,
            timestamps: dice.below(2) == 0,
            gso: [1, 7, 44][dice.below(3) as usize],
            window: [900, 5_000, 40_000, 1_000_000][dice.below(4) as usize],
            congestion: [CongestionKind::Cubic, CongestionKind::Reno][dice.below(2) as usize],
            bytes: 1 + dice.below(120_000) as usize,
            renege: [0, 0, 5][dice.below(3) as usize],
        };
        transfer(path);
    }
}

#[test]
fn the_same_seed_gives_the_same_wire() {
    let path = Path { loss: 5, reorder: 20, duplicate: 3, gso: 44, ..PLAIN };
    assert_eq!(transfer(path).bench.sent, transfer(path).bench.sent);
}
