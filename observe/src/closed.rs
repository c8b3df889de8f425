//! Closed connections: an ending put together with what tracepoints said about its life, or a stack's own record of it.
//!
//! Owns:    hints by socket, bounded, until the ending comes or they are old.
//! Input:   [`Event`]s of a trace (where permitted) and [`Row`]s of ended sockets; a [`Life`].
//! Output:  one [`Closed`] an ending: who closed first, how, why, as far as it is known.

use std::net::SocketAddr;
use std::sync::Arc;

use lastack_core::error::SocketError;
use lastack_core::observe::{self, Ending, Life, Side, TcpInfo};
use lastack_core::tcp::state::TcpState;
use lastack_core::time::Instant;
use serde_json::{Map, Value, json};

use crate::row::Row;
use crate::trace::Event;
use crate::trace::sockets::BySocket;

/// Sockets remembered at most; beyond, the oldest half is forgotten.
const MAX_HINTS: usize = 100_000;
/// The source of the kernel's.
const KERNEL: &str = "kernel";

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
    /// An ICMP error ended the attempt.
    Unreachable,
    /// By the operator, through a lastack.
    Killed,
    /// Nobody told.
    Unknown,
}

/// One closed connection.
#[derive(Clone, Debug)]
pub struct Closed {
    /// `kernel`, or the name of the lastack it was a connection of.
    pub source: Arc<str>,
    /// The socket at its end.
    pub row: Row,
    /// When, nanoseconds since the Unix epoch.
    pub ended_ns: u64,
    /// When it was established, where a tracepoint or the recorder told.
    pub opened_ns: Option<u64>,
    /// How.
    pub how: How,
    /// `program` (this host's), `remote`, `lastack`, `none`; `None` when nobody told.
    pub closed_by: Option<&'static str>,
    /// The kernel's or the stack's word for a RST that was sent.
    pub reason: Option<Arc<str>>,
    /// Payload bytes that the program sent and received, where known.
    pub bytes: Option<(u64, u64)>,
    /// The process that last acted on it: opened it, or closed it.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Hint {
    opened_ns: Option<u64>,
    closed_by: Option<&'static str>,
    how: Option<How>,
    reason: Option<Arc<str>>,
    pid: Option<u32>,
    comm: Option<Arc<str>>,
}

/// Puts endings and events together.
#[derive(Debug)]
pub struct Correlator {
    hints: BySocket<Hint>,
}

impl Default for Correlator {
    fn default() -> Self {
        Self { hints: BySocket::new(MAX_HINTS) }
    }
}

