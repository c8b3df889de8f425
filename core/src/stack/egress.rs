//! The way out: the next packet for the link.
//!
//! Input:   replies, the outbox, and the list of connections that owe something.
//! Output:  one [`Transmit`] a call: IP and transport header in front of payload that is not copied.
//! Rules:   replies first and in order; then ICMP and UDP; then connections in turn, one segment (or super-segment) each.

use core::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::error::UdpError;
use crate::id::UdpId;
use crate::ip::icmp;
use crate::ping::Ping;
use crate::stack::notices::Notice;
use crate::stack::outbox::{Outgoing, fragment};
use crate::stack::{Datagram, Stack, Unreachable};
use crate::tcp::connection::Composed;
use crate::tcp::context::Reply;
use crate::tcp::options::Hop;
use crate::time::Instant;
use crate::wire::icmp::{Echo, ErrorKind, Version};
use crate::wire::ip::protocol;
use crate::wire::transmit::{Transmit, TxChecksum};
use crate::wire::{IpFields, IpHeader, emit};

/// TTL and hop limit of UDP (Linux `ip_default_ttl`).
const TTL: u8 = 64;

impl Stack {
    pub(crate) fn next_packet(&mut self, now: Instant, out: &mut Transmit) -> bool {
        out.clear();
        let found =
            self.transmit_reply(out) || self.transmit_outbox(now, out) || self.transmit_owed(now, out);
        if found {
            self.world.counters.ip_out_requests += 1;
        }
        found
    }

    fn transmit_reply(&mut self, out: &mut Transmit) -> bool {
        let Some(Reply { tuple, header, hop: Hop { ttl, tos } }) = self.world.replies.pop() else {
            return false;
        };
        // Linux: ip_send_unicast_reply() and SYN-ACKs carry identification 0 with DF.
        emit::tcp(out, &IpFields { src: tuple.local.ip(), dst: tuple.remote.ip(), ttl, tos, id: 0 }, &header);
        true
    }

    fn transmit_owed(&mut self, now: Instant, out: &mut Transmit) -> bool {
        while let Some(id) = self.owing.pop_front() {
            let Some(socket) = self.sockets.connection_mut(id) else { continue };
            socket.owes = false;
            let connection = &mut socket.connection;
            let segment = connection.poll_transmit(out, &mut self.world.cx(now));
            if let Some(Composed { header, ecn }) = segment {
                let tuple = connection.tuple();
                let Hop { ttl, tos } = connection.options().hop(tuple);
                let segs = match out.segment_size {
                    0 => 1,
                    size => out.payload_len().div_ceil(usize::from(size)) as u16,
                };
                let fields = IpFields {
                    src: tuple.local.ip(),
                    dst: tuple.remote.ip(),
                    ttl,
                    tos: tos | ecn,
                    id: self.link.take_id(segs),
                };
                emit::tcp(out, &fields, &header);
                // Behind all others that owe, if it owes more.
                self.refresh(now, id);
                return true;
            }
            out.clear();
            // It thought so, and looking closer it did not: asked again only after something happened to it.
            self.refresh_idle(now, id);
        }
        false
    }

    fn transmit_outbox(&mut self, now: Instant, out: &mut Transmit) -> bool {
        let Some(next) = self.outbox.pop() else { return false };
        match next {
            Outgoing::Error { packet, ip, kind, from } => {
                icmp::error(out, &packet, &ip, kind, from, self.link.take_id(1));
                if matches!(kind, ErrorKind::Unreachable { .. }) {
                    self.world.counters.icmp_out_dest_unreachs += 1;
                }
            }
            Outgoing::EchoReply { ip, echo } => {
                icmp::echo_reply(out, &ip, &echo, self.link.take_id(1));
                self.world.counters.icmp_out_echo_reps += 1;
                self.fragment_if_needed(now, ip.src, out);
            }
            Outgoing::Datagram { owner, from, to, data } => {
                let len = data.len();
                out.payload.push(data);
                let fields =
                    IpFields { src: from.ip(), dst: to.ip(), ttl: TTL, tos: 0, id: self.link.take_id(1) };
                emit::udp(out, &fields, from.port(), to.port());
                self.world.counters.udp_out_datagrams += 1;
                if self.udp.sent(owner, len) {
                    self.notices.push(Notice::Udp(owner));
                }
                self.fragment_if_needed(now, to.ip(), out);
            }
            Outgoing::Fragment(packet) => {
                out.head.extend_from_slice(&packet);
            }
        }
        true
    }

    /// Cuts a datagram that the path does not carry; the first fragment stays in `out`.
    fn fragment_if_needed(&mut self, now: Instant, destination: IpAddr, out: &mut Transmit) {
        let mtu = self.link.mtu_for(now, destination) as usize;
        if out.len() <= mtu {
            return;
        }
        out.finish_checksum();
        let mut fragments = fragment(&out.to_vec(), mtu, u32::from(self.link.take_id(1))).into_iter();
        out.clear();
        if let Some(first) = fragments.next() {
            out.head.extend_from_slice(&first);
            out.checksum = TxChecksum::Complete;
        }
        self.outbox.put_fragments(fragments.collect());
    }

