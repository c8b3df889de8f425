//! Delivery-rate samples: how fast the path delivers, for `TCP_INFO`.
//!
//! Owns:    the rate last taken (whether the application held it down is the `Cwnd`'s). What a sample needs of each segment travels with
//!          it ([`TxStamps`]); the instants they are taken against live with the segments in flight.
//! Rules:   draft-cheng-iccrg-delivery-rate-estimation; Linux `tcp_rate.c`, step by step.
//! Cost:    O(1) a segment sent or delivered; a multiplication or two an ACK.
//! Not here: pacing and congestion control, which do not look at it.

use crate::observe::TcpInfo;
use crate::tcp::send::Sender;
use crate::tcp::send::ack::{Work, us_between};
use crate::tcp::send::segments::{Marks, SentSegment};
use crate::time::Instant;

/// What a segment takes along when it is sent (Linux `tcp_skb_cb.tx`).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TxStamps {
    /// Segments delivered so far.
    pub(super) delivered: u32,
    /// Microseconds since the segment was sent that was delivered last (from Linux `first_tx_mstamp`).
    sending_us: u32,
    /// Microseconds since something was delivered (from Linux `delivered_mstamp`).
    quiet_us: u32,
    /// The application had nothing more to send at some moment of the sampled window.
    app_limited: bool,
}

/// The instants that stamps are taken against; they mean something only while segments are in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phases {
    /// When the segment was sent that was delivered last (Linux `first_tx_mstamp`).
    first_tx: Instant,
    /// When something was delivered last (Linux `delivered_mstamp`).
    delivered: Instant,
}

impl Phases {
    pub(super) const NONE: Self = Self { first_tx: Instant::ZERO, delivered: Instant::ZERO };
}

/// The rate as `TCP_INFO` tells it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DeliveryRate {
    /// Segments of the sample (Linux `rate_delivered`), over so many microseconds.
    delivered: u32,
    interval_us: u32,
}

impl DeliveryRate {
    /// Takes a sample that the application did not hold down, or the fastest that it did (the end of Linux `tcp_rate_gen`).
    /// False: it says nothing new.
    fn take(&mut self, delivered: u32, interval_us: u32, app_limited: bool) -> bool {
        let faster = u64::from(delivered) * u64::from(self.interval_us)
            >= u64::from(self.delivered) * u64::from(interval_us);
        if !app_limited || faster {
            *self = Self { delivered, interval_us };
        }
        !app_limited || faster
    }

    /// Bytes a second (Linux `tcp_compute_delivery_rate`).
    fn bytes_per_second(&self, mss: u16) -> u64 {
        let bytes = u64::from(self.delivered) * u64::from(mss);
        bytes.saturating_mul(1_000_000).checked_div(u64::from(self.interval_us)).unwrap_or(0)
    }
}

impl Sender {
    /// What a segment sent now takes along (Linux `tcp_rate_skb_sent`). Call before it counts as in flight.
    pub(super) fn tx_stamps(&mut self, now: Instant) -> TxStamps {
        let phases = &mut self.segments.phases;
        if self.counts.packets_out == 0 {
            *phases = Phases { first_tx: now, delivered: now };
        }
        TxStamps {
            delivered: self.totals.delivered,
            sending_us: us_between(phases.first_tx, now),
            quiet_us: us_between(phases.delivered, now),
            app_limited: self.cwnd.app_limited != 0,
        }
    }

    /// `segment` was delivered: the most recently sent one of an ACK gives its sample (Linux `tcp_rate_skb_delivered`).
    pub(super) fn note_delivered(&mut self, segment: &SentSegment, work: &mut Work) {
        // Linux: a SYN has no stamps, and what was SACKED has given them already.
        if segment.marks.has(Marks::SYN.with(Marks::SACKED)) {
            return;
        }
        let is_newer = work.newest.is_none_or(|newest| {
            segment.sent_at > newest.sent_at
                || (segment.sent_at == newest.sent_at && segment.end.after(newest.end))
        });
        if is_newer {
            work.newest = Some(*segment);
            self.segments.phases.first_tx = segment.sent_at;
        }
    }

    /// The sample of one ACK that newly delivered so much (Linux `tcp_rate_gen`).
    pub(super) fn sample_rate(&mut self, newly_delivered: u32, reneged: bool, work: &Work, now: Instant) {
        let delivered = self.totals.delivered;
        if self.cwnd.app_limited != 0 && (self.cwnd.app_limited.wrapping_sub(delivered) as i32) < 0 {
            self.cwnd.app_limited = 0; // the gap has passed
        }
        if newly_delivered > 0
            && let Some(orders) = self.segments.present()
        {
            orders.phases.delivered = now;
        }
        // Linux: what was SACKed before the peer took it back would count too much.
        let (Some(newest), false) = (work.newest, reneged) else { return };
        let ack_us = us_between(newest.sent_at, now).saturating_add(newest.tx.quiet_us);
        let interval_us = newest.tx.sending_us.max(ack_us);
        if interval_us >= self.rtt.min.get() {
            let segs = delivered.wrapping_sub(newest.tx.delivered);
            if self.rate.take(segs, interval_us, newest.tx.app_limited) {
                self.cwnd.rate_app_limited = newest.tx.app_limited;
            }
        }
    }

    /// The application writes: did it leave the path idle before (Linux `tcp_rate_check_app_limited`)?
    pub(crate) fn check_app_limited(&mut self) {
        let counts = &self.counts;
        if self.write_seq.since(self.snd_nxt) < u32::from(self.mss)
            && counts.in_flight() < self.cwnd.window.snd_cwnd
            && counts.lost_out <= counts.retrans_out
        {
            self.cwnd.app_limited = self.totals.delivered.wrapping_add(counts.in_flight()).max(1);
        }
    }

    pub(super) fn fill_rate(&self, info: &mut TcpInfo) {
        info.delivery_rate = self.rate.bytes_per_second(self.mss);
        info.delivery_rate_app_limited = u8::from(self.cwnd.rate_app_limited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_that_the_application_held_down_only_raises_the_rate() {
        let mut rate = DeliveryRate::default();
        assert_eq!(rate.bytes_per_second(1000), 0);
        assert!(rate.take(10, 20_000, true));
        assert_eq!(rate.bytes_per_second(1000), 500_000);
        assert!(!rate.take(1, 20_000, true));
        assert_eq!(rate.bytes_per_second(1000), 500_000);
        assert!(rate.take(1, 20_000, false));
        assert_eq!(rate.bytes_per_second(1000), 50_000);
        assert!(rate.take(2, 20_000, true));
        assert_eq!(rate.bytes_per_second(1000), 100_000);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut rate = DeliveryRate::default();
        assert!(rate.take(u32::MAX, 1, false));
        assert_eq!(rate.bytes_per_second(u16::MAX), u64::MAX);
    }
}
