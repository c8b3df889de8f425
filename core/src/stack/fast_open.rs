//! Fast Open at a listener: which SYN makes a child at once, how many may be opening, and who is to blame.
//!
//! Owns:    [`FastOpenQueue`], a listener's count of children whose handshake is not over.
//! Rules:   specification 4.6. Linux: `tcp_try_fastopen`, `tcp_fastopen_queue_check`, `reqsk_fastopen_remove`.
//! Differs: an accept-any listener has no Fast Open: its SYNs wait for a decision.
//! Not here: cookies (`tcp::fast_open`), the child itself (`tcp::connection`).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::id::{FourTuple, ListenerId};
use crate::stack::Stack;
use crate::stack::ingress::Arrival;
use crate::stack::ports::Use;
use crate::stack::sockets::Holder;
use crate::tcp::connection::{Connection, Disposition};
use crate::tcp::fast_open::{Check, FastOpenKeys, Over, SERVER, SERVER_NO_COOKIE};
use crate::tcp::half_open::HalfOpen;
use crate::time::{Duration, Instant};
use crate::wire::segment::{FastOpen, Segment};

/// "Wait for 60secs before removing a req that has triggered RST. This is a simple defense against TFO spoofing attack".
const BLAME: Duration = Duration::from_secs(60);

/// Children of a listener whose handshake is not over.
#[derive(Debug, Default)]
pub(crate) struct FastOpenQueue {
    /// Those, and those that a RST ended a short while ago.
    len: u32,
    /// Until when each of the latter counts, the oldest first.
    blamed: VecDeque<Instant>,
}

impl FastOpenQueue {
    /// Linux `tcp_fastopen_queue_check`: one more may begin.
    fn has_room(&mut self, most: u32, now: Instant) -> bool {
        if self.len < most {
            return true;
        }
        let forgiven = self.blamed.pop_front_if(|until| *until <= now).is_some();
        self.len -= u32::from(forgiven);
        forgiven
    }

    /// A child's handshake is over: one less, at once or later.
    pub(crate) fn over(&mut self, is_accepted: bool, how: Over, now: Instant) {
        if how == Over::Reset && is_accepted {
            self.blamed.push_back(now + BLAME);
        } else {
            self.len = self.len.saturating_sub(1);
        }
    }
}

/// What a SYN's Fast Open option comes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Judgement {
    /// An ordinary handshake; the SYN-ACK brings this.
    Ordinary(Option<FastOpen>),
    /// A child at once; the SYN-ACK brings this.
    Child(Option<FastOpen>),
}

impl Stack {
    /// Linux `tcp_try_fastopen`.
    pub(crate) fn judge_fast_open(
        &mut self,
        now: Instant,
        id: ListenerId,
        tuple: &FourTuple,
        syn: &Segment,
    ) -> Judgement {
        let asked = syn.header.options.fast_open;
        let bits = self.world.sysctl.tcp_fastopen;
        let counters = &mut self.world.counters;
        if asked.is_some_and(|asked| asked.cookie.is_empty()) {
            counters.tcp_fast_open_cookie_reqd += 1;
        }
        let has_data = !syn.payload.is_empty();
        if bits & SERVER == 0 || !(has_data || asked.is_some()) {
            return Judgement::Ordinary(None);
        }
        let Some(listener) = self.listeners.get_mut(id) else { return Judgement::Ordinary(None) };
        let most = listener.options.fast_open_queue;
        if most == 0 {
            return Judgement::Ordinary(None);
        }
        if !listener.fast_open.has_room(most, now) {
            counters.tcp_fast_open_listen_overflow += 1;
            return Judgement::Ordinary(None);
        }
        if bits & SERVER_NO_COOKIE != 0 || listener.options.fast_open_no_cookie {
            counters.tcp_fast_open_passive += 1;
            return Judgement::Child(None);
        }
        let Some(asked) = asked else { return Judgement::Ordinary(None) };
        let keys = match (listener.options.fast_open_keys, self.world.sysctl.tcp_fastopen_key) {
            (Some(own), _) => own,
            (None, FastOpenKeys::UNSET) => self.fast_open_secret,
            (None, chosen) => chosen,
        };
        let fresh = Some(FastOpen { cookie: keys.cookie(tuple), ..asked });
        if asked.cookie.is_empty() {
            return Judgement::Ordinary(fresh);
        }
        match keys.check(tuple, &asked.cookie) {
            Check::Invalid => {
                counters.tcp_fast_open_passive_fail += 1;
                Judgement::Ordinary(fresh)
            }
            Check::Valid => {
                counters.tcp_fast_open_passive += 1;
                Judgement::Child(None)
            }
            Check::ValidOfBackup => {
                counters.tcp_fast_open_passive += 1;
                counters.tcp_fast_open_passive_alt_key += 1;
                Judgement::Child(fresh)
            }
        }
    }

    /// Linux `tcp_fastopen_create_child`: the child goes into the accept queue, its SYN-ACK acknowledges the SYN's data.
    pub(crate) fn open_fast(
        &mut self,
        now: Instant,
        id: ListenerId,
        half_open: HalfOpen,
        tuple: &FourTuple,
        arrival: Arrival<'_>,
        fast_open: Option<FastOpen>,
    ) {
        let syn = arrival.segment;
        let cookie = self.sockets.new_cookie();
        self.save_syn(id, cookie, arrival);
        let setup = self.child_setup(now, &half_open, cookie, tuple);
        let Some(listener) = self.listeners.get_mut(id) else { return };
        listener.fast_open.len += 1;
        let options = Arc::clone(&listener.options);
        let port = Use { reuseaddr: options.reuseaddr, bound: false };
        let mut cx = self.world.cx(now);
        let child = Connection::open_fast(&setup, half_open, id, options, syn, fast_open, &mut cx);
        self.ports.acquire(tuple.local.port(), port);
        let child = self.sockets.add_connection(Box::new(child), Holder::AcceptQueue(id), port);
        self.enqueue_child(id, child);
        self.settle(now, child, Disposition::Keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_child_counts_for_a_minute() {
        let at = |s: u64| Instant::from_millis(s * 1000);
        let mut queue = FastOpenQueue { len: 2, ..FastOpenQueue::default() };
        assert!(!queue.has_room(2, at(0)) && queue.has_room(3, at(0)));
        queue.over(true, Over::Reset, at(1));
        assert!(!queue.has_room(2, at(60)), "its address was perhaps forged");
        assert!(queue.has_room(2, at(61)));
        assert_eq!(queue.len, 1);
        queue.over(false, Over::Reset, at(62));
        assert_eq!((queue.len, queue.blamed.len()), (0, 0), "nobody had accepted it");
    }
}
