//! Ages the kernel does not keep, inferred from what it does keep: always a lower bound.
//!
//! Input:   one row's timer and `TcpInfo`.
//! Output:  "for at least so long" in milliseconds, or nothing.
//! Rules:   `linux-tcp` 1.5 (FIN-WAIT-2), 2.1 (TIME-WAIT), 3.4 (persist), 3.5, 4.3 (SYN-ACK), 7 (timers).

use lastack_core::observe::{SocketRow, TcpInfo, TimerKind};
use lastack_core::tcp::state::TcpState;

/// Linux `TCP_TIMEWAIT_LEN`.
const TIMEWAIT_MS: u64 = 60_000;
/// Linux `TCP_TIMEOUT_INIT`: first SYN and SYN-ACK time-out.
const SYN_TIMEOUT_MS: u64 = 1_000;
/// Linux `TCP_RTO_MAX` unless `tcp_rto_max_ms` says less.
const RTO_MAX_MS: u64 = 120_000;

/// A time since boot that the kernel reports for "never" is not an age. No one waits 100 days for a close;
/// the kernel's 32-bit jiffies cannot say more than 49 days anyway.
const NEVER_MS: u32 = 4_000_000_000 / 2;

/// For at least how long `socket` has been in its present condition.
pub fn inferred_ms(socket: &SocketRow) -> Option<u64> {
    let info = socket.info.as_deref();
    match socket.state {
        // Restarted by some segments (`linux-tcp` 2.3), so this is a lower bound.
        TcpState::TimeWait => timer(socket, TimerKind::TimeWait).map(|left| TIMEWAIT_MS.saturating_sub(left)),
        TcpState::FinWait2 => info.and_then(last_heard),
        // The SYN-ACK's n-th time-out comes 2^(n+1)-1 s after the first.
        TcpState::NewSynRecv => {
            let on = socket.timer.filter(|timer| timer.kind == TimerKind::On)?;
            Some(backed_off(SYN_TIMEOUT_MS, on.retrans, on.expires_ms.into()))
        }
        TcpState::SynSent => syn_sent(socket, info?),
        TcpState::FinWait1 | TcpState::LastAck | TcpState::Closing => stalled(socket, info?),
        // The FIN that made it CLOSE-WAIT came no later than the last ACK.
        TcpState::CloseWait => info.and_then(last_heard),
        TcpState::Established | TcpState::SynRecv => {
            let info = info?;
            match socket.timer.map(|timer| timer.kind) {
                Some(TimerKind::Persist | TimerKind::On) => stalled(socket, info),
                _ => quiet(info),
            }
        }
        TcpState::Close | TcpState::Listen => None,
    }
}

/// For how long an orphan has been in FIN-WAIT-2, from `tcp_fin_timeout`; nothing when a program holds it
/// or the socket has a `TCP_LINGER2` of its own that is longer.
pub fn orphan_fin_wait_2_ms(socket: &SocketRow, fin_timeout_s: i64) -> Option<u64> {
    let timer = socket.timer.filter(|_| socket.state == TcpState::FinWait2 && socket.orphan)?;
    let whole = u64::try_from(fin_timeout_s).ok()? * 1000;
    match timer.kind {
        // 1.5: up to 60 s the mini socket's timer is the whole life; above, the second part of two.
        TimerKind::TimeWait if whole <= TIMEWAIT_MS => whole.checked_sub(timer.expires_ms.into()),
        TimerKind::TimeWait => (2 * (whole - TIMEWAIT_MS)).checked_sub(timer.expires_ms.into()),
        TimerKind::Keepalive => (whole.checked_sub(TIMEWAIT_MS)?).checked_sub(timer.expires_ms.into()),
        TimerKind::On | TimerKind::Persist => None,
    }
}

/// For how long neither side has sent data.
fn quiet(info: &TcpInfo) -> Option<u64> {
    match (real(info.last_data_sent), real(info.last_data_recv)) {
        (Some(sent), Some(received)) => Some(sent.min(received)),
        (one, other) => one.or(other),
    }
}

/// For how long the peer has not acknowledged anything.
fn last_heard(info: &TcpInfo) -> Option<u64> {
    real(info.last_ack_recv)
}

/// For how long a socket with something to send has not been able to: no new data has left it since
/// `last_data_sent`, and the timer has backed off for so long.
fn stalled(socket: &SocketRow, info: &TcpInfo) -> Option<u64> {
    let on = socket.timer?;
    let rto_ms = u64::from(info.rto / 1000) >> info.backoff.min(16);
    let by_timer = backed_off(rto_ms.max(1), info.backoff, on.expires_ms.into());
    // Retransmissions count as data sent, probes do not (`tcp_event_data_sent`).
    let by_data = if on.kind == TimerKind::Persist { real(info.last_data_sent) } else { None };
    Some(by_timer.max(by_data.unwrap_or(0)).max(if info.retransmits > 0 {
        info.total_rto_time.into()
    } else {
        0
    }))
}

/// The SYN was sent once, and `total_rto_time` counts from its first time-out.
fn syn_sent(socket: &SocketRow, info: &TcpInfo) -> Option<u64> {
    let on = socket.timer.filter(|timer| timer.kind == TimerKind::On)?;
    if info.retransmits == 0 {
        return Some(SYN_TIMEOUT_MS.saturating_sub(on.expires_ms.into()));
    }
    let linear = u64::from(info.retransmits) * SYN_TIMEOUT_MS;
    Some(linear.max(SYN_TIMEOUT_MS + u64::from(info.total_rto_time)))
}

/// Time since the first arming of a timer that doubles, now at `backoff` with `left` to go.
fn backed_off(base_ms: u64, backoff: u8, left_ms: u64) -> u64 {
    let step = |n: u8| base_ms.saturating_mul(1 << n.min(16)).min(RTO_MAX_MS);
    let gone: u64 = (0..backoff).map(step).sum();
    gone + step(backoff).saturating_sub(left_ms)
}

fn timer(socket: &SocketRow, kind: TimerKind) -> Option<u64> {
    socket.timer.filter(|timer| timer.kind == kind).map(|timer| timer.expires_ms.into())
}

fn real(ms: u32) -> Option<u64> {
    (ms < NEVER_MS).then_some(ms.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn third_syn_ack_timeout_is_seven_seconds_after_the_first_syn_ack() {
        // SYN-ACK at 0, 1, 3, 7 s: three repeats, 8 s to the next, of which 8 are left.
        assert_eq!(backed_off(1000, 3, 8000), 7000);
        assert_eq!(backed_off(1000, 3, 5000), 10_000);
    }

    #[test]
    fn steps_stop_doubling_at_rto_max() {
        // 0.2 + 0.4 + … + 102.4 s, then 120 s steps.
        assert_eq!(backed_off(200, 10, 120_000), 200 * 1023);
        assert_eq!(backed_off(200, 11, 120_000), 200 * 1023 + 120_000);
    }

    #[test]
    fn never_is_not_an_age() {
        let info = TcpInfo { last_data_sent: 12, last_data_recv: u32::MAX - 5, ..TcpInfo::default() };
        assert_eq!(quiet(&info), Some(12));
    }
}
