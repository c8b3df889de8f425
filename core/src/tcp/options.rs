//! Socket options of a TCP socket: Linux's names, defaults and ranges (specification 8.2).

use core::net::IpAddr;

use crate::error::OptionError;
use crate::id::FourTuple;
use crate::tcp::fast_open::FastOpenKeys;
use crate::time::Duration;
use crate::wire::segment::Segment;

/// Which congestion control a socket uses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum CongestionKind {
    /// CUBIC (RFC 9438 as Linux does it); the default.
    #[default]
    Cubic,
    /// NewReno (RFC 5681).
    Reno,
}

impl CongestionKind {
    /// Linux's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Reno => "reno",
        }
    }
}

/// Every option of a TCP socket. `None` means "as the sysctl says".
///
/// Children of a listener inherit the listener's.
#[derive(Clone, PartialEq, Debug)]
pub struct TcpOptions {
    /// `TCP_NODELAY`: Nagle off. Default false.
    pub nodelay: bool,
    /// `TCP_CORK`: hold partial segments, at most 200 ms. Default false.
    pub cork: bool,
    /// `TCP_MAXSEG`, bytes, 88..=32767.
    pub maxseg: Option<u16>,
    /// `SO_KEEPALIVE`. Default false.
    pub keepalive: bool,
    /// `TCP_KEEPIDLE`, 1..=32767 s.
    pub keepidle: Option<Duration>,
    /// `TCP_KEEPINTVL`, 1..=32767 s.
    pub keepintvl: Option<Duration>,
    /// `TCP_KEEPCNT`, 1..=127.
    pub keepcnt: Option<u8>,
    /// `TCP_USER_TIMEOUT`; zero: off, the default.
    pub user_timeout: Duration,
    /// `SO_LINGER`: `Some(seconds)` when on.
    pub linger: Option<u32>,
    /// `TCP_LINGER2`: how long an orphan's FIN-WAIT-2 may last.
    pub linger2: Linger2,
    /// `TCP_DEFER_ACCEPT`, SYN-ACK rounds (0: off).
    pub defer_accept_rounds: u8,
    /// `TCP_WINDOW_CLAMP`, bytes; 0: off.
    pub window_clamp: u32,
    /// `TCP_SYNCNT`, 1..=127.
    pub syncnt: Option<u8>,
    /// `TCP_CONGESTION`.
    pub congestion: Option<CongestionKind>,
    /// `SO_RCVBUF` as Linux stores it (twice what was asked), bytes; `Some` locks auto-tuning.
    pub rcvbuf: Option<u32>,
    /// `SO_SNDBUF` as Linux stores it (twice what was asked), bytes; `Some` locks auto-tuning.
    pub sndbuf: Option<u32>,
    /// `SO_RCVLOWAT`, bytes. Default 1.
    pub rcvlowat: u32,
    /// `TCP_NOTSENT_LOWAT`, bytes.
    pub notsent_lowat: Option<u32>,
    /// `SO_OOBINLINE`. Default false.
    pub oobinline: bool,
    /// `TCP_RTO_MAX_MS`, 1 s..=120 s.
    pub rto_max: Option<Duration>,
    /// `TCP_RTO_MIN_US`.
    pub rto_min: Option<Duration>,
    /// `TCP_DELACK_MAX_US`.
    pub delack_max: Option<Duration>,
    /// `TCP_THIN_LINEAR_TIMEOUTS`. Default false.
    pub thin_linear_timeouts: bool,
    /// `SO_REUSEADDR`. Default false.
    pub reuseaddr: bool,
    /// `SO_REUSEPORT`. Default false.
    pub reuseport: bool,
    /// `IP_TOS` without the ECN bits: of IPv4 packets. Default 0.
    pub tos: u8,
    /// `IP_TTL`: of IPv4 packets. Default 64.
    pub ttl: u8,
    /// `IPV6_TCLASS` without the ECN bits: of IPv6 packets. Default 0.
    pub traffic_class: u8,
    /// `IPV6_UNICAST_HOPS`: of IPv6 packets. Default 64.
    pub hop_limit: u8,
    /// `IP_MINTTL`: of IPv4 packets; 0: off.
    pub min_ttl: u8,
    /// `IPV6_MINHOPCOUNT`: of IPv6 packets; 0: off.
    pub min_hop_count: u8,
    /// `IP_LOCAL_PORT_RANGE`: first and last port for `connect` to choose from, within `ip_local_port_range`; 0: as that says.
    pub local_port_range: [u16; 2],
    /// `IP_RECVERR`: ICMP errors of IPv4 are told by the next call instead of at the give-up. Default false.
    pub recverr: bool,
    /// `IPV6_RECVERR`: the same for ICMPv6. Default false.
    pub recverr6: bool,
    /// `TCP_FASTOPEN` of a listener: most children whose handshake is not over; 0, the default: none.
    pub fast_open_queue: u32,
    /// `TCP_FASTOPEN_NO_COOKIE`: Fast Open without a cookie, either side. Default false.
    pub fast_open_no_cookie: bool,
    /// `TCP_FASTOPEN_KEY` of a listener: its own secrets instead of the stack's.
    pub fast_open_keys: Option<FastOpenKeys>,
    /// `TCP_SAVE_SYN` of a listener: 0: off, the default; 1: the headers of each SYN are kept for [`crate::Stack::saved_syn`], from
    /// the IP header on; 2: from the link's header on, which this link does not have.
    pub save_syn: u8,
}

