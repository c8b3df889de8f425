//! `syn-sent-filtered`: a firewall drops the SYN without a word.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "syn-sent-filtered",
    title: text(
        "a firewall drops the SYN without a word: connect() waits for two minutes",
        "防火墙无声地丢弃 SYN：connect() 要等两分钟",
    ),
    rules: &["syn-sent.filtered"],
    excerpts: &[14],
    what: &[text(
        "Refused is fast: a host without a listener answers RST, and connect() fails at once with ECONNREFUSED. Filtered is slow: nothing comes back, and the kernel cannot tell a firewall from a lost packet. It repeats the SYN after 1, 2, 3, 4, 5, 7, 11, 19, 35 and 67 s and gives up after 131 s: ETIMEDOUT.",
        "被拒绝很快：没有监听者的主机应答 RST，connect() 立即以 ECONNREFUSED 失败。被过滤则很慢：什么都没有返回，内核分不清是防火墙还是丢包。它在 1、2、3、4、5、7、11、19、35、67 秒后重发 SYN，131 秒后放弃：ETIMEDOUT。",
    )],
    taught: Side::Client,
    settings: &[],
    knobs: &[
        Knob {
            name: "tcp_syn_retries",
            value: "2",
            changes: true,
            effect: text("gives up after 7 s", "7 秒后放弃"),
        },
        Knob {
            name: "tcp_syn_linear_timeouts",
            value: "0",
            changes: true,
            effect: text(
                "repeats after 1, 3, 7, 15, 31 and 63 s, gives up after 127 s (Linux before 6.5)",
                "在 1、3、7、15、31、63 秒后重发，127 秒后放弃（6.5 之前的 Linux）",
            ),
        },
    ],
    on_linux: OnLinux::Short(&[("tcp_syn_retries", "1")]),
    play,
    ending: Ending {
        client: &["SYN-SENT gone"],
        server: &[""],
        errors: &[(Side::Client, "connect ETIMEDOUT")],
        counters: &[(Side::Client, "TcpAttemptFails", 1)],
        lasts: &[(Side::Client, 0, "SYN-SENT", 130.9, 136.0)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let _listener = stage.listen(80, 128)?;
    stage.cut(Side::Client, true);
    stage.says(text(
        "A firewall between the two drops what the client sends.",
        "两端之间的防火墙丢弃客户端发出的一切。",
    ));
    let client = stage.connect(80)?;
    stage.connected(client, Duration::from_secs(300))?;
    Ok(())
}
