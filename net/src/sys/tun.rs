//! `/dev/net/tun`: attach to an interface, ask what a descriptor is, choose offloads.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::{check, ifreq, name_of};

/// Opens the device node, nonblocking. The network namespace is fixed here.
pub(crate) fn open_node() -> io::Result<OwnedFd> {
    let node = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    Ok(node.into())
}

/// `TUNSETIFF`: creates or attaches to interface `name` (`%d` is replaced by a number). Returns its name.
pub(crate) fn attach(fd: BorrowedFd<'_>, name: &str, flags: i32) -> io::Result<String> {
    let mut request = ifreq(name)?;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is; the descriptor is borrowed, hence open.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })?;
    Ok(name_of(&request))
}

/// `TUNGETIFF`: the interface a descriptor is attached to, and its flags.
pub(crate) fn attached(fd: BorrowedFd<'_>) -> io::Result<(String, i32)> {
    let mut request = ifreq("")?;
    // SAFETY: TUNGETIFF writes one `ifreq`, which `request` is; the descriptor is borrowed, hence open.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF as _, &mut request) })?;
    // SAFETY: the kernel filled the union's `ifru_flags`; every bit pattern is a valid integer.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok((name_of(&request), i32::from(flags as u16)))
}

/// `TUNSETOFFLOAD`: what this side takes merged and unchecked. Fails with `EINVAL` for bits the kernel does not know.
pub(crate) fn set_offload(fd: BorrowedFd<'_>, bits: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes an integer by value; the descriptor is borrowed, hence open.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(bits)) })?;
    Ok(())
}

/// `TUNSETVNETHDRSZ`: bytes of the virtio header before each packet.
pub(crate) fn set_header_len(fd: BorrowedFd<'_>, len: i32) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one `int` through the pointer, which lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &len) })?;
    Ok(())
}
