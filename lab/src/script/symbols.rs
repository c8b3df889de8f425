//! Names → Linux numbers, and errno numbers → names.

use super::ast::Expr;

macro_rules! table {
    ($($name:ident)+) => {
        &[$((stringify!($name), libc::$name as i64)),+]
    };
}

/// Symbols with the C library's values.
static FROM_LIBC: &[(&str, i64)] = table! {
    AF_INET AF_INET6 AF_UNSPEC PF_INET PF_INET6 SOCK_STREAM SOCK_DGRAM SOCK_NONBLOCK SOCK_CLOEXEC
    IPPROTO_IP IPPROTO_IPV6 IPPROTO_TCP IPPROTO_UDP IPPROTO_ICMP SOL_SOCKET SOL_IP SOL_IPV6 SOL_TCP SOL_UDP
    SO_REUSEADDR SO_REUSEPORT SO_ERROR SO_KEEPALIVE SO_LINGER SO_OOBINLINE SO_RCVBUF SO_SNDBUF SO_RCVLOWAT
    SO_RCVTIMEO SO_SNDTIMEO SO_TIMESTAMPING SO_ZEROCOPY SO_MARK SO_PRIORITY SO_INCOMING_CPU SO_BUSY_POLL
    SO_ACCEPTCONN SO_BINDTODEVICE SO_DOMAIN SO_PROTOCOL SO_TYPE SO_RCVBUFFORCE SO_SNDBUFFORCE SO_MAX_PACING_RATE
    TCP_NODELAY TCP_MAXSEG TCP_CORK TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT TCP_SYNCNT TCP_LINGER2 TCP_DEFER_ACCEPT
    TCP_WINDOW_CLAMP TCP_INFO TCP_QUICKACK TCP_CONGESTION TCP_MD5SIG TCP_USER_TIMEOUT TCP_FASTOPEN TCP_TIMESTAMP
    TCP_NOTSENT_LOWAT TCP_CC_INFO TCP_SAVE_SYN TCP_SAVED_SYN TCP_FASTOPEN_CONNECT TCP_ULP TCP_FASTOPEN_KEY
    TCP_FASTOPEN_NO_COOKIE TCP_INQ TCP_CM_INQ TCP_THIN_LINEAR_TIMEOUTS TCP_ZEROCOPY_RECEIVE TCP_REPAIR
    IP_TOS IP_TTL IP_RECVERR IP_MTU_DISCOVER IP_MTU IP_FREEBIND IP_TRANSPARENT IP_BIND_ADDRESS_NO_PORT IP_MINTTL
    IPV6_RECVERR IPV6_TCLASS IPV6_V6ONLY IPV6_UNICAST_HOPS IPV6_MTU_DISCOVER IPV6_MTU
    IP_PMTUDISC_DONT IP_PMTUDISC_WANT IP_PMTUDISC_DO IP_PMTUDISC_PROBE IP_PMTUDISC_INTERFACE IP_PMTUDISC_OMIT
    MSG_OOB MSG_PEEK MSG_DONTROUTE MSG_CTRUNC MSG_TRUNC MSG_DONTWAIT MSG_EOR MSG_WAITALL MSG_NOSIGNAL MSG_MORE
    MSG_ERRQUEUE MSG_FASTOPEN MSG_ZEROCOPY
    SHUT_RD SHUT_WR SHUT_RDWR O_RDONLY O_WRONLY O_RDWR O_NONBLOCK F_GETFL F_SETFL F_GETFD F_SETFD
    POLLIN POLLPRI POLLOUT POLLERR POLLHUP POLLNVAL POLLRDNORM POLLRDBAND POLLWRNORM POLLWRBAND POLLRDHUP
    EPOLLIN EPOLLPRI EPOLLOUT EPOLLERR EPOLLHUP EPOLLRDNORM EPOLLRDBAND EPOLLWRNORM EPOLLWRBAND EPOLLRDHUP
    SPLICE_F_MOVE SPLICE_F_NONBLOCK SPLICE_F_MORE EPOLLONESHOT EPOLLEXCLUSIVE EPOLL_CTL_ADD EPOLL_CTL_MOD EPOLL_CTL_DEL FIONREAD
    SO_EE_ORIGIN_NONE SO_EE_ORIGIN_LOCAL SO_EE_ORIGIN_ICMP SO_EE_ORIGIN_ICMP6 SCM_TIMESTAMPING
    SOF_TIMESTAMPING_TX_HARDWARE SOF_TIMESTAMPING_TX_SOFTWARE SOF_TIMESTAMPING_RX_HARDWARE
    SOF_TIMESTAMPING_RX_SOFTWARE SOF_TIMESTAMPING_SOFTWARE SOF_TIMESTAMPING_OPT_ID SOF_TIMESTAMPING_TX_SCHED
    SOF_TIMESTAMPING_TX_ACK SOF_TIMESTAMPING_OPT_TSONLY
};

