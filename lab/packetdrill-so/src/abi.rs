//! The C side: packetdrill's table of functions, each a thin translation to [`Host`].
//!
//! Owns:    every `unsafe` of this library; sockaddr, iovec and errno.
//! Rules:   the table has 33 words, `userdata` first; failures are -1 with the C library's errno. Sockets get a real,
//!          empty descriptor (eventfd), because the tool closes what the script left open with the real `close`.
#![allow(unsafe_code, reason = "a C interface")]

mod pipes;
mod preload;
mod ready;
mod sockets;
mod world;

use core::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lastack_lab::target::{Call, Fd, Outcome, Via};
use libc::{
    epoll_event, iovec, loff_t, msghdr, nfds_t, pollfd, sockaddr, socklen_t, ssize_t, timeval, timezone,
    useconds_t,
};

use crate::host::Host;
use pipes::{pipe, splice};
use ready::{epoll_create, epoll_ctl, epoll_wait, poll};
use sockets::{
    accept, bind, close, connect, fcntl, getsockopt, ioctl, listen, read, readv, recv, recvfrom, recvmsg,
    send, sendmsg, sendto, setsockopt, shutdown, socket, write, writev,
};
use world::{gettimeofday, netdev_receive, netdev_send, usleep};

type Data = *mut c_void;

/// packetdrill's `struct packetdrill_interface`.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs, reason = "each is the C library's function of the same name")]
pub struct Interface {
    pub userdata: Data,
    pub free: unsafe extern "C" fn(Data),
    pub socket: unsafe extern "C" fn(Data, c_int, c_int, c_int) -> c_int,
    pub bind: unsafe extern "C" fn(Data, c_int, *const sockaddr, socklen_t) -> c_int,
    pub listen: unsafe extern "C" fn(Data, c_int, c_int) -> c_int,
    pub accept: unsafe extern "C" fn(Data, c_int, *mut sockaddr, *mut socklen_t) -> c_int,
    pub connect: unsafe extern "C" fn(Data, c_int, *const sockaddr, socklen_t) -> c_int,
    pub read: unsafe extern "C" fn(Data, c_int, *mut c_void, usize) -> ssize_t,
    pub readv: unsafe extern "C" fn(Data, c_int, *const iovec, c_int) -> ssize_t,
    pub recv: unsafe extern "C" fn(Data, c_int, *mut c_void, usize, c_int) -> ssize_t,
    pub recvfrom: unsafe extern "C" fn(
        Data,
        c_int,
        *mut c_void,
        usize,
        c_int,
        *mut sockaddr,
        *mut socklen_t,
    ) -> ssize_t,
    pub recvmsg: unsafe extern "C" fn(Data, c_int, *mut msghdr, c_int) -> ssize_t,
    pub write: unsafe extern "C" fn(Data, c_int, *const c_void, usize) -> ssize_t,
    pub writev: unsafe extern "C" fn(Data, c_int, *const iovec, c_int) -> ssize_t,
    pub send: unsafe extern "C" fn(Data, c_int, *const c_void, usize, c_int) -> ssize_t,
    pub sendto:
        unsafe extern "C" fn(Data, c_int, *const c_void, usize, c_int, *const sockaddr, socklen_t) -> ssize_t,
    pub sendmsg: unsafe extern "C" fn(Data, c_int, *const msghdr, c_int) -> ssize_t,
    pub fcntl: unsafe extern "C" fn(Data, c_int, c_int, c_int) -> c_int,
    pub ioctl: unsafe extern "C" fn(Data, c_int, c_ulong, *mut c_void) -> c_int,
    pub close: unsafe extern "C" fn(Data, c_int) -> c_int,
    pub shutdown: unsafe extern "C" fn(Data, c_int, c_int) -> c_int,
    pub getsockopt: unsafe extern "C" fn(Data, c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int,
    pub setsockopt: unsafe extern "C" fn(Data, c_int, c_int, c_int, *const c_void, socklen_t) -> c_int,
    pub poll: unsafe extern "C" fn(Data, *mut pollfd, nfds_t, c_int) -> c_int,
    pub netdev_send: unsafe extern "C" fn(Data, *const c_void, usize) -> c_int,
    pub netdev_receive: unsafe extern "C" fn(Data, *mut c_void, *mut usize, *mut i64) -> c_int,
    pub usleep: unsafe extern "C" fn(Data, useconds_t) -> c_int,
    pub gettimeofday: unsafe extern "C" fn(Data, *mut timeval, *mut timezone) -> c_int,
    pub epoll_create: unsafe extern "C" fn(Data, c_int) -> c_int,
    pub epoll_ctl: unsafe extern "C" fn(Data, c_int, c_int, c_int, *mut epoll_event) -> c_int,
    pub epoll_wait: unsafe extern "C" fn(Data, c_int, *mut epoll_event, c_int, c_int) -> c_int,
    pub pipe: unsafe extern "C" fn(Data, *mut c_int) -> c_int,
    pub splice: unsafe extern "C" fn(Data, c_int, *mut loff_t, c_int, *mut loff_t, usize, c_uint) -> ssize_t,
}

/// The one symbol packetdrill looks up. `flags` is the text of `--so_flags`, or null.
///
/// # Safety
/// `flags` is null or a C string; `out` points to room for the table.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetdrill_interface_init(flags: *const c_char, out: *mut Interface) {
    // SAFETY: the tool's contract.
    let flags = (!flags.is_null()).then(|| unsafe { CStr::from_ptr(flags) }.to_string_lossy().into_owned());
    let host: &'static Host = Box::leak(Box::new(Host::new(flags)));
    preload::register_getsockopt(host);
    let table = Interface {
        userdata: (&raw const *host).cast_mut().cast(),
        free,
        socket,
        bind,
        listen,
        accept,
        connect,
        read,
        readv,
        recv,
        recvfrom,
        recvmsg,
        write,
        writev,
        send,
        sendto,
        sendmsg,
        fcntl,
        ioctl,
        close,
        shutdown,
        getsockopt,
        setsockopt,
        poll,
        netdev_send,
        netdev_receive,
        usleep,
        gettimeofday,
        epoll_create,
        epoll_ctl,
        epoll_wait,
        pipe,
        splice,
    };
    // SAFETY: the tool's contract.
    unsafe { out.write(table) };
}

