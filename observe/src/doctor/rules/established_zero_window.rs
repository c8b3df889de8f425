//! `established.zero-window`: an open connection stands still because the reader does not read.

use lastack_core::observe::TimerKind;
use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, PILE, Rule, Severity, stuck, sum, timer};
use crate::row::{Certainty, Row};
use crate::words::{bytes, says, text};

pub(super) const RULE: Rule = Rule {
    id: "established.zero-window",
    title: text(
        "open connections stand still: the reading side does not read",
        "已建立的连接停滞：读的一方没有在读",
    ),
    evidence: text(
        "ESTAB or CLOSE-WAIT with the persist timer and unsent bytes (we wait for the peer), or with our own window at zero (the peer waits for us), at least 20 sockets for at least 10 s",
        "有 persist 定时器和未发送字节的 ESTAB 或 CLOSE-WAIT（我们等对端），或本端窗口为零（对端等我们），至少 20 个、持续至少 10 秒",
    ),
    cause: text(
        "The receiving program reads slower than the sending one writes, or not at all; its buffer is full and its kernel says so by a window of zero. The sender asks again and again (persist) and never gives up while it is answered: RFC 1122 4.2.2.17.",
        "接收程序读得比发送方写得慢，或根本不读；缓冲区已满，其内核以零窗口告知。发送方不断探测（persist），只要得到应答就永不放弃：RFC 1122 4.2.2.17。",
    ),
    fix: &[
        text(
            "look at the reader: the peer's program, or ours where the finding says so",
            "查看读的一方：对端程序；若证据指明是本机，则查看本机程序",
        ),
        text(
            "remove SO_RCVBUF from the reader: setting it switches automatic tuning off",
            "去掉读方的 SO_RCVBUF：设置它会关闭自动调节",
        ),
        text("TCP_USER_TIMEOUT on the sender bounds the wait", "发送方设置 TCP_USER_TIMEOUT 可限定等待时间"),
    ],
    myth: &[
        text("raising tcp_wmem: only more memory is stuck", "调高 tcp_wmem：只会让更多内存被占住"),
        text("tcp_retries2: does not count answered probes", "tcp_retries2：不计得到应答的探测"),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let open = |row: &Row| matches!(row.socket.state, TcpState::Established | TcpState::CloseWait);
    let senders =
        case.pile(PILE, |row| open(row) && timer(row) == Some(TimerKind::Persist) && row.socket.send_q > 0);
    let readers = case.pile(PILE, |row| {
        open(row)
            && !row.is_unaccepted()
            && row.socket.recv_q > 0
            && row.socket.info.as_ref().is_some_and(|info| info.rcv_wnd == 0)
    });
    let mut evidence = Vec::new();
    if let Some(rows) = &senders {
        let (count, oldest) = (rows.len(), case.oldest(rows));
        evidence.push(says!(
            "{count} sockets wait for the peer's window, for at least {oldest}",
            "{count} 个套接字在等对端窗口，至少已 {oldest}"
        ));
        evidence.push(stuck(rows));
    }
    if let Some(rows) = &readers {
        let (count, unread) = (rows.len(), bytes(sum(rows, |row| row.socket.recv_q.into())));
        let who = rows
            .iter()
            .find_map(|row| row.owner.as_ref())
            .map_or_else(|| "?".to_owned(), |o| o.comm.to_string());
        evidence.push(says!(
            "{count} sockets here are the slow readers themselves: {unread} unread, our window is zero ({who})",
            "本机 {count} 个套接字自己就是慢读方：{unread} 未读，本端窗口为零（{who}）"
        ));
    }
    let rows = senders.or(readers)?;
    Some(Found {
        severity: Severity::Warning,
        certainty: Certainty::Observed,
        count: rows.len() as u64,
        rows,
        evidence,
    })
}
