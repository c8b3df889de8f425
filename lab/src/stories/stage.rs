//! The stage: two hosts, the wire between them, a clock, and the calls a story may make.
//!
//! Owns:    time. With two stacks it is virtual and jumps to the next thing that happens; with Linux it is real.
//! Input:   a story's steps.
//! Output:  a [`Record`].
//! Not here: what is read out of packets and tables (`watch`), what happens to packets (`wire`).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use lastack_core::observe::SocketRow;
use lastack_core::tcp::state::TcpState;

use super::Side;
use super::host::Host;
use super::record::{Left, Moment, Record, What};
use super::watch::Watch;
use super::wire::Wire;
use super::words::{Text, count};
use crate::packet::WirePacket;
use crate::script::symbols;
use crate::sys;
use crate::target::{Call, Fd, OptionValue, Outcome, Output, TargetError, Via};

/// What a story's step gives; an error is the lab's, not the story's.
pub type Told<T> = Result<T, TargetError>;

/// Virtual time begins here, so that "long ago" exists.
const START: Duration = Duration::from_secs(1000);
/// One way, so that a round trip takes 20 ms.
const DELAY: Duration = Duration::from_millis(10);
/// Linux's socket table is looked at so often when nothing else happens.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The largest write of an application.
const CHUNK: usize = 64 * 1024;

/// Counters that tell how connections lived. Those that only count traffic are left out.
const COUNTERS: &[&str] = &[
    "TcpActiveOpens",
    "TcpPassiveOpens",
    "TcpAttemptFails",
    "TcpEstabResets",
    "TcpRetransSegs",
    "TcpOutRsts",
    "TcpExtSyncookiesSent",
    "TcpExtSyncookiesRecv",
    "TcpExtSyncookiesFailed",
    "TcpExtEmbryonicRsts",
    "TcpExtTW",
    "TcpExtTWRecycled",
    "TcpExtTWKilled",
    "TcpExtListenOverflows",
    "TcpExtListenDrops",
    "TcpExtTCPTimeouts",
    "TcpExtTCPLossProbes",
    "TcpExtTCPSynRetrans",
    "TcpExtTCPFastRetrans",
    "TcpExtTCPSackRecovery",
    "TcpExtTCPAbortOnData",
    "TcpExtTCPAbortOnClose",
    "TcpExtTCPAbortOnMemory",
    "TcpExtTCPAbortOnTimeout",
    "TcpExtTCPAbortOnLinger",
    "TcpExtTCPMemoryPressures",
    "TcpExtTCPTimeWaitOverflow",
    "TcpExtTCPReqQFullDoCookies",
    "TcpExtTCPReqQFullDrop",
    "TcpExtTCPFromZeroWindowAdv",
    "TcpExtTCPToZeroWindowAdv",
    "TcpExtTCPWinProbe",
    "TcpExtTCPKeepAlive",
    "TcpExtTCPOFOQueue",
];

/// An application's socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Socket {
    side: Side,
    fd: Fd,
    /// The connection; `None` for a listener, and where none was begun.
    flow: Option<usize>,
}

/// When a call began, and what had been noticed by then.
#[derive(Clone, Copy, Debug)]
struct Cue {
    at: Duration,
    place: usize,
}

/// The two hosts of a story and all that is between them.
#[derive(Debug)]
pub struct Stage<'k> {
    hosts: [Host<'k>; 2],
    wire: Wire,
    watch: Watch,
    is_real: bool,
    /// The story is told shortened, for real time.
    short: bool,
    now: Duration,
    origin: Duration,
    counters: [Vec<u64>; 2],
}

impl<'k> Stage<'k> {
    /// Two stacks of ours in virtual time.
    pub(super) fn virtual_time(short: bool) -> Self {
        let host = |side: Side, seed| Host::stack(side.address(), seed, START);
        Self::new([host(Side::Client, 1), host(Side::Server, 2)], START, short, false)
    }

