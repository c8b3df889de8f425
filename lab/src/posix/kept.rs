//! Options that a program may set and read back although nothing in a stack comes of them, those that are only read, and those that a
//! TCP socket refuses in a way of their own.
//!
//! Rules: Linux `sk_setsockopt()`, `do_ip_setsockopt()`, `do_ipv6_setsockopt()`, `do_tcp_setsockopt()` and their counterparts that read:
//!        which values are taken, which error the others get. As Linux 6.18 answers a program without privileges.

use libc::{EINVAL, ENODATA, ENOENT, ENOPROTOOPT, ENOTCONN, EOPNOTSUPP, EPERM, EPROTO};
use libc::{IPPROTO_IP as IP, IPPROTO_IPV6 as IPV6, IPPROTO_TCP as TCP, SOL_SOCKET as SOCKET};

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
    /// None: this errno.
    Refused(i32),
    /// 0 or 1, where `tcp_fastopen` lets clients.
    FastConnect,
    /// Not 0 is on; not once there is a port.
    BeforeBind,
    /// 0, or at least what every IPv6 link carries.
    Mtu,
}

/// What is read before anything was set.
#[derive(Clone, Copy, Debug)]
pub(super) enum First {
    Int(i32),
    /// No bytes.
    Nothing,
    /// This errno.
    Error(i32),
}

const ONLY_READ: Rule = Rule::Refused(ENOPROTOOPT);

