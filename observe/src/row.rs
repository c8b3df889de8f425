//! One socket with everything that is known about it: the vocabulary's row plus what only a kernel has.

use std::net::SocketAddr;
use std::sync::Arc;

use lastack_core::observe::SocketRow;
use lastack_core::tcp::state::TcpState;

/// How something is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Certainty {
    /// We saw the segment, or the kernel said so.
    Observed,
    /// Follows from what we saw.
    Inferred,
    /// One of several explanations.
    Possible,
}

impl Certainty {
    /// The word used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Inferred => "inferred",
            Self::Possible => "possible",
        }
    }
}

/// How an owner is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OwnerHow {
    /// It holds a descriptor of the socket now (`/proc/PID/fd`).
    Descriptor,
    /// A recorder saw it hold one, or an earlier look of ours did.
    Recorded,
    /// The kernel still knows the socket's control group.
    Cgroup,
    /// It listens on the socket's local port: inferred.
    Listener,
}

impl OwnerHow {
    /// The word used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Descriptor => "descriptor",
            Self::Recorded => "recorded",
            Self::Cgroup => "cgroup",
            Self::Listener => "listener",
        }
    }
}

/// The program that has, or had, a socket.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Owner {
    /// Process id, where one is known.
    pub pid: Option<u32>,
    /// Command name (`/proc/PID/comm`), or the unit or container where only the control group is known.
    pub comm: Arc<str>,
    /// Descriptor number, while one is open.
    pub fd: Option<i32>,
    /// True when the program has closed the socket.
    pub former: bool,
    /// How this is known.
    pub how: OwnerHow,
}

impl Owner {
    /// What is still true of it when it was found at an earlier look, and `row` is the socket as it is now.
    pub fn remembered(self, row: &Row) -> Self {
        if self.how != OwnerHow::Descriptor || row.is_held() {
            return self;
        }
        Self { fd: None, former: true, how: OwnerHow::Recorded, ..self }
    }
}

/// Socket memory, Linux's `INET_DIAG_SKMEMINFO`, in bytes (`drops` counts packets).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "the names are Linux's")]
pub struct SkMem {
    pub rmem_alloc: u32,
    pub rcvbuf: u32,
    pub wmem_alloc: u32,
    pub sndbuf: u32,
    pub fwd_alloc: u32,
    pub wmem_queued: u32,
    pub optmem: u32,
    pub backlog: u32,
    pub drops: u32,
}

/// One socket.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// What any source knows.
    pub socket: SocketRow,
    /// The network namespace's inode number; 0 where the source has none.
    pub netns: u64,
    /// Inode of the open socket; 0 when nobody has it open (orphan, not yet accepted, TIME-WAIT).
    pub inode: u32,
    /// User id of the creator; the kernel keeps none for mini sockets.
    pub uid: Option<u32>,
    /// Interface index it is bound to; 0 is any.
    pub interface: u32,
    /// `SO_MARK`, where we may see it.
    pub mark: Option<u32>,
    /// Control group id.
    pub cgroup: Option<u64>,
    /// Bit 1: receiving is shut down; bit 2: sending.
    pub shutdown: Option<u8>,
    /// A v6 listener that takes no IPv4.
    pub v6only: bool,
    /// Congestion control.
    pub congestion: Option<Arc<str>>,
    /// Memory.
    pub memory: Option<SkMem>,
    /// The owner, when it was asked for and found.
    pub owner: Option<Owner>,
}

impl From<SocketRow> for Row {
    /// What any source knows, and nothing that only a kernel has.
    fn from(socket: SocketRow) -> Self {
        Self {
            socket,
            netns: 0,
            inode: 0,
            uid: None,
            interface: 0,
            mark: None,
            cgroup: None,
            shutdown: None,
            v6only: false,
            congestion: None,
            memory: None,
            owner: None,
        }
    }
}

impl Row {
    /// A socket of which only the state and the addresses are known.
    pub fn new(state: TcpState, local: SocketAddr, remote: SocketAddr) -> Self {
        Self::from(SocketRow {
            state,
            local,
            remote,
            recv_q: 0,
            send_q: 0,
            timer: None,
            cookie: 0,
            orphan: false,
            age_ms: None,
            state_age_ms: None,
            info: None,
        })
    }

    /// Waits in a listener's accept queue: finished, but no program has taken it yet.
    pub fn is_unaccepted(&self) -> bool {
        self.netns != 0
            && self.inode == 0
            && !self.socket.orphan
            && matches!(self.socket.state, TcpState::Established | TcpState::CloseWait)
    }

    /// A program holds it. A stack's rows (namespace 0) have no inode; there it is the one who is no orphan.
    pub fn is_held(&self) -> bool {
        if self.netns == 0 { !self.socket.orphan && self.uid.is_some() } else { self.inode != 0 }
    }

    /// A lower bound for how long the socket has been in its present condition, in milliseconds.
    ///
    /// The kernel keeps no such time. A recorder's `state_age_ms` is taken when there is one; else it is
    /// inferred, state by state, from what bounds it: the timer that has run, the last ACK, the last data.
    pub fn condition_age_ms(&self) -> Option<u64> {
        let in_state = self.socket.state_age_ms;
        let inferred = || crate::row::age::inferred_ms(&self.socket);
        match self.socket.state {
            // An open connection stalls, or falls silent, long after it was opened.
            TcpState::Established | TcpState::CloseWait => match (in_state, inferred()) {
                (Some(state), Some(condition)) => Some(state.min(condition)),
                (one, other) => one.or(other),
            },
            _ => in_state.or_else(inferred),
        }
    }
}

pub mod age;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_closed_a_socket_since_the_last_look_holds_it_no_more() {
        let row = Row::new(
            TcpState::FinWait2,
            "10.0.0.1:80".parse().expect("an address"),
            "10.0.0.9:4000".parse().expect("an address"),
        );
        let held = Row { netns: 1, inode: 7, ..row };
        let closed = Row { inode: 0, ..held.clone() };
        let owner = |how| Owner { pid: Some(71), comm: "nginx".into(), fd: Some(12), former: false, how };
        let found = owner(OwnerHow::Descriptor);
        assert_eq!(found.clone().remembered(&held), found);
        let former = Owner { fd: None, former: true, how: OwnerHow::Recorded, ..found.clone() };
        assert_eq!(found.remembered(&closed), former);
        let inferred = owner(OwnerHow::Listener);
        assert_eq!(inferred.clone().remembered(&closed), inferred);
    }
}
