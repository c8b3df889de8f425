//! Path MTU probing: what the path takes is found out with data, where no router says it (RFC 4821).
//!
//! Owns:    the range in which the path's segment size is searched, and the probe on its way.
//! Input:   bursts, acknowledgments and losses of the probe, time-outs that look like a black hole.
//! Output:  one segment larger than the others; a bound on the segment size.
//! Rules:   Linux `tcp_mtu_probe`, `tcp_mtup_probe_success`, `tcp_mtup_probe_failed`, `tcp_mtu_check_reprobe`, `tcp_mtu_probing`.
//!          Linux counts in packet sizes; here all are payload sizes, which differ from them by a constant.
//! Not here: what ICMP says about the path (`ip/pmtu`); it bounds the range through [`Sender::set_mss`].

use crate::observe::CaState;
use crate::tcp::context::Cx;
use crate::tcp::send::recovery::Rexmit;
use crate::tcp::send::{SendPlan, Sender};
use crate::tcp::seq::SeqRange;
use crate::time::Instant;

/// The least congestion window that affords a probe, segments.
const MIN_CWND: u32 = 11;

/// A search under way. A connection that does not probe has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct MtuSearch {
    /// Known to pass, payload bytes (Linux `search_low`).
    pub(super) low: u32,
    /// Known not to pass, or the most there can be (Linux `search_high`).
    pub(super) high: u32,
    /// The probe in flight.
    probe: Option<SeqRange>,
    /// When the search began (Linux `probe_timestamp`).
    since: Instant,
}

/// May a burst go on?
pub(super) enum Probing {
    /// No probe now.
    No,
    /// The rest waits until a probe can be sent.
    Wait,
    /// This is one.
    Send(SendPlan),
}

impl Sender {
    /// Linux `tcp_mtup_init`: with `tcp_mtu_probing` 2 the search begins with the connection.
    pub(super) fn begin_mtu_search(&mut self, cx: &Cx<'_>) {
        if cx.sysctl.tcp_mtu_probing > 1 {
            self.start_mtu_search(cx);
        }
    }

    fn start_mtu_search(&mut self, cx: &Cx<'_>) {
        let high = u32::from(self.mss_full);
        self.mtu_search =
            Some(Box::new(MtuSearch { low: cx.sysctl.tcp_base_mss, high, probe: None, since: cx.now }));
    }

    /// A time-out lasts as long as `tcp_retries1` allows: perhaps big segments vanish without a word (Linux `tcp_mtu_probing`).
    pub(super) fn suspect_black_hole(&mut self, cx: &Cx<'_>) {
        if cx.sysctl.tcp_mtu_probing == 0 {
            return;
        }
        match &mut self.mtu_search {
            None => self.start_mtu_search(cx),
            Some(search) => {
                let floor = cx.sysctl.tcp_mtu_probe_floor.max(cx.sysctl.tcp_min_snd_mss);
                search.low = (search.low / 2).min(cx.sysctl.tcp_base_mss).max(floor);
            }
        }
        self.sync_mss();
    }

    /// Linux `tcp_mtu_probe`, once a burst. `current` is the payload of a segment with its options.
    pub(super) fn probe_mtu(&mut self, current: u32, cx: &mut Cx<'_>) -> Probing {
        let Some(search) = self.mtu_search.as_deref().copied() else { return Probing::No };
        let mss = u32::from(self.mss);
        // Options of varying length would blur what is measured.
        if search.probe.is_some()
            || self.recovery.ca_state != CaState::Open
            || self.cwnd.window.snd_cwnd < MIN_CWND
            || current != mss
        {
            return Probing::No;
        }
        let size = (search.high + search.low) / 2;
        if size > search.high
            || (search.high.saturating_sub(search.low) as i32) < cx.sysctl.tcp_probe_threshold.cast_signed()
        {
            self.search_mtu_again(cx);
            return Probing::No;
        }
        // Enough behind the probe to notice its loss quickly.
        let needed = size + (self.recovery.reordering + 1) * mss;
        if self.unsent_payload() < needed || !self.may_join(size) || self.snd_wnd < needed {
            return Probing::No;
        }
        let in_flight = self.counts.in_flight();
        if (self.snd_nxt + needed).after(self.wnd_end()) {
            return Probing::Wait;
        }
        if in_flight + 2 > self.cwnd.window.snd_cwnd {
            return if in_flight == 0 { Probing::No } else { Probing::Wait };
        }
        let plan = self.send_new_piece(size, size, false, cx);
        // It stands for two of the others.
        self.cwnd.window.snd_cwnd -= 1;
        if let Some(search) = &mut self.mtu_search {
            search.probe = Some(SeqRange::new(plan.seq, plan.seq + size));
        }
        Probing::Send(plan)
    }

    /// Linux `tcp_mtu_check_reprobe`: the path may have become wider.
    fn search_mtu_again(&mut self, cx: &Cx<'_>) {
        let (mss, high) = (u32::from(self.mss), u32::from(self.mss_full));
        if let Some(search) = &mut self.mtu_search
            && cx.now.saturating_since(search.since) >= cx.sysctl.tcp_probe_interval
        {
            **search = MtuSearch { low: mss, high, probe: None, since: cx.now };
        }
    }

    /// Data was acknowledged: the probe with it? (Linux `tcp_mtup_probe_success`)
    pub(super) fn on_probe_acked(&mut self, cx: &mut Cx<'_>) {
        let snd_una = self.snd_una;
        let Some(search) = &mut self.mtu_search else { return };
        let Some(probe) = search.probe.filter(|probe| !probe.end.after(snd_una)) else { return };
        search.probe = None;
        search.low = probe.len();
        let headers = u32::from(self.header_len) + u32::from(self.net_header_len);
        let (old, new) = (u64::from(u32::from(self.mss) + headers), u64::from(probe.len() + headers));
        self.recovery.prior_ssthresh = self.current_ssthresh();
        let window = &mut self.cwnd.window;
        // As many bytes as before.
        window.snd_cwnd = (u64::from(window.snd_cwnd) * old / new).max(1) as u32;
        window.snd_cwnd_cnt = 0;
        self.cwnd.stamp = cx.now;
        self.cwnd.window.snd_ssthresh = self.current_ssthresh();
        self.sync_mss();
        cx.counters.tcp_mtup_success += 1;
    }

    /// A loss was found. True: it is only the probe's, and no sign of congestion (Linux `tcp_mtup_probe_failed`).
    pub(super) fn is_probe_loss(&mut self, cx: &mut Cx<'_>) -> bool {
        let snd_una = self.snd_una;
        let Some(search) = &mut self.mtu_search else { return false };
        let Some(probe) = search.probe.filter(|probe| probe.start == snd_una) else { return false };
        if self.recovery.ca_state >= CaState::Cwr {
            return false;
        }
        search.probe = None;
        search.high = probe.len() - 1;
        cx.counters.tcp_mtup_fail += 1;
        self.cwnd.window.snd_cwnd += 1;
        self.recovery.rexmit = Rexmit::None;
        self.resend_too_big(cx);
        true
    }

    /// Something is sent again: what becomes of the probe says nothing any more.
    pub(super) fn forget_mtu_probe(&mut self) {
        if let Some(search) = &mut self.mtu_search {
            search.probe = None;
        }
    }
}
