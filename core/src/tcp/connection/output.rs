//! The one place where a connection's segments are composed (Linux `__tcp_transmit_skb`).

use crate::observe::reason::ResetReason;
use crate::observe::{EventKind, EventMask};
use crate::tcp::connection::Connection;
use crate::tcp::context::{Cx, Reply};
use crate::tcp::ecn::ECT_0;
use crate::tcp::paws::ts_clock;
use crate::tcp::send::{PlanKind, SendPlan};
use crate::tcp::seq::SeqNum;
use crate::tcp::state::TcpState;
use crate::time::Instant;
use crate::wire::segment::{FastOpen, Flags, Options, SackBlocks, SegmentHeader, Timestamps};
use crate::wire::transmit::Transmit;

/// A segment ready to leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Composed {
    pub(crate) header: SegmentHeader,
    /// The two ECN bits of its IP header.
    pub(crate) ecn: u8,
}

/// Bytes of option a SACK with `n` blocks takes, its two NOPs included.
fn sack_len(n: usize) -> u32 {
    if n == 0 { 0 } else { 4 + 8 * n as u32 }
}

impl Connection {
    /// Composes the next segment: header and ECN bits, payload slices into `out.payload`, `out.segment_size`. `None`: owes nothing.
    pub(crate) fn poll_transmit(&mut self, out: &mut Transmit, cx: &mut Cx<'_>) -> Option<Composed> {
        if self.state == TcpState::Close {
            return None;
        }
        if self.acks.is_owed_alone() && self.state != TcpState::SynSent {
            let seq = self.acceptable_seq();
            return Some(Composed { header: self.pure_ack(seq, cx), ecn: 0 });
        }
        let options_len = self.options_len();
        let plan = self.send.poll_plan(&self.options, options_len, cx);
        cx.events.sign(self.cookie, &self.tuple, self.state);
        if let Some(plan) = plan {
            let ecn = self.ecn_bits(&plan);
            return Some(Composed { header: self.compose(&plan, out, cx), ecn });
        }
        if core::mem::take(&mut self.keepalive_probe_due) {
            cx.counters.tcp_keep_alive += 1;
            let probes = self.keepalive_probes;
            cx.emit(self.cookie, &self.tuple, || EventKind::KeepaliveProbe { probes }, EventMask::LOSS);
            // Linux tcp_xmit_probe_skb(): "an out of window sequence number … so that the other end answers".
            let seq = self.send.snd_una() - 1;
            return Some(Composed { header: self.pure_ack(seq, cx), ecn: 0 });
        }
        if self.acks.is_owed_now() && self.state != TcpState::SynSent {
            let seq = self.acceptable_seq();
            return Some(Composed { header: self.pure_ack(seq, cx), ecn: 0 });
        }
        None
    }

    /// Option bytes beyond timestamps of the next segment.
    pub(super) fn options_len(&self) -> u32 {
        sack_len(self.sack_block_count())
    }

    /// True when `poll_transmit` would give something.
    pub(crate) fn owes(&self, now: Instant) -> bool {
        self.state != TcpState::Close
            && ((self.acks.is_owed_now() && self.state != TcpState::SynSent)
                || self.keepalive_probe_due
                || self.send.wants_to_send(&self.options, now))
    }

    /// Linux `tcp_ecn_send`: new data may be marked; a repeat, a probe, a pure ACK and a SYN may not (RFC 3168 6.1.4, 6.1.5, 6.1.6).
    fn ecn_bits(&self, plan: &SendPlan) -> u8 {
        let is_new_data = plan.kind == PlanKind::New && plan.len > 0;
        if is_new_data && self.ecn.is_on() { ECT_0 } else { 0 }
    }

