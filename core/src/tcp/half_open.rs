//! Half-open connections: a SYN on a listener that is not a connection yet (Linux `request_sock`).
//!
//! Owns:    what the SYN said, our initial sequence number, the SYN-ACK's timer.
//! Input:   segments of the pair, the timer, the listener's options.
//! Output:  verdicts for the stack; SYN-ACKs, ACKs and RSTs into `cx.replies`.
//! Rules:   RFC 9293 3.10.7.4 (SYN-RECEIVED). Linux: `tcp_conn_request`, `tcp_check_req`, `reqsk_timer_handler`.
//! Not here: the queues' limits, SYN cookies, pending decisions (`stack`).

use crate::id::FourTuple;
use crate::observe::reason::{DropReason, ResetReason};
use crate::observe::{EventKind, EventMask};
use crate::sysctl::Sysctl;
use crate::tcp::context::{Cx, Reply};
use crate::tcp::ecn::Ecn;
use crate::tcp::mss::checked_mss;
use crate::tcp::options::{Hop, TcpOptions};
use crate::tcp::paws::{TsState, ts_clock};
use crate::tcp::receive::{InitialWindow, MAX_WSCALE};
use crate::tcp::reset::answer_with_reset;
use crate::tcp::seq::SeqNum;
use crate::tcp::time_wait::in_window;
use crate::time::{Duration, Instant};
use crate::wire::segment::{FastOpen, Flags, Options, Segment, SegmentHeader, Timestamps};

/// Linux `TCP_RTO_MAX`.
const RTO_MAX: Duration = Duration::from_secs(120);
/// Linux `TCP_TIMEOUT_INIT`, 1 s.
const TIMEOUT_INIT: Duration = Duration::from_secs(1);
/// Bytes the timestamps option takes in every segment.
pub(crate) const TIMESTAMPS_LEN: u32 = 12;

/// A half-open connection without its 4-tuple, which the stack's table keeps. At most 72 bytes.
#[derive(Clone, Debug)]
pub(crate) struct HalfOpen {
    /// When the SYN-ACK is due again; the stack files this deadline. `FAR_FUTURE` while no SYN-ACK was sent (pending).
    pub(crate) deadline: Instant,
    /// When the SYN came.
    pub(crate) opened: Instant,
    /// When the SYN-ACK was first sent, and so the handshake's round-trip sample begins.
    first_sent: Instant,
    /// When it was last sent.
    last_sent: Instant,
    pub(crate) iss: SeqNum,
    pub(crate) irs: SeqNum,
    /// What we acknowledge: behind the SYN, or behind the data it brought (Fast Open).
    rcv_nxt: SeqNum,
    ts_recent: u32,
    ts_offset: u32,
    /// Millisecond (modulo 2^32) of the last answer to an invalid segment, plus one; 0: never.
    last_answer_ms: u32,
    /// The peer's MSS, checked; ours as announced.
    mss: u16,
    advmss: u16,
    /// The SYN's window field.
    wnd: u16,
    wscales: Wscales,
    /// SYN-ACK timer firings (Linux `num_timeout`); 0: "young".
    pub(crate) timeouts: u8,
    /// SYN-ACKs sent again.
    pub(crate) retransmits: u8,
    /// Traffic class of the SYN.
    pub(crate) syn_class: u8,
    agreed: Agreed,
    /// An ACK came that could not complete (accept queue full, or defer accept).
    pub(crate) acked: bool,
    /// Made of a SYN cookie: the MSS it remembered is what the window is a multiple of.
    of_cookie: bool,
}

/// Window scales, 0..=14 each: the peer's and ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Wscales(u8);

impl Wscales {
    const fn new(snd: u8, rcv: u8) -> Self {
        Self(snd << 4 | rcv)
    }

    const fn snd(self) -> u8 {
        self.0 >> 4
    }

    const fn rcv(self) -> u8 {
        self.0 & 15
    }
}

/// Options both ends offered, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Agreed {
    pub(crate) timestamps: bool,
    pub(crate) sack: bool,
    pub(crate) wscale: bool,
    pub(crate) ecn: bool,
}

/// What a half-open connection hands to the connection it becomes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handover {
    pub(crate) irs: SeqNum,
    pub(crate) mss: u16,
    pub(crate) advmss: u16,
    pub(crate) wnd: u16,
    pub(crate) snd_wscale: u8,
    pub(crate) agreed: Agreed,
    /// In force when timestamps are agreed on.
    pub(crate) ts: TsState,
    pub(crate) opened: Instant,
    /// Of the SYN-ACK.
    pub(crate) round_trip: Option<Duration>,
    pub(crate) repeats: Option<SynAckRepeats>,
    pub(crate) initial: InitialWindow,
}

