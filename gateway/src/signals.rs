//! The signals of a process that runs another: read, not obeyed.
//!
//! Owns:    [`Signals`]. Those that a terminal sends reach the program by themselves, because it is in the same process
//!          group; those that somebody sends to this process alone have to be passed on.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// A signal that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// The terminal sent it, to everybody in the foreground: Ctrl-C, Ctrl-\, a closed window.
    pub from_terminal: bool,
}

/// Signals that wait to be read.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

/// Every signal that is read. SIGTSTP is among them: the program is stopped by it, and its stop stops us.
pub(crate) const READ: [i32; 7] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGTSTP];

impl Signals {
    /// Blocks the signals for this thread, and for the threads it starts from now on. Programs it starts have none
    /// of them blocked.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn block() -> io::Result<Self> {
        Ok(Self { fd: sys::signal_fd(&READ)? })
    }

    /// The stream of signals, for the runtime this is called in.
    ///
    /// # Errors
    /// When the descriptor cannot be registered.
    pub fn stream(self) -> io::Result<SignalStream> {
        Ok(SignalStream { fd: sys::register(self.fd, Interest::READABLE)? })
    }
}

/// Signals as they come.
#[derive(Debug)]
pub struct SignalStream {
    fd: AsyncFd<OwnedFd>,
}

impl SignalStream {
    /// The next signal. Cancel safe.
    pub async fn next(&self) -> Signal {
        loop {
            let Ok(mut ready) = self.fd.readable().await else { return std::future::pending().await };
            match sys::read_signal(self.fd.get_ref()) {
                Ok(Some(signal)) => {
                    return Signal { number: signal.signal, from_terminal: signal.from_terminal };
                }
                Ok(None) | Err(_) => ready.clear_ready(),
            }
        }
    }
}

/// Stops this process, as the terminal's Ctrl-Z would; returns when it is continued.
pub fn stop_self() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
}

/// Allows this process as many descriptors as it may have. Call it after the program was started: the program keeps
/// the limit it would have had.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
}
