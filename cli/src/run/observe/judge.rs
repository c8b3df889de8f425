//! Who ended a connection that only the kernel saw, how and why.
//!
//! Owns:    [`judge`], from [`Evidence`] to a verdict.
//! Rules:   a tracepoint or a state is observed; what follows from TIME-WAIT, counters and the last `tcp_info` is
//!          inferred; where two explanations remain, the verdict is possible. A reason that nothing tells is not given.

use lastack_core::observe::TcpInfo;
use lastack_core::tcp::state::TcpState;
use lastack_gateway::aborts::{Abort, Match};
use lastack_gateway::journal::{Certainty, ClosedBy, How, Reason, Verdict};

/// What is known about a connection that has ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// Who left ESTABLISHED first, by a state that was seen.
    pub(super) first: Option<ClosedBy>,
    /// It was established.
    pub(super) established: bool,
    /// Tracepoints told of every state it was in: what they did not tell did not happen.
    pub(super) traced: bool,
    /// This side sent a RST, for this reason in Linux's word.
    pub(super) sent_reset: Option<String>,
    /// A RST came.
    pub(super) got_reset: bool,
    /// The other end, on this host, sent it for this reason.
    pub(super) peers_reason: Option<String>,
    /// An error was reported to the program.
    pub(super) error: Option<i32>,
    /// Whose end is in TIME-WAIT now.
    pub(super) time_wait: TimeWait,
    /// Connections of this namespace have been reset since the last look.
    pub(super) resets_counted: bool,
    /// It repeated something that nothing came to, and the kernel counted that somebody had given up.
    pub(super) gave_up: Option<Certainty>,
    /// What the kernel counted for a RST it sent; `None`, too, where the other end is the same kernel's.
    pub(super) abort: Option<Match>,
    /// Bytes nobody had read, at the last look.
    pub(super) unread: u32,
    /// The last `tcp_info`.
    pub(super) info: TcpInfo,
}

/// Whose end of a connection is in TIME-WAIT, as far as both are on this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum TimeWait {
    /// Nobody looked.
    #[default]
    Unasked,
    /// There is none.
    Nobodys,
    /// That side's.
    Of(ClosedBy),
}

/// Judges it.
pub(super) fn judge(evidence: &Evidence) -> Verdict {
    let Evidence { first, established, .. } = *evidence;
    if !established {
        return never_established(evidence);
    }
    let verdict = |how, reason, certainty, ended_by| Verdict {
        closed_by: first.unwrap_or(ended_by),
        how,
        reason,
        certainty,
        ended_by,
    };
    let observed = Certainty::Observed;
    if evidence.error == Some(ETIMEDOUT) {
        // Linux: tcp_keepalive_timer() sends a RST when it gives up, tcp_write_timeout() and tcp_probe_timer() do not.
        // The last tcp_info does not tell: tcp_done_with_error() has emptied the queues by then.
        let probed = evidence.sent_reset.is_some();
        let reason = if probed { Reason::KeepaliveTimeout } else { Reason::RetriesExhausted };
        return verdict(How::Timeout, Some(reason), observed, ClosedBy::Nobody);
    }
    if evidence.got_reset {
        let reason = evidence.peers_reason.as_deref().and_then(reason).unwrap_or(Reason::ResetByPeer);
        return verdict(How::Reset, Some(reason), observed, ClosedBy::Remote);
    }
    if let Some(word) = &evidence.sent_reset {
        let reason = reason(word).unwrap_or(Reason::ResetByProgram);
        // Linux: tcp_disconnect() says only that: a close with SO_LINGER 0, or a connect(2) to nowhere.
        let certainty = if word.ends_with("TCP_STATE") { Certainty::Inferred } else { observed };
        return verdict(How::Reset, Some(reason), certainty, ClosedBy::Program);
    }
    if evidence.traced
        && let Some(first) = first
    {
        return verdict(How::Fin, None, observed, first);
    }
    untraced(evidence, verdict)
}

