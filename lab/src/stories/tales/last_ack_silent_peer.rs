//! `last-ack-silent-peer`: the client closed and vanished; the server's FIN gets no answer.

use core::time::Duration;

use lastack_core::tcp::state::TcpState;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "last-ack-silent-peer",
    title: text(
        "the last ACK never comes: LAST-ACK is repeated until the kernel gives up",
        "最后的 ACK 始终不来：LAST-ACK 一再重发，直到内核放弃",
    ),
    rules: &["last-ack.silent-peer"],
    excerpts: &[16],
    what: &[text(
        "The client has closed, and then its host vanishes. The server's program closes too: LAST-ACK, the FIN is sent and waits for the last ACK of this connection. None comes. The same law holds as for FIN-WAIT-1: an orphan repeats for some 104 s (tcp_orphan_retries = 0 means 8 doublings) and is dropped.",
        "客户端已经关闭，随后它的主机消失。服务器程序也关闭：进入 LAST-ACK，FIN 已发出，等待这个连接的最后一个 ACK。它不会来了。规律与 FIN-WAIT-1 相同：孤儿重发约 104 秒（tcp_orphan_retries = 0 表示 8 次加倍），然后被丢弃。",
    )],
    taught: Side::Server,
    settings: &[],
    knobs: &[
        Knob {
            name: "tcp_orphan_retries",
            value: "3",
            changes: true,
            effect: text("LAST-ACK lasts some 6 s instead of 104", "LAST-ACK 约 6 秒，而不是 104 秒"),
        },
        Knob {
            name: "tcp_fin_timeout",
            value: "3",
            changes: false,
            effect: text("nothing: it is for FIN-WAIT-2", "无作用：它针对 FIN-WAIT-2"),
        },
    ],
    on_linux: OnLinux::Short(&[("tcp_orphan_retries", "1")]),
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 gone"],
        short_client: &["SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2"],
        server: &["SYN-RECV ESTAB CLOSE-WAIT LAST-ACK gone"],
        counters: &[(Side::Server, "TcpExtTCPAbortOnTimeout", 1)],
        // To the firing of the ninth RTO of 0.2 s and a round trip, each of them up to an eighth late (Linux's wheel).
        lasts: &[(Side::Server, 0, "LAST-ACK", 102.2, 123.0)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.wait(Duration::from_millis(100))?;
    stage.close(client)?;
    stage.until_state(client, Side::Client, Some(TcpState::FinWait2), Duration::from_secs(5))?;
    stage.vanish();
    stage.says(text("The client's host vanishes.", "客户端主机消失。"));
    stage.read(server, 4096)?;
    stage.close(server)?;
    stage.until_state(server, Side::Server, None, Duration::from_secs(300))?;
    stage.wait(Duration::from_millis(50))
}
