//! One connection: the conductor. It walks RFC 9293 3.10.7.4 and hands values from part to part.
//!
//! Owns:    the state and what is settled at the handshake; the parts [`Sender`], [`Receiver`], [`Reorder`],
//!          [`AckPolicy`], which never point at each other.
//! Input:   segments, time, the application's calls.
//! Output:  a [`Disposition`] after each call; segments when asked (`output`).
//! Rules:   Linux `tcp_rcv_state_process` and `tcp_rcv_established`, in their order of checks.
//! Not here: the table of connections, addresses on the wire (`stack`).

mod app;
mod close;
mod data;
mod fast_open;
mod handshake;
mod info;
mod output;
mod timers;
mod validate;

use core::net::IpAddr;
use core::ops::ControlFlow;
use std::sync::Arc;

use crate::error::{QueuedError, SocketError};
use crate::id::FourTuple;
use crate::observe::life::{Ending, Life, Side};
use crate::observe::reason::{DropReason, ResetReason};
use crate::observe::{EventKind, EventMask};
use crate::stack::Readiness;
use crate::sysctl::Sysctl;
use crate::tcp::ack_policy::{AckEnv, AckPolicy};
use crate::tcp::context::Cx;
use crate::tcp::ecn::Ecn;
use crate::tcp::fast_open::{Attempt, Opening, Over};
use crate::tcp::options::TcpOptions;
use crate::tcp::paws::{TsState, ts_clock};
use crate::tcp::rate_limit::RateLimit;
use crate::tcp::receive::Receiver;
use crate::tcp::reorder::Reorder;
use crate::tcp::reset::answer_with_reset;
use crate::tcp::send::{AckVerdict, AckView, Acked, Sender};
use crate::tcp::seq::SeqNum;
use crate::tcp::state::TcpState;
use crate::tcp::time_wait::TimeWait;
use crate::time::{Duration, Instant};
use crate::wire::segment::{Flags, Segment};

pub(crate) use output::Composed;

/// What the stack settles before a connection begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionSetup {
    pub(crate) tuple: FourTuple,
    pub(crate) cookie: u64,
    pub(crate) iss: SeqNum,
    /// Added to our timestamp clock for this pair.
    pub(crate) ts_offset: u32,
    /// `ts_recent` inherited from a TIME-WAIT taken over, else 0.
    pub(crate) ts_recent: u32,
    /// Path MTU, bytes.
    pub(crate) mtu: u32,
    pub(crate) gso_max_segs: u16,
    pub(crate) gso_max_size: u32,
}

/// What became of a connection after a call. The stack acts on it.
#[derive(Debug)]
pub(crate) enum Disposition {
    /// It lives.
    Keep,
    /// It is in CLOSE: take it out of the table; if nobody holds it, forget it, else keep it for its application until `close`.
    Closed,
    /// As `Closed`, and this mini socket takes its place in the table (unless `tcp_max_tw_buckets` is reached: `TCPTimeWaitOverflow`).
    TimeWait(TimeWait),
}

/// An ICMP error about a packet of this connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IcmpError {
    /// The path takes at most this many bytes.
    PacketTooBig(u32),
    /// Hard only in SYN-SENT, soft afterwards; and whether it takes back a step of RTO backoff (RFC 6069).
    Error(SocketError, bool),
}

