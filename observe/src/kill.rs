//! Ending connections: what each side will see, before it is done.
//!
//! Rules: `linux-tcp` 10.2 (`SOCK_DESTROY` is `tcp_abort(ECONNABORTED)`) and 1.7 (a RST is EPIPE in
//!        CLOSE-WAIT, else ECONNRESET).

use lastack_core::tcp::state::TcpState;

use crate::row::Row;
use crate::words::{Text, text};

/// What ending a socket does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effect {
    /// One RST goes to the peer.
    pub sends_rst: bool,
    /// What the peer's program sees in its next call, when the RST arrives.
    pub peer_sees: Option<&'static str>,
    /// What the program that holds the socket here sees.
    pub owner_sees: Option<&'static str>,
    /// The same in words.
    pub words: Text,
}

/// Predicts what ending `row` does.
pub fn effect(row: &Row) -> Effect {
    // Mini sockets and half-open ones are records without a socket around them.
    let record = row.uid.is_none();
    let held = row.is_held().then_some("ECONNABORTED");
    match row.socket.state {
        TcpState::Established | TcpState::FinWait1 | TcpState::SynRecv => Effect {
            sends_rst: true,
            peer_sees: Some("ECONNRESET"),
            owner_sees: held,
            words: text(
                "RST to the peer; its program reads what has arrived, then ECONNRESET. Data not yet acknowledged is lost",
                "向对端发送 RST；其程序读完已到达的数据后得到 ECONNRESET。尚未确认的数据会丢失",
            ),
        },
        TcpState::CloseWait => Effect {
            sends_rst: true,
            // The peer has sent its FIN: it is in FIN-WAIT-2, where an error is ECONNRESET, if anybody looks.
            peer_sees: Some("ECONNRESET"),
            owner_sees: held,
            words: text(
                "RST to the peer, which has closed already; the program here gets ECONNABORTED from its next call",
                "向已关闭的对端发送 RST；本端程序下一次调用得到 ECONNABORTED",
            ),
        },
        TcpState::FinWait2 if !record => Effect {
            sends_rst: true,
            peer_sees: Some("EPIPE"),
            owner_sees: held,
            words: text(
                "RST to the peer, which is in CLOSE-WAIT: its next write gives EPIPE",
                "向处于 CLOSE-WAIT 的对端发送 RST：其下一次写入得到 EPIPE",
            ),
        },
        TcpState::LastAck | TcpState::Closing | TcpState::SynSent => Effect {
            sends_rst: false,
            peer_sees: None,
            owner_sees: held,
            words: text("nothing is sent; it is gone here", "不发送任何报文；本端直接移除"),
        },
        TcpState::TimeWait | TcpState::FinWait2 | TcpState::NewSynRecv => Effect {
            sends_rst: false,
            peer_sees: None,
            owner_sees: None,
            words: text(
                "nothing is sent; the record is removed. A later segment of the peer is answered by RST",
                "不发送任何报文；记录被移除。对端之后的报文会得到 RST",
            ),
        },
        TcpState::Listen => Effect {
            sends_rst: true,
            peer_sees: Some("ECONNRESET"),
            owner_sees: Some("EINVAL"),
            words: text(
                "stops listening: accept gives EINVAL; connections that wait to be accepted get RST",
                "停止监听：accept 得到 EINVAL；等待 accept 的连接收到 RST",
            ),
        },
        TcpState::Close => Effect {
            sends_rst: false,
            peer_sees: None,
            owner_sees: held,
            words: text("nothing is sent", "不发送任何报文"),
        },
    }
}
