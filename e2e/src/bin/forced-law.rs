//! What `lastack run --inject` forces, beside a peer that really does it.
//!
//! ```text
//! cargo run --release -p lastack-e2e --bin forced-law              # print what was seen
//! cargo run --release -p lastack-e2e --bin forced-law -- stall     # some of it
//! ```
//! Exit status 1 if a program or its kernel could tell one from the other, or the peer behind `--inject` saw something else than is said.

use std::process::ExitCode;

use lastack_e2e::arena::Arena;
use lastack_e2e::binaries;
use lastack_e2e::law::Seen;
use lastack_e2e::law::forced::{CASES, play};

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            eprintln!(
                "error: the law could not be played\ncause: {error}\ntry: as root, or where unprivileged user namespaces are allowed"
            );
            ExitCode::from(125)
        }
    }
}

fn start() -> std::io::Result<ExitCode> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    // Build while the network is still there.
    let _ = (binaries::actor(), binaries::lastack());
    Arena::enter()?;
    let arena = Arena::build()?;
    let mut is_same = true;
    for case in CASES.iter().filter(|case| wanted.is_empty() || wanted.iter().any(|name| name == case.event))
    {
        let shown = play(&arena, case)?;
        is_same &= shown.is_same();
        println!("{}: {}", shown.event, if shown.is_same() { "the same" } else { "NOT THE SAME" });
        tell("real  ", &shown.real);
        tell("forced", &shown.forced);
        tell("peer  ", &shown.remote);
        for fault in shown.journal_faults {
            println!("  journal: {fault}");
        }
    }
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(name: &str, seen: &[Seen]) {
    let seen: Vec<String> = seen.iter().map(|seen| format!("{} {}", seen.what, seen.came)).collect();
    println!("  {name}: {}", seen.join(" · "));
}
