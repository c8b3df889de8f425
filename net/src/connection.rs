//! One TCP connection as the sockets share it: `poll_*` functions over the shard, and Linux's `close()` on drop.
//!
//! Owns:    [`Connection`], which holds the stack's id. The tokio and the blocking sockets are skins over it.
//! Rules:   errors are the `io::Error`s of Linux's errno. What would wait looks first and registers its waker
//!          under the same lock, so that no wake is lost.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use lastack_core::error::{RecvError, SendError};
use lastack_core::id::ConnectionId;
use lastack_core::observe::{Life, TcpInfo};
use lastack_core::stack::{Readiness, Shutdown};
use lastack_core::tcp::options::{TcpOption, TcpOptions};
use lastack_core::tcp::state::TcpState;

use crate::shard::{Handle, State};
use crate::waiters::{READ, WRITE};

/// The `io::Error` that std gives for a Linux errno.
pub(crate) fn os_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

fn not_connected() -> io::Error {
    os_error(libc::ENOTCONN)
}

/// A connection that an application holds. Dropping it is Linux's `close()` without waiting.
#[derive(Debug)]
pub(crate) struct Connection {
    handle: Handle,
    id: ConnectionId,
    local: SocketAddr,
    remote: SocketAddr,
    cookie: u64,
}

impl Connection {
    /// Takes over `id`.
    pub(crate) fn adopt(handle: Handle, id: ConnectionId, state: &State) -> Self {
        let tuple = state.stack.tuple(id).expect("the stack has just given this id");
        let cookie = state.stack.cookie(id).expect("the stack has just given this id");
        Self { handle, id, local: tuple.local, remote: tuple.remote, cookie }
    }

    /// Begins to connect; [`Connection::poll_connected`] tells the end.
    pub(crate) fn connect(
        handle: &Handle,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        options: TcpOptions,
    ) -> io::Result<Self> {
        handle.with(|state, now| {
            state.check_running()?;
            let id =
                state.stack.connect(now, remote, local, options).map_err(|error| os_error(error.errno()))?;
            Ok(Self::adopt(handle.clone(), id, state))
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.remote
    }

    pub(crate) fn cookie(&self) -> u64 {
        self.cookie
    }

    pub(crate) fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.handle.with(|state, _| {
            if let Some(error) = state.stack.take_error(self.id) {
                return Poll::Ready(Err(os_error(error.errno())));
            }
            let ready = state.stack.readiness(self.id);
            if ready.intersects(Readiness::CONNECTED) {
                return Poll::Ready(Ok(()));
            }
            if ready.intersects(Readiness::HANGUP) {
                return Poll::Ready(Err(not_connected()));
            }
            self.pending(state, WRITE, cx)
        })
    }

    /// Registers the waker; an error when nothing will ever happen.
    fn pending<T>(&self, state: &mut State, on: Readiness, cx: &Context<'_>) -> Poll<io::Result<T>> {
        if let Err(error) = state.check_running() {
            return Poll::Ready(Err(error));
        }
        state.waiters.connections.wait(self.id, on, cx.waker());
        Poll::Pending
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.handle.with(|state, now| match state.stack.recv(now, self.id, buf) {
            Err(RecvError::WouldBlock) => self.pending(state, READ, cx),
            result => Poll::Ready(result.map_err(|error| os_error(error.errno()))),
        })
    }

    /// Reads without taking.
    pub(crate) fn poll_peek(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.handle.with(|state, now| match state.stack.peek(now, self.id, buf) {
            Err(RecvError::WouldBlock) => self.pending(state, READ, cx),
            result => Poll::Ready(result.map_err(|error| os_error(error.errno()))),
        })
    }

    pub(crate) fn poll_send_oob(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.handle.with(|state, now| match state.stack.send_oob(now, self.id, data) {
            Err(SendError::WouldBlock) => self.pending(state, WRITE, cx),
            result => Poll::Ready(result.map_err(|error| os_error(error.errno()))),
        })
    }

    pub(crate) fn recv_oob(&self) -> io::Result<Option<u8>> {
        self.handle
            .with(|state, _| state.stack.recv_oob(self.id, false))
            .map_err(|error| os_error(error.errno()))
    }

    pub(crate) fn is_at_mark(&self) -> bool {
        self.handle.look(|state, _| state.stack.is_at_mark(self.id))
    }

    pub(crate) fn poll_read_chunk(
        &self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        self.handle.with(|state, now| match state.stack.recv_chunk(now, self.id, max) {
            Err(RecvError::WouldBlock) => self.pending(state, READ, cx),
            result => Poll::Ready(result.map_err(|error| os_error(error.errno()))),
        })
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.handle.with(|state, now| match state.stack.send(now, self.id, data) {
            Err(SendError::WouldBlock) => self.pending(state, WRITE, cx),
            result => Poll::Ready(result.map_err(|error| os_error(error.errno()))),
        })
    }

    pub(crate) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.handle.with(|state, now| {
            let mut written = 0;
            for slice in slices.iter().filter(|slice| !slice.is_empty()) {
                match state.stack.send(now, self.id, slice) {
                    Ok(taken) => {
                        written += taken;
                        if taken < slice.len() {
                            break;
                        }
                    }
                    // What was taken counts; the error is told by the next call.
                    Err(_) if written > 0 => break,
                    Err(SendError::WouldBlock) => return self.pending(state, WRITE, cx),
                    Err(error) => return Poll::Ready(Err(os_error(error.errno()))),
                }
            }
            Poll::Ready(Ok(written))
        })
    }

