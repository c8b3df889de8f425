//! Findings: what is wrong with the sockets of a snapshot, why, what fixes it, and what does not.
//!
//! Owns:    the engine that runs every [`Rule`] on a [`Case`] and turns what they found into [`Finding`]s.
//! Input:   one snapshot, or two when rates matter; [`Limits`].
//! Output:  at most one finding a rule, worst first.
//! Rules:   `rules` has a file for each; their facts are `linux-tcp` 11 and what it cites.
//! Not here: printing (the command), reading sockets (`source`).

use std::collections::{BTreeMap, HashSet};

use lastack_core::observe::TimerKind;
use lastack_core::tcp::state::TcpState;

use crate::row::{Certainty, OwnerHow, Row, age};
use crate::snapshot::{Namespace, Snapshot};
use crate::words::{Text, Words, bytes, says};

pub mod model;
mod rules;
pub mod what_if;

pub use rules::ALL;

/// How bad.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Worth knowing; harms nobody now.
    Info,
    /// Harms somebody, or will.
    Warning,
    /// Connections fail now.
    Error,
}

impl Severity {
    /// The word used in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// When a rule speaks. All of these can be set on the command line.
#[derive(Clone, PartialEq, Debug)]
pub struct Limits {
    /// Sockets that make a pile; `None` is each rule's own (20 unless its page says otherwise).
    pub min_count: Option<usize>,
    /// Sockets that make a pile for the rules whose own is 20: fewer in a capture, which somebody took of the few
    /// that are stuck.
    pub usual_pile: usize,
    /// For how long they must have been so, milliseconds.
    pub min_age_ms: u64,
    /// Share of a limit or range that counts as near it, per cent.
    pub near_percent: u64,
    /// Share of repeated segments that counts as a storm, per cent.
    pub retransmit_percent: u64,
    /// Resets a second that count as a storm.
    pub resets_per_second: u64,
    /// A middlebox forgets an idle connection after this long, milliseconds.
    pub middlebox_idle_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_count: None,
            usual_pile: PILE,
            min_age_ms: 10_000,
            near_percent: 80,
            retransmit_percent: 2,
            resets_per_second: 5,
            // The shortest idle time-out among the big clouds' load balancers.
            middlebox_idle_ms: 350_000,
        }
    }
}

/// Sockets that make a pile unless a rule or the user says otherwise.
pub const PILE: usize = 20;

/// One rule: everything that is known about one disease. A page of the manual is made of it.
#[derive(Debug)]
pub struct Rule {
    /// Stable identifier.
    pub id: &'static str,
    /// What it means, in one line.
    pub title: Text,
    /// What is looked at, and from when on it counts.
    pub evidence: Text,
    /// Why it happens.
    pub cause: Text,
    /// What helps, best first.
    pub fix: &'static [Text],
    /// Popular advice that does not help, with the reason.
    pub myth: &'static [Text],
    check: for<'a> fn(&Case<'a>) -> Option<Found<'a>>,
}

impl Rule {
    /// The lab story that produces it.
    pub fn story(&self) -> String {
        self.id.replace('.', "-")
    }

    /// The rule with this identifier.
    pub fn by_id(id: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|rule| rule.id == id)
    }
}

/// What a rule found.
#[derive(Debug)]
struct Found<'a> {
    severity: Severity,
    certainty: Certainty,
    /// How many sockets, which may be more than there are rows (those that have ended).
    count: u64,
    rows: Vec<&'a Row>,
    evidence: Vec<Words>,
}

/// One finding, ready to be shown.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// How bad.
    pub severity: Severity,
    /// How it is known.
    pub certainty: Certainty,
    /// Sockets.
    pub count: u64,
    /// Numbers.
    pub evidence: Vec<Words>,
    /// Who has, or had, them: most first.
    pub owners: Vec<OwnerCount>,
    /// With whom: most first; the tenth and later are not listed.
    pub peers: Vec<(std::net::IpAddr, u64)>,
    /// At which services: most first; the tenth and later are not listed.
    pub ports: Vec<PortCount>,
    /// The first five.
    pub sockets: Vec<Row>,
}

/// A port that many of a finding's sockets share: the service's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortCount {
    /// Its number.
    pub port: u16,
    /// Ours; otherwise the peers'.
    pub ours: bool,
    /// Of how many.
    pub count: u64,
}

/// One owner of a finding's sockets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OwnerCount {
    /// Process id, where known.
    pub pid: Option<u32>,
    /// Name.
    pub comm: String,
    /// True when it has closed them.
    pub former: bool,
    /// How it is known.
    pub how: OwnerHow,
    /// Of how many.
    pub count: u64,
}

const LISTED_OWNERS: usize = 10;
const LISTED_PEERS: usize = 10;
const LISTED_PORTS: usize = 10;
const LISTED_SOCKETS: usize = 5;

