//! How long Linux keeps a socket in a state: the arithmetic behind evidence and predictions.
//!
//! Rules: `linux-tcp` 1.5, 2.5, 3.2, 3.4, 3.5.

/// Linux `TCP_TIMEWAIT_LEN`; no knob changes it.
pub const TIMEWAIT_MS: u64 = 60_000;
/// Linux `TCP_RTO_MIN`, the base of the time-out model.
const RTO_MIN_MS: u64 = 200;
/// First time-out of SYN and SYN-ACK.
const SYN_TIMEOUT_MS: u64 = 1_000;
/// Linux `TCP_RTO_MAX` by default.
pub const RTO_MAX_MS: u64 = 120_000;

/// Linux `tcp_model_timeout()`: the time in which `n` doublings of `base` pass.
pub fn model_ms(n: u32, base_ms: u64, rto_max_ms: u64) -> u64 {
    let k = (rto_max_ms / base_ms.max(1)).max(1).ilog2();
    if n <= k {
        base_ms * ((2u64 << n) - 1)
    } else {
        base_ms * ((2u64 << k) - 1) + u64::from(n - k) * rto_max_ms
    }
}

/// How long a connection with unacknowledged data is kept (`tcp_retries2`).
pub fn retries2_ms(retries2: u32, rto_max_ms: u64) -> u64 {
    model_ms(retries2, RTO_MIN_MS, rto_max_ms)
}

/// How long an orphan whose peer is silent is kept (`tcp_orphan_retries`).
///
/// 0 means 8 retries, but none any more once the time-out has grown to its maximum: with a small
/// `tcp_rto_max_ms` that comes first.
pub fn orphan_silent_ms(orphan_retries: u32, rto_max_ms: u64) -> u64 {
    match orphan_retries {
        0 => model_ms(8, RTO_MIN_MS, rto_max_ms).min(until_largest_ms(rto_max_ms)),
        retries => model_ms(retries, RTO_MIN_MS, rto_max_ms),
    }
}

/// How long an orphan behind a zero window is kept when the peer answers its probes: until the doubled
/// interval reaches the largest, whatever `tcp_orphan_retries` says.
pub fn orphan_zero_window_ms(rto_max_ms: u64) -> u64 {
    // 3.4: 0.204 s * (2^10 - 1) + 120 s with the defaults.
    until_largest_ms(rto_max_ms)
}

/// Doublings of the least time-out until it would be the largest, and that one.
fn until_largest_ms(rto_max_ms: u64) -> u64 {
    let mut interval = RTO_MIN_MS;
    let mut total = 0;
    while interval < rto_max_ms {
        total += interval;
        interval *= 2;
    }
    total + rto_max_ms
}

/// How long an orphan's FIN-WAIT-2 lives with `tcp_fin_timeout` at `seconds`: not monotonic, and never
/// shorter than 3.5 time-outs.
pub fn orphan_fin_wait_2_ms(seconds: i64) -> u64 {
    let ms = u64::try_from(seconds).unwrap_or(0).saturating_mul(1000).max(RTO_MIN_MS * 7 / 2);
    if ms <= TIMEWAIT_MS { ms } else { 2 * (ms - TIMEWAIT_MS) }
}

/// How long a half-open connection is kept (`tcp_synack_retries`).
pub fn syn_recv_ms(synack_retries: u32) -> u64 {
    model_ms(synack_retries, SYN_TIMEOUT_MS, RTO_MAX_MS)
}

/// How long `connect` waits for an answer: the `linear` first time-outs are not doubled.
pub fn syn_sent_ms(syn_retries: u32, linear: u32) -> u64 {
    let by_model = model_ms(syn_retries, SYN_TIMEOUT_MS, RTO_MAX_MS);
    let mut total = 0;
    // Linux: both are bytes, at most 127.
    for n in 0..=(syn_retries.min(127) + linear.min(127)) {
        let doublings = n.saturating_sub(linear).min(20);
        total += (SYN_TIMEOUT_MS << doublings).min(RTO_MAX_MS);
        if n > 0 && total >= by_model {
            break;
        }
    }
    total
}

/// Connections a second from one address to one address and port that do not run out of ports when
/// this side closes first.
pub fn sustainable_per_second(ports: u64) -> u64 {
    ports.saturating_mul(1000) / TIMEWAIT_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries2(n: u32) -> u64 {
        retries2_ms(n, RTO_MAX_MS)
    }

    #[test]
    fn the_specification_s_table() {
        // linux-tcp 3.2: model(N) with RTO_MAX 120 s and 1 s.
        for (n, ms) in
            [(1, 600), (2, 1_400), (3, 3_000), (5, 12_600), (8, 102_200), (10, 324_600), (15, 924_600)]
        {
            assert_eq!(model_ms(n, 200, 120_000), ms, "N = {n}");
        }
        for (n, ms) in [(3, 2_400), (5, 4_400), (15, 14_400)] {
            assert_eq!(model_ms(n, 200, 1_000), ms, "N = {n}, RTO_MAX 1 s");
        }
        // 13.1: from N = 0 to 15, and from a second.
        let tenths = [2, 6, 14, 30, 62, 126, 254, 510, 1022, 2046, 3246, 4446, 5646, 6846, 8046, 9246]
            .map(|n| n * 100);
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].map(retries2), tenths);
        assert_eq!([1, 2, 3, 4, 5, 6, 7].map(syn_recv_ms), [3, 7, 15, 31, 63, 127, 247].map(|n| n * 1000));
    }

    #[test]
    fn lives_measured_on_linux() {
        // 3.4: about 329 s computed with an RTO of 204 ms; 200 ms gives a little less.
        assert_eq!(orphan_zero_window_ms(120_000), 324_600);
        // 1.5: 3 → 3 s, 60 → 60, 61 → 2, 75 → 30, 90 → 60, 120 → 120, 200 → 280.
        for (seconds, life) in [(3, 3), (60, 60), (61, 2), (75, 30), (90, 60), (120, 120), (200, 280)] {
            assert_eq!(orphan_fin_wait_2_ms(seconds), life * 1000, "tcp_fin_timeout {seconds}");
        }
        assert_eq!(orphan_fin_wait_2_ms(0), 700, "3.5 time-outs at least");
        // 3.2: 0 and 8 are not the same once the time-out is at its maximum (measured: 2.8 s and 8.9 s).
        assert_eq!((orphan_silent_ms(0, 120_000), orphan_silent_ms(8, 120_000)), (102_200, 102_200));
        assert_eq!((orphan_silent_ms(0, 1_000), orphan_silent_ms(8, 1_000)), (2_400, 7_400));
        assert_eq!(syn_recv_ms(5), 63_000);
        // 3.5: 131 s with 6 and 4; 127 s without linear ones; 3 s and 7 s where the model wins.
        assert_eq!(syn_sent_ms(6, 4), 131_000);
        assert_eq!(syn_sent_ms(6, 0), 127_000);
        assert_eq!(syn_sent_ms(1, 4), 3_000);
        assert_eq!(syn_sent_ms(2, 4), 7_000);
        assert_eq!(sustainable_per_second(28_232), 470);
    }
}
