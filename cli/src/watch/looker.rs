//! Whole looks on a thread of their own: keys and drawing never wait for a dump, nor for a walk through /proc.
//!
//! Owns:    the thread and its source; who has which socket; the counters of the look before, for rates.
//! Output:  one [`Look`] an order. When to order is [`Pace`]'s to say.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use lastack_observe::clock;
use lastack_observe::doctor::{self, Finding, Limits};
use lastack_observe::group::{self, Group};
use lastack_observe::row::{Owner, Row};
use lastack_observe::snapshot::Snapshot;
use lastack_observe::source::Source;
use lastack_observe::source::kernel::Query;

/// Owners are looked up in at most so small a share of the time: that walks through /proc.
const OWNER_SHARE: u32 = 20;
/// And no more often than this.
const OWNER_PAUSE: Duration = Duration::from_secs(2);

/// Whether it matters who has a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owners {
    /// The filter asks for it: from the first look on.
    First,
    /// It is shown: once there is something to show it beside.
    Later,
    /// Nothing shows it.
    Never,
}

/// Everything that one look shows.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) snapshot: Snapshot,
    pub(crate) findings: Vec<Finding>,
    /// The states of all sockets, most frequent first.
    pub(crate) states: Vec<Group>,
    /// Processor time that it took, without naming owners, which has a share of its own.
    pub(crate) took: Duration,
}

/// When something is due again: after the interval asked for, but with at most one part in `share` of a core's time. Processor
/// time counts: where others keep the machine busy, looks get no rarer than they must.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    interval: Duration,
    share: u32,
    last: Option<(Instant, Duration)>,
}

impl Pace {
    pub(crate) const fn new(interval: Duration, share: u32) -> Self {
        Self { interval, share, last: None }
    }

    /// It began then and took so much processor time.
    pub(crate) fn done(&mut self, began: Instant, took: Duration) {
        self.last = Some((began, took));
    }

    /// How long until it is due.
    pub(crate) fn due_in(&self, now: Instant) -> Duration {
        let Some((began, took)) = self.last else { return Duration::ZERO };
        self.interval.max(took * self.share).saturating_sub(now.saturating_duration_since(began))
    }
}

/// The thread that looks.
#[derive(Debug)]
pub(crate) struct Looker {
    orders: Sender<()>,
    looks: Receiver<io::Result<Look>>,
    /// When the look that is being waited for was ordered.
    ordered: Option<Instant>,
    /// Something was changed after that.
    outdated: bool,
    pace: Pace,
}

impl Looker {
    /// Starts the thread. It ends with the program, or with this value after the look it is at.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(source: Source, owners: Owners, pace: Pace) -> io::Result<Self> {
        let (orders, ordered) = channel();
        let (made, looks) = channel();
        let mut eye =
            Eye { source, need: owners, looked: false, owned: None, owners: HashMap::new(), before: None };
        std::thread::Builder::new()
            .name("look".to_owned())
            .spawn(move || while ordered.recv().is_ok() && made.send(eye.look()).is_ok() {})?;
        Ok(Self { orders, looks, ordered: None, outdated: false, pace })
    }

    /// Orders a look if one is due; gives the one that has been made, if any.
    ///
    /// # Errors
    /// When the source could not be read.
    pub(crate) fn turn(&mut self) -> io::Result<Option<Look>> {
        let look = match (self.ordered, self.looks.try_recv()) {
            (Some(began), Ok(look)) => Some(self.made(began, look)?),
            (_, Err(TryRecvError::Disconnected)) => {
                return Err(io::Error::other("the thread that looks has ended"));
            }
            _ => None,
        };
        if self.ordered.is_none() && self.pace.due_in(clock::monotonic()).is_zero() {
            self.order();
        }
        Ok(look)
    }

    /// Orders a look and waits for it.
    ///
    /// # Errors
    /// When the source could not be read.
    pub(crate) fn wait(&mut self) -> io::Result<Look> {
        let began = self.ordered.unwrap_or_else(|| self.order());
        let look = self.looks.recv().map_err(io::Error::other)?;
        self.made(began, look)
    }

    /// The next look is due at once: something has been changed.
    pub(crate) fn hurry(&mut self) {
        self.pace.last = None;
        self.outdated = self.ordered.is_some();
    }

    fn order(&mut self) -> Instant {
        let now = clock::monotonic();
        // A thread that has ended is noticed where its looks are waited for.
        let _ = self.orders.send(());
        self.ordered = Some(now);
        now
    }

    fn made(&mut self, began: Instant, look: io::Result<Look>) -> io::Result<Look> {
        self.ordered = None;
        let look = look?;
        if !std::mem::take(&mut self.outdated) {
            self.pace.done(began, look.took);
        }
        Ok(look)
    }
}

