//! The retransmission timer: what its firing means, and how the connection gets out of Loss again.
//!
//! Rules:   Linux `tcp_retransmit_timer`, `tcp_enter_loss`, `tcp_process_loss`, `tcp_rearm_rto`, `tcp_ld_RTO_revert`;
//!          RFC 6298 5, RFC 5682 (F-RTO, SACK version), RFC 6069.
//! Not here: the give-up rule (`give_up`), the repeat itself (`retransmit`).

use crate::observe::CaState;
use crate::observe::event::EventKind;
use crate::tcp::context::Cx;
use crate::tcp::send::ack::{Flag, Work, us_between};
use crate::tcp::send::output::Due;
use crate::tcp::send::recovery::Rexmit;
use crate::tcp::send::rtt::{TIMEOUT_INIT_US, micros};
use crate::tcp::send::segments::Marks;
use crate::tcp::send::timer::Pending;
use crate::tcp::send::{Sender, TimerEnv, TimerVerdict};
use crate::tcp::seq::SeqNum;
use crate::tcp::state::TcpState;
use crate::time::{Duration, Instant};

/// Linux `TCP_THIN_LINEAR_RETRIES`.
const THIN_LINEAR_RETRIES: u8 = 6;

impl Sender {
    /// Microseconds until the RTO counted from the head's transmission (Linux `tcp_rto_delta_us`).
    pub(super) fn rto_left_us(&self, now: Instant) -> i64 {
        let elapsed = self.segments.front().map_or(0, |head| us_between(head.sent_at, now));
        i64::from(self.rtt.rto_us) - i64::from(elapsed)
    }

    /// Linux `tcp_rearm_rto`.
    pub(super) fn rearm_rto(&mut self, now: Instant) {
        if self.counts.packets_out == 0 {
            if !self.timer.is(Pending::WindowProbe) {
                self.timer.cancel();
            }
            return;
        }
        let after = match self.timer.pending {
            // Those replaced the RTO: take off what has passed since the head was sent.
            Some(Pending::Reorder | Pending::LossProbe) => {
                self.rto_left_us(now).clamp(1, i64::from(u32::MAX)) as u32
            }
            _ => self.rtt.rto_us,
        };
        self.timer.arm(Pending::Retransmit, now, after.min(self.rtt.rto_max_us));
    }

    /// Linux `tcp_retransmit_timer`.
    pub(super) fn on_retransmit_timer(
        &mut self,
        fired_at: Instant,
        env: &TimerEnv<'_>,
        cx: &mut Cx<'_>,
    ) -> TimerVerdict {
        if self.counts.packets_out == 0 {
            return TimerVerdict::Continue;
        }
        let in_handshake = matches!(env.state, TcpState::SynSent | TcpState::SynRecv);
        if self.snd_wnd == 0 && !env.orphan && !in_handshake {
            // The peer shut its window over data in flight: our repeats are window probes, and it is alive while it answers.
            if self.shut_window_timed_out(fired_at, env, cx.now) {
                return self.give_up(cx);
            }
            self.enter_loss(cx);
        } else {
            cx.counters.tcp_timeouts += 1;
            if in_handshake && self.retransmits == 0 {
                // Linux: for a SYN the give-up clock starts with the first one.
                self.recovery.retrans_stamp = self.segments.front().map(|syn| syn.sent_at);
            }
            if let Some(verdict) = self.write_timeout(env, cx) {
                return verdict;
            }
            cx.counters.tcp_timeout_rehash += 1;
            self.recovery.totals.rehash += 1;
            if self.retransmits == 0 {
                self.count_failure(cx);
            }
            self.enter_loss(cx);
            // Linux tcp_update_rto_stats().
            self.recovery.totals.timed_out(self.retransmits == 0, cx.now);
            self.retransmits = self.retransmits.saturating_add(1);
            let backoff = self.retransmits;
            Self::emit(cx, || EventKind::RetransmitTimeout { backoff });
        }
        self.due = Due::RetransmitHead;
        self.back_off(env, cx);
        TimerVerdict::Continue
    }

