//! A thread beside the one that moves the packets, for system calls that are long and touch nothing of the stack's.
//!
//! Owns:    [`Beside`]: the thread and what it has to do, in order.
//! Rules:   on the host itself connect(2) is a handshake, the server's half of it included: a fifth of what a short connection
//!          costs. Connections that come in a crowd are dialled beside the packets; one that comes alone is dialled at once, as
//!          two changes of thread take longer than the call.
//! Not here: what is done (`host`), when (`session`).

use std::io;
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;

/// Its calls go deep into the kernel, not into this program.
const STACK: usize = 64 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that waits for something to do; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Beside {
    jobs: mpsc::Sender<Job>,
}

impl Beside {
    /// Starts it. It inherits what this thread may do.
    ///
    /// # Errors
    /// No more threads are to be had.
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let work = move || waiting.into_iter().for_each(|job| job());
        thread::Builder::new().name("beside".into()).stack_size(STACK).spawn(work)?;
        Ok(Self { jobs })
    }

    /// Does `work` there. Dropped before it is done, it is done all the same, and what it gave is dropped.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = oneshot::channel();
        let job = move || {
            // Nobody may wait for it any more.
            let _ = done.send(work());
        };
        self.jobs.send(Box::new(job)).expect("the thread lives as long as this");
        result.await.expect("what is asked of it does not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_on_another_thread_and_what_nobody_waits_for_is_dropped() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let here = thread::current().id();
        let beside = Beside::start().expect("a thread");
        let there = runtime.block_on(beside.run(|| thread::current().id()));
        assert_ne!(here, there);

        let (alive, dropped) = mpsc::channel::<()>();
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = beside.run(move || alive) => {}
                () = std::future::ready(()) => {}
            }
        });
        // Done or not when nobody waited any more.
        let dropped = dropped.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(dropped, Err(mpsc::RecvTimeoutError::Disconnected));
        drop(beside);
    }
}
