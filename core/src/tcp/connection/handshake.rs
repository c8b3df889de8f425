//! Opening: active, passive, simultaneous (RFC 9293 3.10.7.3; Linux `tcp_rcv_synsent_state_process`).

use std::sync::Arc;

use crate::error::SocketError;
use crate::observe::life::{Ending, Life};
use crate::observe::reason::{DropReason, ResetReason};
use crate::stack::Readiness;
use crate::tcp::ack_policy::{AckPolicy, MAX_QUICKACKS};
use crate::tcp::connection::{Connection, ConnectionSetup, Disposition, Step};
use crate::tcp::context::Cx;
use crate::tcp::ecn::Ecn;
use crate::tcp::half_open::{HalfOpen, SynAckRepeats, TIMESTAMPS_LEN};
use crate::tcp::mss::{checked_mss, default_mss};
use crate::tcp::options::TcpOptions;
use crate::tcp::paws::TsState;
use crate::tcp::rate_limit::RateLimit;
use crate::tcp::receive::{InitialWindow, MAX_WSCALE, Receiver};
use crate::tcp::reorder::Reorder;
use crate::tcp::reset::answer_with_reset;
use crate::tcp::send::{AckVerdict, Sender, SenderConfig};
use crate::tcp::seq::SeqNum;
use crate::tcp::state::TcpState;
use crate::time::{Duration, Instant};
use crate::wire::segment::{Segment, SegmentHeader};

impl Connection {
    /// Active open: SYN-SENT, the SYN is owed.
    pub(crate) fn connect(
        setup: &ConnectionSetup,
        options: impl Into<Arc<TcpOptions>>,
        cx: &mut Cx<'_>,
    ) -> Self {
        let options = options.into();
        let sysctl = cx.sysctl;
        let overhead = if setup.tuple.remote.is_ipv4() { 40 } else { 60 };
        let advmss = setup.mtu.saturating_sub(overhead).clamp(88, 65_535) as u16;
        let advmss = options.maxseg.map_or(advmss, |maxseg| maxseg.min(advmss));
        // Linux tcp_connect_init(): options are subtracted only when a TIME-WAIT was taken over.
        let mss = u32::from(advmss) - if setup.ts_recent != 0 { TIMESTAMPS_LEN } else { 0 };
        let rcvbuf = options.rcvbuf.unwrap_or(sysctl.tcp_rmem[1]);
        let initial = InitialWindow::for_socket(&options, mss, sysctl.tcp_window_scaling, sysctl);
        let ts_state = TsState { recent: setup.ts_recent, stored: cx.now, offset: setup.ts_offset };
        cx.counters.active_opens += 1;
        let recv = Receiver::new(initial, rcvbuf, options.rcvbuf.is_some());
        let mut connection = Self { advmss, ts_state, ..Self::begin(setup, options, recv, cx) };
        connection.has_timestamps = sysctl.tcp_timestamps != 0;
        connection.send.set_first_mss(connection.current_mss(cx), connection.has_timestamps);
        connection.acks.expect_least();
        connection.sack = cx.sysctl.tcp_sack;
        connection.ecn = Ecn::ask(cx.sysctl);
        connection.wscale = cx.sysctl.tcp_window_scaling;
        connection.set_state(TcpState::SynSent, cx);
        connection
    }

