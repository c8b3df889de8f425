//! Accept-any: SYNs that wait until the program in front decides — accept, refuse, unreachable or drop.
//!
//! Owns:    a pending SYN from its arrival to its decision, and from acceptance to the end of its handshake.
//! Input:   SYNs for places no other listener has; decisions; RSTs of the client.
//! Output:  [`SocketEvent::Pending`](crate::SocketEvent::Pending) and [`SocketEvent::PendingDone`](crate::SocketEvent::PendingDone).
//! Rules:   nothing is answered before the decision; a repeated SYN joins; the number is bounded and there are no SYN
//!          cookies (a cookie would be an answer). A TIME-WAIT of the pair stays until the SYN is accepted.
//! Differs: Linux has nothing of the kind.

use bytes::Bytes;

use crate::error::SocketError;
use crate::id::{ConnectionId, FourTuple, ListenerId, PendingId};
use crate::ip::icmp;
use crate::observe::{DropReason, EventKind, EventMask, ResetReason};
use crate::stack::demux::SocketKey;
use crate::stack::ingress::Arrival;
use crate::stack::notices::Notice;
use crate::stack::tuple::Packed;
use crate::stack::{Gone, PendingSyn, Stack, Unreachable};
use crate::tcp::reset::answer_with_reset;
use crate::tcp::seq::SeqNum;
use crate::time::Instant;
use crate::wire::IpFields;
use crate::wire::icmp::Version;
use crate::wire::segment::{Flags, Segment, SegmentHeader};

/// One pending SYN.
#[derive(Debug)]
pub(crate) struct PendingEntry {
    listener: ListenerId,
    half_open: SocketKey,
    syn: SegmentHeader,
    arrived: Instant,
    /// The application knows of it: it will be told how it ends.
    given: bool,
    accepted: bool,
    /// The TIME-WAIT mini socket of the pair, out of the table meanwhile.
    displaced: Option<SocketKey>,
}

impl Stack {
    /// A SYN for the accept-any listener. `time_wait`: the pair's mini socket and the initial sequence number it asks for.
    pub(crate) fn on_any_syn(
        &mut self,
        now: Instant,
        id: ListenerId,
        packed: &Packed,
        tuple: &FourTuple,
        arrival: Arrival<'_>,
        time_wait: Option<(SocketKey, SeqNum)>,
    ) {
        let syn = arrival.segment;
        let is_full = self.is_full();
        let Some(any) = self.listeners.get_mut(id).and_then(|listener| listener.any.as_mut()) else { return };
        if any.pending >= any.max_pending || is_full {
            self.world.counters.pending_overflow += 1;
            self.world.counters.listen_drops += 1;
            self.world.cx(now).drop_segment(0, tuple, DropReason::ConnectionLimit);
            return;
        }
        any.pending += 1;
        let iss = time_wait.map_or_else(|| self.isn.iss(packed, now), |(_, iss)| iss);
        let cookie = self.sockets.new_cookie();
        let Some(half_open) = self.new_half_open(now, id, packed, tuple, syn, iss) else { return };
        self.save_syn(id, cookie, arrival);
        let displaced = time_wait.map(|(key, _)| key);
        if let Some(key) = displaced {
            self.sockets.displace_time_wait(key);
        }
        let key = self.sockets.add_half_open(*packed, half_open, cookie, id, 0);
        let (index, generation) = self.pending.insert(PendingEntry {
            listener: id,
            half_open: key,
            syn: syn.header,
            arrived: now,
            given: false,
            accepted: false,
            displaced,
        });
        if let Some(half_open) = self.sockets.half_open_mut(key) {
            *half_open.pending = index;
        }
        self.world.counters.pending_syns += 1;
        if let Some(listener) = self.listeners.get_mut(id) {
            if let Some(any) = listener.any.as_mut() {
                any.undecided.push_back(PendingId { index, generation });
            }
            if !core::mem::replace(&mut listener.has_event, true) {
                self.notices.push(Notice::Pending(id));
            }
        }
    }

