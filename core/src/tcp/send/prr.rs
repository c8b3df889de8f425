//! Proportional rate reduction: how many segments may leave for each ACK while the window shrinks.
//!
//! Owns:    what was delivered and sent since the reduction began.
//! Rules:   RFC 6937 with Linux's later bounds (`tcp_cwnd_reduction`): slow-start bound when the window may grow,
//!          conservative when something was newly lost.

/// One reduction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prr {
    pub(super) delivered: u32,
    pub(super) out: u32,
    /// Congestion window when the reduction began.
    pub(super) prior_cwnd: u32,
}

impl Prr {
    pub(super) fn begin(cwnd: u32) -> Self {
        Self { delivered: 0, out: 0, prior_cwnd: cwnd }
    }

    /// Segments that may be sent now, on top of those in flight.
    pub(super) fn allowance(
        &mut self,
        newly_delivered: u32,
        ssthresh: u32,
        in_flight: u32,
        may_grow: bool,
    ) -> u32 {
        self.delivered += newly_delivered;
        let budget = if in_flight > ssthresh {
            let due =
                (u64::from(ssthresh) * u64::from(self.delivered)).div_ceil(u64::from(self.prior_cwnd.max(1)));
            (due as i64 - i64::from(self.out)).max(0)
        } else {
            let mut count = (i64::from(self.delivered) - i64::from(self.out)).max(i64::from(newly_delivered));
            if may_grow {
                count += 1;
            }
            count.min(i64::from(ssthresh - in_flight))
        };
        // Linux: force one fast retransmit on entering recovery.
        budget.max(i64::from(self.out == 0)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_ssthresh_sends_in_proportion() {
        let mut prr = Prr::begin(20);
        let mut sent = 0;
        for ack in 0..10u32 {
            let n = prr.allowance(1, 14, 20 - ack + sent, false);
            prr.out += n;
            sent += n;
        }
        assert_eq!(sent, 7, "ten delivered at 14/20");
    }

    #[test]
    fn below_ssthresh_grows_by_one_more_than_delivered() {
        let mut prr = Prr::begin(20);
        prr.out = 1;
        assert_eq!(prr.allowance(2, 14, 4, true), 3);
        assert_eq!(prr.allowance(2, 14, 13, true), 1, "never above ssthresh");
    }

    #[test]
    fn the_first_retransmit_always_leaves() {
        assert_eq!(Prr::begin(10).allowance(1, 2, 9, false), 1);
    }
}
