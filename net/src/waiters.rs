//! Who waits for what: one small entry a socket, found by the socket's index.
//!
//! Owns:    [`Slots`], the tasks and threads that wait for a socket, and [`Decisions`], how the SYNs end that an
//!          application holds.
//! Input:   [`SocketEvent`]s of the stack. Each is told once, so whoever is to wait looks first and registers
//!          under the same lock.
//! Output:  wakers, collected by the caller and woken after the lock is released.

use std::collections::BTreeMap;
use std::task::Waker;

use lastack_core::error::SocketError;
use lastack_core::id::{ConnectionId, ListenerId, PendingId, UdpId};
use lastack_core::stack::{Readiness, SocketEvent};
use lastack_core::{Stack, time::Instant};

/// What a reader waits for.
pub(crate) const READ: Readiness =
    Readiness::READABLE.with(Readiness::PEER_CLOSED).with(Readiness::HANGUP).with(Readiness::ERROR);
/// What a writer waits for.
pub(crate) const WRITE: Readiness =
    Readiness::WRITABLE.with(Readiness::CONNECTED).with(Readiness::HANGUP).with(Readiness::ERROR);

/// Waiters of one socket beyond the first reader and writer, at most. One more wakes the oldest for nothing.
const MORE_LIMIT: usize = 64;

/// The ids that have an index into a table.
pub(crate) trait SocketId: Copy + PartialEq {
    fn index(self) -> usize;
}

macro_rules! socket_id {
    ($($id:ty)+) => {$(
        impl SocketId for $id {
            fn index(self) -> usize {
                <$id>::index(self)
            }
        }
    )+};
}
socket_id!(ConnectionId ListenerId UdpId);

/// The waiters of all sockets of one kind.
#[derive(Debug)]
pub(crate) struct Slots<Id>(Vec<Slot<Id>>);

#[derive(Debug)]
struct Slot<Id> {
    id: Option<Id>,
    read: Option<Waker>,
    write: Option<Waker>,
    more: Vec<(Readiness, Waker)>,
}

impl<Id> Default for Slots<Id> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<Id> Default for Slot<Id> {
    fn default() -> Self {
        Self { id: None, read: None, write: None, more: Vec::new() }
    }
}

impl<Id: SocketId> Slots<Id> {
    /// `waker` is to be woken when socket `id` gets ready for any of `on`.
    pub(crate) fn wait(&mut self, id: Id, on: Readiness, waker: &Waker) {
        let index = id.index();
        if self.0.len() <= index {
            self.0.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.0[index];
        if slot.id != Some(id) {
            *slot = Slot { id: Some(id), ..Slot::default() };
        }
        let place = match on {
            READ => &mut slot.read,
            WRITE => &mut slot.write,
            _ => return slot.wait_more(on, waker),
        };
        match place {
            Some(waiting) if waiting.will_wake(waker) => {}
            _ => {
                // A second reader does not silence the first.
                if let Some(first) = place.replace(waker.clone()) {
                    slot.wait_more(on, &first);
                }
            }
        }
    }

    /// Collects who waits for any of `ready` on socket `id`.
    fn ready(&mut self, id: Id, ready: Readiness, wakes: &mut Vec<Waker>) {
        let Some(slot) = self.0.get_mut(id.index()).filter(|slot| slot.id == Some(id)) else { return };
        if ready.intersects(READ) {
            wakes.extend(slot.read.take());
        }
        if ready.intersects(WRITE) {
            wakes.extend(slot.write.take());
        }
        if !slot.more.is_empty() {
            wakes.extend(slot.more.extract_if(.., |(on, _)| on.intersects(ready)).map(|(_, waker)| waker));
        }
    }

    /// Socket `id` is gone.
    pub(crate) fn forget(&mut self, id: Id) {
        if let Some(slot) = self.0.get_mut(id.index()).filter(|slot| slot.id == Some(id)) {
            *slot = Slot::default();
        }
    }

    /// Collects everybody.
    fn all(&mut self, wakes: &mut Vec<Waker>) {
        for slot in &mut self.0 {
            wakes.extend(slot.read.take());
            wakes.extend(slot.write.take());
            wakes.extend(slot.more.drain(..).map(|(_, waker)| waker));
        }
    }
}

impl<Id> Slot<Id> {
    fn wait_more(&mut self, on: Readiness, waker: &Waker) {
        if self.more.iter().any(|(known, waiting)| *known == on && waiting.will_wake(waker)) {
            return;
        }
        if self.more.len() == MORE_LIMIT {
            self.more.remove(0).1.wake();
        }
        self.more.push((on, waker.clone()));
    }
}

/// The pending SYNs that an application holds: how they ended, or who waits for that.
///
/// By the whole id: a SYN that has ended leaves its index to the next one before its holder has looked.
#[derive(Debug, Default)]
pub(crate) struct Decisions(BTreeMap<PendingId, Decision>);

#[derive(Debug)]
enum Decision {
    Waiting(Option<Waker>),
    Done(Result<ConnectionId, SocketError>),
}

impl Decisions {
    /// An application got `id`: its end is to be kept.
    pub(crate) fn watch(&mut self, id: PendingId) {
        self.0.insert(id, Decision::Waiting(None));
    }

