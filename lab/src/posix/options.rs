//! `setsockopt` and `getsockopt`: Linux's numbers, units and values ↔ the stack's options.
//!
//! Rules: specification 8.2. Linux: `do_tcp_setsockopt()`, `do_tcp_getsockopt()`, `sk_setsockopt()`.

use lastack_core::id::{ConnectionId, ListenerId};
use lastack_core::observe::TcpInfo;
use lastack_core::tcp::fast_open::FastOpenKeys;
use lastack_core::tcp::options::{CongestionKind, Linger2, TcpOption, TcpOptions, defer_accept_seconds};
use lastack_core::tcp::state::TcpState;
use lastack_core::time::Duration;

use super::fast_open;
use super::kept::{self, First, Rule};
use super::{Posix, Role};
use crate::script::symbols;
use crate::target::{Fd, OptionValue, Outcome, Output};

impl Posix {
    pub(super) fn set_option(&mut self, fd: Fd, level: i32, name: i32, value: &OptionValue) -> Outcome {
        match self.tcp(fd).map(|socket| kept::refused_level(socket.v6, level)) {
            Ok(None) => {}
            Ok(Some((errno, _))) => return Outcome::error(errno),
            Err(outcome) => return outcome,
        }
        if let ((libc::SOL_SOCKET, libc::SO_TIMESTAMPING), OptionValue::Int(flags)) = ((level, name), value) {
            return self.set_timestamping(fd, *flags);
        }
        if let Some((_, rule)) = kept::find(level, name) {
            return self.keep_option(fd, level, name, rule, value);
        }
        let somaxconn = self.stack.sysctl().somaxconn.cast_signed();
        let option = match option_of(level, name, value) {
            Ok(TcpOption::FastOpenQueue(most)) => TcpOption::FastOpenQueue(most.min(somaxconn)),
            Ok(option) => option,
            Err(errno) => return Outcome::error(errno),
        };
        let now = self.now;
        let (rmem_max, wmem_max) = (self.stack.sysctl().rmem_max, self.stack.sysctl().wmem_max);
        let socket = match self.tcp(fd) {
            Ok(socket) => socket,
            Err(outcome) => return outcome,
        };
        // Linux tcp_set_window_clamp(): only in CLOSE; a connection judges for itself.
        if option == TcpOption::WindowClamp(0) && matches!(socket.role, Role::Listener(_)) {
            return Outcome::error(libc::EINVAL);
        }
        if let Err(error) = socket.options.set(option, rmem_max, wmem_max) {
            return Outcome::error(error.errno());
        }
        if let TcpOption::QuickAck(on) = option {
            socket.quickack = Some(on);
        }
        let result = match socket.role {
            Role::Fresh => Ok(()),
            Role::Listener(id) => self.stack.set_listener_option(id, option),
            Role::Connection { id, .. } => self.stack.set_option(now, id, option),
        };
        result.map_or_else(|error| Outcome::error(error.errno()), |()| Outcome::ok(0))
    }

    /// An option that changes nothing in a stack.
    fn keep_option(&mut self, fd: Fd, level: i32, name: i32, rule: Rule, value: &OptionValue) -> Outcome {
        let fast_client = self.stack.sysctl().tcp_fastopen & 1 != 0;
        let OptionValue::Int(value) = value else { return Outcome::error(libc::EINVAL) };
        let socket = match self.tcp(fd) {
            Ok(socket) => socket,
            Err(outcome) => return outcome,
        };
        let is_fresh = matches!(socket.role, Role::Fresh);
        let too_late = match rule {
            Rule::FastConnect => !is_fresh,
            Rule::BeforeBind => !is_fresh || socket.bound.is_some(),
            _ => false,
        };
        match kept::accept(rule, *value, fast_client) {
            Ok(_) if too_late => Outcome::error(libc::EINVAL),
            Ok(value) => {
                socket.kept.insert((level, name), value);
                Outcome::ok(0)
            }
            Err(errno) => Outcome::error(errno),
        }
    }

