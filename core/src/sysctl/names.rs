//! Settings by Linux's names: what there is, what each means, and reading and writing as `/proc/sys` does.
//!
//! Owns:    [`Setting`], one row a setting, and the list of Linux's settings that a stack does not have, each with the reason.
//! Input:   text as a person writes it to `/proc/sys/net/ipv4/…`.
//! Output:  text as `/proc/sys` prints it; a refused write leaves the old value.
//! Rules:   specification 8.1. Numbers are decimal, `0x…` or octal (`0…`), as `proc_dointvec` reads them.
//! Differs: `tcp_timewait_len` is Lastack's own; switches that Linux keeps in a byte read back as 0 or 1; times read back as
//!          written, not rounded to jiffies, and those below zero, which Linux takes and treats as zero, read back as 0.

use core::fmt::Write as _;

use crate::stack::SysctlError;
use crate::sysctl::Sysctl;
use crate::tcp::fast_open::FastOpenKeys;
use crate::tcp::options::CongestionKind;
use crate::time::Duration;

/// A typed way to one field.
#[derive(Clone, Copy)]
struct Field<T: 'static>(fn(&Sysctl) -> &T, fn(&mut Sysctl) -> &mut T);

/// What a setting holds, and between which bounds.
#[derive(Clone, Copy)]
enum Kind {
    /// 0 or 1; a larger number up to the bound is taken as 1.
    Switch(Field<bool>, u64),
    Byte(Field<u8>, u64, u64),
    Word(Field<u32>, u64, u64),
    /// Any C int; below zero as the kernel's unsigned comparisons see it.
    Int(Field<u32>),
    /// At most what another setting says.
    WordUpTo(Field<u32>, u64, fn(&Sysctl) -> u32),
    /// Seconds that the kernel keeps in jiffies, in an int; below zero: none.
    Seconds(Field<Duration>),
    /// A duration, counted in this many nanoseconds.
    Time(Field<Duration>, u64, u64, u64),
    Words(Field<[u32; 3]>, u64, u64),
    Pages(Field<[u64; 3]>),
    Ports(Field<[u16; 2]>),
    Congestion(Field<CongestionKind>),
    Keys(Field<FastOpenKeys>),
}

/// One setting of a stack.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Linux's full name, for example `net.ipv4.tcp_fin_timeout`.
    pub name: &'static str,
    /// What its numbers count; empty for switches and names.
    pub unit: &'static str,
    /// What it does, and what people wrongly expect of it.
    pub help: &'static str,
    kind: Kind,
}

/// A setting of Linux that a stack does not have.
#[derive(Clone, Copy, Debug)]
pub struct NotApplicable {
    /// Linux's full name.
    pub name: &'static str,
    /// Why it means nothing here.
    pub why: &'static str,
}

macro_rules! settings {
    ($($prefix:literal { $($field:ident $kind:ident $(($($bound:expr),+))? $unit:literal $help:literal;)+ })+) => {
        /// Every setting, by name.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            name: concat!($prefix, stringify!($field)),
            unit: $unit,
            help: $help,
            kind: Kind::$kind(Field(|s| &s.$field, |s| &mut s.$field) $($(, $bound)+)?),
        },)+)+];

        /// Stops the build when a setting is in [`Sysctl`] and not in the list.
        #[cfg(test)]
        fn every_field_is_listed(sysctl: &Sysctl) {
            let Sysctl { $($($field: _,)+)+ } = sysctl;
        }
    };
}

const INT_MAX: u64 = i32::MAX as u64;
/// Linux `proc_dointvec_jiffies` at 250 Hz: seconds whose jiffies fit in an int.
const JIFFIES_MAX_S: u64 = INT_MAX / 250;
const UINT_MAX: u64 = u32::MAX as u64;
const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const US: u64 = 1_000;
const NS: u64 = 1;

