//! Who ended a connection, how and why: the judgement over a relay's outcome.
//!
//! Owns:    [`judge`] for connections that were established, [`judge_dial`] for those that were not.
//! Input:   the relay's [`Outcome`], and what the kernels' counters say about a RST.
//! Rules:   nothing is invented: a RST of a remote end elsewhere is `reset-by-peer` and no more.

use lastack::core::observe::Life;

use crate::aborts::{Abort, Match};
use crate::inject::Event;
use crate::journal::{Certainty, ClosedBy, How, Reason, Verdict};
use crate::relay::{End, FirstClose, Outcome};

/// Judges an established connection. `counters` is asked only about a RST: what the kernel that sent it counted, if
/// that kernel can be asked.
pub fn judge(outcome: &Outcome, counters: impl FnOnce(ClosedBy) -> Option<Match>) -> Verdict {
    let closed_by = match outcome.first_close {
        Some(FirstClose::Inside) => ClosedBy::Program,
        Some(FirstClose::Outside) => ClosedBy::Remote,
        Some(FirstClose::Both) => ClosedBy::Both,
        None => ClosedBy::Nobody,
    };
    let verdict = |how, reason, certainty, ended_by| Verdict { closed_by, how, reason, certainty, ended_by };
    if let Some(injected) = outcome.injected
        && let Some(verdict) = judge_injected(outcome, injected.event, closed_by)
    {
        return verdict;
    }
    match outcome.end {
        End::Clean => verdict(How::Fin, None, Certainty::Observed, closed_by),
        End::Inside(libc::ETIMEDOUT) => {
            verdict(How::Timeout, Some(silence_reason(&outcome.life)), Certainty::Observed, ClosedBy::Nobody)
        }
        End::Outside(libc::ETIMEDOUT) => {
            verdict(How::Timeout, Some(Reason::RetriesExhausted), Certainty::Observed, ClosedBy::Nobody)
        }
        End::Inside(libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ENETUNREACH)
        | End::Outside(libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ENETUNREACH) => {
            verdict(How::Unreachable, Some(Reason::HostUnreachable), Certainty::Observed, ClosedBy::Nobody)
        }
        End::Inside(_) => {
            let (reason, certainty) = reset_reason(outcome, counters(ClosedBy::Program), ClosedBy::Program);
            verdict(How::Reset, Some(reason), certainty, ClosedBy::Program)
        }
        End::Outside(_) => {
            let (reason, certainty) = reset_reason(outcome, counters(ClosedBy::Remote), ClosedBy::Remote);
            verdict(How::Reset, Some(reason), certainty, ClosedBy::Remote)
        }
        End::Killed | End::Injected | End::Idle => {
            let closed_by = if outcome.first_close.is_none() || !(outcome.inside_fin || outcome.outside_fin) {
                ClosedBy::Lastack
            } else {
                closed_by
            };
            let (how, reason) = match outcome.end {
                End::Idle => (How::Reset, Some(Reason::IdleTimeout)),
                _ => (How::Killed, None),
            };
            Verdict { closed_by, ..verdict(how, reason, Certainty::Observed, ClosedBy::Lastack) }
        }
        End::Stopped => {
            let closed_by =
                if outcome.inside_fin || outcome.outside_fin { closed_by } else { ClosedBy::Nobody };
            Verdict { closed_by, ..verdict(How::Open, None, Certainty::Observed, ClosedBy::Nobody) }
        }
    }
}

/// Why the silence of an end of ours was given up on: keepalive asks only where nothing waits to be acknowledged.
fn silence_reason(life: &Life) -> Reason {
    let waits_for_fin = life.fin_queued_at.is_some() && life.fin_acked_at.is_none();
    if life.unacked_bytes > 0 || waits_for_fin { Reason::RetriesExhausted } else { Reason::KeepaliveTimeout }
}

