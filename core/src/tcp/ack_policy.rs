//! When to acknowledge: at once, delayed, or compressed.
//!
//! Owns:    Linux's `icsk_ack` (quick credit, ping-pong, `ato`, pending bits) and SACK compression.
//! Input:   arriving data, sent segments, reads, its deadline.
//! Output:  `is_owed_now`: a pure ACK must leave; `deadline`: one may have to leave later.
//! Rules:   RFC 9293 3.8.6.3, RFC 5681 4.2. Linux: `tcp_event_data_recv`, `__tcp_ack_snd_check`,
//!          `tcp_send_delayed_ack`, `tcp_delack_timer_handler`, `tcp_event_ack_sent`.
//! Not here: what the ACK says (`output`), the window (`receive`).

use crate::time::{Duration, Instant};
use crate::wire::segment::Flags;

/// Linux `TCP_ATO_MIN` and `TCP_DELACK_MIN`, 40 ms.
const ATO_MIN: Duration = Duration::from_millis(40);
/// Linux `TCP_DELACK_MAX`, 200 ms: the default of `TCP_DELACK_MAX_US`.
const DELACK_MAX: Duration = Duration::from_millis(200);
/// What "the next tick of the timer wheel" is here, 1 ms.
const TICK: Duration = Duration::from_millis(1);
/// Linux `TCP_MAX_QUICKACKS`.
pub(crate) const MAX_QUICKACKS: u8 = 16;
/// Duplicate ACKs for one `rcv_nxt` that are never compressed (Linux `TCP_FASTRETRANS_THRESH`).
const UNCOMPRESSED_DUPACKS: u8 = 3;
/// Linux `TCP_MSS_DEFAULT`, bytes.
const MSS_DEFAULT: u32 = crate::tcp::mss::MSS_DEFAULT as u32;
/// Linux `TCP_MIN_MSS`, bytes.
const MIN_MSS: u32 = 88;
/// Linux `TCP_REMNANT`: a segment with one of these may end what was written.
const REMNANT: Flags = Flags(Flags::FIN.0 | Flags::URG.0 | Flags::SYN.0 | Flags::PSH.0);

/// The acknowledgment engine of one connection.
#[derive(Debug)]
pub(crate) struct AckPolicy {
    /// An ACK is wanted, now or later (`ICSK_ACK_SCHED`).
    scheduled: bool,
    /// It must leave now (`ICSK_ACK_NOW`, or a decision to send).
    now: bool,
    /// And alone: what waits to be sent goes behind it.
    alone: bool,
    /// A small or pushed segment was received (`ICSK_ACK_PUSHED`), and another one (`ICSK_ACK_PUSHED2`).
    pushed: bool,
    pushed_twice: bool,
    /// The data of the last segment could not be queued: the ACK announces a window of 0 (`ICSK_ACK_NOMEM`).
    pub(crate) no_memory: bool,
    quick: u8,
    pingpong: u8,
    dup_acks: u8,
    compressed: u8,
    /// Zero until the first data.
    ato: Duration,
    /// Estimate of the peer's segment size, bytes (`rcv_mss`).
    rcv_mss: u32,
    last_seg_size: u32,
    last_data: Instant,
    delack_at: Instant,
    compressed_at: Instant,
    compressed_rcv_nxt: u32,
}

/// What the policy has to know about the rest of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckEnv {
    pub(crate) now: Instant,
    pub(crate) rto: Duration,
    pub(crate) srtt: Option<Duration>,
    /// `tcp_pingpong_thresh`.
    pub(crate) pingpong_thresh: u8,
    /// `TCP_DELACK_MAX_US` of the socket.
    pub(crate) delack_max: Option<Duration>,
    pub(crate) rto_min: Duration,
    /// Our advertised window, bytes.
    pub(crate) rcv_wnd: u32,
}

