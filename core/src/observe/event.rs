//! Events: what happened, when, to which connection. Built only when somebody asked for their group.

use std::collections::VecDeque;

use crate::error::SocketError;
use crate::id::FourTuple;
use crate::observe::info::CaState;
use crate::observe::life::Life;
use crate::observe::reason::{DropReason, ResetReason};
use crate::tcp::seq::SeqNum;
use crate::tcp::state::TcpState;
use crate::time::Instant;

/// Groups of events that can be asked for, as a bit set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EventMask(pub u32);

impl EventMask {
    /// Nothing is recorded.
    pub const NONE: Self = Self(0);
    /// State changes and destroyed connections: a few a connection.
    pub const LIFE: Self = Self(1);
    /// Resets sent and received.
    pub const RESET: Self = Self(2);
    /// Retransmissions, time-outs, probes, congestion states.
    pub const LOSS: Self = Self(4);
    /// Dropped packets and segments.
    pub const DROP: Self = Self(8);
    /// Everything.
    pub const ALL: Self = Self(0xf);

    /// True when any group of `other` is in the set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The union.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One event.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Event {
    /// When.
    pub at: Instant,
    /// The connection's cookie (the same from SYN to the end of TIME-WAIT); 0 where there is none.
    pub cookie: u64,
    /// Both ends, where known.
    pub tuple: Option<FourTuple>,
    /// What.
    pub kind: EventKind,
}

/// What happened. [`EventKind::name`] gives the Linux tracepoint's name where one exists.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum EventKind {
    /// `sock:inet_sock_set_state`.
    StateChange {
        /// Before.
        old: TcpState,
        /// After.
        new: TcpState,
    },
    /// `tcp:tcp_send_reset`.
    ResetSent(ResetReason),
    /// `tcp:tcp_receive_reset`: an accepted RST.
    ResetReceived,
    /// `tcp:tcp_retransmit_skb`.
    Retransmit {
        /// First sequence number repeated.
        seq: SeqNum,
        /// Sequence numbers repeated.
        len: u32,
        /// The state it happened in.
        state: TcpState,
    },
    /// `tcp:tcp_retransmit_synack`.
    RetransmitSynAck,
    /// The retransmission timer fired; `backoff` is how many times in a row.
    RetransmitTimeout {
        /// Consecutive firings without progress.
        backoff: u8,
    },
    /// A tail loss probe was sent.
    LossProbe,
    /// A zero-window probe was sent; `probes` have gone unanswered.
    WindowProbe {
        /// Unanswered probes.
        probes: u8,
    },
    /// A keepalive probe was sent.
    KeepaliveProbe {
        /// Unanswered probes.
        probes: u8,
    },
    /// `tcp:tcp_cong_state_set`.
    CongestionState(CaState),
    /// The peer closed its window.
    PeerWindowClosed,
    /// The peer's window opened again.
    PeerWindowOpened,
    /// `sock:inet_sk_error_report`.
    Error(SocketError),
    /// A segment or packet was discarded.
    Drop(DropReason),
    /// `tcp:tcp_destroy_sock`, with the whole life.
    Destroyed(Box<Life>),
}

impl EventKind {
    /// Stable name; Linux's tracepoint name where one exists.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::StateChange { .. } => "inet_sock_set_state",
            Self::ResetSent(_) => "tcp_send_reset",
            Self::ResetReceived => "tcp_receive_reset",
            Self::Retransmit { .. } => "tcp_retransmit_skb",
            Self::RetransmitSynAck => "tcp_retransmit_synack",
            Self::RetransmitTimeout { .. } => "retransmit_timeout",
            Self::LossProbe => "loss_probe",
            Self::WindowProbe { .. } => "window_probe",
            Self::KeepaliveProbe { .. } => "keepalive_probe",
            Self::CongestionState(_) => "tcp_cong_state_set",
            Self::PeerWindowClosed => "peer_window_closed",
            Self::PeerWindowOpened => "peer_window_opened",
            Self::Error(_) => "inet_sk_error_report",
            Self::Drop(_) => "drop",
            Self::Destroyed(_) => "tcp_destroy_sock",
        }
    }

    /// The group this event belongs to.
    pub const fn group(&self) -> EventMask {
        match self {
            Self::StateChange { .. } | Self::Error(_) | Self::Destroyed(_) => EventMask::LIFE,
            Self::ResetSent(_) | Self::ResetReceived => EventMask::RESET,
            Self::Drop(_) => EventMask::DROP,
            Self::Retransmit { .. }
            | Self::RetransmitSynAck
            | Self::RetransmitTimeout { .. }
            | Self::LossProbe
            | Self::WindowProbe { .. }
            | Self::KeepaliveProbe { .. }
            | Self::CongestionState(_)
            | Self::PeerWindowClosed
            | Self::PeerWindowOpened => EventMask::LOSS,
        }
    }
}

/// A bounded queue of events; what does not fit is counted, never waited for.
#[derive(Debug)]
pub struct EventLog {
    mask: EventMask,
    queue: VecDeque<Event>,
    limit: usize,
    lost: u64,
}

impl EventLog {
    /// A log for at most `limit` events, recording nothing until [`EventLog::set_mask`].
    pub fn new(limit: usize) -> Self {
        Self { mask: EventMask::NONE, queue: VecDeque::new(), limit, lost: 0 }
    }

    /// Chooses which groups are recorded.
    pub fn set_mask(&mut self, mask: EventMask) {
        self.mask = mask;
    }

    /// Which groups are recorded.
    pub fn mask(&self) -> EventMask {
        self.mask
    }

    /// Records an event of `group`; `make` runs only when the group is asked for.
    #[inline]
    pub fn emit(&mut self, group: EventMask, make: impl FnOnce() -> Event) {
        if self.mask.intersects(group) {
            if self.queue.len() < self.limit {
                self.queue.push_back(make());
            } else {
                self.lost += 1;
            }
        }
    }

    /// Writes a connection's name on the events that its parts have just recorded without one, and the state
    /// on repeats: only the conductor knows them.
    pub(crate) fn sign(&mut self, cookie: u64, tuple: &FourTuple, state: TcpState) {
        for event in self.queue.iter_mut().rev() {
            if event.cookie != 0 || event.tuple.is_some() {
                break;
            }
            event.cookie = cookie;
            event.tuple = Some(*tuple);
            if let EventKind::Retransmit { state: written, .. } = &mut event.kind {
                *written = state;
            }
        }
    }

    /// The oldest event not yet taken.
    pub fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    /// Events that did not fit since the stack began.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}
