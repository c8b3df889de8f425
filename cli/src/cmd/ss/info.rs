//! The second line of `ss -i`: `tcp_info` in `ss`'s words, and behind them what `ss` leaves out.
//!
//! Rules: iproute2 `misc/ss.c`, `tcp_stats_print()`: what is zero is not said.

use std::fmt::{self, Write as _};

use lastack_core::observe::TcpInfo;
use lastack_core::tcp::state::TcpState;

use crate::table::number;

/// Words of a line, appended to a text.
struct Line<'a> {
    text: &'a mut String,
    start: usize,
}

impl Line<'_> {
    /// A word, behind a space unless it is the first.
    fn word(&mut self, word: impl fmt::Display) {
        let space = if self.text.len() > self.start { " " } else { "" };
        let _ = write!(self.text, "{space}{word}");
    }

    /// `name:`, behind a space unless it is the first.
    fn name(&mut self, name: &str) {
        if self.text.len() > self.start {
            self.text.push(' ');
        }
        self.text.push_str(name);
        self.text.push(':');
    }

    /// `name:value`, unless it is zero.
    fn number(&mut self, name: &str, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.name(name);
            number(self.text, value);
        }
    }

    /// Microseconds as milliseconds, unless they are zero.
    fn ms(&mut self, name: &str, us: u32) {
        if us != 0 {
            self.name(name);
            push_ms(self.text, us);
        }
    }

    /// A time of which the connection was busy, with its share.
    fn limited(&mut self, name: &str, us: u64, busy: u64) {
        if us != 0 {
            let share = 100.0 * us as f64 / busy as f64;
            self.word(format_args!("{name}:{}ms({share:.1}%)", us / 1000));
        }
    }
}

/// Appends C's `%g` of milliseconds: six significant digits, no trailing zeros.
fn push_ms(text: &mut String, us: u32) {
    if us > 999_999 {
        // Rounded: as C does it, from the binary fraction.
        let decimals = match us {
            0..=9_999_999 => 2,
            10_000_000..=99_999_999 => 1,
            _ => 0,
        };
        let rounded = format!("{:.decimals$}", f64::from(us) / 1000.0);
        let exact = if decimals > 0 { rounded.trim_end_matches('0').trim_end_matches('.') } else { &rounded };
        return text.push_str(exact);
    }
    number(text, us / 1000);
    let (mut rest, mut digits) = (us % 1000, 3);
    if rest > 0 {
        while rest % 10 == 0 {
            rest /= 10;
            digits -= 1;
        }
        let _ = write!(text, ".{rest:0digits$}");
    }
}

/// Appends the line.
pub(super) fn line(text: &mut String, info: &TcpInfo, state: TcpState, congestion: Option<&str>) {
    let mut line = Line { start: text.len(), text };
    for (bit, name) in [(1, "ts"), (2, "sack"), (8, "ecn"), (16, "ecnseen"), (32, "fastopen")] {
        if info.options & bit != 0 {
            line.word(name);
        }
    }
    if let Some(name) = congestion {
        line.word(name);
    }
    if info.options & 4 != 0 {
        line.word(format_args!("wscale:{},{}", info.snd_wscale, info.rcv_wscale));
    }
    timing(info, &mut line);
    amounts(info, &mut line);
    rates(info, &mut line);
    recovery(info, state, &mut line);
    beyond(info, state, &mut line);
}

fn timing(info: &TcpInfo, line: &mut Line<'_>) {
    // A socket that never sent anything has a time-out of 3 s, which `ss` takes for none.
    if info.rto != 3_000_000 {
        line.ms("rto", info.rto);
    }
    line.number("backoff", info.backoff);
    if info.rtt != 0 {
        line.ms("rtt", info.rtt);
        line.text.push('/');
        push_ms(line.text, info.rttvar);
    }
    line.ms("ato", info.ato);
    line.number("mss", info.snd_mss);
    line.number("pmtu", info.pmtu);
    line.number("rcvmss", info.rcv_mss);
    line.number("advmss", info.advmss);
    line.number("cwnd", info.snd_cwnd);
    if info.snd_ssthresh < 0xffff {
        line.number("ssthresh", info.snd_ssthresh);
    }
}

