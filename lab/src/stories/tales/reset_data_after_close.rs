//! `reset-data-after-close`: data for a socket that nobody will read any more.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "reset-data-after-close",
    title: text(
        "the client goes on sending to a server that has closed: RST, then EPIPE",
        "客户端继续向已关闭的服务器发送：先是 RST，然后 EPIPE",
    ),
    rules: &["reset.data-after-close"],
    excerpts: &[11],
    what: &[text(
        "close() is not \"send FIN\": it gives up both directions. The server has read everything and closes: FIN, a clean end so far. But the client's next data is on its way already; it may still send, that is what half-close is for, and at the server nobody is there to read. So that data is answered by RST. The client's first write succeeds (it only fills the send buffer); the second fails with EPIPE, because FIN and RST have arrived in between.",
        "close() 不是“发送 FIN”：它放弃两个方向。服务器读完所有数据后关闭：发出 FIN，到此为止是干净的结束。但客户端的下一份数据已在路上；它仍可发送，这正是半关闭的意义，而服务器上已没有人读取。于是这份数据得到 RST。客户端第一次 write 成功（只是放入发送缓冲区）；第二次以 EPIPE 失败，因为其间 FIN 和 RST 已到达。",
    )],
    taught: Side::Server,
    settings: &[],
    knobs: &[],
    on_linux: OnLinux::AsItIs,
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB CLOSE-WAIT gone"],
        server: &["SYN-RECV ESTAB FIN-WAIT-1 gone"],
        errors: &[(Side::Client, "write EPIPE")],
        counters: &[(Side::Server, "TcpExtTCPAbortOnData", 1)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.wait(Duration::from_millis(50))?;
    stage.close(server)?;
    stage.says(text("The client sends before it can know.", "客户端还来不及知道，就已发送。"));
    stage.write(client, 100)?;
    stage.wait(Duration::from_millis(50))?;
    stage.write(client, 100)?;
    stage.wait(Duration::from_millis(50))
}
