//! A POSIX-like socket layer over the stack: descriptors, errno, options before connect, calls that block.
//!
//! Owns:    the descriptor table, what a socket is before it is a connection, and the one call that blocks.
//! Input:   [`Call`]s, packets, and the passing of virtual time.
//! Output:  [`Outcome`]s as Linux's socket calls give them; packets with the time they left.
//! Rules:   Linux `net/socket.c`, `af_inet.c`, `tcp.c`: which errno, and when it is told.
//! Not here: TCP itself (`lastack_core`), scripts.

mod control;
mod error_queue;
mod fast_open;
mod files;
mod kept;
mod life;
mod options;
mod ready;
mod transfer;
mod wheel;

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use lastack_core::id::{ConnectionId, ListenerId};
use lastack_core::observe::{SocketRow, TcpInfo};
use lastack_core::stack::{Config, SocketEvent, Stack};
use lastack_core::tcp::options::TcpOptions;
use lastack_core::tcp::state::TcpState;
use lastack_core::time::Instant;
use lastack_core::wire::offload::Segments;
use lastack_core::wire::transmit::{RxMeta, Transmit};

use crate::target::{Call, Done, Fd, Outcome, Sent, Via};
use error_queue::ErrorQueue;
use files::{OpenFile, PipeEnd};
use ready::Epoll;
pub(crate) use wheel::Wheel;

/// A host: a stack, its wire, and one application's descriptors, in virtual time.
#[derive(Debug)]
pub struct Posix {
    pub(crate) stack: Stack,
    now: Instant,
    mtu: u32,
    descriptors: BTreeMap<i32, Descriptor>,
    sent: VecDeque<Sent>,
    blocked: Option<Waiting>,
    /// When the `poll` or `epoll_wait` that is tried again gives up.
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
    File(OpenFile),
    Pipe(PipeEnd),
}

#[derive(Debug)]
struct TcpSocket {
    role: Role,
    options: TcpOptions,
    nonblocking: bool,
    bound: Option<SocketAddr>,
    /// An AF_INET6 socket.
    v6: bool,
    /// What `connect(AF_UNSPEC)` left behind (Linux `tcp_disconnect`: `sk_err = ECONNRESET`).
    left: Option<i32>,
    /// What `TCP_INFO` says of the connection that this socket was.
    remains: Option<Box<TcpInfo>>,
    /// `TCP_QUICKACK` set before there was a connection.
    quickack: Option<bool>,
    /// Where the first write connects to (`TCP_FASTOPEN_CONNECT`).
    deferred: Option<SocketAddr>,
    /// `shutdown` ended receiving.
    shut_read: bool,
    /// Options that change nothing, as they were set.
    kept: BTreeMap<(i32, i32), i32>,
    errors: ErrorQueue,
}

impl TcpSocket {
    fn new(role: Role, v6: bool) -> Self {
        Self {
            role,
            options: TcpOptions::default(),
            nonblocking: false,
            bound: None,
            v6,
            left: None,
            remains: None,
            quickack: None,
            deferred: None,
            shut_read: false,
            kept: BTreeMap::new(),
            errors: ErrorQueue::default(),
        }
    }
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

/// A call that has not returned.
#[derive(Debug)]
pub struct Waiting {
    what: Blocked,
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum Blocked {
    /// It is tried again when something has happened. Bytes moved so far.
    Call(Call, usize),
    /// `close` of this connection; its descriptor is free already.
    Close(ConnectionId),
}

/// Answer of one attempt at a call.
enum Attempt {
    Done(Outcome),
    /// Try again when something has happened.
    Waits {
        progress: usize,
        deadline: Option<Instant>,
    },
    /// `close` waits for the peer until then.
    Lingers(ConnectionId, Instant),
}

impl Waiting {
    fn progress(&self) -> usize {
        match &self.what {
            Blocked::Call(_, progress) => *progress,
            Blocked::Close(_) => 0,
        }
    }
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
            mtu: config.mtu,
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

    /// Largest packet of the link, bytes.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The virtual clock.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now.as_nanos())
    }

    /// A packet arrives.
    pub fn inject(&mut self, packet: &[u8]) {
        self.inject_merged(packet, 0);
    }

