//! Fast Open in a connection: a child before its handshake is over, and an attempt with data in its SYN.
//!
//! Rules:   specification 4.6. Linux: `tcp_fastopen_create_child`, `tcp_fastopen_add_skb`, `tcp_fastopen_synack_timer`,
//!          `tcp_rcv_synrecv_state_fastopen`, `tcp_send_syn_data`, `tcp_rcv_fastopen_synack`.

use core::ops::ControlFlow;
use std::sync::Arc;

use crate::error::SocketError;
use crate::id::{FourTuple, ListenerId};
use crate::stack::Readiness;
use crate::sysctl::Sysctl;
use crate::tcp::connection::{Connection, ConnectionSetup, Disposition, Step};
use crate::tcp::context::Cx;
use crate::tcp::fast_open::{Attempt, CLIENT_NO_COOKIE, ClientFail, Opening, Over};
use crate::tcp::half_open::{HalfOpen, HalfOpenTimeout, HalfOpenVerdict};
use crate::tcp::metrics::Metrics;
use crate::tcp::options::TcpOptions;
use crate::tcp::send::AckView;
use crate::tcp::state::TcpState;
use crate::time::Instant;
use crate::wire::segment::{FastOpen, Segment, SegmentHeader};

/// Linux `MAX_TCP_OPTION_SPACE`: left free in a SYN with data, "for middleboxes that add private TCP options".
const OPTION_SPACE: u32 = 40;

impl Connection {
    // ---- the server's side

    /// A child out of a SYN with a valid cookie: SYN-RECV, its data readable. The SYN-ACK is still to be sent.
    pub(crate) fn open_fast(
        setup: &ConnectionSetup,
        mut half_open: HalfOpen,
        listener: ListenerId,
        options: Arc<TcpOptions>,
        syn: &Segment,
        fast_open: Option<FastOpen>,
        cx: &mut Cx<'_>,
    ) -> Self {
        let mut connection = Self::from_half_open(setup, &half_open, None, options, cx);
        connection.send.uncount_syn_ack();
        connection.settle_receiver(cx);
        connection.segs_in = u32::from(syn.segs);
        connection.take_syn_data(syn, cx);
        // The SYN-ACK acknowledges it.
        half_open.take_data(syn.payload.len() as u32);
        connection.recv.rcv_wup = connection.recv.rcv_nxt;
        half_open.send_syn_ack(&setup.tuple, &connection.options, fast_open, cx);
        connection.opening = Some(Box::new(Opening { half_open, listener, over: None }));
        connection.tell(Readiness::WRITABLE);
        connection
    }

    /// Linux `tcp_fastopen_add_skb`: nothing is owed for it but what is sent anyway.
    fn take_syn_data(&mut self, segment: &Segment, cx: &mut Cx<'_>) {
        if segment.payload.is_empty() {
            return;
        }
        self.data_segs_in = self.data_segs_in.wrapping_add(u32::from(segment.segs));
        self.syn_data_acked = true;
        self.life.bytes_received += segment.payload.len() as u64;
        let charge = self.charge_of(segment);
        self.recv.push(segment.payload.clone(), segment.truesize, charge, true, cx.counters);
        if self.is_readable() {
            self.tell(Readiness::READABLE);
        }
    }

    /// The handshake goes on (Linux `fastopen_rsk`).
    pub(super) fn is_opening(&self) -> bool {
        self.opening.as_ref().is_some_and(|opening| opening.over.is_none())
    }

    /// A segment before the handshake is over: `Continue` when the connection itself has to judge it.
    pub(super) fn on_opening_segment(&mut self, segment: &Segment, cx: &mut Cx<'_>) -> Step {
        let Some(mut opening) = self.opening.take_if(|opening| opening.over.is_none()) else {
            return ControlFlow::Continue(());
        };
        let (cookie, tuple) = (self.cookie, self.tuple);
        let repeats = opening.half_open.retransmits;
        let verdict = opening.half_open.on_segment(cookie, &tuple, segment, &self.options, true, cx);
        if opening.half_open.retransmits != repeats {
            self.send.count_syn_ack_repeat();
        }
        self.opening = Some(opening);
        match verdict {
            HalfOpenVerdict::Keep => ControlFlow::Break(Disposition::Keep),
            HalfOpenVerdict::Complete => ControlFlow::Continue(()),
            HalfOpenVerdict::Kill => {
                self.end_opening(Over::Reset);
                ControlFlow::Break(self.on_reset(cx))
            }
        }
    }

