//! Which port of the host leads to which port of the program: `[ADDR:]HOST:INSIDE[/udp]`.
//!
//! Owns:    [`Port`] and its grammar.
//! Not here: the sockets (`bind`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::owner::Protocol;

/// A port that is to be published.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Port {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The host's address; `None`: all of both families.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub host: u16,
    /// The program's port.
    pub inside: u16,
}

/// Why a text is not a [`Port`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortError {
    /// There are not two ports.
    Form,
    /// One of them is no port.
    Number(String),
    /// What is in front of them is no address.
    Address(String),
    /// An IPv6 address without brackets.
    Brackets,
    /// Behind `/` is neither `tcp` nor `udp`.
    Protocol(String),
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("it is not HOST:INSIDE, two ports with a colon between them"),
            Self::Number(text) => write!(f, "`{text}` is no port: a number from 1 to 65535 is needed"),
            Self::Address(text) => {
                write!(f, "`{text}` is no address of this host: names are not looked up here")
            }
            Self::Brackets => f.write_str("an IPv6 address stands in brackets"),
            Self::Protocol(text) => write!(f, "`{text}` is no protocol: tcp or udp is needed"),
        }
    }
}

impl std::error::Error for PortError {}

impl FromStr for Port {
    type Err = PortError;

    /// Reads `[ADDR:]HOST:INSIDE[/udp]`.
    fn from_str(text: &str) -> Result<Self, PortError> {
        let (text, protocol) = protocol(text)?;
        let (outside, inside) = text.rsplit_once(':').ok_or(PortError::Form)?;
        if outside.ends_with(']') {
            return Err(PortError::Form);
        }
        let (address, host) = outside_end(outside)?;
        Ok(Self { protocol, address, host, inside: number(inside)? })
    }
}

/// The part of `text` before `/tcp` or `/udp`.
fn protocol(text: &str) -> Result<(&str, Protocol), PortError> {
    match text.split_once('/') {
        None => Ok((text, Protocol::Tcp)),
        Some((text, "tcp")) => Ok((text, Protocol::Tcp)),
        Some((text, "udp")) => Ok((text, Protocol::Udp)),
        Some((_, other)) => Err(PortError::Protocol(other.to_owned())),
    }
}

/// `[ADDR:]HOST`.
fn outside_end(text: &str) -> Result<(Option<IpAddr>, u16), PortError> {
    match text.rsplit_once(':') {
        None => Ok((None, number(text)?)),
        Some((address, host)) => Ok((Some(self::address(address)?), number(host)?)),
    }
}

fn address(text: &str) -> Result<IpAddr, PortError> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let unknown = || PortError::Address(text.to_owned());
    match bracketed {
        Some(inner) => inner.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| unknown()),
        None if text.contains(':') => Err(PortError::Brackets),
        None => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| unknown()),
    }
}

fn number(text: &str) -> Result<u16, PortError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0).ok_or_else(|| PortError::Number(text.to_owned()))
}

/// The host's end of a published port: what is left out when it is to be taken back. `[ADDR:]HOST[/udp]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HostPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The host's address; `None`: all of both families.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub host: u16,
}

impl FromStr for HostPort {
    type Err = PortError;

    /// Reads `[ADDR:]HOST[/udp]`; a whole [`Port`] is taken too.
    fn from_str(text: &str) -> Result<Self, PortError> {
        if let Ok(port) = text.parse::<Port>() {
            return Ok(port.host_port());
        }
        let (text, protocol) = protocol(text)?;
        let (address, host) = outside_end(text)?;
        Ok(Self { protocol, address, host })
    }
}

impl Port {
    /// Its end on the host.
    pub fn host_port(&self) -> HostPort {
        HostPort { protocol: self.protocol, address: self.address, host: self.host }
    }

    /// The addresses it is had at on the host: one, or everybody's of both families.
    pub(crate) fn places(&self) -> Vec<SocketAddr> {
        let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let one = self.address.map(|address| vec![address]);
        let addresses = one.unwrap_or_else(|| all.to_vec());
        addresses.into_iter().map(|address| SocketAddr::new(address, self.host)).collect()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(f, self)?;
        write_protocol(f, self.protocol)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(f, &self.host_port())?;
        write!(f, ":{}", self.inside)?;
        write_protocol(f, self.protocol)
    }
}

fn write_host(f: &mut fmt::Formatter<'_>, port: &HostPort) -> fmt::Result {
    match port.address {
        Some(address) => write!(f, "{}", SocketAddr::new(address, port.host)),
        None => write!(f, "{}", port.host),
    }
}

fn write_protocol(f: &mut fmt::Formatter<'_>, protocol: Protocol) -> fmt::Result {
    match protocol {
        Protocol::Tcp => Ok(()),
        Protocol::Udp => f.write_str("/udp"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_written_alike() {
        for (text, protocol, address, host, inside) in [
            ("8080:80", Protocol::Tcp, None, 8080, 80),
            ("127.0.0.1:8080:80", Protocol::Tcp, Some("127.0.0.1"), 8080, 80),
            ("[::1]:8080:80", Protocol::Tcp, Some("::1"), 8080, 80),
            ("5353:53/udp", Protocol::Udp, None, 5353, 53),
            ("[2001:db8::1]:5353:53/udp", Protocol::Udp, Some("2001:db8::1"), 5353, 53),
        ] {
            let address = address.map(|address| address.parse().unwrap());
            let port: Port = text.parse().unwrap();
            assert_eq!(port, Port { protocol, address, host, inside });
            assert_eq!(port.to_string(), text);
            assert_eq!(text.parse(), Ok(port.host_port()), "the whole is taken for its end on the host");
            assert_eq!(port.host_port().to_string().parse(), Ok(port.host_port()));
        }
        assert_eq!("8080:80/tcp".parse::<Port>().unwrap().to_string(), "8080:80");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let number = |text: &str| PortError::Number(text.to_owned());
        for (text, error) in [
            ("", PortError::Form),
            ("8080", PortError::Form),
            ("[::1]:8080", PortError::Form),
            ("0:80", number("0")),
            ("8080:", number("")),
            ("8080:65536", number("65536")),
            ("8080:+80", number("+80")),
            ("http:80", number("http")),
            ("localhost:8080:80", PortError::Address("localhost".to_owned())),
            ("1.2.3:8080:80", PortError::Address("1.2.3".to_owned())),
            ("[127.0.0.1]:8080:80", PortError::Address("[127.0.0.1]".to_owned())),
            ("::1:8080:80", PortError::Brackets),
            ("8080:80/sctp", PortError::Protocol("sctp".to_owned())),
            ("8080:80/udp/udp", PortError::Protocol("udp/udp".to_owned())),
        ] {
            assert_eq!(text.parse::<Port>(), Err(error), "{text}");
        }
    }
}
