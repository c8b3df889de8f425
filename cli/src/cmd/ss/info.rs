//! The second line of `ss -i`: `tcp_info` in `ss`'s words, and behind them what `ss` leaves out.
//!
//! Rules: iproute2 `misc/ss.c`, `tcp_stats_print()`: what is zero is not said.

use lastack_core::observe::TcpInfo;
use lastack_core::tcp::state::TcpState;

/// Words of a line.
#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn word(&mut self, word: impl Into<String>) {
        self.0.push(word.into());
    }

    /// `name:value`, unless it is zero.
    fn number(&mut self, name: &str, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.word(format!("{name}:{value}"));
        }
    }

    /// Microseconds as milliseconds, unless they are zero.
    fn ms(&mut self, name: &str, us: u32) {
        if us != 0 {
            self.word(format!("{name}:{}", ms(us)));
        }
    }

    /// A time of which the connection was busy, with its share.
    fn limited(&mut self, name: &str, us: u64, busy: u64) {
        if us != 0 {
            self.word(format!("{name}:{}ms({:.1}%)", us / 1000, 100.0 * us as f64 / busy as f64));
        }
    }
}

/// C's `%g` of milliseconds: six significant digits, no trailing zeros.
fn ms(us: u32) -> String {
    let decimals = match us {
        0..=999_999 => 3,
        1_000_000..=9_999_999 => 2,
        10_000_000..=99_999_999 => 1,
        _ => 0,
    };
    let text = format!("{:.decimals$}", f64::from(us) / 1000.0);
    if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The line.
pub(super) fn line(info: &TcpInfo, state: TcpState, congestion: Option<&str>) -> String {
    let mut line = Line::default();
    for (bit, name) in [(1, "ts"), (2, "sack"), (8, "ecn"), (16, "ecnseen"), (32, "fastopen")] {
        if info.options & bit != 0 {
            line.word(name);
        }
    }
    if let Some(name) = congestion {
        line.word(name);
    }
    if info.options & 4 != 0 {
        line.word(format!("wscale:{},{}", info.snd_wscale, info.rcv_wscale));
    }
    timing(info, &mut line);
    amounts(info, &mut line);
    rates(info, &mut line);
    recovery(info, state, &mut line);
    beyond(info, state, &mut line);
    line.0.join(" ")
}

fn timing(info: &TcpInfo, line: &mut Line) {
    // A socket that never sent anything has a time-out of 3 s, which `ss` takes for none.
    if info.rto != 3_000_000 {
        line.ms("rto", info.rto);
    }
    line.number("backoff", info.backoff);
    if info.rtt != 0 {
        line.word(format!("rtt:{}/{}", ms(info.rtt), ms(info.rttvar)));
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

fn amounts(info: &TcpInfo, line: &mut Line) {
    line.number("bytes_sent", info.bytes_sent);
    line.number("bytes_retrans", info.bytes_retrans);
    line.number("bytes_acked", info.bytes_acked);
    line.number("bytes_received", info.bytes_received);
    line.number("segs_out", info.segs_out);
    line.number("segs_in", info.segs_in);
    line.number("data_segs_out", info.data_segs_out);
    line.number("data_segs_in", info.data_segs_in);
}

fn rates(info: &TcpInfo, line: &mut Line) {
    if info.snd_mss != 0 && info.rtt != 0 && info.snd_cwnd != 0 {
        let bits = f64::from(info.snd_cwnd) * f64::from(info.snd_mss) * 8_000_000.0 / f64::from(info.rtt);
        line.word(format!("send {bits:.0}bps"));
    }
    line.number("lastsnd", info.last_data_sent);
    line.number("lastrcv", info.last_data_recv);
    line.number("lastack", info.last_ack_recv);
    let known = |rate: u64| rate != 0 && rate != u64::MAX;
    if known(info.pacing_rate) {
        let most = if known(info.max_pacing_rate) {
            format!("/{}bps", u128::from(info.max_pacing_rate) * 8)
        } else {
            String::new()
        };
        line.word(format!("pacing_rate {}bps{most}", u128::from(info.pacing_rate) * 8));
    }
    if info.delivery_rate != 0 {
        line.word(format!("delivery_rate {}bps", u128::from(info.delivery_rate) * 8));
    }
    line.number("delivered", info.delivered);
    line.number("delivered_ce", info.delivered_ce);
    if info.delivery_rate_app_limited != 0 {
        line.word("app_limited");
    }
    if info.busy_time != 0 {
        line.word(format!("busy:{}ms", info.busy_time / 1000));
        line.limited("rwnd_limited", info.rwnd_limited, info.busy_time);
        line.limited("sndbuf_limited", info.sndbuf_limited, info.busy_time);
    }
}

fn recovery(info: &TcpInfo, state: TcpState, line: &mut Line) {
    line.number("unacked", info.unacked);
    if info.retrans != 0 || info.total_retrans != 0 {
        line.word(format!("retrans:{}/{}", info.retrans, info.total_retrans));
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
fn beyond(info: &TcpInfo, state: TcpState, line: &mut Line) {
    if state != TcpState::Listen {
        line.word(format!("snd_wnd:{} rcv_wnd:{}", info.snd_wnd, info.rcv_wnd));
    }
    if info.total_rto != 0 {
        line.word(format!("rtos:{} ({}ms)", info.total_rto, info.total_rto_time));
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
            (1_234_567, "1234.57"),
            (123_456_789, "123457"),
        ] {
            assert_eq!(ms(us), text, "{us} us");
        }
    }

    #[test]
    fn a_listener_says_little() {
        let info = TcpInfo { snd_cwnd: 10, sacked: 128, reordering: 3, rto: 3_000_000, ..TcpInfo::default() };
        assert_eq!(line(&info, TcpState::Listen, Some("cubic")), "cubic cwnd:10");
    }
}
