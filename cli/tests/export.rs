//! `lastack export` and `lastack record` on the live kernel; files that go with them.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

mod examine;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use examine::{ONCE, finding};
use lastack_observe::export::files;
use serde_json::Value;
use support::{Neighbour, eventually, in_namespace, many_files, pair, run};

fn start(arguments: &[&str], memory: &std::path::Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_lastack"))
        .args(arguments)
        .env("LANG", "C")
        .env("LASTACK_RECORD", memory)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}

fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("connects");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("asks");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("is answered");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}

fn stop(mut child: Child) {
    run("kill", &["-INT", &child.id().to_string()]);
    assert!(child.wait().expect("ends").success());
}

/// The value of the metric that begins with `start`.
fn value(text: &str, start: &str) -> Option<f64> {
    text.lines().find(|line| line.starts_with(start))?.rsplit(' ').next()?.parse().ok()
}

#[test]
fn metrics_equal_ss_and_count_what_ends() {
    in_namespace(|| {
        let zoo = support::zoo();
        let folder = tempfile::tempdir().expect("a directory");
        let log = folder.path().join("closed.ndjson");
        let (child, address) = exporter(
            &["--interval", "0.2", "--ndjson", log.to_str().expect("text")],
            &folder.path().join("none"),
        );
        let states = ["CLOSE-WAIT", "FIN-WAIT-2", "ESTAB"];
        eventually("the gauges equal ss", || {
            let (head, text) = get(&address, "/metrics");
            assert!(head.starts_with("HTTP/1.1 200") && text.ends_with("# EOF\n"), "{head}");
            let equal = states.iter().all(|state| {
                // The scrape's own connection is there for the exporter and not for ss, or the other way round.
                let filter = format!(
                    "sport != :{p} and dport != :{p}",
                    p = address.rsplit(':').next().expect("a port")
                );
                let name = match *state {
                    "ESTAB" => "established".to_owned(),
                    other => other.to_ascii_lowercase(),
                };
                let theirs = run("ss", &["-Htn", "state", &name, &filter]).lines().count();
                let ours =
                    value(&text, &format!("lastack_connections{{state=\"{state}\"}}")).expect("a gauge");
                ours as usize == theirs || *state == "ESTAB" && (ours as usize).abs_diff(theirs) <= 2
            });
            equal.then_some(())
        });
        let listener = TcpListener::bind("127.0.0.1:7950").expect("binds");
        for _ in 0..7 {
            let (client, mut server) = pair(&listener);
            drop(client);
            server.read_to_end(&mut Vec::new()).expect("reads");
        }
        let text = eventually("fourteen ends of seven connections are counted", || {
            let lines = std::fs::read_to_string(&log).unwrap_or_default();
            let ours = lines.lines().filter(|line| line.contains(":7950\"")).count();
            (ours == 14).then_some(lines)
        });
        for line in text.lines().filter(|line| line.contains(":7950\"")) {
            let closed: Value = serde_json::from_str(line).expect("a line");
            assert_eq!((&closed["schema"], &closed["event"]), (&1.into(), &"connection".into()));
            if closed["how"] == "fin" {
                let expected = if closed["local"] == "127.0.0.1:7950" { "remote" } else { "program" };
                assert_eq!(closed["closed_by"], expected, "{closed}");
                assert!(closed["duration_us"].as_u64().is_some());
            }
        }
        let (_, text) = get(&address, "/metrics");
        let closed: f64 = text
            .lines()
            .filter(|line| line.starts_with("lastack_connections_closed_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        assert!(closed >= 14.0, "{text}");
        assert_eq!(value(&text, "lastack_findings{id=\"close-wait.leak\""), Some(0.0), "{text}");
        assert!(
            !text.contains(&format!("port=\"{}\"", zoo.kept[0].local_addr().expect("bound").port())),
            "no ephemeral port is a label"
        );
        assert!(get(&address, "/nothing").0.starts_with("HTTP/1.1 404"));
        if Command::new("promtool").arg("--version").output().is_ok() {
            let mut tool = Command::new("promtool")
                .args(["check", "metrics"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("starts");
            // promtool reads the older text format, which has no EOF line.
            tool.stdin
                .take()
                .expect("piped")
                .write_all(text.trim_end_matches("# EOF\n").as_bytes())
                .expect("writes");
            let done = tool.wait_with_output().expect("ends");
            let said =
                String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
            assert!(!said.contains("error while"), "{said}");
        } else {
            support::skipped("no promtool");
        }
        stop(child);
    });
}

#[test]
fn the_recorder_names_former_owners_and_exact_ages() {
    in_namespace(|| {
        let folder = tempfile::tempdir().expect("a directory");
        let memory = folder.path().join("record.json");
        let recorder = start(&["record", "--interval", "0.1"], &memory);
        eventually("the recorder's first look", || memory.exists().then_some(()));
        // A server that is gone when we ask: neither a listener nor a descriptor can tell.
        let listener = TcpListener::bind("127.0.0.1:7951").expect("binds");
        let (client, server) = pair(&listener);
        let cookie = |text: &str| text.contains("127.0.0.1:7951");
        eventually("it is remembered", || {
            let text = run("ss", &["-Htn", "sport = :7951"]);
            cookie(&text).then_some(())?;
            let remembered = std::fs::read_to_string(&memory).ok()?;
            remembered.contains(&format!("\"pid\":{}", std::process::id())).then_some(())
        });
        drop(server);
        drop(listener);
        let ask = || {
            let output = Command::new(env!("CARGO_BIN_EXE_lastack"))
                .args(["ss", "-a", "--json", "sport", "=", ":7951"])
                .env("LASTACK_RECORD", &memory)
                .output()
                .expect("runs");
            let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
            document["sockets"].as_array().expect("sockets").clone()
        };
        let row = eventually("the orphan has its former owner and age", || {
            let rows = ask();
            let row = rows.first()?.clone();
            (row["state"] == "FIN-WAIT-2" && row["state_age_how"] == "recorded").then_some(row)
        });
        assert_eq!((&row["owner"]["how"], &row["owner"]["former"]), (&"recorded".into(), &true.into()));
        assert_eq!(row["owner"]["pid"], std::process::id());
        assert!(row["age_ms"].as_u64() >= row["state_age_ms"].as_u64(), "{row}");
        drop(client);
        stop(recorder);
    });
}

/// A server of `lastack export`, and where it serves.
#[allow(clippy::zombie_processes, reason = "the caller stops it; a test that fails here ends anyway")]
fn exporter(arguments: &[&str], memory: &std::path::Path) -> (Child, String) {
    let mut all = vec!["export", "--listen", "127.0.0.1:0"];
    all.extend(arguments);
    let mut child = start(&all, memory);
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).expect("reads") > 0, "it ended before it served");
        if let Some(rest) = line.trim().strip_prefix("serving http://") {
            return (child, rest.trim_end_matches("/metrics").to_owned());
        }
    }
}

/// The gauge of the dashboard's first panel and the number of `ss`, when they are equal to `count`.
fn shown(address: &str, state: &str, count: usize) -> Option<()> {
    let (_, text) = get(address, "/metrics");
    let gauge = value(&text, &format!("lastack_connections{{state=\"{state}\"}}"))?;
    let theirs = run("ss", &["-Htn", "state", &state.to_ascii_lowercase()]).lines().count();
    (gauge as usize == count && theirs == count).then_some(())
}

#[test]
fn what_ended_before_the_interrupt_is_recorded() {
    in_namespace(|| {
        let folder = tempfile::tempdir().expect("a directory");
        let memory = folder.path().join("record.json");
        let recorder = start(&["record", "--json", "--interval", "3600"], &memory);
        eventually("the recorder's first look", || memory.exists().then_some(()));
        // It does not run while connections end, and finds the interrupt when it does again.
        let signal = |name: &str| run("kill", &[name, &recorder.id().to_string()]);
        signal("-STOP");
        let listener = TcpListener::bind("127.0.0.1:7330").expect("binds");
        for _ in 0..50 {
            drop(pair(&listener));
        }
        signal("-INT");
        signal("-CONT");
        let output = recorder.wait_with_output().expect("ends");
        let summary: Value = serde_json::from_slice(&output.stdout).expect("a summary");
        assert_eq!((&summary["ended"], &summary["lost"]), (&100.into(), &0.into()), "both ends of each");
    });
}

#[test]
fn a_client_that_dribbles_keeps_nobody_from_scraping() {
    in_namespace(|| {
        let folder = tempfile::tempdir().expect("a directory");
        let (child, address) = exporter(&[], &folder.path().join("none"));
        let slow = TcpStream::connect(&address).expect("connects");
        let dribbler = std::thread::spawn(move || {
            (0..3000).any(|_| {
                lastack_observe::clock::pause(std::time::Duration::from_millis(20));
                (&slow).write_all(b"x").is_err()
            })
        });
        assert!(get(&address, "/metrics").0.starts_with("HTTP/1.1 200"));
        assert!(dribbler.join().expect("no panic"), "it was sent away");
        stop(child);
    });
}

#[test]
fn what_does_not_end_is_not_followed() {
    for arguments in [
        &["export", "--from", "trace.pcap"][..],
        &["record", "--source", "web"],
        &["record", "--from", "trace.pcap"],
        &["record", "--all-netns"],
        &["trace", "--ends", "--all-netns"],
    ] {
        let child = start(arguments, std::path::Path::new("/nonexistent"));
        let output = child.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 3), "{arguments:?}: {said}");
        let flag = arguments.iter().rfind(|word| word.starts_with("--")).expect("a flag");
        assert!(said.contains(flag), "{flag}: {said}");
    }
}

