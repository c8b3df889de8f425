//! `syn-sent.filtered`: our SYNs are not answered.

use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, PILE, Rule, Severity, model};
use crate::row::Certainty;
use crate::words::{duration, says, text};

pub(super) const RULE: Rule = Rule {
    id: "syn-sent.filtered",
    title: text("outgoing SYNs are not answered at all", "发出的 SYN 完全没有应答"),
    evidence: text(
        "SYN-SENT that has repeated its SYN, at least 20 sockets for at least 10 s",
        "已重发过 SYN 的 SYN-SENT，至少 20 个、持续至少 10 秒",
    ),
    cause: text(
        "Neither a SYN-ACK nor a refusal comes back. A closed port would answer RST at once; silence means that a firewall drops, the address does not exist, the route back is missing, or the peer's accept queue is full.",
        "既没有 SYN-ACK 也没有拒绝。关闭的端口会立即以 RST 应答；沉默意味着防火墙丢弃、地址不存在、缺少回程路由，或对端的 accept 队列已满。",
    ),
    fix: &[
        text(
            "check the path and the firewalls for the peers listed (traceroute -T -p PORT ADDRESS)",
            "检查到所列对端的路径与防火墙（traceroute -T -p PORT ADDRESS）",
        ),
        text(
            "on the peer: lastack doctor (listen.accept-queue-overflow answers nothing either)",
            "在对端运行 lastack doctor（listen.accept-queue-overflow 同样不应答）",
        ),
        text(
            "in the program: a connect time-out of its own, or TCP_USER_TIMEOUT; tcp_syn_retries for all",
            "在程序中设置 connect 超时或 TCP_USER_TIMEOUT；tcp_syn_retries 对全部生效",
        ),
    ],
    myth: &[text(
        "tcp_syn_retries = 6 means 63 s or 127 s: with four linear time-outs first it is 131 s",
        "tcp_syn_retries = 6 等于 63 秒或 127 秒：前四次线性超时使它成为 131 秒",
    )],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let rows = case.pile(PILE, |row| {
        row.socket.state == TcpState::SynSent && row.socket.timer.is_some_and(|timer| timer.retrans > 0)
    })?;
    let count = rows.len();
    let oldest = case.oldest(&rows);
    let retries = case.knob_or(&rows, "tcp_syn_retries", 6);
    // Kernels before 6.5 have no linear time-outs, and no such knob.
    let linear = case.knob_or(&rows, "tcp_syn_linear_timeouts", 0);
    let life = duration(model::syn_sent_ms(retries.value, linear.value));
    let evidence = vec![says!(
        "{count} connects wait, the oldest for at least {oldest}; each fails with ETIMEDOUT after about {life} (tcp_syn_retries = {retries})",
        "{count} 个 connect 在等待，最老的至少已 {oldest}；各自约 {life} 后以 ETIMEDOUT 失败（tcp_syn_retries = {retries}）"
    )];
    Some(Found {
        severity: Severity::Warning,
        certainty: Certainty::Observed,
        count: count as u64,
        rows,
        evidence,
    })
}