/// Go on with the next step, or stop with this result.
type Step = ControlFlow<Disposition>;

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    tuple: FourTuple,
    cookie: u64,
    options: Arc<TcpOptions>,
    state: TcpState,
    send: Sender,
    recv: Receiver,
    reorder: Reorder,
    acks: AckPolicy,
    ecn: Ecn,
    ts_state: TsState,
    /// Timestamps were agreed on (while in SYN-SENT: are offered).
    has_timestamps: bool,
    /// SACK was agreed on (while in SYN-SENT: is offered).
    sack: bool,
    /// Window scaling was agreed on (while in SYN-SENT: is offered).
    wscale: bool,
    snd_wscale: u8,
    iss: SeqNum,
    irs: SeqNum,
    /// MSS as announced in our SYN, bytes.
    advmss: u16,
    /// The peer's MSS, bytes.
    mss_clamp: u16,
    mtu: u32,
    gso_max_segs: u16,
    gso_max_size: u32,
    /// Receiving was shut down (`RCV_SHUTDOWN`): by the application, or by the peer's FIN.
    rcv_shutdown: bool,
    /// Sending was shut down (`SEND_SHUTDOWN`).
    snd_shutdown: bool,
    /// The application has read the end of file.
    eof_read: bool,
    /// No application holds it.
    orphan: bool,
    /// An application made or accepted it (Linux `sk_socket`).
    has_holder: bool,
    /// The last `send` did not take everything: room must be told.
    wants_room: bool,
    keepalive_probe_due: bool,
    keepalive_probes: u8,
    /// Keepalive, and FIN-WAIT-2 of an orphan.
    keepalive_at: Instant,
    error: Option<SocketError>,
    queued_error: Option<Box<QueuedError>>,
    /// Told instead of ETIMEDOUT when the connection is given up.
    soft_error: Option<SocketError>,
    challenge: RateLimit,
    /// When an ACK was last received (Linux `rcv_tstamp`).
    last_received: Instant,
    state_since: Instant,
    ready: Readiness,
    /// A Fast Open child's handshake, until it is over and its listener knows.
    opening: Option<Box<Opening>>,
    /// Fast Open on our side.
    attempt: Option<Box<Attempt>>,
    /// A SYN's data was taken: the peer's by us, or ours by the peer (Linux `syn_data_acked`).
    syn_data_acked: bool,
    segs_in: u32,
    segs_out: u32,
    data_segs_in: u32,
    rcv_ooopack: u32,
    life: Life,
}

impl Connection {
    // ---- the world speaks

    /// One segment of this pair.
    pub(crate) fn on_segment(&mut self, segment: &Segment, cx: &mut Cx<'_>) -> Disposition {
        self.segs_in = self.segs_in.wrapping_add(u32::from(segment.segs));
        if !segment.payload.is_empty() {
            self.data_segs_in = self.data_segs_in.wrapping_add(u32::from(segment.segs));
        }
        let step = match self.state {
            TcpState::Close | TcpState::Listen | TcpState::TimeWait | TcpState::NewSynRecv => {
                self.drop(DropReason::TcpClose, cx);
                return Disposition::Keep;
            }
            TcpState::SynSent => self.on_segment_syn_sent(segment, cx),
            _ => self.on_segment_synchronised(segment, cx),
        };
        match step {
            ControlFlow::Break(disposition) => disposition,
            ControlFlow::Continue(()) => {
                self.settle_ack(cx);
                Disposition::Keep
            }
        }
    }

    /// RFC 9293 3.10.7.4, in Linux's order.
    fn on_segment_synchronised(&mut self, segment: &Segment, cx: &mut Cx<'_>) -> Step {
        self.on_opening_segment(segment, cx)?;
        // First to fourth: timestamps, sequence number, RST, SYN.
        self.validate(segment, cx)?;
        self.ecn.on_segment(segment.ecn());
        // Fifth: ACK.
        let predicted = self.is_predicted(segment);
        let acked = self.on_ack(segment, predicted, cx)?;
        self.after_our_fin_acked(&acked, segment, cx)?;
        // Sixth: URG.
        self.on_urgent(segment, cx);
        // Seventh and eighth: text and FIN.
        self.on_text(segment, predicted, cx)
    }