/// `TCP_LINGER2`: how long an orphan's FIN-WAIT-2 may last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Linger2 {
    /// As `tcp_fin_timeout` says.
    #[default]
    Sysctl,
    /// This long, 1..=120 s.
    For(Duration),
    /// Set below zero: reset instead of waiting.
    Abort,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            nodelay: false,
            cork: false,
            maxseg: None,
            keepalive: false,
            keepidle: None,
            keepintvl: None,
            keepcnt: None,
            user_timeout: Duration::ZERO,
            linger: None,
            linger2: Linger2::Sysctl,
            defer_accept_rounds: 0,
            window_clamp: 0,
            syncnt: None,
            congestion: None,
            rcvbuf: None,
            sndbuf: None,
            rcvlowat: 1,
            notsent_lowat: None,
            oobinline: false,
            rto_max: None,
            rto_min: None,
            delack_max: None,
            thin_linear_timeouts: false,
            reuseaddr: false,
            reuseport: false,
            tos: 0,
            ttl: 64,
            traffic_class: 0,
            hop_limit: 64,
            min_ttl: 0,
            min_hop_count: 0,
            local_port_range: [0, 0],
            recverr: false,
            recverr6: false,
            fast_open_queue: 0,
            fast_open_no_cookie: false,
            fast_open_keys: None,
            save_syn: 0,
        }
    }
}

impl TcpOptions {
    /// What the packets of this pair have in their IP header.
    pub(crate) fn hop(&self, tuple: &FourTuple) -> Hop {
        match tuple.remote.ip() {
            IpAddr::V4(_) => Hop { ttl: self.ttl, tos: self.tos },
            IpAddr::V6(_) => Hop { ttl: self.hop_limit, tos: self.traffic_class },
        }
    }

    /// A segment has come further than the application allows (RFC 5082).
    pub(crate) fn is_from_too_far(&self, segment: &Segment) -> bool {
        segment.ttl < if segment.src.is_ipv4() { self.min_ttl } else { self.min_hop_count }
    }

    /// As if the application had set IP_TOS or IPV6_TCLASS, whichever is of this pair's packets.
    pub(crate) fn set_class(&mut self, tuple: &FourTuple, class: u8) {
        match tuple.remote.ip() {
            IpAddr::V4(_) => self.tos = class,
            IpAddr::V6(_) => self.traffic_class = class,
        }
    }
}

/// What a packet of ours has in its IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hop {
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    /// TOS or traffic class, without the ECN bits.
    pub(crate) tos: u8,
}

impl Hop {
    /// Of an answer that no socket of its own sends (Linux `tcp_v4_send_reset`, `tcp_v6_send_response`).
    pub(crate) fn answering(segment: &Segment) -> Self {
        Self { ttl: 64, tos: segment.class() }
    }
}

/// One option to set, in Linux's units.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the Linux option of the same name; see `TcpOptions`")]
pub enum TcpOption {
    NoDelay(bool),
    Cork(bool),
    MaxSeg(i32),
    KeepAlive(bool),
    KeepIdle(i32),
    KeepIntvl(i32),
    KeepCnt(i32),
    UserTimeout(i32),
    Linger(Option<u32>),
    Linger2(i32),
    DeferAccept(i32),
    WindowClamp(i32),
    SynCnt(i32),
    QuickAck(bool),
    Congestion(CongestionKind),
    RcvBuf(i32),
    SndBuf(i32),
    RcvLowat(i32),
    NotsentLowat(u32),
    OobInline(bool),
    RtoMaxMs(i32),
    RtoMinUs(i32),
    DelackMaxUs(i32),
    ThinLinearTimeouts(bool),
    ReuseAddr(bool),
    ReusePort(bool),
    Tos(u8),
    Ttl(i32),
    TrafficClass(i32),
    HopLimit(i32),
    MinTtl(i32),
    MinHopCount(i32),
    /// The first port in the lower, the last in the upper 16 bits.
    LocalPortRange(u32),
    RecvErr(bool),
    RecvErr6(bool),
    FastOpenQueue(i32),
    FastOpenNoCookie(bool),
    FastOpenKeys(FastOpenKeys),
    SaveSyn(i32),
}

