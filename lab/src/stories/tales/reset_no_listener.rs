//! `reset-no-listener`: nobody listens on that port.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "reset-no-listener",
    title: text(
        "nobody listens: the SYN is answered by RST, connect() fails at once",
        "没有监听者：SYN 得到 RST，connect() 立即失败",
    ),
    rules: &["reset.no-listener"],
    excerpts: &[10, 14],
    what: &[text(
        "The client connects to port 81, where no program listens. The server's kernel finds no socket for the SYN and answers RST with an ACK of it, so that the client can tell that the answer is for its SYN. connect() fails one round trip later with ECONNREFUSED. The tracepoint tcp:tcp_send_reset tells it at the server, with the reason NO_SOCKET.",
        "客户端连接 81 端口，那里没有程序监听。服务器内核为这个 SYN 找不到套接字，便应答 RST 并带上对它的确认，使客户端知道这是对自己 SYN 的回答。一个往返之后 connect() 以 ECONNREFUSED 失败。在服务器上，tracepoint tcp:tcp_send_reset 会报告它，原因是 NO_SOCKET。",
    )],
    taught: Side::Server,
    settings: &[],
    knobs: &[],
    on_linux: OnLinux::AsItIs,
    play,
    ending: Ending {
        client: &["SYN-SENT gone"],
        server: &[""],
        errors: &[(Side::Client, "connect ECONNREFUSED")],
        counters: &[(Side::Server, "TcpOutRsts", 1), (Side::Client, "TcpAttemptFails", 1)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let _listener = stage.listen(80, 128)?;
    let client = stage.connect(81)?;
    stage.connected(client, Duration::from_secs(5))?;
    stage.wait(Duration::from_millis(50))
}
