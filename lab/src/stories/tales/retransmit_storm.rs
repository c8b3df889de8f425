//! `retransmit-storm`: a path that loses every fourth segment.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "retransmit-storm",
    title: text(
        "a bad path: every fourth segment is lost, and is sent again",
        "糟糕的路径：每四个报文段丢一个，都要重发",
    ),
    rules: &["retransmit.storm"],
    excerpts: &[],
    what: &[text(
        "The network loses every fourth segment that the server sends. The client's kernel acknowledges what arrived behind a hole (SACK), so the server's kernel knows what is missing and repeats it within a round trip (fast retransmit, RACK). Only the last segments have nothing behind them: for these a probe (TLP) or the retransmission timer is needed. Everything arrives, and slowly: each loss also cuts the congestion window.",
        "网络丢弃服务器发送的每第四个报文段。客户端内核会确认缺口之后到达的内容（SACK），因此服务器内核知道缺了什么，在一个往返内重发（快速重传，RACK）。只有最后的报文段后面没有别的：它们要靠探测（TLP）或重传定时器。一切最终都会到达，只是很慢：每次丢失还会减小拥塞窗口。",
    )],
    taught: Side::Server,
    settings: &[],
    knobs: &[],
    on_linux: OnLinux::AsItIs,
    play,
    ending: Ending { client: &["SYN-SENT ESTAB"], server: &["SYN-RECV ESTAB"], ..Ending::NOTHING },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.says(text(
        "From here on every fourth segment of the server is lost.",
        "从这里起，服务器的每第四个报文段都丢失。",
    ));
    stage.lose_every(Side::Server, 4);
    stage.write(server, 30_000)?;
    stage.until(Duration::from_secs(30), |stage| stage.unread(client) >= 30_000)?;
    stage.read_all(client, Duration::from_millis(10))
}