/// A SYN-ACK that was sent more than once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SynAckRepeats {
    pub(crate) count: u8,
    /// Of these, because nothing had come in time.
    pub(crate) timeouts: u8,
    pub(crate) first_sent: Instant,
    /// The answer echoes the very first one (Linux `tcp_try_undo_spurious_syn`).
    pub(crate) needless: bool,
}

/// What a segment did to a half-open connection. Answers were put into `cx.replies`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HalfOpenVerdict {
    /// It stays; the deadline may have moved.
    Keep,
    /// It is gone (reset by the peer). Remove it.
    Kill,
    /// The handshake is done: if the accept queue has room, make a [`crate::tcp::connection::Connection::from_half_open`] and then give it
    /// this same segment; else call [`HalfOpen::on_accept_overflow`].
    Complete,
}

/// What the SYN-ACK timer decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HalfOpenTimeout {
    /// SYN-ACK was sent again (or withheld by defer accept); a new deadline is set.
    Keep,
    /// Given up. Remove it.
    Expire,
}

/// A listener's SYN queue in numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SynQueue {
    /// Half-open connections.
    pub(crate) len: u32,
    /// Of these, never repeated.
    pub(crate) young: u32,
    /// The listener's backlog.
    pub(crate) backlog: u32,
}

impl HalfOpen {
    /// From a SYN (already checked to be one, without ACK, RST, FIN). Sends nothing. `ts_offset`: added to our timestamp clock for this pair.
    /// `advmss`: announced segment size. `missing`: what counts for an MSS that is not offered. `options`: the listener's.
    pub(crate) fn new(
        syn: &Segment,
        iss: SeqNum,
        ts_offset: u32,
        advmss: u16,
        missing: u16,
        options: &TcpOptions,
        cx: &Cx<'_>,
    ) -> Self {
        let offer = &syn.header.options;
        // "SYN-ACK echoes only what the SYN offered."
        let agreed = Agreed {
            timestamps: offer.timestamps.is_some() && cx.sysctl.tcp_timestamps != 0,
            sack: offer.sack_permitted && cx.sysctl.tcp_sack,
            wscale: offer.wscale.is_some() && cx.sysctl.tcp_window_scaling,
            ecn: Ecn::accepts(syn, cx.sysctl),
        };
        let mut half_open = Self {
            deadline: Instant::FAR_FUTURE,
            opened: cx.now,
            first_sent: Instant::FAR_FUTURE,
            last_sent: Instant::FAR_FUTURE,
            iss,
            irs: syn.header.seq,
            rcv_nxt: syn.header.seq + 1,
            ts_recent: offer.timestamps.map_or(0, |ts| ts.tsval),
            ts_offset,
            last_answer_ms: 0,
            mss: checked_mss(offer.mss, missing, options, cx.sysctl),
            advmss: options.maxseg.map_or(advmss, |maxseg| maxseg.min(advmss)),
            wnd: syn.header.wnd,
            wscales: Wscales::default(),
            timeouts: 0,
            retransmits: 0,
            syn_class: syn.class(),
            agreed,
            acked: false,
            of_cookie: false,
        };
        if agreed.wscale {
            let snd = offer.wscale.unwrap_or(0).min(MAX_WSCALE);
            half_open.wscales = Wscales::new(snd, half_open.initial_window(options, cx.sysctl).wscale);
        }
        half_open
    }

    /// One whose SYN nobody kept (Linux `cookie_v4_check`): the MSS is what its cookie says, whatever `TCP_MAXSEG` says.
    pub(crate) fn of_cookie(self, mss: u16) -> Self {
        Self { of_cookie: true, mss, ..self }
    }

    /// Linux `tcp_openreq_init_rwin`, and `cookie_v4_check` for one made of a cookie.
    fn initial_window(&self, options: &TcpOptions, sysctl: &Sysctl) -> InitialWindow {
        let mss = if self.of_cookie {
            u32::from(self.mss)
        } else {
            u32::from(self.advmss) - if self.agreed.timestamps { TIMESTAMPS_LEN } else { 0 }
        };
        InitialWindow::for_socket(options, mss, self.agreed.wscale, sysctl)
    }

