//! The sending half of a connection: queue, scoreboard, loss recovery, congestion, and their timer.
//!
//! Owns:    `snd_una`, `snd_nxt`, `write_seq`, the peer's window, every byte not yet acknowledged, the one
//!          shared timer of Linux's `icsk_pending` (retransmit, loss probe, reorder, or window probe).
//! Input:   bytes from the application, [`AckView`]s, its timer.
//! Output:  [`SendPlan`]s: what piece of sequence space to put on the wire next.
//! Events:  recorded without a name; the conductor signs them ([`crate::observe::EventLog::sign`]).
//! Not here: header composition, states (`connection`), keepalive and delayed ACK.

mod ack;
mod buffer;
mod chrono;
mod cwnd;
mod fast_open;
mod give_up;
mod info;
mod loss;
mod metrics;
mod mtu_probe;
mod nagle;
mod on_demand;
mod output;
mod probe;
mod prr;
mod queue;
mod rack;
mod rate;
mod recovery;
mod retransmit;
mod rtt;
mod scoreboard;
mod segments;
mod timer;
mod tlp;
mod undo;
mod urgent;
mod write;

#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::error::SocketError;
use crate::observe::CaState;
use crate::observe::event::{Event, EventKind, EventMask};
use crate::tcp::congestion::{Congestion, INFINITE_SSTHRESH};
use crate::tcp::context::Cx;
use crate::tcp::half_open::SynAckRepeats;
use crate::tcp::metrics::Way;
use crate::tcp::mss::MSS_DEFAULT;
use crate::tcp::options::TcpOptions;
use crate::tcp::send::chrono::{Chrono, Limit};
use crate::tcp::send::cwnd::Cwnd;
use crate::tcp::send::info::Totals;
use crate::tcp::send::mtu_probe::MtuSearch;
use crate::tcp::send::output::{Burst, Due};
use crate::tcp::send::queue::PayloadQueue;
use crate::tcp::send::rack::Rack;
use crate::tcp::send::rate::DeliveryRate;
use crate::tcp::send::recovery::{Counts, Recovery};
use crate::tcp::send::rtt::Rtt;
use crate::tcp::send::segments::Segments;
use crate::tcp::send::timer::{Pending, Timer};
pub(crate) use crate::tcp::send::write::Write;
use crate::tcp::seq::SeqNum;
use crate::tcp::state::TcpState;
use crate::time::{Duration, Instant};
use crate::wire::segment::SackBlocks;

/// What the sender has to know about its connection, settled at the handshake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SenderConfig {
    /// Payload bytes a segment, timestamps already subtracted (Linux `mss_cache`).
    pub(crate) mss: u32,
    /// Bytes of IP header in front of TCP.
    pub(crate) net_header_len: u8,
    /// SACK was negotiated.
    pub(crate) sack: bool,
    /// Timestamps were negotiated.
    pub(crate) timestamps: bool,
    /// Most segments a super-segment may stand for (device's TSO limit); 1: no offload.
    pub(crate) gso_max_segs: u16,
    /// Round-trip sample of the handshake; `None` where there was none (first RTO is then 3 s).
    pub(crate) handshake_rtt: Option<Duration>,
    /// What earlier connections learnt about the way.
    pub(crate) way: Option<Way>,
    /// Our SYN-ACK had to be repeated.
    pub(crate) syn_ack_repeats: Option<SynAckRepeats>,
}

/// The parts of a received segment that concern the sender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckView<'a> {
    /// Sequence number of the segment.
    pub(crate) seq: SeqNum,
    pub(crate) ack: SeqNum,
    /// The peer's window in bytes, already scaled.
    pub(crate) wnd: u32,
    pub(crate) sack: &'a SackBlocks,
    /// Echo of our timestamp clock, microseconds resolution is not needed: milliseconds as on the wire, offset removed.
    pub(crate) tsecr: Option<u32>,
    /// Our timestamp clock now, same unit and offset.
    pub(crate) ts_now: u32,
    /// The segment carries payload, SYN or FIN (not a pure ACK).
    pub(crate) takes_sequence: bool,
    /// ECN echo.
    pub(crate) ece: bool,
    /// Header prediction would have taken it (Linux `tcp_rcv_established`).
    pub(crate) predicted: bool,
    /// A Fast Open child whose SYN-ACK is not acknowledged before this (Linux `fastopen_rsk`).
    pub(crate) opening: bool,
    /// Wire segments merged into this one, at least 1.
    pub(crate) segs: u16,
}

