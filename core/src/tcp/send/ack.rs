//! One acknowledgment, from validity to timers: Linux `tcp_ack` in order.
//!
//! Input:   an [`AckView`].
//! Output:  an [`AckVerdict`]; inside, a [`Work`] that the steps hand on.
//! Rules:   RFC 9293 3.10.7.4 (fifth check), RFC 5961 5, RFC 7323 4.1 (RTTM); Linux `tcp_ack`, `tcp_clean_rtx_queue`,
//!          `tcp_ack_update_rtt`, `tcp_ack_update_window`.

use crate::observe::CaState;
use crate::observe::event::EventKind;
use crate::tcp::congestion::RttSample;
use crate::tcp::context::Cx;
use crate::tcp::options::TcpOptions;
pub(super) use crate::tcp::send::AckView;
use crate::tcp::send::chrono::Limit;
use crate::tcp::send::output::Due;
use crate::tcp::send::recovery::Rexmit;
use crate::tcp::send::segments::{Marks, SentSegment};
use crate::tcp::send::{AckVerdict, Acked, Phase, Sender};
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// Whole microseconds from one instant to a later one, as Linux subtracts its microsecond stamps.
pub(super) fn us_between(earlier: Instant, later: Instant) -> u32 {
    later.as_micros().saturating_sub(earlier.as_micros()).min(u64::from(u32::MAX)) as u32
}

/// Linux `FLAG_*` of `tcp_input.c`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flag(u16);

impl Flag {
    pub(super) const DATA: Self = Self(1);
    pub(super) const WIN_UPDATE: Self = Self(2);
    pub(super) const DATA_ACKED: Self = Self(4);
    pub(super) const RETRANS_DATA_ACKED: Self = Self(8);
    pub(super) const SYN_ACKED: Self = Self(16);
    pub(super) const DATA_SACKED: Self = Self(32);
    pub(super) const ECE: Self = Self(64);
    pub(super) const LOST_RETRANS: Self = Self(128);
    pub(super) const ORIG_SACK_ACKED: Self = Self(256);
    pub(super) const SND_UNA_ADVANCED: Self = Self(512);
    pub(super) const DSACKING_ACK: Self = Self(1024);
    pub(super) const SET_XMIT_TIMER: Self = Self(2048);
    pub(super) const SACK_RENEGING: Self = Self(4096);
    pub(super) const ACK_MAYBE_DELAYED: Self = Self(8192);
    pub(super) const DSACK_TLP: Self = Self(16384);

    pub(super) const ACKED: Self = Self(Self::DATA_ACKED.0 | Self::SYN_ACKED.0);
    pub(super) const NOT_DUP: Self = Self(Self::DATA.0 | Self::WIN_UPDATE.0 | Self::ACKED.0);
    pub(super) const CA_ALERT: Self = Self(Self::DATA_SACKED.0 | Self::ECE.0 | Self::DSACKING_ACK.0);
    pub(super) const FORWARD_PROGRESS: Self = Self(Self::ACKED.0 | Self::DATA_SACKED.0);
}

impl core::ops::BitOr for Flag {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The echo of our timestamp clock that a segment brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Echo {
    tsecr: Option<u32>,
    ts_now: u32,
    now: Instant,
}

impl Echo {
    pub(super) fn of(view: &AckView<'_>, now: Instant) -> Self {
        Self { tsecr: view.tsecr.filter(|echo| *echo != 0), ts_now: view.ts_now, now }
    }

    /// Our timestamp clock at `at`.
    fn ts_at(&self, at: Instant) -> u32 {
        self.ts_now.wrapping_sub(self.now.as_millis().saturating_sub(at.as_millis()) as u32)
    }

    /// It is what our clock told at `at`.
    fn is_of(&self, at: Instant) -> bool {
        self.tsecr == Some(self.ts_at(at))
    }

    /// It was taken before `at` (Linux `tcp_tsopt_ecr_before`): it answers something sent earlier.
    pub(super) fn is_before(&self, at: Instant) -> bool {
        self.tsecr.is_some_and(|echo| (echo.wrapping_sub(self.ts_at(at)) as i32) < 0)
    }

