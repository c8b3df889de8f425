//! A descriptor registered with tokio's reactor.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `fd` for reading and writing with the runtime that polls.
///
/// # Panics
/// Outside of a tokio runtime with IO enabled.
pub(crate) fn register(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `OwnedFd` is open and stays the same descriptor until it is dropped, and the `AsyncFd` keeps it
    // alive through its own `Arc`.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE | Interest::WRITABLE) };
    registered.map_err(io::Error::from)
}