fn untraced(
    evidence: &Evidence,
    verdict: impl Fn(How, Option<Reason>, Certainty, ClosedBy) -> Verdict,
) -> Verdict {
    let inferred = Certainty::Inferred;
    // Only an end that closed first, or both, keeps a TIME-WAIT: both FINs have come through.
    if let TimeWait::Of(side) = evidence.time_wait {
        let certainty = if evidence.first.is_some() { Certainty::Observed } else { inferred };
        return verdict(How::Fin, None, certainty, evidence.first.unwrap_or(side));
    }
    if let Some(certainty) = evidence.gave_up {
        return verdict(How::Timeout, Some(given_up(&evidence.info)), certainty, ClosedBy::Nobody);
    }
    match evidence.first {
        // It closed first and has no TIME-WAIT: the other end's RST spared it.
        Some(ClosedBy::Program | ClosedBy::Both) if evidence.time_wait == TimeWait::Nobodys => {
            verdict(How::Reset, Some(Reason::ResetByPeer), inferred, ClosedBy::Remote)
        }
        Some(by @ (ClosedBy::Program | ClosedBy::Both)) => verdict(How::Fin, None, Certainty::Possible, by),
        // Linux counts `EstabResets` for a connection that goes from ESTABLISHED or CLOSE-WAIT to nothing.
        _ if !evidence.resets_counted => {
            let by = ClosedBy::Remote;
            let certainty = if evidence.first == Some(by) { inferred } else { Certainty::Possible };
            verdict(How::Fin, None, certainty, by)
        }
        _ => match evidence.abort {
            Some(Match::Single(Abort::OnClose)) => {
                verdict(How::Reset, Some(Reason::ClosedWithUnreadData), inferred, ClosedBy::Program)
            }
            Some(Match::Single(Abort::OnData)) => {
                verdict(How::Reset, Some(Reason::LingerZero), inferred, ClosedBy::Program)
            }
            _ if evidence.unread > 0 => verdict(
                How::Reset,
                Some(Reason::ClosedWithUnreadData),
                Certainty::Possible,
                ClosedBy::Program,
            ),
            _ => verdict(How::Reset, Some(Reason::ResetByPeer), Certainty::Possible, ClosedBy::Remote),
        },
    }
}

/// What came to nothing: something to send, or the question whether anybody is there.
fn given_up(info: &TcpInfo) -> Reason {
    let sent = info.bytes_sent.saturating_sub(info.bytes_retrans);
    let is_idle = info.retransmits == 0 && info.notsent_bytes == 0 && sent <= info.bytes_acked;
    if is_idle { Reason::KeepaliveTimeout } else { Reason::RetriesExhausted }
}

fn never_established(evidence: &Evidence) -> Verdict {
    let certainty = if evidence.traced { Certainty::Observed } else { Certainty::Inferred };
    let (how, reason, by) = match evidence.error {
        _ if evidence.got_reset => (How::Refused, Reason::NoListener, ClosedBy::Remote),
        Some(EHOSTUNREACH | ENETUNREACH) => (How::Unreachable, Reason::HostUnreachable, ClosedBy::Remote),
        Some(ETIMEDOUT) => (How::Timeout, Reason::ConnectTimeout, ClosedBy::Nobody),
        // A segment came and established nothing: a RST.
        _ if evidence.info.segs_in > 0 => (How::Refused, Reason::NoListener, ClosedBy::Remote),
        _ if evidence.info.total_retrans > 0 => (How::Timeout, Reason::ConnectTimeout, ClosedBy::Nobody),
        _ => (How::Timeout, Reason::ProgramGone, ClosedBy::Nobody),
    };
    Verdict { closed_by: by, how, reason: Some(reason), certainty, ended_by: by }
}

/// Linux's `enum sk_rst_reason`, as far as it says why a program's end was reset.
fn reason(word: &str) -> Option<Reason> {
    match word.trim_start_matches("SK_RST_REASON_") {
        "TCP_ABORT_ON_CLOSE" => Some(Reason::ClosedWithUnreadData),
        "TCP_ABORT_ON_LINGER" | "TCP_DISCONNECT_WITH_DATA" | "TCP_STATE" => Some(Reason::LingerZero),
        "TCP_ABORT_ON_DATA" => Some(Reason::DataAfterClose),
        "TCP_KEEPALIVE_TIMEOUT" => Some(Reason::KeepaliveTimeout),
        "TCP_TIMEOUT" => Some(Reason::RetriesExhausted),
        _ => None,
    }
}

const ENETUNREACH: i32 = 101;
const ETIMEDOUT: i32 = 110;
const EHOSTUNREACH: i32 = 113;

