//! `lastack lab`: stories of connections and packet scripts, on our stack and on Linux.
//!
//! Owns: the subcommands. `stories` tells stories, `check` judges packet scripts.

mod check;
mod stories;

use std::process::ExitCode;

use lastack_lab::runner::TargetKind;

use crate::args::Globals;
use crate::failure::{EXIT_OURS, Failure};

/// The command line of `lab`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  lastack lab list
  lastack lab run fin-wait-1-zero-window --target both
  lastack lab run fin-wait-2-orphan --sysctl tcp_fin_timeout=3")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// The stories there are
    #[command(after_help = "Examples:
  lastack lab list
  lastack lab list --json")]
    List,
    /// What a story is about: cause, cure, myths, the knobs to try; without playing it
    #[command(after_help = "Examples:
  lastack lab show fin-wait-1-zero-window
  lastack lab show sysctl-myth --lang zh")]
    Show(stories::ShowArgs),
    /// Play a story and draw it: sequence chart, states against time, counters, the reason
    #[command(after_help = "Examples:
  lastack lab run fin-wait-1-zero-window
  lastack lab run fin-wait-1-zero-window --target both      beside Linux, in real time
  lastack lab run fin-wait-1-silent-peer --sysctl tcp_orphan_retries=3
  lastack lab run clean-close --svg close.svg")]
    Run(stories::RunArgs),
    /// Run packet scripts and say where the host did something else
    #[command(after_help = "Examples:
  lastack lab check lab/scripts --target stack
  lastack lab check handshake.pkt --target both --json")]
    Check(check::Args),
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum TargetArg {
    Stack,
    Kernel,
    Both,
}

impl TargetArg {
    fn kinds(self) -> &'static [TargetKind] {
        match self {
            Self::Stack => &[TargetKind::Stack],
            Self::Kernel => &[TargetKind::Kernel],
            Self::Both => &[TargetKind::Stack, TargetKind::Kernel],
        }
    }
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    let done = match &args.command {
        Command::List => stories::list(globals),
        Command::Show(args) => stories::show(args, globals),
        Command::Run(args) => stories::run(args, globals),
        Command::Check(args) => check::run(args, globals),
    };
    // 1 says that a story or a script went another way.
    done.map_err(|failure| failure.code(EXIT_OURS))
}
