//! The stack: one door, four families of methods.
//!
//! Owns:    every part; this file is the door, the rooms are its modules.
//! Input:   packets, time, commands. Output: packets, events, snapshots.
//!
//! In reading order: `ingress` (a packet to its socket) with `demux`, `sockets`, `listeners`, `pending`, `cookies`; `connect`
//! with `ports` and `isn`; `settle` (what follows after a connection was called) with `notices`, `epilogue` and `deadlines`; `timeouts`;
//! `egress` with `outbox`; `control` and `rows`; `link` and `world` are what all of them share, `vocabulary` what callers say and are told.

mod connect;
mod control;
mod cookies;
pub(crate) mod deadlines;
pub(crate) mod demux;
mod egress;
mod epilogue;
mod fast_open;
mod ingress;
mod isn;
#[cfg(test)]
mod limits_tests;
mod link;
pub(crate) mod listeners;
mod notices;
mod outbox;
mod pending;
mod ports;
mod rows;
mod saved_syns;
mod settle;
pub(crate) mod slab;
mod sockets;
#[cfg(test)]
mod tests;
mod timeouts;
mod tuple;
mod vocabulary;
mod world;

use core::net::SocketAddr;
use std::collections::VecDeque;

use bytes::Bytes;

use crate::error::{
    AcceptError, ConnectError, ListenError, OptionError, QueuedError, RecvError, RecvOobError, SendError,
    SocketError, UdpError,
};
use crate::id::{ConnectionId, FourTuple, ListenerId, PendingId, UdpId};
use crate::observe::{Counters, Event, EventMask, Gauges, Life, SocketRow, TcpInfo};
pub use crate::ping::Ping;
use crate::ping::Pings;
use crate::rng::Rng;
use crate::stack::cookies::Cookies;
use crate::stack::epilogue::Epilogues;
use crate::stack::isn::Isn;
use crate::stack::link::Link;
use crate::stack::listeners::Listeners;
use crate::stack::notices::Notices;
use crate::stack::outbox::Outbox;
use crate::stack::pending::PendingEntry;
use crate::stack::ports::Ports;
use crate::stack::slab::Arena;
use crate::stack::sockets::{ConnectionSocket, Holder, Sockets};
use crate::stack::world::World;
use crate::sysctl::{Sysctl, names};
use crate::tcp::connection::Disposition;
use crate::tcp::context::Cx;
use crate::tcp::fast_open::FastOpenKeys;
use crate::tcp::options::{TcpOption, TcpOptions};
use crate::tcp::state::TcpState;
use crate::time::Instant;
use crate::udp::UdpSockets;
use crate::wire::transmit::{RxMeta, Transmit};

pub use vocabulary::{
    AnyOptions, Config, Datagram, Gone, KillTarget, ListenOptions, PendingSyn, Readiness, Shutdown,
    SocketEvent, SysctlError, Unreachable,
};

/// A TCP/IP stack: a pure function of packets, commands and time.
///
/// Call after every `handle_*` and every command, until it gives nothing: 1. [`Stack::poll_transmit`]
/// 2. [`Stack::poll_event`]; then wait until [`Stack::poll_timeout`], the next packet or the next command.
///
/// # Example
/// Two stacks, connected by hand; [`crate::sim`] does this with a wire between them.
/// ```
/// use lastack_core::stack::ListenOptions;
/// use lastack_core::time::Instant;
/// use lastack_core::tcp::options::TcpOptions;
/// use lastack_core::tcp::state::TcpState;
/// use lastack_core::wire::transmit::{RxMeta, Transmit};
/// use lastack_core::{Config, Stack};
///
/// let now = Instant::ZERO;
/// let stack = |n| Stack::new(Config { addresses: vec![([10, 0, 0, n].into(), 24)], ..Config::default() }, now);
/// let (mut client, mut server) = (stack(1), stack(2));
/// let listener = server.listen(now, ListenOptions::new(([10, 0, 0, 2], 80).into())).unwrap();
/// let id = client.connect(now, ([10, 0, 0, 2], 80).into(), None, TcpOptions::default()).unwrap();
///
/// let mut packet = Transmit::default();
/// let mut carry = |from: &mut Stack, to: &mut Stack| {
///     while from.poll_transmit(now, &mut packet) {
///         packet.finish_checksum();
///         to.handle_packet(now, packet.to_vec().into(), RxMeta::default());
///     }
/// };
/// for _ in 0..3 {
///     carry(&mut client, &mut server);
///     carry(&mut server, &mut client);
/// }
/// assert_eq!(client.state(id), Some(TcpState::Established));
/// assert!(server.accept(now, listener).is_ok());
/// ```
pub struct Stack {
    world: World,
    link: Link,
    sockets: Sockets,
    listeners: Listeners,
    pending: Arena<PendingEntry>,
    ports: Ports,
    isn: Isn,
    cookies: Cookies,
    /// Of Fast Open cookies, where nobody chose one.
    fast_open_secret: FastOpenKeys,
    udp: UdpSockets,
    pings: Pings,
    outbox: Outbox,
    /// Connections that owe a segment, in the order in which they are served.
    owing: VecDeque<ConnectionId>,
    notices: Notices,
    epilogues: Epilogues,
    max_connections: u32,
}

