//! Comparing what the host sent with what the script says, both in script numbers.
//!
//! Rules: packet-script language, section 6, in its order: IP, then TCP header, options, length.

use core::net::IpAddr;
use core::time::Duration;

use super::RunOptions;
use crate::packet::{TcpFlags, TcpOption, TcpPacket, WirePacket};
use crate::script::ast::{Body, IcmpSpec, IpInfo, OptionsSpec, TcpSpec, Tos};
use crate::script::print::{options_text, packet_text};

/// What differs, as a phrase.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Difference(pub(super) String);

pub(super) fn segment(
    spec: &TcpSpec,
    info: &IpInfo,
    actual: &TcpPacket,
    options: &RunOptions,
    elapsed: Duration,
) -> Vec<Difference> {
    let mut found = ip(info, actual);
    let mut differ = |what: &str, expected: String, actual: String| {
        if expected != actual {
            found.push(Difference(format!("{what} is {actual}, not {expected}")));
        }
    };
    differ("the flags", spec.flags.to_string(), actual.flags.to_string());
    differ("the sequence number", spec.seq.to_string(), actual.seq.to_string());
    differ("the length", spec.len.to_string(), actual.len.to_string());
    differ("the acknowledgment", spec.ack.to_string(), actual.ack.to_string());
    if let Some(win) = spec.win {
        differ("the window", win.to_string(), actual.win.to_string());
    }
    differ("the urgent pointer", spec.urg.to_string(), actual.urg.to_string());
    if let Some((src, dst)) = spec.ports {
        differ("the ports", format!("{src} > {dst}"), format!("{} > {}", actual.src_port, actual.dst_port));
    }
    if let OptionsSpec::Exactly(expected) = &spec.options {
        let same = |options: &[TcpOption]| options_text(&without_timestamp_values(options));
        if same(expected) != same(&actual.options) {
            differ(
                "the options",
                format!("<{}>", options_text(expected)),
                format!("<{}>", options_text(&actual.options)),
            );
        }
        found.extend(timestamps(expected, actual, options, elapsed));
    }
    found
}

fn ip(info: &IpInfo, actual: &TcpPacket) -> Vec<Difference> {
    let mut found = Vec::new();
    let tos = actual.ip.tos;
    let tos_agrees = match info.tos {
        None => true,
        Some(Tos::Ecn(bits)) => tos & 3 == bits,
        Some(Tos::AnyEct) => matches!(tos & 3, 1 | 2),
        Some(Tos::Whole(whole)) => tos == whole,
    };
    if !tos_agrees {
        found.push(Difference(format!("the TOS byte is {tos:#04x}")));
    }
    if info.ttl.is_some_and(|ttl| ttl != actual.ip.ttl) {
        found.push(Difference(format!("the TTL is {}", actual.ip.ttl)));
    }
    // Labels are the host's choice; that there is one is what a script can ask for.
    if info.flow_label.is_some_and(|label| (label == 0) != (actual.ip.flow_label == 0)) {
        found.push(Difference(format!("the flow label is {:#x}", actual.ip.flow_label)));
    }
    found
}

fn without_timestamp_values(options: &[TcpOption]) -> Vec<TcpOption> {
    let plain = |option: &TcpOption| match option {
        TcpOption::Timestamps { .. } => TcpOption::Timestamps { val: 0, ecr: 0 },
        other => other.clone(),
    };
    options.iter().map(plain).collect()
}

fn timestamps(
    expected: &[TcpOption],
    actual: &TcpPacket,
    options: &RunOptions,
    elapsed: Duration,
) -> Vec<Difference> {
    let of = |options: &[TcpOption]| {
        options.iter().find_map(|option| match option {
            TcpOption::Timestamps { val, ecr } => Some((*val, *ecr)),
            _ => None,
        })
    };
    let mut found = Vec::new();
    let (Some((val, ecr)), Some((actual_val, actual_ecr))) = (of(expected), of(&actual.options)) else {
        return found;
    };
    let ticks = val.wrapping_sub(actual_val).cast_signed().unsigned_abs();
    if !options.ts_tick.is_zero() && options.ts_tick * ticks > options.tolerance(elapsed) {
        found.push(Difference(format!("the timestamp is {actual_val}, not {val}")));
    }
    if options.check_ts_ecr && ecr != actual_ecr {
        found.push(Difference(format!("the timestamp echo is {actual_ecr}, not {ecr}")));
    }
    found
}

