//! Who waits for what: one small entry a socket, found by the socket's index.
//!
//! Owns:    [`Slots`], the tasks and threads that wait for a socket, and [`Decisions`], the accepted SYNs whose
//!          handshake is not done.
//! Input:   [`SocketEvent`]s of the stack. Each is told once, so whoever is to wait looks first and registers
//!          under the same lock.
//! Output:  wakers, collected by the caller and woken after the lock is released.

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
socket_id!(ConnectionId ListenerId UdpId PendingId);

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

/// Accepted SYNs whose handshake is not done, or whose end nobody took yet.
#[derive(Debug, Default)]
pub(crate) struct Decisions(Vec<Decision>);

#[derive(Debug, Default)]
enum Decision {
    #[default]
    None,
    Waiting(PendingId, Option<Waker>),
    Done(PendingId, Result<ConnectionId, SocketError>),
}

impl Decisions {
    /// `id` was accepted: its end is to be kept.
    pub(crate) fn accepted(&mut self, id: PendingId) {
        if self.0.len() <= id.index() {
            self.0.resize_with(id.index() + 1, Decision::default);
        }
        self.0[id.index()] = Decision::Waiting(id, None);
    }

    /// The end, if it has come; else `waker` is woken when it comes.
    pub(crate) fn take(&mut self, id: PendingId, waker: &Waker) -> Option<Result<ConnectionId, SocketError>> {
        match self.0.get_mut(id.index()) {
            Some(Decision::Waiting(known, place)) if *known == id => {
                *place = Some(waker.clone());
                None
            }
            Some(decision) => match *decision {
                Decision::Done(known, result) if known == id => {
                    *decision = Decision::None;
                    Some(result)
                }
                // Overwritten by a later SYN: cannot happen while the id's owner lives.
                _ => Some(Err(SocketError::ConnectionAborted)),
            },
            None => Some(Err(SocketError::ConnectionAborted)),
        }
    }

    /// Nobody waits for `id` any more. Gives the connection that it became meanwhile.
    pub(crate) fn abandon(&mut self, id: PendingId) -> Option<ConnectionId> {
        let decision = self.0.get_mut(id.index())?;
        match *decision {
            Decision::Waiting(known, _) if known == id => {
                *decision = Decision::None;
                None
            }
            Decision::Done(known, result) if known == id => {
                *decision = Decision::None;
                result.ok()
            }
            _ => None,
        }
    }

    /// The end has come. Gives the connection back when nobody waits for it.
    fn done(
        &mut self,
        id: PendingId,
        result: Result<ConnectionId, SocketError>,
        wakes: &mut Vec<Waker>,
    ) -> Option<ConnectionId> {
        match self.0.get_mut(id.index()) {
            Some(Decision::Waiting(known, waker)) if *known == id => {
                wakes.extend(waker.take());
                self.0[id.index()] = Decision::Done(id, result);
                None
            }
            _ => result.ok(),
        }
    }

    fn all(&mut self, wakes: &mut Vec<Waker>) {
        for decision in &mut self.0 {
            if let Decision::Waiting(_, waker) = decision {
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
            _ => {}
        }
    }

    /// Collects everybody: nothing will happen any more.
    pub(crate) fn all(&mut self, wakes: &mut Vec<Waker>) {
        self.connections.all(wakes);
        self.listeners.all(wakes);
        self.udp.all(wakes);
        self.decisions.all(wakes);
    }
}
