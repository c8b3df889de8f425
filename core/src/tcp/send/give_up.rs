//! When to stop repeating: by elapsed time against a model, never by counting.
//!
//! Rules:   Linux `tcp_write_timeout`, `retransmits_timed_out`, `tcp_model_timeout`, `tcp_orphan_retries`,
//!          `tcp_out_of_resources`, `tcp_rtx_probe0_timed_out`.
//! Not here: window probes (`probe`), keepalive (the conductor).

use crate::error::SocketError;
use crate::tcp::context::Cx;
use crate::tcp::options::SOCK_MIN_SNDBUF;
use crate::tcp::send::rtt::{RTO_MIN_US, TIMEOUT_INIT_US};
use crate::tcp::send::{Sender, TimerEnv, TimerVerdict};
use crate::tcp::state::TcpState;
use crate::time::{Duration, Instant};

/// Linux `TCP_TIMEWAIT_LEN`.
const TIMEWAIT_LEN: Duration = Duration::from_secs(60);

/// Linux `tcp_model_timeout`: how long `retries` doublings from `base_us` last, capped at `max_us` each; microseconds.
pub(super) fn model_timeout(retries: u32, base_us: u32, max_us: u32) -> u64 {
    let (base, max) = (u64::from(base_us.max(1)), u64::from(max_us));
    let doublings = (max / base).checked_ilog2().unwrap_or(0);
    if retries <= doublings {
        ((2u64 << retries) - 1) * base
    } else {
        ((2u64 << doublings) - 1) * base + u64::from(retries - doublings) * max
    }
}

impl Sender {
    /// Linux `tcp_write_err`: tell the application, send nothing.
    pub(super) fn give_up(&mut self, cx: &mut Cx<'_>) -> TimerVerdict {
        cx.counters.tcp_abort_on_timeout += 1;
        TimerVerdict::GiveUp(SocketError::TimedOut)
    }

    /// Linux `tcp_write_timeout`: `Some` ends the connection.
    pub(super) fn write_timeout(&mut self, env: &TimerEnv<'_>, cx: &mut Cx<'_>) -> Option<TimerVerdict> {
        let in_handshake = matches!(env.state, TcpState::SynSent | TcpState::SynRecv);
        let mut expired = false;
        let retries;
        if in_handshake {
            retries = u32::from(env.options.syncnt.unwrap_or(cx.sysctl.tcp_syn_retries));
            let linear = match env.state {
                TcpState::SynSent => u32::from(cx.sysctl.tcp_syn_linear_timeouts),
                _ => 0,
            };
            expired = u32::from(self.retransmits) >= retries + linear;
        } else {
            if self.timed_out(u32::from(cx.sysctl.tcp_retries1), Duration::ZERO, false, cx.now) {
                self.suspect_black_hole(cx);
            }
            if env.orphan {
                let alive = self.rtt.rto_us < self.rtt.rto_max_us;
                retries = orphan_retries(alive, env.soft_error, cx);
                let may_reset = alive || !self.timed_out(retries, Duration::ZERO, false, cx.now);
                if let Some(verdict) = self.out_of_resources(may_reset, env.soft_error, cx) {
                    return Some(verdict);
                }
            } else {
                retries = u32::from(cx.sysctl.tcp_retries2);
            }
        }
        let expired = expired || self.timed_out(retries, env.options.user_timeout, in_handshake, cx.now);
        // Linux tcp_fastopen_active_detect_blackhole(): "the third consecutive timeout", or the last if it comes before.
        if env.fast_open && (self.retransmits == 2 || (self.retransmits < 2 && expired)) {
            cx.limits.fast_open_pause.begin(cx.now, cx.sysctl, cx.counters);
            cx.counters.tcp_fast_open_active_fail += 1;
        }
        expired.then(|| self.give_up(cx))
    }

    /// Linux `retransmits_timed_out`.
    fn timed_out(&self, retries: u32, user_timeout: Duration, in_handshake: bool, now: Instant) -> bool {
        if self.retransmits == 0 {
            return false;
        }
        let elapsed = now.saturating_since(self.recovery.retrans_stamp.unwrap_or(now));
        if user_timeout.is_zero() {
            // The base is 200 ms whatever the socket's own minimum is.
            let base = if in_handshake { TIMEOUT_INIT_US.min(self.rtt.rto_max_us) } else { RTO_MIN_US };
            elapsed.as_micros() >= u128::from(model_timeout(retries, base, self.rtt.rto_max_us))
        } else {
            elapsed >= user_timeout
        }
    }

