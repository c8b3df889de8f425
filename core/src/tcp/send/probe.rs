//! The window probe: unsent data, nothing in flight, and a window that does not take it.
//!
//! Rules:   Linux `tcp_probe_timer`, `tcp_send_probe0`, `tcp_write_wakeup`, `tcp_ack_probe`; RFC 9293 3.8.6.1.
//!          The same timer bounds a cork to 200 ms.
//! Not here: data in flight when the window shuts (`loss`).

use crate::observe::event::EventKind;
use crate::tcp::context::Cx;
use crate::tcp::options::TcpOptions;
use crate::tcp::send::give_up::orphan_retries;
use crate::tcp::send::output::Due;
use crate::tcp::send::rtt::{RTO_MIN_US, micros};
use crate::tcp::send::timer::Pending;
use crate::tcp::send::{PlanKind, SendPlan, Sender, TimerEnv, TimerVerdict};
use crate::tcp::seq::SeqNum;
use crate::time::{Duration, Instant};

/// Linux `TCP_TIMEOUT_MIN`, microseconds.
pub(super) const TIMEOUT_MIN_US: u32 = 2_000;

impl Sender {
    /// Linux `tcp_check_probe_timer`.
    pub(super) fn arm_window_probe(&mut self, now: Instant) {
        if self.counts.packets_out == 0 && self.timer.pending.is_none() {
            self.timer.arm(Pending::WindowProbe, now, self.probe_base_us());
        }
    }

    /// Linux `tcp_probe0_base`.
    fn probe_base_us(&self) -> u32 {
        self.rtt.rto_us.max(RTO_MIN_US).min(self.rtt.rto_max_us)
    }

    /// Linux `tcp_probe0_when`, `tcp_clamp_probe0_to_user_timeout`.
    fn probe_interval_us(&self, user_timeout: Duration, now: Instant) -> u32 {
        let when = self.rtt.backed_off_us(self.probe_base_us(), self.backoff);
        if user_timeout.is_zero() || !self.probes_since.is_armed() {
            return when;
        }
        let left = micros(user_timeout.saturating_sub(now.saturating_since(self.probes_since)));
        when.min(left.max(TIMEOUT_MIN_US))
    }

    /// Linux `tcp_probe_timer`: the verdict; the probe itself leaves at the next poll.
    pub(super) fn on_window_probe_timer(&mut self, env: &TimerEnv<'_>, cx: &mut Cx<'_>) -> TimerVerdict {
        if self.counts.packets_out != 0 || !self.has_unsent() {
            self.probes_out = 0;
            self.probes_since = Instant::FAR_FUTURE;
            return TimerVerdict::Continue;
        }
        let user_timeout = env.options.user_timeout;
        if !self.probes_since.is_armed() {
            self.probes_since = cx.now;
        } else if !user_timeout.is_zero() && cx.now.saturating_since(self.probes_since) >= user_timeout {
            return self.give_up(cx);
        }
        let mut most = u32::from(cx.sysctl.tcp_retries2);
        if env.orphan {
            let alive = self.rtt.backed_off_us(self.rtt.rto_us, self.backoff) < self.rtt.rto_max_us;
            most = orphan_retries(alive, env.soft_error, cx);
            if !alive && u32::from(self.backoff) >= most {
                return self.give_up(cx);
            }
            if let Some(verdict) = self.out_of_resources(true, env.soft_error, cx) {
                return verdict;
            }
        }
        if u32::from(self.probes_out) >= most {
            return self.give_up(cx);
        }
        // Linux tcp_send_probe0(): what the probe will be is known now, so that the next deadline is exact.
        if self.head_in_window() {
            self.due = Due::Wakeup;
        } else {
            self.due = if self.probes_urgently() { Due::UrgentProbe } else { Due::WindowProbe };
            self.probes_out = self.probes_out.saturating_add(1);
            if self.backoff < cx.sysctl.tcp_retries2 {
                self.backoff += 1;
            }
            let when = self.probe_interval_us(user_timeout, cx.now);
            self.timer.arm(Pending::WindowProbe, cx.now, when);
        }
        TimerVerdict::Continue
    }

    fn head_in_window(&self) -> bool {
        self.snd_nxt.before(self.wnd_end())
    }

    /// Linux `tcp_xmit_probe_skb`: no payload, one number below the window, so that it is answered.
    pub(super) fn send_window_probe(&mut self, seq: SeqNum, cx: &mut Cx<'_>) -> SendPlan {
        cx.counters.tcp_win_probe += 1;
        cx.counters.out_segs += 1;
        let probes = self.probes_out;
        Self::emit(cx, || EventKind::WindowProbe { probes });
        SendPlan {
            seq,
            len: 0,
            syn: false,
            fin: false,
            psh: false,
            cwr: false,
            segment_size: u32::from(self.mss),
            kind: PlanKind::WindowProbe,
        }
    }

    /// Linux `tcp_write_wakeup` with some window open: what fits of the head, split and pushed.
    pub(super) fn send_wakeup(&mut self, mss: u32, cx: &mut Cx<'_>) -> Option<SendPlan> {
        if !self.has_unsent() || !self.head_in_window() {
            return None;
        }
        let room = self.wnd_end().since(self.snd_nxt);
        let head = self.next_payload();
        let len = head.min(room).min(mss);
        // Linux marks the whole, and what is cut off keeps the mark.
        self.pushed_seq = self.pushed_seq.max(self.snd_nxt + head);
        if let Some(chunk) = self.queue.first_chunk().filter(|_| len < head) {
            chunk.psh = true;
        }
        let plan = self.send_new_piece(len, mss, true, cx);
        // Only the RTO watches it, and it says nothing of the window: no loss probe, no tcp_cwnd_validate() in tcp_write_wakeup().
        (self.burst.probed, self.burst.sent_new) = (true, false);
        self.probes_out = 0;
        self.backoff = 0;
        self.probes_since = Instant::FAR_FUTURE;
        Some(plan)
    }

    /// An ACK came while nothing is in flight (Linux `tcp_ack_probe`).
    pub(super) fn on_probe_answered(&mut self, options: &TcpOptions, now: Instant) {
        if !self.has_unsent() {
            return;
        }
        if self.head_fits_window(u32::from(self.mss)) {
            self.backoff = 0;
            self.probes_since = Instant::FAR_FUTURE;
            if self.timer.is(Pending::WindowProbe) {
                self.timer.cancel();
            }
        } else {
            let when = self.probe_interval_us(options.user_timeout, now);
            self.timer.arm(Pending::WindowProbe, now, when);
        }
    }
}
