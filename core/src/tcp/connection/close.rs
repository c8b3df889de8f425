//! Closing in every role: FIN, RST, orphans, TIME-WAIT (Linux `__tcp_close`, `tcp_shutdown`, `tcp_disconnect`, `tcp_abort`).

use crate::error::SocketError;
use crate::observe::life::{Ending, Side};
use crate::observe::reason::ResetReason;
use crate::stack::{Gone, Shutdown};
use crate::tcp::connection::{Connection, Disposition, Step};
use crate::tcp::context::Cx;
use crate::tcp::options::{Linger2, SOCK_MIN_SNDBUF};
use crate::tcp::reset::answer_with_reset;
use crate::tcp::state::TcpState;
use crate::tcp::time_wait::{Remains, TimeWait};
use crate::time::Duration;
use crate::wire::segment::Segment;

/// Linux `TCP_TIMEWAIT_LEN`, 60 s: what the FIN-WAIT-2 law is split at, whatever `tcp_timewait_len` says.
const TIMEWAIT_LEN: Duration = Duration::from_secs(60);

impl Connection {
    /// Linux `__tcp_close`: afterwards an orphan (counted in `cx.limits`) or closed.
    pub(crate) fn close(&mut self, cx: &mut Cx<'_>) -> Disposition {
        self.rcv_shutdown = true;
        let unread = self.recv.discard();
        self.eof_read |= self.recv.fin; // Linux __tcp_close(): the FIN is drained with the data
        self.life.unread_bytes += u64::from(unread);
        match self.state {
            TcpState::Close => {
                self.orphan = true;
                return Disposition::Closed;
            }
            TcpState::SynSent => {
                self.orphan_now(cx);
                self.cancel_connect(cx);
                return Disposition::Closed;
            }
            _ => {}
        }
        if unread > 0 {
            // RFC 2525 2.17: "As outlined in RFC 1122 4.2.2.13, … If such a host issues a CLOSE call while received data
            // is still pending in TCP, … its TCP SHOULD send a RST to show that data was lost."
            cx.counters.tcp_abort_on_close += 1;
            return self.reset_and_orphan(ResetReason::AbortOnClose, cx);
        }
        if self.options.linger == Some(0) {
            cx.counters.tcp_abort_on_data += 1;
            return self.disconnect_and_orphan(cx);
        }
        self.queue_fin_for_close(cx);
        self.orphan_now(cx);
        if self.state == TcpState::FinWait2 {
            match self.fin_wait_2_time(cx) {
                None => {
                    cx.counters.tcp_abort_on_linger += 1;
                    self.send_active_reset(ResetReason::AbortOnLinger, cx);
                    self.close_state(Ending::ResetSent(ResetReason::AbortOnLinger), cx);
                    return Disposition::Closed;
                }
                Some(lifetime) if lifetime > TIMEWAIT_LEN => {
                    self.keepalive_at = cx.now + (lifetime - TIMEWAIT_LEN)
                }
                Some(lifetime) => return self.leave_fin_wait_2(lifetime, cx),
            }
        }
        if cx.limits.orphans > cx.sysctl.tcp_max_orphans || self.is_out_of_memory(cx) {
            // Linux tcp_check_oom(): "too many orphaned sockets", "out of memory".
            cx.counters.tcp_abort_on_memory += 1;
            self.send_active_reset(ResetReason::AbortOnMemory, cx);
            self.close_state(Ending::ResetSent(ResetReason::AbortOnMemory), cx);
            return Disposition::Closed;
        }
        Disposition::Keep
    }

    fn is_out_of_memory(&self, cx: &Cx<'_>) -> bool {
        self.send.unacked_payload() > u64::from(SOCK_MIN_SNDBUF) && cx.limits.is_above_high(cx.sysctl)
    }

    /// Specification 1.3, the close table.
    pub(super) fn queue_fin_for_close(&mut self, cx: &mut Cx<'_>) {
        let next = match self.state {
            TcpState::Established | TcpState::SynRecv => TcpState::FinWait1,
            TcpState::CloseWait => TcpState::LastAck,
            _ => return,
        };
        self.set_state(next, cx);
        self.snd_shutdown = true;
        self.life.fin_queued_at = Some(cx.now);
        self.life.first_close = self.life.first_close.or(Some(Side::Local));
        // In SYN-RECV it waits behind the handshake.
        self.send.queue_fin(cx);
    }

    fn orphan_now(&mut self, cx: &mut Cx<'_>) {
        if !self.orphan {
            self.orphan = true;
            cx.limits.orphans += 1;
        }
    }

    /// RST, then CLOSE, whatever is queued.
    fn reset_and_orphan(&mut self, reason: ResetReason, cx: &mut Cx<'_>) -> Disposition {
        self.orphan_now(cx);
        self.send_active_reset(reason, cx);
        self.close_state(Ending::ResetSent(reason), cx);
        Disposition::Closed
    }