    /// RTT by it, microseconds (Linux `tcp_rtt_tsopt_us`): at least 1 ms, the clock's tick.
    pub(super) fn rtt_us(&self) -> Option<u32> {
        let delta = self.ts_now.wrapping_sub(self.tsecr?).max(1);
        (delta < i32::MAX as u32 / 1000).then(|| delta * 1000)
    }
}

/// What the steps have found in this ACK so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    flags: u16,
    pub(super) prior_una: SeqNum,
    pub(super) num_dupack: u32,
    /// Lowest segment delivered late, `snd_nxt` when none was.
    pub(super) reord: SeqNum,
    pub(super) first_sackt: Option<Instant>,
    pub(super) last_sackt: Instant,
    /// The most recently sent segment this ACK delivered.
    pub(super) newest: Option<SentSegment>,
    pub(super) echo: Echo,
    /// [`AckView::opening`].
    pub(super) opening: bool,
}

impl Work {
    fn new(view: &AckView<'_>, prior_una: SeqNum, snd_nxt: SeqNum, now: Instant) -> Self {
        Self {
            flags: if view.takes_sequence { Flag::DATA.0 } else { 0 },
            prior_una,
            num_dupack: 0,
            reord: snd_nxt,
            first_sackt: None,
            last_sackt: now,
            newest: None,
            echo: Echo::of(view, now),
            opening: view.opening,
        }
    }

    pub(super) fn has(&self, any: Flag) -> bool {
        self.flags & any.0 != 0
    }
    pub(super) fn set(&mut self, flag: Flag) {
        self.flags |= flag.0;
    }
    pub(super) fn clear(&mut self, flag: Flag) {
        self.flags &= !flag.0;
    }

    /// `delivered` when that segment was sent.
    fn prior_delivered(&self) -> Option<u32> {
        self.newest.map(|segment| segment.tx.delivered)
    }
}

impl Sender {
    /// Processes the acknowledgment of an acceptable segment (Linux `tcp_ack`): validity, SACK, RTT, RACK, recovery,
    /// congestion, window update, timers.
    pub(crate) fn on_ack(&mut self, view: &AckView<'_>, options: &TcpOptions, cx: &mut Cx<'_>) -> AckVerdict {
        self.burst.new_stamp();
        let prior_una = self.snd_una;
        let mut work = Work::new(view, prior_una, self.snd_nxt, cx.now);
        let delivered = self.totals.delivered;
        let has_sack = self.sack && !view.sack.is_empty();
        if view.ack.before(prior_una) {
            // RFC 5961 5.2: no older than a window, and never older than what we sent.
            let span = u64::from(self.max_window).min(self.totals.bytes_acked) as u32;
            let is_too_old = view.ack.before(prior_una - span);
            if is_too_old && !view.predicted {
                return AckVerdict::TooOld;
            }
            // Linux tcp_rcv_established(): what was predicted looks at what waits to be sent, whatever tcp_ack() says of it.
            self.look_again();
            if is_too_old {
                return AckVerdict::TooOld;
            }
            if has_sack {
                self.take_sacks(view, &mut work, cx);
                self.on_dubious_ack(&mut work, cx);
                self.count_delivered(delivered, false, cx);
            }
            return AckVerdict::Taken(Acked { old: true, ..Acked::default() });
        }
        if view.ack.after(self.snd_nxt) {
            return AckVerdict::Unsent;
        }
        self.look_again();
        if view.ack != prior_una {
            work.set(Flag::SND_UNA_ADVANCED);
            self.retransmits = 0;
            if self.due == Due::RetransmitHead {
                self.due = Due::Nothing; // what was to be repeated has arrived
            }
        }
        let prior_packets = self.counts.packets_out;
        let prior_sacked = self.counts.sacked_out;
        let prior_fack = if self.sack { self.highest_sack_seq() } else { prior_una };
        let lost = self.recovery.totals.lost;
        let reneged = self.recovery.is_sack_reneg;
        self.count_kind(view, &work, cx);
        self.update_window(view, &mut work, cx);
        if has_sack {
            self.take_sacks(view, &mut work, cx);
        }
        if view.ece {
            work.set(Flag::ECE);
        }
        self.probes_out = 0;
        let mut acked = self.count_acked(prior_una, view.ack);
        if prior_packets == 0 {
            if work.has(Flag::DSACKING_ACK) {
                self.on_dubious_ack(&mut work, cx);
                self.count_delivered(delivered, view.ece, cx);
            }
            self.on_probe_answered(options, cx.now);
            self.on_tlp_ack(view.ack, &work, cx);
            return AckVerdict::Taken(acked);
        }

        acked.syn = self.clean_sent(prior_una, prior_fack, prior_sacked, &mut work, cx);
        self.queue.acked(self.snd_una);
        self.rack_adapt(work.prior_delivered(), cx);
        self.on_tlp_ack(view.ack, &work, cx);
        let dubious =
            !work.has(Flag::NOT_DUP) || work.has(Flag::CA_ALERT) || self.recovery.ca_state != CaState::Open;
        self.recovery.rexmit = Rexmit::None;
        if dubious {
            if !work.has(Flag::SND_UNA_ADVANCED | Flag::NOT_DUP | Flag::DSACKING_ACK) {
                work.num_dupack = u32::from(view.segs.max(1));
            }
            self.on_dubious_ack(&mut work, cx);
        }
        if work.has(Flag::SET_XMIT_TIMER) && !self.schedule_loss_probe(true, cx) {
            self.rearm_rto(cx.now);
        }
        let newly_delivered = self.count_delivered(delivered, view.ece, cx);
        self.sample_rate(newly_delivered, reneged, &work, cx.now);
        self.control_cwnd(newly_delivered, self.recovery.totals.lost != lost, &work, cx);
        self.update_pacing_rate(cx.sysctl);
        self.check_space(options, cx);
        AckVerdict::Taken(acked)
    }

