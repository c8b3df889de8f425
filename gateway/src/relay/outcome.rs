//! How a relay is to treat its connections, and what it tells of one that has ended.
//!
//! Owns:    [`Policy`]; [`Outcome`] with who closed first ([`FirstClose`]) and how it ended ([`End`]).
//! Not here: what that means (`verdict`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lastack::core::observe::{Life, TcpInfo};

use crate::host::HostInfo;
use crate::inject::Injected;

/// How a relay treats its connections.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long data that is under way when the other side has reset may make no progress before it is given up.
    /// Default 5 s.
    pub patience: Duration,
    /// How long a half-closed connection may be idle before the inside is probed. Default 60 s, whole seconds.
    pub half_closed_probe: Duration,
    /// How long nothing may be carried either way before both ends are reset, at most an eighth of it late. Default: for ever.
    pub idle: Option<Duration>,
    /// Goes up whenever bytes move: whoever wants to know whether anything still happens looks at it.
    pub progress: Arc<AtomicU64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(5),
            half_closed_probe: Duration::from_secs(60),
            idle: None,
            progress: Arc::default(),
        }
    }
}

impl Policy {
    /// Bytes have moved.
    pub(super) fn moved(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

/// Who sent the first FIN or RST.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstClose {
    /// The program behind the stack.
    Inside,
    /// The host's remote end.
    Outside,
    /// Both, before either could have seen the other's.
    Both,
}

/// How a relay ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// A FIN each way.
    Clean,
    /// The inside connection ended with this errno: `ECONNRESET` for a RST.
    Inside(i32),
    /// The outside connection ended with this errno: `ECONNRESET` or `EPIPE` for a RST.
    Outside(i32),
    /// The inside connection was killed by command.
    Killed,
    /// It was ended by injection ([`Outcome::injected`]).
    Injected,
    /// Nothing was carried for as long as it may be so ([`Policy::idle`]).
    Idle,
    /// The relay was stopped, or its stack was.
    Stopped,
}

/// What became of a relayed connection.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// Who closed first; `None`: nobody.
    pub first_close: Option<FirstClose>,
    /// How it ended.
    pub end: End,
    /// The inside sent FIN.
    pub inside_fin: bool,
    /// The outside sent FIN.
    pub outside_fin: bool,
    /// Bytes came from the outside after the inside had sent FIN.
    pub data_after_inside_fin: bool,
    /// Payload bytes that the inside's kernel sent in order.
    pub bytes_up: u64,
    /// Payload bytes that the outside sent.
    pub bytes_down: u64,
    /// Of `bytes_up`, bytes that the outside's kernel never acknowledged.
    pub lost_up: u64,
    /// Of `bytes_down`, bytes that the inside's kernel never acknowledged.
    pub lost_down: u64,
    /// The last thing that was forced on it.
    pub injected: Option<Injected>,
    /// The inside leg's record.
    pub life: Life,
    /// The inside leg's figures.
    pub inside: TcpInfo,
    /// The outside leg's figures.
    pub outside: HostInfo,
}
