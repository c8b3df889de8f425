//! Hours of mixed load behind one `lastack run` on a bad link: do memory, descriptors and connections stay flat?
//!
//! ```text
//! cargo run --release -p lastack-e2e --bin soak -- --minutes 120
//! cargo run --release -p lastack-e2e --bin soak -- --minutes 2 --connections-per-second 20
//! ```
//! A table with a line a minute (forty lines at least), then the judgement (`lastack_e2e::soak::steady`). Exit status 1 if anything grew, a byte was not
//! the one that was sent, or a connection ended otherwise than it must. The load is bounded: so many dealings a second, 24 at once.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use lastack_e2e::process::Process;
use lastack_e2e::resolver::Resolver;
use lastack_e2e::runner::{HOST_V4, Runner, User};
use lastack_e2e::soak::load::{self, Plan};
use lastack_e2e::soak::service::Service;
use lastack_e2e::soak::steady::{self, Sample};
use lastack_e2e::{binaries, clock, servers};
use serde_json::Value;

/// The bad link.
const LINK: [&str; 8] = ["--loss", "1%", "--delay", "5", "--reorder", "1%", "--seed", "7"];
const SEED: u64 = 7;
/// How the program behind `lastack run` is told that it is that.
const LOAD: &str = "load";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done =
        if args.first().is_some_and(|first| first == LOAD) { be_load(&args[1..]) } else { soak(&args) };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!(
                "error: the soak could not be run\ncause: {error}\ntry: soak --minutes 2 [--connections-per-second 10], \
                 where `lastack run` works"
            );
            ExitCode::from(125)
        }
    }
}

fn value<T: std::str::FromStr>(args: &[String], name: &str) -> io::Result<Option<T>> {
    let Some(at) = args.iter().position(|arg| arg == name) else { return Ok(None) };
    let text = args.get(at + 1).ok_or_else(|| io::Error::other(format!("{name} needs a value")))?;
    text.parse().map(Some).map_err(|_| io::Error::other(format!("{name} {text}: a number is needed")))
}

/// The program behind `lastack run`: `load SERVICE NOBODY SECONDS PER_SECOND`.
fn be_load(args: &[String]) -> io::Result<bool> {
    fn parsed<T: std::str::FromStr>(args: &[String], at: usize) -> io::Result<T> {
        let word = args.get(at).and_then(|arg| arg.parse().ok());
        word.ok_or_else(|| io::Error::other("started by hand: it is the soak's own"))
    }
    let tally = load::run(&Plan {
        service: parsed(args, 0)?,
        nobody: parsed(args, 1)?,
        time: Duration::from_secs_f64(parsed(args, 2)?),
        per_second: parsed(args, 3)?,
        seed: SEED,
    });
    println!("{tally}");
    Ok(tally["failed"] == 0)
}