    /// Passive open done: SYN-RECV about to take the segment that completed it, whose header is `answer`. Give it that segment next.
    /// Without `answer`: a Fast Open child.
    pub(crate) fn from_half_open(
        setup: &ConnectionSetup,
        half_open: &HalfOpen,
        answer: Option<&SegmentHeader>,
        options: impl Into<Arc<TcpOptions>>,
        cx: &mut Cx<'_>,
    ) -> Self {
        let mut options = options.into();
        if cx.sysctl.tcp_reflect_tos {
            Arc::make_mut(&mut options).set_class(&setup.tuple, half_open.syn_class);
        }
        let handover = half_open.handover(answer, &options, cx.sysctl, cx.now);
        let rcvbuf = options.rcvbuf.unwrap_or(cx.sysctl.tcp_rmem[1]);
        let mut recv = Receiver::new(handover.initial, rcvbuf, options.rcvbuf.is_some());
        recv.synchronise(handover.irs);
        cx.counters.passive_opens += 1;
        let mut connection = Self {
            ts_state: handover.ts,
            has_timestamps: handover.agreed.timestamps,
            has_holder: false,
            ecn: Ecn::agreed(handover.agreed.ecn),
            sack: handover.agreed.sack,
            wscale: handover.agreed.wscale,
            snd_wscale: handover.snd_wscale,
            irs: handover.irs,
            advmss: handover.advmss,
            mss_clamp: handover.mss,
            ..Self::begin(setup, options, recv, cx)
        };
        // Linux tcp_create_openreq_child(): the SYN.
        connection.segs_in = 1;
        connection.life.opened_at = handover.opened;
        let config = connection.sender_config(handover.round_trip, handover.repeats, cx);
        connection.send =
            Sender::established(setup.iss, u32::from(handover.wnd), &config, &connection.options, cx);
        connection.set_state(TcpState::SynRecv, cx);
        connection
    }

    /// What every connection begins with; the SYN is queued in the sender.
    fn begin(setup: &ConnectionSetup, options: Arc<TcpOptions>, recv: Receiver, cx: &Cx<'_>) -> Self {
        // Linux tcp_connect_init(): what counts if the peer offers none.
        let mss_clamp = options.maxseg.unwrap_or_else(|| default_mss(setup.tuple.remote.ip()));
        Self {
            tuple: setup.tuple,
            cookie: setup.cookie,
            send: Sender::new(setup.iss, &options, cx),
            recv,
            options,
            state: TcpState::Close,
            reorder: Reorder::default(),
            acks: AckPolicy::new(),
            ecn: Ecn::default(),
            ts_state: TsState { recent: 0, stored: cx.now, offset: setup.ts_offset },
            has_timestamps: false,
            sack: false,
            wscale: false,
            snd_wscale: 0,
            iss: setup.iss,
            irs: SeqNum(0),
            advmss: 536,
            mss_clamp,
            mtu: setup.mtu,
            gso_max_segs: setup.gso_max_segs,
            gso_max_size: setup.gso_max_size,
            rcv_shutdown: false,
            snd_shutdown: false,
            eof_read: false,
            orphan: false,
            has_holder: true,
            wants_room: true,
            keepalive_probe_due: false,
            keepalive_probes: 0,
            keepalive_at: Instant::FAR_FUTURE,
            error: None,
            queued_error: None,
            soft_error: None,
            challenge: RateLimit::default(),
            last_received: cx.now,
            state_since: cx.now,
            ready: Readiness::default(),
            opening: None,
            attempt: None,
            syn_data_acked: false,
            segs_in: 0,
            segs_out: 0,
            data_segs_in: 0,
            rcv_ooopack: 0,
            life: Life { opened_at: cx.now, ..Life::default() },
        }
    }

    fn sender_config(
        &self,
        handshake_rtt: Option<Duration>,
        syn_ack_repeats: Option<SynAckRepeats>,
        cx: &Cx<'_>,
    ) -> SenderConfig {
        let most_segs =
            (self.gso_max_size.saturating_sub(self.header_overhead() + 40) / self.current_mss(cx)).max(1);
        SenderConfig {
            mss: self.current_mss(cx),
            net_header_len: (self.header_overhead() - 20) as u8,
            sack: self.sack,
            timestamps: self.has_timestamps,
            gso_max_segs: self.gso_max_segs.min(most_segs.min(65_535) as u16),
            handshake_rtt,
            way: cx.metrics.get(&self.tuple, cx.now),
            syn_ack_repeats,
        }
    }

