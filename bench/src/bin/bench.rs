//! The series: rounds over rows over contestants, so that what disturbs the machine disturbs all alike.
//!
//! Exit status 1 if lastack fails a gate.

use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use lastack_bench::contest::{Contest, Contestant, ROWS, Server, widen_host_ports};
use lastack_bench::figures::{Line, Series, table};
use lastack_e2e::arena::Arena;
use lastack_e2e::binaries;
use lastack_e2e::process::run;

const FEW: u64 = 16;

/// What is measured, and how long.
#[derive(Parser, Debug)]
#[command(name = "bench")]
struct Args {
    /// Rounds over all rows
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds a row
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Contestants, by name: lastack, slirp4netns, pasta, yardstick, loopback [default: all]
    #[arg(long, value_delimiter = ',', value_parser = contestant)]
    only: Vec<Contestant>,
    /// Rows whose title has this in it
    #[arg(long, default_value = "")]
    rows: String,
    /// Idle connections held for the rows about memory
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u64).range(FEW + 1..))]
    idle: u64,
    /// Put the result into `bench/RESULTS.md`
    #[arg(long)]
    write: bool,
}

fn contestant(name: &str) -> Result<Contestant, String> {
    let found = Contestant::ALL.into_iter().find(|contestant| contestant.name() == name);
    found.ok_or_else(|| format!("one of {}", Contestant::ALL.map(Contestant::name).join(", ")))
}

fn main() -> ExitCode {
    match start(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!(
                "error: the series could not be run\ncause: {error}\ntry: as root, or where unprivileged user namespaces are allowed"
            );
            ExitCode::from(125)
        }
    }
}

fn start(args: &Args) -> std::io::Result<ExitCode> {
    let Args { seconds, idle, .. } = *args;
    let (rounds, rows) = (usize::from(args.rounds), args.rows.as_str());
    let is_asked = |contestant: &Contestant| args.only.is_empty() || args.only.contains(contestant);
    let contestants: Vec<Contestant> = Contestant::ALL.into_iter().filter(is_asked).collect();
    // Build while the network is still there.
    let load = binaries::build("lastack-bench", "load");
    let yardstick = binaries::build("lastack-bench", "yardstick");
    if contestants.contains(&Contestant::Lastack) {
        let _ = binaries::lastack();
    }
    Arena::enter()?;
    widen_host_ports()?;
    let contest = Contest { arena: Arena::build()?, server: Server::start(&load)?, load, yardstick };

    let load_at_start = load_average();
    let wanted: Vec<_> = ROWS.into_iter().filter(|row| row.title.contains(rows)).collect();
    let mut lines: Vec<Line> =
        wanted.iter().map(|row| (titled(row.title), vec![Series::default(); contestants.len()])).collect();
    let mut memory = vec![Series::default(); contestants.len()];
    let mut total = memory.clone();
    for round in 1..=rounds {
        for (row, (_, series)) in wanted.iter().zip(&mut lines) {
            for (who, series) in contestants.iter().zip(series) {
                // The yardstick has no TCP: only its bulk figures mean something.
                if *who == Contestant::Yardstick && !row.title.starts_with("bulk") {
                    continue;
                }
                let result = contest.measure(*who, row, seconds);
                tell(round, rounds, row.title, *who, &result);
                series.add(result);
            }
        }
        if rows.is_empty() || rows.contains("memory") {
            for (at, who) in contestants.iter().enumerate().filter(|(_, who)| who.carrier().is_some()) {
                let result = contest.memory(*who, FEW, idle);
                tell(round, rounds, "memory", *who, &result.clone().map(|(each, _)| each));
                memory[at].add(result.clone().map(|(each, _)| each));
                total[at].add(result.map(|(_, all)| all));
            }
        }
    }
    if memory.iter().any(|series| !series.figures.is_empty() || !series.failures.is_empty()) {
        lines.push((MEMORY.to_owned(), memory));
        lines.push((format!("memory of the carrier with {idle} of them, MiB"), total));
    }
    let names: Vec<&str> = contestants.iter().map(|who| who.name()).collect();
    let text = document(&contestants, rounds, seconds, &names, &lines, &load_at_start);
    print!("{text}");
    if args.write {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md"), &text)?;
    }
    let ours = names.iter().position(|name| *name == "lastack");
    let failed = ours.is_some_and(|at| lines.iter().any(|(_, series)| !series[at].failures.is_empty()));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The load of the last minute: above the number of cores somebody else is working here.
fn load_average() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("?").to_owned()
}

const MEMORY: &str = "memory for an idle connection, bytes";

fn titled(title: &str) -> String {
    let unit = match title {
        t if t.starts_with("bulk") => "Gbit/s",
        t if t.starts_with("short") => "connections/s",
        _ => "round trips/s",
    };
    format!("{title}, {unit}")
}

fn tell(round: usize, rounds: usize, row: &str, who: Contestant, result: &Result<f64, String>) {
    match result {
        Ok(figure) => eprintln!(
            "[{round}/{rounds}] {row:34} {:12} {}",
            who.name(),
            lastack_bench::figures::short(*figure)
        ),
        Err(why) => eprintln!("[{round}/{rounds}] {row:34} {:12} GATE FAILED: {why}", who.name()),
    }
}

fn document(
    contestants: &[Contestant],
    rounds: usize,
    seconds: f64,
    names: &[&str],
    lines: &[Line],
    load_at_start: &str,
) -> String {
    let output = |program: &str, args: &[&str]| {
        let finished = run(Command::new(program).args(args), Duration::from_secs(5));
        finished.map(|finished| finished.text().trim().to_owned()).unwrap_or_default()
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let versions = contestants.iter().filter_map(|who| Some(format!("`{}`", who.carrier()?.version())));
    let versions: Vec<String> = versions.collect();
    let mut text = format!(
        "# Results\n\n\
         {}; {cores} × {cpu}; `Linux {}`; {}; load average {load_at_start} before, {} after (a busy machine makes every figure worthless).\n\n\
         ```\nbench/run.sh        # {rounds} interleaved rounds, {seconds} s each; median (least–most)\n```\n\n\
         Only ratios within one series mean something. A ratio says how many times better the first is. *loopback*: no namespace, no carrier. *yardstick*: a forwarder\n\
         on a TUN without TCP (`bench/src/bin/yardstick.rs`), the price of everything but TCP. A figure counts only without one error,\n\
         stall (1 s) or connection left behind. Memory is the carrier's own (VmRSS of all its processes together); beside it each of the three keeps one socket of the host's kernel for a connection,\n\
         which no process's memory shows. pasta keeps no payload but in that socket.\n\n",
        output("date", &["-u", "+%Y-%m-%d"]),
        output("uname", &["-r"]),
        versions.join(", "),
        load_average(),
    );
    text.push_str(&table(names, lines, |title| title.starts_with("memory")));
    let failures: Vec<String> = lines
        .iter()
        .flat_map(|(title, series)| names.iter().zip(series).map(move |(name, series)| (title, name, series)))
        .flat_map(|(title, name, series)| {
            series.failures.iter().map(move |why| format!("- {title}, {name}: {why}"))
        })
        .collect();
    if !failures.is_empty() {
        let _ = write!(text, "\n## Gates that failed\n\n{}\n", failures.join("\n"));
    }
    text
}
