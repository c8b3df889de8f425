//! The congestion-state machine: what an ACK that is not plain progress does to the connection.
//!
//! Owns:    [`Recovery`], and the sums over the sent segments ([`Counts`]).
//! Input:   what `ack` and `scoreboard` found in an ACK ([`Work`]).
//! Output:  the state, the reduced window, and whether lost segments may be repeated now ([`Rexmit`]).
//! Rules:   Linux `tcp_fastretrans_alert` step by step; RFC 6675's pipe, RFC 6582 without SACK, RFC 6937.
//! Not here: which segments are lost (`rack`, and `mark_head_lost` for NewReno), time-outs (`loss`), undo (`undo`).

use crate::observe::CaState;
use crate::observe::event::EventKind;
use crate::tcp::congestion::INFINITE_SSTHRESH;
use crate::tcp::context::Cx;
use crate::tcp::send::Sender;
use crate::tcp::send::ack::{Flag, Work};
use crate::tcp::send::info::{Left, LossTotals};
use crate::tcp::send::on_demand::{OnDemand, Quiet};
use crate::tcp::send::prr::Prr;
use crate::tcp::send::scoreboard::SackedRanges;
use crate::tcp::send::segments::Marks;
use crate::tcp::send::timer::Pending;
use crate::tcp::seq::{SeqNum, SeqRange};
use crate::time::Instant;

/// Sums over the records, in wire segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    pub(super) packets_out: u32,
    pub(super) sacked_out: u32,
    pub(super) lost_out: u32,
    pub(super) retrans_out: u32,
}

impl Counts {
    /// Linux `tcp_left_out`.
    pub(super) fn left_out(&self) -> u32 {
        self.sacked_out + self.lost_out
    }

    /// Segments believed to be in the network (Linux `tcp_packets_in_flight`, RFC 6675 "pipe").
    pub(super) fn in_flight(&self) -> u32 {
        (self.packets_out + self.retrans_out).saturating_sub(self.left_out())
    }

    /// A record with `marks` stands for `fewer` segments less (Linux `tcp_adjust_pcount`).
    pub(super) fn shrink(&mut self, marks: Marks, fewer: i64) {
        let adjust = |sum: &mut u32| *sum = (i64::from(*sum) - fewer).max(0) as u32;
        adjust(&mut self.packets_out);
        if marks.has(Marks::SACKED) {
            adjust(&mut self.sacked_out);
        }
        if marks.has(Marks::LOST) {
            adjust(&mut self.lost_out);
        }
        if marks.has(Marks::RETRANS) {
            adjust(&mut self.retrans_out);
        }
    }
}

/// What may be sent beyond plain new data after an ACK or a timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rexmit {
    /// Nothing.
    None,
    /// Lost segments.
    Lost,
    /// F-RTO: new data first, to see what becomes of it.
    New,
}

/// State of loss detection and repair: what every connection has, and [`Trouble`] behind it.
#[derive(Debug)]
pub(super) struct Recovery {
    pub(super) ca_state: CaState,
    pub(super) rexmit: Rexmit,
    /// Reordering degree, segments.
    pub(super) reordering: u32,
    trouble: OnDemand<Trouble>,
}

/// What only a connection needs that has had a time-out, a loss probe, a SACK or an echo of congestion.
///
/// Once made it stays.
#[derive(Debug)]
pub(super) struct Trouble {
    /// F-RTO is under way.
    pub(super) frto: bool,
    /// The peer took back a SACK in this episode.
    pub(super) is_sack_reneg: bool,
    pub(super) tlp_retrans: bool,
    /// `snd_nxt` when the state was entered.
    pub(super) high_seq: SeqNum,
    /// Nothing before this needs repeating (Linux `retransmit_skb_hint`).
    pub(super) hint: SeqNum,
    /// Threshold to restore when the reduction is undone; 0: it stands.
    pub(super) prior_ssthresh: u32,
    pub(super) prr: Prr,
    /// `snd_una` when a reduction that may be undone began.
    pub(super) undo_marker: Option<SeqNum>,
    /// Repeats not yet proven needless; below 0: none sent yet.
    pub(super) undo_retrans: i64,
    /// When the first repeat of the episode was sent.
    pub(super) retrans_stamp: Option<Instant>,
    /// `snd_nxt` when the outstanding loss probe was sent.
    pub(super) tlp_high_seq: Option<SeqNum>,
    pub(super) reord_seen: u32,
    /// Ranges the peer has SACKed.
    pub(super) sacked: SackedRanges,
    /// The blocks of the last ACK that had any, in order; those that it had not are empty (Linux `recv_sack_cache`).
    pub(super) last_blocks: [SeqRange; 4],
    pub(super) totals: LossTotals,
    pub(super) left: Left,
}