/// What an ACK did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AckVerdict {
    /// Older than `snd_una - max_window`: challenge ACK, drop the segment.
    TooOld,
    /// Acknowledges what was never sent: challenge ACK, drop the segment.
    Unsent,
    /// Taken, or harmlessly old.
    Taken(Acked),
}

/// What a taken ACK newly acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Acked {
    /// `snd_una` moved.
    pub(crate) advanced: bool,
    /// Payload bytes newly acknowledged cumulatively.
    pub(crate) bytes: u32,
    /// Our SYN is acknowledged by this segment.
    pub(crate) syn: bool,
    /// Our FIN is acknowledged by this segment.
    pub(crate) fin: bool,
    /// `ack < snd_una`: nothing new, payload still counts.
    pub(crate) old: bool,
}

/// Why a plan is on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PlanKind {
    /// Sent for the first time.
    New,
    /// Sent again.
    Retransmit,
    /// A tail loss probe that repeats the last segment. (One that sends new data is `New`.)
    LossProbe,
    /// Zero-length probe at `snd_una - 1`.
    WindowProbe,
}

/// One piece of sequence space to put on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SendPlan {
    pub(crate) seq: SeqNum,
    /// Payload bytes.
    pub(crate) len: u32,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) psh: bool,
    /// The window was reduced since the last new segment: tell an ECN peer so (RFC 3168 6.1.2).
    pub(crate) cwr: bool,
    /// Payload bytes a wire segment; `len` above it makes a super-segment.
    pub(crate) segment_size: u32,
    pub(crate) kind: PlanKind,
}

/// What the sender's timer needs to know about its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimerEnv<'a> {
    pub(crate) state: TcpState,
    pub(crate) orphan: bool,
    pub(crate) options: &'a TcpOptions,
    /// When a segment was last received.
    pub(crate) last_received: Instant,
    /// An ICMP error is on record (Linux `sk_err_soft`).
    pub(crate) soft_error: bool,
    /// It began by Fast Open, or tried to.
    pub(crate) fast_open: bool,
}

/// What a firing timer decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TimerVerdict {
    /// Something may have to be sent; ask [`Sender::poll_plan`].
    Continue,
    /// Give up: `tcp_write_err` (no RST), `TCPAbortOnTimeout` already counted.
    GiveUp(SocketError),
    /// An orphan over `tcp_max_orphans` or out of memory: RST if `true`, `TCPAbortOnMemory` already counted.
    OutOfResources {
        /// Send a RST.
        reset: bool,
    },
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sender {
    snd_una: SeqNum,
    snd_nxt: SeqNum,
    write_seq: SeqNum,
    /// End of the last partial segment sent (Minshall's rule).
    snd_sml: SeqNum,
    /// Sequence number of the segment that last updated the window; `None` before the first.
    snd_wl1: Option<SeqNum>,
    /// End of the urgent data; `snd_una` when there is none.
    snd_up: SeqNum,
    /// End of what was last marked with PSH.
    pushed_seq: SeqNum,
    snd_wnd: u32,
    max_window: u32,
    /// Payload bytes a segment as configured, and in use (bounded by half the peer's largest window).
    mss_full: u16,
    mss: u16,
    gso_max_segs: u16,
    header_len: u8,
    net_header_len: u8,
    phase: Phase,
    sack: bool,
    fin_queued: bool,
    /// Nagle and cork do not hold what is queued now (Linux `TCP_NAGLE_PUSH`).
    push_now: bool,
    /// `MSG_MORE`: the burst that follows this write holds a partial segment.
    more: bool,
    /// What is queued waits until an ACK or a write looks at it again: after a TSO deferral, or a timer.
    deferred: bool,
    /// Tell an ECN peer that the window was reduced.
    cwr_owed: bool,
    /// The application filled the send buffer (Linux `SOCK_NOSPACE`).
    nospace: bool,
    /// `SO_SNDBUF` was set: no auto-tuning.
    sndbuf_locked: bool,
    /// Something changed since [`Sender::poll_plan`] last had nothing to give.
    unsettled: bool,
    due: Due,
    burst: Burst,
    /// Consecutive time-outs without progress (Linux `icsk_retransmits`).
    retransmits: u8,
    /// Linux `icsk_backoff`.
    backoff: u8,
    /// Unanswered window probes (Linux `icsk_probes_out`).
    probes_out: u8,
    sndbuf: u32,
    /// When the window probe timer first fired in this stall (Linux `icsk_probes_tstamp`), else far future.
    probes_since: Instant,
    timer: Timer,
    last_sent: Instant,
    /// Linux `sk_pacing_rate`, bytes a second, as the last ACK left it.
    pacing_rate: u64,
    counts: Counts,
    rtt: Rtt,
    cwnd: Cwnd,
    congestion: Congestion,
    recovery: Recovery,
    rack: Rack,
    rate: DeliveryRate,
    segments: Segments,
    queue: PayloadQueue,
    chrono: Chrono,
    totals: Totals,
    /// `None`: the path's segment size is not searched.
    mtu_search: Option<Box<MtuSearch>>,
}