    fn compose(&mut self, plan: &SendPlan, out: &mut Transmit, cx: &mut Cx<'_>) -> SegmentHeader {
        if plan.syn {
            let is_first = plan.kind == PlanKind::New;
            if !is_first {
                self.ecn.on_syn_repeated(cx.sysctl.tcp_ecn_fallback);
            }
            self.send.copy_payload(plan, &mut out.payload);
            let option = self.attempt.as_ref().filter(|_| is_first).and_then(|attempt| attempt.option);
            return self.syn_header(option, cx);
        }
        let mut flags = Flags::ACK;
        if plan.cwr && self.ecn.is_on() {
            flags = flags.with(Flags::CWR);
        }
        if plan.fin {
            flags = flags.with(Flags::FIN);
        }
        // Linux __tcp_transmit_skb(): "Force a PSH flag on all (GSO) packets to expedite GRO flush at receiver";
        // on the wire only: a piece sent again alone does not have it.
        if plan.psh || plan.len > plan.segment_size {
            flags = flags.with(Flags::PSH);
        }
        if plan.len > 0 {
            self.send.copy_payload(plan, &mut out.payload);
            if plan.len > plan.segment_size {
                out.segment_size = plan.segment_size.min(65_535) as u16;
            }
            self.acks.on_data_sent(cx.now);
        }
        self.segs_out = self.segs_out.wrapping_add(plan.len.div_ceil(plan.segment_size.max(1)).max(1));
        // Written before there was anything to acknowledge by SACK, it may have no room for blocks.
        let room = self.send.mss().saturating_sub(plan.len.min(plan.segment_size));
        let blocks = (room.saturating_sub(4) / 8) as usize;
        let mut header = self.header_with(plan.seq, flags, self.sack_room().min(blocks), cx);
        if plan.len > plan.segment_size {
            // An urgent pointer counts from its own segment.
            header.urg = 0;
            header.flags = header.flags.without(Flags::URG);
        }
        header
    }

    /// A segment without sequence space that acknowledges.
    fn pure_ack(&mut self, seq: SeqNum, cx: &mut Cx<'_>) -> SegmentHeader {
        cx.counters.out_segs += 1;
        self.segs_out = self.segs_out.wrapping_add(1);
        self.header(seq, Flags::ACK, cx)
    }

    /// An ACK that must leave although the connection is about to end.
    pub(super) fn push_ack(&mut self, cx: &mut Cx<'_>) {
        let seq = self.acceptable_seq();
        let header = self.pure_ack(seq, cx);
        self.push_reply(header, cx);
    }

    /// Our SYN once more, with ACK: simultaneous open.
    pub(super) fn push_syn_ack(&mut self, cx: &mut Cx<'_>) {
        let header = self.syn_header(None, cx);
        self.send.syn_left_again(cx.now);
        // Linux __tcp_transmit_skb() counts in TcpOutSegs only what goes beyond snd_nxt or has no sequence space.
        self.push_reply(header, cx);
    }

    fn push_reply(&self, header: SegmentHeader, cx: &mut Cx<'_>) {
        let reply = Reply { tuple: self.tuple, header, hop: self.options.hop(&self.tuple) };
        cx.replies.push(reply, cx.counters);
    }

    /// Linux `tcp_send_active_reset`: RST with ACK and the usual options.
    pub(super) fn send_active_reset(&mut self, reason: ResetReason, cx: &mut Cx<'_>) {
        // What has not left never will: the peer takes the RST where it waits.
        let seq = self.acceptable_seq().min(self.send.next_on_wire());
        let blocks = self.reorder.peek_blocks(self.sack_room());
        let mut header = self.header(seq, Flags::RST | Flags::ACK, cx);
        header.options.sack = blocks;
        cx.send_reset(self.cookie, &self.tuple, header, self.options.hop(&self.tuple), reason);
    }

