//! `syn-recv.flood`: half-open connections fill a listener's SYN queue.

use std::collections::{BTreeMap, BTreeSet};

use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, PILE, Rule, Severity};
use crate::row::{Certainty, Row};
use crate::words::{says, text};

pub(super) const RULE: Rule = Rule {
    id: "syn-recv.flood",
    title: text("half-open connections fill a listener's SYN queue", "半开连接占满了监听端口的 SYN 队列"),
    evidence: text(
        "SYN-RECV on one port: more than its backlog (full: an error), or SYN cookies or SYN drops counted between two snapshots (an error), or at least 20 for at least 10 s (a warning). Ports whose accept queue is full are listen.accept-queue-overflow's",
        "同一端口上的 SYN-RECV：超过 backlog（已满：错误），或两次快照之间有 SYN cookie 或 SYN 丢弃（错误），或至少 20 个持续至少 10 秒（警告）。accept 队列已满的端口归 listen.accept-queue-overflow",
    ),
    cause: text(
        "SYNs arrive whose senders do not finish the handshake. From many addresses: a SYN flood with forged sources. From one address or one load balancer: our SYN-ACKs, or its final ACKs, do not arrive (asymmetric routing, a firewall that saw only one direction).",
        "收到的 SYN 没有完成握手。来源很多：伪造源地址的 SYN 洪泛。来自一个地址或一个负载均衡器：我们的 SYN-ACK 或对方最后的 ACK 没有到达（非对称路由、只看到单向流量的防火墙）。",
    ),
    fix: &[
        text(
            "keep tcp_syncookies = 1: with it real clients still get in",
            "保持 tcp_syncookies = 1：真正的客户端仍能连上",
        ),
        text(
            "raise the listener's backlog and net.core.somaxconn together: that is the SYN queue's size",
            "同时提高 listen 的 backlog 与 net.core.somaxconn：这才是 SYN 队列的大小",
        ),
        text(
            "under attack tcp_synack_retries 2 (7 s instead of 63 s), and a filter upstream",
            "受攻击时 tcp_synack_retries 设为 2（7 秒而非 63 秒），并在上游过滤",
        ),
        text(
            "from one source: check the way back (ip route get ADDRESS, rp_filter, firewall state)",
            "来源单一：检查回程（ip route get ADDRESS、rp_filter、防火墙状态）",
        ),
    ],
    myth: &[
        text(
            "tcp_max_syn_backlog: without effect while cookies are on; it is not the queue's size",
            "tcp_max_syn_backlog：开启 cookie 时无效；它不是队列的大小",
        ),
        text(
            "switching cookies off because they lose options: then SYNs are dropped instead",
            "因为丢失选项而关闭 cookie：那样 SYN 会直接被丢弃",
        ),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let half_open = case.rows(|row| row.socket.state == TcpState::NewSynRecv);
    let listeners: BTreeMap<(u64, u16), &Row> = case
        .rows(|row| row.socket.state == TcpState::Listen)
        .into_iter()
        .map(|row| ((row.netns, row.socket.local.port()), row))
        .collect();
    let mut by_port: BTreeMap<(u64, u16), Vec<&'a Row>> = BTreeMap::new();
    for row in half_open {
        by_port.entry((row.netns, row.socket.local.port())).or_default().push(row);
    }
    let cookies = case.delta("SyncookiesSent");
    let drops = case.delta("TCPReqQFullDrop");
    let pressed = cookies + drops > 0;
    let aged = |row: &&&Row| case.age_ms(row).is_some_and(|age| age >= case.limits.min_age_ms);
    let enough = case.limits.min_count.unwrap_or(PILE);
    let mut rows: Vec<&Row> = Vec::new();
    let mut evidence = Vec::new();
    let mut full_ports = 0;
    for (key, waiting) in by_port {
        let listener = listeners.get(&key);
        if listener.is_some_and(|row| row.socket.recv_q > row.socket.send_q) {
            continue;
        }
        let backlog = listener.map(|row| row.socket.send_q as usize);
        let full = backlog.is_some_and(|backlog| waiting.len() > backlog);
        let piled = pressed && waiting.len() >= enough || waiting.iter().filter(aged).count() >= enough;
        if !full && !piled {
            continue;
        }
        full_ports += usize::from(full);
        let sources = waiting.iter().map(|row| row.socket.remote.ip()).collect::<BTreeSet<_>>().len();
        let (count, port) = (waiting.len(), key.1);
        let backlog = backlog.map_or_else(|| "?".to_owned(), |backlog| backlog.to_string());
        evidence.push(says!(
            "port {port}: {count} half-open from {sources} addresses, backlog {backlog}",
            "端口 {port}：{count} 个半开连接，来自 {sources} 个地址，backlog {backlog}"
        ));
        rows.extend(waiting);
    }
    if rows.is_empty() {
        return None;
    }
    if pressed {
        let interval = crate::words::duration(case.interval_ms());
        evidence.push(says!(
            "in {interval}: {cookies} SYN cookies sent, {drops} SYNs dropped",
            "{interval} 内：发送 {cookies} 个 SYN cookie，丢弃 {drops} 个 SYN"
        ));
    }
    let severity = if full_ports > 0 || pressed { Severity::Error } else { Severity::Warning };
    Some(Found { severity, certainty: Certainty::Observed, count: rows.len() as u64, rows, evidence })
}
