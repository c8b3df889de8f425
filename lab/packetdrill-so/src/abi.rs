//! The C side: packetdrill's table of functions, each a thin translation to [`Host`].
//!
//! Owns:    every `unsafe` of this library; sockaddr, iovec and errno.
//! Rules:   the table has 33 words, `userdata` first; failures are -1 with the C library's errno. Sockets get a real,
//!          empty descriptor (eventfd), because the tool closes what the script left open with the real `close`.
#![allow(unsafe_code, reason = "a C interface")]

use core::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use lastack_lab::target::{Call, Fd, OptionValue, Outcome, Output, Via};
use libc::{
    epoll_event, iovec, loff_t, msghdr, nfds_t, pollfd, sockaddr, socklen_t, ssize_t, timeval, timezone,
    useconds_t,
};

use crate::control::write_control;
use crate::host::Host;

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
    register_getsockopt(host);
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

// ---- the table

/// The tool is done. The host stays: threads of calls may still be inside.
unsafe extern "C" fn free(_data: Data) {}

unsafe extern "C" fn socket(data: Data, family: c_int, kind: c_int, protocol: c_int) -> c_int {
    name_new(data, &host(data).call(&Call::Socket { family, kind, protocol }))
}

unsafe extern "C" fn bind(data: Data, fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the C contract of bind().
    match unsafe { read_address(address, len) } {
        Ok(Some(address)) => give(&call(data, fd, |fd| Call::Bind(fd, address))) as c_int,
        Ok(None) => fail(libc::EAFNOSUPPORT),
        Err(errno) => fail(errno),
    }
}

unsafe extern "C" fn listen(data: Data, fd: c_int, backlog: c_int) -> c_int {
    give(&call(data, fd, |fd| Call::Listen(fd, backlog))) as c_int
}

unsafe extern "C" fn accept(data: Data, fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    let outcome = call(data, fd, Call::Accept);
    if let Output::Peer(peer) = outcome.output {
        let mapped = host(data).is_mapped(Fd(outcome.value as i32));
        let peer = match peer.ip() {
            IpAddr::V4(ip) if mapped => SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), peer.port()),
            _ => peer,
        };
        // SAFETY: the C contract of accept().
        unsafe { write_address(peer, address, len) };
    }
    name_new(data, &outcome)
}

unsafe extern "C" fn connect(data: Data, fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the C contract of connect().
    match unsafe { read_address(address, len) } {
        Ok(to) => give(&call(data, fd, |fd| Call::Connect(fd, to))) as c_int,
        Err(errno) => fail(errno),
    }
}

unsafe extern "C" fn read(data: Data, fd: c_int, buffer: *mut c_void, len: usize) -> ssize_t {
    let got = receive(data, fd, vec![len], 0, Via::ReadWrite);
    // SAFETY: the C contract of read().
    unsafe { zero(buffer, got) };
    got
}

unsafe extern "C" fn readv(data: Data, fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the C contract of readv().
    let lens = unsafe { lens(parts, count.max(0) as usize) };
    receive(data, fd, lens, 0, Via::ReadWrite)
}

unsafe extern "C" fn recv(data: Data, fd: c_int, buffer: *mut c_void, len: usize, flags: c_int) -> ssize_t {
    let got = receive(data, fd, vec![len], flags, Via::Socket);
    // SAFETY: the C contract of recv().
    unsafe { zero(buffer, got) };
    got
}

unsafe extern "C" fn recvfrom(
    data: Data,
    fd: c_int,
    buffer: *mut c_void,
    len: usize,
    flags: c_int,
    _from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    if !from_len.is_null() {
        // SAFETY: not null. A stream socket names nobody.
        unsafe { *from_len = 0 };
    }
    // SAFETY: the C contract of recvfrom() has recv()'s in it.
    unsafe { recv(data, fd, buffer, len, flags) }
}

unsafe extern "C" fn recvmsg(data: Data, fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the C contract of recvmsg().
    unsafe {
        let lens = lens((*message).msg_iov, (*message).msg_iovlen);
        let outcome = call(data, fd, |fd| Call::Receive { fd, lens, flags, via: Via::Message });
        let (flags, control) = match &outcome.output {
            Output::Message { flags, control } => (*flags, control.as_slice()),
            _ => (0, &[][..]),
        };
        (*message).msg_flags = flags;
        write_control(&mut *message, control);
        (*message).msg_namelen = 0;
        give(&outcome) as ssize_t
    }
}

unsafe extern "C" fn write(data: Data, fd: c_int, _buffer: *const c_void, len: usize) -> ssize_t {
    transmit(data, fd, vec![len], 0, Via::ReadWrite, None)
}

unsafe extern "C" fn writev(data: Data, fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the C contract of writev().
    let lens = unsafe { lens(parts, count.max(0) as usize) };
    transmit(data, fd, lens, 0, Via::ReadWrite, None)
}

