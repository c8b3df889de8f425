//! `sysctl-myth`: `tcp_fin_timeout = 5`, and TIME-WAIT lasts 60 s.

use core::time::Duration;

use lastack_core::tcp::state::TcpState;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "sysctl-myth",
    title: text(
        "tcp_fin_timeout is 5, and TIME-WAIT lasts 60 s",
        "tcp_fin_timeout 设为 5，TIME-WAIT 仍是 60 秒",
    ),
    rules: &["sysctl.myth"],
    excerpts: &[3, 4],
    what: &[text(
        "For twenty years articles have said: lower tcp_fin_timeout to shorten TIME-WAIT. The name invites it. Here the knob is set to 5 and an ordinary connection is closed: TIME-WAIT lasts 60 s, because its length is a constant in the kernel's source (TCP_TIMEWAIT_LEN) and no knob changes it. What the knob does bound, FIN-WAIT-2 of orphans, lasted some 30 ms here.",
        "二十年来的文章都说：调低 tcp_fin_timeout 可以缩短 TIME-WAIT。这个名字的确容易让人误会。这里把它设为 5，正常关闭一个连接：TIME-WAIT 仍持续 60 秒，因为它的时长是内核源码中的常量（TCP_TIMEWAIT_LEN），没有参数能改变。它真正限制的是孤儿的 FIN-WAIT-2，在这里只持续了几十毫秒。",
    )],
    taught: Side::Client,
    settings: &[("tcp_fin_timeout", "5")],
    knobs: &[Knob {
        name: "tcp_fin_timeout",
        value: "30",
        changes: false,
        effect: text("nothing: TIME-WAIT does not look at it", "无作用：TIME-WAIT 不看它"),
    }],
    on_linux: OnLinux::Short(&[]),
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT gone"],
        short_client: &["SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT"],
        server: &["SYN-RECV ESTAB CLOSE-WAIT LAST-ACK gone"],
        lasts: &[(Side::Client, 0, "TIME-WAIT", 59.9, 62.0)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.wait(Duration::from_millis(50))?;
    stage.close(client)?;
    stage.until_state(client, Side::Client, Some(TcpState::FinWait2), Duration::from_secs(5))?;
    stage.close(server)?;
    stage.until_state(client, Side::Client, Some(TcpState::TimeWait), Duration::from_secs(5))?;
    stage.says(text("Five seconds pass, and nothing happens.", "五秒过去了，什么也没有发生。"));
    let limit = Duration::from_secs(if stage.is_short() { 6 } else { 120 });
    stage.until_state(client, Side::Client, None, limit)?;
    stage.wait(Duration::from_millis(50))
}
