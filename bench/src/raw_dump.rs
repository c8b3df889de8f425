//! The yardstick of listing sockets: a sock_diag dump whose answers are counted and thrown away.

use std::io;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto, socket_with,
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const REQUEST_DUMP: u16 = 0x301;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// What to ask for beside addresses, as bits of `idiag_ext`: INFO (2), CONG (4), SKMEMINFO (7).
const DETAIL: u8 = 1 << 1 | 1 << 3 | 1 << 6;

/// Dumps all TCP sockets of both families; gives how many there were.
///
/// # Errors
/// The kernel refuses the dump.
pub fn dump(detailed: bool) -> io::Result<u64> {
    let fd =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    let mut buffer = vec![0u8; 256 * 1024];
    let mut count = 0;
    for family in [AF_INET, AF_INET6] {
        let mut request = Vec::from(72u32.to_ne_bytes());
        request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        request.extend(REQUEST_DUMP.to_ne_bytes());
        request.extend([0; 8]);
        request.extend([family, IPPROTO_TCP, if detailed { DETAIL } else { 0 }, 0]);
        request.extend(u32::MAX.to_ne_bytes());
        request.extend([0; 48]);
        sendto(&fd, &request, SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
        'answers: loop {
            let (length, _) = recv(&fd, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..length];
            while let (Some(size), Some(kind)) = (rest.get(..4), rest.get(4..6)) {
                let size = usize::try_from(u32::from_ne_bytes([size[0], size[1], size[2], size[3]]))
                    .map_err(io::Error::other)?;
                match u16::from_ne_bytes([kind[0], kind[1]]) {
                    NLMSG_DONE => break 'answers,
                    NLMSG_ERROR => return Err(io::Error::other("the kernel refuses the dump")),
                    _ => count += 1,
                }
                rest = rest.get((size.max(16) + 3) & !3..).unwrap_or(&[]);
            }
        }
    }
    Ok(count)
}
