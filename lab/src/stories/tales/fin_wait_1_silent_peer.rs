//! `fin-wait-1-silent-peer`: the server closes after the client's host vanished.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "fin-wait-1-silent-peer",
    title: text(
        "the client's host vanished: the server's FIN is repeated until the kernel gives up",
        "客户端主机消失：服务器的 FIN 一再重发，直到内核放弃",
    ),
    rules: &["fin-wait-1.silent-peer"],
    excerpts: &[16],
    what: &[
        text(
            "The client's host loses power, or its network. Nobody tells the server. When the server's program closes, its kernel sends a FIN, and there is no answer.",
            "客户端主机断电或断网，没有人通知服务器。服务器程序关闭时，它的内核发出 FIN，却得不到应答。",
        ),
        text(
            "The FIN is repeated like lost data, twice as long apart each time. An owned socket would be kept for 15 minutes (tcp_retries2); an orphan for 8 doublings of 200 ms, some 104 s (tcp_orphan_retries = 0 means 8). Then it is dropped without a word on the wire.",
            "FIN 像丢失的数据一样重发，间隔每次加倍。仍被程序持有的套接字会保留 15 分钟（tcp_retries2）；孤儿则是 200 毫秒的 8 次加倍，约 104 秒（tcp_orphan_retries = 0 表示 8）。然后它被无声地丢弃。",
        ),
    ],
    taught: Side::Server,
    settings: &[],
    knobs: &[
        Knob {
            name: "tcp_orphan_retries",
            value: "3",
            changes: true,
            effect: text("FIN-WAIT-1 lasts some 6 s instead of 104", "FIN-WAIT-1 约 6 秒，而不是 104 秒"),
        },
        Knob {
            name: "tcp_fin_timeout",
            value: "3",
            changes: false,
            effect: text(
                "nothing: it bounds FIN-WAIT-2, and the FIN was never acknowledged",
                "无作用：它限制 FIN-WAIT-2，而这里 FIN 从未被确认",
            ),
        },
    ],
    on_linux: OnLinux::Short(&[("tcp_orphan_retries", "1")]),
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB"],
        server: &["SYN-RECV ESTAB FIN-WAIT-1 gone"],
        counters: &[(Side::Server, "TcpExtTCPAbortOnTimeout", 1)],
        // To the firing of the ninth RTO of 0.2 s and a round trip, each of them up to an eighth late (Linux's wheel).
        lasts: &[(Side::Server, 0, "FIN-WAIT-1", 102.2, 123.0)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (_client, server) = stage.establish(80)?;
    stage.wait(Duration::from_millis(100))?;
    stage.vanish();
    stage.says(text(
        "The client's host vanishes. Nothing arrives in either direction any more.",
        "客户端主机消失。两个方向都不再有任何报文到达。",
    ));
    stage.close(server)?;
    stage.until_state(server, Side::Server, None, Duration::from_secs(300))?;
    stage.wait(Duration::from_millis(50))
}