impl core::fmt::Debug for Stack {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Stack")
            .field("listeners", &self.listeners.len())
            .field("connections", &self.sockets.connection_count())
            .field("half_open", &self.sockets.half_open_count())
            .field("time_wait", &self.sockets.time_wait_count())
            .finish_non_exhaustive()
    }
}

impl Stack {
    /// A stack that begins at `now`.
    pub fn new(config: Config, now: Instant) -> Self {
        let mut rng = Rng::new(&config.seed);
        let link = Link::new(&config, rng.next_u64() as u16, now);
        Self {
            sockets: Sockets::new(&mut rng, now),
            listeners: Listeners::new(&mut rng),
            pending: Arena::new(),
            ports: Ports::new(&mut rng),
            isn: Isn::new(&mut rng),
            cookies: Cookies::new(&mut rng),
            udp: UdpSockets::new(&mut rng),
            pings: Pings::default(),
            outbox: Outbox::default(),
            owing: VecDeque::new(),
            notices: Notices::default(),
            epilogues: Epilogues::new(),
            max_connections: config.max_connections,
            world: World::new(config.sysctl, config.event_limit, Rng::from_key(rng.key())),
            fast_open_secret: FastOpenKeys::secret(rng.next_u64(), rng.next_u64()),
            link,
        }
    }

    // ---- the world speaks

    /// One packet from the link, starting with the IP header.
    pub fn handle_packet(&mut self, now: Instant, packet: Bytes, meta: RxMeta) {
        self.on_packet(now, &packet, meta);
    }

