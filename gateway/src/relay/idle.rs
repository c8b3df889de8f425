//! The end of a connection that carries nothing, where that was asked for (`--tcp-idle`).
//!
//! Rules:   a byte has moved when it has come here, or has reached the kernel it goes to: what a slow reader takes out of
//!          buffers counts, what is sent again does not. It is looked [`LOOKS`] times in the time allowed, and not with
//!          every byte: the end comes at most so much of it late.

use std::pin::pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{End, Policy, Relay};

const LOOKS: u32 = 8;

impl Relay {
    /// Carries the connection until it has ended, or nothing has moved for `idle`.
    pub(super) async fn carry_unless_idle(&mut self, policy: &Policy, idle: Duration) -> End {
        let pause = idle / LOOKS;
        let mut timer = pin!(sleep(pause));
        let (mut moved, mut since) = (self.bytes_moved(), Instant::now());
        std::future::poll_fn(|cx| {
            if let Poll::Ready(end) = self.poll_carry(cx, policy) {
                return Poll::Ready(end);
            }
            loop {
                ready!(timer.as_mut().poll(cx));
                let now = Instant::now();
                let before = std::mem::replace(&mut moved, self.bytes_moved());
                if before != moved {
                    since = now;
                }
                if now - since >= idle {
                    return Poll::Ready(End::Idle);
                }
                timer.as_mut().reset(now + pause);
            }
        })
        .await
    }

    /// Bytes that have come from the program and from the remote end, and that have reached the one and the other.
    fn bytes_moved(&self) -> [u64; 4] {
        let life = self.inside.life().unwrap_or_default();
        let reached = self.outside.written() - self.outside.info().unacked_bytes;
        [life.bytes_received, self.outside.read(), life.bytes_acked, reached]
    }
}
