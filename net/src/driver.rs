//! The driver: receives packets, lets time pass, wakes whom it concerns.
//!
//! Owns:    the receive buffers and the timer.
//! Rules:   each packet is handled, and what it causes sent, before the next is read; after a budget of packets
//!          the tasks that were woken get their turn. A small packet that ended a sleep has a turn of its own: whom
//!          it wakes goes on before the read that, most times, only tells that there is no second packet. In a conversation
//!          the next packet is looked for before sleeping (`busy_poll`). What waits is read before a timer fires: it came
//!          while nobody looked, and an acknowledgement among it must not be answered by sending again.
//! Not here: sending after a command (`shard`).

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lastack_core::time::Instant;
use tokio::time::Sleep;

use crate::busy_poll::BusyPoll;
use crate::rx_buffers::RxBuffers;
use crate::shard::Shard;

/// Packets a turn, at most.
const BUDGET_PACKETS: usize = 64;
/// Bytes a turn, at most, plus one packet: about what a receive window holds, so that readers keep up.
const BUDGET_BYTES: usize = 1 << 20;
/// Bytes of a packet that is a message of its own, at most, and not a piece of a stream.
const SMALL: usize = 2048;

/// Why reading stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Received {
    /// The device has no more.
    All,
    /// A small packet ended a sleep; there may be more.
    First,
    /// The budget is used; there may be more.
    Budget,
}

/// Runs a stack: a future to be spawned or awaited in a tokio runtime with IO and time enabled.
///
/// Ends with `Ok` when every handle (sockets, listeners, [`Net`](crate::Net)) is dropped and every connection,
/// TIME-WAIT included, has ended; with an error when the device fails. Dropped before, it leaves every call on
/// its sockets with an error.
#[must_use = "nothing happens until the driver is polled"]
#[derive(Debug)]
pub struct Driver {
    shard: Arc<Shard>,
    buffers: RxBuffers,
    /// Made once, in the runtime that polls.
    timer: Option<Pin<Box<Sleep>>>,
    /// What it is set to; `FAR_FUTURE` when it has fired.
    timer_at: Instant,
    wakes: Vec<Waker>,
    /// The device had no room at the end of the last turn.
    is_blocked: bool,
    /// The device had no packet when it was asked last: the next one ends a sleep.
    was_empty: bool,
    /// A small packet ended a sleep, or the looking.
    has_message: bool,
    busy_poll: BusyPoll,
}

impl Driver {
    pub(crate) fn new(shard: Arc<Shard>) -> Self {
        Self {
            shard,
            buffers: RxBuffers::new(),
            timer: None,
            timer_at: Instant::FAR_FUTURE,
            wakes: Vec::new(),
            is_blocked: false,
            was_empty: true,
            has_message: false,
            busy_poll: BusyPoll::new(),
        }
    }

    /// Receives until the device has no more, the budget is used, or a small packet has ended a sleep.
    fn receive(&mut self, cx: &mut Context<'_>) -> io::Result<Received> {
        let mut was_empty = std::mem::take(&mut self.was_empty);
        let mut bytes = 0;
        for _ in 0..BUDGET_PACKETS {
            match self.shard.device.poll_recv(cx, self.buffers.for_next_packet()) {
                Poll::Pending => {
                    self.was_empty = true;
                    return Ok(Received::All);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(meta)) => {
                    let packet = self.buffers.take_packet();
                    bytes += packet.len();
                    self.shard.receive(packet, meta);
                    if std::mem::take(&mut was_empty) && bytes <= SMALL {
                        self.has_message = true;
                        return Ok(Received::First);
                    }
                    if bytes >= BUDGET_BYTES {
                        break;
                    }
                }
            }
        }
        Ok(Received::Budget)
    }

    /// True when `deadline` has come. Else the task is woken then, or a little before.
    fn poll_deadline(&mut self, deadline: Instant, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.shard.clock.to_std(deadline) else { return false };
        // A timer that is set earlier stays: it costs one turn too many, setting it costs one every turn.
        if deadline < self.timer_at {
            let at = tokio::time::Instant::from_std(at);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(at),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(at))),
            }
            self.timer_at = deadline;
        }
        let timer = self.timer.as_mut().expect("set above, or earlier");
        if timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.timer_at = Instant::FAR_FUTURE;
        true
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let received = self.receive(cx)?;
            let is_writable = self.is_blocked && self.shard.device.poll_writable(cx)?.is_ready();
            let may_time_out = received != Received::First;
            let turn = self.shard.turn(is_writable, may_time_out, cx.waker(), &mut self.wakes);
            let has_woken = !self.wakes.is_empty();
            self.wakes.drain(..).for_each(Waker::wake);
            if turn.is_over {
                return Poll::Ready(Ok(()));
            }
            match received {
                Received::All => {}
                // Nobody is kept waiting.
                Received::First if !has_woken => continue,
                Received::First | Received::Budget => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            // Blocked just now: the device has to be asked once, so that it wakes this task.
            let was_blocked = std::mem::replace(&mut self.is_blocked, turn.is_blocked);
            let ask_device = turn.is_blocked && (is_writable || !was_blocked);
            let is_due = turn.deadline.is_some_and(|deadline| self.poll_deadline(deadline, cx));
            if !ask_device && !is_due {
                let has_message = std::mem::take(&mut self.has_message);
                if self.busy_poll.looks_again(has_message, turn.now, turn.busy_poll) {
                    look_again(cx);
                }
                return Poll::Pending;
            }
        }
    }
}

/// Has the task polled again after the runtime has looked for events without sleeping, and run the tasks they woke.
fn look_again(cx: &mut Context<'_>) {
    // Its first poll files the waker for that moment and gives `Pending`.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

impl Future for Driver {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.poll_turns(cx);
        if let Poll::Ready(result) = &result {
            self.shard.stop(result.as_ref().err().map_or(io::ErrorKind::NotConnected, io::Error::kind));
        }
        result
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shard.stop(io::ErrorKind::NotConnected);
    }
}
