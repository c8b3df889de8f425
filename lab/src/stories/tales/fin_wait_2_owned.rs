//! `fin-wait-2-owned`: half-closed by a program that keeps the socket: no timer runs.

use core::time::Duration;

use lastack_core::tcp::state::TcpState;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "fin-wait-2-owned",
    title: text(
        "half-closed and held: FIN-WAIT-2 of a program that waits has no end",
        "半关闭且仍被持有：等待中的程序的 FIN-WAIT-2 没有尽头",
    ),
    rules: &["fin-wait-2.owned"],
    excerpts: &[19],
    what: &[text(
        "The server's program ends its sending direction with shutdown(SHUT_WR) and keeps the socket, to read what the client may still send. The client's program never closes. As long as a program holds the socket, no timer runs: tcp_fin_timeout is for orphans only. After an hour, nothing has changed. Only the client's FIN, a keepalive that finds the client dead, or the server's own close() will end it.",
        "服务器程序用 shutdown(SHUT_WR) 结束自己的发送方向，并保留套接字以读取客户端可能还要发送的内容。客户端程序一直不关闭。只要有程序持有套接字，就没有定时器在运行：tcp_fin_timeout 只针对孤儿。一小时后什么都没变。只有客户端的 FIN、发现客户端已死的 keepalive，或服务器自己的 close() 才能结束它。",
    )],
    taught: Side::Server,
    settings: &[],
    knobs: &[
        Knob {
            name: "tcp_fin_timeout",
            value: "3",
            changes: false,
            effect: text("nothing while a program holds the socket", "只要程序持有套接字就无作用"),
        },
        Knob {
            name: "tcp_keepalive_time",
            value: "10",
            changes: false,
            effect: text(
                "nothing: the program did not set SO_KEEPALIVE",
                "无作用：程序没有设置 SO_KEEPALIVE",
            ),
        },
    ],
    on_linux: OnLinux::Short(&[]),
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB CLOSE-WAIT"],
        server: &["SYN-RECV ESTAB FIN-WAIT-1 FIN-WAIT-2"],
        left: &[(Side::Server, "FIN-WAIT-2", 1), (Side::Client, "CLOSE-WAIT", 1)],
        lasts: &[(Side::Server, 0, "FIN-WAIT-2", 3599.0, 3601.0)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.wait(Duration::from_millis(100))?;
    stage.shutdown_write(server)?;
    stage.until_state(server, Side::Server, Some(TcpState::FinWait2), Duration::from_secs(5))?;
    stage.read(client, 4096)?;
    stage.says(text(
        "The client's program does not close. Time passes, and no timer runs anywhere.",
        "客户端程序不关闭。时间流逝，任何一端都没有定时器在运行。",
    ));
    let long = Duration::from_secs(if stage.is_short() { 3 } else { 3600 });
    stage.wait(long)
}
