//! Fast Open's calls: `TCP_FASTOPEN_CONNECT`, and sending with `MSG_FASTOPEN`.
//!
//! Rules: Linux `tcp_sendmsg_fastopen`, `tcp_fastopen_defer_connect`, `__inet_stream_connect`.

use core::net::SocketAddr;

use lastack_core::tcp::fast_open::FastOpenKeys;
use lastack_core::tcp::options::TcpOption;
use lastack_core::tcp::state::TcpState;

use super::life::plain;
use super::{Attempt, Posix, Role};
use crate::target::{Fd, Outcome};

/// `tcp_fastopen`: a client may.
const CLIENT: u32 = 1;

impl Posix {
    /// `connect` on a socket with `TCP_FASTOPEN_CONNECT`: when data may ride in the SYN, the SYN waits for the first write.
    /// `None`: an ordinary connect.
    pub(super) fn defer_connect(&mut self, fd: Fd, to: SocketAddr) -> Option<Attempt> {
        let now = self.now;
        let socket = self.tcp(fd).ok()?;
        if socket.kept.get(&(libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT)) != Some(&1) {
            return None;
        }
        if socket.deferred.is_some() {
            return Some(Outcome::error(libc::EISCONN).into());
        }
        let (local, options, nonblocking) = (socket.bound, socket.options.clone(), socket.nonblocking);
        if self.stack.can_connect_fast(now, plain(to), local, &options) {
            self.tcp(fd).ok()?.deferred = Some(to);
            return Some(Outcome::ok(0).into());
        }
        Some(match self.begin_fast(fd, to, 0, false) {
            Err(outcome) => outcome.into(),
            Ok(_) if nonblocking => Outcome::error(libc::EINPROGRESS).into(),
            Ok(_) => Attempt::Waits { progress: 0, deadline: None },
        })
    }

    /// A write that connects. `None`: an ordinary one.
    pub(super) fn send_fast(
        &mut self,
        fd: Fd,
        len: usize,
        flags: i32,
        to: Option<SocketAddr>,
    ) -> Option<Attempt> {
        let socket = self.tcp(fd).ok()?;
        let (deferred, role) = (socket.deferred, socket.role);
        let dont_wait = socket.nonblocking || flags & libc::MSG_DONTWAIT != 0;
        if flags & libc::MSG_FASTOPEN == 0 && deferred.is_none() {
            return None;
        }
        if self.stack.sysctl().tcp_fastopen & CLIENT == 0 {
            return Some(Outcome::error(libc::EOPNOTSUPP).into());
        }
        if let Role::Connection { id, told } = role {
            if self.stack.state(id) == Some(TcpState::SynSent) {
                return Some(Outcome::error(libc::EALREADY).into());
            }
            // The first call after the handshake ends the connect(), and sends.
            self.tcp(fd).ok()?.role = Role::Connection { id, told: true };
            return told.then(|| Outcome::error(libc::EISCONN).into());
        }
        let Some(to) = deferred.or(to) else { return Some(Outcome::error(libc::EDESTADDRREQ).into()) };
        Some(match self.begin_fast(fd, to, len, !dont_wait) {
            Err(outcome) => outcome.into(),
            Ok(0) if dont_wait => Outcome::error(libc::EINPROGRESS).into(),
            Ok(taken) if dont_wait => Outcome::ok(taken as i64).into(),
            Ok(taken) => Attempt::Waits { progress: taken, deadline: None },
        })
    }

    fn begin_fast(&mut self, fd: Fd, to: SocketAddr, len: usize, more: bool) -> Result<usize, Outcome> {
        let now = self.now;
        self.tcp(fd)?.deferred = None;
        self.begin(fd, |stack, local, options| {
            stack.connect_fast(now, plain(to), local, options, &vec![0; len], more)
        })
    }
}

/// `TCP_FASTOPEN_KEY`: 16 bytes, or 32 with the secret before.
pub(super) fn keys(bytes: &[u8]) -> Result<TcpOption, i32> {
    FastOpenKeys::from_bytes(bytes).map(TcpOption::FastOpenKeys).ok_or(libc::EINVAL)
}