    /// SYN, or SYN-ACK once the peer's SYN is known. The window is never scaled (RFC 7323 2.2). Linux
    /// `tcp_syn_options()`: every option that the sysctls allow, also in a SYN-ACK to a peer that has offered none.
    pub(super) fn syn_header(&mut self, fast_open: Option<FastOpen>, cx: &mut Cx<'_>) -> SegmentHeader {
        self.segs_out = self.segs_out.wrapping_add(1);
        // Linux tcp_send_synack(): what lies in the queue is a SYN-ACK from then on, in whatever state it is repeated.
        let answering = self.state != TcpState::SynSent;
        if answering {
            self.acks.on_ack_sent();
        }
        SegmentHeader {
            src_port: self.tuple.local.port(),
            dst_port: self.tuple.remote.port(),
            seq: self.iss,
            ack: if answering { self.recv.rcv_nxt } else { SeqNum(0) },
            flags: if answering {
                Flags::SYN | Flags::ACK | self.ecn.syn_ack_flags()
            } else {
                Flags::SYN | self.ecn.syn_flags()
            },
            wnd: self.recv.rcv_wnd.min(65_535) as u16,
            urg: 0,
            options: Options {
                // Linux tcp_advertise_mss(): what the path takes by now.
                mss: Some(
                    self.advmss.min(self.mtu.saturating_sub(self.header_overhead()).min(65_535) as u16),
                ),
                wscale: cx.sysctl.tcp_window_scaling.then_some(self.recv.rcv_wscale),
                sack_permitted: cx.sysctl.tcp_sack,
                timestamps: (cx.sysctl.tcp_timestamps != 0).then(|| self.stamps(cx.now)),
                fast_open,
                sack: SackBlocks::NONE,
            },
        }
    }

    /// The header of every segment but a SYN. It carries the current acknowledgment, so what was owed is settled.
    fn header(&mut self, seq: SeqNum, flags: Flags, cx: &mut Cx<'_>) -> SegmentHeader {
        self.header_with(seq, flags, self.sack_room(), cx)
    }

    /// The same with at most so many SACK blocks.
    fn header_with(&mut self, seq: SeqNum, flags: Flags, blocks: usize, cx: &mut Cx<'_>) -> SegmentHeader {
        let charge = self.reorder.charge();
        let (wnd, half_full) =
            self.recv.advertise(self.acks.rcv_mss(), charge, self.acks.no_memory, cx.sysctl, cx.counters);
        if half_full {
            self.acks.clear_quick();
        }
        let sack = if self.sack && blocks > 0 { self.reorder.take_blocks(blocks) } else { SackBlocks::NONE };
        cx.counters.tcp_ack_compressed += u64::from(self.acks.on_ack_sent());
        let urg = self.send.urgent_pointer(seq);
        SegmentHeader {
            src_port: self.tuple.local.port(),
            dst_port: self.tuple.remote.port(),
            seq,
            ack: self.recv.rcv_nxt,
            flags: if urg > 0 { flags.with(Flags::URG) } else { flags } | self.ecn.echo(),
            wnd,
            urg,
            options: Options { timestamps: self.timestamps(cx.now), sack, ..Options::default() },
        }
    }

    fn timestamps(&self, now: Instant) -> Option<Timestamps> {
        self.has_timestamps.then(|| self.stamps(now))
    }

    fn stamps(&self, now: Instant) -> Timestamps {
        let ts = &self.ts_state;
        Timestamps { tsval: ts_clock(now, ts.offset), tsecr: ts.recent }
    }

    /// SACK blocks that fit: four, or three beside timestamps (RFC 2018 3).
    fn sack_room(&self) -> usize {
        if self.has_timestamps { 3 } else { 4 }
    }

    fn sack_block_count(&self) -> usize {
        if self.sack { self.reorder.block_count(self.sack_room()) } else { 0 }
    }

    /// Linux `tcp_acceptable_seq`: `snd_nxt`, unless the peer's window shrank to its left.
    fn acceptable_seq(&self) -> SeqNum {
        let window_end = self.send.snd_una() + self.send.snd_wnd();
        let snd_nxt = self.send.snd_nxt();
        let within_a_unit = self.wscale && snd_nxt.since(window_end) < 1 << self.recv.rcv_wscale;
        if !window_end.before(snd_nxt) || within_a_unit { snd_nxt } else { window_end }
    }
}
