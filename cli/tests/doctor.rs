//! `lastack doctor` against the live kernel: each story puts it into the state for real.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

mod examine;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use examine::{ONCE, finding, lastack, look};
use serde_json::Value;
use support::{Neighbour, fill, in_namespace, many_files, pair, sysctl};

fn listen(address: &str) -> TcpListener {
    TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// Small buffers, so that hundreds of full ones cost little.
fn small_buffers() {
    sysctl("tcp_wmem", "4096 16384 65536");
    sysctl("tcp_rmem", "4096 16384 65536");
}

/// Connections between 10.7.0.1 here (the server's end) and the neighbour.
fn with_neighbour(neighbour: &Neighbour, count: usize) -> (Vec<TcpStream>, Vec<TcpStream>) {
    let listener = listen("10.7.0.1:7600");
    let clients = neighbour.run(move || {
        (0..count).map(|_| TcpStream::connect("10.7.0.1:7600").expect("connects")).collect::<Vec<_>>()
    });
    let servers = (0..count).map(|_| listener.accept().expect("accepts").0).collect();
    (clients, servers)
}

/// Repeats `work` on another thread of this namespace while `watch` runs.
fn while_doing<T>(work: impl Fn() + Sync, watch: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                work();
                lastack_observe::clock::pause(Duration::from_millis(5));
            }
        });
        let found = watch();
        over.store(true, Ordering::Relaxed);
        found
    })
}

#[test]
fn an_idle_namespace_and_a_busy_healthy_one_have_no_findings() {
    in_namespace(|| {
        assert_eq!(look(&[]), [] as [Value; 0]);
        let listener = listen("127.0.0.1:7600");
        let kept: Vec<_> = (0..50).map(|_| pair(&listener)).collect();
        let talk = || {
            let (mut client, mut server) = pair(&listener);
            client.write_all(&[1; 20_000]).expect("writes");
            client.shutdown(Shutdown::Write).expect("shuts");
            server.read_to_end(&mut Vec::new()).expect("reads");
            server.write_all(&[2; 50_000]).expect("writes");
            drop(server);
            client.read_to_end(&mut Vec::new()).expect("reads");
        };
        assert_eq!(while_doing(talk, || look(&[])), [] as [Value; 0]);
        drop(kept);
    });
}

#[test]
fn two_hundred_slow_readers() {
    in_namespace(|| {
        many_files();
        small_buffers();
        let listener = listen("127.0.0.1:7600");
        let mut clients = Vec::new();
        for _ in 0..200 {
            let (client, server) = pair(&listener);
            fill(&server);
            clients.push(client);
        }
        let found = finding("fin-wait-1.zero-window", 200, ONCE);
        assert_eq!((&found["severity"], &found["certainty"]), (&"warning".into(), &"observed".into()));
        assert_eq!(found["peers"][0]["addr"], "127.0.0.1");
        assert_eq!(found["peers"][0]["count"], 200);
        let owner = &found["owners"][0];
        assert_eq!((&owner["count"], &owner["former"]), (&200.into(), &true.into()), "{owner}");
        assert_eq!(found["sockets"].as_array().expect("sockets").len(), 5);
        assert_eq!(found["sockets"][0]["timer"]["name"], "persist");
        // The seed's wrong cure is named.
        assert!(found["myth"].to_string().contains("tcp_fin_timeout"));
        // The same, saved and judged elsewhere.
        let saved = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(saved.path(), lastack(&["ss", "-a", "--json"]).stdout).expect("writes");
        let offline = look(&["--from", saved.path().to_str().expect("text")]);
        assert!(offline.iter().any(|f| f["id"] == "fin-wait-1.zero-window" && f["count"] == 200));
        // And ended.
        drop(clients);
    });
}

