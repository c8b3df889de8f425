//! The operator's commands on a running lastack: the same rows, events and ends as on the kernel.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
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

/// Two stacks in this process, the server's served under a name: `lastack --source` sees it as any running lastack.
struct InProcess {
    net: lastack::Net,
    client: lastack::Net,
    name: String,
    _control: lastack::control::ControlSocket,
}

impl InProcess {
    fn new(what: &str) -> Self {
        let config = |last: u8| lastack::Config {
            seed: [last; 32],
            addresses: vec![([10, 0, 0, last].into(), 24)],
            ..lastack::Config::default()
        };
        let (near, far) = lastack::Memory::pair(1500);
        let net = lastack::Net::spawn_thread(near, config(1)).expect("a stack");
        let client = lastack::Net::spawn_thread(far, config(2)).expect("a stack");
        let name = format!("{what}-{}", std::process::id());
        let control = lastack::control::serve(&net, &name).expect("a control socket");
        Self { net, client, name, _control: control }
    }

    /// A connection that the stack has closed and the client has not.
    fn orphan(&self, port: u16) -> lastack::blocking::TcpStream {
        let listener =
            lastack::blocking::TcpListener::bind(&self.net, format!("10.0.0.1:{port}")).expect("binds");
        let client = lastack::blocking::TcpStream::connect(&self.client, format!("10.0.0.1:{port}"))
            .expect("connects");
        drop(listener.accept().expect("accepts"));
        client
    }
}

/// The timer of the one FIN-WAIT-2 socket `lastack ss -o` shows: its name and the time left, in milliseconds.
fn fin_wait_2_timer(source: &[&str], port: u16) -> Option<(String, u64)> {
    let filter = format!("sport = :{port}");
    let mut arguments = vec!["ss", "-o", "--json"];
    arguments.extend(source);
    arguments.extend(["state", "fin-wait-2", &filter]);
    let document = json(&arguments, 0);
    let timer = &document["sockets"].as_array()?.first()?["timer"];
    Some((timer["name"].as_str()?.to_owned(), timer["expires_ms"].as_u64()?))
}

/// Specification 1.5: with 70 the socket waits 10 s on its keepalive timer; with 63 three, then three as a record.
fn both_phases(set: impl Fn(&str), source: &[&str], orphan: impl Fn(u16)) {
    set("70");
    orphan(7001);
    let (name, left) = eventually("FIN-WAIT-2", || fin_wait_2_timer(source, 7001));
    assert_eq!(name, "keepalive");
    assert!(left <= 10_300, "{left} ms of 10 s");
    set("63");
    orphan(7002);
    let mut phases: Vec<String> = Vec::new();
    eventually("FIN-WAIT-2 begins and ends", || match fin_wait_2_timer(source, 7002) {
        Some((name, left)) => {
            assert!(left <= 3_300, "{name}: {left} ms, and not the rest of 63 s");
            if phases.last() != Some(&name) {
                phases.push(name);
            }
            None
        }
        None => (!phases.is_empty()).then_some(()),
    });
    assert_eq!(phases.last().map(String::as_str), Some("timewait"), "{phases:?}");
    assert!(phases.len() <= 2, "{phases:?}");
}

