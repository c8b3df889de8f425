//! The program's link: a TUN, or a veth pair with a packet socket on its other end.
//!
//! Owns:    [`make`], which tries what was asked for, and the descriptor that comes of it.
//! Rules:   the veth's other end stays in a namespace of its own, where nothing but it is: the program does not see it,
//!          and what the kernel there makes of its packets is nothing. Both ends are without ARP, so that each packet
//!          from the program bears its own address as destination: to the other end's kernel it is somebody else's.
//! Not here: addresses and routes of the program's end (`helper`), carrying packets (`lastack`).

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use lastack::veth::MacAddress;

use super::failure::Stage;
use crate::netlink::{self, Netlink, VethPair};
use crate::sys;

/// Which link the program is to get.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DeviceChoice {
    /// A TUN; where there is none, a veth pair.
    #[default]
    Auto,
    /// A TUN.
    Tun,
    /// A veth pair.
    Veth,
}

/// Which link the program got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceKind {
    /// A TUN.
    Tun,
    /// A veth pair.
    Veth,
}

impl DeviceKind {
    /// Its name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tun => "tun",
            Self::Veth => "veth",
        }
    }

    /// The name of the program's interface.
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Tun => "tun0",
            Self::Veth => "veth0",
        }
    }
}

impl DeviceChoice {
    const ALL: [Self; 3] = [Self::Auto, Self::Tun, Self::Veth];

    pub(super) fn number(self) -> u32 {
        self as u32
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|choice| choice.number() == number)
    }
}

/// The program's end of a veth pair: a locally administered address.
pub(super) const PROGRAM_MAC: MacAddress = [0x02, b'l', b'a', b's', b't', b'k'];
/// The other end's name, in its own namespace.
const OTHER_END: &str = "lastack0";

/// A link that was made, still down.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) kind: DeviceKind,
    /// Where the stack reads and writes its packets.
    pub(super) fd: OwnedFd,
}

/// Makes the link in the network namespace of this process, or, for a veth, in a new one that this process enters.
/// `tun_refused` is told why there is no TUN before a veth is tried.
pub(super) fn make(
    choice: DeviceChoice,
    mtu: u32,
    tun_refused: impl FnOnce(io::Error) -> Result<(), (Stage, io::Error)>,
) -> Result<Link, (Stage, io::Error)> {
    if choice != DeviceChoice::Veth {
        match sys::open_tun(DeviceKind::Tun.interface()) {
            Ok(fd) => return Ok(Link { kind: DeviceKind::Tun, fd }),
            Err(error) if choice == DeviceChoice::Tun => return Err((Stage::Tun, error)),
            Err(error) => tun_refused(error)?,
        }
    }
    let fd = veth(mtu).map_err(|error| (Stage::Veth, error))?;
    Ok(Link { kind: DeviceKind::Veth, fd })
}

fn veth(mtu: u32) -> io::Result<OwnedFd> {
    // All of these belong to the namespace they are opened in.
    let other_namespace = File::open("/proc/self/ns/net")?;
    let no_ipv6 = File::options().write(true).open("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    let (there, socket) = (Netlink::route()?, lastack::veth::socket()?);
    sys::unshare(sys::Namespaces::Net)?;
    // Else the other end asks for routers. A host without IPv6, or with `/proc/sys` read-only: harmless.
    let _ = no_ipv6.and_then(|mut file| file.write_all(b"1"));
    netlink::add_veth(
        &Netlink::route()?,
        &VethPair {
            name: DeviceKind::Veth.interface(),
            mac: PROGRAM_MAC,
            other_name: OTHER_END,
            other_namespace: other_namespace.as_fd(),
            mtu,
        },
    )?;
    let index = rustix::net::netdevice::name_to_index(&there, OTHER_END)?;
    netlink::link_up(&there, index, None, None)?;
    lastack::veth::bind(&socket, index)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_survives_its_number() {
        for choice in DeviceChoice::ALL {
            assert_eq!(DeviceChoice::from_number(choice.number()), Some(choice));
        }
        assert_eq!(DeviceChoice::from_number(3), None);
    }

    #[test]
    fn programs_address_is_nobodys_and_not_a_groups() {
        assert_eq!(PROGRAM_MAC[0] & 3, 2);
    }
}
