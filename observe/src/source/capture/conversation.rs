//! One connection in a capture: both ends, the states they must be in, and what happened to it.
//!
//! Owns:    [`Conversation`]: two [`End`]s, who closed first, how; the events that packets show.
//! Rules:   RFC 9293 3.3.2's diagram, read backwards: an end's state follows from what it has sent and what it has
//!          acknowledged. What was sent to it is not taken as received before it says so.
//! Not here: sentences (`explain`), files (`file`).

use std::net::SocketAddr;

use lastack_core::observe::{SocketRow, TimerKind, TimerRow};
use lastack_core::tcp::seq::SeqNum;
use lastack_core::tcp::state::TcpState;

use super::end::{End, Sent};
use super::frame::Seen;
use crate::row::Row;
use crate::trace::Event;

/// `TCP_TIMEWAIT_LEN` of Linux; others keep it longer.
const TIME_WAIT_NS: u64 = 60_000_000_000;

/// Which of the two ends: the first is the one that opened it, or that was seen first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    /// The one that sent the SYN, or the first segment seen.
    First,
    /// The other.
    Second,
}

impl Side {
    /// The other side.
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// What a RST tells by its form and by what was before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetKind {
    /// It answered a SYN.
    Refusal,
    /// RST and ACK: a program's close or abort (`tcp_send_active_reset()`).
    Abort,
    /// RST alone, after its sender's FIN and in answer to data: nobody reads there any more.
    DataAfterClose,
    /// RST alone, in answer to a segment: its sender does not know the connection (`tcp_v4_send_reset()`).
    Unknown,
}

/// A RST that was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reset {
    /// Who sent it.
    pub by: Side,
    /// What it is.
    pub kind: ResetKind,
    /// How long nothing had been sent by either before the segment it answers, milliseconds.
    pub idle_ms: u64,
}

/// One connection of a capture.
#[derive(Clone, Debug)]
pub struct Conversation {
    pub(super) ends: [End; 2],
    pub(super) states: [TcpState; 2],
    since_ns: [u64; 2],
    pub(super) begin_ns: u64,
    pub(super) last_ns: u64,
    /// The handshake was seen from its SYN on.
    pub(super) from_syn: bool,
    pub(super) established_ns: Option<u64>,
    pub(super) closed_first: Option<Side>,
    pub(super) both_closed: bool,
    pub(super) reset: Option<Reset>,
    /// The longest silence before the last segment but one, for a RST's story.
    silence_ms: u64,
    /// The last segment: who sent it and what would a RST in answer to it look like.
    last: Option<(Side, SeqNum, u32, bool)>,
}

impl Conversation {
    /// A connection that begins with `seen`.
    pub(super) fn new(at_ns: u64, seen: &Seen) -> Self {
        let flags = seen.header.flags;
        // A SYN-ACK is the second's: the capture began too late for the SYN.
        let (first, second) =
            if flags.syn() && flags.ack() { (seen.dst, seen.src) } else { (seen.src, seen.dst) };
        Self {
            ends: [End::new(first), End::new(second)],
            states: [TcpState::Close; 2],
            since_ns: [at_ns; 2],
            begin_ns: at_ns,
            last_ns: at_ns,
            from_syn: flags.syn() && !flags.ack(),
            established_ns: None,
            closed_first: None,
            both_closed: false,
            reset: None,
            silence_ms: 0,
            last: None,
        }
    }

    /// True when a SYN with this number begins another connection of the same addresses.
    pub(super) fn is_over_for(&self, seen: &Seen) -> bool {
        let flags = seen.header.flags;
        if !flags.syn() || flags.ack() || flags.rst() {
            return false;
        }
        let iss = self.end(self.side(seen.src)).iss;
        iss != Some(seen.header.seq) && (iss.is_some() || self.reset.is_some() || self.closed_first.is_some())
    }

    fn side(&self, addr: SocketAddr) -> Side {
        if self.ends[0].addr == addr { Side::First } else { Side::Second }
    }