    /// Queues the first SYN-ACK and arms its timer. `fast_open`: the option it brings, as no repeat does.
    pub(crate) fn send_syn_ack(
        &mut self,
        tuple: &FourTuple,
        options: &TcpOptions,
        fast_open: Option<FastOpen>,
        cx: &mut Cx<'_>,
    ) {
        self.first_sent = cx.now;
        self.deadline = cx.now + self.timeout();
        cx.counters.out_segs += 1;
        self.push_syn_ack(tuple, options, fast_open, cx);
    }

    fn push_syn_ack(
        &mut self,
        tuple: &FourTuple,
        options: &TcpOptions,
        fast_open: Option<FastOpen>,
        cx: &mut Cx<'_>,
    ) {
        let initial = self.initial_window(options, cx.sysctl);
        self.last_sent = cx.now;
        let header = SegmentHeader {
            src_port: tuple.local.port(),
            dst_port: tuple.remote.port(),
            seq: self.iss,
            ack: self.rcv_nxt,
            flags: Flags::SYN | Flags::ACK | if self.agreed.ecn { Flags::ECE } else { Flags::NONE },
            // The window of a SYN is never scaled (RFC 7323 2.2).
            wnd: initial.rcv_wnd.min(65_535) as u16,
            urg: 0,
            options: Options {
                mss: Some(self.advmss),
                wscale: self.agreed.wscale.then_some(self.wscales.rcv()),
                sack_permitted: self.agreed.sack,
                timestamps: self.timestamps(cx.now),
                fast_open,
                ..Options::default()
            },
        };
        let mut hop = options.hop(tuple);
        if cx.sysctl.tcp_reflect_tos {
            hop.tos = self.syn_class;
        }
        cx.replies.push(Reply { tuple: *tuple, header, hop }, cx.counters);
    }

    /// The SYN brought `len` bytes, which were taken.
    pub(crate) fn take_data(&mut self, len: u32) {
        self.rcv_nxt += len;
    }

    /// Linux `tcp_rtx_synack`.
    fn repeat_syn_ack(&mut self, cookie: u64, tuple: &FourTuple, options: &TcpOptions, cx: &mut Cx<'_>) {
        self.retransmits = self.retransmits.saturating_add(1);
        // Linux tcp_make_synack() counts every SYN-ACK it makes.
        cx.counters.out_segs += 1;
        cx.counters.retrans_segs += 1;
        cx.counters.tcp_syn_retrans += 1;
        cx.emit(cookie, tuple, || EventKind::RetransmitSynAck, EventMask::LOSS);
        self.push_syn_ack(tuple, options, None, cx);
    }

    fn timestamps(&self, now: Instant) -> Option<Timestamps> {
        self.agreed
            .timestamps
            .then(|| Timestamps { tsval: ts_clock(now, self.ts_offset), tsecr: self.ts_recent })
    }

    /// 1 s doubled with each firing, at most `TCP_RTO_MAX`: `tcp_rto_max_ms` does not reach a half-open connection.
    fn timeout(&self) -> Duration {
        TIMEOUT_INIT.saturating_mul(1 << self.timeouts.min(16)).min(RTO_MAX)
    }

