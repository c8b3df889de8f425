//! `reset.data-after-close`: aborts by linger 0, or by data that came after both sides were closed here.

use super::super::{Case, Found, Rule};
use super::reset_counts;
use crate::row::Certainty;
use crate::words::text;

pub(super) const RULE: Rule = Rule {
    id: "reset.data-after-close",
    title: text(
        "data arrives for connections that a program here has closed (or it closes with linger 0)",
        "数据到达本机程序已关闭的连接（或程序以 linger 0 关闭）",
    ),
    evidence: text(
        "TCPAbortOnData: at least 5 a second between two snapshots (a warning), or at least 20 and 5 % of all connections since the namespace began (an information)",
        "TCPAbortOnData：两次快照之间每秒至少 5 次（警告），或自命名空间创建以来至少 20 次且占全部连接的 5 %（信息）",
    ),
    cause: text(
        "Two causes share this counter. The peer goes on sending after a full close here: the kernel answers RST, because nobody can read it. Or the program sets SO_LINGER with zero seconds, which makes every close an abort.",
        "两种原因共用该计数器。本端完全关闭后对端仍在发送：没有人能读取，内核以 RST 应答。或者程序设置了零秒的 SO_LINGER，使每次 close 都成为中止。",
    ),
    fix: &[
        text(
            "close only the writing side (shutdown(SHUT_WR)) while the peer may still send",
            "对端可能还会发送时，只关闭写方向（shutdown(SHUT_WR)）",
        ),
        text("agree in the protocol on who speaks last", "在协议中约定由谁最后发言"),
        text("remove SO_LINGER 0 unless losing data is meant", "除非有意丢弃数据，否则去掉 SO_LINGER 0"),
    ],
    myth: &[
        text(
            "close means \"send FIN\": it also says that nothing will be read any more",
            "close 就是“发 FIN”：它同时表示不会再读任何数据",
        ),
        text(
            "SO_LINGER 0 as a cure for TIME-WAIT: it trades waiting for lost data",
            "用 SO_LINGER 0 治 TIME-WAIT：以丢数据换等待",
        ),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let (now, total) = (case.delta("TCPAbortOnData"), case.total("TCPAbortOnData"));
    reset_counts::found(case, now, total, Certainty::Observed, Vec::new)
}
