//! One socket in one sentence: what it waits for, and what will end it.
//!
//! Rules: `linux-tcp` 1.5, 2.1, 3.4, 3.5.

use lastack_core::observe::TimerKind;
use lastack_core::tcp::state::TcpState;

use crate::row::Row;
use crate::words::{Words, bytes, duration, says};

/// What `row` waits for.
pub fn row(row: &Row) -> Words {
    let socket = &row.socket;
    let timer = socket.timer.map(|timer| timer.kind);
    let left = socket.timer.map_or_else(String::new, |timer| duration(timer.expires_ms.into()));
    let repeats = socket.timer.map_or(0, |timer| timer.retrans);
    let queued = bytes(socket.send_q.into());
    match (socket.state, timer) {
        (TcpState::Listen, _) if socket.recv_q > socket.send_q => says!(
            "the accept queue is full: new connections are dropped until the program accepts",
            "accept 队列已满：在程序 accept 之前，新连接会被丢弃"
        ),
        (TcpState::Listen, _) => says!("waits for connections", "等待连接"),
        (TcpState::SynSent, _) => says!(
            "the SYN was sent {repeats} times more and is not answered; next in {left}",
            "SYN 已重发 {repeats} 次仍无应答；{left} 后再发"
        ),
        (TcpState::SynRecv | TcpState::NewSynRecv, _) => says!(
            "half-open: our SYN-ACK waits for the final ACK; repeated {repeats} times, next in {left}",
            "半开：SYN-ACK 等待最后的 ACK；已重发 {repeats} 次，{left} 后再发"
        ),
        (TcpState::FinWait1, Some(TimerKind::Persist)) => says!(
            "closed here, but the FIN waits behind {queued} that the peer's closed window does not let out; probes, next in {left}",
            "本端已关闭，但 FIN 排在 {queued} 之后，对端窗口关闭而发不出去；在探测，{left} 后再发"
        ),
        (TcpState::FinWait1 | TcpState::Closing, _) => says!(
            "closed here; our FIN ({queued} queued) is not acknowledged; repeated {repeats} times, next in {left}",
            "本端已关闭；FIN（排队 {queued}）未被确认；已重发 {repeats} 次，{left} 后再发"
        ),
        (TcpState::FinWait2, None) => says!(
            "our FIN is acknowledged; a program here still holds the socket, so nothing ends it but the peer's FIN",
            "FIN 已被确认；本机程序仍持有它，只有对端的 FIN 能结束它"
        ),
        (TcpState::FinWait2, Some(_)) => says!(
            "our FIN is acknowledged, the program has gone; waits for the peer's FIN at most {left} more",
            "FIN 已被确认，程序已离开；最多再等对端 FIN {left}"
        ),
        (TcpState::TimeWait, _) => says!(
            "over; the pair is kept for {left} more so that late segments reach nobody",
            "已结束；地址对再保留 {left}，以免迟到的报文送错"
        ),
        (TcpState::CloseWait, Some(TimerKind::Persist | TimerKind::On)) => says!(
            "the peer has closed; {queued} of ours is still on its way, and the program has not closed",
            "对端已关闭；我们还有 {queued} 在路上，程序尚未关闭"
        ),
        (TcpState::CloseWait, _) if row.is_unaccepted() => {
            says!("the peer has closed before any program accepted it", "程序还没 accept，对端就已关闭")
        }
        (TcpState::CloseWait, _) => says!(
            "the peer has closed; waits for the program here to close, for ever if it does not",
            "对端已关闭；等待本机程序关闭，若不关闭则永远等待"
        ),
        (TcpState::LastAck, _) => says!(
            "both have closed; our FIN is not acknowledged yet; repeated {repeats} times, next in {left}",
            "双方都已关闭；我们的 FIN 尚未被确认；已重发 {repeats} 次，{left} 后再发"
        ),
        (TcpState::Established, Some(TimerKind::Persist)) => says!(
            "stands still: {queued} wait for the peer's window; probes, next in {left}",
            "停滞：{queued} 在等待对端窗口；在探测，{left} 后再发"
        ),
        (TcpState::Established, Some(TimerKind::On)) if repeats > 0 => says!(
            "{queued} not acknowledged; repeated {repeats} times, next in {left}",
            "{queued} 未被确认；已重发 {repeats} 次，{left} 后再发"
        ),
        (TcpState::Established, _) if row.is_unaccepted() => {
            says!("waits in the accept queue for the program", "在 accept 队列中等待程序")
        }
        (TcpState::Established, Some(TimerKind::Keepalive)) => {
            says!("open and idle; a keepalive probe in {left}", "已建立且空闲；{left} 后发送保活探测")
        }
        (TcpState::Established, _) => {
            says!(
                "open; nothing is outstanding, and no keepalive would notice a dead peer",
                "已建立；没有未完成的数据，也没有保活来发现死亡的对端"
            )
        }
        (TcpState::Close, _) => says!("not connected", "未连接"),
    }
}
