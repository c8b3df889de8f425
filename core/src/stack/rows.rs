//! Snapshots: a row for every socket.
//!
//! Rules:   listeners, connections, half-open ones, mini sockets, each kind in the order of its places: the same order
//!          every time. What a kind does not know is `None`. Linux: `inet_diag`, specification 10.2.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::observe::{SocketRow, TimerKind, TimerRow};
use crate::stack::Stack;
use crate::tcp::state::TcpState;
use crate::time::Instant;

impl Stack {
    pub(crate) fn rows(&self, now: Instant) -> impl Iterator<Item = SocketRow> + '_ {
        let since = move |at: Instant| now.saturating_since(at).as_millis() as u64;
        let timer = move |kind, at: Instant, retrans| {
            let expires_ms = u32::try_from(at.saturating_since(now).as_millis()).unwrap_or(u32::MAX);
            at.is_armed().then_some(TimerRow { kind, expires_ms, retrans })
        };
        let listeners = self.listeners.iter().map(move |(_, listener)| SocketRow {
            state: TcpState::Listen,
            local: listener.local,
            remote: SocketAddr::new(
                match listener.local.ip() {
                    IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                },
                0,
            ),
            recv_q: listener.accept_queue.len() as u32,
            send_q: listener.backlog,
            timer: None,
            cookie: listener.cookie,
            orphan: false,
            age_ms: Some(since(listener.since)),
            state_age_ms: Some(since(listener.since)),
            info: None,
        });
        let connections = self.sockets.connections().map(move |(_, socket)| socket.connection.row(now));
        let half_open = self.sockets.half_opens().map(move |(tuple, cookie, half_open)| SocketRow {
            state: TcpState::NewSynRecv,
            local: tuple.local,
            remote: tuple.remote,
            recv_q: 0,
            send_q: 0,
            timer: timer(TimerKind::On, half_open.deadline, half_open.timeouts),
            cookie,
            orphan: false,
            age_ms: Some(since(half_open.opened)),
            state_age_ms: Some(since(half_open.opened)),
            info: None,
        });
        let time_wait = self.sockets.time_waits().map(move |(tuple, cookie, mini, _)| SocketRow {
            state: if mini.is_fin_wait_2() { TcpState::FinWait2 } else { TcpState::TimeWait },
            local: tuple.local,
            remote: tuple.remote,
            recv_q: 0,
            send_q: 0,
            timer: timer(TimerKind::TimeWait, mini.expires, 0),
            cookie,
            orphan: true,
            age_ms: None,
            state_age_ms: Some(u64::from(mini.age_ms(now))),
            info: None,
        });
        listeners.chain(connections).chain(half_open).chain(time_wait)
    }

    /// As many as [`Stack::rows`] gives.
    pub(crate) fn row_count(&self) -> usize {
        self.listeners.len()
            + self.sockets.connection_count()
            + self.sockets.half_open_count()
            + self.sockets.time_wait_count()
    }
}
