//! Every `unsafe` line of this crate: ioctls on TUN and interfaces, options of packet sockets, and one read or write a packet.
//!
//! Not here: any decision. The functions take and give safe types and return what the kernel said.

pub(crate) mod interface;
pub(crate) mod packet;
pub(crate) mod packet_socket;
pub(crate) mod ready;
pub(crate) mod tun;

use std::io;

/// Turns a libc return value into a result.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An `ifreq` that names `name` and is otherwise zero.
fn ifreq(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is plain old data: a name array and a union of integers and addresses, all valid as zeroes.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0: the kernel reads a C string.
    if name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("interface name `{name}` is longer than 15 bytes"),
        ));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    Ok(request)
}

/// The name in an `ifreq` that the kernel filled.
fn name_of(request: &libc::ifreq) -> String {
    request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte as u8)).collect()
}