impl Trouble {
    const QUIET: Self = Self {
        frto: false,
        is_sack_reneg: false,
        tlp_retrans: false,
        high_seq: SeqNum(0),
        hint: SeqNum(0),
        prior_ssthresh: 0,
        prr: Prr { delivered: 0, out: 0, prior_cwnd: 0 },
        undo_marker: None,
        undo_retrans: 0,
        retrans_stamp: None,
        tlp_high_seq: None,
        reord_seen: 0,
        sacked: SackedRanges::EMPTY,
        last_blocks: [SeqRange::new(SeqNum(0), SeqNum(0)); 4],
        totals: LossTotals::ZERO,
        left: Left::NOTHING,
    };
}

impl Quiet for Trouble {
    fn quiet() -> &'static Self {
        static QUIET: Trouble = Trouble::QUIET;
        &QUIET
    }
    fn new() -> Self {
        Self::QUIET
    }
}

impl Recovery {
    pub(super) fn new(reordering: u32) -> Self {
        Self { ca_state: CaState::Open, rexmit: Rexmit::None, reordering, trouble: OnDemand::NONE }
    }

    /// For what must not make one: forgetting.
    pub(super) fn trouble(&mut self) -> Option<&mut Trouble> {
        self.trouble.present()
    }

    pub(super) fn forget_retrans_stamp(&mut self) {
        if let Some(trouble) = self.trouble() {
            trouble.retrans_stamp = None;
        }
    }
}

impl core::ops::Deref for Recovery {
    type Target = Trouble;
    fn deref(&self) -> &Trouble {
        &self.trouble
    }
}

impl core::ops::DerefMut for Recovery {
    fn deref_mut(&mut self) -> &mut Trouble {
        &mut self.trouble
    }
}