impl Correlator {
    /// Takes note of an event.
    pub fn event(&mut self, event: &Event) {
        let Some(hint) = self.hints.of(event).map(|heard| heard.value) else { return };
        if let Some((pid, comm)) = &event.owner {
            (hint.pid, hint.comm) = (Some(*pid), Some(Arc::clone(comm)));
        }
        match (event.name, event.old_state, event.state) {
            ("inet_sock_set_state", Some(old), Some(new)) => hint.state_change(old, new, event.at_ns),
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
        let hint = self.hints.ended(row.socket.cookie).unwrap_or_default();
        let how = match hint.how {
            Some(how) => how,
            None if hint.closed_by.is_some() => How::Fin,
            None => How::Unknown,
        };
        let sent_and_received =
            |info: &TcpInfo| (info.bytes_sent.saturating_sub(info.bytes_retrans), info.bytes_received);
        Closed {
            source: KERNEL.into(),
            bytes: row.socket.info.as_deref().map(sent_and_received),
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
            Self::Unreachable => "unreachable",
            Self::Killed => "killed",
            Self::Unknown => "unknown",
        }
    }
}

impl Closed {
    /// The record of a connection of the lastack called `source`, told from the program's side: the program is the stack's
    /// peer, and what the stack did on its own account (`--inject`, `--tcp-idle`) looks as if the remote end had done it.
    pub(crate) fn of_stack(source: &str, event: &observe::Event, life: &Life) -> Self {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let (local, remote) = event.tuple.map_or((unknown, unknown), |ends| (ends.remote, ends.local));
        let mut row = Row::new(TcpState::Close, local, remote);
        row.socket.cookie = event.cookie;
        let (how, reason) = match life.ending {
            Some(Ending::Fin | Ending::FinWait2Expired) => (How::Fin, None),
            Some(Ending::ResetSent(reason)) => (How::Reset, Some(reason.name().into())),
            Some(Ending::ResetReceived) if life.established_at.is_none() => (How::Refused, None),
            Some(Ending::ResetReceived) => (How::Reset, None),
            // Once established, an ICMP error is only remembered: what ended it is that it was given up.
            Some(Ending::Failed(error))
                if error == SocketError::TimedOut || life.established_at.is_some() =>
            {
                (How::Timeout, None)
            }
            Some(Ending::Failed(_)) => (How::Unreachable, None),
            Some(Ending::Killed) => (How::Killed, None),
            Some(Ending::Abandoned) | None => (How::Unknown, None),
        };
        let is_open = life.fin_queued_at.is_none() && life.fin_received_at.is_none();
        let closed_by = match life.first_close {
            Some(Side::Local) if how == How::Killed && is_open => Some("lastack"),
            Some(Side::Local) => Some("remote"),
            Some(Side::Remote) => Some("program"),
            None if matches!(how, How::Timeout | How::Unreachable) => Some("none"),
            None => None,
        };
        Self {
            source: source.into(),
            row,
            ended_ns: life.ended_at.unwrap_or(event.at).as_nanos(),
            opened_ns: life.established_at.map(Instant::as_nanos),
            how,
            closed_by,
            reason,
            bytes: Some((life.bytes_received, life.bytes_acked)),
            pid: None,
            comm: None,
        }
    }

