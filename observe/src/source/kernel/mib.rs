//! Counters, gauges and knobs from `/proc`, as the calling thread's network namespace has them.
//!
//! Rules: `linux-tcp` 1.2 (which gauges are host-wide) and 9.

use std::collections::BTreeMap;
use std::fs;

use crate::snapshot::{HostGauges, Namespace};

/// `thread-self`, not `self`: a thread may have entered another namespace.
const NET: &str = "/proc/thread-self/net";

/// Counters and knobs of the namespace the calling thread is in.
pub(super) fn namespace(inode: u64, name: &str) -> Namespace {
    let mut counters = BTreeMap::new();
    let read = |file: &str| fs::read_to_string(format!("{NET}/{file}")).unwrap_or_default();
    pairs(&read("snmp"), "Tcp:", &mut counters);
    pairs(&read("netstat"), "TcpExt:", &mut counters);
    let mut gauges = read("sockstat");
    let inuse6 = field(&read("sockstat6"), "TCP6:", "inuse");
    let timewait = field(&gauges, "TCP:", "tw");
    let inuse = field(&gauges, "TCP:", "inuse") + inuse6;
    gauges.clear();
    Namespace { inode, name: name.to_owned(), counters, inuse, timewait, sysctls: sysctls() }
}

/// Host-wide gauges.
pub(super) fn host() -> HostGauges {
    let text = fs::read_to_string(format!("{NET}/sockstat")).unwrap_or_default();
    HostGauges {
        orphans: field(&text, "TCP:", "orphan"),
        allocated: field(&text, "TCP:", "alloc"),
        memory_pages: field(&text, "TCP:", "mem"),
        page_size: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
    }
}

/// Every `net.ipv4.tcp_*`, and the few others the rules read, of the calling thread's namespace.
fn sysctls() -> BTreeMap<String, String> {
    const OTHERS: [&str; 5] = [
        "ipv4/ip_local_port_range",
        "ipv4/ip_local_reserved_ports",
        "core/busy_poll",
        "core/somaxconn",
        "ipv4/ip_unprivileged_port_start",
    ];
    let mut found = BTreeMap::new();
    let names = fs::read_dir("/proc/sys/net/ipv4").into_iter().flatten().flatten();
    let tcp = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        // The Fast Open key is a secret: a snapshot is sent to others.
        .filter(|name| name.starts_with("tcp_") && name != "tcp_fastopen_key")
        .map(|name| format!("ipv4/{name}"));
    for path in tcp.chain(OTHERS.map(str::to_owned)) {
        if let Ok(value) = fs::read_to_string(format!("/proc/sys/net/{path}")) {
            let key = path.strip_prefix("ipv4/").map_or_else(|| path.replace('/', "."), str::to_owned);
            found.insert(key, value.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    found
}

/// A header line and a value line, both beginning with `prefix`.
fn pairs(text: &str, prefix: &str, into: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
    if let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // MaxConn is -1; no counter is negative.
            if let Ok(value) = value.parse() {
                into.insert(name.to_owned(), value);
            }
        }
    }
}

/// The number behind `name` on the line that begins with `prefix`.
fn field(text: &str, prefix: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(prefix))
        .flat_map(|line| line.split_whitespace().zip(line.split_whitespace().skip(1)))
        .find_map(|(word, value)| (word == name).then(|| value.parse().ok())?)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockstat_fields_by_name() {
        let text = "sockets: used 105\nTCP: inuse 9 orphan 2 tw 31 alloc 12 mem 5\n";
        assert_eq!(field(text, "TCP:", "orphan"), 2);
        assert_eq!(field(text, "TCP:", "mem"), 5);
        assert_eq!(field(text, "TCP:", "absent"), 0);
    }

    #[test]
    fn counters_by_header_line() {
        let mut found = BTreeMap::new();
        pairs("Tcp: RtoMin MaxConn InSegs\nTcp: 200 -1 77\n", "Tcp:", &mut found);
        assert_eq!(found.get("InSegs"), Some(&77));
        assert_eq!(found.get("MaxConn"), None);
    }
}
