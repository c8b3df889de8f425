//! `connect`: addresses, a source port, and perhaps a TIME-WAIT pair to take over.
//!
//! Rules:   specification 2.4, 2.6 and 4.7. Linux: `tcp_v4_connect`, `__inet_hash_connect`, `__inet_check_established`.
//! Not here: the SYN (`tcp::connection`).

use core::net::{IpAddr, SocketAddr};

use crate::error::ConnectError;
use crate::id::{ConnectionId, FourTuple};
use crate::stack::Stack;
use crate::stack::demux::SocketKey;
use crate::stack::ports::Use;
use crate::stack::sockets::{Holder, Sockets};
use crate::stack::tuple::Packed;
use crate::tcp::connection::{Connection, ConnectionSetup, Disposition};
use crate::tcp::context::Cx;
use crate::tcp::fast_open::CLIENT;
use crate::tcp::options::TcpOptions;
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// A pair that a new connection may have.
#[derive(Debug)]
enum Pair {
    Free,
    /// In TIME-WAIT, and may be taken over.
    TakeOver {
        time_wait: SocketKey,
        iss: SeqNum,
        ts_recent: u32,
    },
}

impl Stack {
    /// `fast`: Fast Open with this data, and whether more follows at once. How much of it was taken.
    pub(crate) fn connect_with(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        options: TcpOptions,
        fast: Option<(&[u8], bool)>,
    ) -> Result<(ConnectionId, usize), ConnectError> {
        if remote.port() == 0
            || remote.ip().is_unspecified()
            || remote.ip().is_multicast()
            || self.link.is_broadcast(remote.ip())
        {
            return Err(ConnectError::InvalidDestination);
        }
        if self.is_full() {
            return Err(ConnectError::LimitReached);
        }
        let source = self.source_address(remote.ip(), local)?;
        let asked_port = local.map_or(0, |local| local.port());
        let (tuple, pair) = if asked_port != 0 {
            self.bound_pair(now, SocketAddr::new(source, asked_port), remote, &options)?
        } else {
            self.chosen_pair(now, source, remote, options.local_port_range)?
        };
        let packed = Packed::new(&tuple).ok_or(ConnectError::InvalidDestination)?;
        let (iss, ts_recent) = match pair {
            Pair::Free => (self.isn.iss(&packed, now), 0),
            Pair::TakeOver { time_wait, iss, ts_recent } => {
                self.remove_time_wait(time_wait);
                self.world.counters.tw_recycled += 1;
                (iss, ts_recent)
            }
        };
        let setup = ConnectionSetup {
            tuple,
            cookie: self.sockets.new_cookie(),
            iss,
            ts_offset: self.isn.ts_offset(&packed, self.world.sysctl.tcp_timestamps),
            ts_recent,
            mtu: self.link.mtu_for(now, remote.ip()),
            gso_max_segs: self.link.gso_max_segs,
            gso_max_size: self.link.gso_max_size,
        };
        let port = Use { reuseaddr: options.reuseaddr, bound: asked_port != 0 };
        self.ports.acquire(tuple.local.port(), port);
        let mut cx = self.world.cx(now);
        let mut connection = Connection::connect(&setup, options, &mut cx);
        let taken = match fast {
            Some((data, more)) if cx.sysctl.tcp_fastopen & CLIENT != 0 => {
                connection.attempt_fast_open(data, more, &mut cx)
            }
            _ => 0,
        };
        let id = self.sockets.add_connection(Box::new(connection), Holder::App, port);
        self.settle(now, id, Disposition::Keep);
        Ok((id, taken))
    }

    pub(crate) fn may_send_syn_data(
        &self,
        now: Instant,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        options: &TcpOptions,
    ) -> bool {
        let Ok(source) = self.source_address(remote.ip(), local) else { return false };
        let (sysctl, metrics) = (&self.world.sysctl, &self.world.metrics);
        let tuple = FourTuple { local: SocketAddr::new(source, 0), remote };
        sysctl.tcp_fastopen & CLIENT != 0
            && !self.world.limits.fast_open_pause.holds(now, sysctl)
            && Connection::may_send_syn_data(options, &tuple, sysctl, metrics, now)
    }

    /// As many sockets as there may be.
    pub(crate) fn is_full(&self) -> bool {
        self.sockets.connection_count() + self.sockets.half_open_count() >= self.max_connections as usize
    }

    fn source_address(&self, remote: IpAddr, local: Option<SocketAddr>) -> Result<IpAddr, ConnectError> {
        match local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified()) {
            Some(ip) if ip.is_ipv4() != remote.is_ipv4() => Err(ConnectError::InvalidDestination),
            Some(ip) if !self.link.accepts(ip) => Err(ConnectError::AddrNotAvailable),
            Some(ip) => Ok(ip),
            None => self.link.source_for(remote).ok_or(ConnectError::NetworkUnreachable),
        }
    }

    /// The application chose the source port: first it is bound, then the pair must be free.
    fn bound_pair(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        options: &TcpOptions,
    ) -> Result<(FourTuple, Pair), ConnectError> {
        if self.bind_conflict(local, options) {
            return Err(ConnectError::AddrInUse);
        }
        let tuple = FourTuple { local, remote };
        let cx = self.world.cx(now);
        let pair = examine(&mut self.sockets, &tuple, true, &cx).ok_or(ConnectError::AddrNotAvailable)?;
        Ok((tuple, pair))
    }

    fn chosen_pair(
        &mut self,
        now: Instant,
        source: IpAddr,
        remote: SocketAddr,
        own_range: [u16; 2],
    ) -> Result<(FourTuple, Pair), ConnectError> {
        let Self { ports, sockets, world, .. } = self;
        let range = narrowed(world.sysctl.ip_local_port_range, own_range);
        let cx = world.cx(now);
        let pair_at = |port| FourTuple { local: SocketAddr::new(source, port), remote };
        ports
            .choose_for_connect(now, range, source, remote, |port| {
                examine(sockets, &pair_at(port), false, &cx)
            })
            .map(|(port, pair)| (pair_at(port), pair))
            .ok_or(ConnectError::AddrNotAvailable)
    }
}

/// Linux `inet_sk_get_local_port_range`: the socket's own bounds, where they lie inside.
fn narrowed([low, high]: [u16; 2], own: [u16; 2]) -> [u16; 2] {
    let bound = |port: u16, otherwise: u16| if (low..=high).contains(&port) { port } else { otherwise };
    [bound(own[0], low), bound(own[1], high)]
}

/// Linux `__inet_check_established`: the pair is free, or in a TIME-WAIT that may be taken over.
fn examine(sockets: &mut Sockets, tuple: &FourTuple, bound: bool, cx: &Cx<'_>) -> Option<Pair> {
    let Some(time_wait) = sockets.find(&Packed::new(tuple)?) else { return Some(Pair::Free) };
    let (iss, ts_recent) = sockets.time_wait_mut(time_wait)?.mini.reusable(tuple, bound, cx)?;
    Some(Pair::TakeOver { time_wait, iss, ts_recent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sockets_own_port_range_counts_only_inside_the_stacks() {
        let stack = [32_768, 60_999];
        assert_eq!(narrowed(stack, [0, 0]), stack);
        assert_eq!(narrowed(stack, [40_000, 40_010]), [40_000, 40_010]);
        assert_eq!(narrowed(stack, [1_000, 40_000]), [32_768, 40_000]);
        assert_eq!(narrowed(stack, [50_000, 61_000]), [50_000, 60_999]);
    }
}
