//! A packet socket on one end of a veth pair: a link to the kernel where `/dev/net/tun` is not to be had.
//!
//! Owns:    the socket's options, the Ethernet header of each frame, the count of frames that found no room.
//! Input:   frames from the other end, up to 64 KiB merged; `Transmit` from the stack.
//! Rules:   packet(7); Linux `net/packet/af_packet.c`, `drivers/net/veth.c`. The virtio header's places count from the
//!          Ethernet header. A stack has one neighbour here, the other end, so there is no ARP (make both ends `IFF_NOARP`).
//! Differs: a TUN holds a number of packets however large; here a full `SO_RCVBUF` drops, and nobody is held back.
//!          What was dropped is counted ([`Device::rx_dropped`]), and TCP sends it again. An interface that is taken
//!          away does not end the driver: what is sent is lost from then on.
//! Not here: making the pair, its addresses and routes (`lastack-gateway`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use lastack_core::wire::transmit::{RxMeta, Transmit};

use crate::descriptor::{Descriptor, MAX_PAYLOAD_PIECES};
use crate::device::{Capabilities, Device};
use crate::{sys, virtio};

/// An Ethernet address.
pub type MacAddress = [u8; 6];

const ETHERNET_LEN: usize = 14;
const HEADER_LEN: usize = virtio::HEADER_LEN + ETHERNET_LEN;
const TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Room asked for each way. Linux gives no more than twice `net.core.rmem_max` to ordinary users.
const BUFFER: i32 = 16 << 20;

/// A packet socket on a veth interface.
///
/// The driver that uses it must be polled in a tokio runtime with IO enabled.
///
/// # Example
/// ```no_run
/// use lastack::Veth;
/// // `ip link add veth0 type veth peer name lastack0`, both up and without ARP; the kernel talks on veth0.
/// let veth = Veth::open("lastack0", [0x02, 0, 0, 0, 0, 1])?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Veth {
    descriptor: Descriptor,
    capabilities: Capabilities,
    /// Destination and source of every frame.
    ends: [MacAddress; 2],
    /// Taken from the kernel so far, which counts from zero each time it is asked.
    dropped: AtomicU64,
}

impl Veth {
    /// Opens a socket on interface `name` of this thread's network namespace. `remote` is the other end's address.
    /// Needs `CAP_NET_RAW` in that namespace.
    ///
    /// # Errors
    /// There is no such interface, or no permission.
    pub fn open(name: &str, remote: MacAddress) -> io::Result<Self> {
        let socket = socket()?;
        bind(&socket, rustix::net::netdevice::name_to_index(&socket, name)?)?;
        Self::from_fd(socket, sys::interface::mtu(name)?, remote)
    }

    /// Adopts a socket that [`socket`] made and [`bind`] bound, perhaps in another namespace. `mtu` is its
    /// interface's, `remote` the other end's address.
    ///
    /// # Errors
    /// The descriptor is not a packet socket with virtio headers.
    pub fn from_fd(socket: OwnedFd, mtu: u32, remote: MacAddress) -> io::Result<Self> {
        if !sys::packet_socket::has_header(socket.as_fd())? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the packet socket has no virtio headers (PACKET_VNET_HDR)",
            ));
        }
        let mut own = remote;
        own[5] ^= 1;
        Ok(Self {
            descriptor: Descriptor::new(socket)?,
            capabilities: Capabilities { mtu, checksum: true, tso4: true, tso6: true, uso: true },
            ends: [remote, own],
            dropped: AtomicU64::new(0),
        })
    }

    /// Memory that frames may take before they are dropped, bytes: `SO_RCVBUF`.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn receive_buffer(&self) -> io::Result<u32> {
        sys::packet_socket::receive_buffer(self.descriptor.as_fd())
    }

    fn ethernet(&self, packet: &Transmit) -> [u8; ETHERNET_LEN] {
        let mut header = [0; ETHERNET_LEN];
        let [remote, own] = self.ends;
        header[..6].copy_from_slice(&remote);
        header[6..12].copy_from_slice(&own);
        let is_v6 = packet.head.first().is_some_and(|first| first >> 4 == 6);
        header[12..].copy_from_slice(if is_v6 { &TYPE_IPV6 } else { &TYPE_IPV4 });
        header
    }
}

/// A packet socket with everything [`Veth`] needs, in this thread's network namespace, bound to no interface yet.
///
/// # Errors
/// No `CAP_NET_RAW`, or a kernel without packet sockets.
pub fn socket() -> io::Result<OwnedFd> {
    let socket = sys::packet_socket::open()?;
    for option in [libc::PACKET_VNET_HDR, libc::PACKET_IGNORE_OUTGOING] {
        sys::packet_socket::set_packet_option(socket.as_fd(), option, 1)?;
    }
    // A veth has no queue of its own, so there is none to stop at.
    let _ = sys::packet_socket::set_packet_option(socket.as_fd(), libc::PACKET_QDISC_BYPASS, 1);
    sys::packet_socket::set_buffers(socket.as_fd(), BUFFER);
    Ok(socket)
}

/// Binds a socket to interface `index` of the namespace the socket was made in: from now on it receives.
///
/// # Errors
/// There is no such interface, or it is down.
pub fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    sys::packet_socket::bind(socket.as_fd(), index)
}

impl Device for Veth {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<RxMeta>> {
        let before = buf.len();
        loop {
            let mut header = [0; HEADER_LEN];
            let read = ready!(self.descriptor.poll_read(cx, &mut header, buf))?;
            let (virtio, ethernet) = header.split_at(virtio::HEADER_LEN);
            if read > HEADER_LEN && matches!([ethernet[12], ethernet[13]], TYPE_IPV4 | TYPE_IPV6) {
                return Poll::Ready(Ok(virtio::meta(virtio, buf.capacity() as u32)));
            }
            // No IP, so not ours.
            buf.truncate(before);
        }
    }

    fn send(&self, packet: &Transmit) -> io::Result<()> {
        let mut header = [0; HEADER_LEN];
        header[virtio::HEADER_LEN..].copy_from_slice(&self.ethernet(packet));
        if !self.capabilities.takes(packet) || packet.payload.len() > MAX_PAYLOAD_PIECES {
            return self.descriptor.write_cut(&header, packet);
        }
        header[..virtio::HEADER_LEN].copy_from_slice(&virtio::header(packet, ETHERNET_LEN as u16));
        self.descriptor.write(&header, packet)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.descriptor.poll_writable(cx)
    }

    fn rx_dropped(&self) -> u64 {
        let new = sys::packet_socket::take_drops(self.descriptor.as_fd()).unwrap_or(0);
        self.dropped.fetch_add(u64::from(new), Ordering::Relaxed) + u64::from(new)
    }
}

impl AsFd for Veth {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_of_something_else_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Veth::from_fd(file.into(), 1500, [2, 0, 0, 0, 0, 1]).is_err());
    }
}
