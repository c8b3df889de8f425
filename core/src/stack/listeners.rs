//! Listeners: who gets a SYN, the two queues behind each, and `bind`'s conflicts.
//!
//! Owns:    listeners by id and by address; their SYN queue (a count) and accept queue.
//! Rules:   specification 2.6 and 4.1–4.4. Linux: `__inet_lookup_listener`, `tcp_conn_request`, `inet_csk_reqsk_queue_add`.
//! Not here: half-open connections themselves (`tcp::half_open`), SYNs that wait for a decision (`pending`).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::error::{AcceptError, ListenError, OptionError};
use crate::id::{ConnectionId, FourTuple, ListenerId, PendingId};
use crate::observe::DropReason;
use crate::rng::{HashKey, Rng};
use crate::stack::fast_open::{FastOpenQueue, Judgement};
use crate::stack::ingress::Arrival;
use crate::stack::notices::Notice;
use crate::stack::ports::Use;
use crate::stack::slab::Arena;
use crate::stack::sockets::{Holder, NOT_PENDING};
use crate::stack::tuple::Packed;
use crate::stack::{AnyOptions, ListenOptions, Readiness, Stack};
use crate::tcp::connection::{Connection, ConnectionSetup};
use crate::tcp::fast_open::{SERVER, SERVER_ALWAYS};
use crate::tcp::half_open::{HalfOpen, SynQueue};
use crate::tcp::mss::default_mss;
use crate::tcp::options::{TcpOption, TcpOptions};
use crate::tcp::seq::SeqNum;
use crate::time::Instant;
use crate::wire::segment::{Segment, SegmentHeader};

/// One listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) local: SocketAddr,
    /// `min(backlog, somaxconn)`: either queue is full above it, so that one more fits.
    pub(crate) backlog: u32,
    /// What children inherit; shared with them until somebody changes it.
    pub(crate) options: Arc<TcpOptions>,
    /// Finished, not yet accepted; the oldest first.
    pub(crate) accept_queue: VecDeque<ConnectionId>,
    /// Half-open connections of this listener.
    pub(crate) syn_queue: u32,
    /// Of these, whose SYN-ACK was never repeated.
    pub(crate) young: u32,
    /// The last time the SYN queue was full (for SYN cookies).
    pub(crate) overflowed: Option<Instant>,
    pub(crate) fast_open: FastOpenQueue,
    /// An accept-any listener.
    pub(crate) any: Option<Any>,
    pub(crate) has_event: bool,
    pub(crate) cookie: u64,
    pub(crate) since: Instant,
}

/// What an accept-any listener has besides.
#[derive(Debug)]
pub(crate) struct Any {
    pub(crate) max_pending: u32,
    /// SYNs that wait for a decision or for the end of their handshake.
    pub(crate) pending: u32,
    /// SYNs not yet given to the application, the oldest first.
    pub(crate) undecided: VecDeque<PendingId>,
}

impl Listener {
    /// Linux `sk_acceptq_is_full`: "sk_ack_backlog > sk_max_ack_backlog", strictly.
    pub(crate) fn accept_queue_is_full(&self) -> bool {
        self.accept_queue.len() > self.backlog as usize
    }

    /// Linux `inet_csk_reqsk_queue_is_full`.
    pub(crate) fn syn_queue_is_full(&self) -> bool {
        self.syn_queue > self.backlog
    }

    pub(crate) fn syn_queue(&self) -> SynQueue {
        SynQueue { len: self.syn_queue, young: self.young, backlog: self.backlog }
    }

    /// A half-open connection of this listener is gone.
    pub(crate) fn half_open_gone(&mut self, half_open: &HalfOpen) {
        self.syn_queue = self.syn_queue.saturating_sub(1);
        self.young = self.young.saturating_sub(u32::from(half_open.timeouts == 0));
    }
}

/// All listeners.
#[derive(Debug)]
pub(crate) struct Listeners {
    all: Arena<Listener>,
    /// Several at one place share it by `SO_REUSEPORT`.
    places: HashMap<SocketAddr, Vec<ListenerId>, HashKey>,
    pub(crate) any: Option<ListenerId>,
}

impl Listeners {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self { all: Arena::new(), places: HashMap::with_hasher(rng.key()), any: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.all.get(id.index, id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.all.get_mut(id.index, id.generation)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ListenerId, &Listener)> {
        self.all.iter().map(|(index, generation, listener)| (ListenerId { index, generation }, listener))
    }

