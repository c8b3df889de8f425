//! A descriptor that gives and takes one packet a call: what a TUN and a packet socket have in common.
//!
//! Owns:    the nonblocking descriptor, its place in tokio's reactor, and room for packets that have to be cut.
//! Not here: what stands before a packet (`virtio`, an Ethernet header): the devices bring their own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use lastack_core::wire::offload::Segments;
use lastack_core::wire::transmit::Transmit;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// Pieces of payload one packet may have: two more are the headers before it and its own.
pub(crate) const MAX_PAYLOAD_PIECES: usize = sys::packet::MAX_PIECES - 2;

#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: Arc<OwnedFd>,
    /// Made by the first poll, in the runtime that polls.
    ready: OnceLock<AsyncFd<Arc<OwnedFd>>>,
    scratch: Mutex<Vec<u8>>,
}

impl Descriptor {
    /// Takes `fd` over, and makes it nonblocking for everybody who has it.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let status = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, status | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self { fd: Arc::new(fd), ready: OnceLock::new(), scratch: Mutex::default() })
    }

    fn readiness(&self) -> io::Result<&AsyncFd<Arc<OwnedFd>>> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready);
        }
        let ready = sys::ready::register(self.fd.clone())?;
        Ok(self.ready.get_or_init(|| ready))
    }

    /// One packet: its first bytes into `header`, the rest behind what `buf` holds. Gives the bytes of both.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        header: &mut [u8],
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let ready = self.readiness()?;
        loop {
            // The guard comes before the read, so that clearing it cannot lose a packet that came in between.
            let mut guard = ready!(ready.poll_read_ready(cx))?;
            match sys::packet::read(self.fd.as_fd(), header, buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Ready when a write may succeed again after `WouldBlock`.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = self.readiness()?;
        loop {
            let mut guard = ready!(ready.poll_write_ready(cx))?;
            // A write does not clear the readiness, so the kernel is asked.
            let mut fds = [rustix::event::PollFd::new(&self.fd, rustix::event::PollFlags::OUT)];
            if rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default()))? > 0 {
                return Poll::Ready(Ok(()));
            }
            guard.clear_ready();
        }
    }

    /// `packet` behind `header`, whole, with one system call.
    pub(crate) fn write(&self, header: &[u8], packet: &Transmit) -> io::Result<()> {
        sys::packet::write(self.fd.as_fd(), header, &packet.head, &packet.payload).map(drop)
    }

    /// `packet` cut into packets of the wire with finished checksums, each behind `header`.
    pub(crate) fn write_cut(&self, header: &[u8], packet: &Transmit) -> io::Result<()> {
        let mut scratch = self.scratch.lock().expect("cutting does not panic");
        let mut segments = Segments::new(packet);
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

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
