//! `lastack lab list`, `show` and `run` as a user sees them.

use std::process::{Command, Output};

use serde_json::Value;

fn lastack(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lastack"))
        .args(["--color", "never", "--lang", "en"])
        .args(args)
        .env("COLUMNS", "80")
        .env_remove("TERM")
        .output()
        .expect("the command starts")
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn document(args: &[&str]) -> Value {
    let output = lastack(args);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

#[test]
fn stories_are_listed_and_shown() {
    let listed = text(&lastack(&["lab", "list"]));
    assert!(listed.contains("fin-wait-1-zero-window"), "{listed}");
    let stories = document(&["lab", "list", "--json"]);
    let stories = stories["stories"].as_array().expect("a list");
    assert!(stories.len() >= 22);
    for story in stories {
        let id = story["id"].as_str().expect("a name");
        let shown = lastack(&["lab", "show", id]);
        assert!(shown.status.success(), "{id}");
        assert!(text(&shown).contains(&format!("lastack lab run {id}")), "{id}");
    }
}

#[test]
fn a_story_is_drawn_with_both_ends_the_states_the_counters_and_the_reason() {
    let output = lastack(&["lab", "run", "fin-wait-1-zero-window"]);
    assert!(output.status.success());
    let told = text(&output);
    for part in
        ["SYN-SENT", "FIN-WAIT-1", "win 0", "persist fires", "more, each answered", "TcpExtTCPWinProbe"]
    {
        assert!(told.contains(part), "{part} is missing:\n{told}");
    }
    assert!(told.contains("TCP_USER_TIMEOUT"), "doctor's cure");
    let chart = told.lines().filter(|line| line.contains('│'));
    assert!(chart.clone().count() > 20);
    for line in chart {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
}

#[test]
fn a_dumb_terminal_gets_ascii_and_no_colours() {
    let output = Command::new(env!("CARGO_BIN_EXE_lastack"))
        .args(["--lang", "en", "lab", "run", "clean-close"])
        .env("TERM", "dumb")
        .output()
        .expect("the command starts");
    let told = text(&output);
    let chart: Vec<&str> = told.lines().filter(|line| line.contains('|')).collect();
    assert!(chart.len() > 10, "{told}");
    assert!(chart.iter().all(|line| line.is_ascii()), "{told}");
    assert!(!told.contains('\x1b'));
}

#[test]
fn every_story_is_drawn_in_both_languages_at_every_width() {
    let stories = document(&["lab", "list", "--json"]);
    for story in stories["stories"].as_array().expect("a list") {
        let id = story["id"].as_str().expect("a name");
        for (columns, lang) in [("80", "zh"), ("120", "en")] {
            let output = Command::new(env!("CARGO_BIN_EXE_lastack"))
                .args(["--color", "never", "--lang", lang, "lab", "run", id])
                .env("COLUMNS", columns)
                .env_remove("TERM")
                .output()
                .expect("the command starts");
            assert!(output.status.success(), "{id}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn a_setting_says_what_it_changes_and_a_myth_that_it_does_not() {
    let short = ["lab", "run", "fin-wait-1-silent-peer", "--json", "--sysctl", "tcp_orphan_retries=3"];
    let changed = document(&short);
    let lasts = changed["changed_by_sysctl"]
        .as_array()
        .and_then(|list| list.iter().find(|fact| fact["fact"] == "lasts" && fact["state"] == "FIN-WAIT-1"))
        .expect("FIN-WAIT-1 lasts shorter");
    assert!(lasts["first"].as_f64() > Some(100.0) && lasts["second"].as_f64() < Some(10.0), "{lasts}");
    let myth = document(&["lab", "run", "sysctl-myth", "--json", "--sysctl", "tcp_fin_timeout=30"]);
    assert_eq!(myth["changed_by_sysctl"].as_array().map(Vec::len), Some(0));
    assert_eq!(myth["runs"][0]["record"]["flows"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_picture_is_well_formed() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("story.svg");
    let path = file.to_str().expect("UTF-8");
    assert!(lastack(&["lab", "run", "reset-unread-data", "--svg", path]).status.success());
    let picture = std::fs::read_to_string(&file).expect("a file");
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
    // Every element that is opened is closed: text, title, style, defs, marker hold something, the others are empty.
    for element in ["text", "title", "style", "defs", "marker"] {
        let (opened, closed) = (format!("<{element}"), format!("</{element}>"));
        assert_eq!(picture.matches(&opened).count(), picture.matches(&closed).count(), "{element}");
    }
    assert!(picture.contains("ECONNRESET") && picture.contains("RST,ACK"));
}

#[test]
fn what_cannot_be_told_is_said_in_three_lines() {
    for (args, part) in [
        (&["lab", "run", "no-such-story"][..], "lastack lab list"),
        (&["lab", "run", "fin-wait-1.zero-window"], "lastack lab run fin-wait-1-zero-window"),
        (&["lab", "run", "clean-close", "--sysctl", "tcp_nonsense=1"], "tcp_nonsense"),
        (&["lab", "run", "clean-close", "--sysctl", "tcp_sack"], "NAME=VALUE"),
        (&["lab", "run", "orphans-near-limit", "--target", "kernel"], "whole machine"),
    ] {
        let output = lastack(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?}");
        assert!(
            said.starts_with("error: ") && said.contains("\ncause: ") && said.contains("\ntry: "),
            "{said}"
        );
        assert!(said.contains(part), "{args:?}: {said}");
    }
}