/// How far the handshake is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The SYN was never sent.
    SynOwed,
    /// The SYN is on the wire.
    SynSent,
    /// So is the peer's, and ours again with ACK: a simultaneous open.
    SynReceived,
    /// Data may flow.
    Established,
}

impl Sender {
    /// A sender whose first octet will be a SYN at `iss` (active open, simultaneous open).
    pub(crate) fn new(iss: SeqNum, options: &TcpOptions, cx: &Cx<'_>) -> Self {
        let rtt = Rtt::new(
            options.rto_min.unwrap_or(cx.sysctl.tcp_rto_min),
            options.rto_max.unwrap_or(cx.sysctl.tcp_rto_max),
        );
        let kind = options.congestion.unwrap_or(cx.sysctl.tcp_congestion_control);
        Self {
            snd_una: iss,
            snd_nxt: iss,
            write_seq: iss + 1,
            snd_sml: iss,
            snd_wl1: None,
            snd_up: iss,
            pushed_seq: iss + 1,
            snd_wnd: 0,
            max_window: 0,
            mss_full: MSS_DEFAULT,
            mss: MSS_DEFAULT,
            gso_max_segs: 1,
            header_len: 20,
            net_header_len: 20,
            phase: Phase::SynOwed,
            sack: false,
            fin_queued: false,
            push_now: false,
            more: false,
            deferred: false,
            cwr_owed: false,
            nospace: false,
            sndbuf_locked: options.sndbuf.is_some(),
            unsettled: true,
            due: Due::Nothing,
            burst: Burst::default(),
            retransmits: 0,
            backoff: 0,
            probes_out: 0,
            sndbuf: options.sndbuf.unwrap_or(cx.sysctl.tcp_wmem[1]),
            probes_since: Instant::FAR_FUTURE,
            timer: Timer::IDLE,
            last_sent: cx.now,
            pacing_rate: u64::MAX,
            counts: Counts::default(),
            rtt,
            cwnd: Cwnd::new(iss, cx.now),
            congestion: Congestion::new(kind),
            recovery: Recovery::new(cx.sysctl.tcp_reordering),
            rack: Rack::default(),
            rate: DeliveryRate::default(),
            segments: Segments::NONE,
            queue: PayloadQueue::new(iss + 1),
            chrono: Chrono::default(),
            totals: Totals::default(),
            mtu_search: None,
        }
    }

    /// A sender whose SYN-ACK at `iss` has been acknowledged already (passive open): `snd_una = snd_nxt = iss + 1`.
    pub(crate) fn established(
        iss: SeqNum,
        wnd: u32,
        config: &SenderConfig,
        options: &TcpOptions,
        cx: &Cx<'_>,
    ) -> Self {
        let mut sender = Self::new(iss, options, cx);
        sender.snd_una = iss + 1;
        sender.snd_nxt = iss + 1;
        sender.snd_sml = iss + 1;
        sender.snd_up = iss + 1;
        sender.cwnd.usage_seq = iss + 1;
        sender.totals.delivered = 1; // Linux: the SYN-ACK, which tcp_ack() does not see
        sender.snd_wnd = wnd;
        sender.max_window = wnd;
        if let Some(rtt) = config.handshake_rtt {
            sender.handshake_sample(rtt, cx);
        }
        if let Some(repeats) = &config.syn_ack_repeats {
            sender.take_over_repeats(repeats, cx.now);
        }
        sender.begin(config, cx);
        sender
    }

