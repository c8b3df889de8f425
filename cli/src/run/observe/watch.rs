//! The program's connections as the kernel tells of them: looks, endings and, where permitted, tracepoints.
//!
//! Owns:    [`Watch`]: lives by socket cookie, from the first look that saw one to its ending.
//! Input:   sock_diag dumps and destroy events of the program's namespaces, tracepoints of the host, `/proc/PID/fd`.
//! Output:  the journal's notes.
//! Rules:   a socket is the program's when one of its processes has been seen to hold it, or acted on it in a
//!          tracepoint. An ending of which neither can be said, and which was not seen to be somebody else's, is counted
//!          (by [`Watch::finish`]) and not told: destroy events say neither inode nor user.
//!          Four numbers are a connection in one namespace only: what is of another is told apart by cookie.
//! Not here: what follows from it (`judge`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lastack_core::observe::TcpInfo;
use lastack_core::tcp::state::TcpState;
use lastack_core::time::Instant;
use lastack_gateway::Note;
use lastack_gateway::aborts::AbortCounters;
use lastack_gateway::journal::{Certainty, ClosedBy, Direction, Entry, How, Reason, Verdict};
use lastack_gateway::owner::Owner;
use lastack_observe::clock;
use lastack_observe::filter::{Filter, StateSet};
use lastack_observe::row::Row;
use lastack_observe::source::kernel::{Detail, Query, TraceOptions, Tracer, sockets_of};
use lastack_observe::trace::Event;
use lastack_observe::trace::sockets::{BySocket, pair};

use super::judge::{Evidence, first_of, judge};
use clues::Clues;
use life::Life;
pub(crate) use rooms::MOST as MOST_ROOMS;
use rooms::Rooms;
use traced::{ResetReasons, Traced};

mod clues;
mod life;
mod rooms;
mod traced;

/// Sockets of which tracepoints have told; other programs' and other namespaces' among them.
const TRACED: usize = 50_000;

/// One end of a connection: its namespace, its own address, the other's.
type Key = (u64, SocketAddr, SocketAddr);

/// The kernel tells of an ending a moment after the tracepoint: of one that it has not told by then it never will.
const UNTOLD: Duration = Duration::from_secs(2);

/// What is told as it happens.
pub(super) type Listener = Box<dyn Fn(Note)>;

/// Watches.
pub(super) struct Watch {
    rooms: Rooms,
    tracer: Option<Tracer>,
    tell: Listener,
    /// The program's processes, those that have exited too until their number is given to another.
    processes: HashSet<u32>,
    /// Ports the program listens on, by namespace.
    listening: HashSet<(u64, u16)>,
    lives: HashMap<u64, Life>,
    /// Other programs' sockets.
    others: HashSet<u64>,
    traced: BySocket<Traced>,
    /// Sockets whose connect has failed: the error is told a moment later.
    failing: BTreeSet<u64>,
    reset_reasons: ResetReasons,
    /// The processes by number, as they were at the last look: what has exited is not asked any more.
    names: HashMap<u32, Owner>,
    aborts: AbortCounters,
    looked_ns: u64,
    next_id: u64,
    untold: Untold,
}

/// What the journal cannot tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Untold {
    /// Connections that ended between two looks, so that nothing tells whether they were the program's.
    pub(crate) unseen: u64,
    /// Connections of the program that ended in a namespace of its own before that was looked at.
    pub(crate) elsewhere: u64,
    /// Namespaces of the program that could not be looked at.
    pub(crate) closed: usize,
    /// Namespaces of the program that had to wait, because it was in so many at a time.
    pub(crate) crowded: usize,
}

impl Watch {
    /// Begins, before the program does.
    pub(super) fn open(tell: Listener) -> io::Result<Self> {
        let mut this = Self {
            rooms: Rooms::open()?,
            // Not permitted to everybody; without it less is known.
            tracer: Tracer::open(TraceOptions { forks: true, ends: true, ..TraceOptions::default() }).ok(),
            tell,
            processes: HashSet::new(),
            listening: HashSet::new(),
            lives: HashMap::new(),
            others: HashSet::new(),
            traced: BySocket::new(TRACED),
            failing: BTreeSet::new(),
            reset_reasons: ResetReasons::default(),
            names: HashMap::new(),
            aborts: AbortCounters::of_process(std::process::id()),
            looked_ns: clock::unix_ns(),
            next_id: 1,
            untold: Untold::default(),
        };
        // Whatever is there already is somebody else's.
        this.look(&[], Detail::Brief)?;
        Ok(this)
    }

