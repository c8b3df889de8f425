//! `--publish`: read, or refused in three lines; why a port could not be had; and changes while the program runs.
//!
//! Rules:   [`lastack_core::observe::control`].

use lastack_core::observe::control::{Reply, Request};
use lastack_gateway::owner::Protocol;
use lastack_gateway::publish::{HostPort, Port, PortError, PublishError, Published, Publisher};
use rustix::io::Errno;

use crate::failure::{EXIT_OURS, Failure};

/// Reads every `--publish`.
pub(crate) fn read(texts: &[String]) -> Result<Vec<Port>, Failure> {
    texts.iter().map(|text| read_one(text).map_err(|failure| failure.code(EXIT_OURS))).collect()
}

/// Reads one.
pub(crate) fn read_one(text: &str) -> Result<Port, Failure> {
    text.parse().map_err(|error| unread(text, &error))
}

/// The three lines for a text that is no port.
pub(crate) fn unread(text: &str, error: &PortError) -> Failure {
    let remedy = match error {
        PortError::Form => "8080:80, 127.0.0.1:8080:80, 5353:53/udp".to_owned(),
        PortError::Number(_) => "8080:80: the port of this host, then the program's".to_owned(),
        PortError::Address(_) => "127.0.0.1:8080:80, or without an address for all of this host's".to_owned(),
        PortError::Brackets => "[::1]:8080:80".to_owned(),
        PortError::Protocol(_) => "8080:80 for TCP, 5353:53/udp for UDP".to_owned(),
    };
    Failure::new(format!("cannot read the port `{text}`"), error.to_string(), remedy)
}

/// The three lines for a port that could not be published.
pub(crate) fn refused(port: &Port, error: &PublishError) -> Failure {
    let remedy = remedy(port, error.errno(), "--publish");
    Failure::new(format!("cannot publish {port}"), error.to_string(), remedy)
}

// Numbers, because a run may answer with any, 0 included.
const EXIST: i32 = Errno::EXIST.raw_os_error();
const ADDRINUSE: i32 = Errno::ADDRINUSE.raw_os_error();
const ACCESS: i32 = Errno::ACCESS.raw_os_error();
const ADDRNOTAVAIL: i32 = Errno::ADDRNOTAVAIL.raw_os_error();
const SHUTDOWN: i32 = Errno::SHUTDOWN.raw_os_error();

/// What helps where `port` could not be had; `publish` is what one writes before another.
pub(crate) fn remedy(port: &Port, errno: i32, publish: &str) -> String {
    let at = |host: u16| format!("{publish} {}", Port { host, ..*port });
    let host = port.host;
    match errno {
        EXIST => {
            format!("another port of this host: {}", at(host.checked_add(1).unwrap_or(0).max(1024)))
        }
        ADDRINUSE => format!(
            "another port of this host, or end who has it: ss -{}lnp 'sport = :{host}'",
            if port.protocol == Protocol::Tcp { 't' } else { 'u' }
        ),
        ACCESS => format!(
            "{}, or sudo sysctl net.ipv4.ip_unprivileged_port_start={host}",
            at(host.saturating_add(8000))
        ),
        ADDRNOTAVAIL => "an address that `ip address` shows, or none for all of them".to_owned(),
        SHUTDOWN => "publish it before the program ends".to_owned(),
        // No errno: not a refusal.
        0 => "see whether it still runs: lastack publish".to_owned(),
        _ => "check limits (ulimit -n) and free memory".to_owned(),
    }
}

/// What a run answers on its control socket about its ports.
pub(crate) fn answers(
    publisher: &Publisher,
) -> impl Fn(&Request) -> Option<Vec<Reply>> + Send + Sync + use<> {
    let publisher = publisher.clone();
    move |request| {
        Some(match request {
            Request::Published => publisher.list().into_iter().map(told).chain([Reply::End]).collect(),
            Request::Publish { port } => vec_of(publish(&publisher, port)),
            Request::Unpublish { port } => vec_of(unpublish(&publisher, port)),
            _ => return None,
        })
    }
}

/// A message for the client, and its errno.
type Refusal = (String, i32);

fn vec_of(result: Result<Vec<Reply>, Refusal>) -> Vec<Reply> {
    result.unwrap_or_else(|(message, errno)| vec![Reply::Error { message, errno }])
}

fn publish(publisher: &Publisher, text: &str) -> Result<Vec<Reply>, Refusal> {
    let port: Port = text.parse().map_err(unreadable)?;
    let published = publisher.add(port).map_err(|error| (error.to_string(), error.errno()))?;
    Ok(vec![told(published), Reply::End])
}

fn unpublish(publisher: &Publisher, text: &str) -> Result<Vec<Reply>, Refusal> {
    let port: HostPort = text.parse().map_err(unreadable)?;
    if publisher.remove_and_wait(port) {
        return Ok(vec![Reply::End]);
    }
    Err((format!("{port} is not published"), Errno::NOENT.raw_os_error()))
}

fn unreadable(error: PortError) -> Refusal {
    (error.to_string(), Errno::INVAL.raw_os_error())
}

fn told(published: Published) -> Reply {
    let Published { port, places, open, total, server } = published;
    Reply::Published {
        port: port.to_string(),
        protocol: protocol(port.protocol).to_owned(),
        host: places,
        inside: port.inside,
        open,
        total,
        pid: server.as_ref().map(|server| server.pid),
        process: server.map(|server| server.process.to_string()),
    }
}

const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_in_order() {
        let ports = read(&["8080:80".into(), "[::1]:5353:53/udp".into()]).unwrap();
        let texts: Vec<_> = ports.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["8080:80", "[::1]:5353:53/udp"]);
        assert!(read(&["8080".into()]).is_err());
    }

    #[test]
    fn a_remedy_keeps_the_address_and_the_protocol() {
        let remedy = |port: &str, errno: Errno| {
            super::remedy(&port.parse().unwrap(), errno.raw_os_error(), "lastack publish web")
        };
        let other = "another port of this host: lastack publish web ";
        for (port, next) in [("8080:80", "8081:80"), ("127.0.0.1:65535:80/udp", "127.0.0.1:1024:80/udp")] {
            assert_eq!(remedy(port, Errno::EXIST), format!("{other}{next}"));
        }
        assert_eq!(
            remedy("[::1]:53:5353/udp", Errno::ACCESS),
            "lastack publish web [::1]:8053:5353/udp, or sudo sysctl net.ipv4.ip_unprivileged_port_start=53"
        );
        assert!(remedy("65000:80", Errno::ACCESS).starts_with("lastack publish web 65535:80, "));
        assert!(remedy("53:53/udp", Errno::ADDRINUSE).ends_with("ss -ulnp 'sport = :53'"));
        let web = "8080:80".parse().unwrap();
        for errno in [0, -1, 5000] {
            assert!(!super::remedy(&web, errno, "lastack publish web").is_empty(), "{errno}");
        }
    }
}
