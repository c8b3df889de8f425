//! Pings of addresses that are not the stack's own.

use std::io;
use std::task::{Context, Poll};

use lastack_core::stack::{Ping, Unreachable};

use crate::connection::os_error;
use crate::net::Net;
use crate::shard::Handle;

/// Every ping of an address that is not the stack's own. At most one a stack; without it nobody answers them.
#[derive(Debug)]
pub struct PingAny {
    handle: Handle,
}

impl PingAny {
    /// Takes every such ping from now on.
    ///
    /// # Errors
    /// `AddrInUse`: there is one already.
    pub fn bind(net: &Net) -> io::Result<Self> {
        net.handle().with(|state, _| {
            state.check_running()?;
            if !state.stack.take_pings(true) {
                return Err(os_error(libc::EADDRINUSE));
            }
            Ok(Self { handle: net.handle().clone() })
        })
    }

    /// The oldest ping. Cancel safe.
    ///
    /// # Errors
    /// The stack has stopped.
    pub async fn recv(&self) -> io::Result<Ping> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`PingAny::recv`].
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ping>> {
        self.handle.with(|state, _| match state.stack.next_ping() {
            Some(ping) => Poll::Ready(Ok(ping)),
            None => match state.check_running() {
                Ok(()) => {
                    state.waiters.pings = Some(cx.waker().clone());
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            },
        })
    }

    /// Answers as who was pinged would.
    pub fn reply(&self, ping: &Ping) {
        self.handle.with(|state, _| state.stack.ping_reply(ping));
    }

    /// Answers with an ICMP error.
    pub fn unreachable(&self, ping: &Ping, why: Unreachable) {
        self.handle.with(|state, now| state.stack.ping_unreachable(now, ping, why));
    }
}

impl Drop for PingAny {
    fn drop(&mut self) {
        self.handle.with(|state, _| {
            state.stack.take_pings(false);
            state.waiters.pings = None;
        });
    }
}
