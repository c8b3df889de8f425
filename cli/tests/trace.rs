//! `lastack trace` on the live kernel.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::{in_namespace, pair};

/// True where tracepoints can be read; says so where not.
fn can_trace() -> bool {
    let probe = Command::new(env!("CARGO_BIN_EXE_lastack"))
        .args(["trace", "--count", "0.01"])
        .output()
        .expect("starts");
    if !probe.status.success() {
        support::skipped(&format!("no tracepoints: {}", String::from_utf8_lossy(&probe.stderr)));
    }
    probe.status.success()
}

fn start(arguments: &[&str]) -> Child {
    let mut all = vec!["trace", "--json"];
    all.extend(arguments);
    Command::new(env!("CARGO_BIN_EXE_lastack"))
        .args(all)
        .env("LANG", "C")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}

/// Does `work` while tracing; the events about `port` until the interrupt, and the summary.
///
/// Tracepoints see the whole host: where others are so busy that events were lost (and counted), again.
fn traced(arguments: &[&str], port: u16, work: impl Fn()) -> (Vec<Value>, Value) {
    for _ in 0..10 {
        let (events, summary) = traced_once(arguments, port, &work);
        if summary["lost"] == 0 {
            return (events, summary);
        }
        eprintln!("{} events lost, again", summary["lost"]);
    }
    panic!("events were lost in ten runs");
}

fn traced_once(arguments: &[&str], port: u16, work: &impl Fn()) -> (Vec<Value>, Value) {
    let mut child = start(arguments);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut events = Vec::new();
    // Its rings may not be open yet: connections to a marker port are made until one is seen.
    let marker = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = marker.local_addr().expect("bound");
    let mut next = move || -> Value {
        let line = lines.next().expect("the stream goes on").expect("reads");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    };
    let is_marker = |event: &Value| event.to_string().contains(&format!("\"{address}\""));
    let ready = &std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let knock = scope.spawn(move || {
            while !ready.load(std::sync::atomic::Ordering::Relaxed) {
                drop(TcpStream::connect(address));
                lastack_observe::clock::pause(std::time::Duration::from_millis(20));
            }
        });
        while !is_marker(&next()) {}
        ready.store(true, std::sync::atomic::Ordering::Relaxed);
        knock.join().expect("no panic");
    });
    work();
    lastack_observe::clock::pause(std::time::Duration::from_millis(400));
    support::run("kill", &["-INT", &child.id().to_string()]);
    let summary = loop {
        let event = next();
        if event["event"] == "summary" {
            break event;
        }
        if event.to_string().contains(&format!(":{port}\"")) {
            events.push(event);
        }
    };
    assert!(child.wait().expect("ends").success());
    (events, summary)
}

fn names<'a>(events: &'a [Value], key: &str) -> Vec<&'a str> {
    events.iter().map(|event| event[key].as_str().unwrap_or("-")).collect()
}

#[test]
fn each_refused_connect_is_one_reset_with_its_reason() {
    if !can_trace() {
        return;
    }
    in_namespace(|| {
        let (events, summary) = traced(&[], 7901, || {
            for _ in 0..50 {
                assert!(TcpStream::connect("127.0.0.1:7901").is_err());
            }
        });
        let resets: Vec<_> = events.iter().filter(|event| event["event"] == "tcp_send_reset").collect();
        assert_eq!(resets.len(), 50);
        for reset in &resets {
            assert_eq!(reset["reason"], "NO_SOCKET", "{reset}");
            assert_eq!(reset["local"], "127.0.0.1:7901");
        }
        let received = events.iter().filter(|event| event["event"] == "tcp_receive_reset").count();
        assert_eq!(received, 50);
        let refused =
            events.iter().filter(|event| event["event"] == "inet_sk_error_report" && event["error"] == 111);
        assert_eq!(refused.count(), 50, "ECONNREFUSED");
        assert_eq!(summary["counts"]["tcp_send_reset"].as_u64().map(|n| n >= 50), Some(true));
    });
}

#[test]
fn a_life_is_told_in_order_and_by_whom() {
    if !can_trace() {
        return;
    }
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7902").expect("binds");
        let (events, _) = traced(
            &["sport", "=", ":7902", "or", "dport", "=", ":7902", "or", "src", "127.0.0.0/8"],
            7902,
            || {
                let (client, mut server) = pair(&listener);
                drop(client);
                server.read_to_end(&mut Vec::new()).expect("reads");
                drop(server);
            },
        );
        let client: Vec<_> = events
            .iter()
            .filter(|e| e["peer"] == "127.0.0.1:7902" && e["event"] == "inet_sock_set_state")
            .cloned()
            .collect();
        assert_eq!(names(&client, "new_state"), ["SYN-SENT", "ESTAB", "FIN-WAIT-1", "FIN-WAIT-2", "UNCONN"]);
        let closing = client.iter().find(|e| e["new_state"] == "FIN-WAIT-1").expect("told");
        assert_eq!(closing["pid"], std::process::id());
        let times: Vec<u64> = events.iter().map(|e| e["at_ns"].as_u64().expect("a time")).collect();
        assert!(times.is_sorted());
        let server: Vec<_> = events
            .iter()
            .filter(|e| e["local"] == "127.0.0.1:7902" && e["event"] == "inet_sock_set_state")
            .cloned()
            .collect();
        assert_eq!(names(&server, "new_state"), ["SYN-RECV", "ESTAB", "CLOSE-WAIT", "LAST-ACK", "UNCONN"]);
    });
}