    pub(super) fn get_option(&mut self, fd: Fd, level: i32, name: i32, len: usize) -> Outcome {
        let (role, own, v6, quickack, kept) = match self.tcp(fd) {
            Ok(socket) => {
                let kept = socket.kept.get(&(level, name)).copied();
                (socket.role, socket.options.clone(), socket.v6, socket.quickack, kept)
            }
            Err(outcome) => return outcome,
        };
        if let Some((_, errno)) = kept::refused_level(v6, level) {
            return Outcome::error(errno);
        }
        let (options, connection) = match role {
            Role::Connection { id, .. } => (self.stack.options(id).cloned().unwrap_or(own), Some(id)),
            Role::Fresh | Role::Listener(_) => (own, None),
        };
        let bytes = match (level, name) {
            (libc::SOL_SOCKET, libc::SO_ERROR) => {
                let left = self.tcp(fd).ok().and_then(|socket| socket.left.take());
                let error = connection.and_then(|id| self.stack.take_error(id)).map(|error| error.errno());
                int(error.or(left).unwrap_or(0))
            }
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPING) => int(self.timestamping(fd)),
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let mut bytes = int(options.linger.is_some().into());
                bytes.extend(int(options.linger.unwrap_or(0) as i32));
                bytes
            }
            (libc::IPPROTO_TCP, libc::TCP_INFO) => {
                crate::tcp_info::compose(&self.tcp_info(fd).unwrap_or_default())
            }
            (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_KEY) => {
                let keys = options.fast_open_keys.unwrap_or(self.stack.sysctl().tcp_fastopen_key);
                // Linux tcp_fastopen_get_cipher(): nothing where nobody has chosen one.
                if keys == FastOpenKeys::default() { Vec::new() } else { keys.to_bytes() }
            }
            (libc::IPPROTO_TCP, libc::TCP_SAVED_SYN) => match connection {
                Some(id) => return self.saved_syn(id, len),
                None => Vec::new(),
            },
            // Neither CUBIC nor Reno has anything to tell.
            (libc::IPPROTO_TCP, libc::TCP_CC_INFO) => Vec::new(),
            (libc::SOL_SOCKET, SO_MEMINFO) => {
                let (rcvbuf, sndbuf) = self.buffers(connection, &options);
                [0, rcvbuf, 0, sndbuf, 0, 0, 0, 0, 0]
                    .iter()
                    .flat_map(|word: &u32| word.to_ne_bytes())
                    .collect()
            }
            (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => {
                let kind = options.congestion.unwrap_or(self.stack.sysctl().tcp_congestion_control);
                let mut bytes = kind.name().as_bytes().to_vec();
                bytes.resize(16, 0);
                bytes
            }
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => {
                let in_use =
                    connection.and_then(|id| self.stack.tcp_info(self.now, id)).map(|info| info.snd_mss);
                int(in_use.or(options.maxseg.map(u32::from)).unwrap_or(536) as i32)
            }
            (libc::SOL_SOCKET, libc::SO_SNDBUF) if connection.is_some() => {
                int(connection.map_or(0, |id| self.stack.send_buffer(id)) as i32)
            }
            (libc::IPPROTO_TCP, libc::TCP_QUICKACK) => {
                let live = connection.and_then(|id| self.stack.is_quickack(id));
                int(live.or(quickack).unwrap_or(true).into())
            }
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => int(self.buffers(connection, &options).0 as i32),
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => int(self.buffers(connection, &options).1 as i32),
            (libc::SOL_SOCKET, libc::SO_DOMAIN) => int(if v6 { libc::AF_INET6 } else { libc::AF_INET }),
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => int(matches!(role, Role::Listener(_)).into()),
            (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP) => {
                let in_use = connection.and_then(|id| self.stack.window_clamp(id));
                int(in_use.unwrap_or(options.window_clamp) as i32)
            }
            (libc::IPPROTO_TCP, libc::TCP_TIMESTAMP) => {
                let clock = connection.and_then(|id| self.stack.timestamp(self.now, id));
                int(clock.unwrap_or(self.now.as_millis() as u32).cast_signed())
            }
            (libc::IPPROTO_IP, libc::IP_MTU) | (libc::IPPROTO_IPV6, libc::IPV6_MTU) => match connection {
                Some(id) => int(self.stack.tcp_info(self.now, id).map_or(0, |info| info.pmtu) as i32),
                None => return Outcome::error(libc::ENOTCONN),
            },
            _ if let Some((first, _)) = kept::find(level, name) => match (kept, first) {
                (Some(value), _) | (None, First::Int(value)) => int(value),
                (None, First::Nothing) => Vec::new(),
                (None, First::Error(errno)) => return Outcome::error(errno),
            },
            _ => match self.value_of(level, name, &options) {
                Some(value) => int(value),
                None => return Outcome::error(libc::ENOPROTOOPT),
            },
        };
        let bytes = bytes[..bytes.len().min(len)].to_vec();
        Outcome::ok(0).with(Output::Bytes(bytes))
    }

    /// Linux `do_tcp_getsockopt()`, `TCP_SAVED_SYN`: whole or not at all; told how long it is, and then it stays. Read, it is gone.
    fn saved_syn(&mut self, id: ConnectionId, room: usize) -> Outcome {
        match self.stack.saved_syn(id).map(<[u8]>::len) {
            Some(len) if len > room => Outcome::error(libc::EINVAL).with(Output::Needs(len)),
            _ => {
                let headers = self.stack.take_saved_syn(id).unwrap_or_default();
                Outcome::ok(0).with(Output::Bytes(headers.into_vec()))
            }
        }
    }

    /// Linux `tcp_get_info`.
    ///
    /// # Errors
    /// The errno: not a descriptor, or of no TCP socket.
    pub(crate) fn tcp_info(&mut self, fd: Fd) -> Result<TcpInfo, i32> {
        let socket = self.tcp(fd).map_err(|outcome| outcome.errno)?;
        let (role, remains) = (socket.role, socket.remains.as_deref().cloned());
        let before = remains.as_ref().map(|info| info.rcv_wnd);
        let live = match role {
            Role::Connection { id, .. } => self.stack.tcp_info(self.now, id),
            Role::Fresh => remains,
            Role::Listener(_) => None,
        };
        let mut info = live.unwrap_or_else(|| self.info_of_no_connection(role));
        let lives = self.connection(fd).and_then(|id| self.stack.life(id));
        let never_began = lives.is_some_and(|life| life.established_at.is_none()) && info.rcv_mss == 88;
        if let (true, Some(rcv_wnd)) = (never_began, before) {
            // Linux tcp_connect_init(): the window is that of the connection which the socket was before.
            info.rcv_mss = info.snd_mss.min(rcv_wnd / 2).clamp(88, 536);
        }
        Ok(info)
    }

    /// What is left of a connection in `TCP_INFO` when its socket is made ready for the next one, as `connect` does when it fails
    /// (Linux `tcp_disconnect()`).
    pub(super) fn remains_of(&self, id: ConnectionId) -> Option<Box<TcpInfo>> {
        let was = self.stack.tcp_info(self.now, id)?;
        // Linux: "seq = tp->write_seq + tp->max_window + 2", which counts as not sent.
        let skipped = self.stack.max_window(id)?.wrapping_add(2);
        Some(Box::new(TcpInfo {
            retransmits: was.retransmits,
            snd_mss: was.snd_mss,
            advmss: was.advmss,
            pmtu: was.pmtu,
            reordering: was.reordering,
            rcv_mss: 88,
            rttvar: 250_000,
            notsent_bytes: was.notsent_bytes.wrapping_add(skipped),
            min_rtt: was.min_rtt,
            rcv_rtt: was.rcv_rtt,
            rcv_space: was.rcv_space,
            rcv_ssthresh: was.rcv_ssthresh,
            snd_wnd: was.snd_wnd,
            rcv_wnd: was.rcv_wnd,
            last_data_sent: was.last_data_sent,
            last_ack_recv: was.last_ack_recv,
            pacing_rate: was.pacing_rate,
            max_pacing_rate: was.max_pacing_rate,
            ..self.info_of_no_connection(Role::Fresh)
        }))
    }

    /// Linux `tcp_get_info` of a socket that is no connection: what `tcp_init_sock()` set, and a listener's queue.
    fn info_of_no_connection(&self, role: Role) -> TcpInfo {
        let sysctl = self.stack.sysctl();
        let mut info = TcpInfo {
            state: TcpState::Close as u8,
            rto: 1_000_000,
            snd_mss: 536,
            snd_cwnd: 10,
            snd_ssthresh: 0x7fff_ffff,
            reordering: sysctl.tcp_reordering,
            ..TcpInfo::default()
        };
        if let Role::Listener(id) = role {
            info.state = TcpState::Listen as u8;
            (info.unacked, info.sacked) = self.listener_queue(id);
        }
        info
    }

    /// Connections that wait to be accepted, and how many may.
    pub(super) fn listener_queue(&self, id: ListenerId) -> (u32, u32) {
        let local = self.stack.listener_addr(id);
        let mut rows = self.stack.sockets(self.now);
        let row = rows.find(|row| row.state == TcpState::Listen && Some(row.local) == local);
        row.map_or((0, 0), |row| (row.recv_q, row.send_q))
    }

    /// Receive and send buffer, bytes.
    fn buffers(&self, connection: Option<ConnectionId>, options: &TcpOptions) -> (u32, u32) {
        let sysctl = self.stack.sysctl();
        let first =
            (options.rcvbuf.unwrap_or(sysctl.tcp_rmem[1]), options.sndbuf.unwrap_or(sysctl.tcp_wmem[1]));
        connection.and_then(|id| self.stack.buffers(id)).unwrap_or(first)
    }

    fn value_of(&self, level: i32, name: i32, options: &TcpOptions) -> Option<i32> {
        let sysctl = self.stack.sysctl();
        let seconds = |own: Option<Duration>, default: Duration| own.unwrap_or(default).as_secs() as i32;
        if level == libc::SOL_SOCKET {
            return Some(match name {
                libc::SO_REUSEADDR => options.reuseaddr.into(),
                libc::SO_REUSEPORT => options.reuseport.into(),
                libc::SO_KEEPALIVE => options.keepalive.into(),
                libc::SO_OOBINLINE => options.oobinline.into(),
                libc::SO_RCVLOWAT => {
                    options.rcvlowat.min(options.rcvbuf.unwrap_or(sysctl.tcp_rmem[2]) / 2) as i32
                }
                _ => return None,
            });
        }
        if level == libc::IPPROTO_IP {
            return Some(match name {
                libc::IP_TOS => options.tos.into(),
                libc::IP_TTL => options.ttl.into(),
                libc::IP_MINTTL => options.min_ttl.into(),
                libc::IP_RECVERR => options.recverr.into(),
                IP_LOCAL_PORT_RANGE => {
                    let [first, last] = options.local_port_range.map(i32::from);
                    first | last << 16
                }
                _ => return None,
            });
        }
        if level == libc::IPPROTO_IPV6 {
            return Some(match name {
                libc::IPV6_TCLASS => options.traffic_class.into(),
                libc::IPV6_UNICAST_HOPS => options.hop_limit.into(),
                libc::IPV6_RECVERR => options.recverr6.into(),
                IPV6_MINHOPCOUNT => options.min_hop_count.into(),
                _ => return None,
            });
        }
        if level != libc::IPPROTO_TCP {
            return None;
        }
        Some(match name {
            libc::TCP_NODELAY => options.nodelay.into(),
            libc::TCP_CORK => options.cork.into(),
            libc::TCP_KEEPIDLE => seconds(options.keepidle, sysctl.tcp_keepalive_time),
            libc::TCP_KEEPINTVL => seconds(options.keepintvl, sysctl.tcp_keepalive_intvl),
            libc::TCP_KEEPCNT => options.keepcnt.unwrap_or(sysctl.tcp_keepalive_probes).into(),
            libc::TCP_SYNCNT => options.syncnt.unwrap_or(sysctl.tcp_syn_retries).into(),
            libc::TCP_LINGER2 => match options.linger2 {
                Linger2::Sysctl => sysctl.tcp_fin_timeout.as_secs() as i32,
                Linger2::For(time) => time.as_secs() as i32,
                Linger2::Abort => -1,
            },
            libc::TCP_DEFER_ACCEPT => defer_accept_seconds(options.defer_accept_rounds) as i32,
            libc::TCP_USER_TIMEOUT => options.user_timeout.as_millis() as i32,
            libc::TCP_NOTSENT_LOWAT => options.notsent_lowat.unwrap_or(0) as i32,
            libc::TCP_SAVE_SYN => options.save_syn.into(),
            libc::TCP_FASTOPEN => options.fast_open_queue.cast_signed(),
            libc::TCP_FASTOPEN_NO_COOKIE => options.fast_open_no_cookie.into(),
            libc::TCP_THIN_LINEAR_TIMEOUTS => options.thin_linear_timeouts.into(),
            _ if i64::from(name) == symbols::value("TCP_RTO_MAX_MS")? => {
                options.rto_max.unwrap_or(sysctl.tcp_rto_max).as_millis() as i32
            }
            _ if i64::from(name) == symbols::value("TCP_RTO_MIN_US")? => {
                options.rto_min.unwrap_or(sysctl.tcp_rto_min).as_micros() as i32
            }
            _ if i64::from(name) == symbols::value("TCP_DELACK_MAX_US")? => {
                options.delack_max.unwrap_or(Duration::from_millis(200)).as_micros() as i32
            }
            _ => return None,
        })
    }
}

