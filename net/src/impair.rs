//! Makes any device a bad link: loss, delay, rate, reordering, duplicates, and connections that vanish.
//!
//! Owns:    [`Impaired`], a device around a device; [`Handle`], to look at it and to cut connections while it runs.
//! Input:   packets of the wire: what is one super-segment to stack or kernel is cut first, checksums are finished.
//! Rules:   decisions are `lastack_core::impair`'s: a seed repeats them. Nothing here waits without bound: each
//!          direction holds at most [`FLIGHT_PACKETS`] packets and [`FLIGHT_BYTES`] bytes; what comes on top is lost and
//!          counted (`flight-full`). Precision: a packet is released at most 50 µs early, and late by as much as the
//!          kernel needs to wake this process (a timer of its own, not tokio's tick of 1 ms).
//! Not here: what is decided (`lastack_core::impair`); injected resets and stalls, which are not the link's doing.

mod ends;
mod flight;
mod holes;
mod line;
mod report;
mod timer;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, BytesMut};
use lastack_core::wire::transmit::{RxMeta, Transmit};

use crate::clock::Clock;
use crate::device::{Capabilities, Device};
use line::Line;
use timer::Timer;

pub use ends::Ends;
pub use lastack_core::impair::{Conditions, Loss, PathCounters, QueueLimit, Share};
pub use report::{Delays, DirectionReport, Report, RuleReport};

/// Packets that may be on their way in each direction.
pub const FLIGHT_PACKETS: usize = 65_536;
/// Bytes of these.
pub const FLIGHT_BYTES: usize = 64 << 20;
/// Packets taken from the device at a time.
const BATCH: usize = 64;

/// What a link does to some packets.
pub struct Rule {
    /// Its name in reports; the decisions follow from it too, so that a rule added beside it changes none of its own.
    pub name: String,
    matches: Box<dyn Fn(&Ends) -> bool + Send>,
    /// What happens to packets that the stack receives.
    pub inbound: Conditions,
    /// What happens to packets that the stack sends.
    pub outbound: Conditions,
}

impl Rule {
    /// A rule for every packet, the same both ways.
    pub fn all(conditions: Conditions) -> Self {
        Self::matching("*", |_| true, conditions, conditions)
    }

    /// A rule for the packets whose ends `matches`.
    pub fn matching(
        name: impl Into<String>,
        matches: impl Fn(&Ends) -> bool + Send + 'static,
        inbound: Conditions,
        outbound: Conditions,
    ) -> Self {
        Self { name: name.into(), matches: Box::new(matches), inbound, outbound }
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule")
            .field("name", &self.name)
            .field("inbound", &self.inbound)
            .field("outbound", &self.outbound)
            .finish_non_exhaustive()
    }
}

/// A device that behaves like a bad link.
///
/// Composes with every other: around a [`Capture`](crate::Capture) the file shows what came over the wrapped link; inside
/// one it shows what the stack saw. The driver that uses it must be polled in a tokio runtime with IO enabled.
///
/// # Example
/// ```
/// use lastack::impair::{Conditions, Impaired, Loss, Rule, Share};
/// use lastack::Memory;
/// let conditions = Conditions {
///     loss: Loss::Random(Share::percent(5.0)),
///     delay: std::time::Duration::from_millis(20),
///     ..Conditions::default()
/// };
/// let (left, right) = Memory::pair(1500);
/// let (device, link) = Impaired::new(left, 7, vec![Rule::all(conditions)])?;
/// // `device` goes to `Net::start`; `link` tells what it did.
/// assert_eq!(link.report().rules[0].inbound.counters.lost, 0);
/// # drop((device, right));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Impaired<D> {
    device: D,
    clock: Clock,
    timer: Timer,
    line: Arc<Mutex<Line>>,
}

/// Looks at an [`Impaired`] device that runs, and cuts connections on it. Clones are the same.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Mutex<Line>>);

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    /// What was asked for and what happened.
    pub fn report(&self) -> Report {
        lock(&self.0).report()
    }

    /// From now on every packet between these ends vanishes, both ways, until the other end begins a new connection
    /// between them (a SYN). Of very many, the oldest are forgotten.
    pub fn cut(&self, ends: Ends) {
        lock(&self.0).holes.cut(ends);
    }
}

