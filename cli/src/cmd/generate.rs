//! `lastack generate`: man pages and shell completions, from the command line's own definition.
//!
//! Output:  `DIR/man1/lastack*.1`, `DIR/bash/lastack`, `DIR/zsh/_lastack`, `DIR/fish/lastack.fish`: named as the shells and man
//!          look for them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;

/// The command line of `generate`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  lastack generate made                          everything, into ./made
  cp made/bash/lastack ~/.local/share/bash-completion/completions/")]
pub(crate) struct Args {
    /// Where to; made if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    write(&args.directory).map_err(|error| {
        Failure::new(
            format!("cannot write to {}", args.directory.display()),
            error.to_string(),
            "a directory you may write to",
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn write(directory: &Path) -> io::Result<()> {
    let man = directory.join("man1");
    fs::create_dir_all(&man)?;
    clap_mangen::generate_to(Cli::command(), &man)?;
    for (shell, name, file) in [
        (Shell::Bash, "bash", "lastack"),
        (Shell::Zsh, "zsh", "_lastack"),
        (Shell::Fish, "fish", "lastack.fish"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "lastack", &mut text);
        fs::create_dir_all(directory.join(name))?;
        fs::write(directory.join(name).join(file), text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_knows_it() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let shown = Cli::command();
        let completions = ["bash/lastack", "zsh/_lastack", "fish/lastack.fish"].map(read);
        for command in shown.get_subcommands().filter(|command| !command.is_hide_set()) {
            let page = read(&format!("man1/lastack-{}.1", command.get_name()));
            assert!(page.contains(".SH OPTIONS"), "{page}");
            for completion in &completions {
                assert!(completion.contains(command.get_name()), "{}", command.get_name());
            }
        }
        assert!(read("man1/lastack.1").contains("lastack\\-run(1)"));
        assert!(completions[0].contains("--inject"));
    }

    /// Paragraphs are wrapped to the terminal; a line of an example that is wrapped is one that cannot be copied.
    #[test]
    fn examples_fit_on_their_lines() {
        fn examine(command: &clap::Command) {
            for line in command.get_after_help().map(ToString::to_string).unwrap_or_default().lines() {
                let is_example = line.starts_with("  ");
                assert!(!is_example || line.chars().count() <= 100, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(examine);
        }
        examine(&<crate::args::Cli as clap::CommandFactory>::command());
    }
}