/// Linux `SO_MEMINFO`.
const SO_MEMINFO: i32 = 55;
const IP_LOCAL_PORT_RANGE: i32 = 51;
const IPV6_MINHOPCOUNT: i32 = 73;

fn int(value: i32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// Linux's number → the stack's option.
fn option_of(level: i32, name: i32, value: &OptionValue) -> Result<TcpOption, i32> {
    let number = match value {
        OptionValue::Int(_) if (level, name) == (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => {
            return Err(libc::ENOENT);
        }
        OptionValue::Int(_)
            if [(libc::SOL_SOCKET, libc::SO_LINGER), (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_KEY)]
                .contains(&(level, name)) =>
        {
            return Err(libc::EINVAL);
        }
        OptionValue::Int(number) => *number,
        OptionValue::Linger(onoff, seconds) if (level, name) == (libc::SOL_SOCKET, libc::SO_LINGER) => {
            return Ok(TcpOption::Linger((*onoff != 0).then_some((*seconds).max(0) as u32)));
        }
        OptionValue::Bytes(bytes) if (level, name) == (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => {
            return match bytes.as_slice() {
                b"cubic" => Ok(TcpOption::Congestion(CongestionKind::Cubic)),
                b"reno" => Ok(TcpOption::Congestion(CongestionKind::Reno)),
                _ => Err(libc::ENOENT),
            };
        }
        OptionValue::Bytes(bytes) if (level, name) == (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_KEY) => {
            return fast_open::keys(bytes);
        }
        OptionValue::Linger(..) | OptionValue::Bytes(_) => return Err(libc::EINVAL),
    };
    let on = number != 0;
    let numbered = |known: &str| symbols::value(known) == Some(i64::from(name));
    let option = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_REUSEADDR) => TcpOption::ReuseAddr(on),
        (libc::SOL_SOCKET, libc::SO_REUSEPORT) => TcpOption::ReusePort(on),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => TcpOption::KeepAlive(on),
        (libc::SOL_SOCKET, libc::SO_OOBINLINE) => TcpOption::OobInline(on),
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => TcpOption::RcvBuf(number),
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => TcpOption::SndBuf(number),
        (libc::SOL_SOCKET, libc::SO_RCVLOWAT) => TcpOption::RcvLowat(number),
        (libc::IPPROTO_IP, libc::IP_TOS) => TcpOption::Tos(number as u8),
        (libc::IPPROTO_IP, libc::IP_TTL) => TcpOption::Ttl(number),
        (libc::IPPROTO_IP, libc::IP_MINTTL) => TcpOption::MinTtl(number),
        (libc::IPPROTO_IP, libc::IP_RECVERR) => TcpOption::RecvErr(on),
        (libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE) => TcpOption::LocalPortRange(number.cast_unsigned()),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => TcpOption::TrafficClass(number),
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) => TcpOption::HopLimit(number),
        (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT) => TcpOption::MinHopCount(number),
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => TcpOption::RecvErr6(on),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY) => TcpOption::NoDelay(on),
        (libc::IPPROTO_TCP, libc::TCP_CORK) => TcpOption::Cork(on),
        (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => TcpOption::MaxSeg(number),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => TcpOption::KeepIdle(number),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => TcpOption::KeepIntvl(number),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => TcpOption::KeepCnt(number),
        (libc::IPPROTO_TCP, libc::TCP_SYNCNT) => TcpOption::SynCnt(number),
        (libc::IPPROTO_TCP, libc::TCP_LINGER2) => TcpOption::Linger2(number),
        (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT) => TcpOption::DeferAccept(number),
        (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP) => TcpOption::WindowClamp(number),
        (libc::IPPROTO_TCP, libc::TCP_QUICKACK) => TcpOption::QuickAck(on),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => TcpOption::UserTimeout(number),
        (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT) => TcpOption::NotsentLowat(number as u32),
        (libc::IPPROTO_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS) if !matches!(number, 0 | 1) => {
            return Err(libc::EINVAL);
        }
        (libc::IPPROTO_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS) => TcpOption::ThinLinearTimeouts(on),
        (libc::IPPROTO_TCP, libc::TCP_SAVE_SYN) => TcpOption::SaveSyn(number),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN) => TcpOption::FastOpenQueue(number),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_NO_COOKIE) if !matches!(number, 0 | 1) => {
            return Err(libc::EINVAL);
        }
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_NO_COOKIE) => TcpOption::FastOpenNoCookie(on),
        (libc::IPPROTO_TCP, _) if numbered("TCP_RTO_MAX_MS") => TcpOption::RtoMaxMs(number),
        (libc::IPPROTO_TCP, _) if numbered("TCP_RTO_MIN_US") => TcpOption::RtoMinUs(number),
        (libc::IPPROTO_TCP, _) if numbered("TCP_DELACK_MAX_US") => TcpOption::DelackMaxUs(number),
        _ => return Err(libc::ENOPROTOOPT),
    };
    Ok(option)
}
