//! Child processes that cannot outlive their test, and waiting for them with an upper bound.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// A child process; dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

/// Everything a finished program left: its status and its two streams.
#[derive(Debug)]
pub struct Finished {
    /// How it ended; `None` if it had to be killed at the time limit.
    pub status: Option<ExitStatus>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `command`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}")))?;
        Ok(Self { name, child })
    }

    /// The child, to take its streams from.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid(), signal);
    }

    /// Waits until it ends, at most for `limit`; `None` at the limit.
    ///
    /// # Errors
    /// The system refuses to watch the process.
    pub fn wait_within(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(Some(status));
        }
        let pidfd = pidfd_open(self.pid(), PidfdFlags::empty())?;
        let end = crate::clock::now() + limit;
        loop {
            let left = end.saturating_duration_since(crate::clock::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout));
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// Its memory now and its highest so far, in KiB (`VmRSS`, `VmHWM`).
    #[must_use]
    pub fn memory_kib(&self) -> Option<(u64, u64)> {
        memory_kib(self.id())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            if self.child.wait().is_err() {
                eprintln!("{} ({}) could not be reaped", self.name, self.child.id());
            }
        }
    }
}

/// Memory of process `pid` now and its highest so far, in KiB (`VmRSS`, `VmHWM`).
#[must_use]
pub fn memory_kib(pid: u32) -> Option<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

/// Children of `pid`, then theirs, and so on.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
                found.push(child);
                parents.push(child);
            }
        }
    }
    found
}

/// Runs `command` to its end, at most for `limit`, and gives what it wrote. At the limit it is killed.
///
/// # Errors
/// The program cannot be started.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Finished> {
    run_with_input(command, &[], limit)
}

/// As [`run`], with `input` on its standard input.
///
/// # Errors
/// The program cannot be started.
pub fn run_with_input(command: &mut Command, input: &[u8], limit: Duration) -> io::Result<Finished> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::spawn(command)?;
    let stdout = collect(process.child().stdout.take());
    let stderr = collect(process.child().stderr.take());
    if let Some(mut stdin) = process.child().stdin.take() {
        let input = input.to_vec();
        // A program that ends without reading its input is no error of the harness.
        std::thread::spawn(move || drop(io::Write::write_all(&mut stdin, &input)));
    }
    let status = process.wait_within(limit)?;
    drop(process);
    // A grandchild that inherited the streams must not hold up the harness.
    let patience = Duration::from_secs(5);
    let stdout = join_within(stdout, patience);
    let stderr = String::from_utf8_lossy(&join_within(stderr, patience)).into_owned();
    Ok(Finished { status, stdout, stderr })
}

impl Finished {
    /// Whether it ended by itself with exit status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// Exit code; `None` for a signal or the time limit.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Panics with both streams unless it ended by itself with exit status 0.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn expect_success(self, what: &str) -> Self {
        assert!(
            self.success(),
            "{what}: {}\n-- standard error:\n{}\n-- standard output (first 2000 characters):\n{}",
            self.status.map_or_else(|| "still running at the time limit".to_owned(), |s| s.to_string()),
            self.stderr,
            self.text().chars().take(2000).collect::<String>(),
        );
        self
    }
}

type Collected = (std::sync::mpsc::Receiver<Vec<u8>>, JoinHandle<()>);

fn collect(stream: Option<impl Read + Send + 'static>) -> Option<Collected> {
    let mut stream = stream?;
    let (tx, rx) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(n) = stream.read(&mut chunk) {
            if n == 0 || tx.send(chunk[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    Some((rx, reader))
}

fn join_within(stream: Option<Collected>, limit: Duration) -> Vec<u8> {
    let Some((rx, reader)) = stream else { return Vec::new() };
    let end = crate::clock::now() + limit;
    let mut all = Vec::new();
    while let Ok(chunk) = rx.recv_timeout(end.saturating_duration_since(crate::clock::now())) {
        all.extend_from_slice(&chunk);
    }
    if reader.is_finished() {
        let _ = reader.join();
    }
    all
}
