//! `lastack ss` against iproute2's `ss`, on the same sockets.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Command, Output};

use support::{in_namespace, pair, run, zoo};

fn lastack(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lastack")).args(arguments).env("LANG", "C").output().expect("starts")
}

fn text(arguments: &[&str]) -> String {
    let output = lastack(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&text(arguments)).expect("one document")
}

/// Lines with their spaces evened out; without what `ss` writes behind the addresses.
fn lines(text: &str) -> BTreeSet<Vec<String>> {
    text.lines().map(|line| line.split_whitespace().take(5).map(str::to_owned).collect()).collect()
}

#[test]
fn tables_have_the_lines_of_ss() {
    in_namespace(|| {
        let _zoo = zoo();
        for flags in ["-Htn", "-Htan", "-Htln", "-Htanl", "-Htlan", "-Htan4", "-Htan6", "-Htano", "-tn"] {
            let (mut theirs, mut ours) = (lines(&run("ss", &[flags])), lines(&text(&["ss", flags])));
            if flags == "-tn" {
                // The header: theirs runs two columns together.
                theirs.retain(|line| line[0] != "State");
                ours.retain(|line| line[0] != "State");
            }
            assert!(!ours.is_empty());
            assert_eq!(ours, theirs, "{flags}");
        }
    });
}

#[test]
fn summary_counts_the_port_and_not_its_digits() {
    in_namespace(|| {
        let _zoo = zoo();
        // What `netstat -nat | grep 7001 | wc -l` gets wrong.
        let count = run("ss", &["-Htan", "sport = :7001"]).lines().count();
        let found = json(&["ss", "-s", "--json", "sport", "=", ":7001"]);
        assert_eq!(found["total"], count);
        let states = found["states"].as_object().expect("an object");
        assert_eq!(states.values().map(|n| n.as_u64().expect("a count")).sum::<u64>(), count as u64);
        assert!(states.contains_key("CLOSE-WAIT") && states.contains_key("LISTEN"));
        assert_eq!(found["schema"], 1);
    });
}

/// `netstat -nat | grep 80 | wc -l` of the collection: a host with 8080 open, and 80 in an address.
#[test]
fn port_80_is_counted_where_the_well_known_pipe_counts_too_much() {
    in_namespace(|| {
        let listeners = ["127.0.0.1:80", "127.0.0.1:8080", "127.0.0.80:443"]
            .map(|address| TcpListener::bind(address).expect("binds"));
        let kept: Vec<_> = listeners.iter().flat_map(|listener| (0..5).map(|_| pair(listener))).collect();
        let truth = run("ss", &["-Htan", "sport = :80"]).lines().count();
        let ours = json(&["ss", "-s", "--json", "sport = :80"]);
        assert_eq!((&ours["total"], truth), (&6.into(), 6), "the listener and its five");
        if Command::new("netstat").arg("--version").output().is_err() {
            support::skipped("no netstat");
            return;
        }
        let piped: usize =
            run("sh", &["-c", "netstat -nat | grep 80 | wc -l"]).trim().parse().expect("a count");
        // Both ends of all fifteen, and all three listeners.
        assert!(piped >= 33, "{piped}");
        drop(kept);
    });
}

#[test]
fn json_has_the_contract_and_can_be_read_back() {
    in_namespace(|| {
        let _zoo = zoo();
        let document = json(&["ss", "-a", "--json"]);
        assert_eq!((&document["schema"], &document["source"]), (&1.into(), &"kernel".into()));
        let sockets = document["sockets"].as_array().expect("sockets");
        let closing = sockets.iter().find(|s| s["state"] == "CLOSE-WAIT").expect("one");
        for field in ["netns", "local", "peer", "recv_q", "send_q", "owner", "inode", "cookie", "tcp_info"] {
            assert!(!closing[field].is_null(), "{field} in {closing}");
        }
        assert_eq!(closing["owner"]["pid"], std::process::id());
        assert_eq!(closing["owner"]["how"], "descriptor");
        assert!(closing["timer"].is_null(), "CLOSE-WAIT has no timer, and unknown values are absent");
        assert!(closing["tcp_info"]["snd_cwnd"].as_u64().expect("a number") > 0);
        let waiting = sockets.iter().find(|s| s["state"] == "TIME-WAIT").expect("one");
        assert_eq!(waiting["timer"]["name"], "timewait");
        assert!(waiting["tcp_info"].is_null() && waiting["uid"].is_null());
        assert!(sockets.iter().any(|s| s["local"] == "[::1]:7003"));

        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), document.to_string()).expect("writes");
        let path = file.path().to_str().expect("text");
        let again = json(&["ss", "-a", "--json", "--from", path]);
        assert_eq!(again["sockets"], document["sockets"]);
        assert_eq!(again["namespaces"], document["namespaces"]);
        let some = json(&["ss", "--json", "--from", path, "state", "close-wait"]);
        assert_eq!(some["sockets"].as_array().expect("sockets").len(), 5);
    });
}

#[test]
fn groups_have_counts_ages_and_bytes() {
    in_namespace(|| {
        let _zoo = zoo();
        let found = json(&["ss", "-a", "--json", "--group-by", "state,sport", "sport = :7001"]);
        let groups = found["groups"].as_array().expect("groups");
        let estab = groups.iter().find(|g| g["state"] == "ESTAB").expect("a group");
        assert_eq!(
            (&estab["count"], &estab["sport"], &estab["recv_q"]),
            (&2.into(), &"7001".into(), &6.into())
        );
        let table = text(&["ss", "-a", "--group-by", "process,state"]);
        assert!(table.lines().next().expect("header").starts_with("process"), "{table}");
        assert!(table.contains(&format!("/{}", std::process::id())), "{table}");
    });
}

#[test]
fn mistakes_have_three_lines_and_code_2() {
    for arguments in [
        &["ss", "state", "bogus"][..],
        &["ss", "--group-by", "colour"],
        &["ss", "--from", "/nonexistent/file"],
        &["ss", "--netns", "no-such-namespace"],
        &["ss", "--bogus"],
    ] {
        let output = lastack(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let starts: Vec<&str> = said.lines().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(starts[..3], ["error", "cause", "try"], "{arguments:?}: {said}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    in_namespace(|| {
        let _zoo = zoo();
        let status = Command::new("sh")
            .args([
                "-c",
                "for i in 1 2 3; do \"$0\" ss -a --json; [ $? = 0 ] || echo failed >&2; done | head -c 1",
                env!("CARGO_BIN_EXE_lastack"),
            ])
            .output()
            .expect("sh runs");
        assert!(status.stderr.is_empty(), "{}", String::from_utf8_lossy(&status.stderr));
    });
}
