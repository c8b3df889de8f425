//! The parts of a socket's line, in `ss`'s spelling where it has one.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use lastack_core::observe::TimerRow;
use lastack_core::tcp::state::TcpState;
use lastack_observe::row::{Owner, OwnerHow, Row, SkMem};
use lastack_observe::words;

use crate::table::number;

/// An address as `ss` writes it: a port 0 and an unspecified dual-stack address are `*`.
pub(crate) fn address(address: SocketAddr, v6only: bool) -> String {
    let mut text = String::new();
    push_address(&mut text, address, v6only);
    text
}

/// Appends an [`address`]. Not by way of `Display`: of 100,000 lines it would be the larger part.
pub(super) fn push_address(text: &mut String, address: SocketAddr, v6only: bool) {
    match address.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            number(text, a);
            for octet in [b, c, d] {
                text.push('.');
                number(text, octet);
            }
        }
        IpAddr::V6(ip) if ip.is_unspecified() && !v6only => text.push('*'),
        IpAddr::V6(ip) => {
            let _ = write!(text, "[{ip}]");
        }
    }
    text.push(':');
    match address.port() {
        0 => text.push('*'),
        port => number(text, port),
    }
}

/// `nginx/71,fd=12`, `nginx/71 (former, by port)`.
pub(crate) fn owner(owner: &Owner) -> String {
    let mut text = owner.comm.to_string();
    if let Some(pid) = owner.pid {
        text.push_str(&format!("/{pid}"));
    }
    if let Some(fd) = owner.fd {
        text.push_str(&format!(",fd={fd}"));
    }
    let how = match owner.how {
        OwnerHow::Descriptor => None,
        OwnerHow::Recorded => Some("recorded"),
        OwnerHow::Cgroup => Some("by cgroup"),
        OwnerHow::Listener => Some("by port"),
    };
    match (owner.former, how) {
        (true, Some(how)) => text.push_str(&format!(" (former, {how})")),
        (true, None) => text.push_str(" (former)"),
        (false, Some(how)) => text.push_str(&format!(" ({how})")),
        (false, None) => {}
    }
    text
}

/// `persist,8.1s,5`: which timer, when, after how many repeats.
pub(crate) fn timer(timer: TimerRow) -> String {
    format!("{},{},{}", timer.kind.name(), words::duration(timer.expires_ms.into()), timer.retrans)
}

/// `timer:(persist,8.100sec,5)`, as `ss -o` writes it.
pub(super) fn timer_of_ss(timer: TimerRow) -> String {
    format!("timer:({},{},{})", timer.kind.name(), time_of_ss(timer.expires_ms), timer.retrans)
}

/// A time as `ss` rounds it.
///
/// Differs: `ss` writes `2.996ms` for 2.996 s; we say `sec`.
fn time_of_ss(ms: u32) -> String {
    let (minutes, seconds, rest) = (ms / 60_000, ms / 1000 % 60, ms % 1000);
    match (minutes, seconds) {
        (0, 0) if rest == 0 => String::new(),
        (0, 0) => format!("{rest:03}ms"),
        (0, 1..=9) if rest > 0 => format!("{seconds}.{rest:03}sec"),
        (0, _) => format!("{seconds}sec"),
        (1..=9, 1..) => format!("{minutes}min{seconds}sec"),
        _ => format!("{minutes}min"),
    }
}

/// `skmem:(…)`, as `ss -m` writes it.
pub(super) fn memory(m: &SkMem) -> String {
    format!(
        "skmem:(r{},rb{},t{},tb{},f{},w{},o{},bl{},d{})",
        m.rmem_alloc,
        m.rcvbuf,
        m.wmem_alloc,
        m.sndbuf,
        m.fwd_alloc,
        m.wmem_queued,
        m.optmem,
        m.backlog,
        m.drops
    )
}

pub(super) fn extended(row: &Row) -> String {
    let mut parts = Vec::new();
    if let Some(uid) = row.uid {
        parts.push(format!("uid:{uid}"));
    }
    parts.push(format!("ino:{} sk:{:x}", row.inode, row.socket.cookie));
    if let Some(cgroup) = row.cgroup {
        parts.push(format!("cgroup:{cgroup}"));
    }
    let bindable = matches!(row.socket.state, TcpState::Listen | TcpState::Close);
    if row.socket.local.is_ipv6() && bindable {
        parts.push(format!("v6only:{}", u8::from(row.v6only)));
    }
    if row.interface != 0 {
        parts.push(format!("dev:{}", row.interface));
    }
    if let Some(mark) = row.mark.filter(|mark| *mark != 0) {
        parts.push(format!("fwmark:{mark:#x}"));
    }
    if row.socket.orphan {
        parts.push("orphan".to_owned());
    } else if row.is_unaccepted() {
        parts.push("unaccepted".to_owned());
    }
    if let Some(age) = row.condition_age_ms() {
        let sign = if row.socket.state_age_ms.is_some() { "" } else { ">=" };
        parts.push(format!("age:{sign}{}", words::duration(age)));
    }
    // ss's arrows: which directions are shut.
    match row.shutdown {
        Some(0) => parts.push("<->".to_owned()),
        Some(1) => parts.push("-->".to_owned()),
        Some(2) => parts.push("<--".to_owned()),
        Some(3) => parts.push("---".to_owned()),
        _ => {}
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_display_but_for_stars() {
        for (text, v6only, spelt) in [
            ("10.0.0.1:443", false, "10.0.0.1:443"),
            ("255.200.10.9:65535", false, "255.200.10.9:65535"),
            ("0.0.0.0:80", false, "0.0.0.0:80"),
            ("0.0.0.0:0", false, "0.0.0.0:*"),
            ("[::]:80", false, "*:80"),
            ("[::]:80", true, "[::]:80"),
            ("[fe80::1]:0", true, "[fe80::1]:*"),
            ("[::ffff:10.0.0.1]:8", false, "[::ffff:10.0.0.1]:8"),
        ] {
            assert_eq!(address(text.parse().expect("an address"), v6only), spelt);
        }
    }

    #[test]
    fn times_are_rounded_as_ss_rounds_them() {
        for (ms, text) in [
            (0, ""),
            (4, "004ms"),
            (204, "204ms"),
            (2_000, "2sec"),
            (2_996, "2.996sec"),
            (56_900, "56sec"),
            (60_000, "1min"),
            (125_000, "2min5sec"),
            (599_999, "9min59sec"),
            (7_190_000, "119min"),
        ] {
            assert_eq!(time_of_ss(ms), text, "{ms} ms");
        }
    }

    /// Vectors of the specification's 13.9: what `ss` prints, and we.
    #[test]
    fn times_are_those_of_ss_but_for_the_unit_of_broken_seconds() {
        for (ms, theirs, ours) in [
            (100, "100ms", "100ms"),
            (2_996, "2.996ms", "2.996sec"),
            (5_000, "5sec", "5sec"),
            (39_980, "39sec", "39sec"),
            (61_000, "1min1sec", "1min1sec"),
            (650_000, "10min", "10min"),
        ] {
            assert_eq!(time_of_ss(ms), ours, "{ms} ms, `{theirs}` in ss");
        }
        let timer =
            TimerRow { kind: lastack_core::observe::TimerKind::Persist, expires_ms: 8_100, retrans: 5 };
        assert_eq!(timer_of_ss(timer), "timer:(persist,8.100sec,5)");
    }
}
