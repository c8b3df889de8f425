//! The congestion window: whether it was really used, and what idleness does to it.
//!
//! Owns:    the window, and how much of it was in use lately.
//! Rules:   Linux `tcp_cwnd_validate`, `tcp_cwnd_application_limited`, `tcp_cwnd_restart`; RFC 2861, RFC 7661.
//! Not here: growth (`congestion`), reduction (`recovery`, `prr`).

use crate::observe::CaState;
use crate::tcp::congestion::{INFINITE_SSTHRESH, Window};
use crate::tcp::context::Cx;
use crate::tcp::send::Sender;
use crate::tcp::send::chrono::Limit;
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// Linux `TCP_INIT_CWND` (RFC 6928), segments.
pub(super) const INIT_CWND: u32 = 10;

/// The window and its use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cwnd {
    pub(super) window: Window,
    /// Linux `snd_cwnd_used`.
    used: u32,
    max_packets_out: u32,
    pub(super) usage_seq: SeqNum,
    is_limited: bool,
    /// `delivered` at which the present gap in what the application gives has passed (Linux `app_limited`); 0: no gap.
    pub(super) app_limited: u32,
    /// The delivery rate was measured in such a gap (Linux `rate_app_limited`).
    pub(super) rate_app_limited: bool,
    pub(super) stamp: Instant,
}

impl Cwnd {
    pub(super) fn new(seq: SeqNum, now: Instant) -> Self {
        Self {
            window: Window { snd_cwnd: INIT_CWND, snd_ssthresh: INFINITE_SSTHRESH, snd_cwnd_cnt: 0 },
            used: 0,
            max_packets_out: 0,
            usage_seq: seq,
            is_limited: false,
            app_limited: u32::MAX, // Linux tcp_init_sock()
            rate_app_limited: true,
            stamp: now,
        }
    }

    /// Linux `tcp_is_cwnd_limited`: in slow start the window may grow to twice what was used.
    pub(super) fn is_limited(&self) -> bool {
        self.is_limited || (self.window.in_slow_start() && self.window.snd_cwnd < 2 * self.max_packets_out)
    }
}

impl Sender {
    /// After a burst: was it the window that ended it? (Linux `tcp_cwnd_validate`)
    pub(super) fn validate_cwnd(&mut self, limited: bool, cx: &mut Cx<'_>) {
        let packets_out = self.counts.packets_out;
        let cwnd = &mut self.cwnd;
        if self.snd_una.at_or_after(cwnd.usage_seq)
            || limited
            || (!cwnd.is_limited && packets_out > cwnd.max_packets_out)
        {
            cwnd.is_limited = limited;
            cwnd.max_packets_out = packets_out;
            cwnd.usage_seq = self.snd_nxt;
        }
        if cwnd.is_limited() {
            cwnd.used = 0;
            cwnd.stamp = cx.now;
            return;
        }
        cwnd.used = cwnd.used.max(packets_out);
        let since_us = cx.now.saturating_since(cwnd.stamp).as_micros();
        if cx.sysctl.tcp_slow_start_after_idle && since_us >= u128::from(self.rtt.rto_us) {
            self.on_application_limited(cx.now);
        }
        if !self.has_unsent() && self.nospace {
            self.chrono.start(Limit::SendBuffer, cx.now);
        }
    }

    /// Linux `tcp_cwnd_application_limited`.
    fn on_application_limited(&mut self, now: Instant) {
        if self.recovery.ca_state == CaState::Open && !self.nospace {
            let used = self.cwnd.used.max(INIT_CWND);
            if used < self.cwnd.window.snd_cwnd {
                self.cwnd.window.snd_ssthresh = self.current_ssthresh();
                self.cwnd.window.snd_cwnd = (self.cwnd.window.snd_cwnd + used) / 2;
            }
            self.cwnd.used = 0;
        }
        self.cwnd.stamp = now;
    }

    /// Linux `tcp_slow_start_after_idle_check` and `tcp_cwnd_restart`: half the window for each RTO of silence.
    pub(super) fn restart_after_idle(&mut self, cx: &Cx<'_>) {
        if !cx.sysctl.tcp_slow_start_after_idle || self.counts.packets_out != 0 {
            return;
        }
        let rto_us = i64::from(self.rtt.rto_us).max(1);
        let mut idle_us = cx.now.saturating_since(self.last_sent).as_micros().min(1 << 50) as i64;
        if idle_us <= rto_us {
            return;
        }
        self.cwnd.window.snd_ssthresh = self.current_ssthresh();
        let mut cwnd = self.cwnd.window.snd_cwnd;
        let floor = INIT_CWND.min(cwnd);
        loop {
            idle_us -= rto_us;
            if idle_us <= 0 || cwnd <= floor {
                break;
            }
            cwnd /= 2;
        }
        self.cwnd.window.snd_cwnd = cwnd.max(floor);
        self.cwnd.stamp = cx.now;
        self.cwnd.used = 0;
    }
}