#[test]
fn a_thousand_idle_clients_after_the_server_has_closed() {
    in_namespace(|| {
        many_files();
        let listener = listen("127.0.0.1:7600");
        let clients: Vec<_> = (0..1000).map(|_| pair(&listener).0).collect();
        let found = finding("fin-wait-2.orphan", 1000, ONCE);
        assert!(found["evidence"].to_string().contains("tcp_fin_timeout = 60"), "{found}");
        // The other side of the same story.
        let other = finding("close-wait.leak", 1000, ONCE);
        assert_eq!(other["owners"][0]["pid"], std::process::id());
        assert_eq!(other["owners"][0]["former"], false);
        drop(clients);
    });
}

#[test]
fn held_half_closed_sockets() {
    in_namespace(|| {
        let listener = listen("127.0.0.1:7600");
        let kept: Vec<_> = (0..25)
            .map(|_| {
                let both = pair(&listener);
                both.0.shutdown(Shutdown::Write).expect("shuts");
                both
            })
            .collect();
        let found = finding("fin-wait-2.owned", 25, ONCE);
        assert_eq!(found["owners"][0]["pid"], std::process::id());
        drop(kept);
    });
}

#[test]
fn ports_run_out_until_connect_fails() {
    in_namespace(|| {
        sysctl("ip_local_port_range", "40000 44999");
        sysctl("tcp_tw_reuse", "0");
        let listener = listen("127.0.0.1:7600");
        let error = loop {
            match TcpStream::connect("127.0.0.1:7600") {
                Ok(client) => {
                    let (mut server, _) = listener.accept().expect("accepts");
                    drop(client);
                    server.read_to_end(&mut Vec::new()).expect("reads");
                }
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(99), "EADDRNOTAVAIL");
        let found = finding("time-wait.port-exhaustion", 5000, ONCE);
        assert_eq!(found["severity"], "error");
        let evidence = found["evidence"].to_string();
        assert!(
            evidence.contains("127.0.0.1 → 127.0.0.1:7600: 5000 of 5000 local ports taken (100 %), 0 free"),
            "{evidence}"
        );
        // The cures, the best first.
        let fixes = found["fix"].as_array().expect("cures");
        for (fix, start) in fixes.iter().zip([
            "reuse connections",
            "let the server close first",
            "more addresses",
            "tcp_tw_reuse = 1",
        ]) {
            assert!(fix.as_str().is_some_and(|text| text.starts_with(start)), "{start}: {fixes:?}");
        }
        assert_eq!(fixes.len(), 4);
        // TIME-WAIT is a pile where there is as much of it as is asked for, and never worse than an information.
        let beyond = look(&["--interval", "0", "--min-count", "5001"]);
        assert!(beyond.iter().all(|f| f["id"] != "time-wait.pile"), "{beyond:?}");
        assert_eq!(
            finding(
                "time-wait.pile",
                5000,
                &["--interval", "0", "--min-count", "100", "--near-percent", "101"]
            )["severity"],
            "info"
        );
    });
}

#[test]
fn the_knob_that_does_not_shorten_time_wait() {
    in_namespace(|| {
        sysctl("tcp_fin_timeout", "3");
        let listener = listen("127.0.0.1:7600");
        for _ in 0..30 {
            let (client, mut server) = pair(&listener);
            drop(client);
            server.read_to_end(&mut Vec::new()).expect("reads");
        }
        let found = finding("sysctl.myth", 30, ONCE);
        assert!(found["evidence"].to_string().contains("TIME-WAIT (60 s, a constant)"), "{found}");
        let zh = lastack(&["doctor", "--interval", "0", "--lang", "zh", "--json"]);
        assert!(String::from_utf8_lossy(&zh.stdout).contains("60 秒常量"));
    });
}

/// A thousand by a real client, who are all there long after the knob's three seconds.
#[test]
fn a_thousand_time_waits_of_curl_do_not_heed_the_knob() {
    in_namespace(|| {
        if std::process::Command::new("curl").arg("--version").output().is_err() {
            support::skipped("no curl");
            return;
        }
        sysctl("tcp_fin_timeout", "3");
        let listener = listen("127.0.0.1:7600");
        let server = std::thread::spawn(move || {
            for _ in 0..1000 {
                let (mut stream, _) = listener.accept().expect("accepts");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).expect("a request");
                    request.push(byte[0]);
                }
                stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("answers");
            }
        });
        let page = support::run("curl", &["-sS", "--fail", "http://127.0.0.1:7600/[1-1000]"]);
        assert_eq!(page.matches("ok").count(), 1000);
        server.join().expect("no panic");
        // curl may begin a connection more than it needs.
        let found = finding("sysctl.myth", 0, ONCE);
        assert!(found["count"].as_u64().is_some_and(|count| count >= 1000), "{}", found["count"]);
        assert_eq!(found["severity"], "warning");
        let evidence = found["evidence"].to_string();
        assert!(
            evidence.contains("tcp_fin_timeout = 3") && evidence.contains("TIME-WAIT (60 s, a constant)"),
            "{evidence}"
        );
        // Measured: each has more time left than the knob says, and never more than the constant.
        let table = lastack(&["ss", "--json", "state", "time-wait"]);
        let table: Value = serde_json::from_slice(&table.stdout).expect("a document");
        let left: Vec<u64> = table["sockets"]
            .as_array()
            .expect("sockets")
            .iter()
            .map(|socket| {
                assert_eq!(socket["timer"]["name"], "timewait");
                socket["timer"]["expires_ms"].as_u64().expect("a time")
            })
            .collect();
        assert_eq!(Some(left.len() as u64), found["count"].as_u64());
        let (least, most) = (left.iter().min().expect("some"), left.iter().max().expect("some"));
        assert!(*least > 3_000 && (3_000..=60_500).contains(most), "{least} to {most} ms left");
    });
}