    /// Who gets a SYN for `destination`: the exact address before any address before accept-any. `hash` chooses in a group.
    #[inline]
    pub(crate) fn find(&self, destination: SocketAddr, hash: u64) -> Option<ListenerId> {
        if self.places.is_empty() {
            return self.any;
        }
        let port = destination.port();
        let any_v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        let any_v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        let wildcard = if destination.is_ipv4() { any_v4 } else { any_v6 };
        // Linux: a wildcard IPv6 listener takes IPv4 too (`bindv6only` 0).
        let group = [destination, wildcard, any_v6].iter().find_map(|place| self.places.get(place));
        match group {
            Some(group) => {
                let n = ((hash & 0xffff_ffff) * group.len() as u64) >> 32;
                group.get(n as usize).copied()
            }
            None => self.any,
        }
    }

    fn add(&mut self, listener: Listener) -> ListenerId {
        let (local, is_any) = (listener.local, listener.any.is_some());
        let (index, generation) = self.all.insert(listener);
        let id = ListenerId { index, generation };
        if is_any {
            self.any = Some(id);
        } else {
            self.places.entry(local).or_default().push(id);
        }
        id
    }

    fn remove(&mut self, id: ListenerId) -> Option<Listener> {
        let listener = self.all.remove(id.index, id.generation)?;
        if listener.any.is_some() {
            self.any = None;
        } else if let Some(group) = self.places.get_mut(&listener.local) {
            group.retain(|other| *other != id);
            if group.is_empty() {
                self.places.remove(&listener.local);
            }
        }
        Some(listener)
    }

    /// True when a listener stands in the way of `local` (Linux: LISTEN shares with nobody but its `SO_REUSEPORT` group).
    pub(crate) fn conflict(&self, local: SocketAddr, reuseport: bool) -> bool {
        self.all.iter().any(|(_, _, other)| {
            other.any.is_none()
                && other.local.port() == local.port()
                && overlap(other.local.ip(), local.ip())
                && !(reuseport && other.options.reuseport)
        })
    }
}

/// Two local addresses that one packet could reach both of.
pub(crate) fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let dual = |ip: IpAddr| ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    a == b || dual(a) || dual(b) || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
}

impl Stack {
    pub(crate) fn listen_on(
        &mut self,
        now: Instant,
        options: ListenOptions,
    ) -> Result<ListenerId, ListenError> {
        let ListenOptions { mut local, backlog, options } = options;
        if !local.ip().is_unspecified() && !self.link.accepts(local.ip()) {
            return Err(ListenError::AddrNotAvailable);
        }
        if local.port() == 0 {
            let range = self.world.sysctl.ip_local_port_range;
            let port = self.ports.choose_for_bind(range, options.reuseaddr, |_| true);
            local.set_port(port.ok_or(ListenError::AddrInUse)?);
        } else if self.bind_conflict(local, &options) {
            return Err(ListenError::AddrInUse);
        }
        let backlog = backlog.min(self.world.sysctl.somaxconn);
        Ok(self.add_listener(now, local, backlog, options, None))
    }

    pub(crate) fn listen_on_any(
        &mut self,
        now: Instant,
        options: AnyOptions,
    ) -> Result<ListenerId, ListenError> {
        if self.listeners.any.is_some() {
            return Err(ListenError::AddrInUse);
        }
        let any = Any { max_pending: options.max_pending, pending: 0, undecided: VecDeque::new() };
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Ok(self.add_listener(now, nowhere, options.max_pending, options.options, Some(any)))
    }

    fn add_listener(
        &mut self,
        now: Instant,
        local: SocketAddr,
        backlog: u32,
        mut options: TcpOptions,
        any: Option<Any>,
    ) -> ListenerId {
        // Linux __inet_listen_sk().
        let always = self.world.sysctl.tcp_fastopen & (SERVER | SERVER_ALWAYS) == SERVER | SERVER_ALWAYS;
        if always && any.is_none() && options.fast_open_queue == 0 {
            options.fast_open_queue = backlog;
        }
        options.fast_open_queue = options.fast_open_queue.min(self.world.sysctl.somaxconn);
        if any.is_none() {
            self.ports.acquire(local.port(), Use { reuseaddr: options.reuseaddr, bound: true });
        }
        self.listeners.add(Listener {
            local,
            backlog,
            options: Arc::new(options),
            accept_queue: VecDeque::new(),
            syn_queue: 0,
            young: 0,
            overflowed: None,
            fast_open: FastOpenQueue::default(),
            any,
            has_event: false,
            cookie: self.sockets.new_cookie(),
            since: now,
        })
    }

