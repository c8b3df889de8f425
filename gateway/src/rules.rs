//! Egress rules: which addresses a program may reach.
//!
//! Owns:    [`Pattern`] and its grammar, [`Rules`] and their verdict.
//! Input:   the address as the program used it.
//! Rules:   in the order given, the first match wins; what nothing matches is allowed, unless there are only
//!          `allow` rules. The resolver is needed to reach any name: only a rule that matches it denies it.
//! Not here: names (`*.domain`); refusing and journalling (`forward`, `udp`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::addresses;

/// May the program go there?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Yes.
    Allow,
    /// No: refused at once.
    Deny,
}

/// What one rule matches: addresses, and perhaps one port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pattern {
    /// `None`: every address.
    network: Option<(IpAddr, u8)>,
    port: Option<u16>,
}

/// Why a text is not a [`Pattern`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PatternError {
    /// It is a name; rules are about addresses.
    Name,
    /// The port is not a number from 1 to 65535.
    Port,
    /// The prefix is longer than the address, or not a number.
    Prefix,
    /// There is nothing there.
    Empty,
}

impl Pattern {
    /// Reads `ADDRESS`, `ADDRESS:PORT`, `CIDR`, `CIDR:PORT`, `*` or `*:PORT`; IPv6 with a port is in brackets.
    ///
    /// # Errors
    /// What of the text is not a rule.
    ///
    /// # Example
    /// ```
    /// use lastack_gateway::rules::Pattern;
    /// let web = Pattern::parse("192.0.2.0/24:443")?;
    /// assert!(web.matches("192.0.2.80:443".parse().unwrap()));
    /// assert!(!web.matches("192.0.2.80:80".parse().unwrap()));
    /// # Ok::<(), lastack_gateway::rules::PatternError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let (network, port) = split_port(text)?;
        let port = port
            .map(|port| port.parse().ok().filter(|port| *port != 0).ok_or(PatternError::Port))
            .transpose()?;
        if network == "*" {
            return Ok(Self { network: None, port });
        }
        let (address, prefix) = match network.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (network, None),
        };
        let address: IpAddr = address.parse().map_err(|_| PatternError::Name)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => {
                prefix.parse().ok().filter(|bits| *bits <= longest).ok_or(PatternError::Prefix)?
            }
            None => longest,
        };
        Ok(Self { network: Some((address, prefix)), port })
    }

    /// True when the rule is about `address`.
    pub fn matches(&self, address: SocketAddr) -> bool {
        self.port.is_none_or(|port| port == address.port())
            && self.network.is_none_or(|(network, prefix)| contains(network, prefix, address.ip()))
    }
}

/// The part before the port, and the port. A bare IPv6 address has colons of its own.
fn split_port(text: &str) -> Result<(&str, Option<&str>), PatternError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (network, after) = rest.split_once(']').ok_or(PatternError::Name)?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((network, Some(port))),
            None if after.is_empty() => Ok((network, None)),
            None => Err(PatternError::Port),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((network, port)) => Ok((network, Some(port))),
        None => Ok((text, None)),
    }
}

fn contains(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, true),
        IpAddr::V6(v6) => (v6.to_bits(), false),
    };
    let ((network, v4), (address, is_v4)) = (bits(network), bits(address));
    // A shift by 128 is "no bit matters", which `checked_shl` cannot say.
    let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(prefix)) };
    v4 == is_v4 && (network ^ address) & mask == 0
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "rules are about addresses: names in rules are not in this version",
            Self::Port => "the port is not a number from 1 to 65535",
            Self::Prefix => "the prefix length does not fit the address",
            Self::Empty => "the rule is empty",
        })
    }
}

impl std::error::Error for PatternError {}

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

    /// May the program reach `address`?
    pub fn verdict(&self, address: SocketAddr) -> Verdict {
        if let Some((verdict, _)) = self.rules.iter().find(|(_, pattern)| pattern.matches(address)) {
            return *verdict;
        }
        let only_allows =
            !self.rules.is_empty() && self.rules.iter().all(|(verdict, _)| *verdict == Verdict::Allow);
        let is_resolver = address.port() == 53 && addresses::DNS.contains(&address.ip());
        if only_allows && !is_resolver { Verdict::Deny } else { Verdict::Allow }
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
        rules.verdict(address.parse().unwrap())
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
    fn only_allows_deny_the_rest_but_not_the_resolver() {
        let r = rules(&[("10.0.2.2:8080", Verdict::Allow)]);
        assert_eq!(verdict(&r, "10.0.2.2:8080"), Verdict::Allow);
        assert_eq!(verdict(&r, "10.0.2.2:8081"), Verdict::Deny);
        assert_eq!(verdict(&r, "10.0.2.3:53"), Verdict::Allow);
        assert_eq!(verdict(&rules(&[("*", Verdict::Deny)]), "10.0.2.3:53"), Verdict::Deny);
        assert_eq!(verdict(&Rules::default(), "192.0.2.1:1"), Verdict::Allow);
    }

    #[test]
    fn every_form_of_address_is_read() {
        for (text, yes, no) in [
            ("192.0.2.7", "192.0.2.7:1", "192.0.2.8:1"),
            ("192.0.2.0/24:443", "192.0.2.9:443", "192.0.3.9:443"),
            ("0.0.0.0/0", "8.8.8.8:53", "[2001:db8::1]:53"),
            ("2001:db8::/32", "[2001:db8:1::1]:9", "[2001:db9::1]:9"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443", "[2001:db8::1]:80"),
            ("*:25", "192.0.2.1:25", "192.0.2.1:26"),
        ] {
            let pattern = Pattern::parse(text).expect(text);
            assert!(pattern.matches(yes.parse().unwrap()), "{text} {yes}");
            assert!(!pattern.matches(no.parse().unwrap()), "{text} {no}");
        }
    }

    #[test]
    fn each_mistake_has_its_own_name() {
        assert_eq!(Pattern::parse("example.org"), Err(PatternError::Name));
        assert_eq!(Pattern::parse("*.example.org:443"), Err(PatternError::Name));
        assert_eq!(Pattern::parse("10.0.0.1:http"), Err(PatternError::Port));
        assert_eq!(Pattern::parse("10.0.0.1:0"), Err(PatternError::Port));
        assert_eq!(Pattern::parse("10.0.0.1:65536"), Err(PatternError::Port));
        assert_eq!(Pattern::parse("10.0.0.0/33"), Err(PatternError::Prefix));
        assert_eq!(Pattern::parse(" "), Err(PatternError::Empty));
    }
}
