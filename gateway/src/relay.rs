//! A relay with a law: what one side does to its connection, the other side sees.
//!
//! Owns:    [`Relay`], the two directions between a stack's connection and a host's.
//! Input:   chunks of either side, never copied. Output: the same chunks, FIN and RST at the other side.
//! Rules:   FIN is forwarded behind the data before it, and the other direction lives on. RST is forwarded behind the
//!          data before it too, as far as the receiver takes it within [`Policy::patience`]. Nothing is read from one
//!          side before the other has taken what was read: windows carry the pressure through. A half-closed
//!          connection is probed, never cut: it may be silent for ever, but not dead, unless silence has a limit
//!          ([`Policy::idle`]). What is injected is exempt from all that: it is done as asked (`inject`).
//! Not here: what is under way at the end (`wind_up`), who is right (`verdict`), dialling (`forward`).

mod idle;
mod outcome;
mod wind_up;

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use lastack::core::observe::{Ending, Life};
use lastack::{Readiness, TcpOption, TcpStream};

use crate::host::{HostInfo, HostStream};
use crate::inject::{Armed, Event, Frozen};
pub use outcome::{End, FirstClose, Outcome, Policy};

/// Carries a connection until it has ended.
///
/// # Example
/// ```no_run
/// use lastack_gateway::{host::HostStream, relay};
/// # async fn example(pending: lastack::PendingConnection) -> std::io::Result<()> {
/// // Dial first, answer then: a refused port looks refused.
/// let outside = HostStream::connect(pending.destination()).await?;
/// let inside = pending.accept().await?;
/// let outcome = relay::relay(inside, outside, &relay::Policy::default()).await;
/// println!("{:?}, {} bytes up, {} lost", outcome.end, outcome.bytes_up, outcome.lost_up);
/// # Ok(()) }
/// ```
pub async fn relay(inside: TcpStream, outside: HostStream, policy: &Policy) -> Outcome {
    let mut relay = Relay::new(inside, outside);
    relay.run(policy).await;
    relay.finish()
}

/// Both directions of one connection. Thousands of them may be idle: what only an ending needs is boxed.
pub struct Relay {
    inside: TcpStream,
    outside: HostStream,
    up: Up,
    down: Down,
    /// The turn in which each side's first FIN or RST was seen, counted from 1.
    inside_closed: Option<u64>,
    outside_closed: Option<u64>,
    turn: u64,
    end: Option<End>,
    data_after_inside_fin: bool,
    /// The outside's figures at the end.
    outside_info: Option<Box<HostInfo>>,
    /// What is forced on it.
    armed: Option<Box<Armed>>,
    /// Waits for the outside's RST while nothing is read from it.
    outside_failed: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// From the program to the remote end.
#[derive(Debug, Default)]
struct Up {
    queue: VecDeque<Bytes>,
    eof: bool,
    fin_sent: bool,
    /// The inside's error, told behind the data that came before it.
    error: Option<i32>,
}

/// From the remote end to the program.
#[derive(Debug, Default)]
struct Down {
    chunk: Option<Bytes>,
    eof: bool,
    fin_sent: bool,
}

/// Slices taken from the stack for one gathered write.
const UP_SLICES: usize = 32;
/// Bytes of these.
const UP_BYTES: usize = 512 * 1024;
/// The error of a stack that has stopped has no errno.
const STOPPED: i32 = 0;

impl Relay {
    /// A relay between two open connections.
    pub fn new(inside: TcpStream, outside: HostStream) -> Self {
        Self {
            inside,
            outside,
            up: Up::default(),
            down: Down::default(),
            inside_closed: None,
            outside_closed: None,
            turn: 0,
            end: None,
            data_after_inside_fin: false,
            outside_info: None,
            armed: None,
            outside_failed: None,
        }
    }

    /// Forces what is `armed` on the connection when it is due.
    pub(crate) fn inject(&mut self, armed: Option<Box<Armed>>) {
        self.armed = armed;
    }

    /// True when something is to be forced on the connection, or was.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    /// Nothing more is forced. False: what was forced already will not mend, so nothing need be waited for.
    pub(crate) fn disarm(&mut self) -> bool {
        let Some(armed) = &mut self.armed else { return true };
        armed.disarm();
        armed.injected.is_none() || self.end.is_some()
    }

