//! `tw-buckets-overflow`: no room for TIME-WAIT.

use core::time::Duration;

use lastack_core::tcp::state::TcpState;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "tw-buckets-overflow",
    title: text(
        "no room for TIME-WAIT: the connection ends without it, and a lost last ACK becomes a reset",
        "没有 TIME-WAIT 的空间：连接不经过它就结束，丢失的最后 ACK 变成复位",
    ),
    rules: &["tw-buckets.overflow"],
    excerpts: &[3],
    what: &[text(
        "tcp_max_tw_buckets bounds the number of TIME-WAITs; lowering it is a popular cure for \"too many\" of them. Here it is 1. The first connection gets its TIME-WAIT, the second goes straight to the end. Its last ACK is lost on the way: the server repeats its FIN, and where a TIME-WAIT would have repeated the ACK, there is nobody, and the answer is RST.",
        "tcp_max_tw_buckets 限制 TIME-WAIT 的数量；把它调低是治疗“太多”的流行偏方。这里是 1。第一个连接得到 TIME-WAIT，第二个直接结束。它的最后一个 ACK 在路上丢失：服务器重发 FIN，本该由 TIME-WAIT 重发 ACK 的地方已没有人，回答是 RST。",
    )],
    taught: Side::Client,
    settings: &[("tcp_max_tw_buckets", "1")],
    knobs: &[Knob {
        name: "tcp_max_tw_buckets",
        value: "100",
        changes: true,
        effect: text(
            "the second connection has its TIME-WAIT, which repeats the lost ACK",
            "第二个连接也有 TIME-WAIT，它重发丢失的 ACK",
        ),
    }],
    on_linux: OnLinux::AsItIs,
    play,
    ending: Ending {
        client: &[
            "SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT",
            "SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 gone",
        ],
        server: &["SYN-RECV ESTAB CLOSE-WAIT LAST-ACK gone", "SYN-RECV ESTAB CLOSE-WAIT LAST-ACK gone"],
        counters: &[
            (Side::Client, "TcpExtTCPTimeWaitOverflow", 1),
            (Side::Client, "TcpExtTW", 1),
            (Side::Client, "TcpOutRsts", 1),
        ],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let listener = stage.listen(80, 128)?;
    for round in 0..2 {
        let (client, server) = stage.establish_at(listener, 80)?;
        stage.wait(Duration::from_millis(50))?;
        stage.shutdown_write(client)?;
        stage.until_state(client, Side::Client, Some(TcpState::FinWait2), Duration::from_secs(5))?;
        stage.wait(Duration::from_millis(50))?;
        if round == 1 {
            stage.says(text("The last ACK of this one will be lost.", "这个连接的最后一个 ACK 会丢失。"));
            stage.cut(Side::Client, true);
        }
        stage.close(server)?;
        stage.wait(Duration::from_millis(50))?;
        stage.cut(Side::Client, false);
        stage.close(client)?;
        stage.until_state(server, Side::Server, None, Duration::from_secs(5))?;
    }
    stage.wait(Duration::from_millis(50))
}