/// Cache nodes full of FIN-WAIT-2: the server closes at its time-out, the clients never do.
#[test]
fn five_hundred_idle_clients_are_the_same_story_on_both_sides() {
    in_namespace(|| {
        many_files();
        let neighbour = Neighbour::new();
        let exported = |there: bool| {
            let start = || exporter(&["--interval", "0.2"], std::path::Path::new("/nonexistent"));
            if there { neighbour.run(start) } else { start() }
        };
        neighbour.run(|| drop(run("ip", &["link", "set", "lo", "up"])));
        let ((here, here_at), (there, there_at)) = (exported(false), exported(true));
        let listener = TcpListener::bind("10.7.0.1:7953").expect("binds");
        rustix::net::listen(&listener, 512).expect("listens again, with room for all");
        let clients = neighbour.run(|| {
            (0..500).map(|_| TcpStream::connect("10.7.0.1:7953").expect("connects")).collect::<Vec<_>>()
        });
        for _ in 0..500 {
            drop(listener.accept().expect("accepts"));
        }
        eventually("500 in FIN-WAIT-2 here", || shown(&here_at, "FIN-WAIT-2", 500));
        let found = finding("fin-wait-2.orphan", 500, ONCE);
        assert_eq!(
            (&found["peers"][0]["addr"], &found["peers"][0]["count"]),
            (&"10.7.0.2".into(), &500.into())
        );
        // The peer must close: nothing here can.
        assert!(found["cause"].as_str().is_some_and(|text| text.contains("peer")), "{found}");
        neighbour.run(move || {
            eventually("500 in CLOSE-WAIT there", || shown(&there_at, "CLOSE-WAIT", 500));
            let found = finding("close-wait.leak", 500, ONCE);
            assert_eq!(found["peers"][0]["addr"], "10.7.0.1");
            let owner = &found["owners"][0];
            assert_eq!(
                (&owner["pid"], &owner["former"]),
                (&std::process::id().into(), &false.into()),
                "{owner}"
            );
        });
        stop(here);
        stop(there);
        drop(clients);
    });
}