/// The host's segment in script notation, showing what the script's line shows.
pub(super) fn describe(actual: &TcpPacket, beside: &TcpSpec, info: &IpInfo) -> String {
    let shown = |tos: Tos| match tos {
        Tos::Whole(_) => Tos::Whole(actual.ip.tos),
        Tos::Ecn(_) | Tos::AnyEct => Tos::Ecn(actual.ip.tos & 3),
    };
    let spec = TcpSpec {
        ports: beside.ports.map(|_| (actual.src_port, actual.dst_port)),
        flags: actual.flags,
        ace: beside.ace.map(|_| ace_of(actual.flags)),
        seq: actual.seq,
        len: actual.len,
        ack: actual.ack,
        win: Some(actual.win),
        urg: actual.urg,
        options: OptionsSpec::Exactly(actual.options.clone()),
    };
    let ip = IpInfo {
        tos: info.tos.map(shown),
        flow_label: info.flow_label.map(|_| actual.ip.flow_label),
        ttl: info.ttl.map(|_| actual.ip.ttl),
    };
    packet_text(&crate::script::ast::Packet { ip, body: Body::Tcp(spec) })
}

fn ace_of(flags: TcpFlags) -> u8 {
    u8::from(flags.contains(TcpFlags::AE)) << 2 | u8::from(flags.cwr()) << 1 | u8::from(flags.ece())
}

/// UDP and ICMP: differences, and the packet described.
pub(super) fn datagram(expected: &Body, actual: &WirePacket, local: IpAddr) -> (Vec<Difference>, String) {
    let described = match actual {
        WirePacket::Udp(udp) => format!("udp {} > {} ({})", udp.src_port, udp.dst_port, udp.len),
        WirePacket::Icmp(icmp) => format!("icmp type_{} code_{}", icmp.kind, icmp.code),
        WirePacket::Tcp(_) | WirePacket::Other(_) => "another protocol".to_owned(),
    };
    let agrees = match (expected, actual) {
        (Body::Udp { ports, len }, WirePacket::Udp(udp)) => {
            *len == udp.len && ports.is_none_or(|ports| ports == (udp.src_port, udp.dst_port))
        }
        (Body::Icmp(spec), WirePacket::Icmp(icmp)) => {
            icmp_type_and_code(spec, local).is_ok_and(|expected| expected == (icmp.kind, icmp.code))
        }
        _ => false,
    };
    let differences = if agrees { Vec::new() } else { vec![Difference("kind or length differs".to_owned())] };
    (differences, described)
}

const TYPES_V4: [(&str, u8); 7] = [
    ("echo_reply", 0),
    ("unreachable", 3),
    ("source_quench", 4),
    ("redirect", 5),
    ("echo_request", 8),
    ("time_exceeded", 11),
    ("parameter_problem", 12),
];
const TYPES_V6: [(&str, u8); 6] = [
    ("unreachable", 1),
    ("packet_too_big", 2),
    ("time_exceeded", 3),
    ("parameter_problem", 4),
    ("echo_request", 128),
    ("echo_reply", 129),
];
const CODES_V4: [(&str, u8); 16] = [
    ("net_unreachable", 0),
    ("host_unreachable", 1),
    ("protocol_unreachable", 2),
    ("port_unreachable", 3),
    ("frag_needed", 4),
    ("source_route_failed", 5),
    ("net_unknown", 6),
    ("host_unknown", 7),
    ("source_host_isolated", 8),
    ("net_prohibited", 9),
    ("host_prohibited", 10),
    ("net_unreachable_for_tos", 11),
    ("host_unreachable_for_tos", 12),
    ("packet_filtered", 13),
    ("precedence_violation", 14),
    ("precedence_cutoff", 15),
];
const CODES_V6: [(&str, u8); 7] = [
    ("no_route", 0),
    ("admin_prohibited", 1),
    ("not_neighbour", 2),
    ("address_unreachable", 3),
    ("port_unreachable", 4),
    ("policy_fail", 5),
    ("reject_route", 6),
];

/// Names → numbers, for the family of `local`.
pub(super) fn icmp_type_and_code(spec: &IcmpSpec, local: IpAddr) -> Result<(u8, u8), String> {
    let find = |table: &[(&str, u8)], prefix: &str, name: &str| {
        let numbered = name.strip_prefix(prefix).and_then(|number| number.parse().ok());
        let named = table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        numbered.or(named).ok_or_else(|| format!("`{name}` is not an ICMP type or code of this family"))
    };
    let (types, codes): (&[_], &[_]) =
        if local.is_ipv4() { (&TYPES_V4, &CODES_V4) } else { (&TYPES_V6, &CODES_V6) };
    let kind = find(types, "type_", &spec.kind)?;
    let code = spec.code.as_deref().map_or(Ok(0), |code| find(codes, "code_", code))?;
    Ok((kind, code))
}
