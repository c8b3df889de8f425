//! `reset.no-listener`: segments for ports or connections that do not exist here.

use super::super::{Case, Found, Rule};
use super::reset_counts;
use crate::row::Certainty;
use crate::words::{says, text};

pub(super) const RULE: Rule = Rule {
    id: "reset.no-listener",
    title: text(
        "segments arrive for ports or connections that do not exist here",
        "报文到达本机不存在的端口或连接",
    ),
    evidence: text(
        "RSTs sent that no abort counter explains (OutRsts less TCPAbort*, EmbryonicRsts): at least 5 a second between two snapshots (a warning), or at least 20 and 5 % of all connections since the namespace began (an information)",
        "无法由中止计数解释的 RST（OutRsts 减去 TCPAbort*、EmbryonicRsts）：两次快照之间每秒至少 5 次（警告），或自命名空间创建以来至少 20 次且占全部连接的 5 %（信息）",
    ),
    cause: text(
        "Somebody connects to a closed port (a service that is down, a health check, a scan), or uses a connection that has ended here: a pool that survived a restart, an address that moved to this host, a segment later than FIN-WAIT-2's time-out.",
        "有人连接关闭的端口（服务未运行、健康检查、扫描），或使用本端已结束的连接：重启后残留的连接池、迁移到本机的地址、晚于 FIN-WAIT-2 超时的报文。",
    ),
    fix: &[
        text(
            "find who: lastack trace shows each with its reason and address (tcp_send_reset, NO_SOCKET)",
            "查明来源：lastack trace 会显示每一次的原因和地址（tcp_send_reset，NO_SOCKET）",
        ),
        text("let the client's idle time-out be shorter than the server's", "让客户端的空闲超时短于服务端"),
        text(
            "start the service, or take this host out of the balancer",
            "启动服务，或把本机从负载均衡中移除",
        ),
    ],
    myth: &[text(
        "dropping instead of refusing makes it safer: clients then wait two minutes",
        "用丢弃代替拒绝更安全：客户端会因此等待两分钟",
    )],
    check,
};

/// Counters of RSTs that are no answer to a stranger.
const EXPLAINED: [&str; 4] = ["TCPAbortOnClose", "TCPAbortOnData", "TCPAbortOnLinger", "EmbryonicRsts"];

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let strangers =
        |of: &dyn Fn(&str) -> u64| of("OutRsts").saturating_sub(EXPLAINED.iter().map(|name| of(name)).sum());
    let now = strangers(&|name| case.delta(name));
    let total = strangers(&|name| case.total(name));
    reset_counts::found(case, now, total, Certainty::Inferred, || {
        let sent = case.total("OutRsts");
        vec![says!("{sent} RSTs sent in all (OutRsts)", "总共发送 {sent} 个 RST（OutRsts）")]
    })
}
