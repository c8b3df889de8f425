//! What to put on the wire next, in Linux's order.
//!
//! Owns:    what a timer decided and the next poll sends ([`Due`]), what stopped the present burst ([`Burst`]).
//! Output:  one [`SendPlan`] a call; `None` ends the burst.
//! Rules:   Linux `tcp_write_xmit`, `tcp_xmit_recovery`, `tcp_event_new_data_sent`, `tcp_send_syn`; PSH as `tcp_push`.
//! Not here: repeating (`retransmit`), whether new data may leave (`nagle`).

use crate::tcp::context::Cx;
use crate::tcp::options::TcpOptions;
use crate::tcp::send::chrono::Limit;
use crate::tcp::send::mtu_probe::Probing;
use crate::tcp::send::nagle::Hold;
use crate::tcp::send::rate::TxStamps;
use crate::tcp::send::recovery::Rexmit;
use crate::tcp::send::segments::{Marks, SentSegment};
use crate::tcp::send::timer::Pending;
use crate::tcp::send::{Phase, PlanKind, SendPlan, Sender};
use crate::time::Instant;

/// What a timer decided and the next poll sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    Nothing,
    /// The RTO fired: one segment of the head.
    RetransmitHead,
    /// The SYN again, because the path does not carry its data; that waits for a window.
    LostSyn,
    LossProbe,
    WindowProbe,
    /// As `WindowProbe`, and one in front of it that tells of urgent data.
    UrgentProbe,
    /// The probe timer fired with some window open: what fits of the head.
    Wakeup,
}

/// What happened since the last poll that gave nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Burst {
    pub(super) sent_new: bool,
    pub(super) cwnd_limited: bool,
    pub(super) window_limited: bool,
    /// New data was looked at.
    tried: bool,
    /// Path MTU probing was asked.
    mtu_asked: bool,
    /// A loss probe left: no other is scheduled behind it.
    pub(super) probed: bool,
    /// When the first of what leaves together left.
    at: Option<Instant>,
}

impl Burst {
    /// When what leaves now counts as sent: what leaves together has one time (Linux `tcp_mstamp`, which `tcp_write_xmit` reads once), so that
    /// RACK sees no order in it that is only the device's.
    pub(super) fn stamp(&mut self, now: Instant) -> Instant {
        *self.at.get_or_insert(now)
    }

    /// An ACK, a timer or a write: what leaves from now on leaves later.
    pub(super) fn new_stamp(&mut self) {
        self.at = None;
    }
}

impl Sender {
    /// The next piece to send now, in Linux's order (lost segments, then new data within cwnd, window, Nagle, cork, TLP and probes
    /// that are due), or `None`. `options_len` is the option bytes beyond timestamps (SACK blocks) that shorten a segment.
    /// Marks it as sent at `cx.now`, arms timers, counts (`OutSegs`, `RetransSegs`, `TCPOrigDataSent` …) and emits events.
    /// Call it until it gives `None`: that ends the burst and arms the timers that look at a whole burst.
    pub(crate) fn poll_plan(
        &mut self,
        options: &TcpOptions,
        options_len: u32,
        cx: &mut Cx<'_>,
    ) -> Option<SendPlan> {
        let (planned, untold) = self.queue.take_plan();
        self.cwr_owed |= untold;
        let plan = planned.or_else(|| self.next_plan(options, options_len, cx));
        if plan.is_none() {
            self.end_burst(cx);
            self.unsettled = false;
        } else {
            self.unsettled = true;
        }
        plan
    }

