//! Whether new data may leave now, and how much at once: Nagle, cork, silly windows, super-segments.
//!
//! Rules:   RFC 9293 3.8.6.2.1 (sender SWS), RFC 896 in Minshall's form; Linux `tcp_nagle_test`, `tcp_snd_wnd_test`,
//!          `tcp_cwnd_test`, `tcp_mss_split_point`, `tcp_tso_should_defer`, `tcp_tso_autosize`.
//! Not here: the window probe that splits a head too big for the window (`probe`).

use crate::observe::CaState;
use crate::sysctl::Sysctl;
use crate::tcp::context::Cx;
use crate::tcp::options::TcpOptions;
use crate::tcp::send::Sender;
use crate::tcp::send::ack::us_between;

/// Payload of the largest super-segment: 65,535 bytes less the largest IPv4 and TCP headers.
const GSO_MAX_PAYLOAD: u32 = 65_535 - 20 - 60;
/// Linux `GSO_MAX_SIZE`, for the size by round-trip time.
const GSO_MAX_SIZE: u64 = 65_536;

/// An ACK that is expected within this is waited for, microseconds (Linux `tcp_tso_should_defer`).
const NEXT_ACK_SOON_US: u32 = 1_000;

/// Which rules hold a partial segment back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hold {
    /// Nagle's and Minshall's.
    Nagle,
    /// Nothing (`TCP_NODELAY`, or a push).
    Nothing,
    /// Nothing, and no waiting for more: a super-segment that a write has filled (Linux `tcp_push_one`).
    PushOne,
    /// Cork: no partial segment at all.
    Cork,
    /// A loss probe: nothing, not even the congestion window.
    ProbeNow,
}

impl Sender {
    /// What the options and the queue's end say.
    pub(super) fn hold(&self, options: &TcpOptions) -> Hold {
        // Linux tcp_nagle_test(): "Don't use the nagle rule for urgent data (or for the final FIN)."
        if self.fin_queued || self.push_now || self.is_urgent() {
            Hold::Nothing
        } else if options.cork || self.more {
            Hold::Cork
        } else if options.nodelay {
            Hold::Nothing
        } else {
            Hold::Nagle
        }
    }

    /// Linux `tcp_nagle_check`: must a partial segment wait?
    pub(super) fn holds_partial(&self, hold: Hold) -> bool {
        match hold {
            Hold::Nothing | Hold::PushOne | Hold::ProbeNow => false,
            Hold::Cork => true,
            // Minshall: only while another partial segment is unacknowledged.
            Hold::Nagle => {
                self.counts.packets_out > 0
                    && self.snd_sml.after(self.snd_una)
                    && !self.snd_sml.after(self.snd_nxt)
            }
        }
    }

    /// Payload bytes queued and never sent.
    pub(super) fn unsent_payload(&self) -> u32 {
        self.write_seq.since(self.snd_nxt) - u32::from(self.fin_queued && self.has_unsent())
    }

    /// Linux `tcp_snd_wnd_test`: the first unsent segment lies in the window.
    pub(super) fn head_fits_window(&self, mss: u32) -> bool {
        let payload = self.next_payload();
        let fin = payload == self.unsent_payload() && self.fin_queued && self.has_unsent();
        let head = if payload > mss { mss } else { payload + u32::from(fin) };
        !(self.snd_nxt + head).after(self.wnd_end())
    }

    /// Cheap form of what `next_new` decides.
    pub(super) fn could_send_new(&self, options: &TcpOptions) -> bool {
        let mss = u32::from(self.mss);
        self.phase == super::Phase::Established
            && !self.deferred
            && self.counts.in_flight() < self.cwnd.window.snd_cwnd
            && self.head_fits_window(mss)
            && (self.unsent_payload() >= mss
                || self.next_payload() < self.unsent_payload()
                || !self.holds_partial(self.hold(options)))
    }

    /// Linux `tcp_cwnd_test`: segments the window lets out, at most half of it at once.
    pub(super) fn cwnd_quota(&self) -> u32 {
        let cwnd = self.cwnd.window.snd_cwnd;
        cwnd.saturating_sub(self.counts.in_flight()).min((cwnd / 2).max(1))
    }