unsafe extern "C" fn send(
    data: Data,
    fd: c_int,
    _buffer: *const c_void,
    len: usize,
    flags: c_int,
) -> ssize_t {
    transmit(data, fd, vec![len], flags, Via::Socket, None)
}

unsafe extern "C" fn sendto(
    data: Data,
    fd: c_int,
    _buffer: *const c_void,
    len: usize,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    // SAFETY: the C contract of sendto().
    match unsafe { destination(to, to_len) } {
        Ok(to) => transmit(data, fd, vec![len], flags, Via::Socket, to),
        Err(errno) => fail(errno) as ssize_t,
    }
}

unsafe extern "C" fn sendmsg(data: Data, fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the C contract of sendmsg().
    let (lens, to) = unsafe {
        let to = destination((*message).msg_name.cast(), (*message).msg_namelen);
        (lens((*message).msg_iov, (*message).msg_iovlen), to)
    };
    match to {
        Ok(to) => transmit(data, fd, lens, flags, Via::Message, to),
        Err(errno) => fail(errno) as ssize_t,
    }
}

/// Variadic in C; the third argument arrives in the same register.
unsafe extern "C" fn fcntl(data: Data, fd: c_int, command: c_int, arg: c_int) -> c_int {
    give(&call(data, fd, |fd| Call::Fcntl(fd, command, arg))) as c_int
}

unsafe extern "C" fn ioctl(data: Data, fd: c_int, request: c_ulong, out: *mut c_void) -> c_int {
    let outcome = call(data, fd, |fd| Call::Ioctl(fd, request));
    if let (Output::Int(value), false) = (&outcome.output, out.is_null()) {
        // SAFETY: the requests that are answered write one int.
        unsafe { out.cast::<c_int>().write_unaligned(*value) };
    }
    give(&outcome) as c_int
}

unsafe extern "C" fn close(data: Data, fd: c_int) -> c_int {
    let outcome = call(data, fd, Call::Close);
    if outcome.value >= 0 && host(data).forget(fd) {
        // SAFETY: the placeholder that `name_new` made; the tool will not close it again.
        unsafe { libc::close(fd) };
    }
    give(&outcome) as c_int
}

unsafe extern "C" fn shutdown(data: Data, fd: c_int, how: c_int) -> c_int {
    give(&call(data, fd, |fd| Call::Shutdown(fd, how))) as c_int
}

unsafe extern "C" fn getsockopt(
    data: Data,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    if len.is_null() || value.is_null() {
        return fail(libc::EFAULT);
    }
    // SAFETY: the C contract of getsockopt(): `value` holds `*len` bytes.
    unsafe {
        let room = *len as usize;
        let outcome = call(data, fd, |fd| Call::GetOption(fd, level, name, room));
        if let Output::Bytes(bytes) = &outcome.output {
            let written = bytes.len().min(room);
            value.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), written);
            *len = written as socklen_t;
        }
        give(&outcome) as c_int
    }
}

unsafe extern "C" fn setsockopt(
    data: Data,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    if value.is_null() {
        return fail(libc::EFAULT);
    }
    // SAFETY: the C contract of setsockopt(): `value` holds `len` bytes.
    let bytes = unsafe { core::slice::from_raw_parts(value.cast::<u8>(), len as usize) };
    let word = |at: usize| bytes.get(at..at + 4).map(|w| i32::from_ne_bytes([w[0], w[1], w[2], w[3]]));
    let value = match (level, name, word(0), word(4)) {
        (libc::SOL_SOCKET, libc::SO_LINGER, Some(onoff), Some(seconds)) => {
            OptionValue::Linger(onoff, seconds)
        }
        (libc::IPPROTO_TCP, libc::TCP_CONGESTION, ..) => {
            OptionValue::Bytes(bytes.iter().copied().take_while(|byte| *byte != 0).collect())
        }
        (_, _, Some(value), _) => OptionValue::Int(value),
        // Linux: do_tcp_setsockopt(), sk_setsockopt(): "if (optlen < sizeof(int))"; the IP levels take a byte.
        (libc::IPPROTO_TCP | libc::SOL_SOCKET, _, None, _) => return fail(libc::EINVAL),
        (_, _, None, _) => match bytes.first() {
            Some(byte) => OptionValue::Int(i32::from(*byte)),
            None => return fail(libc::EINVAL),
        },
    };
    give(&call(data, fd, |fd| Call::SetOption(fd, level, name, value))) as c_int
}

unsafe extern "C" fn poll(data: Data, list: *mut pollfd, count: nfds_t, timeout_ms: c_int) -> c_int {
    if list.is_null() {
        return fail(libc::EFAULT);
    }
    // SAFETY: the C contract of poll().
    let list = unsafe { core::slice::from_raw_parts_mut(list, count as usize) };
    let host = host(data);
    let entries = list.iter().map(|entry| (host.inside(entry.fd).unwrap_or(Fd(-1)), entry.events)).collect();
    let outcome = host.call(&Call::Poll(entries, timeout_ms));
    if let Output::Ready(masks) = &outcome.output {
        for (entry, mask) in list.iter_mut().zip(masks) {
            entry.revents = *mask;
        }
    }
    give(&outcome) as c_int
}

