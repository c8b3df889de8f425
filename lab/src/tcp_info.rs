//! `struct tcp_info` as bytes: the layout of Linux 6.18, read and written.
//!
//! Rules: `include/uapi/linux/tcp.h`; specification 10.1.

use lastack_core::observe::TcpInfo;

/// Size of the structure, bytes.
pub const SIZE: usize = 280;

/// Fields with offset and size in bytes; without `tcpi_`, and without the bit fields of bytes 6 and 7.
pub const FIELDS: [(&str, usize, usize); 65] = [
    ("state", 0, 1),
    ("ca_state", 1, 1),
    ("retransmits", 2, 1),
    ("probes", 3, 1),
    ("backoff", 4, 1),
    ("options", 5, 1),
    ("rto", 8, 4),
    ("ato", 12, 4),
    ("snd_mss", 16, 4),
    ("rcv_mss", 20, 4),
    ("unacked", 24, 4),
    ("sacked", 28, 4),
    ("lost", 32, 4),
    ("retrans", 36, 4),
    ("fackets", 40, 4),
    ("last_data_sent", 44, 4),
    ("last_ack_sent", 48, 4),
    ("last_data_recv", 52, 4),
    ("last_ack_recv", 56, 4),
    ("pmtu", 60, 4),
    ("rcv_ssthresh", 64, 4),
    ("rtt", 68, 4),
    ("rttvar", 72, 4),
    ("snd_ssthresh", 76, 4),
    ("snd_cwnd", 80, 4),
    ("advmss", 84, 4),
    ("reordering", 88, 4),
    ("rcv_rtt", 92, 4),
    ("rcv_space", 96, 4),
    ("total_retrans", 100, 4),
    ("pacing_rate", 104, 8),
    ("max_pacing_rate", 112, 8),
    ("bytes_acked", 120, 8),
    ("bytes_received", 128, 8),
    ("segs_out", 136, 4),
    ("segs_in", 140, 4),
    ("notsent_bytes", 144, 4),
    ("min_rtt", 148, 4),
    ("data_segs_in", 152, 4),
    ("data_segs_out", 156, 4),
    ("delivery_rate", 160, 8),
    ("busy_time", 168, 8),
    ("rwnd_limited", 176, 8),
    ("sndbuf_limited", 184, 8),
    ("delivered", 192, 4),
    ("delivered_ce", 196, 4),
    ("bytes_sent", 200, 8),
    ("bytes_retrans", 208, 8),
    ("dsack_dups", 216, 4),
    ("reord_seen", 220, 4),
    ("rcv_ooopack", 224, 4),
    ("snd_wnd", 228, 4),
    ("rcv_wnd", 232, 4),
    ("rehash", 236, 4),
    ("total_rto", 240, 2),
    ("total_rto_recoveries", 242, 2),
    ("total_rto_time", 244, 4),
    ("received_ce", 248, 4),
    ("delivered_e1_bytes", 252, 4),
    ("delivered_e0_bytes", 256, 4),
    ("delivered_ce_bytes", 260, 4),
    ("received_e1_bytes", 264, 4),
    ("received_e0_bytes", 268, 4),
    ("received_ce_bytes", 272, 4),
    ("accecn_fail_mode", 276, 2),
];

/// The structure as Linux's `getsockopt` writes it. What the stack does not know is zero.
pub fn compose(info: &TcpInfo) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    let values = info.fields();
    for (name, at, size) in FIELDS {
        if let Some((_, value)) = values.iter().find(|(known, _)| *known == name) {
            bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
    }
    bytes[6] = info.snd_wscale & 15 | info.rcv_wscale << 4;
    bytes[7] = (info.delivery_rate_app_limited & 1) | (info.fastopen_client_fail & 3) << 1;
    bytes
}

/// Every field by name, as far as `bytes` goes.
pub fn parse(bytes: &[u8]) -> Vec<(&'static str, u64)> {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    let mut values: Vec<(&'static str, u64)> = FIELDS
        .iter()
        .filter_map(|(name, at, size)| Some((*name, number(bytes.get(*at..at + size)?))))
        .collect();
    if let [.., scales, flags] = bytes.get(..8).unwrap_or(&[]) {
        values.push(("snd_wscale", u64::from(scales & 15)));
        values.push(("rcv_wscale", u64::from(scales >> 4)));
        values.push(("delivery_rate_app_limited", u64::from(flags & 1)));
        values.push(("fastopen_client_fail", u64::from(flags >> 1 & 3)));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let info = TcpInfo {
            state: 4,
            snd_wscale: 7,
            rcv_wscale: 10,
            rto: 204_000,
            snd_cwnd: 10,
            pacing_rate: u64::MAX,
            total_rto: 3,
            ..TcpInfo::default()
        };
        let values = parse(&compose(&info));
        let of = |name: &str| values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let seen =
            ["state", "snd_wscale", "rcv_wscale", "rto", "snd_cwnd", "pacing_rate", "total_rto"].map(of);
        assert_eq!(seen, [4, 7, 10, 204_000, 10, u64::MAX, 3].map(Some));
    }

    #[test]
    fn fields_do_not_overlap() {
        for pair in FIELDS.windows(2) {
            assert!(pair[0].1 + pair[0].2 <= pair[1].1, "{} and {}", pair[0].0, pair[1].0);
        }
        let (_, at, size) = FIELDS[FIELDS.len() - 1];
        assert!(at + size <= SIZE);
    }
}