    /// The program has started as this process.
    pub(super) fn follow(&mut self, process: u32) {
        self.processes.insert(process);
    }

    /// Connections that have not ended.
    pub(super) fn open_count(&self) -> usize {
        self.lives.len()
    }

    /// One look, and what has ended. `processes` are the program's.
    pub(super) fn turn(&mut self, processes: &[u32]) -> io::Result<()> {
        self.processes.extend(processes);
        // A name changes with exec: the last one is the one that counts.
        self.names.extend(processes.iter().filter_map(|pid| Some((*pid, Owner::of_process(*pid)?))));
        let Self { rooms, lives, .. } = self;
        rooms.follow(processes, |netns| lives.values().any(|life| life.netns == netns));
        self.look(processes, Detail::Brief)?;
        self.drain()
    }

    /// Tells of those that are still open. Gives what could not be told.
    pub(super) fn finish(mut self) -> Untold {
        // What they have carried so far; without it they are told all the same.
        let _ = self.look(&[], Detail::Full);
        for socket in std::mem::take(&mut self.failing) {
            self.failed(socket);
        }
        let now = clock::unix_ns();
        let mut left: Vec<Life> = self.lives.drain().map(|(_, life)| life).collect();
        left.sort_unstable_by_key(|life| life.id);
        for life in left {
            let verdict = Verdict {
                closed_by: ClosedBy::Nobody,
                how: How::Open,
                reason: None,
                certainty: Certainty::Observed,
                ended_by: ClosedBy::Nobody,
            };
            (self.tell)(Note::Ended(Entry::Connection(life.record(verdict, now))));
        }
        self.give_up(u64::MAX);
        Untold { closed: self.rooms.closed(), crowded: self.rooms.crowded(), ..self.untold }
    }

    /// Counts the program's connections that ended before `at_ns` and of which nobody told.
    fn give_up(&mut self, at_ns: u64) {
        let untold = self.traced.untold(at_ns);
        self.untold.elsewhere += untold.iter().filter(|traced| traced.is_ours).count() as u64;
    }

    fn look(&mut self, processes: &[u32], detail: Detail) -> io::Result<()> {
        let without = StateSet::of(TcpState::TimeWait).or(StateSet::of(TcpState::SynRecv));
        let mut filter = Filter::everything();
        filter.states = StateSet::ALL.and(without.complement());
        let query = Query { filter, detail, owners: false, v6: None };
        let mut rows = Vec::new();
        for room in &mut self.rooms.all {
            rows.extend(room.kernel.rows(&query)?);
        }
        let now = clock::unix_ns();
        let held = sockets_of(processes);
        let mut others = HashSet::new();
        for row in rows {
            let cookie = row.socket.cookie;
            let holder = held.get(&row.inode).filter(|_| row.inode != 0);
            if holder.is_none() && !self.lives.contains_key(&cookie) {
                others.insert(cookie);
            } else if row.socket.state == TcpState::Listen {
                self.listening.insert((row.netns, row.socket.local.port()));
            } else if row.socket.remote.port() != 0 && row.socket.state != TcpState::Close {
                let opened_ns = if self.lives.contains_key(&cookie) { now } else { self.looked_ns };
                let owner = holder.and_then(|pid| self.names.get(pid).cloned());
                let life = self.life(&row, opened_ns);
                life.owner = life.owner.take().or(owner);
                life.see(&row, now);
                let note = life.note_of_opening();
                if let Some(note) = note {
                    (self.tell)(Note::Opened(note));
                }
            }
        }
        // An ending that was somebody else's at the last look still is.
        self.others.extend(others);
        if self.others.len() > TRACED {
            self.others.clear();
        }
        self.looked_ns = now;
        Ok(())
    }

    fn life(&mut self, row: &Row, opened_ns: u64) -> &mut Life {
        let pair = pair(row.socket.local, row.socket.remote);
        let is_served = self.listening.contains(&(row.netns, pair.0.port()));
        let next_id = &mut self.next_id;
        let life = self.lives.entry(row.socket.cookie).or_insert_with(|| {
            let id = *next_id;
            *next_id += 1;
            Life::new(id, row.netns, pair, Direction::Out, opened_ns)
        });
        // Looked at each time: the kernel lists listeners first, so that of a connection made meanwhile is met by the next look.
        if is_served {
            life.direction = Direction::In;
        }
        life
    }