    /// RFC 9293 3.10.7.3.
    pub(super) fn on_segment_syn_sent(&mut self, segment: &Segment, cx: &mut Cx<'_>) -> Step {
        let header = &segment.header;
        let flags = header.flags;
        if flags.ack() {
            // "If SEG.ACK =< ISS, or SEG.ACK > SND.NXT, send a reset".
            if !header.ack.after(self.send.snd_una()) || header.ack.after(self.send.snd_nxt()) {
                // Linux: "Previous FIN/ACK or RST/ACK might be ignored": the SYN goes out again at once.
                self.send.hasten_syn(cx);
                self.drop(DropReason::TcpInvalidAck, cx);
                answer_with_reset(self.cookie, &self.tuple, segment, ResetReason::InvalidAckSequence, cx);
                return Step::Break(Disposition::Keep);
            }
            if !self.echo_is_ours(header, cx) {
                cx.counters.paws_active += 1;
                self.drop(DropReason::TcpPaws, cx);
                answer_with_reset(self.cookie, &self.tuple, segment, ResetReason::InvalidAckSequence, cx);
                return Step::Break(Disposition::Keep);
            }
            if flags.rst() {
                return Step::Break(self.on_reset(cx));
            }
            // "if the SYN bit is not set, drop the segment".
            if !flags.syn() {
                self.drop(DropReason::TcpFlags, cx);
                return Step::Break(Disposition::Keep);
            }
            return self.on_syn_ack(segment, cx);
        }
        if flags.rst() {
            self.drop(DropReason::TcpReset, cx);
            return Step::Break(Disposition::Keep);
        }
        if flags.syn() {
            self.on_simultaneous_syn(segment, cx);
        } else {
            self.drop(DropReason::TcpFlags, cx);
        }
        Step::Break(Disposition::Keep)
    }

    /// Linux: the echo must lie between our first SYN and now.
    fn echo_is_ours(&self, header: &SegmentHeader, cx: &Cx<'_>) -> bool {
        let (Some(ts), Some(seen)) = (self.ts(), header.options.timestamps) else { return true };
        let sent = (self.life.opened_at.as_millis() as u32).wrapping_add(ts.offset);
        let now = (cx.now.as_millis() as u32).wrapping_add(ts.offset);
        seen.tsecr == 0 || now.wrapping_sub(sent) >= seen.tsecr.wrapping_sub(sent)
    }

    fn on_syn_ack(&mut self, segment: &Segment, cx: &mut Cx<'_>) -> Step {
        let header = &segment.header;
        self.ecn.on_syn_ack(header.flags);
        self.agree(header, cx);
        if !self.wscale {
            self.recv.disable_scaling();
        }
        let view = self.ack_view(segment, cx.now);
        let verdict = self.send.on_ack(&view, &self.options, cx);
        cx.events.sign(self.cookie, &self.tuple, self.state);
        let AckVerdict::Taken(_) = verdict else {
            return self.challenge_ack(DropReason::TcpInvalidAck, cx);
        };
        self.last_received = cx.now;
        self.recv.synchronise(header.seq);
        self.irs = header.seq;
        let config = self.sender_config(None, None, cx);
        self.send.finish_connect(u32::from(header.wnd), &config, cx);
        self.enter_established(cx);
        if self.on_fast_open_answer(segment, cx) {
            return Step::Break(Disposition::Keep);
        }
        // Linux: the ACK waits to ride on data when data is queued, TCP_DEFER_ACCEPT is set, or quick ACKs are off.
        self.acks.schedule();
        let more_follows = self.attempt.as_ref().is_some_and(|attempt| attempt.more_follows);
        if !(self.send.has_unsent() || more_follows)
            && self.options.defer_accept_rounds == 0
            && !self.acks.in_pingpong(cx.sysctl.tcp_pingpong_thresh)
        {
            self.acks.send_now();
            return Step::Continue(());
        }
        // Linux tcp_rcv_synsent_state_process(): tcp_enter_quickack_mode(), the timer at TCP_DELACK_MAX.
        self.acks.enter_quickack(MAX_QUICKACKS, self.recv.rcv_wnd);
        self.acks.wait_for_data(cx.now);
        Step::Break(Disposition::Keep)
    }

