//! `struct tcp_info` from bytes: a prefix of any length, because every kernel has another.
//!
//! Rules: `linux-tcp` 10.1; Linux `include/uapi/linux/tcp.h`. What the kernel does not give stays 0.

use lastack_core::observe::TcpInfo;

/// Reads as many fields as `bytes` holds.
pub(super) fn parse(bytes: &[u8]) -> TcpInfo {
    let b = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let w = |at: usize| super::netlink::u16_at(bytes, at).unwrap_or(0);
    let d = |at: usize| super::netlink::u32_at(bytes, at).unwrap_or(0);
    let q = |at: usize| super::netlink::u64_at(bytes, at).unwrap_or(0);
    TcpInfo {
        state: b(0),
        ca_state: b(1),
        retransmits: b(2),
        probes: b(3),
        backoff: b(4),
        options: b(5),
        snd_wscale: b(6) & 0xf,
        rcv_wscale: b(6) >> 4,
        delivery_rate_app_limited: b(7) & 1,
        fastopen_client_fail: b(7) >> 1 & 3,
        rto: d(8),
        ato: d(12),
        snd_mss: d(16),
        rcv_mss: d(20),
        unacked: d(24),
        sacked: d(28),
        lost: d(32),
        retrans: d(36),
        fackets: d(40),
        last_data_sent: d(44),
        last_ack_sent: d(48),
        last_data_recv: d(52),
        last_ack_recv: d(56),
        pmtu: d(60),
        rcv_ssthresh: d(64),
        rtt: d(68),
        rttvar: d(72),
        snd_ssthresh: d(76),
        snd_cwnd: d(80),
        advmss: d(84),
        reordering: d(88),
        rcv_rtt: d(92),
        rcv_space: d(96),
        total_retrans: d(100),
        pacing_rate: q(104),
        max_pacing_rate: q(112),
        bytes_acked: q(120),
        bytes_received: q(128),
        segs_out: d(136),
        segs_in: d(140),
        notsent_bytes: d(144),
        min_rtt: d(148),
        data_segs_in: d(152),
        data_segs_out: d(156),
        delivery_rate: q(160),
        busy_time: q(168),
        rwnd_limited: q(176),
        sndbuf_limited: q(184),
        delivered: d(192),
        delivered_ce: d(196),
        bytes_sent: q(200),
        bytes_retrans: q(208),
        dsack_dups: d(216),
        reord_seen: d(220),
        rcv_ooopack: d(224),
        snd_wnd: d(228),
        rcv_wnd: d(232),
        rehash: d(236),
        total_rto: w(240).into(),
        total_rto_recoveries: w(242).into(),
        total_rto_time: d(244),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_prefix_is_read_and_the_rest_is_zero() {
        let bytes: Vec<u8> = (0..=255).chain(0..24).collect(); // 280 bytes, as 6.18 gives
        for length in 0..=bytes.len() {
            let info = parse(&bytes[..length]);
            assert_eq!(info.total_rto_time == 0, length < 248, "length {length}");
        }
        let info = parse(&bytes);
        assert_eq!((info.snd_wscale, info.rcv_wscale), (6, 0));
        assert_eq!(info.rto, u32::from_ne_bytes([8, 9, 10, 11]));
        assert_eq!(info.bytes_received, u64::from_ne_bytes([128, 129, 130, 131, 132, 133, 134, 135]));
        assert_eq!(info.total_rto, u32::from(u16::from_ne_bytes([240, 241])));
    }
}