/// An ending that was forced, or whose cause was; `None`: either end ended the connection all the same.
fn judge_injected(outcome: &Outcome, event: Event, closed_by: ClosedBy) -> Option<Verdict> {
    let (how, closed_by, ended_by) = match outcome.end {
        // Nothing was sent: no reset yet.
        End::Injected if event == Event::HalfOpen => (How::Killed, closed_by, ClosedBy::Lastack),
        End::Injected => (How::Reset, closed_by, ClosedBy::Lastack),
        End::Inside(libc::ETIMEDOUT) => (How::Timeout, ClosedBy::Nobody, ClosedBy::Nobody),
        End::Stopped => (How::Open, closed_by, ClosedBy::Nobody),
        _ => return None,
    };
    let is_first = closed_by == ClosedBy::Nobody && outcome.end == End::Injected;
    let closed_by = if is_first { ClosedBy::Lastack } else { closed_by };
    Some(Verdict { closed_by, how, reason: Some(Reason::Injected), certainty: Certainty::Observed, ended_by })
}

fn reset_reason(outcome: &Outcome, counted: Option<Match>, by: ClosedBy) -> (Reason, Certainty) {
    let (had_closed, data_followed) = match by {
        ClosedBy::Program => (outcome.inside_fin, outcome.data_after_inside_fin),
        _ => (outcome.outside_fin, outcome.bytes_up > 0),
    };
    let (abort, single) = match counted {
        Some(Match::Single(abort)) => (Some(abort), true),
        Some(Match::SameKind(abort)) => (Some(abort), false),
        None => (None, false),
    };
    // The namespace has one program's connections; the host's counters belong to everybody on it.
    let certainty = if single && by == ClosedBy::Program { Certainty::Observed } else { Certainty::Inferred };
    match abort {
        Some(Abort::OnClose) => (Reason::ClosedWithUnreadData, certainty),
        // Linux counts both as `TCPAbortOnData`: whether a FIN went before tells them apart.
        Some(Abort::OnData) if had_closed && data_followed => (Reason::DataAfterClose, certainty),
        Some(Abort::OnData) => (Reason::LingerZero, certainty),
        None if by == ClosedBy::Program && had_closed && data_followed => {
            (Reason::DataAfterClose, Certainty::Inferred)
        }
        None if by == ClosedBy::Program => (Reason::ResetByProgram, Certainty::Observed),
        None => (Reason::ResetByPeer, Certainty::Observed),
    }
}

/// What a host's failed connect says to the program behind the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// RST.
    Refuse,
    /// An ICMP error.
    Unreachable(lastack::Unreachable),
    /// Nothing: the program's own kernel gives up in its time.
    Silence,
    /// Nothing yet: this host is short of something, it is worth trying again.
    Retry,
}