    /// Linux `tcp_out_of_resources`, `tcp_check_oom`.
    pub(super) fn out_of_resources(
        &self,
        may_reset: bool,
        soft_error: bool,
        cx: &mut Cx<'_>,
    ) -> Option<TimerVerdict> {
        let silent = cx.now.saturating_since(self.last_sent);
        let mut shift = 0;
        if silent.as_micros() > 2 * u128::from(self.rtt.rto_max_us) || !may_reset {
            shift += 1;
        }
        shift += u32::from(soft_error);
        let too_many = u64::from(cx.limits.orphans) << shift > u64::from(cx.sysctl.tcp_max_orphans);
        let out_of_memory =
            self.queued_bytes() > u64::from(SOCK_MIN_SNDBUF) && cx.limits.is_above_high(cx.sysctl);
        if !too_many && !out_of_memory {
            return None;
        }
        cx.counters.tcp_abort_on_memory += 1;
        let window_closed = self.snd_wnd == 0 && self.counts.packets_out == 0;
        Some(TimerVerdict::OutOfResources { reset: may_reset || silent <= TIMEWAIT_LEN || window_closed })
    }

    /// Linux `tcp_rtx_probe0_timed_out`: the peer shut its window over data in flight.
    pub(super) fn shut_window_timed_out(&self, fired_at: Instant, env: &TimerEnv<'_>, now: Instant) -> bool {
        let started = self
            .recovery
            .retrans_stamp
            .or_else(|| self.segments.front().map(|head| head.sent_at))
            .unwrap_or(now);
        let repeating = now.saturating_since(started);
        let user_timeout = env.options.user_timeout;
        let mut limit = Duration::from_micros(2 * u64::from(self.rtt.rto_max_us));
        if !user_timeout.is_zero() {
            if repeating > user_timeout {
                return true;
            }
            limit = limit.min(user_timeout);
        }
        fired_at.saturating_since(env.last_received) > limit && repeating > limit
    }
}

/// Linux `tcp_orphan_retries`.
pub(super) fn orphan_retries(alive: bool, soft_error: bool, cx: &Cx<'_>) -> u32 {
    match cx.sysctl.tcp_orphan_retries {
        _ if soft_error && !alive => 0,
        0 if alive => 8,
        retries => u32::from(retries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::context::testing::TestCx;
    use crate::tcp::options::TcpOptions;
    use crate::tcp::seq::SeqNum;
    use crate::time::Instant;

    /// Specification 1.9: the limit bites at 100, 50 or 25 percent.
    #[test]
    fn an_orphan_may_count_for_two_or_four() {
        let mut world = TestCx::at(Instant::from_millis(1_000));
        world.sysctl.tcp_max_orphans = 4;
        let sender = Sender::new(SeqNum(1), &TcpOptions::default(), &world.cx());
        let mut is_ended = |orphans, may_reset, soft_error, after_s: u64| {
            world.limits.orphans = orphans;
            world.now = Instant::from_millis(1_000 + after_s * 1_000);
            sender.out_of_resources(may_reset, soft_error, &mut world.cx()).is_some()
        };
        assert!(!is_ended(4, true, false, 0) && is_ended(5, true, false, 0), "all of it");
        assert!(!is_ended(2, false, false, 0) && is_ended(3, false, false, 0), "no patience left: half");
        assert!(!is_ended(2, true, true, 0) && is_ended(3, true, true, 0), "an ICMP error: half");
        assert!(!is_ended(2, true, false, 241) && is_ended(3, true, false, 241), "silent for long: half");
        assert!(!is_ended(1, true, true, 241) && is_ended(2, true, true, 241), "both: a quarter");
    }

    /// Specification 13.1.
    #[test]
    fn model_of_retries2() {
        let max = 120_000_000;
        let expected = [
            0.2, 0.6, 1.4, 3.0, 6.2, 12.6, 25.4, 51.0, 102.2, 204.6, 324.6, 444.6, 564.6, 684.6, 804.6, 924.6,
        ];
        for (n, seconds) in expected.into_iter().enumerate() {
            assert_eq!(
                model_timeout(n as u32, RTO_MIN_US, max),
                (seconds * 10.0) as u64 * 100_000,
                "N = {n}"
            );
        }
        for (n, seconds) in [(1, 3), (2, 7), (3, 15), (4, 31), (5, 63), (6, 127), (7, 247)] {
            assert_eq!(model_timeout(n, TIMEOUT_INIT_US, max), seconds * 1_000_000, "SYN, N = {n}");
        }
    }

    #[test]
    fn model_with_rto_max_of_one_second() {
        for (n, ms) in [(1, 600), (2, 1400), (3, 2400), (5, 4400), (8, 7400), (10, 9400), (15, 14_400)] {
            assert_eq!(model_timeout(n, RTO_MIN_US, 1_000_000), ms * 1000, "N = {n}");
        }
    }
}