    /// Linux `tcp_disconnect`: RST where the state needs one.
    fn disconnect_and_orphan(&mut self, cx: &mut Cx<'_>) -> Disposition {
        let unsent = matches!(self.state, TcpState::Closing | TcpState::LastAck) && self.send.has_unsent();
        if self.state_needs_reset() || unsent {
            return self.reset_and_orphan(ResetReason::Disconnect, cx);
        }
        self.orphan_now(cx);
        self.close_state(Ending::Failed(SocketError::ConnectionAborted), cx);
        Disposition::Closed
    }

    /// Linux `tcp_need_reset`.
    fn state_needs_reset(&self) -> bool {
        matches!(
            self.state,
            TcpState::Established
                | TcpState::CloseWait
                | TcpState::FinWait1
                | TcpState::FinWait2
                | TcpState::SynRecv
        )
    }

    /// Reset at once and orphan (linger 0).
    pub(crate) fn abort(&mut self, cx: &mut Cx<'_>) -> Disposition {
        self.life.unread_bytes += u64::from(self.recv.discard());
        if self.state == TcpState::Close {
            self.orphan = true;
            return Disposition::Closed;
        }
        if self.state == TcpState::SynSent {
            self.orphan_now(cx);
            self.cancel_connect(cx);
            return Disposition::Closed;
        }
        cx.counters.tcp_abort_on_data += 1;
        self.disconnect_and_orphan(cx)
    }

    /// `connect(AF_UNSPEC)`: as `abort`, and Linux does not count it among the aborts.
    pub(crate) fn disconnect(&mut self, cx: &mut Cx<'_>) -> Disposition {
        let aborts = cx.counters.tcp_abort_on_data;
        let disposition = self.abort(cx);
        cx.counters.tcp_abort_on_data = aborts;
        disposition
    }

    /// Linux `tcp_abort(ECONNABORTED)`: `SOCK_DESTROY`.
    pub(crate) fn kill(&mut self, cx: &mut Cx<'_>) -> Disposition {
        if self.state == TcpState::Close {
            return Disposition::Closed;
        }
        self.fail(SocketError::ConnectionAborted, cx);
        if self.state_needs_reset() {
            self.send_active_reset(ResetReason::Killed, cx);
        }
        self.finish(Ending::Killed, cx);
        Disposition::Closed
    }

    /// Forgets the connection and says nothing, as a host that was rebooted (Linux: close() under `TCP_REPAIR`).
    pub(crate) fn abandon(&mut self, cx: &mut Cx<'_>) -> Disposition {
        if self.state != TcpState::Close {
            self.fail(SocketError::ConnectionAborted, cx);
            self.finish(Ending::Abandoned, cx);
        }
        Disposition::Closed
    }

    /// The listener closed with this child unaccepted: RST.
    pub(crate) fn abort_unaccepted(&mut self, cx: &mut Cx<'_>) -> Disposition {
        self.life.unread_bytes += u64::from(self.recv.discard());
        if self.state == TcpState::Close {
            self.orphan = true;
            return Disposition::Closed;
        }
        self.orphan_now(cx);
        if self.state_needs_reset() {
            self.send_active_reset(ResetReason::ListenerClosed, cx);
        }
        self.close_state(Ending::ResetSent(ResetReason::ListenerClosed), cx);
        Disposition::Closed
    }

    /// `shutdown()`; `ENOTCONN` is `Err` (the flags are set all the same).
    pub(crate) fn shutdown(&mut self, how: Shutdown, cx: &mut Cx<'_>) -> Result<Disposition, Gone> {
        if self.state == TcpState::Close {
            self.rcv_shutdown |= how != Shutdown::Write;
            self.snd_shutdown |= how != Shutdown::Read;
            return Err(Gone);
        }
        if self.state == TcpState::SynSent {
            // Any shutdown of an attempt cancels it (Linux tcp_disconnect).
            self.finish(Ending::Failed(SocketError::ConnectionAborted), cx);
            return Ok(Disposition::Closed);
        }
        if how != Shutdown::Write {
            self.rcv_shutdown = true;
            self.tell(crate::stack::Readiness::READABLE);
        }
        if how != Shutdown::Read {
            self.snd_shutdown = true;
            // Linux tcp_shutdown(): in SYN-RECV the FIN waits for the end of the handshake.
            if self.state != TcpState::SynRecv {
                self.queue_fin_for_close(cx);
            }
            self.tell(crate::stack::Readiness::WRITABLE);
        }
        Ok(Disposition::Keep)
    }

