//! Mini sockets: TIME-WAIT, and FIN-WAIT-2 of an orphan (Linux `inet_timewait_sock`).
//!
//! Owns:    the little that is remembered of a closed connection.
//! Input:   segments of the pair.
//! Output:  a [`TimeWaitVerdict`]; ACKs and RSTs into `cx.replies`.
//! Rules:   RFC 9293 3.10.7.4, RFC 1337, RFC 6191. Linux: `tcp_timewait_state_process`, `tcp_twsk_unique`.
//! Not here: the 4-tuple and the deadline's place in the wheel (`stack`).

use core::net::IpAddr;

use crate::id::FourTuple;
use crate::observe::reason::{DropReason, ResetReason};
use crate::tcp::context::{Cx, Reply};
use crate::tcp::options::Hop;
use crate::tcp::paws::{TsState, ts_clock};
use crate::tcp::reset::answer_with_reset;
use crate::tcp::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::wire::segment::{Flags, Options, Segment, SegmentHeader, Timestamps};

/// A mini socket without its 4-tuple, which the stack's table keeps. At most 48 bytes.
#[derive(Clone, Debug)]
pub(crate) struct TimeWait {
    /// When it ends. The stack files this deadline.
    pub(crate) expires: Instant,
    pub(crate) rcv_nxt: SeqNum,
    pub(crate) snd_nxt: SeqNum,
    ts_recent: u32,
    ts_offset: u32,
    /// Second in which `ts_recent` was stored.
    ts_stored_s: u32,
    /// Millisecond (modulo 2^32) in which the present state was entered.
    entered_ms: u32,
    /// Millisecond (modulo 2^32) of the last answer to an invalid segment, plus one; 0: never.
    last_answer_ms: u32,
    /// What is left of the advertised window, bytes.
    rcv_wnd: u32,
    rcv_wscale: u8,
    tos: u8,
    /// Timestamps were in use (`tw_ts_recent_stamp != 0`).
    timestamps: bool,
    /// The peer's FIN is missing (`tw_substate` FIN-WAIT-2).
    fin_wait_2: bool,
}

/// What a connection leaves behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remains {
    pub(crate) fin_wait_2: bool,
    pub(crate) rcv_nxt: SeqNum,
    pub(crate) snd_nxt: SeqNum,
    /// What is left of the advertised window, bytes.
    pub(crate) rcv_wnd: u32,
    pub(crate) rcv_wscale: u8,
    pub(crate) ts: Option<TsState>,
    pub(crate) tos: u8,
    /// How long the mini socket lives.
    pub(crate) lifetime: Duration,
}

/// What a segment did to a mini socket. Answers were put into `cx.replies`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TimeWaitVerdict {
    /// It stays; `expires` may have moved.
    Keep,
    /// It is gone (RST, or RST was sent). Remove it.
    Kill,
    /// A SYN that may begin a new connection. If a listener matches: remove the mini socket and let the listener have the SYN with
    /// this initial sequence number, past SYN-queue limits and cookies; if none does: call [`TimeWait::ack_syn`].
    NewSyn {
        /// `snd_nxt + 65537`, or 1 where that is 0.
        iss: SeqNum,
    },
}

impl TimeWait {
    pub(crate) fn new(remains: &Remains, now: Instant) -> Self {
        Self {
            expires: now + remains.lifetime,
            rcv_nxt: remains.rcv_nxt,
            snd_nxt: remains.snd_nxt,
            ts_recent: remains.ts.map_or(0, |ts| ts.recent),
            ts_offset: remains.ts.map_or(0, |ts| ts.offset),
            ts_stored_s: remains.ts.map_or(0, |ts| seconds(ts.stored)),
            entered_ms: now.as_millis() as u32,
            last_answer_ms: 0,
            rcv_wnd: remains.rcv_wnd,
            rcv_wscale: remains.rcv_wscale,
            tos: remains.tos,
            timestamps: remains.ts.is_some_and(|ts| ts.recent != 0),
            fin_wait_2: remains.fin_wait_2,
        }
    }

    /// FIN-WAIT-2 still waits for the peer's FIN; otherwise TIME-WAIT.
    pub(crate) fn is_fin_wait_2(&self) -> bool {
        self.fin_wait_2
    }

