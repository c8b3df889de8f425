//! One end of a connection, as far as its segments and the other end's acknowledgments tell.
//!
//! Owns:    sequence numbers sent and acknowledged, the window it offers, what it repeated, its figures.
//! Input:   each segment it sends ([`End::sent`]) and each acknowledgment that comes for it ([`End::acknowledged`]).
//! Output:  [`Sent`]: what a segment was.
//! Rules:   a segment left of what was sent is a repeat, unless it fills a hole that is younger than a round trip: then
//!          it was overtaken on its way. Window scales count from the handshake only; without it windows are not told.
//! Not here: states (`conversation`), words (`explain`).

use std::collections::VecDeque;
use std::net::SocketAddr;

use lastack_core::tcp::seq::{SeqNum, SeqRange};

use super::frame::Seen;

/// Segments in flight whose sending time is kept; of more the times are not kept.
const TIMED: usize = 256;
/// Holes that are remembered; of more the oldest is forgotten.
const HOLES: usize = 32;
/// A hole that is filled sooner was reordered where no round trip is known (Wireshark's figure).
const REORDERED_NS: u64 = 3_000_000;

/// What a segment was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sent {
    /// It carried something new, or nothing.
    Usual,
    /// It carried only what had been sent before.
    Repeat,
    /// It asked whether a closed window has opened.
    WindowProbe,
    /// It asked whether the other end is still there.
    KeepAlive,
}

/// One end.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) addr: SocketAddr,
    /// Sequence number of its SYN.
    pub(super) iss: Option<SeqNum>,
    /// Its SYN came with an ACK: it was asked.
    pub(super) is_passive: bool,
    /// First sequence number it has not sent.
    pub(super) snd_nxt: Option<SeqNum>,
    /// First one that is not acknowledged.
    pub(super) snd_una: Option<SeqNum>,
    /// What follows its FIN.
    pub(super) fin: Option<SeqNum>,
    /// When its FIN was first sent it had acknowledged the other's.
    pub(super) closed_second: bool,
    /// Its window, bytes; unknown without the handshake.
    pub(super) window: Option<u32>,
    /// Since when it offers no window.
    pub(super) zero_since_ns: Option<u64>,
    /// Repeats or probes since the last progress.
    pub(super) unanswered: u32,
    /// Probes it has sent to the other's closed window since that closed.
    pub(super) window_probes: u32,
    /// Payload bytes, repeats left out.
    pub(super) bytes: u64,
    /// Repeated segments.
    pub(super) repeats: u64,
    wscale: Option<u8>,
    in_flight: VecDeque<InFlight>,
    holes: VecDeque<(SeqRange, u64)>,
    /// The two last times the same thing was sent: their distance is the timer's.
    tries: [u64; 2],
    srtt_us: Option<u64>,
    min_rtt_us: Option<u64>,
    segs: u64,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    end: SeqNum,
    at_ns: u64,
    repeated: bool,
}

