//! `established-dead-peer`: an idle connection to a host that is gone; with and without SO_KEEPALIVE.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};
use crate::target::OptionValue;

pub(super) const STORY: Story = Story {
    id: "established-dead-peer",
    title: text(
        "the other host is gone and nobody notices: two idle connections, one with SO_KEEPALIVE",
        "对端主机已消失却无人察觉：两个空闲连接，其中一个设置了 SO_KEEPALIVE",
    ),
    rules: &["established.dead-peer"],
    excerpts: &[19],
    what: &[
        text(
            "TCP sends nothing while there is nothing to send. If the other host vanishes during that time, the connection stays ESTAB for ever: no packet is missed, so none is found missing.",
            "没有数据要发时，TCP 什么也不发。如果对端主机在这期间消失，连接会永远停在 ESTAB：没有报文缺失，也就不会发现缺失。",
        ),
        text(
            "Connection #1 has SO_KEEPALIVE: after 2 hours of silence its kernel asks, and after 9 unanswered probes 75 s apart it tells the program ETIMEDOUT. Connection #2 has not: it is there after a day, too.",
            "连接 #1 设置了 SO_KEEPALIVE：沉默 2 小时后内核开始探测，9 次间隔 75 秒的探测都无应答后，程序得到 ETIMEDOUT。连接 #2 没有设置：一天后它仍在那里。",
        ),
    ],
    taught: Side::Server,
    settings: &[],
    knobs: &[
        Knob {
            name: "tcp_keepalive_time",
            value: "60",
            changes: true,
            effect: text(
                "#1 asks after a minute and ends after 12 minutes; #2 does not care",
                "#1 一分钟后开始探测，12 分钟后结束；#2 不受影响",
            ),
        },
        Knob {
            name: "tcp_retries2",
            value: "3",
            changes: false,
            effect: text("nothing: no data is outstanding", "无作用：没有未确认的数据"),
        },
    ],
    on_linux: OnLinux::Short(&[
        ("tcp_keepalive_time", "1"),
        ("tcp_keepalive_intvl", "1"),
        ("tcp_keepalive_probes", "2"),
    ]),
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB", "SYN-SENT ESTAB"],
        server: &["SYN-RECV ESTAB gone", "SYN-RECV ESTAB"],
        errors: &[(Side::Server, "read ETIMEDOUT")],
        left: &[(Side::Server, "ESTAB", 1)],
        counters: &[(Side::Server, "TcpExtTCPAbortOnTimeout", 1)],
        lasts: &[(Side::Server, 0, "ESTAB", 7874.0, 7880.0)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let listener = stage.listen(80, 128)?;
    let (_, watched) = stage.establish_at(listener, 80)?;
    stage.option(watched, "SO_KEEPALIVE", libc::SOL_SOCKET, libc::SO_KEEPALIVE, OptionValue::Int(1))?;
    stage.establish_at(listener, 80)?;
    stage.wait(Duration::from_millis(100))?;
    stage.vanish();
    stage.says(text("The client's host vanishes.", "客户端主机消失。"));
    stage.until_state(watched, Side::Server, None, Duration::from_secs(9000))?;
    stage.read(watched, 4096)?;
    let long = Duration::from_secs(if stage.is_short() { 0 } else { 24 * 3600 });
    stage.wait(long + Duration::from_millis(50))
}
