//! What the two sides of a sandbox say to each other over their socket pair: one message a packet.
//!
//! Owns:    the encoding of [`ToHelper`] and [`FromHelper`], and descriptors beside a message.
//! Not here: when which is said (`sandbox`, `sandbox::helper`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use super::failure::Stage;

/// The parent speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ToHelper {
    /// User and group maps: written by the parent, or the helper's own business.
    Maps {
        /// True when the parent wrote them.
        written: bool,
    },
    /// The stack is ready: start the program.
    Go,
    /// Pass this signal to the program.
    Signal(i32),
    /// Kill whatever the program left, now.
    KillLeftovers,
}

/// The helper speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FromHelper {
    /// New namespaces are entered.
    Unshared {
        /// A user namespace is among them.
        user: bool,
    },
    /// There is no TUN, for this errno; a veth pair is tried instead.
    TunRefused(i32),
    /// The interface is up; the link's and the sock_diag descriptor come with this message.
    Ready {
        /// The link is a veth pair, not a TUN.
        veth: bool,
        /// IPv6 is there too.
        ipv6: bool,
        /// `/etc/resolv.conf` points to the stack.
        resolver: bool,
        /// Port range, `tcp_tw_reuse` and `ip_unprivileged_port_start` are set.
        sysctls: bool,
    },
    /// A step failed with this errno.
    Failed(Stage, i32),
    /// The program runs.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// The program could not be executed: this errno.
    NotStarted(i32),
    /// The program was stopped by this signal.
    Stopped(i32),
    /// The program ended with this wait status.
    Exited(i32),
    /// No process is left inside.
    AllGone,
}

impl ToHelper {
    pub(super) fn send(self, socket: impl AsFd) -> io::Result<()> {
        let (tag, value) = match self {
            Self::Maps { written } => (1, i32::from(written)),
            Self::Go => (2, 0),
            Self::Signal(signal) => (3, signal),
            Self::KillLeftovers => (4, 0),
        };
        send(socket, [tag, value, 0, 0], &[])
    }

    /// `None`: the parent is gone.
    pub(super) fn receive(socket: impl AsFd) -> io::Result<Option<Self>> {
        let Some(([tag, value, ..], _)) = receive(socket, RecvFlags::empty())? else { return Ok(None) };
        Ok(Some(match tag {
            1 => Self::Maps { written: value != 0 },
            2 => Self::Go,
            3 => Self::Signal(value),
            4 => Self::KillLeftovers,
            _ => return Err(io::Error::from(io::ErrorKind::InvalidData)),
        }))
    }
}

impl FromHelper {
    pub(super) fn send(self, socket: impl AsFd, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let words = match self {
            Self::Unshared { user } => [1, i32::from(user), 0, 0],
            Self::Ready { veth, ipv6, resolver, sysctls } => {
                let bits = [veth, ipv6, resolver, sysctls].into_iter().rev();
                [2, bits.fold(0, |bits, bit| bits << 1 | i32::from(bit)), 0, 0]
            }
            Self::Failed(stage, errno) => [3, stage as i32, errno, 0],
            Self::Started { pid } => [4, pid.cast_signed(), 0, 0],
            Self::NotStarted(errno) => [5, errno, 0, 0],
            Self::Stopped(signal) => [6, signal, 0, 0],
            Self::Exited(status) => [7, status, 0, 0],
            Self::AllGone => [8, 0, 0, 0],
            Self::TunRefused(errno) => [9, errno, 0, 0],
        };
        send(socket, words, fds)
    }

    /// `None`: the helper is gone.
    pub(super) fn receive(socket: impl AsFd, flags: RecvFlags) -> io::Result<Option<(Self, Vec<OwnedFd>)>> {
        let Some(([tag, a, b, _], fds)) = receive(socket, flags)? else { return Ok(None) };
        let message = match tag {
            1 => Self::Unshared { user: a != 0 },
            2 => {
                let bit = |n: u32| a & (1 << n) != 0;
                Self::Ready { veth: bit(0), ipv6: bit(1), resolver: bit(2), sysctls: bit(3) }
            }
            3 => Self::Failed(Stage::from_number(a), b),
            4 => Self::Started { pid: a.cast_unsigned() },
            5 => Self::NotStarted(a),
            6 => Self::Stopped(a),
            7 => Self::Exited(a),
            8 => Self::AllGone,
            9 => Self::TunRefused(a),
            _ => return Err(io::Error::from(io::ErrorKind::InvalidData)),
        };
        Ok(Some((message, fds)))
    }
}

fn send(socket: impl AsFd, words: [i32; 4], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut bytes = [0_u8; 16];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(socket: impl AsFd, flags: RecvFlags) -> io::Result<Option<([i32; 4], Vec<OwnedFd>)>> {
    let mut bytes = [0_u8; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            flags | RecvFlags::CMSG_CLOEXEC,
        )
    });
    let len = match got {
        // A peer that died with a message of ours unread resets the pair: gone all the same.
        Err(rustix::io::Errno::CONNRESET) => 0,
        other => other?.bytes,
    };
    if len == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let mut words = [0; 4];
    for (word, from) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = i32::from_ne_bytes(from.try_into().expect("chunks of four"));
    }
    Ok(Some((words, fds)))
}

/// A connected pair that keeps message boundaries.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_arrives_as_it_was_sent() {
        let (parent, helper) = pair().unwrap();
        for message in
            [ToHelper::Maps { written: true }, ToHelper::Go, ToHelper::Signal(15), ToHelper::KillLeftovers]
        {
            message.send(&parent).unwrap();
            assert_eq!(ToHelper::receive(&helper).unwrap(), Some(message));
        }
        for message in [
            FromHelper::Unshared { user: true },
            FromHelper::TunRefused(libc::ENOENT),
            FromHelper::Ready { veth: false, ipv6: true, resolver: false, sysctls: true },
            FromHelper::Ready { veth: true, ipv6: false, resolver: true, sysctls: false },
            FromHelper::Failed(Stage::Tun, libc::EACCES),
            FromHelper::Started { pid: 4711 },
            FromHelper::NotStarted(libc::ENOENT),
            FromHelper::Stopped(libc::SIGTSTP),
            FromHelper::Exited(9),
            FromHelper::AllGone,
        ] {
            message.send(&helper, &[]).unwrap();
            let (got, fds) = FromHelper::receive(&parent, RecvFlags::empty()).unwrap().unwrap();
            assert_eq!((got, fds.len()), (message, 0));
        }
        drop(parent);
        assert_eq!(ToHelper::receive(&helper).unwrap(), None, "a closed peer is told apart from a message");
    }

    #[test]
    fn descriptors_travel_beside_a_message() {
        let (parent, helper) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let ready = FromHelper::Ready { veth: false, ipv6: true, resolver: true, sysctls: true };
        ready.send(&helper, &[file.as_fd(), file.as_fd()]).unwrap();
        let (_, fds) = FromHelper::receive(&parent, RecvFlags::empty()).unwrap().unwrap();
        assert_eq!(fds.len(), 2);
    }
}
