//! A recording becomes a script: Linux's packets and results written beside the stimuli that had them.

use core::fmt::Write as _;
use core::time::Duration;

use crate::run::{Recorded, Recording};
use crate::script::Script;
use crate::script::ast::{Action, Event, Expr, Field, Syscall, When};
use crate::script::print::{action_text, seconds};
use crate::script::symbols::errno_name;
use crate::target::{Control, Outcome, Output};

/// The script that expects what was recorded; `what` is the difference it shows, `comment` its first lines.
pub fn as_script(script: &Script, recording: &Recording, what: &str, comment: &str) -> String {
    let mut out = String::new();
    for line in comment.lines() {
        let _ = writeln!(out, "// {line}");
    }
    for option in &script.options {
        let _ = match option.value.as_str() {
            "" => writeln!(out, "--{}", option.name),
            value => writeln!(out, "--{}={value}", option.name),
        };
    }
    if let Some(init) = &script.init {
        let _ = writeln!(out, "`{init}`");
    }
    let mut writer = Writer { out, due: Duration::ZERO, reference: Duration::ZERO, first_timestamp: None };
    let mut entries = recording.entries.iter().peekable();
    for event in &script.events {
        // The host's own doing between the event before and this one.
        while let Some(entry) = entries.next_if(|entry| entry.line < event.line) {
            writer.host(entry);
        }
        let answer = entries.next_if(|entry| entry.line == event.line && !entry.text.starts_with('>'));
        writer.event(event, answer, recording, what);
    }
    for entry in entries {
        writer.host(entry);
    }
    if what.starts_with("state") {
        let _ = writeln!(writer.out, "+0 `state {}`", recording.state.unwrap_or("none"));
    }
    if let Some(name) = what.strip_prefix("counter ")
        && let Some((name, value)) = recording.counters.iter().find(|(known, _)| known == name)
    {
        let _ = writeln!(writer.out, "+.3 `counters {name}={value}`");
    }
    writer.out
}

struct Writer {
    out: String,
    /// When the script's own side acts, on its clock.
    due: Duration,
    /// When the last thing written happened.
    reference: Duration,
    first_timestamp: Option<Duration>,
}

impl Writer {
    /// `+.04` since the last thing; what is within a tick of it is at once.
    fn after(&mut self, at: Duration) -> String {
        let gap = at.saturating_sub(self.reference);
        self.reference = at.max(self.reference);
        let millis = gap.as_micros().div_ceil(1000) as u64;
        if gap < Duration::from_millis(1) {
            "+0".to_owned()
        } else {
            format!("+{}", seconds(Duration::from_millis(millis)))
        }
    }

    fn host(&mut self, entry: &Recorded) {
        let Some(packet) = entry.text.strip_prefix("> ") else { return };
        if packet.starts_with("icmp") || packet.starts_with("broken") {
            let time = self.after(entry.at);
            let _ = writeln!(self.out, "// {time} > {packet}");
            return;
        }
        let time = self.after(entry.at);
        let first = *self.first_timestamp.get_or_insert(entry.at);
        let clock = 500 + entry.at.saturating_sub(first).as_millis();
        let packet = packet.replace("TS val 0 ", &format!("TS val {clock} "));
        let _ = writeln!(self.out, "{time} > {packet}");
    }

    fn event(&mut self, event: &Event, answer: Option<&Recorded>, recording: &Recording, what: &str) {
        if matches!(event.action, Action::Outbound(_)) {
            return; // what the host sent is written from the recording
        }
        self.due = match event.when {
            When::At(at) => at,
            When::After(gap) => self.due + gap,
            _ => self.due,
        };
        let text = match &event.action {
            Action::Call(call) => match call_with(call, answer, recording) {
                Some((text, ends)) => {
                    let time = if self.out.lines().any(starts_event) {
                        self.after(self.due)
                    } else {
                        "0".to_owned()
                    };
                    let end = ends
                        .map(|at| format!("...{}", seconds(at.saturating_sub(self.due))))
                        .unwrap_or_default();
                    let _ = writeln!(self.out, "{time}{end} {text}");
                    return;
                }
                None => return,
            },
            Action::Code(text) => match fact(answer, what).or_else(|| facts(answer, text)) {
                Some(text) => text,
                None => return,
            },
            other => action_text(other),
        };
        let time = if self.out.lines().any(starts_event) { self.after(self.due) } else { "0".to_owned() };
        let _ = writeln!(self.out, "{time} {text}");
    }
}

fn starts_event(line: &str) -> bool {
    line.starts_with(|c: char| c.is_ascii_digit() || c == '+')
}

