//! The receiving half: what came in order and waits to be read, and the window that says how much more may come.
//!
//! Owns:    `rcv_nxt`, `rcv_wup`, `rcv_wnd`, `copied_seq`, the receive queue, the receive buffer's size.
//! Input:   in-order payload, reads, round-trip samples.
//! Output:  the window to advertise; data for the application.
//! Rules:   RFC 9293 3.8.6, RFC 7323. Linux: `__tcp_select_window`, `tcp_select_window`, `tcp_grow_window`,
//!          `tcp_rcv_space_adjust`, `tcp_select_initial_window`.
//! Differs: small payloads are copied out of their packet's buffer, so a slice never pins more than twice its bytes;
//!          what is charged is what Linux's packets cost (`memory`).
//! Not here: out-of-order data (`reorder`), when to acknowledge (`ack_policy`). Reading is in `read`.

mod memory;
mod read;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::observe::Counters;
use crate::sysctl::Sysctl;
use crate::tcp::options::TcpOptions;
use crate::tcp::receive::memory::Memory;
pub(crate) use crate::tcp::receive::memory::{COPY_MAX, Charge};
use crate::tcp::seq::SeqNum;
use crate::tcp::urgent::Mark;
use crate::time::{Duration, Instant};

/// Linux `TCP_INIT_CWND`, segments.
const INIT_CWND: u32 = 10;
/// Largest window shift (RFC 7323 2.3).
pub(crate) const MAX_WSCALE: u8 = 14;
/// Smallest and largest buffer that copied payload is gathered in, bytes.
const TAIL_MIN: usize = 512;
const TAIL_MAX: usize = 64 << 10;

/// The window a connection begins with (Linux `tcp_select_initial_window`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InitialWindow {
    /// Bytes; announced unscaled in the SYN.
    pub(crate) rcv_wnd: u32,
    /// Our shift, were scaling agreed on.
    pub(crate) wscale: u8,
    /// Upper bound of the window, bytes.
    pub(crate) clamp: u32,
}

impl InitialWindow {
    /// The window of a socket with these options (Linux `tcp_openreq_init_rwin`, `tcp_connect_init`).
    pub(crate) fn for_socket(options: &TcpOptions, mss: u32, wscale_ok: bool, sysctl: &Sysctl) -> Self {
        let rcvbuf = options.rcvbuf.unwrap_or(sysctl.tcp_rmem[1]);
        let full = window_from_space(rcvbuf);
        let mut clamp = options.window_clamp;
        // "limit the window selection if the user enforce a smaller rx buffer": so the shift is small too.
        if options.rcvbuf.is_some() && (clamp == 0 || clamp > full) {
            clamp = full;
        }
        Self::select(rcvbuf, clamp, mss, wscale_ok, sysctl)
    }

    /// `mss`: what windows are a multiple of, options subtracted.
    fn select(rcvbuf: u32, window_clamp: u32, mss: u32, wscale_ok: bool, sysctl: &Sysctl) -> Self {
        let clamp = if window_clamp == 0 { 65_535 << MAX_WSCALE } else { window_clamp };
        let mut space = window_from_space(rcvbuf).min(clamp);
        if space > mss {
            space -= space % mss;
        }
        let limit = if sysctl.tcp_workaround_signed_windows { 32_767 } else { 65_535 };
        let mut wscale = 0;
        if wscale_ok {
            let most = space.max(sysctl.tcp_rmem[2]).max(sysctl.rmem_max).min(clamp).max(1);
            wscale = (most.ilog2() as i32 - 15).clamp(0, i32::from(MAX_WSCALE)) as u8;
        }
        Self { rcv_wnd: space.min(limit), wscale, clamp: clamp.min(65_535 << wscale) }
    }
}

/// Share of a buffer that becomes window, in 1/256: Linux `TCP_DEFAULT_SCALING_RATIO`, until segments were seen.
const DEFAULT_RATIO: u8 = 128;

/// Linux `tcp_win_from_space` at the default scaling ratio.
fn window_from_space(space: u32) -> u32 {
    space / 2
}

fn window_at(space: u32, scaling_ratio: u8) -> u32 {
    (u64::from(space) * u64::from(scaling_ratio) / 256) as u32
}

