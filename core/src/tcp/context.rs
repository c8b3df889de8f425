//! What a part may see and touch beside itself while the stack calls it: the clock's reading, settings,
//! counters, events, and the way out for replies.

use std::collections::VecDeque;

use crate::id::FourTuple;
use crate::observe::Counters;
use crate::observe::event::{Event, EventKind, EventLog};
use crate::observe::reason::{DropReason, ResetReason};
use crate::sysctl::Sysctl;
use crate::time::Instant;
use crate::wire::segment::SegmentHeader;

/// Handed down for the length of one call.
pub(crate) struct Cx<'a> {
    /// The caller's clock.
    pub(crate) now: Instant,
    pub(crate) sysctl: &'a Sysctl,
    pub(crate) counters: &'a mut Counters,
    pub(crate) events: &'a mut EventLog,
    pub(crate) limits: &'a mut Limits,
    /// Header-only segments that leave at the next `poll_transmit`, in order: resets, SYN-ACKs, and the
    /// answers of mini sockets. A connection's own ACKs are not here: `Connection::poll_transmit` makes them.
    pub(crate) replies: &'a mut Replies,
}

/// Stack-wide sums that decisions of one connection depend on.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// Connections no application holds (Linux `orphan_count`).
    pub(crate) orphans: u32,
    /// Mini sockets: TIME-WAIT, and orphans' FIN-WAIT-2.
    pub(crate) time_waits: u32,
    /// Bytes queued in all send and receive queues.
    pub(crate) queued_bytes: u64,
}

/// One header-only segment to send.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) tuple: FourTuple,
    pub(crate) header: SegmentHeader,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
}

/// A bounded queue of [`Reply`]; what does not fit is counted (`OutboxOverflow`), as a full device queue would.
#[derive(Debug, Default)]
pub(crate) struct Replies(VecDeque<Reply>);

/// Replies that may wait; a caller that polls after each packet never has more than a handful.
const REPLY_LIMIT: usize = 4096;

impl Replies {
    pub(crate) fn push(&mut self, reply: Reply, counters: &mut Counters) {
        if self.0.len() < REPLY_LIMIT {
            self.0.push_back(reply);
        } else {
            counters.outbox_overflow += 1;
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Reply> {
        self.0.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Cx<'_> {
    /// Records an event of a connection.
    #[inline]
    pub(crate) fn emit(
        &mut self,
        cookie: u64,
        tuple: &FourTuple,
        kind: impl FnOnce() -> EventKind,
        group: crate::observe::EventMask,
    ) {
        let at = self.now;
        self.events.emit(group, || Event { at, cookie, tuple: Some(*tuple), kind: kind() });
    }

    /// Records a discarded segment.
    #[inline]
    pub(crate) fn drop_segment(&mut self, cookie: u64, tuple: &FourTuple, reason: DropReason) {
        self.emit(cookie, tuple, || EventKind::Drop(reason), crate::observe::EventMask::DROP);
    }

    /// Queues a RST and counts it: the one way a reset leaves.
    pub(crate) fn send_reset(
        &mut self,
        cookie: u64,
        tuple: &FourTuple,
        header: SegmentHeader,
        ttl: u8,
        tos: u8,
        reason: ResetReason,
    ) {
        debug_assert!(header.flags.rst(), "only resets leave this way");
        self.counters.out_rsts += 1;
        self.counters.out_segs += 1;
        self.emit(cookie, tuple, || EventKind::ResetSent(reason), crate::observe::EventMask::RESET);
        self.replies.push(Reply { tuple: *tuple, header, ttl, tos }, self.counters);
    }
}
