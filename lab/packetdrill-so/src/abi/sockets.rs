//! The socket calls.

use core::ffi::{c_int, c_ulong, c_void};
use core::net::{IpAddr, SocketAddr};

use lastack_lab::target::{Call, Fd, OptionValue, Output, Via};
use libc::{iovec, msghdr, sockaddr, socklen_t, ssize_t};

use super::{
    Data, call, destination, fail, give, host, lens, name_new, read_address, receive, transmit,
    write_address, zero,
};
use crate::control::write_control;

pub(super) unsafe extern "C" fn socket(data: Data, family: c_int, kind: c_int, protocol: c_int) -> c_int {
    name_new(data, &host(data).call(&Call::Socket { family, kind, protocol }))
}

pub(super) unsafe extern "C" fn bind(
    data: Data,
    fd: c_int,
    address: *const sockaddr,
    len: socklen_t,
) -> c_int {
    // SAFETY: the C contract of bind().
    match unsafe { read_address(address, len) } {
        Ok(Some(address)) => give(&call(data, fd, |fd| Call::Bind(fd, address))) as c_int,
        Ok(None) => fail(libc::EAFNOSUPPORT),
        Err(errno) => fail(errno),
    }
}

pub(super) unsafe extern "C" fn listen(data: Data, fd: c_int, backlog: c_int) -> c_int {
    give(&call(data, fd, |fd| Call::Listen(fd, backlog))) as c_int
}

pub(super) unsafe extern "C" fn accept(
    data: Data,
    fd: c_int,
    address: *mut sockaddr,
    len: *mut socklen_t,
) -> c_int {
    let outcome = call(data, fd, Call::Accept);
    if let Output::Peer(peer) = outcome.output {
        let v6 = host(data).is_v6(Fd(outcome.value as i32));
        let peer = match peer.ip() {
            IpAddr::V4(ip) if v6 => SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), peer.port()),
            _ => peer,
        };
        // SAFETY: the C contract of accept().
        unsafe { write_address(peer, address, len) };
    }
    name_new(data, &outcome)
}

pub(super) unsafe extern "C" fn connect(
    data: Data,
    fd: c_int,
    address: *const sockaddr,
    len: socklen_t,
) -> c_int {
    // SAFETY: the C contract of connect().
    match unsafe { read_address(address, len) } {
        Ok(to) => give(&call(data, fd, |fd| Call::Connect(fd, to))) as c_int,
        Err(errno) => fail(errno),
    }
}

pub(super) unsafe extern "C" fn read(data: Data, fd: c_int, buffer: *mut c_void, len: usize) -> ssize_t {
    let got = receive(data, fd, vec![len], 0, Via::ReadWrite);
    // SAFETY: the C contract of read().
    unsafe { zero(buffer, got) };
    got
}

pub(super) unsafe extern "C" fn readv(data: Data, fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the C contract of readv().
    let lens = unsafe { lens(parts, count.max(0) as usize) };
    receive(data, fd, lens, 0, Via::ReadWrite)
}

pub(super) unsafe extern "C" fn recv(
    data: Data,
    fd: c_int,
    buffer: *mut c_void,
    len: usize,
    flags: c_int,
) -> ssize_t {
    let got = receive(data, fd, vec![len], flags, Via::Socket);
    // SAFETY: the C contract of recv().
    unsafe { zero(buffer, got) };
    got
}

pub(super) unsafe extern "C" fn recvfrom(
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

pub(super) unsafe extern "C" fn recvmsg(
    data: Data,
    fd: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the C contract of recvmsg().
    unsafe {
        let lens = lens((*message).msg_iov, (*message).msg_iovlen);
        let outcome = call(data, fd, |fd| Call::Receive { fd, lens, flags, via: Via::Message });
        // The kernel writes nothing into the header of a call that fails.
        if outcome.value < 0 {
            return give(&outcome) as ssize_t;
        }
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

pub(super) unsafe extern "C" fn write(data: Data, fd: c_int, _buffer: *const c_void, len: usize) -> ssize_t {
    transmit(data, fd, vec![len], 0, Via::ReadWrite, None)
}

pub(super) unsafe extern "C" fn writev(data: Data, fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the C contract of writev().
    let lens = unsafe { lens(parts, count.max(0) as usize) };
    transmit(data, fd, lens, 0, Via::ReadWrite, None)
}

pub(super) unsafe extern "C" fn send(
    data: Data,
    fd: c_int,
    _buffer: *const c_void,
    len: usize,
    flags: c_int,
) -> ssize_t {
    transmit(data, fd, vec![len], flags, Via::Socket, None)
}

pub(super) unsafe extern "C" fn sendto(
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

pub(super) unsafe extern "C" fn sendmsg(
    data: Data,
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
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
pub(super) unsafe extern "C" fn fcntl(data: Data, fd: c_int, command: c_int, arg: c_int) -> c_int {
    give(&call(data, fd, |fd| Call::Fcntl(fd, command, arg))) as c_int
}

pub(super) unsafe extern "C" fn ioctl(data: Data, fd: c_int, request: c_ulong, out: *mut c_void) -> c_int {
    let outcome = call(data, fd, |fd| Call::Ioctl(fd, request));
    if let (Output::Int(value), false) = (&outcome.output, out.is_null()) {
        // SAFETY: the requests that are answered write one int.
        unsafe { out.cast::<c_int>().write_unaligned(*value) };
    }
    give(&outcome) as c_int
}

pub(super) unsafe extern "C" fn close(data: Data, fd: c_int) -> c_int {
    // As in Linux, its number is free while a lingering close blocks.
    let Some(inside) = host(data).forget(fd) else { return fail(libc::EBADF) };
    // SAFETY: the placeholder that `name_new` made; the tool will not close it again.
    unsafe { libc::close(fd) };
    give(&host(data).call(&Call::Close(inside))) as c_int
}

pub(super) unsafe extern "C" fn shutdown(data: Data, fd: c_int, how: c_int) -> c_int {
    give(&call(data, fd, |fd| Call::Shutdown(fd, how))) as c_int
}

pub(super) unsafe extern "C" fn getsockopt(
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
        let Ok(room) = usize::try_from((*len).cast_signed()) else { return fail(libc::EINVAL) };
        let outcome = call(data, fd, |fd| Call::GetOption(fd, level, name, room));
        match &outcome.output {
            Output::Bytes(bytes) => {
                let written = bytes.len().min(room);
                value.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), written);
                *len = written as socklen_t;
            }
            Output::Needs(needs) => *len = *needs as socklen_t,
            _ => {}
        }
        give(&outcome) as c_int
    }
}

pub(super) unsafe extern "C" fn setsockopt(
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