    /// A segment that this connection answers with RST and its own end (Linux `tcp_reset` and `tcp_v4_send_reset`).
    pub(super) fn reset_by_segment(
        &mut self,
        segment: &Segment,
        reason: ResetReason,
        cx: &mut Cx<'_>,
    ) -> Disposition {
        let error = if self.state == TcpState::CloseWait {
            SocketError::BrokenPipe
        } else {
            SocketError::ConnectionReset
        };
        self.fail(error, cx);
        answer_with_reset(self.cookie, &self.tuple, segment, reason, cx);
        self.finish(Ending::ResetSent(reason), cx);
        Disposition::Closed
    }

    // ---- FIN-WAIT-2 of an orphan (specification 1.5)

    /// Linux `tcp_fin_time`; `None`: `TCP_LINGER2` is below zero.
    pub(super) fn fin_wait_2_time(&self, cx: &Cx<'_>) -> Option<Duration> {
        let lifetime = match self.options.linger2 {
            Linger2::Abort => return None,
            Linger2::Sysctl => cx.sysctl.tcp_fin_timeout,
            Linger2::For(lifetime) => lifetime,
        };
        Some(lifetime.max(self.three_and_a_half_rto()))
    }

    /// The ACK of our FIN came and nobody holds the connection.
    pub(super) fn enter_orphan_fin_wait_2(&mut self, segment: &Segment, cx: &mut Cx<'_>) -> Step {
        let text_end = segment.end_seq() - u32::from(segment.header.flags.fin());
        let brings_data = segment.seq_len() > 0 && text_end.after(self.recv.rcv_nxt);
        let lifetime = match self.fin_wait_2_time(cx) {
            Some(lifetime) if !brings_data => lifetime,
            // "Receive out of order FIN after close()", data after close, or no patience at all.
            _ => {
                cx.counters.tcp_abort_on_data += 1;
                answer_with_reset(self.cookie, &self.tuple, segment, ResetReason::AbortOnData, cx);
                self.finish(Ending::ResetSent(ResetReason::AbortOnData), cx);
                return Step::Break(Disposition::Closed);
            }
        };
        if lifetime > TIMEWAIT_LEN {
            self.keepalive_at = cx.now + (lifetime - TIMEWAIT_LEN);
            Step::Continue(())
        } else if segment.header.flags.fin() {
            // "Bad case. We could lose such FIN otherwise."
            self.keepalive_at = cx.now + lifetime;
            Step::Continue(())
        } else {
            Step::Break(self.leave_fin_wait_2(lifetime, cx))
        }
    }

    /// Into TIME-WAIT: the full connection ends, a mini socket remains.
    pub(super) fn enter_time_wait(&mut self, cx: &mut Cx<'_>) -> Disposition {
        let lifetime = cx.sysctl.tcp_timewait_len;
        let time_wait = self.remains(false, lifetime, cx);
        self.save_metrics(cx);
        self.finish(Ending::Fin, cx);
        Disposition::TimeWait(time_wait)
    }

    /// Linux `tcp_time_wait`; `lifetime` of a FIN-WAIT-2 is at least 3.5 RTO.
    fn remains(&self, fin_wait_2: bool, lifetime: Duration, cx: &Cx<'_>) -> TimeWait {
        let remains = Remains {
            fin_wait_2,
            rcv_nxt: self.recv.rcv_nxt,
            snd_nxt: self.send.snd_nxt(),
            rcv_wnd: self.recv.receive_window(),
            rcv_wscale: self.recv.rcv_wscale,
            ts: self.ts(),
            tos: self.options.hop(&self.tuple).tos,
            lifetime: if fin_wait_2 { lifetime.max(self.three_and_a_half_rto()) } else { lifetime },
        };
        TimeWait::new(&remains, cx.now)
    }

    /// The full connection ends; a mini socket waits for the peer's FIN.
    fn leave_fin_wait_2(&mut self, lifetime: Duration, cx: &mut Cx<'_>) -> Disposition {
        let mini = self.remains(true, lifetime, cx);
        self.save_metrics(cx);
        self.finish(Ending::FinWait2Expired, cx);
        Disposition::TimeWait(mini)
    }

    /// The keepalive timer of an orphan in FIN-WAIT-2 fired (Linux `tcp_keepalive_timer`, first branch).
    pub(super) fn on_fin_wait_2_timer(&mut self, cx: &mut Cx<'_>) -> Disposition {
        if let Some(lifetime) = self.fin_wait_2_time(cx)
            && lifetime > TIMEWAIT_LEN
        {
            // Not 60 s: the same time again, so that a life is 2·(t − 60).
            return self.leave_fin_wait_2(lifetime - TIMEWAIT_LEN, cx);
        }
        self.send_active_reset(ResetReason::State, cx);
        self.finish(Ending::ResetSent(ResetReason::State), cx);
        Disposition::Closed
    }
}
