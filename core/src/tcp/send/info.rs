//! What the sending half shows: its fields of `TCP_INFO`, its timer row, and the sums behind them.

use crate::observe::info::{TcpInfo, TimerKind, TimerRow};
use crate::tcp::half_open::SynAckRepeats;
use crate::tcp::send::Sender;
use crate::tcp::send::timer::Pending;
use crate::time::Instant;

/// Sums over the connection's life.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) bytes_acked: u64,
    pub(super) bytes_sent: u64,
    pub(super) data_segs_out: u32,
    pub(super) delivered: u32,
}

/// Sums that stay zero while nothing is lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct LossTotals {
    pub(super) bytes_retrans: u64,
    /// Segments repeated, SYN and loss probes included (Linux `total_retrans`).
    pub(super) retrans: u32,
    /// Segments ever marked lost.
    pub(super) lost: u32,
    pub(super) dsack_dups: u32,
    /// Segments delivered, told by an ACK with ECE.
    pub(super) delivered_ce: u32,
    pub(super) total_rto: u32,
    /// Flow-hash changes after a time-out (Linux `timeout_rehash`).
    pub(super) rehash: u32,
    total_rto_recoveries: u32,
    total_rto_time_ms: u32,
    /// When the present run of time-outs began.
    rto_stamp: Option<Instant>,
}

impl LossTotals {
    pub(super) const ZERO: Self = Self {
        bytes_retrans: 0,
        retrans: 0,
        lost: 0,
        dsack_dups: 0,
        delivered_ce: 0,
        total_rto: 0,
        rehash: 0,
        total_rto_recoveries: 0,
        total_rto_time_ms: 0,
        rto_stamp: None,
    };

    /// Linux `tcp_update_rto_stats`; `first`: of a run.
    pub(super) fn timed_out(&mut self, first: bool, now: Instant) {
        if first {
            self.total_rto_recoveries += 1;
            self.rto_stamp = Some(now);
        }
        self.total_rto += 1;
    }

    /// Linux `tcp_create_openreq_child`: the time-outs of a SYN-ACK are one run.
    fn of_syn_ack(&mut self, repeats: &SynAckRepeats, now: Instant) {
        self.retrans = repeats.count.into();
        if repeats.timeouts > 0 {
            self.total_rto = repeats.timeouts.into();
            self.total_rto_recoveries = 1;
            self.total_rto_time_ms = now.saturating_since(repeats.first_sent).as_millis() as u32;
        }
    }

    /// Linux `tcp_update_rto_time`.
    pub(super) fn end_of_timeouts(&mut self, now: Instant) {
        if let Some(since) = self.rto_stamp.take() {
            self.total_rto_time_ms =
                self.total_rto_time_ms.saturating_add(now.saturating_since(since).as_millis() as u32);
        }
    }
}

impl LossTotals {
    /// Linux `tcp_get_info`: a run of time-outs that goes on counts so far.
    fn rto_time_ms(&self, now: Instant) -> u32 {
        let running = self.rto_stamp.map_or(0, |since| now.saturating_since(since).as_millis() as u32);
        self.total_rto_time_ms.saturating_add(running)
    }
}

/// What `TCP_INFO` and `SIOCOUTQ` still tell of a queue that was thrown away (Linux `tcp_write_queue_purge` leaves them).
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) lost: u32,
    pub(super) retrans: u32,
    pub(super) sacked: u32,
    pub(super) unsent: u32,
    pub(super) unacked_bytes: u32,
}

impl Left {
    pub(super) const NOTHING: Self = Self { lost: 0, retrans: 0, sacked: 0, unsent: 0, unacked_bytes: 0 };
}

impl Sender {
    /// A passive open's SYN-ACK had to be repeated. Linux `tcp_create_openreq_child`: `undo_marker` is where it began, `undo_retrans` 0.
    pub(super) fn take_over_repeats(&mut self, repeats: &SynAckRepeats, now: Instant) {
        self.recovery.totals.of_syn_ack(repeats, now);
        if repeats.timeouts > 0 && !repeats.needless {
            self.recovery.undo_marker = Some(self.snd_una - 1);
        }
    }