    fn drain(&mut self) -> io::Result<()> {
        let mut ended = Vec::new();
        for room in &mut self.rooms.all {
            room.endings.wait(Duration::ZERO, &mut |row| ended.push(row))?;
        }
        // After the endings: what led to them has been told by then.
        let mut events = Vec::new();
        if let Some(tracer) = &mut self.tracer {
            tracer.wait(Duration::ZERO, &mut |event| events.push(event))?;
        }
        let failed = std::mem::take(&mut self.failing);
        for event in events {
            self.event(&event);
        }
        for socket in failed {
            self.failed(socket);
        }
        if ended.is_empty() {
            self.give_up(clock::unix_ns().saturating_sub(UNTOLD.as_nanos() as u64));
            return Ok(());
        }
        let ended: Vec<(Row, Option<Traced>)> = ended
            .into_iter()
            .map(|row| {
                let traced = self.traced.ended(row.socket.cookie);
                (row, traced)
            })
            .collect();
        let riddles = ended.iter().filter(|(_, traced)| !traced.as_ref().is_some_and(Traced::is_whole));
        let clues = Clues::gather(&mut self.rooms, &self.lives, riddles.map(|(row, _)| row));
        let mut told = HashSet::new();
        let mut nobodys = Vec::new();
        for (row, traced) in ended {
            // A connect that failed has no other end any more; a look may have seen it when it had.
            let (local, remote) = match self.lives.get(&row.socket.cookie) {
                Some(life) => life.pair,
                None if row.socket.remote.port() == 0 => continue,
                None => pair(row.socket.local, row.socket.remote),
            };
            let key = (row.netns, local, remote);
            let acted = traced.as_ref().is_some_and(|traced| traced.is_ours);
            if self.lives.contains_key(&row.socket.cookie) || acted {
                told.insert(key);
                self.ended(&row, traced.unwrap_or_default(), &clues);
            } else if !self.others.remove(&row.socket.cookie) && self.tracer.is_none() {
                nobodys.push(key);
            }
        }
        // The other end of one of ours, on this host, is no riddle, and both ends of another are one.
        let strangers: HashSet<Key> = nobodys
            .into_iter()
            .filter(|(netns, local, remote)| !told.contains(&(*netns, *remote, *local)))
            .map(|(netns, local, remote)| (netns, local.min(remote), local.max(remote)))
            .collect();
        self.untold.unseen += strangers.len() as u64;
        Ok(())
    }

    fn ended(&mut self, row: &Row, traced: Traced, clues: &Clues) {
        let now = clock::unix_ns();
        let opened_ns = traced.states.first().map_or(self.looked_ns, |(_, at)| *at);
        self.life(row, opened_ns);
        let mut life = self.lives.remove(&row.socket.cookie).expect("made just now");
        let (local, remote) = life.pair;
        let is_own = life.netns == self.rooms.all[0].netns;
        life.owner = life.owner.take().or_else(|| self.owner(&traced));
        // A connect that failed has been wiped by then.
        if let Some(info) = row.socket.info.as_deref().filter(|_| row.socket.remote.port() != 0) {
            life.info = info.clone();
        }
        if !traced.states.is_empty() {
            life.direction = direction_of(&traced.states).unwrap_or(life.direction);
            life.states.clone_from(&traced.states);
            life.opened_ns = life.opened_ns.min(opened_ns);
        }
        let seen: Vec<TcpState> = life.states.iter().map(|(state, _)| *state).collect();
        let resets_counted = clues.resets_counted(life.netns);
        let same_kernel = local.ip().is_loopback() || local.ip() == remote.ip();
        let evidence = Evidence {
            first: first_of(&seen),
            established: is_established(&seen, &life.info),
            traced: traced.is_whole(),
            sent_reset: traced.sent_reset,
            got_reset: traced.got_reset,
            peers_reason: self.reset_reasons.get((remote, local), life.opened_ns),
            error: traced.error,
            time_wait: clues.time_wait((life.netns, local, remote)),
            resets_counted,
            gave_up: clues.gave_up(life.netns, &life.info),
            abort: if resets_counted && !same_kernel && is_own {
                self.aborts.claim(Instant::from_nanos(now))
            } else {
                None
            },
            unread: life.unread,
            info: life.info.clone(),
        };
        self.tell_of(life, &evidence, now);
    }

    fn tell_of(&self, life: Life, evidence: &Evidence, now: u64) {
        let verdict = judge(evidence);
        let unread = life.unread;
        let mut record = life.record(verdict, now);
        record.host_errno = evidence.error;
        record.unread_bytes = (verdict.reason == Some(Reason::ClosedWithUnreadData)
            && verdict.ended_by == ClosedBy::Program
            && unread > 0)
            .then_some(u64::from(unread));
        if !evidence.established {
            record.outside = None;
        }
        (self.tell)(Note::Ended(Entry::Connection(record)));
    }