/// What Prometheus answers to `path` of its HTTP API.
fn prometheus(path: &str) -> Option<Value> {
    // HTTP/1.0: one answer, not in chunks, then the end.
    let mut stream = TcpStream::connect("127.0.0.1:9090").ok()?;
    write!(stream, "GET /api/v1/{path} HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let answer: Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
    (answer["status"] == "success").then(|| answer["data"].clone())
}

fn query(expression: &str) -> Option<Vec<Value>> {
    let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
    prometheus(&format!("query?query={escaped}"))?["result"].as_array().cloned()
}

#[test]
fn a_real_prometheus_scrapes_it_and_every_panel_and_alert_has_data() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        support::skipped("no prometheus");
        return;
    }
    in_namespace(|| {
        let _zoo = support::zoo();
        // One error for the alerts: an accept queue that nobody empties.
        let full = TcpListener::bind("127.0.0.1:7952").expect("binds");
        rustix::net::listen(&full, 2).expect("listens again");
        let _waiting: Vec<_> =
            (0..3).map(|_| TcpStream::connect("127.0.0.1:7952").expect("connects")).collect();
        let folder = tempfile::tempdir().expect("a directory");
        let (server, address) = exporter(&["--interval", "0.2"], &folder.path().join("none"));
        let dist = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist");
        let config = format!(
            "global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\n\
             rule_files: [\"{}\"]\n\
             scrape_configs: [{{job_name: lastack, static_configs: [{{targets: [\"{address}\"]}}]}}]\n",
            dist.join("prometheus-alerts.yml").canonicalize().expect("exists").display(),
        );
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("writes");
        run("promtool", &["check", "config", file.to_str().expect("text")]);
        let log = std::fs::File::create(folder.path().join("log")).expect("a file");
        let mut scraper = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:9090")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starts");
        let result = std::panic::catch_unwind(|| panels_and_alerts(&dist));
        if result.is_err() {
            eprintln!("{}", std::fs::read_to_string(folder.path().join("log")).unwrap_or_default());
        }
        scraper.kill().expect("ends");
        scraper.wait().expect("is reaped");
        stop(server);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Prometheus is slower than the kernel: up to a minute on a busy machine.
fn patiently<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    for _ in 0..240 {
        if let Some(found) = check() {
            return found;
        }
        lastack_observe::clock::pause(std::time::Duration::from_millis(250));
    }
    panic!("never happened: {what}");
}