/// Linux `SOCK_MIN_RCVBUF`, bytes.
pub const SOCK_MIN_RCVBUF: u32 = 2304;
/// Just more than one of Linux's 4 ms jiffies: `TCP_TIMEOUT_MIN` is two of them, and times are rounded up.
const TIMEOUT_MIN_US: i32 = 4_001;
/// Linux `SOCK_MIN_SNDBUF`, bytes.
pub const SOCK_MIN_SNDBUF: u32 = 4608;

impl TcpOptions {
    /// Stores `option` after Linux's checks. `rmem_max` and `wmem_max` are `net.core`'s, bytes.
    ///
    /// Does not act on a live connection: [`crate::Stack::set_option`] does.
    ///
    /// # Errors
    /// [`OptionError::OutOfRange`] where Linux answers `EINVAL`; the old value stays.
    pub fn set(&mut self, option: TcpOption, rmem_max: u32, wmem_max: u32) -> Result<(), OptionError> {
        let range = |value: i32, low: i32, high: i32| -> Result<i32, OptionError> {
            if (low..=high).contains(&value) { Ok(value) } else { Err(OptionError::OutOfRange) }
        };
        match option {
            TcpOption::NoDelay(on) => self.nodelay = on,
            TcpOption::Cork(on) => self.cork = on,
            // Linux: 0 resets to the default.
            TcpOption::MaxSeg(0) => self.maxseg = None,
            TcpOption::MaxSeg(bytes) => self.maxseg = Some(range(bytes, 88, 32767)? as u16),
            TcpOption::KeepAlive(on) => self.keepalive = on,
            TcpOption::KeepIdle(s) => self.keepidle = Some(seconds(range(s, 1, 32767)?)),
            TcpOption::KeepIntvl(s) => self.keepintvl = Some(seconds(range(s, 1, 32767)?)),
            TcpOption::KeepCnt(n) => self.keepcnt = Some(range(n, 1, 127)? as u8),
            TcpOption::UserTimeout(ms) => {
                self.user_timeout = Duration::from_millis(range(ms, 0, i32::MAX)? as u64);
            }
            TcpOption::Linger(linger) => self.linger = linger,
            TcpOption::Linger2(s) if s < 0 => self.linger2 = Linger2::Abort,
            TcpOption::Linger2(0) => self.linger2 = Linger2::Sysctl,
            TcpOption::Linger2(s) => self.linger2 = Linger2::For(seconds(s.min(120))),
            TcpOption::DeferAccept(s) => self.defer_accept_rounds = defer_accept_rounds(s),
            TcpOption::WindowClamp(bytes) => {
                self.window_clamp =
                    if bytes == 0 { 0 } else { (bytes.max(0) as u32).max(SOCK_MIN_RCVBUF / 2) };
            }
            TcpOption::SynCnt(n) => self.syncnt = Some(range(n, 1, 127)? as u8),
            TcpOption::QuickAck(_) => {} // transient state of a live connection, nothing to store
            TcpOption::Congestion(kind) => self.congestion = Some(kind),
            TcpOption::RcvBuf(bytes) => {
                // Linux: min_t(u32, val, rmem_max): below zero is very much.
                self.rcvbuf =
                    Some((bytes.cast_unsigned().min(rmem_max).saturating_mul(2)).max(SOCK_MIN_RCVBUF));
            }
            TcpOption::SndBuf(bytes) => {
                self.sndbuf =
                    Some((bytes.cast_unsigned().min(wmem_max).saturating_mul(2)).max(SOCK_MIN_SNDBUF));
            }
            TcpOption::RcvLowat(bytes) => {
                self.rcvlowat = if bytes < 0 { i32::MAX as u32 } else { (bytes as u32).max(1) };
            }
            TcpOption::NotsentLowat(bytes) => self.notsent_lowat = (bytes != 0).then_some(bytes),
            TcpOption::OobInline(on) => self.oobinline = on,
            TcpOption::RtoMaxMs(ms) => {
                self.rto_max = Some(Duration::from_millis(range(ms, 1_000, 120_000)? as u64));
            }
            TcpOption::RtoMinUs(us) => {
                self.rto_min = Some(Duration::from_micros(range(us, TIMEOUT_MIN_US, 200_000)? as u64));
            }
            TcpOption::DelackMaxUs(us) => {
                self.delack_max = Some(Duration::from_micros(range(us, TIMEOUT_MIN_US, 200_000)? as u64));
            }
            TcpOption::ThinLinearTimeouts(on) => self.thin_linear_timeouts = on,
            TcpOption::ReuseAddr(on) => self.reuseaddr = on,
            TcpOption::ReusePort(on) => self.reuseport = on,
            TcpOption::Tos(tos) => self.tos = tos & !3,
            // Linux: -1 resets to the default.
            TcpOption::Ttl(-1) => self.ttl = 64,
            TcpOption::Ttl(hops) => self.ttl = range(hops, 1, 255)? as u8,
            // Linux do_ipv6_setsockopt(): -1 resets to the default.
            TcpOption::TrafficClass(class) => self.traffic_class = range(class, -1, 255)?.max(0) as u8 & !3,
            TcpOption::HopLimit(-1) => self.hop_limit = 64,
            TcpOption::HopLimit(hops) => self.hop_limit = range(hops, 0, 255)? as u8,
            TcpOption::MinTtl(hops) => self.min_ttl = range(hops, 0, 255)? as u8,
            TcpOption::MinHopCount(hops) => self.min_hop_count = range(hops, 0, 255)? as u8,
            TcpOption::LocalPortRange(bits) => {
                let ports = [bits as u16, (bits >> 16) as u16];
                if ports[0] > ports[1] && ports[1] != 0 {
                    return Err(OptionError::OutOfRange);
                }
                self.local_port_range = ports;
            }
            TcpOption::RecvErr(on) => self.recverr = on,
            TcpOption::RecvErr6(on) => self.recverr6 = on,
            TcpOption::FastOpenQueue(most) => self.fast_open_queue = range(most, 0, i32::MAX)? as u32,
            TcpOption::FastOpenNoCookie(on) => self.fast_open_no_cookie = on,
            TcpOption::FastOpenKeys(keys) => self.fast_open_keys = Some(keys),
            TcpOption::SaveSyn(what) => self.save_syn = range(what, 0, 2)? as u8,
        }
        Ok(())
    }
}

