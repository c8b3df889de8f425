//! `half-close`: one direction ends, the other goes on.

use core::time::Duration;

use crate::stories::words::text;
use crate::stories::{Ending, OnLinux, Side, Stage, Story, Told};

pub(super) const STORY: Story = Story {
    id: "half-close",
    title: text(
        "half-close: the client has asked its last question and still listens",
        "半关闭：客户端问完最后一个问题，但仍在听",
    ),
    rules: &[],
    excerpts: &[11, 16],
    what: &[text(
        "shutdown(SHUT_WR) sends the FIN of one direction only. The server reads the request to its end (read() gives 0), and has all the time it needs to answer: the client's kernel, in FIN-WAIT-2, goes on receiving and acknowledging. This is the safe way to close: say that you are done, read what still comes until the end of file, then close().",
        "shutdown(SHUT_WR) 只发送一个方向的 FIN。服务器把请求读到末尾（read() 返回 0），然后从容应答：处于 FIN-WAIT-2 的客户端内核继续接收和确认。这是安全的关闭方式：先说自己说完了，把对方还发来的读到文件结束，再 close()。",
    )],
    taught: Side::Server,
    settings: &[],
    knobs: &[],
    on_linux: OnLinux::AsItIs,
    play,
    ending: Ending {
        client: &["SYN-SENT ESTAB FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT"],
        server: &["SYN-RECV ESTAB CLOSE-WAIT LAST-ACK gone"],
        ..Ending::NOTHING
    },
};

fn play(stage: &mut Stage<'_>) -> Told<()> {
    let (client, server) = stage.establish(80)?;
    stage.write(client, 100)?;
    stage.shutdown_write(client)?;
    stage.wait(Duration::from_millis(100))?;
    stage.read_all(server, Duration::from_secs(1))?;
    stage.says(text(
        "The request is complete. Now the answer, through the other half.",
        "请求已完整。现在通过另一半发送应答。",
    ));
    stage.write(server, 3000)?;
    stage.wait(Duration::from_millis(100))?;
    stage.close(server)?;
    stage.read_all(client, Duration::from_secs(1))?;
    stage.close(client)?;
    stage.wait(Duration::from_millis(100))
}
