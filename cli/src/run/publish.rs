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
    let (inside, host) = (port.inside, port.host);
    let remedy = match error {
        PublishError::Published(_) => {
            format!("another port of this host: {}:{inside}", host.wrapping_add(1).max(1024))
        }
        PublishError::InUse(_) => format!(
            "another port of this host, or end who has it: ss -{}lnp 'sport = :{host}'",
            if port.protocol == Protocol::Tcp { 't' } else { 'u' }
        ),
        PublishError::Privileged(_) => format!(
            "--publish {}:{inside}, or sudo sysctl net.ipv4.ip_unprivileged_port_start={host}",
            u32::from(host) + 8000
        ),
        PublishError::NoAddress(_) => "one that `ip address` shows, or none for all of them".to_owned(),
        PublishError::Ending => "publish it before the program ends".to_owned(),
        PublishError::Other(..) => "check limits (ulimit -n) and free memory".to_owned(),
    };
    Failure::new(format!("cannot publish {port}"), error.to_string(), remedy)
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
}
