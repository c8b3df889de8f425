//! `lastack run --observe` on a wire that can be cut.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Neighbour, in_namespace, sysctl};

/// The kernel has forgotten what was not acknowledged by the time the socket ends: it must not pass for an idle one.
#[test]
fn data_that_nobody_acknowledged_is_no_keepalive_time_out() {
    in_namespace(|| {
        let neighbour = Neighbour::new();
        let listener = neighbour.run(|| TcpListener::bind("10.7.0.2:7000").expect("binds"));
        sysctl("tcp_retries2", "2");
        let folder = tempfile::tempdir().expect("a directory");
        let journal = folder.path().join("journal");
        let script = "exec 3<>/dev/tcp/10.7.0.2/7000; echo connected; read -r line; echo data >&3; cat <&3";
        let child = Command::new(env!("CARGO_BIN_EXE_lastack"))
            .args(["run", "--observe", "--json", "--output"])
            .arg(&journal)
            .args(["--", "bash", "-c", script])
            .env("LANG", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("reads");
        assert_eq!(line, "connected\n");
        let server = listener.accept().expect("accepts");
        neighbour.falls_silent();
        child.stdin.take().expect("piped").write_all(b"\n").expect("writes");
        let said = child.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("timed out"), "cat saw ETIMEDOUT: {said}");
        let text = std::fs::read_to_string(&journal).expect("a journal");
        let told: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("an object");
        assert_eq!((&told["how"], &told["closed_by"]), (&"timeout".into(), &"none".into()), "{told}");
        // Without tracepoints, or with a kernel that loses one, the counters tell.
        assert_ne!(told["certainty"], "possible", "{told}");
        assert_eq!(told["reason"], "retries-exhausted", "{told}");
        assert_eq!(told["outside"]["unacked_bytes"], 5, "{told}");
        drop(server);
    });
}
