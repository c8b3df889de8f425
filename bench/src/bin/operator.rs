//! What the operator's tools cost: listing 100,000 sockets beside `ss` and beside a raw dump, watching them,
//! and following every connection at the highest rate of short ones that this machine gives.
//!
//! ```text
//! operator [--sockets 100000] [--rounds 5] [--seconds 3] [--only list|watch|events] [--write]
//! ```
//! `--write` puts the result into `bench/OPERATOR.md`. Everything happens in a network namespace of its own; rounds are
//! interleaved, so that what disturbs the machine disturbs all alike. Processor time is compared, wall time only shown.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::Duration;

use lastack_bench::figures::Series;
use lastack_bench::short_lives::{self, Made};
use lastack_bench::usage::{self, Usage};
use lastack_bench::{followers, raw_dump, screen};
use lastack_e2e::{binaries, clock};
use rustix::process::{Resource, getrlimit, setrlimit};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["hold", count] => hold(count.parse().unwrap_or(0)),
        ["raw", detail] => raw_dump::dump(detail == "detailed").map(|count| println!("{count}")),
        ["connect", seconds] => connect(seconds.parse().unwrap_or(1.0)),
        _ => series(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "error: the series could not be run\ncause: {error}\ntry: as root: tracepoints and namespaces need it"
            );
            ExitCode::from(125)
        }
    }
}

/// A child that holds sockets until its input is closed.
struct Holder(Child, Option<ChildStdin>);

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.1.take());
        let _ = self.0.wait();
    }
}

/// Opens `count` connections to itself, says so, and keeps them until its input ends.
fn hold(count: usize) -> io::Result<()> {
    raise_files()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut kept = Vec::with_capacity(2 * count);
    for _ in 0..count {
        kept.push(TcpStream::connect(address)?);
        kept.push(listener.accept()?.0);
    }
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

fn raise_files() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Short connections for so long; says how many there were, and in what time.
fn connect(seconds: f64) -> io::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = u8::try_from(threads).unwrap_or(u8::MAX).min(200);
    let Made { connections, seconds } = short_lives::make(threads, Duration::from_secs_f64(seconds))?;
    println!("{connections} {seconds}");
    Ok(())
}

fn series(args: &[String]) -> io::Result<()> {
    let value = |name: &str| {
        args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).map(String::as_str)
    };
    let sockets: usize = value("--sockets").and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let rounds: usize = value("--rounds").and_then(|n| n.parse().ok()).unwrap_or(5);
    let seconds: f64 = value("--seconds").and_then(|n| n.parse().ok()).unwrap_or(3.0);
    let only = value("--only").unwrap_or("");
    let wanted = |part: &str| only.is_empty() || only == part;
    let lastack = binaries::lastack();
    let own = std::env::current_exe()?;
    let load_before = load_average();
    #[allow(deprecated, reason = "no other thread runs yet")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)?;
    run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")?;
    let mut out = String::new();
    if wanted("list") || wanted("watch") {
        let holders = hold_all(&own, sockets)?;
        if wanted("list") {
            out += &list(lastack, &own, rounds)?;
        }
        if wanted("watch") {
            out += &watch(lastack, seconds)?;
        }
        drop(holders);
    }
    if wanted("events") {
        out += &followers::table(lastack, &own, rounds, seconds)?;
    }
    print!("{out}");
    if args.iter().any(|arg| arg == "--write") {
        let head = format!(
            "# What the operator's tools cost\n\n{}; load average {load_before} before, {} after (a busy machine makes wall times worthless; \
             processor times and ratios of one series mean something).\n\n```\ncargo run --release -p lastack-bench --bin operator -- --write        # {rounds} interleaved rounds; median (least–most)\n```\n",
            machine(),
            load_average()
        );
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("OPERATOR.md"), head + &out)?;
    }
    Ok(())
}

fn hold_all(own: &Path, sockets: usize) -> io::Result<Vec<Holder>> {
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20);
    let most = usize::try_from(files.saturating_sub(100) / 2).unwrap_or(5000).min(20_000);
    let (mut left, mut holders) = (sockets / 2, Vec::new());
    while left > 0 {
        let count = left.min(most);
        let mut child = Command::new(own)
            .args(["hold", &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if line.trim() != "ready" {
            return Err(io::Error::other("a holder could not open its sockets"));
        }
        holders.push(Holder(child, input));
        left -= count;
    }
    Ok(holders)
}

/// Runs it with its output thrown away.
fn measured(command: &mut Command) -> io::Result<(Usage, f64)> {
    let start = clock::now();
    let used =
        usage::wait(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)?;
    if used.success {
        Ok((used, start.elapsed().as_secs_f64()))
    } else {
        Err(io::Error::other(format!("{command:?} failed")))
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    if command.status()?.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?} failed"))) }
}

/// One way to list.
struct Lister<'a> {
    name: &'static str,
    program: &'a Path,
    arguments: &'static [&'static str],
    /// Index of the yardstick it is compared with.
    against: usize,
}