impl End {
    pub(super) fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            iss: None,
            is_passive: false,
            snd_nxt: None,
            snd_una: None,
            fin: None,
            closed_second: false,
            window: None,
            zero_since_ns: None,
            unanswered: 0,
            window_probes: 0,
            bytes: 0,
            repeats: 0,
            wscale: None,
            in_flight: VecDeque::new(),
            holes: VecDeque::new(),
            tries: [0; 2],
            srtt_us: None,
            min_rtt_us: None,
            segs: 0,
        }
    }

    /// It sent a segment; `peer` has got `peer_window` and speaks window scaling or not.
    pub(super) fn sent(&mut self, at_ns: u64, seen: &Seen, peer: &Self) -> Sent {
        let kind = self.classify(at_ns, seen, peer);
        self.segs += 1;
        let flags = seen.header.flags;
        if flags.syn() {
            self.iss.get_or_insert(seen.header.seq);
            self.is_passive |= flags.ack();
            self.wscale = seen.header.options.wscale.map(|shift| shift.min(14));
        }
        match kind {
            Sent::Usual => self.move_on(at_ns, seen),
            Sent::Repeat => {
                self.repeats += 1;
                self.tried(at_ns);
                for sent in self.in_flight.iter_mut().filter(|sent| sent.end.after(seen.header.seq)) {
                    sent.repeated = true;
                }
            }
            Sent::WindowProbe => {
                self.window_probes += 1;
                self.tried(at_ns);
            }
            Sent::KeepAlive => {}
        }
        if flags.fin() && self.fin.is_none() {
            self.fin = Some(seen.end_seq());
            self.closed_second = peer.fin.is_some_and(|fin| peer.snd_una == Some(fin))
                || flags.ack() && peer.fin == Some(seen.header.ack);
        }
        if !flags.rst() {
            self.offer(at_ns, seen, peer);
        }
        kind
    }

    fn classify(&mut self, at_ns: u64, seen: &Seen, peer: &Self) -> Sent {
        let (seq, flags) = (seen.header.seq, seen.header.flags);
        let Some(snd_nxt) = self.snd_nxt else { return Sent::Usual };
        if flags.rst() {
            return Sent::Usual;
        }
        let is_left = seq.before(snd_nxt);
        let nothing_in_flight = self.snd_una.is_some_and(|una| una.at_or_after(snd_nxt));
        // Linux asks with the number before the next one and no data, others with the next byte.
        let asks = !flags.syn()
            && !flags.fin()
            && seen.len <= 1
            && nothing_in_flight
            && is_left
            && seq + 1 == snd_nxt;
        if asks {
            return if peer.window == Some(0) { Sent::WindowProbe } else { Sent::KeepAlive };
        }
        let end = seen.end_seq();
        if seen.seq_len() == 0 || end.after(snd_nxt) || !is_left {
            return Sent::Usual;
        }
        if peer.window == Some(0) && seen.len == 1 {
            return Sent::WindowProbe;
        }
        let filled = self.holes.iter().position(|(hole, _)| hole.covers(SeqRange::new(seq, end)));
        if let Some(at) = filled {
            let (hole, since) = self.holes[at];
            self.fill(at, hole, SeqRange::new(seq, end));
            let trip = self.min_rtt_us.map_or(REORDERED_NS, |us| (us * 1000).max(REORDERED_NS));
            if at_ns.saturating_sub(since) < trip {
                self.bytes += u64::from(seen.len);
                return Sent::Usual;
            }
        }
        Sent::Repeat
    }

    /// A part of the hole has come.
    fn fill(&mut self, at: usize, hole: SeqRange, part: SeqRange) {
        let (_, since) = self.holes.remove(at).expect("it was just found");
        for rest in [SeqRange::new(hole.start, part.start), SeqRange::new(part.end, hole.end)] {
            if !rest.is_empty() && self.holes.len() < HOLES {
                self.holes.push_back((rest, since));
            }
        }
    }

    /// A segment with something new, or with nothing.
    fn move_on(&mut self, at_ns: u64, seen: &Seen) {
        let (seq, end) = (seen.header.seq, seen.end_seq());
        let Some(snd_nxt) = self.snd_nxt else {
            self.snd_nxt = Some(end);
            // What came before the capture is taken as acknowledged.
            self.snd_una = Some(seq);
            self.bytes += u64::from(seen.len);
            if seen.seq_len() > 0 {
                self.flies(at_ns, end);
            }
            return;
        };
        if !end.after(snd_nxt) {
            return;
        }
        if seq.after(snd_nxt) {
            if self.holes.len() == HOLES {
                self.holes.pop_front();
            }
            self.holes.push_back((SeqRange::new(snd_nxt, seq), at_ns));
        }
        let new = end.since(seq.max(snd_nxt)).saturating_sub(u32::from(seen.header.flags.fin()));
        self.bytes += u64::from(new.min(seen.len));
        self.snd_nxt = Some(end);
        self.flies(at_ns, end);
    }

    fn flies(&mut self, at_ns: u64, end: SeqNum) {
        if self.in_flight.is_empty() {
            self.tries = [at_ns; 2];
        }
        if self.in_flight.len() < TIMED {
            self.in_flight.push_back(InFlight { end, at_ns, repeated: false });
        }
    }

    fn tried(&mut self, at_ns: u64) {
        self.unanswered = self.unanswered.saturating_add(1);
        self.tries = [self.tries[1], at_ns];
    }

    /// The window it offers from now on.
    fn offer(&mut self, at_ns: u64, seen: &Seen, peer: &Self) {
        let wire = u32::from(seen.header.wnd);
        let shift = match (seen.header.flags.syn(), self.iss, peer.iss) {
            // RFC 7323 2.2: the window of a SYN is not scaled.
            (true, ..) => Some(0),
            (false, Some(_), Some(_)) => {
                Some(if peer.wscale.is_some() { self.wscale.unwrap_or(0) } else { 0 })
            }
            // Zero is zero at any scale.
            (false, ..) => (wire == 0).then_some(0),
        };
        self.window = shift.map(|shift| wire << shift);
        if wire > 0 {
            self.zero_since_ns = None;
        } else if seen.header.flags.ack() {
            self.zero_since_ns.get_or_insert(at_ns);
        }
    }

    /// The other end sent an ACK.
    pub(super) fn acknowledged(&mut self, at_ns: u64, seen: &Seen) {
        if !seen.header.flags.ack() || seen.header.flags.rst() {
            return;
        }
        let ack = seen.header.ack;
        let Some(snd_nxt) = self.snd_nxt else { return };
        // An ACK of what the capture has not shown: it missed segments.
        if ack.after(snd_nxt) {
            self.snd_nxt = Some(ack);
        }
        let progress = self.snd_una.is_none_or(|una| ack.after(una));
        if progress {
            self.snd_una = Some(ack);
            self.unanswered = 0;
            self.holes.retain(|(hole, _)| hole.end.after(ack));
        }
        let mut newest = None;
        while let Some(first) = self.in_flight.front().filter(|first| first.end.at_or_before(ack)) {
            newest = (!first.repeated).then_some(first.at_ns);
            self.in_flight.pop_front();
        }
        if let Some(sent) = newest {
            self.sample(at_ns.saturating_sub(sent) / 1000);
        }
        // Linux: an answer clears `icsk_probes_out`, the back-off stays until the window opens.
        if self.in_flight.is_empty() {
            self.unanswered = 0;
        }
        if seen.header.wnd > 0 {
            self.window_probes = 0;
        }
    }

    /// RFC 6298's smoothing.
    fn sample(&mut self, rtt_us: u64) {
        self.srtt_us = Some(self.srtt_us.map_or(rtt_us, |srtt| (7 * srtt + rtt_us) / 8));
        self.min_rtt_us = Some(self.min_rtt_us.map_or(rtt_us, |min| min.min(rtt_us)));
    }

    /// Sent and not acknowledged.
    pub(super) fn outstanding(&self) -> u32 {
        match (self.snd_nxt, self.snd_una) {
            (Some(nxt), Some(una)) if nxt.after(una) => nxt.since(una),
            _ => 0,
        }
    }

    /// Its SYN is acknowledged.
    pub(super) fn syn_acked(&self) -> bool {
        self.iss.is_some_and(|iss| self.snd_una.is_some_and(|una| una.after(iss)))
    }

    /// Its FIN is acknowledged.
    pub(super) fn fin_acked(&self) -> bool {
        self.fin.is_some_and(|fin| self.snd_una.is_some_and(|una| una.at_or_after(fin)))
    }

    /// Since when the oldest thing in flight has been waiting.
    pub(super) fn waiting_since_ns(&self) -> Option<u64> {
        self.in_flight.front().map(|first| first.at_ns).filter(|_| self.outstanding() > 0)
    }

    /// When the next repeat or probe is due, if the interval doubles as it has.
    pub(super) fn next_try_ns(&self) -> u64 {
        let [before, last] = self.tries;
        last + 2 * last.saturating_sub(before)
    }

    /// Smoothed round trip between the capture and the other end, and back, microseconds.
    pub(super) fn rtt_us(&self) -> Option<u64> {
        self.srtt_us
    }

    /// Segments it sent.
    pub(super) fn segments(&self) -> u64 {
        self.segs
    }
}
