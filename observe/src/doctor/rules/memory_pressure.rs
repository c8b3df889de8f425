//! `memory.pressure`: TCP's memory, of the whole host, is near its limits.

use super::super::{Case, Found, Rule, Severity};
use crate::row::{Certainty, Row};
use crate::words::{bytes, says, text};

pub(super) const RULE: Rule = Rule {
    id: "memory.pressure",
    title: text("TCP's memory is near its limit", "TCP 内存接近上限"),
    evidence: text(
        "sockstat's mem, a figure of the whole host, against tcp_mem (in pages): above the second number (a warning), above the third (an error); TCPMemoryPressures, RcvPruned and TCPRcvQDrop between two snapshots",
        "sockstat 的 mem（整台主机的数值）与 tcp_mem（单位为页）相比：超过第二个数为警告，超过第三个数为错误；以及两次快照之间的 TCPMemoryPressures、RcvPruned、TCPRcvQDrop",
    ),
    cause: text(
        "Queues hold more than the kernel wants to give to TCP. Below are the sockets with most. Above the second number windows shrink; above the third, segments are dropped and orphans reset.",
        "队列占用的内存超过内核愿意给 TCP 的量。下面列出占用最多的套接字。超过第二个数时窗口收缩；超过第三个数时丢弃报文并重置孤儿。",
    ),
    fix: &[
        text(
            "look at who does not read: established.zero-window, fin-wait-1.zero-window",
            "查看是谁没有读取：established.zero-window、fin-wait-1.zero-window",
        ),
        text(
            "cap what one connection may take: tcp_rmem[2], tcp_wmem[2]",
            "限制单个连接的占用：tcp_rmem[2]、tcp_wmem[2]",
        ),
        text(
            "with memory to spare, raise tcp_mem; it counts pages, not bytes",
            "内存充裕时调高 tcp_mem；单位是页，不是字节",
        ),
    ],
    myth: &[
        text(
            "net.core.rmem_max: limits SO_RCVBUF, not automatic tuning",
            "net.core.rmem_max：限制 SO_RCVBUF，不限制自动调节",
        ),
        text("TIME-WAIT as the culprit: 10,000 of them are 2.5 MB", "归咎于 TIME-WAIT：一万个也只有 2.5 MB"),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let host = case.now.host;
    let limits: Vec<u64> = case.host_knob("tcp_mem").iter().filter_map(|v| u64::try_from(*v).ok()).collect();
    let (pressure, most) = match limits[..] {
        [_, pressure, most] => (pressure, most),
        _ => (u64::MAX, u64::MAX),
    };
    let entered = case.delta("TCPMemoryPressures");
    let pruned = case.delta("RcvPruned") + case.delta("TCPRcvQDrop");
    let used = host.memory_pages;
    if used < pressure && entered == 0 && pruned == 0 {
        return None;
    }
    let memory = bytes(host.memory_bytes());
    let limit = if most == u64::MAX { "?".to_owned() } else { bytes(most.saturating_mul(host.page_size)) };
    let evidence = vec![
        says!(
            "{memory} in use in all ({used} pages; a kernel counts its whole host's), hard limit {limit}",
            "共使用 {memory}（{used} 页；内核按整台主机计数），硬上限 {limit}"
        ),
        says!(
            "between the two snapshots: {entered} times under pressure, {pruned} segments dropped for memory",
            "两次快照之间：进入压力状态 {entered} 次，因内存丢弃报文 {pruned} 个"
        ),
    ];
    let weight = |row: &Row| row.memory.map_or(0, |m| u64::from(m.rmem_alloc) + u64::from(m.wmem_queued));
    let mut rows = case.rows(|row| weight(row) > 0);
    rows.sort_by_key(|row| std::cmp::Reverse(weight(row)));
    let severity = if used >= most || pruned > 0 { Severity::Error } else { Severity::Warning };
    Some(Found { severity, certainty: Certainty::Observed, count: rows.len() as u64, rows, evidence })
}
