//! `orphans.near-limit`: sockets without a program come near the limit at which the kernel resets them.

use super::super::{Case, Found, Rule, Severity};
use crate::row::Certainty;
use crate::words::{says, text};

pub(super) const RULE: Rule = Rule {
    id: "orphans.near-limit",
    title: text(
        "orphaned sockets come near the limit at which the kernel resets them",
        "孤儿套接字接近内核开始重置它们的上限",
    ),
    evidence: text(
        "sockstat's orphan, a figure of the whole host, against tcp_max_orphans: from 25 % (a warning; stalled orphans are reset from there), from 80 % (an error); TCPAbortOnMemory between two snapshots",
        "sockstat 的 orphan（整台主机的数值）与 tcp_max_orphans 之比：25 % 起警告（停滞的孤儿从此开始被重置），80 % 起错误；以及两次快照之间的 TCPAbortOnMemory",
    ),
    cause: text(
        "Connections that programs have closed cannot finish: their peers do not read (fin-wait-1.zero-window) or do not answer (fin-wait-1.silent-peer, last-ack.silent-peer). The kernel counts a stalled orphan double or fourfold against the limit, and above it resets whichever asks next.",
        "程序已关闭的连接无法完成：对端不读（fin-wait-1.zero-window）或不应答（fin-wait-1.silent-peer、last-ack.silent-peer）。内核对停滞的孤儿按两倍或四倍计入上限，超过后谁先触发就重置谁。",
    ),
    fix: &[
        text("cure the cause first: see the other findings", "先消除原因：见其他发现"),
        text("then, with memory to spare, raise tcp_max_orphans", "然后，在内存充裕时调高 tcp_max_orphans"),
        text(
            "end the oldest now: lastack kill --dry-run state fin-wait-1 orphan age > 60s",
            "立即结束最老的：lastack kill --dry-run state fin-wait-1 orphan age > 60s",
        ),
    ],
    myth: &[
        text("lowering tcp_max_orphans: resets at random", "调低 tcp_max_orphans：随机重置"),
        text(
            "counting TIME-WAIT or FIN-WAIT-2 records as orphans: they are neither in this figure nor heavy",
            "把 TIME-WAIT 或 FIN-WAIT-2 记录当作孤儿：它们不在此数值中，也不占多少内存",
        ),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let orphans = case.now.host.orphans;
    let limit =
        case.host_knob("tcp_max_orphans").first().and_then(|v| u64::try_from(*v).ok()).filter(|v| *v > 0);
    let aborted = case.delta("TCPAbortOnMemory");
    let percent = limit.map_or(0, |limit| orphans * 100 / limit);
    if percent < 25 && aborted == 0 {
        return None;
    }
    let shown = limit.map_or_else(|| "?".to_owned(), |limit| limit.to_string());
    let mut evidence = vec![says!(
        "{orphans} orphans in all (a kernel counts its whole host's), limit {shown} (tcp_max_orphans): {percent} %",
        "共 {orphans} 个孤儿（内核按整台主机计数），上限 {shown}（tcp_max_orphans）：{percent} %"
    )];
    if aborted > 0 {
        evidence.push(says!(
            "{aborted} connections reset for it between the two snapshots (TCPAbortOnMemory)",
            "两次快照之间有 {aborted} 个连接因此被重置（TCPAbortOnMemory）"
        ));
    }
    let near = percent >= case.limits.near_percent;
    let severity = if near || aborted > 0 { Severity::Error } else { Severity::Warning };
    let rows = case.rows(|row| row.socket.orphan && row.uid.is_some());
    Some(Found { severity, certainty: Certainty::Observed, count: orphans, rows, evidence })
}
