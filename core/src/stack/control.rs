//! From outside: ending a connection in any state, and the link's changes.
//!
//! Rules:   specification 10.2 (`SOCK_DESTROY`). Linux: `tcp_abort`.

use crate::error::SocketError;
use crate::id::ConnectionId;
use crate::observe::life::Ending;
use crate::stack::demux::{SocketKey, SocketKind};
use crate::stack::tuple::Packed;
use crate::stack::{Gone, KillTarget, Stack};
use crate::tcp::state::TcpState;
use crate::time::Instant;

impl Stack {
    pub(crate) fn end(&mut self, now: Instant, target: KillTarget) -> Result<TcpState, Gone> {
        let key = match target {
            KillTarget::Tuple(tuple) => Packed::new(&tuple).and_then(|packed| self.sockets.find(&packed)),
            KillTarget::Cookie(cookie) => {
                // Listeners are few.
                let listener = self.listeners.iter().find(|(_, listener)| listener.cookie == cookie);
                if let Some((id, _)) = listener {
                    self.stop_listening(now, id);
                    return Ok(TcpState::Listen);
                }
                self.sockets.find_cookie(cookie)
            }
        };
        let key = key.ok_or(Gone)?;
        match key.kind() {
            SocketKind::Connection => self.end_connection(now, key),
            SocketKind::HalfOpenV4 | SocketKind::HalfOpenV6 => {
                self.end_request(now, key);
                Ok(TcpState::NewSynRecv)
            }
            SocketKind::TimeWaitV4 | SocketKind::TimeWaitV6 => {
                let found = self.sockets.time_wait_mut(key).ok_or(Gone)?;
                let state = if found.mini.is_fin_wait_2() { TcpState::FinWait2 } else { TcpState::TimeWait };
                if found.marks.displaced {
                    // Its place is taken; what waits for a decision goes on without it.
                    return Err(Gone);
                }
                self.end_life(now, key, Ending::Killed);
                self.remove_time_wait(key);
                Ok(state)
            }
        }
    }

    /// A narrower link is made known to every connection as a router would: rare, so a look at each is good enough.
    pub(crate) fn on_link(&mut self, now: Instant, mtu: u32) {
        self.link.mtu = mtu;
        let all: Vec<ConnectionId> = self.sockets.connections().map(|(id, _)| id).collect();
        for id in all {
            let Some(socket) = self.sockets.connection_mut(id) else { continue };
            socket.connection.on_link_mtu(mtu, &mut self.world.cx(now));
            self.refresh(now, id);
        }
    }

    fn end_connection(&mut self, now: Instant, key: SocketKey) -> Result<TcpState, Gone> {
        let id = self.sockets.connection_id(key);
        let socket = self.sockets.connection_mut(id).ok_or(Gone)?;
        let state = socket.connection.state();
        let disposition = socket.connection.kill(&mut self.world.cx(now));
        self.settle(now, id, disposition);
        Ok(state)
    }

    fn end_request(&mut self, now: Instant, key: SocketKey) {
        let Some(pending) = self.sockets.half_open_mut(key).map(|found| *found.pending) else { return };
        if !self.end_undecided(now, pending, SocketError::ConnectionAborted) {
            self.end_half_open(key, SocketError::ConnectionAborted);
        }
    }
}
