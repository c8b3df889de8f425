//! Datagrams with what comes beside them: several of one size in one call, and which address they were sent to.
//!
//! Owns:    recvmsg and sendmsg with `UDP_GRO`, `UDP_SEGMENT` and `IP_PKTINFO`, which rustix does not have.
//! Rules:   udp(7), ip(7), ipv6(7).

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _};

use bytes::Bytes;
use libc::c_int;

use super::check;
use crate::pool::Pool;

/// Room for every control message that is asked for here: two at a time, of at most 20 bytes.
#[repr(align(8))]
struct Control([u8; 128]);

/// What was received, besides the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Received {
    /// Who sent it.
    pub(crate) from: Option<SocketAddr>,
    /// Bytes of each datagram but the last, where they are several.
    pub(crate) segment: Option<usize>,
    /// The address it was sent to, where the socket was asked to tell ([`tell_destination`]).
    pub(crate) to: Option<IpAddr>,
}

/// From now on, what is received tells where it was sent to.
pub(crate) fn tell_destination(fd: impl AsFd, is_ipv6: bool) -> io::Result<()> {
    match is_ipv6 {
        false => set(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        true => set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
}

/// From now on, datagrams of one size from one sender may be received at once.
pub(crate) fn receive_many(fd: impl AsFd) -> io::Result<()> {
    set(fd, libc::SOL_UDP, libc::UDP_GRO, 1)
}

fn set(fd: impl AsFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let len = mem::size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads one int, which outlives the call.
    check(unsafe { libc::setsockopt(fd.as_fd().as_raw_fd(), level, option, (&raw const value).cast(), len) })
        .map(drop)
}

/// Receives what waits, without waiting. Room for it is taken from `pool` only now, and given back.
pub(crate) fn take(fd: impl AsFd, pool: &Pool) -> io::Result<(Received, Bytes)> {
    let mut buffer = pool.take();
    let got = receive(fd, &mut buffer);
    let data = Bytes::copy_from_slice(&buffer);
    pool.put(buffer);
    got.map(|received| (received, data))
}

/// Receives into the room that the empty `buffer` has, without waiting. What does not fit is lost.
fn receive(fd: impl AsFd, buffer: &mut Vec<u8>) -> io::Result<Received> {
    let mut control = Control([0; 128]);
    buffer.clear();
    let room = buffer.spare_capacity_mut();
    let mut part = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    // SAFETY: `msghdr` is plain data, for which zero is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // SAFETY: `sockaddr_storage` is plain data too.
    let mut from: libc::sockaddr_storage = unsafe { mem::zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: the kernel writes within the lengths given, into memory that outlives the call.
    let got = unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let len = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel wrote so many bytes, at most as many as there was room for.
    unsafe { buffer.set_len(len) };
    let mut received = Received { from: address(&from, message.msg_namelen), ..Received::default() };
    // SAFETY: the kernel filled `control` with whole messages and set their length; the macros walk within it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !next.is_null() {
        // SAFETY: a control message of these kinds is as long as what is read; the copies need no alignment.
        unsafe {
            let data = libc::CMSG_DATA(next);
            match ((*next).cmsg_level, (*next).cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = std::ptr::read_unaligned(data.cast::<c_int>());
                    received.segment = usize::try_from(size).ok().filter(|size| *size > 0);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = std::ptr::read_unaligned(data.cast::<libc::in_pktinfo>());
                    received.to = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = std::ptr::read_unaligned(data.cast::<libc::in6_pktinfo>());
                    received.to = Some(IpAddr::from(info.ipi6_addr.s6_addr));
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(&raw const message, next);
        }
    }
    Ok(received)
}

/// The address that the kernel wrote.
fn address(from: &libc::sockaddr_storage, len: libc::socklen_t) -> Option<SocketAddr> {
    let place = std::ptr::from_ref(from);
    match c_int::from(from.ss_family) {
        libc::AF_INET if len as usize >= mem::size_of::<libc::sockaddr_in>() => {
            // SAFETY: the family says which type the kernel wrote; the storage is large and aligned enough for each.
            let v4 = unsafe { &*place.cast::<libc::sockaddr_in>() };
            let ip = v4.sin_addr.s_addr.to_ne_bytes();
            Some(SocketAddr::from((ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 if len as usize >= mem::size_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above.
            let v6 = unsafe { &*place.cast::<libc::sockaddr_in6>() };
            let (ip, port) = (v6.sin6_addr.s6_addr.into(), u16::from_be(v6.sin6_port));
            Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Sends `parts` on a connected socket in one call, without waiting: as one datagram, or cut into datagrams of `segment`
/// bytes, the last of which may be shorter.
pub(crate) fn send(fd: impl AsFd, parts: &[io::IoSlice<'_>], segment: Option<u16>) -> io::Result<()> {
    let mut control = Control([0; 128]);
    // SAFETY: `msghdr` is plain data, for which zero is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // `IoSlice` is an `iovec` on Unix, as std promises; sendmsg does not write through it.
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len();
    if let Some(segment) = segment {
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: only a length is computed. `control` has room for one header and a `u16`.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(mem::size_of::<u16>() as u32) } as usize;
        // SAFETY: `msg_control` and `msg_controllen` describe `control`, which is aligned for a header and has room
        // for it and its data.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_UDP;
            (*header).cmsg_type = libc::UDP_SEGMENT;
            (*header).cmsg_len = libc::CMSG_LEN(mem::size_of::<u16>() as u32) as usize;
            std::ptr::write_unaligned(libc::CMSG_DATA(header).cast::<u16>(), segment);
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads what the parts and the control message describe; all outlive the call.
    let sent = unsafe { libc::sendmsg(fd.as_fd().as_raw_fd(), &raw const message, flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn many_of_one_size_leave_and_arrive_in_one_call() {
        for host in ["127.0.0.1", "::1"] {
            let server = UdpSocket::bind((host, 0)).unwrap();
            tell_destination(&server, host == "::1").unwrap();
            receive_many(&server).unwrap();
            let client = UdpSocket::bind((host, 0)).unwrap();
            client.connect(server.local_addr().unwrap()).unwrap();
            send(&client, &[IoSlice::new(b"abcdef"), IoSlice::new(b"gh")], Some(3)).unwrap();
            let mut buffer = Vec::with_capacity(64);
            // One call, or (where the loopback cuts them) three.
            let mut text = String::new();
            while text.len() < 8 {
                server.peek(&mut [0]).unwrap(); // waits
                let got = receive(&server, &mut buffer).unwrap();
                assert!(got.segment.is_none_or(|size| size == 3), "{got:?}");
                assert_eq!(got.to, Some(host.parse().unwrap()));
                assert_eq!(got.from, Some(client.local_addr().unwrap()));
                text += std::str::from_utf8(&buffer).unwrap();
            }
            assert_eq!(text, "abcdefgh");
            send(&client, &[IoSlice::new(b"one")], None).unwrap();
            server.peek(&mut [0]).unwrap();
            let one = receive(&server, &mut buffer).unwrap();
            assert_eq!((&buffer[..], one.segment), (&b"one"[..], None));
        }
    }
}
