//! `listen-accept-queue-overflow`: a program that does not accept.

use core::time::Duration;

use lastack_core::tcp::state::TcpState;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "listen-accept-queue-overflow",
    title: text(
        "the program does not accept: its queue is full, and clients wait without an error",
        "程序不 accept：队列已满，客户端没有错误地等待",
    ),
    rules: &["listen.accept-queue-overflow"],
    excerpts: &[12],
    what: &[
        text(
            "Finished connections wait in the accept queue until the program takes them. Its length is the listen() backlog (capped by somaxconn), and one more fits. Here the backlog is 1, and the program is busy.",
            "完成握手的连接在 accept 队列中等待程序取走。队列长度是 listen() 的 backlog（受 somaxconn 限制），还可以多放一个。这里 backlog 为 1，而程序正忙。",
        ),
        text(
            "Two clients get in and believe that they are served. The third client's SYN is dropped, silently: it looks like a lost packet, so the client sends it again after a second. As soon as the program accepts, there is room, and the repeated SYN gets through: the user saw one second of delay, and nobody saw an error. ListenOverflows counts it.",
            "两个客户端进入队列，以为已得到服务。第三个客户端的 SYN 被无声丢弃：看起来像丢包，所以客户端一秒后重发。程序一 accept 就有了空位，重发的 SYN 得以通过：用户看到的是一秒的延迟，没有人看到错误。ListenOverflows 记下了它。",
        ),
    ],
    taught: Side::Server,
    settings: &[],
    knobs: &[
        Knob {
            name: "tcp_abort_on_overflow",
            value: "1",
            changes: false,
            effect: text(
                "nothing for a SYN that finds the queue full: it is dropped all the same. Only a final ACK that finds it full would be answered by RST",
                "对遇到队列已满的 SYN 无作用：照样丢弃。只有遇到队列已满的最后 ACK 才会得到 RST",
            ),
        },
        Knob {
            name: "somaxconn",
            value: "0",
            changes: true,
            effect: text(
                "the queue takes one connection only: two clients wait",
                "队列只容纳一个连接：有两个客户端在等待",
            ),
        },
    ],
    on_linux: OnLinux::AsItIs,
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB"; 3],
        server: &["SYN-RECV ESTAB"; 3],
        counters: &[(Side::Server, "TcpExtListenOverflows", 1), (Side::Server, "TcpExtListenDrops", 1)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let listener = stage.listen(80, 1)?;
    stage.says(text("The server's program is busy and does not accept.", "服务器程序正忙，不 accept。"));
    for _ in 0..2 {
        stage.connect(80)?;
        stage.wait(Duration::from_millis(100))?;
    }
    let third = stage.connect(80)?;
    stage.wait(Duration::from_millis(500))?;
    stage.says(text("Now it accepts two.", "现在它 accept 了两个。"));
    for _ in 0..2 {
        stage.accept(listener)?;
    }
    stage.until_state(third, Side::Server, Some(TcpState::Established), Duration::from_secs(5))?;
    stage.accept(listener)?;
    stage.wait(Duration::from_millis(50))
}