    /// Linux `tcp_check_req`. Not for a pending one that has sent no SYN-ACK: that is the stack's. `has_child`: a connection
    /// exists already (Fast Open), which judges the acknowledgment, and dies of nothing but a RST.
    pub(crate) fn on_segment(
        &mut self,
        cookie: u64,
        tuple: &FourTuple,
        segment: &Segment,
        options: &TcpOptions,
        has_child: bool,
        cx: &mut Cx<'_>,
    ) -> HalfOpenVerdict {
        let header = &segment.header;
        let (seq, end_seq, flags) = (header.seq, segment.end_seq(), header.flags);
        let seen = header.options.timestamps.filter(|_| self.agreed.timestamps);
        let tsval = seen.map(|ts| ts.tsval);
        let paws_reject =
            tsval.is_some_and(|tsval| self.ts_state(cx.now).rejects(tsval, flags.rst(), cx.now));

        // Linux: the echo must be of one of our SYN-ACKs (`snt_tsval_first` to `snt_tsval_last`); a child's may be of its data.
        let tsecr_reject =
            !has_child && seen.is_some_and(|ts| ts.tsecr != 0 && !self.echoes_a_syn_ack(ts.tsecr));

        // "Check for pure retransmitted SYN."
        if seq == self.irs && is_bare_syn(flags) && !paws_reject {
            if self.may_answer(cx.now, cx.sysctl.tcp_invalid_ratelimit) {
                self.repeat_syn_ack(cookie, tuple, options, cx);
                if !has_child {
                    self.deadline = cx.now + self.timeout();
                }
            } else {
                cx.counters.tcp_ack_skipped_syn_recv += 1;
            }
            return HalfOpenVerdict::Keep;
        }
        // RFC 9293 3.10.7.4: "If the connection is in any non-synchronized state … and the incoming segment acknowledges
        // something not yet sent …, a reset is sent."
        // A reset is judged by its sequence number alone.
        if flags.ack() && !flags.rst() && !has_child && header.ack != self.iss + 1 {
            cx.drop_segment(cookie, tuple, DropReason::TcpInvalidAck);
            answer_with_reset(cookie, tuple, segment, ResetReason::InvalidAckSequence, cx);
            return HalfOpenVerdict::Keep;
        }
        let rcv_nxt = self.rcv_nxt;
        let window = self.initial_window(options, cx.sysctl).rcv_wnd;
        if paws_reject || tsecr_reject || !in_window(seq, end_seq, rcv_nxt, rcv_nxt + window) {
            if !flags.rst() {
                // Linux tcp_oow_rate_limited(): "Data packets without SYNs are not likely part of an ACK loop."
                if segment.seq_len() > 0 && !flags.syn() {
                    self.push_ack(tuple, segment, options, cx);
                } else {
                    self.answer(tuple, segment, options, cx);
                }
            }
            let reason = match (paws_reject, tsecr_reject) {
                (true, _) => {
                    cx.counters.paws_estab += 1;
                    DropReason::TcpPaws
                }
                (_, true) => {
                    cx.counters.tsecr_rejected += 1;
                    DropReason::TcpPaws
                }
                _ => DropReason::TcpOverWindow,
            };
            cx.drop_segment(cookie, tuple, reason);
            return HalfOpenVerdict::Keep;
        }
        if let Some(tsval) = tsval
            && seq.at_or_before(rcv_nxt)
        {
            self.ts_recent = tsval;
        }
        // "Truncate SYN, it is out of window starting at rcv_isn + 1."
        let syn = flags.syn() && seq != self.irs;
        if flags.rst() && seq != rcv_nxt {
            // RFC 5961 3.2: in the window but not exact.
            if self.may_answer(cx.now, cx.sysctl.tcp_invalid_ratelimit) {
                cx.counters.tcp_challenge_ack += 1;
                self.push_ack(tuple, segment, options, cx);
            } else {
                cx.counters.tcp_ack_skipped_challenge += 1;
            }
            cx.drop_segment(cookie, tuple, DropReason::TcpReset);
            return HalfOpenVerdict::Keep;
        }
        if flags.rst() || syn {
            cx.counters.attempt_fails += 1;
            cx.counters.embryonic_rsts += u64::from(!has_child);
            if !flags.rst() {
                answer_with_reset(cookie, tuple, segment, ResetReason::InvalidSyn, cx);
                return if has_child { HalfOpenVerdict::Keep } else { HalfOpenVerdict::Kill };
            }
            if !has_child {
                cx.emit(cookie, tuple, || EventKind::ResetReceived, EventMask::RESET);
            }
            return HalfOpenVerdict::Kill;
        }
        if !flags.ack() {
            cx.drop_segment(cookie, tuple, DropReason::TcpNoAck);
            return HalfOpenVerdict::Keep;
        }
        // "While TCP_DEFER_ACCEPT is active, drop bare ACK."
        if !has_child && self.timeouts < options.defer_accept_rounds && end_seq == rcv_nxt {
            self.acked = true;
            cx.counters.tcp_defer_accept_drop += 1;
            cx.drop_segment(cookie, tuple, DropReason::DeferAccept);
            return HalfOpenVerdict::Keep;
        }
        HalfOpenVerdict::Complete
    }

    /// The accept queue was full at the final ACK: counters, and RST if `tcp_abort_on_overflow`. True: remove it.
    pub(crate) fn on_accept_overflow(
        &mut self,
        cookie: u64,
        tuple: &FourTuple,
        segment: &Segment,
        cx: &mut Cx<'_>,
    ) -> bool {
        cx.counters.listen_overflows += 1;
        cx.counters.listen_drops += 1;
        cx.drop_segment(cookie, tuple, DropReason::ListenOverflow);
        if !cx.sysctl.tcp_abort_on_overflow {
            self.acked = true;
            return false;
        }
        cx.counters.embryonic_rsts += 1;
        answer_with_reset(cookie, tuple, segment, ResetReason::AcceptOverflow, cx);
        true
    }

