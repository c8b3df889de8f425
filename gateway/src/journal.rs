//! What is written down about a connection or a flow when it has ended.
//!
//! Owns:    [`Connection`], [`Flow`], [`Lookup`], and the closed sets their fields come from; the JSON line of each.
//! Rules:   field names, identifiers and their order are the command line's contract: scripts depend on them.
//!          What is not known is absent; what is known says how ([`Certainty`]).
//! Not here: how an ending is judged (`verdict`), texts for people (the command line).

use std::net::SocketAddr;

use lastack::core::observe::Life;
use lastack::core::tcp::state::TcpState;
use lastack::core::time::Instant;
use serde::Serialize;

use crate::inject::Injected;
use crate::limits::Reached;
use crate::owner::Owner;
use crate::sandbox::DeviceKind;

macro_rules! identifiers {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its stable identifier.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.name())
            }
        }
    };
}

pub(crate) use identifiers;

mod lookup;

pub use lookup::{Lookup, LookupEnd};

identifiers!(
    /// The side that sent the first FIN or RST.
    ClosedBy {
        /// The program behind the stack.
        Program = "program",
        /// The other end.
        Remote = "remote",
        /// Both at once.
        Both = "both",
        /// Lastack: a rule, a command.
        Lastack = "lastack",
        /// Nobody: it timed out, or it is still open.
        Nobody = "none",
    }
);

identifiers!(
    /// Who opened a connection.
    Direction {
        /// The program connected.
        Out = "out",
        /// The program listened.
        In = "in",
    }
);

identifiers!(
    /// How a connection ended.
    How {
        /// A FIN each way.
        Fin = "fin",
        /// A RST.
        Reset = "reset",
        /// The attempt was answered with RST.
        Refused = "refused",
        /// Nobody answered.
        Timeout = "timeout",
        /// The network said there is no way.
        Unreachable = "unreachable",
        /// A rule forbade it.
        Denied = "denied",
        /// Ended by command.
        Killed = "killed",
        /// It has not ended.
        Open = "open",
    }
);

identifiers!(
    /// Why it ended so, where that is known.
    Reason {
        /// close() with data unread: its kernel sent RST instead of FIN (RFC 2525 2.17).
        ClosedWithUnreadData = "closed-with-unread-data",
        /// close() with SO_LINGER and zero seconds.
        LingerZero = "linger-zero",
        /// Data came for a socket that was closed already.
        DataAfterClose = "data-after-close",
        /// The remote end sent RST; why cannot be seen from here.
        ResetByPeer = "reset-by-peer",
        /// The program's end sent RST; why could not be told.
        ResetByProgram = "reset-by-program",
        /// Nobody listens on that port.
        NoListener = "no-listener",
        /// A published port: the program listens on its own loopback, where nobody outside can come.
        ListensOnLoopback = "listens-on-loopback",
        /// No answer to the connection attempt.
        ConnectTimeout = "connect-timeout",
        /// No way to the host, or to its network.
        HostUnreachable = "host-unreachable",
        /// A rule of this host forbids the destination.
        Prohibited = "prohibited",
        /// An `--allow` or `--deny` rule.
        DeniedByRule = "denied-by-rule",
        /// `--no-host-loopback`.
        LoopbackClosed = "loopback-closed",
        /// An address that no packet on a link may be for: this host's own inside by another name, or everybody.
        MartianDestination = "martian-destination",
        /// The program gave up while the connection was being made.
        ProgramGone = "program-gone",
        /// Forced by `--inject`.
        Injected = "injected",
        /// Keepalive probes went unanswered.
        KeepaliveTimeout = "keepalive-timeout",
        /// Nothing was carried either way for as long as `--tcp-idle` allows.
        IdleTimeout = "idle-timeout",
        /// Retransmissions went unanswered.
        RetriesExhausted = "retries-exhausted",
        /// This host had no port, descriptor or memory left for it.
        HostLimit = "host-limit",
        /// As many connections as there may be (`--max-connections`) were open.
        ConnectionLimit = "connection-limit",
    }
);