    fn frozen(&self) -> Frozen {
        self.armed.as_ref().map_or(Frozen::Nothing, |armed| armed.frozen)
    }

    /// The program's end, and the other as the program used it.
    pub(crate) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let known = "a connection that was accepted has both ends";
        (self.inside.peer_addr().expect(known), self.inside.local_addr().expect(known))
    }

    /// The host's end of the connection to the remote end.
    pub(crate) fn host_local(&self) -> Option<SocketAddr> {
        self.outside.local_addr()
    }

    /// Carries the connection until it has ended and everything under way has arrived or is lost. Cancel safe: a
    /// relay whose run was dropped can be finished, and is told as stopped.
    pub async fn run(&mut self, policy: &Policy) {
        let end = match policy.idle {
            None => std::future::poll_fn(|cx| self.poll_carry(cx, policy)).await,
            // Boxed: it is not to cost where it is not asked for.
            Some(idle) => Box::pin(self.carry_unless_idle(policy, idle)).await,
        };
        self.end = Some(end);
        if let Some(armed) = &mut self.armed {
            // It is over: nothing more is forced on what is still delivered.
            armed.disarm();
        }
        // Boxed: its timers would more than double what an idle connection holds.
        Box::pin(self.wind_up(end, policy)).await;
    }

    /// Closes both sides as the law says, and tells what became of them.
    pub fn finish(self) -> Outcome {
        let end = self.end.unwrap_or(End::Stopped);
        let life = self.inside.life().unwrap_or_default();
        let end = match life.ending {
            Some(Ending::Killed) => End::Killed,
            _ => end,
        };
        let outside = self.outside_info.as_deref().copied().unwrap_or_else(|| self.outside.info());
        // After the outside's FIN there is nothing left to read.
        let unread = if self.down.eof { 0 } else { self.outside.unread() };
        let bytes_down = self.outside.read() + unread;
        let outcome = Outcome {
            first_close: self.first_close(&life),
            end,
            inside_fin: self.up.eof,
            outside_fin: self.down.eof,
            data_after_inside_fin: self.data_after_inside_fin,
            bytes_up: life.bytes_received,
            bytes_down,
            // Whatever was received here and is not with the other kernel is lost, wherever it is just now.
            lost_up: life.bytes_received.saturating_sub(self.outside.written() - outside.unacked_bytes),
            lost_down: bytes_down.saturating_sub(life.bytes_acked),
            injected: self.armed.as_ref().and_then(|armed| armed.injected),
            life,
            inside: self.inside.tcp_info().unwrap_or_default(),
            outside,
        };
        match end {
            End::Clean => {}
            End::Outside(_) => self.inside.abort(),
            End::Inside(_) => self.outside.reset(),
            End::Killed | End::Stopped | End::Injected | End::Idle => {
                self.inside.abort();
                self.outside.reset();
            }
        }
        outcome
    }

    fn first_close(&self, life: &Life) -> Option<FirstClose> {
        match (self.inside_closed, self.outside_closed) {
            (None, None) => None,
            (Some(_), None) => Some(FirstClose::Inside),
            (None, Some(_)) => Some(FirstClose::Outside),
            (Some(inside), Some(outside)) if inside == outside => Some(FirstClose::Both),
            (Some(inside), Some(outside)) if inside < outside => Some(FirstClose::Inside),
            // The program's FIN came before it had acknowledged ours: it closed before it could know.
            (Some(_), Some(_)) => match (life.fin_received_at, life.fin_acked_at) {
                (Some(received), Some(acked)) if received < acked => Some(FirstClose::Both),
                (Some(_), None) => Some(FirstClose::Both),
                _ => Some(FirstClose::Outside),
            },
        }
    }

    /// Both directions, until both have ended or one side has failed, or what is injected ends it.
    fn poll_carry(&mut self, cx: &mut Context<'_>, policy: &Policy) -> Poll<End> {
        self.turn += 1;
        loop {
            if self.poll_injections(cx).is_ready() {
                return Poll::Ready(End::Injected);
            }
            let carried = self.poll_directions(cx, policy);
            if carried.is_ready() || self.room() > 0 {
                return carried;
            }
        }
    }

