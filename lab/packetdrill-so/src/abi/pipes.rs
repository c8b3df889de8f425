//! Pipes, and bytes that go through them from socket to socket.

use core::ffi::{c_int, c_uint};

use lastack_lab::target::{Call, Outcome, Output};
use libc::{loff_t, ssize_t};

use super::{Data, call, fail, give, host, name_new};

pub(super) unsafe extern "C" fn pipe(data: Data, ends: *mut c_int) -> c_int {
    let outcome = host(data).call(&Call::Pipe);
    let Output::Pair(read, write) = outcome.output else { return give(&outcome) as c_int };
    for (at, end) in [read, write].into_iter().enumerate() {
        let outside = name_new(data, &Outcome::ok(end.0.into()));
        if outside < 0 {
            return outside;
        }
        // SAFETY: the C contract of pipe(): room for two.
        unsafe { ends.add(at).write(outside) };
    }
    0
}

pub(super) unsafe extern "C" fn splice(
    data: Data,
    from: c_int,
    from_offset: *mut loff_t,
    to: c_int,
    to_offset: *mut loff_t,
    len: usize,
    flags: c_uint,
) -> ssize_t {
    // A script's NULL comes as a pointer to 0.
    // SAFETY: the C contract of splice(): an offset is absent or readable.
    let is_given = |offset: *mut loff_t| !offset.is_null() && unsafe { *offset } != 0;
    if is_given(from_offset) || is_given(to_offset) {
        return fail(libc::ESPIPE) as ssize_t;
    }
    let Some(to) = host(data).inside(to) else { return fail(libc::EBADF) as ssize_t };
    give(&call(data, from, |from| Call::Splice { from, to, len, flags })) as ssize_t
}