/// Bytes received and not acknowledged, and what may hold the ACK back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unacknowledged {
    pub(crate) rcv_nxt: u32,
    /// `rcv_nxt - rcv_wup`.
    pub(crate) bytes: u32,
    /// Bytes waiting for the application are fewer than `SO_RCVLOWAT`, or the window would not shrink.
    pub(crate) window_holds: bool,
    /// The out-of-order queue is not empty.
    pub(crate) has_holes: bool,
    pub(crate) sack: bool,
    /// `tcp_comp_sack_nr`, `tcp_comp_sack_delay_ns`.
    pub(crate) comp_nr: u8,
    pub(crate) comp_delay: Duration,
    pub(crate) rcv_rtt: Option<Duration>,
}

impl AckPolicy {
    pub(crate) fn new() -> Self {
        Self {
            scheduled: false,
            now: false,
            alone: false,
            pushed: false,
            pushed_twice: false,
            no_memory: false,
            quick: 0,
            pingpong: 0,
            dup_acks: 0,
            compressed: 0,
            ato: Duration::ZERO,
            rcv_mss: MSS_DEFAULT,
            last_seg_size: 0,
            last_data: Instant::ZERO,
            delack_at: Instant::FAR_FUTURE,
            compressed_at: Instant::FAR_FUTURE,
            compressed_rcv_nxt: 0,
        }
    }

    /// Linux `tcp_initialize_rcv_mss`.
    pub(crate) fn init_rcv_mss(&mut self, advmss: u32, mss: u32, rcv_wnd: u32) {
        self.rcv_mss = advmss.min(mss).min(rcv_wnd / 2).clamp(MIN_MSS, MSS_DEFAULT);
    }

    /// Before the peer's SYN is seen: Linux `TCP_MIN_MSS`.
    pub(crate) fn expect_least(&mut self) {
        self.rcv_mss = MIN_MSS;
    }

    pub(crate) fn rcv_mss(&self) -> u32 {
        self.rcv_mss
    }

    pub(crate) fn ato(&self) -> Duration {
        self.ato
    }

    /// When data last arrived, for `tcpi_last_data_recv` and keepalive.
    pub(crate) fn last_data(&self) -> Instant {
        self.last_data
    }

    pub(crate) fn set_last_data(&mut self, now: Instant) {
        self.last_data = now;
    }

    /// A pure ACK must leave now.
    pub(crate) fn is_owed_now(&self) -> bool {
        self.now
    }

    /// It must leave before any data.
    pub(crate) fn is_owed_alone(&self) -> bool {
        self.alone
    }

    pub(crate) fn is_scheduled(&self) -> bool {
        self.scheduled
    }

    /// An ACK that was held back leaves after all (Linux `tcp_sack_compress_send_ack`). False: none was.
    pub(crate) fn release(&mut self) -> bool {
        let held = self.compressed > 0;
        // This one is sent, not withheld.
        self.compressed = self.compressed.saturating_sub(1);
        held
    }

    /// Whatever else: acknowledge now (Linux `tcp_send_ack`). One that no data has scheduled costs no quick credit.
    pub(crate) fn send_now(&mut self) {
        self.now = true;
    }

    /// The same in a segment of its own, which data that may leave as well does not replace (Linux: `tcp_send_ack` comes before
    /// `tcp_data_snd_check`).
    pub(crate) fn send_alone(&mut self) {
        self.send_now();
        self.alone = true;
    }

    /// The ACK of a SYN-ACK may ride on data to come, for as long as any ACK may wait (Linux `TCP_DELACK_MAX`).
    pub(crate) fn wait_for_data(&mut self, now: Instant) {
        self.scheduled = true;
        self.delack_at = now + DELACK_MAX;
    }

    /// An ACK is wanted; `on_segment_end` decides when (Linux `inet_csk_schedule_ack`).
    pub(crate) fn schedule(&mut self) {
        self.scheduled = true;
    }

    pub(crate) fn in_pingpong(&self, thresh: u8) -> bool {
        self.pingpong >= thresh
    }

    pub(crate) fn enter_pingpong(&mut self, thresh: u8) {
        self.pingpong = thresh;
    }

    pub(crate) fn exit_pingpong(&mut self) {
        self.pingpong = 0;
    }

    /// Linux `tcp_enter_quickack_mode`.
    pub(crate) fn enter_quickack(&mut self, max: u8, rcv_wnd: u32) {
        self.incr_quickack(max, rcv_wnd);
        self.exit_pingpong();
        self.ato = ATO_MIN;
    }

