//! `lastack kill`: ends connections.

use std::process::ExitCode;

use crate::args::Globals;
use crate::failure::Failure;

/// The command line of `kill`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Arguments, not read yet
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(_args: &Args, _globals: &Globals) -> Result<ExitCode, Failure> {
    Err(Failure::new(
        "lastack kill is not in this build",
        "this version was built before the command was written",
        "a newer version of lastack",
    ))
}
