//! Snapshots as JSON: what `ss --json` prints is what `--from FILE` reads back.
//!
//! Rules: the command-line contract. Unknown values are absent; addresses are `a.b.c.d:port` and
//!        `[v6]:port`; state names are `ss`'s; `tcp_info` has Linux's field names.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use lastack_core::observe::{SocketRow, TcpInfo, TimerKind, TimerRow};
use lastack_core::tcp::state::TcpState;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::row::{Owner, OwnerHow, Row, SkMem};
use crate::snapshot::{HostGauges, MOST, Missing, Namespace, Snapshot};

/// The version of every document this crate writes.
pub const SCHEMA: u32 = 1;

/// A whole snapshot.
#[derive(Serialize, Deserialize)]
struct Document {
    schema: u32,
    source: String,
    #[serde(default)]
    taken_ns: u64,
    sockets: Vec<Socket>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<Space>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<Host>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    missing: Vec<Lack>,
}

/// One socket, as `ss --json` has it.
#[derive(Serialize, Deserialize)]
struct Socket {
    #[serde(default, skip_serializing_if = "is_zero")]
    netns: u64,
    state: String,
    local: SocketAddr,
    peer: SocketAddr,
    recv_q: u32,
    send_q: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timer: Option<Timer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Holder>,
    #[serde(default)]
    inode: u32,
    cookie: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    orphan: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state_age_ms: Option<u64>,
    /// `recorded`, or `inferred`: then it is a lower bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state_age_how: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "is_zero32")]
    interface: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cgroup: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shutdown: Option<u8>,
    #[serde(default, skip_serializing_if = "is_false")]
    v6only: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    congestion: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skmem: Option<Memory>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tcp_info: Option<Info>,
}

#[derive(Serialize, Deserialize)]
struct Timer {
    name: String,
    expires_ms: u32,
    retrans: u8,
}

#[derive(Serialize, Deserialize)]
struct Holder {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    comm: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fd: Option<i32>,
    former: bool,
    how: String,
}

#[derive(Serialize, Deserialize)]
struct Memory {
    rmem_alloc: u32,
    rcvbuf: u32,
    wmem_alloc: u32,
    sndbuf: u32,
    fwd_alloc: u32,
    wmem_queued: u32,
    optmem: u32,
    backlog: u32,
    drops: u32,
}