    /// A segment that is data and nothing else brings no news of the window, but it is the last one that could have (Linux `tcp_update_wl`).
    pub(crate) fn note_window_source(&mut self, seq: SeqNum) {
        self.snd_wl1 = Some(seq);
    }

    /// What waits to be sent is looked at (Linux `tcp_data_snd_check`): neither a deferral nor `MSG_MORE` holds it any longer.
    fn look_again(&mut self) {
        self.more = false;
        self.deferred = false;
        self.unsettled = true;
    }

    /// Header-prediction statistics (Linux `TCPHPAcks`, `TCPPureAcks`).
    fn count_kind(&self, view: &AckView<'_>, work: &Work, cx: &mut Cx<'_>) {
        let plain = view.wnd == self.snd_wnd && view.sack.is_empty() && !view.ece;
        if plain && work.has(Flag::SND_UNA_ADVANCED) {
            cx.counters.tcp_hp_acks += 1;
        } else if !view.takes_sequence {
            cx.counters.tcp_pure_acks += 1;
        }
    }

    /// Linux `tcp_may_update_window`: `wnd` is news of the peer's window, scaled.
    ///
    /// RFC 9293 3.10.7.4: SND.WL1 and SND.WL2 keep old segments from updating; Linux lets an advance update always.
    pub(crate) fn may_update_window(&self, seq: SeqNum, ack: SeqNum, wnd: u32) -> bool {
        ack.after(self.snd_una)
            || self
                .snd_wl1
                .is_none_or(|wl1| seq.after(wl1) || (seq == wl1 && (wnd > self.snd_wnd || wnd == 0)))
    }

    /// Linux `tcp_ack_update_window`, `tcp_snd_una_update`.
    fn update_window(&mut self, view: &AckView<'_>, work: &mut Work, cx: &mut Cx<'_>) {
        if self.may_update_window(view.seq, view.ack, view.wnd) {
            work.set(Flag::WIN_UPDATE);
            self.snd_wl1 = Some(view.seq);
            if view.wnd != self.snd_wnd {
                if view.wnd == 0 {
                    Self::emit(cx, || EventKind::PeerWindowClosed);
                } else if self.snd_wnd == 0 {
                    Self::emit(cx, || EventKind::PeerWindowOpened);
                }
                self.snd_wnd = view.wnd;
                if self.has_unsent() {
                    self.restart_after_idle(cx);
                }
                if view.wnd > self.max_window {
                    self.max_window = view.wnd;
                    self.sync_mss();
                }
            }
        }
        self.totals.bytes_acked += u64::from(view.ack.since(self.snd_una));
        self.acked_urgent(view.ack);
        self.snd_una = view.ack;
    }

    /// Payload and FIN that `[from, to)` covers; the SYN is known to `clean_sent`.
    fn count_acked(&self, from: SeqNum, to: SeqNum) -> Acked {
        if from == to {
            return Acked::default();
        }
        let fin = self.fin_queued && to == self.write_seq;
        let payload_start = self.queue.end() - self.queue.len();
        let bytes = to.min(self.queue.end()).0.wrapping_sub(payload_start.0) as i32;
        Acked { advanced: true, bytes: bytes.max(0) as u32, fin, ..Acked::default() }
    }