    /// The SYN-ACK timer is due (Linux `reqsk_timer_handler`). `queue`: the listener's SYN queue.
    pub(crate) fn on_timeout(
        &mut self,
        cookie: u64,
        tuple: &FourTuple,
        options: &TcpOptions,
        queue: SynQueue,
        cx: &mut Cx<'_>,
    ) -> HalfOpenTimeout {
        let retries = options.syncnt.unwrap_or(cx.sysctl.tcp_synack_retries);
        let retries = pruned_retries(retries, queue);
        let rounds = options.defer_accept_rounds;
        // Linux `syn_ack_recalc`: "Do not resend while waiting for data after ACK, start to resend on end of deferring period".
        let (expire, resend) = if rounds == 0 {
            (self.timeouts >= retries, true)
        } else {
            (
                self.timeouts >= retries && (!self.acked || self.timeouts >= rounds),
                !self.acked || self.timeouts >= rounds - 1,
            )
        };
        cx.counters.tcp_timeouts += 1;
        if expire {
            return HalfOpenTimeout::Expire;
        }
        if resend {
            self.repeat_syn_ack(cookie, tuple, options, cx);
        }
        self.timeouts = self.timeouts.saturating_add(1);
        self.deadline = cx.now + self.timeout();
        HalfOpenTimeout::Keep
    }

    /// The SYN-ACK timer of a connection that exists already (Linux `tcp_fastopen_synack_timer`).
    pub(crate) fn on_childs_timeout(
        &mut self,
        cookie: u64,
        tuple: &FourTuple,
        options: &TcpOptions,
        cx: &mut Cx<'_>,
    ) -> HalfOpenTimeout {
        cx.counters.tcp_timeouts += 1;
        // "Add one more retry for fastopen."
        let retries = options.syncnt.map_or(u32::from(cx.sysctl.tcp_synack_retries) + 1, u32::from);
        if u32::from(self.timeouts) >= retries {
            return HalfOpenTimeout::Expire;
        }
        self.repeat_syn_ack(cookie, tuple, options, cx);
        self.timeouts = self.timeouts.saturating_add(1);
        self.deadline = cx.now + self.timeout();
        HalfOpenTimeout::Keep
    }

    /// Round trip of the SYN-ACK that `answer` acknowledges (Linux `tcp_synack_rtt_meas`): where it was repeated, or nobody remembers
    /// when it was sent (a SYN cookie), the echo tells, in whole milliseconds and at least one.
    pub(crate) fn round_trip(&self, answer: &SegmentHeader, now: Instant) -> Option<Duration> {
        if self.retransmits == 0 && self.first_sent.is_armed() {
            return Some(now.saturating_since(self.first_sent));
        }
        let elapsed = ts_clock(now, self.ts_offset).wrapping_sub(self.echo(answer)?).max(1);
        (elapsed < i32::MAX as u32 / 1000).then(|| Duration::from_millis(elapsed.into()))
    }

    /// Of our timestamp clock, in an answer.
    fn echo(&self, answer: &SegmentHeader) -> Option<u32> {
        let tsecr = answer.options.timestamps.filter(|_| self.agreed.timestamps)?.tsecr;
        (tsecr != 0).then_some(tsecr)
    }

    /// What the connection begins with. `answer` acknowledges the SYN-ACK; a Fast Open child begins without.
    pub(crate) fn handover(
        &self,
        answer: Option<&SegmentHeader>,
        options: &TcpOptions,
        sysctl: &Sysctl,
        now: Instant,
    ) -> Handover {
        let first = ts_clock(self.first_sent, self.ts_offset);
        Handover {
            irs: self.irs,
            mss: self.mss,
            advmss: self.advmss,
            wnd: self.wnd,
            snd_wscale: self.wscales.snd(),
            agreed: self.agreed,
            ts: TsState { recent: self.ts_recent, stored: now, offset: self.ts_offset },
            opened: self.opened,
            round_trip: answer.and_then(|answer| self.round_trip(answer, now)),
            repeats: (self.retransmits > 0).then(|| SynAckRepeats {
                count: self.retransmits,
                timeouts: self.timeouts,
                first_sent: self.first_sent,
                needless: answer.is_some_and(|answer| self.echo(answer) == Some(first)),
            }),
            initial: self.initial_window(options, sysctl),
        }
    }

    /// Linux: "We do not store true stamp, but it is not required, it can be estimated".
    fn ts_state(&self, now: Instant) -> TsState {
        TsState { recent: self.ts_recent, stored: now - self.timeout(), offset: self.ts_offset }
    }

