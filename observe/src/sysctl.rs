//! `net.ipv4.tcp_*`: what each knob really bounds, its default, and what people wrongly think.
//!
//! Owns:    one item a knob, in [`ALL`]; help, JSON and documents are made of it.
//! Rules:   `linux-tcp` 8.1 (reference kernel 6.12 to 6.18).
//! Not here: reading and writing values (`source::kernel`), what a change would do (`doctor::what_if`).

use lastack_core::tcp::state::TcpState;

use crate::row::Row;
use crate::words::{Text, text};

mod knobs;
mod values;

pub use knobs::ALL;

/// How far a knob reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// The network namespace.
    Namespace,
    /// The whole host; only the initial namespace shows it.
    Host,
}

/// One knob.
#[derive(Clone, Copy, Debug)]
pub struct Knob {
    /// Name without `net.ipv4.`; `core.` stands for `net.core.`.
    pub name: &'static str,
    /// Default of the reference kernel, as `/proc/sys` prints it; empty where it depends on the machine.
    pub default: &'static str,
    /// Values it takes, with the unit.
    pub values: &'static str,
    /// How far it reaches.
    pub reach: Reach,
    /// What it really does.
    pub meaning: Text,
    /// What people wrongly think; empty where nothing is known.
    pub myth: Text,
    /// Which present sockets it bears on; `None` when it cannot be told from outside.
    pub touches: Option<fn(&Row) -> bool>,
}

impl Knob {
    /// The knob of this name, with or without `net.ipv4.`.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        let bare = bare(name);
        ALL.iter().find(|knob| knob.name == bare)
    }

    /// The name `sysctl` uses.
    pub fn full_name(&self) -> String {
        full_name(self.name)
    }
}

/// `net.ipv4.tcp_x`, `tcp_x` and `net/ipv4/tcp_x` are one knob; `net.core.x` is `core.x`.
pub fn bare(name: &str) -> String {
    let dotted = name.replace('/', ".");
    let name = dotted.strip_prefix("net.").unwrap_or(&dotted);
    name.strip_prefix("ipv4.").unwrap_or(name).to_owned()
}

/// The name `sysctl` uses.
pub fn full_name(bare: &str) -> String {
    if bare.starts_with("core.") { format!("net.{bare}") } else { format!("net.ipv4.{bare}") }
}

const fn knob(
    name: &'static str,
    default: &'static str,
    values: &'static str,
    meaning: Text,
    myth: Text,
) -> Knob {
    Knob { name, default, values, reach: Reach::Namespace, meaning, myth, touches: None }
}

const fn touching(knob: Knob, touches: fn(&Row) -> bool) -> Knob {
    Knob { touches: Some(touches), ..knob }
}

const fn of_host(knob: Knob) -> Knob {
    Knob { reach: Reach::Host, ..knob }
}

const NO_MYTH: Text = text("", "");

fn in_state(row: &Row, state: TcpState) -> bool {
    row.socket.state == state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_are_written() {
        for name in ["tcp_fin_timeout", "net.ipv4.tcp_fin_timeout", "net/ipv4/tcp_fin_timeout"] {
            assert_eq!(Knob::by_name(name).map(|knob| knob.name), Some("tcp_fin_timeout"), "{name}");
        }
        assert_eq!(
            Knob::by_name("net.core.somaxconn").map(Knob::full_name).as_deref(),
            Some("net.core.somaxconn")
        );
        assert!(Knob::by_name("tcp_bogus").is_none());
    }

    #[test]
    fn every_knob_is_told_in_both_languages() {
        let han = |text: &str| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
        let mut names: Vec<&str> = ALL.iter().map(|knob| knob.name).collect();
        for knob in ALL {
            assert!(
                !knob.meaning.en.is_empty() && han(knob.meaning.zh) && !han(knob.meaning.en),
                "{}",
                knob.name
            );
            assert_eq!(knob.myth.en.is_empty(), knob.myth.zh.is_empty(), "{}", knob.name);
            assert!(knob.myth.zh.is_empty() || han(knob.myth.zh), "{}", knob.name);
            assert!(!knob.values.is_empty(), "{}", knob.name);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len(), "no knob twice");
    }

    /// The kernel this runs on may be older or newer; what it has and we know must be all it has.
    #[test]
    fn every_knob_of_this_kernel_is_known() {
        let Ok(entries) = std::fs::read_dir("/proc/sys/net/ipv4") else { return };
        let unknown: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with("tcp_") && Knob::by_name(name).is_none())
            .collect();
        assert!(unknown.is_empty(), "not told: {unknown:?}");
    }
}
