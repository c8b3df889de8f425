//! Live events: what happened to a connection, when, and why, from whatever source tells.
//!
//! Owns:    the event a person or a script sees, and its JSON.
//! Not here: where events come from (`source::kernel::tracepoints`, `source::kernel::Endings`).

use std::net::SocketAddr;
use std::sync::Arc;

use lastack_core::tcp::state::TcpState;
use serde_json::{Map, Value};

use crate::row::{Owner, OwnerHow, Row};

pub mod sockets;

/// One event.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// When, nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// Linux's tracepoint name; `ended` for a destroy notification.
    pub name: &'static str,
    /// This host's end.
    pub local: Option<SocketAddr>,
    /// The other end.
    pub peer: Option<SocketAddr>,
    /// The socket's cookie, where the source gives it.
    pub cookie: Option<u64>,
    /// The state it happened in, or the one entered.
    pub state: Option<TcpState>,
    /// For a state change: the state left.
    pub old_state: Option<TcpState>,
    /// Why, in Linux's word (`NO_SOCKET`, `TCP_ABORT_ON_CLOSE`, …).
    pub reason: Option<Arc<str>>,
    /// An errno that goes with it.
    pub error: Option<i32>,
    /// The process that ran, where it is the one that acted: connect, listen, close, shutdown.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<Arc<str>>,
    /// The process that last acted on this socket, this event included, where the source remembers it.
    pub owner: Option<(u32, Arc<str>)>,
    /// The kernel's own name of the socket, where the tracepoint has it: the same until the socket is freed, also while it
    /// has no port yet.
    pub socket: Option<u64>,
    /// For [`Event::FORK`]: the new process.
    pub child: Option<u32>,
    /// The kernel's call stack, innermost first.
    pub stack: Vec<String>,
    /// The socket at its end, for `ended`.
    pub row: Option<Box<Row>>,
}

impl Event {
    /// The name of a process's birth: perf's own record of it, which counts processes as we do, also where they have
    /// numbers of their own (pid_namespaces(7)).
    pub const FORK: &str = "fork";
    /// The name of a socket's end, which tells its cookie: what endings of every namespace know it by.
    pub const DESTROYED: &str = "tcp_destroy_sock";

    /// An event with nothing known but its name and time.
    pub fn new(at_ns: u64, name: &'static str) -> Self {
        Self {
            at_ns,
            name,
            local: None,
            peer: None,
            cookie: None,
            state: None,
            old_state: None,
            reason: None,
            error: None,
            pid: None,
            comm: None,
            owner: None,
            socket: None,
            child: None,
            stack: Vec::new(),
            row: None,
        }
    }

    /// True for a RST, sent or received.
    pub fn is_reset(&self) -> bool {
        matches!(self.name, "tcp_send_reset" | "tcp_receive_reset")
    }

    /// A row with what the event knows, for filters.
    pub fn as_row(&self) -> Option<Row> {
        if let Some(row) = &self.row {
            return Some((**row).clone());
        }
        let mut row = Row::new(self.state.unwrap_or(TcpState::Close), self.local?, self.peer?);
        row.socket.cookie = self.cookie.unwrap_or(0);
        let actor = self.comm.as_ref().map(|comm| (self.pid, comm));
        let owner = actor.or_else(|| self.owner.as_ref().map(|(pid, comm)| (Some(*pid), comm)));
        row.owner = owner.map(|(pid, comm)| Owner {
            pid,
            comm: Arc::clone(comm),
            fd: None,
            former: false,
            how: OwnerHow::Descriptor,
        });
        Some(row)
    }

    /// One line of NDJSON; unknown values are absent.
    pub fn to_json(&self) -> Value {
        let Self {
            at_ns,
            name,
            local,
            peer,
            cookie,
            state,
            old_state,
            reason,
            error,
            pid,
            comm,
            owner,
            stack,
            row,
            socket: _,
            child,
        } = self;
        let mut out = Map::new();
        out.insert("event".to_owned(), (*name).into());
        out.insert("at_ns".to_owned(), (*at_ns).into());
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                out.insert(key.to_owned(), value);
            }
        };
        put("local", local.map(|a| a.to_string().into()));
        put("peer", peer.map(|a| a.to_string().into()));
        put("cookie", cookie.map(Into::into));
        put("old_state", old_state.map(|s| s.name().into()));
        put(if old_state.is_some() { "new_state" } else { "state" }, state.map(|s| s.name().into()));
        put("reason", reason.as_ref().map(|r| (**r).into()));
        put("error", error.map(Into::into));
        put("pid", pid.map(Into::into));
        put("child", child.map(Into::into));
        put("comm", comm.as_ref().map(|c| (**c).into()));
        put("owner", owner.as_ref().map(|(pid, comm)| serde_json::json!({"pid": pid, "comm": **comm})));
        put("stack", (!stack.is_empty()).then(|| stack.clone().into()));
        let info = row.as_ref().and_then(|row| row.socket.info.as_deref());
        put(
            "tcp_info",
            info.map(|info| {
                Value::Object(
                    info.fields().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
                )
            }),
        );
        Value::Object(out)
    }
}
