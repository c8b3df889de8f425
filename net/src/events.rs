//! Events for whoever asks: each observer has its own bounded queue.
//!
//! Owns:    [`Observers`] in the shard, and [`Events`], one observer's end.
//! Rules:   a slow observer loses events and learns how many; it never slows the stack.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lastack_core::Stack;
use lastack_core::observe::{Event, EventMask};
use lastack_core::time::Duration;

use crate::shard::Shard;

/// Events that may wait for one observer.
const QUEUE_LIMIT: usize = 16_384;

/// Everybody who observes.
#[derive(Debug, Default)]
pub(crate) struct Observers {
    list: Vec<Observer>,
    next_key: u64,
}

#[derive(Debug)]
struct Observer {
    key: u64,
    mask: EventMask,
    queue: VecDeque<Event>,
    lost: u64,
    waker: Option<Waker>,
}

impl Observers {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Gives `event` to everybody who asked for its group.
    pub(crate) fn push(&mut self, event: &Event, wakes: &mut Vec<Waker>) {
        for observer in &mut self.list {
            if !observer.mask.intersects(event.kind.group()) {
                continue;
            }
            if observer.queue.len() < QUEUE_LIMIT {
                observer.queue.push_back(event.clone());
            } else {
                observer.lost += 1;
            }
            wakes.extend(observer.waker.take());
        }
    }

    /// Collects everybody: nothing will happen any more.
    pub(crate) fn all(&mut self, wakes: &mut Vec<Waker>) {
        wakes.extend(self.list.iter_mut().filter_map(|observer| observer.waker.take()));
    }

    fn add(&mut self, mask: EventMask, stack: &mut Stack) -> u64 {
        if self.list.is_empty() {
            // Left from the last observer.
            while stack.poll_observed().is_some() {}
        }
        self.next_key += 1;
        let key = self.next_key;
        self.list.push(Observer { key, mask, queue: VecDeque::new(), lost: 0, waker: None });
        stack.observe(self.mask());
        key
    }

    fn remove(&mut self, key: u64, stack: &mut Stack) {
        self.list.retain(|observer| observer.key != key);
        stack.observe(self.mask());
    }

    fn mask(&self) -> EventMask {
        self.list.iter().fold(EventMask::NONE, |all, observer| all.with(observer.mask))
    }

    fn get(&mut self, key: u64) -> &mut Observer {
        self.list
            .iter_mut()
            .find(|observer| observer.key == key)
            .expect("an observer lives as long as its `Events`")
    }
}

/// Events as they happen, from [`Net::events`](crate::Net::events).
#[derive(Debug)]
pub struct Events {
    shard: Arc<Shard>,
    key: u64,
    /// Events taken from the shard and not yet given.
    taken: VecDeque<Event>,
}

/// What [`Events::next`] gives.
#[derive(Clone, PartialEq, Debug)]
pub enum Observed {
    /// An event.
    Event(Event),
    /// So many events did not fit in the queue: the observer was too slow.
    Lost(u64),
}

impl Events {
    pub(crate) fn new(shard: Arc<Shard>, mask: EventMask) -> Self {
        let key = shard.with(|state, _| state.observers.add(mask, &mut state.stack));
        Self { shard, key, taken: VecDeque::new() }
    }

    /// The next event; `Ready(None)`: the driver has ended, nothing more will come.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Observed>> {
        if let Some(event) = self.taken.pop_front() {
            return Poll::Ready(Some(Observed::Event(event)));
        }
        self.shard.with(|state, _| {
            let is_running = state.check_running().is_ok();
            let observer = state.observers.get(self.key);
            // All at once: one lock a batch, and the two queues swap their room.
            std::mem::swap(&mut observer.queue, &mut self.taken);
            if let Some(event) = self.taken.pop_front() {
                return Poll::Ready(Some(Observed::Event(event)));
            }
            if observer.lost > 0 {
                return Poll::Ready(Some(Observed::Lost(std::mem::take(&mut observer.lost))));
            }
            if !is_running {
                return Poll::Ready(None);
            }
            observer.waker = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// The next event; `None`: the driver has ended, nothing more will come.
    pub async fn next(&mut self) -> Option<Observed> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// True when the next event is at hand.
    pub(crate) fn has_more(&self) -> bool {
        !self.taken.is_empty()
    }

    /// The next event, waiting in this thread for at most `timeout`.
    ///
    /// # Errors
    /// `WouldBlock`: nothing happened in time.
    pub fn next_timeout(&mut self, timeout: Duration) -> io::Result<Option<Observed>> {
        let clock = self.shard.clock;
        crate::park::wait(&clock, Some(clock.now() + timeout), |cx| self.poll_next(cx).map(io::Result::Ok))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shard.with(|state, _| state.observers.remove(self.key, &mut state.stack));
    }
}

#[cfg(test)]
mod tests {
    use lastack_core::Config;
    use lastack_core::observe::EventKind;
    use lastack_core::time::Instant;

    use super::*;

    fn event() -> Event {
        Event { at: Instant::ZERO, cookie: 1, tuple: None, kind: EventKind::ResetReceived }
    }

    #[test]
    fn a_slow_observer_loses_events_and_is_told_how_many() {
        let mut stack = Stack::new(Config::default(), Instant::ZERO);
        let mut observers = Observers::default();
        let slow = observers.add(EventMask::RESET, &mut stack);
        let other = observers.add(EventMask::LOSS, &mut stack);
        for _ in 0..QUEUE_LIMIT + 5 {
            observers.push(&event(), &mut Vec::new());
        }
        assert_eq!((observers.get(slow).queue.len(), observers.get(slow).lost), (QUEUE_LIMIT, 5));
        assert_eq!((observers.get(other).queue.len(), observers.get(other).lost), (0, 0));
    }

    #[test]
    fn the_stack_records_what_anybody_asks_for_and_nothing_else() {
        let mut stack = Stack::new(Config::default(), Instant::ZERO);
        let mut observers = Observers::default();
        let one = observers.add(EventMask::RESET, &mut stack);
        let two = observers.add(EventMask::LOSS, &mut stack);
        assert_eq!(observers.mask(), EventMask::RESET.with(EventMask::LOSS));
        observers.remove(one, &mut stack);
        assert_eq!(observers.mask(), EventMask::LOSS);
        observers.remove(two, &mut stack);
        assert_eq!(observers.mask(), EventMask::NONE);
    }
}
