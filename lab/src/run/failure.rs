//! Why a script did not pass, readable by people and programs.

use core::fmt::Write;

/// What kind of failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The host did something else than the script says.
    Mismatch,
    /// The script cannot be read, or asks for something that makes no sense.
    Script,
    /// A command failed or is not possible on this target.
    Command,
    /// The lab itself could not keep the script's time: says nothing about the host.
    Late,
    /// The target could not be made or broke.
    Target,
}

/// Why a script did not pass.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// Line of the script; 0 before the first event.
    pub line: u32,
    /// One sentence.
    pub message: String,
    /// In script notation.
    pub expected: Option<String>,
    /// In script notation.
    pub actual: Option<String>,
    /// What happened until then.
    pub log: Vec<String>,
}

impl Failure {
    pub(super) fn invalid_option(message: String) -> Self {
        Self { kind: FailureKind::Script, line: 0, message, expected: None, actual: None, log: Vec::new() }
    }

    /// A failure before the first event.
    pub fn before_start(kind: FailureKind, line: u32, message: String) -> Self {
        Self { kind, line, message, expected: None, actual: None, log: Vec::new() }
    }

    /// Several lines for a terminal.
    pub fn text(&self, path: &str) -> String {
        let mut out = format!("{path}:{}: {}\n", self.line, self.message);
        if let Some(expected) = &self.expected {
            let _ = writeln!(out, "  expected  {expected}");
        }
        if let Some(actual) = &self.actual {
            let _ = writeln!(out, "  actual    {actual}");
        }
        if !self.log.is_empty() {
            let _ = writeln!(out, "  line         seconds  so far");
            for line in &self.log {
                let _ = writeln!(out, "  {line}");
            }
        }
        out
    }
}
