//! How a connection of a capture went, in a sentence, and how that is known.
//!
//! Rules: a segment that was seen is observed; what an end must have done for it is inferred; where several things
//!        look the same on the wire all are named, as possible. `linux-tcp` 1.6, 1.10, 3.4, 10.2.

use lastack_core::tcp::state::TcpState;

use super::conversation::{Conversation, ResetKind, Side};
use crate::row::Certainty;
use crate::words::{Words, duration, says};

/// How a connection ended, in the journal's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// By FINs that were both acknowledged.
    Fin,
    /// By a RST.
    Reset,
    /// The SYN was answered by a RST.
    Refused,
    /// Not within the capture.
    Open,
}

impl How {
    /// The word used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::Open => "open",
        }
    }
}

impl Conversation {
    /// How it ended.
    pub fn how(&self) -> How {
        match &self.reset {
            Some(reset) if reset.kind == ResetKind::Refusal => How::Refused,
            Some(_) => How::Reset,
            None if self.ends.iter().all(|end| end.fin_acked()) => How::Fin,
            None => How::Open,
        }
    }

    /// Who sent the first FIN or RST; both, where the FINs crossed.
    pub fn closed_by(&self) -> &'static str {
        match self.closed_first {
            None => "none",
            Some(_) if self.both_closed => "both",
            Some(Side::First) => "first",
            Some(Side::Second) => "second",
        }
    }

    /// A stable word for what a RST was; `None` for anything else.
    pub fn reason(&self) -> Option<&'static str> {
        self.reset.map(|reset| match reset.kind {
            ResetKind::Refusal => "no-listener",
            ResetKind::Abort => "aborted",
            ResetKind::DataAfterClose => "data-after-close",
            ResetKind::Unknown => "unknown-connection",
        })
    }

    /// How it went, and how that is known. `now_ns` is the end of the capture.
    pub fn explain(&self, now_ns: u64) -> (Words, Certainty) {
        if let Some(told) = self.explain_reset() {
            return told;
        }
        let closer = |side: Side| self.end(side).addr;
        match (self.how(), self.closed_first) {
            (How::Fin, Some(_)) if self.both_closed => (
                says!(
                    "Both ends closed at the same time (FIN); each FIN is acknowledged.",
                    "两端同时关闭（FIN）；两个 FIN 都已被确认。"
                ),
                Certainty::Observed,
            ),
            (How::Fin, Some(side)) => {
                let (first, second) = (closer(side), closer(side.other()));
                (
                    says!(
                        "{first} closed first (FIN), {second} followed; both FINs are acknowledged. TIME-WAIT is on {first}'s side.",
                        "{first} 先关闭（FIN），{second} 随后关闭；两个 FIN 都已被确认。TIME-WAIT 在 {first} 一侧。"
                    ),
                    Certainty::Observed,
                )
            }
            _ => self.explain_open(now_ns),
        }
    }

    fn explain_reset(&self) -> Option<(Words, Certainty)> {
        let reset = self.reset.as_ref()?;
        let (by, other) = (self.end(reset.by).addr, self.end(reset.by.other()).addr);
        let idle = duration(reset.idle_ms);
        Some(match reset.kind {
            ResetKind::Refusal => (
                says!(
                    "{by} answered the SYN with RST: nobody listens there, or a filter says so. {other} sees ECONNREFUSED.",
                    "{by} 以 RST 应答 SYN：该端口无人监听，或由过滤规则拒绝。{other} 看到 ECONNREFUSED。"
                ),
                Certainty::Observed,
            ),
            ResetKind::DataAfterClose => (
                says!(
                    "{by} had closed; then data came from {other}, and {by}'s kernel answered it with RST. What {other} sent after the FIN is lost; its next write sees EPIPE.",
                    "{by} 已经关闭；随后 {other} 又发来数据，{by} 的内核以 RST 应答。{other} 在 FIN 之后发送的内容已丢失；下次写得到 EPIPE。"
                ),
                Certainty::Inferred,
            ),
            ResetKind::Unknown if reset.idle_ms >= 60_000 => (
                says!(
                    "after {idle} of silence {by} answered a segment of {other} with RST: it does not know the connection any more. Possible: a middlebox on the way forgot it, or the host was restarted.",
                    "静默 {idle} 之后，{by} 以 RST 应答 {other} 的报文：它已不认识该连接。可能：途中的中间设备遗忘了它，或主机重启过。"
                ),
                Certainty::Possible,
            ),
            ResetKind::Unknown => (
                says!(
                    "{by} answered a segment of {other} with RST: it does not have the connection, or not any more.",
                    "{by} 以 RST 应答 {other} 的报文：它没有（或不再有）这个连接。"
                ),
                Certainty::Inferred,
            ),
            ResetKind::Abort => (
                says!(
                    "RESET by {by}. Possible: it closed with data unread (RFC 2525 2.17), set SO_LINGER 0, or its connection was ended from outside; these look the same on the wire.",
                    "被 {by} 重置。可能：关闭时仍有未读数据（RFC 2525 2.17）、设置了 SO_LINGER 0，或连接被外部结束；它们在线路上无法区分。"
                ),
                Certainty::Possible,
            ),
        })
    }

    /// It did not end within the capture.
    fn explain_open(&self, now_ns: u64) -> (Words, Certainty) {
        let age = |since: Option<u64>| duration(now_ns.saturating_sub(since.unwrap_or(now_ns)) / 1_000_000);
        for side in [Side::First, Side::Second] {
            let (me, peer) = (self.end(side), self.end(side.other()));
            let (mine, theirs, tries) = (me.addr, peer.addr, me.unanswered);
            let state = self.states[side as usize];
            let waiting = age(me.waiting_since_ns());
            match state {
                TcpState::SynSent => {
                    return (
                        says!(
                            "{mine}'s SYN was repeated {tries} times in {waiting} and not answered: filtered on the way, or the host is not there.",
                            "{mine} 的 SYN 在 {waiting} 内重发 {tries} 次无应答：途中被过滤，或主机不存在。"
                        ),
                        Certainty::Inferred,
                    );
                }
                TcpState::NewSynRecv => {
                    return (
                        says!(
                            "half-open: the SYN-ACK of {mine} was repeated {tries} times in {waiting} and {theirs} did not complete the handshake.",
                            "半开：{mine} 的 SYN-ACK 在 {waiting} 内重发 {tries} 次，{theirs} 没有完成握手。"
                        ),
                        Certainty::Observed,
                    );
                }
                _ => {}
            }
            if peer.zero_since_ns.is_some() && me.window_probes > 0 {
                let stalled = age(peer.zero_since_ns);
                let probes = me.window_probes;
                return (
                    says!(
                        "stands still: {theirs} has offered no window for {stalled}, so its program does not read; {mine} has asked {probes} times. If {mine}'s program has closed, its FIN cannot be seen: it waits behind the data.",
                        "停滞：{theirs} 已有 {stalled} 没有接收窗口，说明其程序没有在读；{mine} 探测了 {probes} 次。如果 {mine} 的程序已关闭，FIN 也看不到：它排在数据之后。"
                    ),
                    Certainty::Observed,
                );
            }
            if tries >= 2 && me.outstanding() > 0 {
                let what = if me.fin.is_some() && state != TcpState::Established { "FIN" } else { "data" };
                return (
                    says!(
                        "{mine} has repeated its {what} {tries} times in {waiting} and {theirs} does not answer: its host is gone, or segments are lost on the way.",
                        "{mine} 在 {waiting} 内重发 {what} {tries} 次，{theirs} 没有应答：主机已不在，或报文在途中丢失。"
                    ),
                    Certainty::Inferred,
                );
            }
        }
        match self.closed_first {
            Some(side) if self.end(side).fin_acked() => {
                let (closer, open) = (self.end(side).addr, self.end(side.other()).addr);
                let since = duration(now_ns.saturating_sub(self.last_ns) / 1_000_000);
                (
                    says!(
                        "{closer} has closed and {open} has not ({open} is in CLOSE-WAIT): {open}'s program must close; nothing was sent for {since}.",
                        "{closer} 已关闭而 {open} 没有（{open} 处于 CLOSE-WAIT）：须由 {open} 的程序关闭；已有 {since} 没有报文。"
                    ),
                    Certainty::Inferred,
                )
            }
            Some(_) => (
                says!("a FIN is on its way when the capture ends.", "捕获结束时有 FIN 尚未被确认。"),
                Certainty::Observed,
            ),
            None => (says!("open when the capture ends.", "捕获结束时仍然打开。"), Certainty::Observed),
        }
    }
}