/// Judges a connect(2) that failed with `errno`: what the program is told, and what is written down.
pub fn judge_dial(errno: i32) -> (Answer, Verdict) {
    use lastack::Unreachable::{Host, Net, Prohibited};
    let (answer, how, reason, closed_by) = match errno {
        libc::ECONNREFUSED => (Answer::Refuse, How::Refused, Reason::NoListener, ClosedBy::Remote),
        libc::ENETUNREACH => {
            (Answer::Unreachable(Net), How::Unreachable, Reason::HostUnreachable, ClosedBy::Remote)
        }
        libc::EHOSTUNREACH | libc::EHOSTDOWN => {
            (Answer::Unreachable(Host), How::Unreachable, Reason::HostUnreachable, ClosedBy::Remote)
        }
        libc::EACCES | libc::EPERM => {
            (Answer::Unreachable(Prohibited), How::Unreachable, Reason::Prohibited, ClosedBy::Remote)
        }
        libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL | libc::EAGAIN => {
            (Answer::Retry, How::Timeout, Reason::HostLimit, ClosedBy::Nobody)
        }
        // A blackhole route is EINVAL; a time-out is silence, and so is whatever has no form on the wire.
        _ => (Answer::Silence, How::Timeout, Reason::ConnectTimeout, ClosedBy::Nobody),
    };
    (
        answer,
        Verdict { closed_by, how, reason: Some(reason), certainty: Certainty::Observed, ended_by: closed_by },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostInfo;
    use lastack::core::observe::TcpInfo;
    use lastack::core::time::Instant;

    fn outcome(first_close: Option<FirstClose>, end: End) -> Outcome {
        Outcome {
            first_close,
            end,
            inside_fin: false,
            outside_fin: false,
            data_after_inside_fin: false,
            bytes_up: 0,
            bytes_down: 0,
            lost_up: 0,
            lost_down: 0,
            injected: None,
            life: Life::default(),
            inside: TcpInfo::default(),
            outside: HostInfo::default(),
        }
    }

    fn told(verdict: Verdict) -> (ClosedBy, How, Option<Reason>, Certainty) {
        (verdict.closed_by, verdict.how, verdict.reason, verdict.certainty)
    }

    #[test]
    fn clean_close_names_who_was_first() {
        for (first, closed_by) in [
            (FirstClose::Inside, ClosedBy::Program),
            (FirstClose::Outside, ClosedBy::Remote),
            (FirstClose::Both, ClosedBy::Both),
        ] {
            let verdict = judge(&outcome(Some(first), End::Clean), |_| panic!("no RST, no question"));
            assert_eq!(told(verdict), (closed_by, How::Fin, None, Certainty::Observed));
        }
    }

    #[test]
    fn programs_reset_is_told_by_its_kernels_counters() {
        let reset = outcome(Some(FirstClose::Inside), End::Inside(libc::ECONNRESET));
        let reason = |outcome: &Outcome, counted| {
            let verdict = judge(outcome, |by| {
                assert_eq!(by, ClosedBy::Program);
                counted
            });
            (verdict.reason.unwrap(), verdict.certainty)
        };
        let observed = Certainty::Observed;
        assert_eq!(
            reason(&reset, Some(Match::Single(Abort::OnClose))),
            (Reason::ClosedWithUnreadData, observed)
        );
        assert_eq!(reason(&reset, Some(Match::Single(Abort::OnData))), (Reason::LingerZero, observed));
        assert_eq!(
            reason(&reset, Some(Match::SameKind(Abort::OnClose))),
            (Reason::ClosedWithUnreadData, Certainty::Inferred)
        );
        assert_eq!(reason(&reset, None), (Reason::ResetByProgram, observed));
        let after = Outcome { inside_fin: true, data_after_inside_fin: true, ..reset };
        assert_eq!(reason(&after, Some(Match::Single(Abort::OnData))), (Reason::DataAfterClose, observed));
        assert_eq!(reason(&after, None), (Reason::DataAfterClose, Certainty::Inferred));
    }

    #[test]
    fn remotes_reset_is_no_more_than_that_unless_its_kernel_tells() {
        let reset = outcome(Some(FirstClose::Outside), End::Outside(libc::ECONNRESET));
        assert_eq!(
            told(judge(&reset, |_| None)),
            (ClosedBy::Remote, How::Reset, Some(Reason::ResetByPeer), Certainty::Observed)
        );
        let counted = judge(&reset, |_| Some(Match::Single(Abort::OnClose)));
        assert_eq!(
            (counted.reason, counted.certainty),
            (Some(Reason::ClosedWithUnreadData), Certainty::Inferred)
        );
    }

    #[test]
    fn what_was_forced_is_told_as_forced_unless_an_end_ended_it_all_the_same() {
        let forced = |event, end| Outcome {
            injected: Some(crate::inject::Injected { event, at_us: 5, bytes: 0 }),
            ..outcome(None, end)
        };
        let injected = Some(Reason::Injected);
        for (event, end, closed_by, how, reason) in [
            (Event::Reset, End::Injected, ClosedBy::Lastack, How::Reset, injected),
            (Event::HalfOpen, End::Injected, ClosedBy::Lastack, How::Killed, injected),
            (Event::BlackHole, End::Inside(libc::ETIMEDOUT), ClosedBy::Nobody, How::Timeout, injected),
            (Event::Stall, End::Stopped, ClosedBy::Nobody, How::Open, injected),
            (
                Event::Stall,
                End::Inside(libc::ECONNRESET),
                ClosedBy::Nobody,
                How::Reset,
                Some(Reason::ResetByProgram),
            ),
        ] {
            let verdict = judge(&forced(event, end), |_| None);
            assert_eq!(told(verdict), (closed_by, how, reason, Certainty::Observed), "{event:?} {end:?}");
        }
    }

    #[test]
    fn timeouts_and_what_is_still_open_are_closed_by_nobody() {
        let timeout = judge(&outcome(None, End::Outside(libc::ETIMEDOUT)), |_| None);
        assert_eq!(told(timeout).0, ClosedBy::Nobody);
        let open = judge(&outcome(None, End::Stopped), |_| None);
        assert_eq!(told(open), (ClosedBy::Nobody, How::Open, None, Certainty::Observed));
    }

    #[test]
    fn an_idle_connection_is_reset_by_lastack_and_who_had_closed_half_of_it_is_told() {
        let idle = |outcome: Outcome| told(judge(&outcome, |_| panic!("no RST of a kernel, no question")));
        let reason = Some(Reason::IdleTimeout);
        let observed = Certainty::Observed;
        assert_eq!(idle(outcome(None, End::Idle)), (ClosedBy::Lastack, How::Reset, reason, observed));
        let half = Outcome { inside_fin: true, ..outcome(Some(FirstClose::Inside), End::Idle) };
        assert_eq!(idle(half), (ClosedBy::Program, How::Reset, reason, observed));
    }

    #[test]
    fn a_silent_program_is_given_up_on_for_what_it_owes() {
        let reason = |life| {
            let outcome = Outcome { life, ..outcome(None, End::Inside(libc::ETIMEDOUT)) };
            judge(&outcome, |_| None).reason
        };
        let (at, unacked_bytes) = (Some(Instant::ZERO), 1);
        assert_eq!(reason(Life::default()), Some(Reason::KeepaliveTimeout));
        assert_eq!(reason(Life { unacked_bytes, ..Life::default() }), Some(Reason::RetriesExhausted));
        assert_eq!(reason(Life { fin_queued_at: at, ..Life::default() }), Some(Reason::RetriesExhausted));
        let acked = Life { fin_queued_at: at, fin_acked_at: at, ..Life::default() };
        assert_eq!(reason(acked), Some(Reason::KeepaliveTimeout));
    }

    #[test]
    fn each_connect_errno_has_its_answer() {
        for (errno, answer, how, closed_by) in [
            (libc::ECONNREFUSED, Answer::Refuse, How::Refused, ClosedBy::Remote),
            (
                libc::ENETUNREACH,
                Answer::Unreachable(lastack::Unreachable::Net),
                How::Unreachable,
                ClosedBy::Remote,
            ),
            (
                libc::EHOSTUNREACH,
                Answer::Unreachable(lastack::Unreachable::Host),
                How::Unreachable,
                ClosedBy::Remote,
            ),
            (
                libc::EACCES,
                Answer::Unreachable(lastack::Unreachable::Prohibited),
                How::Unreachable,
                ClosedBy::Remote,
            ),
            (libc::EINVAL, Answer::Silence, How::Timeout, ClosedBy::Nobody),
            (libc::ETIMEDOUT, Answer::Silence, How::Timeout, ClosedBy::Nobody),
            (libc::EMFILE, Answer::Retry, How::Timeout, ClosedBy::Nobody),
        ] {
            let (got, verdict) = judge_dial(errno);
            assert_eq!((got, verdict.how, verdict.closed_by), (answer, how, closed_by), "errno {errno}");
        }
    }
}
