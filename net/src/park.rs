//! Waiting in a thread for what the `poll_*` functions tell.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use lastack_core::time::Instant;

use crate::clock::Clock;

/// Wakes one thread, also when that is not parked yet.
struct Parker {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

thread_local! {
    static PARKER: RefCell<Option<(Arc<Parker>, Waker)>> = const { RefCell::new(None) };
}

/// This thread's parker; taken while in use, so that nested waits get their own.
fn take_parker() -> (Arc<Parker>, Waker) {
    PARKER.with(|place| place.borrow_mut().take()).unwrap_or_else(|| {
        let parker = Arc::new(Parker { thread: std::thread::current(), is_woken: AtomicBool::new(false) });
        let waker = Waker::from(parker.clone());
        (parker, waker)
    })
}

/// Polls until ready, parked in between.
///
/// # Errors
/// What `poll` gives; after `deadline` `WouldBlock`, as a socket with `SO_RCVTIMEO` does.
pub(crate) fn wait<T>(
    clock: &Clock,
    deadline: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
) -> io::Result<T> {
    let (parker, waker) = take_parker();
    let mut cx = Context::from_waker(&waker);
    let result = loop {
        if let Poll::Ready(result) = poll(&mut cx) {
            break result;
        }
        let mut is_late = false;
        while !parker.is_woken.swap(false, Ordering::AcqRel) {
            match deadline {
                None => std::thread::park(),
                Some(deadline) => {
                    let left = clock.until(deadline);
                    if left.is_zero() {
                        is_late = true;
                        break;
                    }
                    std::thread::park_timeout(left);
                }
            }
        }
        if is_late {
            break Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
    };
    PARKER.with(|place| place.borrow_mut().replace((parker, waker)));
    result
}

#[cfg(test)]
mod tests {
    use lastack_core::time::Duration;

    use super::*;

    #[test]
    fn a_wake_from_another_thread_ends_the_wait() {
        let mut other = None;
        let mut polls = 0;
        let result = wait(&Clock::start(), None, |cx| {
            polls += 1;
            if other.is_some() {
                return Poll::Ready(Ok(polls));
            }
            let waker = cx.waker().clone();
            other = Some(std::thread::spawn(move || waker.wake()));
            Poll::Pending
        });
        assert_eq!(result.unwrap(), 2);
    }

    #[test]
    fn a_deadline_ends_the_wait_as_a_socket_timeout_does() {
        let clock = Clock::start();
        let result = wait::<()>(&clock, Some(clock.now() + Duration::from_millis(1)), |_| Poll::Pending);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
