//! Netlink framing: messages and attributes as bytes, and a socket of the `sock_diag` family.
//!
//! Owns:    the descriptor, its receive buffer and the sequence number.
//! Rules:   Linux `include/uapi/linux/netlink.h`; lengths are aligned to 4 bytes, numbers are the host's.
//! Not here: what the messages mean (`diag`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const F_REQUEST: u16 = 1;
pub(super) const F_ACK: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub(super) const F_DUMP: u16 = 0x300;

const HEADER: usize = 16;
/// One kernel answer is at most 32 KiB for a reader with a buffer that large or larger.
const RECEIVE: usize = 256 * 1024;
/// A kernel answers at once; this long without an answer is a fault, not load.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A `NETLINK_SOCK_DIAG` socket, bound to the network namespace it was opened in.
#[derive(Debug)]
pub(super) struct Netlink {
    fd: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
    /// A dump that was broken off: until the kernel has said all of it, it begins no other (EBUSY).
    unfinished: Option<u32>,
}

/// One message of an answer.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

impl Netlink {
    /// Opens a socket that answers requests.
    pub(super) fn open() -> io::Result<Self> {
        let this = Self::bound(0)?;
        sockopt::set_socket_timeout(&this.fd, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(this)
    }

    /// Opens a socket subscribed to multicast `groups` (a bit mask) with a receive buffer as large as we
    /// may have.
    pub(super) fn subscribe(groups: u32, receive_buffer: usize) -> io::Result<Self> {
        let this = Self::bound(groups)?;
        // SO_RCVBUFFORCE needs CAP_NET_ADMIN; without it the kernel caps the size at rmem_max.
        if sockopt::set_socket_recv_buffer_size_force(&this.fd, receive_buffer).is_err() {
            sockopt::set_socket_recv_buffer_size(&this.fd, receive_buffer)?;
        }
        Ok(this)
    }

    fn bound(groups: u32) -> io::Result<Self> {
        let fd = net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        net::bind(&fd, &netlink::SocketAddrNetlink::new(0, groups))?;
        Ok(Self { fd, buffer: vec![0; RECEIVE], sequence: 0, unfinished: None })
    }

    /// The descriptor, to wait for readability.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The rest of the dump of that sequence number is not wanted: it is passed over before the next request.
    pub(super) fn break_off(&mut self, sequence: u32) {
        self.unfinished = Some(sequence);
    }

    /// Passes over what is left of a dump that was broken off.
    fn finish(&mut self) -> io::Result<()> {
        let Some(sequence) = self.unfinished.take() else { return Ok(()) };
        loop {
            let is_end = |message: Message<'_>| {
                message.sequence == sequence && matches!(message.kind, NLMSG_DONE | NLMSG_ERROR)
            };
            if self.receive(RecvFlags::empty())?.any(is_end) {
                return Ok(());
            }
        }
    }

    /// Sends one request and returns its sequence number.
    pub(super) fn send(&mut self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<u32> {
        self.send_all(kind, flags, std::slice::from_ref(&payload))
    }

    /// Sends requests in one datagram and returns the first one's sequence number; the others' follow it.
    pub(super) fn send_all(
        &mut self,
        kind: u16,
        flags: u16,
        payloads: &[impl AsRef<[u8]>],
    ) -> io::Result<u32> {
        self.finish()?;
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        for payload in payloads {
            let payload = payload.as_ref();
            self.sequence = self.sequence.wrapping_add(1);
            datagram.extend(u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX).to_ne_bytes());
            datagram.extend(kind.to_ne_bytes());
            datagram.extend(flags.to_ne_bytes());
            datagram.extend(self.sequence.to_ne_bytes());
            datagram.extend(0u32.to_ne_bytes());
            datagram.extend(payload);
            datagram.resize(aligned(datagram.len()), 0);
        }
        net::sendto(&self.fd, &datagram, SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
        Ok(first)
    }

    /// Receives one datagram: several messages.
    pub(super) fn receive(&mut self, flags: RecvFlags) -> io::Result<Messages<'_>> {
        let length = loop {
            match net::recv(&self.fd, &mut self.buffer[..], flags) {
                Ok((length, _)) => break length,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        Ok(Messages { rest: &self.buffer[..length.min(RECEIVE)] })
    }
}

/// The messages of one datagram.
#[derive(Debug)]
pub(super) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// The messages in `bytes`.
    #[cfg(test)]
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32_at(self.rest, 0)?).ok()?;
        if length < HEADER || length > self.rest.len() {
            self.rest = &[];
            return None;
        }
        let message = Message {
            kind: u16_at(self.rest, 4)?,
            sequence: u32_at(self.rest, 8)?,
            payload: &self.rest[HEADER..length],
        };
        self.rest = &self.rest[aligned(length).min(self.rest.len())..];
        Some(message)
    }
}

/// The attributes in a message's tail: type and value.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16_at(self.rest, 0)?);
        if length < 4 || length > self.rest.len() {
            self.rest = &[];
            return None;
        }
        // The two highest bits of the type are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        let kind = u16_at(self.rest, 2)? & 0x3fff;
        let value = &self.rest[4..length];
        self.rest = &self.rest[aligned(length).min(self.rest.len())..];
        Some((kind, value))
    }
}

/// Appends one attribute, padded.
pub(super) fn push_attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(aligned(out.len()), 0);
}

/// The errno of an `NLMSG_ERROR`; `Ok` is an acknowledgement.
pub(super) fn error_of(payload: &[u8]) -> io::Result<()> {
    match u32_at(payload, 0).map(|code| i32::from_ne_bytes(code.to_ne_bytes())) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "netlink error message cut short")),
    }
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_end_the_walk() {
        let mut bytes = vec![0u8; 16];
        bytes[0] = 200; // says 200 bytes, there are 16
        assert_eq!(Messages::of(&bytes).count(), 0);
        assert_eq!(Attributes::of(&[3, 0, 1, 0]).count(), 0, "shorter than its own header");
        assert_eq!(Attributes::of(&[9, 0, 1, 0, 7]).count(), 0, "longer than the message");
    }

    #[test]
    fn attribute_written_is_the_attribute_read() {
        let mut bytes = Vec::new();
        push_attribute(&mut bytes, 4, b"cubic\0");
        push_attribute(&mut bytes, 8, &[3]);
        let read: Vec<_> = Attributes::of(&bytes).collect();
        assert_eq!(read, [(4, &b"cubic\0"[..]), (8, &[3][..])]);
    }
}
