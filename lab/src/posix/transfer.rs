//! The calls that move bytes, with their flags: `recv`, `recvmsg`, `send` and their kin.
//!
//! Rules: Linux `tcp_recvmsg_locked()`, `tcp_recv_urg()`, `tcp_sendmsg_locked()`.

use core::net::SocketAddr;

use lastack_core::error::{RecvError, SendError};
use lastack_core::id::ConnectionId;
use lastack_core::stack::Readiness;

use super::{Attempt, Posix, Role};
use crate::target::{Control, Fd, Outcome, Output};

impl Posix {
    /// Linux `tcp_recvmsg`: the message's flags, and with `TCP_INQ` how much more waits.
    pub(super) fn with_message(&mut self, fd: Fd, attempt: Attempt) -> Attempt {
        match attempt {
            Attempt::Done(outcome) if outcome.value >= 0 && outcome.output == Output::None => {
                let control = self.inq_hint(fd).map(Control::Inq).into_iter().collect();
                outcome.with(Output::Message { flags: 0, control }).into()
            }
            attempt => attempt,
        }
    }

    pub(super) fn receive(
        &mut self,
        fd: Fd,
        len: usize,
        flags: i32,
        progress: usize,
        first: bool,
    ) -> Attempt {
        let now = self.now;
        if flags & libc::MSG_ERRQUEUE != 0 {
            return self.receive_error(fd, len).into();
        }
        let (role, nonblocking) = match self.tcp(fd) {
            Ok(socket) => (socket.role, socket.nonblocking),
            Err(outcome) => return outcome.into(),
        };
        let Role::Connection { id, .. } = role else {
            let left = self.tcp(fd).ok().and_then(|socket| socket.left.take());
            return Outcome::error(left.unwrap_or(libc::ENOTCONN)).into();
        };
        let peek = flags & libc::MSG_PEEK != 0;
        let dont_wait = nonblocking || flags & libc::MSG_DONTWAIT != 0;
        if flags & libc::MSG_OOB != 0 {
            return match self.stack.recv_oob(id, peek) {
                Ok(byte) => {
                    let told = if byte.is_some() { libc::MSG_OOB } else { 0 };
                    let read = i64::from(byte.is_some() && len > 0);
                    let cut = if byte.is_some() && len == 0 { libc::MSG_TRUNC } else { 0 };
                    let output = Output::Message { flags: told | cut, control: Vec::new() };
                    Outcome::ok(read).with(output).into()
                }
                Err(error) => Outcome::error(error.errno()).into(),
            };
        }
        if progress > 0 && self.reading_ends(id) {
            return Outcome::ok(progress as i64).into();
        }
        // Linux sk_wait_data(): woken when SO_RCVLOWAT bytes wait, however many were read before.
        if !first && !self.stack.readiness(id).intersects(Readiness::READABLE) {
            return Attempt::Waits { progress, deadline: None };
        }
        let lowat = self.stack.options(id).map_or(1, |options| options.rcvlowat as usize);
        let target = if flags & libc::MSG_WAITALL != 0 { len } else { len.min(lowat) };
        let mut buffer = vec![0; len - progress];
        let received =
            if peek { self.stack.peek(now, id, &mut buffer) } else { self.stack.recv(now, id, &mut buffer) };
        match received {
            Ok(0) => Outcome::ok(progress as i64).into(),
            Ok(read) => {
                let total = progress + read;
                if total < target && !dont_wait && !peek {
                    return Attempt::Waits { progress: total, deadline: None };
                }
                Outcome::ok(total as i64).into()
            }
            Err(RecvError::WouldBlock) if dont_wait => Outcome::error(libc::EAGAIN).into(),
            Err(RecvError::WouldBlock) => Attempt::Waits { progress, deadline: None },
            Err(error) => Outcome::error(error.errno()).into(),
        }
    }

    /// Linux `tcp_recvmsg_locked`: something was read, and what is next is the mark, an error or the end. That is left for
    /// the next call.
    fn reading_ends(&self, id: ConnectionId) -> bool {
        let ended = self.stack.readiness(id).intersects(Readiness::READABLE);
        self.stack.is_at_mark(id) || (self.stack.recv_available(id) == 0 && ended)
    }

    /// Linux `tcp_inq_hint`: after the peer's FIN never 0, so that the program reads on to the end of file.
    fn inq_hint(&mut self, fd: Fd) -> Option<i32> {
        let socket = self.tcp(fd).ok()?;
        let Role::Connection { id, .. } = socket.role else { return None };
        if socket.kept.get(&(libc::IPPROTO_TCP, libc::TCP_INQ)) != Some(&1) {
            return None;
        }
        let fin = self.stack.readiness(id).intersects(Readiness::PEER_CLOSED);
        Some(self.stack.recv_available(id) as i32 + i32::from(fin))
    }

    pub(super) fn send(
        &mut self,
        fd: Fd,
        len: usize,
        flags: i32,
        to: Option<SocketAddr>,
        progress: usize,
        first: bool,
    ) -> Attempt {
        if first && let Some(connects) = self.send_fast(fd, len, flags, to) {
            return connects;
        }
        let (role, nonblocking) = match self.tcp(fd) {
            Ok(socket) => (socket.role, socket.nonblocking),
            Err(outcome) => return outcome.into(),
        };
        let Role::Connection { id, .. } = role else {
            let left = self.tcp(fd).ok().and_then(|socket| socket.left.take());
            return Outcome::error(left.unwrap_or(libc::EPIPE)).into();
        };
        let dont_wait = nonblocking || flags & libc::MSG_DONTWAIT != 0;
        if !first && !self.may_go_on(id) {
            return Attempt::Waits { progress, deadline: None };
        }
        let tracked = self.track(fd, id, len, flags);
        let attempt = self.send_now(id, len, flags, progress, dont_wait);
        if let (Some(tracked), Attempt::Done(outcome)) = (tracked, &attempt)
            && outcome.value > 0
        {
            self.tracked(fd, id, tracked, outcome.value.unsigned_abs());
        }
        attempt
    }

    fn send_now(
        &mut self,
        id: ConnectionId,
        len: usize,
        flags: i32,
        progress: usize,
        dont_wait: bool,
    ) -> Attempt {
        let now = self.now;
        let data = vec![0; len - progress];
        let sent = if flags & libc::MSG_OOB != 0 {
            self.stack.send_oob(now, id, &data)
        } else if flags & libc::MSG_MORE != 0 {
            self.stack.send_more(now, id, &data)
        } else if flags & libc::MSG_EOR != 0 {
            self.stack.send_record(now, id, &data)
        } else {
            self.stack.send(now, id, &data)
        };
        match sent {
            Ok(taken) if progress + taken < len && !dont_wait => {
                Attempt::Waits { progress: progress + taken, deadline: None }
            }
            Ok(taken) => Outcome::ok((progress + taken) as i64).into(),
            Err(SendError::WouldBlock) if progress > 0 && dont_wait => Outcome::ok(progress as i64).into(),
            Err(SendError::WouldBlock) if dont_wait => Outcome::error(libc::EAGAIN).into(),
            Err(SendError::WouldBlock) => Attempt::Waits { progress, deadline: None },
            Err(_) if progress > 0 => Outcome::ok(progress as i64).into(),
            Err(error) => Outcome::error(error.errno()).into(),
        }
    }
}
