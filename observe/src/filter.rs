//! Which sockets: iproute2's `ss` grammar, and a few words of our own.
//!
//! Owns:    the expression, its parser ([`Filter::parse`]) and its evaluation on a row ([`Expr::matches`]).
//! Rules:   `ss(8)`, "STATE-FILTER" and "EXPRESSION"; our own words are `pid`, `process`, `timer`, `recvq`,
//!          `sendq`, `age`, `uid`, `cookie`, `orphan`.
//! Differs: `state` may stand anywhere, also inside parentheses, and then means what it says.
//! Not here: the kernel's byte code (`source::kernel::bytecode`).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use lastack_core::observe::TimerKind;
use lastack_core::tcp::state::TcpState;

use crate::row::Row;

mod lex;
mod parse;

pub use parse::{FilterError, duration_ms};

/// A set of states, as sock_diag's bit mask (`1 << state`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateSet(u16);

impl StateSet {
    /// Every state.
    pub const ALL: Self = Self(0b1_1111_1111_1110);
    /// No state.
    pub const NONE: Self = Self(0);
    /// What `ss` shows without `-a`, `-l` or a state: neither listeners, unconnected, TIME-WAIT nor half-open.
    pub const CONNECTED: Self = Self(
        Self::ALL.0
            & !(1 << TcpState::Listen as u8
                | 1 << TcpState::Close as u8
                | 1 << TcpState::TimeWait as u8
                | 1 << TcpState::SynRecv as u8
                | 1 << TcpState::NewSynRecv as u8),
    );

    /// The set of one state.
    pub const fn of(state: TcpState) -> Self {
        match state {
            // A half-open entry is SYN-RECV to everybody who asks.
            TcpState::SynRecv | TcpState::NewSynRecv => {
                Self(1 << TcpState::SynRecv as u8 | 1 << TcpState::NewSynRecv as u8)
            }
            _ => Self(1 << state as u8),
        }
    }

    /// True when `state` is in the set.
    pub const fn contains(self, state: TcpState) -> bool {
        self.0 & (1 << state as u8) != 0
    }

    /// The union.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The intersection.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// All other states.
    #[must_use]
    pub const fn complement(self) -> Self {
        Self(Self::ALL.0 & !self.0)
    }

    /// The mask sock_diag wants.
    pub const fn mask(self) -> u32 {
        self.0 as u32
    }

    /// The set a word of `ss` names: a state, or `all`, `connected`, `synchronized`, `bucket`, `big`.
    pub fn by_name(word: &str) -> Option<Self> {
        let state = |state| Some(Self::of(state));
        match word.to_ascii_lowercase().as_str() {
            "established" | "estab" => state(TcpState::Established),
            "syn-sent" => state(TcpState::SynSent),
            "syn-recv" => state(TcpState::SynRecv),
            "fin-wait-1" | "fin-wait1" => state(TcpState::FinWait1),
            "fin-wait-2" | "fin-wait2" => state(TcpState::FinWait2),
            "time-wait" => state(TcpState::TimeWait),
            "closed" | "unconnected" | "unconn" | "close" => state(TcpState::Close),
            "close-wait" => state(TcpState::CloseWait),
            "last-ack" => state(TcpState::LastAck),
            "listening" | "listen" => state(TcpState::Listen),
            "closing" => state(TcpState::Closing),
            "all" => Some(Self::ALL),
            "connected" => Some(Self::of(TcpState::Close).or(Self::of(TcpState::Listen)).complement()),
            "synchronized" => Some(
                Self::of(TcpState::Close)
                    .or(Self::of(TcpState::Listen))
                    .or(Self::of(TcpState::SynSent))
                    .complement(),
            ),
            "bucket" => Some(Self::of(TcpState::SynRecv).or(Self::of(TcpState::TimeWait))),
            "big" => Some(Self::of(TcpState::SynRecv).or(Self::of(TcpState::TimeWait)).complement()),
            _ => None,
        }
    }
}

/// A comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Cmp {
    Eq,
    Ne,
    Ge,
    Le,
    Gt,
    Lt,
}