unsafe extern "C" fn netdev_send(data: Data, packet: *const c_void, len: usize) -> c_int {
    // SAFETY: the tool's contract: `len` bytes of one IP packet.
    host(data).inject(unsafe { core::slice::from_raw_parts(packet.cast::<u8>(), len) });
    0
}

unsafe extern "C" fn netdev_receive(
    data: Data,
    buffer: *mut c_void,
    len: *mut usize,
    time_us: *mut i64,
) -> c_int {
    let sent = host(data).receive();
    // SAFETY: the tool's contract: `buffer` has room for `*len` bytes. A count of 0 is "there will be none".
    unsafe {
        let bytes = sent.as_ref().map_or(&[][..], |sent| &sent.bytes);
        let copied = bytes.len().min(*len);
        buffer.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), copied);
        *len = copied;
        *time_us = sent.as_ref().map_or(0, |sent| sent.at.as_micros() as i64);
    }
    0
}

unsafe extern "C" fn usleep(data: Data, us: useconds_t) -> c_int {
    host(data).sleep(Duration::from_micros(u64::from(us)));
    0
}

unsafe extern "C" fn gettimeofday(data: Data, out: *mut timeval, _zone: *mut timezone) -> c_int {
    let now = host(data).now();
    if !out.is_null() {
        // SAFETY: not null; the C contract of gettimeofday().
        unsafe {
            (*out).tv_sec = now.as_secs() as libc::time_t;
            (*out).tv_usec = libc::suseconds_t::from(now.subsec_micros());
        }
    }
    0
}

unsafe extern "C" fn epoll_create(data: Data, _size: c_int) -> c_int {
    name_new(data, &host(data).call(&Call::EpollCreate))
}

unsafe extern "C" fn epoll_ctl(
    data: Data,
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    // SAFETY: the C contract of epoll_ctl(): null only for EPOLL_CTL_DEL.
    let (events, value) = if event.is_null() { (0, 0) } else { unsafe { ((*event).events, (*event).u64) } };
    let Some(inside) = host(data).inside(fd) else { return fail(libc::EBADF) };
    give(&call(data, epoll, |epoll| Call::EpollCtl(epoll, operation, inside, events, value))) as c_int
}

unsafe extern "C" fn epoll_wait(
    data: Data,
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout_ms: c_int,
) -> c_int {
    let outcome = call(data, epoll, |epoll| Call::EpollWait(epoll, most, timeout_ms));
    if let Output::Events(found) = &outcome.output {
        for (at, (mask, value)) in found.iter().enumerate() {
            // SAFETY: the C contract of epoll_wait(): room for `most` events, and no more are given.
            unsafe { events.add(at).write_unaligned(epoll_event { events: *mask, u64: *value }) };
        }
    }
    give(&outcome) as c_int
}

unsafe extern "C" fn pipe(_data: Data, _ends: *mut c_int) -> c_int {
    fail(libc::ENOSYS)
}

unsafe extern "C" fn splice(
    _data: Data,
    _from: c_int,
    _from_offset: *mut loff_t,
    _to: c_int,
    _to_offset: *mut loff_t,
    _len: usize,
    _flags: c_uint,
) -> ssize_t {
    fail(libc::ENOSYS) as ssize_t
}

// ---- the preloaded getsockopt

static REGISTERED: core::sync::atomic::AtomicPtr<c_void> =
    core::sync::atomic::AtomicPtr::new(core::ptr::null_mut());
/// What the preloaded library takes as "ask the C library".
const NOT_OURS: c_int = -2;

/// packetdrill's code blocks ask the C library; the preloaded one asks here first.
fn register_getsockopt(host: &'static Host) {
    type Register = unsafe extern "C" fn(
        Option<unsafe extern "C" fn(c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int>,
    );
    REGISTERED.store((&raw const *host).cast_mut().cast(), core::sync::atomic::Ordering::Release);
    // SAFETY: a C string; where the symbol exists it is our own, of this type.
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"lastack_register_getsockopt".as_ptr());
        if !symbol.is_null() {
            core::mem::transmute::<*mut c_void, Register>(symbol)(Some(answer_getsockopt));
        }
    }
}

unsafe extern "C" fn answer_getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    let data = REGISTERED.load(core::sync::atomic::Ordering::Acquire);
    if data.is_null() || host(data).inside(fd).is_none() {
        return NOT_OURS;
    }
    // SAFETY: the arguments are those of a getsockopt() call.
    unsafe { getsockopt(data, fd, level, name, value, len) }
}
