//! `time-wait.port-exhaustion`: outgoing connections run out of local ports towards one service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, PILE, Rule, Severity, model};
use crate::row::{Certainty, Row};
use crate::snapshot::Namespace;
use crate::words::{says, text};

pub(super) const RULE: Rule = Rule {
    id: "time-wait.port-exhaustion",
    title: text(
        "outgoing connections to one service use up the local ports",
        "到同一服务的外连正在耗尽本地端口",
    ),
    evidence: text(
        "local ports of ip_local_port_range taken towards one address and port, counted over all states: at least 80 % (a warning), at least 95 % (an error). TIME-WAIT that tcp_tw_reuse may take over does not count",
        "ip_local_port_range 中到同一地址和端口已占用的本地端口（计所有状态）：80 % 起警告，95 % 起错误。tcp_tw_reuse 可复用的 TIME-WAIT 不计",
    ),
    cause: text(
        "A connection is named by both addresses and both ports. Towards one address and port only the local port can differ, and this side, closing first, blocks each for 60 s. With the default range of 28,232 ports that allows 470 connections a second; beyond, connect fails with EADDRNOTAVAIL (99).",
        "连接由两端的地址和端口共同标识。对同一目的地址和端口，只有本地端口可变；本端先关闭，每个端口会被占用 60 秒。默认 28232 个端口只允许每秒 470 个连接；超过后 connect 以 EADDRNOTAVAIL（99）失败。",
    ),
    fix: &[
        text("reuse connections: a pool, HTTP keep-alive", "复用连接：连接池、HTTP keep-alive"),
        text(
            "let the server close first: then TIME-WAIT is on its side, where it is harmless",
            "让服务器先关闭：TIME-WAIT 就在它那边，且无害",
        ),
        text(
            "more addresses: several destination addresses or ports, several source addresses, IP_BIND_ADDRESS_NO_PORT when binding one",
            "增加地址：多个目的地址或端口、多个源地址；绑定源地址时使用 IP_BIND_ADDRESS_NO_PORT",
        ),
        text(
            "tcp_tw_reuse = 1 with timestamps on, on this (the connecting) host: ports are free again after 1 s; and a wider ip_local_port_range",
            "在本机（发起方）设 tcp_tw_reuse = 1 并开启时间戳：1 秒后端口即可再用；并放宽 ip_local_port_range",
        ),
    ],
    myth: &[
        text("tcp_fin_timeout: not the length of TIME-WAIT", "tcp_fin_timeout：不是 TIME-WAIT 的时长"),
        text("tcp_tw_recycle: does not exist any more", "tcp_tw_recycle：已不存在"),
        text("tcp_timestamps = 0: switches tcp_tw_reuse off", "tcp_timestamps = 0：会使 tcp_tw_reuse 失效"),
        text(
            "SO_LINGER 0 everywhere: throws away data that is on its way",
            "到处使用 SO_LINGER 0：会丢弃还在路上的数据",
        ),
    ],
    check,
};

/// Towards one service.
struct Pair<'a> {
    rows: Vec<&'a Row>,
    ports: BTreeSet<u16>,
    reusable: usize,
}

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let mut worst: Option<(u64, Found<'a>)> = None;
    for namespace in case.namespaces() {
        let [low, high] = namespace.numbers("ip_local_port_range")[..] else { continue };
        let range = low..=high;
        let reserved = reserved_ports(namespace, low, high);
        let room = u64::try_from(high - low + 1).unwrap_or(0).saturating_sub(reserved);
        if room == 0 {
            continue;
        }
        for ((source, target), pair) in pairs(case, namespace, |port| range.contains(&i64::from(port))) {
            let used = pair.ports.len() as u64;
            let percent = used * 100 / room;
            let enough = pair.rows.len() >= case.limits.min_count.unwrap_or(PILE);
            if percent < case.limits.near_percent
                || !enough
                || worst.as_ref().is_some_and(|(p, _)| *p >= percent)
            {
                continue;
            }
            let free = room.saturating_sub(used);
            let waiting = pair.rows.iter().filter(|row| row.socket.state == TcpState::TimeWait).count();
            let sustainable = model::sustainable_per_second(room);
            let reuse = namespace.sysctls.get("tcp_tw_reuse").map_or("?", String::as_str);
            let reusable = pair.reusable;
            let evidence = vec![
                says!(
                    "{source} → {target}: {used} of {room} local ports taken ({percent} %), {free} free; {waiting} by TIME-WAIT",
                    "{source} → {target}：{room} 个本地端口已用 {used} 个（{percent} %），剩 {free} 个；其中 TIME-WAIT {waiting} 个"
                ),
                says!(
                    "ip_local_port_range = {low} {high}: at most {sustainable} connections a second to that service can close first here",
                    "ip_local_port_range = {low} {high}：到该服务每秒最多 {sustainable} 个连接可由本端先关闭"
                ),
                says!(
                    "tcp_tw_reuse = {reuse}; {reusable} more TIME-WAITs may be taken over",
                    "tcp_tw_reuse = {reuse}；另有 {reusable} 个 TIME-WAIT 可被复用"
                ),
            ];
            let severity = if percent >= 95 { Severity::Error } else { Severity::Warning };
            worst = Some((
                percent,
                Found {
                    severity,
                    certainty: Certainty::Observed,
                    count: pair.rows.len() as u64,
                    rows: pair.rows,
                    evidence,
                },
            ));
        }
    }
    worst.map(|(_, found)| found)
}

fn pairs<'a>(
    case: &Case<'a>,
    namespace: &Namespace,
    ephemeral: impl Fn(u16) -> bool,
) -> BTreeMap<(IpAddr, SocketAddr), Pair<'a>> {
    let reuse = namespace.number("tcp_tw_reuse").unwrap_or(0);
    let timestamps = namespace.number("tcp_timestamps").unwrap_or(1) != 0;
    let delay = namespace.number("tcp_tw_reuse_delay").and_then(|ms| u64::try_from(ms).ok()).unwrap_or(1000);
    let mut found: BTreeMap<(IpAddr, SocketAddr), Pair<'a>> = BTreeMap::new();
    for row in &case.now.rows {
        let socket = &row.socket;
        let listening = matches!(socket.state, TcpState::Listen | TcpState::Close | TcpState::NewSynRecv);
        if row.netns != namespace.inode || listening || !ephemeral(socket.local.port()) {
            continue;
        }
        let key = (socket.local.ip(), socket.remote);
        let pair = found.entry(key).or_insert_with(|| Pair {
            rows: Vec::new(),
            ports: BTreeSet::new(),
            reusable: 0,
        });
        // linux-tcp 2.4: 1 for any pair, 2 for the loopback only; never a FIN-WAIT-2 mini socket.
        let loopback = socket.local.ip().is_loopback() || socket.remote.ip().is_loopback();
        let allowed = timestamps && (reuse == 1 || reuse == 2 && loopback);
        let old = case.age_ms(row).is_some_and(|age| age >= delay);
        if allowed && old && socket.state == TcpState::TimeWait {
            pair.reusable += 1;
        } else {
            pair.ports.insert(socket.local.port());
            pair.rows.push(row);
        }
    }
    found
}

/// Ports of the range that `ip_local_reserved_ports` (`8080,9000-9010`) takes out.
fn reserved_ports(namespace: &Namespace, low: i64, high: i64) -> u64 {
    let Some(text) = namespace.sysctls.get("ip_local_reserved_ports") else { return 0 };
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse::<i64>().ok()?, last.trim().parse::<i64>().ok()?);
            u64::try_from(last.min(high) - first.max(low) + 1).ok()
        })
        .sum()
}
