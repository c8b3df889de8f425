//! What a part may see and touch beside itself while the stack calls it: the clock's reading, settings,
//! counters, events, and the way out for replies.

use std::collections::VecDeque;

use crate::id::FourTuple;
use crate::observe::Counters;
use crate::observe::event::{Event, EventKind, EventLog};
use crate::observe::reason::{DropReason, ResetReason};
use crate::rng::Rng;
use crate::sysctl::Sysctl;
use crate::tcp::fast_open::Pause;
use crate::tcp::metrics::Metrics;
use crate::tcp::options::Hop;
use crate::tcp::rate_limit::ChallengeBudget;
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
    pub(crate) metrics: &'a mut Metrics,
    /// Header-only segments that leave at the next `poll_transmit`, in order: resets, SYN-ACKs, and the
    /// answers of mini sockets. A connection's own ACKs are not here: `Connection::poll_transmit` makes them.
    pub(crate) replies: &'a mut Replies,
}

/// Stack-wide sums that decisions of one connection depend on.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Connections no application holds (Linux `orphan_count`).
    pub(crate) orphans: u32,
    /// Mini sockets: TIME-WAIT, and orphans' FIN-WAIT-2.
    pub(crate) time_waits: u32,
    /// Bytes queued in all send and receive queues.
    pub(crate) queued_bytes: u64,
    /// Linux `tcp_memory_pressure`: from above the second to below the first number of `tcp_mem`.
    pub(crate) under_pressure: bool,
    /// Challenge ACKs left in this second.
    pub(crate) challenges: ChallengeBudget,
    /// Clients do without Fast Open.
    pub(crate) fast_open_pause: Pause,
}

impl Limits {
    /// `rng`: for the challenge ACKs' budget.
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            orphans: 0,
            time_waits: 0,
            queued_bytes: 0,
            under_pressure: false,
            challenges: ChallengeBudget::new(rng),
            fast_open_pause: Pause::default(),
        }
    }
}

impl Limits {
    /// A connection's queues hold `queued` bytes now and held `before` (Linux `tcp_enter_memory_pressure`, `tcp_leave_memory_pressure`).
    pub(crate) fn account(&mut self, queued: u64, before: u64, sysctl: &Sysctl, counters: &mut Counters) {
        self.queued_bytes = self.queued_bytes.saturating_add(queued).saturating_sub(before);
        let pages = self.pages();
        if self.under_pressure {
            self.under_pressure = pages > sysctl.tcp_mem[0];
        } else if pages > sysctl.tcp_mem[1] {
            self.under_pressure = true;
            counters.tcp_memory_pressures += 1;
        }
    }

    fn pages(&self) -> u64 {
        self.queued_bytes / PAGE
    }

    /// Below the first number of `tcp_mem`: buffers may grow.
    pub(crate) fn is_below_low(&self, sysctl: &Sysctl) -> bool {
        self.pages() < sysctl.tcp_mem[0]
    }

    /// Above the last number of `tcp_mem` (Linux `tcp_out_of_memory`).
    pub(crate) fn is_above_high(&self, sysctl: &Sysctl) -> bool {
        self.pages() > sysctl.tcp_mem[2]
    }
}

/// Bytes a page, the unit of `tcp_mem`.
const PAGE: u64 = 4096;

/// One header-only segment to send.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) tuple: FourTuple,
    pub(crate) header: SegmentHeader,
    pub(crate) hop: Hop,
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
        hop: Hop,
        reason: ResetReason,
    ) {
        debug_assert!(header.flags.rst(), "only resets leave this way");
        self.counters.out_rsts += 1;
        self.counters.out_segs += 1;
        self.emit(cookie, tuple, || EventKind::ResetSent(reason), crate::observe::EventMask::RESET);
        self.replies.push(Reply { tuple: *tuple, header, hop }, self.counters);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Everything a part needs around it, for unit tests.

    use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

    use super::{Cx, Limits, Replies};
    use crate::id::FourTuple;
    use crate::observe::{Counters, EventLog, EventMask};
    use crate::rng::Rng;
    use crate::sysctl::Sysctl;
    use crate::tcp::metrics::Metrics;
    use crate::time::Instant;

    /// A pair of addresses for tests.
    pub(crate) const TUPLE: FourTuple = FourTuple {
        local: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 8080)),
        remote: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 40_000)),
    };

    /// Owns what a [`Cx`] borrows.
    #[derive(Debug)]
    pub(crate) struct TestCx {
        pub(crate) now: Instant,
        pub(crate) sysctl: Sysctl,
        pub(crate) counters: Counters,
        pub(crate) events: EventLog,
        pub(crate) limits: Limits,
        pub(crate) metrics: Metrics,
        pub(crate) replies: Replies,
    }

    impl TestCx {
        pub(crate) fn at(now: Instant) -> Self {
            let mut events = EventLog::new(100_000);
            events.set_mask(EventMask::ALL);
            Self {
                now,
                sysctl: Sysctl::default(),
                counters: Counters::default(),
                events,
                limits: Limits::new(Rng::from_number(1)),
                metrics: Metrics::default(),
                replies: Replies::default(),
            }
        }

        pub(crate) fn cx(&mut self) -> Cx<'_> {
            Cx {
                now: self.now,
                sysctl: &self.sysctl,
                counters: &mut self.counters,
                events: &mut self.events,
                limits: &mut self.limits,
                metrics: &mut self.metrics,
                replies: &mut self.replies,
            }
        }
    }
}
