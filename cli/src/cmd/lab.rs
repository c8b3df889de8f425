//! `lastack lab`: stories of connection lives.

use std::process::ExitCode;

use crate::args::Globals;
use crate::failure::{EXIT_OURS, Failure};

/// The command line of `lab`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Arguments, not read yet
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(_args: &Args, _globals: &Globals) -> Result<ExitCode, Failure> {
    Err(Failure::new(
        "lastack lab is not in this build",
        "this version was built before the command was written",
        "a newer version of lastack, or lastack doctor",
    )
    .code(EXIT_OURS))
}
