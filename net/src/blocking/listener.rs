//! A listener for threads, and its iterator.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use lastack_core::stack::{AnyOptions, ListenOptions};

use super::TcpStream;
use crate::incoming::PendingConnection;
use crate::net::Net;
use crate::park;

/// A TCP socket that listens. Threads may share it.
///
/// # Example
/// ```
/// use lastack::blocking::{TcpListener, TcpStream};
/// use lastack::{Config, Memory, Net};
/// use std::io::{Read, Write};
/// let (left, right) = Memory::pair(1500);
/// let at = |last| Config { addresses: vec![([10, 0, 0, last].into(), 24)], ..Config::default() };
/// let server = Net::spawn_thread(left, at(1))?;
/// let client = Net::spawn_thread(right, at(2))?;
/// let listener = TcpListener::bind(&server, "10.0.0.1:7")?;
/// std::thread::spawn(move || {
///     let (mut stream, _) = listener.accept().unwrap();
///     let mut byte = [0];
///     stream.read_exact(&mut byte).unwrap();
///     stream.write_all(&byte).unwrap();
/// });
/// let mut stream = TcpStream::connect(&client, "10.0.0.1:7")?;
/// stream.write_all(b"x")?;
/// let mut answer = Vec::new();
/// stream.read_to_end(&mut answer)?;
/// assert_eq!(answer, b"x");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct TcpListener {
    inner: crate::TcpListener,
}

impl TcpListener {
    /// Listens on `addr`, with `SO_REUSEADDR` and a backlog of 128 as std does.
    ///
    /// # Errors
    /// Those of Linux's `bind` and `listen`.
    pub fn bind(net: &Net, addr: impl ToSocketAddrs) -> io::Result<Self> {
        let mut last = None;
        for addr in addr.to_socket_addrs()? {
            let mut options = ListenOptions::new(addr);
            options.options.reuseaddr = true;
            match Self::bind_with(net, options) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on")))
    }

    /// Listens as `options` say.
    ///
    /// # Errors
    /// As [`TcpListener::bind`].
    pub fn bind_with(net: &Net, options: ListenOptions) -> io::Result<Self> {
        crate::TcpListener::bind_with(net, options).map(|inner| Self { inner })
    }

    /// Waits for the next finished connection.
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let clock = &self.inner.handle().clock;
        let connection = park::wait(clock, None, |cx| self.inner.poll_accept_connection(cx))?;
        let peer = connection.peer_addr();
        Ok((TcpStream::new(connection), peer))
    }

    /// The connections, one after the other; never ends by itself.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Where it listens, with the port that was chosen.
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// Connections of a listener.
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

/// Every SYN for a destination that no listener has, see [`Net::incoming`]. Each waits for its decision.
///
/// # Errors
/// `AddrInUse`: there is one already.
pub fn incoming(
    net: &Net,
    options: AnyOptions,
) -> io::Result<impl Iterator<Item = io::Result<PendingConnection>>> {
    let mut incoming = net.incoming(options)?;
    Ok(std::iter::from_fn(move || {
        let clock = incoming.handle().clock;
        Some(park::wait(&clock, None, |cx| incoming.poll_next(cx)))
    }))
}

impl PendingConnection {
    /// As [`PendingConnection::accept`], waiting in this thread.
    ///
    /// # Errors
    /// As [`PendingConnection::accept`].
    pub fn accept_blocking(mut self) -> io::Result<TcpStream> {
        let clock = self.clock();
        park::wait(&clock, None, |cx| self.poll_accept(cx)).map(TcpStream::new)
    }
}
