//! `lastack sysctl` on the live kernel.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::in_namespace;

fn lastack(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lastack")).args(arguments).env("LANG", "C").output().expect("starts")
}

fn json(arguments: &[&str]) -> Value {
    let output = lastack(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one document")
}

#[test]
fn a_value_is_read_set_and_read_again() {
    in_namespace(|| {
        let before = json(&["sysctl", "tcp_fin_timeout", "--json"]);
        assert_eq!((&before["value"], &before["default"]), (&"60".into(), &"60".into()));
        assert_eq!(before["name"], "net.ipv4.tcp_fin_timeout");
        assert!(before["myth"].as_str().is_some_and(|text| text.contains("TIME-WAIT")));
        assert_eq!(json(&["sysctl", "net.ipv4.tcp_fin_timeout=30", "--json"])["value"], "30");
        let kernel = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_fin_timeout").expect("reads");
        assert_eq!(kernel.trim(), "30");
        let list = String::from_utf8(lastack(&["sysctl"]).stdout).expect("text");
        assert!(list.lines().nth(1).is_some_and(|line| line.starts_with("* ")), "{list}");
        assert!(list.lines().any(|line| line.starts_with("*") && line.contains("tcp_fin_timeout")), "{list}");
        assert!(!list.contains("tcp_fastopen_key"), "a secret");
        let chinese = lastack(&["sysctl", "tcp_fin_timeout", "--lang", "zh"]).stdout;
        assert!(String::from_utf8_lossy(&chinese).contains("误解"));
    });
}

#[test]
fn the_sockets_a_knob_bears_on_are_counted() {
    in_namespace(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:7800").expect("binds");
        for _ in 0..3 {
            let (client, mut server) = support::pair(&listener);
            drop(client);
            std::io::Read::read_to_end(&mut server, &mut Vec::new()).expect("reads");
        }
        support::eventually("three in TIME-WAIT", || {
            (json(&["sysctl", "tcp_tw_reuse", "--json"])["sockets"] == 3).then_some(())
        });
        assert_eq!(json(&["sysctl", "tcp_fin_timeout", "--json"])["sockets"], 0);
    });
}

#[test]
fn what_is_refused_is_explained() {
    in_namespace(|| {
        for (arguments, says) in [
            ("tcp_bogus", "no knob"),
            ("tcp_tw_recycle", "removed in Linux 4.12"),
            ("tcp_timewait_len=30", "constant"),
            ("tcp_tw_reuse=9", "0 to 2"),
            ("tcp_mem=1 2 3", "whole host"),
        ] {
            let output = lastack(&["sysctl", arguments]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{arguments}");
            assert!(said.starts_with("error: ") && said.contains(says), "{arguments}: {said}");
        }
    });
}
