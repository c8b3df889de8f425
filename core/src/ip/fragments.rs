//! Reassembly of IPv4 and IPv6 fragments.
//!
//! Owns:    [`Fragments`], the pieces of datagrams that are not complete, and their deadlines.
//! Input:   [`Fragment`]s as the door gives them, the clock.
//! Output:  whole packets in wire form, to go through the door once more; datagrams given up.
//! Rules:   RFC 791 3.2, RFC 8200 4.5, RFC 5722 (overlap drops the datagram), RFC 3168 5.3 (ECN). Linux: `ip_frag_queue()`,
//!          `inet_frag_queue_insert()`, `net.ipv4.ipfrag_{time, high_thresh}`, `net.ipv6.ip6frag_time`.
//! Differs: beyond `high_thresh` every fragment is refused, not only those that begin a datagram: the bound is a bound.
//! Not here: sending fragments.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::observe::DropReason;
use crate::time::{Duration, Instant};
use crate::wire::ip::{IpHeader, MAX_LEN};
use crate::wire::packet::Fragment;
use crate::wire::{ipv4, ipv6};

/// Bounds of reassembly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentLimits {
    /// Linux `ipfrag_high_thresh`, bytes of fragments kept, bookkeeping included. Default 4 MiB.
    pub high_thresh: usize,
    /// Linux `ipfrag_time`: how long an IPv4 datagram may take, from its first fragment. Default 30 s.
    pub time_v4: Duration,
    /// Linux `ip6frag_time`. Default 60 s, as RFC 8200 says.
    pub time_v6: Duration,
}

impl Default for FragmentLimits {
    fn default() -> Self {
        Self { high_thresh: 4 << 20, time_v4: Duration::from_secs(30), time_v6: Duration::from_secs(60) }
    }
}

/// Charged for a piece besides its bytes, and for a datagram besides its pieces: what the maps take, rounded up.
const PIECE_CHARGE: usize = 64;
const DATAGRAM_CHARGE: usize = 320;

/// Datagrams that wait for their missing pieces.
///
/// Pieces are copied in, so that a small one does not keep a large receive buffer alive.
#[derive(Debug)]
pub struct Fragments {
    limits: FragmentLimits,
    datagrams: BTreeMap<Key, Datagram>,
    deadlines: BTreeSet<(Instant, Key)>,
    memory: usize,
}

/// What the fragments of one datagram have in common (RFC 791: with the protocol; RFC 8200: without).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    protocol: u8,
}

#[derive(Debug)]
struct Datagram {
    deadline: Instant,
    /// By place in the payload; neither empty nor overlapping.
    pieces: BTreeMap<u32, Bytes>,
    received: u32,
    /// Payload length, known once the last fragment came.
    len: Option<u32>,
    first: Option<FirstHeader>,
    /// Bit `n`: a fragment came with ECN bits `n`.
    ecn_seen: u8,
    charge: usize,
}

/// The headers of the fragment with offset 0; the whole packet gets its unfragmentable part.
#[derive(Debug)]
struct FirstHeader {
    bytes: Bytes,
    unfragmentable_len: usize,
    next_header_at: usize,
}

/// A datagram that was given up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expired {
    /// The first fragment in wire form, if it came: then, and only then, the sender is told by
    /// [`ErrorKind::TimeExceeded`](crate::wire::icmp::ErrorKind::TimeExceeded), code 1.
    pub first: Option<Bytes>,
}

impl Fragments {
    /// Nothing waits.
    pub fn new(limits: FragmentLimits) -> Self {
        Self { limits, datagrams: BTreeMap::new(), deadlines: BTreeSet::new(), memory: 0 }
    }

