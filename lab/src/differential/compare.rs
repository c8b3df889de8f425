//! Two recordings of one script: the first thing that is not alike.

use core::time::Duration;

use crate::run::{Recorded, Recording};

/// What two hosts did not do alike.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// What kind of thing differs, without numbers: differences with the same cause mostly share it.
    pub what: String,
    /// What Linux did.
    pub kernel: String,
    /// What the stack did.
    pub stack: String,
}

/// The first difference, or `None`. Order: what happened, then the state at the end, then counters.
pub fn first_difference(kernel: &Recording, stack: &Recording) -> Option<Difference> {
    let pairs = kernel.entries.len().max(stack.entries.len());
    let mut before = Duration::ZERO;
    for at in 0..pairs {
        let (k, s) = (kernel.entries.get(at), stack.entries.get(at));
        match (k, s) {
            (Some(k), Some(s)) if k.text == s.text => {
                if !same_time(k.at, s.at, before) {
                    return Some(Difference {
                        what: format!("time of {}", shape(&k.text)),
                        kernel: shown(Some(k)),
                        stack: shown(Some(s)),
                    });
                }
                before = k.at.min(s.at);
            }
            _ => {
                return Some(Difference { what: apart(k, s), kernel: shown(k), stack: shown(s) });
            }
        }
    }
    if kernel.state != stack.state {
        let name = |state: Option<&'static str>| state.unwrap_or("none").to_owned();
        let (k, s) = (name(kernel.state), name(stack.state));
        return Some(Difference { what: format!("state {k} / {s}"), kernel: k, stack: s });
    }
    kernel.counters.iter().find_map(|(name, k)| {
        let s = stack.counters.iter().find(|(other, _)| other == name).map(|(_, value)| *value)?;
        (*k != s).then(|| Difference {
            what: format!("counter {name}"),
            kernel: format!("{name}={k}"),
            stack: format!("{name}={s}"),
        })
    })
}

/// Timers of the kernel are late by a tick, or by an eighth of their time (specification 7).
fn same_time(kernel: Duration, stack: Duration, before: Duration) -> bool {
    let distance = kernel.max(stack).saturating_sub(before);
    kernel.abs_diff(stack) <= SLACK + distance.mul_f64(0.14)
}

/// One tick, and a machine that does other things too.
const SLACK: Duration = Duration::from_millis(40);

fn shown(entry: Option<&Recorded>) -> String {
    entry.map_or("nothing".to_owned(), |entry| {
        format!("{:.6} after line {}: {}", entry.at.as_secs_f64(), entry.line, entry.text)
    })
}

/// `> P. 1:101(100) ack 1 win 502` and `> P. 1:101(100) ack 1 win 500` differ in `win`.
fn apart(kernel: Option<&Recorded>, stack: Option<&Recorded>) -> String {
    let name = |entry: Option<&Recorded>| entry.map_or("nothing".to_owned(), |entry| shape(&entry.text));
    let (k, s) = (name(kernel), name(stack));
    if k != s {
        return format!("{k} / {s}");
    }
    let words = |entry: Option<&Recorded>| -> Vec<String> {
        entry.map(|entry| entry.text.split(' ').map(str::to_owned).collect()).unwrap_or_default()
    };
    let (kernel, stack) = (words(kernel), words(stack));
    let at = kernel.iter().zip(&stack).position(|(k, s)| k != s);
    let field = at.map_or("length".to_owned(), |at| match kernel[at].split_once(':') {
        Some((name, _)) if name.chars().all(|c| c.is_ascii_lowercase() || c == '_') => name.to_owned(),
        _ if k.starts_with('>') && at == 2 => "seq".to_owned(),
        _ if at > 0 => kernel[at - 1].chars().filter(|c| !c.is_ascii_digit()).collect(),
        _ => kernel[at].clone(),
    });
    format!("{field} of {k}")
}

/// An entry without its numbers: `> P.`, `send`, `facts`.
fn shape(text: &str) -> String {
    if let Some(packet) = text.strip_prefix("> ") {
        // Ports of another connection come first.
        let rest = packet.split(" > ").last().unwrap_or(packet);
        let words: Vec<&str> = rest.split(' ').collect();
        let flags = words.iter().find(|word| word.parse::<u32>().is_err()).copied().unwrap_or("?");
        let empty = if rest.contains("(0)") { "" } else { " data" };
        return format!("> {flags}{empty}");
    }
    if text.starts_with("state:") {
        return "facts".to_owned();
    }
    let name = text.split('(').next().unwrap_or(text);
    let option = text
        .split(['(', ','])
        .map(str::trim)
        .find(|word| ["TCP_", "SO_", "SHUT_", "SIOC", "IP_"].iter().any(|prefix| word.starts_with(prefix)));
    option.map_or(name.to_owned(), |option| format!("{name} {option}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(entries: &[(u64, &str)]) -> Recording {
        let entry = |(ms, text): &(u64, &str)| Recorded {
            at: Duration::from_millis(*ms),
            line: 1,
            text: (*text).to_owned(),
            outcome: None,
        };
        Recording { entries: entries.iter().map(entry).collect(), state: None, counters: Vec::new() }
    }

    #[test]
    fn the_field_that_differs_is_named() {
        let a = recording(&[(0, "> P. 1:101(100) ack 1 win 502")]);
        let b = recording(&[(0, "> P. 1:101(100) ack 1 win 500")]);
        assert_eq!(first_difference(&a, &b).unwrap().what, "win of > P. data");
        let facts = |cwnd| format!("state:1 snd_cwnd:{cwnd} lost:0");
        let (a, b) = (recording(&[(0, &facts(10))]), recording(&[(0, &facts(9))]));
        assert_eq!(first_difference(&a, &b).unwrap().what, "snd_cwnd of facts");
        let c = recording(&[]);
        assert_eq!(first_difference(&a, &c).unwrap().what, "facts / nothing");
    }

    #[test]
    fn late_timers_are_alike_and_very_late_ones_are_not() {
        let at = |ms| recording(&[(100, "recv(4, ..., 1) = 1"), (ms, "> . 1:1(0) ack 1 win 1")]);
        assert_eq!(first_difference(&at(1100), &at(1200)), None);
        assert!(first_difference(&at(1100), &at(1500)).is_some());
    }
}
