//! What happened in a story: every call, segment and change of state, with its time; counters and sockets at the end.

use core::net::SocketAddr;
use core::time::Duration;

use lastack_core::observe::{SocketRow, TimerKind};
use lastack_core::tcp::state::TcpState;

use super::Side;
use super::wire::Fate;
use super::words::Text;

/// A played story.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Record {
    /// In the order of their times.
    pub moments: Vec<Moment>,
    /// Connections, in the order of their first segment.
    pub flows: Vec<Flow>,
    /// Counters that moved, by end: client, server.
    pub counters: [Vec<(String, u64)>; 2],
    /// Connections (no listeners) that are still there at the end, by end.
    pub left: [Vec<Left>; 2],
    /// When the story ended, since it began.
    #[serde(serialize_with = "seconds", rename = "seconds")]
    pub end: Duration,
}

/// One connection.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Flow {
    /// The client's end.
    pub client: SocketAddr,
    /// The server's end.
    pub server: SocketAddr,
}

/// A socket at the end.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Left {
    /// Its connection.
    pub flow: usize,
    /// Its state by `ss`'s name.
    pub state: &'static str,
    /// Received and not read, bytes.
    pub recv_q: u32,
    /// Given and not acknowledged, bytes.
    pub send_q: u32,
    /// The running timer by `ss`'s name, and the seconds it has left.
    pub timer: Option<(&'static str, f64)>,
}

/// Something that happened.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Moment {
    /// Since the story began.
    #[serde(serialize_with = "seconds", rename = "seconds")]
    pub at: Duration,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// The teller speaks.
    Says {
        /// The words.
        text: Text,
    },
    /// An application's call.
    Call {
        /// Whose.
        side: Side,
        /// On which connection, where there is one.
        flow: Option<usize>,
        /// `close()`
        call: String,
        /// What it gave, where that matters: `= 1448`, `ECONNRESET`.
        result: String,
    },
    /// A segment was sent.
    Segment(Segment),
    /// A socket changed its state.
    State {
        /// Whose.
        side: Side,
        /// Which connection.
        flow: usize,
        /// The new state by `ss`'s name; `None`: the socket is gone.
        state: Option<&'static str>,
        /// The timer it was waiting for before.
        timer: Option<&'static str>,
    },
}

/// A segment with numbers relative to its connection's first ones, as tcpdump shows them.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Segment {
    /// Who sent it.
    pub from: Side,
    /// Which connection.
    pub flow: usize,
    /// `SYN,ACK`
    pub flags: String,
    /// Relative sequence number.
    pub seq: u32,
    /// Payload bytes.
    pub len: u32,
    /// Relative acknowledgment number, where the flag is set.
    pub ack: Option<u32>,
    /// The window in bytes, scaled.
    pub win: u32,
    /// What it is beyond its flags.
    pub role: Role,
    /// No packet and no call was the reason: a timer was.
    pub by_timer: bool,
    /// What became of it.
    pub fate: Fate,
}

/// What a segment is beyond its flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Sent for the first time.
    First,
    /// Sent before: a retransmission.
    Again,
    /// Asks whether the closed window has opened.
    WindowProbe,
    /// Asks whether the other end is alive.
    KeepaliveProbe,
}

impl Record {
    /// The states one end of a connection went through, each with when it was entered; `None` last: gone.
    pub fn states(&self, side: Side, flow: usize) -> Vec<(Duration, Option<&'static str>)> {
        self.moments
            .iter()
            .filter_map(|moment| match &moment.what {
                What::State { side: whose, flow: which, state, .. } if *whose == side && *which == flow => {
                    Some((moment.at, *state))
                }
                _ => None,
            })
            .collect()
    }

    /// The states one end of a connection went through: `SYN-SENT ESTAB FIN-WAIT-1 gone`.
    pub fn path(&self, side: Side, flow: usize) -> String {
        let names: Vec<&str> =
            self.states(side, flow).iter().map(|(_, state)| state.unwrap_or("gone")).collect();
        names.join(" ")
    }

    /// How long one end of a connection was in a state, in all.
    pub fn time_in(&self, side: Side, flow: usize, state: &str) -> Duration {
        let states = self.states(side, flow);
        states
            .iter()
            .enumerate()
            .filter(|(_, (_, name))| *name == Some(state))
            .map(|(n, (from, _))| states.get(n + 1).map_or(self.end, |next| next.0).saturating_sub(*from))
            .sum()
    }

    /// The segments, in order.
    pub fn segments(&self) -> impl Iterator<Item = (Duration, &Segment)> {
        self.moments.iter().filter_map(|moment| match &moment.what {
            What::Segment(segment) => Some((moment.at, segment)),
            _ => None,
        })
    }

    /// Calls that failed, in order: `read ECONNRESET`.
    pub fn errors(&self, side: Side) -> Vec<String> {
        self.moments
            .iter()
            .filter_map(|moment| match &moment.what {
                What::Call { side: whose, call, result, .. } if *whose == side && result.starts_with('E') => {
                    let errno = result.split(' ').next().unwrap_or(result);
                    Some(format!("{} {errno}", call.split('(').next().unwrap_or(call)))
                }
                _ => None,
            })
            .collect()
    }

    /// A counter's movement.
    pub fn counter(&self, side: Side, name: &str) -> u64 {
        self.counters[side as usize].iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value)
    }
}

impl Left {
    pub(super) fn new(flow: usize, row: &SocketRow) -> Self {
        let timer = row.timer.map(|timer| (timer.kind.name(), f64::from(timer.expires_ms) / 1000.0));
        Self { flow, state: row.state.name(), recv_q: row.recv_q, send_q: row.send_q, timer }
    }
}

/// What is watched of a socket between two looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) state: TcpState,
    pub(super) timer: Option<TimerKind>,
}

pub(super) fn seconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    // Microseconds are what a reader can use.
    to.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e6)
}
