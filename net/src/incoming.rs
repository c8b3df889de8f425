//! Accept-any: SYNs for any destination, each waiting for a decision.
//!
//! Owns:    [`Incoming`] and [`PendingConnection`].
//! Rules:   nothing is answered before the decision. A dropped [`PendingConnection`] is dropped without a word;
//!          a dropped [`PendingConnection::accept`] resets what became of it.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use lastack_core::id::{FourTuple, ListenerId, PendingId};
use lastack_core::stack::{AnyOptions, Gone, PendingSyn, Unreachable};
use lastack_core::time::Instant;

use crate::connection::{Connection, os_error};
use crate::shard::Handle;
use crate::tcp::TcpStream;
use crate::waiters::READ;

/// The SYNs of [`Net::incoming`](crate::Net::incoming).
#[derive(Debug)]
pub struct Incoming {
    handle: Handle,
    id: ListenerId,
}

impl Incoming {
    pub(crate) fn new(handle: &Handle, options: AnyOptions) -> io::Result<Self> {
        handle.with(|state, now| {
            state.check_running()?;
            let id = state.stack.listen_any(now, options).map_err(|error| os_error(error.errno()))?;
            Ok(Self { handle: handle.clone(), id })
        })
    }

    /// The oldest SYN that waits for a decision. Cancel safe.
    ///
    /// # Errors
    /// The stack has stopped.
    pub async fn next(&mut self) -> io::Result<PendingConnection> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Incoming::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<PendingConnection>> {
        self.handle.with(|state, _| {
            if let Some(syn) = state.stack.next_pending(self.id) {
                state.waiters.decisions.watch(syn.id);
                let handle = self.handle.clone();
                return Poll::Ready(Ok(PendingConnection { handle, syn, stage: Stage::Undecided }));
            }
            if let Err(error) = state.check_running() {
                return Poll::Ready(Err(error));
            }
            state.waiters.listeners.wait(self.id, READ, cx.waker());
            Poll::Pending
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.handle.with(|state, now| {
            state.stack.close_listener(now, self.id);
            state.waiters.listeners.forget(self.id);
        });
    }
}

/// A SYN that waits for a decision. The sender repeats it meanwhile; repeats join this one.
#[derive(Debug)]
pub struct PendingConnection {
    handle: Handle,
    syn: PendingSyn,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Undecided,
    /// SYN-ACK was sent; how it ends is not known yet.
    Accepted,
    Decided,
}

impl PendingConnection {
    /// `local` is where the SYN wanted to go, `remote` who sent it.
    pub fn tuple(&self) -> FourTuple {
        self.syn.tuple
    }

    /// Where the SYN wanted to go.
    pub fn destination(&self) -> SocketAddr {
        self.syn.tuple.local
    }

    /// Who sent it.
    pub fn peer_addr(&self) -> SocketAddr {
        self.syn.tuple.remote
    }

    /// When it came.
    pub fn arrived(&self) -> Instant {
        self.syn.arrived
    }

    /// The connection's cookie, should it become one.
    pub fn cookie(&self) -> u64 {
        self.syn.cookie
    }

    pub(crate) fn clock(&self) -> crate::clock::Clock {
        self.handle.clock
    }

    /// Answers with SYN-ACK and waits for the handshake.
    ///
    /// # Errors
    /// `ConnectionAborted`: the SYN's sender gave up meanwhile; `TimedOut`, `ConnectionReset`, …: the handshake
    /// failed.
    pub async fn accept(mut self) -> io::Result<TcpStream> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await.map(TcpStream::new)
    }

    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        let id = self.syn.id;
        let stage = &mut self.stage;
        self.handle.with(|state, now| {
            if *stage == Stage::Undecided {
                *stage = Stage::Accepted;
                if let Err(Gone) = state.stack.pending_accept(now, id) {
                    *stage = Stage::Decided;
                    return Poll::Ready(Err(state.waiters.decisions.why_gone(id)));
                }
            }
            let Some(result) = state.waiters.decisions.take(id, cx.waker()) else {
                return match state.check_running() {
                    Ok(()) => Poll::Pending,
                    Err(error) => Poll::Ready(Err(error)),
                };
            };
            *stage = Stage::Decided;
            Poll::Ready(match result {
                Ok(connection) => Ok(Connection::adopt(self.handle.clone(), connection, state)),
                Err(error) => Err(os_error(error.errno())),
            })
        })
    }

    /// Waits until the SYN is gone undecided: its sender gave up, or began anew. Then no decision matters any
    /// more. Cancel safe.
    pub async fn gone(&mut self) -> io::Error {
        std::future::poll_fn(|cx| self.poll_gone(cx)).await
    }

    /// As [`PendingConnection::gone`].
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let id = self.syn.id;
        self.handle.with(|state, _| match state.waiters.decisions.peek_gone(id, cx.waker()) {
            Some(error) => Poll::Ready(os_error(error.errno())),
            None => match state.check_running() {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(error),
            },
        })
    }

    /// Answers with RST: the sender sees `ECONNREFUSED`.
    ///
    /// # Errors
    /// The SYN is gone.
    pub fn refuse(self) -> Result<(), Gone> {
        self.decide(|stack, now, id| stack.pending_refuse(now, id))
    }

    /// Answers with an ICMP error.
    ///
    /// # Errors
    /// The SYN is gone.
    pub fn unreachable(self, why: Unreachable) -> Result<(), Gone> {
        self.decide(|stack, now, id| stack.pending_unreachable(now, id, why))
    }

    /// Says nothing: the sender repeats its SYN, which is then pending anew, until it gives up.
    ///
    /// # Errors
    /// The SYN is gone.
    pub fn drop(self) -> Result<(), Gone> {
        self.decide(|stack, now, id| stack.pending_drop(now, id))
    }

    fn decide(
        mut self,
        decision: impl FnOnce(&mut lastack_core::Stack, Instant, PendingId) -> Result<(), Gone>,
    ) -> Result<(), Gone> {
        self.stage = Stage::Decided;
        self.handle.with(|state, now| decision(&mut state.stack, now, self.syn.id))
    }
}

impl Drop for PendingConnection {
    fn drop(&mut self) {
        let (id, stage) = (self.syn.id, self.stage);
        self.handle.with(|state, now| {
            // A handshake that goes on without an owner is reset when it is done (`Waiters::on_event`).
            if let Some(connection) = state.waiters.decisions.forget(id) {
                state.stack.abort(now, connection);
            }
            if stage == Stage::Undecided {
                // Gone already: nothing to drop.
                let _ = state.stack.pending_drop(now, id);
            }
        });
    }
}
