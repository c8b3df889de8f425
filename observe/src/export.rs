//! Metrics for Prometheus: gauges of the moment, counters since we began, bounded labels.
//!
//! Owns:    the counters and the histogram of closed connections.
//! Input:   snapshots at each scrape, endings and events in between.
//! Output:  the OpenMetrics text ([`Exporter::render`]).
//! Rules:   ephemeral ports are never a label; peers and processes are the top [`TOP`] and `other`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;

use lastack_core::tcp::state::TcpState;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::closed::Closed;
use crate::doctor::{self, Finding};
use crate::group::{self, Key};
use crate::row::Row;
use crate::snapshot::Snapshot;

pub mod files;

/// Peers and processes that have a label of their own.
pub const TOP: usize = 20;
/// Listening ports that have one.
const TOP_PORTS: usize = 50;

type Labels = Vec<(&'static str, String)>;
type GaugeOf = Gauge<f64, AtomicU64>;

/// What is counted between scrapes.
#[derive(Debug)]
pub struct Exporter {
    closed: BTreeMap<(&'static str, String, &'static str), u64>,
    resets: BTreeMap<(&'static str, String), u64>,
    durations: Histogram,
    lost: u64,
    /// True when reasons of resets are known.
    traced: bool,
}

impl Exporter {
    /// Nothing counted yet; `traced` says whether tracepoints tell reasons.
    pub fn new(traced: bool) -> Self {
        Self {
            closed: BTreeMap::new(),
            resets: BTreeMap::new(),
            // 1 ms to about 4.5 hours.
            durations: Histogram::new(exponential_buckets(0.001, 4.0, 13)),
            lost: 0,
            traced,
        }
    }

    /// Counts a closed connection.
    pub fn closed(&mut self, closed: &Closed) {
        let reason = closed.reason.as_ref().map_or_else(|| "none".to_owned(), |reason| reason.to_string());
        *self
            .closed
            .entry((closed.how.name(), reason, closed.closed_by.unwrap_or("unknown")))
            .or_default() += 1;
        if let Some(opened) = closed.opened_ns {
            self.durations.observe(closed.ended_ns.saturating_sub(opened) as f64 / 1e9);
        }
    }

    /// Counts a reset.
    pub fn reset(&mut self, direction: &'static str, reason: &str) {
        *self.resets.entry((direction, reason.to_owned())).or_default() += 1;
    }

    /// Events or endings that were lost so far.
    pub fn set_lost(&mut self, lost: u64) {
        self.lost = lost;
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// Only when formatting fails, which writing to a string does not.
    pub fn render(&self, now: &Snapshot, findings: &[Finding]) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("lastack");
        self.sockets(now, &mut registry);
        self.since_start(now, &mut registry);
        let found: Family<Labels, GaugeOf> = Family::default();
        for rule in doctor::ALL {
            let finding = findings.iter().find(|finding| finding.rule.id == rule.id);
            let severity = finding.map_or("none", |finding| finding.severity.name());
            let labels = vec![("id", rule.id.to_owned()), ("severity", severity.to_owned())];
            found.get_or_create(&labels).set(finding.map_or(0.0, |finding| finding.count as f64));
        }
        registry.register(
            "findings",
            "Sockets of each finding of lastack doctor; 0 where there is none",
            found,
        );
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    fn sockets(&self, now: &Snapshot, registry: &mut Registry) {
        let (states, oldest) = (Family::<Labels, GaugeOf>::default(), Family::<Labels, GaugeOf>::default());
        let queues = Family::<Labels, GaugeOf>::default();
        let groups = group::by(&now.rows, &[Key::State]);
        for state in TcpState::ALL.into_iter().filter(|state| *state != TcpState::NewSynRecv) {
            let labels = vec![("state", state.name().to_owned())];
            let group = groups.iter().find(|group| group.values[0] == state.name());
            states.get_or_create(&labels).set(group.map_or(0.0, |group| group.count as f64));
            oldest.get_or_create(&labels).set(group.and_then(|g| g.oldest_ms).unwrap_or(0) as f64 / 1e3);
            for (queue, bytes) in
                [("recv", group.map_or(0, |g| g.recv_q)), ("send", group.map_or(0, |g| g.send_q))]
            {
                let mut labels = labels.clone();
                labels.push(("queue", queue.to_owned()));
                queues.get_or_create(&labels).set(bytes as f64);
            }
        }
        registry.register("connections", "Sockets by state", states);
        registry.register(
            "connection_oldest_seconds",
            "Longest time in the present condition, a lower bound unless a recorder runs",
            oldest,
        );
        registry.register("connection_queue_bytes", "Bytes in queues by state", queues);
        registry.register(
            "connections_by_port",
            "Sockets by state and listening port",
            top(&now.rows, Port, TOP_PORTS),
        );
        registry.register(
            "connections_by_peer",
            "Sockets by state and peer address",
            top(&now.rows, Peer, TOP),
        );
        registry.register(
            "connections_by_process",
            "Sockets by state and process name",
            top(&now.rows, Process, TOP),
        );
        let accept = Family::<Labels, GaugeOf>::default();
        for row in now.rows.iter().filter(|row| row.socket.state == TcpState::Listen).take(TOP_PORTS) {
            let port = row.socket.local.port().to_string();
            for (kind, value) in [("waiting", row.socket.recv_q), ("backlog", row.socket.send_q)] {
                let labels = vec![("port", port.clone()), ("kind", kind.to_owned())];
                accept.get_or_create(&labels).inc_by(f64::from(value));
            }
        }
        registry.register(
            "accept_queue",
            "Connections waiting to be accepted, and the backlog, by listening port",
            accept,
        );
        for (name, help, value) in [
            ("host_orphans", "Sockets of the whole host that no program holds", now.host.orphans),
            ("host_memory_bytes", "Memory of all TCP of the host", now.host.memory_bytes()),
        ] {
            let gauge = GaugeOf::default();
            gauge.set(value as f64);
            registry.register(name, help, gauge);
        }
    }

    fn since_start(&self, now: &Snapshot, registry: &mut Registry) {
        let closed = Family::<Labels, Counter>::default();
        for ((how, reason, by), count) in &self.closed {
            let labels =
                vec![("how", (*how).to_owned()), ("reason", reason.clone()), ("closed_by", (*by).to_owned())];
            closed.get_or_create(&labels).inc_by(*count);
        }
        registry.register("connections_closed", "Connections that ended since the exporter began", closed);
        registry.register(
            "connection_duration_seconds",
            "Life of ended connections whose opening was seen",
            self.durations.clone(),
        );
        let total = |name: &str| now.namespaces.iter().map(|space| space.counter(name)).sum::<u64>();
        for (name, help, value) in [
            ("retransmits", "Segments sent again (RetransSegs)", total("RetransSegs")),
            ("segments_sent", "Segments sent, repeats excluded (OutSegs)", total("OutSegs")),
            (
                "connections_opened",
                "Connections opened (ActiveOpens and PassiveOpens)",
                total("ActiveOpens") + total("PassiveOpens"),
            ),
            (
                "listen_overflows",
                "Connections refused because an accept queue was full (ListenOverflows)",
                total("ListenOverflows"),
            ),
            ("events_lost", "Events and endings that were not seen", self.lost),
        ] {
            let counter: Counter = Counter::default();
            counter.inc_by(value);
            registry.register(name, help, counter);
        }
        let resets = Family::<Labels, Counter>::default();
        let of = |direction: &str, reason: &str| {
            vec![("direction", direction.to_owned()), ("reason", reason.to_owned())]
        };
        if self.traced {
            for ((direction, reason), count) in &self.resets {
                resets.get_or_create(&of(direction, reason)).inc_by(*count);
            }
        } else {
            // Without tracepoints the kernel tells only how many were sent.
            resets.get_or_create(&of("sent", "unknown")).inc_by(total("OutRsts"));
        }
        registry.register("resets", "RSTs by direction and the kernel's reason", resets);
    }
}

/// A label whose values must be bounded.
#[derive(Clone, Copy)]
enum Bounded {
    Port,
    Peer,
    Process,
}
use Bounded::{Peer, Port, Process};

fn top(rows: &[Row], what: Bounded, keep: usize) -> Family<Labels, GaugeOf> {
    let listening: std::collections::BTreeSet<u16> = rows
        .iter()
        .filter(|row| row.socket.state == TcpState::Listen)
        .map(|row| row.socket.local.port())
        .collect();
    let value = |row: &Row| match what {
        Port => {
            let port = row.socket.local.port();
            if listening.contains(&port) { port.to_string() } else { "other".to_owned() }
        }
        Peer => Key::Peer.of(row),
        Process => row.owner.as_ref().map_or_else(|| "-".to_owned(), |owner| owner.comm.to_string()),
    };
    let label = match what {
        Port => "port",
        Peer => "peer",
        Process => "process",
    };
    let rows = || rows.iter().filter(|row| !matches!(what, Peer) || row.socket.state != TcpState::Listen);
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows() {
        *totals.entry(value(row)).or_default() += 1;
    }
    let mut ranked: Vec<_> = totals.into_iter().collect();
    ranked.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let kept: std::collections::BTreeSet<String> =
        ranked.into_iter().take(keep).map(|(name, _)| name).collect();
    let family = Family::<Labels, GaugeOf>::default();
    for row in rows() {
        let name = value(row);
        let name = if kept.contains(&name) { name } else { "other".to_owned() };
        family.get_or_create(&vec![("state", row.socket.state.name().to_owned()), (label, name)]).inc();
    }
    family
}
