//! `fin-wait-2.owned`: half-closed here, and the program still holds the socket: nothing ends it.

use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, PILE, Rule, Severity};
use crate::row::Certainty;
use crate::words::{says, text};

pub(super) const RULE: Rule = Rule {
    id: "fin-wait-2.owned",
    title: text(
        "half-closed here and still held by a program: no time-out applies",
        "本端已半关闭但仍被程序持有：没有任何超时会生效",
    ),
    evidence: text(
        "FIN-WAIT-2 with an open descriptor, no segment from the peer for at least 10 s, at least 20 sockets",
        "有打开的描述符、至少 10 秒没有收到对端报文的 FIN-WAIT-2，至少 20 个",
    ),
    cause: text(
        "The program called shutdown(SHUT_WR) and waits for the peer's end of file, which does not come. While a descriptor is open the kernel keeps FIN-WAIT-2 for ever: tcp_fin_timeout starts at close, not at shutdown.",
        "程序调用了 shutdown(SHUT_WR) 并等待对端的文件结束，但一直等不到。只要描述符打开，内核会永远保留 FIN-WAIT-2：tcp_fin_timeout 从 close 开始计时，而不是从 shutdown。",
    ),
    fix: &[
        text(
            "give the read after shutdown a time-out in the program, and close when it passes",
            "在程序里为 shutdown 之后的读取设置超时，到时就 close",
        ),
        text(
            "SO_KEEPALIVE ends those whose peer host has gone; it does not help when the peer is merely idle",
            "SO_KEEPALIVE 能结束对端主机已消失的连接；若对端只是空闲则无效",
        ),
        text(
            "end them now: lastack kill --dry-run state fin-wait-2 not orphan",
            "立即结束：lastack kill --dry-run state fin-wait-2 not orphan",
        ),
    ],
    myth: &[
        text(
            "tcp_fin_timeout: 200 s observed with the knob at 3, unchanged, until the program closed",
            "tcp_fin_timeout：设为 3 时实测 200 秒仍不变，直到程序 close",
        ),
        text(
            "tcp_max_tw_buckets: these are full sockets, not mini ones",
            "tcp_max_tw_buckets：这些是完整套接字，不是精简记录",
        ),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let rows =
        case.pile(PILE, |row| row.socket.state == TcpState::FinWait2 && !row.socket.orphan && row.is_held())?;
    let count = rows.len();
    let oldest = case.oldest(&rows);
    let unread = super::super::sum(&rows, |row| row.socket.recv_q.into());
    let mut evidence = vec![says!(
        "{count} sockets with an open descriptor, silent for at least {oldest}",
        "{count} 个有打开描述符的套接字，至少已静默 {oldest}"
    )];
    if unread > 0 {
        evidence.push(says!(
            "{unread} bytes from the peers lie unread: the program does not read either",
            "对端发来的 {unread} 字节未被读取：程序也没有在读"
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
