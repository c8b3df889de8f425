//! `lastack kill` on the live kernel: what it predicts is what happens.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{Neighbour, eventually, fill, in_namespace, many_files, pair, run, sysctl};

fn lastack(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lastack"))
        .args(arguments)
        .env("LANG", "C")
        .stdin(Stdio::null())
        .output()
        .expect("starts")
}

fn json(arguments: &[&str], code: i32) -> Value {
    let output = lastack(arguments);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("one document")
}

fn count(filter: &[&str]) -> usize {
    let mut arguments = vec!["-Htn", "state"];
    arguments.extend(filter);
    run("ss", &arguments).lines().count()
}

/// A program whose socket was reset sees this errno.
fn error_of(stream: &mut TcpStream) -> i32 {
    stream.set_nonblocking(false).expect("a flag");
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => match stream.write(b"x") {
                Ok(_) => {}
                Err(error) => return error.raw_os_error().expect("an errno"),
            },
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return error.raw_os_error().expect("an errno"),
        }
    }
}

const EINVAL: i32 = 22;
const EPIPE: i32 = 32;
const ECONNABORTED: i32 = 103;
const ECONNRESET: i32 = 104;

#[test]
fn two_hundred_orphans_behind_zero_windows_end_and_their_memory_is_freed() {
    in_namespace(|| {
        many_files();
        sysctl("tcp_rmem", "4096 16384 65536");
        let listener = TcpListener::bind("127.0.0.1:7700").expect("binds");
        let mut clients = Vec::new();
        for _ in 0..200 {
            let (client, server) = pair(&listener);
            fill(&server);
            clients.push(client);
        }
        eventually("200 orphans in FIN-WAIT-1", || (count(&["fin-wait-1"]) == 200).then_some(()));
        // `mem` is the whole host's: the orphans' own queues are summed instead, beside it.
        let queued = || {
            let rows = json(&["ss", "--json", "state", "fin-wait-1"], 0);
            let sockets = rows["sockets"].as_array().expect("sockets").clone();
            sockets.iter().map(|s| s["skmem"]["wmem_queued"].as_u64().expect("bytes")).sum::<u64>()
        };
        assert!(queued() > 200 * 65_536, "they hold memory");
        let plan = json(&["kill", "--dry-run", "--json", "state", "fin-wait-1"], 0);
        assert_eq!((&plan["matched"], &plan["dry_run"]), (&200.into(), &true.into()));
        assert_eq!(plan["connections"][0]["sends_rst"], true);
        assert!(plan["connections"][0]["owner_sees"].is_null(), "nobody holds an orphan");
        assert_eq!(count(&["fin-wait-1"]), 200, "a dry run does nothing");
        let done = json(&["kill", "--yes", "--json", "state", "fin-wait-1", "dst", "127.0.0.0/8"], 0);
        assert_eq!((&done["ended"], done["left"].as_array().map(Vec::len)), (&200.into(), Some(0)));
        assert_eq!((count(&["fin-wait-1"]), queued()), (0, 0));
        assert_eq!(plan["connections"][0]["peer_sees"], "ECONNRESET");
        assert_eq!(error_of(&mut clients[0]), ECONNRESET);
    });
}

#[test]
fn both_sides_see_what_was_predicted() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7700").expect("binds");
        let expect = |state: &str, owner: i32, peer: i32, name: &str| {
            let (mut here, mut there) = pair(&listener);
            match state {
                "close-wait" => {
                    there.shutdown(Shutdown::Write).expect("shuts");
                    here.read_to_end(&mut Vec::new()).expect("reads the FIN");
                }
                "fin-wait-2" => {
                    here.shutdown(Shutdown::Write).expect("shuts");
                    there.read_to_end(&mut Vec::new()).expect("reads the FIN");
                }
                _ => {}
            }
            let port = format!("sport = :{}", here.local_addr().expect("bound").port());
            eventually("the state", || (count(&[state, &port]) == 1).then_some(()));
            let plan = json(&["kill", "--dry-run", "--json", "state", state, &port], 0);
            let said = &plan["connections"][0];
            assert_eq!(
                (&said["owner_sees"], &said["peer_sees"]),
                (&"ECONNABORTED".into(), &name.into()),
                "{state}"
            );
            assert_eq!(json(&["kill", "--yes", "--json", "state", state, &port], 0)["ended"], 1);
            assert_eq!(error_of(&mut here), owner, "{state}: the owner");
            assert_eq!(error_of(&mut there), peer, "{state}: the peer");
        };
        expect("established", ECONNABORTED, ECONNRESET, "ECONNRESET");
        expect("fin-wait-2", ECONNABORTED, EPIPE, "EPIPE");
        expect("close-wait", ECONNABORTED, ECONNRESET, "ECONNRESET");
    });
}

