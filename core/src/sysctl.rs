//! Run-time settings by Linux's names. Typed fields here; reading and writing by name in `sysctl::names`.
//!
//! Differs: `tcp_timewait_len` does not exist in Linux, where TIME-WAIT is a compile-time 60 s.

pub mod names;

use crate::tcp::fast_open::FastOpenKeys;
use crate::tcp::options::CongestionKind;
use crate::time::Duration;

/// Every setting of a stack. Defaults are Linux 6.18's.
///
/// Fields that bound a connection are read when they matter, not copied at open, unless Linux copies them.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "each is the Linux sysctl of the same name: see `lastack sysctl NAME`")]
pub struct Sysctl {
    pub tcp_abort_on_overflow: bool,
    pub tcp_app_win: u8,
    pub tcp_base_mss: u32,
    pub tcp_challenge_ack_limit: u32,
    pub tcp_comp_sack_delay: Duration,
    pub tcp_comp_sack_nr: u8,
    pub tcp_congestion_control: CongestionKind,
    pub tcp_dsack: bool,
    pub tcp_early_retrans: u8,
    pub tcp_ecn: u8,
    pub tcp_ecn_fallback: bool,
    /// Bits: 1 client, 2 server, 4 and 0x200 without a cookie, 0x400 every listener.
    pub tcp_fastopen: u32,
    pub tcp_fastopen_blackhole_timeout_sec: u32,
    pub tcp_fastopen_key: FastOpenKeys,
    pub tcp_fin_timeout: Duration,
    pub tcp_frto: u8,
    pub tcp_invalid_ratelimit: Duration,
    pub tcp_keepalive_intvl: Duration,
    pub tcp_keepalive_probes: u8,
    pub tcp_keepalive_time: Duration,
    pub tcp_max_orphans: u32,
    pub tcp_max_reordering: u32,
    pub tcp_max_syn_backlog: u32,
    pub tcp_max_tw_buckets: u32,
    /// Pages of 4096 bytes: low, pressure, high.
    pub tcp_mem: [u64; 3],
    pub tcp_min_rtt_wlen: Duration,
    pub tcp_min_snd_mss: u32,
    pub tcp_min_tso_segs: u8,
    pub tcp_moderate_rcvbuf: bool,
    pub tcp_mtu_probe_floor: u32,
    pub tcp_mtu_probing: u8,
    pub tcp_no_metrics_save: bool,
    pub tcp_no_ssthresh_metrics_save: bool,
    pub tcp_notsent_lowat: u32,
    pub tcp_orphan_retries: u8,
    pub tcp_pacing_ca_ratio: u32,
    pub tcp_pacing_ss_ratio: u32,
    pub tcp_pingpong_thresh: u8,
    pub tcp_probe_interval: Duration,
    pub tcp_probe_threshold: u32,
    pub tcp_recovery: u8,
    pub tcp_reordering: u32,
    pub tcp_reflect_tos: bool,
    pub tcp_retries1: u8,
    pub tcp_retries2: u8,
    pub tcp_rfc1337: bool,
    /// Bytes: least, first, most.
    pub tcp_rmem: [u32; 3],
    pub tcp_rto_max: Duration,
    pub tcp_rto_min: Duration,
    pub tcp_sack: bool,
    pub tcp_shrink_window: bool,
    pub tcp_slow_start_after_idle: bool,
    pub tcp_stdurg: bool,
    pub tcp_syn_linear_timeouts: u8,
    pub tcp_syn_retries: u8,
    pub tcp_synack_retries: u8,
    pub tcp_syncookies: u8,
    pub tcp_thin_linear_timeouts: bool,
    /// 0 off, 1 with a random offset a connection, 2 without.
    pub tcp_timestamps: u8,
    /// Lastack's own: how long TIME-WAIT lasts. Default 60 s, Linux's `TCP_TIMEWAIT_LEN`.
    pub tcp_timewait_len: Duration,
    pub tcp_tso_win_divisor: u8,
    pub tcp_tw_reuse: u8,
    pub tcp_tw_reuse_delay: Duration,
    pub tcp_window_scaling: bool,
    /// Bytes: least, first, most.
    pub tcp_wmem: [u32; 3],
    pub tcp_workaround_signed_windows: bool,
    /// `net.core.busy_poll`, microseconds. Whoever drives the stack heeds it: a stack never waits.
    pub busy_poll: u32,
    /// `net.core.somaxconn`.
    pub somaxconn: u32,
    /// `net.core.rmem_max`, bytes.
    pub rmem_max: u32,
    /// `net.core.wmem_max`, bytes.
    pub wmem_max: u32,
    /// First and last port that `connect` and `bind(0)` choose from.
    pub ip_local_port_range: [u16; 2],
}