    /// Linux `tcp_incr_quickack`.
    fn incr_quickack(&mut self, max: u8, rcv_wnd: u32) {
        // "if (quickacks == 0) quickacks = 2".
        let credit = match rcv_wnd / (2 * self.rcv_mss.max(1)) {
            0 => 2,
            credit => credit.min(u32::from(max)) as u8,
        };
        self.quick = self.quick.max(credit);
    }

    /// The receive buffer is more than half full: no more quick ACKs (Linux `__tcp_select_window`).
    pub(crate) fn clear_quick(&mut self) {
        self.quick = 0;
    }

    /// The window grew: at least one quick ACK tells it (Linux `tcp_grow_window`).
    pub(crate) fn quick_once(&mut self) {
        self.quick |= 1;
    }

    /// Linux `tcp_event_data_recv`, after `measure_rcv_mss`: data arrived in order.
    pub(crate) fn on_data(&mut self, env: &AckEnv) {
        self.scheduled = true;
        if self.ato.is_zero() {
            // "The _first_ data packet received, initialize delayed ACK engine."
            self.incr_quickack(MAX_QUICKACKS, env.rcv_wnd);
            self.ato = ATO_MIN;
        } else {
            let gap = env.now.saturating_since(self.last_data);
            if gap <= ATO_MIN / 2 {
                self.ato = self.ato / 2 + ATO_MIN / 2;
            } else if gap < self.ato {
                self.ato = (self.ato / 2 + gap).min(env.rto);
            } else if gap > env.rto {
                // "Too long gap. Apparently sender failed to restart window, so that we will send ACKs quickly."
                self.incr_quickack(MAX_QUICKACKS, env.rcv_wnd);
            }
        }
        self.last_data = env.now;
    }

    /// Linux `tcp_measure_rcv_mss`: `seg_len` bytes a wire segment behind `header_len` of TCP; `own_len`: of TCP in what we send.
    pub(crate) fn measure_rcv_mss(
        &mut self,
        seg_len: u32,
        header_len: u32,
        own_len: u32,
        flags: Flags,
        advmss: u32,
    ) {
        let last = core::mem::take(&mut self.last_seg_size);
        if seg_len >= self.rcv_mss {
            self.rcv_mss = seg_len.min(advmss).max(1);
            self.pushed |= flags.psh();
            return;
        }
        // "len" is invariant segment length, including TCP header: SACK blocks take from the payload.
        let len = seg_len + header_len;
        if len >= MSS_DEFAULT + 20 || (len >= MIN_MSS + 20 && !flags.intersects(REMNANT)) {
            let len = len.saturating_sub(own_len);
            self.last_seg_size = len;
            if len == last {
                self.rcv_mss = len;
                return;
            }
        }
        self.pushed_twice |= self.pushed;
        self.pushed = true;
    }

    /// Linux `__tcp_ack_snd_check`, once the segment is processed.
    pub(crate) fn on_segment_end(&mut self, un: &Unacknowledged, env: &AckEnv) {
        if !self.scheduled || self.now {
            return;
        }
        // "More than one full frame received... and right edge of window advances far enough."
        if (un.bytes > self.rcv_mss && un.window_holds)
            || (self.quick > 0 && !self.in_pingpong(env.pingpong_thresh))
        {
            self.now = true;
            return;
        }
        if !un.has_holes {
            self.delay(env);
            return;
        }
        self.compress(un, env.now);
    }

    /// Out-of-order data: immediate duplicate ACKs, then compressed ones.
    fn compress(&mut self, un: &Unacknowledged, now: Instant) {
        if !un.sack || self.compressed >= un.comp_nr {
            self.now = true;
            return;
        }
        if self.compressed_rcv_nxt != un.rcv_nxt {
            self.compressed_rcv_nxt = un.rcv_nxt;
            self.dup_acks = 0;
        }
        if self.dup_acks < UNCOMPRESSED_DUPACKS {
            self.dup_acks += 1;
            self.now = true;
            return;
        }
        self.compressed += 1;
        if !self.compressed_at.is_armed() {
            // Linux: "compress ack timer : 5 % of rtt, but no more than tcp_comp_sack_delay_ns".
            let delay = un.rcv_rtt.map_or(un.comp_delay, |rtt| (rtt / 20).min(un.comp_delay));
            self.compressed_at = now + delay;
        }
    }

