//! `fin-wait-1-zero-window`: the client stops reading, the server closes, and its FIN cannot leave.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "fin-wait-1-zero-window",
    title: text(
        "the client stops reading: the server's FIN waits behind a full buffer, for minutes",
        "客户端不再读取：服务器的 FIN 排在满缓冲区之后，一等就是几分钟",
    ),
    rules: &["fin-wait-1.zero-window"],
    excerpts: &[5, 7],
    what: &[
        text(
            "A server writes an answer that the client never reads. The client's receive buffer fills, so its kernel announces a window of 0: \"send me nothing\". What the server has written since then waits in its kernel's send buffer. Then the server's program closes the socket and forgets it.",
            "服务器写出应答，客户端却从不读取。客户端的接收缓冲区满了，它的内核便通告窗口为 0：“什么都别发”。此后服务器写出的数据都留在自己内核的发送缓冲区里。然后服务器程序关闭套接字，不再管它。",
        ),
        text(
            "close() puts a FIN at the end of the send buffer, and the socket is called FIN-WAIT-1 from then on. But the FIN is behind the data, and the data may not leave. So no FIN is ever sent. The kernel only asks now and then whether the window has opened (a probe, from the persist timer), twice as long apart each time, and the client's kernel, which is alive, answers each time: still 0.",
            "close() 把 FIN 放在发送缓冲区的末尾，此后套接字的状态就叫 FIN-WAIT-1。但 FIN 排在数据之后，而数据不能发出，所以 FIN 从未真正发送。内核只是隔一阵（由 persist 定时器）探测窗口是否打开，间隔每次加倍；客户端的内核是活着的，每次都回答：仍然是 0。",
        ),
        text(
            "An orphan like this ends only when the doubled interval has reached its largest value, 120 s: after five to six minutes, depending on the round trip. All that time it holds its buffers. That is the slow-reader attack; with a hundred thousand clients it takes a server's memory.",
            "这样的孤儿套接字只有在加倍的间隔达到最大值 120 秒时才会结束：也就是五到六分钟之后，取决于往返时间。其间它一直占用缓冲区。这就是慢读攻击；十万个这样的客户端足以耗尽服务器内存。",
        ),
    ],
    taught: Side::Server,
    settings: &[],
    knobs: &[
        Knob {
            name: "tcp_fin_timeout",
            value: "3",
            changes: false,
            effect: text(
                "nothing at all: it bounds FIN-WAIT-2 of orphans, and the FIN has not even been sent",
                "毫无作用：它限制的是孤儿的 FIN-WAIT-2，而这里 FIN 还没有发出",
            ),
        },
        Knob {
            name: "tcp_orphan_retries",
            value: "3",
            changes: false,
            effect: text(
                "nothing: each answered probe sets the count of unanswered ones back to 0",
                "无作用：每次得到应答的探测都会把“未应答次数”清零",
            ),
        },
        Knob {
            name: "tcp_rto_max_ms",
            value: "1000",
            changes: true,
            effect: text(
                "the interval reaches its largest value soon: FIN-WAIT-1 lasts seconds (Linux 6.15 and later; it changes every connection's patience)",
                "间隔很快达到最大值：FIN-WAIT-1 只持续几秒（Linux 6.15 起；但它改变所有连接的耐心）",
            ),
        },
    ],
    on_linux: OnLinux::Short(&[("tcp_rto_max_ms", "1000")]),
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB"],
        server: &["SYN-RECV ESTAB FIN-WAIT-1 gone"],
        counters: &[(Side::Server, "TcpExtTCPAbortOnTimeout", 1)],
        // Ten doublings of 0.2 s and a round trip, and one of 120 s, each of them up to an eighth late (Linux's wheel).
        lasts: &[(Side::Server, 0, "FIN-WAIT-1", 324.0, 382.0)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    // Else the answer to a probe half a second after another one is withheld, which is another story.
    stage.set(Side::Client, "tcp_invalid_ratelimit", "0")?;
    let (client, server) = stage.establish(80)?;
    stage.write(client, 100)?;
    stage.wait(Duration::from_millis(80))?;
    stage.read(server, 4096)?;
    stage.says(text(
        "The client has asked and will not read. The server writes until its socket takes no more.",
        "客户端发出了请求，但不会读取应答。服务器一直写到套接字不再接受为止。",
    ));
    stage.write_all_it_takes(server, 16 << 20, Duration::from_millis(100))?;
    stage.says(text(
        "The server closes. For the program it is over; for its kernel it begins.",
        "服务器关闭。对程序来说结束了；对它的内核来说才刚开始。",
    ));
    stage.close(server)?;
    stage.until_state(server, Side::Server, None, Duration::from_secs(600))?;
    stage.wait(Duration::from_millis(50))
}
