//! The preloaded `getsockopt`: it asks here first.

use core::ffi::{c_int, c_void};

use libc::socklen_t;

use super::host;
use super::sockets::getsockopt;
use crate::host::Host;

static REGISTERED: core::sync::atomic::AtomicPtr<c_void> =
    core::sync::atomic::AtomicPtr::new(core::ptr::null_mut());
/// What the preloaded library takes as "ask the C library".
const NOT_OURS: c_int = -2;

/// packetdrill's code blocks ask the C library; the preloaded one asks here first.
pub(super) fn register_getsockopt(host: &'static Host) {
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