/// The program is the stack's peer, as everywhere with `--source`.
#[test]
fn the_exporter_follows_a_stack_until_it_ends() {
    let world = InProcess::new("exported");
    let folder = tempfile::tempdir().expect("a directory");
    let log = folder.path().join("closed.ndjson");
    let mut exporter = Command::new(env!("CARGO_BIN_EXE_lastack"))
        .args(["export", "--json", "--listen", "127.0.0.1:0", "--interval", "0.1"])
        .args(["--source", &world.name, "--ndjson", log.to_str().expect("text")])
        .env("LANG", "C")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut said = String::new();
    BufReader::new(exporter.stdout.take().expect("piped")).read_line(&mut said).expect("reads");
    let serving: Value = serde_json::from_str(&said).expect("a line");
    let url = serving["url"].as_str().expect("where").to_owned();
    let address = url.trim_start_matches("http://").trim_end_matches("/metrics");
    let metrics = || {
        let mut scrape = std::net::TcpStream::connect(address).expect("connects");
        scrape.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("asks");
        let mut text = String::new();
        scrape.read_to_string(&mut text).expect("is answered");
        text
    };

    let orphaned = world.orphan(7001);
    eventually("the gauge of FIN-WAIT-2", || {
        metrics().contains("lastack_connections{state=\"FIN-WAIT-2\"} 1.0\n").then_some(())
    });
    drop(orphaned);
    let listener = lastack::blocking::TcpListener::bind(&world.net, "10.0.0.1:7002").expect("binds");
    let mut client = lastack::blocking::TcpStream::connect(&world.client, "10.0.0.1:7002").expect("connects");
    let (server, _) = listener.accept().expect("accepts");
    client.write_all(b"never read").expect("writes");
    // What arrived has not been read: a reset.
    eventually("it has arrived", || {
        let filter = "sport = :7002 and state established";
        let words: Vec<&str> = filter.split(' ').collect();
        let arguments = [&["ss", "--source", &world.name, "--json"], words.as_slice()].concat();
        (json(&arguments, 0)["sockets"][0]["recv_q"] == 10).then_some(())
    });
    drop(server);
    let text = eventually("both ends are counted", || {
        let text = metrics();
        text.contains("how=\"reset\"").then_some(text)
    });
    let closed = |labels: &str| text.contains(&format!("lastack_connections_closed_total{{{labels}}} 1\n"));
    assert!(closed(r#"how="fin",reason="none",closed_by="remote""#), "{text}");
    assert!(closed(r#"how="reset",reason="TCP_ABORT_ON_CLOSE",closed_by="remote""#), "{text}");
    let sent = "lastack_resets_total{direction=\"sent\",reason=\"TCP_ABORT_ON_CLOSE\"} 1\n";
    assert!(text.contains(sent), "{text}");
    let lines = std::fs::read_to_string(&log).expect("a log");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    let [fin, reset] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((&fin["source"], &fin["how"]), (&world.name.as_str().into(), &"fin".into()));
    assert_eq!((&reset["remote"], &reset["bytes_up"]), (&"10.0.0.1:7002".into(), &10.into()));

    drop((client, listener));
    drop(world);
    let output = exporter.wait_with_output().expect("ends");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("has ended"));
}

/// Linux puts a tab between two ports: that makes them no others.
#[test]
fn settings_at_their_defaults_are_listed_as_such() {
    let world = InProcess::new("defaults");
    let output = Command::new(env!("CARGO_BIN_EXE_lastack"))
        .args(["sysctl", "--source", &world.name])
        .env("LANG", "C")
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ports = text.lines().find(|line| line.contains("ip_local_port_range")).expect("its line");
    assert!(ports.starts_with("   ip_local_port_range") && !ports.contains('\t'), "{ports:?}");
    assert!(ports.trim_end().ends_with('…'), "what is cut off shows it: {ports}");
}

#[test]
fn above_60_s_an_orphan_of_fin_wait_2_has_two_phases_on_the_stack() {
    let world = InProcess::new("phases");
    let kept = std::cell::RefCell::new(Vec::new());
    both_phases(
        |value| world.net.set_sysctl("tcp_fin_timeout", value).expect("in range"),
        &["--source", &world.name],
        |port| kept.borrow_mut().push(world.orphan(port)),
    );
}

#[test]
fn above_60_s_an_orphan_of_fin_wait_2_has_two_phases_on_the_kernel() {
    support::in_namespace(|| {
        let kept = std::cell::RefCell::new(Vec::new());
        both_phases(
            |value| support::sysctl("tcp_fin_timeout", value),
            &[],
            |port| {
                let listener = TcpListener::bind(("127.0.0.1", port)).expect("binds");
                kept.borrow_mut().push(support::pair(&listener).0);
            },
        );
    });
}
