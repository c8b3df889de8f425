//! Sums over sockets: by state, and by any of state, peer, process and port.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use lastack_core::observe::TimerKind;
use lastack_core::tcp::state::TcpState;

use crate::row::Row;

/// Something to group by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Key {
    /// The state.
    State,
    /// The peer's address, without its port.
    Peer,
    /// The owner's name and process id.
    Process,
    /// The local port.
    SPort,
    /// The peer's port.
    DPort,
    /// The running timer.
    Timer,
    /// The network namespace.
    Netns,
}

impl Key {
    /// Every key with its name on the command line and in JSON.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::State, "state"),
        (Self::Peer, "peer"),
        (Self::Process, "process"),
        (Self::SPort, "sport"),
        (Self::DPort, "dport"),
        (Self::Timer, "timer"),
        (Self::Netns, "netns"),
    ];

    /// The key of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(key, known)| (known == name).then_some(key))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find_map(|(key, name)| (key == self).then_some(name)).unwrap_or("")
    }

    /// What a row has for it; `-` for nothing.
    pub fn of(self, row: &Row) -> String {
        Value::of(self, row).to_string()
    }
}

/// One group's sums.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Group {
    /// One value a key.
    pub values: Vec<String>,
    /// Sockets.
    pub count: u64,
    /// The longest known time in the present condition, milliseconds.
    pub oldest_ms: Option<u64>,
    /// Bytes received and not read; a listener's queue is not bytes and is left out.
    pub recv_q: u64,
    /// Bytes given and not acknowledged.
    pub send_q: u64,
}

/// What one row has for one key, cheap to compare; a string is made of it once a group.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Value {
    State(TcpState),
    Peer(IpAddr),
    Port(u16),
    Timer(Option<TimerKind>),
    Netns(u64),
    Process(Option<(Arc<str>, Option<u32>)>),
}

impl Value {
    fn of(key: Key, row: &Row) -> Self {
        match key {
            Key::State => Self::State(row.socket.state),
            Key::Peer => Self::Peer(row.socket.remote.ip().to_canonical()),
            Key::SPort => Self::Port(row.socket.local.port()),
            Key::DPort => Self::Port(row.socket.remote.port()),
            Key::Timer => Self::Timer(row.socket.timer.map(|timer| timer.kind)),
            Key::Netns => Self::Netns(row.netns),
            Key::Process => {
                Self::Process(row.owner.as_ref().map(|owner| (Arc::clone(&owner.comm), owner.pid)))
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => f.write_str(state.name()),
            Self::Peer(peer) => write!(f, "{peer}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::Timer(timer) => f.write_str(timer.map_or("-", TimerKind::name)),
            Self::Netns(netns) => write!(f, "{netns}"),
            Self::Process(Some((comm, Some(pid)))) => write!(f, "{comm}/{pid}"),
            Self::Process(Some((comm, None))) => f.write_str(comm),
            Self::Process(None) => f.write_str("-"),
        }
    }
}

/// Sums that grow row by row; no row is kept.
#[derive(Clone, Debug)]
pub struct Groups {
    keys: Vec<Key>,
    sums: HashMap<Vec<Value>, Group>,
    /// The present row's values, kept for its memory.
    values: Vec<Value>,
}

impl Groups {
    /// No rows yet, to be grouped by `keys`.
    pub fn new(keys: &[Key]) -> Self {
        Self { keys: keys.to_vec(), sums: HashMap::new(), values: Vec::new() }
    }

    /// Counts one row in.
    pub fn add(&mut self, row: &Row) {
        self.values.clear();
        self.values.extend(self.keys.iter().map(|key| Value::of(*key, row)));
        let group = match self.sums.get_mut(self.values.as_slice()) {
            Some(group) => group,
            None => self.sums.entry(self.values.clone()).or_default(),
        };
        group.count += 1;
        group.oldest_ms = group.oldest_ms.max(row.condition_age_ms());
        if row.socket.state != TcpState::Listen {
            group.recv_q += u64::from(row.socket.recv_q);
            group.send_q += u64::from(row.socket.send_q);
        }
    }

    /// The groups: largest first, then by value.
    pub fn finish(self) -> Vec<Group> {
        let spelt = |(values, group): (Vec<Value>, Group)| Group {
            values: values.iter().map(Value::to_string).collect(),
            ..group
        };
        let mut all: Vec<Group> = self.sums.into_iter().map(spelt).collect();
        all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.values.cmp(&b.values)));
        all
    }
}

/// Groups `rows` by `keys`: largest first, then by value.
pub fn by<'a>(rows: impl IntoIterator<Item = &'a Row>, keys: &[Key]) -> Vec<Group> {
    let mut groups = Groups::new(keys);
    rows.into_iter().for_each(|row| groups.add(row));
    groups.finish()
}