settings! {
    "net.ipv4." {
        tcp_abort_on_overflow Switch(255) "" "RST instead of silence when the final ACK finds the accept queue full. Does not affect SYNs, and does not cure an overflow.";
        tcp_app_win Byte(0, 31) "shift" "Part of the window kept for the application's buffer; 31: none.";
        tcp_base_mss Int "bytes" "Where path MTU probing starts; only with tcp_mtu_probing.";
        tcp_challenge_ack_limit Int "ACKs a second" "Stack-wide limit of challenge ACKs (RFC 5961); 2147483647: no limit.";
        tcp_comp_sack_delay Time(NS, 0, u64::MAX) "nanoseconds" "Longest time SACK compression holds an ACK (Linux: tcp_comp_sack_delay_ns).";
        tcp_comp_sack_nr Byte(0, 255) "ACKs" "Most ACKs that SACK compression absorbs; 0: off.";
        tcp_congestion_control Congestion "" "Congestion control of new sockets; children take their listener's.";
        tcp_dsack Switch(255) "" "Report duplicates received (RFC 2883).";
        tcp_early_retrans Byte(0, 4) "" "3 or 4: tail loss probes on. RFC 5827's early retransmit no longer exists.";
        tcp_ecn Byte(0, 2) "" "0 off, 1 ask and accept, 2 accept only.";
        tcp_ecn_fallback Switch(1) "" "A repeated SYN does not ask for ECN again (RFC 3168 6.1.1.1).";
        tcp_fastopen Int "bits" "TCP Fast Open: 1 client, 2 server (with TCP_FASTOPEN on the listener), 4 and 0x200 without a cookie, 0x400 every listener. 1 does not enable the server side.";
        tcp_fastopen_blackhole_timeout_sec Word(0, INT_MAX) "seconds" "How long clients do without Fast Open after its third time-out in a row, or a RST or FIN out of order; doubles each time. 0: never.";
        tcp_fastopen_key Keys "" "Secret of Fast Open cookies, and after a comma the one before. All zero: one of the stack's own.";
        tcp_fin_timeout Seconds "seconds" "Life of an orphan's FIN-WAIT-2, at least 3.5 RTO. Does not shorten TIME-WAIT, FIN-WAIT-1 or an owned FIN-WAIT-2; 61 to 89 make it shorter than 60.";
        tcp_frto Byte(0, 255) "" "Not 0: detect spurious time-outs (RFC 5682).";
        tcp_invalid_ratelimit Time(MS, 0, INT_MAX) "milliseconds" "Least time between ACKs for invalid segments of a socket; also limits answers to keepalives, and challenge ACKs.";
        tcp_keepalive_intvl Seconds "seconds" "Between keepalive probes. Nothing happens without SO_KEEPALIVE.";
        tcp_keepalive_probes Byte(0, 255) "probes" "Unanswered keepalive probes before RST and ETIMEDOUT.";
        tcp_keepalive_time Seconds "seconds" "Idle time before the first keepalive probe. Nothing happens without SO_KEEPALIVE.";
        tcp_max_orphans Word(0, INT_MAX) "sockets" "Most connections without an application; also bites at a half and a quarter. TIME-WAIT does not count.";
        tcp_max_reordering Word(1, INT_MAX) "segments" "Cap of the measured reordering degree.";
        tcp_max_syn_backlog Int "requests" "Only for the last-quarter rule with cookies off. The SYN queue's length is the listener's backlog.";
        tcp_max_tw_buckets Int "sockets" "Most mini sockets; above, connections go straight to CLOSE. Lowering it removes protection, it cures nothing.";
        tcp_mem Pages "pages" "Memory of all queues: low, pressure, high. Pages of 4096 bytes, not bytes.";
        tcp_min_rtt_wlen Time(S, 0, 86_400) "seconds" "Window of the minimum round-trip time.";
        tcp_min_snd_mss Word(48, 65_535) "bytes" "Floor of the peer's segment size.";
        tcp_min_tso_segs Byte(1, 255) "segments" "Least size of an automatic super-segment.";
        tcp_moderate_rcvbuf Switch(255) "" "Grow receive buffers by what the application reads. SO_RCVBUF turns it off for a socket.";
        tcp_mtu_probe_floor Word(48, 65_535) "bytes" "Least segment size that a black hole makes path MTU probing try.";
        tcp_mtu_probing Byte(0, 255) "" "0 off, 1 after a black hole, 2 always (RFC 4821).";
        tcp_no_metrics_save Switch(255) "" "Do not remember path metrics (round trip, reordering, window) at an orderly close. What is remembered still serves.";
        tcp_no_ssthresh_metrics_save Switch(1) "" "Do not remember the slow-start threshold among the path metrics.";
        tcp_notsent_lowat Word(0, UINT_MAX) "bytes" "Writable only below this many unsent bytes. Not a send buffer limit.";
        tcp_orphan_retries Byte(0, 255) "exponent" "Patience with an orphan's silent peer; 0 means 8 while RTO is below its maximum. Does not bound a zero window whose peer answers.";
        tcp_pacing_ca_ratio Word(0, 1000) "percent" "Pacing rate beside cwnd / srtt in congestion avoidance.";
        tcp_pacing_ss_ratio Word(0, 1000) "percent" "Pacing rate beside cwnd / srtt in slow start.";
        tcp_pingpong_thresh Byte(1, 255) "replies" "Replies within a delayed ACK's time that make a connection interactive.";
        tcp_probe_interval Time(S, 0, 17_179_869) "seconds" "How long a path MTU that was found is believed before wider ones are tried.";
        tcp_probe_threshold Int "bytes" "Path MTU probing ends when its range is smaller.";
        tcp_recovery Byte(0, 255) "bits" "1 RACK, 2 static reordering window, 4 no duplicate-ACK threshold.";
        tcp_reordering WordUpTo(1, |s| s.tcp_max_reordering) "segments" "First reordering degree of a connection.";
        tcp_reflect_tos Switch(1) "" "Children and their SYN-ACKs have the traffic class of the SYN, not the listener's.";
        tcp_retries1 Byte(0, 255) "exponent" "When the path is suspected; nothing an application sees.";
        tcp_retries2 Byte(0, 255) "exponent" "When unacknowledged data is given up: 15 is 924.6 s. Not a count of retransmissions.";
        tcp_rfc1337 Switch(255) "" "RST cannot kill TIME-WAIT.";
        tcp_rmem Words(1, INT_MAX) "bytes" "Receive buffer: least, first, most (not limited by rmem_max).";
        tcp_rto_max Time(MS, 1_000, 120_000) "milliseconds" "Longest RTO of new sockets (Linux: tcp_rto_max_ms).";
        tcp_rto_min Time(US, 1, INT_MAX) "microseconds" "Shortest RTO of new sockets (Linux: tcp_rto_min_us).";
        tcp_sack Switch(255) "" "Offer and accept selective acknowledgments.";
        tcp_shrink_window Switch(1) "" "Let the window's right edge move left.";
        tcp_slow_start_after_idle Switch(255) "" "Halve the congestion window for each idle RTO.";
        tcp_stdurg Switch(255) "" "RFC 1122's reading of the urgent pointer.";
        tcp_syn_linear_timeouts Byte(0, 127) "time-outs" "First SYN time-outs that are not doubled; added to tcp_syn_retries.";
        tcp_syn_retries Byte(1, 127) "repeats" "Repeats of a SYN: 6 is 131 s with tcp_syn_linear_timeouts = 4.";
        tcp_synack_retries Byte(0, 255) "repeats" "Repeats of a SYN-ACK: 5 is 63 s.";
        tcp_syncookies Byte(0, 255) "" "0 off, 1 when the SYN queue is full, 2 always. 1 is not always on.";
        tcp_thin_linear_timeouts Switch(255) "" "No doubling of the first 6 time-outs of thin streams.";
        tcp_timestamps Byte(0, 255) "" "0 off, 1 with a random offset, 2 without. Off turns off tcp_tw_reuse, PAWS and spurious-loss detection.";
        tcp_timewait_len Time(S, 0, INT_MAX) "seconds" "Lastack's own: how long TIME-WAIT lasts. Linux has 60 s as a compile-time constant.";
        tcp_tso_win_divisor Byte(0, 255) "" "Part of the window a super-segment may take.";
        tcp_tw_reuse Byte(0, 2) "" "connect may take over a TIME-WAIT pair: 0 never, 1 always, 2 on loopback. Never helps a server.";
        tcp_tw_reuse_delay Time(MS, 1, 60_000) "milliseconds" "Age at which TIME-WAIT may be taken over.";
        tcp_window_scaling Switch(255) "" "Offer and accept window scaling (RFC 7323).";
        tcp_wmem Words(1, INT_MAX) "bytes" "Send buffer: least, first, most. SO_SNDBUF turns growing off for a socket.";
        tcp_workaround_signed_windows Switch(255) "" "Never announce an unscaled window above 32767.";
        ip_local_port_range Ports "ports" "First and last port that connect and bind(0) choose from.";
    }
    "net.core." {
        busy_poll Word(0, INT_MAX) "microseconds" "How long the driver looks for the next packet before it sleeps, where small packets come one after the other within that time; 0: it sleeps at once. Costs processor time, saves a wake-up.";
        somaxconn Word(0, INT_MAX) "connections" "Cap of a listener's backlog, taken when it begins to listen.";
        rmem_max Word(2304, INT_MAX) "bytes" "Cap of SO_RCVBUF.";
        wmem_max Word(4608, INT_MAX) "bytes" "Cap of SO_SNDBUF.";
    }
}