identifiers!(
    /// How a stated cause is known.
    Certainty {
        /// We saw the segment, or the kernel said so.
        Observed = "observed",
        /// It follows from what we saw.
        Inferred = "inferred",
        /// It may be so.
        Possible = "possible",
    }
);

/// How it ended: the part of a record that is judged, not measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Who sent the first FIN or RST.
    pub closed_by: ClosedBy,
    /// How it ended.
    pub how: How,
    /// Why, where known and not clean.
    pub reason: Option<Reason>,
    /// How that is known.
    pub certainty: Certainty,
    /// The side whose RST, refusal or silence ended it; after a clean close, who closed first.
    pub ended_by: ClosedBy,
}

/// The leg from the program to the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Inside {
    /// Segments the program's kernel sent; a super-segment counts as its pieces.
    pub segments_up: u32,
    /// Segments sent to it.
    pub segments_down: u32,
    /// Segments sent to it again.
    pub retransmits: u32,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
}

/// The leg from the host to the remote end, as the host's kernel has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Outside {
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Bytes given to the host's kernel that the remote end's kernel had not acknowledged at the end.
    pub unacked_bytes: u64,
}

/// One TCP connection.
#[derive(Clone, PartialEq, Debug)]
pub struct Connection {
    /// Its number in this run, from 1.
    pub id: u64,
    /// Whose it is, where that could be told.
    pub owner: Option<Owner>,
    /// The program's end.
    pub local: SocketAddr,
    /// The other end as the program used it.
    pub remote: SocketAddr,
    /// The published address that was called; `None`: the program opened it.
    pub host_local: Option<SocketAddr>,
    /// Where it really went, or came from; `None`: nowhere.
    pub host_remote: Option<SocketAddr>,
    /// The link to the program, where it has one of ours.
    pub device: Option<DeviceKind>,
    /// Who opened it.
    pub direction: Direction,
    /// When its SYN came.
    pub opened: Instant,
    /// From SYN to established, microseconds; `None`: never.
    pub handshake_us: Option<u64>,
    /// From SYN to the end, microseconds.
    pub duration_us: u64,
    /// Payload bytes the program's kernel sent in order.
    pub bytes_up: u64,
    /// Payload bytes the remote end sent.
    pub bytes_down: u64,
    /// The leg to the program; `None`: never established.
    pub inside: Option<Inside>,
    /// The leg to the remote end; `None`: never established.
    pub outside: Option<Outside>,
    /// How it ended.
    pub verdict: Verdict,
    /// The errno the host's connect(2) gave, where it failed.
    pub host_errno: Option<i32>,
    /// Of `bytes_up`, bytes the remote end's kernel never acknowledged.
    pub lost_up: u64,
    /// Of `bytes_down`, bytes the program's kernel never acknowledged.
    pub lost_down: u64,
    /// Bytes a side closed upon without reading, where known.
    pub unread_bytes: Option<u64>,
    /// What was forced on it (`--inject`).
    pub injected: Option<Injected>,
    /// States of the stack's end, with microseconds since the SYN.
    pub states: Vec<(TcpState, u64)>,
}

identifiers!(
    /// What a flow is made of.
    FlowProtocol {
        /// Datagrams.
        Udp = "udp",
        /// Pings. The program's port is their identifier, the other is 0.
        Icmp = "icmp",
    }
);

/// One flow: datagrams, or pings, between two addresses until nobody sends any.
#[derive(Clone, PartialEq, Debug)]
pub struct Flow {
    /// Its number in this run, from 1, shared with connections.
    pub id: u64,
    /// What it is made of.
    pub protocol: FlowProtocol,
    /// Whose it is, where that could be told.
    pub owner: Option<Owner>,
    /// The program's end.
    pub local: SocketAddr,
    /// The other end as the program used it.
    pub remote: SocketAddr,
    /// The published address that was called; `None`: the program began it.
    pub host_local: Option<SocketAddr>,
    /// Where it really went, or came from; `None`: nowhere.
    pub host_remote: Option<SocketAddr>,
    /// The link to the program, where it has one of ours.
    pub device: Option<DeviceKind>,
    /// Who began it.
    pub direction: Direction,
    /// When the first datagram came.
    pub opened: Instant,
    /// From the first to the last datagram, microseconds.
    pub duration_us: u64,
    /// Payload bytes from the program.
    pub bytes_up: u64,
    /// Payload bytes to it.
    pub bytes_down: u64,
    /// Datagrams from the program.
    pub datagrams_up: u64,
    /// Datagrams to it.
    pub datagrams_down: u64,
    /// How it ended.
    pub how: FlowEnd,
}