    fn next_plan(&mut self, options: &TcpOptions, options_len: u32, cx: &mut Cx<'_>) -> Option<SendPlan> {
        if self.phase == Phase::SynOwed {
            return Some(self.send_syn(cx));
        }
        let mss = u32::from(self.mss).saturating_sub(options_len).max(1);
        let due = core::mem::replace(&mut self.due, Due::Nothing);
        let plan = match due {
            Due::Nothing => None,
            Due::RetransmitHead => self.transmit_again(0, 1, mss, PlanKind::Retransmit, cx),
            Due::LostSyn => self.next_retransmission(mss, cx),
            Due::LossProbe => self.send_loss_probe(mss, cx),
            Due::WindowProbe => Some(self.send_window_probe(self.snd_una - 1, cx)),
            Due::UrgentProbe => {
                self.due = Due::WindowProbe;
                Some(self.send_window_probe(self.snd_una, cx))
            }
            Due::Wakeup => self.send_wakeup(mss, cx),
        };
        if plan.is_some() {
            return plan;
        }
        if self.phase != Phase::Established {
            return None;
        }
        if self.recovery.rexmit == Rexmit::New {
            // F-RTO step 2.b: new data shows whether the time-out was spurious.
            if let Some(plan) = self.next_new(mss, Hold::Nothing, cx) {
                return Some(plan);
            }
            if self.snd_nxt.after(self.recovery.high_seq) {
                self.recovery.rexmit = Rexmit::None;
            } else {
                self.recovery.frto = false;
                self.recovery.rexmit = Rexmit::Lost;
            }
        }
        if self.recovery.rexmit == Rexmit::Lost {
            if let Some(plan) = self.next_retransmission(mss, cx) {
                return Some(plan);
            }
            self.recovery.rexmit = Rexmit::None;
        }
        let hold = self.hold(options);
        self.next_new(mss, hold, cx)
    }

    fn send_syn(&mut self, cx: &mut Cx<'_>) -> SendPlan {
        let seq = self.snd_una;
        // What Fast Open has queued: a record of its own, because the SYN is repeated without it.
        let len = self.queue.len();
        self.phase = Phase::SynSent;
        self.snd_nxt = seq + 1 + len;
        self.counts.packets_out = 1;
        let record =
            |start, end, mss, marks| SentSegment::new(start, end, mss, marks, cx.now, TxStamps::default());
        self.segments.push(record(seq, seq + 1, self.mss, Marks::SYN));
        if len > 0 {
            let mss = len.min(u32::from(u16::MAX)) as u16;
            self.segments.push(record(seq + 1, self.snd_nxt, mss, Marks::PSH));
            self.counts.packets_out = 2;
            self.queue.chunks_sent(self.snd_nxt);
            self.queue.prepare(seq + 1, self.snd_nxt);
            self.count_data(1, len, cx.now);
            cx.counters.tcp_orig_data_sent += 1;
        }
        self.timer.arm(Pending::Retransmit, cx.now, self.rtt.rto_us);
        cx.counters.out_segs += 1;
        SendPlan {
            seq,
            len,
            syn: true,
            fin: false,
            psh: false,
            cwr: false,
            segment_size: len.max(u32::from(self.mss)),
            kind: PlanKind::New,
        }
    }

    /// The next piece of new data (the body of Linux `tcp_write_xmit`).
    pub(super) fn next_new(&mut self, mss: u32, hold: Hold, cx: &mut Cx<'_>) -> Option<SendPlan> {
        if !self.has_unsent() {
            return None;
        }
        let probe = hold == Hold::ProbeNow;
        if self.deferred && !probe {
            return None;
        }
        let alone = probe || hold == Hold::PushOne;
        if self.mtu_search.is_some() && !alone && !core::mem::replace(&mut self.burst.mtu_asked, true) {
            match self.probe_mtu(mss, cx) {
                Probing::No => {}
                Probing::Wait => return None,
                Probing::Send(plan) => return Some(plan),
            }
        }
        self.burst.tried = true;
        let mut quota = self.cwnd_quota();
        if quota == 0 {
            if !probe {
                return None;
            }
            quota = 1; // Linux: force out a loss probe
        }
        let max_segs = self.tso_segs(mss, cx);
        quota = quota.min(max_segs);
        self.queue.grow_first(self.snd_nxt, quota.saturating_mul(mss));
        if self.is_urgent() {
            quota = 1; // Linux tcp_write_xmit(): an urgent pointer counts from its own segment
        }
        if !self.head_fits_window(mss) {
            self.burst.window_limited = true;
            return None;
        }
        let payload = self.next_payload();
        let is_last = payload == self.unsent_payload();
        let len = if payload <= mss {
            // Linux tcp_write_xmit(): only the last segment of all that is queued is held back.
            if is_last && payload < mss && !self.fin_queued && self.holds_partial(hold) {
                return None;
            }
            payload
        } else {
            if !alone && !self.is_urgent() && self.should_defer(max_segs, payload, cx) {
                self.deferred = true;
                return None;
            }
            self.split_point(mss, quota, payload, hold)
        };
        let plan = self.send_new_piece(len, mss, false, cx);
        // Linux tcp_minshall_update(): what a timer or a path MTU probe sends does not count.
        if len == 0 || len % mss != 0 {
            self.snd_sml = self.snd_nxt;
        }
        Some(plan)
    }

