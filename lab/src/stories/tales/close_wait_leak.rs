//! `close-wait-leak`: the client has closed, the server's program has not noticed.

use core::time::Duration;

use lastack_core::tcp::state::TcpState;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "close-wait-leak",
    title: text(
        "the client has closed and the server's program has not noticed: CLOSE-WAIT for ever",
        "客户端已关闭而服务器程序没有察觉：CLOSE-WAIT 永远存在",
    ),
    rules: &["close-wait.leak"],
    excerpts: &[19],
    what: &[
        text(
            "The client is done and closes. The server's kernel acknowledges the FIN and tells the program: the next read() will give 0, end of file. The socket is in CLOSE-WAIT: it waits for the program to close. This program is busy elsewhere, or has a bug, and never reads.",
            "客户端用完后关闭。服务器内核确认 FIN，并告知程序：下一次 read() 会返回 0，即文件结束。套接字处于 CLOSE-WAIT：等待程序关闭。而这个程序在忙别的，或者有缺陷，从不读取。",
        ),
        text(
            "No timer exists for CLOSE-WAIT, because the kernel cannot know whether the program still wants to send. The client's side gives up after tcp_fin_timeout; the server's socket, its descriptor and its memory stay until the program closes or ends.",
            "CLOSE-WAIT 没有任何定时器，因为内核无从知道程序是否还要发送。客户端一侧在 tcp_fin_timeout 后放弃；服务器的套接字、描述符和内存则一直保留，直到程序关闭它或退出。",
        ),
    ],
    taught: Side::Server,
    settings: &[],
    knobs: &[
        Knob {
            name: "tcp_fin_timeout",
            value: "3",
            changes: false,
            effect: text(
                "nothing on this side: it never applies to CLOSE-WAIT",
                "对这一端无作用：它从不适用于 CLOSE-WAIT",
            ),
        },
        Knob {
            name: "tcp_keepalive_time",
            value: "10",
            changes: false,
            effect: text(
                "nothing: only sockets with SO_KEEPALIVE send probes, and the peer's host would answer",
                "无作用：只有设置 SO_KEEPALIVE 的套接字才会探测，而且对端主机会应答",
            ),
        },
    ],
    on_linux: OnLinux::Short(&[]),
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 gone"],
        server: &["SYN-RECV ESTAB CLOSE-WAIT"],
        short_client: &["SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2"],
        left: &[(Side::Server, "CLOSE-WAIT", 1)],
        lasts: &[
            (Side::Server, 0, "CLOSE-WAIT", 3600.0, 3601.0),
            (Side::Client, 0, "FIN-WAIT-2", 59.9, 62.0),
        ],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.wait(Duration::from_millis(100))?;
    stage.close(client)?;
    stage.until_state(server, Side::Server, Some(TcpState::CloseWait), Duration::from_secs(5))?;
    stage.says(text(
        "The server's program does not read, so it does not learn of the end.",
        "服务器程序不读取，因此不知道已经结束。",
    ));
    let long = Duration::from_secs(if stage.is_short() { 3 } else { 3600 });
    stage.wait(long + Duration::from_millis(100))
}
