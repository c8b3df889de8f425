//! System calls of a script: names → live calls, results → verdicts.
//!
//! Rules: packet-script language, section 7.

use core::net::SocketAddr;
use core::time::Duration;

use super::control::control_of;
use super::flow::Flow;
use super::{Failure, FailureKind, Run, Schedule};
use crate::script::ast::{Event, Expr, Field, Syscall};
use crate::script::print::{action_text, expr_text, seconds};
use crate::script::symbols::{self, errno_name, number};
use crate::target::{Call, Done, Fd, OptionValue, Outcome, Output, Via};

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
        if matches!(call.name.as_str(), "socket" | "accept" | "epoll_create") && done.outcome.value >= 0 {
            self.name_fd(call, named, &done.outcome)?;
        }
        if call.name == "close" && done.outcome.value == 0 {
            self.forget_fd(call);
        }
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

    pub(super) fn live_call(&self, call: &Syscall) -> Result<Call, String> {
        let args = Args { run: self, call };
        let fd = || args.fd(0);
        let receive =
            |flags, via| Ok(Call::Receive { fd: args.fd(0)?, lens: vec![args.len(2)?], flags, via });
        let send =
            |flags, via, to| Ok(Call::Send { fd: args.fd(0)?, lens: vec![args.len(2)?], flags, via, to });
        match call.name.as_str() {
            "socket" => Ok(Call::Socket {
                family: match args.get(0)? {
                    Expr::Fill => self.world.ip.socket_family(),
                    family => number(family)? as i32,
                },
                kind: args.int(1)?,
                protocol: args.int(2)?,
            }),
            "bind" => Ok(Call::Bind(fd()?, args.address(1, self.host(self.options.bind_port))?)),
            "listen" => Ok(Call::Listen(fd()?, args.int(1)?)),
            "accept" => Ok(Call::Accept(fd()?)),
            "connect" => Ok(Call::Connect(fd()?, args.destination(1)?)),
            "read" => receive(0, Via::ReadWrite),
            "recv" | "recvfrom" => receive(args.int(3)?, Via::Socket),
            "write" => send(0, Via::ReadWrite, None),
            "send" => send(args.int(3)?, Via::Socket, None),
            "sendto" => send(args.int(3)?, Via::Socket, args.destination(4)?),
            "sendmsg" | "recvmsg" => self.live_message(call, &args),
            "close" => Ok(Call::Close(fd()?)),
            "shutdown" => Ok(Call::Shutdown(fd()?, args.int(1)?)),
            "fcntl" => {
                Ok(Call::Fcntl(fd()?, args.int(1)?, if call.args.len() > 2 { args.int(2)? } else { 0 }))
            }
            "ioctl" => Ok(Call::Ioctl(fd()?, args.int64(1)? as u64)),
            "setsockopt" => Ok(Call::SetOption(fd()?, args.int(1)?, args.int(2)?, args.option_value(3)?)),
            "getsockopt" => {
                let len = match args.get(4)? {
                    Expr::List(items) if items.len() == 1 => number(&items[0])?,
                    other => number(other)?,
                };
                Ok(Call::GetOption(fd()?, args.int(1)?, args.int(2)?, len.max(0) as usize))
            }
            "poll" => Ok(Call::Poll(self.poll_list(args.get(0)?)?, args.int(2)?)),
            "epoll_create" => Ok(Call::EpollCreate),
            "epoll_ctl" => {
                let fields = args.fields(3)?;
                let events = field(fields, "events").map_or(Ok(0), number)? as u32;
                Ok(Call::EpollCtl(fd()?, args.int(1)?, args.fd(2)?, events, self.epoll_data(fields)?))
            }
            "epoll_wait" => Ok(Call::EpollWait(fd()?, args.int(2)?, args.int(3)?)),
            other => Err(format!("the system call `{other}` is not supported")),
        }
    }

    fn live_message(&self, call: &Syscall, args: &Args<'_, '_>) -> Result<Call, String> {
        let fields = args.fields(1)?;
        let Some(Expr::List(parts)) = field(fields, "msg_iov") else {
            return Err(format!("{}: msg_iov is missing", call.name));
        };
        let control = control_of(fields)?;
        if call.name == "sendmsg" && !control.is_empty() {
            return Err("sendmsg: control messages are not supported".to_owned());
        }
        let len = |part: &Expr| match part {
            Expr::Struct(fields) if fields.len() == 2 => {
                number(&fields[1].value).map(|len| len.max(0) as usize)
            }
            other => Err(format!("{} is not {{..., LEN}}", expr_text(other))),
        };
        let lens = parts.iter().map(len).collect::<Result<Vec<_>, _>>()?;
        let (fd, flags, via) = (args.fd(0)?, args.int(2)?, Via::Message);
        if call.name == "recvmsg" {
            return Ok(Call::Receive { fd, lens, flags, via });
        }
        let connects =
            flags & libc::MSG_FASTOPEN != 0 && matches!(field(fields, "msg_name"), Some(Expr::Fill));
        let to = connects.then(|| self.world.ip.socket_address(self.peer(self.options.connect_port)));
        Ok(Call::Send { fd, lens, flags, via, to })
    }

    fn poll_list(&self, list: &Expr) -> Result<Vec<(Fd, i16)>, String> {
        let Expr::List(items) = list else { return Err("poll: expected [{fd=…, events=…}]".to_owned()) };
        let one = |item: &Expr| {
            let Expr::Struct(fields) = item else {
                return Err("poll: expected {fd=…, events=…}".to_owned());
            };
            let fd = field(fields, "fd").ok_or("poll: fd is missing")?;
            let events = field(fields, "events").map_or(Ok(0), number)?;
            Ok((self.fd(number(fd)?)?, events as i16))
        };
        items.iter().map(one).collect()
    }

    /// What epoll gives back with an event: a descriptor stands for the script's number.
    fn epoll_data(&self, fields: &[Field]) -> Result<u64, String> {
        for name in ["fd", "ptr", "u32", "u64"] {
            if let Some(value) = field(fields, name) {
                return Ok(number(value)? as u64);
            }
        }
        Ok(0)
    }

    pub(super) fn fd(&self, name: i64) -> Result<Fd, String> {
        self.fds.get(&name).copied().ok_or_else(|| format!("descriptor {name} is not open in this script"))
    }

    // ---- live → verdict

    fn check_done(&mut self, call: &Syscall, done: &Done) -> Result<(), Failure> {
        let outcome = &done.outcome;
        let expected = number(&call.result).map_err(|message| self.failure(FailureKind::Script, message))?;
        let names_fd = matches!(call.name.as_str(), "socket" | "accept" | "epoll_create");
        let value_agrees =
            if names_fd && expected >= 0 { outcome.value >= 0 } else { outcome.value == expected };
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
        if names_fd && expected >= 0 {
            self.name_fd(call, expected, outcome)?;
        }
        if call.name == "close" && outcome.value == 0 {
            self.forget_fd(call);
        }
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
            Output::None | Output::Peer(_) => return Ok(()),
        };
        if expected == actual {
            return Ok(());
        }
        let text = action_text(&crate::script::ast::Action::Call(call.clone()));
        Err(self.mismatch(&format!("{text}: the call wrote something else"), expected, actual))
    }
}

