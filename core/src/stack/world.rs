//! What every part may see and touch: settings, counters, events, sums, and the way out for replies.

use crate::observe::{Counters, EventLog};
use crate::rng::Rng;
use crate::sysctl::Sysctl;
use crate::tcp::context::{Cx, Limits, Replies};
use crate::tcp::metrics::Metrics;
use crate::time::Instant;

/// Owned by the stack; lent for the length of one call as a [`Cx`].
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) sysctl: Sysctl,
    pub(crate) counters: Counters,
    pub(crate) events: EventLog,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) replies: Replies,
}

impl World {
    pub(crate) fn new(sysctl: Sysctl, event_limit: usize, rng: Rng) -> Self {
        Self {
            sysctl,
            counters: Counters::default(),
            events: EventLog::new(event_limit),
            limits: Limits::new(rng),
            metrics: Metrics::default(),
            replies: Replies::default(),
        }
    }

    #[inline]
    pub(crate) fn cx(&mut self, now: Instant) -> Cx<'_> {
        Cx {
            now,
            sysctl: &self.sysctl,
            counters: &mut self.counters,
            events: &mut self.events,
            limits: &mut self.limits,
            metrics: &mut self.metrics,
            replies: &mut self.replies,
        }
    }
}
