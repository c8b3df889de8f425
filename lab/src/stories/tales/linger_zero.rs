//! `linger-zero`: `SO_LINGER` with 0 s turns `close()` into a reset.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, OnLinux, Side, Stage, Story, Told};
use crate::target::OptionValue;

pub(super) const STORY: Story = Story {
    id: "linger-zero",
    title: text(
        "SO_LINGER 0 makes close() a reset: no TIME-WAIT, and what was on its way is lost",
        "SO_LINGER 0 使 close() 变成复位：没有 TIME-WAIT，路上的数据丢失",
    ),
    rules: &[],
    excerpts: &[2],
    what: &[text(
        "With SO_LINGER on and 0 seconds, close() throws away what is queued and sends RST. People use it to avoid TIME-WAIT. Here the server has written 200,000 bytes; the client has read nothing yet, so its buffer is full and the rest is still in the server's send buffer. The client reads what had arrived, then gets ECONNRESET; the rest never comes.",
        "SO_LINGER 打开且为 0 秒时，close() 丢弃排队的数据并发送 RST。有人用它来避免 TIME-WAIT。这里服务器写了 200000 字节；客户端还没有读取，它的缓冲区已满，其余部分仍在服务器的发送缓冲区里。客户端读出已到达的部分，然后得到 ECONNRESET；其余数据永远不会到达。",
    )],
    taught: Side::Server,
    settings: &[],
    knobs: &[],
    on_linux: OnLinux::AsItIs,
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB gone"],
        server: &["SYN-RECV ESTAB gone"],
        errors: &[(Side::Client, "read ECONNRESET")],
        counters: &[(Side::Server, "TcpExtTCPAbortOnData", 1), (Side::Server, "TcpOutRsts", 1)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.option(server, "SO_LINGER on, 0", libc::SOL_SOCKET, libc::SO_LINGER, OptionValue::Linger(1, 0))?;
    stage.write_all_it_takes(server, 200_000, Duration::from_millis(300))?;
    stage.wait(Duration::from_millis(500))?;
    stage.says(text(
        "The client's buffer is full; the rest waits at the server. The server closes.",
        "客户端的缓冲区已满；其余数据在服务器等待。服务器关闭。",
    ));
    stage.close(server)?;
    stage.wait(Duration::from_millis(50))?;
    stage.read_all(client, Duration::from_secs(1))
}
