//! Endings and stalls that are forced on connections, to see what a program makes of them.
//!
//! Owns:    [`Injection`] and its grammar, [`Injections`]; what one connection has in store ([`Armed`]).
//! Input:   `EVENT@WHEN[,DESTINATION]`; the time since a connection was established, and the bytes it has carried.
//! Output:  the [`Event`] that is due.
//! Rules:   a connection has in store every injection whose destination it is; each happens once.
//! Not here: doing it: resets, stalls and windows are the relay's (`relay`), black holes the link's (`lastack::impair`).

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use lastack::core::time::Instant;
use lastack::{Net, TcpStream, impair};
use serde::Serialize;
use tokio::time::Sleep;

use crate::dns::Names;
use crate::journal::identifiers;
use crate::rules::{Pattern, PatternError};

identifiers!(
    /// What is forced.
    Event {
        /// Both ends get RST, as from a peer that closes with `SO_LINGER` and zero seconds.
        Reset = "rst",
        /// Nothing is read or written any more, as by a peer that is frozen: windows close when buffers are full.
        Stall = "stall",
        /// The window is 0 from now on and probes are answered, as by a peer that reads nothing; it may go on sending.
        ZeroWindow = "zero-window",
        /// Every packet of the connection vanishes, both ways, as on a path that has broken.
        BlackHole = "blackhole",
        /// The connection is forgotten without a word, as by a peer that was rebooted: the next packet gets RST.
        HalfOpen = "half-open",
    }
);

/// When it is forced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// So long after the connection was established.
    After(Duration),
    /// When it has carried so many payload bytes, both ways together.
    Bytes(u64),
}

/// One thing to be forced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Injection {
    /// What.
    pub event: Event,
    /// When.
    pub when: When,
    /// On which connections; `None`: on all.
    pub destination: Option<Pattern>,
}

/// Why a text is not an [`Injection`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InjectionError {
    /// There is no such event.
    Event,
    /// There is no `@`, or nothing behind it.
    NoWhen,
    /// Neither a time nor an amount of bytes.
    When,
    /// The destination is not one that rules know.
    Destination(PatternError),
}

impl fmt::Display for InjectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event => f.write_str("there is no such event"),
            Self::NoWhen => {
                f.write_str("it does not say when: `@` and a time or an amount of bytes is missing")
            }
            Self::When => {
                f.write_str("when is neither a time (500ms, 5s, 2m) nor an amount of bytes (64kB, 1MB, 1MiB)")
            }
            Self::Destination(error) => write!(f, "its destination: {error}"),
        }
    }
}

impl std::error::Error for InjectionError {}

impl FromStr for Injection {
    type Err = InjectionError;

    /// Reads `EVENT@WHEN` or `EVENT@WHEN,DESTINATION`, the destination as in a rule.
    fn from_str(text: &str) -> Result<Self, InjectionError> {
        let (event, rest) = text.split_once('@').unwrap_or((text, ""));
        let event = Event::ALL
            .iter()
            .copied()
            .find(|known| known.name() == event.trim())
            .ok_or(InjectionError::Event)?;
        let (when, destination) = match rest.split_once(',') {
            Some((when, destination)) => (when, Some(destination)),
            None => (rest, None),
        };
        if when.trim().is_empty() {
            return Err(InjectionError::NoWhen);
        }
        let when = When::parse(when.trim()).ok_or(InjectionError::When)?;
        let destination = destination.map(Pattern::parse).transpose().map_err(InjectionError::Destination)?;
        Ok(Self { event, when, destination })
    }
}

impl When {
    fn parse(text: &str) -> Option<Self> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = text.split_at(unit_at);
        let number: f64 = number.parse().ok().filter(|number: &f64| number.is_finite())?;
        let seconds = |unit: f64| Duration::try_from_secs_f64(number * unit).ok().map(Self::After);
        let bytes = |unit: f64| {
            let bytes = number * unit;
            (bytes < 1e18).then_some(Self::Bytes(bytes as u64))
        };
        match unit {
            "ms" => seconds(1e-3),
            "s" => seconds(1.0),
            "m" | "min" => seconds(60.0),
            "B" => bytes(1.0),
            "kB" | "KB" => bytes(1e3),
            "MB" => bytes(1e6),
            "GB" => bytes(1e9),
            "KiB" => bytes(1024.0),
            "MiB" => bytes(1024.0 * 1024.0),
            "GiB" => bytes(1024.0 * 1024.0 * 1024.0),
            _ => None,
        }
    }
}