#[test]
fn the_three_ways_to_end_are_told_apart() {
    if !can_trace() {
        return;
    }
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7903").expect("binds");
        let (events, _) = traced(&["--stacks"], 7903, || {
            let (mut client, server) = pair(&listener);
            client.write_all(b"unread").expect("writes");
            server.peek(&mut [0; 1]).expect("arrived");
            drop(server);
            let (_client, server) = pair(&listener);
            rustix::net::sockopt::set_socket_linger(&server, Some(std::time::Duration::ZERO))
                .expect("linger 0");
            drop(server);
        });
        let resets: Vec<_> = events.iter().filter(|e| e["event"] == "tcp_send_reset").collect();
        let reasons: Vec<_> = resets.iter().map(|e| e["reason"].as_str().expect("a reason")).collect();
        // Linux names the reset of a linger-0 close TCP_STATE (`tcp_disconnect`, `tcp_need_reset`).
        assert_eq!(reasons, ["TCP_ABORT_ON_CLOSE", "TCP_STATE"]);
        let stack = resets[0]["stack"].as_array().expect("a stack");
        assert!(
            stack.iter().any(|frame| frame.as_str().is_some_and(|f| f.starts_with("__tcp_close"))),
            "{stack:?}"
        );
    });
}

#[test]
fn counts_are_those_of_perf() {
    if !can_trace() {
        return;
    }
    in_namespace(|| {
        // Tracepoints count the whole host, where others may be busy: perf's interval lies between a
        // shorter and a longer one of ours, and so does its count. On a quiet host all three are equal.
        let count = |seconds: &str| {
            Command::new(env!("CARGO_BIN_EXE_lastack"))
                .args(["trace", "--count", seconds, "--json"])
                .stdout(Stdio::piped())
                .spawn()
                .expect("starts")
        };
        let perf = "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; \
                    exec perf stat -a -x, -e tcp:tcp_send_reset -e tcp:tcp_receive_reset -- sleep 2.5 2>&1";
        let pause = |ms| lastack_observe::clock::pause(std::time::Duration::from_millis(ms));
        let figures = |child: Child| -> [u64; 2] {
            let output = child.wait_with_output().expect("ends");
            let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
            ["tcp:tcp_send_reset", "tcp:tcp_receive_reset"]
                .map(|n| document["counts"][n].as_u64().expect("a count"))
        };
        let mut last = String::new();
        for _ in 0..3 {
            let longer = count("5");
            pause(800);
            let theirs =
                Command::new("unshare").args(["-m", "sh", "-c", perf]).stdout(Stdio::piped()).spawn();
            pause(800);
            let shorter = count("0.7");
            pause(300);
            for _ in 0..100 {
                assert!(TcpStream::connect("127.0.0.1:7904").is_err());
            }
            let theirs = theirs.and_then(Child::wait_with_output).expect("perf runs");
            let (longer, shorter) = (figures(longer), figures(shorter));
            let theirs = String::from_utf8_lossy(&theirs.stdout).into_owned();
            let counts: Vec<u64> = theirs.lines().filter_map(|l| l.split(',').next()?.parse().ok()).collect();
            if counts.len() != 2 {
                support::skipped(&format!("perf cannot count here: {theirs}"));
                return;
            }
            last = format!("shorter {shorter:?}, perf {counts:?}, longer {longer:?}");
            if (0..2).all(|i| 100 <= shorter[i] && shorter[i] <= counts[i] && counts[i] <= longer[i]) {
                return;
            }
        }
        panic!("{last}");
    });
}

#[test]
fn without_privilege_ends_are_told_with_their_figures() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7905").expect("binds");
        let (events, summary) = traced(&["--ends"], 7905, || {
            let (mut client, mut server) = pair(&listener);
            client.write_all(&[1; 1234]).expect("writes");
            drop(client);
            server.read_to_end(&mut Vec::new()).expect("reads");
            drop(server);
        });
        let server = events.iter().find(|e| e["local"] == "127.0.0.1:7905").expect("the server's end");
        assert_eq!(
            (&server["event"], &server["tcp_info"]["bytes_received"]),
            (&"ended".into(), &1235.into())
        );
        assert!(server["cookie"].as_u64().is_some_and(|cookie| cookie > 0));
        assert!(summary["counts"]["ended"].as_u64().is_some_and(|n| n >= 2));
    });
}
