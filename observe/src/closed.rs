//! Closed connections: an ending put together with what tracepoints said about its life.
//!
//! Owns:    hints by pair of addresses, bounded, until the ending comes or they are old.
//! Input:   [`Event`]s of a trace (where permitted) and [`Row`]s of ended sockets.
//! Output:  one [`Closed`] an ending: who closed first, how, why, as far as it is known.
//! Differs: tracepoints see all namespaces, endings one: equal pairs in two namespaces may be mixed up.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use lastack_core::tcp::state::TcpState;
use serde_json::{Map, Value, json};

use crate::row::Row;
use crate::trace::Event;

/// Pairs remembered at most; beyond, the oldest half is forgotten.
const MAX_HINTS: usize = 100_000;

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum How {
    /// By FINs.
    Fin,
    /// By a RST, sent or received.
    Reset,
    /// The SYN was answered by a RST.
    Refused,
    /// Given up.
    Timeout,
    /// No tracepoint told.
    Unknown,
}

/// One closed connection.
#[derive(Clone, Debug)]
pub struct Closed {
    /// The socket at its end.
    pub row: Row,
    /// When, nanoseconds since the Unix epoch.
    pub ended_ns: u64,
    /// When it was established, where a tracepoint or the recorder told.
    pub opened_ns: Option<u64>,
    /// How.
    pub how: How,
    /// `program` (this host's), `remote`, `none`; `None` when nobody told.
    pub closed_by: Option<&'static str>,
    /// The kernel's word for a RST that was sent.
    pub reason: Option<Arc<str>>,
    /// The process that last acted on it: opened it, or closed it.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Hint {
    last_ns: u64,
    opened_ns: Option<u64>,
    closed_by: Option<&'static str>,
    how: Option<How>,
    reason: Option<Arc<str>>,
    pid: Option<u32>,
    comm: Option<Arc<str>>,
}

/// Puts endings and events together.
#[derive(Debug, Default)]
pub struct Correlator {
    hints: HashMap<(SocketAddr, SocketAddr), Hint>,
}

impl Correlator {
    /// Takes note of an event.
    pub fn event(&mut self, event: &Event) {
        let (Some(local), Some(peer)) = (event.local, event.peer) else { return };
        // A SYN that leaves has no port yet: what it says of its socket comes again with the next event.
        if local.port() == 0 || peer.port() == 0 {
            return;
        }
        if self.hints.len() >= MAX_HINTS {
            let mut times: Vec<u64> = self.hints.values().map(|hint| hint.last_ns).collect();
            times.sort_unstable();
            let middle = times[times.len() / 2];
            self.hints.retain(|_, hint| hint.last_ns > middle);
        }
        let hint = self.hints.entry((local, peer)).or_default();
        hint.last_ns = event.at_ns;
        if let Some((pid, comm)) = &event.owner {
            (hint.pid, hint.comm) = (Some(*pid), Some(Arc::clone(comm)));
        }
        match (event.name, event.old_state, event.state) {
            ("inet_sock_set_state", Some(old), Some(new)) => hint.state_change(old, new, event.at_ns),
            // Of no socket any more: the answer to a segment that came late, after an end that was another.
            ("tcp_send_reset", ..) if event.socket.is_none() && hint.is_of_a_connection() => {}
            ("tcp_send_reset", ..) => {
                hint.how = Some(How::Reset);
                hint.closed_by.get_or_insert("program");
                hint.reason.clone_from(&event.reason);
            }
            ("tcp_receive_reset", _, state) => {
                let opening =
                    state == Some(TcpState::SynSent) || hint.opened_ns.is_none() && hint.closed_by.is_none();
                hint.how = Some(if opening && hint.opened_ns.is_none() { How::Refused } else { How::Reset });
                hint.closed_by.get_or_insert("remote");
            }
            // ETIMEDOUT
            ("inet_sk_error_report", ..) if event.error == Some(110) => {
                hint.how = Some(How::Timeout);
                hint.closed_by.get_or_insert("none");
            }
            _ => {}
        }
    }

    /// Makes the record of an ended socket.
    pub fn ended(&mut self, row: Row, ended_ns: u64) -> Closed {
        let key = (row.socket.local, row.socket.remote);
        let hint = self.hints.remove(&key).unwrap_or_default();
        let how = match hint.how {
            Some(how) => how,
            None if hint.closed_by.is_some() => How::Fin,
            None => How::Unknown,
        };
        Closed {
            row,
            ended_ns,
            opened_ns: hint.opened_ns,
            how,
            closed_by: hint.closed_by,
            reason: hint.reason,
            pid: hint.pid,
            comm: hint.comm,
        }
    }
}

impl Hint {
    /// More is known of it than a reset.
    fn is_of_a_connection(&self) -> bool {
        self.opened_ns.is_some() || self.closed_by.is_some()
    }

    fn state_change(&mut self, old: TcpState, new: TcpState, at_ns: u64) {
        match (old, new) {
            (_, TcpState::Established) => {
                self.opened_ns = Some(at_ns);
                // What was told before was of another connection between the same ends.
                (self.how, self.closed_by, self.reason) = (None, None, None);
            }
            (TcpState::Established, TcpState::FinWait1) => {
                self.closed_by = self.closed_by.or(Some("program"))
            }
            (TcpState::Established, TcpState::CloseWait) => {
                self.closed_by = self.closed_by.or(Some("remote"))
            }
            (TcpState::FinWait1, TcpState::Closing) => self.closed_by = Some("both"),
            _ => {}
        }
    }
}

