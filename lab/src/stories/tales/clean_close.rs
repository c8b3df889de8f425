//! `clean-close`: one request, one answer, and the orderly end.

use core::time::Duration;

use lastack_core::tcp::state::TcpState;

use crate::stories::words::text;
use crate::stories::{Ending, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "clean-close",
    title: text(
        "how it should be: handshake, request, answer, FIN from each side",
        "应有的样子：握手、请求、应答、双方各发 FIN",
    ),
    rules: &[],
    excerpts: &[2, 6, 9, 13],
    what: &[
        text(
            "Three segments open a connection: SYN, SYN-ACK, ACK. Each side names the number its bytes begin with; the charts here count from these numbers. Then bytes go both ways, each acknowledged by the other side's kernel.",
            "三个报文段打开连接：SYN、SYN-ACK、ACK。每一端说出自己的字节从哪个编号开始；这里的图都从这个编号算起。然后字节双向流动，由另一端的内核确认。",
        ),
        text(
            "Each direction ends with a FIN of its own, which is acknowledged like a byte. FIN means \"I have nothing more to send\", and all that was sent before arrives before it: nothing is lost. The side that closed first keeps TIME-WAIT.",
            "每个方向以各自的 FIN 结束，FIN 像一个字节那样被确认。FIN 的意思是“我没有更多要发送的”，在它之前发送的一切都先到达：什么都不丢。先关闭的一端保留 TIME-WAIT。",
        ),
    ],
    taught: Side::Server,
    settings: &[],
    knobs: &[],
    on_linux: OnLinux::AsItIs,
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT"],
        server: &["SYN-RECV ESTAB CLOSE-WAIT LAST-ACK gone"],
        left: &[(Side::Client, "TIME-WAIT", 1)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.write(client, 100)?;
    stage.wait(Duration::from_millis(50))?;
    stage.read(server, 4096)?;
    stage.write(server, 500)?;
    stage.wait(Duration::from_millis(50))?;
    stage.read(client, 4096)?;
    stage.close(client)?;
    stage.until_state(client, Side::Client, Some(TcpState::FinWait2), Duration::from_secs(5))?;
    stage.read(server, 4096)?;
    stage.close(server)?;
    stage.wait(Duration::from_millis(100))
}