/// Runs every rule. `before` is an earlier snapshot of the same source, for what only rates tell.
pub fn examine(now: &Snapshot, before: Option<&Snapshot>, limits: &Limits) -> Vec<Finding> {
    run(ALL.iter().copied(), &Case { now, before, limits })
}

/// As [`examine`] for a snapshot without owners: once the rules have said which sockets are ill, `name` is given their
/// places in `now.rows` to name those owners, and what was found is told with them. On a healthy host nobody is asked.
///
/// Whether a rule speaks and for which sockets must not depend on owners; its evidence may name them.
pub fn examine_then_name(
    now: &mut Snapshot,
    before: Option<&Snapshot>,
    limits: &Limits,
    name: impl FnOnce(&mut Snapshot, &[usize]),
) -> Vec<Finding> {
    let case = Case { now, before, limits };
    let (mut ill, mut speaking) = (HashSet::new(), Vec::new());
    for rule in ALL {
        if let Some(found) = (rule.check)(&case) {
            ill.extend(found.rows.iter().map(|row| std::ptr::from_ref::<Row>(row)));
            speaking.push(*rule);
        }
    }
    if !ill.is_empty() {
        let places = now.rows.iter().enumerate();
        let places: Vec<usize> = places
            .filter_map(|(place, row)| ill.contains(&std::ptr::from_ref(row)).then_some(place))
            .collect();
        name(now, &places);
    }
    run(speaking.into_iter(), &Case { now, before, limits })
}

fn run(rules: impl Iterator<Item = &'static Rule>, case: &Case<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        rules.filter_map(|rule| (rule.check)(case).map(|found| finish(rule, found))).collect();
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| b.count.cmp(&a.count)));
    findings
}

fn finish(rule: &'static Rule, found: Found<'_>) -> Finding {
    let mut owners: BTreeMap<(Option<u32>, &str, bool, OwnerHow), u64> = BTreeMap::new();
    let mut peers: BTreeMap<std::net::IpAddr, u64> = BTreeMap::new();
    for row in &found.rows {
        if let Some(owner) = &row.owner {
            *owners.entry((owner.pid, &owner.comm, owner.former, owner.how)).or_default() += 1;
        }
        if row.socket.state != TcpState::Listen {
            *peers.entry(row.socket.remote.ip().to_canonical()).or_default() += 1;
        }
    }
    let mut owners: Vec<OwnerCount> = owners
        .into_iter()
        .map(|((pid, comm, former, how), count)| OwnerCount {
            pid,
            comm: comm.to_owned(),
            former,
            how,
            count,
        })
        .collect();
    owners.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.cmp(b)));
    owners.truncate(LISTED_OWNERS);
    let mut peers: Vec<_> = peers.into_iter().collect();
    peers.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    peers.truncate(LISTED_PEERS);
    let ports = ports(&found.rows);
    Finding {
        rule,
        ports,
        severity: found.severity,
        certainty: found.certainty,
        count: found.count,
        evidence: found.evidence,
        owners,
        peers,
        sockets: found.rows.iter().take(LISTED_SOCKETS).map(|row| (*row).clone()).collect(),
    }
}

/// The services of `rows`: of a socket's two ports the one that more of them share, or the lower one.
fn ports(rows: &[&Row]) -> Vec<PortCount> {
    let both = |row: &&&Row| [(true, row.socket.local.port()), (false, row.socket.remote.port())];
    let connected = || rows.iter().filter(|row| row.socket.state != TcpState::Listen);
    let mut shared: BTreeMap<(bool, u16), u64> = BTreeMap::new();
    for end in connected().flat_map(|row| both(&row)) {
        *shared.entry(end).or_default() += 1;
    }
    let mut services: BTreeMap<(bool, u16), u64> = BTreeMap::new();
    for row in connected() {
        let service = both(&row).into_iter().max_by_key(|end| (shared[end], std::cmp::Reverse(end.1)));
        *services.entry(service.expect("one of two")).or_default() += 1;
    }
    let mut ports: Vec<PortCount> =
        services.into_iter().map(|((ours, port), count)| PortCount { port, ours, count }).collect();
    ports.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.cmp(b)));
    ports.truncate(LISTED_PORTS);
    ports
}

/// What a rule may look at.
#[derive(Clone, Copy, Debug)]
struct Case<'a> {
    now: &'a Snapshot,
    before: Option<&'a Snapshot>,
    limits: &'a Limits,
}

impl<'a> Case<'a> {
    /// For at least how long `row` has been so, milliseconds.
    fn age_ms(&self, row: &Row) -> Option<u64> {
        row.condition_age_ms().or_else(|| {
            let namespace = self.now.namespace(row.netns)?;
            age::orphan_fin_wait_2_ms(&row.socket, namespace.number("tcp_fin_timeout")?)
        })
    }

