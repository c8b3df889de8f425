//! Mini sockets: TIME-WAIT, and FIN-WAIT-2 of an orphan (Linux `inet_timewait_sock`). Contract; body follows.
#![allow(dead_code, unused_variables, reason = "contract; the body is being written")]

use crate::id::FourTuple;
use crate::tcp::context::Cx;
use crate::tcp::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::wire::segment::Segment;

/// A mini socket without its 4-tuple, which the stack's table keeps. At most 48 bytes.
#[derive(Clone, Debug)]
pub(crate) struct TimeWait {
    /// `true` while the peer's FIN is missing (`tw_substate` FIN-WAIT-2).
    pub(crate) fin_wait_2: bool,
    pub(crate) rcv_nxt: SeqNum,
    pub(crate) snd_nxt: SeqNum,
    pub(crate) ts_recent: u32,
    /// Timestamps were in use (`tw_ts_recent_stamp != 0`).
    pub(crate) timestamps: bool,
    /// When TIME-WAIT (or FIN-WAIT-2) was entered.
    pub(crate) entered: Instant,
    /// When it ends. The stack files this deadline.
    pub(crate) expires: Instant,
}

/// What a segment did to a mini socket. Answers were put into `cx.replies`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TimeWaitVerdict {
    /// It stays; `expires` may have moved.
    Keep,
    /// It is gone (RST, or RST was sent). Remove it.
    Kill,
    /// A SYN that may begin a new connection. If a listener matches: remove the mini socket and let the listener have the SYN with
    /// this initial sequence number, past SYN-queue limits and cookies; if none does: call [`TimeWait::ack_syn`].
    NewSyn {
        /// `snd_nxt + 65537`, or 1 where that is 0.
        iss: SeqNum,
    },
}

impl TimeWait {
    pub(crate) fn on_segment(
        &mut self,
        cookie: u64,
        tuple: &FourTuple,
        segment: &Segment,
        cx: &mut Cx<'_>,
    ) -> TimeWaitVerdict {
        unimplemented!()
    }

    /// No listener for a [`TimeWaitVerdict::NewSyn`]: acknowledge instead.
    pub(crate) fn ack_syn(&mut self, cookie: u64, tuple: &FourTuple, segment: &Segment, cx: &mut Cx<'_>) {
        unimplemented!()
    }

    /// May `connect` take this pair over now (Linux `tcp_twsk_unique`)? `bound`: the program chose the source port itself.
    /// Gives the initial sequence number and the `ts_recent` the new SYN echoes.
    pub(crate) fn reusable(&self, tuple: &FourTuple, bound: bool, cx: &Cx<'_>) -> Option<(SeqNum, u32)> {
        unimplemented!()
    }

    /// Time until it ends.
    pub(crate) fn remaining(&self, now: Instant) -> Duration {
        self.expires.saturating_since(now)
    }
}