    /// Linux on `taught`'s side, a stack of ours on the other, in real time.
    pub(super) fn with_kernel(kernel: Host<'k>, taught: Side, short: bool) -> Self {
        let start = sys::now();
        let ours = Host::stack(taught.other().address(), 1, start);
        let hosts = if taught == Side::Client { [kernel, ours] } else { [ours, kernel] };
        Self::new(hosts, start, short, true)
    }

    fn new(mut hosts: [Host<'k>; 2], now: Duration, short: bool, is_real: bool) -> Self {
        let counters = [hosts[0].counters(COUNTERS), hosts[1].counters(COUNTERS)];
        let wire = Wire::new(DELAY);
        Self { hosts, wire, watch: Watch::default(), is_real, short, now, origin: now, counters }
    }

    /// The end: what was recorded.
    pub(super) fn finish(mut self) -> Told<Record> {
        self.collect()?;
        self.look()?;
        let mut record = Record {
            moments: Vec::new(),
            flows: Vec::new(),
            counters: Default::default(),
            left: Default::default(),
            end: self.elapsed(),
        };
        for side in Side::BOTH {
            let now = self.hosts[side as usize].counters(COUNTERS);
            let moved = COUNTERS.iter().zip(now).zip(&self.counters[side as usize]);
            record.counters[side as usize] = moved
                .filter(|((_, now), before)| now > before)
                .map(|((name, now), before)| ((*name).to_owned(), now - before))
                .collect();
            let rows = self.rows(side)?;
            record.left[side as usize] =
                self.watch.connections(side, &rows).map(|(flow, row)| Left::new(flow, row)).collect();
        }
        record.moments = self.watch.moments;
        // Linux's packets carry their own times and are noticed a little later.
        record.moments.sort_by_key(|moment| moment.at);
        record.flows = self.watch.flows;
        Ok(record)
    }

    fn elapsed(&self) -> Duration {
        self.now.saturating_sub(self.origin)
    }

    // ---- time

    /// The story is told in its short form.
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn wait(&mut self, time: Duration) -> Told<()> {
        self.until(time, |_| false).map(drop)
    }

    /// Lets time pass until `done`, at most `limit`. True: it was reached.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> Told<bool> {
        let end = self.now + limit;
        loop {
            self.collect()?;
            self.look()?;
            if done(self) {
                return Ok(true);
            }
            if !self.turn(end)? {
                return Ok(done(self));
            }
        }
    }

    /// Lets the next thing happen, if it is due before `limit`. False: `limit` is reached.
    fn turn(&mut self, limit: Duration) -> Told<bool> {
        let timers = self.hosts.iter().filter_map(Host::next_timer);
        let next = timers.chain(self.wire.next_arrival()).min().unwrap_or(Duration::MAX);
        if self.is_real {
            let wake = next.min(limit).min(self.now + LOOK_EVERY);
            for host in &mut self.hosts {
                host.wait(wake)?;
            }
            self.now = sys::now();
        } else {
            // A host that has just sent is a few microseconds ahead.
            self.now = next.min(limit).max(self.now);
        }
        for host in &mut self.hosts {
            host.step_to(self.now);
        }
        self.collect()?;
        self.look()?;
        while let Some((to, packet)) = self.wire.take_arrived(self.now) {
            self.watch.reason(self.elapsed(), to);
            self.hosts[to as usize].inject(&packet)?;
            self.collect()?;
            self.look()?;
        }
        Ok(if self.is_real { self.now < limit } else { next <= limit })
    }

    /// What the hosts have sent goes on the wire.
    fn collect(&mut self) -> Told<()> {
        for side in Side::BOTH {
            while let Some(sent) = self.hosts[side as usize].take_sent()? {
                let Ok(WirePacket::Tcp(packet)) = WirePacket::parse(&sent.bytes) else { continue };
                let flow = self.watch.flow_of(side, &packet);
                let has_data = packet.len > 0 || packet.flags.fin();
                let fate = self.wire.carry(sent.at, self.origin, side, flow, has_data, sent.bytes);
                self.watch.on_segment(sent.at.saturating_sub(self.origin), side, flow, &packet, fate);
            }
        }
        Ok(())
    }