    /// A timestamp between our first SYN-ACK's and our last one's.
    fn echoes_a_syn_ack(&self, tsecr: u32) -> bool {
        if !self.first_sent.is_armed() {
            return true; // after a SYN cookie nobody remembers
        }
        let (first, last) =
            (ts_clock(self.first_sent, self.ts_offset), ts_clock(self.last_sent, self.ts_offset));
        last.wrapping_sub(first) >= tsecr.wrapping_sub(first)
    }

    fn may_answer(&mut self, now: Instant, every: Duration) -> bool {
        let now_ms = now.as_millis() as u32;
        if self.last_answer_ms != 0
            && u128::from(now_ms.wrapping_sub(self.last_answer_ms - 1)) < every.as_millis()
        {
            return false;
        }
        self.last_answer_ms = now_ms.wrapping_add(1).max(1);
        true
    }

    fn answer(&mut self, tuple: &FourTuple, segment: &Segment, options: &TcpOptions, cx: &mut Cx<'_>) {
        if self.may_answer(cx.now, cx.sysctl.tcp_invalid_ratelimit) {
            self.push_ack(tuple, segment, options, cx);
        } else {
            cx.counters.tcp_ack_skipped_syn_recv += 1;
        }
    }

    /// Linux `tcp_v4_reqsk_send_ack`.
    fn push_ack(&self, tuple: &FourTuple, segment: &Segment, options: &TcpOptions, cx: &mut Cx<'_>) {
        let header = SegmentHeader {
            src_port: tuple.local.port(),
            dst_port: tuple.remote.port(),
            seq: self.iss + 1,
            ack: self.irs + 1,
            flags: Flags::ACK,
            wnd: (self.initial_window(options, cx.sysctl).rcv_wnd >> self.wscales.rcv()) as u16,
            urg: 0,
            options: Options { timestamps: self.timestamps(cx.now), ..Options::default() },
        };
        cx.counters.out_segs += 1;
        let hop = Hop::answering(segment);
        cx.replies.push(Reply { tuple: *tuple, header, hop }, cx.counters);
    }
}

/// Flags that make a SYN a pure one (Linux `flg == TCP_FLAG_SYN`; ECN bits aside).
fn is_bare_syn(flags: Flags) -> bool {
    flags.syn() && !flags.intersects(Flags::ACK | Flags::RST)
}