impl Sender {
    /// Linux `tcp_fastretrans_alert`.
    pub(super) fn on_dubious_ack(&mut self, work: &mut Work, cx: &mut Cx<'_>) {
        if self.counts.packets_out == 0 {
            self.counts.sacked_out = 0;
        }
        // A. ECE: the reduction is required, no undo.
        if let (true, Some(trouble)) = (work.has(Flag::ECE), self.recovery.trouble()) {
            trouble.prior_ssthresh = 0;
        }
        // B. A head that was SACKed once and is not acknowledged: the peer took it back. Wait a little, then time out.
        if work.has(Flag::SACK_RENEGING) && work.has(Flag::SND_UNA_ADVANCED) {
            let after = (self.rtt.srtt_us >> 4).max(10_000);
            self.timer.arm(Pending::Retransmit, cx.now, after);
            work.clear(Flag::SET_XMIT_TIMER);
            return;
        }
        // D. The state ends when high_seq is acknowledged.
        if self.recovery.ca_state == CaState::Open {
            self.recovery.forget_retrans_stamp();
        } else if self.snd_una.at_or_after(self.recovery.high_seq) {
            match self.recovery.ca_state {
                // CWR is held until something above high_seq is acknowledged.
                CaState::Cwr if self.snd_una != self.recovery.high_seq => {
                    self.end_cwnd_reduction(cx.now);
                    self.set_ca_state(CaState::Open, cx);
                }
                CaState::Recovery => {
                    if !self.sack {
                        self.counts.sacked_out = 0;
                    }
                    if self.try_undo_recovery(&work.echo, cx) {
                        return;
                    }
                    self.end_cwnd_reduction(cx.now);
                }
                _ => {}
            }
        }
        // E. Process the state.
        match self.recovery.ca_state {
            CaState::Recovery => {
                if !work.has(Flag::SND_UNA_ADVANCED) {
                    if !self.sack {
                        self.add_reno_sack(work.num_dupack, cx);
                    }
                } else if self.try_undo_partial(work, cx) {
                    return;
                }
                if self.try_undo_dsack(cx) {
                    self.try_to_open(work, cx);
                }
                self.identify_loss(work, cx);
                if self.recovery.ca_state != CaState::Recovery {
                    if self.counts.lost_out == 0 {
                        return;
                    }
                    // Undone, yet a loss is evident: a new recovery.
                    self.enter_recovery(work.has(Flag::ECE), cx);
                }
            }
            state => {
                if state == CaState::Loss {
                    self.process_loss(work, cx);
                    if self.recovery.ca_state != CaState::Loss {
                        self.recovery.totals.end_of_timeouts(cx.now);
                    }
                    self.identify_loss(work, cx);
                    let goes_on = self.recovery.ca_state == CaState::Open || work.has(Flag::LOST_RETRANS);
                    if !goes_on {
                        return;
                    }
                }
                if !self.sack {
                    if work.has(Flag::SND_UNA_ADVANCED) {
                        self.counts.sacked_out = 0;
                    }
                    self.add_reno_sack(work.num_dupack, cx);
                }
                if self.recovery.ca_state <= CaState::Disorder {
                    self.try_undo_dsack(cx);
                }
                self.identify_loss(work, cx);
                // Linux tcp_time_to_recover(): the loss is proven.
                if self.counts.lost_out == 0 {
                    self.try_to_open(work, cx);
                    return;
                }
                if self.is_probe_loss(cx) {
                    return;
                }
                self.enter_recovery(work.has(Flag::ECE), cx);
            }
        }
        self.recovery.rexmit = Rexmit::Lost;
    }

    /// Linux `tcp_identify_packet_loss`.
    fn identify_loss(&mut self, work: &mut Work, cx: &mut Cx<'_>) {
        if self.segments.is_empty() {
            return;
        }
        if self.sack {
            let retrans_out = self.counts.retrans_out;
            if self.rack_mark_lost(cx) {
                work.clear(Flag::SET_XMIT_TIMER);
            }
            if self.counts.retrans_out < retrans_out {
                work.set(Flag::LOST_RETRANS);
            }
        } else {
            // Linux tcp_newreno_mark_lost(): three duplicates, or a partial ACK, cost the head.
            let state = self.recovery.ca_state;
            if (state < CaState::Recovery && self.counts.sacked_out >= self.recovery.reordering)
                || (state == CaState::Recovery && work.has(Flag::SND_UNA_ADVANCED))
            {
                self.mark_head_lost(cx);
            }
        }
    }

    /// Linux `tcp_enter_recovery`.
    pub(super) fn enter_recovery(&mut self, ece: bool, cx: &mut Cx<'_>) {
        if !self.any_retrans_done() {
            self.recovery.forget_retrans_stamp();
        }
        if self.sack {
            cx.counters.tcp_sack_recovery += 1;
        } else {
            cx.counters.tcp_reno_recovery += 1;
        }
        self.recovery.prior_ssthresh = 0;
        self.init_undo();
        if !self.in_cwnd_reduction() {
            if !ece {
                self.recovery.prior_ssthresh = self.current_ssthresh();
            }
            self.begin_cwnd_reduction(cx.now);
        }
        self.set_ca_state(CaState::Recovery, cx);
    }

