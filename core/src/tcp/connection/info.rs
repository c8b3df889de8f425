//! Looking at a connection; nothing here changes it.

use crate::id::FourTuple;
use crate::observe::info::{TimerKind, TimerRow};
use crate::observe::life::Life;
use crate::observe::{SocketRow, TcpInfo};
use crate::tcp::connection::Connection;
use crate::tcp::options::TcpOptions;
use crate::tcp::paws::ts_clock;
use crate::tcp::state::TcpState;
use crate::time::Instant;

/// `tcpi_options` bits.
const OPT_TIMESTAMPS: u8 = 1;
const OPT_SACK: u8 = 2;
const OPT_WSCALE: u8 = 4;
const OPT_ECN: u8 = 8;
const OPT_ECN_SEEN: u8 = 16;
const OPT_SYN_DATA: u8 = 32;

impl Connection {
    pub(crate) fn state(&self) -> TcpState {
        self.state
    }

    pub(crate) fn tuple(&self) -> &FourTuple {
        &self.tuple
    }

    pub(crate) fn cookie(&self) -> u64 {
        self.cookie
    }

    /// `TCP_QUICKACK` read back.
    pub(crate) fn is_quickack(&self, pingpong_thresh: u8) -> bool {
        self.acks.is_quickack(pingpong_thresh)
    }

    /// Receive and send buffer, bytes (Linux `sk_rcvbuf`, `sk_sndbuf`).
    pub(crate) fn buffers(&self) -> (u32, u32) {
        (self.recv.rcvbuf(), self.send.sndbuf())
    }

    /// The largest window the peer has offered, bytes.
    pub(crate) fn max_window(&self) -> u32 {
        self.send.max_window()
    }

    /// Most that the window may be, bytes (`TCP_WINDOW_CLAMP` read back).
    pub(crate) fn window_clamp(&self) -> u32 {
        self.recv.window_clamp()
    }

    /// Our timestamp clock as the peer sees it (`TCP_TIMESTAMP` read back).
    pub(crate) fn timestamp(&self, now: Instant) -> u32 {
        ts_clock(now, self.ts_state.offset)
    }

    pub(crate) fn options(&self) -> &TcpOptions {
        &self.options
    }

    /// The record so far; once ended, as it was at the end.
    pub(crate) fn life(&self) -> Life {
        let mut life = self.life;
        if life.ending.is_none() {
            life.unacked_bytes = self.send.unacked_payload();
        }
        life.unread_bytes += u64::from(self.recv.readable());
        life
    }

    /// What both queues hold, for the stack's memory sum: payload bytes, and of out-of-order pieces what their packets cost.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.send.unacked_payload() + u64::from(self.recv.readable()) + u64::from(self.reorder.charge())
    }

    /// Linux `tcp_get_info`.
    pub(crate) fn info(&self, now: Instant) -> TcpInfo {
        let ms_since = |at: Instant| now.saturating_since(at).as_millis().min(u128::from(u32::MAX)) as u32;
        let us = |duration: core::time::Duration| duration.as_micros().min(u128::from(u32::MAX)) as u32;
        let mut info = TcpInfo {
            state: self.state as u8,
            options: (if self.has_timestamps { OPT_TIMESTAMPS } else { 0 })
                | (if self.sack { OPT_SACK } else { 0 })
                | (if self.wscale { OPT_WSCALE } else { 0 })
                | (if self.ecn.is_on() { OPT_ECN } else { 0 })
                | (if self.ecn.is_seen() { OPT_ECN_SEEN } else { 0 })
                | (if self.syn_data_acked { OPT_SYN_DATA } else { 0 }),
            fastopen_client_fail: self.attempt.as_ref().map_or(0, |attempt| attempt.fail as u8),
            snd_wscale: self.snd_wscale,
            rcv_wscale: self.recv.rcv_wscale,
            ato: us(self.acks.ato()),
            rcv_mss: self.acks.rcv_mss(),
            last_data_recv: ms_since(self.acks.last_data()),
            last_ack_recv: ms_since(self.last_received),
            pmtu: self.mtu,
            rcv_ssthresh: self.recv.rcv_ssthresh,
            advmss: self.advmss_less_options(),
            rcv_rtt: self.recv.rtt().map_or(0, us),
            rcv_space: self.recv.space(),
            // Linux tcp_rcv_nxt_update(): a FIN's sequence number counts.
            bytes_received: self.life.bytes_received + u64::from(self.recv.fin),
            segs_out: self.segs_out,
            segs_in: self.segs_in,
            data_segs_in: self.data_segs_in,
            rcv_ooopack: self.rcv_ooopack,
            rcv_wnd: self.recv.receive_window(),
            ..TcpInfo::default()
        };
        self.send.fill_info(now, &mut info);
        info.probes = info.probes.max(self.keepalive_probes);
        if self.life.established_at.is_none() {
            // Linux takes the options off when it is established.
            info.advmss = self.advmss.into();
        }
        info
    }

    /// A line of `ss`.
    pub(crate) fn row(&self, now: Instant) -> SocketRow {
        let unread_fin = u32::from(self.recv.fin && !self.eof_read);
        SocketRow {
            state: self.state,
            local: self.tuple.local,
            remote: self.tuple.remote,
            recv_q: self.recv.readable() + unread_fin,
            send_q: self.send.unacknowledged(),
            timer: self.timer_row(now),
            cookie: self.cookie,
            orphan: self.orphan,
            age_ms: Some(now.saturating_since(self.life.opened_at).as_millis() as u64),
            state_age_ms: Some(now.saturating_since(self.state_since).as_millis() as u64),
            info: Some(Box::new(self.info(now))),
        }
    }

    fn timer_row(&self, now: Instant) -> Option<TimerRow> {
        self.send.timer_row(now).or_else(|| {
            self.keepalive_at.is_armed().then(|| TimerRow {
                kind: TimerKind::Keepalive,
                expires_ms: self.keepalive_at.saturating_since(now).as_millis().min(u128::from(u32::MAX))
                    as u32,
                retrans: self.keepalive_probes,
            })
        })
    }
}
