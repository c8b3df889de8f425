//! Pings of addresses that are not the stack's own: they wait for an application that can find out who answers.
//!
//! Owns:    the bounded queue; one taker a stack.
//! Rules:   RFC 792, RFC 4443 4. Without a taker nobody answers for an address that is not ours.
//! Not here: answers for our own addresses (`stack::ingress`), composing packets (`stack::egress`).

use core::net::IpAddr;
use std::collections::VecDeque;

use bytes::Bytes;

/// Pings that may wait; more are dropped, as a raw socket's buffer would.
const LIMIT: usize = 256;

/// An echo request, on its way to somebody else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ping {
    /// Who sent it.
    pub from: IpAddr,
    /// Who is to answer.
    pub to: IpAddr,
    /// Identifier.
    pub ident: u16,
    /// Sequence number.
    pub seq: u16,
    /// The bytes that are to come back.
    pub payload: Bytes,
}

/// What waits.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    is_taken: bool,
    queue: VecDeque<Ping>,
}

impl Pings {
    /// Begins to queue, or stops; false: it had a taker already.
    pub(crate) fn take(&mut self, is_taken: bool) -> bool {
        self.queue.clear();
        let was_taken = core::mem::replace(&mut self.is_taken, is_taken);
        !(was_taken && is_taken)
    }

    /// Queues one; true: it is the only one, so its taker has to be told.
    pub(crate) fn push(&mut self, ping: Ping) -> bool {
        if !self.is_taken || self.queue.len() >= LIMIT {
            return false;
        }
        self.queue.push_back(ping);
        self.queue.len() == 1
    }

    pub(crate) fn pop(&mut self) -> Option<Ping> {
        self.queue.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(seq: u16) -> Ping {
        let [from, to] = [[192, 0, 2, 1], [198, 51, 100, 7]].map(IpAddr::from);
        Ping { from, to, ident: 1, seq, payload: Bytes::new() }
    }

    #[test]
    fn pings_wait_only_for_a_taker_and_only_so_many() {
        let mut pings = Pings::default();
        assert!(!pings.push(ping(0)) && pings.is_empty());
        assert!(pings.take(true) && !pings.take(true), "one taker");
        assert!(pings.push(ping(0)) && !pings.push(ping(1)), "told once");
        for seq in 2..1000 {
            pings.push(ping(seq));
        }
        let waiting: Vec<u16> = core::iter::from_fn(|| pings.pop()).map(|ping| ping.seq).collect();
        assert_eq!(waiting, (0..LIMIT as u16).collect::<Vec<_>>());
        pings.push(ping(0));
        assert!(pings.take(false) && pings.is_empty());
    }
}