    /// The final ACK was taken.
    pub(super) fn finish_opening(&mut self, header: &SegmentHeader, view: &AckView<'_>, cx: &mut Cx<'_>) {
        if !self.is_opening() {
            return;
        }
        let half_open = self.opening.as_ref().map(|opening| &opening.half_open);
        if let Some(rtt) = half_open.and_then(|half_open| half_open.round_trip(header, cx.now)) {
            self.send.measure_syn_ack(rtt, cx);
        }
        self.end_opening(Over::Done);
        self.send.count_syn_ack();
        self.send.end_opening(view, cx);
        cx.events.sign(self.cookie, &self.tuple, self.state);
    }

    pub(super) fn end_opening(&mut self, how: Over) {
        if let Some(opening) = &mut self.opening {
            opening.over.get_or_insert(how);
        }
    }

    /// What the listener has to learn, once.
    pub(crate) fn take_over_opening(&mut self) -> Option<(ListenerId, Over)> {
        let opening = self.opening.take_if(|opening| opening.over.is_some())?;
        Some((opening.listener, opening.over?))
    }

    /// The SYN-ACK's timer, which holds back every other of the sender's.
    pub(super) fn opening_deadline(&self) -> Option<Instant> {
        self.opening
            .as_ref()
            .filter(|opening| opening.over.is_none())
            .map(|opening| opening.half_open.deadline)
    }

    pub(super) fn on_opening_timeout(&mut self, cx: &mut Cx<'_>) -> Disposition {
        let Some(opening) = &mut self.opening else { return Disposition::Keep };
        let (cookie, tuple) = (self.cookie, self.tuple);
        match opening.half_open.on_childs_timeout(cookie, &tuple, &self.options, cx) {
            HalfOpenTimeout::Keep => {
                self.send.syn_ack_timed_out(cx);
                self.send.count_syn_ack_repeat();
                Disposition::Keep
            }
            HalfOpenTimeout::Expire => {
                cx.counters.tcp_abort_on_timeout += 1;
                self.give_up(SocketError::TimedOut, cx)
            }
        }
    }

    // ---- the client's side

    /// Linux `tcp_fastopen_cookie_check`: data may go with the SYN.
    pub(crate) fn may_send_syn_data(
        options: &TcpOptions,
        tuple: &FourTuple,
        sysctl: &Sysctl,
        metrics: &Metrics,
        now: Instant,
    ) -> bool {
        needs_no_cookie(options, sysctl)
            || metrics.fast_open(tuple, now).is_some_and(|memory| !memory.given.cookie.is_empty())
    }

    /// Linux `syn_fastopen`, `syn_data`, `syn_data_acked`: one of them.
    pub(super) fn has_opened_fast(&self) -> bool {
        self.syn_data_acked || self.attempt.as_deref().is_some_and(|it| it.option.is_some() || it.syn_data)
    }

    /// Our SYN had the option, and nothing has come since (Linux `syn_fastopen`, `data_segs_in`).
    fn waits_for_first_data(&self) -> bool {
        self.data_segs_in == 0 && self.attempt.as_deref().is_some_and(|attempt| attempt.option.is_some())
    }

    /// Linux `tcp_validate_incoming`: "Disable TFO if RST is out-of-order and no data has been received".
    pub(super) fn suspect_reset_before_data(&mut self, cx: &mut Cx<'_>) {
        let has_sack_blocks = self.sack && self.reorder.highest_block_end().is_some();
        if self.state == TcpState::Established && !has_sack_blocks && self.waits_for_first_data() {
            cx.limits.fast_open_pause.begin(cx.now, cx.sysctl, cx.counters);
        }
    }

