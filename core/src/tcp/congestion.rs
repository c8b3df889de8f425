//! Congestion control: how large the window may be. A closed set behind one enum.
//!
//! Owns:    what an algorithm remembers ([`Cubic`]; Reno remembers nothing).
//! Input:   the window, what an ACK delivered, round-trip samples, losses.
//! Output:  the window grown, or the threshold to shrink to.
//! Rules:   Linux `tcp_cong.c` (slow start, additive increase), `tcp_cubic.c`; RFC 5681, RFC 9438.
//! Not here: when a window may grow (`send/cwnd`), loss recovery (`send/recovery`).

mod cubic;
mod reno;

use crate::observe::Counters;
use crate::tcp::options::CongestionKind;
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

pub(crate) use cubic::Cubic;

/// Linux `TCP_INFINITE_SSTHRESH`.
pub(crate) const INFINITE_SSTHRESH: u32 = 0x7fff_ffff;

/// The window an algorithm works on, in segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) snd_cwnd: u32,
    pub(crate) snd_ssthresh: u32,
    /// Segments acknowledged towards the next increase (Linux `snd_cwnd_cnt`).
    pub(crate) snd_cwnd_cnt: u32,
}

impl Window {
    /// Linux `tcp_in_slow_start`.
    pub(crate) fn in_slow_start(&self) -> bool {
        self.snd_cwnd < self.snd_ssthresh
    }

    /// Linux `tcp_slow_start`: one segment for each acknowledged, up to the threshold; returns what is left of `acked`.
    fn slow_start(&mut self, acked: u32) -> u32 {
        let cwnd = self.snd_cwnd.saturating_add(acked).min(self.snd_ssthresh);
        let left = acked - (cwnd - self.snd_cwnd);
        self.snd_cwnd = cwnd;
        left
    }

    /// Linux `tcp_cong_avoid_ai`: one segment more for every `every` acknowledged.
    fn increase(&mut self, every: u32, acked: u32) {
        let every = every.max(1);
        if self.snd_cwnd_cnt >= every {
            self.snd_cwnd_cnt = 0;
            self.snd_cwnd += 1;
        }
        self.snd_cwnd_cnt += acked;
        if self.snd_cwnd_cnt >= every {
            let steps = self.snd_cwnd_cnt / every;
            self.snd_cwnd_cnt -= steps * every;
            self.snd_cwnd = self.snd_cwnd.saturating_add(steps);
        }
    }
}

/// A round-trip sample for the algorithm (Linux `ack_sample`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RttSample {
    pub(crate) rtt_us: u32,
    pub(crate) snd_una: SeqNum,
    pub(crate) snd_nxt: SeqNum,
}

/// The algorithm of a connection.
#[derive(Clone, Debug)]
pub(crate) enum Congestion {
    /// CUBIC; its memory begins with the first sample or loss.
    Cubic(Option<Box<Cubic>>),
    /// NewReno.
    Reno,
}

/// CUBIC's memory, made where there is none.
fn begun(cubic: &mut Option<Box<Cubic>>, now: Instant, snd_nxt: SeqNum) -> &mut Cubic {
    cubic.get_or_insert_with(|| Box::new(Cubic::new(now, snd_nxt)))
}

impl Congestion {
    pub(crate) fn new(kind: CongestionKind) -> Self {
        match kind {
            CongestionKind::Cubic => Self::Cubic(None),
            CongestionKind::Reno => Self::Reno,
        }
    }

    pub(crate) fn kind(&self) -> CongestionKind {
        match self {
            Self::Cubic(_) => CongestionKind::Cubic,
            Self::Reno => CongestionKind::Reno,
        }
    }

    /// The threshold after a loss; ends the algorithm's growth epoch.
    pub(crate) fn ssthresh(&mut self, snd_cwnd: u32, now: Instant, snd_nxt: SeqNum) -> u32 {
        match self {
            Self::Cubic(cubic) => begun(cubic, now, snd_nxt).ssthresh(snd_cwnd),
            Self::Reno => reno::ssthresh(snd_cwnd),
        }
    }

    /// `acked` segments were delivered while the window was full.
    pub(crate) fn on_acked(&mut self, window: &mut Window, mut acked: u32, now: Instant, snd_nxt: SeqNum) {
        if window.in_slow_start() {
            acked = window.slow_start(acked);
            if acked == 0 {
                return;
            }
        }
        let every = match self {
            Self::Cubic(cubic) => begun(cubic, now, snd_nxt).segments_per_step(window.snd_cwnd, acked, now),
            Self::Reno => window.snd_cwnd,
        };
        window.increase(every, acked);
    }

    /// A round-trip sample of a newly delivered segment.
    pub(crate) fn on_rtt(
        &mut self,
        sample: &RttSample,
        window: &mut Window,
        now: Instant,
        counters: &mut Counters,
    ) {
        if let Self::Cubic(cubic) = self {
            begun(cubic, now, sample.snd_nxt).on_rtt(sample, window, now, counters);
        }
    }

    /// The retransmission timer fired (Linux `set_state(TCP_CA_Loss)`).
    pub(crate) fn on_timeout(&mut self, now: Instant, snd_nxt: SeqNum) {
        if let Self::Cubic(Some(cubic)) = self {
            **cubic = Cubic::new(now, snd_nxt);
        }
    }

    /// Something is sent after nothing was in flight (Linux `CA_EVENT_TX_START`).
    pub(crate) fn on_restart(&mut self, now: Instant, last_sent: Instant) {
        if let Self::Cubic(Some(cubic)) = self {
            cubic.on_restart(now, last_sent);
        }
    }
}
