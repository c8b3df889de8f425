//! The program's connections as the kernel tells of them: looks, endings and, where permitted, tracepoints.
//!
//! Owns:    [`Watch`]: lives by socket cookie, from the first look that saw one to its ending.
//! Input:   sock_diag dumps and destroy events of this namespace, tracepoints of the host, `/proc/PID/fd`.
//! Output:  the journal's notes.
//! Rules:   a socket is the program's when one of its processes has been seen to hold it, or acted on it in a
//!          tracepoint. An ending of which neither can be said, and which was not seen to be somebody else's, is counted
//!          (by [`Watch::finish`]) and not told: destroy events say neither inode nor user.
//! Not here: what follows from it (`judge`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
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
use lastack_observe::source::kernel::{
    Detail, Endings, Kernel, Query, Scope, TraceOptions, Tracer, sockets_of,
};
use lastack_observe::trace::Event;

use super::judge::{Evidence, TimeWait, first_of, judge};
use life::Life;

mod life;

/// Pairs of addresses of which tracepoints have told; other programs' and other namespaces' among them.
const TRACED: usize = 50_000;
/// Ports of one turn's endings that the kernel is asked for by number; of more, for all there are.
const ASKED: usize = 16;

type Pair = (SocketAddr, SocketAddr);

/// What is told as it happens.
pub(super) type Listener = Box<dyn Fn(Note)>;

/// What tracepoints said about one end.
#[derive(Debug, Default)]
struct Traced {
    at_ns: u64,
    states: Vec<(TcpState, u64)>,
    sent_reset: Option<String>,
    got_reset: bool,
    error: Option<i32>,
    pid: Option<u32>,
    comm: Option<Arc<str>>,
    /// The one that acted was a process of the program then; its number may be another's now.
    is_ours: bool,
}

/// Watches.
pub(super) struct Watch {
    kernel: Kernel,
    endings: Endings,
    tracer: Option<Tracer>,
    tell: Listener,
    /// The program's processes, those that have exited too until their number is given to another.
    processes: HashSet<u32>,
    /// Ports the program listens on.
    listening: HashSet<u16>,
    lives: HashMap<u64, Life>,
    /// Other programs' sockets.
    others: HashSet<u64>,
    traced: HashMap<Pair, Traced>,
    /// Why an end sent a RST: kept after the end is gone, for the other end on this host.
    reset_reasons: HashMap<Pair, String>,
    /// Who connects, by the kernel's name of the socket: a SYN that leaves has no port yet in its tracepoint.
    connecting: HashMap<u64, Traced>,
    /// The processes by number, as they were at the last look: what has exited is not asked any more.
    names: HashMap<u32, Owner>,
    aborts: AbortCounters,
    resets: u64,
    looked_ns: u64,
    next_id: u64,
    unseen: u64,
}