    /// Takes a fragment; `packet` and `ip` are what it was parsed from. When it completes its datagram: the whole packet,
    /// for [`crate::wire::parse`]. A whole packet that is a fragment once more (IPv6, nested) is to be dropped.
    ///
    /// # Errors
    /// [`DropReason::FragLimit`]: no room. [`DropReason::FragReassembly`]: it contradicts the fragments before it, and
    /// the whole datagram is gone, or it is impossible in itself.
    pub fn push(
        &mut self,
        now: Instant,
        packet: &Bytes,
        ip: &IpHeader,
        fragment: &Fragment,
    ) -> Result<Option<Bytes>, DropReason> {
        let piece = Piece::check(ip, fragment)?;
        let charge = PIECE_CHARGE + piece.bytes.len() + ip.header_len as usize;
        if self.memory + charge + DATAGRAM_CHARGE > self.limits.high_thresh {
            return Err(DropReason::FragLimit);
        }
        let key = Key {
            src: ip.src,
            dst: ip.dst,
            id: fragment.info.id,
            protocol: if ip.src.is_ipv4() { ip.protocol } else { 0 },
        };
        let time = if ip.src.is_ipv4() { self.limits.time_v4 } else { self.limits.time_v6 };
        let datagram = self.datagrams.entry(key).or_insert_with(|| {
            let deadline = now + time;
            self.deadlines.insert((deadline, key));
            self.memory += DATAGRAM_CHARGE;
            Datagram::new(deadline)
        });
        match datagram.fit(&piece) {
            Fit::Duplicate => return Ok(None),
            Fit::Contradiction => {
                self.forget(key);
                return Err(DropReason::FragReassembly);
            }
            Fit::New => {}
        }
        datagram.insert(packet, ip, fragment, piece);
        datagram.charge += charge;
        self.memory += charge;
        if !datagram.is_complete() {
            return Ok(None);
        }
        self.forget(key).and_then(Datagram::assemble).map(Some).ok_or(DropReason::FragReassembly)
    }

    /// When [`Fragments::expire`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Gives up one datagram whose time is over by `now`; call until `None`.
    pub fn expire(&mut self, now: Instant) -> Option<Expired> {
        let (deadline, key) = *self.deadlines.first()?;
        if now < deadline {
            return None;
        }
        self.forget(key).map(|datagram| Expired { first: datagram.first_fragment() })
    }

    /// Bytes charged against [`FragmentLimits::high_thresh`].
    pub fn memory(&self) -> usize {
        self.memory
    }

    fn forget(&mut self, key: Key) -> Option<Datagram> {
        let datagram = self.datagrams.remove(&key)?;
        self.deadlines.remove(&(datagram.deadline, key));
        self.memory -= datagram.charge;
        Some(datagram)
    }
}

/// A fragment's part of the payload, found to be possible.
struct Piece<'a> {
    start: u32,
    bytes: &'a [u8],
    is_last: bool,
}

impl<'a> Piece<'a> {
    fn check(ip: &IpHeader, fragment: &'a Fragment) -> Result<Self, DropReason> {
        let mut bytes = &fragment.payload[..];
        if fragment.info.more && !bytes.len().is_multiple_of(8) {
            // Linux: ip_frag_queue() cuts the rest off; RFC 8200 4.5: the fragment must be discarded.
            if ip.src.is_ipv6() {
                return Err(DropReason::FragReassembly);
            }
            bytes = &bytes[..bytes.len() / 8 * 8];
        }
        let end = usize::from(fragment.info.offset) + bytes.len();
        if bytes.is_empty() || whole_len(ip.src, fragment.info.unfragmentable_len as usize, end) > MAX_LEN {
            return Err(DropReason::FragReassembly);
        }
        Ok(Self { start: u32::from(fragment.info.offset), bytes, is_last: !fragment.info.more })
    }

    fn end(&self) -> u32 {
        self.start + self.bytes.len() as u32
    }
}

/// What the length field of the whole packet has to say: IPv6 does not count the fixed header.
fn whole_len(address: IpAddr, unfragmentable_len: usize, payload_len: usize) -> usize {
    let uncounted = if address.is_ipv4() { 0 } else { ipv6::HEADER_LEN };
    (unfragmentable_len + payload_len).saturating_sub(uncounted)
}

enum Fit {
    New,
    Duplicate,
    Contradiction,
}

impl Datagram {
    fn new(deadline: Instant) -> Self {
        Self {
            deadline,
            pieces: BTreeMap::new(),
            received: 0,
            len: None,
            first: None,
            ecn_seen: 0,
            charge: DATAGRAM_CHARGE,
        }
    }