    /// Enters the established regime after an active open: buffers, RTT sample, window (Linux `tcp_finish_connect`,
    /// `tcp_init_transfer`). `wnd` is the window of the SYN-ACK, not scaled; or what ends a simultaneous open gives, scaled.
    pub(crate) fn finish_connect(&mut self, wnd: u32, config: &SenderConfig, cx: &mut Cx<'_>) {
        self.snd_wnd = wnd;
        // Linux tcp_rcv_synsent_state_process(): the peer's SYN has settled it where both sent one.
        if self.phase != Phase::SynReceived {
            self.max_window = wnd;
        }
        if let (0, Some(rtt)) = (self.rtt.srtt_us, config.handshake_rtt) {
            self.handshake_sample(rtt, cx);
        }
        self.begin(config, cx);
        self.begin_mtu_search(cx);
        self.sync_mss();
        self.update_pacing_rate(cx.sysctl);
    }

    fn handshake_sample(&mut self, rtt: Duration, cx: &Cx<'_>) {
        let rtt_us = rtt::micros(rtt);
        self.rtt.min.sample(cx.now.as_millis() as u32, rtt_us.max(1), u32::MAX);
        self.rtt.sample(rtt_us, self.snd_una, self.snd_nxt);
    }

    /// Linux `tcp_init_transfer`.
    fn begin(&mut self, config: &SenderConfig, cx: &Cx<'_>) {
        let syn_was_lost = self.recovery.totals.retrans > 1 && self.recovery.undo_marker.is_some();
        self.phase = Phase::Established;
        self.sack = config.sack;
        self.header_len = if config.timestamps { 32 } else { 20 };
        self.net_header_len = config.net_header_len;
        self.gso_max_segs = config.gso_max_segs.max(1);
        self.mss_full = config.mss.min(u32::from(u16::MAX)) as u16;
        self.sync_mss();
        self.cwnd.window.snd_cwnd = if syn_was_lost { 1 } else { cwnd::INIT_CWND };
        self.cwnd.stamp = cx.now;
        self.recovery.forget_retrans_stamp();
        if self.recovery.ca_state != CaState::Open {
            // Linux tcp_process_loss(): the handshake's losses are over; without SACK the state is held until something above
            // `high_seq` is acknowledged. tcp_init_metrics(): "ssthresh may have been reduced unnecessarily during 3WHS."
            if self.sack {
                self.recovery.ca_state = CaState::Open;
            }
            self.cwnd.window.snd_ssthresh = INFINITE_SSTHRESH;
            self.congestion = Congestion::new(self.congestion.kind());
        }
        self.take_over(config.way, cx.sysctl);
        self.expand_sndbuf(cx);
        self.unsettled = true;
    }

    /// A bad ACK answered our SYN: if it was not repeated yet, it goes out again in 2 jiffies (8 ms).
    pub(crate) fn hasten_syn(&mut self, cx: &mut Cx<'_>) {
        if self.phase == Phase::SynSent && self.retransmits == 0 {
            self.timer.arm(Pending::Retransmit, cx.now, HASTENED_SYN_US);
        }
    }

    /// The window of the peer's SYN in a simultaneous open, the segment that told it, and whether SACK is agreed on.
    pub(crate) fn set_peer_window(&mut self, seq: SeqNum, wnd: u32, sack: bool) {
        self.phase = Phase::SynReceived;
        self.sack = sack;
        self.snd_wl1 = Some(seq);
        self.snd_wnd = wnd;
        self.max_window = wnd;
    }

    /// The window of the ACK that ends a passive open; the SYN's does not count (Linux `tcp_create_openreq_child`).
    pub(crate) fn set_first_window(&mut self, wnd: u32, cx: &Cx<'_>) {
        self.snd_wnd = wnd;
        self.max_window = wnd;
        self.sync_mss();
        self.update_pacing_rate(cx.sysctl);
        // Linux tcp_init_transfer(): the search begins, and the segment size is looked at with the next larger window only.
        self.begin_mtu_search(cx);
    }

    /// Payload bytes a segment while the handshake lasts (Linux `tcp_connect_init()`, `tcp_sync_mss()`).
    pub(crate) fn set_first_mss(&mut self, mss: u32, timestamps: bool) {
        self.header_len = if timestamps { 32 } else { 20 };
        self.mss_full = mss.min(u32::from(u16::MAX)) as u16;
        self.sync_mss();
    }

    /// Our SYN left once more, with ACK, and is no repeat: its round trip is counted from now (Linux `tcp_send_synack()`).
    pub(crate) fn syn_left_again(&mut self, now: Instant) {
        if !self.segments.is_empty() {
            self.segments.at_mut(0).sent_at = now;
        }
    }

