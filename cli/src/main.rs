//! The `lastack` command: see why a TCP connection is stuck, who ended it, and what fixes it.
//!
//! [`args`] is the command line, [`cmd`] has a file a subcommand, [`failure`] is how it fails.
#![forbid(unsafe_code)]
// They panic where the reader has gone or the disk is full.
#![deny(clippy::print_stdout, clippy::print_stderr)]

/// Says a line on standard error, to whoever reads it: where nobody can, nothing is lost but the line.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        // At once: a line that is not torn by another's.
        let line = format!("{}\n", format_args!($($words)*));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }};
}

mod args;
mod cmd;
mod failure;
mod run;
mod seconds;
mod source_args;
mod story;
mod table;
mod text;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};

fn main() -> ExitCode {
    // Before anything else: a sandbox's helper is this same program, and may have one thread only.
    if let Some(code) = lastack_gateway::sandbox::enter_if_asked() {
        return code;
    }
    if let Some(code) = run::scenes::enter_if_asked() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Words in no encoding name no command of ours.
            let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
            return failure::usage(&error, words);
        }
    };
    let globals = cli.globals;
    let done = match cli.command {
        Command::Doctor(args) => cmd::doctor::run(&args, &globals),
        Command::Run(args) => cmd::run::run(&args, &globals),
        Command::Lab(args) => cmd::lab::run(&args, &globals),
        Command::Demo(args) => cmd::demo::run(&args, &globals),
        Command::Ss(args) => cmd::ss::run(&args, &globals),
        Command::Watch(args) => cmd::watch::run(&args, &globals),
        Command::Trace(args) => cmd::trace::run(&args, &globals),
        Command::Kill(args) => cmd::kill::run(&args, &globals),
        Command::Publish(args) => cmd::publish::run(&args, &globals),
        Command::Sysctl(args) => cmd::sysctl::run(&args, &globals),
        Command::Record(args) => cmd::record::run(&args, &globals),
        Command::Export(args) => cmd::export::run(&args, &globals),
        Command::Generate(args) => cmd::generate::run(&args),
    };
    done.unwrap_or_else(failure::Failure::report)
}
