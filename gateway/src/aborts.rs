//! Why a kernel sent a RST: its own counters tell, where nothing on the wire does.
//!
//! Owns:    [`AbortCounters`]: the `TCPAbortOn*` counters of one network namespace, and what changed since.
//! Input:   `/proc/PID/net/netstat`.
//! Rules:   Linux counts `TCPAbortOnClose` for close() with unread data; `TCPAbortOnData` for close() with SO_LINGER 0
//!          and for data that comes after close(); each counts before its RST leaves.
//! Not here: which of the two a `TCPAbortOnData` was (`verdict`).

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use lastack::core::time::Instant;

/// What the counters say about one RST.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abort {
    /// `TCPAbortOnClose`.
    OnClose,
    /// `TCPAbortOnData`.
    OnData,
}

/// How sure an [`Abort`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Match {
    /// Exactly one counter went up, by one, since the last look.
    Single(Abort),
    /// One counter went up more often: some other RST of the same kind was there too.
    SameKind(Abort),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    close: u64,
    data: u64,
}

/// Looks a second that are worth a reason.
const LOOKS: u32 = 500;
/// More than the file is long.
const TEXT: usize = 16 * 1024;
/// A count nobody has claimed belongs to a RST that is still on its way here, or never comes.
const UNCLAIMED_AGE: Duration = Duration::from_millis(50);

/// The counters of one namespace.
#[derive(Debug)]
pub struct AbortCounters {
    /// Open for good: it stays the namespace's after the process has gone.
    file: Option<File>,
    last: Option<Counts>,
    unclaimed: Counts,
    looked: Instant,
    left: u32,
    refilled: Instant,
}

impl AbortCounters {
    /// The counters of the network namespace that process `pid` is in.
    pub fn of_process(pid: u32) -> Self {
        let file = File::open(format!("/proc/{pid}/net/netstat")).ok();
        let last = read(file.as_ref());
        Self {
            file,
            last,
            unclaimed: Counts::default(),
            looked: Instant::ZERO,
            left: LOOKS,
            refilled: Instant::ZERO,
        }
    }

    /// Forgets what changed so far: it belongs to nobody we know.
    pub fn refresh(&mut self) {
        self.last = read(self.file.as_ref());
        self.unclaimed = Counts::default();
    }

    /// A RST has come: which counter went up for it? `None`: none, or both did.
    pub fn claim(&mut self, now: Instant) -> Option<Match> {
        if now.saturating_since(self.refilled) >= Duration::from_secs(1) {
            (self.left, self.refilled) = (LOOKS, now);
        }
        self.left = self.left.checked_sub(1)?;
        let counts = read(self.file.as_ref())?;
        let before = self.last.replace(counts)?;
        if now.saturating_since(self.looked) > UNCLAIMED_AGE {
            self.unclaimed = Counts::default();
        }
        self.looked = now;
        self.unclaimed.close += counts.close.saturating_sub(before.close);
        self.unclaimed.data += counts.data.saturating_sub(before.data);
        self.unclaimed.claim()
    }
}

impl Counts {
    fn claim(&mut self) -> Option<Match> {
        let (kind, count) = match (self.close, self.data) {
            (0, 0) => return None,
            (_, 0) => (Abort::OnClose, &mut self.close),
            (0, _) => (Abort::OnData, &mut self.data),
            // Two kinds at once: either could be this one's.
            _ => {
                *self = Self::default();
                return None;
            }
        };
        *count -= 1;
        Some(if *count == 0 { Match::Single(kind) } else { Match::SameKind(kind) })
    }
}

fn read(file: Option<&File>) -> Option<Counts> {
    let mut text = vec![0; TEXT];
    let mut len = 0;
    loop {
        match file?.read_at(&mut text[len..], len as u64).ok()? {
            0 => return parse(std::str::from_utf8(&text[..len]).ok()?),
            more => len += more,
        }
    }
}

/// `netstat` has a line of names and a line of values for each group.
fn parse(netstat: &str) -> Option<Counts> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let at = names.split(' ').position(|name| name == wanted)?;
        values.split(' ').nth(at)?.parse().ok()
    };
    Some(Counts { close: value("TCPAbortOnClose")?, data: value("TCPAbortOnData")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text =
            "TcpExt: SyncookiesSent TCPAbortOnData TCPAbortOnClose\nTcpExt: 9 4 2\nIpExt: A\nIpExt: 1\n";
        assert_eq!(parse(text), Some(Counts { close: 2, data: 4 }));
        assert_eq!(parse("TcpExt: A\nTcpExt: 1\n"), None);
        let mut own = AbortCounters::of_process(std::process::id());
        assert!(
            own.last.is_some() && own.claim(Instant::ZERO).is_none(),
            "this kernel has them, and nothing changed"
        );
    }

    #[test]
    fn one_change_is_one_claim() {
        let mut counts = Counts { close: 1, data: 0 };
        assert_eq!(counts.claim(), Some(Match::Single(Abort::OnClose)));
        assert_eq!(counts.claim(), None);
        let mut counts = Counts { close: 0, data: 2 };
        assert_eq!(counts.claim(), Some(Match::SameKind(Abort::OnData)));
        assert_eq!(counts.claim(), Some(Match::Single(Abort::OnData)));
    }

    #[test]
    fn two_kinds_at_once_are_claimed_by_nobody() {
        let mut counts = Counts { close: 1, data: 1 };
        assert_eq!(counts.claim(), None);
        assert_eq!(counts, Counts::default());
    }
}
