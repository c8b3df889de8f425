//! Scripts from seeds: a world, how a connection begins (`opening`), what may happen to it and how it ends (`life`).

mod life;
mod opening;

use super::random::Random;
use super::story::Story;
use crate::script::{Script, parse};
use life::{end, step};
use opening::{backlog, handshake, open};

/// What a script is mostly about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Opening, both roles, with wrong and repeated segments.
    Handshake,
    /// Data from the peer: holes, repeats, overlaps, windows.
    Receive,
    /// Data to the peer: acknowledgments, SACK, DSACK, windows, loss.
    Send,
    /// Ends in every order, with data and resets about.
    Close,
    /// Socket options in the middle of a connection's life.
    Options,
    /// ICMP errors and bad segments.
    Errors,
    /// Several connections on one small backlog.
    Backlog,
    /// Silence: retransmission, probes, keepalive, with short limits.
    Timers,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Handshake,
        Self::Receive,
        Self::Send,
        Self::Close,
        Self::Options,
        Self::Errors,
        Self::Backlog,
        Self::Timers,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Receive => "receive",
            Self::Send => "send",
            Self::Close => "close",
            Self::Options => "options",
            Self::Errors => "errors",
            Self::Backlog => "backlog",
            Self::Timers => "timers",
        }
    }
}

/// The script of a seed. Lines of the host (`>`) are left out: both hosts are to say.
pub fn generate(seed: u64, kind: Kind) -> Script {
    let mut story = Story::new(Random::new(seed.wrapping_mul(Kind::ALL.len() as u64) + kind as u64));
    world(&mut story, kind);
    match kind {
        Kind::Handshake => handshake(&mut story),
        Kind::Backlog => backlog(&mut story),
        _ => {
            open(&mut story);
            let steps = 4 + story.random.below(14);
            for _ in 0..steps {
                step(&mut story, kind);
            }
            if matches!(kind, Kind::Close) || story.random.chance(50) {
                end(&mut story);
            }
        }
    }
    story.facts();
    let tail = story.random.pick(&[10, 50, 300, 1000, 2500]);
    let tail = if kind == Kind::Timers { 2500 } else { tail };
    story.at(tail, "%{ facts }%");
    parse(&story.text()).expect("a generated script is in the language")
}

/// Address family, link, sysctls, and what the peer can do.
fn world(story: &mut Story, kind: Kind) {
    match story.random.below(10) {
        0 => {
            story.v6 = true;
            story.option("--ip_version=ipv6");
        }
        1 => story.option("--ip_version=ipv4-mapped-ipv6"),
        _ => {}
    }
    story.timestamps = story.random.chance(35);
    story.sack = story.random.chance(75);
    story.wscale = story.random.chance(50).then(|| story.random.pick(&[0, 1, 7, 14, 15]));
    story.mss = story.random.pick(&[1460, 1460, 1460, 1000, 536, 100, 40]);
    story.win = story.random.pick(&[65535, 65535, 65535, 32768, 10000, 2000]);
    if story.wscale.is_some_and(|shift| shift >= 7) {
        story.win = story.random.pick(&[512, 2000, 65535]);
    }
    let sysctls: &[(&str, &[&str])] = &[
        ("net.ipv4.tcp_timestamps", &["0", "2"]),
        ("net.ipv4.tcp_sack", &["0"]),
        ("net.ipv4.tcp_dsack", &["0"]),
        ("net.ipv4.tcp_window_scaling", &["0"]),
        ("net.ipv4.tcp_early_retrans", &["0"]),
        ("net.ipv4.tcp_frto", &["0"]),
        ("net.ipv4.tcp_recovery", &["0", "3", "5"]),
        ("net.ipv4.tcp_reordering", &["1", "6"]),
        ("net.ipv4.tcp_invalid_ratelimit", &["0", "100"]),
        ("net.ipv4.tcp_rfc1337", &["1"]),
        ("net.ipv4.tcp_retries2", &["2", "3"]),
        ("net.ipv4.tcp_orphan_retries", &["1", "2"]),
        ("net.ipv4.tcp_syn_retries", &["1", "2"]),
        ("net.ipv4.tcp_synack_retries", &["0", "1"]),
        ("net.ipv4.tcp_syn_linear_timeouts", &["0", "1"]),
        ("net.ipv4.tcp_fin_timeout", &["1", "2", "61"]),
        ("net.ipv4.tcp_rto_max_ms", &["1000"]),
        ("net.ipv4.tcp_rto_min_us", &["50000", "400000"]),
        ("net.ipv4.tcp_abort_on_overflow", &["1"]),
        ("net.ipv4.tcp_syncookies", &["0", "2"]),
        ("net.ipv4.tcp_slow_start_after_idle", &["0"]),
        ("net.ipv4.tcp_congestion_control", &["reno"]),
        ("net.ipv4.tcp_shrink_window", &["1"]),
        ("net.ipv4.tcp_moderate_rcvbuf", &["0"]),
        ("net.ipv4.tcp_rmem", &["\"4096 8192 16384\"", "\"4096 131072 6291456\""]),
        ("net.ipv4.tcp_max_tw_buckets", &["0"]),
        ("net.ipv4.tcp_thin_linear_timeouts", &["1"]),
        ("net.ipv4.tcp_pingpong_thresh", &["3"]),
        ("net.ipv4.tcp_min_snd_mss", &["500"]),
        ("net.ipv4.tcp_keepalive_time", &["1"]),
        ("net.ipv4.tcp_keepalive_intvl", &["1"]),
        ("net.ipv4.tcp_keepalive_probes", &["1"]),
        ("net.ipv4.tcp_app_win", &["1"]),
        ("net.ipv4.tcp_comp_sack_nr", &["0"]),
        ("net.ipv4.tcp_notsent_lowat", &["1000"]),
        ("net.ipv4.tcp_autocorking", &["0"]),
        ("net.ipv4.tcp_challenge_ack_limit", &["1"]),
    ];
    let changes = story.random.pick(&[0, 0, 0, 1, 1, 2]);
    for _ in 0..changes {
        let (name, values) = story.random.pick(sysctls);
        let value = story.random.pick(values);
        story.sysctl(name, value);
    }
    if kind == Kind::Timers {
        for (name, values) in [
            ("net.ipv4.tcp_retries2", ["2", "3", "15"]),
            ("net.ipv4.tcp_orphan_retries", ["0", "1", "2"]),
            ("net.ipv4.tcp_fin_timeout", ["1", "2", "60"]),
        ] {
            let value = story.random.pick(&values);
            story.sysctl(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::print::print;

    #[test]
    fn a_seed_gives_the_same_script() {
        for kind in Kind::ALL {
            assert_eq!(print(&generate(11, kind)), print(&generate(11, kind)), "{}", kind.name());
            assert_ne!(print(&generate(11, kind)), print(&generate(12, kind)), "{}", kind.name());
        }
    }

    #[test]
    fn what_is_printed_is_the_script() {
        for seed in 0..200 {
            for kind in Kind::ALL {
                let script = generate(seed, kind);
                let again = parse(&print(&script)).expect("printed scripts are in the language");
                assert_eq!(print(&script), print(&again), "seed {seed} {}", kind.name());
            }
        }
    }
}
