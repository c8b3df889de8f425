//! A shard: one stack, one device, one lock.
//!
//! Owns:    the stack, the packet on its way out, and everybody who waits.
//! Input:   commands of sockets ([`Shard::with`]), packets and time from the driver.
//! Output:  packets to the device at once after each command and each packet; wakers after the lock is released.
//! Rules:   system calls may be batched, protocol decisions never: what one packet or one command causes leaves
//!          before the next is looked at.
//! Not here: receiving and sleeping (`driver`), what a socket means (`connection`, `tcp`, `udp`).

use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use bytes::Bytes;
use lastack_core::Stack;
use lastack_core::time::{Duration, Instant};
use lastack_core::wire::transmit::{RxMeta, Transmit};

use crate::clock::Clock;
use crate::device::Device;
use crate::events::Observers;
use crate::waiters::Waiters;

/// What the link did, as the shard saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkCounters {
    /// Packets received; a super-segment counts once.
    pub rx_packets: u64,
    /// Bytes of these.
    pub rx_bytes: u64,
    /// Packets that the kernel dropped because this side did not take them in time, where the device can tell
    /// ([`Device::rx_dropped`]).
    pub rx_dropped: u64,
    /// Packets sent; a super-segment counts once.
    pub tx_packets: u64,
    /// Bytes of these.
    pub tx_bytes: u64,
    /// Packets that the device refused and that are lost.
    pub tx_errors: u64,
    /// How often the device had no room and the stack waited.
    pub tx_waits: u64,
}

/// One stack and its device.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) clock: Clock,
    pub(crate) device: Box<dyn Device>,
    state: Mutex<State>,
    handles: AtomicUsize,
}

/// What the lock protects.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) stack: Stack,
    pub(crate) waiters: Waiters,
    pub(crate) observers: Observers,
    pub(crate) link: LinkCounters,
    /// The packet on its way out; its buffers are used for every packet.
    out: Transmit,
    /// The device had no room: `out` waits for it.
    is_blocked: bool,
    /// The time that the driver sleeps until.
    sleeps_until: Instant,
    driver: Option<Waker>,
    /// Why the driver ended.
    stopped: Option<io::ErrorKind>,
}

impl Shard {
    pub(crate) fn new(clock: Clock, stack: Stack, device: Box<dyn Device>) -> Self {
        let state = State {
            stack,
            waiters: Waiters::default(),
            observers: Observers::default(),
            link: LinkCounters::default(),
            out: Transmit::default(),
            is_blocked: false,
            sleeps_until: Instant::FAR_FUTURE,
            driver: None,
            stopped: None,
        };
        Self { clock, device, state: Mutex::new(state), handles: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a broken invariant of the stack was reported where it broke")
    }

    /// Runs a command; then sends what it caused and wakes whom it concerns.
    pub(crate) fn with<R>(&self, command: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut wakes = Vec::new();
        let mut state = self.lock();
        let now = self.clock.now();
        let result = command(&mut state, now);
        state.flush(&*self.device, now);
        state.tell(&*self.device, now, &mut wakes);
        if state.stack.poll_timeout().is_some_and(|deadline| deadline < state.sleeps_until)
            || state.is_blocked
        {
            state.sleeps_until = Instant::ZERO;
            wakes.extend(state.driver.take());
        }
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
        result
    }

    /// Looks, changes nothing, sends nothing.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&State, Instant) -> R) -> R {
        let state = self.lock();
        look(&state, self.clock.now())
    }

    /// One packet has come. Who is to be woken is collected at the end of the batch ([`Shard::turn`]).
    pub(crate) fn receive(&self, packet: Bytes, meta: RxMeta) {
        let mut state = self.lock();
        let now = self.clock.now();
        state.link.rx_packets += 1;
        state.link.rx_bytes += packet.len() as u64;
        state.stack.handle_packet(now, packet, meta);
        state.flush(&*self.device, now);
    }

