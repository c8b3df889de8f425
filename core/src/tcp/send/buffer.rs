//! The send buffer: how much the application may queue, and when it is told to go on.
//!
//! Owns:    nothing; decides over the sender's `sndbuf` and what is queued.
//! Rules:   Linux `tcp_sndbuf_expand`, `tcp_should_expand_sndbuf`, `sk_stream_is_writeable`, `tcp_stream_memory_free`.
//! Differs: what is queued and unsent is charged as if each segment to come had been filled, however it was written.

use crate::sysctl::Sysctl;
use crate::tcp::context::Cx;
use crate::tcp::options::TcpOptions;
use crate::tcp::send::chrono::Limit;
use crate::tcp::send::cwnd::INIT_CWND;
use crate::tcp::send::{Phase, Sender};

/// What Linux charges beside the payload for each segment or super-segment it holds: the smallest head, `skb_shared_info` in it,
/// and the `sk_buff`.
const RECORD_COST: u64 = 832;
/// What Linux reckons beside the payload for a segment: headers and `skb_shared_info`, then `sk_buff`, bytes.
const SEGMENT_HEADROOM: u32 = 640;
const SK_BUFF_COST: u32 = 256;
/// Largest super-segment, bytes (Linux `sk_gso_max_size`).
const GSO_MAX: u32 = 65_535 - 192;
/// Super-segments that a write is followed through one by one.
const MOST_STEPS: u64 = 64;

/// What a write does to the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    /// Bytes it takes.
    pub(super) taken: usize,
    /// Bytes of the last super-segment then.
    pub(super) tail: u32,
}

impl Sender {
    /// Memory the send queue holds as Linux counts it, bytes (`sk_wmem_queued`).
    pub(crate) fn queued_bytes(&self) -> u64 {
        let tail = self.unsent_tail();
        let unsent = (self.unsent_payload() - tail).div_ceil(self.size_goal()) + u32::from(tail > 0);
        let ended = self.queue.record_ends_after(self.snd_nxt).len() as u64;
        let records = self.segments.count() as u64 + u64::from(unsent) + ended;
        u64::from(self.queue.len()) + records * RECORD_COST
    }

    /// Bytes of payload a super-segment is filled with (Linux `tcp_xmit_size_goal`).
    pub(super) fn size_goal(&self) -> u32 {
        let mss = u32::from(self.mss).max(1);
        self.segs_written_at_once(mss).min((GSO_MAX / mss).max(1)) * mss
    }

    /// Bytes the application may still add (send buffer, auto-tuned like Linux's up to `tcp_wmem[2]`).
    pub(crate) fn free_space(&self) -> usize {
        self.fill(usize::MAX, u32::MAX).taken
    }

    /// No super-segment may be begun (Linux `sk_stream_memory_free`): a slice that is queued whole is not taken.
    pub(crate) fn is_full(&self) -> bool {
        self.queued_bytes() >= u64::from(self.sndbuf)
    }

    /// Unsent bytes of the last super-segment written.
    fn unsent_tail(&self) -> u32 {
        self.queue.last_filled().min(self.unsent_payload())
    }

    /// What would become of `len` bytes written at once. Linux (`tcp_sendmsg_locked`) looks at the buffer and at
    /// `notsent_lowat` before each new super-segment, not before each byte; one that is full is sent as far as the windows let it.
    pub(super) fn fill(&self, len: usize, lowat: u32) -> Filled {
        let (goal, limit) = (u64::from(self.size_goal()), u64::from(self.sndbuf));
        let mut sendable = u64::from(self.sendable_now());
        let piece = u64::from(self.mss) * u64::from(self.gso_max_segs.clamp(1, 2));
        let (mut charged, mut unsent) = (self.queued_bytes(), u64::from(self.unsent_payload()));
        let mut tail = u64::from(self.unsent_tail());
        let (len, mut taken) = (len as u64, 0);
        while taken < len {
            if tail == 0 || tail >= goal {
                if charged >= limit || unsent >= u64::from(lowat) {
                    break;
                }
                if taken > MOST_STEPS * goal {
                    // Far from the limit: the rest needs no such care.
                    taken += (limit - charged).div_ceil(goal + RECORD_COST) * goal;
                    tail = if taken > len { len % goal } else { goal };
                    break;
                }
                (charged, tail) = (charged + RECORD_COST, 0);
            }
            let filled = (goal - tail).min(len - taken);
            (taken, charged, unsent, tail) =
                (taken + filled, charged + filled, unsent + filled, tail + filled);
            let sent = if tail == goal { sendable.min(unsent) } else { 0 };
            if sent > 0 {
                (sendable, unsent, tail) = (sendable - sent, unsent - sent, tail.min(unsent - sent));
                charged += sent.div_ceil(piece) * RECORD_COST;
                charged -= if tail == 0 { RECORD_COST } else { 0 };
            }
        }
        Filled { taken: taken.min(len) as usize, tail: tail as u32 }
    }

    /// Bytes of the last super-segment when a slice of `len` bytes has been queued whole.
    pub(super) fn filled_by_slice(&self, len: u32) -> u32 {
        let goal = self.size_goal();
        let total =
            u64::from(if self.unsent_tail() >= goal { 0 } else { self.unsent_tail() }) + u64::from(len);
        match (total % u64::from(goal)) as u32 {
            0 => goal,
            part => part,
        }
    }

    /// Bytes that would leave now if there were enough of them.
    fn sendable_now(&self) -> u32 {
        if !matches!(self.phase, Phase::Established) {
            return 0;
        }
        let by_cwnd = self.cwnd.window.snd_cwnd.saturating_sub(self.counts.in_flight());
        let window = self.wnd_end().since(self.snd_nxt);
        let by_window =
            if self.wnd_end().after(self.snd_nxt) { window / u32::from(self.mss).max(1) } else { 0 };
        by_cwnd.min(by_window) * u32::from(self.mss)
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
