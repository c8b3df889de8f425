//! A connection from outside: taken from the host's socket, made inside from the client's own address.
//!
//! Owns:    [`Door`], the listening socket's task; the making of one published connection.
//! Rules:   the client's address and port are the source. Where that pair is taken (by another client that appears
//!          under the same address, or by a former connection), the port gives way, never the address. A client of the
//!          host's loopback is known by one address in each family, so for it the other family is tried as well, as it
//!          would try itself had it been refused.
//! Not here: an established connection (`carry`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use lastack::{TcpOptions, TcpStream};
use rustix::net::SocketFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Counted, Counts};
use crate::addresses::{GUEST, seen_inside};
use crate::carry::{Kept, blank, carry, tell_ended, verdict};
use crate::host::HostStream;
use crate::journal::{ClosedBy, Connection, Direction, How, Reason};
use crate::owner::Protocol;
use crate::relay::Relay;
use crate::session::Session;

/// How long a host that is short of descriptors is left alone.
const SHORTAGE: Duration = Duration::from_millis(50);

/// Takes clients of one listening socket to one port inside.
pub(super) struct Door {
    pub(super) session: Arc<Session>,
    pub(super) waiting: Arc<Semaphore>,
    pub(super) counts: Arc<Counts>,
    pub(super) inside: u16,
}

impl Door {
    /// Takes clients as they come.
    pub(super) async fn serve(&self, socket: &AsyncFd<OwnedFd>) {
        loop {
            let Ok(permit) = self.waiting.clone().acquire_owned().await else { return };
            match accept(socket).await {
                Ok((fd, client)) => {
                    // One whose socket cannot be used has gone already.
                    let Ok(outside) = HostStream::accepted(fd) else { continue };
                    let client = Client { outside, address: client, permit, counted: self.counts.come() };
                    tokio::spawn(connection(self.session.clone(), client, self.inside));
                }
                // That client is gone, or the host is short of something: the next may be luckier.
                Err(_) => tokio::time::sleep(SHORTAGE).await,
            }
        }
    }
}