#[derive(Serialize, Deserialize)]
struct Space {
    inode: u64,
    name: String,
    inuse: u64,
    timewait: u64,
    counters: BTreeMap<String, u64>,
    sysctls: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Host {
    orphans: u64,
    allocated: u64,
    memory_pages: u64,
    page_size: u64,
}

#[derive(Serialize, Deserialize)]
struct Lack {
    what: String,
    grant: String,
}

/// `tcp_info` as an object with Linux's names.
struct Info(Box<TcpInfo>);

impl Serialize for Info {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.fields();
        let mut map = serializer.serialize_map(Some(fields.len()))?;
        for (name, value) in fields {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Info {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = BTreeMap::<String, u64>::deserialize(deserializer)?;
        let mut info = TcpInfo::default();
        for (name, value) in fields {
            // A newer writer may know fields that we do not: they are not ours to judge.
            info.set(&name, value);
        }
        Ok(Self(Box::new(info)))
    }
}

/// Writes a snapshot as one document.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_snapshot(snapshot: &Snapshot, out: &mut dyn io::Write) -> io::Result<()> {
    let Snapshot { source, taken_ns, rows, namespaces, host, missing } = snapshot;
    let document = Document {
        schema: SCHEMA,
        source: source.clone(),
        taken_ns: *taken_ns,
        sockets: rows.iter().map(Socket::of).collect(),
        namespaces: namespaces.iter().map(Space::of).collect(),
        host: Some(Host {
            orphans: host.orphans,
            allocated: host.allocated,
            memory_pages: host.memory_pages,
            page_size: host.page_size,
        }),
        missing: missing.iter().map(|m| Lack { what: m.what.clone(), grant: m.grant.clone() }).collect(),
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

/// One socket as a JSON value.
pub fn row_value(row: &Row) -> serde_json::Value {
    serde_json::to_value(Socket::of(row)).unwrap_or_default()
}

/// Reads a document that [`write_snapshot`] wrote.
///
/// # Errors
/// `InvalidData` with the place and the reason.
pub fn read_snapshot(text: &str) -> io::Result<Snapshot> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let document: Document = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
    if document.schema != SCHEMA {
        return Err(invalid(format!("schema {} is not {SCHEMA}", document.schema)));
    }
    let figures = document.namespaces.iter().flat_map(|space| {
        let counters = space.counters.iter().map(|(name, count)| (name.as_str(), *count));
        counters.chain([("inuse", space.inuse), ("timewait", space.timewait)])
    });
    let gauges = document.host.iter().flat_map(|host| {
        let Host { orphans, allocated, memory_pages, page_size } = host;
        [
            ("orphans", *orphans),
            ("allocated", *allocated),
            ("memory_pages", *memory_pages),
            ("page_size", *page_size),
        ]
    });
    if let Some((name, count)) = figures.chain(gauges).find(|(_, count)| *count > MOST) {
        return Err(invalid(format!("`{name}` {count} is more than any kernel counts")));
    }
    let host = document.host.map_or_else(HostGauges::default, |host| HostGauges {
        orphans: host.orphans,
        allocated: host.allocated,
        memory_pages: host.memory_pages,
        page_size: host.page_size,
    });
    let rows = document
        .sockets
        .into_iter()
        .map(|socket| {
            let name = socket.state.clone();
            socket.row().ok_or_else(|| invalid(format!("`{name}` is no state")))
        })
        .collect::<io::Result<Vec<_>>>()?;
    Ok(Snapshot {
        source: document.source,
        taken_ns: document.taken_ns,
        rows,
        namespaces: document.namespaces.into_iter().map(Space::namespace).collect(),
        host,
        missing: document.missing.into_iter().map(|m| Missing { what: m.what, grant: m.grant }).collect(),
    })
}

impl Socket {
    fn of(row: &Row) -> Self {
        let Row {
            socket,
            netns,
            inode,
            uid,
            interface,
            mark,
            cgroup,
            shutdown,
            v6only,
            congestion,
            memory,
            owner,
        } = row;
        let SocketRow {
            state,
            local,
            remote,
            recv_q,
            send_q,
            timer,
            cookie,
            orphan,
            age_ms,
            state_age_ms,
            info,
        } = socket;
        let condition = row.condition_age_ms();
        Self {
            netns: *netns,
            state: state.name().to_owned(),
            local: *local,
            peer: *remote,
            recv_q: *recv_q,
            send_q: *send_q,
            timer: timer.map(|timer| Timer {
                name: timer.kind.name().to_owned(),
                expires_ms: timer.expires_ms,
                retrans: timer.retrans,
            }),
            owner: owner.as_ref().map(|owner| Holder {
                pid: owner.pid,
                comm: Arc::clone(&owner.comm),
                fd: owner.fd,
                former: owner.former,
                how: owner.how.name().to_owned(),
            }),
            inode: *inode,
            cookie: *cookie,
            orphan: *orphan,
            age_ms: *age_ms,
            state_age_ms: condition,
            state_age_how: condition
                .map(|_| if state_age_ms.is_some() { "recorded" } else { "inferred" }.to_owned()),
            uid: *uid,
            interface: *interface,
            mark: *mark,
            cgroup: *cgroup,
            shutdown: *shutdown,
            v6only: *v6only,
            congestion: congestion.clone(),
            skmem: memory.map(Memory::of),
            tcp_info: info.clone().map(Info),
        }
    }

