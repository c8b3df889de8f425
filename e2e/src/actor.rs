//! Drives the `actor` program: one step asked, one answer read, with an upper bound. Also what both ends share:
//! errno names, TCP counters and socket states as the kernel of the actor's namespace tells them.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::Process;

/// How long an answer may take: longer than any bounded call inside the actor.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running actor.
#[derive(Debug)]
pub struct Actor {
    stdin: Option<ChildStdin>,
    answers: Receiver<String>,
    process: Process,
}

/// What a step returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `ok`, `eof`, an errno's name, `timeout`, …
    pub result: String,
    /// Bytes moved, where the step moves bytes.
    pub bytes: Option<u64>,
    value: Value,
}

impl Answer {
    /// The answer in one phrase: `ok`, `ECONNRESET`, `eof after 100 bytes`.
    #[must_use]
    pub fn phrase(&self) -> String {
        match self.bytes {
            Some(bytes) if self.result == "ok" => format!("{bytes} bytes"),
            Some(0) | None => self.result.clone(),
            Some(bytes) => format!("{} after {bytes} bytes", self.result),
        }
    }

    /// The port of `listen`, `accept` and `connect`.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.value["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(0)
    }

    /// The counters of `counters`.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::from_json(&self.value["counters"])
    }

    fn silent(what: &str) -> Self {
        Self { result: what.to_owned(), bytes: None, value: Value::Null }
    }
}

impl Actor {
    /// Starts the actor; `command` is the actor program, wrapped in whatever carries its packets.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command)?;
        let stdin = process.child().stdin.take();
        let stdout = process.child().stdout.take();
        let (tx, answers) = channel();
        std::thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
                if tx.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { stdin, answers, process })
    }

    /// Asks for a step and waits for its answer.
    pub fn step(&mut self, step: &str) -> Answer {
        self.ask(step);
        self.answer()
    }

    /// Asks for a step; [`Actor::answer`] collects what it returned.
    pub fn ask(&mut self, step: &str) {
        if let Some(stdin) = &mut self.stdin {
            // A dead actor shows when its answer is missing.
            let _ = writeln!(stdin, "{step}").and_then(|()| stdin.flush());
        }
    }

    /// The answer to the oldest step asked for.
    pub fn answer(&mut self) -> Answer {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(line) => match serde_json::from_str::<Value>(&line) {
                Ok(value) => Answer {
                    result: value["result"].as_str().unwrap_or("?").to_owned(),
                    bytes: value["bytes"].as_u64(),
                    value,
                },
                Err(_) => Answer::silent(&format!("not an answer: {line}")),
            },
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => Answer::silent("no answer"),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => Answer::silent("gone"),
        }
    }

    /// Closes the actor's input, which ends it, and waits; `None` if it is still there after `limit`.
    ///
    /// # Errors
    /// The system refuses to watch the process.
    pub fn finish(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        self.stdin = None;
        self.process.wait_within(limit)
    }
}

/// `ECONNRESET` for 104, and so on; `timeout` for a call that ran into its time limit.
#[must_use]
pub fn errno_name(error: &io::Error) -> String {
    use rustix::io::Errno;
    let Some(number) = error.raw_os_error() else { return error.to_string() };
    let names = [
        (Errno::AGAIN, "timeout"),
        (Errno::PIPE, "EPIPE"),
        (Errno::CONNRESET, "ECONNRESET"),
        (Errno::CONNREFUSED, "ECONNREFUSED"),
        (Errno::CONNABORTED, "ECONNABORTED"),
        (Errno::TIMEDOUT, "ETIMEDOUT"),
        (Errno::HOSTUNREACH, "EHOSTUNREACH"),
        (Errno::NETUNREACH, "ENETUNREACH"),
        (Errno::NETDOWN, "ENETDOWN"),
        (Errno::NOTCONN, "ENOTCONN"),
        (Errno::ACCESS, "EACCES"),
        (Errno::PERM, "EPERM"),
        (Errno::INVAL, "EINVAL"),
        (Errno::BADF, "EBADF"),
        (Errno::ADDRINUSE, "EADDRINUSE"),
        (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (Errno::PROTO, "EPROTO"),
        (Errno::MSGSIZE, "EMSGSIZE"),
    ];
    match names.iter().find(|(errno, _)| errno.raw_os_error() == number) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("errno {number}"),
    }
}

