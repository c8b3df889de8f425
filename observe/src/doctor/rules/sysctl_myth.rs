//! `sysctl.myth`: a knob has been set for something it does not do.

use lastack_core::observe::TimerKind;
use lastack_core::tcp::state::TcpState;

use super::super::{Case, Found, PILE, Rule, Severity, timer};
use crate::row::{Certainty, Row};
use crate::snapshot::Namespace;
use crate::words::{Words, says, text};

pub(super) const RULE: Rule = Rule {
    id: "sysctl.myth",
    title: text("a knob has been set for something it does not do", "有参数被用于它并不具备的作用"),
    evidence: text(
        "tcp_fin_timeout, tcp_orphan_retries, tcp_max_tw_buckets, tcp_max_syn_backlog, tcp_abort_on_overflow, tcp_timestamps, tcp_keepalive_time and knobs without effect, when not at their defaults; a warning where the sockets they are believed to cure are there (at least 20), otherwise an information",
        "tcp_fin_timeout、tcp_orphan_retries、tcp_max_tw_buckets、tcp_max_syn_backlog、tcp_abort_on_overflow、tcp_timestamps、tcp_keepalive_time 以及无效的参数偏离默认值时；若据信能被其治愈的套接字确实存在（至少 20 个）为警告，否则为信息",
    ),
    cause: text(
        "Lists of sysctls are copied from article to article. Each line below names what the knob really bounds; `lastack sysctl NAME` has the whole story.",
        "sysctl 清单在文章之间相互抄袭。下面每一行说明该参数真正限制的是什么；`lastack sysctl NAME` 有完整说明。",
    ),
    fix: &[
        text(
            "put the knob back to its default (lastack sysctl NAME shows it) and cure the cause",
            "把参数恢复默认（lastack sysctl NAME 会显示），并消除真正的原因",
        ),
        text(
            "before setting one: lastack doctor --what-if NAME=VALUE",
            "设置之前：lastack doctor --what-if NAME=VALUE",
        ),
    ],
    myth: &[],
    check,
};

/// One belief: the knob, whether it is set so, which sockets it is believed to cure, and the truth.
struct Belief {
    knob: &'static str,
    is_set: fn(i64, &Namespace) -> bool,
    cures: fn(&Row) -> bool,
    truth: fn(i64, usize) -> Words,
}

const NOTHING: fn(&Row) -> bool = |_| false;

