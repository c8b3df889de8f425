//! TCP sockets for tokio, with tokio's names and semantics.
//!
//! Dropping a [`TcpStream`] is Linux's `close()`: FIN behind what is queued, RST where data is unread. A linger time
//! is waited out by [`TcpStream::close`] only, because a drop cannot wait in a task.

mod listener;
mod split;
mod stream;

pub use listener::TcpListener;
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use stream::TcpStream;
pub(crate) use stream::core_shutdown;
