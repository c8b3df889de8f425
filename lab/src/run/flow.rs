//! One connection of a script: its addresses, and the mapping between script numbers and live ones.
//!
//! Rules:   packet-script language, section 5. In segments with SYN numbers are as written (the host's shifted
//!          by its real ISN); in all others they are relative to the two ISNs.
//! Differs: a SYN may come again on the same pair (TIME-WAIT); the host's SYN-ACK then begins a new mapping.

use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

use crate::packet::{TcpFlags, TcpOption, TcpPacket};
use crate::target::Fd;
use core::time::Duration;

#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) fd: Option<Fd>,
    /// `connect` was called and the first SYN has not been seen: the local port is not known.
    pub(super) awaits_first_syn: bool,
    /// Segments of this connection that arrived while another was under test.
    pub(super) waiting: VecDeque<(Duration, TcpPacket)>,
    /// The peer's ISN; scripts' and live are the same.
    peer_isn: u32,
    last_peer_syn: Option<u32>,
    /// The host's ISN, live and as the script wrote it.
    host_isn: u32,
    host_isn_script: u32,
    host_isn_known: bool,
    handshake_over: bool,
    /// The host's timestamps: script value → live value.
    timestamps: BTreeMap<u32, u32>,
    /// live - script, from the first pair.
    timestamp_offset: Option<u32>,
    /// `ack` of the host's last segment: where an RST is accepted.
    last_host_ack: u32,
}

/// What a recording calls the host's first timestamp.
const FIRST_TIMESTAMP: u32 = 500;

impl Flow {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local,
            remote,
            fd: None,
            awaits_first_syn: false,
            waiting: VecDeque::new(),
            peer_isn: 0,
            last_peer_syn: None,
            host_isn: 0,
            host_isn_script: 0,
            host_isn_known: false,
            handshake_over: false,
            timestamps: BTreeMap::new(),
            timestamp_offset: None,
            last_host_ack: 0,
        }
    }

    /// Where an RST of the peer is certainly accepted; `None` before the host has acknowledged anything.
    pub(super) fn reset_seq(&self) -> Option<u32> {
        (self.last_host_ack != 0).then_some(self.last_host_ack)
    }

    fn host_shift(&self, syn: bool) -> u32 {
        if syn { self.host_isn.wrapping_sub(self.host_isn_script) } else { self.host_isn }
    }

    fn peer_shift(&self, syn: bool) -> u32 {
        if syn { 0 } else { self.peer_isn }
    }

    /// The live sequence number of something the host sent, for quoting in ICMP.
    pub(super) fn live_host_seq(&self, script: u32) -> u32 {
        script.wrapping_add(self.host_isn)
    }

    /// Script → live, in place, for a segment the peer sends.
    pub(super) fn make_live(&mut self, packet: &mut TcpPacket, ecr_scaled: bool) -> Result<(), String> {
        let syn = packet.flags.syn();
        if syn && !packet.flags.rst() {
            if !self.handshake_over {
                self.peer_isn = packet.seq;
            }
            self.last_peer_syn = Some(packet.seq);
        }
        packet.seq = packet.seq.wrapping_add(self.peer_shift(syn));
        let acks = packet.flags.ack();
        if acks {
            packet.ack = packet.ack.wrapping_add(self.host_shift(syn));
        }
        if !syn && acks && self.host_isn_known && self.last_peer_syn.is_some() {
            self.handshake_over = true;
        }
        for option in &mut packet.options {
            match option {
                TcpOption::Sack(blocks) => {
                    for (start, end) in blocks {
                        *start = start.wrapping_add(self.host_shift(syn));
                        *end = end.wrapping_add(self.host_shift(syn));
                    }
                }
                TcpOption::Timestamps { ecr, .. } if acks => {
                    *ecr = match (self.timestamps.get(ecr), self.timestamp_offset) {
                        (Some(live), _) => *live,
                        (None, Some(offset)) if ecr_scaled => ecr.wrapping_add(offset),
                        _ => {
                            return Err(format!(
                                "the host never sent timestamp {ecr}, so it cannot be echoed"
                            ));
                        }
                    };
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Learns from a segment the host sent, beside the script's line for it.
    pub(super) fn learn(&mut self, live: &TcpPacket, script_seq: u32, script_options: Option<&[TcpOption]>) {
        if live.flags.syn() {
            // A SYN-ACK for a new SYN on an old pair begins a new connection.
            if self.handshake_over && live.seq != self.host_isn {
                self.handshake_over = false;
                self.timestamps.clear();
                self.timestamp_offset = None;
                if let (true, Some(seq)) = (live.flags.ack(), self.last_peer_syn) {
                    self.peer_isn = seq;
                }
            }
            self.host_isn = live.seq;
            self.host_isn_script = script_seq;
            self.host_isn_known = true;
        } else if !live.flags.rst() {
            self.handshake_over = true;
        }
        if live.flags.ack() {
            self.last_host_ack = live.ack;
        }
        let val = |options: &[TcpOption]| {
            options.iter().find_map(|option| match option {
                TcpOption::Timestamps { val, .. } => Some(*val),
                _ => None,
            })
        };
        if let (Some(live), Some(script)) = (val(&live.options), script_options.and_then(val)) {
            self.timestamp_offset.get_or_insert(live.wrapping_sub(script));
            self.timestamps.insert(script, live);
        }
    }

    /// The script's names for the host's timestamps when nobody wrote any: its clock, counted from the first.
    pub(super) fn name_timestamps(&self, live: &[TcpOption]) -> Vec<TcpOption> {
        let name = |option: &TcpOption| match option {
            TcpOption::Timestamps { val, ecr } => {
                let offset = self.timestamp_offset.unwrap_or(val.wrapping_sub(FIRST_TIMESTAMP));
                TcpOption::Timestamps { val: val.wrapping_sub(offset), ecr: *ecr }
            }
            other => other.clone(),
        };
        live.iter().map(name).collect()
    }

    /// Live → script, for a segment the host sent.
    pub(super) fn to_script(&self, live: &TcpPacket) -> TcpPacket {
        let mut packet = live.clone();
        let syn = packet.flags.syn();
        // RFC 9293 3.10.7.1: a reset that answers a segment without ACK has sequence number zero, literally.
        if !(packet.flags.contains(TcpFlags::RST | TcpFlags::ACK) && packet.seq == 0) {
            packet.seq = packet.seq.wrapping_sub(self.host_shift(syn));
        }
        if packet.flags.ack() {
            packet.ack = packet.ack.wrapping_sub(self.peer_shift(syn));
        }
        for option in &mut packet.options {
            match option {
                TcpOption::Sack(blocks) => {
                    for (start, end) in blocks {
                        *start = start.wrapping_sub(self.peer_shift(syn));
                        *end = end.wrapping_sub(self.peer_shift(syn));
                    }
                }
                TcpOption::Timestamps { val, .. } => {
                    *val = val.wrapping_sub(self.timestamp_offset.unwrap_or(0));
                }
                _ => {}
            }
        }
        packet
    }

    pub(super) fn is_between(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.local == local && self.remote == remote
    }
}