/// Level, names, first value, rule.
const KEPT: &[(i32, &[i32], First, Rule)] = &[
    (
        SOCKET,
        &[
            libc::SO_DEBUG,
            libc::SO_NO_CHECK,
            libc::SO_DONTROUTE,
            libc::SO_BROADCAST,
            libc::SO_TIMESTAMP,
            libc::SO_TIMESTAMPNS,
            libc::SO_RXQ_OVFL,
            libc::SO_WIFI_STATUS,
            libc::SO_NOFCS,
            libc::SO_SELECT_ERR_QUEUE,
            SO_TIMESTAMP_NEW,
            SO_TIMESTAMPNS_NEW,
            SO_PREFER_BUSY_POLL,
            SO_RCVMARK,
            SO_RCVPRIORITY,
        ],
        First::Int(0),
        Rule::Switch,
    ),
    (SOCKET, &[libc::SO_PRIORITY, libc::SO_MARK], First::Int(0), Rule::Any),
    (
        SOCKET,
        &[libc::SO_PEEK_OFF, libc::SO_INCOMING_CPU, libc::SO_MAX_PACING_RATE],
        First::Int(-1),
        Rule::Any,
    ),
    (SOCKET, &[libc::SO_BUSY_POLL], First::Int(0), Rule::Range(0, i32::MAX)),
    (SOCKET, &[libc::SO_ZEROCOPY], First::Int(0), Rule::Range(0, 1)),
    (SOCKET, &[libc::SO_BSDCOMPAT], First::Int(0), Rule::Ignored(i32::MIN, i32::MAX)),
    (SOCKET, &[libc::SO_SNDLOWAT], First::Int(1), ONLY_READ),
    (SOCKET, &[libc::SO_TYPE], First::Int(libc::SOCK_STREAM), ONLY_READ),
    (SOCKET, &[libc::SO_PROTOCOL], First::Int(TCP), ONLY_READ),
    (SOCKET, &[libc::SO_BPF_EXTENSIONS], First::Int(64), ONLY_READ),
    (
        SOCKET,
        &[
            libc::SO_ERROR,
            libc::SO_DOMAIN,
            libc::SO_ACCEPTCONN,
            libc::SO_PEERCRED,
            libc::SO_MEMINFO,
            libc::SO_INCOMING_NAPI_ID,
        ],
        First::Int(0),
        ONLY_READ,
    ),
    (SOCKET, &[libc::SO_COOKIE, SO_NETNS_COOKIE], First::Error(EINVAL), ONLY_READ),
    (SOCKET, &[libc::SO_PEERGROUPS, SO_PEERPIDFD], First::Error(ENODATA), ONLY_READ),
    (SOCKET, &[SO_TXTIME], First::Int(0), Rule::Refused(EINVAL)),
    (SOCKET, &[libc::SO_ATTACH_FILTER], First::Nothing, Rule::Refused(EINVAL)),
    (SOCKET, &[libc::SO_DETACH_FILTER], First::Error(ENOPROTOOPT), Rule::Refused(ENOENT)),
    (
        SOCKET,
        &[libc::SO_ATTACH_REUSEPORT_CBPF, SO_DETACH_REUSEPORT_BPF, SO_DEVMEM_DONTNEED],
        First::Error(ENOPROTOOPT),
        Rule::Refused(EINVAL),
    ),
    (SOCKET, &[SO_RESERVE_MEM], First::Int(0), Rule::Refused(EOPNOTSUPP)),
    // Of Unix sockets.
    (
        SOCKET,
        &[libc::SO_PASSCRED, libc::SO_PASSSEC, SO_PASSPIDFD, SO_PASSRIGHTS],
        First::Error(EOPNOTSUPP),
        Rule::Refused(EOPNOTSUPP),
    ),
    (IP, &[libc::IP_MTU_DISCOVER], First::Int(libc::IP_PMTUDISC_WANT), Rule::Range(0, 5)),
    (
        IP,
        &[
            libc::IP_FREEBIND,
            libc::IP_TRANSPARENT,
            libc::IP_BIND_ADDRESS_NO_PORT,
            libc::IP_RECVOPTS,
            libc::IP_RETOPTS,
            libc::IP_PKTINFO,
            libc::IP_RECVTTL,
            libc::IP_RECVTOS,
            libc::IP_PASSSEC,
            libc::IP_RECVORIGDSTADDR,
            IP_CHECKSUM,
        ],
        First::Int(0),
        Rule::Switch,
    ),
    (IP, &[libc::IP_MULTICAST_LOOP], First::Int(1), Rule::Switch),
    (IP, &[IP_RECVERR_RFC4884], First::Int(0), Rule::Range(0, 1)),
    (IP, &[libc::IP_HDRINCL, libc::IP_NODEFRAG, IP_PROTOCOL], First::Int(0), ONLY_READ),
    (IP, &[libc::IP_PKTOPTIONS], First::Nothing, ONLY_READ),
    // Of datagrams and raw packets.
    (
        IP,
        &[libc::IP_ROUTER_ALERT, IP_RECVFRAGSIZE, libc::IP_MULTICAST_IF],
        First::Int(0),
        Rule::Refused(EINVAL),
    ),
    (IP, &[libc::IP_MULTICAST_TTL], First::Int(1), Rule::Refused(EINVAL)),
    (
        IP,
        &[libc::IP_ADD_MEMBERSHIP, libc::IP_DROP_MEMBERSHIP],
        First::Error(ENOPROTOOPT),
        Rule::Refused(EPROTO),
    ),
    (IPV6, &[libc::IPV6_V6ONLY], First::Int(0), Rule::BeforeBind),
    (IPV6, &[libc::IPV6_MTU_DISCOVER], First::Int(libc::IPV6_PMTUDISC_WANT), Rule::Range(0, 5)),
    (
        IPV6,
        &[
            libc::IPV6_2292PKTINFO,
            libc::IPV6_2292HOPOPTS,
            libc::IPV6_2292DSTOPTS,
            libc::IPV6_2292RTHDR,
            libc::IPV6_2292HOPLIMIT,
            libc::IPV6_FLOWINFO,
            libc::IPV6_ROUTER_ALERT_ISOLATE,
            libc::IPV6_FLOWINFO_SEND,
            libc::IPV6_RECVPKTINFO,
            libc::IPV6_RECVHOPLIMIT,
            libc::IPV6_RECVHOPOPTS,
            libc::IPV6_RECVRTHDR,
            libc::IPV6_RECVDSTOPTS,
            libc::IPV6_RECVPATHMTU,
            libc::IPV6_DONTFRAG,
            libc::IPV6_RECVTCLASS,
            libc::IPV6_RECVORIGDSTADDR,
            libc::IPV6_TRANSPARENT,
            libc::IPV6_RECVFRAGSIZE,
            libc::IPV6_FREEBIND,
        ],
        First::Int(0),
        Rule::Switch,
    ),
    (IPV6, &[libc::IPV6_MULTICAST_ALL, libc::IPV6_AUTOFLOWLABEL], First::Int(1), Rule::Switch),
    (IPV6, &[libc::IPV6_MULTICAST_LOOP], First::Int(1), Rule::Range(0, 1)),
    (IPV6, &[IPV6_RECVERR_RFC4884], First::Int(0), Rule::Range(0, 1)),
    (IPV6, &[libc::IPV6_MULTICAST_IF, libc::IPV6_ROUTER_ALERT], First::Int(0), ONLY_READ),
    (IPV6, &[libc::IPV6_MULTICAST_HOPS], First::Int(1), ONLY_READ),
    (IPV6, &[libc::IPV6_MTU], First::Error(ENOTCONN), Rule::Mtu),
    (TCP, &[TCP_THIN_DUPACK], First::Int(0), Rule::Ignored(0, 1)),
    (TCP, &[libc::TCP_TIMESTAMP], First::Int(0), Rule::Refused(EPERM)),
    (TCP, &[TCP_REPAIR_QUEUE, TCP_REPAIR_WINDOW], First::Error(EINVAL), Rule::Refused(EPERM)),
    (TCP, &[TCP_QUEUE_SEQ], First::Error(EINVAL), Rule::Refused(EINVAL)),
    (TCP, &[TCP_REPAIR_OPTIONS], First::Error(ENOPROTOOPT), Rule::Refused(EINVAL)),
    (TCP, &[libc::TCP_MD5SIG, TCP_MD5SIG_EXT], First::Error(ENOPROTOOPT), Rule::Refused(EINVAL)),
    (TCP, &[libc::TCP_ULP], First::Nothing, Rule::Refused(ENOENT)),
    (TCP, &[libc::TCP_ZEROCOPY_RECEIVE], First::Error(EINVAL), ONLY_READ),
    (TCP, &[libc::TCP_FASTOPEN_CONNECT], First::Int(0), Rule::FastConnect),
    (TCP, &[libc::TCP_INQ], First::Int(0), Rule::Range(0, 1)),
    (TCP, &[TCP_TX_DELAY], First::Int(0), Rule::Range(0, i32::MAX - 1)),
    (TCP, &[libc::TCP_INFO, TCP_IS_MPTCP], First::Int(0), ONLY_READ),
];

