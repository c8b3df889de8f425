//! Who waits for whom: packetdrill's two threads, the stack, and a clock that moves only when the tool waits.
//!
//! Owns:    the stack's host, the descriptor map, and the hand-over of a call that blocks.
//! Rules:   the clock goes from timer to timer; when one wakes the blocked call, nothing moves on until that
//!          call's thread has read the clock (its completion time). Every reading of the clock moves it 1 µs, because the tool
//!          spins on it.
//! Not here: C types (`abi`).

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use lastack_lab::packet::{TcpFlags, TcpOption, WirePacket};
use lastack_lab::posix::Posix;
use lastack_lab::target::{Call, Fd, Outcome, Sent};

use crate::flags::FlagsFile;

/// Virtual time begins here.
const START: Duration = Duration::from_secs(1000);
/// The tool reads the clock in loops: each reading takes this long.
const READING: Duration = Duration::from_micros(1);
/// A packet that does not come within this is never going to: longer than the longest timer (keepalive).
const NEVER: Duration = Duration::from_secs(4 * 3600);
/// Real time to wait for a woken thread to read the clock; it has only to be scheduled.
const STAMP_PATIENCE: Duration = Duration::from_millis(500);

/// The host under test, shared by the tool's threads.
#[derive(Debug)]
pub struct Host {
    state: Mutex<State>,
    changed: Condvar,
    /// The tool's event loop; any other thread makes calls that may block.
    main: ThreadId,
}

#[derive(Debug)]
struct State {
    posix: Option<Posix>,
    flags: FlagsFile,
    clock: Duration,
    /// The tool's descriptors (real, but empty ones) → the host's.
    descriptors: BTreeMap<i32, Fd>,
    /// What the blocked call gave; its thread takes it.
    result: Option<Outcome>,
    /// A woken thread that has not read the clock yet.
    unstamped: Option<ThreadId>,
    blocked: Option<ThreadId>,
    /// What the peer's last SYN announced.
    peer_mss: u16,
}