/// Linux's names of fields whose name here leaves the unit off.
const ALIASES: &[(&str, &str)] = &[
    ("net.ipv4.tcp_comp_sack_delay_ns", "net.ipv4.tcp_comp_sack_delay"),
    ("net.ipv4.tcp_rto_max_ms", "net.ipv4.tcp_rto_max"),
    ("net.ipv4.tcp_rto_min_us", "net.ipv4.tcp_rto_min"),
];

/// Read-only ones.
const READ_ONLY: &[(&str, &str)] = &[
    ("net.ipv4.tcp_available_congestion_control", "reno cubic"),
    ("net.ipv4.tcp_allowed_congestion_control", "reno cubic"),
];

macro_rules! not_applicable {
    ($($name:literal $why:literal;)+) => {
        /// Settings that Linux has and a stack does not.
        pub const NOT_APPLICABLE: &[NotApplicable] = &[$(NotApplicable { name: $name, why: $why },)+];
    };
}

not_applicable! {
    "net.ipv4.tcp_adv_win_scale" "no effect in Linux since 6.6: the window follows the measured payload share";
    "net.ipv4.ip_autobind_reuse" "explicitly bound ports are never shared by connect";
    "net.ipv4.tcp_autocorking" "nothing queues between the stack and its link, so there is no earlier segment to wait for";
    "net.ipv4.tcp_available_ulp" "upper-layer protocols such as kernel TLS are the application's here";
    "net.ipv4.tcp_backlog_ack_defer" "a stack has no socket lock, so no backlog behind one";
    "net.ipv4.tcp_child_ehash_entries" "the connection table grows by itself";
    "net.ipv4.tcp_comp_sack_slack_ns" "timers are exact, so no slack is needed";
    "net.ipv4.tcp_early_demux" "there is no route lookup to save";
    "net.ipv4.tcp_ecn_option" "AccECN is not negotiated";
    "net.ipv4.tcp_ecn_option_beacon" "AccECN is not negotiated";
    "net.ipv4.tcp_ehash_entries" "the connection table grows by itself";
    "net.ipv4.tcp_fack" "no effect in Linux either: RACK replaced it";
    "net.ipv4.tcp_fwmark_accept" "packets carry no firewall mark here";
    "net.ipv4.tcp_l3mdev_accept" "a stack has one link and no VRF";
    "net.ipv4.tcp_limit_output_bytes" "nothing queues between the stack and its link: what may leave leaves at once";
    "net.ipv4.tcp_low_latency" "no effect in Linux since 4.14";
    "net.ipv4.tcp_migrate_req" "half-open connections do not move between listeners";
    "net.ipv4.tcp_plb_enabled" "a stack cannot choose among paths";
    "net.ipv4.tcp_plb_cong_thresh" "a stack cannot choose among paths";
    "net.ipv4.tcp_plb_idle_rehash_rounds" "a stack cannot choose among paths";
    "net.ipv4.tcp_plb_rehash_rounds" "a stack cannot choose among paths";
    "net.ipv4.tcp_plb_suspend_rto_sec" "a stack cannot choose among paths";
    "net.ipv4.tcp_retrans_collapse" "segments are cut from the send queue anew whenever they are sent";
    "net.ipv4.tcp_tso_rtt_log" "super-segments are sized by the pacing rate alone";
    "net.ipv4.tcp_tw_recycle" "removed from Linux in 4.12: it broke clients behind NAT";
    "net.ipv4.ip_forward" "a stack ends connections; it does not route";
    "net.ipv4.ip_local_reserved_ports" "give connect a port, or narrow ip_local_port_range";
    "net.ipv4.ip_unprivileged_port_start" "a stack has no users";
    "net.ipv4.ip_default_ttl" "set IP_TTL on the socket";
    "net.core.netdev_max_backlog" "the caller hands packets in; nothing queues before the stack";
    "net.core.default_qdisc" "there is no queueing discipline between the stack and its link";
    "net.core.rmem_default" "TCP takes tcp_rmem";
    "net.core.wmem_default" "TCP takes tcp_wmem";
}

