//! What tracepoints said about one end of a connection.

use std::collections::HashMap;
use std::sync::Arc;

use lastack_core::tcp::state::TcpState;
use lastack_observe::trace::Event;
use lastack_observe::trace::sockets::Pair;

/// What tracepoints said about one end.
#[derive(Debug, Default)]
pub(super) struct Traced {
    pub(super) at_ns: u64,
    pub(super) states: Vec<(TcpState, u64)>,
    pub(super) sent_reset: Option<String>,
    pub(super) got_reset: bool,
    pub(super) error: Option<i32>,
    pub(super) pid: Option<u32>,
    pub(super) comm: Option<Arc<str>>,
    /// The one that acted was a process of the program then; its number may be another's now.
    pub(super) is_ours: bool,
    /// A change of state was not told: it can be seen from the next one.
    has_gap: bool,
}

impl Traced {
    pub(super) fn has_ended(&self) -> bool {
        self.states.last().is_some_and(|(last, _)| *last == TcpState::Close)
    }

    /// Every change of state was told, to the last: what was not told then did not happen. A kernel may lose some: a Linux
    /// 6.18 was seen whose perf tells nothing of what happens while one of its processors is idle.
    pub(super) fn is_whole(&self) -> bool {
        self.has_ended() && !self.has_gap
    }

    /// Takes over what `event` says; `is_ours`: who acted is one of the program's processes.
    pub(super) fn take(&mut self, event: &Event, is_ours: bool) {
        self.at_ns = event.at_ns;
        if event.pid.is_some() {
            (self.pid, self.comm, self.is_ours) = (event.pid, event.comm.clone(), is_ours);
        }
        match (event.name, event.state) {
            ("inet_sock_set_state", Some(state)) => {
                let last = self.states.last().map(|(last, _)| *last);
                // It has been in the state that it leaves, whether that was told or not.
                if let Some(left) = event.old_state.filter(|left| last.is_some_and(|last| last != *left)) {
                    self.has_gap = true;
                    self.states.push((left, event.at_ns));
                }
                self.states.push((state, event.at_ns));
            }
            ("tcp_send_reset", _) => {
                self.sent_reset = Some(event.reason.as_deref().unwrap_or_default().to_owned());
            }
            ("tcp_receive_reset", _) => self.got_reset = true,
            ("inet_sk_error_report", _) => self.error = event.error.or(self.error),
            _ => {}
        }
    }
}

/// Why an end sent a RST: kept after the end is gone, for the other end on this host.
#[derive(Debug, Default)]
pub(super) struct ResetReasons(HashMap<Pair, Vec<(u64, String)>>);

/// Kept of one pair of ends: connections between them in one namespace after the other, and in several at once.
const KEPT: usize = 8;

impl ResetReasons {
    pub(super) fn put(&mut self, from: Pair, at_ns: u64, reason: String, most: usize) {
        if self.0.len() >= most {
            self.0.clear();
        }
        let told = self.0.entry(from).or_default();
        if told.len() >= KEPT {
            told.remove(0);
        }
        told.push((at_ns, reason));
    }

    /// Why the end `from` has sent a RST since `opened_ns`. Where the same ends had one each in two namespaces, for
    /// different reasons, nothing tells which is meant.
    pub(super) fn get(&self, from: Pair, opened_ns: u64) -> Option<String> {
        let told = self.0.get(&from)?.iter().filter(|(at_ns, _)| *at_ns >= opened_ns);
        let mut reasons: Vec<&String> = told.map(|(_, reason)| reason).collect();
        reasons.dedup();
        if let [reason] = reasons[..] { Some(reason.clone()) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(states: &[(TcpState, TcpState)]) -> Traced {
        let mut traced = Traced::default();
        for (old, new) in states {
            let event = Event::new(1, "inet_sock_set_state");
            traced.take(&Event { old_state: Some(*old), state: Some(*new), ..event }, false);
        }
        traced
    }

    #[test]
    fn a_state_that_was_not_told_is_seen_from_the_next_and_the_rest_is_no_proof() {
        use TcpState::{Close, CloseWait, Established, LastAck, SynSent};
        let whole = [(Close, SynSent), (SynSent, Established), (Established, Close)];
        assert!(changes(&whole).is_whole());
        assert!(!changes(&whole[..2]).is_whole(), "its end was not told");
        let lacking = changes(&[(Close, SynSent), (CloseWait, LastAck), (LastAck, Close)]);
        let states: Vec<TcpState> = lacking.states.iter().map(|(state, _)| *state).collect();
        assert_eq!(states, [SynSent, CloseWait, LastAck, Close]);
        assert!(!lacking.is_whole());
    }

    #[test]
    fn a_reason_that_may_be_another_namespace_s_is_not_told() {
        let mut reasons = ResetReasons::default();
        let ends: Pair = ("127.0.0.1:80".parse().unwrap(), "127.0.0.1:4000".parse().unwrap());
        reasons.put(ends, 10, "TCP_ABORT_ON_LINGER".into(), 9);
        reasons.put(ends, 20, "TCP_ABORT_ON_CLOSE".into(), 9);
        assert_eq!(reasons.get(ends, 15).as_deref(), Some("TCP_ABORT_ON_CLOSE"), "the other was before it");
        assert_eq!(reasons.get(ends, 5), None);
        assert_eq!(reasons.get(ends, 21), None);
    }
}