    /// Linux `tcp_clean_rtx_queue`: takes acknowledged records off, samples the RTT. True when the SYN was among them.
    fn clean_sent(
        &mut self,
        prior_una: SeqNum,
        prior_fack: SeqNum,
        prior_sacked: u32,
        work: &mut Work,
        cx: &mut Cx<'_>,
    ) -> bool {
        let (mut first_ackt, mut last_ackt) = (None, cx.now);
        let mut reord = self.snd_nxt;
        let mut pkts_acked = 0;
        let mut fully_acked = true;
        while let Some(head) = self.segments.front().copied() {
            let mut segs = u32::from(head.segs);
            if head.end.after(self.snd_una) {
                // Linux: a lone segment stays whole until all of it is acknowledged.
                if segs == 1 || !self.snd_una.after(head.start) {
                    break;
                }
                // Linux tcp_tso_acked(): whole segments of a super-segment count.
                let segment = self.segments.at_mut(0);
                segment.start = self.snd_una;
                segment.recount();
                segs -= u32::from(segment.segs);
                if segs == 0 {
                    break;
                }
                fully_acked = false;
            }
            if head.marks.has(Marks::RETRANS.with(Marks::EVER_RETRANS)) {
                if head.marks.has(Marks::RETRANS) {
                    self.counts.retrans_out -= segs;
                }
                work.set(Flag::RETRANS_DATA_ACKED);
            } else if !head.marks.has(Marks::SACKED) {
                last_ackt = head.sent_at;
                first_ackt.get_or_insert(last_ackt);
                reord = reord.min(head.start);
                if !head.end.after(self.recovery.high_seq) {
                    work.set(Flag::ORIG_SACK_ACKED);
                }
            }
            if head.marks.has(Marks::SACKED) {
                self.counts.sacked_out -= segs;
            } else if self.sack {
                self.totals.delivered = self.totals.delivered.wrapping_add(segs);
                // Linux tcp_skb_spurious_retrans(): the echo answers an earlier copy.
                let spurious = head.marks.has(Marks::EVER_RETRANS) && work.echo.is_before(head.sent_at);
                if !spurious {
                    self.rack_advance(0, cx.now);
                }
            }
            if head.marks.has(Marks::LOST) {
                self.counts.lost_out -= segs;
            }
            self.counts.packets_out -= segs;
            pkts_acked += segs;
            self.note_delivered(&head, work);
            if head.marks.has(Marks::SYN) {
                work.set(Flag::SYN_ACKED);
                self.on_syn_acked(work);
            } else {
                work.set(Flag::DATA_ACKED);
            }
            if !fully_acked {
                break;
            }
            self.segments.take_front();
        }
        let snd_una = self.snd_una;
        if let Some(trouble) = self.recovery.trouble() {
            trouble.sacked.trim(snd_una);
        }
        if self.segments.is_empty() {
            if self.sack {
                // Linux, "Leak r=": what was counted twice is forgotten.
                (self.counts.sacked_out, self.counts.lost_out, self.counts.retrans_out) = (0, 0, 0);
            }
            self.chrono.stop(Limit::Busy, self.is_idle(), cx.now);
        } else if self.segments.front().is_some_and(|head| head.marks.has(Marks::SACKED)) {
            work.set(Flag::SACK_RENEGING);
        }

        let mut seq_rtt_us = None;
        let mut ca_rtt_us = None;
        if let Some(first) = first_ackt
            && !work.has(Flag::RETRANS_DATA_ACKED)
        {
            seq_rtt_us = Some(us_between(first, cx.now));
            ca_rtt_us = Some(us_between(last_ackt, cx.now));
            if pkts_acked == 1
                && fully_acked
                && prior_sacked == 0
                && self.snd_una.since(prior_una) < u32::from(self.mss)
                && work.prior_delivered().is_some_and(|d| d.wrapping_add(1) == self.totals.delivered)
                && !work.has(Flag::CA_ALERT | Flag::SYN_ACKED)
            {
                work.set(Flag::ACK_MAYBE_DELAYED);
            }
        }
        let mut sack_rtt_us = None;
        if let Some(first) = work.first_sackt {
            sack_rtt_us = Some(us_between(first, cx.now));
            ca_rtt_us = Some(us_between(work.last_sackt, cx.now));
        }
        let sampled = self.update_rtt(seq_rtt_us, sack_rtt_us, &mut ca_rtt_us, work, cx);

        if work.has(Flag::ACKED) {
            work.set(Flag::SET_XMIT_TIMER);
            self.on_probe_acked(cx);
            if self.sack {
                // A hole below the highest SACK filled without a repeat: reordering.
                if reord.before(prior_fack) {
                    self.check_reordering(reord, false, cx);
                }
            } else {
                self.remove_reno_sacks(pkts_acked, cx);
                // Without SACK it cannot be told which copy arrived.
                if work.has(Flag::RETRANS_DATA_ACKED) {
                    work.clear(Flag::ORIG_SACK_ACKED);
                }
            }
        } else if sampled
            && let (Some(rtt_us), Some(head)) = (sack_rtt_us, self.segments.front())
            && rtt_us > us_between(head.sent_at, cx.now)
        {
            // What was SACKed was sent before the head was last sent: the path works, restart the timer.
            work.set(Flag::SET_XMIT_TIMER);
        }
        if let Some(rtt_us) = ca_rtt_us {
            let sample = RttSample { rtt_us, snd_una: self.snd_una, snd_nxt: self.snd_nxt };
            self.congestion.on_rtt(&sample, &mut self.cwnd.window, cx.now, cx.counters);
        }
        work.has(Flag::SYN_ACKED)
    }