impl Cmp {
    fn holds(self, left: u64, right: u64) -> bool {
        match self {
            Self::Eq => left == right,
            Self::Ne => left != right,
            Self::Ge => left >= right,
            Self::Le => left <= right,
            Self::Gt => left > right,
            Self::Lt => left < right,
        }
    }
}

/// One end to compare with: a prefix, a port, or both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// Address and prefix length; `None` is any address.
    pub prefix: Option<(IpAddr, u8)>,
    /// Port; `None` is any.
    pub port: Option<u16>,
    /// Only sockets of this family: 4 or 6 (from `inet:` and `inet6:`).
    pub family: Option<u8>,
}

/// Which of a socket's two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// `src`, `sport`.
    Local,
    /// `dst`, `dport`.
    Peer,
}

/// One condition.
#[derive(Clone, PartialEq, Debug)]
pub enum Cond {
    /// The state is one of these.
    State(StateSet),
    /// An end lies in a prefix (and on a port).
    Host(End, Host),
    /// An end's port compares so.
    Port(End, Cmp, u16),
    /// Bound to this interface.
    Dev(u32),
    /// `SO_MARK` under a mask.
    Mark {
        /// Value.
        value: u32,
        /// Mask.
        mask: u32,
    },
    /// Control group id.
    Cgroup(u64),
    /// The local port lies in the range the kernel chooses from (lowest, highest).
    ///
    /// `ss` asks the kernel too, which says yes for every accepted connection: that part is left out, so
    /// that "not autobound" is the opposite of "autobound".
    Autobound(u16, u16),
    /// The owner's process id.
    Pid(u32),
    /// The owner's name.
    Process(String),
    /// The running timer; `None` is no timer.
    Timer(Option<TimerKind>),
    /// Bytes received and not read.
    RecvQ(Cmp, u64),
    /// Bytes given and not acknowledged.
    SendQ(Cmp, u64),
    /// For how long it has been in its present condition, milliseconds.
    Age(Cmp, u64),
    /// Creator's user id.
    Uid(u32),
    /// The socket's cookie.
    Cookie(u64),
    /// No program holds it any more.
    Orphan,
}

/// An expression.
#[derive(Clone, PartialEq, Debug)]
pub enum Expr {
    /// Everything.
    All,
    /// Nothing.
    Nothing,
    /// One condition.
    Cond(Cond),
    /// Not.
    Not(Box<Expr>),
    /// Both.
    And(Box<Expr>, Box<Expr>),
    /// Either.
    Or(Box<Expr>, Box<Expr>),
}

/// A whole filter: the states to ask for, and the expression.
#[derive(Clone, PartialEq, Debug)]
pub struct Filter {
    /// States named outside any parentheses; all of `ss`'s default when none is named.
    pub states: StateSet,
    /// True when the filter named states itself.
    pub names_states: bool,
    /// The rest.
    pub expr: Expr,
}

impl Default for Filter {
    fn default() -> Self {
        Self { states: StateSet::CONNECTED, names_states: false, expr: Expr::All }
    }
}

impl Filter {
    /// Every socket of every state.
    pub fn everything() -> Self {
        Self { states: StateSet::ALL, names_states: true, expr: Expr::All }
    }

    /// True when it chooses nothing at all: neither states nor conditions.
    pub fn is_empty(&self) -> bool {
        !self.names_states && self.expr == Expr::All
    }

    /// True when `row` is chosen.
    pub fn matches(&self, row: &Row) -> bool {
        self.states.contains(row.socket.state) && self.expr.matches(row)
    }

    /// True when deciding needs the owner.
    pub fn needs_owner(&self) -> bool {
        self.expr.any(&|cond| matches!(cond, Cond::Pid(_) | Cond::Process(_)))
    }
}

