//! `time-wait-pile`: who closes first keeps TIME-WAIT.

use core::time::Duration;

use lastack_core::tcp::state::TcpState;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "time-wait-pile",
    title: text(
        "who closes first keeps TIME-WAIT: three connections, two closed by the client and one by the server",
        "谁先关闭谁保留 TIME-WAIT：三个连接，两个由客户端先关闭，一个由服务器先关闭",
    ),
    rules: &["time-wait.pile"],
    excerpts: &[18, 20],
    what: &[
        text(
            "Whoever sends the first FIN has to remember the pair of addresses for 60 s: so that the last ACK can be repeated if it was lost, and so that a late segment does not get into the next connection of the same pair.",
            "谁先发送 FIN，谁就要把这对地址记住 60 秒：这样最后的 ACK 丢失时可以重发，迟到的报文也不会混入同一地址对的下一个连接。",
        ),
        text(
            "In the first two connections the client closes first: two TIME-WAITs at the client. In the third the server does: one at the server. The number of TIME-WAITs is 60 times the closes a second; it is a record of work done, not a disease.",
            "前两个连接由客户端先关闭：客户端有两个 TIME-WAIT。第三个由服务器先关闭：服务器有一个。TIME-WAIT 的数量等于每秒关闭数的 60 倍；它是工作的记录，不是病。",
        ),
    ],
    taught: Side::Client,
    settings: &[],
    knobs: &[
        Knob {
            name: "tcp_fin_timeout",
            value: "10",
            changes: false,
            effect: text("nothing: it is not the length of TIME-WAIT", "无作用：它不是 TIME-WAIT 的时长"),
        },
        Knob {
            name: "tcp_max_tw_buckets",
            value: "1",
            changes: true,
            effect: text(
                "the second connection ends without TIME-WAIT, and without its protection",
                "第二个连接不经过 TIME-WAIT 就结束，也就没有了它的保护",
            ),
        },
    ],
    on_linux: OnLinux::Short(&[]),
    play,
    ending: Ending {
        client: &[
            "SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT gone",
            "SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT gone",
            "SYN-SENT ESTAB CLOSE-WAIT LAST-ACK gone",
        ],
        server: &[
            "SYN-RECV ESTAB CLOSE-WAIT LAST-ACK gone",
            "SYN-RECV ESTAB CLOSE-WAIT LAST-ACK gone",
            "SYN-RECV ESTAB FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT gone",
        ],
        short_client: &[
            "SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT",
            "SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT",
            "SYN-SENT ESTAB CLOSE-WAIT LAST-ACK gone",
        ],
        short_server: &[
            "SYN-RECV ESTAB CLOSE-WAIT LAST-ACK gone",
            "SYN-RECV ESTAB CLOSE-WAIT LAST-ACK gone",
            "SYN-RECV ESTAB FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT",
        ],
        counters: &[(Side::Client, "TcpExtTW", 2), (Side::Server, "TcpExtTW", 1)],
        lasts: &[(Side::Client, 0, "TIME-WAIT", 59.9, 62.0)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let listener = stage.listen(80, 128)?;
    for side in [Side::Client, Side::Client, Side::Server] {
        let (client, server) = stage.establish_at(listener, 80)?;
        let (first, second) = if side == Side::Client { (client, server) } else { (server, client) };
        stage.close(first)?;
        stage.until_state(first, side, Some(TcpState::FinWait2), Duration::from_secs(5))?;
        stage.close(second)?;
        stage.wait(Duration::from_millis(50))?;
    }
    stage.says(text(
        "All three are closed on both sides. What remains is memory of the pairs.",
        "三个连接两端都已关闭。剩下的只是对地址对的记忆。",
    ));
    let long = Duration::from_secs(if stage.is_short() { 2 } else { 65 });
    stage.wait(long)
}