const BELIEFS: &[Belief] = &[
    Belief {
        knob: "tcp_fin_timeout",
        is_set: |value, _| value != 60,
        cures: |row| {
            matches!(row.socket.state, TcpState::TimeWait | TcpState::FinWait1)
                || row.socket.state == TcpState::FinWait2 && !row.socket.orphan
        },
        truth: |value, n| {
            says!(
                "tcp_fin_timeout = {value}: bounds orphans in FIN-WAIT-2 only. The {n} sockets in TIME-WAIT (60 s, a constant), FIN-WAIT-1 and held FIN-WAIT-2 here do not heed it",
                "tcp_fin_timeout = {value}：只限制 FIN-WAIT-2 的孤儿。这里处于 TIME-WAIT（60 秒常量）、FIN-WAIT-1 和被持有的 FIN-WAIT-2 的 {n} 个套接字不受它影响"
            )
        },
    },
    Belief {
        knob: "tcp_orphan_retries",
        is_set: |value, _| value != 0,
        cures: |row| row.socket.state == TcpState::FinWait1 && timer(row) == Some(TimerKind::Persist),
        truth: |value, n| {
            says!(
                "tcp_orphan_retries = {value}: helps against silent peers. {n} FIN-WAIT-1 here wait for a window, and their peers answer",
                "tcp_orphan_retries = {value}：只对沉默的对端有用。这里 {n} 个 FIN-WAIT-1 在等窗口，其对端会应答"
            )
        },
    },
    Belief {
        knob: "tcp_max_tw_buckets",
        is_set: |value, _| (0..4096).contains(&value),
        cures: |row| row.socket.state == TcpState::TimeWait,
        truth: |value, n| {
            says!(
                "tcp_max_tw_buckets = {value}: beyond it connections lose their TIME-WAIT instead of waiting shorter; {n} wait now",
                "tcp_max_tw_buckets = {value}：超出后连接会失去 TIME-WAIT，而不是等待更短；当前 {n} 个在等待"
            )
        },
    },
    Belief {
        knob: "tcp_max_syn_backlog",
        is_set: |value, space| value >= 65_536 && space.number("tcp_syncookies").unwrap_or(1) != 0,
        cures: |row| row.socket.state == TcpState::NewSynRecv,
        truth: |value, n| {
            says!(
                "tcp_max_syn_backlog = {value}: without effect while tcp_syncookies is on; the SYN queue is as long as listen()'s backlog ({n} half-open now)",
                "tcp_max_syn_backlog = {value}：开启 tcp_syncookies 时无效；SYN 队列长度就是 listen() 的 backlog（当前半开 {n} 个）"
            )
        },
    },
    Belief {
        knob: "tcp_abort_on_overflow",
        is_set: |value, _| value != 0,
        cures: |row| row.socket.state == TcpState::Listen && row.socket.recv_q > row.socket.send_q,
        truth: |value, n| {
            says!(
                "tcp_abort_on_overflow = {value}: makes bursts into errors at the clients; SYNs are dropped as before ({n} listeners full now)",
                "tcp_abort_on_overflow = {value}：把突发变成客户端错误；SYN 照样被丢弃（当前 {n} 个监听队列已满）"
            )
        },
    },
    Belief {
        knob: "tcp_timestamps",
        is_set: |value, space| value == 0 && space.number("tcp_tw_reuse").unwrap_or(0) != 0,
        cures: |row| row.socket.state == TcpState::TimeWait,
        truth: |value, n| {
            says!(
                "tcp_timestamps = {value}: switches tcp_tw_reuse off ({n} TIME-WAITs cannot be reused), and the protection against old segments with it",
                "tcp_timestamps = {value}：会使 tcp_tw_reuse 失效（{n} 个 TIME-WAIT 无法复用），也失去对旧报文的防护"
            )
        },
    },
    Belief {
        knob: "tcp_keepalive_time",
        is_set: |value, _| value < 7200,
        cures: |row| row.socket.state == TcpState::CloseWait,
        truth: |value, n| {
            says!(
                "tcp_keepalive_time = {value}: only for sockets with SO_KEEPALIVE, and never a cure for CLOSE-WAIT ({n} here)",
                "tcp_keepalive_time = {value}：只对设置了 SO_KEEPALIVE 的套接字有效，从来治不了 CLOSE-WAIT（这里 {n} 个）"
            )
        },
    },
    Belief {
        knob: "tcp_low_latency",
        is_set: |value, _| value != 0,
        cures: NOTHING,
        truth: |value, _| {
            says!(
                "tcp_low_latency = {value}: without effect since Linux 4.14",
                "tcp_low_latency = {value}：自 Linux 4.14 起无效"
            )
        },
    },
    Belief {
        knob: "tcp_fack",
        is_set: |value, _| value != 0,
        cures: NOTHING,
        truth: |value, _| {
            says!(
                "tcp_fack = {value}: without effect; RACK replaced it",
                "tcp_fack = {value}：无效；已被 RACK 取代"
            )
        },
    },
    Belief {
        knob: "tcp_adv_win_scale",
        is_set: |value, _| value != 1,
        cures: NOTHING,
        truth: |value, _| {
            says!(
                "tcp_adv_win_scale = {value}: without effect since Linux 6.6",
                "tcp_adv_win_scale = {value}：自 Linux 6.6 起无效"
            )
        },
    },
];

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let enough = case.limits.min_count.unwrap_or(PILE).max(1);
    let mut rows: Vec<&Row> = Vec::new();
    let mut evidence = Vec::new();
    let mut severity = Severity::Info;
    for space in case.namespaces() {
        for belief in BELIEFS {
            let Some(value) = space.number(belief.knob).filter(|value| (belief.is_set)(*value, space)) else {
                continue;
            };
            let believed = case.rows(|row| row.netns == space.inode && (belief.cures)(row));
            evidence.push((belief.truth)(value, believed.len()));
            if believed.len() >= enough {
                severity = Severity::Warning;
                rows.extend(believed);
            }
        }
    }
    if evidence.is_empty() {
        return None;
    }
    rows.sort_by_key(|row| row.socket.cookie);
    rows.dedup_by_key(|row| row.socket.cookie);
    Some(Found { severity, certainty: Certainty::Observed, count: rows.len() as u64, rows, evidence })
}
