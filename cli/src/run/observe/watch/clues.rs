//! What is left of connections that have ended where tracepoints did not tell of all their states.
//!
//! Owns:    [`Clues`] of one turn's endings: TIME-WAITs, and what their namespaces have counted.
//! Not here: what follows from them (`judge`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;

use lastack_core::observe::TcpInfo;
use lastack_core::tcp::state::TcpState;
use lastack_gateway::journal::{Certainty, ClosedBy};
use lastack_observe::filter::{Filter, StateSet};
use lastack_observe::row::Row;
use lastack_observe::source::kernel::{Detail, Query};
use lastack_observe::trace::sockets::pair;

use super::super::judge::TimeWait;
use super::Key;
use super::life::Life;
use super::rooms::{Counted, Rooms};

/// Ports of one turn's endings that the kernel is asked for by number; of more, for all there are.
const ASKED: usize = 16;

/// What one turn's endings have left.
pub(super) struct Clues {
    /// Since the endings before, by namespace.
    counted: HashMap<u64, Counted>,
    /// Endings that may be those of a peer that answered nothing, by namespace.
    unanswered: HashMap<u64, u64>,
    /// `None`: nobody could look, or nothing was asked.
    time_waits: Option<HashSet<Key>>,
}

impl Clues {
    /// Looks once for all of the `riddles`, whose lives are among `lives` if they are the program's.
    pub(super) fn gather<'a>(
        rooms: &mut Rooms,
        lives: &HashMap<u64, Life>,
        riddles: impl Iterator<Item = &'a Row> + Clone,
    ) -> Self {
        let counted = rooms.all.iter_mut().map(|room| (room.netns, room.count())).collect();
        let mut unanswered = HashMap::new();
        for row in riddles.clone() {
            if row.socket.info.as_deref().is_some_and(was_unanswered) {
                *unanswered.entry(row.netns).or_default() += 1;
            }
        }
        Self { counted, unanswered, time_waits: time_waits(rooms, lives, riddles).ok() }
    }

    /// Connections of that namespace have been reset since the last look.
    pub(super) fn resets_counted(&self, netns: u64) -> bool {
        self.counted.get(&netns).is_some_and(|counted| counted.resets > 0)
    }

    /// How sure it is that a connection which ended with `info` was given up.
    pub(super) fn gave_up(&self, netns: u64, info: &TcpInfo) -> Option<Certainty> {
        let timeouts = self.counted.get(&netns).map_or(0, |counted| counted.timeouts);
        if timeouts == 0 || !was_unanswered(info) {
            return None;
        }
        let candidates = self.unanswered.get(&netns).copied().unwrap_or(0);
        Some(if candidates <= timeouts { Certainty::Inferred } else { Certainty::Possible })
    }

    /// Whose end of the connection is in TIME-WAIT.
    pub(super) fn time_wait(&self, (netns, local, remote): Key) -> TimeWait {
        let Some(all) = &self.time_waits else { return TimeWait::Unasked };
        match (all.contains(&(netns, local, remote)), all.contains(&(netns, remote, local))) {
            (true, true) => TimeWait::Of(ClosedBy::Both),
            (true, false) => TimeWait::Of(ClosedBy::Program),
            (false, true) => TimeWait::Of(ClosedBy::Remote),
            (false, false) => TimeWait::Nobodys,
        }
    }
}

/// Something was repeated, and nothing had come to that when it ended.
fn was_unanswered(info: &TcpInfo) -> bool {
    info.retransmits > 0 || info.probes > 0
}

/// The TIME-WAITs that may be of connections in `ended`.
fn time_waits<'a>(
    rooms: &mut Rooms,
    lives: &HashMap<u64, Life>,
    ended: impl Iterator<Item = &'a Row> + Clone,
) -> io::Result<HashSet<Key>> {
    // As they were seen: a socket that was disconnected has no address left at its end.
    let ours = ended.clone().filter_map(|row| lives.get(&row.socket.cookie));
    let ports: BTreeSet<u16> = ours.map(|life| life.pair.0.port()).collect();
    if ports.is_empty() {
        return Ok(HashSet::new());
    }
    let mut filter = Filter::everything();
    if ports.len() <= ASKED {
        let either: Vec<String> =
            ports.iter().map(|port| format!("sport = :{port} or dport = :{port}")).collect();
        filter = Filter::parse(&[either.join(" or ")]).expect("a filter of our own");
    }
    filter.states = StateSet::of(TcpState::TimeWait);
    let query = Query { filter, detail: Detail::Brief, owners: false, v6: None };
    let mut found = HashSet::new();
    for netns in ended.map(|row| row.netns).collect::<BTreeSet<u64>>() {
        let Some(room) = rooms.room(netns) else { continue };
        found.extend(room.kernel.rows(&query)?.iter().map(|row| {
            let (local, remote) = pair(row.socket.local, row.socket.remote);
            (netns, local, remote)
        }));
    }
    Ok(found)
}
