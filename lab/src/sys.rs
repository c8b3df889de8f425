//! The operating system: every `unsafe` of this crate, as small safe functions.
//!
//! Owns:    the clock, sleeping, namespaces, TUN, packet sockets, and socket calls with their errno.
//! Not here: any decision (`crate::kernel`).
#![allow(unsafe_code, reason = "the one module that speaks to the C library")]

use core::mem::{MaybeUninit, size_of, zeroed};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_void, socklen_t};

use crate::target::{Control, ExtendedError};

/// Result of a system call as C gives it: the value, or the errno.
pub(crate) type Sys<T> = Result<T, i32>;

fn check(value: impl Into<i64>) -> Sys<i64> {
    let value = value.into();
    if value >= 0 { Ok(value) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
}

pub(crate) fn os_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

// ---- time

/// `CLOCK_REALTIME`: the clock of packet timestamps.
pub(crate) fn now() -> Duration {
    // SAFETY: `time` outlives the call, which writes nothing else.
    let time = unsafe {
        let mut time: libc::timespec = zeroed();
        libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time);
        time
    };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

pub(crate) fn sleep(time: Duration) {
    let request = libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    // SAFETY: `request` outlives the call; the remainder is not asked for.
    unsafe { libc::nanosleep(&raw const request, core::ptr::null_mut()) };
}

// ---- threads and namespaces

/// This thread alone moves to a new network namespace, and takes a copy of the table of descriptors: what it opens then no
/// child of another thread inherits. A child holds what it has inherited until its `exec`, so that a `close` here would not
/// be the last.
pub(crate) fn unshare_network_and_files() -> Sys<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_FILES) }).map(drop)
}

/// Kernel's number of this thread.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: no memory is involved.
    unsafe { libc::gettid() }
}

/// Asks for the lowest real-time priority, so that a busy machine does not disturb a script's times.
pub(crate) fn raise_priority() -> bool {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: `param` outlives the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) == 0 }
}

/// Lets [`interrupt`] end a blocking call with EINTR instead of killing the process.
pub(crate) fn allow_interrupts() {
    extern "C" fn nothing(_: c_int) {}
    // SAFETY: the handler does nothing, so it is safe in any context; without SA_RESTART calls end with EINTR.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = nothing as extern "C" fn(c_int) as libc::sighandler_t;
        libc::sigaction(libc::SIGUSR1, &raw const action, core::ptr::null_mut());
    }
}

/// Ends the call another thread of this process blocks in.
pub(crate) fn interrupt(thread: i32) {
    // SAFETY: no memory is involved; a thread that is gone gives ESRCH.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
}

// ---- devices

/// A TUN device without packet information or offloads, in this thread's network namespace.
pub(crate) fn open_tun(name: &str) -> Sys<OwnedFd> {
    // SAFETY: the path is a C string; the descriptor is new and ours.
    let fd = unsafe {
        let fd = libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC);
        OwnedFd::from_raw_fd(check(fd)? as RawFd)
    };
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (slot, byte) in request.ifr_name[..15].iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: `request` is a complete ifreq and outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(fd)
}

/// A packet socket that sees every packet of interface `name`, with the kernel's timestamps.
pub(crate) fn open_sniffer(name: &str) -> Sys<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: the descriptor is new and ours.
    let fd = unsafe {
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        OwnedFd::from_raw_fd(check(libc::socket(libc::AF_PACKET, kind, i32::from(protocol)))? as RawFd)
    };
    set_option_int(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    set_option_int(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 4 << 20)?;
    let name = std::ffi::CString::new(name).map_err(|_| libc::EINVAL)?;
    // SAFETY: `name` is a C string; `address` is a complete sockaddr_ll of the given size.
    unsafe {
        let index = libc::if_nametoindex(name.as_ptr());
        let mut address: libc::sockaddr_ll = zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = check(i64::from(index) - i64::from(index == 0))? as i32;
        let len = size_of::<libc::sockaddr_ll>() as socklen_t;
        check(libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len))?;
    }
    Ok(fd)
}

