//! A connection for threads.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use lastack_core::observe::{Life, TcpInfo};
use lastack_core::stack::Readiness;
use lastack_core::tcp::options::{TcpOption, TcpOptions};

use crate::connection::Connection;
use crate::net::Net;
use crate::park;
use crate::tcp::core_shutdown;

/// A TCP connection. Threads may share it: `Read` and `Write` are there for `&TcpStream` too.
///
/// Dropping the last clone is Linux's `close()`, which waits with a linger time above zero.
#[derive(Debug)]
pub struct TcpStream {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connection: Connection,
    /// Nanoseconds; 0: none.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
}

impl TcpStream {
    pub(crate) fn new(connection: Connection) -> Self {
        let none = || AtomicU64::new(0);
        Self { shared: Arc::new(Shared { connection, read_timeout: none(), write_timeout: none() }) }
    }

    /// Connects to `addr`, trying each of its addresses in order.
    ///
    /// # Errors
    /// Those of Linux's `connect`.
    pub fn connect(net: &Net, addr: impl ToSocketAddrs) -> io::Result<Self> {
        let mut last = None;
        for addr in addr.to_socket_addrs()? {
            match Self::connect_with(net, addr, None, TcpOptions::default()) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to connect to")))
    }

    /// Connects to `addr`, for at most `timeout`.
    ///
    /// # Errors
    /// `TimedOut`; else as [`TcpStream::connect`].
    pub fn connect_timeout(net: &Net, addr: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        let connection = Connection::connect(net.handle(), *addr, None, TcpOptions::default())?;
        let clock = &net.handle().clock;
        match park::wait(clock, Some(clock.now() + timeout), |cx| connection.poll_connected(cx)) {
            Ok(()) => Ok(Self::new(connection)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "connection timed out"))
            }
            Err(error) => Err(error),
        }
    }

    /// Connects to `remote` from `local` (`None`, or port 0: chosen) with `options` set before the SYN.
    ///
    /// # Errors
    /// As [`TcpStream::connect`].
    pub fn connect_with(
        net: &Net,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        options: TcpOptions,
    ) -> io::Result<Self> {
        let connection = Connection::connect(net.handle(), remote, local, options)?;
        park::wait(&net.handle().clock, None, |cx| connection.poll_connected(cx))?;
        Ok(Self::new(connection))
    }

    fn connection(&self) -> &Connection {
        &self.shared.connection
    }

    fn wait<T>(
        &self,
        timeout: &AtomicU64,
        poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        let clock = &self.connection().handle().clock;
        let deadline = match timeout.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(clock.now() + Duration::from_nanos(nanos)),
        };
        park::wait(clock, deadline, poll)
    }

    /// Takes at most `max` bytes of what has been received, as the slice it was received in. `None`: end of file.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_chunk(&self, max: usize) -> io::Result<Option<Bytes>> {
        self.wait(&self.shared.read_timeout, |cx| self.connection().poll_read_chunk(cx, max))
    }

    /// Queues `data` whole, without copying it, as soon as there is room for a byte.
    ///
    /// # Errors
    /// As `write`.
    pub fn write_bytes(&self, data: &Bytes) -> io::Result<()> {
        self.wait(&self.shared.write_timeout, |cx| self.connection().poll_write_bytes(cx, data))
    }

    /// Reads without taking: the next read gives the same bytes.
    ///
    /// # Errors
    /// As `read`.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.wait(&self.shared.read_timeout, |cx| self.connection().poll_peek(cx, buf))
    }

    /// Writes what fits of `data`; the last byte taken is urgent (`MSG_OOB`).
    ///
    /// # Errors
    /// As `write`.
    pub fn send_oob(&self, data: &[u8]) -> io::Result<usize> {
        self.wait(&self.shared.write_timeout, |cx| self.connection().poll_send_oob(cx, data))
    }

    /// The peer's urgent byte, apart from the stream (`MSG_OOB`). Never waits: [`TcpStream::wait_readiness`] with
    /// [`Readiness::PRIORITY`] does. `None`: the stream ended before it came. Reads of the stream stop before the byte
    /// and then step over it; with `SO_OOBINLINE` ([`TcpOption::OobInline`]) it is part of the stream.
    ///
    /// # Errors
    /// `InvalidInput`: there is none, or it was read already. `WouldBlock`: announced, and not here yet.
    pub fn recv_oob(&self) -> io::Result<Option<u8>> {
        self.connection().recv_oob()
    }

    /// The stream is read up to the urgent byte (`sockatmark`).
    pub fn is_at_mark(&self) -> bool {
        self.connection().is_at_mark()
    }

    /// Waits until any fact of `on` is true; gives all that are.
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn wait_readiness(&self, on: Readiness) -> io::Result<Readiness> {
        park::wait(&self.connection().handle().clock, None, |cx| self.connection().poll_readiness(cx, on))
    }

    /// Ends one or both directions.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.connection().shutdown(core_shutdown(how))
    }

    /// Resets the connection, whatever is queued. Other clones find it gone.
    pub fn abort(self) {
        self.connection().abort();
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { shared: self.shared.clone() })
    }

    /// How long a `read` waits before it fails with `WouldBlock`; `None`: for ever.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        store(&self.shared.read_timeout, timeout)
    }

    /// How long a `write` waits before it fails with `WouldBlock`; `None`: for ever.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        store(&self.shared.write_timeout, timeout)
    }

    /// Switches Nagle's algorithm off (`TCP_NODELAY`).
    ///
    /// # Errors
    /// The connection is gone.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.connection().set_option(TcpOption::NoDelay(nodelay))
    }

    /// Whether Nagle's algorithm is off.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.connection().option(|options| options.nodelay)
    }

    /// Sets `SO_LINGER`, whole seconds.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        let seconds = linger.map(|time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
        self.connection().set_option(TcpOption::Linger(seconds))
    }

    /// Sets any option.
    ///
    /// # Errors
    /// `InvalidInput` where Linux answers `EINVAL`.
    pub fn set_option(&self, option: TcpOption) -> io::Result<()> {
        self.connection().set_option(option)
    }

    /// Takes the SYN that this connection was accepted with, as it came: from the IP header to the end of the TCP options
    /// (Linux `TCP_SAVED_SYN`). `None`: its listener keeps none, a SYN cookie did away with it, or it was taken.
    pub fn take_saved_syn(&self) -> Option<Vec<u8>> {
        self.connection().take_saved_syn()
    }

    /// Takes the pending error (`SO_ERROR`).
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.connection().take_error())
    }

    /// This end.
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.connection().local_addr())
    }

    /// The other end.
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.connection().peer_addr())
    }

    /// The connection's name in events and socket rows, from SYN to the end of TIME-WAIT.
    pub fn cookie(&self) -> u64 {
        self.connection().cookie()
    }

    /// The record of the connection's life so far.
    pub fn life(&self) -> Option<Life> {
        self.connection().life()
    }

    /// Everything Linux's `TCP_INFO` says.
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        self.connection().tcp_info()
    }
}

fn store(place: &AtomicU64, timeout: Option<Duration>) -> io::Result<()> {
    let nanos = match timeout {
        None => 0,
        Some(Duration::ZERO) => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot set a 0 duration timeout"));
        }
        Some(time) => u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
    };
    place.store(nanos, Ordering::Relaxed);
    Ok(())
}

/// Linux `close()` with `SO_LINGER` above zero: waits until everything sent is acknowledged, or the time is over.
impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let Some(time) = self.connection.linger() else { return };
        if self.connection.shutdown(lastack_core::stack::Shutdown::Write).is_err() {
            return;
        }
        let clock = &self.connection.handle().clock;
        let drained = Readiness::DRAINED.with(Readiness::HANGUP);
        let _ = park::wait(clock, Some(clock.now() + time), |cx| self.connection.poll_readiness(cx, drained));
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.wait(&self.shared.read_timeout, |cx| self.connection().poll_read(cx, buf))
    }
}

impl Write for &TcpStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.wait(&self.shared.write_timeout, |cx| self.connection().poll_write(cx, data))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.wait(&self.shared.write_timeout, |cx| self.connection().poll_write_vectored(cx, slices))
    }

    /// Nothing to do: what was written leaves by itself.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl Write for TcpStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
