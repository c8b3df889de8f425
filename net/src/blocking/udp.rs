//! A UDP socket for threads.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use bytes::Bytes;

use crate::net::Net;
use crate::park;
use crate::udp::{Udp, copy_out};

/// A UDP socket. Threads may share it.
#[derive(Debug)]
pub struct UdpSocket {
    udp: Udp,
}

impl UdpSocket {
    /// Binds to `addr`; port 0 chooses one.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`.
    pub fn bind(net: &Net, addr: impl ToSocketAddrs) -> io::Result<Self> {
        let mut last = None;
        for addr in addr.to_socket_addrs()? {
            match Udp::bind_to(net, addr) {
                Ok(udp) => return Ok(Self { udp }),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to bind to")))
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// `ConnectionRefused` and others that an ICMP error reported; `MessageTooLong` (no `ErrorKind`).
    pub fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<usize> {
        let bytes = Bytes::copy_from_slice(data);
        park::wait(&self.udp.handle().clock, None, |cx| self.udp.poll_send(cx, None, to, &bytes))?;
        Ok(data.len())
    }

    /// Waits for one datagram; what does not fit in `buf` is lost.
    ///
    /// # Errors
    /// `ConnectionRefused` and others that an ICMP error reported.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let datagram = park::wait(&self.udp.handle().clock, None, |cx| self.udp.poll_recv(cx))?;
        Ok((copy_out(&datagram, buf), datagram.from))
    }

    /// Where the socket is bound.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}