    /// One line of NDJSON, schema 1; unknown values are absent.
    pub fn to_json(&self) -> Value {
        let Self { source, row, ended_ns, opened_ns, how, closed_by, reason, bytes, pid, comm } = self;
        let socket = &row.socket;
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
        put("schema", 1.into());
        put("event", "connection".into());
        put("source", (**source).into());
        if **source == *KERNEL {
            put("netns", row.netns.into());
        }
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
        if let Some((up, down)) = bytes {
            put("bytes_up", (*up).into());
            put("bytes_down", (*down).into());
        }
        if let Some(info) = socket.info.as_deref() {
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

    /// Of the connection that the kernel calls `socket`.
    fn event(socket: u64, name: &'static str) -> Event {
        let (local, peer) = ("10.0.0.1:4000".parse().ok(), "10.0.0.9:80".parse().ok());
        Event { local, peer, socket: Some(socket), ..Event::new(1, name) }
    }

    fn change(socket: u64, old: TcpState, new: TcpState) -> Event {
        Event { old_state: Some(old), state: Some(new), ..event(socket, "inet_sock_set_state") }
    }

    /// It ends.
    fn ends(all: &mut Correlator, socket: u64, cookie: u64) -> Closed {
        all.event(&Event { cookie: Some(cookie), ..event(socket, Event::DESTROYED) });
        let [local, peer] = ["10.0.0.1:4000", "10.0.0.9:80"].map(|end| end.parse().expect("an address"));
        let mut row = Row::new(TcpState::Close, local, peer);
        row.socket.cookie = cookie;
        all.ended(row, 2)
    }

    #[test]
    fn a_connection_that_the_peer_reset_is_of_the_program_that_opened_it() {
        let mut all = Correlator::default();
        let (syn, owner) = (change(8, TcpState::Close, TcpState::SynSent), Some((70, "wget".into())));
        all.event(&Event { owner, local: "10.0.0.1:0".parse().ok(), ..syn });
        all.event(&Event { owner: Some((71, "curl".into())), ..event(7, "tcp_receive_reset") });
        let closed = ends(&mut all, 7, 1);
        assert_eq!((closed.pid, closed.comm.as_deref()), (Some(71), Some("curl")));
        assert_eq!(closed.closed_by, Some("remote"));
    }

    #[test]
    fn the_same_four_numbers_in_two_namespaces_are_told_apart() {
        let mut all = Correlator::default();
        for socket in [7, 8] {
            all.event(&change(socket, TcpState::SynSent, TcpState::Established));
        }
        all.event(&event(8, "tcp_receive_reset"));
        all.event(&change(7, TcpState::Established, TcpState::FinWait1));
        let (fin, reset) = (ends(&mut all, 7, 1), ends(&mut all, 8, 2));
        assert_eq!((fin.how, fin.closed_by), (How::Fin, Some("program")));
        assert_eq!((reset.how, reset.closed_by), (How::Reset, Some("remote")));
    }

    #[test]
    fn the_end_of_a_stacks_connection_is_told_from_the_programs_side() {
        let at = |ms| Some(Instant::from_millis(ms));
        let told = |life: Life| {
            let kind = observe::EventKind::Destroyed(Box::new(life));
            let event = observe::Event { at: Instant::from_millis(9), cookie: 7, tuple: None, kind };
            let closed = Closed::of_stack("web", &event, &life);
            (closed.how, closed.closed_by)
        };
        let open = Life { established_at: at(1), ..Life::default() };
        let closed = Life { fin_queued_at: at(2), first_close: Some(Side::Local), ..open };
        let local = Some(Side::Local);
        for (life, expected) in [
            (Life { ending: Some(Ending::Fin), ..closed }, (How::Fin, Some("remote"))),
            (
                Life { ending: Some(Ending::Fin), first_close: Some(Side::Remote), ..open },
                (How::Fin, Some("program")),
            ),
            (
                Life { ending: Some(Ending::Killed), first_close: local, ..open },
                (How::Killed, Some("lastack")),
            ),
            (Life { ending: Some(Ending::Killed), ..closed }, (How::Killed, Some("remote"))),
            (
                Life {
                    ending: Some(Ending::ResetReceived),
                    first_close: Some(Side::Remote),
                    ..Life::default()
                },
                (How::Refused, Some("program")),
            ),
            (
                Life { ending: Some(Ending::Failed(SocketError::HostUnreachable)), ..open },
                (How::Timeout, Some("none")),
            ),
            (
                Life { ending: Some(Ending::Failed(SocketError::HostUnreachable)), ..Life::default() },
                (How::Unreachable, Some("none")),
            ),
        ] {
            assert_eq!(told(life), expected, "{life:?}");
        }
    }

    #[test]
    fn a_reset_that_answers_a_late_segment_is_not_how_it_ended() {
        let late = || Event { socket: None, reason: Some("NO_SOCKET".into()), ..event(0, "tcp_send_reset") };
        let mut all = Correlator::default();
        all.event(&change(7, TcpState::SynSent, TcpState::Established));
        all.event(&change(7, TcpState::Established, TcpState::CloseWait));
        all.event(&late());
        let closed = ends(&mut all, 7, 1);
        assert_eq!((closed.how, closed.closed_by, closed.reason), (How::Fin, Some("remote"), None));

        // Later still, and then the same ends connect again.
        all.event(&late());
        all.event(&change(7, TcpState::SynRecv, TcpState::Established));
        all.event(&change(7, TcpState::Established, TcpState::FinWait1));
        let closed = ends(&mut all, 7, 2);
        assert_eq!((closed.how, closed.closed_by, closed.reason), (How::Fin, Some("program"), None));

        // A connection that is older than whoever looks.
        all.event(&change(7, TcpState::Established, TcpState::CloseWait));
        all.event(&late());
        let closed = ends(&mut all, 7, 3);
        assert_eq!((closed.how, closed.closed_by, closed.reason), (How::Fin, Some("remote"), None));
    }
}