    /// Linux `tcp_send_delayed_ack`.
    fn delay(&mut self, env: &AckEnv) {
        // Before the first data `ato` is zero: the ACK of a lone FIN leaves with the next tick.
        let mut ato = self.ato.max(TICK);
        if ato > ATO_MIN {
            let mut max_ato = Duration::from_millis(500);
            if self.in_pingpong(env.pingpong_thresh) || self.pushed {
                max_ato = DELACK_MAX;
            }
            if let Some(srtt) = env.srtt {
                max_ato = max_ato.min(srtt.max(ATO_MIN));
            }
            ato = ato.min(max_ato);
        }
        // Linux `tcp_delack_max`: one jiffy (4 ms at HZ=250) below rto_min.
        let limit = env
            .delack_max
            .unwrap_or(DELACK_MAX)
            .min(env.rto_min.saturating_sub(Duration::from_millis(4)).max(Duration::from_millis(4)));
        ato = ato.min(limit);
        let mut at = env.now + ato;
        if self.delack_at.is_armed() {
            // "If delack timer is about to expire, send ACK now."
            if self.delack_at <= env.now + ato / 4 {
                self.now = true;
                return;
            }
            at = at.min(self.delack_at);
        }
        self.delack_at = at;
    }

    /// Earliest time an ACK may fall due.
    pub(crate) fn deadline(&self) -> Instant {
        self.delack_at.min(self.compressed_at)
    }

    /// Linux `tcp_delack_timer_handler`. True: a delayed ACK is now owed (counts `DelayedACKs`).
    pub(crate) fn on_timer(&mut self, env: &AckEnv) -> bool {
        if env.now >= self.compressed_at {
            self.compressed_at = Instant::FAR_FUTURE;
            if self.release() {
                self.send_now();
                return false;
            }
        }
        if env.now < self.delack_at {
            return false;
        }
        self.delack_at = Instant::FAR_FUTURE;
        if !self.scheduled || self.now {
            return false;
        }
        if self.in_pingpong(env.pingpong_thresh) {
            // "Delayed ACK missed: leave pingpong mode and deflate ATO."
            self.exit_pingpong();
            self.ato = ATO_MIN;
        } else {
            self.ato = (self.ato * 2).min(env.rto).min(DELACK_MAX);
        }
        self.now = true;
        true
    }

    /// Linux `tcp_cleanup_rbuf`, first half: the application read; is an ACK due? `drained`: nothing is left to read.
    pub(crate) fn wants_ack_after_read(&self, unacked: u32, drained: bool, thresh: u8) -> bool {
        self.scheduled
            && (unacked > self.rcv_mss
                || (drained && (self.pushed_twice || (self.pushed && !self.in_pingpong(thresh)))))
    }

    /// Linux `tcp_event_data_sent`: data leaves; a reply soon after data makes the connection interactive.
    pub(crate) fn on_data_sent(&mut self, now: Instant) {
        if now.saturating_since(self.last_data) < self.ato {
            self.pingpong = self.pingpong.saturating_add(1);
        }
    }

    /// Linux `tcp_event_ack_sent`: a segment carrying the current `rcv_nxt` leaves. Gives the ACKs that compression spared.
    pub(crate) fn on_ack_sent(&mut self) -> u8 {
        let spared = core::mem::take(&mut self.compressed);
        self.compressed_at = Instant::FAR_FUTURE;
        if self.quick > 0 && self.scheduled {
            self.quick -= 1;
            if self.quick == 0 {
                // "Leaving quickack mode we deflate ATO."
                self.ato = ATO_MIN;
            }
        }
        self.scheduled = false;
        self.now = false;
        self.alone = false;
        self.pushed = false;
        self.pushed_twice = false;
        self.no_memory = false;
        self.delack_at = Instant::FAR_FUTURE;
        spared
    }

