//! `tw-buckets.overflow`: no room for TIME-WAIT, so connections end without it.

use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, Rule, Severity};
use crate::row::Certainty;
use crate::words::{says, text};

pub(super) const RULE: Rule = Rule {
    id: "tw-buckets.overflow",
    title: text(
        "no room for TIME-WAIT: connections end without their protection",
        "TIME-WAIT 没有空间：连接在没有保护的情况下结束",
    ),
    evidence: text(
        "TCPTimeWaitOverflow between two snapshots, or mini sockets from 80 % of tcp_max_tw_buckets (warnings); TCPTimeWaitOverflow since the namespace began (an information)",
        "两次快照之间 TCPTimeWaitOverflow 增加，或精简套接字达到 tcp_max_tw_buckets 的 80 %（警告）；自命名空间创建以来的 TCPTimeWaitOverflow（信息）",
    ),
    cause: text(
        "tcp_max_tw_buckets was lowered, or closes come faster than its size over 60 s. A connection beyond it goes straight to CLOSE: a repeated FIN of the peer is answered by RST, and a late segment may reach the next connection of the same pair. Orphans in FIN-WAIT-2 share the room.",
        "tcp_max_tw_buckets 被调低，或关闭速度超过它在 60 秒内的容量。超出的连接直接进入 CLOSE：对端重发的 FIN 会得到 RST，迟到的报文可能进入同一地址对的下一个连接。FIN-WAIT-2 孤儿共用这块空间。",
    ),
    fix: &[
        text(
            "raise tcp_max_tw_buckets: 100,000 of them are some 25 MB",
            "调高 tcp_max_tw_buckets：十万个约 25 MB",
        ),
        text("close less often: keep connections open", "减少关闭：保持连接"),
    ],
    myth: &[text(
        "lowering tcp_max_tw_buckets \"to cure TIME-WAIT\": is what makes this finding",
        "调低 tcp_max_tw_buckets “以治疗 TIME-WAIT”：正是它造成了这个问题",
    )],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let (now, total) = (case.delta("TCPTimeWaitOverflow"), case.total("TCPTimeWaitOverflow"));
    let fullest = case
        .namespaces()
        .filter_map(|space| {
            let limit = u64::try_from(space.number("tcp_max_tw_buckets")?).ok()?;
            Some((space.timewait * 100 / limit.max(1), space.timewait, limit))
        })
        .max();
    let (percent, minis, limit) = fullest.unwrap_or((0, 0, 0));
    let near = percent >= case.limits.near_percent && minis > 0;
    if now == 0 && total == 0 && !near {
        return None;
    }
    let evidence = vec![
        says!(
            "{minis} mini sockets of at most {limit} (tcp_max_tw_buckets): {percent} %",
            "精简套接字 {minis} 个，上限 {limit}（tcp_max_tw_buckets）：{percent} %"
        ),
        says!(
            "{now} connections ended without TIME-WAIT between the two snapshots, {total} since the namespace began",
            "两次快照之间有 {now} 个连接未经 TIME-WAIT 就结束，自命名空间创建以来 {total} 个"
        ),
    ];
    let severity = if now > 0 || near { Severity::Warning } else { Severity::Info };
    let rows = case.rows(|row| row.socket.state == TcpState::TimeWait);
    Some(Found {
        severity,
        certainty: Certainty::Observed,
        count: if now > 0 { now } else { total.max(minis) },
        rows,
        evidence,
    })
}