/// What the thread has.
#[derive(Debug)]
struct Eye {
    source: Source,
    need: Owners,
    looked: bool,
    /// When owners were looked up, and how long that took.
    owned: Option<(Instant, Duration)>,
    owners: HashMap<u64, Owner>,
    /// The look before without its sockets: rates need counters only.
    before: Option<Snapshot>,
}

impl Eye {
    fn look(&mut self) -> io::Result<Look> {
        let start = clock::thread_time();
        let mut snapshot = self.source.snapshot(&Query { owners: false, ..Query::everything() })?;
        let naming = self.name(&mut snapshot);
        let findings = doctor::examine(&snapshot, self.before.as_ref(), &Limits::default());
        let states = group::by(&snapshot.rows, &[group::Key::State]);
        self.before = Some(Snapshot {
            source: snapshot.source.clone(),
            taken_ns: snapshot.taken_ns,
            namespaces: snapshot.namespaces.clone(),
            host: snapshot.host,
            ..Snapshot::default()
        });
        self.looked = true;
        Ok(Look { snapshot, findings, states, took: clock::thread_time().saturating_sub(start + naming) })
    }

    /// Names owners: those that are remembered, or anew when that is due; gives the processor time it took.
    fn name(&mut self, snapshot: &mut Snapshot) -> Duration {
        let (now, start) = (clock::monotonic(), clock::thread_time());
        let due = match (self.owned, self.need) {
            (_, Owners::Never) => return Duration::ZERO,
            (Some((then, took)), _) => then.elapsed() > (took * OWNER_SHARE).max(OWNER_PAUSE),
            (None, Owners::First) => true,
            (None, Owners::Later) => self.looked,
        };
        if due {
            let all: Vec<usize> = (0..snapshot.rows.len()).collect();
            self.source.name_owners(snapshot, &all);
            let named = |row: &Row| Some((row.socket.cookie, row.owner.clone()?));
            self.owners = snapshot.rows.iter().filter_map(named).collect();
            self.owned = Some((now, clock::thread_time().saturating_sub(start)));
        } else if !self.owners.is_empty() {
            for row in &mut snapshot.rows {
                let remembered = || Some(self.owners.get(&row.socket.cookie)?.clone().remembered(row));
                row.owner = row.owner.clone().or_else(remembered);
            }
        }
        clock::thread_time().saturating_sub(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_takes_at_most_its_share_of_the_time() {
        let start = clock::monotonic();
        let ms = Duration::from_millis;
        let mut pace = Pace::new(ms(100), 4);
        assert!(pace.due_in(start).is_zero(), "the first is due at once");
        for (took, due) in [(0, 100), (20, 100), (25, 100), (30, 120), (900, 3600)] {
            pace.done(start, ms(took));
            assert_eq!(pace.due_in(start), ms(due), "a look of {took} ms");
            assert_eq!(pace.due_in(start + ms(took)), ms(due - took), "and all of it at its end");
            assert!(pace.due_in(start + ms(due)).is_zero());
        }
    }
}