fn amounts(info: &TcpInfo, line: &mut Line<'_>) {
    line.number("bytes_sent", info.bytes_sent);
    line.number("bytes_retrans", info.bytes_retrans);
    line.number("bytes_acked", info.bytes_acked);
    line.number("bytes_received", info.bytes_received);
    line.number("segs_out", info.segs_out);
    line.number("segs_in", info.segs_in);
    line.number("data_segs_out", info.data_segs_out);
    line.number("data_segs_in", info.data_segs_in);
}

fn rates(info: &TcpInfo, line: &mut Line<'_>) {
    if info.snd_mss != 0 && info.rtt != 0 && info.snd_cwnd != 0 {
        let bits = f64::from(info.snd_cwnd) * f64::from(info.snd_mss) * 8_000_000.0 / f64::from(info.rtt);
        line.word(format_args!("send {bits:.0}bps"));
    }
    line.number("lastsnd", info.last_data_sent);
    line.number("lastrcv", info.last_data_recv);
    line.number("lastack", info.last_ack_recv);
    let known = |rate: u64| rate != 0 && rate != u64::MAX;
    if known(info.pacing_rate) {
        line.word(format_args!("pacing_rate {}bps", u128::from(info.pacing_rate) * 8));
        if known(info.max_pacing_rate) {
            let _ = write!(line.text, "/{}bps", u128::from(info.max_pacing_rate) * 8);
        }
    }
    if info.delivery_rate != 0 {
        line.word(format_args!("delivery_rate {}bps", u128::from(info.delivery_rate) * 8));
    }
    line.number("delivered", info.delivered);
    line.number("delivered_ce", info.delivered_ce);
    if info.delivery_rate_app_limited != 0 {
        line.word("app_limited");
    }
    if info.busy_time != 0 {
        line.word(format_args!("busy:{}ms", info.busy_time / 1000));
        line.limited("rwnd_limited", info.rwnd_limited, info.busy_time);
        line.limited("sndbuf_limited", info.sndbuf_limited, info.busy_time);
    }
}

fn recovery(info: &TcpInfo, state: TcpState, line: &mut Line<'_>) {
    line.number("unacked", info.unacked);
    if info.retrans != 0 || info.total_retrans != 0 {
        line.word(format_args!("retrans:{}/{}", info.retrans, info.total_retrans));
    }
    line.number("lost", info.lost);
    // A listener has its backlog there.
    if state != TcpState::Listen {
        line.number("sacked", info.sacked);
    }
    line.number("dsack_dups", info.dsack_dups);
    if info.reordering != 3 {
        line.number("reordering", info.reordering);
    }
    line.number("reord_seen", info.reord_seen);
    line.ms("rcv_rtt", info.rcv_rtt);
    line.number("rcv_space", info.rcv_space);
    line.number("rcv_ssthresh", info.rcv_ssthresh);
    line.number("notsent", info.notsent_bytes);
    if info.min_rtt != u32::MAX {
        line.ms("minrtt", info.min_rtt);
    }
    line.number("rcv_ooopack", info.rcv_ooopack);
}

/// What `ss` does not say: a window that is closed, ours, and time-outs in all.
fn beyond(info: &TcpInfo, state: TcpState, line: &mut Line<'_>) {
    if state != TcpState::Listen {
        line.word(format_args!("snd_wnd:{} rcv_wnd:{}", info.snd_wnd, info.rcv_wnd));
    }
    if info.total_rto != 0 {
        line.word(format_args!("rtos:{} ({}ms)", info.total_rto, info.total_rto_time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_have_six_significant_digits() {
        for (us, text) in [
            (43, "0.043"),
            (10, "0.01"),
            (5_237, "5.237"),
            (204_000, "204"),
            (200_500, "200.5"),
            (999_999, "999.999"),
            (1_000_000, "1000"),
            (1_234_565, "1234.57"),
            (9_999_999, "10000"),
            (1_234_567, "1234.57"),
            (123_456_789, "123457"),
        ] {
            let mut spelt = String::new();
            push_ms(&mut spelt, us);
            assert_eq!(spelt, text, "{us} us");
        }
    }

    #[test]
    fn a_listener_says_little() {
        let info = TcpInfo { snd_cwnd: 10, sacked: 128, reordering: 3, rto: 3_000_000, ..TcpInfo::default() };
        let mut text = "before ".to_owned();
        line(&mut text, &info, TcpState::Listen, Some("cubic"));
        assert_eq!(text, "before cubic cwnd:10");
    }
}
