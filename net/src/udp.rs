//! UDP sockets for tokio.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use lastack_core::error::UdpError;
use lastack_core::id::UdpId;
use lastack_core::stack::{Datagram, Unreachable};
use tokio::net::ToSocketAddrs;

use crate::connection::os_error;
use crate::net::Net;
use crate::shard::Handle;
use crate::waiters::{READ, WRITE};

/// What the two kinds of UDP socket share.
#[derive(Debug)]
pub(crate) struct Udp {
    handle: Handle,
    id: UdpId,
}

impl Udp {
    fn bind(
        net: &Net,
        bind: impl FnOnce(&mut lastack_core::Stack, lastack_core::time::Instant) -> Result<UdpId, UdpError>,
    ) -> io::Result<Self> {
        net.handle().with(|state, now| {
            state.check_running()?;
            let id = bind(&mut state.stack, now).map_err(|error| os_error(error.errno()))?;
            Ok(Self { handle: net.handle().clone(), id })
        })
    }

    pub(crate) fn bind_to(net: &Net, local: SocketAddr) -> io::Result<Self> {
        Self::bind(net, |stack, now| stack.udp_bind(now, local))
    }

    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Datagram>> {
        self.handle.with(|state, now| match state.stack.udp_recv(now, self.id) {
            Err(UdpError::WouldBlock) => match state.check_running() {
                Ok(()) => {
                    state.waiters.udp.wait(self.id, READ, cx.waker());
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            },
            result => Poll::Ready(result.map_err(|error| os_error(error.errno()))),
        })
    }

    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        from: Option<SocketAddr>,
        to: SocketAddr,
        data: &Bytes,
    ) -> Poll<io::Result<()>> {
        self.handle.with(|state, now| match state.stack.udp_send(now, self.id, from, to, data.clone()) {
            Err(UdpError::WouldBlock) => match state.check_running() {
                Ok(()) => {
                    state.waiters.udp.wait(self.id, WRITE, cx.waker());
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            },
            result => Poll::Ready(result.map_err(|error| os_error(error.errno()))),
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.handle.look(|state, _| state.stack.udp_addr(self.id)).ok_or_else(|| os_error(libc::ENOTCONN))
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Udp {
    fn drop(&mut self) {
        self.handle.with(|state, _| {
            state.stack.udp_close(self.id);
            state.waiters.udp.forget(self.id);
        });
    }
}

/// A UDP socket.
///
/// # Example
/// ```
/// use lastack::{Config, Memory, Net, UdpSocket};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (left, right) = Memory::pair(1500);
/// let at = |last| Config { addresses: vec![([10, 0, 0, last].into(), 24)], ..Config::default() };
/// let (one, one_driver) = Net::start(left, at(1))?;
/// let (two, two_driver) = Net::start(right, at(2))?;
/// tokio::spawn(one_driver);
/// tokio::spawn(two_driver);
/// let server = UdpSocket::bind(&one, "10.0.0.1:53").await?;
/// let client = UdpSocket::bind(&two, "10.0.0.2:0").await?;
/// client.send_to(b"question", server.local_addr()?).await?;
/// let mut buf = [0; 64];
/// let (len, from) = server.recv_from(&mut buf).await?;
/// assert_eq!((&buf[..len], from), (&b"question"[..], client.local_addr()?));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct UdpSocket {
    udp: Udp,
}

impl UdpSocket {
    /// Binds to `addr`; port 0 chooses one.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`.
    pub async fn bind(net: &Net, addr: impl ToSocketAddrs) -> io::Result<Self> {
        let mut last = None;
        for addr in tokio::net::lookup_host(addr).await? {
            match Udp::bind_to(net, addr) {
                Ok(udp) => return Ok(Self { udp }),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to bind to")))
    }

    /// Sends one datagram. Cancel safe.
    ///
    /// # Errors
    /// `ConnectionRefused` and others that an ICMP error reported; `MessageTooLong` (no `ErrorKind`).
    pub async fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.send_bytes_to(Bytes::copy_from_slice(data), to).await?;
        Ok(data.len())
    }

    /// Sends one datagram without copying it. Cancel safe.
    ///
    /// # Errors
    /// As [`UdpSocket::send_to`].
    pub async fn send_bytes_to(&self, data: Bytes, to: SocketAddr) -> io::Result<()> {
        std::future::poll_fn(|cx| self.udp.poll_send(cx, None, to, &data)).await
    }

    /// Receives one datagram; what does not fit in `buf` is lost. Cancel safe.
    ///
    /// # Errors
    /// `ConnectionRefused` and others that an ICMP error reported.
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let datagram = self.recv().await?;
        Ok((copy_out(&datagram, buf), datagram.from))
    }

    /// Receives one datagram without copying it. Cancel safe.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_from`].
    pub async fn recv(&self) -> io::Result<Datagram> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`UdpSocket::recv`].
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Datagram>> {
        self.udp.poll_recv(cx)
    }

    /// Where the socket is bound.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}

/// Copies a datagram's start into `buf`; says how much.
pub(crate) fn copy_out(datagram: &Datagram, buf: &mut [u8]) -> usize {
    let len = datagram.data.len().min(buf.len());
    buf[..len].copy_from_slice(&datagram.data[..len]);
    len
}

/// Every datagram that no socket wants, whatever its destination. At most one a stack.
#[derive(Debug)]
pub struct UdpAny {
    udp: Udp,
}

impl UdpAny {
    /// Takes every datagram from now on.
    ///
    /// # Errors
    /// `AddrInUse`: there is one already.
    pub fn bind(net: &Net) -> io::Result<Self> {
        Udp::bind(net, lastack_core::Stack::udp_bind_any).map(|udp| Self { udp })
    }

    /// Receives one datagram. Cancel safe.
    ///
    /// # Errors
    /// The stack has stopped.
    pub async fn recv(&self) -> io::Result<Datagram> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`UdpAny::recv`].
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Datagram>> {
        self.udp.poll_recv(cx)
    }

    /// Sends `datagram` as it says: from `from`, whoever that is, to `to`.
    ///
    /// # Errors
    /// `MessageTooLong`, `NetworkUnreachable`.
    pub async fn send(&self, datagram: &Datagram) -> io::Result<()> {
        let Datagram { from, to, data, dont_fragment: _ } = datagram;
        std::future::poll_fn(|cx| self.udp.poll_send(cx, Some(*from), *to, data)).await
    }

    /// Answers a received datagram with an ICMP error.
    pub fn unreachable(&self, datagram: &Datagram, why: Unreachable) {
        self.udp.handle().with(|state, now| state.stack.udp_unreachable(now, datagram, why));
    }
}
