//! System calls of a script: names → live calls, results → verdicts.
//!
//! Rules: packet-script language, section 7.

use core::net::SocketAddr;
use core::time::Duration;

use super::control::control_of;
use super::flow::Flow;
use super::live::field;
use super::{Failure, FailureKind, Run, Schedule};
use crate::script::ast::{Event, Expr, Syscall};
use crate::script::print::{action_text, seconds};
use crate::script::symbols::{self, errno_name, number};
use crate::target::{Call, Done, Fd, Outcome, Output};

/// A call that blocks, and what is expected of it.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    line: u32,
    call: Syscall,
    due: Duration,
    tolerance: Duration,
}

/// The call that should have returned is waited for this long after it was due.
const GRACE: Duration = Duration::from_secs(2);

/// Calls whose result is a new descriptor.
pub(super) fn names_fd(call: &Syscall) -> bool {
    matches!(call.name.as_str(), "socket" | "accept" | "epoll_create" | "open")
}

impl Run<'_> {
    pub(super) fn call(&mut self, call: &Syscall, event: &Event, schedule: Schedule) -> Result<(), Failure> {
        // At most one call is in progress.
        self.finish_pending()?;
        let live = self.live_call(call).map_err(|message| self.failure(FailureKind::Script, message))?;
        self.before_call(&live);
        let started = self.target.begin_call(&live);
        let Some(end) = event.end else {
            let patience = self.target.now() + self.target.patience();
            let done = started.or_else(|| self.target.await_call(patience));
            return match done {
                Some(done) => self.check_done(call, &done),
                None => Err(self.failure(
                    FailureKind::Mismatch,
                    format!("{} blocks; write TIME...TIME2 for a call that may", call.name),
                )),
            };
        };
        let (start, due) = match event.when {
            crate::script::ast::When::After(after) => (after, schedule.from + (end - after)),
            _ => (schedule.from, end),
        };
        let tolerance = self.options.tolerance(end.saturating_sub(start));
        let pending = Pending { line: self.line, call: call.clone(), due, tolerance };
        match started {
            Some(done) => self.check_pending(&pending, &done),
            None => {
                self.pending = Some(pending);
                Ok(())
            }
        }
    }

    /// Makes a call without judging it. `None`: it blocks, and a recording goes on.
    pub(super) fn make_call(&mut self, call: &Syscall) -> Result<Option<Outcome>, Failure> {
        let live = self.live_call(call).map_err(|message| self.failure(FailureKind::Script, message))?;
        self.before_call(&live);
        let Some(done) = self.target.begin_call(&live) else { return Ok(None) };
        let named = number(&call.result).unwrap_or(0);
        if names_fd(call) && done.outcome.value >= 0 {
            self.name_fd(call, named, &done.outcome)?;
        }
        if call.name == "close" && done.outcome.value == 0 {
            self.forget_fd(call);
        }
        self.name_pipe(call, &done.outcome)?;
        Ok(Some(done.outcome))
    }

    fn forget_fd(&mut self, call: &Syscall) {
        if let Some(Ok(name)) = call.args.first().map(number)
            && let Some(fd) = self.fds.remove(&name)
        {
            for flow in self.flows.iter_mut().filter(|flow| flow.fd == Some(fd)) {
                flow.fd = None;
            }
        }
    }

    /// Waits for the call in progress and judges it.
    pub(super) fn finish_pending(&mut self) -> Result<(), Failure> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let deadline = self.origin + pending.due.max(self.now()) + pending.tolerance + GRACE;
        match self.target.await_call(deadline) {
            Some(done) => self.check_pending(&pending, &done),
            None => {
                let message =
                    format!("{} has not returned (due at {})", pending.call.name, seconds(pending.due));
                Err(Failure { line: pending.line, ..self.failure(FailureKind::Mismatch, message) })
            }
        }
    }

    fn check_pending(&mut self, pending: &Pending, done: &Done) -> Result<(), Failure> {
        let line = core::mem::replace(&mut self.line, pending.line);
        let at = done.at.saturating_sub(self.origin);
        self.note(at, &format!("{} has returned", pending.call.name));
        let result = self.check_done(&pending.call, done).and_then(|()| {
            if at + pending.tolerance < pending.due || at > pending.due + pending.tolerance {
                let message = format!(
                    "{} returned at another time (tolerance {})",
                    pending.call.name,
                    seconds(pending.tolerance)
                );
                return Err(self.mismatch(&message, seconds(pending.due), seconds(at)));
            }
            Ok(())
        });
        self.line = line;
        result
    }

    // ---- script → live

    /// What a call changes about who is under test, before it is made: its SYN may leave at once.
    fn before_call(&mut self, call: &Call) {
        match call {
            Call::Socket { .. } | Call::Listen(..) => self.current = None,
            Call::Bind(_, address) => self.bound_port = address.port(),
            Call::Connect(fd, Some(to)) => self.begin_flow(*fd, *to),
            Call::Send { fd, flags, to: Some(to), .. } if flags & libc::MSG_FASTOPEN != 0 => {
                self.begin_flow(*fd, *to);
            }
            _ => {}
        }
    }

    fn begin_flow(&mut self, fd: Fd, to: SocketAddr) {
        // A second connect() on the same socket asks how the first went.
        if self.current.is_some_and(|at| self.flows[at].fd == Some(fd)) {
            return;
        }
        let mut flow = Flow::new(self.host(0), Self::plain(to));
        flow.fd = Some(fd);
        flow.awaits_first_syn = true;
        self.add_flow(flow);
    }

    pub(super) fn fd(&self, name: i64) -> Result<Fd, String> {
        self.fds.get(&name).copied().ok_or_else(|| format!("descriptor {name} is not open in this script"))
    }

    // ---- live → verdict

    fn check_done(&mut self, call: &Syscall, done: &Done) -> Result<(), Failure> {
        let outcome = &done.outcome;
        let expected = number(&call.result).map_err(|message| self.failure(FailureKind::Script, message))?;
        let value_agrees =
            if names_fd(call) && expected >= 0 { outcome.value >= 0 } else { outcome.value == expected };
        let errno_agrees = match &call.errno {
            Some(name) => symbols::value(name) == Some(i64::from(outcome.errno)),
            None => true,
        };
        if !value_agrees || !errno_agrees {
            let errno =
                if outcome.value < 0 { format!(" {}", errno_name(outcome.errno)) } else { String::new() };
            let written = call.errno.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
            let message = format!("{} gave another result", call.name);
            return Err(self.mismatch(
                &message,
                format!("{expected}{written}"),
                format!("{}{errno}", outcome.value),
            ));
        }
        if names_fd(call) && expected >= 0 {
            self.name_fd(call, expected, outcome)?;
        }
        if call.name == "close" && outcome.value == 0 {
            self.forget_fd(call);
        }
        self.name_pipe(call, outcome)?;
        self.check_output(call, outcome)
    }

    fn name_fd(&mut self, call: &Syscall, name: i64, outcome: &Outcome) -> Result<(), Failure> {
        let fd = Fd(outcome.value as i32);
        if self.fds.insert(name, fd).is_some() {
            return Err(self.failure(FailureKind::Script, format!("descriptor {name} is in use already")));
        }
        if call.name == "accept"
            && let Output::Peer(peer) = outcome.output
        {
            let peer = Self::plain(peer);
            if let Some(at) = self.flows.iter().rposition(|flow| flow.remote == peer) {
                self.flows[at].fd = Some(fd);
                self.current = Some(at);
            }
        }
        Ok(())
    }

    /// `pipe([4, 5])`: both names.
    fn name_pipe(&mut self, call: &Syscall, outcome: &Outcome) -> Result<(), Failure> {
        let Output::Pair(read, write) = outcome.output else { return Ok(()) };
        let Some(Expr::List(names)) = call.args.first() else {
            return Err(self.failure(FailureKind::Script, "pipe: expected [FD, FD]".to_owned()));
        };
        for (name, fd) in names.iter().zip([read, write]) {
            let name = number(name).map_err(|message| self.failure(FailureKind::Script, message))?;
            self.name_fd(call, name, &Outcome::ok(fd.0.into()))?;
        }
        Ok(())
    }

    /// `getsockopt`'s `[LEN]` is what is written too: what the script says, where it is another length.
    fn other_length(&self, call: &Syscall, bytes: &[u8]) -> Result<Option<i64>, Failure> {
        let Some(Expr::List(items)) = call.args.get(4).filter(|_| call.name == "getsockopt") else {
            return Ok(None);
        };
        let len = items.first().map(number).transpose();
        let len = len.map_err(|message| self.failure(FailureKind::Script, message))?;
        Ok(len.filter(|len| *len != bytes.len() as i64))
    }

    fn check_output(&mut self, call: &Syscall, outcome: &Outcome) -> Result<(), Failure> {
        let script = |message: String| Failure::before_start(FailureKind::Script, 0, message);
        let at_line = |failure: Failure, line| Failure { line, ..failure };
        let line = self.line;
        let (expected, actual) = match &outcome.output {
            Output::Int(value) => {
                let Some(Expr::List(items)) = call.args.get(2) else { return Ok(()) };
                let Some(item) = items.first() else { return Ok(()) };
                let expected = number(item).map_err(|message| at_line(script(message), line))?;
                (expected.to_string(), value.to_string())
            }
            Output::Bytes(bytes) if let Some(len) = self.other_length(call, bytes)? => {
                (format!("{len} bytes"), format!("{} bytes", bytes.len()))
            }
            Output::Bytes(bytes) => match call.args.get(3) {
                Some(Expr::List(items)) if items.len() == 1 => {
                    let expected = number(&items[0]).map_err(|message| at_line(script(message), line))?;
                    let mut padded = [0; 4];
                    let len = bytes.len().min(4);
                    padded[..len].copy_from_slice(&bytes[..len]);
                    (expected.to_string(), i32::from_ne_bytes(padded).to_string())
                }
                Some(Expr::Str(text)) => {
                    let actual = String::from_utf8_lossy(bytes);
                    (text.clone(), actual.trim_end_matches('\0').to_owned())
                }
                Some(Expr::Struct(fields)) => {
                    let words: Vec<String> = bytes
                        .chunks_exact(4)
                        .map(|w| i32::from_ne_bytes([w[0], w[1], w[2], w[3]]).to_string())
                        .collect();
                    let expected = fields
                        .iter()
                        .map(|f| number(&f.value).map(|v| v.to_string()))
                        .collect::<Result<Vec<_>, _>>();
                    (expected.map_err(|message| at_line(script(message), line))?.join(","), words.join(","))
                }
                _ => return Ok(()),
            },
            Output::Ready(masks) => {
                let Some(Expr::List(items)) = call.args.first() else { return Ok(()) };
                let expected: Vec<String> = items
                    .iter()
                    .map(|item| match item {
                        Expr::Struct(fields) => field(fields, "revents").map_or(Ok(0), number),
                        _ => Ok(0),
                    })
                    .map(|mask| mask.map(|mask| format!("{mask:#x}")))
                    .collect::<Result<_, _>>()
                    .map_err(|message| at_line(script(message), line))?;
                (
                    expected.join(" "),
                    masks.iter().map(|mask| format!("{mask:#x}")).collect::<Vec<_>>().join(" "),
                )
            }
            Output::Events(events) => {
                let Some(Expr::Struct(fields)) = call.args.get(1) else { return Ok(()) };
                let mask =
                    field(fields, "events").map_or(Ok(0), number).map_err(|m| at_line(script(m), line))?;
                let data = self.epoll_data(fields).map_err(|message| at_line(script(message), line))?;
                let (actual_mask, actual_data) = events.first().copied().unwrap_or((0, 0));
                (
                    format!("events {mask:#x} data {data}"),
                    format!("events {actual_mask:#x} data {actual_data}"),
                )
            }
            Output::Message { flags, control } => {
                let Some(Expr::Struct(fields)) = call.args.get(1) else { return Ok(()) };
                let wanted = field(fields, "msg_flags").map(number).transpose();
                let wanted =
                    wanted.map_err(|message| at_line(script(message), line))?.unwrap_or((*flags).into());
                let asked = control_of(fields).map_err(|message| at_line(script(message), line))?;
                let asked = if field(fields, "msg_control").is_some() { &asked } else { control };
                let told = self.control_text(control, asked);
                let asked = self.control_text(asked, control);
                (format!("msg_flags {wanted:#x}{asked}"), format!("msg_flags {flags:#x}{told}"))
            }
            Output::None | Output::Needs(_) | Output::Peer(_) | Output::Pair(..) => return Ok(()),
        };
        if expected == actual {
            return Ok(());
        }
        let text = action_text(&crate::script::ast::Action::Call(call.clone()));
        Err(self.mismatch(&format!("{text}: the call wrote something else"), expected, actual))
    }
}
