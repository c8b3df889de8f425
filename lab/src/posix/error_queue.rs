//! A socket's error queue: what `recvmsg(MSG_ERRQUEUE)` gives. `MSG_ZEROCOPY` tells there that a send's bytes are the
//! program's again, `SO_TIMESTAMPING` when they left and when they were acknowledged; an ICMP error that ended `connect` is there too.
//!
//! Owns:    what is still to be told, by position in the stream of sent bytes, and what waits to be read.
//! Input:   sends, and how far the stack has sent and been acknowledged.
//! Rules:   Linux `msg_zerocopy_realloc()`, `__msg_zerocopy_callback()`, `tcp_tx_timestamp()`, `__skb_tstamp_tx()`,
//!          `ip_icmp_error()`, `ip_recv_error()`.
//! Limits:  stamps are told without the packet, as with `SOF_TIMESTAMPING_OPT_TSONLY`.

use core::time::Duration;
use std::collections::VecDeque;

use lastack_core::error::QueuedError;
use lastack_core::id::ConnectionId;
use lastack_core::tcp::state::TcpState;
use lastack_core::wire::icmp::{self, Version};

use super::{Descriptor, Posix, Role};
use crate::target::{Control, ExtendedError, Fd, Outcome, Output};

/// Linux `msg_zerocopy_realloc()`: so many bytes share one notification at most.
const SHARED_BYTES: u64 = 1 << 19;
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;
const ORIGIN_TIMESTAMPING: u8 = 4;
const ORIGIN_ZEROCOPY: u8 = 5;
/// A TUN copies what it delivers.
const CODE_ZEROCOPY_COPIED: u8 = 1;

/// How far a connection's stream of sent bytes is.
#[derive(Clone, Copy, Debug)]
struct Positions {
    acked: u64,
    sent: u64,
    written: u64,
}

/// Sends that share a notification.
#[derive(Clone, Copy, Debug)]
struct Held {
    first: u32,
    last: u32,
    bytes: u64,
    end: u64,
}

/// A send whose times are asked for.
#[derive(Clone, Copy, Debug)]
struct Stamped {
    end: u64,
    flags: u32,
    /// What names it: the offset of its last byte since identifiers were asked for; 0 when they were not.
    key: u32,
    is_sent: bool,
}

/// One socket's error queue.
#[derive(Debug, Default)]
pub(super) struct ErrorQueue {
    held: VecDeque<Held>,
    next_id: u32,
    stamped: VecDeque<Stamped>,
    /// `SO_TIMESTAMPING`.
    flags: u32,
    /// Position from which identifiers count.
    key_base: u64,
    ready: VecDeque<Entry>,
}

/// What one `recvmsg(MSG_ERRQUEUE)` gives.
#[derive(Debug)]
struct Entry {
    control: Vec<Control>,
    /// Bytes of our segment that an ICMP error quotes; `None`: no such error.
    quoted: Option<usize>,
}

impl From<Vec<Control>> for Entry {
    fn from(control: Vec<Control>) -> Self {
        Self { control, quoted: None }
    }
}

