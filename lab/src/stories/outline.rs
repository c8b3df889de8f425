//! A story in figures: what can be compared between two runs of it, with another setting or on another host.
//!
//! Owns:    which facts a run has, and when two of them are the same.
//! Differs: times on Linux are real, so they are compared with a tolerance; figures never are.

use core::time::Duration;

use super::record::{Role, Segment};
use super::words::{Lang, count, time};
use super::{Record, Side};

/// What a fact is about.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(tag = "fact", rename_all = "kebab-case")]
pub enum Subject {
    /// The states one end of a connection went through.
    States {
        /// Which end.
        side: Side,
        /// Which connection.
        flow: usize,
    },
    /// How long it was in a state, where it left it.
    Lasts {
        /// Which end.
        side: Side,
        /// Which connection.
        flow: usize,
        /// Which state.
        state: &'static str,
    },
    /// Calls that failed.
    Errors {
        /// Whose.
        side: Side,
    },
    /// Segments of a kind sent by an end.
    Sent {
        /// Who.
        side: Side,
        /// Which.
        kind: Kind,
    },
    /// A counter's movement.
    Counter {
        /// Whose.
        side: Side,
        /// Linux's name.
        name: String,
    },
}

/// Kinds of segments worth a count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Sent before.
    Again,
    /// Probes of a closed window.
    WindowProbes,
    /// Probes of an idle peer.
    KeepaliveProbes,
    /// Resets.
    Resets,
}

/// A fact's value.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Words; empty: none.
    Words(String),
    /// Seconds.
    Seconds(f64),
    /// A number.
    Count(u64),
}

/// One fact of a run.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Fact {
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// How it is.
    pub value: Value,
}

/// A fact that two runs do not share.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Difference {
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// In the first run; `None`: it did not occur.
    pub first: Option<Value>,
    /// In the second run.
    pub second: Option<Value>,
}

/// Every fact of a run.
pub fn outline(record: &Record) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |subject, value| facts.push(Fact { subject, value });
    for flow in 0..record.flows.len() {
        for side in Side::BOTH {
            let states = record.states(side, flow);
            if states.is_empty() {
                continue;
            }
            add(Subject::States { side, flow }, Value::Words(record.path(side, flow)));
            for pair in states.windows(2) {
                let (Some(state), left) = (pair[0].1, pair[1].0) else { continue };
                let lasted = left.saturating_sub(pair[0].0).as_secs_f64();
                add(Subject::Lasts { side, flow, state }, Value::Seconds(lasted));
            }
        }
    }
    for side in Side::BOTH {
        let errors = record.errors(side);
        if !errors.is_empty() {
            add(Subject::Errors { side }, Value::Words(errors.join(", ")));
        }
        for kind in [Kind::Again, Kind::WindowProbes, Kind::KeepaliveProbes, Kind::Resets] {
            let sent =
                record.segments().filter(|(_, segment)| segment.from == side && kind.is(segment)).count();
            if sent > 0 {
                add(Subject::Sent { side, kind }, Value::Count(sent as u64));
            }
        }
        for (name, moved) in &record.counters[side as usize] {
            add(Subject::Counter { side, name: name.clone() }, Value::Count(*moved));
        }
    }
    facts
}

/// What two runs do not share; times that differ by no more than `slack`, or by 4 %, are the same.
pub fn differences(first: &Record, second: &Record, slack: Duration) -> Vec<Difference> {
    let (first, second) = (outline(first), outline(second));
    let find = |facts: &[Fact], subject: &Subject| {
        facts.iter().find(|fact| fact.subject == *subject).map(|fact| fact.value.clone())
    };
    let mut found: Vec<Difference> = Vec::new();
    for fact in first.iter().chain(&second) {
        let (here, there) = (find(&first, &fact.subject), find(&second, &fact.subject));
        let same = match (&here, &there) {
            (Some(Value::Seconds(a)), Some(Value::Seconds(b))) => {
                (a - b).abs() <= slack.as_secs_f64().max(0.04 * a.max(*b))
            }
            _ => here == there,
        };
        if !same && !found.iter().any(|known| known.subject == fact.subject) {
            found.push(Difference { subject: fact.subject.clone(), first: here, second: there });
        }
    }
    found
}

impl Kind {
    fn is(self, segment: &Segment) -> bool {
        match self {
            Self::Again => segment.role == Role::Again,
            Self::WindowProbes => segment.role == Role::WindowProbe,
            Self::KeepaliveProbes => segment.role == Role::KeepaliveProbe,
            Self::Resets => segment.flags.contains("RST"),
        }
    }
}

/// An end's name.
pub fn side_name(side: Side, lang: Lang) -> &'static str {
    match (side, lang) {
        (side, Lang::En) => side.name(),
        (Side::Client, Lang::Zh) => "客户端",
        (Side::Server, Lang::Zh) => "服务器",
    }
}

impl Subject {
    /// For people; `many`: the story has several connections.
    pub fn text(&self, lang: Lang, many: bool) -> String {
        let number = |flow: usize| if many { format!(" #{}", flow + 1) } else { String::new() };
        let en = lang == Lang::En;
        match self {
            Self::States { side, flow } => {
                let what = if en { "states" } else { "状态" };
                format!("{}{}: {what}", side_name(*side, lang), number(*flow))
            }
            Self::Lasts { side, flow, state } => {
                let what = if en { "lasts" } else { "持续" };
                format!("{}{}: {state} {what}", side_name(*side, lang), number(*flow))
            }
            Self::Errors { side } => {
                let what = if en { "failed calls" } else { "失败的调用" };
                format!("{}: {what}", side_name(*side, lang))
            }
            Self::Sent { side, kind } => {
                let what = match (kind, en) {
                    (Kind::Again, true) => "sent again",
                    (Kind::Again, false) => "重发",
                    (Kind::WindowProbes, true) => "window probes",
                    (Kind::WindowProbes, false) => "窗口探测",
                    (Kind::KeepaliveProbes, true) => "keepalive probes",
                    (Kind::KeepaliveProbes, false) => "保活探测",
                    (Kind::Resets, true) => "resets sent",
                    (Kind::Resets, false) => "发送的复位",
                };
                format!("{}: {what}", side_name(*side, lang))
            }
            Self::Counter { side, name } => {
                let short = name.strip_prefix("TcpExt").or(name.strip_prefix("Tcp")).unwrap_or(name);
                format!("{}: {short}", side_name(*side, lang))
            }
        }
    }
}

impl Value {
    /// For people; what did not occur is a dash.
    pub fn text(value: Option<&Self>) -> String {
        match value {
            None => "–".to_owned(),
            Some(Self::Words(words)) => words.clone(),
            Some(Self::Seconds(seconds)) => time(*seconds),
            Some(Self::Count(number)) => count(*number),
        }
    }
}
