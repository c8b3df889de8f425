//! One socket as `sock_diag` shows it, asked for by its pair: a look-up in the kernel's table, where `/proc/net/tcp` is a
//! walk through all of it (10 ms on a machine with much memory).
//!
//! Rules: Linux `inet_diag_get_exact_compat()`, `struct inet_diag_req_v2`, `struct inet_diag_msg`.

use core::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use lastack_core::observe::{SocketRow, TimerKind, TimerRow};
use lastack_core::tcp::state::TcpState;

use crate::sys;
use crate::target::TargetError;

/// Linux `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// Linux `NLMSG_ERROR`.
const ERROR: u16 = 2;
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
const ANSWER: usize = HEADER + 72;

/// The socket between `local` and `remote`, if there is one.
pub(super) fn row(
    socket: &OwnedFd,
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<Option<SocketRow>, TargetError> {
    let failed = |errno| TargetError(format!("sock_diag: {}", sys::os_error(errno)));
    let mut answer = [0; 512];
    let len = sys::exchange(socket, &request(local, remote), &mut answer).map_err(failed)?;
    let kind = answer.get(4..6).map_or(0, |bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    match kind {
        BY_FAMILY if len >= ANSWER => Ok(parse(&answer[HEADER..ANSWER], local, remote)),
        ERROR => match -i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
            libc::ENOENT => Ok(None),
            errno => Err(failed(errno)),
        },
        _ => Err(TargetError("sock_diag: an answer of another form".to_owned())),
    }
}

fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let mut out = Vec::with_capacity(REQUEST);
    out.extend((REQUEST as u32).to_ne_bytes());
    out.extend(BY_FAMILY.to_ne_bytes());
    out.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    out.extend([0; 8]);
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    out.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    out.extend(u32::MAX.to_ne_bytes());
    // Linux looks the pair up as a received segment would be: ours is the source here.
    out.extend(local.port().to_be_bytes());
    out.extend(remote.port().to_be_bytes());
    for address in [local.ip(), remote.ip()] {
        match address {
            IpAddr::V4(address) => {
                out.extend(address.octets());
                out.extend([0; 12]);
            }
            IpAddr::V6(address) => out.extend(address.octets()),
        }
    }
    out.extend([0; 4]);
    // Any cookie.
    out.extend([0xff; 8]);
    out
}

fn parse(message: &[u8], local: SocketAddr, remote: SocketAddr) -> Option<SocketRow> {
    let word = |at: usize| message.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    let kind = match message.get(2)? {
        1 => Some(TimerKind::On),
        2 => Some(TimerKind::Keepalive),
        3 => Some(TimerKind::TimeWait),
        4 => Some(TimerKind::Persist),
        _ => None,
    };
    let (expires_ms, retrans) = (word(52)?, *message.get(3)?);
    Some(SocketRow {
        state: TcpState::from_number(*message.get(1)?)?,
        local,
        remote,
        recv_q: word(56)?,
        send_q: word(60)?,
        timer: kind.map(|kind| TimerRow { kind, expires_ms, retrans }),
        cookie: u64::from(word(44)?) | u64::from(word(48)?) << 32,
        orphan: word(68)? == 0,
        age_ms: None,
        state_age_ms: None,
        info: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_kernel_s_form() {
        let request = request("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        assert_eq!(request.len(), REQUEST);
        assert_eq!(request[24..28], [0x9c, 0x40, 0, 80]);
        assert_eq!(request[28..32], [10, 0, 0, 1]);
        assert_eq!(request[44..48], [10, 0, 0, 2]);
    }

    #[test]
    fn an_answer_is_read() {
        let mut message = [0u8; 72];
        message[0..4].copy_from_slice(&[2, 4, 4, 3]);
        message[52..56].copy_from_slice(&1500u32.to_ne_bytes());
        message[60..64].copy_from_slice(&77u32.to_ne_bytes());
        let (local, remote) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let row = parse(&message, local, remote).expect("a socket");
        assert_eq!((row.state, row.send_q, row.orphan), (TcpState::FinWait1, 77, true));
        let timer = TimerRow { kind: TimerKind::Persist, expires_ms: 1500, retrans: 3 };
        assert_eq!(row.timer, Some(timer));
        assert_eq!(parse(&message[..40], local, remote), None);
    }
}