    /// The end, if it has come; else `waker` is woken when it comes.
    pub(crate) fn take(&mut self, id: PendingId, waker: &Waker) -> Option<Result<ConnectionId, SocketError>> {
        match self.0.get_mut(&id)? {
            Decision::Waiting(place) => {
                *place = Some(waker.clone());
                None
            }
            Decision::Done(result) => {
                let result = *result;
                self.0.remove(&id);
                Some(result)
            }
        }
    }

    /// Why `id` is gone, if it is; else `waker` is woken when it goes.
    pub(crate) fn peek_gone(&mut self, id: PendingId, waker: &Waker) -> Option<SocketError> {
        match self.0.get_mut(&id)? {
            Decision::Waiting(place) => *place = Some(waker.clone()),
            Decision::Done(Err(error)) => return Some(*error),
            Decision::Done(Ok(_)) => {}
        }
        None
    }

    /// The error for a decision that came too late.
    pub(crate) fn why_gone(&self, id: PendingId) -> std::io::Error {
        let errno = match self.0.get(&id) {
            Some(Decision::Done(Err(error))) => error.errno(),
            _ => libc::ECONNABORTED,
        };
        std::io::Error::from_raw_os_error(errno)
    }

    /// Nobody holds `id` any more. Gives the connection that it became and that nobody took.
    pub(crate) fn forget(&mut self, id: PendingId) -> Option<ConnectionId> {
        match self.0.remove(&id)? {
            Decision::Done(result) => result.ok(),
            Decision::Waiting(_) => None,
        }
    }

    /// The end has come. Gives the connection back when nobody waits for it.
    fn done(
        &mut self,
        id: PendingId,
        result: Result<ConnectionId, SocketError>,
        wakes: &mut Vec<Waker>,
    ) -> Option<ConnectionId> {
        let Some(decision) = self.0.get_mut(&id) else { return result.ok() };
        if let Decision::Waiting(waker) = std::mem::replace(decision, Decision::Done(result)) {
            wakes.extend(waker);
        }
        None
    }

    fn all(&mut self, wakes: &mut Vec<Waker>) {
        for decision in self.0.values_mut() {
            if let Decision::Waiting(waker) = decision {
                wakes.extend(waker.take());
            }
        }
    }
}

/// Everybody who waits for anything.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    pub(crate) connections: Slots<ConnectionId>,
    pub(crate) listeners: Slots<ListenerId>,
    pub(crate) udp: Slots<UdpId>,
    pub(crate) decisions: Decisions,
    /// Who takes pings.
    pub(crate) pings: Option<Waker>,
}