    /// Linux `tcp_update_pacing_rate`: bytes a second, after each ACK.
    pub(super) fn update_pacing_rate(&mut self, sysctl: &Sysctl) {
        let window = &self.cwnd.window;
        let percent = if window.snd_cwnd < window.snd_ssthresh / 2 {
            sysctl.tcp_pacing_ss_ratio
        } else {
            sysctl.tcp_pacing_ca_ratio
        };
        let rate = u64::from(self.mss)
            * 80_000
            * u64::from(percent)
            * u64::from(window.snd_cwnd.max(self.counts.packets_out));
        self.pacing_rate = rate / u64::from(self.rtt.srtt_us.max(1));
    }

    /// Segments a super-segment should stand for (Linux `tcp_tso_autosize`): a millisecond's worth, more on a short path.
    pub(super) fn tso_segs(&self, mss: u32, cx: &Cx<'_>) -> u32 {
        if self.gso_max_segs == 1 {
            return 1;
        }
        let most = (GSO_MAX_PAYLOAD / mss).min(u32::from(self.gso_max_segs)).max(1);
        let near = GSO_MAX_SIZE.checked_shr(self.rtt.min.get() >> 9).unwrap_or(0);
        if near >= GSO_MAX_SIZE {
            return most;
        }
        let bytes = ((self.pacing_rate >> 10) + near).min(GSO_MAX_SIZE) as u32;
        (bytes / mss).max(u32::from(cx.sysctl.tcp_min_tso_segs)).min(most)
    }

    /// Linux `tcp_mss_split_point`: payload of the next piece, with no partial segment that Nagle holds.
    pub(super) fn split_point(&self, mss: u32, quota: u32, payload: u32, hold: Hold) -> u32 {
        let most = mss.saturating_mul(quota);
        let window = self.wnd_end().since(self.snd_nxt);
        let needed = payload.min(window);
        if most <= needed {
            return most;
        }
        if most <= window && payload < self.unsent_payload() {
            return payload;
        }
        let partial = needed % mss;
        if partial != 0 && self.holds_partial(hold) { needed - partial } else { needed }
    }

    /// Linux `tcp_tso_should_defer`: would waiting for the next ACK give a larger piece? Says who limits. `payload`: of the
    /// super-segment that is next.
    pub(super) fn should_defer(&mut self, max_segs: u32, payload: u32, cx: &Cx<'_>) -> bool {
        if self.recovery.ca_state >= CaState::Recovery || self.gso_max_segs == 1 {
            return false;
        }
        // Only within a millisecond of the last piece: never let a quiet sender wait.
        if cx.now.saturating_since(self.last_sent).as_micros() > 1_000 {
            return false;
        }
        let mss = u32::from(self.mss);
        let send_window = self.wnd_end().since(self.snd_nxt);
        let window = &self.cwnd.window;
        let congestion_window = window.snd_cwnd.saturating_sub(self.counts.in_flight()).saturating_mul(mss);
        let limit = send_window.min(congestion_window);
        if limit >= max_segs.saturating_mul(mss) {
            return false;
        }
        // Others are queued behind it, so it will not grow, and all of it may leave.
        let is_last = payload == self.unsent_payload();
        if !is_last && limit >= payload {
            return false;
        }
        // Enough when it is a good part of the whole window; without a divisor, more than three segments.
        let whole = self.snd_wnd.min(window.snd_cwnd.saturating_mul(mss));
        let enough = whole.checked_div(u32::from(cx.sysctl.tcp_tso_win_divisor)).unwrap_or(3 * mss + 1);
        if limit >= enough {
            return false;
        }
        let Some(head) = self.segments.front() else { return false };
        // "If next ACK is likely to come too late, ie in more than min(1ms, half srtt), do not defer."
        let srtt_us = self.rtt.smoothed_us();
        if srtt_us > us_between(head.sent_at, cx.now).saturating_add(NEXT_ACK_SOON_US.min(srtt_us / 2)) {
            return false;
        }
        if congestion_window < send_window {
            if congestion_window <= payload {
                self.burst.cwnd_limited = true;
                return true;
            }
        } else if send_window <= payload {
            self.burst.window_limited = true;
            return true;
        }
        // "If this packet won't get more data, do not wait."
        let is_complete =
            (is_last && self.fin_queued) || self.queue.unsent().front().is_some_and(|chunk| chunk.eor);
        !is_complete
    }
}
