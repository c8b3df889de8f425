//! Every TCP socket except listeners: where they are kept, and the three ways to find one.
//!
//! Owns:    the stores (connections boxed; half-open ones and mini sockets packed, one store a family), the table by
//!          4-tuple, the table by cookie, and everybody's deadline.
//! Rules:   all O(1). What a socket does is `tcp`'s; what follows from it is `ingress`'s, `settle`'s and `pending`'s.
//!          Memory, table slot and deadline included: a mini socket over IPv4 at most 128 bytes, a half-open one too.

use core::hash::Hasher;

use crate::id::{ConnectionId, FourTuple, ListenerId};
use crate::rng::{HashKey, Rng};
use crate::stack::Readiness;
use crate::stack::deadlines::Deadlines;
use crate::stack::demux::{Demux, SocketKey, SocketKind};
use crate::stack::ports::Use;
use crate::stack::saved_syns::SavedSyns;
use crate::stack::slab::{Arena, Slab};
use crate::stack::tuple::{Packed, TupleV4, TupleV6};
use crate::tcp::connection::Connection;
use crate::tcp::half_open::HalfOpen;
use crate::tcp::time_wait::TimeWait;
use crate::time::Instant;

/// Who holds a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holder {
    /// An application, by its id.
    App,
    /// A listener, until `accept`.
    AcceptQueue(ListenerId),
    /// Nobody: an orphan, or about to be forgotten.
    Nobody,
}

/// A connection and what the stack remembers about it.
#[derive(Debug)]
pub(crate) struct ConnectionSocket {
    pub(crate) connection: Box<Connection>,
    pub(crate) holder: Holder,
    /// Became true and was not told yet.
    pub(crate) ready: Readiness,
    /// On the list of events.
    pub(crate) has_event: bool,
    /// On the list of those who owe.
    pub(crate) owes: bool,
    /// In the table by 4-tuple; not any more in CLOSE.
    pub(crate) in_table: bool,
    /// How it uses its local port, for as long as it does.
    pub(crate) port: Use,
    /// Bytes in its queues, as counted in the stack's sum.
    pub(crate) charged: u64,
}

/// A half-open connection and its place in the world.
#[derive(Debug)]
pub(crate) struct HalfOpenSocket<T> {
    pub(crate) half_open: HalfOpen,
    pub(crate) cookie: u64,
    pub(crate) listener: ListenerId,
    /// Place of its pending entry, or [`NOT_PENDING`].
    pub(crate) pending: u32,
    pub(crate) tuple: T,
}

/// A half-open connection of an ordinary listener.
pub(crate) const NOT_PENDING: u32 = u32::MAX;

/// A mini socket and its place in the world.
#[derive(Debug)]
pub(crate) struct TimeWaitSocket<T> {
    pub(crate) mini: TimeWait,
    pub(crate) cookie: u64,
    pub(crate) tuple: T,
    pub(crate) marks: Marks,
}

/// What a mini socket keeps of its connection's options, and whether a pending SYN stands in its place.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Marks {
    pub(crate) reuseaddr: bool,
    pub(crate) reuseport: bool,
    /// The connection's source port was chosen by its application.
    pub(crate) bound: bool,
    /// Out of the table while a SYN for the pair waits for a decision.
    pub(crate) displaced: bool,
}

impl Marks {
    pub(crate) const fn port(self) -> Use {
        Use { reuseaddr: self.reuseaddr, bound: self.bound }
    }
}

/// A half-open connection of either family, found.
#[derive(Debug)]
pub(crate) struct HalfOpenMut<'a> {
    pub(crate) half_open: &'a mut HalfOpen,
    pub(crate) cookie: u64,
    pub(crate) listener: ListenerId,
    pub(crate) pending: &'a mut u32,
    pub(crate) tuple: FourTuple,
}

/// A mini socket of either family, found.
#[derive(Debug)]
pub(crate) struct TimeWaitMut<'a> {
    pub(crate) mini: &'a mut TimeWait,
    pub(crate) cookie: u64,
    pub(crate) marks: &'a mut Marks,
}

/// The stores alone, so that a growing table can ask them while it is being changed.
#[derive(Debug)]
struct Stores {
    connections: Arena<ConnectionSocket>,
    half_open_v4: Slab<HalfOpenSocket<TupleV4>>,
    half_open_v6: Slab<HalfOpenSocket<TupleV6>>,
    time_wait_v4: Slab<TimeWaitSocket<TupleV4>>,
    time_wait_v6: Slab<TimeWaitSocket<TupleV6>>,
}

