//! `poll` and `epoll` over the stack's readiness.
//!
//! Rules: Linux `tcp_poll()`, `ep_poll()`. Edge-triggered entries are told once for each piece of news.

use std::collections::BTreeMap;

use lastack_core::stack::Readiness;
use lastack_core::tcp::state::TcpState;
use lastack_core::time::{Duration, Instant};

use super::{Attempt, Descriptor, Posix, Role};
use crate::target::{Fd, Outcome, Output};

/// What an epoll descriptor watches.
#[derive(Debug, Default)]
pub(super) struct Epoll {
    interests: BTreeMap<i32, Interest>,
}

#[derive(Clone, Copy, Debug)]
struct Interest {
    events: u32,
    data: u64,
    /// Edge-triggered: what was told last; `None`: nothing yet.
    told: Option<u32>,
    /// One-shot, and told.
    spent: bool,
}

impl Epoll {
    pub(super) fn forget(&mut self, fd: Fd) {
        self.interests.remove(&fd.0);
    }
}

impl Posix {
    /// Linux `tcp_poll()`.
    fn mask(&mut self, fd: Fd) -> Option<u32> {
        let socket = self.tcp(fd).ok()?;
        let (role, is_deferred) = (socket.role, socket.deferred.is_some());
        let (input, output) = (libc::POLLIN | libc::POLLRDNORM, libc::POLLOUT | libc::POLLWRNORM);
        let mask = match role {
            Role::Fresh if is_deferred => output,
            Role::Fresh => output | libc::POLLHUP,
            Role::Listener(id) => {
                if self.listener_queue(id).0 > 0 {
                    input
                } else {
                    0
                }
            }
            Role::Connection { id, .. } => {
                let ready = self.stack.readiness(id);
                let facts = [
                    (Readiness::READABLE, input),
                    (Readiness::WRITABLE, output),
                    (Readiness::PEER_CLOSED, input | libc::POLLRDHUP),
                    (Readiness::HANGUP, libc::POLLHUP),
                    (Readiness::ERROR, libc::POLLERR),
                    (Readiness::PRIORITY, libc::POLLPRI),
                ];
                // Linux: RCV_SHUTDOWN of one's own making counts as the peer's.
                let shut = self.tcp(fd).is_ok_and(|socket| socket.shut_read);
                let shut = if shut { input | libc::POLLRDHUP } else { 0 };
                // Linux tcp_done(): both directions of a socket in CLOSE are shut down.
                let closed = self.stack.state(id) == Some(TcpState::Close);
                let ended = if closed { input | output | libc::POLLRDHUP | libc::POLLHUP } else { 0 };
                let true_facts = facts.into_iter().filter(|(fact, _)| ready.intersects(*fact));
                true_facts.fold(ended | shut, |mask, (_, bits)| mask | bits)
            }
        };
        // Linux tcp_poll(): "sk_err || !skb_queue_empty_lockless(&sk->sk_error_queue)".
        let queued = self.tcp(fd).is_ok_and(|socket| !socket.errors.is_empty());
        Some((mask | if queued { libc::POLLERR } else { 0 }) as u32)
    }

    pub(super) fn poll(&mut self, entries: &[(Fd, i16)], timeout_ms: i32, first: bool) -> Attempt {
        let always = (libc::POLLERR | libc::POLLHUP) as u32;
        let masks: Vec<i16> = entries
            .iter()
            .map(|(fd, events)| match self.mask(*fd) {
                Some(mask) => (mask & (*events as u16 as u32 | always)) as i16,
                None => libc::POLLNVAL,
            })
            .collect();
        let ready = masks.iter().filter(|mask| **mask != 0).count();
        let expired = self.expired(timeout_ms, first);
        if ready == 0 && !expired {
            return Attempt::Waits { progress: 0, deadline: self.deadline(timeout_ms, first) };
        }
        Outcome::ok(ready as i64).with(Output::Ready(masks)).into()
    }

    /// A wait of `timeout_ms` is over. The one blocked call carries its own deadline.
    fn expired(&self, timeout_ms: i32, first: bool) -> bool {
        if first {
            return timeout_ms == 0;
        }
        self.waits_until.is_some_and(|until| self.now >= until)
    }

    fn deadline(&mut self, timeout_ms: i32, first: bool) -> Option<Instant> {
        if first {
            let after = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
            self.waits_until = after.map(|after| self.now + after);
        }
        self.waits_until
    }

    pub(super) fn epoll_ctl(&mut self, epoll: Fd, operation: i32, fd: Fd, events: u32, data: u64) -> Outcome {
        if !matches!(self.descriptors.get(&fd.0), Some(Descriptor::Tcp(_))) {
            return Outcome::error(libc::EBADF);
        }
        let Some(Descriptor::Epoll(epoll)) = self.descriptors.get_mut(&epoll.0) else {
            return Outcome::error(libc::EINVAL);
        };
        let known = epoll.interests.contains_key(&fd.0);
        match operation {
            libc::EPOLL_CTL_ADD if known => Outcome::error(libc::EEXIST),
            libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL if !known => Outcome::error(libc::ENOENT),
            libc::EPOLL_CTL_ADD | libc::EPOLL_CTL_MOD => {
                epoll.interests.insert(fd.0, Interest { events, data, told: None, spent: false });
                Outcome::ok(0)
            }
            libc::EPOLL_CTL_DEL => {
                epoll.interests.remove(&fd.0);
                Outcome::ok(0)
            }
            _ => Outcome::error(libc::EINVAL),
        }
    }

    pub(super) fn epoll_wait(&mut self, epoll: Fd, most: i32, timeout_ms: i32, first: bool) -> Attempt {
        if most <= 0 {
            return Outcome::error(libc::EINVAL).into();
        }
        let Some(Descriptor::Epoll(watched)) = self.descriptors.get(&epoll.0) else {
            return Outcome::error(libc::EINVAL).into();
        };
        let interests: Vec<(i32, Interest)> = watched.interests.iter().map(|(fd, i)| (*fd, *i)).collect();
        let mut found = Vec::new();
        for (fd, mut interest) in interests {
            let always = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
            let mask = self.mask(Fd(fd)).unwrap_or(0) & (interest.events | always);
            let edge = interest.events & libc::EPOLLET as u32 != 0;
            let news = self.connection(Fd(fd)).is_some_and(|id| self.news.remove(&id));
            // An edge is something that was not so before, or news of the connection; what has ended is none.
            let fresh = mask & !interest.told.unwrap_or(0) != 0;
            let tell = mask != 0 && !interest.spent && (!edge || fresh || news);
            if tell && found.len() < most as usize {
                found.push((mask, interest.data));
                interest.spent = interest.events & libc::EPOLLONESHOT as u32 != 0;
            }
            interest.told = Some(mask);
            if let Some(Descriptor::Epoll(watched)) = self.descriptors.get_mut(&epoll.0) {
                watched.interests.insert(fd, interest);
            }
        }
        if found.is_empty() && !self.expired(timeout_ms, first) {
            return Attempt::Waits { progress: 0, deadline: self.deadline(timeout_ms, first) };
        }
        Outcome::ok(found.len() as i64).with(Output::Events(found)).into()
    }
}