    /// Linux `tcp_enter_cwr`: the peer echoed congestion.
    pub(super) fn enter_cwr(&mut self, cx: &mut Cx<'_>) {
        self.recovery.prior_ssthresh = 0;
        if self.recovery.ca_state < CaState::Cwr {
            self.recovery.undo_marker = None;
            self.begin_cwnd_reduction(cx.now);
            self.set_ca_state(CaState::Cwr, cx);
        }
    }

    /// Linux `tcp_try_to_open`.
    fn try_to_open(&mut self, work: &Work, cx: &mut Cx<'_>) {
        if !self.any_retrans_done() {
            self.recovery.forget_retrans_stamp();
        }
        if work.has(Flag::ECE) {
            self.enter_cwr(cx);
        }
        if self.recovery.ca_state != CaState::Cwr {
            self.keep_open(cx);
        }
    }

    /// Linux `tcp_try_keep_open`.
    pub(super) fn keep_open(&mut self, cx: &mut Cx<'_>) {
        let state = if self.counts.left_out() != 0 || self.any_retrans_done() {
            CaState::Disorder
        } else {
            CaState::Open
        };
        if self.recovery.ca_state != state {
            self.set_ca_state(state, cx);
            self.recovery.high_seq = self.snd_nxt;
        }
    }

    /// Linux `tcp_any_retrans_done`.
    pub(super) fn any_retrans_done(&self) -> bool {
        self.counts.retrans_out != 0
            || self.segments.front().is_some_and(|head| head.marks.has(Marks::EVER_RETRANS))
    }

    pub(super) fn set_ca_state(&mut self, state: CaState, cx: &mut Cx<'_>) {
        if state == CaState::Loss {
            self.congestion.on_timeout(cx.now, self.snd_nxt);
        }
        if self.recovery.ca_state != state {
            self.recovery.ca_state = state;
            Self::emit(cx, || EventKind::CongestionState(state));
        }
    }

    /// Linux `tcp_in_cwnd_reduction`.
    pub(super) fn in_cwnd_reduction(&self) -> bool {
        matches!(self.recovery.ca_state, CaState::Cwr | CaState::Recovery)
    }

    /// Linux `tcp_current_ssthresh`.
    pub(super) fn current_ssthresh(&self) -> u32 {
        let window = &self.cwnd.window;
        if self.in_cwnd_reduction() {
            window.snd_ssthresh
        } else {
            window.snd_ssthresh.max((window.snd_cwnd >> 1) + (window.snd_cwnd >> 2))
        }
    }

    /// Linux `tcp_init_cwnd_reduction`.
    pub(super) fn begin_cwnd_reduction(&mut self, now: Instant) {
        self.recovery.high_seq = self.snd_nxt;
        self.recovery.tlp_high_seq = None;
        let window = &mut self.cwnd.window;
        window.snd_cwnd_cnt = 0;
        self.recovery.prr = Prr::begin(window.snd_cwnd);
        window.snd_ssthresh = self.congestion.ssthresh(window.snd_cwnd, now, self.snd_nxt);
        self.cwr_owed = true;
    }

    /// Linux `tcp_cwnd_reduction`.
    pub(super) fn reduce_cwnd(&mut self, delivered: u32, advanced: bool, newly_lost: bool) {
        if delivered == 0 || self.recovery.prr.prior_cwnd == 0 {
            return;
        }
        let in_flight = self.counts.in_flight();
        let allowance = self.recovery.prr.allowance(
            delivered,
            self.cwnd.window.snd_ssthresh,
            in_flight,
            advanced && !newly_lost,
        );
        self.cwnd.window.snd_cwnd = (in_flight + allowance).max(1);
    }

    /// Linux `tcp_end_cwnd_reduction`.
    pub(super) fn end_cwnd_reduction(&mut self, now: Instant) {
        let window = &mut self.cwnd.window;
        if window.snd_ssthresh < INFINITE_SSTHRESH
            && (self.recovery.ca_state == CaState::Cwr || self.recovery.undo_marker.is_some())
        {
            window.snd_cwnd = window.snd_ssthresh;
            self.cwnd.stamp = now;
        }
    }
}