/// Linux: a SYN queue over half full gives up old requests sooner, never below two retries.
fn pruned_retries(mut retries: u8, queue: SynQueue) -> u8 {
    if queue.len * 2 > queue.backlog.max(8) {
        let mut young = u64::from(queue.young) * 2;
        while retries > 2 && u64::from(queue.len) >= young {
            retries -= 1;
            young *= 2;
        }
    }
    retries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::context::testing::{TUPLE, TestCx};
    use crate::wire::segment::FastOpenCookie;
    use bytes::Bytes;

    fn segment(flags: Flags, seq: u32, ack: u32, options: Options) -> Segment {
        Segment {
            src: TUPLE.remote.ip(),
            dst: TUPLE.local.ip(),
            header: SegmentHeader {
                seq: SeqNum(seq),
                ack: SeqNum(ack),
                flags,
                wnd: 1000,
                options,
                ..SegmentHeader::default()
            },
            payload: Bytes::new(),
            segs: 1,
            tos: 0,
            ttl: 64,
            truesize: 40,
        }
    }

    fn syn_options() -> Options {
        Options {
            mss: Some(1460),
            wscale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { tsval: 50, tsecr: 0 }),
            ..Options::default()
        }
    }

    const QUIET: SynQueue = SynQueue { len: 1, young: 1, backlog: 128 };

    /// Specification 13.6: SYN-ACK at 0, 1, 3, 7, 15, 31 s, gone at 63 s.
    #[test]
    fn syn_ack_is_repeated_as_linux_does() {
        let (mut world, options) = (TestCx::at(Instant::ZERO), TcpOptions::default());
        let syn = segment(Flags::SYN, 1000, 0, syn_options());
        let mut half_open = HalfOpen::new(&syn, SeqNum(7), 0, 1460, 536, &options, &world.cx());
        half_open.send_syn_ack(&TUPLE, &options, None, &mut world.cx());
        let mut sent = vec![0];
        loop {
            world.now = half_open.deadline;
            if half_open.on_timeout(1, &TUPLE, &options, QUIET, &mut world.cx()) == HalfOpenTimeout::Expire {
                break;
            }
            sent.push(world.now.as_millis() / 1000);
        }
        assert_eq!(sent, [0, 1, 3, 7, 15, 31]);
        assert_eq!(world.now, Instant::from_millis(63_000));
        assert_eq!((world.counters.tcp_timeouts, world.counters.retrans_segs), (6, 5));
    }

    #[test]
    fn syn_ack_offers_what_the_syn_offered() {
        let (mut world, options) = (TestCx::at(Instant::from_millis(77)), TcpOptions::default());
        let plain = segment(Flags::SYN, 1000, 0, Options { mss: Some(20), ..Options::default() });
        let mut half_open = HalfOpen::new(&plain, SeqNum(7), 0, 1460, 536, &options, &world.cx());
        half_open.send_syn_ack(&TUPLE, &options, None, &mut world.cx());
        let header = world.replies.pop().expect("a SYN-ACK").header;
        assert_eq!(header.options, Options { mss: Some(1460), ..Options::default() });
        assert_eq!((header.wnd, header.ack), (64_240, SeqNum(1001)));
        assert_eq!(half_open.handover(None, &options, &world.sysctl, world.now).mss, 48, "tcp_min_snd_mss");

        let full = segment(Flags::SYN, 1000, 0, syn_options());
        let mut half_open = HalfOpen::new(&full, SeqNum(7), 5, 1460, 536, &options, &world.cx());
        half_open.send_syn_ack(&TUPLE, &options, None, &mut world.cx());
        let header = world.replies.pop().expect("a SYN-ACK").header;
        assert_eq!(header.options.timestamps, Some(Timestamps { tsval: 82, tsecr: 50 }));
        assert_eq!((header.wnd, header.options.wscale), (65_160, Some(10)));
    }

    fn syn_ack(world: &mut TestCx, syn: &Segment, options: &TcpOptions) -> Reply {
        let mut half_open = HalfOpen::new(syn, SeqNum(7), 0, 1460, 536, options, &world.cx());
        half_open.send_syn_ack(&TUPLE, options, None, &mut world.cx());
        world.replies.pop().expect("a SYN-ACK")
    }

    #[test]
    fn syn_ack_is_as_the_listeners_options_say() {
        let mut world = TestCx::at(Instant::ZERO);
        let options = TcpOptions {
            maxseg: Some(1000),
            rcvbuf: Some(20_000),
            window_clamp: 6_000,
            tos: 0x10,
            ttl: 33,
            ..TcpOptions::default()
        };
        let mut syn = segment(Flags::SYN, 1000, 0, syn_options());
        syn.tos = 0x28;
        let Reply { header, hop, .. } = syn_ack(&mut world, &syn, &options);
        assert_eq!((header.options.mss, header.options.wscale), (Some(1000), Some(0)));
        assert_eq!(
            header.wnd,
            6 * (1000 - TIMESTAMPS_LEN as u16),
            "a multiple of the segment size, options taken off"
        );
        assert_eq!(hop, Hop { ttl: 33, tos: 0x10 });
        world.sysctl.tcp_reflect_tos = true;
        assert_eq!(syn_ack(&mut world, &syn, &options).hop, Hop { ttl: 33, tos: 0x28 });
        let large = TcpOptions { maxseg: Some(9000), ..TcpOptions::default() };
        assert_eq!(
            syn_ack(&mut world, &syn, &large).header.options.mss,
            Some(1460),
            "no more than the link carries"
        );
    }

    #[test]
    fn syn_ack_offers_what_the_sysctls_allow() {
        let mut world = TestCx::at(Instant::from_millis(77));
        let syn = segment(Flags::SYN, 1000, 0, syn_options());
        world.sysctl.tcp_timestamps = 0;
        world.sysctl.tcp_sack = false;
        world.sysctl.tcp_window_scaling = false;
        let header = syn_ack(&mut world, &syn, &TcpOptions::default()).header;
        assert_eq!(header.options, Options { mss: Some(1460), ..Options::default() });
        assert_eq!(header.wnd, 64_240, "nothing is taken off the segment size");
    }

    /// RFC 3168 6.1.1; `tcp_ecn` 2, the default, lets the peer ask.
    #[test]
    fn syn_ack_agrees_to_ecn_where_it_is_asked_for() {
        let mut world = TestCx::at(Instant::ZERO);
        let asks = Flags::SYN | Flags::ECE | Flags::CWR;
        for (tcp_ecn, flags, tos, ece) in [
            (2, asks, 0, true),
            (1, asks, 0, true),
            (0, asks, 0, false),
            (2, Flags::SYN, 0, false),
            (2, Flags::SYN | Flags::ECE, 0, false),
            (2, asks, 2, false),
        ] {
            world.sysctl.tcp_ecn = tcp_ecn;
            let syn = Segment { tos, ..segment(flags, 1000, 0, syn_options()) };
            let flags = syn_ack(&mut world, &syn, &TcpOptions::default()).header.flags;
            assert_eq!(flags.ece(), ece, "tcp_ecn {tcp_ecn}, {:?}, tos {tos}", syn.header.flags);
            assert!(!flags.cwr() && flags.contains(Flags::SYN | Flags::ACK));
        }
    }

    /// Linux `tcp_rtx_synack`: what is repeated has no Fast Open option, and still acknowledges the SYN's data.
    #[test]
    fn only_the_first_syn_ack_brings_a_cookie() {
        let (mut world, options) = (TestCx::at(Instant::ZERO), TcpOptions::default());
        let syn = segment(Flags::SYN, 1000, 0, syn_options());
        let mut half_open = HalfOpen::new(&syn, SeqNum(7), 0, 1460, 536, &options, &world.cx());
        half_open.take_data(100);
        let cookie = FastOpenCookie::new(&[1, 2, 3, 4]).expect("a length that cookies have");
        let offer = FastOpen { experimental: false, cookie };
        half_open.send_syn_ack(&TUPLE, &options, Some(offer), &mut world.cx());
        let first = world.replies.pop().expect("a SYN-ACK").header;
        assert_eq!((first.options.fast_open, first.ack), (Some(offer), SeqNum(1101)));
        world.now = half_open.deadline;
        half_open.on_childs_timeout(1, &TUPLE, &options, &mut world.cx());
        let again = world.replies.pop().expect("a SYN-ACK").header;
        assert_eq!((again.options.fast_open, again.ack, again.seq), (None, SeqNum(1101), first.seq));
        let first = first.options.timestamps.expect("agreed on");
        assert_eq!(
            again.options.timestamps.map(|ts| ts.tsval),
            Some(first.tsval + 1000),
            "the clock goes on"
        );
    }

    #[test]
    fn final_segments_are_judged_in_linux_order() {
        let (mut world, options) = (TestCx::at(Instant::ZERO), TcpOptions::default());
        let syn = segment(Flags::SYN, 1000, 0, Options::default());
        let fresh = |world: &mut TestCx| {
            let mut half_open = HalfOpen::new(&syn, SeqNum(7), 0, 1460, 536, &options, &world.cx());
            half_open.send_syn_ack(&TUPLE, &options, None, &mut world.cx());
            world.replies.pop();
            half_open
        };
        let none = Options::default();
        let rows = [
            (segment(Flags::ACK, 1001, 8, none), HalfOpenVerdict::Complete, None),
            (segment(Flags::ACK, 1001, 9, none), HalfOpenVerdict::Keep, Some(Flags::RST)),
            (segment(Flags::RST, 1001, 0, none), HalfOpenVerdict::Kill, None),
            (segment(Flags::RST, 1002, 0, none), HalfOpenVerdict::Keep, Some(Flags::ACK)),
            (segment(Flags::RST, 999, 0, none), HalfOpenVerdict::Keep, None),
            (segment(Flags::SYN, 1005, 0, none), HalfOpenVerdict::Kill, Some(Flags::RST | Flags::ACK)),
            (segment(Flags::SYN, 1000, 0, none), HalfOpenVerdict::Keep, Some(Flags::SYN | Flags::ACK)),
            (segment(Flags::ACK, 500, 8, none), HalfOpenVerdict::Keep, Some(Flags::ACK)),
            (segment(Flags::NONE, 1001, 0, none), HalfOpenVerdict::Keep, None),
        ];
        for (n, (segment, verdict, reply)) in rows.into_iter().enumerate() {
            let mut half_open = fresh(&mut world);
            assert_eq!(
                half_open.on_segment(1, &TUPLE, &segment, &options, false, &mut world.cx()),
                verdict,
                "row {n}"
            );
            assert_eq!(world.replies.pop().map(|reply| reply.header.flags), reply, "row {n}");
        }
    }

    #[test]
    fn crowded_queue_gives_up_sooner_but_not_below_two() {
        assert_eq!(pruned_retries(5, SynQueue { len: 4, young: 0, backlog: 128 }), 5);
        assert_eq!(pruned_retries(5, SynQueue { len: 100, young: 0, backlog: 128 }), 2);
        assert_eq!(pruned_retries(5, SynQueue { len: 100, young: 30, backlog: 128 }), 4);
        assert_eq!(pruned_retries(5, SynQueue { len: 100, young: 100, backlog: 128 }), 5);
    }

    #[test]
    fn half_open_is_small() {
        assert!(size_of::<HalfOpen>() <= 72, "{} bytes", size_of::<HalfOpen>());
    }
}