identifiers!(
    /// How a flow ended.
    FlowEnd {
        /// Nobody sent anything for a while, or the run ended.
        Idle = "idle",
        /// The remote end answered that the port is closed.
        Refused = "refused",
        /// The network said there is no way.
        Unreachable = "unreachable",
        /// A rule forbade it.
        Denied = "denied",
        /// `--no-host-loopback`.
        LoopbackClosed = "loopback-closed",
        /// To an address that no packet on a link may be for: it was dropped.
        MartianDestination = "martian-destination",
        /// This host does not let its user: `net.ipv4.ping_group_range`.
        NotPermitted = "not-permitted",
    }
);

/// An entry of the journal.
#[derive(Clone, PartialEq, Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every entry is the large one")]
pub enum Entry {
    /// A TCP connection.
    Connection(Connection),
    /// A UDP flow.
    Flow(Flow),
    /// A name that was looked up.
    Lookup(Lookup),
    /// A limit that turned something away; told at the end.
    Limit(Reached),
}

impl Connection {
    /// Bytes acknowledged to one side that the other side's kernel never acknowledged.
    pub fn lost_bytes(&self) -> u64 {
        self.lost_up + self.lost_down
    }

    /// Its line in the JSON journal, without a newline.
    pub fn to_json(&self, explanation: &str, advice: Option<&str>) -> String {
        let line = ConnectionLine {
            event: "connection",
            id: self.id,
            protocol: "tcp",
            pid: self.owner.as_ref().map(|owner| owner.pid),
            process: self.owner.as_ref().map(|owner| &*owner.process),
            cgroup: self.owner.as_ref().and_then(|owner| owner.cgroup.as_deref()),
            family: family(self.remote),
            local: self.local,
            remote: self.remote,
            host_local: self.host_local,
            host_remote: self.host_remote,
            direction: self.direction,
            device: self.device.map(DeviceKind::name),
            opened_ns: self.opened.as_nanos(),
            handshake_us: self.handshake_us,
            duration_us: self.duration_us,
            bytes_up: self.bytes_up,
            bytes_down: self.bytes_down,
            inside: self.inside,
            outside: self.outside,
            closed_by: self.verdict.closed_by,
            how: self.verdict.how,
            reason: self.verdict.reason,
            certainty: self.verdict.certainty,
            lost_data: self.lost_bytes() > 0,
            lost_bytes: self.lost_bytes(),
            unread_bytes: self.unread_bytes,
            injected: self.injected,
            states: self.states.iter().map(|(state, at)| (state.name(), *at)).collect(),
            explanation,
            advice,
        };
        serde_json::to_string(&line).expect("strings and numbers only")
    }
}

impl Flow {
    /// Its line in the JSON journal, without a newline.
    pub fn to_json(&self, explanation: &str) -> String {
        let line = FlowLine {
            event: "flow",
            id: self.id,
            protocol: self.protocol,
            pid: self.owner.as_ref().map(|owner| owner.pid),
            process: self.owner.as_ref().map(|owner| &*owner.process),
            cgroup: self.owner.as_ref().and_then(|owner| owner.cgroup.as_deref()),
            family: family(self.remote),
            local: self.local,
            remote: self.remote,
            host_local: self.host_local,
            host_remote: self.host_remote,
            direction: self.direction,
            device: self.device.map(DeviceKind::name),
            opened_ns: self.opened.as_nanos(),
            duration_us: self.duration_us,
            bytes_up: self.bytes_up,
            bytes_down: self.bytes_down,
            datagrams_up: self.datagrams_up,
            datagrams_down: self.datagrams_down,
            how: self.how,
            explanation,
        };
        serde_json::to_string(&line).expect("strings and numbers only")
    }
}