    /// Who acted, by the name it had when it did: a look may have met it before its `exec`, or never.
    fn owner(&self, traced: &Traced) -> Option<Owner> {
        let pid = traced.pid.filter(|_| traced.is_ours)?;
        let met = self.names.get(&pid);
        let process = traced.comm.clone().or_else(|| met.map(|owner| owner.process.clone()))?;
        Some(Owner { pid, process, cgroup: met.and_then(|owner| owner.cgroup.clone()) })
    }

    /// A connect that came to nothing, or a socket that was disconnected: it ends without another end, if it ends.
    fn failed(&mut self, socket: u64) {
        // Told by its ending already, or without a port to the last.
        let Some((cookie, Some(key), traced)) = self.traced.take(socket) else { return };
        let place = traced.pid.and_then(|pid| self.rooms.place(pid));
        let is_there = |life: &Life| life.pair == key && place.is_none_or(|netns| life.netns == netns);
        let met = || self.lives.iter().find(|(_, life)| is_there(life)).map(|(cookie, _)| *cookie);
        let seen = cookie.filter(|cookie| self.lives.contains_key(cookie)).or_else(met);
        if !traced.is_ours && seen.is_none() {
            return;
        }
        let opened_ns = traced.states.first().map_or(traced.at_ns, |(_, at)| *at);
        let known = seen.and_then(|cookie| self.lives.remove(&cookie));
        let mut life = known.unwrap_or_else(|| {
            self.next_id += 1;
            Life::new(self.next_id - 1, place.unwrap_or(0), key, Direction::Out, opened_ns)
        });
        life.owner = life.owner.take().or_else(|| self.owner(&traced));
        life.states.clone_from(&traced.states);
        let seen: Vec<TcpState> = traced.states.iter().map(|(state, _)| *state).collect();
        let evidence = Evidence {
            first: first_of(&seen),
            established: is_established(&seen, &life.info),
            traced: true,
            sent_reset: traced.sent_reset,
            got_reset: traced.got_reset,
            error: traced.error,
            info: life.info.clone(),
            ..Evidence::default()
        };
        self.tell_of(life, &evidence, traced.at_ns);
    }

    fn event(&mut self, event: &Event) {
        if let (Some(parent), Some(child)) = (event.pid, event.child) {
            // The program itself is a child of this process, which has no other.
            if self.processes.contains(&parent) || parent == std::process::id() {
                self.processes.insert(child);
            } else {
                // The number of one that has exited, given to a stranger.
                self.processes.remove(&child);
            }
            return;
        }
        let is_ours = event.pid.is_some_and(|pid| self.processes.contains(&pid));
        if let (Some(local), Some(peer), "tcp_send_reset") = (event.local, event.peer, event.name) {
            let reason = event.reason.as_deref().unwrap_or_default().to_owned();
            self.reset_reasons.put(pair(local, peer), event.at_ns, reason, TRACED);
        }
        // Another life of the same socket, or its end.
        if let Some(socket) = event.socket
            && event.name != "inet_sk_error_report"
            && self.failing.remove(&socket)
        {
            self.failed(socket);
        }
        let Some(heard) = self.traced.of(event) else { return };
        heard.value.take(event, is_ours);
        let socket = heard.socket;
        // tcp_disconnect() wipes the other end's address before the socket's ending is told.
        let is_wiped = event.name == "tcp_send_reset"
            && event.reason.as_deref().is_some_and(|reason| reason.ends_with("TCP_STATE"))
            && heard.value.has_ended();
        if is_wiped {
            self.failed(socket);
        } else if event.old_state == Some(TcpState::SynSent) && event.state == Some(TcpState::Close) {
            self.failing.insert(socket);
        }
    }
}

/// Who opened it, where its beginning was traced: a child of a listener is never in SYN-SENT.
fn direction_of(states: &[(TcpState, u64)]) -> Option<Direction> {
    match states.first()?.0 {
        TcpState::SynSent => Some(Direction::Out),
        TcpState::SynRecv | TcpState::Established => Some(Direction::In),
        _ => None,
    }
}

/// A connection whose handshake was finished has a round-trip time, or was seen to be.
fn is_established(seen: &[TcpState], info: &TcpInfo) -> bool {
    seen.iter().any(|state| !matches!(state, TcpState::SynSent | TcpState::SynRecv | TcpState::Close))
        || info.bytes_acked > 0
        || info.bytes_received > 0
}

#[cfg(test)]
mod tests;