pub(super) fn field<'a>(fields: &'a [Field], name: &str) -> Option<&'a Expr> {
    fields.iter().find(|field| field.name.as_deref() == Some(name)).map(|field| &field.value)
}

/// The arguments of one call, with what `...` stands for.
struct Args<'a, 'r> {
    run: &'a Run<'r>,
    call: &'a Syscall,
}

impl<'a> Args<'a, '_> {
    fn get(&self, at: usize) -> Result<&'a Expr, String> {
        let missing = || {
            format!("{} has {} arguments; number {} is missing", self.call.name, self.call.args.len(), at + 1)
        };
        self.call.args.get(at).ok_or_else(missing)
    }

    fn int64(&self, at: usize) -> Result<i64, String> {
        number(self.get(at)?)
    }

    fn int(&self, at: usize) -> Result<i32, String> {
        let value = self.int64(at)?;
        i32::try_from(value)
            .or_else(|_| u32::try_from(value).map(u32::cast_signed))
            .map_err(|_| format!("{}: {value} does not fit in an int", self.call.name))
    }

    fn len(&self, at: usize) -> Result<usize, String> {
        let value = self.int64(at)?;
        usize::try_from(value).map_err(|_| format!("{}: a length of {value}", self.call.name))
    }

    fn fd(&self, at: usize) -> Result<Fd, String> {
        self.run.fd(self.int64(at)?)
    }

    fn fields(&self, at: usize) -> Result<&'a [Field], String> {
        match self.get(at)? {
            Expr::Struct(fields) => Ok(fields),
            other => Err(format!("{}: {} is not {{…}}", self.call.name, expr_text(other))),
        }
    }

    /// `...` or `{sa_family=…, sin_port=htons(…), sin_addr=inet_addr("…")}`.
    fn address(&self, at: usize, default: SocketAddr) -> Result<SocketAddr, String> {
        let ip = self.run.world.ip;
        let fields = match self.get(at)? {
            Expr::Fill => return Ok(ip.socket_address(default)),
            Expr::Struct(fields) => fields,
            other => return Err(format!("{}: {} is not an address", self.call.name, expr_text(other))),
        };
        let port = match field(fields, "sin_port") {
            Some(Expr::Apply(function, args)) if function == "htons" && args.len() == 1 => number(&args[0])?,
            _ => return Err(format!("{}: sin_port=htons(…) is missing", self.call.name)),
        };
        let host = match field(fields, "sin_addr") {
            Some(Expr::Apply(function, args)) if function == "inet_addr" => match args.first() {
                Some(Expr::Str(text)) => text.parse().map_err(|_| format!("`{text}` is not an address"))?,
                _ => return Err("inet_addr needs a string".to_owned()),
            },
            _ => default.ip(),
        };
        Ok(ip.socket_address(SocketAddr::new(host, port as u16)))
    }

    /// `...` is the peer; AF_UNSPEC is nobody.
    fn destination(&self, at: usize) -> Result<Option<SocketAddr>, String> {
        if let Expr::Symbol(family) = self.get(at)? {
            return if family == "AF_UNSPEC" {
                Ok(None)
            } else {
                Err(format!("{}: {family}", self.call.name))
            };
        }
        self.address(at, self.run.peer(self.run.options.connect_port)).map(Some)
    }

    fn option_value(&self, at: usize) -> Result<OptionValue, String> {
        match self.get(at)? {
            Expr::List(items) if items.len() == 1 => Ok(OptionValue::Int(number(&items[0])? as i32)),
            Expr::Str(text) => Ok(OptionValue::Bytes(text.clone().into_bytes())),
            Expr::Struct(fields) => {
                let word = |name: &str, place: usize| {
                    let value = field(fields, name).or_else(|| fields.get(place).map(|field| &field.value));
                    value.map_or_else(|| Err(format!("{name} is missing")), number).map(|value| value as i32)
                };
                Ok(OptionValue::Linger(word("onoff", 0)?, word("linger", 1)?))
            }
            other => Err(format!("{} is not [INT], a string or {{onoff=…, linger=…}}", expr_text(other))),
        }
    }
}
