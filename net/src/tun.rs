//! TUN: a link to the kernel of this machine (or of a namespace), with super-segments where the kernel can.
//!
//! Owns:    opening or adopting a descriptor, the virtio header, one `readv` and one `writev` a packet.
//! Input:   packets from the kernel, up to 64 KiB merged; `Transmit` from the stack.
//! Rules:   Linux `drivers/net/tun.c`, `struct virtio_net_hdr` (VIRTIO 1.2, 5.1.6). The checksum of a packet
//!          marked `NEEDS_CSUM` or `DATA_VALID` is not verified again.
//! Not here: namespaces and routes (`lastack-gateway`); ioctls themselves (`sys`).

mod open;
mod virtio;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use lastack_core::wire::offload::Segments;
use lastack_core::wire::transmit::{RxMeta, Transmit};
use tokio::io::unix::AsyncFd;

use crate::device::{Capabilities, Device};
use crate::sys;

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
    fd: Arc<OwnedFd>,
    name: String,
    has_header: bool,
    capabilities: Capabilities,
    /// Made by the first poll, in the runtime that polls.
    ready: OnceLock<AsyncFd<Arc<OwnedFd>>>,
    /// Room for packets that have to be cut or finished before.
    scratch: Mutex<Vec<u8>>,
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

    fn readiness(&self) -> io::Result<&AsyncFd<Arc<OwnedFd>>> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready);
        }
        let ready = sys::ready::register(self.fd.clone())?;
        Ok(self.ready.get_or_init(|| ready))
    }

    /// One nonblocking read.
    fn read(&self, buf: &mut BytesMut) -> io::Result<RxMeta> {
        let mut header = [0; virtio::HEADER_LEN];
        let header = if self.has_header { &mut header[..] } else { &mut [] };
        let read = sys::packet::read(self.fd.as_fd(), header, buf)?;
        let truesize = buf.capacity() as u32;
        if read <= header.len() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the TUN interface is gone"));
        }
        Ok(virtio::meta(header, truesize))
    }

    fn send_cut(&self, packet: &Transmit) -> io::Result<()> {
        let mut scratch = self.scratch.lock().expect("cutting does not panic");
        let mut segments = Segments::new(packet);
        let header = if self.has_header { &virtio::PLAIN[..] } else { &[] };
        let mut is_first = true;
        while segments.next_packet(&mut scratch) {
            match sys::packet::write(self.fd.as_fd(), header, &scratch, &[]) {
                Ok(_) => {}
                Err(error) if is_first => return Err(error),
                // Part of the super-segment is out: the rest counts as lost on the link, and TCP repairs it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
                }
                Err(error) => return Err(error),
            }
            is_first = false;
        }
        Ok(())
    }
}

impl Device for Tun {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<RxMeta>> {
        let ready = self.readiness()?;
        loop {
            // The guard comes before the read, so that clearing it cannot lose a packet that came in between.
            let mut guard = ready!(ready.poll_read_ready(cx))?;
            match self.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn send(&self, packet: &Transmit) -> io::Result<()> {
        // Two pieces of the limit are the virtio header and the packet's own.
        if !self.capabilities.takes(packet) || packet.payload.len() > sys::packet::MAX_PIECES - 2 {
            return self.send_cut(packet);
        }
        let header = virtio::header(packet);
        let header = if self.has_header { &header[..] } else { &[] };
        sys::packet::write(self.fd.as_fd(), header, &packet.head, &packet.payload)?;
        Ok(())
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = self.readiness()?;
        loop {
            let mut guard = ready!(ready.poll_write_ready(cx))?;
            // `send` does not clear the readiness, so the kernel is asked.
            let mut fds = [rustix::event::PollFd::new(&self.fd, rustix::event::PollFlags::OUT)];
            if rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default()))? > 0 {
                return Poll::Ready(Ok(()));
            }
            guard.clear_ready();
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}