const IP_CHECKSUM: i32 = 23;
const IP_RECVFRAGSIZE: i32 = 25;
const IP_RECVERR_RFC4884: i32 = 26;
const IP_PROTOCOL: i32 = 52;
const IPV6_RECVERR_RFC4884: i32 = 31;
const SO_DETACH_REUSEPORT_BPF: i32 = 68;
const SO_TXTIME: i32 = 61;
const SO_TIMESTAMP_NEW: i32 = 63;
const SO_TIMESTAMPNS_NEW: i32 = 64;
const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_NETNS_COOKIE: i32 = 71;
const SO_RESERVE_MEM: i32 = 73;
const SO_RCVMARK: i32 = 75;
const SO_PASSPIDFD: i32 = 76;
const SO_PEERPIDFD: i32 = 77;
const SO_DEVMEM_DONTNEED: i32 = 80;
const SO_RCVPRIORITY: i32 = 82;
const SO_PASSRIGHTS: i32 = 83;
const TCP_THIN_DUPACK: i32 = 17;
const TCP_REPAIR_QUEUE: i32 = 20;
const TCP_QUEUE_SEQ: i32 = 21;
const TCP_REPAIR_OPTIONS: i32 = 22;
const TCP_REPAIR_WINDOW: i32 = 29;
const TCP_MD5SIG_EXT: i32 = 32;
const TCP_TX_DELAY: i32 = 37;
const TCP_IS_MPTCP: i32 = 43;

/// A level that a TCP socket of this family does not have: what setting and reading there give. An AF_INET6 socket has IPv4's
/// options too: it may speak IPv4. Linux: `ip_setsockopt()`, `do_ip_getsockopt()`, `ipv6_setsockopt()`, `ipv6_getsockopt()`.
pub(super) fn refused_level(v6: bool, level: i32) -> Option<(i32, i32)> {
    match level {
        SOCKET | IP | TCP => None,
        IPV6 if v6 => None,
        _ if v6 => Some((ENOPROTOOPT, ENOPROTOOPT)),
        _ => Some((ENOPROTOOPT, EOPNOTSUPP)),
    }
}

/// The option's first value and rule, if it is one of these.
pub(super) fn find(level: i32, name: i32) -> Option<(First, Rule)> {
    let row = KEPT.iter().find(|(at, names, ..)| *at == level && names.contains(&name));
    row.map(|(_, _, first, rule)| (*first, *rule))
}

/// What is kept of `value`, or the errno.
pub(super) fn accept(rule: Rule, value: i32, fast_client: bool) -> Result<i32, i32> {
    match rule {
        Rule::Switch | Rule::BeforeBind => Ok((value != 0).into()),
        Rule::Mtu if matches!(value, 0 | 1280..) => Ok(value),
        Rule::Any => Ok(value),
        Rule::Range(low, high) if (low..=high).contains(&value) => Ok(value),
        Rule::Ignored(low, high) if (low..=high).contains(&value) => Ok(0),
        Rule::Range(..) | Rule::Ignored(..) | Rule::Mtu => Err(EINVAL),
        Rule::Refused(errno) => Err(errno),
        Rule::FastConnect if !matches!(value, 0 | 1) => Err(EINVAL),
        Rule::FastConnect if fast_client => Ok(value),
        Rule::FastConnect => Err(EOPNOTSUPP),
    }
}