    fn row(self) -> Option<Row> {
        let mut state = *TcpState::ALL.iter().find(|state| state.name() == self.state)?;
        if state == TcpState::SynRecv && self.tcp_info.is_none() && self.inode == 0 {
            state = TcpState::NewSynRecv;
        }
        let exact = self.state_age_how.as_deref() == Some("recorded");
        Some(Row {
            socket: SocketRow {
                state,
                local: self.local,
                remote: self.peer,
                recv_q: self.recv_q,
                send_q: self.send_q,
                timer: self.timer.and_then(|timer| {
                    let kinds =
                        [TimerKind::On, TimerKind::Keepalive, TimerKind::TimeWait, TimerKind::Persist];
                    let kind = kinds.into_iter().find(|kind| kind.name() == timer.name)?;
                    Some(TimerRow { kind, expires_ms: timer.expires_ms, retrans: timer.retrans })
                }),
                cookie: self.cookie,
                orphan: self.orphan,
                age_ms: self.age_ms,
                state_age_ms: self.state_age_ms.filter(|_| exact),
                info: self.tcp_info.map(|info| info.0),
            },
            netns: self.netns,
            inode: self.inode,
            uid: self.uid,
            interface: self.interface,
            mark: self.mark,
            cgroup: self.cgroup,
            shutdown: self.shutdown,
            v6only: self.v6only,
            congestion: self.congestion,
            memory: self.skmem.map(Memory::memory),
            owner: self.owner.map(|holder| Owner {
                pid: holder.pid,
                comm: holder.comm,
                fd: holder.fd,
                former: holder.former,
                how: [OwnerHow::Descriptor, OwnerHow::Recorded, OwnerHow::Cgroup]
                    .into_iter()
                    .find(|how| how.name() == holder.how)
                    .unwrap_or(OwnerHow::Listener),
            }),
        })
    }
}

impl Memory {
    fn of(memory: SkMem) -> Self {
        let SkMem { rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued, optmem, backlog, drops } =
            memory;
        Self { rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued, optmem, backlog, drops }
    }

    fn memory(self) -> SkMem {
        let Self { rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued, optmem, backlog, drops } =
            self;
        SkMem { rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued, optmem, backlog, drops }
    }
}

impl Space {
    fn of(namespace: &Namespace) -> Self {
        let Namespace { inode, name, counters, inuse, timewait, sysctls } = namespace.clone();
        Self { inode, name, inuse, timewait, counters, sysctls }
    }

    fn namespace(self) -> Namespace {
        let Self { inode, name, inuse, timewait, counters, sysctls } = self;
        Namespace { inode, name, counters, inuse, timewait, sysctls }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero32(value: &u32) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{self, Limits};

    /// A file of one namespace whose figures are all `count`, and its knobs too.
    fn file(count: u64) -> String {
        let counters =
            ["OutSegs", "RetransSegs", "ActiveOpens", "PassiveOpens", "AttemptFails", "OutRsts", "TW"];
        let counters: Vec<String> = counters.iter().map(|name| format!("\"{name}\":{count}")).collect();
        let knobs = ["tcp_fin_timeout", "tcp_max_orphans", "tcp_max_tw_buckets"];
        let mut knobs: Vec<String> = knobs.iter().map(|name| format!("\"{name}\":\"{count}\"")).collect();
        knobs.push(format!("\"ip_local_port_range\":\"-{count} {count}\""));
        format!(
            r#"{{"schema":1,"source":"kernel","taken_ns":{},"sockets":[
            {{"netns":1,"state":"TIME-WAIT","local":"10.0.0.1:80","peer":"10.0.0.9:4000","recv_q":4294967295,"send_q":4294967295,"cookie":1}}],
            "namespaces":[{{"inode":1,"name":"self","inuse":{count},"timewait":{count},"counters":{{{}}},"sysctls":{{{}}}}}],
            "host":{{"orphans":{count},"allocated":{count},"memory_pages":{count},"page_size":{count}}}}}"#,
            u64::MAX,
            counters.join(","),
            knobs.join(",")
        )
    }

    #[test]
    fn figures_are_those_of_a_kernel_or_refused() {
        let now = read_snapshot(&file(MOST)).expect("a snapshot");
        let mut before = read_snapshot(&file(0)).expect("a snapshot");
        before.taken_ns = 0;
        let findings = doctor::examine(&now, Some(&before), &Limits::default());
        assert!(!findings.is_empty());
        let refused = read_snapshot(&file(MOST + 1)).expect_err("no kernel's");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        assert!(refused.to_string().contains("more than any kernel counts"), "{refused}");
    }
}