    pub(super) fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    /// The next segment; `tell` is told what it makes happen.
    pub(super) fn segment(&mut self, at_ns: u64, seen: &Seen, tell: &mut dyn FnMut(Event)) {
        let by = self.side(seen.src);
        let [first, second] = &mut self.ends;
        let (me, peer) = if by == Side::First { (first, second) } else { (second, first) };
        let was_zero = me.zero_since_ns.is_some();
        let kind = me.sent(at_ns, seen, peer);
        peer.acknowledged(at_ns, seen);
        let is_zero = me.zero_since_ns.is_some();
        let flags = seen.header.flags;
        let silence_ms = at_ns.saturating_sub(self.last_ns) / 1_000_000;
        if flags.rst() {
            self.take_reset(by, seen);
        } else if flags.fin() {
            let other_closed = self.end(by.other()).fin.is_some();
            self.closed_first.get_or_insert(by);
            self.both_closed |= other_closed && self.closed_first != Some(by) && !self.end(by).closed_second;
        }
        let mut happened = |name, state| {
            let mut event = Event::new(at_ns, name);
            (event.local, event.peer, event.state) = (Some(seen.src), Some(seen.dst), Some(state));
            tell(event);
        };
        let state = self.states[by as usize];
        match kind {
            Sent::Repeat if flags.syn() && flags.ack() => happened("tcp_retransmit_synack", state),
            Sent::Repeat => happened("tcp_retransmit_skb", state),
            Sent::WindowProbe => happened("window_probe", state),
            Sent::KeepAlive => happened("keepalive_probe", state),
            Sent::Usual => {}
        }
        if flags.rst() {
            happened("tcp_send_reset", state);
        }
        if is_zero != was_zero {
            happened(if is_zero { "zero_window" } else { "window_opened" }, state);
        }
        for side in [by, by.other()] {
            let (old, new) = (self.states[side as usize], self.state(side));
            if old == new {
                continue;
            }
            self.states[side as usize] = new;
            self.since_ns[side as usize] = at_ns;
            let mut event = Event::new(at_ns, "inet_sock_set_state");
            (event.local, event.peer) = (Some(self.end(side).addr), Some(self.end(side.other()).addr));
            (event.old_state, event.state) = (Some(old), Some(new));
            tell(event);
        }
        if self.established_ns.is_none() && self.states == [TcpState::Established; 2] {
            self.established_ns = Some(at_ns);
        }
        self.silence_ms = silence_ms;
        self.last = Some((by, seen.header.ack, seen.len, flags.syn()));
        self.last_ns = self.last_ns.max(at_ns);
    }

    fn take_reset(&mut self, by: Side, seen: &Seen) {
        if self.reset.is_some() {
            return;
        }
        // A RST in answer to a segment has that segment's acknowledgment as its number, and no ACK of its own.
        let answered = self.last.filter(|(from, ..)| *from != by);
        let answers = answered.is_some_and(|(_, ack, ..)| ack == seen.header.seq) && !seen.header.flags.ack();
        let to_syn = self.end(by).iss.is_none()
            && self.end(by.other()).iss.is_some()
            && self.from_syn
            && answered.is_some_and(|(.., syn)| syn);
        let kind = if to_syn {
            ResetKind::Refusal
        } else if answers && self.end(by).fin.is_some() && answered.is_some_and(|(_, _, len, _)| len > 0) {
            ResetKind::DataAfterClose
        } else if answers {
            ResetKind::Unknown
        } else {
            ResetKind::Abort
        };
        self.reset = Some(Reset { by, kind, idle_ms: self.silence_ms });
        self.closed_first.get_or_insert(by);
    }

    /// The state an end must be in.
    fn state(&self, side: Side) -> TcpState {
        let (me, peer) = (self.end(side), self.end(side.other()));
        if self.reset.is_some() || me.snd_nxt.is_none() {
            return TcpState::Close;
        }
        if me.iss.is_some() && !me.syn_acked() {
            return match (me.is_passive, peer.iss) {
                (true, _) => TcpState::NewSynRecv,
                (false, Some(_)) => TcpState::SynRecv,
                (false, None) => TcpState::SynSent,
            };
        }
        let peers_fin = peer.fin_acked();
        match (me.fin.is_some(), me.fin_acked(), peers_fin) {
            (false, _, false) => TcpState::Established,
            (false, _, true) => TcpState::CloseWait,
            (true, false, false) => TcpState::FinWait1,
            (true, true, false) => TcpState::FinWait2,
            (true, false, true) if me.closed_second => TcpState::LastAck,
            (true, false, true) => TcpState::Closing,
            (true, true, true) if me.closed_second => TcpState::Close,
            (true, true, true) => TcpState::TimeWait,
        }
    }

