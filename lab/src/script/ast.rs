//! The syntax tree of a packet script: options, timed events, packets and calls as written.
//!
//! Owns:    the shapes; numbers are the script's own, nothing is translated to live values here.
//! Not here: what a name such as `SO_LINGER` is worth ([`super::symbols`]), running (`crate::run`).

use core::time::Duration;

use crate::packet::{TcpFlags, TcpOption};

/// A whole script.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Script {
    /// `--name=value` lines at the top, in order.
    pub options: Vec<ScriptOption>,
    /// The back-quoted command before the first event.
    pub init: Option<String>,
    /// Everything between, in order.
    pub events: Vec<Event>,
    /// The back-quoted command after the last event.
    pub cleanup: Option<String>,
}

impl Script {
    /// The last value given for option `name` (`""` for one without a value).
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|option| option.name == name).map(|option| option.value.as_str())
    }
}

/// One `--name=value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScriptOption {
    /// Without the dashes.
    pub name: String,
    /// Empty when no `=` was written.
    pub value: String,
}

/// One timed event.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Line of the script where it starts, from 1.
    pub line: u32,
    /// When it happens.
    pub when: When,
    /// For a blocking call: when it returns, in the same form as `when`.
    pub end: Option<Duration>,
    /// What happens.
    pub action: Action,
}

impl Event {
    /// The peer sends.
    pub fn is_inbound(&self) -> bool {
        matches!(self.action, Action::Inbound(_))
    }
}

/// The time in front of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// `0.25`: since the first event.
    At(Duration),
    /// `+.25`: since the reference point.
    After(Duration),
    /// `0.2~0.3`
    Between(Duration, Duration),
    /// `+.2~+.3`
    AfterBetween(Duration, Duration),
    /// `*`
    Any,
}

/// What an event does or expects.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// `<`: the peer sends.
    Inbound(Packet),
    /// `>`: the host under test must send.
    Outbound(Packet),
    /// A system call of the application.
    Call(Syscall),
    /// `` `…` ``
    Command(String),
    /// `%{ … }%`
    Code(String),
}

/// A packet as written.
#[derive(Clone, PartialEq, Debug)]
pub struct Packet {
    /// The bracketed part in front.
    pub ip: IpInfo,
    /// The transport.
    pub body: Body,
}

/// What is asked of the IP header; `None` is "not checked" outbound and 0 inbound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IpInfo {
    /// `noecn`, `ect0`, …, `tos 0xNN`
    pub tos: Option<Tos>,
    /// `flowlabel 0xNNNNN`
    pub flow_label: Option<u32>,
    /// `ttl N`
    pub ttl: Option<u8>,
}

impl IpInfo {
    /// Nothing was written.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The TOS byte, or its ECN half.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tos {
    /// The two ECN bits.
    Ecn(u8),
    /// `ect01`: ECT(0) or ECT(1), outbound only.
    AnyEct,
    /// `tos 0xNN`
    Whole(u8),
}

/// The transport part of a packet.
#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    /// A TCP segment.
    Tcp(TcpSpec),
    /// `udp (LEN)`
    Udp {
        /// `SPORT > DPORT`
        ports: Option<(u16, u16)>,
        /// Payload bytes.
        len: u16,
    },
    /// `icmp …`
    Icmp(IcmpSpec),
}

/// A TCP segment as written.
#[derive(Clone, PartialEq, Debug)]
pub struct TcpSpec {
    /// `SPORT > DPORT`
    pub ports: Option<(u16, u16)>,
    /// Flags; the ACE digit where one was written.
    pub flags: TcpFlags,
    /// `P.5`: AE, CWR and ECE are compared as this number.
    pub ace: Option<u8>,
    /// First sequence number.
    pub seq: u32,
    /// Payload bytes.
    pub len: u32,
    /// `ack N`
    pub ack: u32,
    /// `win N`
    pub win: Option<u16>,
    /// `urg N`
    pub urg: u16,
    /// What is said about options.
    pub options: OptionsSpec,
}

/// The options of a TCP segment as written.
#[derive(Clone, PartialEq, Debug)]
pub enum OptionsSpec {
    /// These, in this order; none when nothing was written.
    Exactly(Vec<TcpOption>),
    /// `<...>`
    Any,
}

/// An ICMP message as written.
#[derive(Clone, PartialEq, Debug)]
pub struct IcmpSpec {
    /// Type by name (`unreachable`) or `type_N`.
    pub kind: String,
    /// Code by name (`frag_needed`) or `code_N`.
    pub code: Option<String>,
    /// `mtu N`
    pub mtu: Option<u32>,
    /// `id N`
    pub id: Option<u16>,
    /// The quoted packet.
    pub quoted: Quoted,
}

/// What an ICMP error quotes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quoted {
    /// A TCP segment of ours: first sequence number and length.
    Tcp {
        /// In the script's numbers.
        seq: u32,
        /// Payload bytes.
        len: u32,
    },
    /// `[udp (LEN)]`
    Udp {
        /// Payload bytes.
        len: u16,
    },
}

/// A system call as written.
#[derive(Clone, PartialEq, Debug)]
pub struct Syscall {
    /// `connect`
    pub name: String,
    /// Arguments in order.
    pub args: Vec<Expr>,
    /// The value after `=`.
    pub result: Expr,
    /// The errno symbol after it.
    pub errno: Option<String>,
}

/// An argument.
#[derive(Clone, PartialEq, Debug)]
pub enum Expr {
    /// `123`, `0x1f`, `-1`
    Int(i64),
    /// `SOL_SOCKET`
    Symbol(String),
    /// `A|B|C`
    Union(Vec<Expr>),
    /// `"reno"`
    Str(String),
    /// `...`: the interpreter fills this in.
    Fill,
    /// `[a, b]`
    List(Vec<Expr>),
    /// `{a, b=c}`
    Struct(Vec<Field>),
    /// `htons(8080)`
    Apply(String, Vec<Expr>),
}

/// One member of `{…}`.
#[derive(Clone, PartialEq, Debug)]
pub struct Field {
    /// `onoff` in `onoff=1`; `None` for a positional one.
    pub name: Option<String>,
    /// The parenthesis in `msg_iov(1)=…`.
    pub arg: Option<Expr>,
    /// The value.
    pub value: Expr,
}
