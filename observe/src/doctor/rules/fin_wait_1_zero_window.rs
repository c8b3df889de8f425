//! `fin-wait-1.zero-window`: closed here, but the FIN waits behind data the peer does not take.

use lastack_core::observe::TimerKind;
use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, PILE, Rule, Severity, model, stuck, timer};
use crate::row::Certainty;
use crate::words::{duration, says, text};

pub(super) const RULE: Rule = Rule {
    id: "fin-wait-1.zero-window",
    title: text(
        "closed here, but the FIN cannot leave: the peer's receive window is zero",
        "本端已关闭，但 FIN 发不出去：对端接收窗口为零",
    ),
    evidence: text(
        "FIN-WAIT-1 with the persist timer running and unsent bytes in the send queue, at least 20 sockets for at least 10 s",
        "处于 FIN-WAIT-1、persist 定时器在运行且发送队列仍有字节的套接字，至少 20 个、持续至少 10 秒",
    ),
    cause: text(
        "The program wrote more than the peer's program reads, then closed. The state is FIN-WAIT-1 from the moment the FIN is queued, but the FIN comes after all data, and the data may not pass a closed window. While the peer's kernel answers the probes, an orphan is kept for about 5.5 minutes, a socket that a program still holds for ever.",
        "程序写出的数据超过对端程序的读取速度，随后关闭了连接。FIN 一入队状态就变为 FIN-WAIT-1，但 FIN 排在所有数据之后，而窗口关闭时数据不能发送。只要对端内核应答探测，孤儿套接字大约保留 5.5 分钟；仍被程序持有的则永远保留。",
    ),
    fix: &[
        text(
            "set TCP_USER_TIMEOUT on the listening socket (accepted ones inherit it): it ends a stalled connection after that time even when the peer answers probes",
            "在监听套接字上设置 TCP_USER_TIMEOUT（accept 出来的连接会继承）：即使对端应答探测，到时也会结束停滞的连接",
        ),
        text(
            "stop producing for a client that does not read: TCP_NOTSENT_LOWAT, a write time-out, a smaller SO_SNDBUF; for clients past the write time-out close with SO_LINGER 0",
            "不要继续为不读取的客户端产生数据：使用 TCP_NOTSENT_LOWAT、写超时或更小的 SO_SNDBUF；对超过写超时的客户端以 SO_LINGER 0 关闭",
        ),
        text(
            "end them now: lastack kill --dry-run state fin-wait-1 timer = persist",
            "立即结束它们：lastack kill --dry-run state fin-wait-1 timer = persist",
        ),
    ],
    myth: &[
        text(
            "tcp_fin_timeout: bounds orphans in FIN-WAIT-2 only, never FIN-WAIT-1",
            "tcp_fin_timeout：只限制 FIN-WAIT-2 的孤儿，对 FIN-WAIT-1 没有作用",
        ),
        text(
            "tcp_orphan_retries: counts unanswered probes, and these are answered",
            "tcp_orphan_retries：只计未被应答的探测，而这里的探测都得到了应答",
        ),
        text(
            "tcp_tw_*: these sockets are not in TIME-WAIT and never were",
            "tcp_tw_*：这些套接字不在 TIME-WAIT，也从未进入过",
        ),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let rows = case.pile(PILE, |row| {
        row.socket.state == TcpState::FinWait1
            && timer(row) == Some(TimerKind::Persist)
            && row.socket.send_q > 0
    })?;
    let count = rows.len();
    let oldest = case.oldest(&rows);
    let orphans = rows.iter().filter(|row| row.socket.orphan).count();
    let closed = rows.iter().filter(|row| row.socket.info.as_ref().is_some_and(|i| i.snd_wnd == 0)).count();
    let rto_max =
        rows.first().and_then(|row| case.knob(row, "tcp_rto_max_ms")).and_then(|v| v.try_into().ok());
    let life = duration(model::orphan_zero_window_ms(rto_max.unwrap_or(model::RTO_MAX_MS)));
    let owned = count - orphans;
    let mut evidence = vec![
        says!(
            "{count} sockets wait on the persist timer, {closed} of them with a window of exactly 0; stalled for at least {oldest}",
            "{count} 个套接字在等 persist 定时器，其中 {closed} 个窗口恰为 0；至少已停滞 {oldest}"
        ),
        stuck(&rows),
    ];
    if orphans > 0 {
        evidence.push(says!(
            "{orphans} are orphans: each ends about {life} after its first probe, if the peer keeps answering",
            "{orphans} 个是孤儿：若对端一直应答，各自在首次探测后约 {life} 结束"
        ));
    }
    if owned > 0 {
        evidence.push(says!(
            "{owned} are still held by a program (shutdown without close): nothing ends these",
            "{owned} 个仍被程序持有（只 shutdown 未 close）：没有任何超时会结束它们"
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