    /// The oldest of `rows`, for people.
    fn oldest(&self, rows: &[&Row]) -> String {
        let oldest = rows.iter().filter_map(|row| self.age_ms(row)).max();
        oldest.map_or_else(|| "?".to_owned(), crate::words::duration)
    }

    /// The sockets that `pick` chooses and that have been so long enough, if they make a pile.
    fn pile(&self, usual: usize, pick: impl Fn(&Row) -> bool) -> Option<Vec<&'a Row>> {
        let rows: Vec<&Row> = self
            .now
            .rows
            .iter()
            .filter(|row| pick(row))
            .filter(|row| self.age_ms(row).is_some_and(|age| age >= self.limits.min_age_ms))
            .collect();
        let usual = if usual == PILE { self.limits.usual_pile } else { usual };
        (rows.len() >= self.limits.min_count.unwrap_or(usual).max(1)).then_some(rows)
    }

    /// The sockets that `pick` chooses, whatever their age.
    fn rows(&self, pick: impl Fn(&Row) -> bool) -> Vec<&'a Row> {
        self.now.rows.iter().filter(|row| pick(row)).collect()
    }

    /// How much a counter has gone up between the two snapshots, over all namespaces.
    fn delta(&self, name: &str) -> u64 {
        let Some(before) = self.before else { return 0 };
        self.now
            .namespaces
            .iter()
            .map(|now| {
                let then = before.namespace(now.inode).map_or(0, |then| then.counter(name));
                now.counter(name).saturating_sub(then)
            })
            .sum()
    }

    /// A counter since the namespaces began.
    fn total(&self, name: &str) -> u64 {
        self.now.namespaces.iter().map(|namespace| namespace.counter(name)).sum()
    }

    /// Milliseconds between the two snapshots; 0 when there is only one.
    fn interval_ms(&self) -> u64 {
        self.before.map_or(0, |before| self.now.taken_ns.saturating_sub(before.taken_ns) / 1_000_000)
    }

    /// `count` in the interval, a second.
    fn per_second(&self, count: u64) -> u64 {
        count.saturating_mul(1000).checked_div(self.interval_ms()).unwrap_or(0)
    }

    /// A knob of the namespace `row` lives in.
    fn knob(&self, row: &Row, name: &str) -> Option<i64> {
        self.now.namespace(row.netns)?.number(name)
    }

    /// As [`Case::knob`] of the first of `rows`; Linux's default, marked as such, where the source does not tell.
    fn knob_or(&self, rows: &[&Row], name: &str, default: u32) -> Knob {
        let read =
            rows.first().and_then(|row| self.knob(row, name)).and_then(|value| u32::try_from(value).ok());
        Knob { value: read.unwrap_or(default), is_read: read.is_some() }
    }

    /// A knob that the whole host has: it is only shown in the initial namespace.
    fn host_knob(&self, name: &str) -> Vec<i64> {
        self.now
            .namespaces
            .iter()
            .map(|space| space.numbers(name))
            .find(|v| !v.is_empty())
            .unwrap_or_default()
    }

    fn namespaces(&self) -> impl Iterator<Item = &'a Namespace> {
        self.now.namespaces.iter()
    }
}

/// A knob's value in a piece of evidence.
#[derive(Clone, Copy, Debug)]
struct Knob {
    value: u32,
    is_read: bool,
}

impl std::fmt::Display for Knob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = if self.is_read { "" } else { " [default]" };
        write!(f, "{}{mark}", self.value)
    }
}

/// The timer's kind.
fn timer(row: &Row) -> Option<TimerKind> {
    row.socket.timer.map(|timer| timer.kind)
}

/// How often the running timer has fired without progress.
fn repeats(row: &Row) -> u8 {
    row.socket.timer.map_or(0, |timer| timer.retrans)
}

/// Sum of a figure over rows.
fn sum(rows: &[&Row], figure: impl Fn(&Row) -> u64) -> u64 {
    rows.iter().map(|row| figure(row)).sum()
}

/// Bytes given and not acknowledged.
fn send_q(row: &Row) -> u64 {
    row.socket.send_q.into()
}

/// The bytes that are stuck in the rows' send queues, and the kernel memory that holds them where the source tells.
fn stuck(rows: &[&Row]) -> Words {
    let unacked = bytes(sum(rows, send_q));
    let memory: Option<u64> = rows.iter().map(|row| Some(u64::from(row.memory?.wmem_queued))).sum();
    match memory.map(bytes) {
        Some(memory) => says!(
            "{unacked} unacknowledged, holding {memory} of kernel memory",
            "{unacked} 未被确认，占用内核内存 {memory}"
        ),
        None => says!("{unacked} unacknowledged", "{unacked} 未被确认"),
    }
}

#[cfg(test)]
mod tests;