fn family(address: SocketAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

#[derive(Serialize)]
struct ConnectionLine<'a> {
    event: &'static str,
    id: u64,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    family: u8,
    local: SocketAddr,
    remote: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_local: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_remote: Option<SocketAddr>,
    direction: Direction,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'static str>,
    opened_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_us: Option<u64>,
    duration_us: u64,
    bytes_up: u64,
    bytes_down: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    inside: Option<Inside>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outside: Option<Outside>,
    closed_by: ClosedBy,
    how: How,
    reason: Option<Reason>,
    certainty: Certainty,
    lost_data: bool,
    lost_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unread_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    injected: Option<Injected>,
    states: Vec<(&'static str, u64)>,
    explanation: &'a str,
    advice: Option<&'a str>,
}

#[derive(Serialize)]
struct FlowLine<'a> {
    event: &'static str,
    id: u64,
    protocol: FlowProtocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    family: u8,
    local: SocketAddr,
    remote: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_local: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_remote: Option<SocketAddr>,
    direction: Direction,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'static str>,
    opened_ns: u64,
    duration_us: u64,
    bytes_up: u64,
    bytes_down: u64,
    datagrams_up: u64,
    datagrams_down: u64,
    how: FlowEnd,
    explanation: &'a str,
}

/// The state in which the stack's end of a connection begins.
pub(crate) const fn first_state(direction: Direction) -> TcpState {
    match direction {
        Direction::Out => TcpState::SynRecv,
        Direction::In => TcpState::SynSent,
    }
}

