//! `LD_PRELOAD` this beside `liblastack_packetdrill.so`: packetdrill's code blocks call the C library's
//! `getsockopt` on a placeholder descriptor; here the question is asked of the stack first.
//!
//! Owns:    the exported `getsockopt`, and [`lastack_register_getsockopt`], which the other library finds with `dlsym`.
//! Rules:   no allocation and no output in the hook: it runs inside a foreign program.
#![allow(unsafe_code, reason = "a symbol that replaces the C library's")]

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

use libc::socklen_t;

type Getsockopt = unsafe extern "C" fn(c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int;

/// What the stack answers for a descriptor that is not its own.
pub const NOT_OURS: c_int = -2;

static OURS: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
static NEXT: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// Tells this library whom to ask: a function that answers like `getsockopt`, or [`NOT_OURS`].
#[unsafe(no_mangle)]
pub extern "C" fn lastack_register_getsockopt(answer: Option<Getsockopt>) {
    OURS.store(answer.map_or(core::ptr::null_mut(), |answer| answer as *mut c_void), Ordering::Release);
}

/// The C library's `getsockopt`, asked of the stack first.
///
/// # Safety
/// As the C library's: `value` holds `*len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    let ours = OURS.load(Ordering::Acquire);
    if !ours.is_null() {
        // SAFETY: only `lastack_register_getsockopt` stores here, from a function of this very type.
        let answer =
            unsafe { core::mem::transmute::<*mut c_void, Getsockopt>(ours)(fd, level, name, value, len) };
        if answer != NOT_OURS {
            return answer;
        }
    }
    let mut next = NEXT.load(Ordering::Acquire);
    if next.is_null() {
        // SAFETY: a C string; the next definition of the symbol is the C library's.
        next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"getsockopt".as_ptr().cast::<c_char>()) };
        NEXT.store(next, Ordering::Release);
    }
    if next.is_null() {
        return -1;
    }
    // SAFETY: the C library's `getsockopt` has this type; the arguments are the caller's.
    unsafe { core::mem::transmute::<*mut c_void, Getsockopt>(next)(fd, level, name, value, len) }
}
