//! `lastack record`: remembers owners, ages and endings for the other commands.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lastack_observe::interrupt::Interrupt;
use lastack_observe::live::{Live, News};
use lastack_observe::{clock, record};

use crate::args::Globals;
use crate::failure::Failure;
use crate::seconds;
use crate::source_args::SourceArgs;

/// At most so long between two looks at what ended.
const TICK: Duration = Duration::from_millis(100);

/// The command line of `record`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sudo lastack record                            former owners and ages for ss, doctor and kill
  sudo lastack record --output closed.ndjson     and a line for each connection that ends

As a service: lastack export --print unit-record > /etc/systemd/system/lastack-record.service
Connections shorter than --interval may be missed as owners; their ends are not.")]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// A line for each connection that ends is appended here
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where the memory is kept for the other commands (they look there, or at $LASTACK_RECORD)
    #[arg(long, value_name = "FILE")]
    memory: Option<PathBuf>,
    /// Seconds between two looks at all sockets
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds::pause)]
    interval: Duration,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds::length)]
    duration: Option<Duration>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    let scope = args.source.one_namespace()?;
    let memory = args.memory.clone().unwrap_or_else(record::default_path);
    let mut output = args.output.as_deref().map(open_output).transpose()?;
    let refused = |error: io::Error| args.source.refused(&error);
    let mut live = Live::open(&scope, args.interval).map_err(refused)?;
    if let Some(error) = live.refused() {
        say!("note: how connections end is not seen: {error}; sudo lastack record");
    }
    let (interrupt, start) = (Interrupt::catch(), clock::monotonic());
    let mut ended = 0u64;
    let mut over = false;
    while !over {
        // What ended before the interrupt and has not been read yet belongs to it.
        over = interrupt.raised() || args.duration.is_some_and(|length| start.elapsed() >= length);
        let mut lines = String::new();
        let mut each = |news| {
            if let News::Closed(closed) = news {
                ended += 1;
                lines.push_str(&closed.to_json().to_string());
                lines.push('\n');
            }
        };
        let looked = live.tick(if over { Duration::ZERO } else { TICK }, &mut each).map_err(refused)?;
        if let Some(file) = &mut output {
            file.write_all(lines.as_bytes())?;
        }
        if looked {
            live.recorder().save(&memory).map_err(|error| {
                Failure::new(
                    format!("cannot write {}", memory.display()),
                    error.to_string(),
                    "--memory FILE, and LASTACK_RECORD=FILE for the commands that read it",
                )
            })?;
        }
    }
    let (known, unfit, lost) = (live.recorder().len(), live.recorder().overflow(), live.lost());
    let mut out = io::stdout();
    if globals.json {
        let summary = serde_json::json!({"event": "summary", "remembered": known, "not_remembered": unfit, "ended": ended, "lost": lost});
        writeln!(out, "{summary}")?;
    } else {
        let unfit = if unfit > 0 { format!(", {unfit} more were too many") } else { String::new() };
        writeln!(out, "{known} connections remembered{unfit}, {ended} ended, {lost} losses")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens a file to append to.
pub(crate) fn open_output(path: &std::path::Path) -> Result<std::fs::File, Failure> {
    std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        Failure::new(
            format!("cannot write {}", path.display()),
            error.to_string(),
            "a file in a directory of yours",
        )
    })
}
