//! NewReno's one decision: half the window, at least two segments (RFC 5681 4; Linux `tcp_reno_ssthresh`).

/// The threshold after a loss.
pub(super) fn ssthresh(snd_cwnd: u32) -> u32 {
    (snd_cwnd / 2).max(2)
}

#[cfg(test)]
mod tests {
    use crate::tcp::congestion::{Congestion, INFINITE_SSTHRESH, Window};
    use crate::tcp::options::CongestionKind;
    use crate::tcp::seq::SeqNum;
    use crate::time::Instant;

    #[test]
    fn slow_start_doubles_then_one_a_round() {
        let mut reno = Congestion::new(CongestionKind::Reno);
        let mut w = Window { snd_cwnd: 10, snd_ssthresh: INFINITE_SSTHRESH, snd_cwnd_cnt: 0 };
        reno.on_acked(&mut w, 10, Instant::ZERO, SeqNum(0));
        assert_eq!(w.snd_cwnd, 20);
        w.snd_ssthresh = reno.ssthresh(w.snd_cwnd, Instant::ZERO, SeqNum(0));
        assert_eq!(w.snd_ssthresh, 10);
        w.snd_cwnd = 10;
        for _ in 0..10 {
            reno.on_acked(&mut w, 1, Instant::ZERO, SeqNum(0));
        }
        assert_eq!(w.snd_cwnd, 11);
    }

    #[test]
    fn never_below_two() {
        assert_eq!(super::ssthresh(1), 2);
    }
}