#[test]
fn no_room_for_time_wait() {
    in_namespace(|| {
        sysctl("tcp_max_tw_buckets", "5");
        let listener = listen("127.0.0.1:7600");
        for _ in 0..30 {
            let (client, mut server) = pair(&listener);
            drop(client);
            server.read_to_end(&mut Vec::new()).expect("reads");
        }
        let found = finding("tw-buckets.overflow", 0, ONCE);
        assert!(found["evidence"].to_string().contains("of at most 5 (tcp_max_tw_buckets)"), "{found}");
    });
}

#[test]
fn an_accept_queue_that_nobody_empties() {
    in_namespace(|| {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
        // Close-on-exec: programs that other tests start must not hold it too.
        let listener = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .expect("a socket");
        bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7600)).expect("binds");
        listen(&listener, 5).expect("listens");
        let clients: Vec<_> =
            (0..6).map(|_| TcpStream::connect("127.0.0.1:7600").expect("connects")).collect();
        let found = finding("listen.accept-queue-overflow", 1, ONCE);
        assert_eq!(found["severity"], "error");
        assert_eq!(found["owners"][0]["pid"], std::process::id());
        assert!(
            found["evidence"].to_string().contains("127.0.0.1:7600: 6 connections wait, backlog 5"),
            "{found}"
        );
        drop(clients);
    });
}

#[test]
fn a_flood_of_forged_syns() {
    in_namespace(|| {
        let _neighbour = Neighbour::new();
        support::run("ip", &["link", "set", "here", "arp", "off"]);
        let listener = listen("10.7.0.1:7600");
        // A backlog of 128 (std's is the system's largest): one more than fits.
        rustix::net::listen(&listener, 128).expect("listens again");
        for source in 0..400u16 {
            support::forged_syn(
                Ipv4Addr::new(10, 7, (1 + source / 250) as u8, (1 + source % 250) as u8),
                7600,
            );
        }
        let found = finding("syn-recv.flood", 129, ONCE);
        assert_eq!(found["severity"], "error");
        assert!(
            found["evidence"].to_string().contains("129 half-open from 129 addresses, backlog 128"),
            "{found}"
        );
    });
}