/// Finds a setting by Linux's name; `net.ipv4.` and `net.core.` may be left off, and `/` may stand for `.`.
pub fn find(name: &str) -> Option<&'static Setting> {
    let name = name.trim().replace('/', ".");
    let name =
        ALIASES.iter().find(|(alias, _)| matches_name(alias, &name)).map_or(name.as_str(), |(_, to)| to);
    SETTINGS.iter().find(|setting| matches_name(setting.name, name))
}

fn matches_name(full: &str, asked: &str) -> bool {
    full == asked
        || full.strip_prefix("net.ipv4.") == Some(asked)
        || full.strip_prefix("net.core.") == Some(asked)
}

/// Why `name` is not a setting that can be read.
fn explain_missing(name: &str) -> SysctlError {
    let name = name.trim().replace('/', ".");
    match NOT_APPLICABLE.iter().find(|row| matches_name(row.name, &name)) {
        Some(row) => SysctlError::NotApplicable(row.why),
        None => SysctlError::Unknown,
    }
}

fn read_only(name: &str) -> Option<&'static str> {
    let name = name.trim().replace('/', ".");
    READ_ONLY.iter().find(|(full, _)| matches_name(full, &name)).map(|(_, value)| *value)
}

/// Reads a setting as `/proc/sys` prints it, without the line feed.
pub fn get(sysctl: &Sysctl, name: &str) -> Result<String, SysctlError> {
    if let Some(setting) = find(name) {
        return Ok(setting.get(sysctl));
    }
    read_only(name).map(str::to_owned).ok_or_else(|| explain_missing(name))
}

