//! `keepalive.longer-than-middlebox`: idle connections that a NAT or balancer may have forgotten.

use lastack_core::observe::TimerKind;
use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, PILE, Rule, Severity, timer};
use crate::row::Certainty;
use crate::words::{duration, says, text};

pub(super) const RULE: Rule = Rule {
    id: "keepalive.longer-than-middlebox",
    title: text(
        "idle connections outlive what NATs and load balancers remember",
        "空闲连接的时间超过 NAT 与负载均衡器的记忆",
    ),
    evidence: text(
        "ESTAB, not on the loopback, without traffic for longer than 350 s (--middlebox-idle), with no keepalive or one that comes later than that, at least 20 sockets",
        "非环回的 ESTAB，无流量超过 350 秒（--middlebox-idle），没有 keepalive 或 keepalive 更晚才到，至少 20 个",
    ),
    cause: text(
        "Devices on the path forget idle connections after a few minutes (350 s in a large cloud's balancer, 300 to 900 s in most NATs). Afterwards the first write goes into the void: a RST, or 15 minutes of repeats. Whether there is such a device on these paths cannot be seen from here.",
        "路径上的设备会在几分钟后忘记空闲连接（某大型云的负载均衡器为 350 秒，多数 NAT 为 300 到 900 秒）。此后第一次写入石沉大海：得到 RST，或重传 15 分钟。这些路径上是否有这样的设备，从本机看不出来。",
    ),
    fix: &[
        text(
            "SO_KEEPALIVE with TCP_KEEPIDLE below half the shortest idle time-out on the path",
            "SO_KEEPALIVE，且 TCP_KEEPIDLE 小于路径上最短空闲超时的一半",
        ),
        text(
            "heartbeats in the protocol; TCP_USER_TIMEOUT so that a write into the void ends soon",
            "协议心跳；用 TCP_USER_TIMEOUT 使写入黑洞的连接尽快结束",
        ),
    ],
    myth: &[
        text(
            "lowering tcp_keepalive_time alone: does nothing for sockets without SO_KEEPALIVE",
            "只调低 tcp_keepalive_time：对没有 SO_KEEPALIVE 的套接字毫无作用",
        ),
        text(
            "keepalive as a guard of writes: none is sent while data is unacknowledged",
            "用 keepalive 保护写入：有未确认数据时不会发送",
        ),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let limit = case.limits.middlebox_idle_ms;
    let rows = case.rows(|row| {
        let peer = row.socket.remote.ip().to_canonical();
        let late = match row.socket.timer {
            None => true,
            Some(timer) if timer.kind == TimerKind::Keepalive => u64::from(timer.expires_ms) > limit,
            Some(_) => false,
        };
        row.socket.state == TcpState::Established
            && !row.is_unaccepted()
            && !peer.is_loopback()
            && late
            && case.age_ms(row).is_some_and(|idle| idle >= limit)
    });
    if rows.len() < case.limits.min_count.unwrap_or(PILE).max(1) {
        return None;
    }
    let count = rows.len();
    let without = rows.iter().filter(|row| timer(row).is_none()).count();
    let (oldest, limit) = (case.oldest(&rows), duration(limit));
    let time = case.knob_or(&rows, "tcp_keepalive_time", 7200);
    let evidence = vec![says!(
        "{count} connections idle for longer than {limit}, the longest for {oldest}; {without} have no keepalive at all (tcp_keepalive_time = {time} would apply to those that ask for one)",
        "{count} 个连接空闲超过 {limit}，最长 {oldest}；{without} 个完全没有 keepalive（tcp_keepalive_time = {time} 只适用于启用者）"
    )];
    Some(Found {
        severity: Severity::Info,
        certainty: Certainty::Possible,
        count: count as u64,
        rows,
        evidence,
    })
}