    /// The end of a connection: what it teaches about the way (Linux `tcp_fastopen_active_disable_ofo_check`).
    pub(super) fn judge_fast_open(&self, cx: &mut Cx<'_>) {
        if self.waits_for_first_data() {
            if self.reorder.is_only_a_fin() {
                cx.limits.fast_open_pause.begin(cx.now, cx.sysctl, cx.counters);
            }
        } else if self
            .attempt
            .as_deref()
            .is_some_and(|attempt| attempt.option.is_some() && attempt.tests_the_way)
            && !self.tuple.remote.ip().is_loopback()
        {
            cx.limits.fast_open_pause.forget();
        }
    }

    /// An active open that offers Fast Open: its SYN asks for a cookie, or brings one and as much of `data` as fits. How much
    /// of `data` was taken.
    pub(crate) fn attempt_fast_open(&mut self, data: &[u8], more: bool, cx: &mut Cx<'_>) -> usize {
        let memory = cx.metrics.fast_open(&self.tuple, cx.now).unwrap_or_default();
        if cx.limits.fast_open_pause.holds(cx.now, cx.sysctl) {
            // An ordinary SYN.
            let more_follows = more && !data.is_empty();
            self.attempt = Some(Box::new(Attempt { more_follows, ..Attempt::default() }));
            return 0;
        }
        let without_cookie = needs_no_cookie(&self.options, cx.sysctl);
        let may = without_cookie || !memory.given.cookie.is_empty();
        let mut attempt = Attempt {
            option: (!without_cookie).then(|| memory.option()),
            tests_the_way: cx.limits.fast_open_pause.has_been(),
            ..Attempt::default()
        };
        let mut taken = 0;
        if may {
            // "MSS for SYN-data is based on cached MSS and bounded by PMTU and user-MSS."
            let known = if memory.mss == 0 { self.advmss } else { memory.mss.min(self.advmss) };
            let room = u32::from(known).saturating_sub(OPTION_SPACE) as usize;
            taken = data.len().min(room);
            if taken > 0 {
                taken = self.send.put_into_syn(&data[..taken], &self.options, cx);
            }
            attempt.syn_data = taken > 0;
        } else {
            attempt.fail = ClientFail::CookieUnavailable;
        }
        attempt.more_follows = more && taken < data.len();
        self.attempt = Some(Box::new(attempt));
        taken
    }

    /// Linux `tcp_rcv_fastopen_synack`: what the SYN-ACK says about the cookie and the data. True: the data goes again at once.
    pub(super) fn on_fast_open_answer(&mut self, segment: &Segment, cx: &mut Cx<'_>) -> bool {
        let asked = |attempt: &&mut Attempt| attempt.option.is_some() || attempt.syn_data;
        let Some(attempt) = self.attempt.as_deref_mut().filter(asked) else { return false };
        let header: &SegmentHeader = &segment.header;
        let was_repeated = self.send.total_retransmits() > 0;
        // "Ignore an unsolicited cookie."
        let answer = header.options.fast_open.filter(|_| attempt.option.is_some());
        let asked_in_vain = attempt.option.filter(|_| answer.is_none() && !attempt.syn_data && !was_repeated);
        let try_experiment = asked_in_vain.map_or(0, |asked| if asked.experimental { 2 } else { 1 });
        let mss = header.options.mss.unwrap_or(self.mss_clamp);
        cx.metrics.learn_fast_open(&self.tuple, mss, answer, try_experiment, cx.now);
        if attempt.syn_data && self.send.has_unacked_payload() {
            attempt.fail = if was_repeated { ClientFail::SynRetransmitted } else { ClientFail::DataNotAcked };
            cx.counters.tcp_fast_open_active_fail += 1;
            self.send.lose_syn_data(cx);
            return true;
        }
        if attempt.syn_data {
            self.syn_data_acked = true;
            cx.counters.tcp_fast_open_active += 1;
            // "SYN-data is counted as two separate packets in tcp_ack()".
            self.send.uncount_one_of_two();
        }
        self.take_syn_data(segment, cx);
        false
    }
}

/// Linux `tcp_fastopen_no_cookie`.
fn needs_no_cookie(options: &TcpOptions, sysctl: &Sysctl) -> bool {
    options.fast_open_no_cookie || sysctl.tcp_fastopen & CLIENT_NO_COOKIE != 0
}
