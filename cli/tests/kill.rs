//! `lastack kill` on the live kernel: what it predicts is what happens.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{eventually, fill, in_namespace, many_files, pair, run, sysctl};

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
