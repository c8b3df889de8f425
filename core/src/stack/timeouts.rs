//! Time has come: whoever is due is called, in order of time.
//!
//! Rules:   an entry in the wheel may be older than its socket's present deadline; then it is only filed anew.

use crate::error::SocketError;
use crate::ip::icmp;
use crate::observe::life::Ending;
use crate::stack::Stack;
use crate::stack::demux::{SocketKey, SocketKind};
use crate::tcp::half_open::HalfOpenTimeout;
use crate::time::{Duration, Instant};
use crate::wire::icmp::ErrorKind;
use crate::wire::transmit::RxMeta;
use crate::wire::{self};

impl Stack {
    pub(crate) fn on_timeout(&mut self, now: Instant) {
        while let Some(key) = self.sockets.deadlines.pop(now) {
            match key.kind() {
                SocketKind::Connection => self.on_connection_timeout(now, key),
                SocketKind::HalfOpenV4 | SocketKind::HalfOpenV6 => self.on_half_open_timeout(now, key),
                SocketKind::TimeWaitV4 | SocketKind::TimeWaitV6 => self.on_time_wait_timeout(now, key),
            }
        }
        self.expire_fragments(now);
        while self.link.paths.expire(now).is_some() {}
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        [self.sockets.deadlines.next(), self.link.fragments.poll_timeout()].into_iter().flatten().min()
    }

    fn on_connection_timeout(&mut self, now: Instant, key: SocketKey) {
        let id = self.sockets.connection_id(key);
        let Some(socket) = self.sockets.connection_mut(id) else { return };
        if socket.connection.next_deadline() > now {
            self.refresh(now, id);
            return;
        }
        let disposition = socket.connection.on_timeout(&mut self.world.cx(now));
        self.settle(now, id, disposition);
        let Some(socket) = self.sockets.connection(id).filter(|socket| socket.in_table) else { return };
        let next = socket.connection.next_deadline();
        debug_assert!(next > now, "a timer that fired is set anew or off");
        if next <= now {
            // Never twice at one moment, whatever a timer thinks: the loop that called must end.
            self.sockets.deadlines.remove(key);
            self.sockets.deadlines.file(key, now + Duration::from_nanos(1));
        }
    }

    fn on_half_open_timeout(&mut self, now: Instant, key: SocketKey) {
        let Some(found) = self.sockets.half_open_mut(key) else { return };
        let half_open = found.half_open;
        if half_open.deadline > now {
            let deadline = half_open.deadline;
            self.sockets.deadlines.file(key, deadline);
            return;
        }
        let Some(listener) = self.listeners.get_mut(found.listener) else {
            self.sockets.remove_half_open(key);
            return;
        };
        let was_young = half_open.timeouts == 0;
        let verdict = half_open.on_timeout(
            found.cookie,
            &found.tuple,
            &listener.options,
            listener.syn_queue(),
            &mut self.world.cx(now),
        );
        match verdict {
            HalfOpenTimeout::Keep => {
                if was_young && half_open.timeouts > 0 {
                    listener.young = listener.young.saturating_sub(1);
                }
                let deadline = half_open.deadline;
                self.sockets.deadlines.file(key, deadline);
            }
            HalfOpenTimeout::Expire => self.end_half_open(key, SocketError::TimedOut),
        }
    }

    fn on_time_wait_timeout(&mut self, now: Instant, key: SocketKey) {
        let Some(found) = self.sockets.time_wait_mut(key) else { return };
        if found.mini.expires > now {
            let expires = found.mini.expires;
            self.sockets.deadlines.file(key, expires);
        } else if !found.marks.displaced {
            // A displaced one has ended too; the decision about the SYN in its place finds that out.
            self.end_life(now, key, Ending::FinWait2Expired);
            self.remove_time_wait(key);
        }
    }

    fn expire_fragments(&mut self, now: Instant) {
        while let Some(expired) = self.link.fragments.expire(now) {
            self.world.counters.ip_reasm_fails += 1;
            // RFC 1122 3.3.2, RFC 8200 4.5: "Time Exceeded -- Fragment Reassembly Time Exceeded", if the first came.
            let Some(first) = expired.first else { continue };
            let Ok(packet) = wire::parse(&first, RxMeta::default()) else { continue };
            let kind = ErrorKind::TimeExceeded { code: 1 };
            if icmp::may_be_answered(&packet) && self.link.icmp_rate.allow(now, packet.ip.src, kind) {
                self.queue_icmp_error(first, packet.ip, kind, packet.ip.dst);
            }
        }
    }
}