/// The scaling ratio of a packet with `len` bytes of payload: payload to `truesize`.
fn ratio_of(len: u32, truesize: u32) -> u8 {
    (u64::from(len) * 256 / u64::from(truesize.max(1))).clamp(1, 255) as u8
}

/// The receiving half of one connection. With nothing queued it owns no buffer.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) rcv_nxt: SeqNum,
    /// `rcv_nxt` when we last sent an ACK.
    pub(crate) rcv_wup: SeqNum,
    /// Window advertised at `rcv_wup`, bytes.
    pub(crate) rcv_wnd: u32,
    /// Our window shift; 0 also when scaling was not agreed on.
    pub(crate) rcv_wscale: u8,
    /// Next byte the application will read.
    pub(crate) copied_seq: SeqNum,
    /// The peer's FIN was taken (it occupies `rcv_nxt - 1`).
    pub(crate) fin: bool,
    /// Where urgent data is.
    pub(crate) mark: Mark,
    rcvbuf: u32,
    rcvbuf_locked: bool,
    /// A window of 0 is advertised, whatever room there is.
    held: bool,
    /// Linux `scaling_ratio`.
    scaling_ratio: u8,
    pub(crate) rcv_ssthresh: u32,
    window_clamp: u32,
    /// Bytes readable.
    queued: u32,
    memory: Memory,
    queue: VecDeque<Bytes>,
    /// Gathers payloads too small to keep their packet's buffer alive.
    tail: BytesMut,
    tail_size: u32,
    rtt: ReceiverRtt,
    space: SpaceProbe,
}

/// The receiver's own estimate of the round trip (Linux `rcv_rtt_est`).
#[derive(Debug, Default)]
struct ReceiverRtt {
    /// Eight times the estimate, microseconds; 0: none.
    rtt8_us: u32,
    window_end: SeqNum,
    window_since: Option<Instant>,
    last_tsecr: u32,
}

/// Buffer auto-tuning (Linux `rcvq_space`).
#[derive(Debug, Default)]
struct SpaceProbe {
    /// Most bytes the application read in a round trip.
    space: u32,
    seq: SeqNum,
    since: Instant,
}

impl Receiver {
    /// Before the peer's SYN is known: only the window to announce.
    pub(crate) fn new(initial: InitialWindow, rcvbuf: u32, rcvbuf_locked: bool) -> Self {
        Self {
            rcv_nxt: SeqNum(0),
            rcv_wup: SeqNum(0),
            rcv_wnd: initial.rcv_wnd,
            rcv_wscale: initial.wscale,
            copied_seq: SeqNum(0),
            fin: false,
            mark: Mark::default(),
            rcvbuf,
            rcvbuf_locked,
            held: false,
            scaling_ratio: DEFAULT_RATIO,
            rcv_ssthresh: initial.rcv_wnd,
            window_clamp: initial.clamp,
            queued: 0,
            memory: Memory::default(),
            queue: VecDeque::new(),
            tail: BytesMut::new(),
            tail_size: 0,
            rtt: ReceiverRtt::default(),
            space: SpaceProbe::default(),
        }
    }

    /// Linux `tcp_win_from_space`.
    pub(crate) fn window_of(&self, space: u32) -> u32 {
        window_at(space, self.scaling_ratio)
    }

    /// Linux `tcp_measure_rcv_mss`: a packet with `len` bytes of payload showed another segment size, so the buffer holds
    /// another share of payload.
    pub(crate) fn on_rcv_mss(&mut self, len: u32, charge: Charge) {
        let ratio = ratio_of(len, charge.truesize);
        if ratio == self.scaling_ratio {
            return;
        }
        self.scaling_ratio = ratio;
        // Linux tcp_set_window_clamp().
        let clamp = self.window_of(self.rcvbuf);
        if clamp < self.window_clamp {
            self.rcv_ssthresh = self.rcv_ssthresh.min(clamp);
        } else {
            self.rcv_ssthresh = self.rcv_ssthresh.max(self.rcv_wnd.min(clamp));
        }
        self.window_clamp = clamp;
        self.space.space = self.space.space.min(clamp);
    }

    /// The peer's SYN at `irs` is known.
    pub(crate) fn synchronise(&mut self, irs: SeqNum) {
        self.rcv_nxt = irs + 1;
        self.rcv_wup = irs + 1;
        self.copied_seq = irs + 1;
    }

