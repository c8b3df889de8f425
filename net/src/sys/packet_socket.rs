//! AF_PACKET: a socket that gives and takes the frames of one interface, with virtio headers.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// Opens an unbound one: nothing is received before [`bind`].
pub(crate) fn open() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointer is passed.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An option of level `SOL_PACKET` that is an `int`.
pub(crate) fn set_packet_option(fd: BorrowedFd<'_>, name: i32, value: i32) -> io::Result<()> {
    set(fd, libc::SOL_PACKET, name, value)
}

/// `PACKET_VNET_HDR`: true when a virtio header comes before each frame.
pub(crate) fn has_header(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(get::<libc::c_int>(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR)? != 0)
}

/// `PACKET_STATISTICS`: frames dropped for want of room since it was asked last.
pub(crate) fn take_drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // `struct tpacket_stats`: packets, drops.
    Ok(get::<[u32; 2]>(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS)?[1])
}

/// Asks for room for `bytes` of frames each way; what the kernel's limits leave of it is not known before it is used.
pub(crate) fn set_buffers(fd: BorrowedFd<'_>, bytes: i32) {
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        // Beyond `rmem_max` only root of the machine: an ordinary user gets as much as that.
        if set(fd, libc::SOL_SOCKET, forced, bytes).is_err() {
            let _ = set(fd, libc::SOL_SOCKET, plain, bytes);
        }
    }
}

/// `SO_RCVBUF`: bytes of memory that frames may take before they are dropped.
pub(crate) fn receive_buffer(fd: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(get::<libc::c_int>(fd, libc::SOL_SOCKET, libc::SO_RCVBUF)?.max(0).cast_unsigned())
}

/// Every frame of interface `index` from now on.
pub(crate) fn bind(fd: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is plain old data, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    let len = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is a `sockaddr_ll` of that length and lives through the call, which only reads it.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
}

fn set(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads one `int` through the pointer, which lives through the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) }).map(drop)
}

/// Integers of any size: for every one of them zero and any other bytes are values.
trait Plain: Copy + Default {}
impl Plain for libc::c_int {}
impl Plain for [u32; 2] {}

fn get<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<T> {
    let mut value = T::default();
    let mut len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `value`, and `T` takes any bytes.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}
