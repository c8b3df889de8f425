//! `established.dead-peer`: open for us, but the other end does not answer any more.

use lastack_core::observe::TimerKind;
use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, PILE, Rule, Severity, model, repeats, send_q, sum, timer};
use crate::row::Certainty;
use crate::words::{bytes, duration, says, text};

/// Fewer repeats than this is ordinary loss.
const REPEATS: u8 = 3;

pub(super) const RULE: Rule = Rule {
    id: "established.dead-peer",
    title: text(
        "open connections whose peer does not answer any more (half-open)",
        "连接仍开着，但对端不再应答（半开连接）",
    ),
    evidence: text(
        "ESTAB or CLOSE-WAIT with the retransmission timer at its third repeat or later, at least 20 sockets for at least 10 s",
        "重传定时器已至少重复 3 次的 ESTAB 或 CLOSE-WAIT，至少 20 个、持续至少 10 秒",
    ),
    cause: text(
        "The peer's host crashed or was cut off, or a NAT or firewall forgot the connection and drops its segments silently. Nobody sent FIN or RST. Data is repeated with doubling pauses until tcp_retries2 says ETIMEDOUT, about 15 minutes after the first repeat. Idle connections to the same peers are dead too, and nothing shows it until they are written to.",
        "对端主机崩溃或断网，或 NAT、防火墙忘记了该连接并静默丢弃报文。没有人发送 FIN 或 RST。数据以倍增的间隔重传，直到 tcp_retries2 报 ETIMEDOUT，约在首次重传 15 分钟后。到同一对端的空闲连接也已死亡，但在写入之前看不出来。",
    ),
    fix: &[
        text(
            "TCP_USER_TIMEOUT in the program: an end after seconds instead of 15 minutes",
            "程序中设置 TCP_USER_TIMEOUT：几秒而不是 15 分钟后结束",
        ),
        text(
            "SO_KEEPALIVE with TCP_KEEPIDLE, or a heartbeat of the protocol, to notice idle dead ones",
            "SO_KEEPALIVE 加 TCP_KEEPIDLE，或协议心跳，以发现空闲的死连接",
        ),
        text(
            "if all peers are behind one device: its idle time-out is shorter than the connections are idle",
            "若所有对端都在同一设备之后：其空闲超时短于连接的空闲时间",
        ),
    ],
    myth: &[
        text(
            "keepalive alone: sends nothing while data is unacknowledged",
            "只靠 keepalive：有未确认数据时它什么也不发",
        ),
        text("tcp_fin_timeout: nobody has sent a FIN", "tcp_fin_timeout：没有人发送过 FIN"),
        text(
            "tcp_retries2 is not a number of repeats but an exponent: 8 gives 102 s, 15 gives 924 s",
            "tcp_retries2 不是重传次数而是指数：8 为 102 秒，15 为 924 秒",
        ),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let rows = case.pile(PILE, |row| {
        matches!(row.socket.state, TcpState::Established | TcpState::CloseWait)
            && timer(row) == Some(TimerKind::On)
            && repeats(row) >= REPEATS
    })?;
    let count = rows.len();
    let (oldest, stuck) = (case.oldest(&rows), bytes(sum(&rows, send_q)));
    let retries = case.knob_or(&rows, "tcp_retries2", 15);
    let life = duration(model::retries2_ms(retries.value, model::RTO_MAX_MS));
    let evidence = vec![says!(
        "{count} sockets repeat unanswered for at least {oldest}, {stuck} unacknowledged; given up after at least {life} (tcp_retries2 = {retries})",
        "{count} 个套接字重传无应答，至少已 {oldest}，{stuck} 未确认；至少 {life} 后放弃（tcp_retries2 = {retries}）"
    )];
    Some(Found {
        severity: Severity::Warning,
        certainty: Certainty::Observed,
        count: count as u64,
        rows,
        evidence,
    })
}