    /// A simultaneous open ends: Linux counts the SYN-ACK as it does in a passive one, though the SYN counted already.
    pub(crate) fn count_syn_ack(&mut self) {
        self.totals.delivered = self.totals.delivered.wrapping_add(1);
    }

    /// The largest window so far, bytes.
    pub(crate) fn max_window(&self) -> u32 {
        self.max_window
    }

    /// Made by [`Sender::new`] and not yet through [`Sender::finish_connect`].
    pub(crate) fn is_connecting(&self) -> bool {
        self.phase != Phase::Established
    }

    /// Path MTU changed: bytes a segment from now on; resends what is too big (Linux `tcp_simple_retransmit`).
    pub(crate) fn set_mss(&mut self, mss: u32, cx: &mut Cx<'_>) {
        self.mss_full = mss.min(u32::from(u16::MAX)) as u16;
        self.sync_mss();
        self.resend_too_big(cx);
        self.unsettled = true;
    }

    /// Linux `tcp_sync_mss`, `tcp_bound_to_half_wnd`: a peer with a tiny window gets segments of half of it.
    fn sync_mss(&mut self) {
        let full = u32::from(self.mss_full);
        let cutoff =
            if self.max_window > u32::from(MSS_DEFAULT) { self.max_window / 2 } else { self.max_window };
        let bounded =
            if cutoff != 0 && full > cutoff { cutoff.max(68 - u32::from(self.header_len)) } else { full };
        let probed = self.mtu_search.as_deref_mut().map_or(bounded, |search| {
            search.high = search.high.min(full);
            bounded.min(search.low)
        });
        self.mss = probed.max(1) as u16;
    }

    /// Queues the FIN behind everything (Linux `tcp_send_fin`: joins the last unsent segment). Nagle and cork no longer hold.
    pub(crate) fn queue_fin(&mut self, cx: &mut Cx<'_>) {
        if self.fin_queued {
            return;
        }
        self.fin_queued = true;
        self.deferred = false;
        self.write_seq += 1;
        self.push_now = true;
        self.chrono.start(Limit::Busy, cx.now);
        self.unsettled = true;
    }

    /// What `MSG_MORE` holds is held no longer (Linux `tcp_splice_eof`); Nagle may still hold it.
    pub(crate) fn expect_no_more(&mut self) {
        if self.has_unsent() {
            self.more = false;
            self.deferred = false;
            self.mark_push();
            self.unsettled = true;
        }
    }

    /// `TCP_NODELAY` was set: Nagle and cork do not hold what is queued now.
    pub(crate) fn push_pending(&mut self) {
        self.push_now = true;
        self.deferred = false;
        self.unsettled = true;
    }

    /// `TCP_CORK` was taken off, or had not been on (Linux `__tcp_sock_set_cork`): neither it nor `MSG_MORE` holds what is queued
    /// now, but Nagle may.
    pub(crate) fn uncork(&mut self, nodelay: bool) {
        self.more = false;
        self.push_now |= nodelay;
        self.deferred = false;
        self.unsettled = true;
    }

    /// Appends the payload slices of a plan, shared with the queue.
    pub(crate) fn copy_payload(&self, plan: &SendPlan, out: &mut Vec<Bytes>) {
        if plan.len > 0 {
            self.queue.copy(plan.seq + u32::from(plan.syn), plan.len, out);
        }
    }

    /// True when [`Sender::poll_plan`] has something to give or to settle. Never false when it would give something.
    pub(crate) fn wants_to_send(&self, options: &TcpOptions, _now: Instant) -> bool {
        self.unsettled || (self.has_unsent() && self.could_send_new(options))
    }

    /// Earliest deadline of the shared timer; `Instant::FAR_FUTURE` when none runs.
    pub(crate) fn deadline(&self) -> Instant {
        self.timer.at
    }

    /// The shared timer is due (Linux `tcp_write_timer_handler`): RTO, loss probe, reorder, or window probe.
    pub(crate) fn on_timer(&mut self, env: &TimerEnv<'_>, cx: &mut Cx<'_>) -> TimerVerdict {
        if cx.now < self.timer.at {
            return TimerVerdict::Continue;
        }
        self.more = false;
        if !self.unsettled {
            // Linux's timers send again and probe; what they leave unsent waits for an ACK or a write, as after a deferral.
            self.deferred = true;
        }
        self.burst.new_stamp();
        self.unsettled = true;
        let fired_at = self.timer.at;
        match self.timer.pending {
            // Linux skb_still_in_host_queue(): what has not left yet is not sent again.
            Some(Pending::Retransmit | Pending::LossProbe) if self.queue.first_plan().is_some() => {
                self.timer.cancel();
                self.rearm_rto(cx.now);
            }
            Some(Pending::Reorder) => self.on_reorder_timer(cx),
            Some(Pending::LossProbe) => self.on_loss_probe_timer(cx),
            Some(Pending::Retransmit) => {
                self.timer.cancel();
                return self.on_retransmit_timer(fired_at, env, cx);
            }
            Some(Pending::WindowProbe) => {
                self.timer.cancel();
                return self.on_window_probe_timer(env, cx);
            }
            None => {}
        }
        TimerVerdict::Continue
    }

