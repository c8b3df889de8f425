//! Short connections by the thousand, either side closing first: all succeed, nothing is left, memory stays small.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use lastack_e2e::needs::long;
use lastack_e2e::process::{Process, memory_kib};
use lastack_e2e::runner::{self, HOST_V4, Runner, User, copy_for_all};
use lastack_e2e::{binaries, clock};
use serde_json::Value;

use crate::{LONG, needs_run};

/// The most `lastack run` may ever have in memory.
const PEAK_KIB: u64 = 64 * 1024;

#[test]
fn all_succeed_and_nothing_is_left_when_the_server_closes_first() {
    needs_run!();
    short_connections("short-server-closes", "echo_then_close");
}

#[test]
fn all_succeed_and_nothing_is_left_when_the_client_closes_first() {
    needs_run!();
    short_connections("short-client-closes", "echo");
}

fn short_connections(mode: &str, port: &str) {
    let users = runner::users();
    for user in users {
        println!("-- as {user:?}");
        short_connections_of(user, mode, port);
    }
}

fn short_connections_of(user: User, mode: &str, port: &str) {
    // The long size once: nobody's is the same code.
    let count = match user {
        User::Current if long() => 100_000,
        User::Current => 5_000,
        User::Nobody => 2_000,
    };
    let load = binaries::build("lastack-bench", "load");
    let mut server =
        Process::spawn(Command::new(&load).arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()))
            .unwrap();
    let ports = line(&mut server);
    let port = ports[port].as_u64().expect("the server's port");

    let runner = Runner::new(user);
    let copy = copy_for_all(&load, runner.dir()).unwrap();
    let mut command = runner.command(&copy);
    command.args([mode, &format!("{HOST_V4}:{port}"), &LONG.as_secs().to_string(), &count.to_string()]);
    let mut client = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
    let result = line(&mut client);
    println!("{mode}: {result}");
    assert_eq!(result["errors"], 0, "{result}");
    assert_eq!(result["finished"].as_u64(), Some(count), "{result}");

    // The program is still there; its connections are over, so the runner must have let go of them.
    let rest = clock::until(Duration::from_secs(10), || {
        let (descriptors, sockets) = (descriptors(client.id()), host_sockets(port));
        (descriptors < 64 && sockets == 0).then_some((descriptors, sockets))
    });
    let (now, peak) = memory_kib(client.id()).expect("lastack still runs");
    let rest = rest.unwrap_or((descriptors(client.id()), host_sockets(port)));
    println!(
        "{mode}: {} descriptors, {} host sockets left, {now} KiB now, {peak} KiB at most",
        rest.0, rest.1
    );
    assert!(rest.0 < 64 && rest.1 == 0, "{} descriptors and {} host sockets are left", rest.0, rest.1);
    assert!(peak < PEAK_KIB, "{peak} KiB at most");

    drop(client.child().stdin.take());
    let status = client.wait_within(Duration::from_secs(90)).unwrap().expect("lastack ends with its program");
    assert!(status.success(), "{status}");
    let journal = runner.journal();
    assert_eq!(journal.len() as u64, count);
    let wrong = journal.iter().find(|line| line.text("how") != "fin" || line.text("lost_data") != "false");
    assert!(wrong.is_none(), "{wrong:?}");
    let closer = if mode == "short-server-closes" { "remote" } else { "program" };
    let by_other = journal.iter().filter(|line| line.text("closed_by") != closer).count();
    assert_eq!(by_other, 0, "closed_by is {closer}");
}

/// The next JSON line a program prints.
fn line(process: &mut Process) -> Value {
    let stdout = process.child().stdout.take().expect("piped");
    let mut text = String::new();
    BufReader::new(stdout).read_line(&mut text).expect("a readable pipe");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"))
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Host sockets to or from `port` that are neither listening nor TIME-WAIT.
fn host_sockets(port: u64) -> usize {
    let hex = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 3 && !["06", "0A"].contains(&row[3]))
        .filter(|row| row[1].ends_with(&hex) || row[2].ends_with(&hex))
        .count()
}