    /// Puts `len` bytes of new payload on the wire, and the FIN where it follows and fits (Linux `tcp_event_new_data_sent`).
    pub(super) fn send_new_piece(&mut self, len: u32, mss: u32, push: bool, cx: &mut Cx<'_>) -> SendPlan {
        let start = self.snd_nxt;
        let last = len == self.unsent_payload();
        let mut end = start + len;
        let fin = last && self.fin_queued && (end.before(self.wnd_end()) || len == 0);
        let (pushed, eor) = self.queue.chunks_sent(end);
        let psh = len > 0 && (pushed || push);
        end += u32::from(fin);
        let mut marks = if psh { Marks::PSH } else { Marks::NONE };
        if eor {
            marks = marks.with(Marks::EOR);
        }
        if fin {
            marks = marks.with(Marks::FIN);
        }
        if self.counts.packets_out == 0 {
            self.congestion.on_restart(cx.now, self.last_sent);
        }
        let mss16 = mss.min(u32::from(u16::MAX)) as u16;
        let at = self.burst.stamp(cx.now);
        let segment = SentSegment::new(start, end, mss16, marks, at, self.tx_stamps(at));
        let segs = u32::from(segment.segs);
        let first = self.counts.packets_out == 0;
        self.segments.push(segment);
        self.snd_nxt = end;
        self.counts.packets_out += segs;
        if first || self.timer.is(Pending::LossProbe) {
            self.rearm_rto(cx.now);
        }
        cx.counters.out_segs += u64::from(segs);
        cx.counters.tcp_orig_data_sent += u64::from(segs);
        if len > 0 {
            self.count_data(segs, len, cx.now);
            self.queue.prepare(start, start + len);
        }
        if self.in_cwnd_reduction() {
            self.recovery.prr.out += segs;
        }
        self.burst.sent_new = true;
        let cwr = len > 0 && core::mem::take(&mut self.cwr_owed);
        SendPlan { seq: start, len, syn: false, fin, psh, cwr, segment_size: mss, kind: PlanKind::New }
    }

    /// Linux `tcp_event_data_sent` and the payload counters.
    pub(super) fn count_data(&mut self, segs: u32, len: u32, now: Instant) {
        self.last_sent = now;
        self.totals.data_segs_out = self.totals.data_segs_out.wrapping_add(segs);
        self.totals.bytes_sent += u64::from(len);
    }

    /// Nothing more leaves now: what Linux does after the loop of `tcp_write_xmit`.
    fn end_burst(&mut self, cx: &mut Cx<'_>) {
        let burst = core::mem::take(&mut self.burst);
        if self.phase != Phase::Established || !(burst.tried || burst.sent_new) {
            return;
        }
        if burst.window_limited {
            self.chrono.start(Limit::Window, cx.now);
        } else {
            self.chrono.stop(Limit::Window, self.is_idle(), cx.now);
        }
        let cwnd_limited = burst.cwnd_limited || self.counts.in_flight() >= self.cwnd.window.snd_cwnd;
        if burst.sent_new || cwnd_limited {
            self.validate_cwnd(cwnd_limited, cx);
        }
        if burst.probed {
            return;
        }
        if self.counts.packets_out == 0 {
            // What was sent may have been acknowledged before the burst was over.
            if self.has_unsent() {
                self.arm_window_probe(cx.now);
            }
        } else if burst.sent_new {
            self.schedule_loss_probe(false, cx);
        }
    }
}
