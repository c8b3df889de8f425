//! Packet events: what the peer sends is composed and injected, what the host sends is awaited and compared.
//!
//! Rules: packet-script language, sections 4–6.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::compare::{self, Difference};
use super::flow::Flow;
use super::{Failure, FailureKind, Run, Schedule};
use crate::packet::{
    IcmpPacket, IpHeader, TCP, TcpFlags, TcpOption, TcpPacket, UDP, UdpPacket, WirePacket, icmp_protocol,
};
use crate::script::ast::{Body, IcmpSpec, IpInfo, OptionsSpec, Packet, Quoted, TcpSpec, Tos};
use crate::script::print::{packet_text, seconds};

/// Waiting for a packet is given up this long after it was due.
const GRACE: Duration = Duration::from_secs(2);
/// A line with `*` has no limit in the language; a host that never sends must still end the run.
const NO_LIMIT: Duration = Duration::from_secs(3600);

/// Where passive connections' remote ports begin.
const FIRST_PEER_PORT: u16 = 40_000;

impl Run<'_> {
    pub(super) fn inject_packet(&mut self, packet: &Packet) -> Result<(), Failure> {
        let bytes = match &packet.body {
            Body::Tcp(spec) => self.live_segment(spec, &packet.ip)?.compose(),
            Body::Udp { ports, len } => {
                let (src_port, dst_port) = ports.unwrap_or((self.options.connect_port, self.bound_port));
                let ip = self.inbound_header(&packet.ip, UDP);
                UdpPacket { ip, src_port, dst_port, len: *len }.compose()
            }
            Body::Icmp(spec) => self.live_icmp(spec, &packet.ip)?.compose(),
        };
        self.target.inject(&bytes).map_err(|error| self.failure(FailureKind::Target, error.0))
    }

    fn inbound_header(&self, info: &IpInfo, protocol: u8) -> IpHeader {
        let mut ip = IpHeader::new(self.world.remote, self.world.local, protocol);
        ip.tos = match info.tos {
            Some(Tos::Ecn(bits)) => bits,
            Some(Tos::Whole(tos)) => tos,
            Some(Tos::AnyEct) | None => 0,
        };
        ip.ttl = info.ttl.unwrap_or(ip.ttl);
        ip.flow_label = info.flow_label.unwrap_or(0);
        ip
    }

    fn live_segment(&mut self, spec: &TcpSpec, info: &IpInfo) -> Result<TcpPacket, Failure> {
        let at = self.inbound_flow(spec);
        let flow = &mut self.flows[at];
        let (src_port, dst_port) = spec.ports.unwrap_or((flow.remote.port(), flow.local.port()));
        let OptionsSpec::Exactly(options) = &spec.options else {
            unreachable!("the parser refuses <...> inbound")
        };
        let ip = self.inbound_header(info, TCP);
        let mut packet = TcpPacket {
            ip,
            src_port,
            dst_port,
            flags: spec.flags,
            seq: spec.seq,
            ack: spec.ack,
            win: spec.win.unwrap_or(0),
            urg: spec.urg,
            options: options.clone(),
            len: spec.len,
        };
        let result = self.flows[at].make_live(&mut packet, self.options.ts_ecr_scaled);
        result.map_err(|message| self.failure(FailureKind::Script, message))?;
        Ok(packet)
    }

    /// The connection an inbound segment belongs to; a new one where there is none yet.
    fn inbound_flow(&mut self, spec: &TcpSpec) -> usize {
        let (local_ip, remote_ip) = (self.world.local, self.world.remote);
        if let Some((src, dst)) = spec.ports {
            let local = SocketAddr::new(local_ip, dst);
            let remote = SocketAddr::new(remote_ip, src);
            let known = self.flows.iter().position(|flow| flow.is_between(local, remote));
            let at = known.unwrap_or_else(|| self.add_flow(Flow::new(local, remote)));
            self.current = Some(at);
            return at;
        }
        if let Some(at) = self.current {
            return at;
        }
        let port = FIRST_PEER_PORT + self.flows.len() as u16;
        let local = SocketAddr::new(local_ip, self.bound_port);
        self.add_flow(Flow::new(local, SocketAddr::new(remote_ip, port)))
    }

    pub(super) fn add_flow(&mut self, flow: Flow) -> usize {
        self.flows.push(flow);
        self.current = Some(self.flows.len() - 1);
        self.flows.len() - 1
    }

    fn live_icmp(&self, spec: &IcmpSpec, info: &IpInfo) -> Result<IcmpPacket, Failure> {
        let script_error = |message: String| self.failure(FailureKind::Script, message);
        let (kind, code) = compare::icmp_type_and_code(spec, self.world.local).map_err(script_error)?;
        let Some(flow) = self.current.map(|at| &self.flows[at]) else {
            return Err(script_error("an ICMP error needs a connection under test".to_owned()));
        };
        // The quoted packet is the host's own: header, and the first eight bytes of its payload.
        let (protocol, len) = match spec.quoted {
            Quoted::Tcp { len, .. } => (TCP, 20 + len as usize),
            Quoted::Udp { len } => (UDP, 8 + usize::from(len)),
        };
        let ip = IpHeader::new(self.world.local, self.world.remote, protocol);
        let full = match spec.quoted {
            Quoted::Tcp { seq, len } => TcpPacket {
                ip,
                src_port: flow.local.port(),
                dst_port: flow.remote.port(),
                flags: TcpFlags::ACK,
                seq: flow.live_host_seq(seq),
                ack: 0,
                win: 0,
                urg: 0,
                options: Vec::new(),
                len,
            }
            .compose(),
            Quoted::Udp { len } => {
                UdpPacket { ip, src_port: flow.local.port(), dst_port: flow.remote.port(), len }.compose()
            }
        };
        let kept = full.len() - len + 8;
        Ok(IcmpPacket {
            ip: self.inbound_header(info, icmp_protocol(self.world.local)),
            kind,
            code,
            word: spec.mtu.unwrap_or(0) | u32::from(spec.id.unwrap_or(0)) << 16,
            quoted: full[..kept].to_vec(),
        })
    }

    /// Awaits the host's next packet and compares it. Gives the time it was sent.
    pub(super) fn expect_packet(&mut self, packet: &Packet, schedule: Schedule) -> Result<Duration, Failure> {
        let limit = if schedule.any { NO_LIMIT } else { schedule.tolerance + GRACE };
        let due = schedule.to.max(self.now());
        let deadline = self.origin + due + limit;
        let expected = format!("> {}", packet_text(packet));
        let (at, differences, actual) = match &packet.body {
            Body::Tcp(spec) => {
                self.select_outbound_flow(spec);
                let Some((at, live)) = self.next_merged(spec, deadline)? else {
                    return Err(self.nothing_came(expected, schedule));
                };
                let exact = match &spec.options {
                    OptionsSpec::Exactly(options) => Some(options.as_slice()),
                    OptionsSpec::Any => None,
                };
                let flow_at = self.current.expect("a segment was received for it");
                self.flows[flow_at].learn(&live, spec.seq, exact);
                let actual = self.flows[flow_at].to_script(&live);
                let elapsed = at;
                let differences = compare::segment(spec, &packet.ip, &actual, &self.options, elapsed);
                (at, differences, format!("> {}", compare::describe(&actual, spec, &packet.ip)))
            }
            body => {
                let Some((at, live)) = self.next_datagram(deadline)? else {
                    return Err(self.nothing_came(expected, schedule));
                };
                let (differences, actual) = compare::datagram(body, &live, self.world.local);
                (at, differences, format!("> {actual}"))
            }
        };
        if let Some(Difference(what)) = differences.first() {
            let message = format!("the host sent another packet: {what}");
            self.note(at, &actual);
            return Err(self.mismatch(&message, expected, actual));
        }
        self.check_time(at, schedule, expected, actual)?;
        Ok(at)
    }

    fn check_time(
        &self,
        at: Duration,
        due: Schedule,
        expected: String,
        actual: String,
    ) -> Result<(), Failure> {
        if due.any {
            return Ok(());
        }
        let early = at + due.tolerance < due.from;
        let late = at > due.to + due.tolerance;
        if !early && !late {
            return Ok(());
        }
        let window = if due.from == due.to {
            seconds(due.from)
        } else {
            format!("{}~{}", seconds(due.from), seconds(due.to))
        };
        let message = format!(
            "the packet came {}: expected at {window} ± {}, sent at {}",
            if early { "early" } else { "late" },
            seconds(due.tolerance),
            seconds(at)
        );
        Err(self.mismatch(&message, format!("{window} {expected}"), format!("{} {actual}", seconds(at))))
    }

    fn nothing_came(&self, expected: String, schedule: Schedule) -> Failure {
        let message = format!("no packet came (due at {})", seconds(schedule.to));
        self.mismatch(&message, expected, "nothing".to_owned())
    }

    /// Explicit ports name the connection that is expected to speak.
    fn select_outbound_flow(&mut self, spec: &TcpSpec) {
        let Some((src, dst)) = spec.ports else { return };
        let local = SocketAddr::new(self.world.local, src);
        let remote = SocketAddr::new(self.world.remote, dst);
        if let Some(at) = self.flows.iter().position(|flow| flow.is_between(local, remote)) {
            self.current = Some(at);
        }
    }

    /// The next segment of the connection under test, pieces joined up to the expected length (section 6.4).
    fn next_merged(
        &mut self,
        spec: &TcpSpec,
        deadline: Duration,
    ) -> Result<Option<(Duration, TcpPacket)>, Failure> {
        let Some((mut at, mut merged)) = self.next_segment(deadline)? else { return Ok(None) };
        let piece = merged.len;
        while !self.options.strict_segments && piece > 0 && merged.len < spec.len {
            let Some((next_at, next)) = self.next_segment(deadline)? else { break };
            let joins = next.seq == merged.seq.wrapping_add(merged.len)
                && merged.len.is_multiple_of(piece)
                && next.len > 0
                && next.len <= piece
                && same_header(&merged, &next);
            if !joins {
                let flow_at = self.current.expect("a segment was received for it");
                self.flows[flow_at].waiting.push_front((next_at, next));
                break;
            }
            at = next_at;
            let first_cwr = TcpFlags(merged.flags.0 & TcpFlags::CWR.0);
            let flags = next.flags.without(TcpFlags::CWR) | first_cwr;
            merged = TcpPacket { seq: merged.seq, len: merged.len + next.len, flags, ..next };
        }
        Ok(Some((at, merged)))
    }

    fn next_segment(&mut self, deadline: Duration) -> Result<Option<(Duration, TcpPacket)>, Failure> {
        let Some(current) = self.current else {
            let message = "a packet is expected and no connection is under test".to_owned();
            return Err(self.failure(FailureKind::Script, message));
        };
        if let Some(waiting) = self.flows[current].waiting.pop_front() {
            return Ok(Some(waiting));
        }
        while let Some((at, packet)) = self.next_packet(deadline)? {
            let WirePacket::Tcp(packet) = packet else { continue };
            let local = SocketAddr::new(packet.ip.src, packet.src_port);
            let remote = SocketAddr::new(packet.ip.dst, packet.dst_port);
            let opens = packet.flags.syn() && !packet.flags.ack();
            let owner = self.flows.iter().rposition(|flow| {
                flow.is_between(local, remote)
                    || flow.awaits_first_syn
                        && opens
                        && flow.remote == remote
                        && flow.local.ip() == local.ip()
            });
            let Some(owner) = owner else { continue };
            let flow = &mut self.flows[owner];
            flow.awaits_first_syn = false;
            flow.local = local;
            if owner == current {
                return Ok(Some((at, packet)));
            }
            flow.waiting.push_back((at, packet));
        }
        Ok(None)
    }

    fn next_datagram(&mut self, deadline: Duration) -> Result<Option<(Duration, WirePacket)>, Failure> {
        while let Some((at, packet)) = self.next_packet(deadline)? {
            if matches!(packet, WirePacket::Udp(_) | WirePacket::Icmp(_))
                && packet.ip().dst == self.world.remote
            {
                return Ok(Some((at, packet)));
            }
        }
        Ok(None)
    }

    fn next_packet(&mut self, deadline: Duration) -> Result<Option<(Duration, WirePacket)>, Failure> {
        let received = self.target.receive(deadline);
        let sent = received.map_err(|error| self.failure(FailureKind::Target, error.0))?;
        let Some(sent) = sent else { return Ok(None) };
        let at = sent.at.saturating_sub(self.origin);
        match WirePacket::parse(&sent.bytes) {
            Ok(packet) => Ok(Some((at, packet))),
            Err(malformed) => {
                let hex = sent
                    .bytes
                    .iter()
                    .take(80)
                    .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
                Err(self.mismatch(
                    &format!("the host sent a broken packet: {malformed}"),
                    "a packet".to_owned(),
                    hex,
                ))
            }
        }
    }

    /// Section 6.5: what is still open is reset, so that no connection outlives its script.
    pub(super) fn end(&mut self) {
        let segments: Vec<Vec<u8>> = self
            .flows
            .iter()
            .filter_map(|flow| {
                let seq = flow.reset_seq()?;
                let ip = IpHeader::new(self.world.remote, self.world.local, TCP);
                Some(TcpPacket {
                    ip,
                    src_port: flow.remote.port(),
                    dst_port: flow.local.port(),
                    flags: TcpFlags::RST,
                    seq,
                    ack: 0,
                    win: 0,
                    urg: 0,
                    options: Vec::new(),
                    len: 0,
                })
            })
            .map(|segment| segment.compose())
            .collect();
        for segment in segments {
            // Nothing that happens after the end is judged.
            let _ = self.target.inject(&segment);
        }
    }

    pub(super) fn peer(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.world.remote, port)
    }

    pub(super) fn host(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.world.local, port)
    }

    /// Addresses of IPv4-mapped sockets are compared in their IPv4 form.
    pub(super) fn plain(address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V6(ip) => {
                let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
                SocketAddr::new(ip, address.port())
            }
            IpAddr::V4(_) => address,
        }
    }
}

/// Equal but for FIN, PSH, CWR, the sequence number, the length and the timestamp's value.
fn same_header(a: &TcpPacket, b: &TcpPacket) -> bool {
    let plain = |packet: &TcpPacket| {
        let mut packet = packet.clone();
        packet.flags = packet.flags.without(TcpFlags::FIN | TcpFlags::PSH | TcpFlags::CWR);
        packet.seq = 0;
        packet.len = 0;
        for option in &mut packet.options {
            if let TcpOption::Timestamps { val, .. } = option {
                *val = 0;
            }
        }
        packet
    };
    plain(a) == plain(b)
}
