//! Opens a TUN device with virtio header and TCP segmentation offload: the yardstick's only `unsafe`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO4: libc::c_uint = 0x02;

/// Opens `/dev/net/tun` as interface `name` (at most 15 bytes), blocking, in this network namespace.
///
/// # Errors
/// No permission, or the kernel refuses the name or the offloads.
pub fn open(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // struct ifreq: 16 bytes of name, then the flags as a short.
    let mut request = [0u8; 40];
    let bytes = name.as_bytes();
    if bytes.len() > 15 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    request[..bytes.len()].copy_from_slice(bytes);
    let flags =
        u16::try_from(libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR).expect("three flags of a short");
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes a struct ifreq, which is 40 bytes; `request` lives through the call.
    let named = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    if named < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: TUNSETOFFLOAD takes its flags by value.
    let offloaded = unsafe {
        libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(TUN_F_CSUM | TUN_F_TSO4))
    };
    if offloaded < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}
