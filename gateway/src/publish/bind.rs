//! The host's sockets of a published port, and why one cannot be had.
//!
//! Owns:    binding, with the options a server's socket has; [`PublishError`].
//! Rules:   without an address both families are bound; a family that the host does not have is left out. An IPv6
//!          socket takes IPv6 only, so that each family's clients come with an address of their own.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::port::Port;
use crate::owner::Protocol;

/// Connections that may wait to be taken; the kernel's `somaxconn` is as much.
const BACKLOG: i32 = 4096;

/// Why a port is not published.
#[derive(Debug)]
pub enum PublishError {
    /// It is published already by this run.
    Published(Port),
    /// Some other socket of this host has it.
    InUse(SocketAddr),
    /// Only the privileged may have it.
    Privileged(SocketAddr),
    /// The host does not have that address.
    NoAddress(SocketAddr),
    /// The run is ending: nobody is left to serve anybody.
    Ending,
    /// Something else.
    Other(SocketAddr, io::Error),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published(port) => write!(f, "this run publishes {} already", port.host_port()),
            Self::InUse(at) => write!(f, "another socket of this host has {at}"),
            Self::Privileged(at) => {
                write!(f, "port {} is below ip_unprivileged_port_start: only root may have it", at.port())
            }
            Self::NoAddress(at) => write!(f, "{} is no address of this host", at.ip()),
            Self::Ending => f.write_str("the program has ended"),
            Self::Other(at, error) => write!(f, "{at}: {error}"),
        }
    }
}

impl std::error::Error for PublishError {}

impl PublishError {
    /// The errno behind it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Published(_) => libc::EEXIST,
            Self::InUse(_) => libc::EADDRINUSE,
            Self::Privileged(_) => libc::EACCES,
            Self::NoAddress(_) => libc::EADDRNOTAVAIL,
            Self::Ending => libc::ESHUTDOWN,
            Self::Other(_, error) => error.raw_os_error().unwrap_or(0),
        }
    }

    fn of(at: SocketAddr, error: rustix::io::Errno) -> Self {
        match error {
            rustix::io::Errno::ADDRINUSE => Self::InUse(at),
            rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => Self::Privileged(at),
            rustix::io::Errno::ADDRNOTAVAIL => Self::NoAddress(at),
            _ => Self::Other(at, error.into()),
        }
    }
}

/// Bound sockets for `port`, nonblocking, each with its address; those of TCP listen.
pub(crate) fn bind(port: &Port) -> Result<Vec<(OwnedFd, SocketAddr)>, PublishError> {
    let mut bound = Vec::new();
    let mut lacking = None;
    for at in port.places() {
        match bind_at(port.protocol, at) {
            Ok(fd) => bound.push((fd, at)),
            Err(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL)
                if port.address.is_none() =>
            {
                lacking = Some(PublishError::NoAddress(at));
            }
            Err(error) => return Err(PublishError::of(at, error)),
        }
    }
    match lacking {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

fn bind_at(protocol: Protocol, at: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, kind, flags, None)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of a former server on this port may still be in TIME-WAIT. (For UDP it would let others in.)
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    rustix::net::bind(&fd, &at)?;
    if protocol == Protocol::Tcp {
        rustix::net::listen(&fd, BACKLOG)?;
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Port {
        text.parse().unwrap()
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_its_address() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = taken.local_addr().unwrap().port();
        for text in [format!("127.0.0.1:{number}:80"), format!("{number}:80")] {
            let error = bind(&at(&text)).unwrap_err();
            assert!(matches!(error, PublishError::InUse(at) if at.port() == number), "{error}");
            assert_eq!(error.errno(), libc::EADDRINUSE);
        }
    }

    #[test]
    fn an_address_of_somebody_else_is_refused() {
        let error = bind(&at("192.0.2.7:18080:80")).unwrap_err();
        assert!(matches!(error, PublishError::NoAddress(_)), "{error}");
    }

    #[test]
    fn both_families_are_bound_and_apart() {
        let free = std::net::TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap().port();
        let bound = bind(&at(&format!("{free}:80"))).unwrap();
        let places: Vec<_> = bound.iter().map(|(_, at)| at.to_string()).collect();
        assert_eq!(places, [format!("0.0.0.0:{free}"), format!("[::]:{free}")]);
    }
}
