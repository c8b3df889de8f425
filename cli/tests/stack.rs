//! The operator's commands on a running lastack: the same rows, events and ends as on the kernel.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::eventually;

fn json(arguments: &[&str], code: i32) -> Value {
    let output =
        Command::new(env!("CARGO_BIN_EXE_lastack")).args(arguments).env("LANG", "C").output().expect("runs");
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("a document")
}

#[test]
fn a_run_is_looked_into_and_its_connection_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("bound").port();
    let name = format!("observe-{}", std::process::id());
    let script = format!("exec 3<>/dev/tcp/10.0.2.2/{port}; cat <&3; sleep 0.3");
    let mut child = Command::new(env!("CARGO_BIN_EXE_lastack"))
        .args(["run", "--name", &name, "--report", "none", "--", "bash", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    listener.set_nonblocking(true).expect("a flag");
    let accepted = eventually("the connection comes, or the run ends", || {
        if let Ok((stream, _)) = listener.accept() {
            return Some(Some(stream));
        }
        child.try_wait().expect("waits").map(|_| None)
    });
    let Some(server) = accepted else {
        let output = child.wait_with_output().expect("ends");
        support::skipped(&format!(
            "lastack run does not work here: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
        return;
    };
    let row = eventually("the stack shows it", || {
        let document = json(&["ss", "--source", &name, "--json"], 0);
        assert_eq!(document["source"], name.as_str());
        document["sockets"].as_array()?.iter().find(|s| s["state"] == "ESTAB").cloned()
    });
    assert_eq!(row["local"], format!("10.0.2.2:{port}"));
    assert!(row["tcp_info"]["snd_cwnd"].as_u64().is_some_and(|cwnd| cwnd > 0), "{row}");
    // The same by process id; counters and settings come along.
    let document = json(&["ss", "--source", &child.id().to_string(), "-a", "--json"], 0);
    assert_eq!(document["namespaces"][0]["sysctls"]["tcp_fin_timeout"], "60", "{document}");
    assert!(document["namespaces"][0]["counters"]["PassiveOpens"].as_u64().is_some_and(|n| n >= 1));
    assert_eq!(
        json(&["doctor", "--source", &name, "--json", "--interval", "0.1"], 0)["findings"],
        Value::Array(vec![])
    );
    assert_eq!(json(&["sysctl", "--source", &name, "tcp_fin_timeout=7", "--json"], 0)["value"], "7");
    let tracer = Command::new(env!("CARGO_BIN_EXE_lastack"))
        .args(["trace", "--source", &name, "--json", "--duration", "3"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    lastack_observe::clock::pause(std::time::Duration::from_millis(400));
    let filter = format!("sport = :{port}");
    assert_eq!(json(&["kill", "--source", &name, "--dry-run", "--json", &filter], 0)["matched"], 1);
    assert_eq!(json(&["kill", "--source", &name, "--yes", "--json", &filter], 0)["ended"], 1);
    eventually("the program inside ends", || child.try_wait().expect("waits").map(|_| ()));
    let events = tracer.wait_with_output().expect("ends");
    let text = String::from_utf8_lossy(&events.stdout).into_owned();
    let reset: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["event"] == "tcp_send_reset")
        .collect();
    assert_eq!(reset.len(), 1, "{text}");
    assert_eq!((&reset[0]["reason"], &reset[0]["cookie"]), (&"KILLED".into(), &row["cookie"]));
    drop(server);
    let output =
        Command::new(env!("CARGO_BIN_EXE_lastack")).args(["ss", "--source", &name]).output().expect("runs");
    assert_eq!(output.status.code(), Some(2), "it has ended");
    assert!(String::from_utf8_lossy(&output.stderr).contains("\ncause: "));
}
