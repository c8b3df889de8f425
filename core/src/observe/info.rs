//! Snapshots: one socket's row, and everything Linux's `TCP_INFO` says.

use core::net::SocketAddr;

use crate::tcp::state::TcpState;

/// Congestion state, Linux `tcpi_ca_state`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum CaState {
    /// Nothing suspicious.
    #[default]
    Open = 0,
    /// Duplicate ACKs or SACKs seen, not yet a loss.
    Disorder = 1,
    /// The window is being reduced after ECN or a local drop.
    Cwr = 2,
    /// Fast retransmit.
    Recovery = 3,
    /// After a retransmission time-out.
    Loss = 4,
}

impl CaState {
    /// Linux's name, without the `TCP_CA_` prefix.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "Open",
            Self::Disorder => "Disorder",
            Self::Cwr => "CWR",
            Self::Recovery => "Recovery",
            Self::Loss => "Loss",
        }
    }
}

/// Which timer a socket waits for, as `ss -o` names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum TimerKind {
    /// Retransmission, loss probe, reordering; SYN-ACK for a half-open one. Printed `on`.
    On = 1,
    /// Keepalive, and an orphan's FIN-WAIT-2 while it is a full socket.
    Keepalive = 2,
    /// TIME-WAIT, and an orphan's FIN-WAIT-2 as a mini socket.
    TimeWait = 3,
    /// Zero-window probe.
    Persist = 4,
}

impl TimerKind {
    /// `ss`'s name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Keepalive => "keepalive",
            Self::TimeWait => "timewait",
            Self::Persist => "persist",
        }
    }
}

/// A running timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TimerRow {
    /// Which.
    pub kind: TimerKind,
    /// Milliseconds until it fires.
    pub expires_ms: u32,
    /// Retransmissions (for `On`) or unanswered probes.
    pub retrans: u8,
}

/// One socket, as a line of `ss` would show it. The same type for a stack's and the kernel's sockets.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SocketRow {
    /// State.
    pub state: TcpState,
    /// Our end.
    pub local: SocketAddr,
    /// The other end; port 0 for a listener.
    pub remote: SocketAddr,
    /// Bytes received and not read (an unread FIN counts 1); for a listener the accept queue's length.
    pub recv_q: u32,
    /// Bytes given and not acknowledged (SYN and FIN count 1); for a listener the backlog.
    pub send_q: u32,
    /// The running timer.
    pub timer: Option<TimerRow>,
    /// Unchanging name of the connection from SYN to the end of TIME-WAIT.
    pub cookie: u64,
    /// True when no application holds it any more.
    pub orphan: bool,
    /// Milliseconds since the SYN (or since `listen`), where the source knows.
    pub age_ms: Option<u64>,
    /// Milliseconds in the present state, where the source knows.
    pub state_age_ms: Option<u64>,
    /// Everything else, for full sockets.
    pub info: Option<Box<TcpInfo>>,
}

/// What a stack has in use, beside its sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Gauges {
    /// Connections that no application holds any more; bounded by `tcp_max_orphans`.
    pub orphans: u64,
    /// Bytes in all send and receive queues; bounded by `tcp_mem`, which counts pages of 4096.
    pub queued_bytes: u64,
}

