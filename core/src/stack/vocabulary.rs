//! What is said to a stack and what it tells, besides packets and bytes.
//!
//! Owns:    the arguments and answers of [`Stack`]'s methods.
//! Not here: errors (`crate::error`), socket options (`tcp::options`), rows and events (`crate::observe`).

use core::net::{IpAddr, SocketAddr};

use bytes::Bytes;

#[cfg(doc)]
use crate::Stack;
use crate::error::SocketError;
use crate::id::{ConnectionId, FourTuple, ListenerId, PendingId, UdpId};
use crate::sysctl::Sysctl;
use crate::tcp::options::TcpOptions;
use crate::time::Instant;
#[cfg(doc)]
use crate::wire::transmit::Transmit;

/// How a stack begins.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where every secret and every choice comes from: hash keys, initial sequence numbers, ports. The same
    /// seed and the same calls give the same bytes. On a real machine: 32 bytes from the OS, never printed.
    pub seed: [u8; 32],
    /// The stack's own addresses, with prefix lengths. The first of a family is its source address.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Accept packets for any destination address, not only for `addresses`. Default false.
    pub any_address: bool,
    /// Largest IP packet of the link, bytes. Default 1500.
    pub mtu: u32,
    /// Most wire segments in one super-segment ([`Transmit::segment_size`]); 1: never. Default 64.
    pub gso_max_segs: u16,
    /// Largest super-segment in bytes, headers included. Default 65535.
    pub gso_max_size: u32,
    /// Most connections, half-open and pending ones included. Default 1,048,576.
    pub max_connections: u32,
    /// Most events waiting in [`Stack::poll_observed`]. Default 65,536.
    pub event_limit: usize,
    /// Settings at the start.
    pub sysctl: Sysctl,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: [0; 32],
            addresses: Vec::new(),
            any_address: false,
            mtu: 1500,
            gso_max_segs: 64,
            gso_max_size: 65_535,
            max_connections: 1 << 20,
            event_limit: 65_536,
            sysctl: Sysctl::default(),
        }
    }
}

/// What a socket has become ready for. A set of facts; each is told once when it becomes true.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Readiness(pub u8);

impl Readiness {
    /// `recv` would give something: data, end of file or an error.
    pub const READABLE: Self = Self(1);
    /// `send` would take something, or fail.
    pub const WRITABLE: Self = Self(2);
    /// The handshake is done.
    pub const CONNECTED: Self = Self(4);
    /// The peer finished sending (`EPOLLRDHUP`).
    pub const PEER_CLOSED: Self = Self(8);
    /// The connection ended: both directions (`EPOLLHUP`).
    pub const HANGUP: Self = Self(16);
    /// An error waits to be told (`EPOLLERR`).
    pub const ERROR: Self = Self(32);
    /// Our FIN was acknowledged, or the connection is gone: a lingering close may return.
    pub const DRAINED: Self = Self(64);
    /// Urgent data (`EPOLLPRI`).
    pub const PRIORITY: Self = Self(128);

    /// True when any fact of `other` is in the set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The union.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Something an application waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SocketEvent {
    /// A connection became ready for something.
    Connection(ConnectionId, Readiness),
    /// [`Stack::accept`] would give a connection.
    Listener(ListenerId),
    /// [`Stack::next_pending`] would give a SYN.
    Pending(ListenerId),
    /// A pending SYN that was accepted is done: the handshake finished, or failed for this reason.
    PendingDone(PendingId, Result<ConnectionId, SocketError>),
    /// A UDP socket became readable or writable.
    Udp(UdpId, Readiness),
    /// [`Stack::next_ping`] would give a ping.
    Ping,
}

/// Where and how to listen.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Address and port; an unspecified address listens on all of the stack's, port 0 chooses one.
    pub local: SocketAddr,
    /// Finished connections that may wait, capped by `somaxconn`; 0 has room for 1. Default 128.
    pub backlog: u32,
    /// Options the children inherit.
    pub options: TcpOptions,
}

impl ListenOptions {
    /// Listens on `local` with a backlog of 128 and default options.
    pub fn new(local: SocketAddr) -> Self {
        Self { local, backlog: 128, options: TcpOptions::default() }
    }
}

/// A listener for every destination: each SYN waits for a decision.
#[derive(Clone, Debug)]
pub struct AnyOptions {
    /// SYNs that may wait for a decision or for the end of their handshake; more are dropped. Default 4096.
    pub max_pending: u32,
    /// Options the connections get.
    pub options: TcpOptions,
}

impl Default for AnyOptions {
    fn default() -> Self {
        Self { max_pending: 4096, options: TcpOptions::default() }
    }
}

/// A SYN that waits for a decision: accept, refuse, unreachable or drop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingSyn {
    /// Its name.
    pub id: PendingId,
    /// `local` is where the SYN wanted to go, `remote` who sent it.
    pub tuple: FourTuple,
    /// When it came.
    pub arrived: Instant,
    /// The connection's cookie, should it become one.
    pub cookie: u64,
}

/// Which ICMP error answers a pending SYN. What the sender's program sees on Linux stands behind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Unreachable {
    /// Net unreachable (3/0; v6 1/0): `ENETUNREACH`.
    Net,
    /// Host unreachable (3/1; v6 1/3): `EHOSTUNREACH`.
    Host,
    /// Port unreachable (3/3; v6 1/4): `ECONNREFUSED`.
    Port,
    /// Administratively prohibited (3/13; v6 1/1): `EHOSTUNREACH` (v6: `EACCES`).
    Prohibited,
    /// Fragmentation needed (3/4; v6 packet too big): the sender learns what the path carries, `EMSGSIZE` if it
    /// must not fragment.
    TooBig {
        /// Bytes of the largest packet.
        mtu: u32,
    },
}

/// The SYN or connection a command named is gone (reset, given up, or never was).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

/// Which directions a shutdown ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shutdown {
    /// No more receiving. Nothing goes on the wire.
    Read,
    /// No more sending: FIN behind what is queued.
    Write,
    /// Both.
    Both,
}

/// What [`Stack::kill`] ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KillTarget {
    /// The socket with this cookie, in any state.
    Cookie(u64),
    /// The socket of this pair, in any state.
    Tuple(FourTuple),
}

/// A setting that could not be written.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SysctlError {
    /// There is no such setting.
    Unknown,
    /// Linux has it, a stack does not; the text says why.
    NotApplicable(&'static str),
    /// Not a value of this setting's type, or out of range: Linux answers `EINVAL`. The text gives the range.
    Invalid(String),
    /// Read-only.
    ReadOnly,
}

/// One UDP datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// Where it was sent to.
    pub to: SocketAddr,
    /// Its payload.
    pub data: Bytes,
    /// Its sender wants it whole or not at all: it came whole, with IPv4's don't-fragment bit. Means nothing for one that
    /// is sent.
    pub dont_fragment: bool,
}