impl Default for Sysctl {
    fn default() -> Self {
        const MIB: u32 = 1 << 20;
        Self {
            tcp_abort_on_overflow: false,
            tcp_app_win: 31,
            tcp_base_mss: 1024,
            tcp_challenge_ack_limit: i32::MAX as u32,
            tcp_comp_sack_delay: Duration::from_millis(1),
            tcp_comp_sack_nr: 44,
            tcp_congestion_control: CongestionKind::Cubic,
            tcp_dsack: true,
            tcp_early_retrans: 3,
            tcp_ecn: 2,
            tcp_ecn_fallback: true,
            tcp_fastopen: 1,
            tcp_fastopen_blackhole_timeout_sec: 0,
            tcp_fastopen_key: FastOpenKeys::UNSET,
            tcp_fin_timeout: Duration::from_secs(60),
            tcp_frto: 2,
            tcp_invalid_ratelimit: Duration::from_millis(500),
            tcp_keepalive_intvl: Duration::from_secs(75),
            tcp_keepalive_probes: 9,
            tcp_keepalive_time: Duration::from_secs(7200),
            tcp_max_orphans: 131_072,
            tcp_max_reordering: 300,
            tcp_max_syn_backlog: 2048,
            tcp_max_tw_buckets: 131_072,
            tcp_mem: [190_000, 253_000, 380_000],
            tcp_min_rtt_wlen: Duration::from_secs(300),
            tcp_min_snd_mss: 48,
            tcp_min_tso_segs: 2,
            tcp_moderate_rcvbuf: true,
            tcp_mtu_probe_floor: 48,
            tcp_mtu_probing: 0,
            tcp_no_metrics_save: false,
            tcp_no_ssthresh_metrics_save: true,
            tcp_notsent_lowat: u32::MAX,
            tcp_orphan_retries: 0,
            tcp_pacing_ca_ratio: 120,
            tcp_pacing_ss_ratio: 200,
            tcp_pingpong_thresh: 1,
            tcp_probe_interval: Duration::from_secs(600),
            tcp_probe_threshold: 8,
            tcp_recovery: 1,
            tcp_reordering: 3,
            tcp_reflect_tos: false,
            tcp_retries1: 3,
            tcp_retries2: 15,
            tcp_rfc1337: false,
            tcp_rmem: [4096, 131_072, 32 * MIB],
            tcp_rto_max: Duration::from_secs(120),
            tcp_rto_min: Duration::from_millis(200),
            tcp_sack: true,
            tcp_shrink_window: false,
            tcp_slow_start_after_idle: true,
            tcp_stdurg: false,
            tcp_syn_linear_timeouts: 4,
            tcp_syn_retries: 6,
            tcp_synack_retries: 5,
            tcp_syncookies: 1,
            tcp_thin_linear_timeouts: false,
            tcp_timestamps: 1,
            tcp_timewait_len: Duration::from_secs(60),
            tcp_tso_win_divisor: 3,
            tcp_tw_reuse: 2,
            tcp_tw_reuse_delay: Duration::from_secs(1),
            tcp_window_scaling: true,
            tcp_wmem: [4096, 16_384, 4 * MIB],
            tcp_workaround_signed_windows: false,
            busy_poll: 0,
            somaxconn: 4096,
            rmem_max: 4 * MIB,
            wmem_max: 4 * MIB,
            ip_local_port_range: [32_768, 60_999],
        }
    }
}