    /// A segment for a SYN that waits for its decision. True: dealt with; false: it was accepted, the handshake goes on.
    pub(crate) fn on_undecided_segment(
        &mut self,
        now: Instant,
        key: SocketKey,
        tuple: &FourTuple,
        arrival: Arrival<'_>,
    ) -> bool {
        let segment = arrival.segment;
        let Some(half_open) = self.sockets.half_open_mut(key) else { return false };
        let (cookie, irs, index) = (half_open.cookie, half_open.half_open.irs, *half_open.pending);
        let Some(id) = self.pending_id(index) else { return false };
        if self.pending.get(id.index, id.generation).is_none_or(|entry| entry.accepted) {
            return false;
        }
        let (flags, seq) = (segment.header.flags, segment.header.seq);
        let mut cx = self.world.cx(now);
        if flags.rst() {
            // The client gave up. It knows no sequence number of ours; its own must fit (RFC 5961 3.2's caution).
            if seq == irs + 1 || seq == irs {
                cx.counters.attempt_fails += 1;
                cx.counters.embryonic_rsts += 1;
                cx.emit(cookie, tuple, || EventKind::ResetReceived, EventMask::RESET);
                self.end_pending(now, id, Some(SocketError::ConnectionReset));
            } else {
                cx.drop_segment(cookie, tuple, DropReason::TcpReset);
            }
        } else if flags.syn() && !flags.ack() && seq == irs {
            cx.drop_segment(cookie, tuple, DropReason::SynJoined);
        } else if flags.syn() && !flags.ack() {
            // Another attempt from the same port: the old one is over.
            self.end_pending(now, id, Some(SocketError::ConnectionReset));
            self.on_tcp(now, *tuple, arrival);
        } else {
            cx.drop_segment(cookie, tuple, DropReason::TcpInvalidAck);
        }
        true
    }

    fn pending_id(&self, index: u32) -> Option<PendingId> {
        self.pending.at(index).map(|_| PendingId { index, generation: self.pending.generation(index) })
    }

    pub(crate) fn next_undecided(&mut self, id: ListenerId) -> Option<PendingSyn> {
        loop {
            let any = self.listeners.get_mut(id)?.any.as_mut()?;
            let pending = any.undecided.pop_front()?;
            let Some(entry) = self.pending.get_mut(pending.index, pending.generation) else { continue };
            entry.given = true;
            let arrived = entry.arrived;
            let Some(half_open) = self.sockets.half_open_mut(entry.half_open) else { continue };
            return Some(PendingSyn {
                id: pending,
                tuple: half_open.tuple,
                arrived,
                cookie: half_open.cookie,
            });
        }
    }

    pub(crate) fn accept_pending(&mut self, now: Instant, id: PendingId) -> Result<(), Gone> {
        let entry = self.undecided(id)?;
        entry.accepted = true;
        entry.given = true;
        let (key, displaced, listener) = (entry.half_open, entry.displaced.take(), entry.listener);
        // The new connection takes the pair over for good.
        if let Some(time_wait) = displaced {
            self.remove_time_wait(time_wait);
        }
        let half_open = self.sockets.half_open_mut(key).ok_or(Gone)?;
        let listener = self.listeners.get_mut(listener).ok_or(Gone)?;
        let tuple = half_open.tuple;
        half_open.half_open.send_syn_ack(&tuple, &listener.options, None, &mut self.world.cx(now));
        listener.syn_queue += 1;
        listener.young += 1;
        let deadline = half_open.half_open.deadline;
        self.sockets.deadlines.file(key, deadline);
        Ok(())
    }

    pub(crate) fn refuse_pending(&mut self, now: Instant, id: PendingId) -> Result<(), Gone> {
        let entry = self.undecided(id)?;
        let (key, syn) = (entry.half_open, entry.syn);
        let half_open = self.sockets.half_open_mut(key).ok_or(Gone)?;
        let (tuple, cookie) = (half_open.tuple, half_open.cookie);
        let segment = bare_segment(&tuple, syn, half_open.half_open.syn_class);
        answer_with_reset(cookie, &tuple, &segment, ResetReason::Refused, &mut self.world.cx(now));
        self.world.counters.pending_refused += 1;
        self.end_pending(now, id, None);
        Ok(())
    }