impl ErrorQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.held.is_empty() && self.stamped.is_empty()
    }

    /// A `MSG_ZEROCOPY` send of `bytes` was taken. `joins`: some of the last one's was still unsent.
    fn hold(&mut self, bytes: u64, end: u64, joins: bool) {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        if let Some(last) = self.held.back_mut().filter(|last| joins && last.bytes + bytes < SHARED_BYTES) {
            *last = Held { last: id, bytes: last.bytes + bytes, end, ..*last };
        } else {
            self.held.push_back(Held { first: id, last: id, bytes, end });
        }
    }

    /// Linux `skb_zerocopy_notify_extend()`: consecutive notifications become one.
    fn notify(&mut self, v6: bool, held: Held) {
        let last = self.ready.back_mut().map(|entry| entry.control.as_mut_slice());
        if let Some([Control::Error(told)]) = last
            && told.origin == ORIGIN_ZEROCOPY
            && told.data.wrapping_add(1) == held.first
        {
            told.data = held.last;
            return;
        }
        let (info, data) = (held.first, held.last);
        let code = CODE_ZEROCOPY_COPIED;
        let error = ExtendedError { v6, errno: 0, origin: ORIGIN_ZEROCOPY, kind: 0, code, info, data };
        self.ready.push_back(vec![Control::Error(error)].into());
    }

    fn stamp(&mut self, v6: bool, what: u32, key: u32, at: Duration) {
        let mut control = Vec::new();
        if self.flags & libc::SOF_TIMESTAMPING_SOFTWARE != 0 {
            control.push(Control::Timestamp(at));
        }
        let errno = libc::ENOMSG.cast_unsigned();
        let origin = ORIGIN_TIMESTAMPING;
        control.push(Control::Error(ExtendedError {
            v6,
            errno,
            origin,
            kind: 0,
            code: 0,
            info: what,
            data: key,
        }));
        self.ready.push_back(control.into());
    }

    /// An ICMP error has ended the attempt to connect. `v6`: the socket is AF_INET6, whatever it spoke.
    fn icmp(&mut self, v6: bool, queued: &QueuedError) {
        let [kind, code, _, _, field @ ..] = icmp::emit_error(queued.version, queued.kind);
        // IPv4's pointer is one byte (Linux icmp_unreach()).
        let (origin, info) = match queued.version {
            Version::V4 => (ORIGIN_ICMP, u32::from(field[0])),
            Version::V6 => (ORIGIN_ICMP6, u32::from_be_bytes(field)),
        };
        let errno = queued.error.errno().cast_unsigned();
        let error = ExtendedError { v6, errno, origin, kind, code, info, data: 0 };
        self.ready
            .push_back(Entry { control: vec![Control::Error(error)], quoted: Some(queued.quoted.into()) });
    }

    /// The stack has come so far.
    fn advance(&mut self, v6: bool, to: Positions, now: Duration) {
        for at in 0..self.stamped.len() {
            let stamped = self.stamped[at];
            if !stamped.is_sent && stamped.end <= to.sent {
                self.stamped[at].is_sent = true;
                for (flag, what) in
                    [(libc::SOF_TIMESTAMPING_TX_SCHED, 1), (libc::SOF_TIMESTAMPING_TX_SOFTWARE, 0)]
                {
                    if stamped.flags & flag != 0 {
                        self.stamp(v6, what, stamped.key, now);
                    }
                }
            }
        }
        while let Some(first) = self.stamped.front().copied().filter(|first| first.end <= to.acked) {
            self.stamped.pop_front();
            if first.flags & libc::SOF_TIMESTAMPING_TX_ACK != 0 {
                self.stamp(v6, 2, first.key, now);
            }
        }
        while let Some(first) = self.held.front().copied().filter(|first| first.end <= to.acked) {
            self.held.pop_front();
            self.notify(v6, first);
        }
    }
}

/// A send about to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tracked {
    before: Option<Positions>,
    zerocopy: bool,
}

impl Posix {
    fn positions(&self, id: ConnectionId) -> Option<Positions> {
        let info =
            self.stack.tcp_info(self.now, id).filter(|_| self.stack.state(id) != Some(TcpState::Close))?;
        let tuple = self.stack.tuple(id)?;
        let row = self.row(tuple.local, tuple.remote)?;
        let written = info.bytes_acked + u64::from(row.send_q);
        Some(Positions {
            acked: info.bytes_acked,
            sent: written.saturating_sub(info.notsent_bytes.into()),
            written,
        })
    }

    /// Before a send: whether its end will be told.
    pub(super) fn track(&mut self, fd: Fd, id: ConnectionId, len: usize, flags: i32) -> Option<Tracked> {
        let socket = self.tcp(fd).ok()?;
        let copies_not = socket.kept.get(&(libc::SOL_SOCKET, libc::SO_ZEROCOPY)) == Some(&1);
        let zerocopy = copies_not && flags & libc::MSG_ZEROCOPY != 0 && len > 0;
        let stamps = socket.errors.flags & TX_RECORD != 0;
        (zerocopy || stamps).then(|| Tracked { before: self.positions(id), zerocopy })
    }

    /// The send has taken `bytes`.
    pub(super) fn tracked(&mut self, fd: Fd, id: ConnectionId, tracked: Tracked, bytes: u64) {
        let Some(after) = self.positions(id) else { return };
        let Ok(socket) = self.tcp(fd) else { return };
        let queue = &mut socket.errors;
        if tracked.zerocopy {
            let unsent = tracked.before.is_some_and(|before| before.written > before.sent);
            let joins = unsent
                && queue
                    .held
                    .back()
                    .is_some_and(|last| tracked.before.is_some_and(|b| b.written == last.end));
            queue.hold(bytes, after.written, joins);
        }
        if queue.flags & TX_RECORD != 0 && bytes > 0 {
            let key = if queue.flags & libc::SOF_TIMESTAMPING_OPT_ID == 0 {
                0
            } else {
                (after.written - 1).wrapping_sub(queue.key_base) as u32
            };
            queue.stamped.push_back(Stamped { end: after.written, flags: queue.flags, key, is_sent: false });
        }
    }

