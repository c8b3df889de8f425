//! A connection.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use lastack_core::observe::{Life, TcpInfo};
use lastack_core::stack::{Readiness, Shutdown};
use lastack_core::tcp::options::{TcpOption, TcpOptions};
use lastack_core::tcp::state::TcpState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::ToSocketAddrs;
use tokio::task::coop;

use super::split::{self, OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
use crate::connection::{Connection, now_or_would_block};
use crate::net::Net;
use crate::waiters::{READ, WRITE};

/// A TCP connection.
///
/// # Example
/// ```
/// use lastack::{Config, Memory, Net, TcpListener, TcpStream};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (left, right) = Memory::pair(1500);
/// let at = |last| Config { addresses: vec![([10, 0, 0, last].into(), 24)], ..Config::default() };
/// let (server, server_driver) = Net::start(left, at(1))?;
/// let (client, client_driver) = Net::start(right, at(2))?;
/// tokio::spawn(server_driver);
/// tokio::spawn(client_driver);
///
/// let listener = TcpListener::bind(&server, "10.0.0.1:80").await?;
/// let mut stream = TcpStream::connect(&client, "10.0.0.1:80").await?;
/// stream.write_all(b"hello").await?;
/// stream.shutdown().await?;
///
/// let (mut accepted, _) = listener.accept().await?;
/// let mut text = String::new();
/// accepted.read_to_string(&mut text).await?;
/// assert_eq!(text, "hello");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TcpStream {
    connection: Connection,
}