fn list(lastack: &Path, own: &Path, rounds: usize) -> io::Result<String> {
    let ss = Path::new("ss");
    let lister = |name, program, arguments, against| Lister { name, program, arguments, against };
    let listers = [
        lister("raw dump", own, &["raw", "brief"], 0),
        lister("lastack ss -tan", lastack, &["ss", "-tan"], 0),
        lister("ss -tan", ss, &["-tan"], 0),
        lister("lastack ss -s", lastack, &["ss", "-s"], 0),
        lister("raw dump, tcp_info and memory", own, &["raw", "detailed"], 4),
        lister("lastack ss -tanim", lastack, &["ss", "-tanim"], 4),
        lister("ss -tanim", ss, &["-tanim"], 4),
        lister("lastack ss -a --group-by state,peer", lastack, &["ss", "-a", "--group-by", "state,peer"], 4),
        lister("lastack ss -tanp", lastack, &["ss", "-tanp"], 0),
        lister("ss -tanp", ss, &["-tanp"], 0),
        lister("lastack ss -a --json (owners too)", lastack, &["ss", "-a", "--json"], 4),
        lister(
            "lastack doctor --interval 0",
            lastack,
            &["doctor", "--interval", "0", "--fail-on", "error"],
            4,
        ),
    ];
    let mut cpu: Vec<Series> = listers.iter().map(|_| Series::default()).collect();
    let (mut wall, mut memory) = (cpu.clone(), cpu.clone());
    for round in 1..=rounds {
        for (at, lister) in listers.iter().enumerate() {
            let (used, took) = measured(
                Command::new(lister.program).args(lister.arguments).env("LASTACK_RECORD", "/nonexistent"),
            )?;
            eprintln!("{round}/{rounds}  {:<40} {:6.0} ms", lister.name, used.cpu_s * 1e3);
            cpu[at].add(Ok(used.cpu_s * 1e3));
            wall[at].add(Ok(took * 1e3));
            memory[at].add(Ok(used.peak_bytes as f64 / 1e6));
        }
    }
    let count = raw_dump::dump(false)?;
    let mut out = format!(
        "\n## Listing {count} sockets\n\n| | processor time, ms | : raw dump | wall, ms | peak memory, MB |\n|---|---|---|---|---|\n"
    );
    for (at, lister) in listers.iter().enumerate() {
        let ratio = cpu[at].median().unwrap_or(0.0) / cpu[lister.against].median().unwrap_or(1.0);
        let _ = writeln!(
            out,
            "| {} | {} | {ratio:.2} | {} | {} |",
            lister.name,
            cpu[at].cell(),
            wall[at].cell(),
            memory[at].cell()
        );
    }
    Ok(out)
}

/// `watch` asked for ten looks a second, on a terminal and without: what it takes of a core.
fn watch(lastack: &Path, seconds: f64) -> io::Result<String> {
    let mut out = String::from(
        "\n## Watching them, ten looks a second asked for\n\n\
         On a terminal, the sockets on the screen are read again for each picture, all of them in each look; lines count all \
         of them by state each time.\n\n\
         | | pictures or lines a second | looks at all a second | of a core | peak memory, MB |\n|---|---|---|---|---|\n",
    );
    let seconds = (2.0 * seconds).max(4.0);
    let arguments = |json: &[&'static str]| {
        let mut command = Command::new(lastack);
        command.args(["watch", "--interval", "0.1", "--duration", &seconds.to_string()]).args(json);
        command.env("LANG", "C").env("LASTACK_RECORD", "/nonexistent");
        command
    };
    let start = clock::now();
    let (used, said) = screen::run(&mut arguments(&[]))?;
    let took = start.elapsed().as_secs_f64();
    // "100123 sockets, 12 looks, 98 pictures in 10.0s"
    let count = |what: &str| -> io::Result<f64> {
        let words: Vec<&str> = said.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let at = words.iter().rposition(|word| *word == what);
        let number = at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok());
        number.ok_or_else(|| io::Error::other(format!("watch told no {what}: {said}")))
    };
    let _ = writeln!(
        out,
        "| lastack watch --interval 0.1, 160 × 50 | {:.1} | {:.1} | {:.2} | {:.0} |",
        count("pictures")? / took,
        count("looks")? / took,
        used.cpu_s / took,
        used.peak_bytes as f64 / 1e6
    );
    let start = clock::now();
    let mut child =
        arguments(&["--json"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut text = String::new();
    child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?.read_to_string(&mut text)?;
    let used = usage::wait(child)?;
    let took = start.elapsed().as_secs_f64();
    let lines = text.lines().count() as f64 / took;
    let _ = writeln!(
        out,
        "| lastack watch --interval 0.1 --json | {lines:.1} | {lines:.1} | {:.2} | {:.0} |",
        used.cpu_s / took,
        used.peak_bytes as f64 / 1e6
    );
    Ok(out)
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}

fn machine() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("?")
        .trim_start_matches([' ', '\t', ':']);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} × {model}; Linux {}", kernel.trim())
}
