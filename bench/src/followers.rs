//! Followers of connections beside a load of short ones: what they take of a core, what they slow the load down by, and
//! what they lose and tell.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lastack_e2e::clock;
use rustix::process::{Pid, Signal, kill_process};

use crate::figures::Series;
use crate::usage::{self, Usage};

/// One way to follow connections.
struct Follower {
    name: &'static str,
    arguments: &'static [&'static str],
}

const FOLLOWERS: &[Follower] = &[
    Follower { name: "nobody", arguments: &[] },
    Follower { name: "lastack trace --count", arguments: &["trace", "--count", "1000", "--json"] },
    Follower { name: "lastack trace --ends --json", arguments: &["trace", "--ends", "--json"] },
    Follower { name: "lastack trace --json", arguments: &["trace", "--json"] },
    Follower { name: "lastack record", arguments: &["record", "--json"] },
    Follower { name: "lastack export", arguments: &["export", "--listen", "127.0.0.1:9435"] },
];

/// What one follower came to in one round.
struct Followed {
    rate: f64,
    cores: f64,
    seen: Option<u64>,
    lost: Option<u64>,
}

/// A follower that runs until it is told to end, also where the load beside it fails.
struct Running(Option<Child>);

impl Running {
    /// Ends it as Ctrl-C would; gives what it has used.
    fn end(mut self) -> io::Result<Option<Usage>> {
        if let Some(child) = &self.0 {
            kill_process(Pid::from_child(child), Signal::INT)?;
        }
        self.0.take().map(usage::wait).transpose()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

/// Runs each follower beside the load in interleaved rounds; gives the table.
///
/// # Errors
/// When a follower or the load cannot be run.
pub fn table(lastack: &Path, own: &Path, rounds: usize, seconds: f64) -> io::Result<String> {
    let mut rates: Vec<Series> = FOLLOWERS.iter().map(|_| Series::default()).collect();
    let mut cores = rates.clone();
    let mut sums = vec![(0u64, 0u64, false); FOLLOWERS.len()];
    for round in 1..=rounds {
        for (at, follower) in FOLLOWERS.iter().enumerate() {
            let Followed { rate, cores: used, seen, lost } = follow(lastack, own, follower, seconds)?;
            eprintln!(
                "{round}/{rounds}  {:<28} {rate:7.0} connections/s, {used:.2} cores, seen {seen:?}, lost {lost:?}",
                follower.name
            );
            rates[at].add(Ok(rate));
            cores[at].add(Ok(used));
            sums[at].0 += seen.unwrap_or(0);
            sums[at].1 += lost.unwrap_or(0);
            sums[at].2 |= seen.is_some();
        }
    }
    let mut out = String::from(
        "\n## Following short connections at the highest rate\n\nA thread a core opens, accepts and closes connections on the loopback without a pause, so that nothing is left for the \
         follower but what it takes away. Events: about ten a connection for `trace` (`--count` counts every tcp:* as well), two ends a connection for the others.\n\n\
         | | connections/s | : nobody | of a core | seen | lost, counted and told |\n|---|---|---|---|---|---|\n",
    );
    for (at, follower) in FOLLOWERS.iter().enumerate() {
        let ratio = rates[at].median().unwrap_or(0.0) / rates[0].median().unwrap_or(1.0);
        let (seen, lost, told) = sums[at];
        let figure = |n: u64| if told { n.to_string() } else { "–".to_owned() };
        let _ = writeln!(
            out,
            "| {} | {} | {ratio:.2} | {} | {} | {} |",
            follower.name,
            rates[at].cell(),
            cores[at].cell(),
            figure(seen),
            figure(lost)
        );
    }
    Ok(out)
}

fn follow(lastack: &Path, own: &Path, follower: &Follower, seconds: f64) -> io::Result<Followed> {
    let folder = lastack_e2e::servers::directory()?;
    let said = folder.path().join("said");
    let start = clock::now();
    let running = Running(if follower.arguments.is_empty() {
        None
    } else {
        let mut command = Command::new(lastack);
        command.args(follower.arguments).env("LASTACK_RECORD", folder.path().join("record"));
        let file = std::fs::File::create(&said)?;
        Some(command.stdin(Stdio::null()).stdout(file).stderr(Stdio::null()).spawn()?)
    });
    // Time to open its rings; nothing depends on it but the first figures.
    clock::pause(Duration::from_secs(1));
    let output = Command::new(own).args(["connect", &seconds.to_string()]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [count, took] = figures[..] else {
        return Err(io::Error::other(format!("no load: {text}{}", String::from_utf8_lossy(&output.stderr))));
    };
    let metrics = if follower.arguments.first() == Some(&"export") { scrape()? } else { String::new() };
    let used = running.end()?.unwrap_or_default();
    let cores = used.cpu_s / (start.elapsed().as_secs_f64() - 1.0);
    // The stream may be gigabytes: its last line is the summary.
    let last = tail(&said).unwrap_or_default();
    let number = |key: &str| -> Option<u64> {
        let value: serde_json::Value = serde_json::from_str(&last).ok()?;
        value[key].as_u64()
    };
    // What `--count` counted, if that is what it says.
    let counted = || -> Option<u64> {
        let value: serde_json::Value = serde_json::from_str(&last).ok()?;
        Some(value["counts"].as_object()?.values().filter_map(serde_json::Value::as_u64).sum())
    };
    let metric = |name: &str| -> Option<u64> {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        let values: Vec<f64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() as u64)
    };
    Ok(Followed {
        rate: count / took,
        cores,
        seen: number("total")
            .or_else(|| number("ended"))
            .or_else(|| metric("lastack_connections_closed_total"))
            .or_else(counted),
        lost: number("lost").or_else(|| metric("lastack_events_lost_total")),
    })
}

fn scrape() -> io::Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:9435")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The last line of a file.
fn tail(path: &Path) -> io::Result<String> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(16 * 1024)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).lines().last().unwrap_or_default().to_owned())
}
