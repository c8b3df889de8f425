//! Control messages of `recvmsg`, as the C library lays them out.
//!
//! Rules: Linux `put_cmsg()`, `ip_recv_error()`, `ipv6_recv_error()`, `put_cmsg_scm_timestamping()`.
#![allow(unsafe_code, reason = "a C interface")]

use lastack_lab::target::Control;
use libc::{c_int, msghdr};

/// Level, type and bytes of one message.
fn laid_out(control: &Control) -> (c_int, c_int, Vec<u8>) {
    match control {
        Control::Inq(inq) => (libc::IPPROTO_TCP, libc::TCP_CM_INQ, inq.to_ne_bytes().to_vec()),
        Control::Error(error) => {
            let mut bytes = error.errno.to_ne_bytes().to_vec();
            bytes.extend([error.origin, error.kind, error.code, 0]);
            bytes.extend(error.info.to_ne_bytes());
            bytes.extend(error.data.to_ne_bytes());
            // Who sent it: nobody, with no address.
            let (level, kind, offender) = if error.v6 {
                (libc::SOL_IPV6, libc::IPV6_RECVERR, size_of::<libc::sockaddr_in6>())
            } else {
                (libc::SOL_IP, libc::IP_RECVERR, size_of::<libc::sockaddr_in>())
            };
            bytes.resize(bytes.len() + offender, 0);
            (level, kind, bytes)
        }
        Control::Timestamp(time) => {
            // Software stamp, and the two of hardware that there are not.
            let mut bytes = (time.as_secs() as i64).to_ne_bytes().to_vec();
            bytes.extend(i64::from(time.subsec_nanos()).to_ne_bytes());
            bytes.resize(3 * size_of::<libc::timespec>(), 0);
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING, bytes)
        }
    }
}

/// Writes what fits; `MSG_CTRUNC` when not all does.
///
/// # Safety
/// `msg_control` is null or points to `msg_controllen` bytes.
pub(crate) unsafe fn write_control(message: &mut msghdr, control: &[Control]) {
    let room = core::mem::replace(&mut message.msg_controllen, 0);
    for control in control {
        let (level, kind, bytes) = laid_out(control);
        let at = message.msg_controllen;
        // SAFETY: no memory is involved in the sizes; a message is written only if all of it fits.
        unsafe {
            let space = libc::CMSG_SPACE(bytes.len() as u32) as usize;
            if message.msg_control.is_null() || room < at + space {
                message.msg_flags |= libc::MSG_CTRUNC;
                return;
            }
            let header = message.msg_control.cast::<u8>().add(at).cast::<libc::cmsghdr>();
            (*header).cmsg_len = libc::CMSG_LEN(bytes.len() as u32) as usize;
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            libc::CMSG_DATA(header).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            message.msg_controllen = at + space;
        }
    }
}
