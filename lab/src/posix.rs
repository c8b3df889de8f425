//! A POSIX-like socket layer over the stack: descriptors, errno, options before connect, calls that block.
//!
//! Owns:    the descriptor table, what a socket is before it is a connection, and the one call that blocks.
//! Input:   [`Call`]s, packets, and the passing of virtual time.
//! Output:  [`Outcome`]s as Linux's socket calls give them; packets with the time they left.
//! Rules:   Linux `net/socket.c`, `af_inet.c`, `tcp.c`: which errno, and when it is told.
//! Not here: TCP itself (`lastack_core`), scripts.

mod fast_open;
mod kept;
mod options;
mod ready;
mod transfer;
mod wheel;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use lastack_core::error::AcceptError;
use lastack_core::id::{ConnectionId, ListenerId};
use lastack_core::observe::SocketRow;
use lastack_core::stack::{Config, ListenOptions, Readiness, Shutdown, SocketEvent, Stack};
use lastack_core::tcp::options::{TcpOption, TcpOptions};
use lastack_core::tcp::state::TcpState;
use lastack_core::time::Instant;
use lastack_core::wire::offload::Segments;
use lastack_core::wire::transmit::{RxMeta, Transmit};

use crate::target::{Call, Done, Fd, Outcome, Output, Sent, Via};
use ready::Epoll;
pub(crate) use wheel::Wheel;

/// A host: a stack, its wire, and one application's descriptors, in virtual time.
#[derive(Debug)]
pub struct Posix {
    pub(crate) stack: Stack,
    now: Instant,
    descriptors: BTreeMap<i32, Descriptor>,
    sent: VecDeque<Sent>,
    blocked: Option<Blocked>,
    /// When the `poll` or `epoll_wait` that blocks gives up.
    waits_until: Option<Instant>,
    finished: Option<Done>,
    /// Connections that had news since an edge-triggered epoll looked.
    news: BTreeSet<ConnectionId>,
    transmit: Transmit,
    packet: Vec<u8>,
    /// Timers are as late as Linux's; `None`: on time.
    wheel: Option<Wheel>,
}

#[derive(Debug)]
enum Descriptor {
    Tcp(Box<TcpSocket>),
    Epoll(Epoll),
}

#[derive(Debug)]
struct TcpSocket {
    role: Role,
    options: TcpOptions,
    nonblocking: bool,
    bound: Option<SocketAddr>,
    /// AF_INET6 socket that speaks IPv4.
    mapped: bool,
    /// What `connect(AF_UNSPEC)` left behind (Linux `tcp_disconnect`: `sk_err = ECONNRESET`).
    left: Option<i32>,
    /// `TCP_QUICKACK` set before there was a connection.
    quickack: Option<bool>,
    linger_since: Option<Instant>,
    /// Where the first write connects to (`TCP_FASTOPEN_CONNECT`).
    deferred: Option<SocketAddr>,
    /// `shutdown` ended receiving.
    shut_read: bool,
    /// Options that change nothing, as they were set.
    kept: BTreeMap<(i32, i32), i32>,
}

#[derive(Clone, Copy, Debug)]
enum Role {
    /// Neither connected nor listening.
    Fresh,
    Listener(ListenerId),
    /// `told`: the result of `connect` has been told.
    Connection {
        id: ConnectionId,
        told: bool,
    },
}

/// A call that waits.
#[derive(Debug)]
struct Blocked {
    call: Call,
    /// Bytes moved so far.
    progress: usize,
    deadline: Option<Instant>,
}

/// Answer of one attempt at a call.
enum Attempt {
    Done(Outcome),
    /// Try again when something has happened.
    Waits {
        progress: usize,
        deadline: Option<Instant>,
    },
}

impl From<Outcome> for Attempt {
    fn from(outcome: Outcome) -> Self {
        Self::Done(outcome)
    }
}