    /// Queues the whole chunk, or none of it.
    pub(crate) fn poll_write_bytes(&self, cx: &mut Context<'_>, data: &Bytes) -> Poll<io::Result<()>> {
        if data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.handle.with(|state, now| match state.stack.send_bytes(now, self.id, data.clone()) {
            Err(SendError::WouldBlock) => self.pending(state, WRITE, cx),
            result => Poll::Ready(result.map_err(|error| os_error(error.errno()))),
        })
    }

    /// Queues the whole chunk and the FIN behind it, or neither: where there is room they leave as one segment.
    pub(crate) fn poll_write_last(&self, cx: &mut Context<'_>, data: &Bytes) -> Poll<io::Result<()>> {
        self.handle.with(|state, now| match state.stack.send_bytes(now, self.id, data.clone()) {
            Err(SendError::WouldBlock) => self.pending(state, WRITE, cx),
            Err(error) => Poll::Ready(Err(os_error(error.errno()))),
            Ok(()) => {
                let ended = state.stack.shutdown(now, self.id, Shutdown::Write);
                Poll::Ready(ended.map_err(|_| not_connected()))
            }
        })
    }

    /// Ready as soon as any fact of `on` is true, with all that are.
    pub(crate) fn poll_readiness(&self, cx: &mut Context<'_>, on: Readiness) -> Poll<io::Result<Readiness>> {
        self.handle.with(|state, _| {
            let ready = state.stack.readiness(self.id);
            if ready.intersects(on) { Poll::Ready(Ok(ready)) } else { self.pending(state, on, cx) }
        })
    }

    pub(crate) fn readiness(&self) -> Readiness {
        self.handle.look(|state, _| state.stack.readiness(self.id))
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.handle.with(|state, now| {
            state.stack.shutdown(now, self.id, how).map_err(|_| not_connected())?;
            // Whoever reads or writes in another task is to learn it.
            Ok(())
        })
    }

    pub(crate) fn set_option(&self, option: TcpOption) -> io::Result<()> {
        self.handle.with(|state, now| {
            state.stack.set_option(now, self.id, option).map_err(|error| os_error(error.errno()))
        })
    }

    /// Reads one of the options.
    pub(crate) fn option<T>(&self, read: impl FnOnce(&TcpOptions) -> T) -> io::Result<T> {
        self.handle.look(|state, _| state.stack.options(self.id).map(read).ok_or_else(not_connected))
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.handle.with(|state, _| state.stack.take_error(self.id)).map(|error| os_error(error.errno()))
    }

    pub(crate) fn take_saved_syn(&self) -> Option<Vec<u8>> {
        self.handle.with(|state, _| state.stack.take_saved_syn(self.id)).map(<[u8]>::into_vec)
    }

    pub(crate) fn state(&self) -> Option<TcpState> {
        self.handle.look(|state, _| state.stack.state(self.id))
    }

    pub(crate) fn life(&self) -> Option<Life> {
        self.handle.look(|state, _| state.stack.life(self.id))
    }

    pub(crate) fn tcp_info(&self) -> Option<TcpInfo> {
        self.handle.look(|state, now| state.stack.tcp_info(now, self.id))
    }

    pub(crate) fn send_space(&self) -> usize {
        self.handle.look(|state, _| state.stack.send_space(self.id))
    }

    pub(crate) fn recv_available(&self) -> usize {
        self.handle.look(|state, _| state.stack.recv_available(self.id))
    }

    /// RST now. The drop that follows finds a dead id, which `close` ignores.
    pub(crate) fn abort(&self) {
        self.handle.with(|state, now| state.stack.abort(now, self.id));
    }

    /// Forgotten without a word. The drop that follows finds a dead id.
    pub(crate) fn abandon(&self) {
        self.handle.with(|state, now| state.stack.abandon(now, self.id));
    }

    pub(crate) fn hold_window(&self, held: bool) {
        self.handle.with(|state, now| state.stack.hold_window(now, self.id, held));
    }

    /// How long `close()` has to wait (`SO_LINGER` above zero).
    pub(crate) fn linger(&self) -> Option<std::time::Duration> {
        let seconds = self.option(|options| options.linger).ok().flatten()?;
        (seconds > 0).then(|| std::time::Duration::from_secs(u64::from(seconds)))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.handle.with(|state, now| {
            state.stack.close(now, self.id);
            state.waiters.connections.forget(self.id);
        });
    }
}

/// Spells out a poll function's `async` twin and its `try_` twin.
pub(crate) fn now_or_would_block<T>(
    poll: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
) -> io::Result<T> {
    match poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(os_error(libc::EAGAIN)),
    }
}