impl Stores {
    #[inline]
    fn tuple(&self, key: SocketKey) -> Option<Packed> {
        let index = key.index();
        match key.kind() {
            SocketKind::Connection => Packed::new(self.connections.at(index)?.connection.tuple()),
            SocketKind::HalfOpenV4 => Some(Packed::V4(self.half_open_v4.get(index)?.tuple)),
            SocketKind::HalfOpenV6 => Some(Packed::V6(self.half_open_v6.get(index)?.tuple)),
            SocketKind::TimeWaitV4 => Some(Packed::V4(self.time_wait_v4.get(index)?.tuple)),
            SocketKind::TimeWaitV6 => Some(Packed::V6(self.time_wait_v6.get(index)?.tuple)),
        }
    }

    fn cookie(&self, key: SocketKey) -> Option<u64> {
        let index = key.index();
        match key.kind() {
            SocketKind::Connection => Some(self.connections.at(index)?.connection.cookie()),
            SocketKind::HalfOpenV4 => Some(self.half_open_v4.get(index)?.cookie),
            SocketKind::HalfOpenV6 => Some(self.half_open_v6.get(index)?.cookie),
            SocketKind::TimeWaitV4 => Some(self.time_wait_v4.get(index)?.cookie),
            SocketKind::TimeWaitV6 => Some(self.time_wait_v6.get(index)?.cookie),
        }
    }
}

/// All TCP sockets but listeners.
#[derive(Debug)]
pub(crate) struct Sockets {
    stores: Stores,
    table: Demux,
    /// Connections and mini sockets by cookie; half-open ones are few and are searched.
    by_cookie: Demux,
    secret: HashKey,
    pub(crate) deadlines: Deadlines,
    /// Of half-open connections and connections, by cookie.
    pub(crate) saved_syns: SavedSyns,
    next_cookie: u64,
}

impl Sockets {
    pub(crate) fn new(rng: &mut Rng, now: Instant) -> Self {
        let secret = rng.key();
        Self {
            stores: Stores {
                connections: Arena::new(),
                half_open_v4: Slab::new(),
                half_open_v6: Slab::new(),
                time_wait_v4: Slab::new(),
                time_wait_v6: Slab::new(),
            },
            table: Demux::default(),
            by_cookie: Demux::default(),
            secret,
            deadlines: Deadlines::new(now),
            saved_syns: SavedSyns::new(secret),
            next_cookie: 0,
        }
    }

    /// A name for a new connection, never given twice.
    pub(crate) fn new_cookie(&mut self) -> u64 {
        self.next_cookie += 1;
        self.next_cookie
    }

    /// The pair of a socket.
    pub(crate) fn tuple(&self, key: SocketKey) -> Option<FourTuple> {
        self.stores.tuple(key).map(|packed| match packed {
            Packed::V4(tuple) => tuple.unpack(),
            Packed::V6(tuple) => tuple.unpack(),
        })
    }

    /// The table's hash of a pair; also chooses among listeners that share a port.
    pub(crate) fn hash(&self, tuple: &Packed) -> u64 {
        tuple.hash(&self.secret)
    }

    #[inline]
    pub(crate) fn find(&self, tuple: &Packed) -> Option<SocketKey> {
        self.table.find(self.hash(tuple), |key| self.stores.tuple(*key) == Some(*tuple))
    }

    /// The connection or mini socket with this cookie, or a half-open one.
    pub(crate) fn find_cookie(&self, cookie: u64) -> Option<SocketKey> {
        let is_it = |key: &SocketKey| self.stores.cookie(*key) == Some(cookie);
        self.by_cookie.find(self.cookie_hash(cookie), is_it).or_else(|| self.half_open_keys().find(is_it))
    }

    fn cookie_hash(&self, cookie: u64) -> u64 {
        let mut hasher = self.secret.table_hasher();
        hasher.write_u64(cookie);
        hasher.finish()
    }

    fn add_to_table(&mut self, tuple: &Packed, key: SocketKey) {
        let hash = self.hash(tuple);
        let Self { stores, table, secret, .. } = self;
        table.insert(hash, key, |key| stores.tuple(*key).map_or(0, |tuple| tuple.hash(secret)));
    }