    /// `TCP_QUICKACK` was set with an ACK pending (Linux `tcp_sock_set_quickack`: `ICSK_ACK_PUSHED`).
    pub(crate) fn push(&mut self) {
        self.pushed = true;
    }

    /// `TCP_QUICKACK` read back.
    pub(crate) fn is_quickack(&self, thresh: u8) -> bool {
        !self.in_pingpong(thresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(now_ms: u64) -> AckEnv {
        AckEnv {
            now: Instant::from_millis(now_ms),
            rto: Duration::from_millis(204),
            srtt: Some(Duration::from_micros(100)),
            pingpong_thresh: 1,
            delack_max: None,
            rto_min: Duration::from_millis(200),
            rcv_wnd: 65_535,
        }
    }

    fn data(policy: &mut AckPolicy, len: u32, psh: bool, env: &AckEnv) {
        let flags = if psh { Flags::PSH } else { Flags::NONE };
        policy.measure_rcv_mss(len, 32, 32, flags, 1460);
        policy.on_data(env);
    }

    fn unacked(bytes: u32) -> Unacknowledged {
        Unacknowledged {
            rcv_nxt: 1,
            bytes,
            window_holds: true,
            has_holes: false,
            sack: true,
            comp_nr: 44,
            comp_delay: Duration::from_millis(1),
            rcv_rtt: Some(Duration::from_millis(1)),
        }
    }

    /// Specification 5.6: "first 16 lone 100-byte segments ACKed within 0.1 ms each, then 40-50 ms delays".
    #[test]
    fn sixteen_quick_acks_then_delayed() {
        let mut policy = AckPolicy::new();
        policy.init_rcv_mss(1460, 1460, 65_535);
        for n in 0..16 {
            data(&mut policy, 100, true, &env(n * 100));
            policy.on_segment_end(&unacked(100), &env(n * 100));
            assert!(policy.is_owed_now(), "segment {n}");
            policy.on_ack_sent();
        }
        data(&mut policy, 100, true, &env(1600));
        policy.on_segment_end(&unacked(100), &env(1600));
        assert!(!policy.is_owed_now());
        assert_eq!(policy.deadline(), Instant::from_millis(1640));
        assert!(policy.on_timer(&env(1640)) && policy.is_owed_now());
    }

    #[test]
    fn two_full_segments_are_acked_at_once() {
        let mut policy = AckPolicy::new();
        policy.init_rcv_mss(1460, 1460, 65_535);
        policy.enter_pingpong(1);
        data(&mut policy, 1460, false, &env(0));
        policy.on_segment_end(&unacked(1460), &env(0));
        assert!(!policy.is_owed_now());
        data(&mut policy, 1460, false, &env(1));
        policy.on_segment_end(&unacked(2920), &env(1));
        assert!(policy.is_owed_now());
    }

    #[test]
    fn fourth_duplicate_ack_is_compressed() {
        let mut policy = AckPolicy::new();
        policy.enter_pingpong(1);
        let holes = Unacknowledged { has_holes: true, ..unacked(0) };
        for n in 0..3 {
            data(&mut policy, 1000, false, &env(n));
            policy.on_segment_end(&holes, &env(n));
            assert!(policy.is_owed_now(), "duplicate {n}");
            policy.on_ack_sent();
            policy.enter_pingpong(1);
        }
        data(&mut policy, 1000, false, &env(3));
        policy.on_segment_end(&holes, &env(3));
        assert!(!policy.is_owed_now());
        assert_eq!(policy.deadline(), Instant::from_millis(3) + Duration::from_micros(50));
    }

    #[test]
    fn reply_makes_pingpong_and_its_timer_leaves_it() {
        let mut policy = AckPolicy::new();
        data(&mut policy, 100, true, &env(0));
        policy.on_data_sent(Instant::from_millis(1));
        assert!(policy.in_pingpong(1));
        policy.on_ack_sent();
        data(&mut policy, 100, true, &env(2));
        policy.on_segment_end(&unacked(100), &env(2));
        assert!(!policy.is_owed_now(), "waits for a reply to ride on");
        assert!(policy.on_timer(&env(42)));
        assert!(!policy.in_pingpong(1));
    }
}
