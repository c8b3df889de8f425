//! How the command fails: three lines for people, an exit code for scripts.
//!
//! Output: `error: what happened` / `cause: why` / `try: what to do next` on standard error.
//! Rules:  the command-line contract; a broken pipe is success.

use std::io;
use std::process::ExitCode;

/// Usage errors and failures of the operator's commands.
pub(crate) const EXIT_USAGE: u8 = 2;
/// Our own failure in `run`, `demo` and `lab`, as `env` and `timeout` have it.
pub(crate) const EXIT_OURS: u8 = 125;

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Said in three lines.
    Said(Box<Said>),
    /// The reader of our output went away: not a failure.
    BrokenPipe,
}

/// The three lines and the exit code.
#[derive(Debug)]
pub(crate) struct Said {
    error: String,
    cause: String,
    next: String,
    code: u8,
}

impl Failure {
    /// A failure of an operator's command; exit code 2 unless [`Failure::code`] says otherwise.
    pub(crate) fn new(error: impl Into<String>, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Said(Box::new(Said {
            error: error.into(),
            cause: cause.into(),
            next: next.into(),
            code: EXIT_USAGE,
        }))
    }

    /// The same with another exit code.
    pub(crate) fn code(mut self, code: u8) -> Self {
        if let Self::Said(said) = &mut self {
            said.code = code;
        }
        self
    }

    /// Prints the three lines and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::BrokenPipe => ExitCode::SUCCESS,
            Self::Said(said) => {
                eprintln!("error: {}\ncause: {}\ntry:   {}", said.error, said.cause, said.next);
                ExitCode::from(said.code)
            }
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::BrokenPipe
        } else {
            Self::new("could not write the output", error.to_string(), "check the disk and the terminal")
        }
    }
}

/// Turns clap's verdict on the arguments into our three lines; help and version are printed as they are.
pub(crate) fn usage(error: &clap::Error, command: Option<&str>) -> ExitCode {
    use clap::error::ErrorKind;
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        let missing = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        let _ = error.print();
        return if missing { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
    }
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let tip = lines.find_map(|line| line.strip_prefix("tip: ")).map(str::to_owned);
    let known = command.filter(|name| !name.starts_with('-'));
    let help = match known {
        Some(name) if error.kind() != ErrorKind::InvalidSubcommand => format!("lastack {name} --help"),
        _ => "lastack --help".to_owned(),
    };
    let code = if matches!(known, Some("run" | "demo" | "lab")) { EXIT_OURS } else { EXIT_USAGE };
    Failure::new(first, tip.unwrap_or_else(|| "the command line is not one lastack knows".to_owned()), help)
        .code(code)
        .report()
}
