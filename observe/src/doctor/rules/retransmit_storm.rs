//! `retransmit.storm`: a large share of segments is sent again, and of which kind.

use super::super::{Case, Found, PILE, Rule, Severity};
use crate::row::Certainty;
use crate::words::{duration, says, text};

pub(super) const RULE: Rule = Rule {
    id: "retransmit.storm",
    title: text("an unusual share of segments is sent again", "重传的报文比例异常"),
    evidence: text(
        "between two snapshots RetransSegs are at least 2 % of OutSegs and at least 20",
        "两次快照之间 RetransSegs 至少为 OutSegs 的 2 %，且不少于 20",
    ),
    cause: text(
        "The counters tell the kind: mostly time-outs mean that whole flights or tails are lost (a black hole, an overloaded link, dead peers); mostly fast retransmits mean ordinary loss; about as many DSACKs as repeats mean that nothing was lost and the repeats were needless (reordering, delay spikes, a time-out set too short).",
        "计数器能说明类型：以超时为主表示整批或尾部丢失（黑洞、链路过载、对端死亡）；以快速重传为主是普通丢包；DSACK 与重传数相当则表示并未丢失、重传是多余的（乱序、时延突增、超时设得太短）。",
    ),
    fix: &[
        text(
            "time-outs: look for dead peers (established.dead-peer, syn-sent.filtered) and full queues; with large segments only, set tcp_mtu_probing = 1 or clamp the MSS",
            "超时为主：查找死亡对端（established.dead-peer、syn-sent.filtered）和拥塞队列；若只有大报文丢失，设 tcp_mtu_probing = 1 或限制 MSS",
        ),
        text(
            "fast retransmits: look at the link's error and drop counters (ip -s link, ethtool -S)",
            "快速重传为主：查看链路的错误与丢弃计数（ip -s link、ethtool -S）",
        ),
        text(
            "needless repeats: put tcp_rto_min_us and a route's rto_min back",
            "多余重传：恢复 tcp_rto_min_us 和路由的 rto_min",
        ),
    ],
    myth: &[
        text("raising tcp_retries2: repeats longer, not better", "调高 tcp_retries2：只是重传更久，不会更好"),
        text(
            "switching SACK or timestamps off: makes every repair slower",
            "关闭 SACK 或时间戳：会使每次修复更慢",
        ),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let (repeats, sent) = (case.delta("RetransSegs"), case.delta("OutSegs"));
    let all = repeats + sent;
    let enough = case.limits.min_count.unwrap_or(PILE) as u64;
    if repeats < enough || repeats * 100 < all * case.limits.retransmit_percent {
        return None;
    }
    let percent = repeats * 100 / all.max(1);
    let interval = duration(case.interval_ms());
    let (timeouts, fast) = (case.delta("TCPTimeouts"), case.delta("TCPFastRetrans"));
    let (dsacks, syns) = (case.delta("TCPDSACKRecv"), case.delta("TCPSynRetrans"));
    let rows = case
        .rows(|row| row.socket.info.as_ref().is_some_and(|info| info.retrans > 0 || info.retransmits > 0));
    let in_repair = rows.len();
    let evidence = vec![
        says!(
            "{repeats} of {all} segments in {interval} were repeats ({percent} %)",
            "{interval} 内 {all} 个报文中有 {repeats} 个是重传（{percent} %）"
        ),
        says!(
            "{timeouts} time-outs, {fast} fast retransmits, {syns} SYNs or SYN-ACKs, {dsacks} reported as needless (DSACK)",
            "超时 {timeouts} 次，快速重传 {fast} 次，SYN 或 SYN-ACK {syns} 次，被报告为多余（DSACK）{dsacks} 次"
        ),
        says!("{in_repair} sockets are repeating now", "当前有 {in_repair} 个套接字正在重传"),
    ];
    Some(Found {
        severity: Severity::Warning,
        certainty: Certainty::Observed,
        count: in_repair as u64,
        rows,
        evidence,
    })
}
