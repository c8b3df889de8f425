//! `last-ack.silent-peer`: both have closed, and nobody acknowledges our FIN.

use lastack_core::observe::TimerKind;
use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, PILE, Rule, Severity, model, repeats, timer};
use crate::row::Certainty;
use crate::words::{duration, says, text};

/// Fewer repeats than this is ordinary loss.
const REPEATS: u8 = 3;

pub(super) const RULE: Rule = Rule {
    id: "last-ack.silent-peer",
    title: text(
        "both sides have closed, but nobody acknowledges our FIN",
        "双方都已关闭，但没有人确认我们的 FIN",
    ),
    evidence: text(
        "LAST-ACK with the retransmission timer at its third repeat or later, at least 20 sockets for at least 10 s",
        "重传定时器已至少重复 3 次的 LAST-ACK，至少 20 个、持续至少 10 秒",
    ),
    cause: text(
        "The peer closed first and has gone since: its host was switched off, its NAT entry expired, or its TIME-WAIT is over and a firewall drops the RST that would end ours. Each gives up after about 105 s.",
        "对端先关闭，此后消失：主机关机、NAT 表项过期，或其 TIME-WAIT 已结束而防火墙丢弃了本可结束本端的 RST。每个大约 105 秒后放弃。",
    ),
    fix: &[
        text(
            "look for a firewall between that drops \"invalid\" segments, and for NAT time-outs shorter than the connections' idle time",
            "检查中间是否有防火墙丢弃“无效”报文，以及短于连接空闲时间的 NAT 超时",
        ),
        text("if the memory hurts: tcp_orphan_retries 3 or 4", "若内存吃紧：tcp_orphan_retries 设为 3 或 4"),
        text("otherwise wait: they clear themselves", "否则等待：它们会自行清除"),
    ],
    myth: &[text(
        "tcp_fin_timeout and tcp_tw_*: neither applies to LAST-ACK",
        "tcp_fin_timeout 与 tcp_tw_*：都不适用于 LAST-ACK",
    )],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let rows = case.pile(PILE, |row| {
        row.socket.state == TcpState::LastAck && timer(row) == Some(TimerKind::On) && repeats(row) >= REPEATS
    })?;
    let count = rows.len();
    let oldest = case.oldest(&rows);
    let most = rows.iter().map(|row| repeats(row)).max().unwrap_or(0);
    let retries = case.knob_or(&rows, "tcp_orphan_retries", 0);
    let life = duration(model::orphan_silent_ms(retries.value, model::RTO_MAX_MS));
    let evidence = vec![says!(
        "{count} sockets repeat their FIN, up to {most} times, for at least {oldest}; given up after at least {life}",
        "{count} 个套接字在重传 FIN，最多 {most} 次，至少已 {oldest}；至少 {life} 后放弃"
    )];
    Some(Found {
        severity: Severity::Warning,
        certainty: Certainty::Observed,
        count: count as u64,
        rows,
        evidence,
    })
}