impl Host {
    /// A host whose settings are in the file `flags`. The calling thread is the tool's event loop.
    pub fn new(flags: Option<String>) -> Self {
        Self {
            state: Mutex::new(State {
                posix: None,
                flags: FlagsFile::new(flags),
                clock: START,
                descriptors: BTreeMap::new(),
                result: None,
                unstamped: None,
                blocked: None,
                peer_mss: 536,
            }),
            changed: Condvar::new(),
            main: std::thread::current().id(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings file is written by the script's init command, so it is read late.
    fn ready<'a>(&self, state: &'a mut State) -> &'a mut Posix {
        let State { posix, flags, clock, .. } = state;
        posix.get_or_insert_with(|| {
            let settings = flags.read();
            let mut posix = Posix::new(settings.config(), *clock);
            flags.apply(&settings, posix.stack_mut());
            posix
        })
    }

    /// As [`ready`](Self::ready), with the settings a command of the script has made since.
    fn up_to_date<'a>(&self, state: &'a mut State) -> &'a mut Posix {
        if let State { posix: Some(posix), flags, .. } = state {
            flags.refresh(posix.stack_mut());
        }
        self.ready(state)
    }

    /// Gives the tool's number for a descriptor of the host.
    pub fn name(&self, outside: i32, inside: Fd) {
        self.lock().descriptors.insert(outside, inside);
    }

    /// The host's descriptor behind the tool's number.
    pub fn inside(&self, outside: i32) -> Option<Fd> {
        self.lock().descriptors.get(&outside).copied()
    }

    /// Forgets a descriptor. Which of the host's it was, if of one.
    pub fn forget(&self, outside: i32) -> Option<Fd> {
        self.lock().descriptors.remove(&outside)
    }

    /// The socket is AF_INET6: an IPv4 address is a mapped one to it.
    pub fn is_v6(&self, fd: Fd) -> bool {
        self.lock().posix.as_ref().is_some_and(|posix| posix.is_v6(fd))
    }

    /// Makes a call and waits for its end: in real time on a thread of calls, in virtual time on the event loop.
    pub fn call(&self, call: &Call) -> Outcome {
        let me = std::thread::current().id();
        let mut state = self.lock();
        if me == self.main {
            return self.call_here(state, call);
        }
        // One blocked call at a time is all the tool makes.
        while state.blocked.is_some() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(done) = self.up_to_date(&mut state).call(call) else {
            state.blocked = Some(me);
            loop {
                if let Some(outcome) = state.result.take() {
                    return outcome;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        };
        done.outcome
    }

    /// On the event loop a call that blocks would stop time: time goes on inside.
    fn call_here(&self, mut state: MutexGuard<'_, State>, call: &Call) -> Outcome {
        let posix = self.up_to_date(&mut state);
        let limit = posix.now() + NEVER;
        let begun = posix.begin_call(call);
        self.hand_over(&mut state);
        let mut waiting = match begun {
            Ok(done) => return done.outcome,
            Err(waiting) => waiting,
        };
        loop {
            let posix = self.ready(&mut state);
            let deadline = posix.deadline_of(&waiting);
            let until = deadline.map_or(limit, |deadline| deadline.min(limit));
            let nothing_happens = deadline.is_none() && !posix.has_timers();
            if nothing_happens || (!posix.step(until) && until == limit) {
                return Outcome::error(libc::EAGAIN);
            }
            let done = posix.try_again(&mut waiting);
            self.hand_over(&mut state);
            if let Some(done) = done {
                return done.outcome;
            }
        }
    }

    /// If the blocked call has ended, wakes its thread.
    fn hand_over(&self, state: &mut State) {
        if let Some(done) = state.posix.as_mut().and_then(Posix::take_finished) {
            state.result = Some(done.outcome);
            state.unstamped = state.blocked.take();
            self.changed.notify_all();
        }
    }

    /// Lets a woken thread read the clock before it moves.
    fn await_stamp<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.unstamped.is_some() {
            let waited =
                self.changed.wait_timeout(state, STAMP_PATIENCE).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            if waited.1.timed_out() {
                state.unstamped = None;
            }
        }
        state
    }

    /// The peer sends a packet. One longer than the link takes is, as with the tool's `--mss`, a super-segment; the tool does not
    /// say of what size, so it is taken to be the peer's.
    pub fn inject(&self, packet: &[u8]) {
        let mut state = self.await_stamp(self.lock());
        if let Some(mss) = announced_mss(packet) {
            state.peer_mss = mss;
        }
        let mss = state.peer_mss;
        let posix = self.up_to_date(&mut state);
        let is_merged = packet.len() > posix.mtu() as usize;
        posix.inject_merged(packet, if is_merged { mss } else { 0 });
        self.hand_over(&mut state);
    }

    /// The next packet the host sent; time passes until there is one. `None`: there will be none.
    pub fn receive(&self) -> Option<Sent> {
        let mut state = self.lock();
        let limit = self.ready(&mut state).now() + NEVER;
        loop {
            let posix = self.ready(&mut state);
            if let Some(sent) = posix.take_sent() {
                return Some(sent);
            }
            if !posix.has_timers() {
                return None;
            }
            state = self.await_stamp(state);
            let moved = self.ready(&mut state).step(limit);
            self.hand_over(&mut state);
            if !moved {
                return self.ready(&mut state).take_sent();
            }
        }
    }

    /// Time passes.
    pub fn sleep(&self, time: Duration) {
        let mut state = self.lock();
        if state.posix.is_none() {
            state.clock += time;
            return;
        }
        let until = self.up_to_date(&mut state).now() + time;
        loop {
            state = self.await_stamp(state);
            let moved = self.ready(&mut state).step(until);
            self.hand_over(&mut state);
            if !moved {
                return;
            }
        }
    }

    /// What time it is; a woken thread has its stamp now.
    pub fn now(&self) -> Duration {
        let me = std::thread::current().id();
        let mut state = self.lock();
        if me != self.main {
            if state.unstamped == Some(me) {
                state.unstamped = None;
                self.changed.notify_all();
            }
            return state.posix.as_ref().map_or(state.clock, Posix::now);
        }
        if state.posix.is_none() {
            state.clock += READING;
            return state.clock;
        }
        state = self.await_stamp(state);
        let posix = self.ready(&mut state);
        let until = posix.now() + READING;
        while posix.step(until) {}
        let now = posix.now();
        self.hand_over(&mut state);
        now
    }
}

/// The MSS in a SYN.
fn announced_mss(packet: &[u8]) -> Option<u16> {
    let Ok(WirePacket::Tcp(tcp)) = WirePacket::parse(packet) else { return None };
    tcp.options.iter().find_map(|option| match option {
        TcpOption::Mss(mss) if tcp.flags.contains(TcpFlags::SYN) => Some(*mss),
        _ => None,
    })
}