#[test]
fn connects_that_nobody_answers() {
    in_namespace(|| {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
        let _neighbour = Neighbour::new();
        support::run("ip", &["link", "set", "here", "arp", "off"]);
        let kept: Vec<_> = (0..20)
            .map(|_| {
                let fd = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None)
                    .expect("a socket");
                let refused = connect(&fd, &SocketAddrV4::new(Ipv4Addr::new(10, 7, 9, 9), 80));
                assert_eq!(refused, Err(rustix::io::Errno::INPROGRESS));
                fd
            })
            .collect();
        let found = finding("syn-sent.filtered", 20, ONCE);
        assert_eq!(found["peers"][0]["addr"], "10.7.9.9");
        drop(kept);
    });
}

#[test]
fn a_peer_that_falls_silent() {
    in_namespace(|| {
        let neighbour = Neighbour::new();
        let (clients, servers) = with_neighbour(&neighbour, 75);
        // Three fates: unacknowledged data, our FIN first, our FIN last.
        let mut clients = clients.into_iter();
        let (first, rest): (Vec<_>, Vec<_>) = (clients.by_ref().take(25).collect(), clients.collect());
        let gone = first.iter().map(|c| c.local_addr().expect("connected")).collect::<Vec<_>>();
        drop(first);
        let (mut last_ack, others): (Vec<_>, Vec<_>) =
            servers.into_iter().partition(|s| gone.contains(&s.peer_addr().expect("connected")));
        for server in &mut last_ack {
            server.read_to_end(&mut Vec::new()).expect("reads the FIN");
        }
        neighbour.falls_silent();
        drop(last_ack);
        let mut others = others.into_iter();
        let fin_wait_1: Vec<_> = others.by_ref().take(25).collect();
        drop(fin_wait_1);
        let dead: Vec<_> = others.collect();
        // All at once: most segments of the next seconds are repeats.
        let storm = while_doing(
            || {
                for mut stream in &dead {
                    let _ = stream.write(b"are you there?");
                }
            },
            || finding("retransmit.storm", 0, &["--interval", "0.8"]),
        );
        assert_eq!(storm["severity"], "warning");
        finding("last-ack.silent-peer", 25, ONCE);
        let found = finding("fin-wait-1.silent-peer", 25, ONCE);
        assert_eq!(found["peers"][0]["addr"], "10.7.0.2");
        let found = finding("established.dead-peer", 25, ONCE);
        assert_eq!(found["owners"][0]["pid"], std::process::id());
        drop((dead, rest));
    });
}

#[test]
fn open_connections_whose_reader_does_not_read() {
    in_namespace(|| {
        small_buffers();
        let listener = listen("127.0.0.1:7600");
        let kept: Vec<_> = (0..20).map(|_| pair(&listener)).collect();
        for (_, server) in &kept {
            fill(server);
        }
        let found = finding("established.zero-window", 20, ONCE);
        assert_eq!(found["sockets"][0]["state"], "ESTAB");
        // Both ends are on this host: the slow reader is named, too.
        assert!(
            found["evidence"].to_string().contains("20 sockets here are the slow readers themselves"),
            "{found}"
        );
    });
}

#[test]
fn closing_with_unread_data() {
    in_namespace(|| {
        let listener = listen("127.0.0.1:7600");
        let abort = || {
            let (mut client, server) = pair(&listener);
            client.write_all(b"never read").expect("writes");
            server.peek(&mut [0; 1]).expect("it has arrived");
            drop(server);
        };
        let found = while_doing(abort, || finding("reset.unread-data", 0, &["--interval", "0.5"]));
        assert_eq!((&found["severity"], &found["certainty"]), (&"warning".into(), &"observed".into()));
    });
}

#[test]
fn data_for_a_closed_connection() {
    in_namespace(|| {
        let listener = listen("127.0.0.1:7600");
        let abort = || {
            let (client, server) = pair(&listener);
            rustix::net::sockopt::set_socket_linger(&server, Some(Duration::ZERO)).expect("linger 0");
            drop(server);
            drop(client);
        };
        let found = while_doing(abort, || finding("reset.data-after-close", 0, &["--interval", "0.5"]));
        assert_eq!(found["severity"], "warning");
    });
}