impl How {
    /// The word of the journal's `how`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unknown => "unknown",
        }
    }
}

impl Closed {
    /// One line of NDJSON, schema 1; unknown values are absent.
    pub fn to_json(&self) -> Value {
        let Self { row, ended_ns, opened_ns, how, closed_by, reason, pid, comm } = self;
        let socket = &row.socket;
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
        put("schema", 1.into());
        put("event", "connection".into());
        put("source", "kernel".into());
        put("netns", row.netns.into());
        put("cookie", socket.cookie.into());
        put("protocol", "tcp".into());
        put("family", if socket.local.is_ipv4() { 4 } else { 6 }.into());
        put("local", socket.local.to_string().into());
        put("remote", socket.remote.to_string().into());
        put("ended_ns", (*ended_ns).into());
        if let Some(opened) = opened_ns {
            put("opened_ns", (*opened).into());
            put("duration_us", (ended_ns.saturating_sub(*opened) / 1000).into());
        }
        if *how != How::Unknown {
            put("how", how.name().into());
        }
        if let Some(by) = closed_by {
            put("closed_by", (*by).into());
        }
        if let Some(reason) = reason {
            put("reason", (**reason).into());
        }
        if let Some(pid) = pid {
            put("pid", (*pid).into());
        }
        if let Some(comm) = comm {
            put("process", (**comm).into());
        }
        if let Some(info) = socket.info.as_deref() {
            put("bytes_up", info.bytes_sent.saturating_sub(info.bytes_retrans).into());
            put("bytes_down", info.bytes_received.into());
            put("segments_up", info.segs_out.into());
            put("segments_down", info.segs_in.into());
            put("retransmits", info.total_retrans.into());
            put("rtt_us", info.rtt.into());
            let fields =
                info.fields().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
            put("tcp_info", Value::Object(fields));
        }
        Value::Object(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(local: &str, name: &'static str) -> Event {
        let (local, peer) = (local.parse().ok(), "10.0.0.9:80".parse().ok());
        Event { local, peer, ..Event::new(1, name) }
    }

    #[test]
    fn a_connection_that_the_peer_reset_is_of_the_program_that_opened_it() {
        let mut all = Correlator::default();
        let owner = Some((71, "curl".into()));
        // A SYN that leaves has no port: many connections would share what it says.
        all.event(&Event { owner: Some((70, "wget".into())), ..event("10.0.0.1:0", "inet_sock_set_state") });
        all.event(&Event { owner, ..event("10.0.0.1:4000", "tcp_receive_reset") });
        assert_eq!(all.hints.len(), 1);
        let ends = ["10.0.0.1:4000", "10.0.0.9:80"].map(|end| end.parse().expect("an address"));
        let closed = all.ended(Row::new(TcpState::Close, ends[0], ends[1]), 2);
        assert_eq!((closed.pid, closed.comm.as_deref()), (Some(71), Some("curl")));
        assert_eq!(closed.closed_by, Some("remote"));
    }

    #[test]
    fn a_reset_that_answers_a_late_segment_is_not_how_it_ended() {
        let change = |old, new| Event {
            socket: Some(7),
            old_state: Some(old),
            state: Some(new),
            ..event("10.0.0.1:4000", "inet_sock_set_state")
        };
        let mut all = Correlator::default();
        all.event(&change(TcpState::SynSent, TcpState::Established));
        all.event(&change(TcpState::Established, TcpState::CloseWait));
        all.event(&Event { reason: Some("NO_SOCKET".into()), ..event("10.0.0.1:4000", "tcp_send_reset") });
        let ends = ["10.0.0.1:4000", "10.0.0.9:80"].map(|end| end.parse().expect("an address"));
        let closed = all.ended(Row::new(TcpState::Close, ends[0], ends[1]), 2);
        assert_eq!((closed.how, closed.closed_by, closed.reason), (How::Fin, Some("remote"), None));

        // Later still, and then the same ends connect again.
        all.event(&Event { reason: Some("NO_SOCKET".into()), ..event("10.0.0.1:4000", "tcp_send_reset") });
        all.event(&change(TcpState::SynRecv, TcpState::Established));
        all.event(&change(TcpState::Established, TcpState::FinWait1));
        let closed = all.ended(Row::new(TcpState::Close, ends[0], ends[1]), 3);
        assert_eq!((closed.how, closed.closed_by, closed.reason), (How::Fin, Some("program"), None));

        // A connection that is older than whoever looks.
        all.event(&change(TcpState::Established, TcpState::CloseWait));
        all.event(&Event { reason: Some("NO_SOCKET".into()), ..event("10.0.0.1:4000", "tcp_send_reset") });
        let closed = all.ended(Row::new(TcpState::Close, ends[0], ends[1]), 4);
        assert_eq!((closed.how, closed.closed_by, closed.reason), (How::Fin, Some("remote"), None));
    }
}