/// Writes a setting as `/proc/sys` takes it.
pub fn set(sysctl: &mut Sysctl, name: &str, value: &str) -> Result<(), SysctlError> {
    match find(name) {
        Some(setting) => setting.set(sysctl, value),
        None if read_only(name).is_some() => Err(SysctlError::ReadOnly),
        None => Err(explain_missing(name)),
    }
}

impl Setting {
    /// The value in `sysctl`, as `/proc/sys` prints it.
    pub fn get(&self, sysctl: &Sysctl) -> String {
        let list = |values: &mut dyn Iterator<Item = u64>| {
            let mut text = String::new();
            for (i, value) in values.enumerate() {
                let _ = write!(text, "{}{value}", if i == 0 { "" } else { "\t" });
            }
            text
        };
        match self.kind {
            Kind::Switch(field, _) => u8::from(*field.0(sysctl)).to_string(),
            Kind::Byte(field, ..) => field.0(sysctl).to_string(),
            Kind::Word(field, ..) | Kind::WordUpTo(field, ..) => field.0(sysctl).to_string(),
            Kind::Int(field) => field.0(sysctl).cast_signed().to_string(),
            Kind::Seconds(field) => field.0(sysctl).as_secs().to_string(),
            Kind::Time(field, unit, ..) => (field.0(sysctl).as_nanos() / u128::from(unit)).to_string(),
            Kind::Words(field, ..) => list(&mut field.0(sysctl).iter().map(|n| u64::from(*n))),
            Kind::Pages(field) => list(&mut field.0(sysctl).iter().copied()),
            Kind::Ports(field) => list(&mut field.0(sysctl).iter().map(|n| u64::from(*n))),
            Kind::Congestion(field) => field.0(sysctl).name().to_owned(),
            Kind::Keys(field) => field.0(sysctl).to_string(),
        }
    }