/// Everything to be forced in one run.
#[derive(Clone, Debug, Default)]
pub struct Injections {
    /// In the order given.
    pub list: Vec<Injection>,
    /// Where black holes are made; needed for [`Event::BlackHole`] alone.
    pub link: Option<impair::Handle>,
}

impl Injections {
    /// True when a black hole is asked for and there is no link to make it in.
    pub(crate) fn lacks_link(&self) -> bool {
        self.link.is_none() && self.list.iter().any(|injection| injection.event == Event::BlackHole)
    }

    /// What a connection to `remote`, established just now on `net`, has in store; `None`: nothing.
    pub(crate) fn armed(&self, remote: SocketAddr, names: &Names, net: &Net) -> Option<Box<Armed>> {
        if self.list.is_empty() {
            return None;
        }
        let names = &names.of(remote.ip());
        let applies = |injection: &&Injection| {
            injection.destination.as_ref().is_none_or(|to| to.matches(remote, names))
        };
        let pending: Vec<_> =
            self.list.iter().filter(applies).map(|injection| (injection.event, injection.when)).collect();
        if pending.is_empty() {
            return None;
        }
        let (injected, frozen) = (None, Frozen::Nothing);
        Some(Box::new(Armed {
            injected,
            frozen,
            pending,
            established: net.now(),
            timer: None,
            net: net.clone(),
            link: self.link.clone(),
        }))
    }
}

/// What was forced on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Injected {
    /// What.
    pub event: Event,
    /// When, microseconds after it was established.
    pub at_us: u64,
    /// Payload bytes it had carried by then, both ways together.
    pub bytes: u64,
}

/// What an injection has stopped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Frozen {
    Nothing,
    /// Nothing is read from the inside.
    Up,
    /// Nothing is read from or written to either side.
    Both,
}

/// What one connection has in store, and what was done to it.
#[derive(Debug)]
pub(crate) struct Armed {
    /// What was forced last.
    pub(crate) injected: Option<Injected>,
    pub(crate) frozen: Frozen,
    pending: Vec<(Event, When)>,
    established: Instant,
    /// Until the earliest time of `pending`.
    timer: Option<Pin<Box<Sleep>>>,
    net: Net,
    link: Option<impair::Handle>,
}

impl Armed {
    /// Makes every packet of `inside` vanish.
    pub(crate) fn black_hole(&self, inside: &TcpStream) {
        if let (Some(link), Ok(local), Ok(remote)) = (&self.link, inside.local_addr(), inside.peer_addr()) {
            link.cut(impair::Ends { local, remote });
        }
    }

    /// Nothing more happens.
    pub(crate) fn disarm(&mut self) {
        self.pending.clear();
        self.timer = None;
    }

    /// The clock that [`Armed::poll_due`] goes by.
    pub(crate) fn now(&self) -> Instant {
        self.net.now()
    }

    /// Payload bytes that may be carried before something happens.
    pub(crate) fn room(&self, carried: u64) -> u64 {
        let limits = self.pending.iter().filter_map(|(_, when)| match when {
            When::Bytes(limit) => Some(limit.saturating_sub(carried)),
            When::After(_) => None,
        });
        limits.min().unwrap_or(u64::MAX)
    }

