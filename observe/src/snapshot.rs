//! All sockets of a source at one moment, with the counters, gauges and knobs that explain them.

use std::collections::BTreeMap;

use crate::row::Row;

/// No kernel counts further: at a million a second this takes thirty years. Rules add and multiply what they read.
pub(crate) const MOST: u64 = 1_000_000_000_000_000;

/// One moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// `kernel`, or the name of a running lastack.
    pub source: String,
    /// When, nanoseconds since the Unix epoch.
    pub taken_ns: u64,
    /// The sockets, in the source's order.
    pub rows: Vec<Row>,
    /// One entry a network namespace looked at.
    pub namespaces: Vec<Namespace>,
    /// Gauges that Linux keeps for the whole host, also when read inside a namespace.
    pub host: HostGauges,
    /// What could not be read, and how to get it.
    pub missing: Vec<Missing>,
}

/// One network namespace's (or stack's) counters and knobs.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// Inode number; 0 for a stack.
    pub inode: u64,
    /// Where it was found: `self`, a path, or a process.
    pub name: String,
    /// Counters by Linux's name: `Tcp` and `TcpExt` groups, without the prefix.
    pub counters: BTreeMap<String, u64>,
    /// Sockets in use (`sockstat` `TCP: inuse`), per namespace.
    pub inuse: u64,
    /// Mini sockets (`sockstat` `TCP: tw`), per namespace; FIN-WAIT-2 minis counted too.
    pub timewait: u64,
    /// Knobs by name without `net.ipv4.`; values as `/proc/sys` prints them, tabs as spaces.
    pub sysctls: BTreeMap<String, String>,
}

/// Host-wide gauges (`linux-tcp` 1.2: not the namespace's own).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HostGauges {
    /// Sockets whose program has gone (`sockstat` `orphan`).
    pub orphans: u64,
    /// TCP socks allocated (`alloc`).
    pub allocated: u64,
    /// Memory of all TCP, pages (`mem`).
    pub memory_pages: u64,
    /// Size of a page, bytes.
    pub page_size: u64,
}

impl HostGauges {
    /// Memory of all TCP, bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_pages.saturating_mul(self.page_size)
    }
}

/// Something that could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    /// What is missing.
    pub what: String,
    /// The command that grants it.
    pub grant: String,
}

impl Namespace {
    /// A counter; 0 when this kernel does not have it.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// A knob that is one number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.numbers(name).first().copied()
    }

    /// A knob that is several numbers; one that is larger than any kernel takes is none.
    pub fn numbers(&self, name: &str) -> Vec<i64> {
        self.sysctls
            .get(name)
            .map(|value| value.split_whitespace().map_while(number).collect())
            .unwrap_or_default()
    }
}

fn number(word: &str) -> Option<i64> {
    word.parse().ok().filter(|number: &i64| number.unsigned_abs() <= MOST)
}

impl Snapshot {
    /// The namespace with this inode.
    pub fn namespace(&self, inode: u64) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.inode == inode)
    }
}