    fn poll_directions(&mut self, cx: &mut Context<'_>, policy: &Policy) -> Poll<End> {
        let frozen = self.frozen();
        let up = if frozen == Frozen::Nothing { self.poll_up(cx, policy) } else { Poll::Pending };
        let down = if frozen == Frozen::Both { Poll::Pending } else { self.poll_down(cx, policy) };
        match (up, down) {
            (Poll::Ready(Err(end)), _) | (_, Poll::Ready(Err(end))) => Poll::Ready(end),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(End::Clean),
            _ => match self.poll_inside_failed(cx) {
                Poll::Ready(end) => Poll::Ready(end),
                Poll::Pending => self.poll_outside_failed(cx),
            },
        }
    }

    /// Forces what is due. Ready: that was the end.
    fn poll_injections(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let carried = self.carried();
        loop {
            let Some(armed) = &mut self.armed else { return Poll::Pending };
            let injected = ready!(armed.poll_due(cx, armed.now(), carried));
            match injected.event {
                Event::Reset => return Poll::Ready(()),
                Event::HalfOpen => {
                    self.inside.abandon();
                    return Poll::Ready(());
                }
                Event::Stall => armed.frozen = Frozen::Both,
                Event::ZeroWindow => {
                    self.inside.hold_window(true);
                    armed.frozen = armed.frozen.max(Frozen::Up);
                }
                Event::BlackHole => armed.black_hole(&self.inside),
            }
        }
    }

    /// Payload bytes handed on so far, both ways.
    fn carried(&self) -> u64 {
        let waiting = self.down.chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        self.outside.written() + self.outside.read() - waiting
    }

    /// Bytes that may be handed on before something is forced.
    fn room(&self) -> usize {
        let Some(armed) = &self.armed else { return usize::MAX };
        usize::try_from(armed.room(self.carried())).unwrap_or(usize::MAX)
    }

    /// A RST of the inside is noticed also after its FIN, when nothing more is read from it, and while it is frozen.
    fn poll_inside_failed(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let is_frozen = self.frozen() != Frozen::Nothing;
        if !is_frozen && (!self.up.eof || self.down.fin_sent) {
            return Poll::Pending;
        }
        // Frozen, both FINs may have been exchanged and the connection lives.
        let failed = if is_frozen { Readiness::ERROR } else { Readiness::HANGUP.with(Readiness::ERROR) };
        let Ok(_) = ready!(self.inside.poll_readiness(cx, failed)) else { return Poll::Ready(End::Stopped) };
        let error = self.inside.take_error().ok().flatten();
        Poll::Ready(End::Inside(error.map_or(libc::ECONNRESET, |error| errno(&error))))
    }

    /// A RST of the outside is noticed also while nothing is read from it: after its FIN, or while the inside does
    /// not take what was read.
    fn poll_outside_failed(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.down.chunk.is_none() && !self.down.eof && self.frozen() != Frozen::Both {
            return Poll::Pending;
        }
        let failed = self.outside_failed.get_or_insert_with(|| Box::pin(self.outside.failed()));
        ready!(failed.as_mut().poll(cx));
        self.outside_closed.get_or_insert(self.turn);
        Poll::Ready(End::Outside(self.outside.fail()))
    }

    fn poll_up(&mut self, cx: &mut Context<'_>, policy: &Policy) -> Poll<Result<(), End>> {
        loop {
            let room = self.room();
            if room == 0 {
                return Poll::Pending;
            }
            if self.up.queue.is_empty() && !self.up.eof && self.up.error.is_none() {
                ready!(self.fill_up(cx, room));
            }
            if !self.up.queue.is_empty() {
                match ready!(self.outside.poll_write(cx, &mut self.up.queue)) {
                    Ok(_) => policy.moved(),
                    Err(error) => {
                        self.outside_closed.get_or_insert(self.turn);
                        return Poll::Ready(Err(End::Outside(errno(&error))));
                    }
                }
                continue;
            }
            if let Some(errno) = self.up.error {
                return Poll::Ready(Err(if errno == STOPPED { End::Stopped } else { End::Inside(errno) }));
            }
            if !self.up.fin_sent {
                self.outside.shutdown_write();
                self.up.fin_sent = true;
                self.probe_when_idle(policy);
            }
            return Poll::Ready(Ok(()));
        }
    }

