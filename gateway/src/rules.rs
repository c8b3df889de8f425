//! Egress rules: which addresses a program may reach, and which names it may look up.
//!
//! Owns:    [`Rules`] and their verdicts.
//! Input:   the address as the program used it, and the names whose answers had it (`dns::Names`).
//! Rules:   in the order given, the first match wins; what nothing matches is allowed, unless there are only
//!          `allow` rules. A name may be looked up when something of it may be reached; port 53 is the resolver's
//!          own, unless a rule names the address that is asked.
//! Not here: looking up (`dns`); refusing and journalling (`forward`, `udp`).

mod pattern;

use std::net::SocketAddr;
use std::sync::Arc;

use pattern::OfName;
pub use pattern::{Pattern, PatternError};

/// May the program go there?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Yes.
    Allow,
    /// No: refused at once.
    Deny,
}

/// Rules in the order given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    rules: Vec<(Verdict, Pattern)>,
}

impl Rules {
    /// Adds a rule behind the others.
    pub fn push(&mut self, verdict: Verdict, pattern: Pattern) {
        self.rules.push((verdict, pattern));
    }

    /// True when nothing is ruled.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// May the program reach `address`, which `names` were answered with?
    pub fn verdict(&self, address: SocketAddr, names: &[Arc<str>]) -> Verdict {
        let first = self.rules.iter().find(|(_, pattern)| pattern.matches(address, names));
        first.map_or_else(|| self.unmatched(), |(verdict, _)| *verdict)
    }

    /// May the program look `name` up (in lower case, without a last dot)? A rule about one port of the name lets it be
    /// looked up if it allows, and says nothing if it denies; a rule about addresses says nothing of names.
    pub fn name_verdict(&self, name: &str) -> Verdict {
        let first = self.rules.iter().find(|(verdict, pattern)| {
            matches!((verdict, pattern.of_name(name)), (_, OfName::Whole) | (Verdict::Allow, OfName::OnePort))
        });
        first.map_or_else(|| self.unmatched(), |(verdict, _)| *verdict)
    }

    /// The verdict of the first rule that names this address itself, not by `*` or a name.
    pub(crate) fn of_server(&self, address: SocketAddr) -> Option<Verdict> {
        let first = self.rules.iter().find(|(_, pattern)| pattern.names_address(address));
        first.map(|(verdict, _)| *verdict)
    }

    fn unmatched(&self) -> Verdict {
        let only_allows =
            !self.rules.is_empty() && self.rules.iter().all(|(verdict, _)| *verdict == Verdict::Allow);
        if only_allows { Verdict::Deny } else { Verdict::Allow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[(&str, Verdict)]) -> Rules {
        let mut rules = Rules::default();
        for (text, verdict) in texts {
            rules.push(*verdict, Pattern::parse(text).unwrap());
        }
        rules
    }

    fn verdict(rules: &Rules, address: &str) -> Verdict {
        rules.verdict(address.parse().unwrap(), &[])
    }

    #[test]
    fn first_match_wins_across_both_kinds() {
        let r = rules(&[("10.0.0.1:80", Verdict::Allow), ("10.0.0.0/8", Verdict::Deny)]);
        assert_eq!(verdict(&r, "10.0.0.1:80"), Verdict::Allow);
        assert_eq!(verdict(&r, "10.0.0.1:81"), Verdict::Deny);
        assert_eq!(
            verdict(&r, "192.0.2.1:81"),
            Verdict::Allow,
            "a deny rule is there, so the rest is allowed"
        );
        let r = rules(&[("*", Verdict::Deny), ("10.0.0.1", Verdict::Allow)]);
        assert_eq!(verdict(&r, "10.0.0.1:80"), Verdict::Deny);
    }

    #[test]
    fn only_allows_deny_the_rest() {
        let r = rules(&[("10.0.2.2:8080", Verdict::Allow)]);
        assert_eq!(verdict(&r, "10.0.2.2:8080"), Verdict::Allow);
        assert_eq!(verdict(&r, "10.0.2.2:8081"), Verdict::Deny);
        assert_eq!(verdict(&Rules::default(), "192.0.2.1:1"), Verdict::Allow);
    }

    #[test]
    fn name_may_be_looked_up_when_something_of_it_may_be_reached() {
        use Verdict::{Allow, Deny};
        let r = rules(&[("example.test", Allow), ("*.pkg.test:443", Allow), ("*", Deny)]);
        for (name, expected) in
            [("example.test", Allow), ("a.pkg.test", Allow), ("pkg.test", Deny), ("other.test", Deny)]
        {
            assert_eq!(r.name_verdict(name), expected, "{name}");
        }
        let r = rules(&[("mail.test:25", Deny), ("bad.test", Deny)]);
        assert_eq!(r.name_verdict("mail.test"), Allow, "its other ports are allowed");
        assert_eq!(r.name_verdict("bad.test"), Deny);
        assert_eq!(rules(&[("10.0.0.0/8", Allow)]).name_verdict("x.test"), Deny, "only allow rules");
        assert_eq!(Rules::default().name_verdict("x.test"), Allow);
    }

    #[test]
    fn rule_about_a_resolvers_address_is_not_about_names() {
        use Verdict::{Allow, Deny};
        let r = rules(&[("192.0.2.53:53", Allow), ("192.0.2.0/24", Deny), ("*", Deny)]);
        assert_eq!(r.of_server("192.0.2.53:53".parse().unwrap()), Some(Allow));
        assert_eq!(r.of_server("192.0.2.54:53".parse().unwrap()), Some(Deny));
        assert_eq!(r.of_server("198.51.100.1:53".parse().unwrap()), None);
    }
}
