//! The command line: subcommands in the order people need them, and the flags all of them share.

use clap::{Args, Parser, Subcommand, ValueEnum};
use lastack_observe::words::Lang;

use crate::cmd;

/// See why a TCP connection is stuck, who ended it, and what fixes it.
#[derive(Parser, Debug)]
#[command(
    name = "lastack",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "lastack doctor          this machine: stuck sockets, cause, cure, and the advice that does not help\n\
                  lastack run -- CMD      one program: how each of its connections lived and ended\n\
                  lastack lab run fin-wait-1-zero-window --target both\n\
                  \x20                       the same story in our stack and in Linux, side by side"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags every subcommand takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Globals {
    /// Colours: `auto` means on a terminal only (NO_COLOR and CLICOLOR_FORCE are respected)
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
    /// Language of texts; the default comes from LC_ALL, LC_MESSAGES or LANG
    #[arg(long, global = true, value_enum, value_name = "LANG")]
    lang: Option<Language>,
    /// Machine output: one document, or one object a line for streams
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// When to colour.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// `--lang`'s values.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum Language {
    En,
    Zh,
}

impl Globals {
    /// True when standard output should be coloured.
    pub(crate) fn colored(&self) -> bool {
        self.colored_on(&std::io::stdout())
    }

    /// True when `stream` should be coloured.
    pub(crate) fn colored_on(&self, stream: &impl std::io::IsTerminal) -> bool {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        match self.color {
            Color::Always => true,
            Color::Never => false,
            // https://no-color.org and https://bixense.com/clicolors: NO_COLOR wins, then CLICOLOR_FORCE.
            Color::Auto if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) => false,
            Color::Auto if set("CLICOLOR_FORCE") => true,
            Color::Auto => stream.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
        }
    }

    /// The language to speak.
    pub(crate) fn lang(&self) -> Lang {
        match self.lang {
            Some(Language::En) => Lang::En,
            Some(Language::Zh) => Lang::Zh,
            None => {
                let locale = ["LC_ALL", "LC_MESSAGES", "LANG"]
                    .into_iter()
                    .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
                if locale.is_some_and(|value| value.to_ascii_lowercase().starts_with("zh")) {
                    Lang::Zh
                } else {
                    Lang::En
                }
            }
        }
    }
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// This machine: stuck sockets, cause, cure, and the advice that does not help
    Doctor(cmd::doctor::Args),
    /// Run a program behind the stack and tell how each of its connections lived and ended
    Run(Box<cmd::run::Args>),
    /// Stories of connections, drawn and explained; packet scripts; on our stack and on Linux
    Lab(cmd::lab::Args),
    /// The guided first run: ten seconds, no arguments, no network
    Demo(cmd::demo::Args),
    /// Sockets, as iproute2's ss shows them, with owners, ages and groups
    Ss(cmd::ss::Args),
    /// The same as a live full-screen view
    Watch(cmd::watch::Args),
    /// Events as they happen: state changes, retransmits, resets and their reasons
    Trace(cmd::trace::Args),
    /// End connections in any state, orphans and TIME-WAIT included
    Kill(cmd::kill::Args),
    /// The ports of this host that lead to a running program: list, add, take back
    Publish(cmd::publish::Args),
    /// What a net.ipv4.tcp_* knob really bounds, and what people wrongly think
    Sysctl(cmd::sysctl::Args),
    /// Remember owners, ages and endings for the other commands
    Record(cmd::record::Args),
    /// Metrics for Prometheus and a log of closed connections
    Export(cmd::export::Args),
    /// Write man pages and shell completions, as packages do
    #[command(hide = true)]
    Generate(cmd::generate::Args),
}
