//! Two laws of carrying a TCP connection: what the program and its peer see must be what they see without a carrier.
//!
//! The *errno law* is about refusals, resets and ends as socket calls report them; the *closing law* about who closes,
//! how, and what both kernels count and keep. A case is a conversation between a client (behind the carrier) and a server (in the
//! remote namespace), both told step by step, so that its outcome is the same each time. Plain Linux is the measure.

pub mod closing;
pub mod errno;
pub mod forced;
pub mod league;
mod stage;

pub use stage::{Seen, Side, Stage, Way};

use crate::journal::Connection;

/// One case of a law.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Stable name, e.g. `closed-port`.
    pub id: &'static str,
    /// What happens, in words.
    pub title: &'static str,
    /// The conversation.
    pub play: fn(&mut Stage),
    /// What lastack's journal must say of it; `None` where no connection is to be journalled.
    pub journal: Option<Verdict>,
}

/// What the journal must say.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// `closed_by`, any of these.
    pub closed_by: &'static [&'static str],
    /// `how`.
    pub how: &'static str,
    /// `reason`, any of these; empty for `null`.
    pub reason: &'static [&'static str],
    /// `lost_data`: bytes acknowledged to their sender that the receiving kernel has not acknowledged; `None` where that
    /// depends on whether a delayed acknowledgment went out in time.
    pub lost_data: Option<bool>,
}

impl Verdict {
    /// What the journal must say when the connection is made the other way: who was the program is the remote end, of
    /// which no kernel's counters can be asked, and who was remote is the program, whose kernel's can.
    #[must_use]
    pub fn mirrored(self) -> Self {
        let (closed_by, is_remote): (&[&str], _) = match self.closed_by {
            ["program"] => (&["remote"], true),
            ["remote"] => (&["program"], false),
            either => (either, false),
        };
        let told = self.reason.iter().find(|reason| **reason != "reset-by-peer");
        let reason: &[&str] = match (self.reason, told.copied()) {
            ([], _) => &[],
            _ if is_remote => &["reset-by-peer"],
            (_, Some("closed-with-unread-data")) => &["closed-with-unread-data"],
            (_, Some("linger-zero")) => &["linger-zero"],
            (_, Some("data-after-close")) => &["data-after-close"],
            _ => &["reset-by-program"],
        };
        Self { closed_by, reason, ..self }
    }

    /// What the journal's line says differently, in words; empty if nothing.
    #[must_use]
    pub fn differences(&self, line: &Connection) -> Vec<String> {
        let mut different = Vec::new();
        let mut check = |field: &str, said: &str, wanted: &[&str]| {
            if !wanted.contains(&said) {
                different.push(format!("{field} is {said}, not {}", wanted.join(" or ")));
            }
        };
        check("closed_by", &line.text("closed_by"), self.closed_by);
        check("how", &line.text("how"), &[self.how]);
        check("reason", &line.text("reason"), if self.reason.is_empty() { &["null"] } else { self.reason });
        if let Some(lost) = self.lost_data {
            check("lost_data", &line.text("lost_data"), &[if lost { "true" } else { "false" }]);
        }
        check("certainty", &line.text("certainty"), &["observed", "inferred"]);
        different
    }
}

const fn clean(closed_by: &'static [&'static str]) -> Option<Verdict> {
    Some(Verdict { closed_by, how: "fin", reason: &[], lost_data: Some(false) })
}

const fn reset(
    closed_by: &'static [&'static str],
    reason: &'static [&'static str],
    lost_data: Option<bool>,
) -> Option<Verdict> {
    Some(Verdict { closed_by, how: "reset", reason, lost_data })
}