#[test]
fn connecting_where_nobody_listens() {
    in_namespace(|| {
        let refused = || assert!(TcpStream::connect("127.0.0.1:7699").is_err());
        let found = while_doing(refused, || finding("reset.no-listener", 0, &["--interval", "0.5"]));
        assert_eq!(found["certainty"], "inferred");
    });
}

#[test]
fn idle_connections_without_keepalive() {
    in_namespace(|| {
        support::run("ip", &["addr", "add", "10.8.0.1/32", "dev", "lo"]);
        let listener = listen("10.8.0.1:7600");
        let kept: Vec<_> = (0..20).map(|_| pair(&listener)).collect();
        let found =
            finding("keepalive.longer-than-middlebox", 40, &["--interval", "0", "--middlebox-idle", "2s"]);
        assert_eq!((&found["severity"], &found["certainty"]), (&"info".into(), &"possible".into()));
        drop(kept);
    });
}

#[test]
fn pages_and_predictions_in_both_languages() {
    for lang in ["en", "zh"] {
        let output = lastack(&["doctor", "--explain", "all", "--lang", lang]);
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for rule in lastack_observe::doctor::ALL {
            assert!(text.lines().any(|line| line == rule.id), "{lang}: {}", rule.id);
        }
    }
    let output = lastack(&["doctor", "--what-if", "tcp_fin_timeout=61", "--json", "--interval", "0"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(document["predictions"][0]["then"], "2.0s");
    for (flags, code) in [
        (&["--what-if", "tcp_bogus=1"][..], 2),
        (&["--what-if", "tcp_fin_timeout"], 2),
        (&["--explain", "no.such-rule"], 2),
        (&["--min-age", "soon"], 2),
        (&["--fail-on", "panic"], 2),
        (&["--from", "/etc/hostname"], 2),
    ] {
        let mut arguments = vec!["doctor"];
        arguments.extend(flags);
        let output = lastack(&arguments);
        assert_eq!(output.status.code(), Some(code), "{flags:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.starts_with("error: ") && said.contains("\ncause: ") && said.contains("\ntry: "),
            "{said}"
        );
    }
}

#[test]
fn whether_run_works_here_is_said_with_what_would_allow_it() {
    let works = |output: std::process::Output| -> Value {
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
        document["run"].clone()
    };
    // It is what `run` itself comes to.
    let ran = lastack(&["run", "--report", "none", "--", "true"]).status.success();
    assert_eq!(works(lastack(&["doctor", "--json", "--interval", "0"]))["works"], ran);
    // Namespaces switched off, in a user namespace of our own: the knob is named.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && echo 0 > /proc/sys/user/max_net_namespaces && exec \"$@\"";
    let refused = |more: &[&str]| {
        std::process::Command::new("unshare")
            .args([
                "-r",
                "sh",
                "-c",
                script,
                "sh",
                env!("CARGO_BIN_EXE_lastack"),
                "doctor",
                "--interval",
                "0",
            ])
            .args(more)
            .env("LANG", "C")
            .output()
            .expect("unshare runs")
    };
    let output = refused(&["--json"]);
    if output.stdout.is_empty() {
        support::skipped(&format!("no user namespaces: {}", String::from_utf8_lossy(&output.stderr)));
        return;
    }
    let run = works(output);
    assert_eq!(run["works"], false, "{run}");
    assert!(run["cause"].as_str().is_some_and(|cause| cause.contains("max_user_namespaces")), "{run}");
    assert!(run["try"].as_str().is_some_and(|next| next.contains("sysctl")), "{run}");
    let text = String::from_utf8_lossy(&refused(&[]).stdout).into_owned();
    assert!(text.contains("lastack run does not work here: "), "{text}");
    // Another namespace or a file says nothing about this host.
    let own = std::process::id().to_string();
    assert!(works(lastack(&["doctor", "--json", "--interval", "0", "--netns", &own])).is_null());
}
