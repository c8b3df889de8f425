//! `reset.unread-data`: programs close with data unread, so the kernel sends RST instead of FIN.

use super::super::{Case, Found, Rule};
use super::reset_counts;
use crate::row::Certainty;
use crate::words::text;

pub(super) const RULE: Rule = Rule {
    id: "reset.unread-data",
    title: text(
        "a program here closes with data unread: its peers get RST instead of FIN",
        "本机程序在仍有未读数据时关闭：对端收到 RST 而不是 FIN",
    ),
    evidence: text(
        "TCPAbortOnClose: at least 5 a second between two snapshots (a warning), or at least 20 and 5 % of all connections since the namespace began (an information)",
        "TCPAbortOnClose：两次快照之间每秒至少 5 次（警告），或自命名空间创建以来至少 20 次且占全部连接的 5 %（信息）",
    ),
    cause: text(
        "close with bytes in the receive queue is an abort (RFC 2525 2.17): the peer is to know that they were not read. The peer loses what it has not read yet, too: a server that answers an upload with an error and closes loses that answer.",
        "接收队列里还有字节时 close 等于中止（RFC 2525 2.17）：要让对端知道数据未被读取。对端也会丢失它尚未读取的内容：服务器对上传返回错误后立即关闭，这个错误应答就会丢失。",
    ),
    fix: &[
        text(
            "in the program: shutdown(SHUT_WR), read until end of file or a time-out, then close (\"lingering close\")",
            "在程序中：shutdown(SHUT_WR)，读到文件结束或超时，再 close（“延迟关闭”）",
        ),
        text("read the request to its end before answering with an error", "在返回错误之前先把请求读完"),
    ],
    myth: &[
        text(
            "SO_LINGER with a time: does not change what close does with unread data",
            "带时间的 SO_LINGER：不改变 close 对未读数据的处理",
        ),
        text("any sysctl: there is none for this", "任何 sysctl：没有对应的开关"),
    ],
    check,
};

fn check<'a>(case: &Case<'a>) -> Option<Found<'a>> {
    let (now, total) = (case.delta("TCPAbortOnClose"), case.total("TCPAbortOnClose"));
    reset_counts::found(case, now, total, Certainty::Observed, Vec::new)
}
