//! `syn-recv-flood`: SYNs from senders that do not exist.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "syn-recv-flood",
    title: text(
        "SYNs from senders that do not answer fill the SYN queue: cookies, or drops",
        "来自不应答的发送者的 SYN 填满 SYN 队列：用 cookie 应对，或丢弃",
    ),
    rules: &["syn-recv.flood"],
    excerpts: &[],
    what: &[
        text(
            "A SYN makes the server remember a half-open connection and answer SYN-ACK. If the sender's address is forged, nobody answers; the SYN-ACK is repeated after 1, 3, 7, 15 and 31 s, and the record is kept for 63 s. Many such SYNs fill the queue.",
            "一个 SYN 使服务器记住一个半开连接并应答 SYN-ACK。如果发送者地址是伪造的，就没有人应答；SYN-ACK 在 1、3、7、15、31 秒后重发，记录保留 63 秒。大量这样的 SYN 会填满队列。",
        ),
        text(
            "This listener has a backlog of 1, so two half-open connections fit. The third SYN finds the queue full: with tcp_syncookies (the default) it is answered by a SYN-ACK whose sequence number is a signed cookie, and nothing is remembered.",
            "这个监听套接字的 backlog 为 1，可容纳两个半开连接。第三个 SYN 遇到队列已满：启用 tcp_syncookies（默认）时，应答 SYN-ACK 的序列号是一个带签名的 cookie，服务器什么也不记。",
        ),
    ],
    taught: Side::Server,
    settings: &[],
    knobs: &[
        Knob {
            name: "tcp_syncookies",
            value: "0",
            changes: true,
            effect: text(
                "the third SYN is dropped (TCPReqQFullDrop)",
                "第三个 SYN 被丢弃（TCPReqQFullDrop）",
            ),
        },
        Knob {
            name: "tcp_synack_retries",
            value: "1",
            changes: true,
            effect: text(
                "half-open connections are kept for 3 s instead of 63",
                "半开连接保留 3 秒而不是 63 秒",
            ),
        },
    ],
    on_linux: OnLinux::Short(&[("tcp_synack_retries", "1")]),
    play,
    ending: Ending {
        client: &["SYN-SENT gone"; 3],
        server: &["SYN-RECV gone", "SYN-RECV gone", ""],
        counters: &[
            (Side::Server, "TcpExtTCPReqQFullDoCookies", 1),
            (Side::Server, "TcpExtSyncookiesSent", 1),
        ],
        lasts: &[(Side::Server, 0, "SYN-RECV", 62.9, 66.0)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let _listener = stage.listen(80, 1)?;
    stage.cut(Side::Server, true);
    stage.says(text(
        "Three SYNs with forged addresses: the server's answers reach nobody, and nobody repeats the SYNs.",
        "三个地址伪造的 SYN：服务器的应答无人收到，也没有人重发 SYN。",
    ));
    for _ in 0..3 {
        let forged = stage.connect(80)?;
        stage.close(forged)?;
        stage.wait(Duration::from_millis(30))?;
    }
    let long = Duration::from_secs(if stage.is_short() { 4 } else { 70 });
    stage.wait(long)
}
