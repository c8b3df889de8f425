//! The league table of the errno law and the closing law: plain Linux, lastack, pasta, slirp4netns, cell by cell.
//!
//! ```text
//! cargo run --release -p lastack-e2e --bin closing-law                     # print the tables
//! cargo run --release -p lastack-e2e --bin closing-law -- --write          # write docs/closing-law.md
//! … -- --json --carriers linux,lastack --case half-close                   # some carriers, some cases, as JSON
//! ```
//! Exit status 1 if lastack departs from plain Linux anywhere.

use std::process::{Command, ExitCode};
use std::time::Duration;

use lastack_e2e::arena::Arena;
use lastack_e2e::binaries;
use lastack_e2e::carrier::Carrier;
use lastack_e2e::law::league;
use lastack_e2e::process::run;

const COMMAND: &str = "cargo run --release -p lastack-e2e --bin closing-law -- --write";

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            eprintln!(
                "error: the laws could not be played\ncause: {error}\ntry: as root, or where unprivileged user namespaces are allowed"
            );
            ExitCode::from(125)
        }
    }
}

fn start() -> std::io::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| args.iter().any(|arg| arg == name);
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let carriers: Vec<Carrier> = match value("--carriers") {
        Some(names) => names.split(',').filter_map(Carrier::named).collect(),
        None => Carrier::ALL.to_vec(),
    };
    // Build while the network is still there.
    let _ = binaries::actor();
    if carriers.contains(&Carrier::Lastack) {
        let _ = binaries::lastack();
    }
    Arena::enter()?;
    let filter = value("--case").map_or("", String::as_str);
    let rows = league::play(&carriers, filter, |case| eprintln!("playing {case}"))?;
    if flag("--json") {
        println!("{}", league::to_json(&rows));
    } else if flag("--write") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/closing-law.md");
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))?;
        std::fs::write(path, document(&carriers, &league::to_markdown(&rows)))?;
        println!("docs/closing-law.md is written");
    } else {
        print!("{}", league::to_markdown(&rows));
    }
    let lastack = rows.iter().flat_map(|row| row.performances.iter().map(move |p| (row, p)));
    let broken = lastack.filter(|(row, p)| p.carrier == Carrier::Lastack && !league::is_same(row, p)).count();
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn document(carriers: &[Carrier], tables: &str) -> String {
    let date = run(Command::new("date").args(["-u", "+%Y-%m-%d"]), Duration::from_secs(5));
    let date = date.map(|date| date.text().trim().to_owned()).unwrap_or_default();
    let versions: Vec<String> = carriers.iter().map(|carrier| format!("`{}`", carrier.version())).collect();
    format!(
        "# The errno law and the closing law\n\n\
         What a program and its peer see of a connection's beginning and end, on plain Linux and through three carriers. Made by one command:\n\n\
         ```\n{COMMAND}\n```\n\n\
         {date}; {}.\n\n\
         The same small client and server (`e2e/src/bin/actor.rs`) are told step by step what to do. Client, host and server each have a network\n\
         namespace of their own, so each kernel's counters (`/proc/net/netstat`) are that side's alone. On plain Linux the host forwards; a carrier runs in the\n\
         host's namespace and provides the client's. *same* means: every result of every socket call, every state a kernel kept and every counter of aborted\n\
         connections is what plain Linux shows, on both sides; for lastack also that its journal names who closed, how, why, and what was lost.\n\
         Otherwise only what differs is shown. The *published closing law* is the closing law the other way round: the server is behind the carrier and its\n\
         client in the remote namespace (`lastack run --publish`; the other carriers publish in ways of their own, which are not played).\n\n\
         {tables}",
        versions.join(", "),
    )
}
