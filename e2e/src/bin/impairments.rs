//! What `lastack run` does to packets, measured against what was asked: `docs/impairments.md`.
//!
//! ```text
//! cargo run --release -p lastack-e2e --bin impairments              # print the table
//! cargo run --release -p lastack-e2e --bin impairments -- --write   # write it into docs/impairments.md
//! ```
//! Needs nginx and curl. No figure here is a pass or a fail: a busy machine is late.

use std::fmt::Write as _;
use std::io;
use std::process::{Command, ExitCode};
use std::time::Duration;

use lastack_e2e::process::run;
use lastack_e2e::runner::{HOST_V4, Runner, User};
use lastack_e2e::servers::Server;
use serde_json::Value;

/// This very build: figures of another one are not ours to give.
const COMMAND: &str = if cfg!(debug_assertions) {
    "cargo run -p lastack-e2e --bin impairments -- --write"
} else {
    "cargo run --release -p lastack-e2e --bin impairments -- --write"
};
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/impairments.md");
/// What stands before the table in the document, and behind it.
const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->\n";

/// Flags, and how many bytes are fetched under them.
const ROWS: &[(&[&str], u64)] = &[
    (&["--loss", "1%"], 20 << 20),
    (&["--loss", "5%"], 5 << 20),
    (&["--loss", "20%"], 128 << 10),
    (&["--loss", "2%/5"], 5 << 20),
    (&["--loss", "down:5%"], 5 << 20),
    (&["--delay", "1"], 20 << 20),
    (&["--delay", "5"], 20 << 20),
    (&["--delay", "20"], 20 << 20),
    (&["--delay", "100"], 5 << 20),
    (&["--delay", "20±5"], 5 << 20),
    (&["--rate", "1M"], 1 << 20),
    (&["--rate", "10M"], 10 << 20),
    (&["--rate", "100M"], 50 << 20),
    (&["--reorder", "5%"], 20 << 20),
    (&["--duplicate", "1%"], 20 << 20),
    (&["--loss", "1%", "--delay", "20", "--rate", "10M"], 5 << 20),
];

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "error: the table could not be made\ncause: {error}\ntry: as root, with nginx and curl"
            );
            ExitCode::from(125)
        }
    }
}

fn start() -> io::Result<()> {
    let nginx = Server::nginx()?;
    let file = std::fs::File::create(nginx.content().join("zeros"))?;
    file.set_len(64 << 20)?;
    let mut table = String::from(
        "| asked | packets ↑ / ↓ | lost ↑ / ↓ | on the way ↑ / ↓, mean ms | connect, ms | download, Mbit/s | overtaken ↑ / ↓ | twice ↑ / ↓ |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (flags, bytes) in ROWS {
        eprintln!("{}", flags.join(" "));
        table += &row(&nginx, flags, *bytes)?;
    }
    if !std::env::args().any(|arg| arg == "--write") {
        print!("{table}");
        return Ok(());
    }
    let date = run(Command::new("date").args(["-u", "+%Y-%m-%d"]), Duration::from_secs(5))?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let measured = format!(
        "Made by one command, {} on Linux {release}, {} processors at a load of {}:\n\n```\n{COMMAND}\n```\n\n{table}",
        date.text().trim(),
        std::thread::available_parallelism()?,
        load.split(' ').nth(1).unwrap_or("?"),
    );
    let document = std::fs::read_to_string(DOCUMENT)?;
    let (before, rest) =
        document.split_once(BEGIN).ok_or_else(|| io::Error::other("the table has no place"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| io::Error::other("the table has no end"))?;
    std::fs::write(DOCUMENT, format!("{before}{BEGIN}{measured}{END}{after}"))?;
    println!("docs/impairments.md is written");
    Ok(())
}

fn row(nginx: &Server, flags: &[&str], bytes: u64) -> io::Result<String> {
    let runner = Runner::new(User::Current).flags(flags).flags(&["--seed", "7"]);
    let url = format!("http://{HOST_V4}:{}/zeros", nginx.port);
    let range = format!("0-{}", bytes - 1);
    let args =
        ["-sS", "--fail", "-o", "/dev/null", "-w", "%{time_connect} %{speed_download}", "-r", &range, &url];
    let fetched = runner.run("curl", &args, Duration::from_secs(600)).expect_success("curl");
    let told: Vec<f64> = fetched.text().split(' ').filter_map(|word| word.trim().parse().ok()).collect();
    let [connect, speed] = told.as_slice() else { return Err(io::Error::other(fetched.text())) };
    let journal = std::fs::read_to_string(runner.dir().join("journal.json"))?;
    let lines = journal.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let account = lines
        .into_iter()
        .find(|line| line["event"] == "impairments")
        .ok_or_else(|| io::Error::other("no account of the link"))?;
    let sides = ["up", "down"].map(|side| &account["rules"][0][side]);
    let number = |side: &Value, what: &str| side[what].as_f64().unwrap_or(0.0);
    let both = |tell: &dyn Fn(&Value) -> String| format!("{} / {}", tell(sides[0]), tell(sides[1]));
    let mut row = format!("| `{}` ", flags.join(" "));
    for cell in [
        both(&|side| format!("{}", number(side, "packets"))),
        both(&|side| format!("{:.2} %", number(side, "lost") * 100.0 / number(side, "packets").max(1.0))),
        both(&|side| format!("{:.2}", side["delay_us"]["mean"].as_f64().unwrap_or(0.0) / 1e3)),
        format!("{:.2}", connect * 1e3),
        format!("{:.1}", speed * 8.0 / 1e6),
        both(&|side| format!("{}", number(side, "overtaken"))),
        both(&|side| format!("{}", number(side, "duplicated"))),
    ] {
        let _ = write!(row, "| {cell} ");
    }
    Ok(row + "|\n")
}
