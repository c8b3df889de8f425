//! `close-wait.leak`: the peer has closed, our program has not noticed.

use std::collections::BTreeMap;

use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, PILE, Rule, Severity};
use crate::row::Certainty;
use crate::words::{says, text};

pub(super) const RULE: Rule = Rule {
    id: "close-wait.leak",
    title: text(
        "the peers have closed; a program here holds on to the sockets",
        "对端已关闭；本机的程序仍占着这些套接字",
    ),
    evidence: text(
        "CLOSE-WAIT with an open descriptor, at least 20 sockets, the peer's FIN at least 10 s ago",
        "有打开描述符的 CLOSE-WAIT，至少 20 个，对端的 FIN 至少在 10 秒前到达",
    ),
    cause: text(
        "A bug in the program named below: it does not close after end of file. Usual forms: nobody waits for readability (EPOLLRDHUP) on an idle connection, a pool that does not check its connections, a worker that is blocked, a forked child that inherited the descriptor. CLOSE-WAIT has no timer at all.",
        "下面列出的程序有缺陷：读到文件结束后没有 close。常见形式：空闲连接上没人等待可读（EPOLLRDHUP）、连接池不检查连接、工作线程被阻塞、fork 出的子进程继承了描述符。CLOSE-WAIT 没有任何定时器。",
    ),
    fix: &[
        text(
            "fix the program: read until end of file and close; in pools, test a connection before lending it",
            "修复程序：读到文件结束就 close；连接池在借出前先检测连接",
        ),
        text("until then restart it before it runs out of descriptors", "在此之前，在描述符耗尽前重启它"),
        text(
            "end them now: lastack kill --dry-run state close-wait pid = PID (the program sees ECONNABORTED)",
            "立即结束：lastack kill --dry-run state close-wait pid = PID（程序会看到 ECONNABORTED）",
        ),
    ],
    myth: &[
        text(
            "keepalive sysctls: the peer's host is alive and answers; and only SO_KEEPALIVE sockets send any",
            "keepalive 相关 sysctl：对端主机活着并会应答；而且只有设置了 SO_KEEPALIVE 的套接字才发送",
        ),
        text("any tcp_* time-out: none applies to CLOSE-WAIT", "任何 tcp_* 超时：没有一个适用于 CLOSE-WAIT"),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let rows = case.pile(PILE, |row| row.socket.state == TcpState::CloseWait && !row.is_unaccepted())?;
    let count = rows.len();
    let oldest = case.oldest(&rows);
    let unread = rows.iter().filter(|row| row.socket.recv_q > 1).count();
    let mut evidence = vec![says!(
        "{count} sockets; the oldest has heard nothing for {oldest}",
        "{count} 个套接字；最老的已 {oldest} 没有收到任何报文"
    )];
    if unread > 0 {
        evidence.push(says!(
            "{unread} of them have unread data besides the FIN: the program does not read them at all",
            "其中 {unread} 个除 FIN 外还有未读数据：程序根本没有读取它们"
        ));
    }
    let mut by_pid: BTreeMap<u32, usize> = BTreeMap::new();
    for pid in rows.iter().filter_map(|row| row.owner.as_ref()?.pid) {
        *by_pid.entry(pid).or_default() += 1;
    }
    if let Some((pid, held)) = by_pid.into_iter().max_by_key(|(_, held)| *held)
        && let Some(limit) = descriptor_limit(pid)
    {
        let percent = held as u64 * 100 / limit.max(1);
        evidence.push(says!(
            "process {pid} spends {held} of its {limit} descriptors on them ({percent} %)",
            "进程 {pid} 的 {limit} 个描述符中有 {held} 个用在它们上（{percent} %）"
        ));
    }
    Some(Found {
        severity: Severity::Warning,
        certainty: Certainty::Observed,
        count: count as u64,
        rows,
        evidence,
    })
}

/// The soft limit of open files of a running process.
fn descriptor_limit(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
