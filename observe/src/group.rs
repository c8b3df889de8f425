//! Sums over sockets: by state, and by any of state, peer, process and port.

use std::collections::BTreeMap;

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
        match self {
            Self::State => row.socket.state.name().to_owned(),
            Self::Peer => row.socket.remote.ip().to_canonical().to_string(),
            Self::SPort => row.socket.local.port().to_string(),
            Self::DPort => row.socket.remote.port().to_string(),
            Self::Timer => row.socket.timer.map_or("-", |timer| timer.kind.name()).to_owned(),
            Self::Netns => row.netns.to_string(),
            Self::Process => match &row.owner {
                Some(owner) => match owner.pid {
                    Some(pid) => format!("{}/{pid}", owner.comm),
                    None => owner.comm.to_string(),
                },
                None => "-".to_owned(),
            },
        }
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

/// Groups `rows` by `keys`: largest first, then by value.
pub fn by(rows: &[Row], keys: &[Key]) -> Vec<Group> {
    let mut groups: BTreeMap<Vec<String>, Group> = BTreeMap::new();
    for row in rows {
        let values: Vec<String> = keys.iter().map(|key| key.of(row)).collect();
        let group = groups.entry(values).or_default();
        group.count += 1;
        group.oldest_ms = group.oldest_ms.max(row.condition_age_ms());
        if row.socket.state != TcpState::Listen {
            group.recv_q += u64::from(row.socket.recv_q);
            group.send_q += u64::from(row.socket.send_q);
        }
    }
    let mut all: Vec<Group> = groups.into_iter().map(|(values, group)| Group { values, ..group }).collect();
    all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.values.cmp(&b.values)));
    all
}
