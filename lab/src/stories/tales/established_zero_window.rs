//! `established-zero-window`: a slow reader stops the writer; then it reads on.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "established-zero-window",
    title: text(
        "the reader pauses: window 0, probes, and on it goes when it reads again",
        "读取方停顿：窗口为 0，探测，恢复读取后继续",
    ),
    rules: &["established.zero-window"],
    excerpts: &[],
    what: &[text(
        "Flow control at work, and nothing is wrong with the network: the client's program stops reading for a while, its buffer fills, its kernel says window 0, the server's kernel probes with growing intervals. When the program reads again, the client's kernel announces the new window at once, and the data flows. A socket that a program still holds waits like this for ever, if it must.",
        "这是流量控制在起作用，网络没有任何问题：客户端程序暂停读取，缓冲区满了，内核通告窗口 0，服务器内核以递增的间隔探测。程序恢复读取时，客户端内核立即通告新窗口，数据继续流动。仍被程序持有的套接字可以这样无限等待。",
    )],
    taught: Side::Server,
    settings: &[],
    knobs: &[Knob {
        name: "tcp_retries2",
        value: "3",
        changes: false,
        effect: text(
            "nothing: probes that are answered do not count as failures",
            "无作用：得到应答的探测不算失败",
        ),
    }],
    on_linux: OnLinux::AsItIs,
    play,
    ending: Ending { client: &["SYN-SENT ESTAB"], server: &["SYN-RECV ESTAB"], ..Ending::NOTHING },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.says(text("The client's program does not read.", "客户端程序不读取。"));
    stage.write_all_it_takes(server, 16 << 20, Duration::from_millis(100))?;
    stage.wait(Duration::from_secs(3))?;
    stage.says(text("After three seconds it reads again.", "三秒后它恢复读取。"));
    stage.read_all(client, Duration::from_millis(500))
}