    fn fit(&self, piece: &Piece<'_>) -> Fit {
        let (start, end) = (piece.start, piece.end());
        let known_end = self.pieces.last_key_value().map_or(0, |(start, bytes)| start + bytes.len() as u32);
        // Linux: ip_frag_queue(): the end is where the last fragment says, and nothing lies beyond it.
        let ends_elsewhere = match self.len {
            Some(len) => end > len || (piece.is_last && end != len),
            None => piece.is_last && end < known_end,
        };
        if ends_elsewhere {
            return Fit::Contradiction;
        }
        // Linux: inet_frag_queue_insert(): what is there already is a duplicate, any other overlap is an attack.
        let from = self.pieces.range(..=start).next_back().map_or(start, |(at, _)| *at);
        let (mut overlaps, mut covered_to) = (false, start);
        for (at, bytes) in self.pieces.range(from..end) {
            let piece_end = at + bytes.len() as u32;
            if piece_end <= start {
                continue; // the piece before, without touching
            }
            overlaps = true;
            if *at > covered_to {
                break;
            }
            covered_to = piece_end;
        }
        match (overlaps, covered_to >= end) {
            (true, true) => Fit::Duplicate,
            (true, false) => Fit::Contradiction,
            (false, _) => Fit::New,
        }
    }

    fn insert(&mut self, packet: &Bytes, ip: &IpHeader, fragment: &Fragment, piece: Piece<'_>) {
        if piece.is_last {
            self.len = Some(piece.end());
        }
        if piece.start == 0 {
            self.first = Some(FirstHeader {
                bytes: Bytes::copy_from_slice(&packet[..ip.header_len as usize]),
                unfragmentable_len: fragment.info.unfragmentable_len as usize,
                next_header_at: fragment.info.next_header_at as usize,
            });
        }
        self.ecn_seen |= 1 << ip.ecn();
        self.received += piece.bytes.len() as u32;
        self.pieces.insert(piece.start, Bytes::copy_from_slice(piece.bytes));
    }

    fn is_complete(&self) -> bool {
        self.len == Some(self.received) // pieces do not overlap, so as many bytes are all bytes
    }

    /// The whole packet; `None` where the pieces do not make one.
    fn assemble(self) -> Option<Bytes> {
        const NOT_ECT: u8 = 1;
        const CE: u8 = 1 << 3;
        let first = self.first.as_ref()?;
        let is_v4 = first.bytes[0] >> 4 == 4;
        let address: IpAddr = if is_v4 { [0; 4].into() } else { [0u8; 16].into() };
        let payload_len = self.received as usize;
        // The first fragment's headers may be longer than those of the fragment that was checked.
        let whole_len = whole_len(address, first.unfragmentable_len, payload_len);
        // RFC 3168 5.3; Linux: ip_frag_ecn_table: Not-ECT together with anything else drops the datagram.
        if whole_len > MAX_LEN || (self.ecn_seen & NOT_ECT != 0 && self.ecn_seen != NOT_ECT) {
            return None;
        }
        let mut packet = Vec::with_capacity(first.unfragmentable_len + payload_len);
        packet.extend_from_slice(&first.bytes[..first.unfragmentable_len]);
        let ce = if self.ecn_seen & CE != 0 { 3 } else { 0 };
        if is_v4 {
            packet[1] |= ce;
            packet[2..4].copy_from_slice(&(whole_len as u16).to_be_bytes());
            packet[6] &= 0x40; // keeps DF, clears MF and the offset
            packet[7] = 0;
            ipv4::set_checksum(&mut packet);
        } else {
            packet[1] |= ce << 4;
            packet[4..6].copy_from_slice(&(whole_len as u16).to_be_bytes());
            // The fragment header, its first byte names what follows it.
            packet[first.next_header_at] = first.bytes[first.unfragmentable_len];
        }
        for bytes in self.pieces.values() {
            packet.extend_from_slice(bytes);
        }
        Some(Bytes::from(packet))
    }

    fn first_fragment(&self) -> Option<Bytes> {
        let first = self.first.as_ref()?;
        let payload = self.pieces.get(&0)?;
        Some(Bytes::from([&first.bytes[..], payload].concat()))
    }
}

#[cfg(test)]
mod tests;
