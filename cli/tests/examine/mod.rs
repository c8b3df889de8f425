//! Runs `lastack doctor` and reads what it says.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

/// One look without a second one for rates.
pub(crate) const ONCE: &[&str] = &["--interval", "0"];

pub(crate) fn lastack(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lastack")).args(arguments).env("LANG", "C").output().expect("starts")
}

/// One look: the findings, by a run that must end with 0 or 1 and say so truly.
pub(crate) fn look(flags: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["doctor", "--json"];
    arguments.extend(flags);
    let output = lastack(&arguments);
    let said = String::from_utf8_lossy(&output.stdout);
    let document: Value = serde_json::from_str(&said)
        .unwrap_or_else(|e| panic!("{e}: {said} {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(document["schema"], 1);
    let findings = document["findings"].as_array().expect("findings").clone();
    let bad = findings.iter().any(|finding| finding["severity"] != "info");
    assert_eq!(output.status.code(), Some(i32::from(bad)), "exit status follows --fail-on warning");
    findings
}

/// Looks until `id` is found with `count` sockets; nothing else may be an error.
pub(crate) fn finding(id: &str, count: u64, flags: &[&str]) -> Value {
    let mut last = Vec::new();
    for _ in 0..80 {
        last = look(flags);
        let found =
            last.iter().find(|finding| finding["id"] == id && (count == 0 || finding["count"] == count));
        if let Some(found) = found {
            let others: Vec<_> = last.iter().filter(|f| f["severity"] == "error" && f["id"] != id).collect();
            assert!(others.is_empty(), "also: {others:?}");
            for field in ["title", "cause", "certainty", "story"] {
                assert!(found[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {found}");
            }
            assert!(found["evidence"].as_array().is_some_and(|list| !list.is_empty()));
            return found.clone();
        }
        lastack_observe::clock::pause(Duration::from_millis(400));
    }
    let seen: Vec<_> = last.iter().map(|f| (&f["id"], &f["count"])).collect();
    let table = lastack(&["ss", "-aone"]).stdout;
    let table: String = String::from_utf8_lossy(&table).lines().take(12).collect::<Vec<_>>().join("\n");
    panic!("never found {id} × {count}; the last look had {seen:?}\n{table}");
}