impl Watch {
    /// Begins, before the program does.
    pub(super) fn open(tell: Listener) -> io::Result<Self> {
        let kernel = Kernel::open(&Scope::Own)?;
        let mut this = Self {
            endings: Endings::open(&Scope::Own)?,
            // Not permitted to everybody; without it less is known.
            tracer: Tracer::open(TraceOptions { forks: true, ..TraceOptions::default() }).ok(),
            tell,
            processes: HashSet::new(),
            listening: HashSet::new(),
            lives: HashMap::new(),
            others: HashSet::new(),
            traced: HashMap::new(),
            reset_reasons: HashMap::new(),
            connecting: HashMap::new(),
            names: HashMap::new(),
            aborts: AbortCounters::of_process(std::process::id()),
            resets: resets(&kernel),
            looked_ns: clock::unix_ns(),
            next_id: 1,
            unseen: 0,
            kernel,
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
        self.look(processes, Detail::Brief)?;
        self.drain()
    }

    /// Tells of those that are still open. Gives how many connections ended between two looks, so that nothing tells
    /// whose they were.
    pub(super) fn finish(mut self) -> u64 {
        // What they have carried so far; without it they are told all the same.
        let _ = self.look(&[], Detail::Full);
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
        self.unseen
    }

    fn look(&mut self, processes: &[u32], detail: Detail) -> io::Result<()> {
        let without = StateSet::of(TcpState::TimeWait).or(StateSet::of(TcpState::SynRecv));
        let mut filter = Filter::everything();
        filter.states = StateSet::ALL.and(without.complement());
        let rows = self.kernel.rows(&Query { filter, detail, owners: false, v6: None })?;
        let now = clock::unix_ns();
        let held = sockets_of(processes);
        let mut others = HashSet::new();
        for row in rows {
            let cookie = row.socket.cookie;
            let holder = held.get(&row.inode).filter(|_| row.inode != 0);
            if holder.is_none() && !self.lives.contains_key(&cookie) {
                others.insert(cookie);
            } else if row.socket.state == TcpState::Listen {
                self.listening.insert(row.socket.local.port());
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
        let direction = if self.listening.contains(&pair.0.port()) { Direction::In } else { Direction::Out };
        let next_id = &mut self.next_id;
        self.lives.entry(row.socket.cookie).or_insert_with(|| {
            let id = *next_id;
            *next_id += 1;
            Life::new(id, pair, direction, opened_ns)
        })
    }

    fn drain(&mut self) -> io::Result<()> {
        let mut ended = Vec::new();
        self.endings.wait(Duration::ZERO, &mut |row| ended.push(row))?;
        // After the endings: what led to them has been told by then.
        let mut events = Vec::new();
        if let Some(tracer) = &mut self.tracer {
            tracer.wait(Duration::ZERO, &mut |event| events.push(event))?;
        }
        for event in events {
            self.event(&event);
        }
        if ended.is_empty() {
            return Ok(());
        }
        let now_resets = resets(&self.kernel);
        let resets_counted = std::mem::replace(&mut self.resets, now_resets) != now_resets;
        let mut told = HashSet::new();
        let mut nobodys = Vec::new();
        // Tracepoints have told who closed first.
        let time_waits = if self.tracer.is_none() { self.time_waits(&ended).ok() } else { None };
        for row in ended {
            // A connect that failed has no other end any more; a look may have seen it when it had.
            let key = match self.lives.get(&row.socket.cookie) {
                Some(life) => life.pair,
                None if row.socket.remote.port() == 0 => continue,
                None => pair(row.socket.local, row.socket.remote),
            };
            let traced = self.traced.remove(&key);
            let acted = traced.as_ref().is_some_and(|traced| traced.is_ours);
            if self.lives.contains_key(&row.socket.cookie) || acted {
                told.insert(key);
                let time_wait = time_waits.as_ref().map_or(TimeWait::Unasked, |pairs| side_of(pairs, key));
                self.ended(&row, traced.unwrap_or_default(), resets_counted, time_wait);
            } else if !self.others.remove(&row.socket.cookie) && self.tracer.is_none() {
                nobodys.push(key);
            }
        }
        // The other end of one of ours, on this host, is no riddle, and both ends of another are one.
        let strangers: HashSet<Pair> = nobodys
            .into_iter()
            .filter(|(local, remote)| !told.contains(&(*remote, *local)))
            .map(|(local, remote)| (local.min(remote), local.max(remote)))
            .collect();
        self.unseen += strangers.len() as u64;
        Ok(())
    }

    fn ended(&mut self, row: &Row, traced: Traced, resets_counted: bool, time_wait: TimeWait) {
        let now = clock::unix_ns();
        let opened_ns = traced.states.first().map_or(self.looked_ns, |(_, at)| *at);
        self.life(row, opened_ns);
        let mut life = self.lives.remove(&row.socket.cookie).expect("made just now");
        let (local, remote) = life.pair;
        life.owner = life.owner.take().or_else(|| self.owner(&traced));
        // A connect that failed has been wiped by then.
        if let Some(info) = row.socket.info.as_deref().filter(|_| row.socket.remote.port() != 0) {
            life.info = info.clone();
        }
        if !traced.states.is_empty() {
            life.states.clone_from(&traced.states);
            life.opened_ns = life.opened_ns.min(opened_ns);
        }
        let seen: Vec<TcpState> = life.states.iter().map(|(state, _)| *state).collect();
        let same_kernel = local.ip().is_loopback() || local.ip() == remote.ip();
        let evidence = Evidence {
            first: first_of(&seen),
            established: is_established(&seen, &life.info),
            traced: self.tracer.is_some(),
            sent_reset: traced.sent_reset,
            got_reset: traced.got_reset,
            peers_reason: self.reset_reasons.remove(&(remote, local)),
            error: traced.error,
            time_wait,
            resets_counted,
            abort: if resets_counted && !same_kernel {
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
    fn failed(&mut self, key: Pair, traced: Traced) {
        let seen = self.lives.iter().find(|(_, life)| life.pair == key).map(|(cookie, _)| *cookie);
        if !traced.is_ours && seen.is_none() {
            return;
        }
        let opened_ns = traced.states.first().map_or(traced.at_ns, |(_, at)| *at);
        let known = seen.and_then(|cookie| self.lives.remove(&cookie));
        let mut life = known.unwrap_or_else(|| {
            self.next_id += 1;
            Life::new(self.next_id - 1, key, Direction::Out, opened_ns)
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

    /// The TIME-WAITs that may be of connections in `ended`: one look for all of them.
    fn time_waits(&mut self, ended: &[Row]) -> io::Result<HashSet<Pair>> {
        // As they were seen: a socket that was disconnected has no address left at its end.
        let ours = ended.iter().filter_map(|row| self.lives.get(&row.socket.cookie));
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
        let rows = self.kernel.rows(&Query { filter, detail: Detail::Brief, owners: false, v6: None })?;
        Ok(rows.iter().map(|row| pair(row.socket.local, row.socket.remote)).collect())
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
        let (Some(local), Some(peer)) = (event.local, event.peer) else { return };
        let is_ours = event.pid.is_some_and(|pid| self.processes.contains(&pid));
        if event.state == Some(TcpState::SynSent)
            && let Some(socket) = event.socket
        {
            bound(&mut self.connecting);
            let mut traced = Traced::default();
            traced.take(event, is_ours);
            self.connecting.insert(socket, traced);
            return;
        }
        if local.port() == 0 || peer.port() == 0 {
            return;
        }
        bound(&mut self.traced);
        let key = pair(local, peer);
        if let Some(begun) = event.socket.and_then(|socket| self.connecting.remove(&socket)) {
            self.traced.insert(key, begun);
        }
        let traced = self.traced.entry(key).or_default();
        traced.take(event, is_ours);
        if let Some(reason) = traced.sent_reset.clone() {
            if self.reset_reasons.len() >= TRACED {
                self.reset_reasons.clear();
            }
            self.reset_reasons.insert(key, reason);
        }
        // tcp_disconnect() wipes the other end's address before the socket's ending is told.
        let is_wiped = event.name == "tcp_send_reset"
            && event.reason.as_deref().is_some_and(|reason| reason.ends_with("TCP_STATE"))
            && traced.has_ended();
        let is_failed = event.old_state == Some(TcpState::SynSent) && event.state == Some(TcpState::Close);
        if is_wiped || is_failed {
            let traced = self.traced.remove(&key).expect("entered just now");
            self.failed(key, traced);
        }
    }
}

/// Forgets the older half when there are too many.
fn bound<K: Eq + std::hash::Hash>(all: &mut HashMap<K, Traced>) {
    if all.len() >= TRACED {
        let mut times: Vec<u64> = all.values().map(|traced| traced.at_ns).collect();
        times.sort_unstable();
        let middle = times[times.len() / 2];
        all.retain(|_, traced| traced.at_ns > middle);
    }
}

impl Traced {
    fn has_ended(&self) -> bool {
        self.states.last().is_some_and(|(last, _)| *last == TcpState::Close)
    }

    /// Takes over what `event` says; `is_ours`: who acted is one of the program's processes.
    fn take(&mut self, event: &Event, is_ours: bool) {
        self.at_ns = event.at_ns;
        if event.pid.is_some() {
            (self.pid, self.comm, self.is_ours) = (event.pid, event.comm.clone(), is_ours);
        }
        match (event.name, event.state) {
            ("inet_sock_set_state", Some(state)) => {
                // The same addresses again: what was told was another connection's.
                if state == TcpState::Established && self.has_ended() {
                    *self = Self { at_ns: event.at_ns, ..Self::default() };
                } else if state == TcpState::Established && self.states.is_empty() {
                    (self.sent_reset, self.got_reset, self.error) = (None, false, None);
                }
                self.states.push((state, event.at_ns));
            }
            // Of no socket any more: the answer to a segment that came late, after an end that was another.
            ("tcp_send_reset", _) if event.socket.is_none() && self.has_ended() => {}
            ("tcp_send_reset", _) => {
                self.sent_reset = Some(event.reason.as_deref().unwrap_or_default().to_owned());
            }
            ("tcp_receive_reset", _) => self.got_reset = true,
            ("inet_sk_error_report", _) => self.error = event.error.or(self.error),
            _ => {}
        }
    }
}

/// A connection whose handshake was finished has a round-trip time, or was seen to be.
fn is_established(seen: &[TcpState], info: &TcpInfo) -> bool {
    seen.iter().any(|state| !matches!(state, TcpState::SynSent | TcpState::SynRecv | TcpState::Close))
        || info.bytes_acked > 0
        || info.bytes_received > 0
}

/// Both ends as people know them: an IPv6 socket may carry IPv4.
fn pair(local: SocketAddr, remote: SocketAddr) -> Pair {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    (plain(local), plain(remote))
}

/// Whose end of the connection `(local, remote)` is among `time_waits`.
fn side_of(time_waits: &HashSet<Pair>, (local, remote): Pair) -> TimeWait {
    match (time_waits.contains(&(local, remote)), time_waits.contains(&(remote, local))) {
        (true, true) => TimeWait::Of(ClosedBy::Both),
        (true, false) => TimeWait::Of(ClosedBy::Program),
        (false, true) => TimeWait::Of(ClosedBy::Remote),
        (false, false) => TimeWait::Nobodys,
    }
}

/// Connections of this namespace that a RST has ended so far.
fn resets(kernel: &Kernel) -> u64 {
    kernel.figures().iter().map(|namespace| namespace.counter("EstabResets")).sum()
}

#[cfg(test)]
mod tests;