    /// "fifth, check the ACK field".
    fn on_ack(
        &mut self,
        segment: &Segment,
        predicted: bool,
        cx: &mut Cx<'_>,
    ) -> ControlFlow<Disposition, Acked> {
        let header = &segment.header;
        cx.counters.tcp_hp_hits += u64::from(predicted && !segment.payload.is_empty());
        if predicted && !segment.payload.is_empty() && header.ack == self.send.snd_una() {
            // Linux tcp_rcv_established(): such a segment is data and nothing else, tcp_ack() does not see it.
            self.send.note_window_source(header.seq);
            self.store_timestamp(segment, cx.now);
            return ControlFlow::Continue(Acked::default());
        }
        let mut view = self.ack_view(segment, cx.now);
        view.predicted = predicted;
        let verdict = self.send.on_ack(&view, &self.options, cx);
        cx.events.sign(self.cookie, &self.tuple, self.state);
        let acked = match verdict {
            AckVerdict::Taken(acked) if self.state != TcpState::SynRecv || !acked.old => acked,
            _ if self.state == TcpState::SynRecv => {
                // "If the segment acknowledgment is not acceptable, form a reset segment".
                self.drop(DropReason::TcpInvalidAck, cx);
                answer_with_reset(self.cookie, &self.tuple, segment, ResetReason::InvalidAckSequence, cx);
                return ControlFlow::Break(Disposition::Keep);
            }
            // Linux tcp_rcv_established(): predicted data is queued before the ACK is judged, and stays.
            AckVerdict::TooOld if predicted && !segment.payload.is_empty() => {
                self.send_challenge(cx);
                Acked { old: true, ..Acked::default() }
            }
            AckVerdict::TooOld => {
                if predicted {
                    self.store_timestamp(segment, cx.now);
                }
                return self.challenge_ack(DropReason::TcpTooOldAck, cx);
            }
            AckVerdict::Unsent => return self.challenge_ack(DropReason::TcpAckUnsent, cx),
            AckVerdict::Taken(acked) => acked,
        };
        if !acked.old {
            if self.ecn.on_flags(header.flags, segment.seq_len() > 0) {
                self.acks.send_now();
            }
            // Linux tcp_ack(): sk_err_soft = 0, icsk_probes_out = 0, rcv_tstamp.
            self.soft_error = None;
            self.keepalive_probes = 0;
            self.last_received = cx.now;
        }
        // Linux tcp_rcv_established(): header prediction stores the timestamp before it looks at the ACK.
        if !acked.old || predicted {
            self.store_timestamp(segment, cx.now);
        }
        self.finish_opening(header, &view, cx);
        self.finish_handshake(header, cx);
        self.life.bytes_acked += u64::from(acked.bytes);
        self.tell_room(cx);
        if predicted && segment.seq_len() == 0 && !acked.old {
            // Linux: a pure ACK that was predicted does not look at what is owed.
            return ControlFlow::Break(Disposition::Keep);
        }
        ControlFlow::Continue(acked)
    }

    /// Header prediction (Linux `tcp_rcv_established`, `tcp_fast_path_on`): just what was expected next, and memory for it is
    /// reserved.
    fn is_predicted(&self, segment: &Segment) -> bool {
        let header = &segment.header;
        let timestamps = match (self.ts(), header.options.timestamps) {
            (None, None) => true,
            (Some(ts), Some(seen)) => ts.lag(seen.tsval) <= 0,
            _ => false,
        };
        self.state == TcpState::Established
            && header.flags.without(Flags::PSH) == Flags::ACK
            && header.seq == self.recv.rcv_nxt
            && self.reorder.is_empty()
            && !self.recv.mark.is_set()
            && self.recv.rcv_wnd > 0
            && u32::from(header.wnd) << self.snd_wscale == self.send.snd_wnd()
            && header.options.sack.is_empty()
            && timestamps
            && (segment.payload.is_empty() || self.charge_of(segment).truesize <= self.forward_alloc())
    }