    /// Remembers what the queue that is thrown away had in it.
    pub(super) fn leave_behind(&mut self) {
        let (counts, unacked_bytes) = (self.counts, self.write_seq.since(self.snd_una));
        if unacked_bytes > 0 {
            self.recovery.left = Left {
                lost: counts.lost_out,
                retrans: counts.retrans_out,
                sacked: counts.sacked_out,
                unsent: self.write_seq.since(self.snd_nxt),
                unacked_bytes,
            };
        }
    }

    /// Linux `SIOCOUTQ`: bytes written and not acknowledged, FIN included; of a queue that was thrown away what it had.
    pub(crate) fn unacknowledged(&self) -> u32 {
        self.write_seq.since(self.snd_una).max(self.recovery.left.unacked_bytes)
    }

    /// The timer as `ss -o` shows it.
    pub(crate) fn timer_row(&self, now: Instant) -> Option<TimerRow> {
        let left = self.timer.at.saturating_since(now).as_millis();
        let expires_ms = left.min(u128::from(u32::MAX)) as u32;
        let (kind, retrans) = match self.timer.pending? {
            Pending::Retransmit | Pending::LossProbe | Pending::Reorder => (TimerKind::On, self.retransmits),
            Pending::WindowProbe => (TimerKind::Persist, self.probes_out),
        };
        Some(TimerRow { kind, expires_ms, retrans })
    }

    /// Fills the sender's fields of `TCP_INFO` (Linux `tcp_get_info`). `segs_out` is the conductor's: pure ACKs count too.
    pub(crate) fn fill_info(&self, now: Instant, info: &mut TcpInfo) {
        let window = &self.cwnd.window;
        let totals = &self.totals;
        let losses = &self.recovery.totals;
        info.ca_state = self.recovery.ca_state as u8;
        info.retransmits = self.retransmits;
        info.probes = self.probes_out;
        info.backoff = self.backoff;
        info.rto = self.rtt.rto_us;
        info.snd_mss = u32::from(self.mss);
        info.unacked = self.counts.packets_out;
        let left = &self.recovery.left;
        info.sacked = self.counts.sacked_out + left.sacked;
        info.lost = self.counts.lost_out + left.lost;
        info.retrans = self.counts.retrans_out + left.retrans;
        info.last_data_sent = now.saturating_since(self.last_sent).as_millis() as u32;
        info.rtt = self.rtt.smoothed_us();
        info.rttvar = self.rtt.mdev_us >> 2;
        info.snd_ssthresh = window.snd_ssthresh;
        info.snd_cwnd = window.snd_cwnd;
        info.reordering = self.recovery.reordering;
        info.total_retrans = losses.retrans;
        info.pacing_rate = self.pacing_rate;
        info.max_pacing_rate = u64::MAX;
        info.bytes_acked = totals.bytes_acked;
        info.notsent_bytes = self.write_seq.since(self.snd_nxt) + left.unsent;
        info.min_rtt = self.rtt.min.get();
        info.data_segs_out = totals.data_segs_out;
        (info.busy_time, info.rwnd_limited, info.sndbuf_limited) = self.chrono.read(now);
        self.fill_rate(info);
        info.delivered = totals.delivered;
        info.delivered_ce = losses.delivered_ce;
        info.bytes_sent = totals.bytes_sent;
        info.bytes_retrans = losses.bytes_retrans;
        info.dsack_dups = losses.dsack_dups;
        info.reord_seen = self.recovery.reord_seen;
        info.snd_wnd = self.snd_wnd;
        info.rehash = losses.rehash;
        info.total_rto = losses.total_rto;
        info.total_rto_recoveries = losses.total_rto_recoveries;
        info.total_rto_time = losses.rto_time_ms(now);
    }
}