    /// The peer did not offer window scaling.
    pub(crate) fn disable_scaling(&mut self) {
        self.rcv_wscale = 0;
        self.window_clamp = self.window_clamp.min(65_535);
    }

    /// Linux `tcp_init_buffer_space`: the connection is established.
    pub(crate) fn establish(&mut self, advmss: u32, now: Instant, sysctl: &Sysctl) {
        let most = self.window_of(self.rcvbuf);
        if self.window_clamp >= most {
            self.window_clamp = most;
            if sysctl.tcp_app_win != 0 && most > 4 * advmss {
                let reserved = most.checked_shr(u32::from(sysctl.tcp_app_win)).unwrap_or(0);
                self.window_clamp = (most - reserved).max(4 * advmss);
            }
        }
        // "Force reservation of one segment."
        if sysctl.tcp_app_win != 0 && self.window_clamp > 2 * advmss && self.window_clamp + advmss > most {
            self.window_clamp = (most.saturating_sub(advmss)).max(2 * advmss);
        }
        self.rcv_ssthresh = self.rcv_ssthresh.min(self.window_clamp);
        self.space = SpaceProbe {
            space: self.rcv_ssthresh.min(self.rcv_wnd).min(INIT_CWND * advmss),
            seq: self.copied_seq,
            since: now,
        };
    }

    /// Linux `tcp_receive_window`: what is left of the advertised window, bytes.
    pub(crate) fn receive_window(&self) -> u32 {
        let end = self.rcv_wup + self.rcv_wnd;
        if end.before(self.rcv_nxt) { 0 } else { end.since(self.rcv_nxt) }
    }

    /// Bytes the buffer still takes, as window (Linux `tcp_space`); `ofo`: out-of-order bytes charged.
    fn free_space(&self, ofo: u32) -> u32 {
        self.window_of(self.rcvbuf.saturating_sub(self.memory.total()).saturating_sub(ofo))
    }

    /// Linux `tcp_can_ingest`: the queues are within the buffer, so one more packet is taken, whatever its size.
    pub(crate) fn can_ingest(&self, ofo: u32) -> bool {
        self.charged(ofo) <= u64::from(self.rcvbuf)
    }

    fn charged(&self, ofo: u32) -> u64 {
        u64::from(self.memory.total()) + u64::from(ofo)
    }

    /// Linux `tcp_clamp_window`: the queues are over the buffer. It grows to hold them, if it may.
    pub(crate) fn clamp_window(&mut self, ofo: u32, advmss: u32, may_grow: bool, sysctl: &Sysctl) {
        if self.rcvbuf < sysctl.tcp_rmem[2] && !self.rcvbuf_locked && may_grow {
            self.rcvbuf = self.charged(ofo).min(u64::from(sysctl.tcp_rmem[2])) as u32;
        }
        if !self.can_ingest(ofo) {
            self.rcv_ssthresh = self.window_clamp.min(2 * advmss);
        }
    }

    /// Linux `tcp_collapse` of the receive queue. How many packets it copied together.
    pub(crate) fn collapse(&mut self) -> usize {
        let ratio = self.scaling_ratio;
        self.memory.collapse(|space| window_at(space, ratio))
    }

    /// In-order payload. `truesize`: bytes of the buffer it keeps alive; `joins`: it may go behind the packet before it. True
    /// when it did.
    pub(crate) fn push(
        &mut self,
        payload: Bytes,
        truesize: u32,
        charge: Charge,
        joins: bool,
        counters: &mut Counters,
    ) -> bool {
        let len = payload.len();
        let joined = self.memory.push(len as u32, charge, joins);
        counters.tcp_rcv_coalesce += u64::from(joined);
        if len == 0 {
            return joined;
        }
        self.queued += len as u32;
        self.rcv_nxt += len as u32;
        // A payload smaller than half of its buffer would pin more than twice its bytes: copied.
        if len * 2 < truesize as usize {
            if self.tail.capacity() - self.tail.len() < len {
                self.seal_tail();
                let size =
                    len.next_power_of_two().max((self.tail_size as usize * 2).clamp(TAIL_MIN, TAIL_MAX));
                self.tail_size = size as u32;
                self.tail = BytesMut::with_capacity(size);
            }
            self.tail.extend_from_slice(&payload);
        } else {
            self.seal_tail();
            self.queue.push_back(payload);
        }
        joined
    }

