//! What `lastack run --report json --output FILE` wrote: one JSON object a line.

use std::path::Path;

use serde_json::Value;

/// One line.
#[derive(Clone, Debug)]
pub struct Line(Value);

/// A line that is a connection's life.
pub type Connection = Line;

impl Line {
    /// The field at `path` (`inside.retransmits`) as text; `null` if it is null, `absent` if it is not there.
    #[must_use]
    pub fn text(&self, path: &str) -> String {
        match self.field(path) {
            None => "absent".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    /// The number at `path`; 0 if there is none.
    #[must_use]
    pub fn number(&self, path: &str) -> u64 {
        self.field(path).and_then(Value::as_u64).unwrap_or(0)
    }

    /// The value at `path`.
    #[must_use]
    pub fn field(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.0, |value, key| value.get(key))
    }
}

/// The TCP connections in the journal `file`, in the order they ended.
///
/// # Errors
/// The file cannot be read, or a line is not JSON.
pub fn connections(file: &Path) -> Result<Vec<Connection>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    parse(&text, "connection")
}

/// The names that were looked up, in the order they were answered.
///
/// # Errors
/// As [`connections`].
pub fn lookups(file: &Path) -> Result<Vec<Line>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    parse(&text, "lookup")
}

/// The UDP flows, in the order they ended.
///
/// # Errors
/// As [`connections`].
pub fn flows(file: &Path) -> Result<Vec<Line>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    parse(&text, "flow")
}

/// The limits that turned something away.
///
/// # Errors
/// As [`connections`].
pub fn limits(file: &Path) -> Result<Vec<Line>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    parse(&text, "limit")
}

fn parse(text: &str, event: &str) -> Result<Vec<Line>, String> {
    let lines = text.lines().map(|line| {
        serde_json::from_str::<Value>(line).map_err(|e| format!("not a JSON line ({e}): {line}"))
    });
    let lines: Vec<Value> = lines.collect::<Result<_, _>>()?;
    Ok(lines.into_iter().filter(|line| line["event"] == event).map(Line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_not_connections_and_absent_differs_from_null() {
        let text =
            "{\"event\":\"flow\"}\n{\"event\":\"connection\",\"reason\":null,\"inside\":{\"rtt_us\":61}}\n";
        let lines = parse(text, "connection").unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].text("reason"), "null");
        assert_eq!(lines[0].text("how"), "absent");
        assert_eq!(lines[0].number("inside.rtt_us"), 61);
    }
}
