//! Opening a TUN, with every refusal explained.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::Tun;
use crate::descriptor::Descriptor;
use crate::device::Capabilities;
use crate::{sys, virtio};

/// What to open. Without more: a new interface `tun%d`, down, without addresses, with every offload.
#[derive(Clone, Debug, Default)]
pub struct TunOptions {
    name: Option<String>,
    mtu: Option<u32>,
    queue_len: Option<u32>,
    addresses: Vec<(IpAddr, u8)>,
    is_up: bool,
    is_plain: bool,
}

impl TunOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Name of the interface, at most 15 bytes; `%d` in it becomes a number. An existing persistent one is used.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Largest IP packet, bytes. Default: the kernel's, 1500.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Packets the kernel queues before it drops. Default: the kernel's, 500. Root of the machine only: Linux
    /// does not let root of a user namespace set it this way.
    #[must_use]
    pub fn queue_len(mut self, packets: u32) -> Self {
        self.queue_len = Some(packets);
        self
    }

    /// Gives the *kernel's* end an address, with the prefix length of the link's network.
    #[must_use]
    pub fn address(mut self, address: IpAddr, prefix: u8) -> Self {
        self.addresses.push((address, prefix));
        self
    }

    /// Brings the interface up.
    #[must_use]
    pub fn up(mut self) -> Self {
        self.is_up = true;
        self
    }

    /// No virtio header: MTU-sized packets with finished checksums both ways. Slower by a factor of ten.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.is_plain = true;
        self
    }
}

/// Why a TUN could not be opened: the step that failed, and what to do about it. Inside an [`io::Error`].
#[derive(Debug)]
pub struct TunError {
    step: String,
    /// What the kernel said.
    source: io::Error,
    /// What to do, where that is known.
    remedy: Option<&'static str>,
}

impl TunError {
    /// What to do, where that is known.
    pub fn remedy(&self) -> Option<&'static str> {
        self.remedy
    }

    /// The errno the kernel gave.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

impl std::fmt::Display for TunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.source)?;
        match self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn failed(step: impl Into<String>, source: io::Error) -> io::Error {
    let step = step.into();
    let remedy = remedy(&step, source.raw_os_error());
    io::Error::new(source.kind(), TunError { step, source, remedy })
}

const OPEN: &str = "open /dev/net/tun";

fn remedy(step: &str, errno: Option<i32>) -> Option<&'static str> {
    match (step, errno?) {
        (OPEN, libc::ENOENT) => Some("make the node: `mkdir -p /dev/net && mknod /dev/net/tun c 10 200`"),
        (OPEN, libc::ENODEV | libc::ENXIO) => Some("load the module: `modprobe tun`"),
        (OPEN, libc::EACCES) => Some("run as root, or allow it: `chmod 666 /dev/net/tun`"),
        (OPEN, libc::EPERM) => Some("the device cgroup of this container forbids it: allow device 10:200"),
        (_, libc::EPERM) => Some("this needs CAP_NET_ADMIN in the network namespace"),
        (_, libc::EBUSY) => Some("another program uses this interface: choose another name"),
        _ => None,
    }
}

pub(super) fn open(options: &TunOptions) -> io::Result<Tun> {
    let fd = sys::tun::open_node().map_err(|error| failed(OPEN, error))?;
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI;
    if !options.is_plain {
        flags |= libc::IFF_VNET_HDR;
    }
    let wanted = options.name.as_deref().unwrap_or("tun%d");
    let name = sys::tun::attach(fd.as_fd(), wanted, flags)
        .map_err(|error| failed(format!("create TUN interface {wanted}"), error))?;

    if let Some(mtu) = options.mtu {
        sys::interface::set_mtu(&name, mtu)
            .map_err(|error| failed(format!("set the MTU of {name} to {mtu}"), error))?;
    }
    if let Some(packets) = options.queue_len {
        sys::interface::set_queue_len(&name, packets)
            .map_err(|error| failed(format!("set the queue length of {name} to {packets}"), error))?;
    }
    for (address, prefix) in &options.addresses {
        sys::interface::add_address(&name, *address, *prefix)
            .map_err(|error| failed(format!("give {name} the address {address}/{prefix}"), error))?;
    }
    if options.is_up {
        sys::interface::set_up(&name).map_err(|error| failed(format!("bring {name} up"), error))?;
        for (address, _) in options.addresses.iter().filter(|(address, _)| address.is_ipv6()) {
            wait_until_usable(*address)
                .map_err(|error| failed(format!("wait for the address {address} of {name}"), error))?;
        }
    }
    let mtu = sys::interface::mtu(&name).map_err(|error| failed(format!("read the MTU of {name}"), error))?;
    adopt(fd, mtu)
}

pub(super) fn adopt(fd: OwnedFd, mtu: u32) -> io::Result<Tun> {
    let (name, flags) =
        sys::tun::attached(fd.as_fd()).map_err(|error| failed("ask which TUN this descriptor is", error))?;
    if flags & libc::IFF_TUN == 0 || flags & libc::IFF_NO_PI == 0 {
        let message = format!("{name} is not a TUN without packet information (IFF_TUN | IFF_NO_PI)");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let has_header = flags & libc::IFF_VNET_HDR != 0;
    let capabilities = if has_header {
        sys::tun::set_header_len(fd.as_fd(), virtio::HEADER_LEN as i32)
            .map_err(|error| failed("set the length of the virtio header", error))?;
        negotiate(&fd, mtu)
    } else {
        Capabilities::plain(mtu)
    };
    Ok(Tun { descriptor: Descriptor::new(fd)?, name, has_header, capabilities })
}

/// Linux finishes a new IPv6 address in a work queue, milliseconds later: until then nobody can bind to it.
fn wait_until_usable(address: IpAddr) -> io::Result<()> {
    const STEP: Duration = Duration::from_millis(2);
    const STEPS: u32 = 500;
    let mut tries = 0;
    loop {
        match UdpSocket::bind((address, 0)) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && tries < STEPS => {
                tries += 1;
                std::thread::park_timeout(STEP);
            }
            result => return result.map(drop),
        }
    }
}

/// Asks for everything, then for less: USO came with Linux 6.2.
fn negotiate(fd: &OwnedFd, mtu: u32) -> Capabilities {
    const TCP: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let accepts = |bits| sys::tun::set_offload(fd.as_fd(), bits).is_ok();
    let with_tcp = Capabilities { mtu, checksum: true, tso4: true, tso6: true, uso: false };
    if accepts(TCP | libc::TUN_F_USO4 | libc::TUN_F_USO6) {
        Capabilities { uso: true, ..with_tcp }
    } else if accepts(TCP) {
        with_tcp
    } else {
        // What this side sends, the kernel finishes and cuts by the header alone, whatever was asked; but a
        // kernel that old was never seen, so nothing is taken for granted.
        Capabilities::plain(mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let error = failed(OPEN, io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("chmod 666 /dev/net/tun"), "{error}");
        let error = failed("create TUN interface x", io::Error::from_raw_os_error(libc::EBUSY));
        assert!(error.to_string().contains("choose another name"), "{error}");
    }

    #[test]
    fn a_descriptor_of_something_else_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = Tun::from_fd(file.into(), 1500).unwrap_err();
        assert!(error.to_string().contains("which TUN"), "{error}");
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let error = sys::interface::mtu("a-name-of-16-byt").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
