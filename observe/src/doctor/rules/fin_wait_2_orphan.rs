//! `fin-wait-2.orphan`: our FIN is acknowledged, the program is gone, the peer does not close.

use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, PILE, Rule, Severity, model};
use crate::row::Certainty;
use crate::words::{duration, says, text};

/// From here on the peers' habit is worth a warning; fewer are everyday life for a server.
const MANY: usize = 500;

pub(super) const RULE: Rule = Rule {
    id: "fin-wait-2.orphan",
    title: text(
        "closed here and acknowledged; the peers have not closed their side",
        "本端已关闭并得到确认；对端迟迟不关闭它那一侧",
    ),
    evidence: text(
        "FIN-WAIT-2 that no program holds (timer timewait, or keepalive while tcp_fin_timeout is above 60 s), at least 20 for at least 10 s; a warning from 500 on",
        "没有程序持有的 FIN-WAIT-2（timewait 定时器；tcp_fin_timeout 超过 60 秒时为 keepalive），至少 20 个、持续至少 10 秒；500 个起为警告",
    ),
    cause: text(
        "The peer's kernel got our FIN, its program has not reacted: it sits in CLOSE-WAIT there (a connection pool that does not look, a blocked worker, a leak). Here each is a record of some 250 bytes without memory for data, and vanishes after tcp_fin_timeout without TIME-WAIT. A peer that closes later gets a RST.",
        "对端内核已收到我们的 FIN，但其程序没有反应：在对端它处于 CLOSE-WAIT（连接池不检查、工作线程阻塞或泄漏）。本端每个只是约 250 字节的记录，不占数据内存，tcp_fin_timeout 后直接消失，不进入 TIME-WAIT。之后才关闭的对端会收到 RST。",
    ),
    fix: &[
        text(
            "look at the peers listed: their programs hold CLOSE-WAIT sockets towards this host; that is where the fault is",
            "查看列出的对端：它们的程序对本机持有 CLOSE-WAIT 套接字，问题在那里",
        ),
        text(
            "if this side's idle time-out closes them, let the client's be the shorter one, so that the client closes first",
            "若是本端的空闲超时在关闭它们，让客户端的空闲超时更短，由客户端先关闭",
        ),
        text(
            "usually: leave them; they cost little and end by themselves",
            "通常：不必处理；它们代价很小并会自行结束",
        ),
    ],
    myth: &[
        text(
            "tcp_fin_timeout between 61 and 89: shortens the life instead of lengthening it (61 gives 2 s)",
            "把 tcp_fin_timeout 设为 61 到 89：寿命反而变短（61 只有 2 秒）",
        ),
        text(
            "treating them as TIME-WAIT: tcp_tw_reuse never takes these over",
            "把它们当作 TIME-WAIT：tcp_tw_reuse 从不复用它们",
        ),
        text("keepalive sysctls: these sockets send none", "keepalive 相关 sysctl：这些套接字不发送保活"),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let rows = case.pile(PILE, |row| row.socket.state == TcpState::FinWait2 && row.socket.orphan)?;
    let count = rows.len();
    let oldest = case.oldest(&rows);
    let timeout = rows.first().and_then(|row| case.knob(row, "tcp_fin_timeout"));
    let mut evidence = vec![says!(
        "{count} orphans in FIN-WAIT-2, the oldest for {oldest}",
        "{count} 个 FIN-WAIT-2 孤儿，最老的已 {oldest}"
    )];
    if let Some(timeout) = timeout {
        let life = duration(model::orphan_fin_wait_2_ms(timeout));
        evidence.push(says!(
            "each lives {life} in all (tcp_fin_timeout = {timeout})",
            "每个总共存活 {life}（tcp_fin_timeout = {timeout}）"
        ));
    }
    let severity = if count >= MANY { Severity::Warning } else { Severity::Info };
    Some(Found { severity, certainty: Certainty::Observed, count: count as u64, rows, evidence })
}
