//! `fin-before-data`: the network delivers the FIN before the data in front of it.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "fin-before-data",
    title: text(
        "the FIN overtakes the data: end of file comes after the last byte all the same",
        "FIN 超过了数据：文件结束仍然在最后一个字节之后",
    ),
    rules: &[],
    excerpts: &[17],
    what: &[text(
        "The client writes and closes. On the way the data is held back, and the FIN arrives first. A FIN has a sequence number like a byte, and it is obeyed only in its order: the server's kernel keeps it in its out-of-order queue, acknowledges what it still expects (with a SACK for the FIN), and stays in ESTAB. When the data comes, the program gets the bytes, then the end of file; and only then is the state CLOSE-WAIT.",
        "客户端写数据然后关闭。路上数据被耽搁，FIN 先到。FIN 像字节一样有序列号，只按顺序生效：服务器内核把它放进乱序队列，确认自己仍在等待的位置（并用 SACK 说明收到了 FIN），状态仍是 ESTAB。数据到达后，程序先得到字节，再得到文件结束；这时状态才变成 CLOSE-WAIT。",
    )],
    taught: Side::Server,
    settings: &[],
    knobs: &[],
    on_linux: OnLinux::AsItIs,
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT"],
        server: &["SYN-RECV ESTAB CLOSE-WAIT LAST-ACK gone"],
        errors: &[(Side::Server, "read EAGAIN")],
        counters: &[(Side::Server, "TcpExtTCPOFOQueue", 1)],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.wait(Duration::from_millis(100))?;
    stage.hold_data(Side::Client, Duration::from_millis(50));
    stage.write(client, 100)?;
    stage.close(client)?;
    stage.wait(Duration::from_millis(30))?;
    stage.says(text(
        "The FIN has arrived, the data in front of it has not.",
        "FIN 已到达，它前面的数据还没有。",
    ));
    stage.read(server, 4096)?;
    stage.wait(Duration::from_millis(100))?;
    stage.read_all(server, Duration::from_secs(1))?;
    stage.close(server)?;
    stage.wait(Duration::from_millis(100))
}
