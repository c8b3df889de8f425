//! How the command fails: three lines for people, an exit code for scripts.
//!
//! Output: `error: what happened` / `cause: why` / `try: what to do next` on standard error.
//! Rules:  the command-line contract; a broken pipe is success.

use std::io;
use std::num::IntErrorKind;
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
                let Said { error, cause, next, code } = *said;
                let [error, cause, next] = [error, cause, next].map(|text| one_line(&text));
                say!("error: {error}\ncause: {cause}\ntry:   {next}");
                ExitCode::from(code)
            }
        }
    }
}

/// Names of files and words of a filter may hold anything: three lines are three, and do nothing to a terminal.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// What could not be written; where something cannot be read, [`Failure::new`] says what.
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
pub(crate) fn usage(error: &clap::Error, words: impl Iterator<Item = String>) -> ExitCode {
    use clap::error::ErrorKind;
    let known = known(words);
    let code = if matches!(known.get(1).map(String::as_str), Some("run" | "demo" | "lab")) {
        EXIT_OURS
    } else {
        EXIT_USAGE
    };
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        let missing = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        return match error.print() {
            _ if missing => ExitCode::from(code),
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => Failure::from(error).code(code).report(),
        };
    }
    let (what, cause) = what_and_cause(error);
    // `lastack`, then the commands that are known, the innermost last.
    let help = format!("{} --help", known.join(" "));
    Failure::new(what, cause, help).code(code).report()
}

/// The program's name and the commands that `words` begins with.
fn known(words: impl Iterator<Item = String>) -> Vec<String> {
    use clap::CommandFactory as _;
    let mut command = crate::args::Cli::command();
    let mut known = vec!["lastack".to_owned()];
    // Flags of all commands may stand before one.
    for word in words.skip(1).filter(|word| !word.starts_with('-')) {
        let Some(inner) = command.find_subcommand(&word).cloned() else { break };
        known.push(word);
        command = inner;
    }
    known
}

/// The first two lines for clap's verdict, which has more or fewer.
fn what_and_cause(error: &clap::Error) -> (String, String) {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().trim_start_matches("error: ");
    if let (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(names))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    {
        return (format!("{} is missing", names.join(" ")), "the command cannot do without".to_owned());
    }
    // A value's own reader says what it takes.
    if let Some(source) = std::error::Error::source(error)
        && let Some(what) = first.strip_suffix(&format!(": {source}"))
    {
        let why = match source.downcast_ref::<std::num::ParseIntError>().map(|error| error.kind()) {
            None => source.to_string(),
            Some(IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => {
                "the number is too large".to_owned()
            }
            Some(_) => "a whole number is needed".to_owned(),
        };
        return (what.to_owned(), why);
    }
    if error.kind() == ErrorKind::InvalidValue && first.ends_with("but none was supplied") {
        return (first.to_owned(), "the value is empty".to_owned());
    }
    if let (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
        && error.get(ContextKind::SuggestedArg).is_none()
    {
        let cause = match flag.strip_prefix('-').map(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
            Some(true) => "it reads as a flag; no number here may be negative",
            Some(false) => "there is no such flag",
            None => "nothing more is taken after the flags",
        };
        return (first.to_owned(), cause.to_owned());
    }
    if error.kind() == ErrorKind::ArgumentConflict {
        let with = lines.collect::<Vec<_>>();
        let names: Vec<&str> = with.iter().copied().take_while(|line| line.starts_with("--")).collect();
        let what = format!("{first} {}", names.join(", "));
        return (what.trim_end().to_owned(), "together one of them would mean nothing".to_owned());
    }
    let said = lines.find_map(|line| {
        let values = line.strip_prefix("[possible values: ").and_then(|line| line.strip_suffix(']'));
        values
            .map(|values| format!("it is one of {values}"))
            .or(line.strip_prefix("tip: ").map(str::to_owned))
    });
    (first.to_owned(), said.unwrap_or_else(|| "the command line is not one lastack knows".to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn what_clap_refuses_is_named_with_its_cause() {
        for (words, what, cause) in [
            (&["run"][..], "<CMD>... is missing", "the command cannot do without"),
            (
                &["watch", "--duration", "nan"],
                "invalid value 'nan' for '--duration <SECONDS>'",
                "a number of seconds, from 0 to 10000000",
            ),
            (
                &["ss", "--color", "blue"],
                "invalid value 'blue' for '--color <WHEN>'",
                "it is one of auto, always, never",
            ),
            (&["ss", "--zzz"], "unexpected argument '--zzz' found", "there is no such flag"),
            (
                &["run", "--loss", "-1%"],
                "unexpected argument '-1' found",
                "it reads as a flag; no number here may be negative",
            ),
            (
                &["doctor", "this"],
                "unexpected argument 'this' found",
                "nothing more is taken after the flags",
            ),
            (
                &["run", "--seed", "x", "true"],
                "invalid value 'x' for '--seed <N>'",
                "a whole number is needed",
            ),
            (
                &["run", "--pcap", "", "true"],
                "a value is required for '--pcap <FILE>' but none was supplied",
                "the value is empty",
            ),
        ] {
            let error =
                Cli::try_parse_from([&["lastack"], words].concat()).expect_err("no such command line");
            assert_eq!(what_and_cause(&error), (what.to_owned(), cause.to_owned()));
        }
    }

    #[test]
    fn the_innermost_command_is_the_one_whose_help_is_named() {
        for (line, last) in [
            ("lastack", "lastack"),
            ("lastack frob", "lastack"),
            ("lastack --json ss --frob", "lastack ss"),
            ("lastack lab", "lastack lab"),
            ("lastack lab frob run", "lastack lab"),
            ("lastack lab run --frob", "lastack lab run"),
        ] {
            assert_eq!(known(line.split(' ').map(str::to_owned)).join(" "), last);
        }
    }

    #[test]
    fn three_lines_are_three_whatever_is_in_them() {
        assert_eq!(one_line("namespace `a\nb\u{1b}[2J`"), "namespace `a b [2J`");
    }
}