    /// Linux's default, as `/proc/sys` prints it.
    pub fn default(&self) -> String {
        self.get(&Sysctl::default())
    }

    /// Which values are taken, in words: `0..=255`, `reno or cubic`.
    pub fn range(&self) -> String {
        match self.kind {
            Kind::Switch(_, high) => format!("0..={high} (not 0: on)"),
            Kind::Byte(_, low, high) | Kind::Word(_, low, high) | Kind::Time(_, _, low, high) => {
                format!("{low}..={high}")
            }
            Kind::Int(_) => format!("{}..={}", i32::MIN, i32::MAX),
            Kind::Seconds(_) => format!("0..={JIFFIES_MAX_S}"),
            Kind::WordUpTo(_, low, high) => {
                format!("{low}..={} (tcp_max_reordering)", high(&Sysctl::default()))
            }
            Kind::Words(_, low, high) => format!("three numbers, each {low}..={high}"),
            Kind::Pages(_) => "three numbers".to_owned(),
            Kind::Ports(_) => "two ports, 1..=65535, the first not above the second".to_owned(),
            Kind::Congestion(_) => "reno or cubic".to_owned(),
            Kind::Keys(_) => {
                "four hexadecimal numbers with - between; perhaps a comma and four more".to_owned()
            }
        }
    }

