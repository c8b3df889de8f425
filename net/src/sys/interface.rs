//! A network interface of this namespace: MTU, queue length, addresses, up.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;

use super::{check, ifreq};

fn ioctl(socket: &UdpSocket, code: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the SIOC*IF* requests used here read and write one `ifreq`, which `request` is.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), code as _, request) })?;
    Ok(())
}

fn socket(family: IpAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind((family, 0))
}

fn any_socket() -> io::Result<UdpSocket> {
    socket(Ipv4Addr::UNSPECIFIED.into()).or_else(|_| socket(Ipv6Addr::UNSPECIFIED.into()))
}

/// `SIOCGIFMTU`, bytes.
pub(crate) fn mtu(name: &str) -> io::Result<u32> {
    let mut request = ifreq(name)?;
    ioctl(&any_socket()?, libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: the kernel filled the union's `ifru_mtu`; every bit pattern is a valid integer.
    Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
}

/// `SIOCSIFMTU`, bytes.
pub(crate) fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    let mut request = ifreq(name)?;
    request.ifr_ifru.ifru_mtu = mtu as libc::c_int;
    ioctl(&any_socket()?, libc::SIOCSIFMTU, &mut request)
}

/// `SIOCSIFTXQLEN`, packets.
pub(crate) fn set_queue_len(name: &str, packets: u32) -> io::Result<()> {
    let mut request = ifreq(name)?;
    // The union's integer members share their place; libc has no `ifru_qlen`.
    request.ifr_ifru.ifru_mtu = packets as libc::c_int;
    ioctl(&any_socket()?, libc::SIOCSIFTXQLEN, &mut request)
}

/// Sets `IFF_UP`.
pub(crate) fn set_up(name: &str) -> io::Result<()> {
    let socket = any_socket()?;
    let mut request = ifreq(name)?;
    ioctl(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the kernel filled the union's `ifru_flags`; every bit pattern is a valid integer.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    ioctl(&socket, libc::SIOCSIFFLAGS, &mut request)
}

/// Gives the interface an address. An IPv4 interface has one (the last set), IPv6 addresses add up.
pub(crate) fn add_address(name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    match address {
        IpAddr::V4(address) => {
            let socket = socket(Ipv4Addr::UNSPECIFIED.into())?;
            let mut request = ifreq(name)?;
            request.ifr_ifru.ifru_addr = sockaddr_v4(address);
            ioctl(&socket, libc::SIOCSIFADDR, &mut request)?;
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            request.ifr_ifru.ifru_netmask = sockaddr_v4(Ipv4Addr::from_bits(mask));
            ioctl(&socket, libc::SIOCSIFNETMASK, &mut request)
        }
        IpAddr::V6(address) => {
            let socket = socket(Ipv6Addr::UNSPECIFIED.into())?;
            let mut request = ifreq(name)?;
            ioctl(&socket, libc::SIOCGIFINDEX, &mut request)?;
            let request = libc::in6_ifreq {
                ifr6_addr: libc::in6_addr { s6_addr: address.octets() },
                ifr6_prefixlen: u32::from(prefix),
                // SAFETY: the kernel filled the union's `ifru_ifindex`; every bit pattern is a valid integer.
                ifr6_ifindex: unsafe { request.ifr_ifru.ifru_ifindex },
            };
            // SAFETY: on an IPv6 socket SIOCSIFADDR reads one `in6_ifreq`, which lives through the call.
            check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR as _, &request) })?;
            Ok(())
        }
    }
}

fn sockaddr_v4(address: Ipv4Addr) -> libc::sockaddr {
    // `sockaddr_in`: family, port (2 bytes), address (4 bytes), padding.
    let mut data = [0 as libc::c_char; 14];
    for (place, byte) in data[2..].iter_mut().zip(address.octets()) {
        *place = byte as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}
