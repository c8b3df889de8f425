//! A sender on a bench: a clock, an application, and a log of what it put on the wire.

use bytes::Bytes;

use crate::tcp::context::testing::TestCx;
use crate::tcp::options::TcpOptions;
use crate::tcp::send::segments::Marks;
use crate::tcp::send::{
    AckVerdict, AckView, PlanKind, SendPlan, Sender, SenderConfig, TimerEnv, TimerVerdict,
};
use crate::tcp::seq::{SeqNum, SeqRange};
use crate::tcp::state::TcpState;
use crate::time::{Duration, Instant};
use crate::wire::segment::SackBlocks;

/// First sequence number of the SYN; the first payload byte is one later.
pub(super) const ISS: SeqNum = SeqNum(u32::MAX - 5_000);

/// One plan and when it left, microseconds since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sent {
    pub(super) at_us: u64,
    /// First payload byte, counted from 0.
    pub(super) offset: i64,
    pub(super) len: u32,
    pub(super) fin: bool,
    pub(super) psh: bool,
    pub(super) kind: PlanKind,
}

/// The bench.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) sender: Sender,
    pub(super) options: TcpOptions,
    pub(super) world: TestCx,
    pub(super) state: TcpState,
    pub(super) orphan: bool,
    pub(super) last_received: Instant,
    pub(super) sent: Vec<Sent>,
    /// The peer's sequence number: grows when it takes window back, as Linux asks.
    peer_seq: SeqNum,
    /// How the connection ended, and when.
    pub(super) died: Option<(u64, TimerVerdict)>,
}

pub(super) const START: Instant = Instant::from_millis(1_000);

pub(super) fn config() -> SenderConfig {
    SenderConfig {
        way: None,
        mss: 1000,
        net_header_len: 20,
        sack: true,
        timestamps: true,
        gso_max_segs: 1,
        handshake_rtt: Some(Duration::from_micros(4_000)),
        syn_ack_repeats: None,
    }
}

impl Bench {
    /// Established, RTT 4 ms, segments of 1000 bytes, window 1 MB.
    pub(super) fn established(config: &SenderConfig) -> Self {
        Self::with(config, TcpOptions::default(), |_| {})
    }

    pub(super) fn with(config: &SenderConfig, options: TcpOptions, tune: impl FnOnce(&mut TestCx)) -> Self {
        let mut world = TestCx::at(START);
        tune(&mut world);
        let sender = Sender::established(ISS, 1_000_000, config, &options, &world.cx());
        let mut bench = Self {
            sender,
            options,
            world,
            state: TcpState::Established,
            orphan: false,
            last_received: START,
            sent: Vec::new(),
            peer_seq: SeqNum(1),
            died: None,
        };
        bench.ack(0); // the segment that completed the handshake
        bench
    }

    /// SYN-SENT, the SYN owed.
    pub(super) fn connecting(tune: impl FnOnce(&mut TestCx)) -> Self {
        let mut world = TestCx::at(START);
        tune(&mut world);
        let options = TcpOptions::default();
        let sender = Sender::new(ISS, &options, &world.cx());
        Self {
            sender,
            options,
            world,
            state: TcpState::SynSent,
            orphan: false,
            last_received: START,
            sent: Vec::new(),
            peer_seq: SeqNum(1),
            died: None,
        }
    }

    pub(super) fn now_us(&self) -> u64 {
        self.world.now.saturating_since(START).as_micros() as u64
    }

    /// Sequence number of payload byte `offset`.
    pub(super) fn seq(offset: u32) -> SeqNum {
        ISS + 1 + offset
    }

    pub(super) fn write(&mut self, len: usize) {
        self.sender.push(Bytes::from(vec![0x5a; len]), 0, &mut self.world.cx());
    }

    pub(super) fn close(&mut self) {
        self.sender.queue_fin(&mut self.world.cx());
        self.state = TcpState::FinWait1;
    }

    /// Takes every plan there is.
    pub(super) fn poll(&mut self) -> Vec<SendPlan> {
        let mut plans = Vec::new();
        while let Some(plan) = self.sender.poll_plan(&self.options, 0, &mut self.world.cx()) {
            let mut payload = Vec::new();
            self.sender.copy_payload(&plan, &mut payload);
            assert_eq!(payload.iter().map(Bytes::len).sum::<usize>(), plan.len as usize);
            let offset = i64::from(plan.seq.since(ISS + 1) as i32);
            let (len, fin, psh, kind) = (plan.len, plan.fin, plan.psh, plan.kind);
            self.sent.push(Sent { at_us: self.now_us(), offset, len, fin, psh, kind });
            plans.push(plan);
            assert!(plans.len() < 100_000, "a sender that never stops");
        }
        self.check();
        plans
    }

