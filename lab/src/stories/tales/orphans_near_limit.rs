//! `orphans-near-limit`: the kernel kills orphans when there are too many.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "orphans-near-limit",
    title: text("too many orphans: the next close() is a reset", "孤儿太多：下一个 close() 变成复位"),
    rules: &["orphans.near-limit"],
    excerpts: &[5],
    what: &[text(
        "A connection that its program has closed, but that is not over, is an orphan: only the kernel still looks after it. tcp_max_orphans bounds their number. Here it is 2, and four clients vanish before the server closes. The first two closes leave orphans that repeat their FINs; the third and fourth find the house full: their connections are reset at once, and data on its way is lost.",
        "程序已关闭但尚未结束的连接叫孤儿：只有内核还在照看它。tcp_max_orphans 限制其数量。这里设为 2，四个客户端在服务器关闭之前消失。前两次关闭留下不断重发 FIN 的孤儿；第三、第四次遇到满员：连接立即被复位，路上的数据丢失。",
    )],
    taught: Side::Server,
    settings: &[("tcp_max_orphans", "2")],
    knobs: &[
        Knob {
            name: "tcp_max_orphans",
            value: "100",
            changes: true,
            effect: text("all four become orphans", "四个都成为孤儿"),
        },
        Knob {
            name: "tcp_fin_timeout",
            value: "3",
            changes: false,
            effect: text("nothing: none of them is in FIN-WAIT-2", "无作用：没有一个处于 FIN-WAIT-2"),
        },
    ],
    on_linux: OnLinux::Never(text(
        "tcp_max_orphans is one number for the whole machine, and the lab does not touch the machine's own connections",
        "tcp_max_orphans 是整机唯一的一个数，lab 不触碰本机自己的连接",
    )),
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB"; 4],
        server: &[
            "SYN-RECV ESTAB FIN-WAIT-1",
            "SYN-RECV ESTAB FIN-WAIT-1",
            "SYN-RECV ESTAB gone",
            "SYN-RECV ESTAB gone",
        ],
        left: &[(Side::Server, "FIN-WAIT-1", 2)],
        counters: &[(Side::Server, "TcpExtTCPAbortOnMemory", 2), (Side::Server, "TcpOutRsts", 2)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let listener = stage.listen(80, 128)?;
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(stage.establish_at(listener, 80)?.1);
    }
    stage.wait(Duration::from_millis(100))?;
    stage.vanish();
    stage.says(text(
        "All four clients vanish. The server closes one after the other.",
        "四个客户端全部消失。服务器逐个关闭。",
    ));
    for server in servers {
        stage.close(server)?;
        stage.wait(Duration::from_millis(10))?;
    }
    stage.wait(Duration::from_millis(150))
}