impl Expr {
    /// `self` and `other`, without superfluous `All`s.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, only) | (only, Self::All) => only,
            (left, right) => Self::And(Box::new(left), Box::new(right)),
        }
    }

    /// True when `row` is chosen.
    pub fn matches(&self, row: &Row) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Not(inner) => !inner.matches(row),
            Self::And(left, right) => left.matches(row) && right.matches(row),
            Self::Or(left, right) => left.matches(row) || right.matches(row),
            Self::Cond(cond) => cond.matches(row),
        }
    }

    /// True when any condition satisfies `test`.
    pub fn any(&self, test: &dyn Fn(&Cond) -> bool) -> bool {
        match self {
            Self::All | Self::Nothing => false,
            Self::Not(inner) => inner.any(test),
            Self::And(left, right) | Self::Or(left, right) => left.any(test) || right.any(test),
            Self::Cond(cond) => test(cond),
        }
    }

    /// The conditions joined by `and` at the top.
    pub fn conjuncts(self) -> Vec<Self> {
        match self {
            Self::All => Vec::new(),
            Self::And(left, right) => {
                let mut all = left.conjuncts();
                all.extend(right.conjuncts());
                all
            }
            other => vec![other],
        }
    }
}

impl Cond {
    fn matches(&self, row: &Row) -> bool {
        let socket = &row.socket;
        let end = |end| match end {
            End::Local => socket.local,
            End::Peer => socket.remote,
        };
        match self {
            Self::State(set) => set.contains(socket.state),
            Self::Host(which, host) => host.matches(end(*which)),
            Self::Port(which, cmp, port) => cmp.holds(end(*which).port().into(), (*port).into()),
            Self::Dev(index) => row.interface == *index,
            Self::Mark { value, mask } => row.mark.unwrap_or(0) & mask == *value,
            Self::Cgroup(id) => row.cgroup == Some(*id),
            Self::Autobound(low, high) => (*low..=*high).contains(&socket.local.port()),
            Self::Pid(pid) => row.owner.as_ref().is_some_and(|owner| owner.pid == Some(*pid)),
            Self::Process(name) => row.owner.as_ref().is_some_and(|owner| *owner.comm == **name),
            Self::Timer(kind) => socket.timer.map(|timer| timer.kind) == *kind,
            Self::RecvQ(cmp, bytes) => cmp.holds(socket.recv_q.into(), *bytes),
            Self::SendQ(cmp, bytes) => cmp.holds(socket.send_q.into(), *bytes),
            Self::Age(cmp, ms) => row.condition_age_ms().is_some_and(|age| cmp.holds(age, *ms)),
            Self::Uid(uid) => row.uid == Some(*uid),
            Self::Cookie(cookie) => socket.cookie == *cookie,
            Self::Orphan => socket.orphan,
        }
    }
}

impl Host {
    /// True when `end` lies in the prefix and on the port. A v4-mapped address matches an IPv4 prefix,
    /// but an IPv4 address no v6 prefix, as in the kernel (`inet_diag_bc_run`).
    pub fn matches(&self, end: SocketAddr) -> bool {
        let family = if end.is_ipv4() { 4 } else { 6 };
        self.family.is_none_or(|wanted| wanted == family)
            && self.port.is_none_or(|port| port == end.port())
            && self.prefix.is_none_or(|(network, length)| in_prefix(end.ip(), network, length))
    }
}

fn in_prefix(address: IpAddr, network: IpAddr, length: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => leading_equal(&a.octets(), &n.octets(), length),
        (IpAddr::V6(a), IpAddr::V6(n)) => leading_equal(&a.octets(), &n.octets(), length),
        (IpAddr::V6(a), IpAddr::V4(_)) => {
            Ipv6Addr::to_ipv4_mapped(&a).is_some_and(|a| in_prefix(IpAddr::V4(a), network, length))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    }
}

fn leading_equal(a: &[u8], b: &[u8], bits: u8) -> bool {
    let (whole, rest) = (usize::from(bits / 8), bits % 8);
    a[..whole] == b[..whole] && (rest == 0 || (a[whole] ^ b[whole]) & (0xffu8 << (8 - rest)) == 0)
}

impl fmt::Display for Cmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Ge => ">=",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Lt => "<",
        })
    }
}

#[cfg(test)]
mod tests;
