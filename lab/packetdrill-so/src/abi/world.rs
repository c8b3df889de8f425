//! The wire and the clock.

use core::ffi::{c_int, c_void};
use core::time::Duration;

use libc::{timeval, timezone, useconds_t};

use super::{Data, host};

pub(super) unsafe extern "C" fn netdev_send(data: Data, packet: *const c_void, len: usize) -> c_int {
    // SAFETY: the tool's contract: `len` bytes of one IP packet.
    host(data).inject(unsafe { core::slice::from_raw_parts(packet.cast::<u8>(), len) });
    0
}

pub(super) unsafe extern "C" fn netdev_receive(
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

pub(super) unsafe extern "C" fn usleep(data: Data, us: useconds_t) -> c_int {
    host(data).sleep(Duration::from_micros(u64::from(us)));
    0
}

pub(super) unsafe extern "C" fn gettimeofday(data: Data, out: *mut timeval, _zone: *mut timezone) -> c_int {
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
