//! `lastack run --observe` on a wire that can be cut, and of programs with network namespaces of their own.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Neighbour, in_namespace, run, sysctl};

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

/// What lastack observes as `prefix` starts it, in a namespace of its own: what it said, and its journal.
fn observed(prefix: &str, script: &str) -> (String, Vec<Value>) {
    let folder = tempfile::tempdir().expect("a directory");
    let (journal, live) = (folder.path().join("journal"), folder.path().join("live"));
    let mut words: Vec<&str> = prefix.split_whitespace().collect();
    words.extend([env!("CARGO_BIN_EXE_lastack"), "run", "--observe", "--live", "--json", "--output"]);
    let status = Command::new(words[0])
        .args(&words[1..])
        .arg(&journal)
        .args(["--", "python3", "-c", script])
        .arg(&live)
        .env("LANG", "C")
        .stderr(std::fs::File::create(&live).expect("creates"))
        .status()
        .expect("starts");
    let said = std::fs::read_to_string(&live).expect("what it said");
    assert!(status.success(), "{status}: {said}");
    let text = std::fs::read_to_string(&journal).expect("a journal");
    (said, text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect())
}

/// Whether user namespaces are to be had; says so where not.
fn has_user_namespaces() -> bool {
    let tried = Command::new("unshare").args(["-Ur", "true"]).stderr(Stdio::null()).status();
    let has = tried.is_ok_and(|status| status.success());
    if !has {
        support::skipped("user namespaces are refused here");
    }
    has
}

/// For the programs: namespaces of their own, and what has been said of them.
const WORDS: &str = r#"
import ctypes, os, signal, socket, subprocess, sys, time
LIVE, UP = sys.argv[1], ["ip", "link", "set", "lo", "up"]
LIBC = ctypes.CDLL(None, use_errno=True)
def unshare(flags=0x40000000):
    if LIBC.unshare(flags) != 0: raise OSError(ctypes.get_errno(), "unshare")
def until_said(count, what="ESTAB"):
    while open(LIVE).read().count(what) < count: time.sleep(0.001)
def connection():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    return listener, client, listener.accept()[0]
"#;

/// In a user namespace root may enter its network namespaces, but has no tracepoints.
#[test]
fn namespaces_are_looked_into_without_tracepoints() {
    if !has_user_namespaces() {
        return;
    }
    in_namespace(|| {
        let script = r#"
children = []
for how in "unread", "clean":
    if not (child := os.fork()):
        unshare(); subprocess.check_call(UP)
        server = socket.create_server(("127.0.0.1", 7100))
        client = socket.create_connection(("127.0.0.1", 7100), source_address=("127.0.0.1", 7200))
        served, _ = server.accept()
        until_said(4)
        if how == "unread":
            client.send(b"0123456789"); served.recv(1, socket.MSG_PEEK); served.close()
            try: client.recv(1)
            except ConnectionResetError: pass
            client.close()
        else:
            client.close(); served.recv(1); served.close()
        os._exit(0)
    children.append(child)
for child in children: assert os.waitpid(child, 0)[1] == 0
"#;
        let (said, journal) = observed("unshare -Urn", &format!("{WORDS}{script}"));
        assert!(!said.contains("warning"), "{said}");
        let fields = ["process", "local", "direction", "how"];
        let mut told: Vec<String> = journal
            .iter()
            .map(|told| fields.map(|field| told[field].as_str().unwrap_or("-")).join(" "))
            .collect();
        told.sort();
        assert_eq!(
            told,
            [
                "python3 127.0.0.1:7100 in fin",
                "python3 127.0.0.1:7100 in reset",
                "python3 127.0.0.1:7200 out fin",
                "python3 127.0.0.1:7200 out reset",
            ],
            "{journal:?}"
        );
        for told in &journal {
            assert_ne!(told["certainty"], "observed", "nobody told: {told}");
            if told["how"] == "fin" {
                let first = if told["direction"] == "out" { "program" } else { "remote" };
                assert_eq!((&told["closed_by"], &told["certainty"]), (&first.into(), &"inferred".into()));
            }
        }
    });
}

/// 70 namespaces at a time are seven too many beside our own; what happens in the others is told.
#[test]
fn more_namespaces_than_are_looked_at_are_counted() {
    in_namespace(|| {
        let script = r#"
subprocess.check_call(UP)
ready, go = os.pipe(), os.pipe()
children = []
for n in range(70):
    if not (child := os.fork()):
        os.close(go[1])
        unshare(); subprocess.check_call(UP)
        held = connection()
        os.write(ready[1], b"x"); os.read(go[0], 1)
        os._exit(0)
    children.append(child)
for n in range(70): assert os.read(ready[0], 1)
# Seen by one look; the next, which sees the second, has asked for the processes after they were all there.
until_said(2 * 63)
first = connection(); until_said(2 * 64)
second = connection(); until_said(2 * 65)
os.close(go[1])
for child in children: assert os.waitpid(child, 0)[1] == 0
"#;
        let (said, journal) = observed("env", &format!("{WORDS}{script}"));
        let warning = "more than 64 network namespaces at a time: 7 of them had to wait";
        assert!(said.contains(warning), "{said}");
        assert!(!said.contains("could not be looked at"), "{said}");
        // Both ends of one in each of 63 namespaces, of two in our own; root's tracepoints may name ends elsewhere.
        assert_eq!(journal.len(), 2 * 65, "{said}");
    });
}

#[test]
fn a_namespace_that_may_not_be_entered_is_counted() {
    if !has_user_namespaces() {
        return;
    }
    in_namespace(|| {
        let script = r#"
subprocess.check_call(["true"])
ready, go = os.pipe(), os.pipe()
if not (child := os.fork()):
    os.close(go[1])
    unshare(0x50000000)
    os.write(ready[1], b"x"); os.read(go[0], 1)
    os._exit(0)
assert os.read(ready[0], 1)
first = connection(); until_said(2)
second = connection(); until_said(4)
os.close(go[1])
assert os.waitpid(child, 0)[1] == 0
"#;
        run("ip", &["link", "set", "lo", "up"]);
        let prefix = "unshare -Ur setpriv --bounding-set=-all";
        let (said, journal) = observed(prefix, &format!("{WORDS}{script}"));
        let warning = "the program's processes were in 1 network namespace that could not be looked at";
        assert!(said.contains(warning), "{said}");
        assert_eq!(journal.len(), 4, "{journal:?}");
    });
}

/// While lastack is stopped, a namespace comes and goes. Root's tracepoints tell that something was there.
#[test]
fn what_ended_in_a_namespace_that_nobody_looked_at_is_counted() {
    in_namespace(|| {
        let script = r#"
lastack = os.getppid()
os.kill(lastack, signal.SIGSTOP)
while " (lastack) T " not in open(f"/proc/{lastack}/stat").read(): time.sleep(0.001)
if not (child := os.fork()):
    unshare(); subprocess.check_call(UP)
    listener, client, served = connection()
    # With data unread: reset and freed by the one that closes, not later by the kernel on its own.
    client.send(b"x"); served.recv(1, socket.MSG_PEEK); served.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
os.kill(lastack, signal.SIGCONT)
"#;
        let (said, journal) = observed("env", &format!("{WORDS}{script}"));
        assert!(said.contains("ended in a network namespace of its own before that was looked"), "{said}");
        let ends = |told: &&Value| told["how"] != "open";
        assert_eq!(journal.iter().filter(ends).count(), 0, "{journal:?}");
    });
}
