//! Time: the sender's timer, delayed ACK, keepalive, FIN-WAIT-2 (Linux `tcp_timer.c`).

use crate::error::SocketError;
use crate::observe::life::Ending;
use crate::observe::reason::ResetReason;
use crate::tcp::connection::{Connection, Disposition};
use crate::tcp::context::Cx;
use crate::tcp::send::{TimerEnv, TimerVerdict};
use crate::tcp::state::TcpState;
use crate::time::{Duration, Instant};

impl Connection {
    /// Earliest deadline of all its timers.
    pub(crate) fn next_deadline(&self) -> Instant {
        let sender = self.opening_deadline().unwrap_or_else(|| self.send.deadline());
        sender.min(self.acks.deadline()).min(self.keepalive_at)
    }

    /// Some deadline is due.
    pub(crate) fn on_timeout(&mut self, cx: &mut Cx<'_>) -> Disposition {
        if self.state == TcpState::Close {
            return Disposition::Closed;
        }
        if self.acks.deadline() <= cx.now {
            let env = self.ack_env(cx);
            if self.acks.on_timer(&env) {
                cx.counters.delayed_acks += 1;
            }
        }
        if let Some(deadline) = self.opening_deadline() {
            if deadline <= cx.now
                && let Disposition::Closed = self.on_opening_timeout(cx)
            {
                return Disposition::Closed;
            }
        } else if self.send.deadline() <= cx.now {
            let env = TimerEnv {
                state: self.state,
                orphan: self.orphan,
                options: &self.options,
                last_received: self.last_received,
                soft_error: self.soft_error.is_some(),
                fast_open: self.has_opened_fast(),
            };
            let verdict = self.send.on_timer(&env, cx);
            cx.events.sign(self.cookie, &self.tuple, self.state);
            match verdict {
                TimerVerdict::Continue => {}
                TimerVerdict::GiveUp(error) => return self.give_up(error, cx),
                TimerVerdict::OutOfResources { reset } => {
                    if reset {
                        self.send_active_reset(ResetReason::AbortOnMemory, cx);
                    }
                    self.finish(Ending::ResetSent(ResetReason::AbortOnMemory), cx);
                    return Disposition::Closed;
                }
            }
        }
        if self.keepalive_at <= cx.now {
            return self.on_keepalive_timer(cx);
        }
        Disposition::Keep
    }

    /// Linux `tcp_write_err`: a soft error says more than ETIMEDOUT.
    pub(super) fn give_up(&mut self, error: SocketError, cx: &mut Cx<'_>) -> Disposition {
        let error = self.soft_error.take().unwrap_or(error);
        self.fail(error, cx);
        self.finish(Ending::Failed(error), cx);
        Disposition::Closed
    }

    pub(super) fn keepidle(&self, cx: &Cx<'_>) -> Duration {
        self.options.keepidle.unwrap_or(cx.sysctl.tcp_keepalive_time)
    }

    pub(super) fn arm_keepalive(&mut self, cx: &Cx<'_>) {
        if self.options.keepalive {
            self.keepalive_at = cx.now + self.keepidle(cx);
        }
    }

    /// Time since the peer was last heard (Linux `keepalive_time_elapsed`).
    pub(super) fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_since(self.last_received.max(self.acks.last_data()))
    }

    /// Linux `tcp_keepalive_timer`.
    fn on_keepalive_timer(&mut self, cx: &mut Cx<'_>) -> Disposition {
        self.keepalive_at = Instant::FAR_FUTURE;
        if self.orphan && self.state == TcpState::FinWait2 {
            return self.on_fin_wait_2_timer(cx);
        }
        if !self.options.keepalive || self.state == TcpState::SynSent {
            return Disposition::Keep;
        }
        let idle = self.keepidle(cx);
        // "It is alive without keepalive"
        if self.send.packets_out() > 0 || self.send.has_unsent() {
            self.keepalive_at = cx.now + idle;
            return Disposition::Keep;
        }
        let elapsed = self.silent_for(cx.now);
        if elapsed < idle {
            self.keepalive_at = cx.now + (idle - elapsed);
            return Disposition::Keep;
        }
        let user_timeout = self.options.user_timeout;
        let probes = self.options.keepcnt.unwrap_or(cx.sysctl.tcp_keepalive_probes);
        let hopeless = if user_timeout.is_zero() {
            self.keepalive_probes >= probes
        } else {
            elapsed >= user_timeout && self.keepalive_probes > 0
        };
        if hopeless {
            cx.counters.tcp_abort_on_timeout += 1;
            self.send_active_reset(ResetReason::KeepaliveTimeout, cx);
            return self.give_up(SocketError::TimedOut, cx);
        }
        self.keepalive_probe_due = true;
        self.keepalive_probes = self.keepalive_probes.saturating_add(1);
        self.keepalive_at = cx.now + self.options.keepintvl.unwrap_or(cx.sysctl.tcp_keepalive_intvl);
        Disposition::Keep
    }
}
