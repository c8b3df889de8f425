//! The application's calls: send, receive, options, readiness.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{OptionError, QueuedError, RecvError, RecvOobError, SendError, SocketError};
use crate::stack::Readiness;
use crate::sysctl::Sysctl;
use crate::tcp::connection::Connection;
use crate::tcp::context::Cx;
use crate::tcp::options::TcpOption;
use crate::tcp::send::Write;
use crate::tcp::state::TcpState;
use crate::tcp::urgent::Urgent;
use crate::time::Instant;

impl Connection {
    /// Queues at most as much of `data` as fits.
    pub(crate) fn send(&mut self, data: &[u8], cx: &mut Cx<'_>) -> Result<usize, SendError> {
        self.write(data, Write::Plain, cx)
    }

    fn write(&mut self, data: &[u8], write: Write, cx: &mut Cx<'_>) -> Result<usize, SendError> {
        self.send.check_app_limited();
        self.check_sendable()?;
        if data.is_empty() {
            return Ok(0);
        }
        let options_len = self.options_len();
        let taken = self.send.push_slice(data, write, &self.options, options_len, cx);
        self.wants_room = taken < data.len();
        if taken == 0 { Err(SendError::WouldBlock) } else { Ok(taken) }
    }

    /// As [`Connection::send`]; the last byte taken is urgent (`MSG_OOB`).
    pub(crate) fn send_oob(&mut self, data: &[u8], cx: &mut Cx<'_>) -> Result<usize, SendError> {
        let taken = self.write(data, Write::Urgent, cx)?;
        if taken > 0 {
            self.send.mark_urgent();
        }
        Ok(taken)
    }

    /// The same with `MSG_MORE`.
    pub(crate) fn send_more(&mut self, data: &[u8], cx: &mut Cx<'_>) -> Result<usize, SendError> {
        self.write(data, Write::More, cx)
    }

    /// What `MSG_MORE` holds is held no longer.
    pub(crate) fn push(&mut self) {
        self.send.expect_no_more();
    }

    /// The same with `MSG_EOR`, if all of it is taken.
    pub(crate) fn send_record(&mut self, data: &[u8], cx: &mut Cx<'_>) -> Result<usize, SendError> {
        let taken = self.send(data, cx)?;
        if taken > 0 && taken == data.len() {
            self.send.end_record();
        }
        Ok(taken)
    }

    /// Queues `data` whole whenever there is room for one byte.
    pub(crate) fn send_bytes(&mut self, data: Bytes, cx: &mut Cx<'_>) -> Result<(), SendError> {
        self.send.check_app_limited();
        self.check_sendable()?;
        if self.send.is_full() {
            self.wants_room = true;
            self.send.on_no_space();
            return Err(SendError::WouldBlock);
        }
        let options_len = self.options_len();
        self.send.push(data, options_len, cx);
        self.wants_room = self.send.is_full();
        Ok(())
    }

    /// Linux `tcp_sendmsg_locked`: an error is told first, then EPIPE.
    fn check_sendable(&mut self) -> Result<(), SendError> {
        if let Some(error) = self.error.take() {
            return Err(SendError::Socket(error));
        }
        if self.snd_shutdown {
            return Err(SendError::BrokenPipe);
        }
        if !self.can_send() {
            self.wants_room = true;
            return Err(SendError::WouldBlock);
        }
        Ok(())
    }

    /// A Fast Open child may answer before its handshake is over (Linux `tcp_passive_fastopen`).
    fn can_send(&self) -> bool {
        self.state.can_send() || (self.state == TcpState::SynRecv && self.is_opening())
    }

    pub(crate) fn send_space(&self) -> usize {
        if self.can_send() && !self.snd_shutdown { self.send.free_space(self.options_len()) } else { 0 }
    }

    pub(crate) fn recv(&mut self, buf: &mut [u8], cx: &mut Cx<'_>) -> Result<usize, RecvError> {
        if buf.is_empty() {
            return Ok(0);
        }
        let read = self.recv.read(buf, self.options.oobinline);
        if read > 0 {
            // Linux tcp_recvmsg_locked(): what has room for more takes the FIN along, and the next read finds the end.
            if read < buf.len() && self.recv.fin && self.recv.readable() == 0 {
                self.take_fin();
            }
            self.after_read(read as u32, cx);
            return Ok(read);
        }
        self.end_of_data().map(|()| 0)
    }

    pub(crate) fn recv_chunk(&mut self, max: usize, cx: &mut Cx<'_>) -> Result<Option<Bytes>, RecvError> {
        if let Some(chunk) = self.recv.pop(max, self.options.oobinline) {
            self.after_read(chunk.len() as u32, cx);
            return Ok(Some(chunk));
        }
        self.end_of_data().map(|()| None)
    }

    /// The application has accepted it.
    pub(crate) fn on_accepted(&mut self) {
        self.has_holder = true;
    }

