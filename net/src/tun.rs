//! TUN: a link to the kernel of this machine (or of a namespace), with super-segments where the kernel can.
//!
//! Owns:    opening or adopting a descriptor, the virtio header, one `readv` and one `writev` a packet.
//! Input:   packets from the kernel, up to 64 KiB merged; `Transmit` from the stack.
//! Rules:   Linux `drivers/net/tun.c`, `struct virtio_net_hdr` (VIRTIO 1.2, 5.1.6). The checksum of a packet
//!          marked `NEEDS_CSUM` or `DATA_VALID` is not verified again.
//! Not here: namespaces and routes (`lastack-gateway`); ioctls themselves (`sys`).

mod open;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use lastack_core::wire::transmit::{RxMeta, Transmit};

use crate::descriptor::{Descriptor, MAX_PAYLOAD_PIECES};
use crate::device::{Capabilities, Device};
use crate::{sys, virtio};

pub use open::{TunError, TunOptions};

/// A TUN interface.
///
/// The driver that uses it must be polled in a tokio runtime with IO enabled.
///
/// # Example
/// ```no_run
/// use lastack::{Tun, TunOptions};
/// // The kernel gets 10.9.0.1; the stack behind the descriptor may be 10.9.0.2.
/// let options = TunOptions::new().name("lastack0").address([10, 9, 0, 1].into(), 24).up();
/// let tun = Tun::open(&options)?;
/// println!("{} is up", tun.name());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Tun {
    descriptor: Descriptor,
    name: String,
    has_header: bool,
    capabilities: Capabilities,
}

impl Tun {
    /// Opens `/dev/net/tun` in this thread's network namespace, with the best offloads the kernel has.
    ///
    /// # Errors
    /// The node is missing or not permitted, the interface is in use, an address is refused; the error says
    /// what was tried and what to do.
    pub fn open(options: &TunOptions) -> io::Result<Self> {
        open::open(options)
    }

    /// Adopts a descriptor that is already attached to an interface, perhaps in another namespace. `mtu` is
    /// that interface's. Header and offloads: as the descriptor was attached (`IFF_VNET_HDR`).
    ///
    /// # Errors
    /// The descriptor is not a TUN's, or is a TAP's.
    pub fn from_fd(fd: OwnedFd, mtu: u32) -> io::Result<Self> {
        open::adopt(fd, mtu)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many packets the kernel queues for this side before it drops (`txqueuelen`, 500 by default).
    /// Only in the namespace the interface is in.
    ///
    /// # Errors
    /// No permission, or the interface is not in this namespace.
    pub fn set_queue_len(&self, packets: u32) -> io::Result<()> {
        sys::interface::set_queue_len(&self.name, packets)
    }
}

impl Device for Tun {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<RxMeta>> {
        let mut header = [0; virtio::HEADER_LEN];
        let header = if self.has_header { &mut header[..] } else { &mut [] };
        let read = ready!(self.descriptor.poll_read(cx, header, buf))?;
        if read <= header.len() {
            let gone = io::Error::new(io::ErrorKind::UnexpectedEof, "the TUN interface is gone");
            return Poll::Ready(Err(gone));
        }
        Poll::Ready(Ok(virtio::meta(header, buf.capacity() as u32)))
    }

    fn send(&self, packet: &Transmit) -> io::Result<()> {
        if !self.capabilities.takes(packet) || packet.payload.len() > MAX_PAYLOAD_PIECES {
            let header = if self.has_header { &virtio::PLAIN[..] } else { &[] };
            return self.descriptor.write_cut(header, packet);
        }
        let header = virtio::header(packet, 0);
        self.descriptor.write(if self.has_header { &header[..] } else { &[] }, packet)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.descriptor.poll_writable(cx)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.descriptor.as_fd().as_raw_fd()
    }
}
