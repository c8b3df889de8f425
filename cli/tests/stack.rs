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