    /// Drops everything queued (Linux `tcp_write_queue_purge`).
    pub(crate) fn purge(&mut self) {
        self.leave_behind();
        self.queue.clear();
        self.segments.release();
        if let Some(trouble) = self.recovery.trouble() {
            trouble.sacked.clear();
        }
        self.counts = Counts::default();
        self.timer.cancel();
        self.due = Due::Nothing;
        self.recovery.rexmit = recovery::Rexmit::None;
        self.write_seq = self.snd_nxt;
        self.phase = Phase::Established;
        self.unsettled = false;
    }

    /// Linux `tcp_write_queue_purge` also does this; after an end in order it is not called, and `tcp_info` shows the difference.
    pub(crate) fn end_backoff(&mut self) {
        self.backoff = 0;
    }

    /// Takes over what was set on the socket: all of it counts at once.
    pub(crate) fn refresh(&mut self, options: &TcpOptions) {
        if let Some(min) = options.rto_min {
            self.rtt.rto_min_us = rtt::micros(min);
        }
        if let Some(max) = options.rto_max {
            self.rtt.rto_max_us = rtt::micros(max);
        }
        if let Some(bytes) = options.sndbuf {
            self.sndbuf = bytes;
            self.sndbuf_locked = true;
        }
        if let Some(kind) = options.congestion
            && kind != self.congestion.kind()
        {
            // Linux tcp_init_congestion_control(): the new algorithm begins afresh and undoes nothing of the old one's.
            self.congestion = Congestion::new(kind);
            if let Some(trouble) = self.recovery.trouble() {
                trouble.prior_ssthresh = 0;
            }
        }
    }

    fn emit(cx: &mut Cx<'_>, kind: impl FnOnce() -> EventKind) {
        let at = cx.now;
        cx.events.emit(EventMask::LOSS, || Event { at, cookie: 0, tuple: None, kind: kind() });
    }

    /// First sequence number the peer's window does not allow.
    fn wnd_end(&self) -> SeqNum {
        self.snd_una + self.snd_wnd
    }

    /// Nothing in flight and nothing queued.
    fn is_idle(&self) -> bool {
        self.counts.packets_out == 0 && !self.has_unsent()
    }

    pub(crate) fn snd_una(&self) -> SeqNum {
        self.snd_una
    }
    pub(crate) fn mss(&self) -> u32 {
        u32::from(self.mss)
    }

    pub(crate) fn snd_nxt(&self) -> SeqNum {
        self.snd_nxt
    }
    /// The peer's window, bytes.
    pub(crate) fn snd_wnd(&self) -> u32 {
        self.snd_wnd
    }
    /// Current retransmission time-out.
    pub(crate) fn rto(&self) -> Duration {
        Duration::from_micros(u64::from(self.rtt.rto_us))
    }
    /// Smoothed RTT; `None` without a sample.
    pub(crate) fn srtt(&self) -> Option<Duration> {
        (self.rtt.srtt_us != 0).then(|| Duration::from_micros(u64::from(self.rtt.smoothed_us())))
    }
    /// Data or FIN is in flight.
    pub(crate) fn packets_out(&self) -> u32 {
        self.counts.packets_out
    }
    /// Something is queued and was never sent.
    pub(crate) fn has_unsent(&self) -> bool {
        self.snd_nxt != self.write_seq
    }
    /// Our FIN was queued.
    #[cfg(test)]
    pub(crate) fn fin_queued(&self) -> bool {
        self.fin_queued
    }
    /// Payload bytes not yet acknowledged, unsent ones included; SYN and FIN not counted.
    pub(crate) fn unacked_payload(&self) -> u64 {
        u64::from(self.queue.len())
    }
}

/// Two of Linux's 4 ms jiffies (`TCP_TIMEOUT_MIN`).
const HASTENED_SYN_US: u32 = 8_000;