    /// Writes `value`; a refused one leaves the old.
    pub fn set(&self, sysctl: &mut Sysctl, value: &str) -> Result<(), SysctlError> {
        let invalid = || SysctlError::Invalid(format!("{}: {}", self.name, self.range()));
        // Linux proc_dointvec(): what follows the first number is not read.
        let number = |low: u64, high: u64| {
            let number = value.split_ascii_whitespace().next().and_then(parse_number);
            number.filter(|number| (low..=high).contains(number)).ok_or_else(invalid)
        };
        let signed = |most: fn(bool) -> u64| {
            let word = value.split_ascii_whitespace().next().unwrap_or_default();
            let (digits, below_zero) = word.strip_prefix('-').map_or((word, false), |digits| (digits, true));
            let number = parse_number(digits).filter(|number| *number <= most(below_zero));
            let number = number.and_then(|number| i64::try_from(number).ok());
            number.map(|number| if below_zero { -number } else { number }).ok_or_else(invalid)
        };
        match self.kind {
            Kind::Switch(field, high) => *field.1(sysctl) = number(0, high)? != 0,
            Kind::Byte(field, low, high) => *field.1(sysctl) = number(low, high)? as u8,
            Kind::Word(field, low, high) => *field.1(sysctl) = number(low, high)? as u32,
            Kind::WordUpTo(field, low, high) => {
                let high = u64::from(high(sysctl));
                *field.1(sysctl) = number(low, high)? as u32;
            }
            Kind::Int(field) => {
                *field.1(sysctl) = signed(|below_zero| INT_MAX + u64::from(below_zero))? as u32
            }
            Kind::Seconds(field) => {
                let seconds = signed(|_| JIFFIES_MAX_S)?;
                *field.1(sysctl) = Duration::from_secs(seconds.max(0) as u64);
            }
            Kind::Time(field, unit, low, high) => {
                *field.1(sysctl) = Duration::from_nanos(number(low, high)?.saturating_mul(unit));
            }
            Kind::Words(field, low, high) => {
                let mut values = field.0(sysctl).map(u64::from);
                parse_list(value, &mut values, low, high).ok_or_else(invalid)?;
                *field.1(sysctl) = values.map(|n| n as u32);
            }
            Kind::Pages(field) => {
                let mut values = *field.0(sysctl);
                parse_list(value, &mut values, 0, u64::MAX).ok_or_else(invalid)?;
                *field.1(sysctl) = values;
            }
            Kind::Ports(field) => {
                let mut values = field.0(sysctl).map(u64::from);
                parse_list(value, &mut values, 1, 65_535).ok_or_else(invalid)?;
                if values[0] > values[1] {
                    return Err(invalid());
                }
                *field.1(sysctl) = values.map(|n| n as u16);
            }
            Kind::Congestion(field) => {
                let kinds = [CongestionKind::Cubic, CongestionKind::Reno];
                let named = kinds.into_iter().find(|kind| kind.name() == value.trim());
                *field.1(sysctl) = named.ok_or_else(invalid)?;
            }
            Kind::Keys(field) => *field.1(sysctl) = FastOpenKeys::parse(value).ok_or_else(invalid)?,
        }
        Ok(())
    }
}

