//! `fcntl` and `ioctl`.
//!
//! Rules: Linux `tcp_ioctl()`.

use lastack_core::tcp::state::TcpState;

use super::{Posix, Role};
use crate::target::{Fd, Outcome, Output};

const SIOCINQ: u64 = 0x541b;
const SIOCOUTQ: u64 = 0x5411;
const SIOCOUTQNSD: u64 = 0x894b;
const SIOCATMARK: u64 = 0x8905;

impl Posix {
    pub(super) fn fcntl(&mut self, fd: Fd, command: i32, arg: i32) -> Outcome {
        let socket = match self.tcp(fd) {
            Ok(socket) => socket,
            Err(outcome) => return outcome,
        };
        match command {
            libc::F_GETFL => {
                Outcome::ok(i64::from(libc::O_RDWR | if socket.nonblocking { libc::O_NONBLOCK } else { 0 }))
            }
            libc::F_SETFL => {
                socket.nonblocking = arg & libc::O_NONBLOCK != 0;
                Outcome::ok(0)
            }
            _ => Outcome::error(libc::EINVAL),
        }
    }

    pub(super) fn ioctl(&mut self, fd: Fd, request: u64) -> Outcome {
        let role = match self.tcp(fd) {
            Ok(socket) => socket.role,
            Err(outcome) => return outcome,
        };
        let id = match role {
            Role::Connection { id, .. } => id,
            Role::Listener(_) => return Outcome::error(libc::EINVAL),
            Role::Fresh => return Outcome::ok(0).with(Output::Int(0)),
        };
        let info = self.stack.tcp_info(self.now, id).unwrap_or_default();
        let tuple = self.stack.tuple(id);
        let row = tuple.and_then(|at| {
            self.stack.sockets(self.now).find(|row| (row.local, row.remote) == (at.local, at.remote))
        });
        let value = match request {
            SIOCINQ => self.stack.recv_available(id) as i32,
            // Linux: the SYN is not data.
            SIOCOUTQ if matches!(self.stack.state(id), Some(TcpState::SynSent | TcpState::SynRecv)) => 0,
            SIOCOUTQ => row.map_or(0, |row| row.send_q as i32),
            SIOCOUTQNSD => info.notsent_bytes as i32,
            SIOCATMARK => self.stack.is_at_mark(id).into(),
            _ => return Outcome::error(libc::ENOTTY),
        };
        Outcome::ok(0).with(Output::Int(value))
    }
}
