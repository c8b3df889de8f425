//! Nothing is left behind: not after the end, not after SIGKILL of lastack itself.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use lastack_e2e::clock;
use lastack_e2e::process::{Process, descendants};
use lastack_e2e::runner::{Runner, User};
use rustix::process::Signal;

use crate::{SHORT, each_user, needs_run};

/// The network namespaces of all processes that can be seen.
fn network_namespaces_of(pids: &[u32]) -> BTreeSet<PathBuf> {
    pids.iter().filter_map(|pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()).collect()
}

/// Whether any process is in one of `namespaces`.
fn inhabited(namespaces: &BTreeSet<PathBuf>) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids: Vec<u32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    network_namespaces_of(&pids).iter().any(|namespace| namespaces.contains(namespace))
}

fn files_named_lastack() -> BTreeSet<PathBuf> {
    let dirs = [
        Some(std::env::temp_dir()),
        std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("lastack")),
    ];
    let entries =
        dirs.into_iter().flatten().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    // Directories of tests that run beside this one are theirs.
    paths
        .filter(|path| {
            path.to_string_lossy().contains("lastack") && !path.to_string_lossy().contains("lastack-e2e")
        })
        .collect()
}

#[test]
fn no_process_and_no_namespace_survives_sigkill_of_lastack() {
    needs_run!();
    each_user(|user| {
        let runner = Runner::new(user);
        let mut command = runner.command("sh");
        command.args(["-c", "sleep 1000 & echo up; wait"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).unwrap();
        let mut up = [0; 2];
        std::io::Read::read_exact(process.child().stdout.as_mut().unwrap(), &mut up).unwrap();
        let children = descendants(process.id());
        assert!(!children.is_empty(), "the program runs below lastack");
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let mut namespaces = network_namespaces_of(&children);
        namespaces.remove(&own);
        assert_eq!(namespaces.len(), 1, "the program has a network namespace of its own");
        process.signal(Signal::KILL);
        process.wait_within(SHORT).unwrap().expect("SIGKILL ends it");
        let gone = clock::until(Duration::from_secs(5), || (!inhabited(&namespaces)).then_some(()));
        assert!(gone.is_some(), "5 s after SIGKILL of lastack there are still processes in its namespace");
    });
}

#[test]
fn a_background_process_of_the_program_ends_with_the_run() {
    needs_run!();
    let runner = Runner::new(User::Current);
    let started = clock::now();
    let ended = runner.run("sh", &["-c", "sleep 1000 >/dev/null 2>&1 </dev/null & echo $!"], SHORT);
    let pid: u32 = ended.expect_success("sh").text().trim().parse().expect("a process id");
    let gone = clock::until(Duration::from_secs(2), || {
        (!PathBuf::from(format!("/proc/{pid}")).exists()).then_some(())
    });
    assert!(gone.is_some(), "process {pid} still runs");
    println!("ended after {:?}", clock::now() - started);
}

#[test]
fn files_and_sockets_are_gone_after_the_end() {
    needs_run!();
    let before = files_named_lastack();
    let runner = Runner::new(User::Current).flags(&["--name", "e2e-leftovers"]);
    runner.run("true", &[], SHORT).expect_success("true");
    // Another test's run may be between its begin and its end.
    let gone =
        clock::until(Duration::from_secs(20), || files_named_lastack().is_subset(&before).then_some(()));
    assert!(gone.is_some(), "left: {:?}", files_named_lastack().difference(&before).collect::<Vec<_>>());
}

#[test]
fn sigterm_and_sigint_reach_the_program() {
    needs_run!();
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT")] {
        let runner = Runner::new(User::Current);
        // A shell cannot trap what is ignored when it starts, as SIGINT is in a script's background jobs.
        let mut command = runner.command("env");
        let script = format!("trap 'echo caught; exit 42' {name}; echo up; while :; do sleep 0.05; done");
        command
            .args(["--default-signal=INT,TERM", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).unwrap();
        let mut up = [0; 3];
        let mut stdout = process.child().stdout.take().unwrap();
        std::io::Read::read_exact(&mut stdout, &mut up).unwrap();
        process.signal(signal);
        let status = process.wait_within(SHORT).unwrap().expect("the program ends, and lastack with it");
        assert_eq!(status.code(), Some(42), "SIG{name}");
    }
}
