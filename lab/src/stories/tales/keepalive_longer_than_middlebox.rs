//! `keepalive-longer-than-middlebox`: a NAT forgets an idle connection before the keepalive speaks.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};
use crate::target::OptionValue;

pub(super) const STORY: Story = Story {
    id: "keepalive-longer-than-middlebox",
    title: text(
        "a middlebox forgets the idle connection long before the keepalive speaks",
        "中间设备早在保活探测之前就忘记了空闲连接",
    ),
    rules: &["keepalive.longer-than-middlebox"],
    excerpts: &[],
    what: &[
        text(
            "Between the two is a NAT or firewall that forgets connections idle for 5 minutes. The client's program did set SO_KEEPALIVE, but the default waits 2 hours before the first probe: by then the middlebox has long forgotten, and drops whatever comes without a word.",
            "两端之间有一个 NAT 或防火墙，会忘记空闲 5 分钟的连接。客户端程序确实设置了 SO_KEEPALIVE，但默认要等 2 小时才发送第一个探测：那时中间设备早已忘记，无声地丢弃一切。",
        ),
        text(
            "After ten minutes of silence the client's program writes. The data is repeated and repeated (tcp_retries2: 15 minutes), and only then does the program see an error. With a keepalive interval shorter than the middlebox's memory, probes keep the entry fresh, and the write arrives.",
            "沉默十分钟后客户端程序写数据。数据一再重发（tcp_retries2：约 15 分钟），程序到那时才看到错误。如果保活间隔短于中间设备的记忆，探测会刷新条目，写入就能到达。",
        ),
    ],
    taught: Side::Client,
    settings: &[],
    knobs: &[
        Knob {
            name: "tcp_keepalive_time",
            value: "240",
            changes: true,
            effect: text(
                "a probe every 4 minutes keeps the entry; the write arrives",
                "每 4 分钟一个探测保住条目；写入到达",
            ),
        },
        Knob {
            name: "tcp_retries2",
            value: "5",
            changes: true,
            effect: text(
                "the program learns it after 13 s instead of 15 minutes",
                "程序在约 13 秒后得知，而不是 15 分钟",
            ),
        },
    ],
    on_linux: OnLinux::Short(&[("tcp_retries2", "2")]),
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB gone"],
        server: &["SYN-RECV ESTAB"],
        errors: &[(Side::Client, "read ETIMEDOUT")],
        counters: &[(Side::Client, "TcpExtTCPAbortOnTimeout", 1)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let short = stage.is_short();
    let listener = stage.listen(80, 128)?;
    let client = stage.connect(80)?;
    let (client, server) = stage.accepted(listener, client)?;
    stage.option(client, "SO_KEEPALIVE", libc::SOL_SOCKET, libc::SO_KEEPALIVE, OptionValue::Int(1))?;
    stage.forget_after(if short { Duration::from_millis(500) } else { Duration::from_secs(300) });
    stage.says(text(
        "The connection is idle. Somewhere on the way it is forgotten.",
        "连接空闲。路上某处已经把它忘记。",
    ));
    stage.wait(if short { Duration::from_secs(1) } else { Duration::from_secs(600) })?;
    stage.write(client, 100)?;
    stage.until(Duration::from_secs(1200), |stage| {
        stage.state(client, Side::Client).is_none() || stage.unread(server) > 0
    })?;
    if stage.state(client, Side::Client).is_none() {
        stage.read(client, 4096)?;
    } else {
        stage.read(server, 4096)?;
    }
    stage.wait(Duration::from_millis(50))
}
