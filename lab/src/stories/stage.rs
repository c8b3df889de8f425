//! The stage: two hosts, the wire between them, a clock, and the calls a story may make.
//!
//! Owns:    time. With two stacks it is virtual and jumps to the next thing that happens; with Linux it is real.
//! Input:   a story's steps.
//! Output:  a [`Record`].
//! Not here: what is read out of packets and tables (`watch`), what happens to packets (`wire`).

use core::net::IpAddr;
use core::time::Duration;

use lastack_core::Stack;
use lastack_core::observe::SocketRow;
use lastack_core::tcp::state::TcpState;
use lastack_core::time::Instant;

use super::Side;
use super::host::Host;
use super::record::{Left, Record, What};
use super::watch::Watch;
use super::wire::Wire;
use super::words::Text;
use crate::packet::WirePacket;
use crate::sys;
use crate::target::{Fd, TargetError};

mod calls;

/// What a story's step gives; an error is the lab's, not the story's.
pub type Told<T> = Result<T, TargetError>;

/// Virtual time begins here, so that "long ago" exists.
const START: Duration = Duration::from_secs(1000);
/// One way, so that a round trip takes 20 ms.
const DELAY: Duration = Duration::from_millis(10);
/// Linux's socket table is looked at so often when nothing else happens.
const LOOK_EVERY: Duration = Duration::from_millis(20);
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

/// A stack of the story, at a moment: whatever can be looked at, a spectator may look at.
#[derive(Debug)]
pub struct Scene<'a> {
    /// Since the story began.
    pub at: Duration,
    /// Which end.
    pub side: Side,
    /// The stack.
    pub stack: &'a Stack,
    /// Its clock.
    pub now: Instant,
}

/// Is shown the two stacks of a story in virtual time: twenty times a second at first, more seldom the longer it lasts, and at
/// the end.
pub type Spectator<'s> = dyn FnMut(Scene<'_>) + 's;

/// A spectator looks so often at first, and after so large a part of the time gone by later.
const SCENE_EVERY: Duration = Duration::from_millis(50);
const SCENE_PART: u32 = 20;

/// The two hosts of a story and all that is between them.
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
    spectator: Option<&'k mut Spectator<'k>>,
    /// When the spectator looks again.
    next_scene: Duration,
}

impl std::fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("now", &self.now).field("hosts", &self.hosts).finish_non_exhaustive()
    }
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
        let watch = Watch::default();
        let next_scene = Duration::ZERO;
        Self { hosts, wire, watch, is_real, short, now, origin: now, counters, spectator: None, next_scene }
    }

    /// Shows what happens to `spectator`.
    pub(super) fn shown_to(mut self, spectator: &'k mut Spectator<'k>) -> Self {
        self.spectator = Some(spectator);
        self
    }

    /// The end: what was recorded.
    pub(super) fn finish(mut self) -> Told<Record> {
        self.collect()?;
        self.look()?;
        self.show();
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
        let scene = self.spectator.is_some().then(|| self.origin + self.next_scene);
        let next = timers.chain(self.wire.next_arrival()).chain(scene).min().unwrap_or(Duration::MAX);
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
        if at >= self.next_scene {
            self.next_scene = at + SCENE_EVERY.max(at / SCENE_PART);
            self.show();
        }
        Ok(())
    }

    /// The spectator looks.
    fn show(&mut self) {
        let at = self.elapsed();
        let Some(spectator) = &mut self.spectator else { return };
        for side in Side::BOTH {
            if let Some((stack, now)) = self.hosts[side as usize].our_stack() {
                spectator(Scene { at, side, stack, now });
            }
        }
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
}

impl Side {
    /// Where an end of every story lives.
    pub(super) fn address(self) -> IpAddr {
        match self {
            Self::Client => IpAddr::from([10, 0, 0, 1]),
            Self::Server => IpAddr::from([10, 0, 0, 2]),
        }
    }
}