    /// Time has come: call when [`Stack::poll_timeout`] is due. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.on_timeout(now);
    }

    /// The link's MTU changed.
    pub fn handle_link(&mut self, now: Instant, mtu: u32) {
        self.on_link(now, mtu);
    }

    // ---- what to do next

    /// The next packet to put on the link, into `out` (cleared first). False: nothing to send now.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        self.next_packet(now, out)
    }

    /// The next thing an application waits for.
    pub fn poll_event(&mut self) -> Option<SocketEvent> {
        self.next_event()
    }

    /// When [`Stack::handle_timeout`] must be called next; `None`: nothing waits for time.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_timeout()
    }

    /// The next recorded event of the groups asked for by [`Stack::observe`].
    pub fn poll_observed(&mut self) -> Option<Event> {
        self.world.events.pop()
    }

    // ---- the app speaks: TCP

    /// Listens.
    pub fn listen(&mut self, now: Instant, options: ListenOptions) -> Result<ListenerId, ListenError> {
        self.listen_on(now, options)
    }

    /// Listens on every destination and port that no other listener has; at most one such listener a stack.
    pub fn listen_any(&mut self, now: Instant, options: AnyOptions) -> Result<ListenerId, ListenError> {
        self.listen_on_any(now, options)
    }

    /// Stops listening: half-open ones are forgotten, finished but unaccepted ones are reset.
    pub fn close_listener(&mut self, now: Instant, id: ListenerId) {
        self.stop_listening(now, id);
    }

    /// Where a listener listens.
    pub fn listener_addr(&self, id: ListenerId) -> Option<SocketAddr> {
        self.listeners.get(id).map(|listener| listener.local)
    }

    /// The oldest finished connection.
    pub fn accept(&mut self, now: Instant, id: ListenerId) -> Result<ConnectionId, AcceptError> {
        let _ = now;
        self.accept_from(id)
    }

    /// The oldest SYN that waits for a decision and was not given yet.
    pub fn next_pending(&mut self, id: ListenerId) -> Option<PendingSyn> {
        self.next_undecided(id)
    }

    /// Answers a pending SYN with SYN-ACK. The end is told by [`SocketEvent::PendingDone`].
    pub fn pending_accept(&mut self, now: Instant, id: PendingId) -> Result<(), Gone> {
        self.accept_pending(now, id)
    }

    /// Answers a pending SYN with RST.
    pub fn pending_refuse(&mut self, now: Instant, id: PendingId) -> Result<(), Gone> {
        self.refuse_pending(now, id)
    }

    /// Answers a pending SYN with an ICMP error.
    pub fn pending_unreachable(&mut self, now: Instant, id: PendingId, why: Unreachable) -> Result<(), Gone> {
        self.answer_pending_unreachable(now, id, why)
    }

    /// Forgets a pending SYN without a word; a repeated SYN is pending anew.
    pub fn pending_drop(&mut self, now: Instant, id: PendingId) -> Result<(), Gone> {
        self.drop_pending(now, id)
    }

    /// Begins a connection to `remote`. `local`: address and port to use; `None` or port 0 chooses (RFC 6056).
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        options: TcpOptions,
    ) -> Result<ConnectionId, ConnectError> {
        self.connect_with(now, remote, local, options, None).map(|(id, _)| id)
    }

    /// Begins a connection with Fast Open (RFC 7413; Linux `sendto` with `MSG_FASTOPEN`): the SYN asks for a cookie, or brings the
    /// one that is known and as much of `data` as fits, at most the peer's segment size less 40 bytes. How much of `data` was
    /// taken is told; the rest is to be sent when the connection is writable. `more`: it will be, at once, so that the ACK of the
    /// handshake waits for it. With `tcp_fastopen` bit 1 off it is as [`Stack::connect`].
    ///
    /// Data in a SYN may reach the peer's application twice.
    pub fn connect_fast(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        options: TcpOptions,
        data: &[u8],
        more: bool,
    ) -> Result<(ConnectionId, usize), ConnectError> {
        self.connect_with(now, remote, local, options, Some((data, more)))
    }

    /// A SYN to `remote` could bring data: its cookie is known, or none is asked for.
    pub fn can_connect_fast(
        &self,
        now: Instant,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        options: &TcpOptions,
    ) -> bool {
        self.may_send_syn_data(now, remote, local, options)
    }

    /// Queues at most as much of `data` as fits (copied). Returns how many bytes were taken.
    pub fn send(&mut self, now: Instant, id: ConnectionId, data: &[u8]) -> Result<usize, SendError> {
        self.command(now, id, |socket, cx| socket.connection.send(data, cx))
            .unwrap_or(Err(SendError::NotConnected))
    }

    /// As [`Stack::send`] with `MSG_MORE`: a partial segment waits for more, and is not marked with PSH.
    pub fn send_more(&mut self, now: Instant, id: ConnectionId, data: &[u8]) -> Result<usize, SendError> {
        self.command(now, id, |socket, cx| socket.connection.send_more(data, cx))
            .unwrap_or(Err(SendError::NotConnected))
    }

    /// Nothing follows what [`Stack::send_more`] wrote: what it holds back is sent as if written by [`Stack::send`] (Linux
    /// `tcp_splice_eof`). Nothing happens where nothing is held.
    pub fn push(&mut self, now: Instant, id: ConnectionId) {
        self.command(now, id, |socket, _| socket.connection.push());
    }

    /// As [`Stack::send`] with `MSG_EOR`: where all of `data` is taken, a record ends with it, and no segment holds bytes of
    /// two records.
    pub fn send_record(&mut self, now: Instant, id: ConnectionId, data: &[u8]) -> Result<usize, SendError> {
        self.command(now, id, |socket, cx| socket.connection.send_record(data, cx))
            .unwrap_or(Err(SendError::NotConnected))
    }

    /// Queues `data` without copying it. Takes all of it whenever there is room for one byte, so that a chunk
    /// is never split: the queue may be over its limit by one chunk.
    pub fn send_bytes(&mut self, now: Instant, id: ConnectionId, data: Bytes) -> Result<(), SendError> {
        self.command(now, id, |socket, cx| socket.connection.send_bytes(data, cx))
            .unwrap_or(Err(SendError::NotConnected))
    }

    /// As [`Stack::send`]; the last byte taken is urgent (`MSG_OOB`).
    pub fn send_oob(&mut self, now: Instant, id: ConnectionId, data: &[u8]) -> Result<usize, SendError> {
        self.command(now, id, |socket, cx| socket.connection.send_oob(data, cx))
            .unwrap_or(Err(SendError::NotConnected))
    }

    /// The send buffer, bytes (Linux `sk_sndbuf`): what `SO_SNDBUF` reads; it grows by itself unless it was set.
    pub fn send_buffer(&self, id: ConnectionId) -> u32 {
        self.held(id).map_or(0, |socket| socket.connection.send_buffer())
    }

    /// Bytes that `send` would take now.
    pub fn send_space(&self, id: ConnectionId) -> usize {
        self.held(id).map_or(0, |socket| socket.connection.send_space())
    }

    /// Reads into `buf`. `Ok(0)`: end of file (or `buf` is empty).
    pub fn recv(&mut self, now: Instant, id: ConnectionId, buf: &mut [u8]) -> Result<usize, RecvError> {
        self.command(now, id, |socket, cx| socket.connection.recv(buf, cx))
            .unwrap_or(Err(RecvError::NotConnected))
    }

    /// As [`Stack::recv`], and everything stays (`MSG_PEEK`). An error is told once, as by `recv`.
    pub fn peek(&mut self, now: Instant, id: ConnectionId, buf: &mut [u8]) -> Result<usize, RecvError> {
        self.command(now, id, |socket, _| socket.connection.peek(buf)).unwrap_or(Err(RecvError::NotConnected))
    }

    /// Takes the urgent byte, apart from the stream (`MSG_OOB`); `peek` leaves it. `Ok(None)`: it will not come any more.
    pub fn recv_oob(&mut self, id: ConnectionId, peek: bool) -> Result<Option<u8>, RecvOobError> {
        self.sockets
            .connection_mut(id)
            .filter(|socket| socket.holder == Holder::App)
            .map_or(Err(RecvOobError::NotConnected), |socket| socket.connection.recv_oob(peek))
    }

    /// The stream is read up to the urgent byte (Linux `SIOCATMARK`).
    pub fn is_at_mark(&self, id: ConnectionId) -> bool {
        self.held(id).is_some_and(|socket| socket.connection.is_at_mark())
    }

    /// Takes at most `max` bytes of the oldest received slice without copying. `Ok(None)`: end of file.
    pub fn recv_chunk(
        &mut self,
        now: Instant,
        id: ConnectionId,
        max: usize,
    ) -> Result<Option<Bytes>, RecvError> {
        self.command(now, id, |socket, cx| socket.connection.recv_chunk(max, cx))
            .unwrap_or(Err(RecvError::NotConnected))
    }

    /// Bytes that wait to be read (Linux `SIOCINQ`).
    pub fn recv_available(&self, id: ConnectionId) -> usize {
        self.held(id).map_or(0, |socket| socket.connection.recv_available())
    }

    /// What is true of the connection now, whether told already or not.
    pub fn readiness(&self, id: ConnectionId) -> Readiness {
        self.held(id).map_or(Readiness::default(), |socket| socket.connection.readiness(&self.world.sysctl))
    }

    /// Ends one or both directions. `Err`: not connected (`ENOTCONN`).
    pub fn shutdown(&mut self, now: Instant, id: ConnectionId, how: Shutdown) -> Result<(), Gone> {
        let Self { sockets, world, .. } = self;
        let socket = sockets.connection_mut(id).filter(|socket| socket.holder == Holder::App).ok_or(Gone)?;
        let disposition = socket.connection.shutdown(how, &mut world.cx(now))?;
        self.settle(now, id, disposition);
        Ok(())
    }

    /// Lets go of a connection as Linux `close()` does: FIN; RST when data is unread or linger is zero. The id is dead afterwards.
    /// A linger time above zero is the caller's to wait out, before this call: `shutdown(Write)`, then `DRAINED`.
    pub fn close(&mut self, now: Instant, id: ConnectionId) {
        self.let_go(now, id, |socket, cx| socket.connection.close(cx));
    }

    /// Resets a connection and lets go of it, whatever is queued.
    pub fn abort(&mut self, now: Instant, id: ConnectionId) {
        self.let_go(now, id, |socket, cx| socket.connection.abort(cx));
    }

    /// Ends a connection as `connect(AF_UNSPEC)` does: a reset where the state needs one, and the id is dead.
    pub fn disconnect(&mut self, now: Instant, id: ConnectionId) {
        self.let_go(now, id, |socket, cx| socket.connection.disconnect(cx));
    }

    /// Forgets a connection without a word: no FIN, no RST, as a host that was rebooted. What comes for it later is
    /// answered as any segment without a socket is. The application learns it as an error, and still lets go.
    pub fn abandon(&mut self, now: Instant, id: ConnectionId) {
        let Self { sockets, world, .. } = self;
        let Some(socket) = sockets.connection_mut(id) else { return };
        let disposition = socket.connection.abandon(&mut world.cx(now));
        self.settle(now, id, disposition);
    }

    /// Advertises a window of 0, at once and until it is let go, whatever room there is; Linux does so while it has no
    /// memory for a connection (`ICSK_ACK_NOMEM`). What was offered before is still taken.
    pub fn hold_window(&mut self, now: Instant, id: ConnectionId, held: bool) {
        let Self { sockets, world, .. } = self;
        let Some(socket) = sockets.connection_mut(id) else { return };
        socket.connection.hold_window(held, &mut world.cx(now));
        self.refresh(now, id);
    }

    /// Takes the pending error (Linux `SO_ERROR`).
    pub fn take_error(&mut self, id: ConnectionId) -> Option<SocketError> {
        self.sockets.connection_mut(id).filter(|socket| socket.holder == Holder::App)?.connection.take_error()
    }

    /// Takes the ICMP error that ended the attempt to connect (Linux `MSG_ERRQUEUE`). [`Stack::take_error`] tells the same error; a
    /// program that reads this one on Linux is not told the other.
    pub fn take_queued_error(&mut self, id: ConnectionId) -> Option<QueuedError> {
        let socket = self.sockets.connection_mut(id).filter(|socket| socket.holder == Holder::App)?;
        socket.connection.take_queued_error()
    }

    /// The SYN that this connection was accepted with, as it came: from the IP header to the end of the TCP options (Linux
    /// `TCP_SAVED_SYN`). `None`: its listener kept none ([`TcpOptions::save_syn`]), a SYN cookie did away with it, or it was taken.
    ///
    /// # Example
    /// What kind of host is the client?
    /// ```
    /// use lastack_core::sim::Sim;
    /// use lastack_core::stack::ListenOptions;
    /// use lastack_core::tcp::options::TcpOptions;
    /// use lastack_core::wire::{self, Body, transmit::RxMeta};
    ///
    /// let (mut sim, client, server) = Sim::pair(1);
    /// let at = ([10, 0, 0, 2], 80).into();
    /// let options = TcpOptions { save_syn: 1, ..TcpOptions::default() };
    /// let now = sim.now();
    /// let listener = sim.stack(server).listen(now, ListenOptions { options, ..ListenOptions::new(at) }).unwrap();
    /// sim.stack(client).connect(now, at, None, TcpOptions::default()).unwrap();
    /// sim.drive();
    ///
    /// let now = sim.now();
    /// let id = sim.stack(server).accept(now, listener).unwrap();
    /// let syn = sim.stack(server).take_saved_syn(id).expect("the listener keeps them");
    /// let packet = wire::parse(&syn.into_vec().into(), RxMeta::default()).unwrap();
    /// let Body::Tcp(segment) = packet.body else { unreachable!("a SYN") };
    /// assert_eq!((packet.ip.ttl, segment.header.options.mss), (64, Some(1460)));
    /// assert!(segment.header.options.sack_permitted && segment.header.flags.syn());
    /// ```
    pub fn saved_syn(&self, id: ConnectionId) -> Option<&[u8]> {
        self.saved_syn_of(id)
    }

    /// As [`Stack::saved_syn`], and its memory is free.
    pub fn take_saved_syn(&mut self, id: ConnectionId) -> Option<Box<[u8]>> {
        self.take_saved_syn_of(id)
    }

    /// Sets an option on a connection.
    pub fn set_option(
        &mut self,
        now: Instant,
        id: ConnectionId,
        option: TcpOption,
    ) -> Result<(), OptionError> {
        self.command(now, id, |socket, cx| socket.connection.set_option(option, cx))
            .unwrap_or(Err(OptionError::NoSuchSocket))
    }

    /// Sets an option on a listener, for children to come.
    pub fn set_listener_option(&mut self, id: ListenerId, option: TcpOption) -> Result<(), OptionError> {
        self.change_listener(id, option)
    }

    /// The options of a listener.
    pub fn listener_options(&self, id: ListenerId) -> Option<&TcpOptions> {
        Some(&*self.listeners.get(id)?.options)
    }

    /// The options of a connection.
    pub fn options(&self, id: ConnectionId) -> Option<&TcpOptions> {
        Some(self.held(id)?.connection.options())
    }

    /// Receive and send buffer as they are now, bytes (`SO_RCVBUF` and `SO_SNDBUF` read back).
    pub fn buffers(&self, id: ConnectionId) -> Option<(u32, u32)> {
        Some(self.held(id)?.connection.buffers())
    }

    /// Most that the connection's window may be, bytes (`TCP_WINDOW_CLAMP` read back).
    pub fn window_clamp(&self, id: ConnectionId) -> Option<u32> {
        Some(self.held(id)?.connection.window_clamp())
    }

    /// The largest window the peer has offered, bytes (Linux `max_window`).
    pub fn max_window(&self, id: ConnectionId) -> Option<u32> {
        Some(self.held(id)?.connection.max_window())
    }

    /// The connection's timestamp clock (`TCP_TIMESTAMP` read back), milliseconds with the pair's offset.
    pub fn timestamp(&self, now: Instant, id: ConnectionId) -> Option<u32> {
        Some(self.held(id)?.connection.timestamp(now))
    }

    /// `TCP_QUICKACK` as it reads back: the connection is not in ping-pong mode, its ACKs do not wait for replies.
    pub fn is_quickack(&self, id: ConnectionId) -> Option<bool> {
        Some(self.held(id)?.connection.is_quickack(self.world.sysctl.tcp_pingpong_thresh))
    }

    // ---- the app speaks: UDP

    /// Binds a UDP socket; an unspecified address takes all of the stack's, port 0 chooses one.
    pub fn udp_bind(&mut self, now: Instant, local: SocketAddr) -> Result<UdpId, UdpError> {
        let _ = now;
        self.bind_udp(local)
    }

    /// Takes every datagram that no other socket wants, whatever its destination; at most one such socket a stack.
    pub fn udp_bind_any(&mut self, now: Instant) -> Result<UdpId, UdpError> {
        let _ = now;
        self.udp.bind_any()
    }

    /// Sends one datagram. `from`: source address and port (for [`Stack::udp_bind_any`]); `None`: the socket's own.
    pub fn udp_send(
        &mut self,
        now: Instant,
        id: UdpId,
        from: Option<SocketAddr>,
        to: SocketAddr,
        data: Bytes,
    ) -> Result<(), UdpError> {
        let _ = now;
        self.send_datagram(id, from, to, data)
    }

    /// The oldest datagram: who sent it, where it was sent to, and its bytes.
    pub fn udp_recv(&mut self, now: Instant, id: UdpId) -> Result<Datagram, UdpError> {
        let _ = now;
        self.udp.receive(id)
    }

    /// Answers a datagram received by [`Stack::udp_bind_any`] with ICMP unreachable.
    pub fn udp_unreachable(&mut self, now: Instant, datagram: &Datagram, why: Unreachable) {
        self.answer_datagram_unreachable(now, datagram, why);
    }

    /// Lets go of a UDP socket.
    pub fn udp_close(&mut self, id: UdpId) {
        if self.udp.close(id) {
            self.leaves_notice();
        }
    }

    /// Where a UDP socket is bound.
    pub fn udp_addr(&self, id: UdpId) -> Option<SocketAddr> {
        self.udp.local(id)
    }

    // ---- the app speaks: pings

    /// Pings of addresses that are not the stack's own wait for [`Stack::next_ping`] from now on, or (false) get no answer
    /// any more, as in the beginning. False: somebody takes them already.
    pub fn take_pings(&mut self, take: bool) -> bool {
        self.pings.take(take)
    }

    /// The oldest ping.
    pub fn next_ping(&mut self) -> Option<Ping> {
        self.pings.pop()
    }

    /// Answers a ping as who was pinged would.
    pub fn ping_reply(&mut self, ping: &Ping) {
        self.answer_ping(ping);
    }

    /// Answers a ping with an ICMP error.
    pub fn ping_unreachable(&mut self, now: Instant, ping: &Ping, why: Unreachable) {
        self.answer_ping_unreachable(now, ping, why);
    }

    // ---- look, change nothing

    /// State of a connection an application holds.
    pub fn state(&self, id: ConnectionId) -> Option<TcpState> {
        Some(self.held(id)?.connection.state())
    }

    /// Both ends of a connection.
    pub fn tuple(&self, id: ConnectionId) -> Option<FourTuple> {
        Some(*self.held(id)?.connection.tuple())
    }

    /// The connection's cookie, the same from SYN to the end of TIME-WAIT.
    pub fn cookie(&self, id: ConnectionId) -> Option<u64> {
        Some(self.held(id)?.connection.cookie())
    }

    /// The record of a connection's life so far.
    pub fn life(&self, id: ConnectionId) -> Option<Life> {
        Some(self.held(id)?.connection.life())
    }

    /// Everything Linux's `TCP_INFO` says.
    pub fn tcp_info(&self, now: Instant, id: ConnectionId) -> Option<TcpInfo> {
        Some(self.held(id)?.connection.info(now))
    }

    /// A row for every socket: listeners, connections (orphans too), half-open ones, TIME-WAIT; in a stable order.
    pub fn sockets(&self, now: Instant) -> impl Iterator<Item = SocketRow> + '_ {
        self.rows(now)
    }

    /// How many sockets of all kinds there are.
    pub fn socket_count(&self) -> usize {
        self.row_count()
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.world.counters
    }

    /// What is in use now, beside the sockets themselves: what Linux has in `/proc/net/sockstat`.
    pub fn gauges(&self) -> Gauges {
        let limits = &self.world.limits;
        Gauges { orphans: limits.orphans.into(), queued_bytes: limits.queued_bytes }
    }

    /// The settings.
    pub fn sysctl(&self) -> &Sysctl {
        &self.world.sysctl
    }

    // ---- control

    /// Chooses which groups of events [`Stack::poll_observed`] gives.
    pub fn observe(&mut self, mask: EventMask) {
        self.world.events.set_mask(mask);
    }

    /// Events that did not fit.
    pub fn events_lost(&self) -> u64 {
        self.world.events.lost()
    }

    /// Ends a connection in any state, as Linux `SOCK_DESTROY` does: RST where the state has a peer to tell, `ECONNABORTED` for the owner.
    pub fn kill(&mut self, now: Instant, target: KillTarget) -> Result<TcpState, Gone> {
        self.end(now, target)
    }

    /// Reads a setting by Linux's name (`net.ipv4.` and `net.core.` may be left off), as `/proc/sys` prints it.
    pub fn sysctl_get(&self, name: &str) -> Result<String, SysctlError> {
        names::get(&self.world.sysctl, name)
    }

    /// Writes a setting by Linux's name, with Linux's units, ranges and errors.
    pub fn sysctl_set(&mut self, name: &str, value: &str) -> Result<(), SysctlError> {
        names::set(&mut self.world.sysctl, name, value)?;
        // Linux proc_tfo_blackhole_detect_timeout().
        if name.ends_with("tcp_fastopen_blackhole_timeout_sec") {
            self.world.limits.fast_open_pause.forget();
        }
        Ok(())
    }

    // ---- inside

    /// A connection that an application holds; its id is dead once it let go.
    fn held(&self, id: ConnectionId) -> Option<&ConnectionSocket> {
        self.sockets.connection(id).filter(|socket| socket.holder == Holder::App)
    }

    /// A command of the application that does not end the connection.
    fn command<T>(
        &mut self,
        now: Instant,
        id: ConnectionId,
        call: impl FnOnce(&mut ConnectionSocket, &mut Cx<'_>) -> T,
    ) -> Option<T> {
        let Self { sockets, world, .. } = self;
        let socket = sockets.connection_mut(id).filter(|socket| socket.holder == Holder::App)?;
        let answer = call(socket, &mut world.cx(now));
        self.refresh(now, id);
        Some(answer)
    }

    /// The application lets go of a connection.
    fn let_go(
        &mut self,
        now: Instant,
        id: ConnectionId,
        call: impl FnOnce(&mut ConnectionSocket, &mut Cx<'_>) -> Disposition,
    ) {
        let Self { sockets, world, .. } = self;
        let Some(socket) = sockets.connection_mut(id).filter(|socket| socket.holder == Holder::App) else {
            return;
        };
        let disposition = call(socket, &mut world.cx(now));
        socket.holder = Holder::Nobody;
        self.settle(now, id, disposition);
    }
}
