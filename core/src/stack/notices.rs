//! What applications wait for: a list on which each socket is at most once.
//!
//! Owns:    the order in which [`SocketEvent`]s are told.
//! Rules:   facts that become true before they are told are merged; a socket that is gone is passed over.

use std::collections::VecDeque;

use crate::error::SocketError;
use crate::id::{ConnectionId, ListenerId, PendingId, UdpId};
use crate::stack::sockets::Holder;
use crate::stack::{Readiness, SocketEvent, Stack};

/// One entry of the list.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    Connection(ConnectionId),
    Listener(ListenerId),
    Pending(ListenerId),
    Done(PendingId, Result<ConnectionId, SocketError>),
    Udp(UdpId),
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Notices(VecDeque<Notice>);

impl Notices {
    pub(crate) fn push(&mut self, notice: Notice) {
        self.0.push_back(notice);
    }
}

impl Stack {
    pub(crate) fn next_event(&mut self) -> Option<SocketEvent> {
        while let Some(notice) = self.notices.0.pop_front() {
            let event = match notice {
                Notice::Connection(id) => self.sockets.connection_mut(id).and_then(|socket| {
                    socket.has_event = false;
                    if socket.holder != Holder::App {
                        return None;
                    }
                    let ready = core::mem::take(&mut socket.ready);
                    (ready != Readiness::default()).then_some(SocketEvent::Connection(id, ready))
                }),
                Notice::Listener(id) => self.listeners.get_mut(id).and_then(|listener| {
                    listener.has_event = false;
                    (!listener.accept_queue.is_empty()).then_some(SocketEvent::Listener(id))
                }),
                Notice::Pending(id) => self.listeners.get_mut(id).and_then(|listener| {
                    listener.has_event = false;
                    let any = listener.any.as_ref()?;
                    (!any.undecided.is_empty()).then_some(SocketEvent::Pending(id))
                }),
                Notice::Done(id, result) => Some(SocketEvent::PendingDone(id, result)),
                Notice::Udp(id) => self.udp.take_readiness(id).map(|ready| SocketEvent::Udp(id, ready)),
            };
            if event.is_some() {
                return event;
            }
        }
        None
    }

    /// Adds to what a connection's application is going to be told.
    pub(crate) fn tell_connection(&mut self, id: ConnectionId, ready: Readiness) {
        let Some(socket) = self.sockets.connection_mut(id) else { return };
        socket.ready = socket.ready.with(ready);
        // In an accept queue it waits until `accept`.
        if socket.holder == Holder::App
            && socket.ready != Readiness::default()
            && !core::mem::replace(&mut socket.has_event, true)
        {
            self.notices.push(Notice::Connection(id));
        }
    }
}
