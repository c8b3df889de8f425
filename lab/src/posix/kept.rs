//! Options that a program may set and read back although nothing in a stack comes of them, and those that are only read.
//!
//! Rules: Linux `sk_setsockopt()`, `do_ip_setsockopt()`, `do_tcp_setsockopt()`: which values are taken.

/// Which values an option takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// Not 0 is on.
    Switch,
    /// Any int.
    Any,
    /// From, to; `EINVAL` outside.
    Range(i32, i32),
    /// Taken, and always read as 0.
    Ignored(i32, i32),
    /// `ENOPROTOOPT` when set.
    ReadOnly,
    /// As the kernel answers a program without privileges.
    Forbidden,
    /// 0 or 1, where `tcp_fastopen` lets clients.
    FastConnect,
}

/// Level, name, first value, rule.
const KEPT: &[(i32, i32, i32, Rule)] = &[
    (libc::SOL_SOCKET, libc::SO_DONTROUTE, 0, Rule::Switch),
    (libc::SOL_SOCKET, libc::SO_BROADCAST, 0, Rule::Switch),
    (libc::SOL_SOCKET, libc::SO_PRIORITY, 0, Rule::Any),
    (libc::SOL_SOCKET, libc::SO_MARK, 0, Rule::Any),
    (libc::SOL_SOCKET, libc::SO_INCOMING_CPU, -1, Rule::Any),
    (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, -1, Rule::Any),
    (libc::SOL_SOCKET, libc::SO_BUSY_POLL, 0, Rule::Range(0, i32::MAX)),
    (libc::SOL_SOCKET, libc::SO_ZEROCOPY, 0, Rule::Range(0, 1)),
    (libc::SOL_SOCKET, libc::SO_SNDLOWAT, 1, Rule::ReadOnly),
    (libc::SOL_SOCKET, libc::SO_TYPE, libc::SOCK_STREAM, Rule::ReadOnly),
    (libc::SOL_SOCKET, libc::SO_PROTOCOL, libc::IPPROTO_TCP, Rule::ReadOnly),
    (libc::SOL_SOCKET, libc::SO_ERROR, 0, Rule::ReadOnly),
    (libc::SOL_SOCKET, libc::SO_DOMAIN, 0, Rule::ReadOnly),
    (libc::SOL_SOCKET, libc::SO_ACCEPTCONN, 0, Rule::ReadOnly),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT, Rule::Range(0, 5)),
    (libc::IPPROTO_IP, libc::IP_FREEBIND, 0, Rule::Switch),
    (libc::IPPROTO_IP, libc::IP_TRANSPARENT, 0, Rule::Switch),
    (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 0, Rule::Switch),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0, Rule::Switch),
    (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT, Rule::Range(0, 5)),
    (libc::IPPROTO_TCP, TCP_THIN_DUPACK, 0, Rule::Ignored(0, 1)),
    (libc::IPPROTO_TCP, libc::TCP_REPAIR, 0, Rule::Forbidden),
    (libc::IPPROTO_TCP, libc::TCP_TIMESTAMP, 0, Rule::Forbidden),
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 0, Rule::FastConnect),
    (libc::IPPROTO_TCP, libc::TCP_INQ, 0, Rule::Range(0, 1)),
    (libc::IPPROTO_TCP, TCP_TX_DELAY, 0, Rule::Range(0, i32::MAX - 1)),
    (libc::IPPROTO_TCP, TCP_IS_MPTCP, 0, Rule::ReadOnly),
];

const TCP_THIN_DUPACK: i32 = 17;
const TCP_TX_DELAY: i32 = 37;
const TCP_IS_MPTCP: i32 = 43;

/// The option's first value and rule, if it is one of these.
pub(super) fn find(level: i32, name: i32) -> Option<(i32, Rule)> {
    let row = KEPT.iter().find(|(at, known, ..)| (*at, *known) == (level, name));
    row.map(|(_, _, first, rule)| (*first, *rule))
}

/// What is kept of `value`, or the errno.
pub(super) fn accept(rule: Rule, value: i32, fast_client: bool) -> Result<i32, i32> {
    match rule {
        Rule::Switch => Ok((value != 0).into()),
        Rule::Any => Ok(value),
        Rule::Range(low, high) if (low..=high).contains(&value) => Ok(value),
        Rule::Ignored(low, high) if (low..=high).contains(&value) => Ok(0),
        Rule::Range(..) | Rule::Ignored(..) => Err(libc::EINVAL),
        Rule::ReadOnly => Err(libc::ENOPROTOOPT),
        Rule::Forbidden => Err(libc::EPERM),
        Rule::FastConnect if !matches!(value, 0 | 1) => Err(libc::EINVAL),
        Rule::FastConnect if fast_client => Ok(value),
        Rule::FastConnect => Err(libc::EOPNOTSUPP),
    }
}
