//! How a socket begins and ends: `socket`, `bind`, `listen`, `accept`, `connect`, `close`, `shutdown`.
//!
//! Rules: Linux `inet_bind()`, `inet_listen()`, `inet_stream_connect()`, `tcp_disconnect()`, `__tcp_close()`.

use core::net::{IpAddr, SocketAddr};

use lastack_core::Stack;
use lastack_core::error::{AcceptError, ConnectError};
use lastack_core::id::ConnectionId;
use lastack_core::stack::{ListenOptions, Readiness, Shutdown};
use lastack_core::tcp::options::{TcpOption, TcpOptions};
use lastack_core::tcp::state::TcpState;
use lastack_core::time::{Duration, Instant};

use super::{Attempt, Descriptor, Posix, Role, TcpSocket};
use crate::target::{Fd, Outcome, Output};

impl Posix {
    pub(super) fn socket(&mut self, family: i32, kind: i32) -> Outcome {
        let nonblocking = kind & libc::SOCK_NONBLOCK != 0;
        if kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != libc::SOCK_STREAM {
            return Outcome::error(libc::EPROTONOSUPPORT);
        }
        let socket = TcpSocket { nonblocking, ..TcpSocket::new(Role::Fresh, family == libc::AF_INET6) };
        self.add(Descriptor::Tcp(Box::new(socket)))
    }

    pub(super) fn bind(&mut self, fd: Fd, address: SocketAddr) -> Outcome {
        let now = self.now;
        let address = plain(address);
        let options = match self.tcp(fd) {
            Ok(socket) if matches!(socket.role, Role::Fresh) && socket.bound.is_none() => {
                socket.options.clone()
            }
            Ok(_) => return Outcome::error(libc::EINVAL),
            Err(outcome) => return outcome,
        };
        // Two sockets of ours that are bound and nothing else: both need SO_REUSEADDR (specification 2.6).
        let taken = self.descriptors.values().any(|descriptor| {
            let Descriptor::Tcp(other) = descriptor else { return false };
            let same =
                matches!(other.role, Role::Fresh) && other.bound == Some(address) && address.port() != 0;
            same && !(other.options.reuseaddr && options.reuseaddr)
        });
        if taken {
            return Outcome::error(libc::EADDRINUSE);
        }
        // The stack takes a port when it listens or connects; whether it could is asked by listening for a moment.
        if address.port() != 0 {
            match self.stack.listen(now, ListenOptions { backlog: 0, options, local: address }) {
                Ok(probe) => self.stack.close_listener(now, probe),
                Err(error) => return Outcome::error(error.errno()),
            }
        }
        if let Ok(socket) = self.tcp(fd) {
            socket.bound = Some(address);
        }
        Outcome::ok(0)
    }