fn seconds(s: i32) -> Duration {
    Duration::from_secs(s.max(0) as u64)
}

/// Linux `secs_to_retrans`: seconds become SYN-ACK rounds of 1, 3, 7, 15, … s.
fn defer_accept_rounds(seconds: i32) -> u8 {
    if seconds <= 0 {
        return 0;
    }
    let (mut rounds, mut total, mut step) = (1u8, 1i64, 1i64);
    while i64::from(seconds) > total && rounds < 255 {
        rounds += 1;
        step = (step * 2).min(120);
        total += step;
    }
    rounds
}

/// The seconds that `rounds` SYN-ACK rounds last (Linux `retrans_to_secs`).
pub fn defer_accept_seconds(rounds: u8) -> u32 {
    let (mut total, mut step) = (0u32, 1u32);
    for _ in 0..rounds {
        total += step;
        step = (step * 2).min(120);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Specification 13.8.
    #[test]
    fn defer_accept_rounds_as_linux() {
        for (seconds, rounds, back) in
            [(0, 0, 0), (1, 1, 1), (2, 2, 3), (3, 2, 3), (5, 3, 7), (10, 4, 15), (60, 6, 63)]
        {
            assert_eq!(defer_accept_rounds(seconds), rounds, "{seconds} s in");
            assert_eq!(defer_accept_seconds(rounds), back, "{seconds} s out");
        }
    }

    #[test]
    fn buffers_below_zero_are_as_large_as_may_be() {
        let mut options = TcpOptions::default();
        for option in [TcpOption::RcvBuf(-1), TcpOption::SndBuf(-1), TcpOption::WindowClamp(-1)] {
            options.set(option, 4 << 20, 4 << 20).expect("taken");
        }
        assert_eq!((options.rcvbuf, options.sndbuf), (Some(8 << 20), Some(8 << 20)));
        assert_eq!(options.window_clamp, SOCK_MIN_RCVBUF / 2);
    }

    #[test]
    fn out_of_range_leaves_the_old_value() {
        let mut options = TcpOptions::default();
        let before = options.clone();
        for bad in [
            TcpOption::KeepIdle(0),
            TcpOption::KeepIdle(32768),
            TcpOption::RtoMaxMs(999),
            TcpOption::UserTimeout(-1),
            TcpOption::RtoMinUs(4_000),
            TcpOption::LocalPortRange(0x0001_0002),
            TcpOption::SaveSyn(3),
        ] {
            assert_eq!(options.set(bad, 4 << 20, 4 << 20), Err(OptionError::OutOfRange));
        }
        assert_eq!(options, before);
    }
}