/// Resets this namespace has sent.
fn resets_sent() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("reads");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let at = names.split(' ').position(|name| name == "OutRsts").expect("a counter");
    values.split(' ').nth(at).and_then(|value| value.parse().ok()).expect("a number")
}

/// Ends the one socket that `filter` matches, which must be in `state`, and checks what was said of the wire: as
/// many resets of ours as told. Gives the prediction.
fn kill_one(state: &str, filter: &str) -> Value {
    eventually(state, || (count(&[state, filter]) == 1).then_some(()));
    let plan = json(&["kill", "--dry-run", "--json", "state", state, filter], 0);
    assert_eq!(plan["matched"], 1, "{plan}");
    let said = plan["connections"][0].clone();
    let before = resets_sent();
    let done = json(&["kill", "--yes", "--json", "state", state, filter], 0);
    assert_eq!((&done["ended"], count(&[state, filter])), (&1.into(), 0), "{done}");
    let sent = u64::from(said["sends_rst"].as_bool().expect("a boolean"));
    assert_eq!(resets_sent() - before, sent, "{state}: {said}");
    said
}

/// The pending error of a socket that was reset or ended.
fn pending_error(stream: &TcpStream) -> Option<i32> {
    stream.take_error().expect("an option").and_then(|error| error.raw_os_error())
}

/// Two ends of a connection over the wire: ours, and the neighbour's.
fn over_the_wire(neighbour: &Neighbour) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("10.7.0.1:7700").expect("binds");
    let there = neighbour.run(|| TcpStream::connect("10.7.0.1:7700").expect("connects"));
    (listener.accept().expect("accepts").0, there)
}

/// What the sender sends to `address` over `wire` reaches nobody: the frames have a wrong address.
fn mislead(address: &str, wire: &str) {
    let wrong = ["lladdr", "02:00:00:00:00:01", "dev", wire, "nud", "permanent"];
    run("ip", &[&["neigh", "replace", address][..], &wrong].concat());
}

/// What we send no longer reaches the neighbour; what it sends still reaches us.
fn nobody_hears_us() {
    mislead("10.7.0.2", "here");
}

#[test]
fn syn_sent_ends_without_a_word() {
    in_namespace(|| {
        let _neighbour = Neighbour::new();
        nobody_hears_us();
        use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket");
        let to = std::net::SocketAddrV4::new([10, 7, 0, 2].into(), 7700);
        assert_eq!(connect(&socket, &to), Err(rustix::io::Errno::INPROGRESS));
        let said = kill_one("syn-sent", "dport = :7700");
        assert_eq!((&said["sends_rst"], &said["owner_sees"]), (&false.into(), &"ECONNABORTED".into()));
        assert!(said["peer_sees"].is_null(), "{said}");
        assert_eq!(pending_error(&TcpStream::from(socket)), Some(ECONNABORTED));
    });
}

#[test]
fn half_open_requests_are_removed_without_a_word() {
    in_namespace(|| {
        let neighbour = Neighbour::new();
        nobody_hears_us();
        let _listener = TcpListener::bind("10.7.0.1:7700").expect("binds");
        // Our SYN-ACK is never heard.
        support::forged_syn([10, 7, 0, 2].into(), 7700);
        let said = kill_one("syn-recv", "sport = :7700");
        assert_eq!(said["sends_rst"], false);
        assert!(said["peer_sees"].is_null() && said["owner_sees"].is_null(), "{said}");
        drop(neighbour);
    });
}