    /// The end of a driver's turn: timers that are due if they `may_time_out` now, a packet that waited for room, events.
    pub(crate) fn turn(
        &self,
        is_writable: bool,
        may_time_out: bool,
        driver: &Waker,
        wakes: &mut Vec<Waker>,
    ) -> Turn {
        let mut state = self.lock();
        let now = self.clock.now();
        if is_writable && state.is_blocked {
            state.is_blocked = false;
            state.send_out(&*self.device);
        }
        if may_time_out && state.stack.poll_timeout().is_some_and(|deadline| deadline <= now) {
            state.stack.handle_timeout(now);
        }
        state.flush(&*self.device, now);
        state.tell(&*self.device, now, wakes);
        let deadline = state.stack.poll_timeout();
        state.sleeps_until = deadline.unwrap_or(Instant::FAR_FUTURE);
        match &mut state.driver {
            Some(known) if known.will_wake(driver) => {}
            place => *place = Some(driver.clone()),
        }
        Turn {
            deadline,
            is_blocked: state.is_blocked,
            is_over: self.handles.load(Ordering::Acquire) == 0 && state.stack.socket_count() == 0,
            now,
            busy_poll: Duration::from_micros(state.stack.sysctl().busy_poll.into()),
        }
    }

    /// Nothing will happen any more: everybody is told so.
    pub(crate) fn stop(&self, why: io::ErrorKind) {
        let mut wakes = Vec::new();
        // Also after a panic under the lock: whoever waits should not wait for ever.
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.stopped.is_none() {
            state.stopped = Some(why);
        }
        state.driver = None;
        state.waiters.all(&mut wakes);
        state.observers.all(&mut wakes);
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
    }
}

/// What the driver has to do next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) deadline: Option<Instant>,
    /// A packet waits for room in the device.
    pub(crate) is_blocked: bool,
    /// No handle and no socket is left.
    pub(crate) is_over: bool,
    /// When it was taken, and how long the next packet is looked for.
    pub(crate) now: Instant,
    pub(crate) busy_poll: Duration,
}

impl State {
    /// Sends everything the stack wants to send now.
    fn flush(&mut self, device: &dyn Device, now: Instant) {
        while !self.is_blocked && self.stack.poll_transmit(now, &mut self.out) {
            self.send_out(device);
        }
    }

    fn send_out(&mut self, device: &dyn Device) {
        match device.send(&self.out) {
            Ok(()) => {
                self.link.tx_packets += 1;
                self.link.tx_bytes += self.out.len() as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.link.tx_waits += 1;
                self.is_blocked = true;
                return;
            }
            Err(_) => self.link.tx_errors += 1,
        }
        // Lets go of the payload: what is acknowledged meanwhile should be free.
        self.out.clear();
    }

    /// Collects who is to be woken by what has happened.
    fn tell(&mut self, device: &dyn Device, now: Instant, wakes: &mut Vec<Waker>) {
        let mut has_told = false;
        while let Some(event) = self.stack.poll_event() {
            self.waiters.on_event(event, now, &mut self.stack, wakes);
            has_told = true;
        }
        if has_told {
            // An event may have caused a reset: a connection that nobody wants any more.
            self.flush(device, now);
        }
        if !self.observers.is_empty() {
            while let Some(event) = self.stack.poll_observed() {
                self.observers.push(&event, wakes);
            }
        }
    }

    /// The error of every call that would otherwise wait, once the driver has ended.
    pub(crate) fn check_running(&self) -> io::Result<()> {
        match self.stopped {
            None => Ok(()),
            Some(kind) => Err(io::Error::new(kind, "the driver of this stack has ended")),
        }
    }
}

/// Keeps a shard's driver running.
#[derive(Debug)]
pub(crate) struct Handle(Arc<Shard>);

impl Handle {
    pub(crate) fn new(shard: Arc<Shard>) -> Self {
        shard.handles.fetch_add(1, Ordering::Relaxed);
        Self(shard)
    }

    /// The shard, without keeping its driver running.
    pub(crate) fn shard(&self) -> &Arc<Shard> {
        &self.0
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Deref for Handle {
    type Target = Shard;
    fn deref(&self) -> &Shard {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.0.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The driver may be done.
            let mut state = self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let driver = state.driver.take();
            drop(state);
            if let Some(driver) = driver {
                driver.wake();
            }
        }
    }
}