/// Who closed first, by the states one end went through.
pub(super) fn first_of(states: &[TcpState]) -> Option<ClosedBy> {
    let first = states.iter().find(|state| {
        !matches!(state, TcpState::SynSent | TcpState::SynRecv | TcpState::Established | TcpState::Close)
    })?;
    Some(match first {
        TcpState::CloseWait | TcpState::LastAck => ClosedBy::Remote,
        TcpState::Closing => ClosedBy::Both,
        TcpState::FinWait1 if states.contains(&TcpState::Closing) => ClosedBy::Both,
        _ => ClosedBy::Program,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(evidence: &Evidence) -> (ClosedBy, How, Option<Reason>, Certainty) {
        let verdict = judge(evidence);
        (verdict.closed_by, verdict.how, verdict.reason, verdict.certainty)
    }

    fn lived() -> Evidence {
        Evidence { established: true, ..Evidence::default() }
    }

    #[test]
    fn tracepoints_are_believed() {
        let traced = || Evidence { traced: true, ..lived() };
        let observed = Certainty::Observed;
        let clean = Evidence { first: Some(ClosedBy::Remote), ..traced() };
        assert_eq!(told(&clean), (ClosedBy::Remote, How::Fin, None, observed));
        let reset = Evidence { got_reset: true, ..traced() };
        assert_eq!(told(&reset), (ClosedBy::Remote, How::Reset, Some(Reason::ResetByPeer), observed));
        let known = Evidence { peers_reason: Some("TCP_ABORT_ON_CLOSE".into()), ..reset };
        assert_eq!(told(&known).2, Some(Reason::ClosedWithUnreadData));
        let own = Evidence { sent_reset: Some("TCP_ABORT_ON_LINGER".into()), ..traced() };
        assert_eq!(told(&own), (ClosedBy::Program, How::Reset, Some(Reason::LingerZero), observed));
        // What was not acknowledged is gone from the last tcp_info: the RST tells who gave up.
        let silent = Evidence { error: Some(ETIMEDOUT), ..traced() };
        assert_eq!(told(&silent), (ClosedBy::Nobody, How::Timeout, Some(Reason::RetriesExhausted), observed));
        let probed = Evidence { sent_reset: Some("TCP_KEEPALIVE_TIMEOUT".into()), ..silent };
        assert_eq!(told(&probed).2, Some(Reason::KeepaliveTimeout));
        let refused = Evidence { got_reset: true, traced: true, ..Evidence::default() };
        assert_eq!(told(&refused), (ClosedBy::Remote, How::Refused, Some(Reason::NoListener), observed));
    }

    #[test]
    fn without_tracepoints_time_wait_and_counters_are_evidence() {
        let inferred = Certainty::Inferred;
        let clean = Evidence { time_wait: TimeWait::Of(ClosedBy::Program), ..lived() };
        assert_eq!(told(&clean), (ClosedBy::Program, How::Fin, None, inferred));
        let first = Evidence { first: Some(ClosedBy::Program), ..lived() };
        let spared = Evidence { time_wait: TimeWait::Nobodys, ..first.clone() };
        assert_eq!(told(&spared), (ClosedBy::Program, How::Reset, Some(Reason::ResetByPeer), inferred));
        assert_eq!(told(&first), (ClosedBy::Program, How::Fin, None, Certainty::Possible), "nobody looked");
        let reset = Evidence { resets_counted: true, ..lived() };
        assert_eq!(
            told(&reset),
            (ClosedBy::Remote, How::Reset, Some(Reason::ResetByPeer), Certainty::Possible)
        );
        let own = Evidence { abort: Some(Match::Single(Abort::OnClose)), ..reset };
        assert_eq!(told(&own), (ClosedBy::Program, How::Reset, Some(Reason::ClosedWithUnreadData), inferred));
        let last_ack = Evidence { first: Some(ClosedBy::Remote), ..lived() };
        assert_eq!(told(&last_ack), (ClosedBy::Remote, How::Fin, None, inferred));
        assert_eq!(told(&lived()).3, Certainty::Possible, "nothing is known");
    }

    #[test]
    fn without_tracepoints_what_nobody_answered_was_given_up() {
        let inferred = Certainty::Inferred;
        let lived = |info| Evidence { gave_up: Some(inferred), resets_counted: true, info, ..lived() };
        let repeated = lived(TcpInfo { retransmits: 4, bytes_sent: 5, ..TcpInfo::default() });
        let gave_up = |reason| (ClosedBy::Nobody, How::Timeout, Some(reason), inferred);
        assert_eq!(told(&repeated), gave_up(Reason::RetriesExhausted));
        let closed = Evidence { first: Some(ClosedBy::Program), time_wait: TimeWait::Nobodys, ..repeated };
        assert_eq!(told(&closed).1, How::Timeout, "no RST spared the TIME-WAIT");
        let shut = lived(TcpInfo { probes: 3, notsent_bytes: 9, ..TcpInfo::default() });
        assert_eq!(told(&shut), gave_up(Reason::RetriesExhausted), "the window stayed closed");
        let asked = lived(TcpInfo { probes: 3, bytes_sent: 5, bytes_acked: 6, ..TcpInfo::default() });
        assert_eq!(told(&asked), gave_up(Reason::KeepaliveTimeout));
    }

    #[test]
    fn attempts_are_told_apart_by_what_came_back() {
        let attempt = |segs_in, total_retrans| {
            let info = TcpInfo { segs_in, total_retrans, ..TcpInfo::default() };
            judge(&Evidence { info, ..Evidence::default() })
        };
        assert_eq!(attempt(1, 0).how, How::Refused);
        assert_eq!((attempt(0, 6).how, attempt(0, 6).reason), (How::Timeout, Some(Reason::ConnectTimeout)));
        assert_eq!(attempt(0, 0).reason, Some(Reason::ProgramGone));
    }

    #[test]
    fn states_tell_who_was_first() {
        use TcpState::{CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, SynSent};
        assert_eq!(first_of(&[SynSent, Established]), None);
        assert_eq!(first_of(&[Established, FinWait1, FinWait2]), Some(ClosedBy::Program));
        assert_eq!(first_of(&[CloseWait, LastAck]), Some(ClosedBy::Remote));
        assert_eq!(first_of(&[FinWait1, Closing]), Some(ClosedBy::Both));
    }
}