#[test]
fn last_ack_and_closing_end_without_a_word() {
    for state in ["last-ack", "closing"] {
        in_namespace(move || {
            let neighbour = Neighbour::new();
            let (here, there) = over_the_wire(&neighbour);
            if state == "last-ack" {
                there.shutdown(Shutdown::Write).expect("shuts");
                eventually("their FIN", || (count(&["close-wait", "sport = :7700"]) == 1).then_some(()));
                nobody_hears_us();
                here.shutdown(Shutdown::Write).expect("shuts");
            } else {
                nobody_hears_us();
                here.shutdown(Shutdown::Write).expect("shuts");
                eventually("our FIN", || (count(&["fin-wait-1", "sport = :7700"]) == 1).then_some(()));
                there.shutdown(Shutdown::Write).expect("shuts");
            }
            eventually(state, || (count(&[state, "sport = :7700"]) == 1).then_some(()));
            // What the peer repeats would meet nobody and be answered by a RST: it is not to be counted.
            neighbour.run(|| mislead("10.7.0.1", "there"));
            let said = kill_one(state, "sport = :7700");
            assert_eq!((&said["sends_rst"], &said["owner_sees"]), (&false.into(), &"ECONNABORTED".into()));
            assert!(said["peer_sees"].is_null(), "{said}");
            assert_eq!(pending_error(&here), Some(ECONNABORTED), "{state}");
            assert_eq!(pending_error(&there), None, "{state}: the peer has heard nothing");
        });
    }
}

#[test]
fn an_orphan_of_fin_wait_2_goes_without_a_word_and_the_peer_s_next_write_meets_nobody() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7700").expect("binds");
        let (client, mut server) = pair(&listener);
        let port = format!("sport = :{}", client.local_addr().expect("bound").port());
        drop(client);
        server.read_to_end(&mut Vec::new()).expect("reads the FIN");
        let said = kill_one("fin-wait-2", &port);
        assert_eq!(said["sends_rst"], false);
        assert!(said["peer_sees"].is_null() && said["owner_sees"].is_null(), "{said}");
        assert_eq!(pending_error(&server), None, "nothing has come");
        assert_eq!(error_of(&mut server), EPIPE, "but what it sends now is answered by RST");
    });
}

#[test]
fn a_listener_ends_with_those_who_wait_to_be_accepted() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7700").expect("binds");
        let mut waiting = TcpStream::connect("127.0.0.1:7700").expect("connects");
        let said = kill_one("listening", "sport = :7700");
        assert_eq!((&said["sends_rst"], &said["peer_sees"]), (&true.into(), &"ECONNRESET".into()));
        assert_eq!(said["owner_sees"], "EINVAL");
        let refused = listener.accept().expect_err("it does not listen any more");
        assert_eq!(refused.raw_os_error(), Some(EINVAL));
        assert_eq!(error_of(&mut waiting), ECONNRESET);
    });
}

#[test]
fn time_wait_goes_without_a_word_and_listeners_are_spared() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7700").expect("binds");
        let (client, mut server) = pair(&listener);
        drop(client);
        server.read_to_end(&mut Vec::new()).expect("reads");
        drop(server);
        eventually("TIME-WAIT", || (count(&["time-wait"]) == 1).then_some(()));
        let done = json(&["kill", "--yes", "--json", "src", "127.0.0.1"], 0);
        assert_eq!((&done["matched"], &done["ended"]), (&1.into(), &1.into()));
        assert_eq!(done["connections"][0]["sends_rst"], false);
        assert_eq!((count(&["time-wait"]), count(&["listening"])), (0, 1));
        assert_eq!(json(&["kill", "--yes", "--json", "src", "127.0.0.1"], 1)["matched"], 0);
    });
}

#[test]
fn it_refuses_an_empty_filter_and_to_act_unasked() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7700").expect("binds");
        let _both = pair(&listener);
        for (arguments, says) in [
            (&["kill"][..], "no filter"),
            (&["kill", "--yes"], "no filter"),
            (&["kill", "state", "established"], "nobody can be asked"),
        ] {
            let output = lastack(arguments);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.starts_with("error: ") && said.contains(says) && said.contains("\ntry: "), "{said}");
        }
        assert_eq!(count(&["established"]), 2);
    });
}

#[test]
fn without_privilege_it_says_which() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7700").expect("binds");
        let _both = pair(&listener);
        let output = Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", env!("CARGO_BIN_EXE_lastack")])
            .args(["kill", "--yes", "state", "established"])
            .output()
            .expect("setpriv runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("setpriv: failed to execute") {
            support::skipped("an ordinary user cannot reach the test binary");
            return;
        }
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("CAP_NET_ADMIN"), "{said}");
        assert_eq!(count(&["established"]), 2);
    });
}