    /// A packet arrives that the device made of segments with `segment_size` bytes of payload each; 0: it is one of its own.
    pub fn inject_merged(&mut self, packet: &[u8], segment_size: u16) {
        let meta = RxMeta { segment_size, ..RxMeta::default() };
        self.stack.handle_packet(self.now, Bytes::copy_from_slice(packet), meta);
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
        match self.begin_call(call) {
            Ok(done) => Some(done),
            Err(waiting) => {
                self.blocked = Some(waiting);
                self.settle();
                self.finished.take()
            }
        }
    }

    /// Makes a call beside the one that may be blocked.
    ///
    /// # Errors
    /// It waits: to be tried [again](Posix::try_again) when something has happened.
    pub fn begin_call(&mut self, call: &Call) -> Result<Done, Waiting> {
        let (what, deadline) = match self.attempt(call, 0, true) {
            Attempt::Done(outcome) => {
                self.settle();
                return Ok(Done { at: self.now(), outcome });
            }
            Attempt::Waits { progress, deadline } => (Blocked::Call(call.clone(), progress), deadline),
            Attempt::Lingers(id, until) => (Blocked::Close(id), Some(until)),
        };
        self.settle();
        Err(Waiting { what, deadline })
    }

    /// Tries a call that [waits](Posix::begin_call) again.
    pub fn try_again(&mut self, waiting: &mut Waiting) -> Option<Done> {
        let outcome = self.retry(waiting)?;
        self.settle();
        Some(Done { at: self.now(), outcome })
    }

    /// When a call that waits gives up.
    pub fn deadline_of(&self, waiting: &Waiting) -> Option<Duration> {
        waiting.deadline.map(|deadline| Duration::from_nanos(deadline.as_nanos()))
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

    /// The socket of a descriptor is AF_INET6: an IPv4 address is a mapped one to it.
    pub fn is_v6(&self, fd: Fd) -> bool {
        matches!(self.descriptors.get(&fd.0), Some(Descriptor::Tcp(socket)) if socket.v6)
    }

    /// The connection behind a descriptor.
    pub fn connection(&self, fd: Fd) -> Option<ConnectionId> {
        match self.descriptors.get(&fd.0) {
            Some(Descriptor::Tcp(socket)) => match socket.role {
                Role::Connection { id, .. } => Some(id),
                Role::Fresh | Role::Listener(_) => None,
            },
            _ => None,
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
            self.report_sends();
            let Some(mut blocked) = self.blocked.take() else { return };
            let before = blocked.progress();
            if let Some(outcome) = self.retry(&mut blocked) {
                self.finished = Some(Done { at: self.now(), outcome });
                self.transmit_all();
                self.report_sends();
                return;
            }
            let moved = blocked.progress() != before;
            self.blocked = Some(blocked);
            if !moved {
                return;
            }
        }
    }

    fn retry(&mut self, waiting: &mut Waiting) -> Option<Outcome> {
        self.waits_until = waiting.deadline;
        let attempt = match (&waiting.what, waiting.deadline) {
            (Blocked::Call(call, progress), _) => self.attempt(call, *progress, false),
            (Blocked::Close(id), until) => self.linger(*id, until.unwrap_or(self.now)),
        };
        match attempt {
            Attempt::Done(outcome) => return Some(outcome),
            Attempt::Lingers(..) => {}
            Attempt::Waits { progress, deadline } => {
                if let Blocked::Call(_, so_far) = &mut waiting.what {
                    *so_far = progress;
                }
                waiting.deadline = deadline;
            }
        }
        None
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
            Call::Open(path, flags) => self.open(path, *flags).into(),
            Call::Pipe => self.pipe().into(),
            Call::SendFile { to, from, offset, len } => {
                self.send_file(*to, *from, *offset, *len, progress, first)
            }
            Call::Splice { from, to, len, flags } => self.splice(*from, *to, *len, *flags, progress, first),
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
            Some(_) => Err(Outcome::error(libc::ENOTSOCK)),
            None => Err(Outcome::error(libc::EBADF)),
        }
    }
}

/// Time that sending takes.
const BETWEEN_PACKETS: Duration = Duration::from_micros(1);
