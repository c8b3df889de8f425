//! `lastack trace` on the live kernel.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
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
        // What the server's packets did to it is nobody's act, but the same program's connection.
        for event in &client {
            assert_eq!(event["owner"]["pid"], std::process::id(), "{event}");
            assert_eq!(
                event["pid"].is_null(),
                !matches!(event["new_state"].as_str(), Some("SYN-SENT" | "FIN-WAIT-1"))
            );
        }
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

/// A counter that has begun: a child that ends, and says what it counted, at an interrupt or at a line of input.
struct Counter(Child);

impl Counter {
    /// `lastack trace --count` for as long as it takes.
    fn ours(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lastack"))
            .args(["trace", "--count", "1000", "--json"])
            .args(arguments)
            .env("LANG", "C")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut first = String::new();
        BufReader::new(child.stderr.as_mut().expect("piped")).read_line(&mut first).expect("reads");
        assert!(first.starts_with("counting"), "{first}");
        Self(child)
    }

    /// `perf stat` of the whole host; none where perf cannot count.
    fn perfs(events: &[&str]) -> Option<Self> {
        // The command that perf runs starts when counting has: its word is perf's readiness, its end perf's.
        let script = "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; \
                      exec perf stat -a -x, \"$@\" -- sh -c 'echo counting; read line'";
        let mut child = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh"])
            .args(events)
            .env("LANG", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut first).expect("reads");
        if first.is_empty() {
            let output = child.wait_with_output().expect("ends");
            support::skipped(&format!("perf cannot count: {}", String::from_utf8_lossy(&output.stderr)));
            return None;
        }
        Some(Self(child))
    }

    fn our_document(self) -> Value {
        support::run("kill", &["-INT", &self.0.id().to_string()]);
        let output = self.0.wait_with_output().expect("ends");
        serde_json::from_slice(&output.stdout).expect("a document")
    }

    fn our_counts(self) -> BTreeMap<String, u64> {
        let document = self.our_document();
        assert_eq!(document["lost"], 0, "{document}");
        let counts = document["counts"].as_object().expect("counts");
        counts.iter().map(|(name, n)| (name.clone(), n.as_u64().expect("a number"))).collect()
    }

    fn perfs_counts(mut self) -> BTreeMap<String, u64> {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output().expect("ends");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // 100,,tcp:tcp_send_reset,…
        let line = |line: &str| {
            let mut fields = line.split(',');
            Some((fields.next()?.parse().ok()?, fields.nth(1)?.to_owned()))
        };
        let counts: BTreeMap<String, u64> =
            text.lines().filter_map(line).map(|(n, name)| (name, n)).collect();
        assert!(!counts.is_empty(), "{text}");
        counts
    }
}

/// A hundred refused connects and fifty whole connections.
fn refusals_and_lives(refused: u16, listener: &TcpListener) {
    for _ in 0..100 {
        assert!(TcpStream::connect(("127.0.0.1", refused)).is_err());
    }
    for _ in 0..50 {
        let (client, mut server) = pair(listener);
        drop(client);
        server.read_to_end(&mut Vec::new()).expect("reads");
    }
}

/// Tracepoints count the whole host, where others may be busy. So perf's interval lies between a longer and a shorter one of
/// ours, and each of its counts between theirs; where the two are equal nothing else happened, and perf's is the same.
#[test]
fn counts_are_those_of_perf() {
    if !can_trace() {
        return;
    }
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7914").expect("binds");
        let made = ["tcp:tcp_send_reset", "tcp:tcp_receive_reset"];
        let mut equal = BTreeSet::new();
        for round in 1..=30 {
            let longer = Counter::ours(&[]);
            let Some(perf) = Counter::perfs(&["-e", "tcp:*", "-e", "sock:inet_sock_set_state"]) else {
                return;
            };
            let shorter = Counter::ours(&[]);
            refusals_and_lives(7904, &listener);
            let (shorter, perf, longer) = (shorter.our_counts(), perf.perfs_counts(), longer.our_counts());
            assert_eq!(perf.keys().collect::<Vec<_>>(), longer.keys().collect::<Vec<_>>(), "the same events");
            for (name, theirs) in &perf {
                let (least, most) = (shorter[name], longer[name]);
                assert!(least <= *theirs && *theirs <= most, "{name}: {least}, perf {theirs}, {most}");
                if least == most && *theirs >= 100 {
                    equal.insert(name.clone());
                }
            }
            eprintln!("round {round}: the same count of {equal:?}");
            if made.iter().all(|name| equal.contains(*name)) {
                return;
            }
        }
        panic!("others reset connections in every one of thirty rounds");
    });
}

/// Of chosen connections nobody else has any: the two counts are equal, whatever else the host does.
#[test]
fn counts_of_chosen_connections_are_those_of_perf_with_the_same_filter() {
    if !can_trace() {
        return;
    }
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7915").expect("binds");
        let filter = "sport == 7915 || dport == 7915";
        let events = [
            "-e",
            "sock:inet_sock_set_state",
            "--filter",
            filter,
            "-e",
            "tcp:tcp_receive_reset",
            "--filter",
            filter,
        ];
        for _ in 0..10 {
            let Some(perf) = Counter::perfs(&events) else { return };
            let ours = Counter::ours(&["--per-process", "sport = :7915 or dport = :7915"]);
            refusals_and_lives(7905, &listener);
            for _ in 0..20 {
                let (client, server) = pair(&listener);
                rustix::net::sockopt::set_socket_linger(&server, Some(std::time::Duration::ZERO))
                    .expect("linger 0");
                drop(server);
                drop(client);
            }
            let (ours, perf) = (ours.our_document(), perf.perfs_counts());
            if ours["lost"] != 0 {
                continue;
            }
            let sum = |name: &str| -> u64 {
                let processes = ours["processes"].as_array().expect("a list");
                processes.iter().filter_map(|process| process["counts"][name].as_u64()).sum()
            };
            for (name, count) in &perf {
                assert_eq!(sum(name), *count, "{name}: {ours}");
            }
            assert_eq!(perf["tcp:tcp_receive_reset"], 20);
            // Who connects, listens or closes is known; what a packet makes happen is nobody's.
            let own = std::process::id();
            let known =
                ours["processes"].as_array().expect("a list").iter().any(|process| process["pid"] == own);
            assert!(known, "{ours}");
            return;
        }
        panic!("events were lost in ten runs");
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

/// On a large machine a trace takes more descriptors than a soft limit of 1,024 allows; here the limit is small instead.
#[test]
fn descriptors_are_had_beyond_the_soft_limit_and_the_program_keeps_it() {
    if !can_trace() {
        return;
    }
    let sh = |script: &str| {
        let script = script.replace("lastack", env!("CARGO_BIN_EXE_lastack"));
        let output = Command::new("sh").args(["-c", &script]).env("LANG", "C").output().expect("starts");
        let [said, told] =
            [output.stderr, output.stdout].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.code(), said, told)
    };
    for trace in ["lastack trace --duration 0.1", "lastack trace --count 0.1"] {
        let (code, said, _) = sh(&format!("ulimit -Sn 18; {trace}"));
        assert_eq!((code, said.contains("note: only the ends")), (Some(0), false), "{trace}: {said}");
    }
    let (code, said, told) = sh("ulimit -Sn 28; lastack run --observe -- sh -c 'ulimit -Sn'");
    assert_eq!((code, told.as_str()), (Some(0), "28\n"), "{said}");
    let (code, said, _) = sh("ulimit -n 18; lastack trace --drops --duration 0.1");
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("take") && said.contains("may have 18") && said.contains("ulimit -n 65536"),
        "{said}"
    );
}
