//! `lastack demo`: the guided first run.

use std::process::ExitCode;

use crate::args::Globals;
use crate::failure::{EXIT_OURS, Failure};

/// The command line of `demo`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, _globals: &Globals) -> Result<ExitCode, Failure> {
    Err(Failure::new(
        "lastack demo is not in this build",
        "this version was built before the command was written",
        "a newer version of lastack, or lastack doctor",
    )
    .code(EXIT_OURS))
}