    pub(crate) fn on_segment(
        &mut self,
        cookie: u64,
        tuple: &FourTuple,
        segment: &Segment,
        cx: &mut Cx<'_>,
    ) -> TimeWaitVerdict {
        let flags = segment.header.flags;
        let tsval = if self.timestamps { segment.header.options.timestamps.map(|ts| ts.tsval) } else { None };
        let paws_reject = tsval.is_some_and(|tsval| self.ts().rejects(tsval, flags.rst(), cx.now));
        if self.fin_wait_2 {
            return self.on_segment_fin_wait_2(cookie, tuple, segment, tsval, paws_reject, cx);
        }
        let seq = segment.header.seq;
        if !paws_reject && seq == self.rcv_nxt && (segment.seq_len() == 0 || flags.rst()) {
            // "In window segment, it may be only reset or bare ack."
            if flags.rst() {
                // "This is TIME_WAIT assassination, in two flavors."
                if !cx.sysctl.tcp_rfc1337 {
                    return TimeWaitVerdict::Kill;
                }
            } else {
                self.restart(cx);
            }
            self.store_ts(tsval, cx.now);
            return TimeWaitVerdict::Keep;
        }
        let newer_ts = tsval.is_some_and(|tsval| self.ts().lag(tsval) < 0);
        let bare_syn = flags.syn() && !flags.rst() && !flags.ack();
        if bare_syn && !paws_reject && (seq.after(self.rcv_nxt) || newer_ts) {
            return TimeWaitVerdict::NewSyn { iss: self.reuse_iss() };
        }
        if paws_reject {
            cx.counters.paws_timewait += 1;
        }
        cx.drop_segment(
            cookie,
            tuple,
            if paws_reject { DropReason::TcpPaws } else { DropReason::TcpTimeWait },
        );
        if !flags.rst() {
            // "If it is ACKless SYN it may be both old duplicate and new good SYN with random sequence number <rcv_nxt.
            // Do not reschedule in the last case."
            if paws_reject || flags.ack() {
                self.restart(cx);
            }
            if self.may_answer(segment, cx.now, cx.sysctl.tcp_invalid_ratelimit) {
                self.answer(tuple, cx);
            } else {
                cx.counters.tcp_ack_skipped_time_wait += 1;
            }
        }
        TimeWaitVerdict::Keep
    }

    /// "Just repeat all the checks of tcp_rcv_state_process()".
    fn on_segment_fin_wait_2(
        &mut self,
        cookie: u64,
        tuple: &FourTuple,
        segment: &Segment,
        tsval: Option<u32>,
        paws_reject: bool,
        cx: &mut Cx<'_>,
    ) -> TimeWaitVerdict {
        let (flags, seq, end_seq) = (segment.header.flags, segment.header.seq, segment.end_seq());
        let window_end = self.rcv_nxt + self.rcv_wnd;
        if paws_reject || !in_window(seq, end_seq, self.rcv_nxt, window_end) {
            cx.drop_segment(
                cookie,
                tuple,
                if paws_reject { DropReason::TcpPaws } else { DropReason::TcpTimeWait },
            );
            if self.may_answer(segment, cx.now, cx.sysctl.tcp_invalid_ratelimit) {
                self.answer(tuple, cx);
            } else {
                cx.counters.tcp_ack_skipped_fin_wait2 += 1;
            }
            return TimeWaitVerdict::Keep;
        }
        if flags.rst() {
            return TimeWaitVerdict::Kill;
        }
        if flags.syn() && seq.at_or_after(self.rcv_nxt) {
            answer_with_reset(cookie, tuple, segment, ResetReason::TimeWaitSocket, cx);
            return TimeWaitVerdict::Kill;
        }
        // "Dup ACK?"
        if !flags.ack() || end_seq.at_or_before(self.rcv_nxt) || end_seq == seq {
            return TimeWaitVerdict::Keep;
        }
        // "New data or FIN. If new data arrive after half-duplex close, reset."
        if !flags.fin() || end_seq != self.rcv_nxt + 1 {
            answer_with_reset(cookie, tuple, segment, ResetReason::TimeWaitSocket, cx);
            return TimeWaitVerdict::Kill;
        }
        // "FIN arrived, enter true time-wait state."
        self.fin_wait_2 = false;
        self.rcv_nxt = end_seq;
        self.entered_ms = cx.now.as_millis() as u32;
        self.store_ts(tsval, cx.now);
        self.restart(cx);
        self.answer(tuple, cx);
        TimeWaitVerdict::Keep
    }