macro_rules! tcp_info {
    ($($(#[$doc:meta])* $field:ident : $type:ty,)+) => {
        /// Linux's `struct tcp_info` as of 6.18 (`tcpi_` left off), same units, same traps
        /// (`rttvar` is the mean deviation; `ack` counts in packets; `fackets` is always 0).
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(default))]
        pub struct TcpInfo { $($(#[$doc])* pub $field: $type,)+ }

        impl TcpInfo {
            /// Every field by Linux's name without `tcpi_`, in the structure's order.
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                let Self { $($field,)+ } = self;
                vec![$((stringify!($field), u64::from(*$field)),)+]
            }

            /// Sets a field by Linux's name without `tcpi_` (for snapshots read back); a value too large for
            /// the field becomes its largest. False when there is no such field.
            pub fn set(&mut self, name: &str, value: u64) -> bool {
                match name {
                    $(stringify!($field) => self.$field = value.try_into().unwrap_or(<$type>::MAX),)+
                    _ => return false,
                }
                true
            }
        }
    };
}

tcp_info! {
    /// State number.
    state: u8,
    /// [`CaState`] number.
    ca_state: u8,
    /// Consecutive retransmission time-outs without progress.
    retransmits: u8,
    /// Unanswered keepalive or window probes.
    probes: u8,
    /// Exponent of the retransmission or persist timer.
    backoff: u8,
    /// 1 timestamps, 2 SACK, 4 window scale, 8 ECN, 16 ECN seen, 32 data on SYN, 64 microsecond timestamps.
    options: u8,
    /// The peer's window shift.
    snd_wscale: u8,
    /// Our window shift.
    rcv_wscale: u8,
    /// 1 when the delivery rate sample was limited by the application.
    delivery_rate_app_limited: u8,
    /// Why a Fast Open of ours did not work: 1 no cookie, 2 the SYN-ACK left the data out, 3 the SYN was repeated; 0: it did,
    /// or there was none.
    fastopen_client_fail: u8,
    /// Retransmission time-out, microseconds.
    rto: u32,
    /// Delayed-ACK time-out, microseconds.
    ato: u32,
    /// Sending segment size, bytes.
    snd_mss: u32,
    /// Estimate of the peer's segment size, bytes.
    rcv_mss: u32,
    /// Packets in flight.
    unacked: u32,
    /// Packets acknowledged selectively.
    sacked: u32,
    /// Packets marked lost.
    lost: u32,
    /// Retransmitted packets still out.
    retrans: u32,
    /// Always 0.
    fackets: u32,
    /// Milliseconds since data was last sent.
    last_data_sent: u32,
    /// Always 0.
    last_ack_sent: u32,
    /// Milliseconds since data was last received.
    last_data_recv: u32,
    /// Milliseconds since an ACK was last received.
    last_ack_recv: u32,
    /// Path MTU, bytes.
    pmtu: u32,
    /// Current slow-start limit of the receive window, bytes.
    rcv_ssthresh: u32,
    /// Smoothed round-trip time, microseconds.
    rtt: u32,
    /// Mean deviation of the round-trip time, microseconds.
    rttvar: u32,
    /// Slow-start threshold, packets; 0x7fffffff is infinite.
    snd_ssthresh: u32,
    /// Congestion window, packets.
    snd_cwnd: u32,
    /// Announced segment size, bytes.
    advmss: u32,
    /// Reordering degree, packets.
    reordering: u32,
    /// Receiver's estimate of the round-trip time, microseconds.
    rcv_rtt: u32,
    /// Receive-buffer tuning: bytes the application reads a round trip.
    rcv_space: u32,
    /// Retransmitted packets in the connection's life.
    total_retrans: u32,
    /// Bytes a second; all ones: unlimited.
    pacing_rate: u64,
    /// Bytes a second; all ones: unlimited.
    max_pacing_rate: u64,
    /// Bytes acknowledged, SYN and FIN counted.
    bytes_acked: u64,
    /// Bytes received in order, a FIN counted as one.
    bytes_received: u64,
    /// Segments sent.
    segs_out: u32,
    /// Segments received.
    segs_in: u32,
    /// Bytes queued and never sent.
    notsent_bytes: u32,
    /// Smallest round-trip time of the window, microseconds; all ones: none.
    min_rtt: u32,
    /// Segments with data received.
    data_segs_in: u32,
    /// Segments with data sent.
    data_segs_out: u32,
    /// Bytes a second delivered.
    delivery_rate: u64,
    /// Microseconds with data in flight.
    busy_time: u64,
    /// Microseconds held up by the peer's window.
    rwnd_limited: u64,
    /// Microseconds held up by the send buffer.
    sndbuf_limited: u64,
    /// Packets delivered.
    delivered: u32,
    /// Packets delivered with CE.
    delivered_ce: u32,
    /// Payload bytes sent, repeats counted.
    bytes_sent: u64,
    /// Payload bytes repeated.
    bytes_retrans: u64,
    /// DSACKs received.
    dsack_dups: u32,
    /// Reordering events seen.
    reord_seen: u32,
    /// Out-of-order packets received.
    rcv_ooopack: u32,
    /// The peer's window, bytes.
    snd_wnd: u32,
    /// Our window, bytes.
    rcv_wnd: u32,
    /// Flow-hash changes.
    rehash: u32,
    /// Retransmission time-outs in the connection's life.
    total_rto: u32,
    /// Of these, episodes that ended in recovery.
    total_rto_recoveries: u32,
    /// Milliseconds spent in them.
    total_rto_time: u32,
}