    /// Reads without taking (`MSG_PEEK`).
    pub(crate) fn peek(&mut self, buf: &mut [u8]) -> Result<usize, RecvError> {
        if buf.is_empty() {
            return Ok(0);
        }
        match self.recv.peek(buf, self.options.oobinline) {
            0 => self.end_of_data().map(|()| 0),
            read => Ok(read),
        }
    }

    /// The urgent byte, apart from the stream (Linux `tcp_recv_urg`); never waits. `Ok(None)`: it will not come.
    pub(crate) fn recv_oob(&mut self, peek: bool) -> Result<Option<u8>, RecvOobError> {
        if self.options.oobinline {
            return Err(RecvOobError::NoUrgentByte);
        }
        match self.recv.mark.take(peek) {
            Urgent::None => Err(RecvOobError::NoUrgentByte),
            Urgent::Byte(byte) => Ok(Some(byte)),
            Urgent::Awaited if self.rcv_shutdown || self.state == TcpState::Close => Ok(None),
            Urgent::Awaited => Err(RecvOobError::WouldBlock),
        }
    }

    /// The next byte to be read is the urgent one, or follows it where that was read apart (`SIOCATMARK`).
    pub(crate) fn is_at_mark(&self) -> bool {
        self.recv.mark.is_at(self.recv.copied_seq)
    }

    /// Enough waits for a reader (Linux `tcp_stream_is_readable`, `tcp_epollin_ready`).
    pub(super) fn is_readable(&self) -> bool {
        let waits = self.recv.readable();
        let beyond_mark = u32::from(self.is_at_mark() && !self.options.oobinline);
        // A window that does not take another segment: whoever waits for more would wait for ever.
        let no_more_fits = self.recv.receive_window() <= self.acks.rcv_mss();
        waits > 0 && (waits >= self.options.rcvlowat + beyond_mark || no_more_fits)
    }

    /// Nothing is queued: end of file, an error, or "not yet", in the order of Linux `tcp_recvmsg_locked`.
    fn end_of_data(&mut self) -> Result<(), RecvError> {
        if self.recv.fin {
            self.take_fin();
            return Ok(());
        }
        if let Some(error) = self.error.take() {
            return Err(RecvError::Socket(error));
        }
        if self.rcv_shutdown || self.state == TcpState::Close {
            return Ok(());
        }
        Err(RecvError::WouldBlock)
    }

    /// The FIN leaves the receive queue.
    fn take_fin(&mut self) {
        self.eof_read = true;
        self.recv.read_fin();
    }

    /// Linux `tcp_rcv_space_adjust`, then `tcp_cleanup_rbuf`.
    fn after_read(&mut self, copied: u32, cx: &mut Cx<'_>) {
        if self.state == TcpState::Close {
            return;
        }
        let ofo_span = self.reorder.span(self.recv.rcv_nxt);
        self.recv.adjust_space(cx.now, ofo_span, cx.sysctl);
        self.ack_if_read(copied > 0, cx);
    }

    /// Linux `tcp_cleanup_rbuf`.
    fn ack_if_read(&mut self, copied: bool, cx: &Cx<'_>) {
        let unacked = self.recv.rcv_nxt.since(self.recv.rcv_wup);
        let drained = copied && self.recv.readable() == 0;
        if self.acks.wants_ack_after_read(unacked, drained, cx.sysctl.tcp_pingpong_thresh)
            || self.window_doubled(cx)
        {
            self.acks.send_now();
        }
    }

    /// "Send ACK now, if this read freed lots of space in our buffer. … 'Lots' means 'at least twice' here."
    fn window_doubled(&mut self, cx: &Cx<'_>) -> bool {
        if self.rcv_shutdown || self.recv.is_held() {
            return false;
        }
        let current = self.recv.receive_window();
        if u64::from(current) * 2 > u64::from(self.recv.window_clamp()) {
            return false;
        }
        let (window, half_full) =
            self.recv.select_window(self.acks.rcv_mss(), self.reorder.charge(), cx.sysctl);
        if half_full {
            self.acks.clear_quick();
        }
        window > 0 && u64::from(window) >= 2 * u64::from(current)
    }

    /// Linux `sk_sndbuf`.
    pub(crate) fn send_buffer(&self) -> u32 {
        self.send.sndbuf()
    }

    /// Offers nothing any more, or again what there is; the peer is told at once.
    pub(crate) fn hold_window(&mut self, held: bool, cx: &mut Cx<'_>) {
        if self.state.can_receive() && self.recv.hold(held, cx.counters) {
            self.acks.send_now();
        }
    }

    /// Linux `SIOCINQ`.
    pub(crate) fn recv_available(&self) -> usize {
        self.recv.available(self.options.oobinline) as usize
    }

    /// Room in the send queue that somebody waits for (Linux `sk_stream_write_space`).
    pub(super) fn tell_room(&mut self, cx: &mut Cx<'_>) {
        if self.wants_room && self.can_send() && self.send.is_writeable(&self.options, cx) {
            self.wants_room = false;
            self.tell(Readiness::WRITABLE);
        }
    }

