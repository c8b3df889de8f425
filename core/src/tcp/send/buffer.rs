//! The send buffer: how much the application may queue, and when it is told to go on.
//!
//! Owns:    nothing; decides over the sender's `sndbuf` and what is queued.
//! Rules:   Linux `tcp_sndbuf_expand`, `tcp_should_expand_sndbuf`, `sk_stream_is_writeable`, `tcp_stream_memory_free`.

use crate::sysctl::Sysctl;
use crate::tcp::context::Cx;
use crate::tcp::options::TcpOptions;
use crate::tcp::send::chrono::Limit;
use crate::tcp::send::cwnd::INIT_CWND;
use crate::tcp::send::{Sender, Write};

/// What Linux charges beside the payload for each segment or super-segment it holds: the smallest head, `skb_shared_info` in it,
/// and the `sk_buff`.
const RECORD_COST: u64 = 832;
/// What Linux reckons beside the payload for a segment: headers (of a kernel with small link headers) and `skb_shared_info`, then
/// `sk_buff`, bytes.
const SEGMENT_HEADROOM: u32 = 512;
const SK_BUFF_COST: u32 = 256;
impl Sender {
    /// Memory the send queue holds as Linux counts it, bytes (`sk_wmem_queued`).
    pub(crate) fn queued_bytes(&self) -> u64 {
        let records = (self.segments.count() + self.queue.unsent().len()) as u64;
        u64::from(self.queue.len()) + records * RECORD_COST
    }

    /// Bytes the application may still add (send buffer, auto-tuned like Linux's up to `tcp_wmem[2]`); more, if some of them leave
    /// while they are written.
    pub(crate) fn free_space(&self, options_len: u32) -> usize {
        let (_, goal) = self.goal(Write::Plain, options_len);
        let room = u64::from(self.room_in_last_chunk(goal));
        let goal = u64::from(goal);
        let left = u64::from(self.sndbuf).saturating_sub(self.queued_bytes() + room);
        (room + left.div_ceil(goal + RECORD_COST) * goal) as usize
    }

    /// No super-segment may be begun (Linux `sk_stream_memory_free`): a slice that is queued whole is not taken.
    pub(crate) fn is_full(&self) -> bool {
        self.queued_bytes() >= u64::from(self.sndbuf)
    }

    /// The send buffer, bytes (Linux `sk_sndbuf`).
    pub(crate) fn sndbuf(&self) -> u32 {
        self.sndbuf
    }

    /// `EPOLLOUT`: room for at least a third of the buffer and below `notsent_lowat` (Linux `sk_stream_is_writeable`).
    pub(crate) fn is_writeable(&self, options: &TcpOptions, cx: &Cx<'_>) -> bool {
        let lowat = options.notsent_lowat.unwrap_or(cx.sysctl.tcp_notsent_lowat);
        self.has_room() && self.write_seq.since(self.snd_nxt) < lowat
    }

    /// `EPOLLOUT` as `poll` sees it: a third of the buffer free, and less than half of `notsent_lowat` unsent (Linux
    /// `__sk_stream_is_writeable(sk, 1)`).
    pub(crate) fn is_pollable(&self, options: &TcpOptions, sysctl: &Sysctl) -> bool {
        let lowat = u64::from(options.notsent_lowat.unwrap_or(sysctl.tcp_notsent_lowat));
        self.has_room() && u64::from(self.write_seq.since(self.snd_nxt)) * 2 < lowat
    }

    /// Linux `sk_stream_wspace(sk) >= sk_stream_min_wspace(sk)`.
    fn has_room(&self) -> bool {
        let (queued, limit) = (self.queued_bytes(), u64::from(self.sndbuf));
        limit > queued && limit - queued >= queued / 2
    }

    /// The application asked for room and got none (Linux sets `SOCK_NOSPACE`).
    pub(crate) fn on_no_space(&mut self) {
        self.nospace = true;
    }

    /// After an ACK: more buffer for an application that waits for room (Linux `tcp_check_space`).
    pub(super) fn check_space(&mut self, options: &TcpOptions, cx: &mut Cx<'_>) {
        if !self.nospace {
            return;
        }
        let memory_left = cx.limits.is_below_low(cx.sysctl);
        if memory_left && self.counts.in_flight() < self.cwnd.window.snd_cwnd {
            self.expand_sndbuf(cx);
            self.cwnd.stamp = cx.now;
        }
        if self.is_writeable(options, cx) {
            self.nospace = false;
            self.chrono.stop(Limit::SendBuffer, self.is_idle(), cx.now);
        }
    }

    /// Linux `tcp_sndbuf_expand`: twice what the window can hold, in Linux's memory per segment.
    pub(super) fn expand_sndbuf(&mut self, cx: &Cx<'_>) {
        if self.sndbuf_locked {
            return;
        }
        let per_segment = (u32::from(self.mss_full) + SEGMENT_HEADROOM).next_power_of_two() + SK_BUFF_COST;
        let segments =
            INIT_CWND.max(self.cwnd.window.snd_cwnd).max(self.recovery.reordering.saturating_add(1));
        let wanted = 2 * u64::from(segments) * u64::from(per_segment);
        if u64::from(self.sndbuf) < wanted {
            self.sndbuf = wanted.min(u64::from(cx.sysctl.tcp_wmem[2])) as u32;
        }
    }
}
