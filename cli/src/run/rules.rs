//! `--allow` and `--deny`: read in the order they were given, across both.

use clap::{ArgAction, ArgMatches, Command};
use lastack_gateway::rules::{Pattern, PatternError, Rules, Verdict};

use crate::failure::{EXIT_OURS, Failure};

/// The two flags as one list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct RuleFlags {
    rules: Vec<(Verdict, String)>,
}

const FLAGS: [(&str, Verdict, &str); 2] = [
    (
        "allow",
        Verdict::Allow,
        "Let the program reach ADDRESS, CIDR, NAME, *.DOMAIN (the names below it) or * (all), each perhaps with :PORT. \
         Rules count in the order given, the first match wins; with only --allow rules the rest is denied. A name \
         stands for the addresses it was answered with, and only permitted names are answered",
    ),
    (
        "deny",
        Verdict::Deny,
        "Refuse it at once (ECONNREFUSED) and note it in the journal. No security boundary against a hostile \
         program: it has other channels, such as files and Unix sockets",
    ),
];

impl RuleFlags {
    /// The rules, read.
    pub(crate) fn read(&self) -> Result<Rules, Failure> {
        let mut rules = Rules::default();
        for (verdict, text) in &self.rules {
            let pattern = Pattern::parse(text).map_err(|error| refused(text, &error))?;
            rules.push(*verdict, pattern);
        }
        Ok(rules)
    }
}

fn refused(text: &str, error: &PatternError) -> Failure {
    let remedy = match error {
        PatternError::Name => "--allow example.org:443, --allow '*.example.org', --allow 192.0.2.10",
        PatternError::Port => "a number: --allow 192.0.2.10:443",
        PatternError::Prefix => "0 to 32 for IPv4, 0 to 128 for IPv6: --allow 192.0.2.0/24",
        PatternError::Empty => "--allow 192.0.2.10:443, --deny 10.0.0.0/8, --deny '*'",
    };
    Failure::new(format!("cannot read the rule `{text}`"), error.to_string(), remedy).code(EXIT_OURS)
}

impl clap::Args for RuleFlags {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.map(|(name, _, help)| {
            clap::Arg::new(name).long(name).value_name("RULE").action(ArgAction::Append).help(help)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for RuleFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut rules = Self::default();
        rules.update_from_arg_matches(matches)?;
        Ok(rules)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let mut ordered = Vec::new();
        for (name, verdict, _) in FLAGS {
            let indices = matches.indices_of(name).into_iter().flatten();
            let values = matches.get_many::<String>(name).into_iter().flatten();
            ordered.extend(indices.zip(values).map(|(index, value)| (index, verdict, value.clone())));
        }
        ordered.sort_by_key(|(index, ..)| *index);
        self.rules = ordered.into_iter().map(|(_, verdict, value)| (verdict, value)).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn flags(words: &[&str]) -> RuleFlags {
        let command = RuleFlags::augment_args(Command::new("run").no_binary_name(true));
        RuleFlags::from_arg_matches(&command.get_matches_from(words)).unwrap()
    }

    #[test]
    fn order_is_kept_across_both_flags() {
        let read = flags(&["--deny", "10.0.0.1", "--allow", "10.0.0.0/8", "--deny", "*"]);
        let verdicts: Vec<_> = read.rules.iter().map(|(verdict, text)| (*verdict, text.as_str())).collect();
        assert_eq!(
            verdicts,
            [(Verdict::Deny, "10.0.0.1"), (Verdict::Allow, "10.0.0.0/8"), (Verdict::Deny, "*")]
        );
        let rules = read.read().unwrap();
        assert_eq!(rules.verdict("10.0.0.1:80".parse().unwrap(), &[]), Verdict::Deny);
        assert_eq!(rules.verdict("10.0.0.2:80".parse().unwrap(), &[]), Verdict::Allow);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        assert!(flags(&["--allow", "*.example.org:443"]).read().is_ok());
        assert!(matches!(flags(&["--allow", "exam ple"]).read(), Err(Failure::Said(_))));
    }
}