impl<D: Device> Impaired<D> {
    /// `device` as a bad link: of `rules`, the first that matches a packet says what happens to it; packets that none
    /// matches pass. Without rules super-segments pass whole, and only [`Handle::cut`] does anything.
    ///
    /// # Errors
    /// The system gives no timer.
    pub fn new(device: D, seed: u64, rules: Vec<Rule>) -> io::Result<(Self, Handle)> {
        let line = Arc::new(Mutex::new(Line::new(seed, rules)));
        let handle = Handle(line.clone());
        Ok((Self { device, clock: Clock::start(), timer: Timer::new()?, line }, handle))
    }

    /// Takes what the link has, at most [`BATCH`] packets. Pending: it has no more just now.
    fn take_in(&self, line: &mut Line, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..BATCH {
            if line.failed.is_some() {
                return Poll::Pending;
            }
            line.received.clear();
            line.received.reserve(crate::device::MAX_PACKET);
            match self.device.poll_recv(cx, &mut line.received) {
                Poll::Pending => return Poll::Pending,
                // Told when what is on its way has arrived.
                Poll::Ready(Err(error)) => line.failed = Some(error),
                Poll::Ready(Ok(meta)) => line.enter_inbound(self.clock.now(), meta),
            }
        }
        Poll::Ready(())
    }

    /// Sends what is due, until the device has no room.
    fn put_out(&self, line: &mut Line) {
        while !line.is_blocked
            && let Some(packet) = line.next_outbound(self.clock.now())
        {
            match self.device.send(packet) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => line.is_blocked = true,
                // A packet that the device refuses is lost there, and only there.
                Ok(()) | Err(_) => line.sent_outbound(self.clock.now()),
            }
        }
    }

    fn poll_unblock(&self, line: &mut Line, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while line.is_blocked {
            match self.device.poll_writable(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {
                    line.is_blocked = false;
                    self.put_out(line);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Without rules: only holes.
    fn poll_recv_whole(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<RxMeta>> {
        let before = buf.len();
        loop {
            let result = self.device.poll_recv(cx, buf);
            let Poll::Ready(Ok(_)) = &result else { return result };
            if !lock(&self.line).holes.swallow_inbound(&buf[before..]) {
                return result;
            }
            buf.truncate(before);
        }
    }
}

impl<D: Device> Device for Impaired<D> {
    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<RxMeta>> {
        let mut line = lock(&self.line);
        if line.is_whole() {
            drop(line);
            return self.poll_recv_whole(cx, buf);
        }
        let line = &mut *line;
        match &mut line.driver {
            Some(known) if known.will_wake(cx.waker()) => {}
            place => *place = Some(cx.waker().clone()),
        }
        loop {
            if line.pop_inbound(self.clock.now(), |packet| buf.put_slice(packet)) {
                return Poll::Ready(Ok(RxMeta { truesize: buf.capacity() as u32, ..RxMeta::default() }));
            }
            if line.inbound.is_empty()
                && let Some(error) = line.failed.take()
            {
                return Poll::Ready(Err(error));
            }
            let has_more = self.take_in(line, cx).is_ready();
            self.put_out(line);
            if let Poll::Ready(Err(error)) = self.poll_unblock(line, cx) {
                return Poll::Ready(Err(error));
            }
            if line.inbound.is_due(self.clock.now()) || (line.failed.is_some() && line.inbound.is_empty()) {
                continue;
            }
            if has_more {
                // The stack and its timers get their turn between two batches.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.timer.poll_until(&self.clock, line.next_deadline(), cx)?.is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn send(&self, packet: &Transmit) -> io::Result<()> {
        let mut line = lock(&self.line);
        if line.is_whole() {
            let vanishes = line.holes.swallows_outbound(&packet.head);
            drop(line);
            return if vanishes { Ok(()) } else { self.device.send(packet) };
        }
        if line.is_blocked {
            // What is due is not out yet: the stack waits, as it does for the device itself.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        line.enter_outbound(self.clock.now(), packet);
        self.put_out(&mut line);
        // The driver has to look at the clock, or at the device, before it would.
        let wake = line.is_blocked || line.next_deadline() < self.timer.is_set_to();
        let driver: Option<Waker> = if wake { line.driver.take() } else { None };
        drop(line);
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(())
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = lock(&self.line);
        if line.is_whole() {
            drop(line);
            return self.device.poll_writable(cx);
        }
        self.poll_unblock(&mut line, cx)
    }
}

#[cfg(test)]
mod tests;