    /// Both ends sent a SYN (RFC 9293 figure 7): SYN-RECV, and our SYN again, now with ACK.
    fn on_simultaneous_syn(&mut self, segment: &Segment, cx: &mut Cx<'_>) {
        let header = &segment.header;
        self.agree(header, cx);
        self.ecn.on_syn(header.flags);
        self.recv.synchronise(header.seq);
        self.irs = header.seq;
        self.send.set_peer_window(header.seq, u32::from(header.wnd), self.sack);
        self.set_state(TcpState::SynRecv, cx);
        self.send.set_first_mss(self.current_mss(cx), self.has_timestamps);
        self.acks.init_rcv_mss(self.advmss.into(), self.send.mss(), self.recv.rcv_wnd);
        self.push_syn_ack(cx);
    }

    /// What the peer's SYN offers settles the options.
    fn agree(&mut self, header: &SegmentHeader, cx: &mut Cx<'_>) {
        let offer = &header.options;
        self.mss_clamp = checked_mss(offer.mss, self.mss_clamp, &self.options, cx.sysctl);
        self.sack &= offer.sack_permitted;
        match offer.wscale {
            Some(shift) if self.wscale => self.snd_wscale = shift.min(MAX_WSCALE),
            // Linux leaves our own scale in force where both ends sent a SYN; a SYN-ACK settles it (its caller).
            _ => self.wscale = false,
        }
        self.has_timestamps &= offer.timestamps.is_some();
        if let (true, Some(seen)) = (self.has_timestamps, offer.timestamps) {
            self.ts_state.recent = seen.tsval;
            self.ts_state.stored = cx.now;
        }
    }

    /// The final ACK of a passive or simultaneous open.
    pub(super) fn finish_handshake(&mut self, header: &SegmentHeader, cx: &mut Cx<'_>) {
        if self.send.is_connecting() {
            // Simultaneous open: our SYN came first, and nothing passive settled the sender.
            let config = self.sender_config(None, None, cx);
            self.send.finish_connect(u32::from(header.wnd) << self.snd_wscale, &config, cx);
            self.send.count_syn_ack();
        } else if self.state == TcpState::SynRecv {
            self.send.set_first_window(u32::from(header.wnd) << self.snd_wscale, cx);
        }
        if self.state == TcpState::SynRecv {
            self.enter_established(cx);
        }
    }

    fn enter_established(&mut self, cx: &mut Cx<'_>) {
        self.set_state(TcpState::Established, cx);
        // A Fast Open child has settled its buffers when it began.
        if self.opening.is_none() {
            self.settle_receiver(cx);
        }
        self.acks.set_last_data(cx.now);
        self.arm_keepalive(cx);
        self.tell(Readiness(Readiness::CONNECTED.0 | Readiness::WRITABLE.0));
        if self.snd_shutdown {
            self.queue_fin_for_close(cx);
        }
    }

    /// Linux `tcp_init_buffer_space`, `tcp_initialize_rcv_mss`.
    pub(super) fn settle_receiver(&mut self, cx: &Cx<'_>) {
        let advmss = self.advmss_less_options();
        self.recv.establish(advmss, cx.now, cx.sysctl);
        self.acks.init_rcv_mss(advmss, self.send.mss(), self.recv.rcv_wnd);
    }

    /// Gives up an attempt that the application cancelled.
    pub(super) fn cancel_connect(&mut self, cx: &mut Cx<'_>) {
        self.close_state(Ending::Failed(SocketError::ConnectionAborted), cx);
    }
}