    /// ICMP errors since it was last looked.
    fn report_errors(&mut self) {
        let Self { stack, descriptors, news, .. } = self;
        for descriptor in descriptors.values_mut() {
            if let Descriptor::Tcp(socket) = descriptor
                && let Role::Connection { id, .. } = socket.role
                && let Some(queued) = stack.take_queued_error(id)
            {
                socket.errors.icmp(socket.v6, &queued);
                news.insert(id);
            }
        }
    }

    /// What has left and been acknowledged since it was last looked at.
    pub(super) fn report_sends(&mut self) {
        self.report_errors();
        let waiting: Vec<(i32, ConnectionId, bool)> = self
            .descriptors
            .iter()
            .filter_map(|(fd, descriptor)| match descriptor {
                Descriptor::Tcp(socket) if !socket.errors.is_idle() => match socket.role {
                    Role::Connection { id, .. } => Some((*fd, id, socket.v6)),
                    Role::Fresh | Role::Listener(_) => None,
                },
                _ => None,
            })
            .collect();
        let now = self.now();
        for (fd, id, v6) in waiting {
            // Nothing is held for a connection that is over.
            let over = Positions { acked: u64::MAX, sent: 0, written: 0 };
            let to = self.positions(id);
            let Ok(socket) = self.tcp(Fd(fd)) else { continue };
            if to.is_none() {
                socket.errors.stamped.clear();
            }
            let told = socket.errors.ready.len();
            socket.errors.advance(v6, to.unwrap_or(over), now);
            if socket.errors.ready.len() != told {
                self.news.insert(id);
            }
        }
    }

    /// `recvmsg(MSG_ERRQUEUE)`; never blocks.
    pub(super) fn receive_error(&mut self, fd: Fd, len: usize) -> Outcome {
        let Entry { control, quoted } = match self.tcp(fd).map(|socket| socket.errors.ready.pop_front()) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Outcome::error(libc::EAGAIN),
            Err(outcome) => return outcome,
        };
        if quoted.is_some()
            && let Some(id) = self.connection(fd)
        {
            // Linux sock_dequeue_err_skb(): "if (is_icmp_err_skb(skb) && !icmp_next) sk->sk_err = 0".
            let _ = self.stack.take_error(id);
        }
        let quoted = quoted.unwrap_or(0);
        let cut = if quoted > len { libc::MSG_TRUNC } else { 0 };
        let message = Output::Message { flags: libc::MSG_ERRQUEUE | cut, control };
        Outcome::ok(quoted.min(len) as i64).with(message)
    }

    /// `SO_TIMESTAMPING` (Linux `sock_set_timestamping()`).
    pub(super) fn set_timestamping(&mut self, fd: Fd, value: i32) -> Outcome {
        let flags = value.cast_unsigned();
        let with_id = flags & libc::SOF_TIMESTAMPING_OPT_ID != 0;
        let stats_alone = flags & OPT_STATS != 0 && flags & libc::SOF_TIMESTAMPING_OPT_TSONLY == 0;
        if flags & !MASK != 0 || stats_alone || (flags & OPT_ID_TCP != 0 && !with_id) {
            return Outcome::error(libc::EINVAL);
        }
        let (role, known) = match self.tcp(fd) {
            Ok(socket) => (socket.role, socket.errors.flags),
            Err(outcome) => return outcome,
        };
        let mut key_base = None;
        if with_id && known & libc::SOF_TIMESTAMPING_OPT_ID == 0 {
            let Role::Connection { id, .. } = role else { return Outcome::error(libc::EINVAL) };
            let positions = self.positions(id);
            key_base = positions.map(|at| if flags & OPT_ID_TCP != 0 { at.written } else { at.acked });
        }
        if let Ok(socket) = self.tcp(fd) {
            socket.errors.flags = flags;
            socket.errors.key_base = key_base.unwrap_or(socket.errors.key_base);
        }
        Outcome::ok(0)
    }

    /// `SO_TIMESTAMPING` read back.
    pub(super) fn timestamping(&mut self, fd: Fd) -> i32 {
        self.tcp(fd).map_or(0, |socket| socket.errors.flags.cast_signed())
    }
}

/// Linux `SOF_TIMESTAMPING_TX_RECORD_MASK`, less what a TUN has no hardware for.
const TX_RECORD: u32 =
    libc::SOF_TIMESTAMPING_TX_SOFTWARE | libc::SOF_TIMESTAMPING_TX_SCHED | libc::SOF_TIMESTAMPING_TX_ACK;
const OPT_STATS: u32 = 1 << 12;
const OPT_ID_TCP: u32 = 1 << 16;
/// Every flag of Linux 6.18.
const MASK: u32 = (1 << 19) - 1;