    /// What became true since the last call.
    pub(crate) fn take_readiness(&mut self) -> Readiness {
        core::mem::take(&mut self.ready)
    }

    /// What is true now (Linux `tcp_poll`).
    pub(crate) fn readiness(&self, sysctl: &Sysctl) -> Readiness {
        let mut bits = 0;
        let mut set = |claim: bool, fact: Readiness| bits |= if claim { fact.0 } else { 0 };
        let closed = self.state == TcpState::Close;
        let connected = !matches!(self.state, TcpState::SynSent | TcpState::SynRecv)
            && self.life.established_at.is_some();
        set(self.is_readable() || self.rcv_shutdown || self.error.is_some(), Readiness::READABLE);
        set(
            self.snd_shutdown || closed || (self.can_send() && self.send.is_pollable(&self.options, sysctl)),
            Readiness::WRITABLE,
        );
        set(connected, Readiness::CONNECTED);
        set(self.recv.fin, Readiness::PEER_CLOSED);
        set(closed || (self.rcv_shutdown && self.snd_shutdown), Readiness::HANGUP);
        set(self.error.is_some(), Readiness::ERROR);
        set(self.recv.mark.is_here(), Readiness::PRIORITY);
        set(closed || self.life.fin_acked_at.is_some(), Readiness::DRAINED);
        Readiness(bits)
    }

    /// Linux `SO_ERROR`: the error, else the soft one.
    pub(crate) fn take_error(&mut self) -> Option<SocketError> {
        self.error.take().or_else(|| self.soft_error.take())
    }

    /// Takes what the error queue holds. The error itself stays: [`Connection::take_error`] tells it.
    pub(crate) fn take_queued_error(&mut self) -> Option<QueuedError> {
        self.queued_error.take().map(|queued| *queued)
    }

    /// Stores an option and acts on it where Linux acts at once.
    pub(crate) fn set_option(&mut self, option: TcpOption, cx: &mut Cx<'_>) -> Result<(), OptionError> {
        // Linux do_tcp_setsockopt(): no clamp is a choice for a socket in CLOSE only.
        if option == TcpOption::WindowClamp(0) && self.state != TcpState::Close {
            return Err(OptionError::OutOfRange);
        }
        // A listener's, and a socket's that is to connect.
        let is_too_late = matches!(option, TcpOption::FastOpenQueue(_) | TcpOption::FastOpenNoCookie(_));
        if is_too_late && self.state != TcpState::Close {
            return Err(OptionError::OutOfRange);
        }
        let options = Arc::make_mut(&mut self.options);
        options.set(option, cx.sysctl.rmem_max, cx.sysctl.wmem_max)?;
        match option {
            // Linux __tcp_sock_set_nodelay(): what is queued goes now, corked or not.
            TcpOption::NoDelay(true) => self.send.push_pending(),
            TcpOption::Cork(false) => self.send.uncork(self.options.nodelay),
            TcpOption::KeepAlive(true) if self.state != TcpState::Close => self.arm_keepalive(cx),
            TcpOption::KeepAlive(false) if !self.orphan => {
                self.keepalive_at = Instant::FAR_FUTURE;
                self.keepalive_probe_due = false;
            }
            // Relative to the last activity.
            TcpOption::KeepIdle(_) if self.options.keepalive && self.state != TcpState::Close => {
                let elapsed = self.silent_for(cx.now);
                self.keepalive_at = cx.now + self.keepidle(cx).saturating_sub(elapsed);
            }
            TcpOption::QuickAck(true) => {
                self.acks.exit_pingpong();
                if self.acks.is_scheduled() && self.state.can_send() {
                    // Linux tcp_cleanup_rbuf(sk, 1): what is unread still holds the ACK back.
                    self.acks.push();
                    self.ack_if_read(true, cx);
                }
            }
            TcpOption::QuickAck(false) => self.acks.enter_pingpong(cx.sysctl.tcp_pingpong_thresh),
            TcpOption::SndBuf(_)
            | TcpOption::RtoMinUs(_)
            | TcpOption::RtoMaxMs(_)
            | TcpOption::Congestion(_) => self.send.refresh(&self.options),
            TcpOption::RcvBuf(_) => {
                self.recv.set_rcvbuf(self.options.rcvbuf.unwrap_or(cx.sysctl.tcp_rmem[1]))
            }
            TcpOption::WindowClamp(_) if self.options.window_clamp > 0 => {
                self.recv.set_window_clamp(self.options.window_clamp);
            }
            TcpOption::RcvLowat(_) => {
                let lowat = self.recv.make_room_for(self.options.rcvlowat, cx.sysctl);
                Arc::make_mut(&mut self.options).rcvlowat = lowat;
                if self.is_readable() {
                    self.tell(Readiness::READABLE);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