fn panels_and_alerts(dist: &std::path::Path) {
    let scraped = || prometheus("targets")?["activeTargets"].as_array()?.first().cloned();
    let target = patiently("the target is up", || scraped().filter(|target| target["health"] == "up"));
    assert_eq!(target["lastError"], "");
    // Every query of the dashboard as it is shipped.
    let text = std::fs::read_to_string(dist.join("grafana-dashboard.json")).expect("reads");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let targets = dashboard["panels"].as_array().expect("panels").iter().flat_map(|panel| {
        panel["targets"].as_array().expect("targets").iter().map(|t| t["expr"].as_str().expect("a query"))
    });
    let mut asked = 0;
    for expression in targets {
        patiently(expression, || query(expression).filter(|result| !result.is_empty()));
        asked += 1;
    }
    assert!(asked >= 16, "{asked} queries");
    // A panel's value is the one `ss` gives.
    for (state, name) in [("CLOSE-WAIT", "close-wait"), ("FIN-WAIT-2", "fin-wait-2"), ("LISTEN", "listening")]
    {
        patiently(state, || {
            let panel = query(&format!("sum by (state) (lastack_connections{{state=\"{state}\"}})"))?;
            let shown: usize = panel.first()?["value"][1].as_str()?.parse().ok()?;
            (shown > 0 && shown == run("ss", &["-Htn", "state", name]).lines().count()).then_some(())
        });
    }
    // Every alert rule is evaluated without an error, and the one whose state we are in is raised.
    let rules = patiently("all rules are evaluated", || {
        let groups = prometheus("rules")?;
        let rules = groups["groups"][0]["rules"].as_array()?.clone();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    });
    assert!(rules.len() >= 20 && rules.iter().all(|rule| rule["health"] == "ok"), "{rules:?}");
    let alert =
        patiently("the alert is raised", || prometheus("alerts")?["alerts"].as_array()?.first().cloned());
    assert_eq!(alert["labels"]["alertname"], "TcpListenAcceptQueueOverflow", "{alert}");
    assert_eq!(alert["labels"]["severity"], "error");
}

#[test]
fn generated_files_are_fresh_and_pass_their_tools() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist");
    let all = [
        ("grafana-dashboard.json", files::dashboard()),
        ("prometheus-alerts.yml", files::alerts()),
        ("lastack-export.service", files::unit("export").expect("a unit")),
        ("lastack-record.service", files::unit("record").expect("a unit")),
    ];
    for (name, text) in &all {
        let path = root.join(name);
        if std::env::var_os("LASTACK_BLESS").is_some() {
            std::fs::write(&path, text).expect("writes");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == *text,
            "dist/{name} is not fresh: LASTACK_BLESS=1 cargo test -p lastack-cli --test export"
        );
    }
    let dashboard: Value = serde_json::from_str(&all[0].1).expect("JSON");
    assert_eq!(dashboard["panels"].as_array().map(Vec::len), Some(files::queries().len()));
    if Command::new("promtool").arg("--version").output().is_ok() {
        run("promtool", &["check", "rules", root.join("prometheus-alerts.yml").to_str().expect("text")]);
    } else {
        support::skipped("no promtool");
    }
}
