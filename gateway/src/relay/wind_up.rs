//! The end of a relay: what is under way arrives, or is lost.
//!
//! Rules:   what was acknowledged to one side is handed to the other as long as that takes it: it is given up after
//!          [`Policy::patience`] without progress. What is told about loss is what the two kernels say then.

use std::time::Duration;

use lastack::Readiness;
use lastack::core::observe::Ending;

use super::{End, Policy, Relay};
use crate::host::HostInfo;
use crate::inject::Frozen;

/// How often it is looked whether data under way has arrived: doubled from the first to the last.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(64);
/// `TCP_CLOSE` of Linux's `tcpi_state`.
const TCP_CLOSE: u8 = 7;

impl Relay {
    /// What is under way arrives, or is lost.
    pub(super) async fn wind_up(&mut self, end: End, policy: &Policy) {
        match end {
            End::Clean => self.settle(policy).await,
            End::Inside(_) => self.deliver_outside(policy).await,
            End::Outside(_) => self.deliver_inside(policy).await,
            End::Killed | End::Stopped | End::Injected | End::Idle => {}
        }
    }

    /// Both FINs are under way: waits until they have arrived, so that what is told about loss is true.
    async fn settle(&mut self, policy: &Policy) {
        // Not HANGUP: that is true as soon as both have closed, whether our FIN has arrived or not.
        let _ = self.inside.wait_readiness(Readiness::DRAINED).await;
        let info = self.outside_at_rest(policy).await;
        if info.state == TCP_CLOSE && info.unacked_bytes > 0 {
            self.end = Some(End::Outside(self.outside.fail()));
        } else if let Some(errno) = self.inside_failure() {
            self.end = Some(End::Inside(errno));
        }
    }

    /// The inside's error after both FINs, if its end was not clean after all.
    fn inside_failure(&self) -> Option<i32> {
        match self.inside.life()?.ending? {
            Ending::ResetReceived => Some(libc::ECONNRESET),
            Ending::Failed(error) => Some(error.errno()),
            _ => None,
        }
    }

    /// The inside is gone: what it sent before goes on to the outside.
    async fn deliver_outside(&mut self, policy: &Policy) {
        if self.frozen() == Frozen::Both {
            return;
        }
        let patience = policy.patience;
        let deliver = async {
            while !self.up.queue.is_empty() {
                let Self { outside, up, .. } = self;
                if std::future::poll_fn(|cx| outside.poll_write(cx, &mut up.queue)).await.is_err() {
                    return;
                }
                policy.moved();
            }
        };
        let _ = tokio::time::timeout(patience, deliver).await;
        self.outside_at_rest(policy).await;
    }

    /// The outside is gone: what it sent before goes on to the inside.
    async fn deliver_inside(&mut self, policy: &Policy) {
        if self.frozen() == Frozen::Both {
            return;
        }
        let patience = policy.patience;
        let mut last = 0;
        loop {
            let rest = std::future::poll_fn(|cx| self.poll_down(cx, policy));
            if tokio::time::timeout(patience, rest).await.is_ok() {
                break;
            }
            let acked = self.inside.life().map_or(0, |life| life.bytes_acked);
            if std::mem::replace(&mut last, acked) == acked {
                return;
            }
        }
        let inside = &self.inside;
        let unacked = || match inside.life() {
            // A dead connection acknowledges nothing more.
            Some(life) if life.ending.is_none() => {
                inside.tcp_info().map_or(0, |info| u64::from(info.notsent_bytes) + u64::from(info.unacked))
            }
            _ => 0,
        };
        wait_until_zero(unacked, patience).await;
    }

    /// Waits until the outside's kernel has acknowledged everything, or will not.
    async fn outside_at_rest(&mut self, policy: &Policy) -> HostInfo {
        let mut info = HostInfo::default();
        let unacked = || {
            info = self.outside.info();
            // A dead socket acknowledges nothing more.
            if info.state == TCP_CLOSE { 0 } else { info.unacked_bytes }
        };
        wait_until_zero(unacked, policy.patience).await;
        **self.outside_info.insert(Box::new(info))
    }
}

/// Waits until `count` is zero, or has not gone down for `patience`.
async fn wait_until_zero(mut count: impl FnMut() -> u64, patience: Duration) {
    let (mut last, mut quiet, mut pause) = (u64::MAX, Duration::ZERO, LOOK_FIRST);
    loop {
        let now = count();
        if now == 0 || quiet >= patience {
            return;
        }
        quiet = if now < last { Duration::ZERO } else { quiet + pause };
        last = now;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_LAST);
    }
}