    /// Linux `inet_bind_conflict`: may a new socket not take `local`?
    pub(crate) fn bind_conflict(&self, local: SocketAddr, options: &TcpOptions) -> bool {
        let (port, ip) = (local.port(), local.ip());
        if self.ports.is_bound(port) && self.listeners.conflict(local, options.reuseport) {
            return true;
        }
        if !self.ports.may_conflict(port, options.reuseaddr) {
            return false;
        }
        // Somebody on this port objects, if the addresses overlap: only now is it worth a look at each.
        let objects = |tuple: &FourTuple, reuseaddr: bool, reuseport: bool| {
            tuple.local.port() == port
                && overlap(tuple.local.ip(), ip)
                && !(options.reuseaddr && reuseaddr)
                && !(options.reuseport && reuseport)
        };
        self.sockets.connections().any(|(_, socket)| {
            let reuseport = socket.connection.options().reuseport;
            socket.in_table && objects(socket.connection.tuple(), socket.port.reuseaddr, reuseport)
        }) || self
            .sockets
            .time_waits()
            .any(|(tuple, _, _, marks)| objects(&tuple, marks.reuseaddr, marks.reuseport))
    }

    pub(crate) fn stop_listening(&mut self, now: Instant, id: ListenerId) {
        let Some(listener) = self.listeners.remove(id) else { return };
        if listener.has_event {
            self.leaves_notice();
        }
        if listener.any.is_none() {
            self.ports
                .release(listener.local.port(), Use { reuseaddr: listener.options.reuseaddr, bound: true });
        } else {
            self.forget_pending_of(id);
        }
        // Half-open ones stop: their timers and segments find no listener. Linux: inet_csk_listen_stop().
        for child in listener.accept_queue {
            let Some(socket) = self.sockets.connection_mut(child) else { continue };
            let disposition = socket.connection.abort_unaccepted(&mut self.world.cx(now));
            socket.holder = Holder::Nobody;
            self.settle(now, child, disposition);
        }
    }

    pub(crate) fn accept_from(&mut self, id: ListenerId) -> Result<ConnectionId, AcceptError> {
        let listener = self.listeners.get_mut(id).ok_or(AcceptError::NoSuchListener)?;
        let child = listener.accept_queue.pop_front().ok_or(AcceptError::WouldBlock)?;
        if let Some(socket) = self.sockets.connection_mut(child) {
            socket.holder = Holder::App;
            socket.connection.on_accepted();
        }
        self.tell_connection(child, Readiness::default());
        Ok(child)
    }

    pub(crate) fn change_listener(&mut self, id: ListenerId, option: TcpOption) -> Result<(), OptionError> {
        let sysctl = &self.world.sysctl;
        let listener = self.listeners.get_mut(id).ok_or(OptionError::NoSuchSocket)?;
        let options = Arc::make_mut(&mut listener.options);
        options.set(option, sysctl.rmem_max, sysctl.wmem_max)?;
        options.fast_open_queue = options.fast_open_queue.min(sysctl.somaxconn);
        Ok(())
    }