    fn add_to_cookies(&mut self, cookie: u64, key: SocketKey) {
        let hash = self.cookie_hash(cookie);
        let Self { stores, by_cookie, secret, .. } = self;
        by_cookie.insert(hash, key, |key| {
            let mut hasher = secret.table_hasher();
            hasher.write_u64(stores.cookie(*key).unwrap_or(0));
            hasher.finish()
        });
    }

    // ---- connections

    pub(crate) fn connection_count(&self) -> usize {
        self.stores.connections.len()
    }

    /// Keeps a new connection, in the table and by cookie.
    pub(crate) fn add_connection(
        &mut self,
        connection: Box<Connection>,
        holder: Holder,
        port: Use,
    ) -> ConnectionId {
        let (tuple, cookie) = (Packed::new(connection.tuple()), connection.cookie());
        let (index, generation) = self.stores.connections.insert(ConnectionSocket {
            connection,
            holder,
            ready: Readiness::default(),
            has_event: false,
            owes: false,
            in_table: true,
            port,
            charged: 0,
        });
        let key = SocketKey::new(SocketKind::Connection, index);
        self.add_to_table(
            &tuple.expect("both ends are of one family: connect and the parser see to it"),
            key,
        );
        self.add_to_cookies(cookie, key);
        ConnectionId { index, generation }
    }

    #[inline]
    pub(crate) fn connection(&self, id: ConnectionId) -> Option<&ConnectionSocket> {
        self.stores.connections.get(id.index, id.generation)
    }

    #[inline]
    pub(crate) fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut ConnectionSocket> {
        self.stores.connections.get_mut(id.index, id.generation)
    }

    /// The id of the connection a key of that kind points to.
    #[inline]
    pub(crate) fn connection_id(&self, key: SocketKey) -> ConnectionId {
        debug_assert_eq!(key.kind(), SocketKind::Connection);
        ConnectionId { index: key.index(), generation: self.stores.connections.generation(key.index()) }
    }

    /// Takes a connection out of both tables and forgets its deadline; it stays in its store.
    pub(crate) fn unhash_connection(&mut self, id: ConnectionId) {
        let Some(socket) = self.stores.connections.get_mut(id.index, id.generation) else { return };
        if !core::mem::replace(&mut socket.in_table, false) {
            return;
        }
        let (tuple, cookie) = (*socket.connection.tuple(), socket.connection.cookie());
        let key = SocketKey::new(SocketKind::Connection, id.index);
        if let Some(packed) = Packed::new(&tuple) {
            self.table.remove(self.hash(&packed), key);
        }
        self.by_cookie.remove(self.cookie_hash(cookie), key);
        self.deadlines.remove(key);
    }

    /// Forgets a connection.
    pub(crate) fn remove_connection(&mut self, id: ConnectionId) -> Option<ConnectionSocket> {
        self.unhash_connection(id);
        let socket = self.stores.connections.remove(id.index, id.generation)?;
        self.saved_syns.forget(socket.connection.cookie());
        Some(socket)
    }

    pub(crate) fn connections(&self) -> impl Iterator<Item = (ConnectionId, &ConnectionSocket)> {
        self.stores
            .connections
            .iter()
            .map(|(index, generation, socket)| (ConnectionId { index, generation }, socket))
    }

    // ---- half-open ones

    pub(crate) fn half_open_count(&self) -> usize {
        self.stores.half_open_v4.len() + self.stores.half_open_v6.len()
    }

    pub(crate) fn add_half_open(
        &mut self,
        tuple: Packed,
        half_open: HalfOpen,
        cookie: u64,
        listener: ListenerId,
        pending: u32,
    ) -> SocketKey {
        let key = match tuple {
            Packed::V4(tuple) => SocketKey::new(
                SocketKind::HalfOpenV4,
                self.stores.half_open_v4.insert(HalfOpenSocket {
                    half_open,
                    cookie,
                    listener,
                    pending,
                    tuple,
                }),
            ),
            Packed::V6(tuple) => SocketKey::new(
                SocketKind::HalfOpenV6,
                self.stores.half_open_v6.insert(HalfOpenSocket {
                    half_open,
                    cookie,
                    listener,
                    pending,
                    tuple,
                }),
            ),
        };
        self.add_to_table(&tuple, key);
        key
    }

