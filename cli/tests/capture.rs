//! `doctor`, `trace` and `ss` on captures that dumpcap takes of the live kernel.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use support::{eventually, fill, in_namespace, pair};

/// A port where nobody listens.
const MARKER: u16 = 7999;

/// dumpcap on this namespace's loopback.
struct Dump {
    child: Child,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Dump {
    fn start(format: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("trace");
        let child = Command::new("dumpcap")
            .args(["-q", "-i", "lo", "-B", "16", format, "-w"])
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                support::skipped(&format!("dumpcap (apt install tshark): {error}"));
                return None;
            }
        };
        // It says "File: …" when it captures.
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.as_mut().expect("piped"));
        while !said.contains("File:") {
            assert!(lines.read_line(&mut said).expect("reads") > 0, "dumpcap ended: {said}");
        }
        Some(Self { child, file, _directory: directory })
    }

    /// Stops when everything up to now is in the file: a last connect that is refused says so.
    fn stop(mut self) -> Stopped {
        assert!(TcpStream::connect(("127.0.0.1", MARKER)).is_err());
        let marker = format!("127.0.0.1:{MARKER}");
        eventually("dumpcap writes", || {
            let document = doctor(&self.file, &[]);
            let list = document["connections"].as_array()?.iter();
            list.into_iter().any(|it| it["second"] == marker.as_str() && it["how"] == "refused").then_some(())
        });
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        let mut rest = String::new();
        let _ = self.child.stderr.take().expect("piped").read_to_string(&mut rest);
        assert!(self.child.wait().expect("ends").success(), "{rest}");
        Stopped { file: self.file, _directory: self._directory }
    }
}

struct Stopped {
    file: PathBuf,
    _directory: tempfile::TempDir,
}

fn lastack(arguments: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lastack"))
        .arg(arguments[0])
        .arg("--from")
        .arg(file)
        .args(&arguments[1..])
        .env("LANG", "C")
        .output()
        .expect("starts")
}

fn doctor(file: &Path, flags: &[&str]) -> Value {
    let output = lastack(&[&["doctor", "--json"], flags].concat(), file);
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said)
        .unwrap_or_else(|e| panic!("{e}: {said} {}", String::from_utf8_lossy(&output.stderr)))
}

/// The connection that went to `port`.
fn connection(document: &Value, port: u16) -> Value {
    let to = format!("127.0.0.1:{port}");
    let list = document["connections"].as_array().expect("connections");
    let found = list.iter().find(|connection| connection["second"] == to.as_str());
    found.unwrap_or_else(|| panic!("none to {to}: {document}")).clone()
}

/// Waits until the kernel has shown what follows in its own table: the packets are then in the capture's ring.
fn settled(filter: &[&str], count: usize) {
    eventually("the kernel settles", || {
        let table = support::run("ss", &[&["-Htan"], filter].concat());
        (table.lines().count() == count).then_some(())
    });
}

/// What this namespace's kernel has counted as RetransSegs; a segment on the loopback is never cut.
fn retransmitted() -> usize {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("counters");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs.find(|(name, _)| *name == "RetransSegs").expect("it is there").1.parse().expect("a number")
}

#[test]
fn endings_are_told_apart_as_far_as_packets_tell() {
    for format in ["-n", "-P"] {
        in_namespace(move || {
            let Some(dump) = Dump::start(format) else { return };
            let clean = TcpListener::bind("127.0.0.1:7001").expect("binds");
            let unread = TcpListener::bind("127.0.0.1:7002").expect("binds");
            let closed = TcpListener::bind("127.0.0.1:7003").expect("binds");
            // Clean: the client closes first.
            let (client, mut server) = pair(&clean);
            (&client).write_all(b"hello").expect("writes");
            drop(client);
            server.read_to_end(&mut Vec::new()).expect("reads");
            drop(server);
            // Closed with data unread.
            let (client, server) = pair(&unread);
            (&client).write_all(b"nobody reads this").expect("writes");
            eventually("the data is there", || (server.peek(&mut [0]).expect("peeks") == 1).then_some(()));
            drop(server);
            eventually("the reset is there", || client.take_error().expect("asks").map(drop));
            // Data after close.
            let (client, server) = pair(&closed);
            drop(server);
            eventually("the FIN is there", || (client.peek(&mut [0]).expect("peeks") == 0).then_some(()));
            (&client).write_all(b"too late").expect("the first write is taken");
            eventually("the reset is there", || client.take_error().expect("asks").map(drop));
            // Refused.
            assert!(TcpStream::connect("127.0.0.1:7004").is_err());
            let stopped = dump.stop();
            let document = doctor(&stopped.file, &[]);
            let told = |port| {
                let it = connection(&document, port);
                ["how", "closed_by", "reason", "certainty"]
                    .map(|field| it[field].as_str().unwrap_or("-").to_owned())
            };
            assert_eq!(told(7001), ["fin", "first", "-", "observed"]);
            assert_eq!(connection(&document, 7001)["bytes_up"], 5);
            assert_eq!(told(7002), ["reset", "second", "aborted", "possible"]);
            assert_eq!(told(7003), ["reset", "second", "data-after-close", "inferred"]);
            assert_eq!(told(7004), ["refused", "second", "no-listener", "observed"]);
            assert_eq!(document["findings"], Value::Array(Vec::new()), "{document}");
        });
    }
}

#[test]
fn frozen_reader_and_half_closed_connections_are_findings_with_one_socket() {
    in_namespace(|| {
        let Some(dump) = Dump::start("-n") else { return };
        let listener = TcpListener::bind("127.0.0.1:7001").expect("binds");
        let (frozen, writer) = pair(&listener);
        fill(&writer);
        let (half, open) = pair(&listener);
        half.shutdown(Shutdown::Write).expect("shuts");
        settled(&["state", "fin-wait-2"], 1);
        // Two probes of the closed window.
        eventually("probes", || {
            let table = support::run("ss", &["-Htno", "state", "established", "sport", "=", ":7001"]);
            let mut timer = table.split("persist,").skip(1).filter_map(|rest| rest.split(')').next());
            timer
                .any(|rest| rest.contains("sec") || rest.ends_with("ms,1") || rest.contains("1."))
                .then_some(())
        });
        let stopped = dump.stop();
        let repeated = retransmitted();
        drop((frozen, writer, half, open));
        let document = doctor(&stopped.file, &["--min-age", "100ms"]);
        let findings = document["findings"].as_array().expect("findings");
        let mut ids: Vec<_> =
            findings.iter().map(|finding| finding["id"].as_str().expect("a word")).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["close-wait.leak", "established.zero-window"], "{document}");

        let output = lastack(&["trace", "--json"], &stopped.file);
        let events = String::from_utf8_lossy(&output.stdout);
        let count = |name: &str| {
            let lines = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.filter(|event| event["event"] == name).count()
        };
        assert_eq!(count("zero_window"), 1, "{events}");
        assert!(count("window_probe") >= 1, "{events}");
        assert_eq!(count("tcp_retransmit_skb"), repeated, "as many as the kernel counted: {events}");

        let output = lastack(&["ss", "-Htn", "state", "close-wait"], &stopped.file);
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
    });
}

#[test]
fn what_is_neither_snapshot_nor_capture_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("x");
    for (content, code) in [(&b"\xd4\xc3\xb2\xa1rubbish"[..], 2), (b"rubbish", 2)] {
        std::fs::write(&file, content).expect("writes");
        let output = lastack(&["doctor"], &file);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        for line in ["error: ", "cause: ", "try: "] {
            assert!(said.contains(line), "{said}");
        }
    }
}
