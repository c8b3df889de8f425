//! `fin-wait-1.silent-peer`: the FIN was sent and nobody acknowledges it.

use lastack_core::observe::TimerKind;
use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, PILE, Rule, Severity, model, repeats, send_q, sum, timer};
use crate::row::Certainty;
use crate::words::{bytes, duration, says, text};

/// Fewer repeats than this is ordinary loss.
const REPEATS: u8 = 3;

pub(super) const RULE: Rule = Rule {
    id: "fin-wait-1.silent-peer",
    title: text(
        "closed here, the FIN was sent, and the peer answers nothing",
        "本端已关闭且已发出 FIN，对端毫无应答",
    ),
    evidence: text(
        "FIN-WAIT-1 or CLOSING with the retransmission timer at its third repeat or later, at least 20 sockets for at least 10 s",
        "处于 FIN-WAIT-1 或 CLOSING、重传定时器已至少重复 3 次的套接字，至少 20 个、持续至少 10 秒",
    ),
    cause: text(
        "The peer's host is gone, or something on the path (a NAT or firewall that forgot the connection, a lost route) drops our segments or its answers. An orphan is given up after tcp_orphan_retries (0, the default, means 8: about 105 s), a socket that a program holds after tcp_retries2 (about 15 minutes).",
        "对端主机已消失，或路径上有设备（忘记了该连接的 NAT 或防火墙、失效的路由）丢弃了我们的报文或对端的应答。孤儿按 tcp_orphan_retries 放弃（默认 0 表示 8，约 105 秒），被程序持有的按 tcp_retries2 放弃（约 15 分钟）。",
    ),
    fix: &[
        text(
            "find where the segments stop: are all peers behind one NAT or load balancer? Align its idle time-out with the application's",
            "找出报文在哪里消失：这些对端是否都在同一个 NAT 或负载均衡器之后？使其空闲超时与应用一致",
        ),
        text(
            "if the memory hurts, set tcp_orphan_retries to 3 or 4 (7 to 14 s); TCP_USER_TIMEOUT does the same for one program",
            "若内存吃紧，把 tcp_orphan_retries 设为 3 或 4（7 到 14 秒）；TCP_USER_TIMEOUT 可只对一个程序生效",
        ),
        text(
            "end them now: lastack kill --dry-run state fin-wait-1 timer = on",
            "立即结束：lastack kill --dry-run state fin-wait-1 timer = on",
        ),
    ],
    myth: &[
        text(
            "tcp_fin_timeout: proven to have no influence on FIN-WAIT-1",
            "tcp_fin_timeout：实测对 FIN-WAIT-1 没有影响",
        ),
        text(
            "tcp_retries2: does not apply once the program has closed",
            "tcp_retries2：程序关闭之后就不再适用",
        ),
        text(
            "lowering tcp_max_orphans: turns a wait into resets of innocent connections",
            "调低 tcp_max_orphans：把等待变成对无辜连接的重置",
        ),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let rows = case.pile(PILE, |row| {
        matches!(row.socket.state, TcpState::FinWait1 | TcpState::Closing)
            && timer(row) == Some(TimerKind::On)
            && repeats(row) >= REPEATS
    })?;
    let count = rows.len();
    let oldest = case.oldest(&rows);
    let stuck = bytes(sum(&rows, send_q));
    let most = rows.iter().map(|row| repeats(row)).max().unwrap_or(0);
    let orphans = rows.iter().filter(|row| row.socket.orphan).count();
    let retries = case.knob_or(&rows, "tcp_orphan_retries", 0);
    let life = duration(model::orphan_silent_ms(retries.value, model::RTO_MAX_MS));
    let evidence = vec![
        says!(
            "{count} sockets repeat their last segment, up to {most} times, for at least {oldest}; {stuck} unacknowledged (a FIN counts 1)",
            "{count} 个套接字在重传最后的报文，最多 {most} 次，至少已 {oldest}；{stuck} 未被确认（FIN 计 1）"
        ),
        says!(
            "{orphans} are orphans: given up after at least {life} (tcp_orphan_retries = {retries})",
            "{orphans} 个是孤儿：至少 {life} 后放弃（tcp_orphan_retries = {retries}）"
        ),
    ];
    Some(Found {
        severity: Severity::Warning,
        certainty: Certainty::Observed,
        count: count as u64,
        rows,
        evidence,
    })
}
