//! `reset-unread-data`: closing with data unread is a reset.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "reset-unread-data",
    title: text(
        "the server closes with the request half read: RST instead of FIN, and the answer is lost",
        "服务器没读完请求就关闭：发送 RST 而不是 FIN，应答丢失",
    ),
    rules: &["reset.unread-data"],
    excerpts: &[2, 11],
    what: &[
        text(
            "The client sends a request. The server reads the first part of it, knows enough, writes its answer (an error page, say) and closes. Nothing looks wrong in this program.",
            "客户端发送请求。服务器读了前一部分，觉得够了，写出应答（比如一个错误页）然后关闭。这个程序看起来毫无问题。",
        ),
        text(
            "But there are bytes in its receive buffer that nobody will ever read, and close() with unread data sends RST, not FIN (RFC 2525 2.17): the client must not believe that its request was read. The RST makes the client's kernel throw away what it had received and not yet given to its program. So the answer may be lost, and the client sees ECONNRESET.",
            "但它的接收缓冲区里还有永远不会被读取的字节，而带着未读数据的 close() 发送的是 RST 而不是 FIN（RFC 2525 2.17）：不能让客户端以为它的请求已被读取。RST 使客户端内核进入错误状态，应答可能因此丢失，客户端看到 ECONNRESET。",
        ),
    ],
    taught: Side::Server,
    settings: &[],
    knobs: &[],
    on_linux: OnLinux::AsItIs,
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB gone"],
        server: &["SYN-RECV ESTAB gone"],
        errors: &[(Side::Client, "read ECONNRESET"), (Side::Client, "write EPIPE")],
        counters: &[(Side::Server, "TcpExtTCPAbortOnClose", 1), (Side::Server, "TcpOutRsts", 1)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.write(client, 1000)?;
    stage.wait(Duration::from_millis(50))?;
    stage.read(server, 400)?;
    stage.says(text("400 of 1,000 bytes are read. The server closes.", "1000 字节读了 400。服务器关闭。"));
    stage.close(server)?;
    stage.wait(Duration::from_millis(50))?;
    stage.read(client, 4096)?;
    stage.write(client, 100)?;
    stage.wait(Duration::from_millis(50))
}