impl TcpStream {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Connects to `addr`, trying each of its addresses in order.
    ///
    /// # Errors
    /// Those of Linux's `connect`: `ConnectionRefused`, `TimedOut`, `HostUnreachable`, …
    pub async fn connect(net: &Net, addr: impl ToSocketAddrs) -> io::Result<Self> {
        let mut last = None;
        for addr in tokio::net::lookup_host(addr).await? {
            match Self::connect_with(net, addr, None, TcpOptions::default()).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to connect to")))
    }

    /// Connects to `remote` from `local` (`None`, or port 0: chosen) with `options` set before the SYN.
    /// Cancel safe: a dropped call closes the attempt.
    ///
    /// # Errors
    /// As [`TcpStream::connect`].
    pub async fn connect_with(
        net: &Net,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        options: TcpOptions,
    ) -> io::Result<Self> {
        let connection = Connection::connect(net.handle(), remote, local, options)?;
        std::future::poll_fn(|cx| connection.poll_connected(cx)).await?;
        Ok(Self { connection })
    }

    // ---- without a copy

    /// Takes at most `max` bytes of what has been received, as the slice it was received in. `None`: end of file.
    /// Cancel safe.
    ///
    /// # Errors
    /// As `read`.
    pub async fn read_chunk(&self, max: usize) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_read_chunk(cx, max)).await
    }

    /// As [`TcpStream::read_chunk`].
    pub fn poll_read_chunk(&self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Option<Bytes>>> {
        let progress = ready!(coop::poll_proceed(cx));
        self.connection.poll_read_chunk(cx, max).map(|result| {
            progress.made_progress();
            result
        })
    }

    /// Queues `data` whole, without copying it, as soon as there is room for a byte. Cancel safe: a dropped call
    /// queues nothing.
    ///
    /// # Errors
    /// As `write`.
    pub async fn write_bytes(&self, data: Bytes) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_write_bytes(cx, &data)).await
    }

    /// As [`TcpStream::write_bytes`].
    pub fn poll_write_bytes(&self, cx: &mut Context<'_>, data: &Bytes) -> Poll<io::Result<()>> {
        let progress = ready!(coop::poll_proceed(cx));
        self.connection.poll_write_bytes(cx, data).map(|result| {
            progress.made_progress();
            result
        })
    }

    /// As [`TcpStream::poll_write_bytes`] and a shutdown of the sending direction behind it, in one: where there is room, data
    /// and FIN leave as one segment.
    pub fn poll_write_last(&self, cx: &mut Context<'_>, data: &Bytes) -> Poll<io::Result<()>> {
        let progress = ready!(coop::poll_proceed(cx));
        self.connection.poll_write_last(cx, data).map(|result| {
            progress.made_progress();
            result
        })
    }

    // ---- looking ahead, and urgent data

    /// Reads without taking: the next read gives the same bytes. Cancel safe.
    ///
    /// # Errors
    /// As `read`.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.connection.poll_peek(cx, buf)).await
    }

    /// Writes what fits of `data`; the last byte taken is urgent (`MSG_OOB`).
    ///
    /// # Errors
    /// As `write`.
    pub async fn send_oob(&self, data: &[u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.connection.poll_send_oob(cx, data)).await
    }

    /// The peer's urgent byte, apart from the stream (`MSG_OOB`). Never waits: [`TcpStream::wait_readiness`] with
    /// [`Readiness::PRIORITY`] does. `None`: the stream ended before it came. Reads of the stream stop before the byte
    /// and then step over it; with `SO_OOBINLINE` ([`TcpOption::OobInline`]) it is part of the stream.
    ///
    /// # Errors
    /// `InvalidInput`: there is none, or it was read already. `WouldBlock`: announced, and not here yet.
    pub fn recv_oob(&self) -> io::Result<Option<u8>> {
        self.connection.recv_oob()
    }

    /// The stream is read up to the urgent byte (`sockatmark`).
    pub fn is_at_mark(&self) -> bool {
        self.connection.is_at_mark()
    }

    // ---- readiness

    /// Waits until `read` would give something: data, end of file or an error.
    ///
    /// # Errors
    /// The stack has stopped.
    pub async fn readable(&self) -> io::Result<()> {
        self.wait_readiness(READ).await.map(drop)
    }

    /// Waits until `write` would take something, or fail.
    ///
    /// # Errors
    /// The stack has stopped.
    pub async fn writable(&self) -> io::Result<()> {
        self.wait_readiness(WRITE).await.map(drop)
    }

    /// Waits until any fact of `on` is true; gives all that are. Any number of tasks may wait.
    ///
    /// # Errors
    /// The stack has stopped.
    pub async fn wait_readiness(&self, on: Readiness) -> io::Result<Readiness> {
        std::future::poll_fn(|cx| self.poll_readiness(cx, on)).await
    }

    /// As [`TcpStream::wait_readiness`].
    pub fn poll_readiness(&self, cx: &mut Context<'_>, on: Readiness) -> Poll<io::Result<Readiness>> {
        self.connection.poll_readiness(cx, on)
    }

    /// What is true of the connection now.
    pub fn readiness(&self) -> Readiness {
        self.connection.readiness()
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// `WouldBlock`: nothing.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        now_or_would_block(|cx| self.connection.poll_read(cx, buf))
    }

    /// Queues what fits.
    ///
    /// # Errors
    /// `WouldBlock`: nothing fits.
    pub fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        now_or_would_block(|cx| self.connection.poll_write(cx, data))
    }

    /// Takes a chunk of what is there, see [`TcpStream::read_chunk`].
    ///
    /// # Errors
    /// `WouldBlock`: nothing.
    pub fn try_read_chunk(&self, max: usize) -> io::Result<Option<Bytes>> {
        now_or_would_block(|cx| self.connection.poll_read_chunk(cx, max))
    }

    /// Queues a chunk, see [`TcpStream::write_bytes`].
    ///
    /// # Errors
    /// `WouldBlock`: there is no room.
    pub fn try_write_bytes(&self, data: &Bytes) -> io::Result<()> {
        now_or_would_block(|cx| self.connection.poll_write_bytes(cx, data))
    }

    /// Bytes that wait to be read.
    pub fn recv_available(&self) -> usize {
        self.connection.recv_available()
    }

    /// Bytes that could be queued now.
    pub fn send_space(&self) -> usize {
        self.connection.send_space()
    }

    // ---- the end

    /// Ends one or both directions (`shutdown(2)`). `AsyncWriteExt::shutdown` ends the sending one.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn shutdown_how(&self, how: std::net::Shutdown) -> io::Result<()> {
        self.connection.shutdown(core_shutdown(how))
    }

    /// Closes; with a linger time above zero waits until everything sent is acknowledged, or the time is over.
    pub async fn close(self) {
        if let Some(time) = self.connection.linger()
            && self.connection.shutdown(Shutdown::Write).is_ok()
        {
            let drained = Readiness::DRAINED.with(Readiness::HANGUP);
            let _ = tokio::time::timeout(time, self.wait_readiness(drained)).await;
        }
    }

    /// Resets the connection, whatever is queued.
    pub fn abort(self) {
        self.connection.abort();
    }

    /// Makes the stack forget the connection without a word, as a peer that was rebooted: for tests of the other end.
    /// Its next packet is answered with RST.
    pub fn abandon(&self) {
        self.connection.abandon();
    }

    /// Advertises a window of 0 until it is let go, whatever room there is: for tests of the other end, whose kernel
    /// then probes the window. Linux does the same while it is out of memory.
    pub fn hold_window(&self, held: bool) {
        self.connection.hold_window(held);
    }

    // ---- options

    /// Switches Nagle's algorithm off (`TCP_NODELAY`).
    ///
    /// # Errors
    /// The connection is gone.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.connection.set_option(TcpOption::NoDelay(nodelay))
    }

    /// Whether Nagle's algorithm is off.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.connection.option(|options| options.nodelay)
    }

    /// Sets `SO_LINGER`, whole seconds. Zero: dropping resets the connection.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        let seconds = linger.map(|time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
        self.connection.set_option(TcpOption::Linger(seconds))
    }

    /// `SO_LINGER`.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.connection.option(|options| options.linger.map(|seconds| Duration::from_secs(seconds.into())))
    }

    /// Sets the time to live of packets that leave (`IP_TTL`).
    ///
    /// # Errors
    /// `InvalidInput` outside 1..=255.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.connection.set_option(TcpOption::Ttl(i32::try_from(ttl).unwrap_or(i32::MAX)))
    }

    /// `IP_TTL`.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn ttl(&self) -> io::Result<u32> {
        self.connection.option(|options| u32::from(options.ttl))
    }

    /// Sets any option.
    ///
    /// # Errors
    /// `InvalidInput` where Linux answers `EINVAL`.
    pub fn set_option(&self, option: TcpOption) -> io::Result<()> {
        self.connection.set_option(option)
    }

    // ---- look

    /// Takes the SYN that this connection was accepted with, as it came: from the IP header to the end of the TCP options
    /// (Linux `TCP_SAVED_SYN`). `None`: its listener keeps none, a SYN cookie did away with it, or it was taken.
    ///
    /// # Example
    /// What kind of host is the client? Its SYN says: time to live, window, options and their order.
    /// ```
    /// use lastack::core::wire::{self, Body, transmit::RxMeta};
    /// use lastack::{Config, ListenOptions, Memory, Net, TcpListener, TcpStream};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let (left, right) = Memory::pair(1500);
    /// # let at = |last| Config { addresses: vec![([10, 0, 0, last].into(), 24)], ..Config::default() };
    /// # let (server, server_driver) = Net::start(left, at(1))?;
    /// # let (client, client_driver) = Net::start(right, at(2))?;
    /// # tokio::spawn(server_driver);
    /// # tokio::spawn(client_driver);
    /// let mut options = ListenOptions::new(([10, 0, 0, 1], 80).into());
    /// options.options.save_syn = 1;
    /// let listener = TcpListener::bind_with(&server, options)?;
    /// let connecting = TcpStream::connect(&client, "10.0.0.1:80");
    /// let (accepted, _client) = tokio::join!(listener.accept(), connecting);
    /// let syn = accepted?.0.take_saved_syn().expect("the listener keeps them");
    /// let packet = wire::parse(&syn.into(), RxMeta::default()).expect("it was taken once");
    /// if let Body::Tcp(segment) = packet.body {
    ///     println!("TTL {}, window {}, {:?}", packet.ip.ttl, segment.header.wnd, segment.header.options);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn take_saved_syn(&self) -> Option<Vec<u8>> {
        self.connection.take_saved_syn()
    }

    /// Takes the pending error (`SO_ERROR`).
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.connection.take_error())
    }

    /// This end.
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.connection.local_addr())
    }

    /// The other end.
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.connection.peer_addr())
    }

    /// The connection's name in events and socket rows, from SYN to the end of TIME-WAIT.
    pub fn cookie(&self) -> u64 {
        self.connection.cookie()
    }

    /// The state; `None` when the connection is gone.
    pub fn state(&self) -> Option<TcpState> {
        self.connection.state()
    }

    /// The record of the connection's life so far.
    pub fn life(&self) -> Option<Life> {
        self.connection.life()
    }

    /// Everything Linux's `TCP_INFO` says.
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        self.connection.tcp_info()
    }

    // ---- halves

    /// Two halves that borrow the stream.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        split::split(self)
    }

    /// Two halves for two tasks. Dropping the writing one ends the sending direction.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split::into_split(self)
    }

    /// Undoes [`TcpStream::into_split`].
    ///
    /// # Errors
    /// The halves are of two streams.
    pub fn reunite(read: OwnedReadHalf, write: OwnedWriteHalf) -> Result<Self, ReuniteError> {
        read.reunite(write)
    }

    pub(super) fn poll_read_priv(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let progress = ready!(coop::poll_proceed(cx));
        let read = ready!(self.connection.poll_read(cx, buf.initialize_unfilled()))?;
        progress.made_progress();
        buf.advance(read);
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_write_priv(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let progress = ready!(coop::poll_proceed(cx));
        let written = ready!(self.connection.poll_write(cx, data));
        progress.made_progress();
        Poll::Ready(written)
    }

    pub(super) fn poll_write_vectored_priv(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = ready!(coop::poll_proceed(cx));
        let written = ready!(self.connection.poll_write_vectored(cx, slices));
        progress.made_progress();
        Poll::Ready(written)
    }
}

pub(crate) fn core_shutdown(how: std::net::Shutdown) -> Shutdown {
    match how {
        std::net::Shutdown::Read => Shutdown::Read,
        std::net::Shutdown::Write => Shutdown::Write,
        std::net::Shutdown::Both => Shutdown::Both,
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_read_priv(cx, buf)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_priv(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored_priv(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing to do: what was written leaves by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// FIN behind what is queued.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.connection.shutdown(Shutdown::Write))
    }
}