    fn ack_view<'a>(&self, segment: &'a Segment, now: Instant) -> AckView<'a> {
        let header = &segment.header;
        let scale = if header.flags.syn() { 0 } else { self.snd_wscale };
        AckView {
            seq: header.seq,
            ack: header.ack,
            wnd: u32::from(header.wnd) << scale,
            sack: &header.options.sack,
            tsecr: self.ts().and_then(|ts| {
                let tsecr = header.options.timestamps?.tsecr;
                (tsecr != 0).then(|| tsecr.wrapping_sub(ts.offset))
            }),
            ts_now: ts_clock(now, 0),
            takes_sequence: segment.seq_len() > 0,
            ece: header.flags.ece() && !header.flags.syn() && self.ecn.is_on(),
            predicted: false,
            opening: self.is_opening(),
            segs: segment.segs,
        }
    }

    /// RFC 7323 4.3: only a segment at or left of the last ACK sent updates the echo.
    fn store_timestamp(&mut self, segment: &Segment, now: Instant) {
        if let (true, Some(seen)) = (self.has_timestamps, segment.header.options.timestamps)
            && segment.header.seq.at_or_before(self.recv.rcv_wup)
        {
            self.ts_state.store(seen.tsval, now);
        }
    }

    /// The states that wait for the ACK of our FIN.
    fn after_our_fin_acked(&mut self, acked: &Acked, segment: &Segment, cx: &mut Cx<'_>) -> Step {
        if !acked.fin {
            return Step::Continue(());
        }
        self.life.fin_acked_at = Some(cx.now);
        self.tell(Readiness::DRAINED);
        match self.state {
            TcpState::FinWait1 => {
                self.set_state(TcpState::FinWait2, cx);
                if self.orphan { self.enter_orphan_fin_wait_2(segment, cx) } else { Step::Continue(()) }
            }
            TcpState::Closing => Step::Break(self.enter_time_wait(cx)),
            TcpState::LastAck => {
                self.save_metrics(cx);
                self.finish(Ending::Fin, cx);
                Step::Break(Disposition::Closed)
            }
            _ => Step::Continue(()),
        }
    }

    /// An ICMP error quoting a segment of ours that began at `seq`.
    pub(crate) fn on_icmp(&mut self, seq: SeqNum, error: IcmpError, cx: &mut Cx<'_>) -> Disposition {
        if self.state == TcpState::Close {
            return Disposition::Keep;
        }
        // Linux tcp_v4_err(): "if (!between(seq, snd_una, tp->snd_nxt))"; a Fast Open child's SYN-ACK counts.
        let oldest = if self.is_opening() { self.iss } else { self.send.snd_una() };
        if !seq.between(oldest, self.send.snd_nxt()) {
            cx.counters.out_of_window_icmps += 1;
            self.drop(DropReason::IcmpUnmatched, cx);
            return Disposition::Keep;
        }
        match error {
            IcmpError::PacketTooBig(mtu) if self.is_narrowed_by(mtu, cx.sysctl) => self.on_path_mtu(mtu, cx),
            IcmpError::PacketTooBig(_) => {}
            IcmpError::Error(error, _)
                if matches!(self.state, TcpState::SynSent | TcpState::SynRecv)
                    // "Only in fast or simultaneous open. If a fast open socket is already accepted it is treated as
                    // a connected one below."
                    && !(self.is_opening() && self.has_holder) =>
            {
                self.fail(error, cx);
                self.finish(Ending::Failed(error), cx);
                return Disposition::Closed;
            }
            IcmpError::Error(error, reverts_backoff) => {
                // Linux: `inet->recverr` is for what IPv4 brings, also to an AF_INET6 socket; `np->recverr6` for IPv6.
                let is_hard = match self.tuple.remote.ip() {
                    IpAddr::V4(_) => self.options.recverr,
                    IpAddr::V6(_) => self.options.recverr6,
                };
                if is_hard {
                    self.fail(error, cx);
                } else {
                    self.soft_error = Some(error);
                }
                if reverts_backoff && !self.is_opening() {
                    self.send.revert_backoff(seq, cx);
                }
            }
        }
        Disposition::Keep
    }

    /// Linux tcp_v4_err(), tcp_v6_err(): only what ends an attempt to connect is queued. `ip_icmp_error()` asks no option,
    /// `ipv6_icmp_error()` asks `IPV6_RECVERR`.
    pub(crate) fn queue_error(&mut self, error: QueuedError) {
        if self.tuple.remote.is_ipv4() || self.options.recverr6 {
            self.queued_error = Some(Box::new(error));
        }
    }

    /// The link's own packet size became smaller.
    pub(crate) fn on_link_mtu(&mut self, mtu: u32, cx: &mut Cx<'_>) {
        if self.state != TcpState::Close {
            self.on_path_mtu(mtu, cx);
        }
    }

    /// An ICMP error that tells this path MTU counts. Linux tcp_v6_mtu_reduced(): "Drop requests trying to increase our current
    /// mss." IPv4 has no such check.
    pub(crate) fn is_narrowed_by(&self, mtu: u32, sysctl: &Sysctl) -> bool {
        self.tuple.remote.is_ipv4() || self.mss_at(mtu, sysctl) < self.send.mss()
    }

    fn on_path_mtu(&mut self, mtu: u32, cx: &mut Cx<'_>) {
        if mtu < self.mtu {
            self.mtu = mtu;
            self.send.set_mss(self.current_mss(cx), cx);
        }
    }

    // ---- endings

    /// The only place that changes the state: keeps the counters true and tells who watches.
    fn set_state(&mut self, new: TcpState, cx: &mut Cx<'_>) {
        let old = core::mem::replace(&mut self.state, new);
        if old == new {
            return;
        }
        match (old.counts_as_established(), new.counts_as_established()) {
            (false, true) => cx.counters.curr_estab += 1,
            (true, false) => cx.counters.curr_estab = cx.counters.curr_estab.saturating_sub(1),
            _ => {}
        }
        if new == TcpState::Close && old.counts_as_established() {
            cx.counters.estab_resets += 1;
        }
        if new == TcpState::Established && self.life.established_at.is_none() {
            self.life.established_at = Some(cx.now);
        }
        self.state_since = cx.now;
        cx.emit(self.cookie, &self.tuple, || EventKind::StateChange { old, new }, EventMask::LIFE);
    }

    /// Linux `tcp_done`: CLOSE, no timer, nothing owed; an orphan is forgotten by the stack.
    fn finish(&mut self, ending: Ending, cx: &mut Cx<'_>) {
        if matches!(self.state, TcpState::SynSent | TcpState::SynRecv) {
            cx.counters.attempt_fails += 1;
        }
        self.close_state(ending, cx);
    }

    /// To CLOSE, however it came about.
    fn close_state(&mut self, ending: Ending, cx: &mut Cx<'_>) {
        if self.life.ending.is_none() {
            self.life.ending = Some(ending);
            self.life.ended_at = Some(cx.now);
            self.life.unacked_bytes = self.send.unacked_payload();
            let closer = match ending {
                Ending::ResetSent(_) | Ending::Killed => Some(Side::Local),
                Ending::ResetReceived => Some(Side::Remote),
                Ending::Fin | Ending::Failed(_) | Ending::FinWait2Expired | Ending::Abandoned => None,
            };
            self.life.first_close = self.life.first_close.or(closer);
        }
        self.end_opening(Over::Done);
        if self.state != TcpState::Close {
            self.judge_fast_open(cx);
        }
        self.set_state(TcpState::Close, cx);
        self.rcv_shutdown = true;
        self.snd_shutdown = true;
        self.keepalive_at = Instant::FAR_FUTURE;
        self.keepalive_probe_due = false;
        self.send.purge();
        if ending != Ending::Fin {
            self.send.end_backoff();
        }
        self.reorder.purge();
        if self.orphan {
            cx.limits.orphans = cx.limits.orphans.saturating_sub(1);
            self.recv.discard();
        }
        self.tell(Readiness(
            Readiness::HANGUP.0 | Readiness::READABLE.0 | Readiness::WRITABLE.0 | Readiness::DRAINED.0,
        ));
    }

    /// Records an error for the application (Linux `sk_err`, `sk_error_report`).
    fn fail(&mut self, error: SocketError, cx: &mut Cx<'_>) {
        if !self.orphan {
            self.error = Some(error);
            self.tell(Readiness::ERROR);
            cx.emit(self.cookie, &self.tuple, || EventKind::Error(error), EventMask::LIFE);
        }
    }

    /// An acceptable RST arrived (Linux `tcp_reset`).
    fn on_reset(&mut self, cx: &mut Cx<'_>) -> Disposition {
        cx.emit(self.cookie, &self.tuple, || EventKind::ResetReceived, EventMask::RESET);
        let error = match self.state {
            TcpState::SynSent => SocketError::ConnectionRefused,
            TcpState::CloseWait => SocketError::BrokenPipe,
            _ => SocketError::ConnectionReset,
        };
        self.fail(error, cx);
        self.finish(Ending::ResetReceived, cx);
        Disposition::Closed
    }

    /// An end in order: what was measured serves the next connection (Linux `tcp_update_metrics`).
    fn save_metrics(&self, cx: &mut Cx<'_>) {
        if cx.sysctl.tcp_no_metrics_save {
            return;
        }
        let known = cx.metrics.get(&self.tuple, cx.now);
        if let Some(way) = self.send.measured(known, cx.sysctl) {
            cx.metrics.set(&self.tuple, way, cx.now);
        }
    }

    fn three_and_a_half_rto(&self) -> Duration {
        self.send.rto() * 7 / 2
    }

    // ---- shared by the steps

    /// A challenge ACK (RFC 5961), within its rate limit; the segment is dropped.
    fn challenge_ack<C>(&mut self, reason: DropReason, cx: &mut Cx<'_>) -> ControlFlow<Disposition, C> {
        self.drop(reason, cx);
        self.send_challenge(cx);
        ControlFlow::Break(Disposition::Keep)
    }

    /// Linux `tcp_send_challenge_ack`.
    fn send_challenge(&mut self, cx: &mut Cx<'_>) {
        if self.challenge.is_exceeded(cx.now, cx.sysctl.tcp_invalid_ratelimit) {
            cx.counters.tcp_ack_skipped_challenge += 1;
        } else if cx.limits.challenges.allow(cx.now, cx.sysctl.tcp_challenge_ack_limit) {
            cx.counters.tcp_challenge_ack += 1;
            self.acks.send_alone();
        }
    }

    fn drop(&self, reason: DropReason, cx: &mut Cx<'_>) {
        cx.drop_segment(self.cookie, &self.tuple, reason);
    }

    fn tell(&mut self, ready: Readiness) {
        self.ready = self.ready.with(ready);
    }

    fn ack_env(&self, cx: &Cx<'_>) -> AckEnv {
        AckEnv {
            now: cx.now,
            rto: self.send.rto(),
            srtt: self.send.srtt(),
            pingpong_thresh: cx.sysctl.tcp_pingpong_thresh,
            delack_max: self.options.delack_max,
            rto_min: self.options.rto_min.unwrap_or(cx.sysctl.tcp_rto_min),
            rcv_wnd: self.recv.rcv_wnd,
        }
    }

    /// Bytes of header in front of TCP payload: IP and TCP without options.
    fn header_overhead(&self) -> u32 {
        if self.tuple.remote.is_ipv4() { 40 } else { 60 }
    }

    fn ts(&self) -> Option<TsState> {
        self.has_timestamps.then_some(self.ts_state)
    }

    /// Linux `tp->advmss` once timestamps are agreed on.
    fn advmss_less_options(&self) -> u32 {
        let options = if self.has_timestamps { crate::tcp::half_open::TIMESTAMPS_LEN } else { 0 };
        u32::from(self.advmss).saturating_sub(options)
    }

    fn current_mss(&self, cx: &Cx<'_>) -> u32 {
        self.mss_at(self.mtu, cx.sysctl)
    }

    /// Linux `tcp_mtu_to_mss`: payload bytes a segment, timestamps subtracted.
    fn mss_at(&self, mtu: u32, sysctl: &Sysctl) -> u32 {
        let options = if self.has_timestamps { crate::tcp::half_open::TIMESTAMPS_LEN } else { 0 };
        // `TCP_MAXSEG` is in the clamp when it was set before the handshake; afterwards Linux stores it and does nothing.
        let mss = mtu.saturating_sub(self.header_overhead()).min(u32::from(self.mss_clamp));
        // Linux tcp_mtu_to_mss(): the floor first, the options after: 36 for a peer that announces less than 48.
        mss.max(sysctl.tcp_min_snd_mss).saturating_sub(options).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without its queues; the sender's recovery state and the peer's buffers come only with traffic.
    #[test]
    fn idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 984, "{} bytes", size_of::<Connection>());
    }
}