    pub(super) fn wait(&mut self, time: Duration) {
        let until = self.world.now + time;
        while self.died.is_none() && self.sender.deadline() <= until {
            self.fire();
        }
        self.world.now = until;
    }

    /// Goes to the next deadline and lets it fire.
    pub(super) fn fire(&mut self) {
        self.world.now = self.world.now.max(self.sender.deadline());
        let env = TimerEnv {
            state: self.state,
            orphan: self.orphan,
            options: &self.options,
            last_received: self.last_received,
            soft_error: false,
            fast_open: false,
        };
        let verdict = self.sender.on_timer(&env, &mut self.world.cx());
        if verdict == TimerVerdict::Continue {
            self.poll();
        } else {
            self.died = Some((self.now_us(), verdict));
        }
    }

    /// Fires timers until the connection ends or `limit` firings.
    pub(super) fn run_to_the_end(&mut self, limit: usize) {
        for _ in 0..limit {
            if self.died.is_some() || !self.sender.deadline().is_armed() {
                return;
            }
            self.fire();
        }
    }

    pub(super) fn view<'a>(&self, ack: u32, wnd: u32, sack: &'a SackBlocks) -> AckView<'a> {
        AckView {
            seq: self.peer_seq,
            ack: Self::seq(ack),
            wnd,
            sack,
            tsecr: None,
            ts_now: self.world.now.as_millis() as u32,
            takes_sequence: false,
            ece: false,
            predicted: false,
            opening: false,
            segs: 1,
        }
    }

    /// An ACK of payload up to `ack` with the usual window, and what is sent in answer.
    pub(super) fn ack(&mut self, ack: u32) -> Vec<SendPlan> {
        self.ack_sack(ack, &[])
    }

    /// With SACK blocks of payload offsets.
    pub(super) fn ack_sack(&mut self, ack: u32, blocks: &[(u32, u32)]) -> Vec<SendPlan> {
        self.ack_window(ack, 1_000_000, blocks)
    }

    pub(super) fn ack_window(&mut self, ack: u32, wnd: u32, blocks: &[(u32, u32)]) -> Vec<SendPlan> {
        let mut sack = SackBlocks::NONE;
        for (start, end) in blocks {
            sack.push(SeqRange::new(Self::seq(*start), Self::seq(*end)));
        }
        if wnd < self.sender.snd_wnd() {
            self.peer_seq += 1;
        }
        let view = self.view(ack, wnd, &sack);
        let verdict = self.take(&view);
        assert!(matches!(verdict, AckVerdict::Taken(_)), "{verdict:?}");
        self.poll()
    }

    pub(super) fn take(&mut self, view: &AckView<'_>) -> AckVerdict {
        self.last_received = self.world.now;
        let verdict = self.sender.on_ack(view, &self.options, &mut self.world.cx());
        self.check();
        verdict
    }

    /// The sums must be the sums over the records.
    pub(super) fn check(&self) {
        let sender = &self.sender;
        let mut sums = [0u32; 4];
        let mut at = None;
        for segment in sender.segments.iter() {
            let segs = u32::from(segment.segs);
            sums[0] += segs;
            sums[1] += if segment.marks.has(Marks::SACKED) { segs } else { 0 };
            sums[2] += if segment.marks.has(Marks::LOST) { segs } else { 0 };
            sums[3] += if segment.marks.has(Marks::RETRANS) { segs } else { 0 };
            assert!(!(segment.marks.has(Marks::SACKED) && segment.marks.has(Marks::LOST)));
            assert!(at.is_none_or(|end| end == segment.start), "records are contiguous");
            at = Some(segment.end);
        }
        if let Some(end) = at {
            assert_eq!(end, sender.snd_nxt, "records end at snd_nxt");
        }
        let counts = &sender.counts;
        let sacked = if sender.sack { sums[1] } else { counts.sacked_out };
        assert_eq!(
            [counts.packets_out, counts.sacked_out, counts.lost_out, counts.retrans_out],
            [sums[0], sacked, sums[2], sums[3]],
            "packets_out, sacked_out, lost_out, retrans_out"
        );
        assert!(counts.left_out() <= counts.packets_out, "{counts:?}");
        assert!(sender.cwnd.window.snd_cwnd >= 1);
    }

    pub(super) fn cwnd(&self) -> u32 {
        self.sender.cwnd.window.snd_cwnd
    }

    /// When each thing was sent, microseconds.
    pub(super) fn times(&self) -> Vec<u64> {
        self.sent.iter().map(|sent| sent.at_us).collect()
    }
}