async fn accept(socket: &AsyncFd<OwnedFd>) -> io::Result<(OwnedFd, SocketAddr)> {
    loop {
        let mut guard = socket.readable().await?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::acceptfrom_with(guard.get_inner(), flags) {
            Ok((fd, from)) => {
                let from = from.ok_or(rustix::io::Errno::NOTCONN)?;
                return Ok((fd, SocketAddr::try_from(from)?));
            }
            Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
            // accept(2): what is wrong with one connection is told here.
            Err(rustix::io::Errno::CONNABORTED | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// One client of a published port.
struct Client {
    outside: HostStream,
    address: SocketAddr,
    /// It waits for the program's answer.
    permit: OwnedSemaphorePermit,
    counted: Counted,
}

/// Makes one connection inside, and hands it on to be carried.
async fn connection(session: Arc<Session>, client: Client, port: u16) {
    let Client { outside, address, permit, counted } = client;
    let guard = session.count_published(counted);
    let attempts = attempts(address, port);
    let (opened, (from, to)) = (session.net.now(), attempts[0]);
    let mut record = Box::new(blank(&session, session.number(), Direction::In, (to, from), opened));
    record.host_remote = Some(address);
    record.host_local = outside.local_addr();
    record.owner = session.server(Protocol::Tcp, port);
    let inside = if session.has_room() {
        tokio::select! {
            biased;
            inside = make(&session, &attempts, &mut record) => inside,
            // The client has reset: nobody waits for an answer.
            () = outside.failed() => {
                record.verdict = verdict(ClosedBy::Remote, How::Reset, Some(Reason::ResetByPeer));
                None
            }
            () = session.ownerless() => {
                record.verdict = verdict(ClosedBy::Program, How::Refused, Some(Reason::ProgramGone));
                None
            }
        }
    } else {
        record.verdict = verdict(ClosedBy::Lastack, How::Refused, Some(Reason::ConnectionLimit));
        None
    };
    drop(permit);
    match inside {
        Some(inside) => {
            let outside = outside.with_pool(session.pool.clone());
            let kept = Kept::of(*record, &session);
            tokio::spawn(carry(session, guard, kept, Relay::new(inside, outside)));
        }
        None => {
            outside.reset();
            tell_ended(&session, record);
        }
    }
}

/// From where to where it is tried to connect inside, in order.
fn attempts(client: SocketAddr, port: u16) -> Vec<(SocketAddr, SocketAddr)> {
    let mut families = vec![client.is_ipv6()];
    if client.ip().is_loopback() {
        families.push(!client.is_ipv6());
    }
    families
        .into_iter()
        .map(|is_ipv6| {
            let from = seen_inside(client.ip(), is_ipv6);
            let to = GUEST[usize::from(is_ipv6)].0;
            (SocketAddr::new(from, client.port()), SocketAddr::new(to, port))
        })
        .collect()
}

/// Connects inside; everything learnt goes into `record`.
async fn make(
    session: &Session,
    attempts: &[(SocketAddr, SocketAddr)],
    record: &mut Connection,
) -> Option<TcpStream> {
    let mut refused = None;
    for (from, to) in attempts {
        match connect(session, *from, *to).await {
            Ok(stream) => return Some(stream),
            Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {
                refused.get_or_insert(error);
            }
            Err(error) => {
                // What happened first tells more than a family that does not work.
                refused.get_or_insert(error);
                break;
            }
        }
    }
    record.verdict = match refused?.raw_os_error() {
        Some(libc::ECONNREFUSED) => {
            let listens_on_loopback = session.listens_on_loopback(attempts[0].1.port());
            let reason = match listens_on_loopback {
                Some(_) => Reason::ListensOnLoopback,
                None => Reason::NoListener,
            };
            record.owner = listens_on_loopback.or(record.owner.take());
            verdict(ClosedBy::Program, How::Refused, Some(reason))
        }
        Some(libc::ETIMEDOUT) => verdict(ClosedBy::Nobody, How::Timeout, Some(Reason::ConnectTimeout)),
        Some(libc::EADDRNOTAVAIL) => verdict(ClosedBy::Lastack, How::Refused, Some(Reason::HostLimit)),
        Some(libc::ECONNRESET) => verdict(ClosedBy::Program, How::Reset, Some(Reason::ResetByProgram)),
        _ => verdict(ClosedBy::Nobody, How::Unreachable, Some(Reason::HostUnreachable)),
    };
    None
}

async fn connect(session: &Session, from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    // The client and the program have had their say about Nagle: forwarded at once.
    let options = TcpOptions { nodelay: true, reuseaddr: true, ..TcpOptions::default() };
    match TcpStream::connect_with(&session.net, to, Some(from), options.clone()).await {
        Err(error) if is_taken(&error) => {
            let any_port = SocketAddr::new(from.ip(), 0);
            TcpStream::connect_with(&session.net, to, Some(any_port), options).await
        }
        result => result,
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(client: &str) -> Vec<(String, String)> {
        let told = |(from, to): (SocketAddr, SocketAddr)| (from.to_string(), to.to_string());
        attempts(client.parse().unwrap(), 80).into_iter().map(told).collect()
    }

    fn pair(from: &str, to: &str) -> (String, String) {
        (from.to_owned(), to.to_owned())
    }

    #[test]
    fn clients_keep_their_address_and_those_of_the_loopback_are_the_host() {
        assert_eq!(pairs("198.51.100.7:4000"), [pair("198.51.100.7:4000", "10.0.2.100:80")]);
        assert_eq!(pairs("[2001:db8::7]:4000"), [pair("[2001:db8::7]:4000", "[fd00:6c61::100]:80")]);
        let v4 = pair("10.0.2.2:4000", "10.0.2.100:80");
        let v6 = pair("[fd00:6c61::2]:4000", "[fd00:6c61::100]:80");
        assert_eq!(pairs("127.0.0.1:4000"), [v4.clone(), v6.clone()]);
        assert_eq!(pairs("[::1]:4000"), [v6, v4]);
    }
}
