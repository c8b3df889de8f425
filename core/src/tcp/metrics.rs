//! What earlier connections learnt about a way, for those to come.
//!
//! Owns:    [`Metrics`], a bounded memory of ways (our address, the peer's).
//! Input:   a connection's measurements when it ends in order (TIME-WAIT, LAST-ACK).
//! Output:  the first RTO, slow-start threshold and reordering degree of the next one; whether a peer is proven alive.
//! Rules:   specification 6.5. Linux: `tcp_update_metrics`, `tcp_init_metrics`, `tcp_peer_is_proven`.
//! Differs: a full memory forgets the way used longest ago; Linux the oldest in the same hash bucket.
//! Not here: the path's MTU (`ip::pmtu`); the measurements themselves (`send::metrics`).

use core::net::IpAddr;

use crate::id::FourTuple;
use crate::ip::by_address::ByAddress;
use crate::tcp::fast_open::Remembered;
use crate::time::{Duration, Instant};
use crate::wire::segment::FastOpen;

/// Linux `TCP_METRICS_TIMEOUT`, one hour: older than that, nothing of it holds.
const METRICS_TIMEOUT: Duration = Duration::from_secs(3600);
/// Ways remembered.
const MAX_WAYS: usize = 8192;

/// One way's metrics, in the sender's units; 0: not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Way {
    /// Eight times the round-trip time, microseconds.
    pub(crate) rtt_us: u32,
    /// Four times its deviation, microseconds. Saved and never used, as in Linux.
    pub(crate) rttvar_us: u32,
    /// Segments.
    pub(crate) ssthresh: u32,
    /// Segments. Saved and never used, as in Linux.
    pub(crate) cwnd: u32,
    /// Segments.
    pub(crate) reordering: u32,
}

/// Every way's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    ways: ByAddress<Way, (IpAddr, IpAddr)>,
    fast_open: ByAddress<Remembered, (IpAddr, IpAddr)>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { ways: ByAddress::new(MAX_WAYS), fast_open: ByAddress::new(MAX_WAYS) }
    }
}

impl Metrics {
    pub(crate) fn get(&self, tuple: &FourTuple, now: Instant) -> Option<Way> {
        let (stored, way) = self.ways.get(key(tuple))?;
        Some(if now.saturating_since(stored) > METRICS_TIMEOUT { Way::default() } else { *way })
    }

    pub(crate) fn set(&mut self, tuple: &FourTuple, way: Way, now: Instant) {
        self.ways.set(key(tuple), now, way);
    }

    /// What a server's SYN-ACKs told about Fast Open.
    pub(crate) fn fast_open(&self, tuple: &FourTuple, now: Instant) -> Option<Remembered> {
        let (stored, memory) = self.fast_open.get(key(tuple))?;
        (now.saturating_since(stored) <= METRICS_TIMEOUT).then_some(*memory)
    }

    /// A SYN-ACK came: its segment size, its cookie if it brought one, or which form of the request had no answer.
    pub(crate) fn learn_fast_open(
        &mut self,
        tuple: &FourTuple,
        mss: u16,
        answer: Option<FastOpen>,
        try_experiment: u8,
        now: Instant,
    ) {
        let mut memory = self.fast_open(tuple, now).unwrap_or_default();
        memory.learn(mss, answer, try_experiment);
        self.fast_open.set(key(tuple), now, memory);
    }

    /// A connection over this way has measured a round trip (Linux `tcp_peer_is_proven`).
    pub(crate) fn is_proven(&self, tuple: &FourTuple, now: Instant) -> bool {
        self.get(tuple, now).is_some_and(|way| way.rtt_us > 0)
    }
}

fn key(tuple: &FourTuple) -> (IpAddr, IpAddr) {
    (tuple.local.ip(), tuple.remote.ip())
}