impl Waiters {
    /// Collects who is to be woken by `event`. A connection that nobody waits for any more is reset.
    pub(crate) fn on_event(
        &mut self,
        event: SocketEvent,
        now: Instant,
        stack: &mut Stack,
        wakes: &mut Vec<Waker>,
    ) {
        match event {
            SocketEvent::Connection(id, ready) => self.connections.ready(id, ready, wakes),
            SocketEvent::Listener(id) | SocketEvent::Pending(id) => {
                self.listeners.ready(id, Readiness::READABLE, wakes);
            }
            SocketEvent::PendingDone(id, result) => {
                if let Some(unwanted) = self.decisions.done(id, result, wakes) {
                    stack.abort(now, unwanted);
                }
            }
            SocketEvent::Udp(id, ready) => self.udp.ready(id, ready, wakes),
            SocketEvent::Ping => wakes.extend(self.pings.take()),
            _ => {}
        }
    }

    /// Collects everybody: nothing will happen any more.
    pub(crate) fn all(&mut self, wakes: &mut Vec<Waker>) {
        self.connections.all(wakes);
        self.listeners.all(wakes);
        self.udp.all(wakes);
        self.decisions.all(wakes);
        wakes.extend(self.pings.take());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Clone, Copy, PartialEq, Debug)]
    struct TestId(usize, u32);

    impl SocketId for TestId {
        fn index(self) -> usize {
            self.0
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (count.clone(), count.into())
    }

    fn ready(slots: &mut Slots<TestId>, id: TestId, ready: Readiness) {
        let mut wakes = Vec::new();
        slots.ready(id, ready, &mut wakes);
        wakes.into_iter().for_each(Waker::wake);
    }

    #[test]
    fn readers_and_writers_are_woken_apart() {
        let mut slots = Slots::default();
        let id = TestId(3, 0);
        let ((reads, read), (writes, write)) = (counted(), counted());
        slots.wait(id, READ, &read);
        slots.wait(id, WRITE, &write);
        ready(&mut slots, id, Readiness::READABLE);
        assert_eq!((reads.0.load(Ordering::Relaxed), writes.0.load(Ordering::Relaxed)), (1, 0));
        ready(&mut slots, id, Readiness::ERROR);
        assert_eq!((reads.0.load(Ordering::Relaxed), writes.0.load(Ordering::Relaxed)), (1, 1));
    }

    #[test]
    fn a_second_reader_does_not_silence_the_first() {
        let mut slots = Slots::default();
        let id = TestId(0, 0);
        let ((first, first_waker), (second, second_waker)) = (counted(), counted());
        slots.wait(id, READ, &first_waker);
        slots.wait(id, READ, &second_waker);
        slots.wait(id, READ, &second_waker);
        ready(&mut slots, id, Readiness::READABLE);
        assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (1, 1));
    }

    #[test]
    fn whoever_waited_for_an_older_socket_of_the_same_place_is_not_woken() {
        let mut slots = Slots::default();
        let (old, old_waker) = counted();
        slots.wait(TestId(0, 0), READ, &old_waker);
        let (new, new_waker) = counted();
        slots.wait(TestId(0, 1), READ, &new_waker);
        ready(&mut slots, TestId(0, 0), Readiness::READABLE);
        ready(&mut slots, TestId(0, 1), Readiness::READABLE);
        assert_eq!((old.0.load(Ordering::Relaxed), new.0.load(Ordering::Relaxed)), (0, 1));
    }

    #[test]
    fn waiters_are_bounded_and_the_oldest_makes_room_awake() {
        let mut slots = Slots::default();
        let id = TestId(0, 0);
        let drained = Readiness::DRAINED;
        let (oldest, waker) = counted();
        slots.wait(id, drained, &waker);
        for _ in 0..MORE_LIMIT {
            slots.wait(id, drained, &counted().1);
        }
        assert_eq!(oldest.0.load(Ordering::Relaxed), 1);
        assert_eq!(slots.0[0].more.len(), MORE_LIMIT);
    }
}
