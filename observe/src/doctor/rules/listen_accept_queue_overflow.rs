//! `listen.accept-queue-overflow`: finished handshakes wait, and no program accepts them.

use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, Rule, Severity};
use crate::row::Certainty;
use crate::words::{says, text};

pub(super) const RULE: Rule = Rule {
    id: "listen.accept-queue-overflow",
    title: text(
        "a listener's accept queue is full: new connections are dropped",
        "监听端口的 accept 队列已满：新连接被丢弃",
    ),
    evidence: text(
        "LISTEN with more connections waiting than its backlog, or ListenOverflows counted between two snapshots; the count is of listeners",
        "等待数超过 backlog 的 LISTEN，或两次快照之间 ListenOverflows 增加；计数为监听套接字数",
    ),
    cause: text(
        "The program does not call accept fast enough (blocked event loop, too few workers, a pause), or its backlog is too small for a burst: listen(n) is silently capped by net.core.somaxconn at the time of the call. SYNs are dropped without a word, so clients see connects that take 1, 3 or 7 s, or connections that are established for them and not for us.",
        "程序调用 accept 不够快（事件循环阻塞、工作线程太少、停顿），或 backlog 对突发太小：listen(n) 在调用时被 net.core.somaxconn 静默截断。SYN 被无声丢弃，客户端会看到 1、3、7 秒的连接延迟，或在它看来已建立而在本端没有建立的连接。",
    ),
    fix: &[
        text("find what keeps the program named below from accepting", "找出下面的程序为何没有 accept"),
        text(
            "raise its listen backlog and net.core.somaxconn, then restart it: the cap is taken at listen()",
            "提高其 listen backlog 与 net.core.somaxconn，然后重启：上限在 listen() 时确定",
        ),
        text(
            "spread accepting over several sockets with SO_REUSEPORT",
            "用 SO_REUSEPORT 把 accept 分散到多个套接字",
        ),
    ],
    myth: &[
        text(
            "tcp_abort_on_overflow = 1: turns a short burst into errors at the clients",
            "tcp_abort_on_overflow = 1：把短暂突发变成客户端的错误",
        ),
        text("tcp_max_syn_backlog: is not this queue", "tcp_max_syn_backlog：不是这个队列"),
        text(
            "SYN cookies: help the SYN queue, not the accept queue",
            "SYN cookie：对 SYN 队列有用，对 accept 队列无用",
        ),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    // linux-tcp 4.1: full is `sk_ack_backlog > backlog`; backlog + 1 connections fit.
    let rows = case.rows(|row| row.socket.state == TcpState::Listen && row.socket.recv_q > row.socket.send_q);
    let overflows = case.delta("ListenOverflows");
    if rows.is_empty() && overflows == 0 {
        return None;
    }
    let mut evidence: Vec<_> = rows
        .iter()
        .take(5)
        .map(|row| {
            let (port, waiting, backlog) = (row.socket.local, row.socket.recv_q, row.socket.send_q);
            says!(
                "{port}: {waiting} connections wait, backlog {backlog}",
                "{port}：{waiting} 个连接在等待，backlog {backlog}"
            )
        })
        .collect();
    if case.before.is_some() {
        let interval = crate::words::duration(case.interval_ms());
        evidence.push(says!(
            "{overflows} refused in the last {interval}",
            "最近 {interval} 拒绝了 {overflows} 次"
        ));
    }
    let (total, cap) =
        (case.total("ListenOverflows"), case.namespaces().find_map(|n| n.number("core.somaxconn")));
    let cap = cap.map_or_else(|| "?".to_owned(), |cap| cap.to_string());
    evidence.push(says!(
        "{total} refused since this network namespace began (ListenOverflows); net.core.somaxconn = {cap}",
        "自该网络命名空间创建以来拒绝 {total} 次（ListenOverflows）；net.core.somaxconn = {cap}"
    ));
    let count = rows.len().max(1) as u64;
    Some(Found { severity: Severity::Error, certainty: Certainty::Observed, count, rows, evidence })
}