impl Posix {
    /// A host with the given stack; time begins at `start`.
    pub fn new(config: Config, start: Duration) -> Self {
        let now = Instant::from_nanos(start.as_nanos() as u64);
        Self {
            stack: Stack::new(config, now),
            now,
            descriptors: BTreeMap::new(),
            sent: VecDeque::new(),
            blocked: None,
            waits_until: None,
            finished: None,
            news: BTreeSet::new(),
            transmit: Transmit::default(),
            packet: Vec::new(),
            wheel: None,
        }
    }

    /// From now on timers are as late as on Linux's wheel.
    pub(crate) fn use_wheel(&mut self, wheel: Wheel) {
        self.wheel = Some(wheel);
    }

    /// The virtual clock.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now.as_nanos())
    }

    /// A packet arrives.
    pub fn inject(&mut self, packet: &[u8]) {
        self.stack.handle_packet(self.now, Bytes::copy_from_slice(packet), RxMeta::default());
        self.settle();
    }

    /// The oldest packet that left and was not taken.
    pub fn take_sent(&mut self) -> Option<Sent> {
        self.sent.pop_front()
    }

    /// The call that blocked, once it has returned.
    pub fn take_finished(&mut self) -> Option<Done> {
        self.finished.take()
    }

    /// Moves the clock to the next thing that happens, at most to `limit`. False: `limit` is reached.
    pub fn step(&mut self, limit: Duration) -> bool {
        let limit = Instant::from_nanos(limit.as_nanos() as u64);
        let wakes = self.blocked.as_ref().and_then(|blocked| blocked.deadline);
        let mut timer = self.stack.poll_timeout();
        if let (Some(wheel), Some(at)) = (&mut self.wheel, timer) {
            timer = Some(wheel.fires(at, self.now));
        }
        let next = [timer, wakes].into_iter().flatten().min();
        match next.filter(|next| *next <= limit) {
            Some(next) => {
                self.now = self.now.max(next);
                self.stack.handle_timeout(self.now);
                self.settle();
                true
            }
            None => {
                self.now = self.now.max(limit);
                false
            }
        }
    }

    /// Makes a call; `None`: it blocks, and [`Posix::take_finished`] will give its end.
    pub fn call(&mut self, call: &Call) -> Option<Done> {
        match self.attempt(call, 0, true) {
            Attempt::Done(outcome) => {
                self.settle();
                Some(Done { at: self.now(), outcome })
            }
            Attempt::Waits { progress, deadline } => {
                self.blocked = Some(Blocked { call: call.clone(), progress, deadline });
                self.settle();
                self.finished.take()
            }
        }
    }

    /// Makes a call only if it returns at once; one that would block leaves no trace.
    pub fn try_call(&mut self, call: &Call) -> Option<Done> {
        match self.attempt(call, 0, true) {
            Attempt::Done(outcome) => {
                self.settle();
                Some(Done { at: self.now(), outcome })
            }
            Attempt::Waits { .. } => None,
        }
    }

    /// A call is blocked.
    pub fn is_waiting(&self) -> bool {
        self.blocked.is_some()
    }

    /// Something will happen by itself, some time.
    pub fn has_timers(&self) -> bool {
        self.stack.poll_timeout().is_some()
            || self.blocked.as_ref().is_some_and(|call| call.deadline.is_some())
    }

    /// The socket of a descriptor speaks IPv4 through AF_INET6.
    pub fn is_mapped(&self, fd: Fd) -> bool {
        matches!(self.descriptors.get(&fd.0), Some(Descriptor::Tcp(socket)) if socket.mapped)
    }

    /// The connection behind a descriptor.
    pub fn connection(&self, fd: Fd) -> Option<ConnectionId> {
        match self.descriptors.get(&fd.0) {
            Some(Descriptor::Tcp(socket)) => match socket.role {
                Role::Connection { id, .. } => Some(id),
                Role::Fresh | Role::Listener(_) => None,
            },
            Some(Descriptor::Epoll(_)) | None => None,
        }
    }

    /// The row of a pair in the stack's tables.
    pub fn row(&self, local: SocketAddr, remote: SocketAddr) -> Option<SocketRow> {
        // Linux takes a socket in CLOSE out of its tables; the application may still hold it.
        let shown = |row: &SocketRow| row.state != TcpState::Close;
        self.stack.sockets(self.now).find(|row| row.local == local && row.remote == remote && shown(row))
    }

    /// The stack, for looking.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The stack, for settings.
    pub fn stack_mut(&mut self) -> &mut Stack {
        &mut self.stack
    }

    /// Lets what happened have its consequences: packets leave, the call that waits tries again.
    fn settle(&mut self) {
        loop {
            self.transmit_all();
            let Some(mut blocked) = self.blocked.take() else { return };
            match self.attempt(&blocked.call, blocked.progress, false) {
                Attempt::Done(outcome) => {
                    self.finished = Some(Done { at: self.now(), outcome });
                    self.transmit_all();
                    return;
                }
                Attempt::Waits { progress, deadline } => {
                    let moved = progress != blocked.progress;
                    blocked.progress = progress;
                    blocked.deadline = deadline;
                    self.blocked = Some(blocked);
                    if !moved {
                        return;
                    }
                }
            }
        }
    }

    fn transmit_all(&mut self) {
        while self.stack.poll_transmit(self.now, &mut self.transmit) {
            let mut segments = Segments::new(&self.transmit);
            while segments.next_packet(&mut self.packet) {
                self.sent.push_back(Sent { at: self.now(), bytes: self.packet.clone() });
            }
            // Nothing leaves a real host at the same instant as something else, and RACK tells them apart by time.
            self.now += BETWEEN_PACKETS;
        }
        while let Some(event) = self.stack.poll_event() {
            if let SocketEvent::Connection(id, _) = event {
                self.news.insert(id);
            }
        }
    }

    // ---- calls

    fn attempt(&mut self, call: &Call, progress: usize, first: bool) -> Attempt {
        match call {
            Call::Socket { family, kind, .. } => self.socket(*family, *kind).into(),
            Call::Bind(fd, address) => self.bind(*fd, *address).into(),
            Call::Listen(fd, backlog) => self.listen(*fd, *backlog).into(),
            Call::Accept(fd) => self.accept(*fd),
            Call::Connect(fd, Some(to)) => self.connect(*fd, *to, first),
            Call::Connect(fd, None) => self.disconnect(*fd).into(),
            Call::Receive { fd, lens, flags, via } => {
                let attempt = self.receive(*fd, lens.iter().sum(), *flags, progress, first);
                if *via == Via::Message { self.with_message(*fd, attempt) } else { attempt }
            }
            Call::Send { fd, lens, flags, to, .. } => {
                self.send(*fd, lens.iter().sum(), *flags, *to, progress, first)
            }
            Call::Close(fd) => self.close(*fd),
            Call::Shutdown(fd, how) => self.shutdown(*fd, *how).into(),
            Call::Fcntl(fd, command, arg) => self.fcntl(*fd, *command, *arg).into(),
            Call::Ioctl(fd, request) => self.ioctl(*fd, *request).into(),
            Call::SetOption(fd, level, name, value) => self.set_option(*fd, *level, *name, value).into(),
            Call::GetOption(fd, level, name, len) => self.get_option(*fd, *level, *name, *len).into(),
            Call::Poll(entries, timeout) => self.poll(entries, *timeout, first),
            Call::EpollCreate => self.add(Descriptor::Epoll(Epoll::default())).into(),
            Call::EpollCtl(epoll, operation, fd, events, data) => {
                self.epoll_ctl(*epoll, *operation, *fd, *events, *data).into()
            }
            Call::EpollWait(epoll, most, timeout) => self.epoll_wait(*epoll, *most, *timeout, first),
        }
    }

    fn add(&mut self, descriptor: Descriptor) -> Outcome {
        let fd = (3..).find(|fd| !self.descriptors.contains_key(fd)).expect("numbers do not run out");
        self.descriptors.insert(fd, descriptor);
        Outcome::ok(i64::from(fd))
    }

    fn tcp(&mut self, fd: Fd) -> Result<&mut TcpSocket, Outcome> {
        match self.descriptors.get_mut(&fd.0) {
            Some(Descriptor::Tcp(socket)) => Ok(socket),
            Some(Descriptor::Epoll(_)) => Err(Outcome::error(libc::ENOTSOCK)),
            None => Err(Outcome::error(libc::EBADF)),
        }
    }

    fn socket(&mut self, family: i32, kind: i32) -> Outcome {
        let nonblocking = kind & libc::SOCK_NONBLOCK != 0;
        if kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != libc::SOCK_STREAM {
            return Outcome::error(libc::EPROTONOSUPPORT);
        }
        let mapped = family == libc::AF_INET6;
        self.add(Descriptor::Tcp(Box::new(TcpSocket {
            role: Role::Fresh,
            options: TcpOptions::default(),
            nonblocking,
            bound: None,
            mapped,
            left: None,
            quickack: None,
            linger_since: None,
            deferred: None,
            shut_read: false,
            kept: BTreeMap::new(),
        })))
    }

    fn bind(&mut self, fd: Fd, address: SocketAddr) -> Outcome {
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

    fn listen(&mut self, fd: Fd, backlog: i32) -> Outcome {
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

    fn accept(&mut self, fd: Fd) -> Attempt {
        let now = self.now;
        let (listener, nonblocking, mapped, kept) = match self.tcp(fd) {
            Ok(TcpSocket { role: Role::Listener(id), nonblocking, mapped, kept, .. }) => {
                (*id, *nonblocking, *mapped, kept.clone())
            }
            Ok(_) => return Outcome::error(libc::EINVAL).into(),
            Err(outcome) => return outcome.into(),
        };
        match self.stack.accept(now, listener) {
            Ok(id) => {
                let options = self.stack.options(id).cloned().unwrap_or_default();
                let peer = self.stack.tuple(id).map(|tuple| tuple.remote);
                let role = Role::Connection { id, told: true };
                let socket = TcpSocket {
                    role,
                    options,
                    nonblocking: false,
                    bound: None,
                    mapped,
                    left: None,
                    quickack: None,
                    linger_since: None,
                    deferred: None,
                    shut_read: false,
                    kept,
                };
                let outcome = self.add(Descriptor::Tcp(Box::new(socket)));
                outcome.with(peer.map_or(Output::None, Output::Peer)).into()
            }
            Err(AcceptError::WouldBlock) if !nonblocking => Attempt::Waits { progress: 0, deadline: None },
            Err(error) => Outcome::error(error.errno()).into(),
        }
    }

    fn connect(&mut self, fd: Fd, to: SocketAddr, first: bool) -> Attempt {
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
                let socket = self.tcp(fd).expect("found above");
                let (local, options, quickack) = (socket.bound, socket.options.clone(), socket.quickack);
                match self.stack.connect(now, plain(to), local, options) {
                    Ok(id) => {
                        if let Some(on) = quickack {
                            let _ = self.stack.set_option(now, id, TcpOption::QuickAck(on));
                        }
                        self.tcp(fd).expect("found above").role = Role::Connection { id, told: false };
                        return if nonblocking {
                            Outcome::error(libc::EINPROGRESS).into()
                        } else {
                            Attempt::Waits { progress: 0, deadline: None }
                        };
                    }
                    Err(error) => return Outcome::error(error.errno()).into(),
                }
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
                self.stack.close(now, id);
                self.tcp(fd).expect("found above").role = Role::Fresh;
                Outcome::error(error).into()
            }
            Some(_) => {
                self.tcp(fd).expect("found above").role = Role::Connection { id, told: true };
                Outcome::ok(0).into()
            }
        }
    }

    /// `connect(AF_UNSPEC)`: aborts, and the socket is fresh again.
    fn disconnect(&mut self, fd: Fd) -> Outcome {
        let now = self.now;
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

    /// Linux `__tcp_close()`: a linger time above zero is waited out first, whatever `O_NONBLOCK` says.
    fn close(&mut self, fd: Fd) -> Attempt {
        let now = self.now;
        let Some(descriptor) = self.descriptors.get_mut(&fd.0) else {
            return Outcome::error(libc::EBADF).into();
        };
        if let Descriptor::Tcp(socket) = descriptor {
            match socket.role {
                Role::Fresh => {}
                Role::Listener(id) => self.stack.close_listener(now, id),
                Role::Connection { id, .. } => {
                    let wait = socket.options.linger.filter(|seconds| *seconds > 0);
                    let since = socket.linger_since;
                    let unread = self.stack.recv_available(id) > 0 && since.is_none();
                    if let Some(seconds) = wait.filter(|_| !unread) {
                        let since = *socket.linger_since.get_or_insert(now);
                        if since == now {
                            let _ = self.stack.shutdown(now, id, Shutdown::Both);
                        }
                        let until = since + Duration::from_secs(u64::from(seconds));
                        let drained = self.stack.readiness(id).intersects(Readiness::DRAINED);
                        if !drained && now < until {
                            return Attempt::Waits { progress: 0, deadline: Some(until) };
                        }
                    }
                    self.stack.close(now, id);
                }
            }
        }
        self.descriptors.remove(&fd.0);
        for descriptor in self.descriptors.values_mut() {
            if let Descriptor::Epoll(epoll) = descriptor {
                epoll.forget(fd);
            }
        }
        Outcome::ok(0).into()
    }

    fn shutdown(&mut self, fd: Fd, how: i32) -> Outcome {
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

    fn fcntl(&mut self, fd: Fd, command: i32, arg: i32) -> Outcome {
        let socket = match self.tcp(fd) {
            Ok(socket) => socket,
            Err(outcome) => return outcome,
        };
        match command {
            libc::F_GETFL => {
                Outcome::ok(i64::from(libc::O_RDWR | if socket.nonblocking { libc::O_NONBLOCK } else { 0 }))
            }
            libc::F_SETFL => {
                socket.nonblocking = arg & libc::O_NONBLOCK != 0;
                Outcome::ok(0)
            }
            _ => Outcome::error(libc::EINVAL),
        }
    }

    fn ioctl(&mut self, fd: Fd, request: u64) -> Outcome {
        let role = match self.tcp(fd) {
            Ok(socket) => socket.role,
            Err(outcome) => return outcome,
        };
        let id = match role {
            Role::Connection { id, .. } => id,
            Role::Listener(_) => return Outcome::error(libc::EINVAL),
            Role::Fresh => return Outcome::ok(0).with(Output::Int(0)),
        };
        let info = self.stack.tcp_info(self.now, id).unwrap_or_default();
        let row = self.stack.tuple(id).and_then(|tuple| self.row(tuple.local, tuple.remote));
        let value = match request {
            SIOCINQ => self.stack.recv_available(id) as i32,
            // Linux: the SYN is not data.
            SIOCOUTQ if matches!(self.stack.state(id), Some(TcpState::SynSent | TcpState::SynRecv)) => 0,
            SIOCOUTQ => row.map_or(0, |row| row.send_q as i32),
            SIOCOUTQNSD => info.notsent_bytes as i32,
            SIOCATMARK => self.stack.is_at_mark(id).into(),
            _ => return Outcome::error(libc::ENOTTY),
        };
        Outcome::ok(0).with(Output::Int(value))
    }
}

/// Time that sending takes.
const BETWEEN_PACKETS: Duration = Duration::from_micros(1);

const SIOCINQ: u64 = 0x541b;
const SIOCOUTQ: u64 = 0x5411;
const SIOCOUTQNSD: u64 = 0x894b;
const SIOCATMARK: u64 = 0x8905;

/// IPv4-mapped addresses become IPv4: the stack has no mapped sockets.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
