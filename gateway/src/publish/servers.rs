//! Who serves a port inside, as it was a moment ago: a thousand clients a second are one question, not a thousand.
//!
//! Owns:    [`Servers`], answers that are not old.
//! Rules:   that nobody serves is not kept: who begins to listen is named at once.

use std::collections::HashMap;
use std::time::Duration;

use lastack::core::time::Instant;

use crate::owner::{Owner, Protocol};

/// How long an answer is trusted.
const AGE: Duration = Duration::from_millis(250);

/// Answers by protocol and port; there are as many as ports are published.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    known: HashMap<(Protocol, u16), (Instant, Owner)>,
}

impl Servers {
    /// The answer, if it is known.
    pub(crate) fn get(&self, now: Instant, protocol: Protocol, port: u16) -> Option<Owner> {
        let (asked, owner) = self.known.get(&(protocol, port))?;
        (now.saturating_since(*asked) < AGE).then(|| owner.clone())
    }

    /// Keeps an answer.
    pub(crate) fn put(&mut self, now: Instant, protocol: Protocol, port: u16, owner: Owner) {
        self.known.insert((protocol, port), (now, owner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_grow_old() {
        let mut servers = Servers::default();
        let at = Instant::from_millis;
        let owner = Owner { pid: 7, process: "nginx".into(), cgroup: None };
        servers.put(at(1000), Protocol::Tcp, 80, owner.clone());
        assert_eq!(servers.get(at(1249), Protocol::Tcp, 80), Some(owner));
        assert_eq!(servers.get(at(1250), Protocol::Tcp, 80), None);
        assert_eq!(servers.get(at(1000), Protocol::Udp, 80), None);
        assert_eq!(servers.get(at(1000), Protocol::Tcp, 81), None);
    }
}
