//! Nothing is left behind: not after the end, not after SIGKILL of lastack itself.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use lastack_e2e::clock;
use lastack_e2e::process::{Process, descendants};
use lastack_e2e::runner::{Runner, User};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

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

/// What a process holds on to until it has ended, whatever becomes of its number.
fn watched(pids: &[u32]) -> Vec<OwnedFd> {
    let pids = pids.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed()));
    pids.filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).collect()
}

/// Waits until every one of `processes` has ended; false at the limit.
fn ended_within(processes: &[OwnedFd], limit: Duration) -> bool {
    let is_over =
        |process| poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&Timespec::default())) == Ok(1);
    clock::until(limit, || processes.iter().all(is_over).then_some(())).is_some()
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
        let watched = watched(&children);
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let mut namespaces = network_namespaces_of(&children);
        namespaces.remove(&own);
        assert_eq!(namespaces.len(), 1, "the program has a network namespace of its own");
        process.signal(Signal::KILL);
        process.wait_within(SHORT).unwrap().expect("SIGKILL ends it");
        assert!(ended_within(&watched, SHORT), "after SIGKILL of lastack processes of its namespace live on");
        assert!(!inhabited(&namespaces), "everybody has ended, but somebody is in the namespace");
    });
}

/// The processes whose command line has `word` in it.
fn with_argument(word: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // A process that has ended and waits for its parent has no command line any more.
    let has_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    };
    pids.filter(has_it).collect()
}

/// What a failure must say about a process that should have ended: its name, state and parent, what it waits for in the kernel,
/// what it has open.
fn what_it_does(pid: u32) -> String {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let open: Vec<_> = files.filter_map(|file| std::fs::read_link(file.path()).ok()).collect();
    let (stat, line) = (read("stat"), read("cmdline").replace('\0', " "));
    format!(
        "{line}: {stat}waits in {} {}\nopen: {open:?}\nchildren: {:?}",
        read("wchan"),
        read("stack"),
        children(pid)
    )
}

/// The children of a process that has one thread: the helper, or lastack before its runtime begins.
fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Nobody lives on, wherever SIGKILL meets lastack: while the helper is being made, while it makes the namespaces, while the
/// program is forked but not yet known to be executed, after that.
#[test]
fn sigkill_of_lastack_at_any_step_of_its_start_leaves_nobody() {
    needs_run!();
    #[derive(Clone, Copy, Debug)]
    enum Step {
        HelperForked,
        HelperExecuted,
        ProgramForked,
        ProgramExecuted,
    }
    for step in [Step::HelperForked, Step::HelperExecuted, Step::ProgramForked, Step::ProgramExecuted] {
        for round in 0..5 {
            let token = format!("leftovers-{}-{step:?}-{round}", std::process::id());
            let runner = Runner::new(User::Current);
            let mut command = runner.command("sh");
            command.args(["-c", "sleep 1000; :", &token]).stdin(Stdio::null()).stdout(Stdio::null());
            let mut process = Process::spawn(&mut command).unwrap();
            let executed = |pid: u32, name: &str| {
                std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
            };
            let is_helper = |pid: u32| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.split(|byte| *byte == 0).nth(1) == Some(b"__sandbox")
            };
            let end = clock::now() + SHORT;
            // Without a pause: the steps are short.
            let has_come = || {
                let Some(helper) = children(process.id()).first().copied() else { return false };
                let program = children(helper).first().copied();
                match step {
                    Step::HelperForked => true,
                    Step::HelperExecuted => is_helper(helper),
                    Step::ProgramForked => is_helper(helper) && program.is_some(),
                    Step::ProgramExecuted => program.is_some_and(|program| executed(program, "sh")),
                }
            };
            while !has_come() {
                assert!(clock::now() < end, "{step:?} does not come");
                std::thread::yield_now();
            }
            let helper = watched(&children(process.id()));
            process.signal(Signal::KILL);
            process.wait_within(SHORT).unwrap().expect("SIGKILL ends it");
            // By its descriptor: in the middle of an exec a process has no command line to be found by.
            ended_within(&helper, SHORT);
            clock::until(SHORT, || with_argument(&token).is_empty().then_some(()));
            let left = with_argument(&token);
            let what_they_do: Vec<_> = left.iter().map(|pid| what_it_does(*pid)).collect();
            for pid in left.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
                let _ = kill_process(pid, Signal::KILL);
            }
            assert!(left.is_empty(), "{step:?}, round {round}: lived on: {what_they_do:#?}");
        }
    }
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
