//! `poll` and epoll.

use core::ffi::c_int;

use lastack_lab::target::{Call, Fd, Output};
use libc::{epoll_event, nfds_t, pollfd};

use super::{Data, call, fail, give, host, name_new};

pub(super) unsafe extern "C" fn poll(
    data: Data,
    list: *mut pollfd,
    count: nfds_t,
    timeout_ms: c_int,
) -> c_int {
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

pub(super) unsafe extern "C" fn epoll_create(data: Data, _size: c_int) -> c_int {
    name_new(data, &host(data).call(&Call::EpollCreate))
}

pub(super) unsafe extern "C" fn epoll_ctl(
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

pub(super) unsafe extern "C" fn epoll_wait(
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