    // ---- what is put into the outbox

    pub(crate) fn send_echo_reply(&mut self, ip: IpHeader, echo: Echo) {
        if !self.outbox.push_icmp(Outgoing::EchoReply { ip, echo }) {
            self.world.counters.outbox_overflow += 1;
        }
    }

    /// Queues an ICMP error about `packet`, which came with header `ip`.
    pub(crate) fn queue_icmp_error(&mut self, packet: Bytes, ip: IpHeader, kind: ErrorKind, from: IpAddr) {
        if !self.outbox.push_icmp(Outgoing::Error { packet, ip, kind, from }) {
            self.world.counters.outbox_overflow += 1;
        }
    }

    /// Queues an ICMP error about a packet that is known only by its quote: it came from `src` for `dst`.
    pub(crate) fn send_icmp_error(&mut self, quote: Bytes, src: IpAddr, dst: IpAddr, kind: ErrorKind) {
        let ip = IpHeader {
            src,
            dst,
            protocol: protocol::TCP,
            ttl: TTL,
            tos: 0,
            id: 0,
            dont_fragment: true,
            header_len: if src.is_ipv4() { 20 } else { 40 },
            total_len: quote.len() as u32,
        };
        self.queue_icmp_error(quote, ip, kind, dst);
    }

    pub(crate) fn bind_udp(&mut self, mut local: SocketAddr) -> Result<UdpId, UdpError> {
        if !local.ip().is_unspecified() && !self.link.accepts(local.ip()) {
            return Err(UdpError::AddrNotAvailable);
        }
        if local.port() == 0 {
            let range = self.world.sysctl.ip_local_port_range;
            let Self { ports, udp, .. } = self;
            let port = ports.choose_for_bind(range, false, |port| !udp.uses_port(port));
            local.set_port(port.ok_or(UdpError::AddrNotAvailable)?);
        }
        self.udp.bind(local)
    }

    pub(crate) fn send_datagram(
        &mut self,
        id: UdpId,
        from: Option<SocketAddr>,
        to: SocketAddr,
        data: Bytes,
    ) -> Result<(), UdpError> {
        if !self.udp.exists(id) {
            return Err(UdpError::NotConnected);
        }
        // RFC 768, RFC 8200: what the length fields can say.
        let most = if to.is_ipv4() { 65_507 } else { 65_527 };
        if data.len() > most {
            return Err(UdpError::MessageTooLong);
        }
        let mut from = from.or(self.udp.local(id)).ok_or(UdpError::AddrNotAvailable)?;
        if from.ip().is_unspecified() {
            from.set_ip(self.link.source_for(to.ip()).ok_or(UdpError::NetworkUnreachable)?);
        }
        if from.is_ipv4() != to.is_ipv4() {
            return Err(UdpError::NetworkUnreachable);
        }
        if !self.link.accepts(from.ip()) || to.port() == 0 {
            return Err(UdpError::AddrNotAvailable);
        }
        self.udp.reserve(id, data.len())?;
        self.outbox.push_datagram(id, from, to, data);
        Ok(())
    }

    pub(crate) fn answer_ping(&mut self, ping: &Ping) {
        let Ping { from: src, to: dst, ident, seq, payload } = ping.clone();
        let ip = IpHeader {
            src,
            dst,
            protocol: 0,
            ttl: TTL,
            tos: 0,
            id: 0,
            dont_fragment: true,
            header_len: 0,
            total_len: 0,
        };
        self.send_echo_reply(ip, Echo { ident, seq, payload });
    }

    pub(crate) fn answer_ping_unreachable(&mut self, now: Instant, ping: &Ping, why: Unreachable) {
        let Ping { from: src, to: dst, ident, seq, payload } = ping.clone();
        let kind = icmp::unreachable(Version::of(src), why);
        if self.link.icmp_rate.allow(now, src, kind) {
            let fields = IpFields { src, dst, ttl: TTL, tos: 0, id: 0 };
            let quote = icmp::quote_echo(&fields, Echo { ident, seq, payload });
            self.send_icmp_error(quote, src, dst, kind);
        }
    }

    pub(crate) fn answer_datagram_unreachable(
        &mut self,
        now: Instant,
        datagram: &Datagram,
        why: Unreachable,
    ) {
        let (src, dst) = (datagram.from.ip(), datagram.to.ip());
        let kind = icmp::unreachable(Version::of(src), why);
        if self.link.icmp_rate.allow(now, src, kind) {
            let fields = IpFields { src, dst, ttl: TTL, tos: 0, id: 0 };
            let quote = icmp::quote_datagram(
                &fields,
                datagram.from.port(),
                datagram.to.port(),
                datagram.data.clone(),
            );
            self.send_icmp_error(quote, src, dst, kind);
        }
    }
}
