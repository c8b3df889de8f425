//! One connection: the conductor that walks RFC 9293 3.10.7.4. Contract; body follows.
#![allow(dead_code, unused_variables, reason = "contract; the body is being written")]

use bytes::Bytes;

use crate::error::{OptionError, RecvError, SendError, SocketError};
use crate::id::FourTuple;
use crate::observe::{Life, SocketRow, TcpInfo};
use crate::stack::{Readiness, Shutdown};
use crate::tcp::context::Cx;
use crate::tcp::half_open::HalfOpen;
use crate::tcp::options::{TcpOption, TcpOptions};
use crate::tcp::seq::SeqNum;
use crate::tcp::state::TcpState;
use crate::tcp::time_wait::TimeWait;
use crate::time::Instant;
use crate::wire::segment::{Segment, SegmentHeader};
use crate::wire::transmit::Transmit;

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
    /// It is in CLOSE: take it out of the table; if `is_orphan()`, forget it, else keep it for its application until `close`.
    Closed,
    /// As `Closed`, and this mini socket takes its place in the table (unless `tcp_max_tw_buckets` is reached: `TCPTimeWaitOverflow`).
    TimeWait(TimeWait),
}

/// An ICMP error about a packet of this connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IcmpError {
    /// The path takes at most this many bytes.
    PacketTooBig(u32),
    /// Hard only in SYN-SENT, soft afterwards.
    Error(SocketError),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {}

impl Connection {
    /// Active open: SYN-SENT, the SYN is owed.
    pub(crate) fn connect(setup: &ConnectionSetup, options: TcpOptions, cx: &mut Cx<'_>) -> Self {
        unimplemented!()
    }

    /// Passive open done: SYN-RECV about to take the segment that completed it. Give it that segment next.
    pub(crate) fn from_half_open(
        setup: &ConnectionSetup,
        half_open: &HalfOpen,
        options: TcpOptions,
        cx: &mut Cx<'_>,
    ) -> Self {
        unimplemented!()
    }

    // ---- the world speaks
    pub(crate) fn on_segment(&mut self, segment: &Segment, cx: &mut Cx<'_>) -> Disposition {
        unimplemented!()
    }
    pub(crate) fn on_timeout(&mut self, cx: &mut Cx<'_>) -> Disposition {
        unimplemented!()
    }
    /// `seq`: sequence number in the quoted header.
    pub(crate) fn on_icmp(&mut self, seq: SeqNum, error: IcmpError, cx: &mut Cx<'_>) -> Disposition {
        unimplemented!()
    }

    // ---- what to do next
    /// Composes the next segment: header, payload slices into `out.payload`, `out.segment_size`. `None`: owes nothing.
    pub(crate) fn poll_transmit(&mut self, out: &mut Transmit, cx: &mut Cx<'_>) -> Option<SegmentHeader> {
        unimplemented!()
    }
    /// True when `poll_transmit` would give something: then the stack puts it on the list of those who owe.
    pub(crate) fn owes(&self, now: Instant) -> bool {
        unimplemented!()
    }
    /// Earliest deadline of all its timers.
    pub(crate) fn next_deadline(&self) -> Instant {
        unimplemented!()
    }
    /// What became true since the last call.
    pub(crate) fn take_readiness(&mut self) -> Readiness {
        unimplemented!()
    }

    // ---- the app speaks
    pub(crate) fn send(&mut self, data: &[u8], cx: &mut Cx<'_>) -> Result<usize, SendError> {
        unimplemented!()
    }
    pub(crate) fn send_bytes(&mut self, data: Bytes, cx: &mut Cx<'_>) -> Result<(), SendError> {
        unimplemented!()
    }
    pub(crate) fn send_space(&self) -> usize {
        unimplemented!()
    }
    pub(crate) fn recv(&mut self, buf: &mut [u8], cx: &mut Cx<'_>) -> Result<usize, RecvError> {
        unimplemented!()
    }
    pub(crate) fn recv_chunk(&mut self, max: usize, cx: &mut Cx<'_>) -> Result<Option<Bytes>, RecvError> {
        unimplemented!()
    }
    pub(crate) fn recv_available(&self) -> usize {
        unimplemented!()
    }
    /// `ENOTCONN` is `Err`.
    pub(crate) fn shutdown(
        &mut self,
        how: Shutdown,
        cx: &mut Cx<'_>,
    ) -> Result<Disposition, crate::stack::Gone> {
        unimplemented!()
    }
    /// Linux `__tcp_close`: afterwards an orphan (counted in `cx.limits`) or closed.
    pub(crate) fn close(&mut self, cx: &mut Cx<'_>) -> Disposition {
        unimplemented!()
    }
    /// Reset at once and orphan (Linux `tcp_disconnect`, linger 0).
    pub(crate) fn abort(&mut self, cx: &mut Cx<'_>) -> Disposition {
        unimplemented!()
    }
    /// Linux `tcp_abort(ECONNABORTED)`.
    pub(crate) fn kill(&mut self, cx: &mut Cx<'_>) -> Disposition {
        unimplemented!()
    }
    /// The listener closed with this child unaccepted: RST.
    pub(crate) fn abort_unaccepted(&mut self, cx: &mut Cx<'_>) -> Disposition {
        unimplemented!()
    }
    pub(crate) fn set_option(&mut self, option: TcpOption, cx: &mut Cx<'_>) -> Result<(), OptionError> {
        unimplemented!()
    }
    pub(crate) fn take_error(&mut self) -> Option<SocketError> {
        unimplemented!()
    }

    // ---- look
    pub(crate) fn state(&self) -> TcpState {
        unimplemented!()
    }
    pub(crate) fn is_orphan(&self) -> bool {
        unimplemented!()
    }
    pub(crate) fn tuple(&self) -> &FourTuple {
        unimplemented!()
    }
    pub(crate) fn cookie(&self) -> u64 {
        unimplemented!()
    }
    pub(crate) fn options(&self) -> &TcpOptions {
        unimplemented!()
    }
    pub(crate) fn readiness(&self) -> Readiness {
        unimplemented!()
    }
    pub(crate) fn life(&self) -> Life {
        unimplemented!()
    }
    pub(crate) fn info(&self, now: Instant) -> TcpInfo {
        unimplemented!()
    }
    pub(crate) fn row(&self, now: Instant) -> SocketRow {
        unimplemented!()
    }
}