    pub(super) fn listen(&mut self, fd: Fd, backlog: i32) -> Outcome {
        let now = self.now;
        let unspecified = SocketAddr::new(IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), 0);
        let socket = match self.tcp(fd) {
            Ok(socket) => socket,
            Err(outcome) => return outcome,
        };
        if !matches!(socket.role, Role::Fresh) {
            return Outcome::error(libc::EINVAL);
        }
        let local = socket.bound.unwrap_or(unspecified);
        let options =
            ListenOptions { local, backlog: backlog.max(0) as u32, options: socket.options.clone() };
        match self.stack.listen(now, options) {
            Ok(id) => {
                let opens_fast = self.stack.listener_options(id).map_or(0, |options| options.fast_open_queue);
                let socket = self.tcp(fd).expect("found above");
                socket.role = Role::Listener(id);
                socket.options.fast_open_queue = opens_fast;
                Outcome::ok(0)
            }
            Err(error) => Outcome::error(error.errno()),
        }
    }

    pub(super) fn accept(&mut self, fd: Fd) -> Attempt {
        let now = self.now;
        let (listener, nonblocking, v6, kept) = match self.tcp(fd) {
            Ok(TcpSocket { role: Role::Listener(id), nonblocking, v6, kept, .. }) => {
                (*id, *nonblocking, *v6, kept.clone())
            }
            Ok(_) => return Outcome::error(libc::EINVAL).into(),
            Err(outcome) => return outcome.into(),
        };
        match self.stack.accept(now, listener) {
            Ok(id) => {
                let options = self.stack.options(id).cloned().unwrap_or_default();
                let peer = self.stack.tuple(id).map(|tuple| tuple.remote);
                let role = Role::Connection { id, told: true };
                let socket = TcpSocket { options, kept, ..TcpSocket::new(role, v6) };
                let outcome = self.add(Descriptor::Tcp(Box::new(socket)));
                outcome.with(peer.map_or(Output::None, Output::Peer)).into()
            }
            Err(AcceptError::WouldBlock) if !nonblocking => Attempt::Waits { progress: 0, deadline: None },
            Err(error) => Outcome::error(error.errno()).into(),
        }
    }

    pub(super) fn connect(&mut self, fd: Fd, to: SocketAddr, first: bool) -> Attempt {
        let now = self.now;
        let socket = match self.tcp(fd) {
            Ok(socket) => socket,
            Err(outcome) => return outcome.into(),
        };
        let nonblocking = socket.nonblocking;
        let (id, told) = match socket.role {
            Role::Listener(_) => return Outcome::error(libc::EISCONN).into(),
            Role::Connection { id, told } => (id, told),
            Role::Fresh => {
                if let Some(attempt) = self.defer_connect(fd, to) {
                    return attempt;
                }
                let begun = self.begin(fd, |stack, local, options| {
                    stack.connect(now, plain(to), local, options).map(|id| (id, 0))
                });
                return match begun {
                    Err(outcome) => outcome.into(),
                    Ok(_) if nonblocking => Outcome::error(libc::EINPROGRESS).into(),
                    Ok(_) => Attempt::Waits { progress: 0, deadline: None },
                };
            }
        };
        if told {
            return Outcome::error(libc::EISCONN).into();
        }
        match self.stack.state(id) {
            Some(TcpState::SynSent | TcpState::SynRecv) if first => Outcome::error(libc::EALREADY).into(),
            Some(TcpState::SynSent | TcpState::SynRecv) => Attempt::Waits { progress: 0, deadline: None },
            Some(TcpState::Close) | None => {
                let error = self.stack.take_error(id).map_or(libc::ECONNABORTED, |error| error.errno());
                let remains = self.remains_of(id);
                self.stack.close(now, id);
                let socket = self.tcp(fd).expect("found above");
                (socket.role, socket.remains) = (Role::Fresh, remains);
                Outcome::error(error).into()
            }
            Some(_) => {
                self.tcp(fd).expect("found above").role = Role::Connection { id, told: true };
                Outcome::ok(0).into()
            }
        }
    }

    /// A fresh socket becomes the connection that `start` begins with its address and options. How much data it took.
    pub(super) fn begin(
        &mut self,
        fd: Fd,
        start: impl FnOnce(
            &mut Stack,
            Option<SocketAddr>,
            TcpOptions,
        ) -> Result<(ConnectionId, usize), ConnectError>,
    ) -> Result<usize, Outcome> {
        let socket = self.tcp(fd)?;
        let (local, options, quickack) = (socket.bound, socket.options.clone(), socket.quickack);
        let begun = start(&mut self.stack, local, options);
        let (id, taken) = begun.map_err(|error| Outcome::error(error.errno()))?;
        if let Some(on) = quickack {
            let _ = self.stack.set_option(self.now, id, TcpOption::QuickAck(on));
        }
        self.tcp(fd)?.role = Role::Connection { id, told: false };
        Ok(taken)
    }

    /// `connect(AF_UNSPEC)`: aborts, and the socket is fresh again.
    pub(super) fn disconnect(&mut self, fd: Fd) -> Outcome {
        let now = self.now;
        if let Some(remains) = self.connection(fd).and_then(|id| self.remains_of(id))
            && let Ok(socket) = self.tcp(fd)
        {
            socket.remains = Some(remains);
        }
        match self.tcp(fd) {
            Ok(TcpSocket { role, left, .. }) => match core::mem::replace(role, Role::Fresh) {
                Role::Connection { id, .. } => {
                    *left = Some(libc::ECONNRESET);
                    self.stack.disconnect(now, id);
                }
                Role::Listener(id) => self.stack.close_listener(now, id),
                Role::Fresh => {}
            },
            Err(outcome) => return outcome,
        }
        Outcome::ok(0)
    }

    /// The descriptor is free at once (Linux `file_close_fd()`); a linger time above zero is waited out then, whatever
    /// `O_NONBLOCK` says (`__tcp_close()`).
    pub(super) fn close(&mut self, fd: Fd) -> Attempt {
        let now = self.now;
        let Some(descriptor) = self.descriptors.remove(&fd.0) else {
            return Outcome::error(libc::EBADF).into();
        };
        for other in self.descriptors.values_mut() {
            if let Descriptor::Epoll(epoll) = other {
                epoll.forget(fd);
            }
        }
        let Descriptor::Tcp(socket) = descriptor else { return Outcome::ok(0).into() };
        match socket.role {
            Role::Fresh => {}
            Role::Listener(id) => self.stack.close_listener(now, id),
            Role::Connection { id, .. } => {
                let time = socket.options.linger.map_or(Duration::ZERO, |s| Duration::from_secs(s.into()));
                // What is unread ends it with a reset, and zero does.
                if !time.is_zero() && self.stack.recv_available(id) == 0 {
                    let _ = self.stack.shutdown(now, id, Shutdown::Both);
                    return self.linger(id, now + time);
                }
                self.stack.close(now, id);
            }
        }
        Outcome::ok(0).into()
    }

    /// Linux `sk_stream_wait_close()`.
    pub(super) fn linger(&mut self, id: ConnectionId, until: Instant) -> Attempt {
        let drained = self.stack.readiness(id).intersects(Readiness::DRAINED);
        if !drained && self.now < until {
            return Attempt::Lingers(id, until);
        }
        self.stack.close(self.now, id);
        Outcome::ok(0).into()
    }

    pub(super) fn shutdown(&mut self, fd: Fd, how: i32) -> Outcome {
        let now = self.now;
        let direction = match how {
            libc::SHUT_RD => Shutdown::Read,
            libc::SHUT_WR => Shutdown::Write,
            libc::SHUT_RDWR => Shutdown::Both,
            _ => return Outcome::error(libc::EINVAL),
        };
        let socket = match self.tcp(fd) {
            Ok(socket) => socket,
            Err(outcome) => return outcome,
        };
        match socket.role {
            Role::Fresh => Outcome::error(libc::ENOTCONN),
            Role::Listener(_) if direction == Shutdown::Write => Outcome::ok(0),
            Role::Listener(id) => {
                socket.role = Role::Fresh;
                self.stack.close_listener(now, id);
                Outcome::ok(0)
            }
            Role::Connection { id, .. } => match self.stack.shutdown(now, id, direction) {
                Ok(()) => {
                    if direction != Shutdown::Write {
                        self.tcp(fd).expect("found above").shut_read = true;
                    }
                    Outcome::ok(0)
                }
                Err(_) => Outcome::error(libc::ENOTCONN),
            },
        }
    }
}

/// IPv4-mapped addresses become IPv4: the stack has no mapped sockets.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