    pub(crate) fn answer_pending_unreachable(
        &mut self,
        now: Instant,
        id: PendingId,
        why: Unreachable,
    ) -> Result<(), Gone> {
        let entry = self.undecided(id)?;
        let (key, syn) = (entry.half_open, entry.syn);
        let half_open = self.sockets.half_open_mut(key).ok_or(Gone)?;
        let (tuple, tos) = (half_open.tuple, half_open.half_open.syn_class);
        let (src, dst) = (tuple.remote.ip(), tuple.local.ip());
        let quote = icmp::quote_segment(&IpFields { src, dst, ttl: 64, tos, id: 0 }, &syn);
        let kind = icmp::unreachable(Version::of(src), why);
        self.send_icmp_error(quote, src, dst, kind);
        self.world.counters.pending_unreachable += 1;
        self.end_pending(now, id, None);
        Ok(())
    }

    pub(crate) fn drop_pending(&mut self, now: Instant, id: PendingId) -> Result<(), Gone> {
        let key = self.undecided(id)?.half_open;
        let half_open = self.sockets.half_open_mut(key).ok_or(Gone)?;
        let (tuple, cookie) = (half_open.tuple, half_open.cookie);
        self.world.cx(now).drop_segment(cookie, &tuple, DropReason::PolicyDrop);
        self.world.counters.pending_dropped += 1;
        self.end_pending(now, id, None);
        Ok(())
    }

    fn undecided(&mut self, id: PendingId) -> Result<&mut PendingEntry, Gone> {
        self.pending.get_mut(id.index, id.generation).filter(|entry| !entry.accepted).ok_or(Gone)
    }

    /// A pending SYN ends without a connection. `error`: the application is told, if it knows of it.
    fn end_pending(&mut self, now: Instant, id: PendingId, error: Option<SocketError>) {
        let Some(entry) = self.pending.remove(id.index, id.generation) else { return };
        self.sockets.remove_half_open(entry.half_open);
        if let Some(listener) = self.listeners.get_mut(entry.listener)
            && let Some(any) = listener.any.as_mut()
        {
            any.pending -= 1;
            if !entry.given {
                any.undecided.retain(|other| *other != id);
            }
        }
        if let Some(time_wait) = entry.displaced {
            match self.sockets.time_wait_mut(time_wait).map(|socket| socket.mini.expires) {
                Some(expires) if expires > now => self.sockets.restore_time_wait(time_wait),
                _ => self.remove_time_wait(time_wait),
            }
        }
        if let Some(error) = error.filter(|_| entry.given) {
            self.notices.push(Notice::Done(id, Err(error)));
        }
    }

    /// Ends a SYN that waits for its decision. False: it does not (any more).
    pub(crate) fn end_undecided(&mut self, now: Instant, index: u32, error: SocketError) -> bool {
        let Some(id) = self.pending_id(index) else { return false };
        if self.undecided(id).is_err() {
            return false;
        }
        self.end_pending(now, id, Some(error));
        true
    }

    /// An accepted SYN's half-open connection is gone, by its handshake's end or without a connection.
    pub(crate) fn pending_done(&mut self, index: u32, result: Result<ConnectionId, SocketError>) {
        let Some(id) = self.pending_id(index) else { return };
        let Some(entry) = self.pending.remove(id.index, id.generation) else { return };
        if let Some(any) = self.listeners.get_mut(entry.listener).and_then(|listener| listener.any.as_mut()) {
            any.pending -= 1;
        }
        self.notices.push(Notice::Done(id, result));
    }

    /// The accept-any listener closes: nothing that waits for it stays. Rare, so a look at each is good enough.
    pub(crate) fn forget_pending_of(&mut self, listener: ListenerId) {
        let all: Vec<PendingId> = self
            .pending
            .iter()
            .filter(|(_, _, entry)| entry.listener == listener)
            .map(|(index, generation, _)| PendingId { index, generation })
            .collect();
        for id in all {
            let Some(entry) = self.pending.remove(id.index, id.generation) else { continue };
            self.sockets.remove_half_open(entry.half_open);
            if let Some(time_wait) = entry.displaced {
                self.sockets.restore_time_wait(time_wait);
            }
            if entry.given {
                self.notices.push(Notice::Done(id, Err(SocketError::ConnectionAborted)));
            }
        }
    }
}

/// The SYN again as a segment, for what answers segments.
fn bare_segment(tuple: &FourTuple, header: SegmentHeader, tos: u8) -> Segment {
    Segment {
        src: tuple.remote.ip(),
        dst: tuple.local.ip(),
        header: SegmentHeader { flags: header.flags.without(Flags::FIN), ..header },
        payload: Bytes::new(),
        segs: 1,
        tos,
        ttl: 64,
        truesize: 0,
    }
}
