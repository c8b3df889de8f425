//! What follows for the stack after a connection was called: tables, lists, deadlines, and its end.
//!
//! Input:   a [`Disposition`].
//! Output:  the connection's entry in the deadline wheel, on the list of those who owe, and on the list of events.
//! Rules:   a connection in CLOSE leaves the table at once; an orphan is forgotten as soon as it owes nothing more.
//!          Linux: `tcp_done`, `tcp_time_wait`, `inet_csk_destroy_sock`.

use crate::id::ConnectionId;
use crate::observe::{Event, EventKind, EventMask};
use crate::stack::Readiness;
use crate::stack::Stack;
use crate::stack::demux::{SocketKey, SocketKind};
use crate::stack::sockets::{Holder, Marks};
use crate::tcp::connection::Disposition;
use crate::tcp::time_wait::TimeWait;
use crate::time::{Duration, Instant};

impl Stack {
    /// Acts on what became of a connection.
    pub(crate) fn settle(&mut self, now: Instant, id: ConnectionId, disposition: Disposition) {
        match disposition {
            Disposition::Keep => {}
            Disposition::Closed => self.leave_table(id, true),
            Disposition::TimeWait(mini) => self.enter_time_wait(now, id, mini),
        }
        self.refresh(now, id);
    }

    /// Takes over what changed inside a connection: its deadline, whether it owes, what its application may do now.
    pub(crate) fn refresh(&mut self, now: Instant, id: ConnectionId) {
        let owes = self.sockets.connection(id).is_some_and(|socket| socket.connection.owes(now));
        self.take_over(now, id, owes);
    }

    /// [`Stack::refresh`] of a connection that was just asked and gave nothing to send.
    pub(crate) fn refresh_idle(&mut self, now: Instant, id: ConnectionId) {
        self.take_over(now, id, false);
    }

    fn take_over(&mut self, now: Instant, id: ConnectionId, owes: bool) {
        let Some(socket) = self.sockets.connection_mut(id) else { return };
        let opening = socket.connection.take_over_opening();
        let is_accepted = !matches!(socket.holder, Holder::AcceptQueue(_));
        let deadline = socket.connection.next_deadline();
        let ready = socket.connection.take_readiness();
        let queued = socket.connection.queued_bytes();
        let before = core::mem::replace(&mut socket.charged, queued);
        self.world.limits.account(queued, before, &self.world.sysctl, &mut self.world.counters);
        let (in_table, holder) = (socket.in_table, socket.holder);
        if let Some((listener, how)) = opening
            && let Some(listener) = self.listeners.get_mut(listener)
        {
            listener.fast_open.over(is_accepted, how, now);
        }
        if owes && !core::mem::replace(&mut socket.owes, true) {
            self.owing.push_back(id);
        }
        if in_table {
            self.sockets.deadlines.file(SocketKey::new(SocketKind::Connection, id.index), deadline);
        } else if holder == Holder::Nobody && !owes {
            self.forget(now, id);
            return;
        }
        if ready != Readiness::default() {
            self.tell_connection(id, ready);
        }
    }

    /// The pair is free again, unless a mini socket takes it: then `frees_port` is false.
    fn leave_table(&mut self, id: ConnectionId, frees_port: bool) {
        let Some(socket) = self.sockets.connection(id) else { return };
        if !socket.in_table {
            return;
        }
        let (port, how) = (socket.connection.tuple().local.port(), socket.port);
        self.sockets.unhash_connection(id);
        if frees_port {
            self.ports.release(port, how);
        }
    }

    fn enter_time_wait(&mut self, now: Instant, id: ConnectionId, mini: TimeWait) {
        // Linux: tcp_time_wait(): "Sorry, if we're out of memory, just CLOSE this socket up."
        if self.world.limits.time_waits >= self.world.sysctl.tcp_max_tw_buckets {
            self.world.counters.tcp_time_wait_overflow += 1;
            self.leave_table(id, true);
            return;
        }
        let Some(socket) = self.sockets.connection(id).filter(|socket| socket.in_table) else { return };
        let (tuple, cookie) = (*socket.connection.tuple(), socket.connection.cookie());
        let life = mini.is_fin_wait_2().then(|| socket.connection.life());
        let options = socket.connection.options();
        let marks = Marks {
            reuseaddr: socket.port.reuseaddr,
            reuseport: options.reuseport,
            bound: socket.port.bound,
            displaced: false,
        };
        // Linux: inet_twsk_schedule(): up to 4 s counts as killed.
        if mini.remaining(now) > Duration::from_secs(4) {
            self.world.counters.tw += 1;
        } else {
            self.world.counters.tw_killed += 1;
        }
        self.leave_table(id, false);
        self.world.limits.time_waits += 1;
        self.sockets.add_time_wait(&tuple, mini, cookie, marks);
        if let Some(life) = life {
            self.keep_life(cookie, life);
        }
    }

    /// Removes a mini socket and gives its port back.
    pub(crate) fn remove_time_wait(&mut self, key: SocketKey) {
        if let Some((tuple, marks)) = self.sockets.remove_time_wait(key) {
            self.world.limits.time_waits = self.world.limits.time_waits.saturating_sub(1);
            self.ports.release(tuple.local.port(), marks.port());
        }
    }

    /// The end of a connection's block (Linux `tcp_destroy_sock`).
    pub(crate) fn forget(&mut self, now: Instant, id: ConnectionId) {
        self.leave_table(id, true);
        let Some(socket) = self.sockets.remove_connection(id) else { return };
        let world = &mut self.world;
        world.limits.account(0, socket.charged, &world.sysctl, &mut world.counters);
        let connection = &socket.connection;
        // A FIN-WAIT-2 that goes on as a mini socket has not ended.
        if !self.epilogues.contains_key(&connection.cookie()) {
            self.world.events.emit(EventMask::LIFE, || Event {
                at: now,
                cookie: connection.cookie(),
                tuple: Some(*connection.tuple()),
                kind: EventKind::Destroyed(Box::new(connection.life())),
            });
        }
        if socket.has_event {
            self.leaves_notice();
        }
    }
}
