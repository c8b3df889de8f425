//! `fin-wait-2-orphan`: the server closed, the client does not: the one state that `tcp_fin_timeout` is for.

use core::time::Duration;

use lastack_core::tcp::state::TcpState;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "fin-wait-2-orphan",
    title: text(
        "the server has closed and the client has not: FIN-WAIT-2 ends after tcp_fin_timeout, without TIME-WAIT",
        "服务器已关闭而客户端没有：FIN-WAIT-2 在 tcp_fin_timeout 后结束，不经过 TIME-WAIT",
    ),
    rules: &["fin-wait-2.orphan"],
    excerpts: &[3, 8, 19],
    what: &[
        text(
            "The server's FIN is acknowledged, so its half is over (FIN-WAIT-2). Now it is the client's turn to close, and the client's program does not. Nobody at the server holds the socket any more; the kernel keeps a small record in its place.",
            "服务器的 FIN 已被确认，它那一半结束了（FIN-WAIT-2）。现在轮到客户端关闭，而客户端程序没有这样做。服务器上已无程序持有这个套接字；内核用一个小记录代替它。",
        ),
        text(
            "This is what tcp_fin_timeout bounds, and the only thing: after 60 s the record disappears. Nothing is sent, and there is no TIME-WAIT after it. When the client closes at last, its FIN meets nobody and is answered by RST.",
            "这正是 tcp_fin_timeout 所限制的，而且仅此而已：60 秒后记录消失。不发送任何报文，之后也没有 TIME-WAIT。当客户端终于关闭时，它的 FIN 已无人接收，得到的是 RST。",
        ),
        text(
            "Above 60 the knob is odd: for 60 < N the socket waits N − 60 s on a keepalive timer and then N − 60 s as a small record. 61 gives 2 s, 70 gives 20 s, 90 gives 60 s.",
            "超过 60 时这个参数很奇怪：当 N > 60，套接字先在 keepalive 定时器上等 N − 60 秒，再作为小记录等 N − 60 秒。61 得 2 秒，70 得 20 秒，90 得 60 秒。",
        ),
    ],
    taught: Side::Server,
    settings: &[],
    knobs: &[
        Knob {
            name: "tcp_fin_timeout",
            value: "3",
            changes: true,
            effect: text("FIN-WAIT-2 lasts 3 s", "FIN-WAIT-2 持续 3 秒"),
        },
        Knob {
            name: "tcp_fin_timeout",
            value: "70",
            changes: true,
            effect: text(
                "FIN-WAIT-2 lasts 10 + 10 = 20 s, not 70",
                "FIN-WAIT-2 持续 10 + 10 = 20 秒，而不是 70",
            ),
        },
        Knob {
            name: "tcp_orphan_retries",
            value: "1",
            changes: false,
            effect: text(
                "nothing: the FIN was acknowledged, nothing is repeated",
                "无作用：FIN 已被确认，没有什么要重发",
            ),
        },
    ],
    on_linux: OnLinux::Short(&[("tcp_fin_timeout", "2")]),
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB CLOSE-WAIT LAST-ACK gone"],
        server: &["SYN-RECV ESTAB FIN-WAIT-1 FIN-WAIT-2 gone"],
        counters: &[(Side::Server, "TcpOutRsts", 1)],
        lasts: &[(Side::Server, 0, "FIN-WAIT-2", 59.9, 62.0)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.wait(Duration::from_millis(100))?;
    stage.close(server)?;
    stage.until_state(server, Side::Server, Some(TcpState::FinWait2), Duration::from_secs(5))?;
    stage.read(client, 4096)?;
    stage.says(text(
        "The client's program has read the end of file and does nothing.",
        "客户端程序读到了文件结束，却什么也不做。",
    ));
    stage.until_state(server, Side::Server, None, Duration::from_secs(300))?;
    stage.wait(Duration::from_millis(500))?;
    stage.says(text("Now the client closes.", "现在客户端才关闭。"));
    stage.close(client)?;
    stage.wait(Duration::from_millis(100))
}
