//! `time-wait.pile`: many TIME-WAITs; said mainly to tell that this is no disease.

use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, Rule, Severity};
use crate::row::Certainty;
use crate::words::{says, text};

/// Fewer than this on a busy host is everyday life.
const MANY: usize = 1000;

pub(super) const RULE: Rule = Rule {
    id: "time-wait.pile",
    title: text("many connections in TIME-WAIT: this side closed first", "大量 TIME-WAIT：由本端先关闭"),
    evidence: text(
        "TIME-WAIT, at least 1000 sockets older than 10 s (set --min-count to hear of fewer)",
        "TIME-WAIT 至少 1000 个且已超过 10 秒（可用 --min-count 降低）",
    ),
    cause: text(
        "Whoever sends the first FIN keeps the pair of addresses for 60 s, so that a late segment cannot reach the next connection and a lost last ACK can be repeated. The length is a constant of the kernel. Each costs about 250 bytes. On a server's own port they are harmless, because the clients' ports differ; they matter only where this host connects out often to one address and port (see time-wait.port-exhaustion).",
        "谁先发送 FIN，谁就把这对地址保留 60 秒，以免迟到的报文进入下一个连接，并能重发丢失的最后 ACK。这个时长是内核常量。每个约 250 字节。在服务器自己的端口上它们无害，因为客户端端口各不相同；只有当本机频繁向同一地址和端口发起连接时才有影响（见 time-wait.port-exhaustion）。",
    ),
    fix: &[
        text("usually nothing: they end by themselves", "通常什么都不用做：它们会自行结束"),
        text(
            "to have fewer, keep connections open (HTTP keep-alive, pools) or let the other side close first",
            "要减少数量，就保持连接（HTTP keep-alive、连接池），或让另一端先关闭",
        ),
    ],
    myth: &[
        text(
            "tcp_fin_timeout: does not change TIME-WAIT; measured 61.6 s with the knob at 3",
            "tcp_fin_timeout：不改变 TIME-WAIT；设为 3 时实测仍为 61.6 秒",
        ),
        text(
            "tcp_tw_recycle: was removed in Linux 4.12, and broke clients behind NAT before",
            "tcp_tw_recycle：已在 Linux 4.12 移除，之前还会破坏 NAT 后的客户端",
        ),
        text(
            "lowering tcp_max_tw_buckets: removes the protection, then late FINs are answered by RST",
            "调低 tcp_max_tw_buckets：去掉了保护，之后迟到的 FIN 会被 RST 应答",
        ),
        text(
            "tcp_tw_reuse on a server: is for outgoing connections only",
            "在服务器上设 tcp_tw_reuse：它只对主动发起的连接有效",
        ),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let rows = case.pile(MANY, |row| row.socket.state == TcpState::TimeWait)?;
    let all = case.now.rows.iter().filter(|row| row.socket.state == TcpState::TimeWait).count();
    let aged = rows.len();
    let rate = all / 60;
    let memory = crate::words::bytes(all as u64 * 256);
    let buckets = rows.first().and_then(|row| case.knob(row, "tcp_max_tw_buckets")).unwrap_or(0);
    let evidence = vec![
        says!(
            "{all} sockets in TIME-WAIT ({aged} older than the limit): some {rate} closes a second over the last minute, {memory}",
            "{all} 个套接字处于 TIME-WAIT（{aged} 个超过时限）：过去一分钟约每秒 {rate} 次关闭，占 {memory}"
        ),
        says!("room for {buckets} (tcp_max_tw_buckets)", "上限 {buckets}（tcp_max_tw_buckets）"),
    ];
    Some(Found {
        severity: Severity::Info,
        certainty: Certainty::Observed,
        count: all as u64,
        rows,
        evidence,
    })
}