/// The states the stack's end went through, told from the times in its `life`; microseconds since the SYN.
pub fn states(life: &Life, direction: Direction) -> Vec<(TcpState, u64)> {
    let mut states = vec![(first_state(direction), life.opened_at)];
    states.extend(life.established_at.map(|at| (TcpState::Established, at)));
    // RFC 9293 figure 5: which state follows depends on which of the three came first.
    let (fin, acked, received) = (life.fin_queued_at, life.fin_acked_at, life.fin_received_at);
    let before = |a: Instant, b: Option<Instant>| b.is_none_or(|b| a <= b);
    match (fin, received) {
        (Some(fin), received) if before(fin, received) => {
            states.push((TcpState::FinWait1, fin));
            match (acked, received) {
                (Some(acked), received) if before(acked, received) => {
                    states.push((TcpState::FinWait2, acked));
                    states.extend(received.map(|at| (TcpState::TimeWait, at)));
                }
                (acked, Some(received)) => {
                    states.push((TcpState::Closing, received));
                    states.extend(acked.map(|at| (TcpState::TimeWait, at)));
                }
                (_, None) => {}
            }
        }
        (fin, Some(received)) => {
            states.push((TcpState::CloseWait, received));
            states.extend(fin.map(|at| (TcpState::LastAck, at)));
            states.extend(acked.map(|at| (TcpState::Close, at)));
        }
        _ => {}
    }
    let ended =
        life.ended_at.filter(|_| !matches!(states.last(), Some((TcpState::TimeWait | TcpState::Close, _))));
    states.extend(ended.map(|at| (TcpState::Close, at)));
    states
        .into_iter()
        .map(|(state, at)| (state, at.saturating_since(life.opened_at).as_micros() as u64))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(times: [Option<u64>; 5]) -> Life {
        let at = |i: usize| times[i].map(|us| Instant::from_micros(1_000 + us));
        Life {
            opened_at: Instant::from_micros(1_000),
            established_at: at(0),
            fin_queued_at: at(1),
            fin_acked_at: at(2),
            fin_received_at: at(3),
            ended_at: at(4),
            ..Life::default()
        }
    }

    fn names(times: [Option<u64>; 5]) -> String {
        states(&life(times), Direction::Out).iter().map(|(state, at)| format!("{state}@{at} ")).collect()
    }

    #[test]
    fn states_follow_from_who_closed_first() {
        assert_eq!(
            names([Some(5), Some(10), Some(12), Some(20), Some(20)]),
            "SYN-RECV@0 ESTAB@5 FIN-WAIT-1@10 FIN-WAIT-2@12 TIME-WAIT@20 "
        );
        assert_eq!(
            names([Some(5), Some(20), Some(22), Some(10), Some(22)]),
            "SYN-RECV@0 ESTAB@5 CLOSE-WAIT@10 LAST-ACK@20 UNCONN@22 "
        );
        assert_eq!(
            names([Some(5), Some(10), Some(14), Some(12), Some(14)]),
            "SYN-RECV@0 ESTAB@5 FIN-WAIT-1@10 CLOSING@12 TIME-WAIT@14 "
        );
        assert_eq!(names([Some(5), None, None, None, Some(9)]), "SYN-RECV@0 ESTAB@5 UNCONN@9 ");
        assert_eq!(
            names([Some(5), Some(7), None, None, Some(9)]),
            "SYN-RECV@0 ESTAB@5 FIN-WAIT-1@7 UNCONN@9 "
        );
        assert_eq!(names([None, None, None, None, None]), "SYN-RECV@0 ");
    }

    #[test]
    fn line_has_the_contracts_fields_in_order() {
        let connection = Connection {
            id: 1,
            owner: Some(Owner { pid: 4711, process: "curl".into(), cgroup: Some("app.service".into()) }),
            local: "10.0.2.100:40122".parse().unwrap(),
            remote: "10.0.2.2:8080".parse().unwrap(),
            host_local: None,
            host_remote: Some("127.0.0.1:8080".parse().unwrap()),
            device: Some(DeviceKind::Veth),
            direction: Direction::Out,
            opened: Instant::from_nanos(17),
            handshake_us: Some(412),
            duration_us: 5120,
            bytes_up: 81,
            bytes_down: 12345,
            inside: Some(Inside { segments_up: 9, segments_down: 11, retransmits: 0, rtt_us: 61 }),
            outside: Some(Outside { rtt_us: 210, retransmits: 0, unacked_bytes: 0 }),
            verdict: Verdict {
                closed_by: ClosedBy::Program,
                how: How::Fin,
                reason: None,
                certainty: Certainty::Observed,
                ended_by: ClosedBy::Program,
            },
            host_errno: None,
            lost_up: 0,
            lost_down: 0,
            unread_bytes: None,
            injected: None,
            states: vec![(TcpState::SynRecv, 0), (TcpState::Established, 412)],
        };
        assert_eq!(
            connection.to_json("text", None),
            concat!(
                r#"{"event":"connection","id":1,"protocol":"tcp","pid":4711,"process":"curl","cgroup":"app.service","family":4,"#,
                r#""local":"10.0.2.100:40122","remote":"10.0.2.2:8080","host_remote":"127.0.0.1:8080","#,
                r#""direction":"out","device":"veth","opened_ns":17,"handshake_us":412,"duration_us":5120,"bytes_up":81,"#,
                r#""bytes_down":12345,"inside":{"segments_up":9,"segments_down":11,"retransmits":0,"rtt_us":61},"#,
                r#""outside":{"rtt_us":210,"retransmits":0,"unacked_bytes":0},"closed_by":"program","how":"fin","#,
                r#""reason":null,"certainty":"observed","lost_data":false,"lost_bytes":0,"#,
                r#""states":[["SYN-RECV",0],["ESTAB",412]],"explanation":"text","advice":null}"#
            )
        );
        let refused =
            Connection { handshake_us: None, inside: None, outside: None, owner: None, ..connection };
        let line = refused.to_json("text", Some("look"));
        assert!(
            !line.contains("pid") && !line.contains("inside") && line.ends_with(r#""advice":"look"}"#),
            "{line}"
        );
    }

    #[test]
    fn identifiers_are_kebab_case_and_unique() {
        let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        for name in &names {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1);
        }
    }
}