fn soak(args: &[String]) -> io::Result<bool> {
    let minutes: f64 = value(args, "--minutes")?.unwrap_or(120.0);
    let per_second: f64 = value(args, "--connections-per-second")?.unwrap_or(10.0);
    let time = Duration::from_secs_f64(minutes * 60.0);
    let service = Service::start()?;
    let resolver = Resolver::start(&[(load::NAME, load::ADDRESS)])?;
    let name = format!("soak-{}", std::process::id());
    let host: Ipv4Addr = HOST_V4.parse().map_err(io::Error::other)?;
    let inside = |port| SocketAddr::from((host, port)).to_string();
    let runner = Runner::new(User::Current).flags(&LINK).flags(&[
        "--name",
        &name,
        "--dns",
        &resolver.address.to_string(),
    ]);
    let mut command = runner.command(std::env::current_exe()?);
    command.args([LOAD, &inside(service.address.port()), &inside(servers::free_port()?)]);
    command.args([time.as_secs_f64().to_string(), per_second.to_string()]);
    let version = Command::new(binaries::lastack()).arg("--version").output()?;
    println!(
        "{} run {} · {per_second} dealings a second for {minutes} minutes, {} connections held",
        String::from_utf8_lossy(&version.stdout).trim(),
        LINK.join(" "),
        load::HELD,
    );
    let mut carrier = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let samples = watch(&carrier, &name, time);
    // What is under way at the end may have the longest wait of a dealing before it.
    let status = carrier.wait_within(Duration::from_secs(300))?;
    let mut told = String::new();
    if let Some(stdout) = carrier.child().stdout.as_mut() {
        BufReader::new(stdout).read_line(&mut told)?;
    }
    let tally: Value = serde_json::from_str(&told).map_err(|_| {
        io::Error::other(format!("the load ended without a tally: {status:?}, {} samples", samples.len()))
    })?;
    println!("\nload: {tally}");
    println!(
        "server: {} connections, {} reset by the client, {} farewells behind its own FIN",
        service.connections(),
        service.resets(),
        service.farewells(),
    );
    println!("journal, connections by how they ended: {:?}", endings(&runner.dir().join("journal.json"))?);
    let is_whole = is_whole(&tally, &service) && status.is_some_and(|status| status.success());
    println!("all data intact, every ending as it must be: {}", if is_whole { "yes" } else { "NO" });
    Ok(is_flat(&samples) && is_whole)
}

/// A sample a minute, forty at least, until the time is over.
fn watch(carrier: &Process, name: &str, time: Duration) -> Vec<Sample> {
    let pause = (time / 40).clamp(Duration::from_secs(2), Duration::from_secs(60));
    println!("{}", steady::HEAD);
    let (begin, mut samples) = (clock::now(), Vec::<Sample>::new());
    loop {
        let due = pause * (samples.len() as u32 + 1);
        if due > time {
            return samples;
        }
        clock::pause((begin + due).saturating_duration_since(clock::now()));
        let at = clock::now() - begin;
        let Some(sample) = Sample::take(at, carrier.id(), binaries::lastack(), name) else {
            println!("{:8.2} lastack cannot be looked into", at.as_secs_f64() / 60.0);
            return samples;
        };
        println!("{}", sample.line(samples.last()));
        samples.push(sample);
    }
}

/// Whether both ends agree that everything was as it must be.
fn is_whole(tally: &Value, service: &Service) -> bool {
    let done = |name: &str| tally["done"][name].as_u64().unwrap_or(0);
    let faults = service.faults();
    for fault in &faults {
        println!("fault: {fault}");
    }
    let counts = [
        ("resets of the client", done("client resets"), service.resets()),
        ("farewells", done("half-close down"), service.farewells()),
    ];
    for (what, sent, arrived) in counts {
        if sent != arrived {
            println!("fault: {sent} {what} sent, {arrived} seen by the server");
        }
    }
    tally["failed"] == 0 && faults.is_empty() && counts.iter().all(|(_, sent, arrived)| sent == arrived)
}

/// How many connections of the journal ended how.
fn endings(journal: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut endings = BTreeMap::new();
    for line in BufReader::new(std::fs::File::open(journal)?).lines() {
        let line: Value = serde_json::from_str(&line?)?;
        if line["event"] == "connection" {
            let how = line["how"].as_str().unwrap_or("not told").to_owned();
            *endings.entry(how).or_default() += 1;
        }
    }
    Ok(endings)
}

fn is_flat(samples: &[Sample]) -> bool {
    let Some(judgements) = steady::judge(samples) else {
        println!("flat: too few samples ({}) to say", samples.len());
        return false;
    };
    println!("flat means: last quarter's mean ≤ second quarter's mean + 5 % + slack");
    for judgement in judgements {
        let [first, second, third, last] = judgement.quarters;
        println!(
            "{:12} quarters {first:.1} · {second:.1} · {third:.1} · {last:.1}, slack {}: {}",
            judgement.measure.name(),
            judgement.measure.slack(),
            if judgement.is_flat { "flat" } else { "GREW" },
        );
    }
    judgements.iter().all(|judgement| judgement.is_flat)
}
