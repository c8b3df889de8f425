//! One connection from the first look that saw it to its line in the journal.

use lastack_core::observe::TcpInfo;
use lastack_core::tcp::state::TcpState;
use lastack_core::time::Instant;
use lastack_gateway::Opened;
use lastack_gateway::journal::{ClosedBy, Connection, Direction, How, Outside, Verdict};
use lastack_gateway::owner::Owner;
use lastack_observe::row::Row;

use super::super::judge::first_of;
use lastack_observe::trace::sockets::Pair;

/// A connection that lives.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) id: u64,
    pub(super) owner: Option<Owner>,
    /// The inode of its network namespace.
    pub(super) netns: u64,
    pub(super) pair: Pair,
    pub(super) direction: Direction,
    /// Unix time, nanoseconds.
    pub(super) opened_ns: u64,
    pub(super) states: Vec<(TcpState, u64)>,
    pub(super) info: TcpInfo,
    pub(super) unread: u32,
    is_told: bool,
}

impl Life {
    pub(super) fn new(id: u64, netns: u64, pair: Pair, direction: Direction, opened_ns: u64) -> Self {
        Self {
            id,
            owner: None,
            netns,
            pair,
            direction,
            opened_ns,
            states: Vec::new(),
            info: TcpInfo::default(),
            unread: 0,
            is_told: false,
        }
    }

    pub(super) fn see(&mut self, row: &Row, now: u64) {
        let state = row.socket.state;
        if self.states.last().is_none_or(|(last, _)| *last != state) {
            let at = if self.states.is_empty() { self.opened_ns } else { now };
            self.states.push((state, at));
        }
        self.unread = row.socket.recv_q;
        if let Some(info) = row.socket.info.as_deref() {
            self.info = info.clone();
        }
    }

    pub(super) fn note_of_opening(&mut self) -> Option<Opened> {
        let is_open = self.states.last().is_some_and(|(state, _)| *state != TcpState::SynSent);
        (is_open && !std::mem::replace(&mut self.is_told, is_open)).then(|| Opened {
            id: self.id,
            direction: self.direction,
            owner: self.owner.clone(),
            local: self.pair.0,
            remote: self.pair.1,
            host_remote: self.pair.1,
            handshake_us: None,
        })
    }

    pub(super) fn record(self, verdict: Verdict, now: u64) -> Connection {
        let Self { id, owner, pair: (local, remote), direction, opened_ns, states, info, .. } = self;
        let since = |at: u64| at.saturating_sub(opened_ns) / 1000;
        // Its ending is read a little later than it came.
        let now = states.last().filter(|(state, _)| *state == TcpState::Close).map_or(now, |(_, at)| *at);
        let sent = info.bytes_sent.saturating_sub(info.bytes_retrans);
        // Linux: tcp_rcv_synsent_state_process() counts the SYN among the bytes acknowledged.
        let acked = info.bytes_acked.saturating_sub(u64::from(direction == Direction::Out));
        // Linux: tcp_fin() counts the FIN among the bytes received.
        let seen: Vec<TcpState> = states.iter().map(|(state, _)| *state).collect();
        let fin =
            verdict.how == How::Fin || matches!(first_of(&seen), Some(ClosedBy::Remote | ClosedBy::Both));
        Connection {
            id,
            owner,
            local,
            remote,
            host_local: None,
            host_remote: None,
            device: None,
            direction,
            opened: Instant::from_nanos(opened_ns),
            handshake_us: None,
            duration_us: since(now),
            bytes_up: sent,
            bytes_down: info.bytes_received.saturating_sub(u64::from(fin)),
            inside: None,
            outside: Some(Outside {
                rtt_us: info.rtt,
                retransmits: info.total_retrans,
                unacked_bytes: sent.saturating_sub(acked),
            }),
            verdict,
            host_errno: None,
            lost_up: 0,
            lost_down: 0,
            unread_bytes: None,
            injected: None,
            states: states.into_iter().map(|(state, at)| (state, since(at))).collect(),
        }
    }
}