    /// Takes from the stack what is there; ready when there is anything, an end included.
    fn fill_up(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<()> {
        let (mut bytes, most) = (0, UP_BYTES.min(room));
        while self.up.queue.len() < UP_SLICES && bytes < most {
            match self.inside.poll_read_chunk(cx, most - bytes) {
                Poll::Ready(Ok(Some(chunk))) => {
                    bytes += chunk.len();
                    self.up.queue.push_back(chunk);
                }
                Poll::Ready(Ok(None)) => {
                    self.up.eof = true;
                    self.inside_closed.get_or_insert(self.turn);
                    break;
                }
                Poll::Ready(Err(error)) => {
                    self.up.error = Some(errno(&error));
                    self.inside_closed.get_or_insert(self.turn);
                    break;
                }
                Poll::Pending if self.up.queue.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }

    fn poll_down(&mut self, cx: &mut Context<'_>, policy: &Policy) -> Poll<Result<(), End>> {
        loop {
            let room = self.room();
            if room == 0 {
                return Poll::Pending;
            }
            if let Some(chunk) = &mut self.down.chunk {
                let piece = chunk.slice(..chunk.len().min(room));
                // The FIN that has come already goes with the data: one packet less. Not where something is forced between them.
                let is_last = self.down.eof && piece.len() == chunk.len() && piece.len() < room;
                let written = if is_last {
                    self.inside.poll_write_last(cx, &piece)
                } else {
                    self.inside.poll_write_bytes(cx, &piece)
                };
                match ready!(written) {
                    Ok(()) => {
                        chunk.advance(piece.len());
                        if chunk.is_empty() {
                            self.down.chunk = None;
                        }
                        policy.moved();
                        if is_last {
                            self.down.fin_sent = true;
                            self.probe_when_idle(policy);
                        }
                    }
                    Err(error) => {
                        let errno = errno(&error);
                        // The inside's reader meets the same end, behind the data that came before it.
                        if self.up.error.is_none() && !self.up.eof && errno != STOPPED {
                            return self.drain_up(cx, policy, errno);
                        }
                        self.inside_closed.get_or_insert(self.turn);
                        return Poll::Ready(Err(if errno == STOPPED {
                            End::Stopped
                        } else {
                            End::Inside(errno)
                        }));
                    }
                }
                continue;
            }
            if self.down.eof {
                if !self.down.fin_sent {
                    // Not connected any more: the inside's end is told by its reader.
                    let _ = self.inside.shutdown_how(Shutdown::Write);
                    self.down.fin_sent = true;
                    self.probe_when_idle(policy);
                }
                return Poll::Ready(Ok(()));
            }
            match ready!(self.outside.poll_read(cx)) {
                Ok(chunk) if chunk.is_empty() => {
                    self.down.eof = true;
                    self.outside_closed.get_or_insert(self.turn);
                }
                Ok(chunk) => {
                    self.data_after_inside_fin |= self.up.eof;
                    self.down.chunk = Some(chunk);
                    if self.outside.is_at_end() {
                        self.down.eof = true;
                        self.outside_closed.get_or_insert(self.turn);
                    }
                }
                Err(error) => {
                    self.outside_closed.get_or_insert(self.turn);
                    return Poll::Ready(Err(End::Outside(errno(&error))));
                }
            }
        }
    }

    /// The inside has failed with `errno` on its sending side: what it sent before is still carried.
    fn drain_up(&mut self, cx: &mut Context<'_>, policy: &Policy, errno: i32) -> Poll<Result<(), End>> {
        self.inside_closed.get_or_insert(self.turn);
        ready!(self.poll_up(cx, policy))?;
        Poll::Ready(Err(End::Inside(errno)))
    }

    /// A half-closed connection may be one that the program's kernel has forgotten: an answer to a probe tells.
    fn probe_when_idle(&mut self, policy: &Policy) {
        if self.up.fin_sent == self.down.fin_sent {
            return;
        }
        let seconds = i32::try_from(policy.half_closed_probe.as_secs()).unwrap_or(i32::MAX).max(1);
        for option in
            [TcpOption::KeepIdle(seconds), TcpOption::KeepIntvl(seconds), TcpOption::KeepAlive(true)]
        {
            // A connection that is gone already needs no probe.
            let _ = self.inside.set_option(option);
        }
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(STOPPED)
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("inside", &self.inside)
            .field("outside", &self.outside)
            .field("up", &self.up)
            .field("down", &self.down)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