    /// An end's state at `now_ns`: TIME-WAIT ends by itself.
    pub(super) fn state_at(&self, side: Side, now_ns: u64) -> TcpState {
        let state = self.states[side as usize];
        let age = now_ns.saturating_sub(self.since_ns[side as usize]);
        if state == TcpState::TimeWait && age >= TIME_WAIT_NS { TcpState::Close } else { state }
    }

    /// An end as a socket, at `now_ns`; `None` when it is closed, or was never heard of.
    pub(super) fn row(&self, side: Side, cookie: u64, now_ns: u64) -> Option<Row> {
        let (me, peer) = (self.end(side), self.end(side.other()));
        let state = self.state_at(side, now_ns);
        if state == TcpState::Close {
            return None;
        }
        let ms_since = |at: u64| now_ns.saturating_sub(at) / 1_000_000;
        let in_state = ms_since(self.since_ns[side as usize]);
        let timer = self.timer(side, state, now_ns);
        // For how long it has been as it is: stalled since the window closed, unanswered since the first try.
        let condition_since = match timer.map(|timer| timer.kind) {
            Some(TimerKind::Persist) => peer.zero_since_ns,
            Some(TimerKind::On) => me.waiting_since_ns(),
            _ if state == TcpState::Established => Some(self.last_ns),
            _ => None,
        };
        // Whoever probes a closed window has something to send.
        let asks = timer.is_some_and(|timer| timer.kind == TimerKind::Persist);
        let mut row = Row::new(state, me.addr, peer.addr);
        row.socket = SocketRow {
            send_q: me.outstanding().max(u32::from(asks)),
            timer,
            cookie,
            age_ms: self.from_syn.then(|| ms_since(self.begin_ns)),
            state_age_ms: Some(condition_since.map_or(in_state, ms_since)),
            // tcp_info stays unknown: most of it is never on the wire.
            ..row.socket
        };
        Some(row)
    }

    /// The timer that must be running: seen by what it has done, its next time inferred from its steps.
    fn timer(&self, side: Side, state: TcpState, now_ns: u64) -> Option<TimerRow> {
        let (me, peer) = (self.end(side), self.end(side.other()));
        let in_ms = |at: u64| u32::try_from(at.saturating_sub(now_ns) / 1_000_000).unwrap_or(u32::MAX);
        if state == TcpState::TimeWait {
            let expires_ms = in_ms(self.since_ns[side as usize] + TIME_WAIT_NS);
            return Some(TimerRow { kind: TimerKind::TimeWait, expires_ms, retrans: 0 });
        }
        if me.unanswered == 0 && peer.zero_since_ns.is_none() {
            return None;
        }
        let kind = if me.outstanding() > 0 { TimerKind::On } else { TimerKind::Persist };
        if kind == TimerKind::Persist && !self.probed(side) {
            return None;
        }
        let retrans = u8::try_from(me.unanswered).unwrap_or(u8::MAX);
        Some(TimerRow { kind, expires_ms: in_ms(me.next_try_ns()), retrans })
    }

    /// This end has probed the other's closed window.
    fn probed(&self, side: Side) -> bool {
        self.end(side).window_probes > 0 && self.end(side.other()).zero_since_ns.is_some()
    }

    /// The two ends' addresses.
    pub fn addresses(&self) -> [SocketAddr; 2] {
        [self.ends[0].addr, self.ends[1].addr]
    }

    /// Payload bytes sent by each, repeats left out.
    pub fn bytes(&self) -> [u64; 2] {
        [self.ends[0].bytes, self.ends[1].bytes]
    }

    /// Segments repeated by each.
    pub fn repeats(&self) -> [u64; 2] {
        [self.ends[0].repeats, self.ends[1].repeats]
    }

    /// Round trip from the capture to the second end and back, and to the first end and back, microseconds.
    pub fn rtt_us(&self) -> [Option<u64>; 2] {
        [self.ends[0].rtt_us(), self.ends[1].rtt_us()]
    }

    /// From the SYN until both were established, microseconds.
    pub fn handshake_us(&self) -> Option<u64> {
        let established = self.established_ns.filter(|_| self.from_syn)?;
        Some(established.saturating_sub(self.begin_ns) / 1000)
    }

    /// Nanoseconds since the epoch of its first and last segment.
    pub fn seen_ns(&self) -> (u64, u64) {
        (self.begin_ns, self.last_ns)
    }
}
