//! A timer finer than tokio's: the kernel's `timerfd`, in the runtime that polls.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use lastack_core::time::Instant;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::clock::Clock;
use crate::sys;

#[derive(Debug)]
pub(super) struct Timer {
    fd: Arc<OwnedFd>,
    /// Made by the first poll, in the runtime that polls.
    ready: OnceLock<AsyncFd<Arc<OwnedFd>>>,
    /// What it is set to, nanoseconds of [`Instant`].
    set_to: AtomicU64,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let set_to = AtomicU64::new(Instant::FAR_FUTURE.as_nanos());
        Ok(Self { fd: Arc::new(fd), ready: OnceLock::new(), set_to })
    }

    /// The time it is set to; [`Instant::FAR_FUTURE`] when it is not.
    pub(super) fn is_set_to(&self) -> Instant {
        Instant::from_nanos(self.set_to.load(Ordering::Relaxed))
    }

    /// Ready when `deadline` has come; else the task is woken then.
    pub(super) fn poll_until(
        &self,
        clock: &Clock,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let ready = match self.ready.get() {
            Some(ready) => ready,
            None => {
                let ready = sys::ready::register(self.fd.clone())?;
                self.ready.get_or_init(|| ready)
            }
        };
        if deadline != self.is_set_to() {
            self.set(clock, deadline)?;
        }
        loop {
            let Poll::Ready(guard) = ready.poll_read_ready(cx) else { return Poll::Pending };
            let mut guard = guard?;
            match rustix::io::read(&self.fd, &mut [0_u8; 8]) {
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
                Ok(_) => {
                    self.set_to.store(Instant::FAR_FUTURE.as_nanos(), Ordering::Relaxed);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn set(&self, clock: &Clock, deadline: Instant) -> io::Result<()> {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = if deadline.is_armed() {
            // Zero would switch it off.
            let left = clock.until(deadline).max(std::time::Duration::from_nanos(1));
            Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        } else {
            never
        };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: never, it_value })?;
        self.set_to.store(deadline.as_nanos(), Ordering::Relaxed);
        Ok(())
    }
}
