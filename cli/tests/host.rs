//! `lastack doctor` on what belongs to the whole host: orphans and memory against the kernel's limits.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

mod examine;

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use examine::{ONCE, lastack, look};
use serde_json::Value;
use support::host::{HostKnob, HostTurn};
use support::{Neighbour, fill, in_namespace, many_files, pair, run, skipped};

/// The TCP line of the host's sockstat.
fn sockstat(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/net/sockstat").expect("reads");
    let line = text.lines().find(|line| line.starts_with("TCP:")).expect("a line");
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == name).expect("a field");
    words[at + 1].parse().expect("a number")
}

/// The finding `id` of one look; here others on this host may have findings of their own.
fn seen(id: &str, flags: &[&str]) -> Option<Value> {
    look(flags).into_iter().find(|finding| finding["id"] == id)
}

/// Makes `count` orphans in FIN-WAIT-1 whose peers are silent, in a namespace of their own; they are ended
/// when the channel that is given back is closed.
fn silent_orphans(count: usize) -> (mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let (release, over) = mpsc::channel::<()>();
    let (made, wait) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        in_namespace(move || {
            let neighbour = Neighbour::new();
            let listener = TcpListener::bind("10.7.0.1:7600").expect("binds");
            let (clients, servers) = std::thread::scope(|scope| {
                let accepting = scope.spawn(|| {
                    (0..count).map(|_| listener.accept().expect("accepts").0).collect::<Vec<TcpStream>>()
                });
                let clients = neighbour.run(move || {
                    (0..count)
                        .map(|_| TcpStream::connect("10.7.0.1:7600").expect("connects"))
                        .collect::<Vec<_>>()
                });
                (clients, accepting.join().expect("no panic"))
            });
            neighbour.falls_silent();
            for client in &clients {
                // Their ends go without a trace: a RST that does not arrive.
                rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO)).expect("linger 0");
            }
            drop((clients, servers));
            // A process of this namespace, so that it can be found from outside.
            let mut marker =
                Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat starts");
            made.send(()).expect("somebody waits");
            let _ = over.recv();
            run(env!("CARGO_BIN_EXE_lastack"), &["kill", "--yes", "state", "fin-wait-1"]);
            drop(marker.stdin.take());
            marker.wait().expect("is reaped");
        });
    });
    if wait.recv().is_err() {
        // It said why.
        worker.join().expect("no panic");
        return (release, std::thread::spawn(|| ()));
    }
    (release, worker)
}

#[test]
fn a_quarter_of_the_orphans_that_the_host_allows() {
    let _turn = HostTurn::wait();
    let Ok(limit) = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_max_orphans") else {
        skipped("the host's tcp_max_orphans cannot be read in a namespace");
        return;
    };
    let limit: u64 = limit.trim().parse().expect("a number");
    let wanted = usize::try_from(limit * 26 / 100).expect("fits");
    many_files();
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(1 << 20);
    // Both ends are open files while a batch is made.
    let batch =
        usize::try_from(files).map_or(10_000, |files| (files.saturating_sub(1000) / 2).clamp(100, 10_000));
    if wanted > 70_000 {
        skipped(&format!("{wanted} orphans are too many for a test"));
        return;
    }
    let mut rooms = Vec::new();
    let mut left = wanted;
    while left > 0 {
        let count = left.min(batch);
        rooms.push(silent_orphans(count));
        left -= count;
    }
    if sockstat("orphan") < limit / 4 {
        skipped("the orphans could not be made (see above)");
        return;
    }
    let found = support::eventually("the finding", || {
        seen("orphans.near-limit", &["--all-netns", "--interval", "0"])
    });
    assert_eq!((&found["severity"], &found["certainty"]), (&"warning".into(), &"observed".into()));
    assert!(found["count"].as_u64().is_some_and(|count| count * 4 >= limit), "{}", found["count"]);
    assert!(found["evidence"].to_string().contains(&format!("limit {limit} (tcp_max_orphans)")), "{found}");
    assert_eq!(found["peers"][0]["addr"], "10.7.0.2");
    assert!(found["peers"][0]["count"].as_u64().is_some_and(|n| n >= wanted as u64), "{found}");
    let owner = &found["owners"][0];
    assert_eq!((&owner["pid"], &owner["former"]), (&std::process::id().into(), &true.into()), "{owner}");
    // From a namespace the limit cannot be read: nothing is claimed.
    in_namespace(|| assert_eq!(seen("orphans.near-limit", ONCE), None));
    // Ended by `kill`, they no longer count.
    for (release, worker) in rooms {
        drop(release);
        worker.join().expect("no panic");
    }
    support::eventually("the orphans have gone", || seen("orphans.near-limit", ONCE).is_none().then_some(()));
}

#[test]
fn more_memory_than_the_host_likes_to_give() {
    let turn = HostTurn::wait();
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let kept: Vec<_> = (0..20).map(|_| pair(&listener)).collect();
    for (client, _) in &kept {
        fill(client);
    }
    let used = sockstat("mem");
    assert!(used > 2_000, "the queues hold memory: {used} pages");
    let old = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").unwrap_or_default();
    // Only the two lower marks are moved: windows may shrink meanwhile, but nothing is dropped or reset.
    let most = old.split_whitespace().nth(2).unwrap_or_default().to_owned();
    let Some(knob) = HostKnob::set(&turn, "tcp_mem", &format!("{} {} {most}", used / 4, used / 2)) else {
        skipped("the host's tcp_mem may not be set here");
        return;
    };
    let found = support::eventually("the finding", || seen("memory.pressure", ONCE));
    assert_eq!((&found["severity"], &found["certainty"]), (&"warning".into(), &"observed".into()));
    assert!(found["evidence"].to_string().contains("in use in all"), "{found}");
    // Who holds it: this process, at both ends.
    assert_eq!(found["owners"][0]["pid"], std::process::id(), "{found}");
    assert!(found["count"].as_u64().is_some_and(|count| count >= 20), "{found}");
    assert!(found["sockets"][0]["skmem"].is_object(), "{found}");
    drop(knob);
    let now = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").expect("reads");
    assert_eq!(now.split_whitespace().collect::<Vec<_>>(), old.split_whitespace().collect::<Vec<_>>());
    assert_eq!(seen("memory.pressure", ONCE), None);
    assert!(lastack(&["doctor", "--explain", "memory.pressure"]).status.success());
    drop(kept);
}