/// A packet a sniffer saw.
pub(crate) struct Sniffed {
    pub(crate) at: Duration,
    pub(crate) outgoing: bool,
    pub(crate) len: usize,
}

/// The next packet of a sniffer, into `buffer`; `None`: none waits.
pub(crate) fn read_sniffer(fd: &OwnedFd, buffer: &mut [u8]) -> Sys<Option<Sniffed>> {
    // SAFETY: every pointer in `header` outlives the call and carries its true length; control messages are
    // walked with the CMSG macros over what the kernel wrote.
    unsafe {
        let mut from: libc::sockaddr_ll = zeroed();
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut control = [0u64; 16];
        let mut header: libc::msghdr = zeroed();
        header.msg_name = (&raw mut from).cast();
        header.msg_namelen = size_of::<libc::sockaddr_ll>() as socklen_t;
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        let len = match check(libc::recvmsg(fd.as_raw_fd(), &raw mut header, 0) as i64) {
            Ok(len) => len as usize,
            Err(libc::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let mut at = now();
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            if (*message).cmsg_level == libc::SOL_SOCKET && (*message).cmsg_type == libc::SCM_TIMESTAMPNS {
                let stamp: libc::timespec = core::ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                at = Duration::new(stamp.tv_sec.unsigned_abs(), stamp.tv_nsec as u32);
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
        Ok(Some(Sniffed { at, outgoing: from.sll_pkttype == libc::PACKET_OUTGOING, len }))
    }
}

/// A socket for questions about sockets, of this thread's network namespace.
pub(crate) fn open_sock_diag() -> Sys<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: the descriptor is new and ours.
    unsafe {
        let fd = check(libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// One question to the kernel and its answer; how many bytes that has.
pub(crate) fn exchange(fd: &OwnedFd, request: &[u8], answer: &mut [u8]) -> Sys<usize> {
    // SAFETY: the pointers and lengths are the slices'.
    unsafe {
        check(libc::send(fd.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) as i64)?;
        let len = libc::recv(fd.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0);
        check(len as i64).map(|len| len as usize)
    }
}

/// Waits until `fd` is readable or `time` has passed.
pub(crate) fn wait_readable(fd: &OwnedFd, time: Duration) {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let time = libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    // SAFETY: one complete pollfd and a timespec, both outlive the call; no signal mask.
    unsafe { libc::ppoll(&raw mut entry, 1, &raw const time, core::ptr::null()) };
}

pub(crate) fn write_all(fd: &OwnedFd, bytes: &[u8]) -> Sys<()> {
    // SAFETY: the pointer and length are the slice's.
    check(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) } as i64).map(drop)
}

/// Reads one packet; 0 when none waits.
pub(crate) fn read_some(fd: &OwnedFd, buffer: &mut [u8]) -> usize {
    // SAFETY: the pointer and length are the slice's.
    let read = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(read).unwrap_or(0)
}

// ---- socket calls, by raw descriptor: what a script names may be closed or never have been open

pub(crate) fn socket(family: c_int, kind: c_int, protocol: c_int) -> Sys<i64> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })
}

pub(crate) fn bind(fd: RawFd, address: SocketAddr) -> Sys<i64> {
    let (storage, len) = to_storage(address);
    // SAFETY: `storage` holds `len` bytes of a complete address.
    check(unsafe { libc::bind(fd, (&raw const storage).cast(), len) })
}

pub(crate) fn connect(fd: RawFd, address: Option<SocketAddr>) -> Sys<i64> {
    let (storage, len) = match address {
        Some(address) => to_storage(address),
        // SAFETY: all zeros is a valid sockaddr_storage; family 0 is AF_UNSPEC.
        None => (unsafe { zeroed() }, size_of::<libc::sockaddr>() as socklen_t),
    };
    // SAFETY: `storage` holds `len` bytes of a complete address.
    check(unsafe { libc::connect(fd, (&raw const storage).cast(), len) })
}