    /// No listener for a [`TimeWaitVerdict::NewSyn`]: acknowledge instead.
    pub(crate) fn ack_syn(&mut self, tuple: &FourTuple, cx: &mut Cx<'_>) {
        self.answer(tuple, cx);
    }

    /// May `connect` take this pair over now (Linux `tcp_twsk_unique`)? `bound`: the program chose the source port itself.
    /// Gives the initial sequence number and the `ts_recent` the new SYN echoes.
    pub(crate) fn reusable(&self, tuple: &FourTuple, bound: bool, cx: &Cx<'_>) -> Option<(SeqNum, u32)> {
        if self.fin_wait_2 || !self.timestamps {
            return None;
        }
        if !bound {
            let loopback = |address: IpAddr| address.is_loopback();
            let allowed = match cx.sysctl.tcp_tw_reuse {
                0 => false,
                2 => loopback(tuple.local.ip()) || loopback(tuple.remote.ip()),
                _ => true,
            };
            let age = (cx.now.as_millis() as u32).wrapping_sub(self.entered_ms);
            if !allowed || u128::from(age) <= cx.sysctl.tcp_tw_reuse_delay.as_millis() {
                return None;
            }
        }
        Some((self.reuse_iss(), self.ts_recent))
    }

    /// Time until it ends.
    pub(crate) fn remaining(&self, now: Instant) -> Duration {
        self.expires.saturating_since(now)
    }

    /// Milliseconds since the present state was entered.
    pub(crate) fn age_ms(&self, now: Instant) -> u32 {
        (now.as_millis() as u32).wrapping_sub(self.entered_ms)
    }

    /// Linux: `tw_snd_nxt + 65535 + 2`, never 0.
    fn reuse_iss(&self) -> SeqNum {
        let iss = self.snd_nxt + 65_537;
        if iss == SeqNum(0) { SeqNum(1) } else { iss }
    }

    fn restart(&mut self, cx: &Cx<'_>) {
        self.expires = cx.now + cx.sysctl.tcp_timewait_len;
    }

    fn ts(&self) -> TsState {
        TsState {
            recent: self.ts_recent,
            stored: Instant::from_millis(u64::from(self.ts_stored_s) * 1000),
            offset: self.ts_offset,
        }
    }

    fn store_ts(&mut self, tsval: Option<u32>, now: Instant) {
        if let Some(tsval) = tsval {
            self.ts_recent = tsval;
            self.ts_stored_s = seconds(now);
        }
    }

    /// Linux `tcp_timewait_check_oow_rate_limit`: data without SYN is always answered, the rest every `tcp_invalid_ratelimit`.
    fn may_answer(&mut self, segment: &Segment, now: Instant, every: Duration) -> bool {
        if segment.seq_len() != 0 && !segment.header.flags.syn() {
            return true;
        }
        let now_ms = now.as_millis() as u32;
        if self.last_answer_ms != 0
            && u128::from(now_ms.wrapping_sub(self.last_answer_ms - 1)) < every.as_millis()
        {
            return false;
        }
        self.last_answer_ms = now_ms.wrapping_add(1).max(1);
        true
    }

    fn answer(&self, tuple: &FourTuple, cx: &mut Cx<'_>) {
        let timestamps = self
            .timestamps
            .then(|| Timestamps { tsval: ts_clock(cx.now, self.ts_offset), tsecr: self.ts_recent });
        let header = SegmentHeader {
            src_port: tuple.local.port(),
            dst_port: tuple.remote.port(),
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: Flags::ACK,
            // Linux tcp_v4_send_ack(): htons() of it, whatever does not fit: without scaling there may be more.
            wnd: (self.rcv_wnd >> self.rcv_wscale) as u16,
            urg: 0,
            options: Options { timestamps, ..Options::default() },
        };
        cx.counters.out_segs += 1;
        cx.replies.push(Reply { tuple: *tuple, header, hop: Hop { ttl: 64, tos: self.tos } }, cx.counters);
    }
}