    /// Memory that is reserved and holds nothing, `elsewhere` charged in other queues.
    pub(crate) fn forward_alloc(&self, elsewhere: u64) -> u32 {
        self.memory.forward_alloc(elsewhere)
    }

    /// A page was reserved for a packet that went behind another one: the next ones find it.
    pub(crate) fn keep_reserve(&mut self) {
        self.memory.keep_reserve();
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back(self.tail.split().freeze());
        }
    }

    /// The FIN at `rcv_nxt` is taken.
    pub(crate) fn take_fin(&mut self) {
        self.rcv_nxt += 1;
        self.fin = true;
    }

    /// Linux `__tcp_select_window`. The flag: the buffer is more than half full (quick ACKs end).
    pub(crate) fn select_window(&self, rcv_mss: u32, ofo: u32, sysctl: &Sysctl) -> (u32, bool) {
        let allowed = self.window_of(self.rcvbuf);
        let full = self.window_clamp.min(allowed);
        let mss = rcv_mss.min(full);
        if mss == 0 {
            return (0, false);
        }
        let mut free = self.free_space(ofo);
        let unit = 1_u32 << self.rcv_wscale;
        let half_full = free < full / 2;
        if sysctl.tcp_shrink_window && self.rcv_wscale > 0 {
            // Linux: "new window should always be an exact multiple of scaling factor", and may shrink.
            free &= !(unit - 1);
            let half_full = free < full / 2;
            if half_full && (free < allowed / 16 || free < mss || free < unit) {
                return (0, true);
            }
            if free > self.rcv_ssthresh {
                // "For this case, we ALIGN "up" (increase free_space) because we know free_space is not zero here".
                free = self.rcv_ssthresh.next_multiple_of(unit);
            }
            return (free, half_full);
        }
        if half_full {
            // "free_space might become our new window, make sure we don't increase it due to wscale."
            free &= !(unit - 1);
            // "if free space is less than mss estimate, or is below 1/16th of the maximum allowed, try to move to zero-window"
            if free < allowed / 16 || free < mss {
                return (0, true);
            }
        }
        free = free.min(self.rcv_ssthresh);
        if self.rcv_wscale > 0 {
            // "Advertise enough space so that it won't get scaled away."
            return (free.next_multiple_of(unit), half_full);
        }
        // "Get the largest window that is a nice multiple of mss." (receiver side silly-window avoidance)
        let mut window = self.rcv_wnd;
        if i64::from(window) <= i64::from(free) - i64::from(mss) || window > free {
            window = free - free % mss;
        } else if mss == full && free > window + full / 2 {
            window = free;
        }
        (window, half_full)
    }

    /// Linux `tcp_select_window`: settles the window of a segment about to leave. Gives the header field, already shifted.
    pub(crate) fn advertise(
        &mut self,
        rcv_mss: u32,
        ofo: u32,
        no_memory: bool,
        sysctl: &Sysctl,
        counters: &mut Counters,
    ) -> (u16, bool) {
        let old_window = self.rcv_wnd;
        if no_memory {
            self.rcv_wnd = 0;
            self.rcv_wup = self.rcv_nxt;
            if old_window != 0 {
                counters.tcp_to_zero_window_adv += 1;
            }
            return (0, true);
        }
        let current = self.receive_window();
        if self.held {
            // What was offered is still taken (RFC 9293 3.8.6: "SHOULD NOT shrink the window"): only the offer ends.
            (self.rcv_wnd, self.rcv_wup) = (current, self.rcv_nxt);
            return (0, true);
        }
        let (mut window, half_full) = self.select_window(rcv_mss, ofo, sysctl);
        if window < current && !(sysctl.tcp_shrink_window && self.rcv_wscale > 0) {
            // "Never shrink the offered window"
            if window == 0 {
                counters.tcp_want_zero_window_adv += 1;
            }
            window = current.next_multiple_of(1 << self.rcv_wscale);
        }
        self.rcv_wnd = window;
        self.rcv_wup = self.rcv_nxt;
        let most = if self.rcv_wscale == 0 && sysctl.tcp_workaround_signed_windows {
            32_767
        } else {
            65_535_u32 << self.rcv_wscale
        };
        let field = (window.min(most) >> self.rcv_wscale) as u16;
        match (old_window, field) {
            (0, 1..) => counters.tcp_from_zero_window_adv += 1,
            (1.., 0) => counters.tcp_to_zero_window_adv += 1,
            _ => {}
        }
        (field, half_full)
    }

    /// Advertises 0 from now on, or again what there is. True when that is a change.
    pub(crate) fn hold(&mut self, held: bool, counters: &mut Counters) -> bool {
        if core::mem::replace(&mut self.held, held) == held {
            return false;
        }
        if self.receive_window() > 0 {
            let counter = if held {
                &mut counters.tcp_to_zero_window_adv
            } else {
                &mut counters.tcp_from_zero_window_adv
            };
            *counter += 1;
        }
        true
    }

    /// The window is held at 0.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Linux `tcp_grow_window`: good data widens the window's slow-start limit. True when it did.
    pub(crate) fn grow_window(
        &mut self,
        len: u32,
        charge: Charge,
        advmss: u32,
        rcv_mss: u32,
        ofo: u32,
        sysctl: &Sysctl,
    ) -> bool {
        let room = self.window_clamp.min(self.free_space(ofo)).saturating_sub(self.rcv_ssthresh);
        if room == 0 {
            return false;
        }
        // "Increase window, if skb with such overhead will fit to rcvbuf in future."
        let mut overhead = self.window_of(charge.truesize);
        let mut growth = 2 * advmss;
        if overhead > len {
            // Linux __tcp_grow_window(): small segments widen it only as long as it is small.
            let mut window = self.window_of(sysctl.tcp_rmem[2]) / 2;
            overhead /= 2;
            while overhead > len && self.rcv_ssthresh <= window {
                overhead /= 2;
                window /= 2;
            }
            if self.rcv_ssthresh > window {
                return false;
            }
            growth = 2 * rcv_mss;
        }
        self.rcv_ssthresh += room.min(growth.max(2 * len));
        true
    }

    /// Linux `tcp_rcv_rtt_measure`: without timestamps, a window's worth of data takes a round trip.
    pub(crate) fn measure_rtt_by_window(&mut self, now: Instant) {
        if let Some(since) = self.rtt.window_since {
            if self.rcv_nxt.before(self.rtt.window_end) {
                return;
            }
            let sample = now.saturating_since(since).as_micros().clamp(1, u128::from(u32::MAX / 8)) as u32;
            self.update_rtt(sample, true);
        }
        self.rtt.window_end = self.rcv_nxt + self.rcv_wnd;
        self.rtt.window_since = Some(now);
    }

    /// Linux `tcp_rcv_rtt_measure_ts`: a full segment echoes when we sent. `ts_now`, `tsecr`: milliseconds.
    pub(crate) fn measure_rtt_by_echo(&mut self, tsecr: u32, ts_now: u32, len: u32, rcv_mss: u32) {
        if tsecr == self.rtt.last_tsecr || tsecr == 0 || len < rcv_mss {
            return;
        }
        self.rtt.last_tsecr = tsecr;
        let elapsed = ts_now.wrapping_sub(tsecr);
        if elapsed < i32::MAX as u32 / (1000 * 8) {
            self.update_rtt(elapsed.max(1) * 1000, false);
        }
    }

    fn update_rtt(&mut self, sample_us: u32, by_window: bool) {
        let sample8 = sample_us.saturating_mul(8);
        if self.rtt.rtt8_us == 0 || sample8 < self.rtt.rtt8_us {
            self.rtt.rtt8_us = sample8;
        } else if !by_window {
            self.rtt.rtt8_us = self.rtt.rtt8_us - self.rtt.rtt8_us / 8 + sample_us;
        }
    }

    /// The receiver's estimate of the round trip.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        (self.rtt.rtt8_us != 0).then(|| Duration::from_micros(u64::from(self.rtt.rtt8_us / 8)))
    }

    /// Linux `tcp_rcv_space_adjust`, after the application read: a buffer that was emptied faster than it filled grows.
    pub(crate) fn adjust_space(&mut self, now: Instant, ofo_span: u32, sysctl: &Sysctl) {
        let Some(rtt) = self.rtt() else { return };
        if now.saturating_since(self.space.since) < rtt {
            return;
        }
        let copied =
            self.copied_seq.since(self.space.seq).saturating_sub(self.rcv_nxt.since(self.copied_seq));
        if copied > self.space.space {
            self.grow_buffer(copied, ofo_span, sysctl);
        }
        self.space.seq = self.copied_seq;
        self.space.since = now;
    }

    /// Data came ahead of a hole: the buffer has to hold it beside what is read in a round trip (Linux `tcp_data_queue_ofo`).
    pub(crate) fn grow_for_holes(&mut self, ofo_span: u32, sysctl: &Sysctl) {
        self.grow_buffer(self.space.space, ofo_span, sysctl);
    }

    /// Linux `tcp_rcvbuf_grow`.
    fn grow_buffer(&mut self, copied: u32, ofo_span: u32, sysctl: &Sysctl) {
        let old = u64::from(core::mem::replace(&mut self.space.space, copied).max(1));
        if !sysctl.tcp_moderate_rcvbuf || self.rcvbuf_locked {
            return;
        }
        // "slow start: allow the sender to double its rate."
        let mut window = u64::from(copied) * 2;
        window += 2 * (window * u64::from(copied).saturating_sub(old) / old);
        window += u64::from(ofo_span);
        let space = window * 256 / u64::from(self.scaling_ratio);
        let rcvbuf = space.min(u64::from(sysctl.tcp_rmem[2])) as u32;
        if rcvbuf > self.rcvbuf {
            self.rcvbuf = rcvbuf;
            self.window_clamp = self.window_of(rcvbuf);
        }
    }

    /// `SO_RCVBUF` on a live connection: sets and locks.
    pub(crate) fn set_rcvbuf(&mut self, rcvbuf: u32) {
        self.rcvbuf = rcvbuf;
        self.rcvbuf_locked = true;
    }

    /// `SO_RCVLOWAT` on a live connection (Linux `tcp_set_rcvlowat`): at most half of what the buffer may become, and the
    /// buffer is made large enough for it. Gives what it is.
    pub(crate) fn make_room_for(&mut self, lowat: u32, sysctl: &Sysctl) -> u32 {
        let most = if self.rcvbuf_locked { self.rcvbuf } else { sysctl.tcp_rmem[2] };
        let lowat = lowat.min(most / 2).max(1);
        let space = u64::from(lowat) * 256 / u64::from(self.scaling_ratio);
        if !self.rcvbuf_locked && space > u64::from(self.rcvbuf) {
            self.rcvbuf = space.min(u64::from(u32::MAX)) as u32;
            self.window_clamp = self.window_of(self.rcvbuf);
        }
        lowat
    }

    /// The receive buffer, bytes (Linux `sk_rcvbuf`).
    pub(crate) fn rcvbuf(&self) -> u32 {
        self.rcvbuf
    }

    /// `TCP_WINDOW_CLAMP` on a live connection.
    pub(crate) fn set_window_clamp(&mut self, clamp: u32) {
        self.window_clamp = clamp;
        self.rcv_ssthresh = self.rcv_ssthresh.min(clamp).max(self.rcv_wnd.min(clamp));
    }

    pub(crate) fn window_clamp(&self) -> u32 {
        self.window_clamp
    }

    /// `tcpi_rcv_space`.
    pub(crate) fn space(&self) -> u32 {
        self.space.space
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(rcvbuf: u32) -> Receiver {
        let initial = InitialWindow::select(rcvbuf, 0, 1460, true, &Sysctl::default());
        let mut receiver = Receiver::new(initial, rcvbuf, false);
        receiver.synchronise(SeqNum(100));
        receiver.establish(1460, Instant::ZERO, &Sysctl::default());
        receiver
    }

    /// Specification 13.7.
    #[test]
    fn first_window_and_shift_as_linux() {
        let sysctl = Sysctl::default();
        let of = |mss, rmem2: u32, rmem_max: u32| {
            let sysctl = Sysctl { tcp_rmem: [4096, 131_072, rmem2], rmem_max, ..sysctl.clone() };
            InitialWindow::select(131_072, 0, mss, true, &sysctl)
        };
        assert_eq!(of(1460, 32 << 20, 4 << 20).rcv_wnd, 64_240);
        assert_eq!(of(1448, 32 << 20, 4 << 20).rcv_wnd, 65_160);
        assert_eq!(of(1460, 32 << 20, 4 << 20).wscale, 10);
        assert_eq!(of(1460, 6 << 20, 212_992).wscale, 7);
        assert_eq!(of(1460, 65_536, 65_536).wscale, 1);
        assert_eq!(of(1460, 131_072, 212_992).wscale, 2);
    }

    #[test]
    fn a_locked_buffer_bounds_the_shift() {
        let options = TcpOptions { rcvbuf: Some(20_000), ..TcpOptions::default() };
        let window = InitialWindow::for_socket(&options, 1460, true, &Sysctl::default());
        assert_eq!((window.rcv_wnd, window.wscale), (8760, 0));
    }

    #[test]
    fn window_closes_when_nobody_reads_and_never_shrinks() {
        let mut receiver = receiver(131_072);
        let (sysctl, mut counters) = (Sysctl::default(), Counters::default());
        let mut right_edge = receiver.rcv_wup + receiver.rcv_wnd;
        for _ in 0..200 {
            let len = receiver.receive_window().min(1460);
            if len == 0 {
                break;
            }
            receiver.push(Bytes::from(vec![0; len as usize]), len, Charge::of(len + 40), true, &mut counters);
            receiver.advertise(1460, 0, false, &sysctl, &mut counters);
            let edge = receiver.rcv_wup + receiver.rcv_wnd;
            assert!(edge.at_or_after(right_edge), "the right edge moved left");
            right_edge = edge;
        }
        assert_eq!(receiver.receive_window(), 0);
        assert_eq!(counters.tcp_to_zero_window_adv, 1);
        let queued = receiver.readable();
        // As in Linux, rounding up to the window's unit lets the edge creep with every ACK; the buffer bounds it.
        assert!(queued <= 131_072, "{queued} bytes queued");
        receiver.pop(usize::MAX, false);
        while receiver.pop(usize::MAX, false).is_some() {}
        receiver.advertise(1460, 0, false, &sysctl, &mut counters);
        assert!(receiver.receive_window() > 60_000);
        assert_eq!(counters.tcp_from_zero_window_adv, 1);
    }

    #[test]
    fn small_payloads_do_not_pin_their_packets() {
        let mut receiver = receiver(131_072);
        let mut counters = Counters::default();
        let packet = Bytes::from(vec![7; 65_536]);
        for n in 0..100 {
            receiver.push(packet.slice(n * 10..n * 10 + 40), 65_536, Charge::of(80), true, &mut counters);
        }
        assert!(packet.is_unique(), "every slice was copied");
        let mut buf = [0; 8000];
        assert_eq!(receiver.read(&mut buf, false), 4000);
        assert_eq!(receiver.tail.capacity(), 0, "no buffer is kept when all is read");
        receiver.push(packet.slice(..40_000), 65_536, Charge::of(40_040), true, &mut counters);
        assert!(!packet.is_unique(), "a large slice is shared");
    }

    #[test]
    fn buffer_grows_with_the_reader() {
        let mut receiver = receiver(131_072);
        let (sysctl, mut counters) = (Sysctl::default(), Counters::default());
        for round in 1..40_u64 {
            let now = Instant::from_millis(round * 10);
            receiver.measure_rtt_by_window(now);
            let mut left = receiver.receive_window();
            while left > 0 {
                let len = left.min(1448);
                receiver.push(
                    Bytes::from(vec![0; len as usize]),
                    len,
                    Charge::of(len + 40),
                    true,
                    &mut counters,
                );
                receiver.grow_window(len, Charge::of(1500), 1448, 1448, 0, &Sysctl::default());
                left -= len;
            }
            while receiver.pop(usize::MAX, false).is_some() {}
            receiver.adjust_space(now + Duration::from_millis(9), 0, &sysctl);
            receiver.advertise(1448, 0, false, &sysctl, &mut counters);
        }
        assert!(receiver.rcv_wnd > 8 << 20, "window is {} bytes", receiver.rcv_wnd);
    }
}
