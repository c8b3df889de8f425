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
    Ping,
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    list: VecDeque<Notice>,
    /// Entries whose socket is gone, at most.
    stale: usize,
}

/// Fewer stale entries than this are not worth looking for.
const SWEEP_AT: usize = 256;

impl Notices {
    pub(crate) fn push(&mut self, notice: Notice) {
        self.list.push_back(notice);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }
}

impl Stack {
    pub(crate) fn next_event(&mut self) -> Option<SocketEvent> {
        while let Some(notice) = self.notices.list.pop_front() {
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
                Notice::Ping => (!self.pings.is_empty()).then_some(SocketEvent::Ping),
            };
            if event.is_some() {
                return event;
            }
            self.notices.stale = self.notices.stale.saturating_sub(1);
        }
        None
    }

    /// A socket is gone that is on the list. Whoever never asks for events must not make it grow: when most entries are
    /// stale they are swept out, which costs each of them one look.
    pub(crate) fn leaves_notice(&mut self) {
        self.notices.stale += 1;
        if self.notices.stale < SWEEP_AT || self.notices.stale * 2 < self.notices.list.len() {
            return;
        }
        let Self { notices, sockets, listeners, udp, .. } = self;
        notices.stale = 0;
        notices.list.retain(|notice| match notice {
            Notice::Connection(id) => sockets.connection(*id).is_some(),
            Notice::Listener(id) | Notice::Pending(id) => listeners.get(*id).is_some(),
            Notice::Udp(id) => udp.exists(*id),
            Notice::Done(..) | Notice::Ping => true,
        });
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