    /// A SYN for a listener (Linux `tcp_conn_request`). `iss` is given when the SYN takes over a TIME-WAIT pair.
    pub(crate) fn on_syn(
        &mut self,
        now: Instant,
        id: ListenerId,
        packed: &Packed,
        tuple: &FourTuple,
        arrival: Arrival<'_>,
        iss: Option<SeqNum>,
    ) {
        let syn = arrival.segment;
        let Some(listener) = self.listeners.get_mut(id) else { return };
        let sysctl = &self.world.sysctl;
        let (mut cookie_mode, mut refused) = (false, None);
        if iss.is_none() && (sysctl.tcp_syncookies == 2 || listener.syn_queue_is_full()) {
            if sysctl.tcp_syncookies == 0 {
                self.world.counters.tcp_req_q_full_drop += 1;
                refused = Some(DropReason::SynQueueFull);
            } else {
                self.world.counters.tcp_req_q_full_do_cookies += 1;
                listener.overflowed = Some(now);
                cookie_mode = true;
            }
        }
        if refused.is_none() && listener.accept_queue_is_full() {
            self.world.counters.listen_overflows += 1;
            refused = Some(DropReason::ListenOverflow);
        }
        if refused.is_none() && !cookie_mode && iss.is_none() && sysctl.tcp_syncookies == 0 {
            // Linux: "Without syncookies last quarter of backlog is filled with destinations, proven to be alive."
            let most = sysctl.tcp_max_syn_backlog.cast_signed();
            let left = most.wrapping_sub(listener.syn_queue.cast_signed());
            let proven = self.world.metrics.is_proven(tuple, now);
            if left < most >> 2 && !proven {
                refused = Some(DropReason::SynQueueFull);
            }
        }
        if refused.is_none() && !cookie_mode && self.is_full() {
            refused = Some(DropReason::ConnectionLimit);
        }
        if let Some(reason) = refused {
            self.world.counters.listen_drops += 1;
            self.world.cx(now).drop_segment(0, tuple, reason);
            return;
        }
        if cookie_mode {
            self.send_syn_cookie(now, id, packed, tuple, syn);
            return;
        }
        let iss = iss.unwrap_or_else(|| self.isn.iss(packed, now));
        let Some(mut half_open) = self.new_half_open(now, id, packed, tuple, syn, iss) else { return };
        let fast_open = match self.judge_fast_open(now, id, tuple, syn) {
            Judgement::Child(answer) => return self.open_fast(now, id, half_open, tuple, arrival, answer),
            Judgement::Ordinary(answer) => answer,
        };
        let cookie = self.sockets.new_cookie();
        self.save_syn(id, cookie, arrival);
        let Some(listener) = self.listeners.get_mut(id) else { return };
        half_open.send_syn_ack(tuple, &listener.options, fast_open, &mut self.world.cx(now));
        listener.syn_queue += 1;
        listener.young += 1;
        let deadline = half_open.deadline;
        let key = self.sockets.add_half_open(*packed, half_open, cookie, id, NOT_PENDING);
        self.sockets.deadlines.file(key, deadline);
    }

    /// A half-open connection for a SYN, with the listener's options and our announced segment size.
    pub(crate) fn new_half_open(
        &mut self,
        now: Instant,
        id: ListenerId,
        packed: &Packed,
        tuple: &FourTuple,
        syn: &Segment,
        iss: SeqNum,
    ) -> Option<HalfOpen> {
        let ts_offset = self.isn.ts_offset(packed, self.world.sysctl.tcp_timestamps);
        let advmss = self.advmss(now, tuple.remote.ip());
        let missing = default_mss(tuple.remote.ip());
        let options = &self.listeners.get(id)?.options;
        Some(HalfOpen::new(syn, iss, ts_offset, advmss, missing, options, &self.world.cx(now)))
    }

    /// What we announce: the link's packet size without the fixed headers.
    pub(crate) fn advmss(&self, now: Instant, remote: IpAddr) -> u16 {
        let headers = if remote.is_ipv4() { 40 } else { 60 };
        u16::try_from(self.link.mtu_for(now, remote).saturating_sub(headers)).unwrap_or(u16::MAX)
    }

    /// What is settled before a half-open connection becomes a connection.
    pub(crate) fn child_setup(
        &self,
        now: Instant,
        half_open: &HalfOpen,
        cookie: u64,
        tuple: &FourTuple,
    ) -> ConnectionSetup {
        ConnectionSetup {
            tuple: *tuple,
            cookie,
            iss: half_open.iss,
            // The half-open connection hands its timestamps over.
            ts_offset: 0,
            ts_recent: 0,
            mtu: self.link.mtu_for(now, tuple.remote.ip()),
            gso_max_segs: self.link.gso_max_segs,
            gso_max_size: self.link.gso_max_size,
        }
    }

    /// A finished half-open connection becomes a connection, which takes the segment that finished it (`answer`).
    pub(crate) fn child(
        &mut self,
        now: Instant,
        id: ListenerId,
        setup: &ConnectionSetup,
        half_open: &HalfOpen,
        answer: &SegmentHeader,
        holder: Holder,
    ) -> Option<ConnectionId> {
        let options = Arc::clone(&self.listeners.get(id)?.options);
        let port = Use { reuseaddr: options.reuseaddr, bound: false };
        let mut connection =
            Connection::from_half_open(setup, half_open, Some(answer), options, &mut self.world.cx(now));
        if holder == Holder::App {
            connection.on_accepted();
        }
        self.ports.acquire(setup.tuple.local.port(), port);
        Some(self.sockets.add_connection(Box::new(connection), holder, port))
    }

    /// Puts a child into its listener's accept queue and says so.
    pub(crate) fn enqueue_child(&mut self, id: ListenerId, child: ConnectionId) {
        let Some(listener) = self.listeners.get_mut(id) else { return };
        listener.accept_queue.push_back(child);
        if !core::mem::replace(&mut listener.has_event, true) {
            self.notices.push(Notice::Listener(id));
        }
    }
}