    fn on_syn_acked(&mut self, work: &Work) {
        // Linux tcp_try_undo_spurious_syn(): the echo of the very first SYN, so the repeats were needless. In a simultaneous open
        // tcp_ack() has forgotten the stamp by then.
        if let Some(first) = self.recovery.retrans_stamp
            && self.phase == Phase::SynSent
            && work.echo.is_of(first)
        {
            self.recovery.undo_marker = None;
        }
        self.recovery.forget_retrans_stamp();
    }

    /// Linux `tcp_ack_update_rtt`: a sample from the segment acknowledged, else SACKed, else from the timestamp echo.
    fn update_rtt(
        &mut self,
        seq_rtt_us: Option<u32>,
        sack_rtt_us: Option<u32>,
        ca_rtt_us: &mut Option<u32>,
        work: &Work,
        cx: &mut Cx<'_>,
    ) -> bool {
        let mut sample = seq_rtt_us.or(sack_rtt_us);
        // RTTM rule: the echo counts only when new data is acknowledged.
        if sample.is_none() && work.has(Flag::ACKED) {
            sample = work.echo.rtt_us();
            *ca_rtt_us = sample;
        }
        let (Some(rtt_us), Some(latest_us)) = (sample, *ca_rtt_us) else { return false };
        if !(work.has(Flag::ACK_MAYBE_DELAYED) && latest_us > self.rtt.min.get()) {
            let window_ms = cx.sysctl.tcp_min_rtt_wlen.as_millis().min(u128::from(u32::MAX)) as u32;
            self.rtt.min.sample(cx.now.as_millis() as u32, latest_us.max(1), window_ms);
        }
        self.rtt.sample(rtt_us, self.snd_una, self.snd_nxt);
        self.backoff = 0; // RFC 6298: only a valid sample ends the backoff
        true
    }

    /// Linux `tcp_newly_delivered`.
    fn count_delivered(&mut self, before: u32, ece: bool, cx: &mut Cx<'_>) -> u32 {
        let newly = self.totals.delivered.wrapping_sub(before);
        cx.counters.tcp_delivered += u64::from(newly);
        if ece {
            let totals = &mut self.recovery.totals;
            totals.delivered_ce = totals.delivered_ce.wrapping_add(newly);
            cx.counters.tcp_delivered_ce += u64::from(newly);
        }
        newly
    }

    /// Linux `tcp_cong_control`.
    fn control_cwnd(&mut self, delivered: u32, newly_lost: bool, work: &Work, cx: &mut Cx<'_>) {
        if self.in_cwnd_reduction() {
            self.reduce_cwnd(delivered, work.has(Flag::SND_UNA_ADVANCED), newly_lost);
            return;
        }
        let progress = if self.recovery.reordering > cx.sysctl.tcp_reordering {
            Flag::FORWARD_PROGRESS
        } else {
            Flag::DATA_ACKED
        };
        if work.has(progress) && self.cwnd.is_limited() {
            self.congestion.on_acked(&mut self.cwnd.window, delivered, cx.now, self.snd_nxt);
        }
        if work.has(progress) {
            self.cwnd.stamp = cx.now;
        }
    }
}