    /// In which state the time-out struck.
    fn count_failure(&self, cx: &mut Cx<'_>) {
        let counter = match (self.recovery.ca_state, self.sack) {
            (CaState::Recovery, true) => &mut cx.counters.tcp_sack_recovery_fail,
            (CaState::Recovery, false) => &mut cx.counters.tcp_reno_recovery_fail,
            (CaState::Loss, _) => &mut cx.counters.tcp_loss_failures,
            (state, sack) if state == CaState::Disorder || self.counts.sacked_out != 0 => {
                if sack {
                    &mut cx.counters.tcp_sack_failures
                } else {
                    &mut cx.counters.tcp_reno_failures
                }
            }
            _ => return,
        };
        *counter += 1;
    }

    /// The next interval: doubled, unless the stream is thin or the SYN still in its linear part.
    fn back_off(&mut self, env: &TimerEnv<'_>, cx: &Cx<'_>) {
        let thin = env.options.thin_linear_timeouts || cx.sysctl.tcp_thin_linear_timeouts;
        let is_thin = self.counts.packets_out < 4 && !self.in_initial_slow_start();
        if env.state == TcpState::Established && thin && is_thin && self.retransmits <= THIN_LINEAR_RETRIES {
            self.backoff = 0;
            let (least, most) = (self.rtt.rto_min_us, self.rtt.rto_max_us);
            self.rtt.rto_us = self.rtt.base_rto().clamp(least.min(most), most);
        } else if env.state != TcpState::SynSent
            || self.recovery.totals.total_rto > u32::from(cx.sysctl.tcp_syn_linear_timeouts)
        {
            self.backoff = self.backoff.saturating_add(1);
            self.rtt.rto_us = self.rtt.backed_off_us(self.rtt.rto_us, 1);
        }
        let interval = self.clamp_to_user_timeout(env.options.user_timeout, cx.now);
        self.timer.arm(Pending::Retransmit, cx.now, interval.min(self.rtt.rto_max_us));
    }

    fn in_initial_slow_start(&self) -> bool {
        self.cwnd.window.snd_ssthresh >= crate::tcp::congestion::INFINITE_SSTHRESH
    }

    /// Linux `tcp_clamp_rto_to_user_timeout`.
    fn clamp_to_user_timeout(&self, user_timeout: Duration, now: Instant) -> u32 {
        if user_timeout.is_zero() {
            return self.rtt.rto_us;
        }
        let elapsed = now.saturating_since(self.recovery.retrans_stamp.unwrap_or(now));
        let left = micros(user_timeout.saturating_sub(elapsed));
        // Linux: once it has passed, fire as soon as possible.
        self.rtt.rto_us.min(left.max(1))
    }

    /// Linux `tcp_enter_loss`.
    pub(super) fn enter_loss(&mut self, cx: &mut Cx<'_>) {
        let state = self.recovery.ca_state;
        let new_recovery = state < CaState::Recovery;
        self.mark_lost_by_timeout(cx);
        // The threshold is reduced once a window.
        if state <= CaState::Disorder
            || !self.recovery.high_seq.after(self.snd_una)
            || (state == CaState::Loss && self.retransmits == 0)
        {
            self.recovery.prior_ssthresh = self.current_ssthresh();
            let window = &mut self.cwnd.window;
            self.recovery.prr.prior_cwnd = window.snd_cwnd;
            window.snd_ssthresh = self.congestion.ssthresh(window.snd_cwnd, cx.now, self.snd_nxt);
            self.init_undo();
        }
        let in_flight = self.counts.in_flight();
        self.cwnd.window.snd_cwnd = in_flight + 1;
        self.cwnd.window.snd_cwnd_cnt = 0;
        self.cwnd.stamp = cx.now;
        // A time-out after many SACKs: the reordering degree was overestimated.
        if state <= CaState::Disorder && self.counts.sacked_out >= cx.sysctl.tcp_reordering {
            self.recovery.reordering = self.recovery.reordering.min(cx.sysctl.tcp_reordering);
        }
        self.set_ca_state(CaState::Loss, cx);
        self.recovery.high_seq = self.snd_nxt;
        self.recovery.tlp_high_seq = None;
        self.cwr_owed = true;
        self.recovery.frto = cx.sysctl.tcp_frto != 0 && (new_recovery || self.retransmits > 0);
        self.recovery.rexmit = Rexmit::None;
    }