impl core::fmt::Debug for Setting {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Setting").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Linux `proc_dointvec`: one number at least; those that are missing keep their value, further ones are not read.
fn parse_list(text: &str, values: &mut [u64], low: u64, high: u64) -> Option<()> {
    let mut words = text.split_ascii_whitespace().peekable();
    words.peek()?;
    for (value, word) in values.iter_mut().zip(words) {
        *value = parse_number(word).filter(|number| (low..=high).contains(number))?;
    }
    Some(())
}

/// Linux `simple_strtoul` with base 0.
fn parse_number(word: &str) -> Option<u64> {
    let (digits, base) = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if word.len() > 1 && word.starts_with('0') => (&word[1..], 8),
        None => (word, 10),
    };
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, base).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_prints_what_it_reads() {
        every_field_is_listed(&Sysctl::default());
        for setting in SETTINGS {
            let mut sysctl = Sysctl::default();
            let printed = setting.default();
            setting
                .set(&mut sysctl, &format!("{printed}\n"))
                .unwrap_or_else(|e| panic!("{}: {e:?}", setting.name));
            assert_eq!(sysctl, Sysctl::default(), "{}", setting.name);
            assert!(setting.help.ends_with('.'), "{}", setting.name);
        }
    }

    #[test]
    fn defaults_are_linuxs() {
        let sysctl = Sysctl::default();
        for (name, value) in [
            ("net.ipv4.tcp_rmem", "4096\t131072\t33554432"),
            ("tcp_wmem", "4096\t16384\t4194304"),
            ("net/ipv4/ip_local_port_range", "32768\t60999"),
            ("tcp_fin_timeout", "60"),
            ("tcp_rto_max_ms", "120000"),
            ("tcp_rto_min_us", "200000"),
            ("tcp_comp_sack_delay_ns", "1000000"),
            ("net.core.somaxconn", "4096"),
            ("tcp_congestion_control", "cubic"),
            ("tcp_notsent_lowat", "4294967295"),
            ("tcp_available_congestion_control", "reno cubic"),
        ] {
            assert_eq!(get(&sysctl, name).as_deref(), Ok(value), "{name}");
        }
    }

    #[test]
    fn written_in_linuxs_units_and_forms() {
        let mut sysctl = Sysctl::default();
        for (name, value) in [
            ("tcp_fin_timeout", " 15\n"),
            ("tcp_rto_max_ms", "1000"),
            ("tcp_retries2", "0x8"),
            ("tcp_mem", "10"),
            ("tcp_rmem", "4096 87380 6291456"),
            ("net.ipv4.ip_local_port_range", "1024\t65535"),
            ("tcp_congestion_control", "reno\n"),
            ("tcp_sack", "2"),
            ("tcp_retries1", "4 9"),
            ("tcp_keepalive_time", "-1"),
            ("tcp_max_tw_buckets", "-1"),
            ("tcp_max_reordering", "1000"),
            ("tcp_reordering", "999"),
        ] {
            assert_eq!(set(&mut sysctl, name, value), Ok(()), "{name}");
        }
        assert_eq!(sysctl.tcp_fin_timeout, Duration::from_secs(15));
        assert_eq!(sysctl.tcp_rto_max, Duration::from_secs(1));
        assert_eq!(sysctl.tcp_retries2, 8);
        assert_eq!(sysctl.tcp_mem, [10, 253_000, 380_000], "one number changes the first only");
        assert_eq!(sysctl.tcp_rmem, [4096, 87_380, 6_291_456]);
        assert_eq!(sysctl.ip_local_port_range, [1024, 65_535]);
        assert_eq!(sysctl.tcp_congestion_control, CongestionKind::Reno);
        assert!(sysctl.tcp_sack);
        assert_eq!((sysctl.tcp_retries1, sysctl.tcp_reordering), (4, 999));
        assert_eq!((sysctl.tcp_keepalive_time, sysctl.tcp_max_tw_buckets), (Duration::ZERO, u32::MAX));
        assert_eq!(get(&sysctl, "tcp_max_tw_buckets").as_deref(), Ok("-1"));
    }

    #[test]
    fn a_refused_write_leaves_the_old_value() {
        let mut sysctl = Sysctl::default();
        for (name, value) in [
            ("tcp_ecn", "3"),
            ("tcp_syn_retries", "0"),
            ("tcp_rto_max_ms", "999"),
            ("tcp_retries2", "256"),
            ("tcp_retries2", "-1"),
            ("tcp_retries2", ""),
            ("tcp_retries2", "eight"),
            ("tcp_rmem", "4096 0"),
            ("tcp_reordering", "301"),
            ("tcp_fin_timeout", "8589935"),
            ("tcp_max_tw_buckets", "2147483648"),
            ("tcp_max_tw_buckets", "-2147483649"),
            ("ip_local_port_range", "5000 4000"),
            ("ip_local_port_range", "0 4000"),
            ("tcp_congestion_control", "bbr"),
        ] {
            let answer = set(&mut sysctl, name, value);
            assert!(matches!(answer, Err(SysctlError::Invalid(_))), "{name} = {value:?}: {answer:?}");
        }
        assert_eq!(sysctl, Sysctl::default());
    }

    #[test]
    fn what_a_stack_does_not_have_says_why() {
        let mut sysctl = Sysctl::default();
        assert!(matches!(get(&sysctl, "tcp_ecn_option"), Err(SysctlError::NotApplicable(_))));
        assert!(matches!(
            set(&mut sysctl, "net.ipv4.tcp_tw_recycle", "1"),
            Err(SysctlError::NotApplicable(_))
        ));
        assert_eq!(set(&mut sysctl, "tcp_available_congestion_control", "x"), Err(SysctlError::ReadOnly));
        assert_eq!(get(&sysctl, "tcp_no_such_thing"), Err(SysctlError::Unknown));
        assert_eq!(get(&sysctl, "net.ipv6.tcp_sack"), Err(SysctlError::Unknown));
    }

    #[test]
    fn no_name_is_listed_twice() {
        let mut names: Vec<&str> =
            SETTINGS.iter().map(|s| s.name).chain(NOT_APPLICABLE.iter().map(|row| row.name)).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}