    /// The sockets of one end.
    fn rows(&self, side: Side) -> Told<Vec<SocketRow>> {
        self.hosts[side as usize].rows(&self.watch.pairs(side))
    }

    fn look(&mut self) -> Told<()> {
        let at = self.elapsed();
        for side in Side::BOTH {
            let rows = self.rows(side)?;
            self.watch.on_rows(at, side, &rows);
        }
        Ok(())
    }

    // ---- what can go wrong, and what the teller says

    /// The teller speaks.
    pub fn says(&mut self, text: Text) {
        let at = self.elapsed();
        self.watch.add(at, What::Says { text });
    }

    /// A setting of one end, before the story begins.
    ///
    /// # Errors
    /// The host refuses it.
    pub fn set(&mut self, side: Side, name: &str, value: &str) -> Told<()> {
        self.hosts[side as usize].set(name, value)
    }

    /// From now on nothing that `from` sends gets through, or everything does again.
    pub fn cut(&mut self, from: Side, cut: bool) {
        self.wire.cut[from as usize] = cut;
    }

    /// One of the ends vanishes: power failure, cable pulled, route gone. Nothing gets through any more.
    pub fn vanish(&mut self) {
        self.wire.cut = [true; 2];
    }

    /// Loses the next segments with data (or a FIN) that `from` sends.
    pub fn lose_data(&mut self, from: Side, segments: u32) {
        self.wire.lose_data[from as usize] = segments;
    }

    /// Loses every `nth` segment with data that `from` sends.
    pub fn lose_every(&mut self, from: Side, nth: u32) {
        self.wire.lose_every[from as usize] = nth;
    }

    /// The next segment with data that `from` sends is held back so long.
    pub fn hold_data(&mut self, from: Side, time: Duration) {
        self.wire.hold_data[from as usize] = Some(time);
    }

    /// A middlebox on the way forgets connections that were idle for longer.
    pub fn forget_after(&mut self, idle: Duration) {
        self.wire.forgets_after = Some(idle);
    }

    // ---- calls

    fn call(&mut self, side: Side, call: &Call) -> Told<Outcome> {
        if self.is_real {
            self.now = sys::now();
        }
        self.hosts[side as usize].step_to(self.now);
        self.collect()?;
        self.watch.reason(self.elapsed(), side);
        let outcome = self.hosts[side as usize].call(call)?;
        self.collect()?;
        self.look()?;
        Ok(outcome)
    }

    /// A call that must not fail, or the story cannot be told.
    fn must(&mut self, side: Side, call: &Call) -> Told<Outcome> {
        let outcome = self.call(side, call)?;
        if outcome.value < 0 {
            let name = errno_name(outcome.errno);
            return Err(TargetError(format!("the {} cannot do {call:?}: {name}", side.name())));
        }
        Ok(outcome)
    }

    /// A call is told where it began, before what it caused.
    fn told(&mut self, cue: Cue, socket: Socket, call: String, result: String) {
        let Socket { side, flow, .. } = socket;
        let what = What::Call { side, flow, call, result };
        self.watch.moments.insert(cue.place, Moment { at: cue.at, what });
    }

    fn socket(&mut self, side: Side) -> Told<Socket> {
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
        let call = Call::Socket { family: libc::AF_INET, kind, protocol: libc::IPPROTO_TCP };
        let fd = Fd(self.must(side, &call)?.value as i32);
        Ok(Socket { side, fd, flow: None })
    }