/// Names the C library's crate lacks; values from Linux's headers.
static FROM_LINUX: &[(&str, i64)] = &[
    ("EPOLLET", 1 << 31), // negative as the C library's int
    ("INADDR_ANY", 0),
    ("NULL", 0),
    ("SIOCINQ", 0x541b),
    ("SIOCOUTQ", 0x5411),
    ("SIOCOUTQNSD", 0x894b),
    ("SIOCATMARK", 0x8905),
    ("IP_LOCAL_PORT_RANGE", 51),
    ("IPV6_MINHOPCOUNT", 73),
    ("TCP_RTO_MAX_MS", 44),
    ("TCP_RTO_MIN_US", 45),
    ("TCP_DELACK_MAX_US", 46),
    ("SO_EE_ORIGIN_TIMESTAMPING", 4),
    ("SO_EE_ORIGIN_ZEROCOPY", 5),
    ("SO_EE_CODE_ZEROCOPY_COPIED", 1),
    ("SOF_TIMESTAMPING_OPT_STATS", 1 << 12),
    ("SCM_TSTAMP_SND", 0),
    ("SCM_TSTAMP_SCHED", 1),
    ("SCM_TSTAMP_ACK", 2),
    ("MSG_SPLICE_PAGES", 0x0800_0000),
];

macro_rules! errnos {
    ($($name:ident)+) => {
        &[$((stringify!($name), libc::$name)),+]
    };
}

static ERRNOS: &[(&str, i32)] = errnos! {
    EPERM ENOENT EINTR EIO EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EINVAL ENFILE EMFILE EPIPE EDOM ERANGE
    ENOSYS EPROTO EBADMSG EMSGSIZE ENOPROTOOPT EPROTONOSUPPORT EOPNOTSUPP EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL
    ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETIMEDOUT ECONNREFUSED
    EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ENONET ENOTSOCK EDESTADDRREQ ECANCELED
};

/// The number of `name`, an errno symbol included.
pub fn value(name: &str) -> Option<i64> {
    if name == "EWOULDBLOCK" {
        return Some(i64::from(libc::EAGAIN));
    }
    let plain = FROM_LIBC.iter().chain(FROM_LINUX).find(|(known, _)| *known == name).map(|(_, value)| *value);
    plain.or_else(|| ERRNOS.iter().find(|(known, _)| *known == name).map(|(_, value)| i64::from(*value)))
}

/// The symbol of an errno, or its number as text.
pub fn errno_name(errno: i32) -> String {
    let known = ERRNOS.iter().find(|(_, value)| *value == errno);
    known.map_or_else(|| format!("errno {errno}"), |(name, _)| (*name).to_owned())
}

/// The number an argument stands for: an integer, a symbol, or a union of them.
///
/// # Errors
/// What is not a number, as a message.
pub fn number(expr: &Expr) -> Result<i64, String> {
    match expr {
        Expr::Int(value) => Ok(*value),
        Expr::Symbol(name) => value(name).ok_or_else(|| format!("the symbol {name} is not known")),
        Expr::Union(parts) => parts.iter().try_fold(0, |all, part| Ok(all | number(part)?)),
        other => Err(format!("{} is not a number", super::print::expr_text(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_have_linux_values() {
        assert_eq!(value("SO_LINGER"), Some(13));
        assert_eq!(value("TCP_USER_TIMEOUT"), Some(18));
        assert_eq!(value("EPOLLET"), Some(1 << 31));
        assert_eq!(value("ECONNRESET"), Some(104));
        assert_eq!(value("NO_SUCH_THING"), None);
        assert_eq!(errno_name(110), "ETIMEDOUT");
        let union = Expr::Union(vec![Expr::Symbol("POLLIN".to_owned()), Expr::Symbol("POLLOUT".to_owned())]);
        assert_eq!(number(&union), Ok(5));
    }
}
