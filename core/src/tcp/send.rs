//! The sending half of a connection: queue, scoreboard, loss recovery, congestion, and their timer.
//!
//! Owns:    `snd_una`, `snd_nxt`, `write_seq`, the peer's window, every byte not yet acknowledged, the one
//!          shared timer of Linux's `icsk_pending` (retransmit, loss probe, reorder, or window probe).
//! Input:   bytes from the application, [`AckView`]s, its timer.
//! Output:  [`SendPlan`]s: what piece of sequence space to put on the wire next.
//! Not here: header composition (`output`), states (`connection`), keepalive and delayed ACK.
#![allow(dead_code, unused_variables, reason = "contract; the body is being written")]

use bytes::Bytes;

use crate::error::SocketError;
use crate::observe::info::{TcpInfo, TimerRow};
use crate::tcp::context::Cx;
use crate::tcp::options::TcpOptions;
use crate::tcp::seq::SeqNum;
use crate::tcp::state::TcpState;
use crate::time::{Duration, Instant};
use crate::wire::segment::SackBlocks;

/// What the sender has to know about its connection, settled at the handshake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SenderConfig {
    /// Payload bytes a segment, timestamps already subtracted (Linux `mss_cache`).
    pub(crate) mss: u32,
    /// SACK was negotiated.
    pub(crate) sack: bool,
    /// Timestamps were negotiated.
    pub(crate) timestamps: bool,
    /// Most segments a super-segment may stand for (device's TSO limit); 1: no offload.
    pub(crate) gso_max_segs: u16,
    /// Round-trip sample of the handshake; `None` where there was none (first RTO is then 3 s).
    pub(crate) handshake_rtt: Option<Duration>,
    /// SYN or SYN-ACK was repeated: first cwnd is 1 (Linux `tcp_init_cwnd` after `undo_marker`).
    pub(crate) syn_was_repeated: bool,
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
pub(crate) struct Sender {}

impl Sender {
    /// A sender whose first octet will be a SYN at `iss` (active open, simultaneous open).
    pub(crate) fn new(iss: SeqNum, options: &TcpOptions, cx: &Cx<'_>) -> Self {
        unimplemented!()
    }

    /// A sender whose SYN-ACK at `iss` has been acknowledged already (passive open): `snd_una = snd_nxt = iss + 1`.
    pub(crate) fn established(
        iss: SeqNum,
        wnd: u32,
        config: &SenderConfig,
        options: &TcpOptions,
        cx: &Cx<'_>,
    ) -> Self {
        unimplemented!()
    }

    /// Enters the established regime after an active open: buffers, RTT sample, window (Linux `tcp_finish_connect`,
    /// `tcp_init_transfer`). `wnd` is the window of the SYN-ACK, not scaled.
    pub(crate) fn finish_connect(&mut self, wnd: u32, config: &SenderConfig, cx: &mut Cx<'_>) {
        unimplemented!()
    }

    /// A bad ACK answered our SYN: if it was not repeated yet, it goes out again in 2 jiffies (8 ms).
    pub(crate) fn hasten_syn(&mut self, cx: &mut Cx<'_>) {
        unimplemented!()
    }

    /// The window of the peer's SYN in a simultaneous open, and the segment that told it.
    pub(crate) fn set_peer_window(&mut self, seq: SeqNum, wnd: u32) {
        unimplemented!()
    }

    /// Made by [`Sender::new`] and not yet through [`Sender::finish_connect`].
    pub(crate) fn is_connecting(&self) -> bool {
        unimplemented!()
    }

    /// Path MTU changed: bytes a segment from now on; resends what is too big (Linux `tcp_simple_retransmit`).
    pub(crate) fn set_mss(&mut self, mss: u32, cx: &mut Cx<'_>) {
        unimplemented!()
    }

    /// Bytes the application may still add (send buffer, auto-tuned like Linux's up to `tcp_wmem[2]`).
    pub(crate) fn free_space(&self) -> usize {
        unimplemented!()
    }

    /// Queues payload; tiny slices are coalesced into the last one (copied), large ones shared. The caller checked [`Sender::free_space`].
    pub(crate) fn push(&mut self, data: Bytes, cx: &mut Cx<'_>) {
        unimplemented!()
    }

    /// Copies from `data` at most `free_space` bytes into the queue; returns how many.
    pub(crate) fn push_slice(&mut self, data: &[u8], cx: &mut Cx<'_>) -> usize {
        unimplemented!()
    }