    pub(crate) fn half_open_mut(&mut self, key: SocketKey) -> Option<HalfOpenMut<'_>> {
        fn open<T>(socket: &mut HalfOpenSocket<T>, tuple: FourTuple) -> HalfOpenMut<'_> {
            let HalfOpenSocket { half_open, cookie, listener, pending, tuple: _ } = socket;
            HalfOpenMut { half_open, cookie: *cookie, listener: *listener, pending, tuple }
        }
        match key.kind() {
            SocketKind::HalfOpenV4 => {
                let socket = self.stores.half_open_v4.get_mut(key.index())?;
                let tuple = socket.tuple.unpack();
                Some(open(socket, tuple))
            }
            SocketKind::HalfOpenV6 => {
                let socket = self.stores.half_open_v6.get_mut(key.index())?;
                let tuple = socket.tuple.unpack();
                Some(open(socket, tuple))
            }
            _ => None,
        }
    }

    /// Forgets a half-open connection. Gives it back with its listener.
    pub(crate) fn remove_half_open(&mut self, key: SocketKey) -> Option<(HalfOpen, ListenerId)> {
        let cookie = self.stores.cookie(key)?;
        self.saved_syns.forget(cookie);
        self.finish_half_open(key)
    }

    /// The same for one that becomes a connection with the same cookie: out of the table, deadline and store.
    pub(crate) fn finish_half_open(&mut self, key: SocketKey) -> Option<(HalfOpen, ListenerId)> {
        let packed = self.stores.tuple(key)?;
        self.table.remove(self.hash(&packed), key);
        self.deadlines.remove(key);
        match key.kind() {
            SocketKind::HalfOpenV4 => {
                self.stores.half_open_v4.remove(key.index()).map(|s| (s.half_open, s.listener))
            }
            SocketKind::HalfOpenV6 => {
                self.stores.half_open_v6.remove(key.index()).map(|s| (s.half_open, s.listener))
            }
            _ => None,
        }
    }

    fn half_open_keys(&self) -> impl Iterator<Item = SocketKey> + '_ {
        let v4 = self.stores.half_open_v4.iter().map(|(i, _)| SocketKey::new(SocketKind::HalfOpenV4, i));
        v4.chain(self.stores.half_open_v6.iter().map(|(i, _)| SocketKey::new(SocketKind::HalfOpenV6, i)))
    }

    /// Half-open connections: pair, cookie, the thing itself; IPv4 first.
    pub(crate) fn half_opens(&self) -> impl Iterator<Item = (FourTuple, u64, &HalfOpen)> {
        let v4 = self.stores.half_open_v4.iter().map(|(_, s)| (s.tuple.unpack(), s.cookie, &s.half_open));
        v4.chain(self.stores.half_open_v6.iter().map(|(_, s)| (s.tuple.unpack(), s.cookie, &s.half_open)))
    }

    // ---- mini sockets

    pub(crate) fn time_wait_count(&self) -> usize {
        self.stores.time_wait_v4.len() + self.stores.time_wait_v6.len()
    }

    /// Keeps a mini socket, in both tables and with its deadline. The connection before it was unhashed.
    pub(crate) fn add_time_wait(
        &mut self,
        tuple: &FourTuple,
        mini: TimeWait,
        cookie: u64,
        marks: Marks,
    ) -> Option<SocketKey> {
        let packed = Packed::new(tuple)?;
        let expires = mini.expires;
        let key = match packed {
            Packed::V4(tuple) => SocketKey::new(
                SocketKind::TimeWaitV4,
                self.stores.time_wait_v4.insert(TimeWaitSocket { mini, cookie, tuple, marks }),
            ),
            Packed::V6(tuple) => SocketKey::new(
                SocketKind::TimeWaitV6,
                self.stores.time_wait_v6.insert(TimeWaitSocket { mini, cookie, tuple, marks }),
            ),
        };
        self.add_to_table(&packed, key);
        self.add_to_cookies(cookie, key);
        self.deadlines.file(key, expires);
        Some(key)
    }

    pub(crate) fn time_wait_mut(&mut self, key: SocketKey) -> Option<TimeWaitMut<'_>> {
        fn open<T>(socket: &mut TimeWaitSocket<T>) -> TimeWaitMut<'_> {
            let TimeWaitSocket { mini, cookie, tuple: _, marks } = socket;
            TimeWaitMut { mini, cookie: *cookie, marks }
        }
        match key.kind() {
            SocketKind::TimeWaitV4 => Some(open(self.stores.time_wait_v4.get_mut(key.index())?)),
            SocketKind::TimeWaitV6 => Some(open(self.stores.time_wait_v6.get_mut(key.index())?)),
            _ => None,
        }
    }

    /// Forgets a mini socket. Gives back its pair and marks.
    pub(crate) fn remove_time_wait(&mut self, key: SocketKey) -> Option<(FourTuple, Marks)> {
        let (packed, cookie) = (self.stores.tuple(key)?, self.stores.cookie(key)?);
        self.table.remove(self.hash(&packed), key); // not there while displaced
        self.by_cookie.remove(self.cookie_hash(cookie), key);
        self.deadlines.remove(key);
        match key.kind() {
            SocketKind::TimeWaitV4 => {
                self.stores.time_wait_v4.remove(key.index()).map(|s| (s.tuple.unpack(), s.marks))
            }
            SocketKind::TimeWaitV6 => {
                self.stores.time_wait_v6.remove(key.index()).map(|s| (s.tuple.unpack(), s.marks))
            }
            _ => None,
        }
    }

    /// Lets a pending SYN stand where this mini socket is: it keeps its store and its deadline, not its place in the table.
    pub(crate) fn displace_time_wait(&mut self, key: SocketKey) {
        let Some(packed) = self.stores.tuple(key) else { return };
        self.table.remove(self.hash(&packed), key);
        if let Some(socket) = self.time_wait_mut(key) {
            socket.marks.displaced = true;
        }
    }

    /// Puts a displaced mini socket back.
    pub(crate) fn restore_time_wait(&mut self, key: SocketKey) {
        let Some(packed) = self.stores.tuple(key) else { return };
        if let Some(socket) = self.time_wait_mut(key) {
            socket.marks.displaced = false;
            let expires = socket.mini.expires;
            self.add_to_table(&packed, key);
            self.deadlines.file(key, expires);
        }
    }

    /// Mini sockets: pair, cookie, the thing itself, its marks; IPv4 first.
    pub(crate) fn time_waits(&self) -> impl Iterator<Item = (FourTuple, u64, &TimeWait, Marks)> {
        let v4 = self.stores.time_wait_v4.iter().map(|(_, s)| (s.tuple.unpack(), s.cookie, &s.mini, s.marks));
        v4.chain(self.stores.time_wait_v6.iter().map(|(_, s)| (s.tuple.unpack(), s.cookie, &s.mini, s.marks)))
    }

    /// True when nothing is left anywhere: stores, tables and wheel.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.connection_count() + self.half_open_count() + self.time_wait_count() == 0
            && self.table.len() + self.by_cookie.len() == 0
            && self.deadlines.next().is_none()
            && self.saved_syns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table slot: 4 bytes and a control byte, at the table's load of 7/8 down to 7/16 right after it grew.
    const TABLE_SLOT: usize = 8;
    /// An entry of the deadline wheel.
    const DEADLINE: usize = 16;

    #[test]
    fn a_mini_socket_takes_at_most_128_bytes_all_in() {
        let record = size_of::<Option<TimeWaitSocket<TupleV4>>>();
        // Found by pair and by cookie: two table slots.
        assert!(record + 2 * TABLE_SLOT + DEADLINE <= 128, "record {record} bytes");
    }

    #[test]
    fn a_half_open_connection_takes_at_most_128_bytes_all_in() {
        let record = size_of::<Option<HalfOpenSocket<TupleV4>>>();
        assert!(record + TABLE_SLOT + DEADLINE <= 128, "record {record} bytes");
    }

    #[test]
    fn an_idle_connection_takes_at_most_1300_bytes() {
        let record = size_of::<Option<ConnectionSocket>>() + size_of::<Connection>();
        // Found by pair and by cookie; its generation; its options are shared with its listener's.
        let all = record + 2 * TABLE_SLOT + DEADLINE + size_of::<u32>();
        // The aim is 1,024.
        assert!(all <= 1300, "{all} bytes, of these the connection {}", size_of::<Connection>());
    }
}