pub(crate) fn listen(fd: RawFd, backlog: c_int) -> Sys<i64> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::listen(fd, backlog) })
}

pub(crate) fn accept(fd: RawFd) -> Sys<(i64, Option<SocketAddr>)> {
    // SAFETY: `storage` is large enough for any address and `len` says so.
    unsafe {
        let mut storage: libc::sockaddr_storage = zeroed();
        let mut len = size_of::<libc::sockaddr_storage>() as socklen_t;
        let child = check(libc::accept4(fd, (&raw mut storage).cast(), &raw mut len, libc::SOCK_CLOEXEC))?;
        Ok((child, from_storage(&storage)))
    }
}

fn iovecs(buffers: &mut [Vec<u8>]) -> Vec<libc::iovec> {
    buffers.iter_mut().map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() }).collect()
}

/// `readv`, `recv` or `recvmsg`; gives the byte count, the message flags and the control messages.
pub(crate) fn receive(
    fd: RawFd,
    lens: &[usize],
    flags: c_int,
    via: crate::target::Via,
) -> Sys<(i64, i32, Vec<Control>)> {
    let mut buffers: Vec<Vec<u8>> = lens.iter().map(|len| vec![0; *len]).collect();
    let first = buffers
        .first_mut()
        .map_or((core::ptr::null_mut(), 0), |b| (b.as_mut_ptr().cast::<c_void>(), b.len()));
    // SAFETY: every pointer and length belongs to a buffer that outlives the call.
    unsafe {
        match via {
            crate::target::Via::ReadWrite => {
                let parts = iovecs(&mut buffers);
                Ok((check(libc::readv(fd, parts.as_ptr(), parts.len() as c_int) as i64)?, 0, Vec::new()))
            }
            crate::target::Via::Socket => {
                Ok((check(libc::recv(fd, first.0, first.1, flags) as i64)?, 0, Vec::new()))
            }
            crate::target::Via::Message => {
                let mut parts = iovecs(&mut buffers);
                let mut header: libc::msghdr = zeroed();
                header.msg_iov = parts.as_mut_ptr();
                header.msg_iovlen = parts.len();
                let mut room = [0u64; 64];
                header.msg_control = room.as_mut_ptr().cast();
                header.msg_controllen = size_of_val(&room);
                let len = check(libc::recvmsg(fd, &raw mut header, flags) as i64)?;
                let mut control = Vec::new();
                let mut message = libc::CMSG_FIRSTHDR(&raw const header);
                while !message.is_null() {
                    let kind = ((*message).cmsg_level, (*message).cmsg_type);
                    control.extend(read_control(kind, libc::CMSG_DATA(message)));
                    message = libc::CMSG_NXTHDR(&raw const header, message);
                }
                Ok((len, header.msg_flags, control))
            }
        }
    }
}

/// A control message of a kind that scripts name.
///
/// # Safety
/// `data` points to what the kernel wrote for a message of this level and type.
unsafe fn read_control(kind: (c_int, c_int), data: *const u8) -> Option<Control> {
    // SAFETY: each kind has at least the bytes read here.
    unsafe {
        match kind {
            (libc::IPPROTO_TCP, libc::TCP_CM_INQ) => {
                Some(Control::Inq(core::ptr::read_unaligned(data.cast::<i32>())))
            }
            (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR) => {
                let error = core::ptr::read_unaligned(data.cast::<libc::sock_extended_err>());
                Some(Control::Error(ExtendedError {
                    v6: kind.0 == libc::SOL_IPV6,
                    errno: error.ee_errno,
                    origin: error.ee_origin,
                    kind: error.ee_type,
                    code: error.ee_code,
                    info: error.ee_info,
                    data: error.ee_data,
                }))
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING) => {
                let stamp = core::ptr::read_unaligned(data.cast::<libc::timespec>());
                Some(Control::Timestamp(Duration::new(stamp.tv_sec.unsigned_abs(), stamp.tv_nsec as u32)))
            }
            _ => None,
        }
    }
}

