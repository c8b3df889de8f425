//! One connection's life: when it was what, who ended it, and what was lost.
//!
//! Filled by the connection as it goes; read through [`crate::Stack::life`] and in the event of its end.

use crate::error::SocketError;
use crate::observe::reason::ResetReason;
use crate::time::Instant;

/// One of a connection's two ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Side {
    /// This stack's application.
    Local,
    /// The other end.
    Remote,
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Ending {
    /// Both FINs were exchanged and acknowledged.
    Fin,
    /// This stack sent RST, for this reason.
    ResetSent(ResetReason),
    /// The other end sent an acceptable RST.
    ResetReceived,
    /// Retransmissions, probes or keepalives went unanswered; or an ICMP error ended the attempt.
    Failed(SocketError),
    /// An orphan's FIN-WAIT-2 ran out (`tcp_fin_timeout`), or found no room to wait (`tcp_max_tw_buckets`): the peer's FIN never
    /// came. Nothing was sent.
    FinWait2Expired,
    /// Ended through [`crate::Stack::kill`].
    Killed,
    /// Forgotten without a word, through [`crate::Stack::abandon`].
    Abandoned,
}

/// The record of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
pub struct Life {
    /// SYN sent or received.
    pub opened_at: Instant,
    /// Reached ESTAB.
    pub established_at: Option<Instant>,
    /// The application closed or shut down its writing side: FIN queued.
    pub fin_queued_at: Option<Instant>,
    /// Our FIN was acknowledged.
    pub fin_acked_at: Option<Instant>,
    /// The peer's FIN was received in order.
    pub fin_received_at: Option<Instant>,
    /// The connection ended (for an active closer: entered TIME-WAIT).
    pub ended_at: Option<Instant>,
    /// How it ended; `None` while it lives.
    pub ending: Option<Ending>,
    /// Who sent the first FIN or RST.
    pub first_close: Option<Side>,
    /// Payload bytes the application gave us and the peer acknowledged.
    pub bytes_acked: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Payload bytes received in order that the application had not read when it closed.
    pub unread_bytes: u64,
    /// Payload bytes the application gave us that were not acknowledged when the connection ended.
    pub unacked_bytes: u64,
}
