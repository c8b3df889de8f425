//! Enough of netlink to set up one interface: link, addresses, routes. And to ask about one socket.
//!
//! Owns:    message building ([`Message`]) and the request-acknowledge dialogue ([`Netlink`]).
//! Rules:   rtnetlink(7), netlink(7); every request asks for an acknowledgement and waits for it.
//! Not here: which addresses (`sandbox`), the meaning of sock_diag answers (`owner`).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// A request being built: header, fixed part, attributes.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Begins a message of `kind` with `flags` besides `NLM_F_REQUEST`, and the family's fixed header.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&1_u32.to_ne_bytes()); // sequence
        bytes.extend_from_slice(&0_u32.to_ne_bytes()); // port: the kernel
        bytes.extend_from_slice(fixed);
        Self { bytes }
    }

    /// Adds an attribute.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Adds an attribute that is made of attributes, behind `fixed`.
    fn nested(self, kind: u16, fixed: &[u8], attributes: &[(u16, &[u8])]) -> Self {
        let mut inner = Self { bytes: fixed.to_vec() };
        for (kind, value) in attributes {
            inner = inner.attribute(*kind, value);
        }
        self.attribute(kind, &inner.bytes)
    }

    fn finish(mut self) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes
    }
}

/// A netlink socket of one protocol. It stays bound to the network namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Netlink {
    fd: OwnedFd,
}

impl Netlink {
    /// For links, addresses and routes.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(None) // NETLINK_ROUTE is protocol 0
    }

    /// For questions about sockets.
    pub(crate) fn sock_diag() -> io::Result<Self> {
        Self::open(Some(netlink::SOCK_DIAG))
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        Ok(Self { fd })
    }

    /// Sends `message` and gives the kernel's first answer without its header, or its error.
    /// An acknowledgement is an empty answer.
    pub(crate) fn ask(&self, message: Message) -> io::Result<Vec<u8>> {
        rustix::net::send(&self.fd, &message.finish(), SendFlags::empty())?;
        let mut answer = vec![0_u8; 4096];
        let (len, _) = rustix::net::recv(&self.fd, &mut answer[..], RecvFlags::empty())?;
        answer.truncate(len);
        parse_answer(&answer)
    }
}

