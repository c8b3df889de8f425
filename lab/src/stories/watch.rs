//! Turns packets and socket tables into a story's moments: relative numbers, what a segment is for, who changed state.
//!
//! Owns:    the connections seen, their first sequence numbers and windows, the last state of each end.
//! Input:   every packet when it leaves, every socket table when it was looked at.
//! Output:  [`Moment`]s, in the order they were noticed.
//! Rules:   nothing here asks a stack for its reasons: the same rules read ours and Linux.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use lastack_core::observe::SocketRow;
use lastack_core::tcp::state::TcpState;

use super::Side;
use super::record::{Flow, Moment, Role, Seen, Segment, What};
use super::wire::Fate;
use crate::packet::{TcpFlags, TcpOption, TcpPacket};

/// A segment so long after the last reason for one was sent by a timer.
const AT_ONCE: Duration = Duration::from_millis(2);

/// What is known of a connection, by end.
#[derive(Clone, Debug, Default)]
struct Track {
    first_seq: [Option<u32>; 2],
    /// Largest relative sequence number sent, exclusive.
    sent: [u32; 2],
    /// Of it, acknowledged by the other end.
    acked: [u32; 2],
    window: [u32; 2],
    scale: [Option<u8>; 2],
}

/// The observer.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) moments: Vec<Moment>,
    pub(super) flows: Vec<Flow>,
    tracks: Vec<Track>,
    seen: [BTreeMap<usize, Seen>; 2],
    /// When each end last had a reason to send: a call, a segment that arrived.
    reason: [Duration; 2],
}

impl Watch {
    pub(super) fn add(&mut self, at: Duration, what: What) {
        self.moments.push(Moment { at, what });
    }

    /// An end has a reason to send something.
    pub(super) fn reason(&mut self, at: Duration, side: Side) {
        self.reason[side as usize] = at;
    }

    /// The connection a packet of `from` belongs to; a new one for a first SYN.
    pub(super) fn flow_of(&mut self, from: Side, packet: &TcpPacket) -> usize {
        let src = SocketAddr::new(packet.ip.src, packet.src_port);
        let dst = SocketAddr::new(packet.ip.dst, packet.dst_port);
        let (client, server) = if from == Side::Client { (src, dst) } else { (dst, src) };
        let known = self.flow_between(client, server);
        let opens = packet.flags.syn() && !packet.flags.ack();
        match known {
            Some(flow) if !opens || self.tracks[flow].first_seq[from as usize] == Some(packet.seq) => flow,
            _ => {
                self.flows.push(Flow { client, server });
                self.tracks.push(Track::default());
                self.flows.len() - 1
            }
        }
    }

    /// The newest connection of a pair.
    pub(super) fn flow_between(&self, client: SocketAddr, server: SocketAddr) -> Option<usize> {
        self.flows.iter().rposition(|flow| flow.client == client && flow.server == server)
    }

    /// Every pair seen, each once, as `side` has it.
    pub(super) fn pairs(&self, side: Side) -> Vec<(SocketAddr, SocketAddr)> {
        let mut pairs: Vec<_> =
            self.flows
                .iter()
                .map(|flow| {
                    if side == Side::Client { (flow.client, flow.server) } else { (flow.server, flow.client) }
                })
                .collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }

    /// A segment was sent.
    pub(super) fn on_segment(
        &mut self,
        at: Duration,
        from: Side,
        flow: usize,
        packet: &TcpPacket,
        fate: Fate,
    ) {
        let by_timer = at.saturating_sub(self.reason[from as usize]) > AT_ONCE;
        let track = &mut self.tracks[flow];
        let (me, other) = (from as usize, from.other() as usize);
        if packet.flags.syn() {
            track.first_seq[me].get_or_insert(packet.seq);
            track.scale[me] = packet.options.iter().find_map(|option| match option {
                TcpOption::WindowScale(shift) => Some(*shift),
                _ => None,
            });
        }
        let relative = |number: u32, base: Option<u32>| base.map_or(0, |base| number.wrapping_sub(base));
        let seq = relative(packet.seq, track.first_seq[me]);
        let ack = packet.flags.ack().then(|| relative(packet.ack, track.first_seq[other]));
        let scale = match track.scale {
            [Some(_), Some(_)] if !packet.flags.syn() => track.scale[me].unwrap_or(0),
            _ => 0,
        };
        let win = u32::from(packet.win) << scale;
        let takes = packet.len + u32::from(packet.flags.syn()) + u32::from(packet.flags.fin());
        let end = seq.wrapping_add(takes);
        let role = if packet.flags.rst() {
            Role::First
        } else if takes == 0 && seq.wrapping_add(1) == track.acked[me] && track.sent[me] >= track.acked[me] {
            if track.window[other] == 0 { Role::WindowProbe } else { Role::KeepaliveProbe }
        } else if takes > 0 && end <= track.sent[me] {
            Role::Again
        } else {
            Role::First
        };
        if !packet.flags.rst() {
            track.sent[me] = track.sent[me].max(end);
            track.window[me] = win;
        }
        if let Some(ack) = ack {
            track.acked[other] = track.acked[other].max(ack);
        }
        let segment = Segment {
            from,
            flow,
            flags: names(packet.flags),
            seq,
            len: packet.len,
            ack,
            win,
            role,
            by_timer,
            fate,
        };
        self.add(at, What::Segment(segment));
    }

    /// An end's sockets, as they are now.
    pub(super) fn on_rows(&mut self, at: Duration, side: Side, rows: &[SocketRow]) {
        let mut now = BTreeMap::new();
        for (flow, row) in self.connections(side, rows) {
            now.insert(flow, Seen { state: row.state, timer: row.timer.map(|timer| timer.kind) });
        }
        let before = core::mem::replace(&mut self.seen[side as usize], now.clone());
        for (flow, seen) in &now {
            let old = before.get(flow);
            if old.is_none_or(|old| old.state.name() != seen.state.name()) {
                let timer = old.and_then(|old| old.timer).map(|timer| timer.name());
                self.add(at, What::State { side, flow: *flow, state: Some(seen.state.name()), timer });
            }
        }
        for (flow, old) in &before {
            if !now.contains_key(flow) {
                let timer = old.timer.map(|timer| timer.name());
                self.add(at, What::State { side, flow: *flow, state: None, timer });
            }
        }
    }

    /// The connections among `rows`. A socket in CLOSE is none: Linux takes it out of its tables.
    pub(super) fn connections<'r>(
        &self,
        side: Side,
        rows: &'r [SocketRow],
    ) -> impl Iterator<Item = (usize, &'r SocketRow)> {
        rows.iter()
            .filter(|row| !matches!(row.state, TcpState::Listen | TcpState::Close))
            .filter_map(move |row| {
                let (client, server) = match side {
                    Side::Client => (row.local, row.remote),
                    Side::Server => (row.remote, row.local),
                };
                self.flow_between(client, server).map(|flow| (flow, row))
            })
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// The state one end of a connection had at the last look.
    pub(super) fn state(&self, side: Side, flow: usize) -> Option<TcpState> {
        self.seen[side as usize].get(&flow).map(|seen| seen.state)
    }
}

fn names(flags: TcpFlags) -> String {
    const NAMES: [(TcpFlags, &str); 6] = [
        (TcpFlags::SYN, "SYN"),
        (TcpFlags::FIN, "FIN"),
        (TcpFlags::RST, "RST"),
        (TcpFlags::PSH, "PSH"),
        (TcpFlags::URG, "URG"),
        (TcpFlags::ACK, "ACK"),
    ];
    let set: Vec<&str> =
        NAMES.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect();
    set.join(",")
}