/// The counters of one network namespace that say how connections ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    const NAMES: [&'static str; 6] = [
        "AttemptFails",
        "EstabResets",
        "TCPAbortOnClose",
        "TCPAbortOnData",
        "TCPAbortOnLinger",
        "TCPAbortOnTimeout",
    ];

    /// Reads `/proc/net/snmp` and `/proc/net/netstat` of this process's namespace.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/net/snmp")?
            + &std::fs::read_to_string("/proc/self/net/netstat")?;
        Ok(Self::parse(&text))
    }

    /// Lines come in pairs: names, then values.
    fn parse(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let pairs =
            lines.chunks_exact(2).flat_map(|pair| pair[0].split_whitespace().zip(pair[1].split_whitespace()));
        let wanted = pairs.filter(|(name, _)| Self::NAMES.contains(name));
        Self(wanted.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// What was counted since `before`: `TCPAbortOnClose+1`, or `none`.
    #[must_use]
    pub fn since(&self, before: &Self) -> String {
        let grown = self.0.iter().filter_map(|(name, now)| {
            let more = now - before.0.get(name).copied().unwrap_or(0);
            (more > 0).then(|| format!("{name}+{more}"))
        });
        let grown: Vec<String> = grown.collect();
        if grown.is_empty() { "none".to_owned() } else { grown.join(" ") }
    }

    /// For the actor's answer.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!(self.0)
    }

    fn from_json(value: &Value) -> Self {
        let entries = value.as_object().into_iter().flatten();
        Self(entries.filter_map(|(name, n)| Some((name.clone(), n.as_u64()?))).collect())
    }
}

/// The states, named as `ss` names them, of this namespace's TCP sockets with local port `port`.
#[must_use]
pub fn sockets_of_port(port: u16) -> Vec<String> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let text: String = tables.iter().filter_map(|table| std::fs::read_to_string(table).ok()).collect();
    states_of_port(&text, port)
}

fn states_of_port(table: &str, port: u16) -> Vec<String> {
    rows_of_port(table, port).iter().map(|row| state_name(row[3]).to_owned()).collect()
}

fn rows_of_port(table: &str, port: u16) -> Vec<Vec<&str>> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = rows.filter(|row| {
        let local = row.get(1).and_then(|local| local.rsplit(':').next());
        local.and_then(|hex| u16::from_str_radix(hex, 16).ok()) == Some(port) && row.len() > 3
    });
    ours.collect()
}

/// State and timer, named as `ss -o` names them, of this namespace's TCP sockets with local port `port` that are
/// connected: `ESTAB persist`, `ESTAB off`.
#[must_use]
pub fn timers_of_port(port: u16) -> Vec<String> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let text: String = tables.iter().filter_map(|table| std::fs::read_to_string(table).ok()).collect();
    timers_in(&text, port)
}

fn timers_in(table: &str, port: u16) -> Vec<String> {
    let rows = rows_of_port(table, port);
    let connected = rows.into_iter().filter(|row| row[3] != "0A" && row.len() > 5);
    connected.map(|row| format!("{} {}", state_name(row[3]), timer_name(row[5]))).collect()
}

/// Linux's `get_tcp4_sock()`: the kind of timer before the colon.
fn timer_name(field: &str) -> &'static str {
    match field.split(':').next() {
        Some("00") => "off",
        Some("01") => "on",
        Some("02") => "keepalive",
        Some("03") => "timewait",
        Some("04") => "persist",
        _ => "?",
    }
}

/// Linux's `include/net/tcp_states.h`, with the names of `ss`.
fn state_name(hex: &str) -> &'static str {
    match hex {
        "01" => "ESTAB",
        "02" => "SYN-SENT",
        "03" | "0C" => "SYN-RECV",
        "04" => "FIN-WAIT-1",
        "05" => "FIN-WAIT-2",
        "06" => "TIME-WAIT",
        "07" => "CLOSED",
        "08" => "CLOSE-WAIT",
        "09" => "LAST-ACK",
        "0A" => "LISTEN",
        "0B" => "CLOSING",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_in_pairs_of_lines_and_only_growth_is_told() {
        let before = Counters::parse("TcpExt: TCPAbortOnData TCPAbortOnClose\nTcpExt: 1 2\n");
        let after = Counters::parse("TcpExt: TCPAbortOnData TCPAbortOnClose\nTcpExt: 1 4\n");
        assert_eq!(after.since(&before), "TCPAbortOnClose+2");
        assert_eq!(after.since(&after), "none");
    }

    #[test]
    fn states_are_those_of_the_local_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                     0: 6402000A:1F90 0202000A:0050 06 00000000:00000000\n\
                     1: 6402000A:1F91 0202000A:1F90 01 00000000:00000000\n";
        assert_eq!(states_of_port(table, 0x1F90), ["TIME-WAIT"]);
        assert_eq!(
            timers_in("0: 6402000A:1F92 0202000A:0050 01 0000:0000 04:00000019 0", 0x1F92),
            ["ESTAB persist"]
        );
    }
}