    /// What is due, with its time; the task is woken when time makes the next due.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>, now: Instant, carried: u64) -> Poll<Injected> {
        let elapsed = now.saturating_since(self.established);
        let is_due = |when: &When| match when {
            When::After(time) => elapsed >= *time,
            When::Bytes(limit) => carried >= *limit,
        };
        if let Some(at) = self.pending.iter().position(|(_, when)| is_due(when)) {
            let (event, _) = self.pending.remove(at);
            self.timer = None;
            let at_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
            return Poll::Ready(*self.injected.insert(Injected { event, at_us, bytes: carried }));
        }
        let times = self.pending.iter().filter_map(|(_, when)| match when {
            When::After(time) => Some(*time),
            When::Bytes(_) => None,
        });
        if let Some(next) = times.min() {
            let timer =
                self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(next.saturating_sub(elapsed))));
            if timer.as_mut().poll(cx).is_ready() {
                // A clock's tick apart from ours: looked at again at once.
                self.timer = None;
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Injection, InjectionError> {
        text.parse()
    }

    #[test]
    fn every_form_is_read() {
        let when = |text: &str| parse(text).map(|injection| (injection.event, injection.when));
        assert_eq!(when("rst@5s"), Ok((Event::Reset, When::After(Duration::from_secs(5)))));
        assert_eq!(when("stall@1.5s"), Ok((Event::Stall, When::After(Duration::from_millis(1500)))));
        assert_eq!(when("stall@0ms"), Ok((Event::Stall, When::After(Duration::ZERO))));
        assert_eq!(when("zero-window@1MB"), Ok((Event::ZeroWindow, When::Bytes(1_000_000))));
        assert_eq!(when("half-open@64KiB"), Ok((Event::HalfOpen, When::Bytes(65_536))));
        assert_eq!(when("blackhole@2m"), Ok((Event::BlackHole, When::After(Duration::from_secs(120)))));
        let to = parse("rst@5s,10.0.2.2:80").unwrap().destination.unwrap();
        assert!(
            to.matches("10.0.2.2:80".parse().unwrap(), &[])
                && !to.matches("10.0.2.2:81".parse().unwrap(), &[])
        );
        assert!(parse("rst@5s,[fd00::/16]:80").is_ok());
    }

    #[test]
    fn each_mistake_has_its_own_name() {
        assert_eq!(parse("explode@5s"), Err(InjectionError::Event));
        assert_eq!(parse(""), Err(InjectionError::Event));
        for text in ["rst", "rst@", "rst@ ,10.0.0.1"] {
            assert_eq!(parse(text), Err(InjectionError::NoWhen), "{text}");
        }
        for text in [
            "rst@5",
            "rst@s",
            "rst@5parsecs",
            "rst@-5s",
            "rst@1e400s",
            "rst@9999999999999999999GB",
            "rst@..s",
        ] {
            assert_eq!(parse(text), Err(InjectionError::When), "{text}");
        }
        assert!(matches!(parse("rst@5s,10.0.0.0/33"), Err(InjectionError::Destination(_))));
    }

    #[test]
    fn a_connection_has_in_store_what_is_for_it() {
        let list = ["rst@5s,10.0.2.2:80", "stall@1kB", "zero-window@10kB"].map(|text| parse(text).unwrap());
        let injections = Injections { list: list.to_vec(), link: None };
        let (left, _right) = lastack::Memory::pair(1500);
        let (net, _driver) = Net::start(left, lastack::Config::default()).unwrap();
        let mut armed = injections.armed("10.0.2.9:80".parse().unwrap(), &Names::default(), &net).unwrap();
        let now = armed.established;
        assert_eq!(armed.room(400), 600);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(armed.poll_due(&mut cx, now, 999).is_pending());
        assert_eq!(
            armed.poll_due(&mut cx, now + Duration::from_millis(2), 1000),
            Poll::Ready(Injected { event: Event::Stall, at_us: 2000, bytes: 1000 })
        );
        assert_eq!(armed.room(1000), 9000);
        assert!(armed.poll_due(&mut cx, now, 1000).is_pending(), "once");
        let elsewhere = Injections { list: vec![parse("rst@5s,192.0.2.1").unwrap()], link: None };
        assert!(elsewhere.armed("10.0.2.9:80".parse().unwrap(), &Names::default(), &net).is_none());
    }

    #[test]
    fn a_black_hole_needs_a_link() {
        let with = |text| Injections { list: vec![parse(text).unwrap()], link: None };
        assert!(with("blackhole@1s").lacks_link() && !with("stall@1s").lacks_link());
    }
}
