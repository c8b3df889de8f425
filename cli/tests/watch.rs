//! `lastack watch` on the live kernel, with and without a terminal.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::process::Command;

use serde_json::Value;
use support::in_namespace;

#[test]
fn without_a_terminal_it_prints_a_line_a_look() {
    in_namespace(|| {
        let _zoo = support::zoo();
        let output = Command::new(env!("CARGO_BIN_EXE_lastack"))
            .args(["watch", "--json", "--interval", "0.1", "--duration", "1", "sport", "=", ":7001"])
            .output()
            .expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let looks: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
        assert!(looks.len() >= 2, "{text}");
        let count = support::run("ss", &["-Htan", "sport = :7001"]).lines().count();
        assert!(looks.iter().all(|look| look["total"] == count), "{text}");
    });
}

#[test]
fn on_a_terminal_it_draws_and_ends_at_q() {
    in_namespace(|| {
        let _zoo = support::zoo();
        // `script` is the terminal; the key comes after the first picture.
        let command =
            format!("stty rows 40 cols 150; {} watch --interval 0.2", env!("CARGO_BIN_EXE_lastack"));
        let output = Command::new("sh")
            .args([
                "-c",
                "(sleep 1.5; printf q) | TERM=xterm timeout 20 script -qec \"$0\" /dev/null",
                &command,
            ])
            .output()
            .expect("runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.code() == Some(127) {
            support::skipped("no script(1)");
            return;
        }
        assert_eq!(output.status.code(), Some(0), "{text}");
        for part in ["sockets", "CLOSE-WAIT", "127.0.0.1:7001"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("\u{1b}[?1049l"), "the screen is given back");
    });
}
