//! Half-open connections: a SYN on a listener that is not a connection yet (Linux `request_sock`). Contract; body follows.
#![allow(dead_code, unused_variables, reason = "contract; the body is being written")]

use crate::id::FourTuple;
use crate::tcp::context::Cx;
use crate::tcp::options::TcpOptions;
use crate::tcp::seq::SeqNum;
use crate::time::Instant;
use crate::wire::segment::Segment;

/// A half-open connection without its 4-tuple, which the stack's table keeps. At most 72 bytes.
#[derive(Clone, Debug)]
pub(crate) struct HalfOpen {
    pub(crate) iss: SeqNum,
    pub(crate) irs: SeqNum,
    /// When the SYN-ACK is due again; the stack files this deadline. `FAR_FUTURE` while no SYN-ACK was sent (pending).
    pub(crate) deadline: Instant,
    /// SYN-ACK timer firings (Linux `num_timeout`); 0: "young".
    pub(crate) timeouts: u8,
    /// An ACK came that could not complete (accept queue full, or defer accept).
    pub(crate) acked: bool,
}

/// What a segment did to a half-open connection. Answers were put into `cx.replies`.
#[derive(Debug)]
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

impl HalfOpen {
    /// From a SYN (already checked to be one, without ACK, RST, FIN). Sends nothing. `ts_offset`: added to our timestamp clock for this pair.
    /// `advmss`: announced segment size. `options`: the listener's.
    pub(crate) fn new(
        syn: &Segment,
        iss: SeqNum,
        ts_offset: u32,
        advmss: u16,
        options: &TcpOptions,
        cx: &Cx<'_>,
    ) -> Self {
        unimplemented!()
    }

    /// Queues the first SYN-ACK and arms its timer.
    pub(crate) fn send_syn_ack(
        &mut self,
        cookie: u64,
        tuple: &FourTuple,
        options: &TcpOptions,
        cx: &mut Cx<'_>,
    ) {
        unimplemented!()
    }

    /// Linux `tcp_check_req`. Not for a pending one that has sent no SYN-ACK: that is the stack's.
    pub(crate) fn on_segment(
        &mut self,
        cookie: u64,
        tuple: &FourTuple,
        segment: &Segment,
        options: &TcpOptions,
        cx: &mut Cx<'_>,
    ) -> HalfOpenVerdict {
        unimplemented!()
    }

    /// The accept queue was full at the final ACK: counters, and RST if `tcp_abort_on_overflow`. True: remove it.
    pub(crate) fn on_accept_overflow(
        &mut self,
        cookie: u64,
        tuple: &FourTuple,
        segment: &Segment,
        options: &TcpOptions,
        cx: &mut Cx<'_>,
    ) -> bool {
        unimplemented!()
    }

    /// The SYN-ACK timer is due (Linux `reqsk_timer_handler`). `qlen`, `young`, `backlog`: the SYN queue's.
    pub(crate) fn on_timeout(
        &mut self,
        cookie: u64,
        tuple: &FourTuple,
        options: &TcpOptions,
        queue: SynQueue,
        cx: &mut Cx<'_>,
    ) -> HalfOpenTimeout {
        unimplemented!()
    }
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
