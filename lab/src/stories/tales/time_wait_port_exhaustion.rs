//! `time-wait-port-exhaustion`: outgoing connections to one service run out of local ports.

use core::time::Duration;

use lastack_core::tcp::state::TcpState;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "time-wait-port-exhaustion",
    title: text(
        "short connections to one service use up the local ports: EADDRNOTAVAIL",
        "到同一服务的短连接用尽本地端口：EADDRNOTAVAIL",
    ),
    rules: &["time-wait.port-exhaustion"],
    excerpts: &[4, 20],
    what: &[
        text(
            "A connection is named by both addresses and both ports. Towards one address and port only the local port can differ, and each that was used and closed here first is blocked by TIME-WAIT for 60 s. This client has a range of 4 ports instead of 28,232, so that it runs out at once; with the default it takes 470 connections a second.",
            "连接由两端的地址和端口共同标识。对同一目的地址和端口，只有本地端口可变；每个用过并由本端先关闭的端口都会被 TIME-WAIT 占用 60 秒。这个客户端的端口范围只有 4 个而不是 28232 个，所以立刻耗尽；默认范围下需要每秒 470 个连接。",
        ),
        text(
            "After four connections the fifth connect() fails with EADDRNOTAVAIL. A second later it is tried again: with tcp_tw_reuse = 1 (and timestamps) it may take over a pair whose TIME-WAIT is older than a second.",
            "四个连接之后，第五次 connect() 以 EADDRNOTAVAIL 失败。一秒后再试：若 tcp_tw_reuse = 1（且有时间戳），可以接管 TIME-WAIT 已超过一秒的地址对。",
        ),
    ],
    taught: Side::Client,
    settings: &[("ip_local_port_range", "40000 40003")],
    knobs: &[
        Knob {
            name: "tcp_tw_reuse",
            value: "1",
            changes: true,
            effect: text(
                "the second attempt succeeds: the oldest pair is taken over after 1 s",
                "第二次尝试成功：最旧的地址对在 1 秒后被接管",
            ),
        },
        Knob {
            name: "tcp_fin_timeout",
            value: "10",
            changes: false,
            effect: text(
                "nothing: TIME-WAIT lasts 60 s whatever it says",
                "无作用：不论它是多少，TIME-WAIT 都是 60 秒",
            ),
        },
    ],
    on_linux: OnLinux::AsItIs,
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT"; 4],
        server: &["SYN-RECV ESTAB CLOSE-WAIT LAST-ACK gone"; 4],
        errors: &[(Side::Client, "connect EADDRNOTAVAIL"), (Side::Client, "connect EADDRNOTAVAIL")],
        left: &[(Side::Client, "TIME-WAIT", 4)],
        counters: &[(Side::Client, "TcpExtTW", 4)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let listener = stage.listen(80, 128)?;
    for _ in 0..4 {
        let (client, server) = stage.establish_at(listener, 80)?;
        stage.close(client)?;
        stage.until_state(client, Side::Client, Some(TcpState::FinWait2), Duration::from_secs(5))?;
        stage.close(server)?;
        stage.wait(Duration::from_millis(50))?;
    }
    stage.says(text(
        "All four local ports are in TIME-WAIT towards 10.0.0.2:80.",
        "四个本地端口都处于到 10.0.0.2:80 的 TIME-WAIT。",
    ));
    stage.connect(80)?;
    stage.wait(Duration::from_millis(1500))?;
    stage.says(text("A second and a half later, once more.", "一秒半之后，再试一次。"));
    let again = stage.connect(80)?;
    if stage.state(again, Side::Client).is_some() {
        stage.connected(again, Duration::from_secs(5))?;
    }
    stage.wait(Duration::from_millis(100))
}