impl From<OwnedFd> for Netlink {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<Netlink> for OwnedFd {
    fn from(socket: Netlink) -> Self {
        socket.fd
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn parse_answer(answer: &[u8]) -> io::Result<Vec<u8>> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "short netlink answer");
    let kind = u16::from_ne_bytes(answer.get(4..6).ok_or_else(short)?.try_into().expect("two bytes"));
    let body = answer.get(16..).ok_or_else(short)?;
    if kind != NLMSG_ERROR {
        return Ok(body.to_vec());
    }
    let code = i32::from_ne_bytes(body.get(..4).ok_or_else(short)?.try_into().expect("four bytes"));
    if code == 0 { Ok(Vec::new()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

/// Brings the interface `index` up; with an MTU and a queue length, sets those first.
pub(crate) fn link_up(netlink: &Netlink, index: u32, mtu: Option<u32>, queue: Option<u32>) -> io::Result<()> {
    let mut fixed = [0_u8; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&(libc::IFF_UP as u32).to_ne_bytes());
    fixed[12..16].copy_from_slice(&(libc::IFF_UP as u32).to_ne_bytes());
    let mut message = Message::new(libc::RTM_NEWLINK, NLM_F_ACK, &fixed);
    if let Some(mtu) = mtu {
        message = message.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
    }
    if let Some(queue) = queue {
        message = message.attribute(libc::IFLA_TXQLEN, &queue.to_ne_bytes());
    }
    netlink.ask(message).map(drop)
}

/// A veth pair to be made: one end here, the other in another namespace, both down and without ARP.
#[derive(Debug)]
pub(crate) struct VethPair<'a> {
    pub(crate) name: &'a str,
    /// Address of the end that is here.
    pub(crate) mac: [u8; 6],
    pub(crate) other_name: &'a str,
    pub(crate) other_namespace: BorrowedFd<'a>,
    pub(crate) mtu: u32,
}

/// Makes a veth pair.
pub(crate) fn add_veth(netlink: &Netlink, pair: &VethPair<'_>) -> io::Result<()> {
    let mut link = [0_u8; 16];
    link[8..12].copy_from_slice(&(libc::IFF_NOARP as u32).to_ne_bytes());
    link[12..16].copy_from_slice(&(libc::IFF_NOARP as u32).to_ne_bytes());
    let name = |name: &str| [name.as_bytes(), b"\0"].concat();
    let (mtu, namespace) = (pair.mtu.to_ne_bytes(), pair.other_namespace.as_raw_fd().to_ne_bytes());
    let other = Message { bytes: Vec::new() }.nested(
        VETH_INFO_PEER,
        &link,
        &[
            (libc::IFLA_IFNAME, &name(pair.other_name)),
            (libc::IFLA_MTU, &mtu),
            (libc::IFLA_NET_NS_FD, &namespace),
        ],
    );
    let message = Message::new(libc::RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &link)
        .attribute(libc::IFLA_IFNAME, &name(pair.name))
        .attribute(libc::IFLA_ADDRESS, &pair.mac)
        .attribute(libc::IFLA_MTU, &mtu)
        .nested(libc::IFLA_LINKINFO, &[], &[(IFLA_INFO_KIND, b"veth"), (IFLA_INFO_DATA, &other.bytes)]);
    netlink.ask(message).map(drop)
}

/// Gives the interface an address, without duplicate address detection.
pub(crate) fn add_address(netlink: &Netlink, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    let (family, bytes) = family_and_bytes(address);
    let mut fixed = [0_u8; 8];
    fixed[0] = family;
    fixed[1] = prefix;
    fixed[2] = IFA_F_NODAD;
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    let message = Message::new(libc::RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &fixed)
        .attribute(libc::IFA_LOCAL, &bytes)
        .attribute(libc::IFA_ADDRESS, &bytes);
    netlink.ask(message).map(drop)
}

/// Makes the interface the way to everywhere, for the family of `address`.
pub(crate) fn add_default_route(netlink: &Netlink, index: u32, address: IpAddr) -> io::Result<()> {
    let (family, _) = family_and_bytes(address);
    let mut fixed = [0_u8; 12];
    fixed[0] = family;
    fixed[4] = libc::RT_TABLE_MAIN;
    fixed[5] = libc::RTPROT_STATIC;
    fixed[6] = libc::RT_SCOPE_UNIVERSE;
    fixed[7] = libc::RTN_UNICAST;
    let message = Message::new(libc::RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE, &fixed)
        .attribute(libc::RTA_OIF, &index.to_ne_bytes());
    netlink.ask(message).map(drop)
}

fn family_and_bytes(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (libc::AF_INET as u8, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6 as u8, v6.octets().to_vec()),
    }
}

const NLM_F_REQUEST: u16 = 1;
/// Ask for an acknowledgement.
pub(crate) const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const IFA_F_NODAD: u8 = 2;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_carries_its_length_and_pads_attributes() {
        let bytes = Message::new(16, NLM_F_ACK, &[7; 4]).attribute(3, &[1, 2, 3, 4, 5]).finish();
        assert_eq!(bytes.len(), 16 + 4 + 12);
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()), 32);
        assert_eq!(u16::from_ne_bytes(bytes[6..8].try_into().unwrap()), NLM_F_REQUEST | NLM_F_ACK);
        assert_eq!(u16::from_ne_bytes(bytes[20..22].try_into().unwrap()), 9, "the pad is not counted");
    }

    #[test]
    fn nested_attributes_count_in_the_length_of_their_own() {
        let bytes = Message { bytes: Vec::new() }.nested(18, &[], &[(1, b"veth"), (2, &[9])]).bytes;
        assert_eq!(u16::from_ne_bytes(bytes[..2].try_into().unwrap()), 4 + 8 + 8);
        assert_eq!((&bytes[8..12], bytes[16]), (&b"veth"[..], 9));
    }

    #[test]
    fn error_answer_becomes_its_errno() {
        let mut answer = Message::new(NLMSG_ERROR, 0, &(-libc::EEXIST).to_ne_bytes()).finish();
        assert_eq!(parse_answer(&answer).unwrap_err().raw_os_error(), Some(libc::EEXIST));
        answer[16..20].copy_from_slice(&0_i32.to_ne_bytes());
        assert_eq!(parse_answer(&answer).unwrap(), Vec::<u8>::new());
        assert!(parse_answer(&answer[..10]).is_err());
    }

    #[test]
    fn loopback_can_be_asked_about() {
        let netlink = Netlink::route().expect("netlink");
        let mut fixed = [0_u8; 16];
        fixed[4..8].copy_from_slice(&1_u32.to_ne_bytes());
        let answer = netlink.ask(Message::new(libc::RTM_GETLINK, 0, &fixed)).expect("loopback is link 1");
        assert_eq!(u32::from_ne_bytes(answer[4..8].try_into().unwrap()), 1);
    }
}