/// `writev`, `send`, `sendto` or `sendmsg` of zeros.
pub(crate) fn send(
    fd: RawFd,
    lens: &[usize],
    flags: c_int,
    via: crate::target::Via,
    to: Option<SocketAddr>,
) -> Sys<i64> {
    let mut buffers: Vec<Vec<u8>> = lens.iter().map(|len| vec![0; *len]).collect();
    let first = buffers.first().map_or((core::ptr::null(), 0), |b| (b.as_ptr().cast::<c_void>(), b.len()));
    let name = to.map(to_storage);
    let (name_at, name_len) =
        name.as_ref().map_or((core::ptr::null(), 0), |(s, len)| ((&raw const *s).cast(), *len));
    // SAFETY: every pointer and length belongs to a buffer or address that outlives the call.
    let result = unsafe {
        match via {
            crate::target::Via::ReadWrite => {
                let parts = iovecs(&mut buffers);
                check(libc::writev(fd, parts.as_ptr(), parts.len() as c_int) as i64)
            }
            crate::target::Via::Socket => {
                check(libc::sendto(fd, first.0, first.1, flags, name_at, name_len) as i64)
            }
            crate::target::Via::Message => {
                let mut parts = iovecs(&mut buffers);
                let mut header: libc::msghdr = zeroed();
                header.msg_name = name_at.cast_mut().cast();
                header.msg_namelen = name_len;
                header.msg_iov = parts.as_mut_ptr();
                header.msg_iovlen = parts.len();
                check(libc::sendmsg(fd, &raw const header, flags) as i64)
            }
        }
    };
    if flags & libc::MSG_ZEROCOPY != 0 {
        // The pages are the kernel's until the peer has acknowledged them: the few of a script stay for good.
        core::mem::forget(buffers);
    }
    result
}

pub(crate) fn close(fd: RawFd) -> Sys<i64> {
    // SAFETY: the descriptor is a script's socket, owned by nobody else in this process.
    check(unsafe { libc::close(fd) })
}

pub(crate) fn shutdown(fd: RawFd, how: c_int) -> Sys<i64> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::shutdown(fd, how) })
}

pub(crate) fn fcntl(fd: RawFd, command: c_int, arg: c_int) -> Sys<i64> {
    // SAFETY: only commands with an int argument are reached from scripts; no memory is involved.
    check(unsafe { libc::fcntl(fd, command, arg) })
}

/// An ioctl that writes one int.
pub(crate) fn ioctl_int(fd: RawFd, request: u64) -> Sys<(i64, i32)> {
    let mut value: c_int = 0;
    // SAFETY: `value` outlives the call; the requests scripts name write one int.
    let result = check(unsafe { libc::ioctl(fd, request, &raw mut value) })?;
    Ok((result, value))
}

pub(crate) fn set_option_int(fd: RawFd, level: c_int, name: c_int, value: c_int) -> Sys<i64> {
    set_option_bytes(fd, level, name, &value.to_ne_bytes())
}

pub(crate) fn set_option_bytes(fd: RawFd, level: c_int, name: c_int, value: &[u8]) -> Sys<i64> {
    // SAFETY: the pointer and length are the slice's.
    check(unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), value.len() as socklen_t) })
}

/// The option's bytes, at most `len`.
pub(crate) fn get_option(fd: RawFd, level: c_int, name: c_int, len: usize) -> Sys<Vec<u8>> {
    let mut bytes = vec![0u8; len];
    let mut written = len as socklen_t;
    // SAFETY: the pointer and length are the vector's.
    check(unsafe { libc::getsockopt(fd, level, name, bytes.as_mut_ptr().cast(), &raw mut written) })?;
    bytes.truncate(written as usize);
    Ok(bytes)
}

