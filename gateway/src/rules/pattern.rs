//! What one rule is about: an address, a network, a name, the names below a domain, or everything; perhaps one port.
//!
//! Owns:    [`Pattern`], its grammar and its mistakes.
//! Rules:   a name is letters, digits, `-` and `_` between dots (RFC 1123 2.1), compared without case (RFC 4343).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What one rule matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    target: Target,
    port: Option<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Target {
    Everything,
    Network(IpAddr, u8),
    Name(Arc<str>),
    /// The names below this one, not itself.
    Below(Arc<str>),
}

/// Why a text is not a [`Pattern`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PatternError {
    /// It is neither an address nor a name.
    Name,
    /// The port is not a number from 1 to 65535.
    Port,
    /// The prefix is longer than the address, or not a number.
    Prefix,
    /// There is nothing there.
    Empty,
}

/// What a pattern says of a name that is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OfName {
    /// It is about every port of that name.
    Whole,
    /// It is about one port of that name.
    OnePort,
    /// Nothing.
    Nothing,
}

impl Pattern {
    /// Reads `ADDRESS`, `CIDR`, `NAME`, `*.DOMAIN` or `*`, each perhaps with `:PORT`; IPv6 with a port is in brackets.
    ///
    /// # Errors
    /// What of the text is not a rule.
    ///
    /// # Example
    /// ```
    /// use lastack_gateway::rules::Pattern;
    /// let web = Pattern::parse("192.0.2.0/24:443")?;
    /// assert!(web.matches("192.0.2.80:443".parse().unwrap(), &[]));
    /// assert!(!web.matches("192.0.2.80:80".parse().unwrap(), &[]));
    /// let packages = Pattern::parse("*.pkg.test:443")?;
    /// assert!(packages.matches("192.0.2.80:443".parse().unwrap(), &["a.pkg.test".into()]));
    /// # Ok::<(), lastack_gateway::rules::PatternError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let (target, port) = split_port(text)?;
        let port = port
            .map(|port| port.parse().ok().filter(|port| *port != 0).ok_or(PatternError::Port))
            .transpose()?;
        Ok(Self { target: Target::parse(target)?, port })
    }

    /// True when the rule is about `address`, which `names` were answered with.
    pub fn matches(&self, address: SocketAddr, names: &[Arc<str>]) -> bool {
        self.port.is_none_or(|port| port == address.port())
            && match &self.target {
                Target::Everything => true,
                Target::Network(network, prefix) => contains(*network, *prefix, address.ip()),
                Target::Name(_) | Target::Below(_) => names.iter().any(|name| self.target.names(name)),
            }
    }

    /// What the rule says of looking `name` up (in lower case, without a last dot).
    pub(super) fn of_name(&self, name: &str) -> OfName {
        match (self.target.names(name), self.port) {
            (false, _) => OfName::Nothing,
            (true, None) => OfName::Whole,
            (true, Some(_)) => OfName::OnePort,
        }
    }

    /// The rule is about addresses, and about this one.
    pub(super) fn names_address(&self, address: SocketAddr) -> bool {
        matches!(self.target, Target::Network(..)) && self.matches(address, &[])
    }
}

impl Target {
    fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self::Everything);
        }
        if let Some(domain) = text.strip_prefix("*.") {
            return Ok(Self::Below(name(domain)?));
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return if prefix.is_none() { Ok(Self::Name(name(text)?)) } else { Err(PatternError::Name) };
        };
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => {
                prefix.parse().ok().filter(|bits| *bits <= longest).ok_or(PatternError::Prefix)?
            }
            None => longest,
        };
        Ok(Self::Network(address, prefix))
    }

    /// True when it is about everything of this name.
    fn names(&self, asked: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Network(..) => false,
            Self::Name(name) => **name == *asked,
            Self::Below(domain) => asked.strip_suffix(&**domain).is_some_and(|rest| rest.ends_with('.')),
        }
    }
}

/// A name as rules and lookups compare it.
fn name(text: &str) -> Result<Arc<str>, PatternError> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // Digits and dots alone are an address with a mistake in it.
    let is_name = text.len() <= 253
        && text.split('.').all(label)
        && text.bytes().any(|byte| byte.is_ascii_alphabetic());
    if is_name { Ok(text.to_ascii_lowercase().into()) } else { Err(PatternError::Name) }
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
            Self::Name => "it is neither an address nor a name of letters, digits, - and _ between dots",
            Self::Port => "the port is not a number from 1 to 65535",
            Self::Prefix => "the prefix length does not fit the address",
            Self::Empty => "the rule is empty",
        })
    }
}

impl std::error::Error for PatternError {}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(pattern.matches(yes.parse().unwrap(), &[]), "{text} {yes}");
            assert!(!pattern.matches(no.parse().unwrap(), &[]), "{text} {no}");
        }
    }

    #[test]
    fn names_match_the_addresses_that_were_answered() {
        let at = "192.0.2.7:443".parse().unwrap();
        for (text, name, is_match) in [
            ("example.test", "example.test", true),
            ("Example.TEST.", "example.test", true),
            ("example.test", "www.example.test", false),
            ("*.example.test", "www.example.test", true),
            ("*.example.test", "a.b.example.test", true),
            ("*.example.test", "example.test", false),
            ("*.example.test", "badexample.test", false),
            ("example.test:443", "example.test", true),
            ("example.test:80", "example.test", false),
        ] {
            assert_eq!(Pattern::parse(text).unwrap().matches(at, &[name.into()]), is_match, "{text} {name}");
        }
        assert!(!Pattern::parse("example.test").unwrap().matches(at, &[]), "nobody asked for it");
    }

    #[test]
    fn each_mistake_has_its_own_name() {
        assert_eq!(Pattern::parse("exam ple.org"), Err(PatternError::Name));
        assert_eq!(Pattern::parse("*example.org"), Err(PatternError::Name));
        assert_eq!(Pattern::parse("a..b"), Err(PatternError::Name));
        assert_eq!(Pattern::parse("10.0.0"), Err(PatternError::Name), "an address with a part missing");
        assert_eq!(Pattern::parse("example.org/24"), Err(PatternError::Name));
        assert_eq!(Pattern::parse("10.0.0.1:http"), Err(PatternError::Port));
        assert_eq!(Pattern::parse("example.org:0"), Err(PatternError::Port));
        assert_eq!(Pattern::parse("10.0.0.1:65536"), Err(PatternError::Port));
        assert_eq!(Pattern::parse("10.0.0.0/33"), Err(PatternError::Prefix));
        assert_eq!(Pattern::parse(" "), Err(PatternError::Empty));
    }
}
