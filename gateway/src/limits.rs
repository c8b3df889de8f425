//! Limits that turned something away: which, how often, and since when. One line in the journal each.
//!
//! Owns:    [`Limit`], their names; [`Limits`], what they did; [`Reached`], what is written down.
//! Rules:   what a limit does to one connection is in that connection's own line too (`connection-limit`, `host-limit`). A
//!          datagram, a question, or a SYN that comes again has no line: it is counted here.

use std::sync::Mutex;

use lastack::core::time::Instant;
use serde::Serialize;

use crate::journal::identifiers;

identifiers!(
    /// What there may be only so much of.
    Limit {
        /// Connections at a time.
        Connections = "connections",
        /// SYNs of the program that wait for the host's answer; more are dropped and come again.
        PendingConnections = "pending-connections",
        /// UDP flows at a time; datagrams that would begin another are dropped.
        Flows = "udp-flows",
        /// Datagrams that wait for one flow's socket; more are dropped.
        FlowQueue = "udp-flow-queue",
        /// Names that are looked up at a time; more questions are dropped.
        Lookups = "lookups",
        /// Pings at a time; more are dropped.
        Pings = "pings",
    }
);

/// A limit that was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Reached {
    /// Which.
    pub limit: Limit,
    /// What was turned away.
    pub turned_away: u64,
    /// When first.
    #[serde(rename = "first_ns", serialize_with = "nanoseconds", skip_serializing_if = "Option::is_none")]
    pub first: Option<Instant>,
}

#[allow(clippy::ref_option, reason = "serde's signature")]
fn nanoseconds<S: serde::Serializer>(at: &Option<Instant>, to: S) -> Result<S::Ok, S::Error> {
    at.map(Instant::as_nanos).serialize(to)
}

impl Reached {
    /// Its line in the JSON journal, without a newline.
    pub fn to_json(&self, explanation: &str) -> String {
        let mut line = serde_json::to_value(self).expect("strings and numbers only");
        line["event"] = "limit".into();
        line["explanation"] = explanation.into();
        line.to_string()
    }
}

/// What the limits of one run have done.
#[derive(Debug, Default)]
pub(crate) struct Limits(Mutex<Vec<Reached>>);

impl Limits {
    /// One more was turned away.
    pub(crate) fn bit(&self, limit: Limit, now: Instant) {
        self.add(limit, 1, Some(now));
    }

    /// So many more were, the first perhaps at `first`.
    pub(crate) fn add(&self, limit: Limit, count: u64, first: Option<Instant>) {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match all.iter_mut().find(|reached| reached.limit == limit) {
            Some(reached) => reached.turned_away += count,
            None if count > 0 => all.push(Reached { limit, turned_away: count, first }),
            None => {}
        }
    }

    /// What was reached, in order; forgotten here.
    pub(crate) fn take(&self) -> Vec<Reached> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_told_once_with_its_count() {
        let limits = Limits::default();
        for ms in [5, 6, 7] {
            limits.bit(Limit::Flows, Instant::from_millis(ms));
        }
        limits.add(Limit::PendingConnections, 0, None);
        limits.add(Limit::Lookups, 4, None);
        let told: Vec<_> = limits.take().iter().map(|reached| reached.to_json("text")).collect();
        assert_eq!(
            told,
            [
                r#"{"event":"limit","explanation":"text","first_ns":5000000,"limit":"udp-flows","turned_away":3}"#,
                r#"{"event":"limit","explanation":"text","limit":"lookups","turned_away":4}"#,
            ]
        );
        assert!(limits.take().is_empty());
    }
}
