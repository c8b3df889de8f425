//! Connections as they end: sock_diag's destroy multicast. Needs no privilege.
//!
//! Output:  one [`Row`] a destroyed full socket, with its last `tcp_info`; overflow is counted.
//! Rules:   Linux `SKNLGRP_INET_TCP_DESTROY`, `SKNLGRP_INET6_TCP_DESTROY`. State is always CLOSE and the
//!          inode 0; mini sockets (TIME-WAIT, half-open) end without a message; the active closer's comes
//!          when it *enters* TIME-WAIT.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;

use super::diag::{self, Detail, Names};
use super::netlink::Netlink;
use super::{Scope, netns};
use crate::row::Row;

/// `1 << (SKNLGRP - 1)`: INET_TCP_DESTROY is 1, INET6_TCP_DESTROY is 3.
const GROUPS: u32 = 1 << 0 | 1 << 2;
/// Room for a burst: some 40,000 endings.
const RECEIVE_BUFFER: usize = 64 << 20;
const ENOBUFS: i32 = 105;

/// A subscription to the endings of one namespace.
#[derive(Debug)]
pub struct Endings {
    netlink: Netlink,
    netns: u64,
    names: Names,
    lost: u64,
}

impl Endings {
    /// Subscribes in the namespace `scope` names ([`Scope::All`] is refused: open one for each).
    ///
    /// # Errors
    /// When the namespace cannot be entered or the kernel refuses the subscription.
    pub fn open(scope: &Scope) -> io::Result<Self> {
        let open = || Ok((netns::own(), Netlink::subscribe(GROUPS, RECEIVE_BUFFER)?));
        let (netns, netlink) = match scope {
            Scope::Own => open()?,
            Scope::Named(text) => netns::inside(&netns::path_of(text), open)?,
            Scope::All => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "endings are told a namespace at a time: name one",
                ));
            }
        };
        Ok(Self { netlink, netns, names: Names::default(), lost: 0 })
    }

    /// Waits at most `timeout` for endings and hands each to `each`; gives how many there were.
    ///
    /// # Errors
    /// When the netlink socket fails; an overflow is no error but counted ([`Endings::overflows`]).
    pub fn wait(&mut self, timeout: Duration, each: &mut dyn FnMut(Row)) -> io::Result<usize> {
        let timespec = Timespec::try_from(timeout).ok();
        let mut fds = [PollFd::from_borrowed_fd(self.netlink.as_fd(), PollFlags::IN)];
        match poll(&mut fds, timespec.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(0),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut count = 0;
        loop {
            match self.netlink.receive(RecvFlags::DONTWAIT) {
                Ok(messages) => {
                    for message in messages {
                        if let Some(row) =
                            diag::parse(message.payload, self.netns, Detail::Full, &mut self.names)
                        {
                            count += 1;
                            each(row);
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(count),
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => self.lost += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// How often the buffer overflowed: each time an unknown number of endings was lost.
    pub fn overflows(&self) -> u64 {
        self.lost
    }
}