/// The tool is done. The host stays: threads of calls may still be inside.
unsafe extern "C" fn free(_data: Data) {}

// ---- translation

/// The host behind `userdata`.
fn host(data: Data) -> &'static Host {
    // SAFETY: `userdata` is the pointer that `packetdrill_interface_init` leaked and nobody frees.
    unsafe { &*data.cast::<Host>() }
}

fn fail(errno: c_int) -> c_int {
    // SAFETY: the C library's errno of this thread.
    unsafe { *libc::__errno_location() = errno };
    -1
}

fn give(outcome: &Outcome) -> i64 {
    if outcome.value < 0 { i64::from(fail(outcome.errno)) } else { outcome.value }
}

/// Makes a call about descriptor `fd`.
fn call(data: Data, fd: c_int, make: impl FnOnce(Fd) -> Call) -> Outcome {
    let host = host(data);
    match host.inside(fd) {
        Some(inside) => host.call(&make(inside)),
        None => Outcome::error(libc::EBADF),
    }
}

/// A new descriptor of the host gets an empty one of the process as its name.
fn name_new(data: Data, outcome: &Outcome) -> c_int {
    if outcome.value < 0 {
        return fail(outcome.errno);
    }
    // SAFETY: no memory is involved.
    let outside = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if outside >= 0 {
        host(data).name(outside, Fd(outcome.value as i32));
    }
    outside
}

/// # Safety
/// `address` points to `len` bytes.
unsafe fn read_address(address: *const sockaddr, len: socklen_t) -> Result<Option<SocketAddr>, c_int> {
    if address.is_null() || (len as usize) < size_of::<libc::sa_family_t>() {
        return Err(libc::EINVAL);
    }
    // SAFETY: at least the family is there; the rest is read only if `len` says that it is.
    unsafe {
        let family = i32::from(address.cast::<libc::sa_family_t>().read_unaligned());
        match family {
            libc::AF_UNSPEC => Ok(None),
            libc::AF_INET if len as usize >= size_of::<libc::sockaddr_in>() => {
                let address = address.cast::<libc::sockaddr_in>().read_unaligned();
                let ip = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
                Ok(Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(address.sin_port))))
            }
            libc::AF_INET6 if len as usize >= size_of::<libc::sockaddr_in6>() => {
                let address = address.cast::<libc::sockaddr_in6>().read_unaligned();
                let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
                Ok(Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(address.sin6_port))))
            }
            _ => Err(libc::EAFNOSUPPORT),
        }
    }
}

/// # Safety
/// `out` is null or points to `*len` bytes.
unsafe fn write_address(address: SocketAddr, out: *mut sockaddr, len: *mut socklen_t) {
    if out.is_null() || len.is_null() {
        return;
    }
    let mut bytes = Vec::with_capacity(28);
    match address {
        SocketAddr::V4(address) => {
            bytes.extend((libc::AF_INET as u16).to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend(address.ip().octets());
            bytes.resize(size_of::<libc::sockaddr_in>(), 0);
        }
        SocketAddr::V6(address) => {
            bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(address.ip().octets());
            bytes.resize(size_of::<libc::sockaddr_in6>(), 0);
        }
    }
    // SAFETY: at most the room the caller gave is written.
    unsafe {
        let room = (*len as usize).min(bytes.len());
        out.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), room);
        *len = bytes.len() as socklen_t;
    }
}

/// # Safety
/// `parts` points to `count` iovecs.
unsafe fn lens(parts: *const iovec, count: usize) -> Vec<usize> {
    if parts.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's contract.
    unsafe { core::slice::from_raw_parts(parts, count) }.iter().map(|part| part.iov_len).collect()
}

fn receive(data: Data, fd: c_int, lens: Vec<usize>, flags: c_int, via: Via) -> ssize_t {
    give(&call(data, fd, |fd| Call::Receive { fd, lens, flags, via })) as ssize_t
}

/// Where a datagram would go: on a TCP socket it counts with `MSG_FASTOPEN` alone.
///
/// # Safety
/// `address` is null or points to `len` bytes.
unsafe fn destination(address: *const sockaddr, len: socklen_t) -> Result<Option<SocketAddr>, c_int> {
    if address.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's contract.
    unsafe { read_address(address, len) }
}

fn transmit(
    data: Data,
    fd: c_int,
    lens: Vec<usize>,
    flags: c_int,
    via: Via,
    to: Option<SocketAddr>,
) -> ssize_t {
    give(&call(data, fd, |fd| Call::Send { fd, lens, flags, via, to })) as ssize_t
}

/// All payload in scripts is zeros: what was received is written as such.
///
/// # Safety
/// `buffer` has room for `len` bytes.
unsafe fn zero(buffer: *mut c_void, len: ssize_t) {
    if !buffer.is_null() && len > 0 {
        // SAFETY: the caller's contract.
        unsafe { buffer.cast::<u8>().write_bytes(0, len as usize) };
    }
}