    /// Queues the FIN behind everything (Linux `tcp_send_fin`: joins the last unsent segment). Nagle and cork no longer hold.
    pub(crate) fn queue_fin(&mut self, cx: &mut Cx<'_>) {
        unimplemented!()
    }

    /// The next piece to send now, in Linux's order (lost segments, then new data within cwnd, window, Nagle, cork, TLP and probes
    /// that are due), or `None`. `options_len` is the option bytes beyond timestamps (SACK blocks) that shorten a segment.
    /// Marks it as sent at `cx.now`, arms timers, counts (`OutSegs`, `RetransSegs`, `TCPOrigDataSent` …) and emits events.
    pub(crate) fn poll_plan(
        &mut self,
        options: &TcpOptions,
        options_len: u32,
        cx: &mut Cx<'_>,
    ) -> Option<SendPlan> {
        unimplemented!()
    }

    /// Appends the payload slices of a plan, shared with the queue.
    pub(crate) fn copy_payload(&self, plan: &SendPlan, out: &mut Vec<Bytes>) {
        unimplemented!()
    }

    /// True when `poll_plan` would give something.
    pub(crate) fn wants_to_send(&self, options: &TcpOptions, now: Instant) -> bool {
        unimplemented!()
    }

    /// Processes the acknowledgment of an acceptable segment (Linux `tcp_ack`): validity, SACK, RTT, RACK, recovery,
    /// congestion, window update, timers.
    pub(crate) fn on_ack(&mut self, view: &AckView<'_>, options: &TcpOptions, cx: &mut Cx<'_>) -> AckVerdict {
        unimplemented!()
    }

    /// Earliest deadline of the shared timer; `Instant::FAR_FUTURE` when none runs.
    pub(crate) fn deadline(&self) -> Instant {
        unimplemented!()
    }

    /// The shared timer is due (Linux `tcp_write_timer_handler`): RTO, loss probe, reorder, or window probe.
    pub(crate) fn on_timer(&mut self, env: &TimerEnv<'_>, cx: &mut Cx<'_>) -> TimerVerdict {
        unimplemented!()
    }

    /// ICMP frag-needed/host-unreachable for the head segment reverts one backoff step (Linux `tcp_ld_RTO_revert`).
    pub(crate) fn revert_backoff(&mut self, seq: SeqNum, cx: &mut Cx<'_>) {
        unimplemented!()
    }

    /// The timer as `ss -o` shows it.
    pub(crate) fn timer_row(&self, now: Instant) -> Option<TimerRow> {
        unimplemented!()
    }

    /// Drops everything queued (Linux `tcp_write_queue_purge`).
    pub(crate) fn purge(&mut self) {
        unimplemented!()
    }

    pub(crate) fn snd_una(&self) -> SeqNum {
        unimplemented!()
    }
    pub(crate) fn snd_nxt(&self) -> SeqNum {
        unimplemented!()
    }
    pub(crate) fn write_seq(&self) -> SeqNum {
        unimplemented!()
    }
    /// The peer's window, bytes.
    pub(crate) fn snd_wnd(&self) -> u32 {
        unimplemented!()
    }
    /// Current retransmission time-out.
    pub(crate) fn rto(&self) -> Duration {
        unimplemented!()
    }
    /// Smoothed RTT; `None` without a sample.
    pub(crate) fn srtt(&self) -> Option<Duration> {
        unimplemented!()
    }
    /// Data or FIN is in flight.
    pub(crate) fn packets_out(&self) -> u32 {
        unimplemented!()
    }
    /// Something is queued and was never sent.
    pub(crate) fn has_unsent(&self) -> bool {
        unimplemented!()
    }
    /// Our FIN was queued.
    pub(crate) fn fin_queued(&self) -> bool {
        unimplemented!()
    }
    /// Payload bytes not yet acknowledged, unsent ones included; SYN and FIN not counted.
    pub(crate) fn unacked_payload(&self) -> u64 {
        unimplemented!()
    }
    /// `EPOLLOUT`: room for at least a third of the buffer and below `notsent_lowat` (Linux `sk_stream_is_writeable`).
    pub(crate) fn is_writeable(&self, options: &TcpOptions, cx: &Cx<'_>) -> bool {
        unimplemented!()
    }

    /// Fills the sender's fields of `TCP_INFO`.
    pub(crate) fn fill_info(&self, now: Instant, info: &mut TcpInfo) {
        unimplemented!()
    }
}