/// Linux `tcp_in_window`.
pub(crate) fn in_window(seq: SeqNum, end_seq: SeqNum, start: SeqNum, end: SeqNum) -> bool {
    seq == start || (end_seq.after(start) && seq.before(end)) || (seq == end && seq == end_seq)
}

fn seconds(at: Instant) -> u32 {
    (at.as_millis() / 1000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::context::testing::TestCx;
    use bytes::Bytes;

    const TUPLE: FourTuple = crate::tcp::context::testing::TUPLE;
    const R: u32 = 5_000;
    const T: u32 = 900;

    fn mini(with_ts: bool) -> TimeWait {
        let ts = with_ts.then(|| TsState { recent: T, stored: Instant::from_millis(1_000), offset: 7 });
        let remains = Remains {
            fin_wait_2: false,
            rcv_nxt: SeqNum(R),
            snd_nxt: SeqNum(100),
            rcv_wnd: 65_536,
            rcv_wscale: 7,
            ts,
            tos: 0,
            lifetime: Duration::from_secs(60),
        };
        TimeWait::new(&remains, Instant::from_millis(1_000))
    }

    fn segment(flags: Flags, seq: u32, tsval: Option<u32>, len: usize) -> Segment {
        let [src, dst] = [IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 1])];
        let timestamps = tsval.map(|tsval| Timestamps { tsval, tsecr: 0 });
        let options = Options { timestamps, ..Options::default() };
        let header =
            SegmentHeader { seq: SeqNum(seq), ack: SeqNum(100), flags, options, ..SegmentHeader::default() };
        Segment {
            src,
            dst,
            header,
            payload: Bytes::from(vec![0; len]),
            segs: 1,
            tos: 0,
            ttl: 64,
            truesize: len as u32,
        }
    }

    /// With timestamps, flags, sequence number, TSval, payload bytes; timer restarted, answer.
    type Row = (bool, Flags, u32, Option<u32>, usize, bool, Answer);

    #[derive(PartialEq, Debug)]
    enum Answer {
        Ack,
        Nothing,
        Killed,
        New(u32),
    }

    /// Specification 13.5, every row: the segment, then whether the timer restarted and what was answered.
    #[test]
    fn time_wait_decisions_as_linux() {
        let ack = Flags::ACK;
        let (syn, fin, rst) = (Flags::SYN, Flags::FIN, Flags::RST);
        let rows: &[Row] = &[
            (false, syn, R - 100, None, 0, false, Answer::Ack),
            (false, syn, R, None, 0, false, Answer::Ack),
            (false, syn, R + 1, None, 0, false, Answer::New(100 + 65_537)),
            (true, syn, R - 1000, Some(T + 5), 0, false, Answer::New(100 + 65_537)),
            (true, syn, R + 1000, Some(T), 0, false, Answer::New(100 + 65_537)),
            (true, syn, R + 1000, Some(T - 5), 0, true, Answer::Ack),
            (true, syn | ack, R + 10, Some(T + 1), 0, true, Answer::Ack),
            (true, ack, R, Some(T + 1), 0, true, Answer::Nothing),
            (true, fin | ack, R - 1, Some(T + 1), 0, true, Answer::Ack),
            (true, ack, R, Some(T + 1), 10, true, Answer::Ack),
            (true, rst, R, Some(T + 1), 0, false, Answer::Killed),
            (true, rst, R + 5, Some(T + 1), 0, false, Answer::Nothing),
            (true, rst, R - 5, Some(T + 1), 0, false, Answer::Nothing),
        ];
        for (n, (with_ts, flags, seq, tsval, len, restarted, want)) in rows.iter().enumerate() {
            let mut world = TestCx::at(Instant::from_millis(20_000));
            let mut mini = mini(*with_ts);
            let verdict = mini.on_segment(1, &TUPLE, &segment(*flags, *seq, *tsval, *len), &mut world.cx());
            let answer = match (verdict, world.replies.pop()) {
                (TimeWaitVerdict::Kill, None) => Answer::Killed,
                (TimeWaitVerdict::NewSyn { iss }, None) => Answer::New(iss.0),
                (TimeWaitVerdict::Keep, Some(reply)) if reply.header.flags == Flags::ACK => {
                    assert_eq!((reply.header.seq, reply.header.wnd), (SeqNum(100), 512));
                    Answer::Ack
                }
                (TimeWaitVerdict::Keep, None) => Answer::Nothing,
                other => panic!("row {n}: {other:?}"),
            };
            assert_eq!(answer, *want, "row {n}");
            let expires = if *restarted { 80_000 } else { 61_000 };
            assert_eq!(mini.expires, Instant::from_millis(expires), "row {n}");
        }
    }

    #[test]
    fn rfc1337_keeps_time_wait_from_being_assassinated() {
        let mut world = TestCx::at(Instant::from_millis(20_000));
        world.sysctl.tcp_rfc1337 = true;
        let mut mini = mini(true);
        let verdict = mini.on_segment(1, &TUPLE, &segment(Flags::RST, R, None, 0), &mut world.cx());
        assert_eq!((verdict, mini.expires), (TimeWaitVerdict::Keep, Instant::from_millis(61_000)));
    }

    #[test]
    fn fin_wait_2_takes_only_a_bare_fin() {
        let fresh = || {
            let mut mini = mini(true);
            mini.fin_wait_2 = true;
            (TestCx::at(Instant::from_millis(20_000)), mini)
        };
        let (mut world, mut waiting) = fresh();
        let fin = segment(Flags::FIN | Flags::ACK, R, Some(T), 0);
        assert_eq!(waiting.on_segment(1, &TUPLE, &fin, &mut world.cx()), TimeWaitVerdict::Keep);
        assert!(!waiting.is_fin_wait_2());
        assert_eq!((waiting.expires, waiting.rcv_nxt), (Instant::from_millis(80_000), SeqNum(R + 1)));
        assert_eq!(world.replies.pop().map(|reply| reply.header.ack), Some(SeqNum(R + 1)));

        let (mut world, mut waiting) = fresh();
        let data = segment(Flags::ACK, R, Some(T), 4);
        assert_eq!(waiting.on_segment(1, &TUPLE, &data, &mut world.cx()), TimeWaitVerdict::Kill);
        assert_eq!(world.replies.pop().map(|reply| reply.header.flags), Some(Flags::RST));
        assert_eq!(
            world.counters.tcp_abort_on_data, 0,
            "specification 1.6: the mini socket does not count it"
        );

        let (mut world, mut waiting) = fresh();
        let dup = segment(Flags::ACK, R, Some(T), 0);
        assert_eq!(waiting.on_segment(1, &TUPLE, &dup, &mut world.cx()), TimeWaitVerdict::Keep);
        assert_eq!(waiting.expires, Instant::from_millis(61_000));
        let rst = segment(Flags::RST, R + 9, Some(T), 0);
        assert_eq!(waiting.on_segment(1, &TUPLE, &rst, &mut world.cx()), TimeWaitVerdict::Kill);
    }

    #[test]
    fn reuse_needs_timestamps_permission_and_age() {
        let mut world = TestCx::at(Instant::from_millis(2_001));
        let (with_ts, without) = (mini(true), mini(false));
        assert_eq!(with_ts.reusable(&TUPLE, false, &world.cx()), None, "tcp_tw_reuse 2 and no loopback");
        world.sysctl.tcp_tw_reuse = 1;
        assert_eq!(with_ts.reusable(&TUPLE, false, &world.cx()), Some((SeqNum(65_637), T)));
        assert_eq!(without.reusable(&TUPLE, false, &world.cx()), None);
        world.now = Instant::from_millis(2_000);
        assert_eq!(with_ts.reusable(&TUPLE, false, &world.cx()), None, "not older than tcp_tw_reuse_delay");
        assert!(with_ts.reusable(&TUPLE, true, &world.cx()).is_some(), "a bound port ignores mode and delay");
        assert_eq!(without.reusable(&TUPLE, true, &world.cx()), None);
    }

    #[test]
    fn mini_socket_is_small() {
        assert!(size_of::<TimeWait>() <= 48, "{} bytes", size_of::<TimeWait>());
    }
}