/// The call with the result it had; `None`: it was not made, or never returned.
fn call_with(
    call: &Syscall,
    answer: Option<&Recorded>,
    recording: &Recording,
) -> Option<(String, Option<Duration>)> {
    let answer = answer?;
    if answer.text.ends_with("= not made") {
        return None;
    }
    let (outcome, ends) = match &answer.outcome {
        Some(outcome) => (outcome, None),
        None => {
            let returned = recording.entries.iter().find(|entry| entry.text.starts_with("returned"))?;
            (returned.outcome.as_ref()?, Some(returned.at))
        }
    };
    let mut call = call.clone();
    let names_fd = matches!(call.name.as_str(), "socket" | "accept" | "epoll_create");
    if !names_fd || outcome.value < 0 {
        call.result = Expr::Int(outcome.value);
    }
    call.errno = (outcome.value < 0).then(|| errno_name(outcome.errno));
    write_output(&mut call, outcome);
    Some((action_text(&Action::Call(call)), ends))
}

fn write_output(call: &mut Syscall, outcome: &Outcome) {
    let list = |value: i64| Expr::List(vec![Expr::Int(value)]);
    match &outcome.output {
        Output::Int(value) if call.args.len() > 2 => call.args[2] = list((*value).into()),
        Output::Bytes(bytes) if bytes.len() == 4 && call.args.len() > 3 => {
            call.args[3] = list(i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).into());
        }
        Output::Message { flags, control } => {
            if let Some(Expr::Struct(fields)) = call.args.get_mut(1) {
                for field in fields {
                    match field.name.as_deref() {
                        Some("msg_flags") => field.value = Expr::Int((*flags).into()),
                        Some("msg_control") => {
                            field.value = Expr::List(control.iter().map(control_expr).collect());
                        }
                        _ => {}
                    }
                }
            }
        }
        Output::Ready(masks) => {
            if let Some(Expr::List(entries)) = call.args.first_mut() {
                for (entry, mask) in entries.iter_mut().zip(masks) {
                    let Expr::Struct(fields) = entry else { continue };
                    let revents = fields.iter_mut().find(|field| field.name.as_deref() == Some("revents"));
                    if let Some(field) = revents {
                        field.value = Expr::Int((*mask).into());
                    }
                }
            }
        }
        _ => {}
    }
}

/// A control message as a script writes it; times are not compared.
fn control_expr(control: &Control) -> Expr {
    let pairs = |pairs: &[(&str, Expr)]| {
        let field = |(name, value): &(&str, Expr)| Field {
            name: Some((*name).to_owned()),
            arg: None,
            value: value.clone(),
        };
        Expr::Struct(pairs.iter().map(field).collect())
    };
    let symbol = |name: &str| Expr::Symbol(name.to_owned());
    let int = |value: u32| Expr::Int(value.into());
    let (level, kind, data) = match control {
        Control::Inq(inq) => ("SOL_TCP", "TCP_CM_INQ", Expr::Int((*inq).into())),
        Control::Timestamp(_) => {
            ("SOL_SOCKET", "SCM_TIMESTAMPING", pairs(&[("scm_sec", int(0)), ("scm_nsec", int(0))]))
        }
        Control::Error(error) => {
            let level = if error.v6 { "SOL_IPV6" } else { "SOL_IP" };
            let kind = if error.v6 { "IPV6_RECVERR" } else { "IP_RECVERR" };
            let data = pairs(&[
                ("ee_errno", symbol_or_zero(error.errno)),
                ("ee_origin", int(error.origin.into())),
                ("ee_type", int(error.kind.into())),
                ("ee_code", int(error.code.into())),
                ("ee_info", int(error.info)),
                ("ee_data", int(error.data)),
            ]);
            (level, kind, data)
        }
    };
    pairs(&[("cmsg_level", symbol(level)), ("cmsg_type", symbol(kind)), ("cmsg_data", data)])
}

fn symbol_or_zero(errno: u32) -> Expr {
    let name = errno_name(errno.cast_signed());
    if name.contains(' ') { Expr::Int(errno.into()) } else { Expr::Symbol(name) }
}

/// An assertion of the fact that differs; other facts are left out.
fn fact(answer: Option<&Recorded>, what: &str) -> Option<String> {
    let name = what.strip_suffix(" of facts")?;
    let value = answer?.text.split(' ').find_map(|fact| fact.strip_prefix(name)?.strip_prefix(':'))?;
    Some(format!("%{{ assert tcpi_{name} == {value} }}%"))
}

/// An assertion of the facts that the block's own text names, with their values.
fn facts(answer: Option<&Recorded>, text: &str) -> Option<String> {
    let text: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let told = answer?.text.split(' ').filter_map(|fact| fact.split_once(':'));
    let (mut claims, mut shown) = (Vec::new(), Vec::new());
    for (name, value) in told.filter(|(name, _)| text.contains(name)) {
        claims.push(format!("tcpi_{name} == {value}"));
        shown.push(format!("tcpi_{name}"));
    }
    let comma = if shown.len() == 1 { "," } else { "" };
    (!claims.is_empty())
        .then(|| format!("%{{ assert {}, ({}{comma}) }}%", claims.join(" and "), shown.join(", ")))
}