    /// The server's program listens.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn listen(&mut self, port: u16, backlog: i32) -> Told<Socket> {
        let cue = self.cue()?;
        let socket = self.socket(Side::Server)?;
        self.set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, OptionValue::Int(1))?;
        let address = SocketAddr::new(Side::Server.address(), port);
        self.must(Side::Server, &Call::Bind(socket.fd, address))?;
        self.must(Side::Server, &Call::Listen(socket.fd, backlog))?;
        let what = if backlog == DEFAULT_BACKLOG {
            format!("listen(:{port})")
        } else {
            format!("listen(:{port}, {backlog})")
        };
        self.told(cue, socket, what, String::new());
        Ok(socket)
    }

    /// The client's program begins a connection.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn connect(&mut self, port: u16) -> Told<Socket> {
        let cue = self.cue()?;
        let mut socket = self.socket(Side::Client)?;
        let to = SocketAddr::new(Side::Server.address(), port);
        let before = self.watch.flows.len();
        let outcome = self.call(Side::Client, &Call::Connect(socket.fd, Some(to)))?;
        if self.watch.flows.len() == before && outcome.errno == libc::EINPROGRESS {
            // Linux's SYN is noticed a moment after the call returned.
            let limit = Duration::from_millis(100);
            self.until(limit, |stage| stage.watch.flows.len() > before)?;
        }
        let failed = outcome.value < 0 && outcome.errno != libc::EINPROGRESS;
        socket.flow = (!failed && self.watch.flows.len() > before).then(|| self.watch.flows.len() - 1);
        let result = if failed { errno_name(outcome.errno) } else { String::new() };
        self.told(cue, socket, format!("connect(:{port})"), result);
        Ok(socket)
    }

    /// Waits for a connection attempt to end, at most `limit`; says how, if it failed.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn connected(&mut self, socket: Socket, limit: Duration) -> Told<bool> {
        let open = |stage: &Self| {
            let state = socket.flow.and_then(|flow| stage.watch.state(socket.side, flow));
            !matches!(state, Some(TcpState::SynSent | TcpState::SynRecv))
        };
        self.until(limit, |stage| open(stage))?;
        let call = Call::GetOption(socket.fd, libc::SOL_SOCKET, libc::SO_ERROR, 4);
        let errno = match self.must(socket.side, &call)?.output {
            Output::Bytes(bytes) => bytes.try_into().map_or(0, i32::from_ne_bytes),
            _ => 0,
        };
        if errno != 0 {
            let cue = self.cue()?;
            self.told(cue, socket, "connect()".to_owned(), errno_name(errno));
        }
        Ok(errno == 0 && open(self))
    }

    /// The server's program accepts, if there is something to accept.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn accept(&mut self, listener: Socket) -> Told<Option<Socket>> {
        let cue = self.cue()?;
        let outcome = self.call(listener.side, &Call::Accept(listener.fd))?;
        if outcome.value < 0 {
            return Ok(None);
        }
        let flow = match outcome.output {
            Output::Peer(peer) => self.watch.flows.iter().rposition(|flow| flow.client == peer),
            _ => None,
        };
        let socket = Socket { side: listener.side, fd: Fd(outcome.value as i32), flow };
        self.told(cue, socket, "accept()".to_owned(), String::new());
        Ok(Some(socket))
    }

    /// A connection from the client's program to the server's, both ends: listen, connect, accept.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn establish(&mut self, port: u16) -> Told<(Socket, Socket)> {
        let listener = self.listen(port, DEFAULT_BACKLOG)?;
        self.establish_at(listener, port)
    }

    /// The same with a listener that is there already.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn establish_at(&mut self, listener: Socket, port: u16) -> Told<(Socket, Socket)> {
        let client = self.connect(port)?;
        self.accepted(listener, client)
    }

    /// Waits until the server's program could accept `client`, which has begun to connect.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn accepted(&mut self, listener: Socket, client: Socket) -> Told<(Socket, Socket)> {
        let flow = client.flow.ok_or_else(|| TargetError("no connection was begun".to_owned()))?;
        let established =
            |stage: &mut Self| stage.watch.state(Side::Server, flow) == Some(TcpState::Established);
        if !self.until(Duration::from_secs(10), established)? {
            return Err(TargetError("the connection was not established".to_owned()));
        }
        let server = self.accept(listener)?;
        server
            .map(|server| (client, server))
            .ok_or_else(|| TargetError("there is nothing to accept".to_owned()))
    }

    /// Sets an option, silently.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn set_option(&mut self, socket: Socket, level: i32, name: i32, value: OptionValue) -> Told<()> {
        self.must(socket.side, &Call::SetOption(socket.fd, level, name, value)).map(drop)
    }

    /// The program writes so many bytes; says what the call gave unless it took them all.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn write(&mut self, socket: Socket, bytes: usize) -> Told<()> {
        let cue = self.cue()?;
        let outcome = self.send(socket, bytes)?;
        let result = match outcome.value {
            -1 => errno_name(outcome.errno),
            taken if taken as usize == bytes => String::new(),
            taken => format!("= {}", count(taken as u64)),
        };
        self.told(cue, socket, format!("write({})", count(bytes as u64)), result);
        Ok(())
    }

    /// The program writes whenever it can, until for `quiet` the socket took nothing more, or `most` are written.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn write_all_it_takes(&mut self, socket: Socket, most: usize, quiet: Duration) -> Told<usize> {
        let cue = self.cue()?;
        let mut written = 0;
        let mut failed = 0;
        loop {
            let mut took = false;
            while written < most {
                let outcome = self.send(socket, CHUNK.min(most - written))?;
                if outcome.value <= 0 {
                    failed = outcome.errno;
                    break;
                }
                written += outcome.value as usize;
                took = true;
            }
            if written >= most || failed != libc::EAGAIN && failed != 0 {
                break;
            }
            // Room comes with acknowledgments.
            let before = self.rows(socket.side)?;
            let room = |stage: &mut Self| {
                let now = stage.rows(socket.side).unwrap_or_default();
                freed(&before, &now)
            };
            if !self.until(quiet, room)? && !took {
                break;
            }
        }
        let full = if failed == libc::EAGAIN && written < most { ", then EAGAIN" } else { "" };
        let result = format!("= {}{full}", count(written as u64));
        self.told(cue, socket, "write(…)".to_owned(), result);
        Ok(written)
    }

    fn send(&mut self, socket: Socket, bytes: usize) -> Told<Outcome> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let call = Call::Send { fd: socket.fd, lens: vec![bytes], flags, via: Via::Socket, to: None };
        self.call(socket.side, &call)
    }

    fn receive(&mut self, socket: Socket, most: usize) -> Told<Outcome> {
        let flags = libc::MSG_DONTWAIT;
        let call = Call::Receive { fd: socket.fd, lens: vec![most], flags, via: Via::Socket };
        self.call(socket.side, &call)
    }

    /// The program reads once.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn read(&mut self, socket: Socket, most: usize) -> Told<()> {
        let cue = self.cue()?;
        let outcome = self.receive(socket, most)?;
        let result = match outcome.value {
            -1 => errno_name(outcome.errno),
            0 => "= 0 (end of file)".to_owned(),
            bytes => format!("= {}", count(bytes as u64)),
        };
        self.told(cue, socket, "read()".to_owned(), result);
        Ok(())
    }

    /// The program reads all that arrives within `limit`, until the end of file or an error; says how much.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn read_all(&mut self, socket: Socket, limit: Duration) -> Told<()> {
        let cue = self.cue()?;
        let end = self.now + limit;
        let mut total = 0u64;
        let result = loop {
            let outcome = self.receive(socket, 1 << 20)?;
            match outcome.value {
                -1 if outcome.errno == libc::EAGAIN => {
                    let unread = |stage: &mut Self| stage.has_news(socket);
                    let left = end.saturating_sub(self.now);
                    if left.is_zero() || !self.until(left, unread)? {
                        break format!("= {}", count(total));
                    }
                }
                -1 => break format!("{} after {}", errno_name(outcome.errno), count(total)),
                0 => break format!("= {}, then end of file", count(total)),
                bytes => total += bytes as u64,
            }
        };
        self.told(cue, socket, "read(…)".to_owned(), result);
        Ok(())
    }

    /// There is something to read for a socket, or it is gone.
    fn has_news(&mut self, socket: Socket) -> bool {
        let rows = self.rows(socket.side).unwrap_or_default();
        let found = self.watch.connections(socket.side, &rows).find(|(flow, _)| Some(*flow) == socket.flow);
        found.is_none_or(|(_, row)| {
            row.recv_q > 0
                || !matches!(row.state, TcpState::Established | TcpState::FinWait1 | TcpState::FinWait2)
        })
    }

    /// The program closes the socket.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn close(&mut self, socket: Socket) -> Told<()> {
        let cue = self.cue()?;
        self.told(cue, socket, "close()".to_owned(), String::new());
        self.must(socket.side, &Call::Close(socket.fd))?;
        self.look()
    }

    /// The program closes its sending direction only.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn shutdown_write(&mut self, socket: Socket) -> Told<()> {
        let cue = self.cue()?;
        self.told(cue, socket, "shutdown(WR)".to_owned(), String::new());
        self.must(socket.side, &Call::Shutdown(socket.fd, libc::SHUT_WR))?;
        self.look()
    }

    /// Sets an option and says so.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn option(
        &mut self,
        socket: Socket,
        what: &str,
        level: i32,
        name: i32,
        value: OptionValue,
    ) -> Told<()> {
        let cue = self.cue()?;
        self.told(cue, socket, format!("setsockopt({what})"), String::new());
        self.set_option(socket, level, name, value)
    }

    /// Waits until one end of a connection is in `state` (`None`: gone), at most `limit`.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn until_state(
        &mut self,
        socket: Socket,
        side: Side,
        state: Option<TcpState>,
        limit: Duration,
    ) -> Told<bool> {
        self.until(limit, |stage| stage.state(socket, side) == state)
    }

    /// Bytes that wait to be read by a socket's program.
    pub fn unread(&self, socket: Socket) -> u32 {
        let rows = self.rows(socket.side).unwrap_or_default();
        self.watch
            .connections(socket.side, &rows)
            .find(|(flow, _)| Some(*flow) == socket.flow)
            .map_or(0, |(_, row)| row.recv_q)
    }

    /// The state one end of a socket's connection is in.
    pub fn state(&self, socket: Socket, side: Side) -> Option<TcpState> {
        socket.flow.and_then(|flow| self.watch.state(side, flow))
    }

    /// The time and place of what comes now.
    fn cue(&mut self) -> Told<Cue> {
        if self.is_real {
            self.now = sys::now();
        }
        self.collect()?;
        Ok(Cue { at: self.elapsed(), place: self.watch.moments.len() })
    }
}

/// A backlog nobody will fill.
const DEFAULT_BACKLOG: i32 = 128;

impl Side {
    /// Where an end of every story lives.
    pub(super) fn address(self) -> IpAddr {
        match self {
            Self::Client => IpAddr::from([10, 0, 0, 1]),
            Self::Server => IpAddr::from([10, 0, 0, 2]),
        }
    }
}

/// Some send queue became shorter, or a socket disappeared.
fn freed(before: &[SocketRow], now: &[SocketRow]) -> bool {
    before.iter().any(|old| {
        let same = now.iter().find(|row| row.local == old.local && row.remote == old.remote);
        same.is_none_or(|row| row.send_q < old.send_q)
    })
}

fn errno_name(errno: i32) -> String {
    symbols::errno_name(errno)
}