pub(crate) fn poll(entries: &[(RawFd, i16)], timeout_ms: c_int) -> Sys<(i64, Vec<i16>)> {
    let mut list: Vec<libc::pollfd> =
        entries.iter().map(|(fd, events)| libc::pollfd { fd: *fd, events: *events, revents: 0 }).collect();
    // SAFETY: the pointer and length are the vector's.
    let ready = check(unsafe { libc::poll(list.as_mut_ptr(), list.len() as libc::nfds_t, timeout_ms) })?;
    Ok((ready, list.iter().map(|entry| entry.revents).collect()))
}

pub(crate) fn epoll_create() -> Sys<i64> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

pub(crate) fn epoll_ctl(epoll: RawFd, operation: c_int, fd: RawFd, events: u32, data: u64) -> Sys<i64> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: `event` outlives the call.
    check(unsafe { libc::epoll_ctl(epoll, operation, fd, &raw mut event) })
}

pub(crate) fn epoll_wait(epoll: RawFd, most: c_int, timeout_ms: c_int) -> Sys<(i64, Vec<(u32, u64)>)> {
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; most.max(1) as usize];
    // SAFETY: the pointer and length are the vector's; the kernel refuses `most` below 1.
    let count = check(unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), most, timeout_ms) })?;
    let events = events[..count as usize].iter().map(|event| (event.events, event.u64)).collect();
    Ok((count, events))
}

pub(crate) fn open(path: &str, flags: c_int) -> Sys<i64> {
    let path = std::ffi::CString::new(path).map_err(|_| libc::ENOENT)?;
    // SAFETY: `path` outlives the call.
    check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })
}

pub(crate) fn pipe() -> Sys<(RawFd, RawFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for both.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((ends[0], ends[1]))
}

pub(crate) fn send_file(to: RawFd, from: RawFd, offset: Option<u64>, len: usize) -> Sys<i64> {
    let mut offset = offset.map(u64::cast_signed);
    let at = offset.as_mut().map_or(core::ptr::null_mut(), core::ptr::from_mut);
    // SAFETY: `at` is null or outlives the call.
    check(unsafe { libc::sendfile(to, from, at, len) } as i64)
}

pub(crate) fn splice(from: RawFd, to: RawFd, len: usize, flags: u32) -> Sys<i64> {
    // SAFETY: both offsets are null, as pipes and sockets want them.
    check(unsafe { libc::splice(from, core::ptr::null_mut(), to, core::ptr::null_mut(), len, flags) } as i64)
}

/// Takes or gives back a lock on an open file; false: somebody else holds it.
pub(crate) fn lock_file(file: BorrowedFd<'_>, operation: c_int) -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::flock(file.as_raw_fd(), operation) == 0 }
}

fn to_storage(address: SocketAddr) -> (libc::sockaddr_storage, socklen_t) {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    // SAFETY: a zeroed sockaddr_storage is valid and aligned and large enough for both families.
    unsafe {
        let len = match address {
            SocketAddr::V4(address) => {
                let at = storage.as_mut_ptr().cast::<libc::sockaddr_in>();
                (*at).sin_family = libc::AF_INET as u16;
                (*at).sin_port = address.port().to_be();
                (*at).sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(address) => {
                let at = storage.as_mut_ptr().cast::<libc::sockaddr_in6>();
                (*at).sin6_family = libc::AF_INET6 as u16;
                (*at).sin6_port = address.port().to_be();
                (*at).sin6_addr.s6_addr = address.ip().octets();
                size_of::<libc::sockaddr_in6>()
            }
        };
        (storage.assume_init(), len as socklen_t)
    }
}

fn from_storage(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a sockaddr_in.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(address.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that this is a sockaddr_in6.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(address.sin6_port)))
        }
        _ => None,
    }
}
