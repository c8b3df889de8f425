//! `established-dead-peer`: an idle connection to a host that is gone; with and without SO_KEEPALIVE.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};
use crate::target::OptionValue;

pub(super) const STORY: Story = Story {
    id: "established-dead-peer",
    title: text(
        "the other host is gone: an idle connection with SO_KEEPALIVE, one without, and one with data on its way",
        "对端主机已消失：一个设置了 SO_KEEPALIVE 的空闲连接、一个没有设置的，还有一个有数据在途",
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
        text(
            "Connection #3 has something to say: its data is repeated, with intervals that double, and after a quarter of an hour its kernel gives up, too. Only who sends finds out without being told to ask.",
            "连接 #3 有话要说：数据被一再重发，间隔逐次加倍，一刻钟后内核放弃。只有发送的一方才会自己发现。",
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
            changes: true,
            effect: text(
                "#3 gives up after some seconds; the idle ones do not care: they have no data outstanding",
                "#3 几秒后就放弃；空闲的连接不受影响：它们没有未确认的数据",
            ),
        },
    ],
    on_linux: OnLinux::Short(&[
        ("tcp_keepalive_time", "1"),
        ("tcp_keepalive_intvl", "1"),
        ("tcp_keepalive_probes", "2"),
        ("tcp_retries2", "2"),
    ]),
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB", "SYN-SENT ESTAB", "SYN-SENT ESTAB"],
        server: &["SYN-RECV ESTAB gone", "SYN-RECV ESTAB", "SYN-RECV ESTAB gone"],
        errors: &[(Side::Server, "read ETIMEDOUT")],
        left: &[(Side::Server, "ESTAB", 1)],
        counters: &[(Side::Server, "TcpExtTCPAbortOnTimeout", 2)],
        lasts: &[(Side::Server, 0, "ESTAB", 7874.0, 7880.0), (Side::Server, 2, "ESTAB", 924.0, 960.0)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let listener = stage.listen(80, 128)?;
    let (_, watched) = stage.establish_at(listener, 80)?;
    stage.option(watched, "SO_KEEPALIVE", libc::SOL_SOCKET, libc::SO_KEEPALIVE, OptionValue::Int(1))?;
    stage.establish_at(listener, 80)?;
    let (_, writing) = stage.establish_at(listener, 80)?;
    stage.wait(Duration::from_millis(100))?;
    stage.vanish();
    stage.says(text("The client's host vanishes.", "客户端主机消失。"));
    stage.write(writing, 100)?;
    stage.until_state(writing, Side::Server, None, Duration::from_secs(1200))?;
    stage.until_state(watched, Side::Server, None, Duration::from_secs(9000))?;
    stage.read(watched, 4096)?;
    let long = Duration::from_secs(if stage.is_short() { 0 } else { 24 * 3600 });
    stage.wait(long + Duration::from_millis(50))
}
