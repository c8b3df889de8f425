//! `memory-pressure`: TCP's memory has a limit of its own.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "memory-pressure",
    title: text(
        "TCP's memory is full: an orphan that holds some of it is reset",
        "TCP 内存已满：占用内存的孤儿被复位",
    ),
    rules: &["memory.pressure"],
    excerpts: &[7],
    what: &[text(
        "tcp_mem bounds what all TCP buffers together may hold, in pages: below the first number all is well, above the second the stack is under pressure, and the third is the end. Here they are 4, 8 and 12 pages (48 KiB at most). A server writes to a client that does not read, until its send buffer alone holds more than that. Then it closes, and an orphan with a full buffer is more than can be borne: it is reset, and what it held is lost (TCPAbortOnMemory).",
        "tcp_mem 限制所有 TCP 缓冲区总共可占用的内存，单位是页：低于第一个数一切正常，高于第二个数进入压力状态，第三个数是极限。这里是 4、8、12 页（最多 48 KiB）。服务器向不读取的客户端写数据，直到仅它的发送缓冲区就超过这个数。然后它关闭，一个缓冲区已满的孤儿无法容忍：它被复位，所占的数据丢失（TCPAbortOnMemory）。",
    )],
    taught: Side::Server,
    settings: &[("tcp_mem", "4 8 12")],
    knobs: &[Knob {
        name: "tcp_mem",
        value: "1000 2000 3000",
        changes: true,
        effect: text("no pressure; the orphan lives on in FIN-WAIT-1", "没有压力；孤儿继续处于 FIN-WAIT-1"),
    }],
    on_linux: OnLinux::Never(text(
        "tcp_mem is one limit for the whole machine, and the lab does not touch the machine's own connections",
        "tcp_mem 是整机唯一的限制，lab 不触碰本机自己的连接",
    )),
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB gone"],
        server: &["SYN-RECV ESTAB gone"],
        counters: &[(Side::Server, "TcpExtTCPAbortOnMemory", 1), (Side::Server, "TcpOutRsts", 1)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (_client, server) = stage.establish(80)?;
    stage.says(text(
        "The client's program does not read; the server's writes.",
        "客户端程序不读取；服务器程序在写。",
    ));
    stage.write_all_it_takes(server, 1 << 20, Duration::from_millis(100))?;
    stage.close(server)?;
    stage.wait(Duration::from_secs(1))
}