    /// Linux `tcp_timeout_mark_lost`.
    fn mark_lost_by_timeout(&mut self, cx: &mut Cx<'_>) {
        let reneged = self.segments.front().is_some_and(|head| head.marks.has(Marks::SACKED));
        if reneged {
            cx.counters.tcp_sack_reneging += 1;
            self.counts.sacked_out = 0;
            self.recovery.sacked.clear();
            self.recovery.is_sack_reneg = true;
        } else if !self.sack {
            self.counts.sacked_out = 0;
        }
        for position in 0..self.segments.count() {
            let segment = self.segments.at_mut(position);
            if reneged {
                segment.marks = segment.marks.without(Marks::SACKED);
            } else if position > 0 {
                let segment = *segment;
                // Sent so lately that it may still arrive.
                if self.rack_timeout_us(&segment, 0, cx.now) > 0 {
                    continue;
                }
            }
            self.mark_lost(position, cx);
            self.segments.park(position);
        }
        self.recovery.hint = self.snd_una;
    }

    /// An ACK in Loss (Linux `tcp_process_loss`).
    pub(super) fn process_loss(&mut self, work: &mut Work, cx: &mut Cx<'_>) {
        let recovered = self.snd_una.at_or_after(self.recovery.high_seq);
        let advanced = work.has(Flag::SND_UNA_ADVANCED);
        if (advanced || work.opening) && self.try_undo_loss(work, false, cx) {
            return;
        }
        if self.recovery.frto {
            // RFC 5682 3.1 step 3.b: data never repeated was acknowledged, so not everything was lost.
            if work.has(Flag::ORIG_SACK_ACKED) && self.try_undo_loss(work, true, cx) {
                return;
            }
            if self.snd_nxt.after(self.recovery.high_seq) {
                if work.has(Flag::DATA_SACKED) || work.num_dupack > 0 {
                    self.recovery.frto = false; // step 3.a: the loss was real
                }
            } else if advanced && !recovered {
                self.recovery.high_seq = self.snd_nxt;
                // Step 2.b: try new data, when the window is known; else recover conventionally.
                if self.has_unsent() && self.wnd_end().after(self.snd_nxt) {
                    self.recovery.rexmit = Rexmit::New;
                    return;
                }
                self.recovery.frto = false;
            }
        }
        if recovered {
            self.try_undo_recovery(&work.echo, cx);
            return;
        }
        if !self.sack {
            // A duplicate then means that new data of step 2.b arrived.
            if self.snd_nxt.after(self.recovery.high_seq) && work.num_dupack > 0 {
                self.add_reno_sack(work.num_dupack, cx);
            } else if advanced {
                self.counts.sacked_out = 0;
            }
        }
        self.recovery.rexmit = Rexmit::Lost;
    }

    /// ICMP frag-needed/host-unreachable for the head segment reverts one backoff step (Linux `tcp_ld_RTO_revert`).
    pub(crate) fn revert_backoff(&mut self, seq: SeqNum, cx: &mut Cx<'_>) {
        if seq != self.snd_una || self.retransmits == 0 || self.backoff == 0 {
            return;
        }
        let Some(head) = self.segments.front() else { return };
        let elapsed = us_between(head.sent_at, cx.now);
        self.backoff -= 1;
        let base = if self.rtt.srtt_us != 0 { self.rtt.base_rto() } else { TIMEOUT_INIT_US };
        self.rtt.rto_us = self.rtt.backed_off_us(base, self.backoff);
        // Where it has passed already, the timer fires at once.
        self.timer.arm(Pending::Retransmit, cx.now, self.rtt.rto_us.saturating_sub(elapsed));
    }
}
