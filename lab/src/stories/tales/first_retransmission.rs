//! `first-retransmission`: how soon a lost segment is sent again.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, Knob, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "first-retransmission",
    title: text(
        "one segment lost: it is sent again after some 240 ms, not after 500",
        "丢一个报文段：约 240 毫秒后重发，而不是 500 毫秒",
    ),
    rules: &[],
    excerpts: &[13],
    what: &[text(
        "Old books say that TCP's timers tick in steps of 500 ms: that was BSD. Linux computes the time-out from the measured round trip, but not below 200 ms (TCP_RTO_MIN). Before the time-out a tail loss probe goes out: two round trips and 200 ms after the segment. Here the round trip is 20 ms, and the third and last loss is repaired by the retransmission timer.",
        "旧书说 TCP 定时器以 500 毫秒为步长：那是 BSD。Linux 由测得的往返时间算出超时，但不低于 200 毫秒（TCP_RTO_MIN）。在超时之前会先发一个尾部丢失探测：报文段发出后两个往返加 200 毫秒。这里往返为 20 毫秒，连丢两次后由重传定时器修复。",
    )],
    taught: Side::Client,
    settings: &[],
    knobs: &[Knob {
        name: "tcp_early_retrans",
        value: "0",
        changes: true,
        effect: text(
            "no tail loss probe: the retransmission timer alone repairs the loss",
            "没有尾部丢失探测：只靠重传定时器修复",
        ),
    }],
    on_linux: OnLinux::AsItIs,
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB"],
        server: &["SYN-RECV ESTAB"],
        counters: &[
            (Side::Client, "TcpRetransSegs", 2),
            (Side::Client, "TcpExtTCPLossProbes", 1),
            (Side::Client, "TcpExtTCPTimeouts", 1),
        ],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.wait(Duration::from_millis(100))?;
    stage.says(text(
        "The next segment of the client is lost, and so is its first repetition.",
        "客户端的下一个报文段丢失，它的第一次重发也丢失。",
    ));
    stage.lose_data(Side::Client, 2);
    stage.write(client, 100)?;
    stage.until(Duration::from_secs(5), |stage| stage.unread(server) > 0)?;
    stage.read(server, 4096)?;
    stage.wait(Duration::from_millis(100))
}
