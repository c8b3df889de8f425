//! Sockets for threads, with std's names and semantics.
//!
//! The stack's driver runs elsewhere: [`Net::spawn_thread`](crate::Net::spawn_thread), or a tokio runtime of the
//! program. Never call these from a task of the runtime that runs the driver: it would wait for itself.

mod listener;
mod stream;
mod udp;

pub use listener::{Incoming, TcpListener, incoming};
pub use stream::TcpStream;
pub use udp::UdpSocket;
