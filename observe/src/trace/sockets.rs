//! What tracepoints say, kept for each socket until its ending comes.
//!
//! Owns:    [`BySocket`]: which socket an event is about, and what is known of that socket.
//! Input:   [`Event`]s in order of time, those of [`Event::DESTROYED`] among them.
//! Output:  what was kept, by the cookie that an ending carries (`source::kernel::Endings`).
//! Rules:   tracepoints see every network namespace and name none: four numbers are not one connection. The kernel's own name
//!          of a socket is, until it is freed; its cookie is for ever, and is told when the socket is destroyed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;

use lastack_core::tcp::state::TcpState;

use super::Event;

/// Both ends as people know them: an IPv6 socket may carry IPv4.
pub type Pair = (SocketAddr, SocketAddr);

/// Both ends of a connection, IPv4 as IPv4 whatever carries it.
pub fn pair(local: SocketAddr, remote: SocketAddr) -> Pair {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    (plain(local), plain(remote))
}

/// Something for each socket that tracepoints have told of.
#[derive(Debug)]
pub struct BySocket<T> {
    most: usize,
    /// By the kernel's own name of the socket.
    sockets: HashMap<u64, Told<T>>,
    /// Which socket between these ends was heard of last: for an event that does not name its own.
    last: HashMap<Pair, u64>,
    /// The socket of a cookie.
    cookies: HashMap<u64, u64>,
    /// Of sockets that were destroyed and whose name another has: by cookie.
    freed: HashMap<u64, Told<T>>,
}

#[derive(Debug)]
struct Told<T> {
    at_ns: u64,
    pair: Option<Pair>,
    cookie: Option<u64>,
    is_destroyed: bool,
    value: T,
}

/// The socket that an event is about.
#[derive(Debug)]
pub struct Heard<'a, T> {
    /// Its name.
    pub socket: u64,
    /// What is kept for it.
    pub value: &'a mut T,
}

impl<T: Default> BySocket<T> {
    /// For `most` sockets at most; beyond, the older half is forgotten.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            sockets: HashMap::new(),
            last: HashMap::new(),
            cookies: HashMap::new(),
            freed: HashMap::new(),
        }
    }

    /// What is kept for the socket that `event` is about; `None`: it is about none, or about one of which nothing need
    /// be kept (a listener, a half-open or a waiting one).
    pub fn of(&mut self, event: &Event) -> Option<Heard<'_, T>> {
        let pair = event.local.zip(event.peer).map(|(local, peer)| pair(local, peer));
        let pair = pair.filter(|(local, peer)| local.port() != 0 && peer.port() != 0);
        let socket =
            event.socket.or_else(|| self.last.get(&pair.filter(|_| speaks_of_a_socket(event))?).copied())?;
        if event.name == Event::DESTROYED {
            if let Some(told) = self.sockets.get_mut(&socket) {
                told.is_destroyed = true;
            }
            self.name(socket, event.cookie);
            return None;
        }
        self.make_room();
        let is_anothers = || self.sockets.get(&socket).is_some_and(|told| told.is_destroyed);
        if is_first(event) || event.old_state.is_some() && is_anothers() {
            self.free(socket);
        }
        if let Entry::Vacant(place) = self.sockets.entry(socket) {
            if !is_full(event) {
                return None;
            }
            let value = T::default();
            place.insert(Told { at_ns: event.at_ns, pair: None, cookie: None, is_destroyed: false, value });
        }
        self.name(socket, event.cookie);
        let told = self.sockets.get_mut(&socket).expect("entered when it was not there");
        told.at_ns = event.at_ns;
        if let Some(pair) = pair {
            told.pair = Some(pair);
            self.last.insert(pair, socket);
        }
        Some(Heard { socket, value: &mut told.value })
    }

    /// Takes what is kept for the socket that ended under `cookie`.
    pub fn ended(&mut self, cookie: u64) -> Option<T> {
        if let Some(told) = self.freed.remove(&cookie) {
            return Some(told.value);
        }
        let socket = self.cookies.remove(&cookie)?;
        Some(self.remove(socket)?.value)
    }

    /// Takes what is kept for a socket that lives on; its cookie and its ends, if they were told.
    pub fn take(&mut self, socket: u64) -> Option<(Option<u64>, Option<Pair>, T)> {
        let Told { cookie, pair, value, .. } = self.remove(socket)?;
        Some((cookie, pair, value))
    }

    /// Takes what is kept for sockets that were destroyed before `at_ns` and whose ending nobody told.
    pub fn untold(&mut self, at_ns: u64) -> Vec<T> {
        let is_old = |told: &Told<T>| told.is_destroyed && told.at_ns < at_ns;
        let mut found: Vec<Told<T>> =
            self.freed.extract_if(|_, told| is_old(told)).map(|(_, told)| told).collect();
        found.extend(self.sockets.extract_if(|_, told| is_old(told)).map(|(_, told)| told));
        for told in &found {
            self.cookies.remove(&told.cookie.unwrap_or_default());
        }
        found.sort_unstable_by_key(|told| told.at_ns);
        found.into_iter().map(|told| told.value).collect()
    }

    fn name(&mut self, socket: u64, cookie: Option<u64>) {
        let (Some(cookie), Some(told)) = (cookie, self.sockets.get_mut(&socket)) else { return };
        told.cookie = Some(cookie);
        self.cookies.insert(cookie, socket);
    }

    /// The name `socket` is given to another.
    fn free(&mut self, socket: u64) {
        if let Some(told) = self.remove(socket)
            && let Some(cookie) = told.cookie.filter(|_| told.is_destroyed)
        {
            self.freed.insert(cookie, told);
        }
    }

    fn remove(&mut self, socket: u64) -> Option<Told<T>> {
        let told = self.sockets.remove(&socket)?;
        self.cookies.remove(&told.cookie.unwrap_or_default());
        if let Some(pair) = told.pair.filter(|pair| self.last.get(pair) == Some(&socket)) {
            self.last.remove(&pair);
        }
        Some(told)
    }

    fn make_room(&mut self) {
        if self.sockets.len() + self.freed.len() < self.most {
            return;
        }
        let mut times: Vec<u64> =
            self.sockets.values().chain(self.freed.values()).map(|told| told.at_ns).collect();
        times.sort_unstable();
        let middle = times[times.len() / 2];
        let Self { sockets, last, cookies, freed, .. } = self;
        sockets.retain(|_, told| told.at_ns > middle);
        freed.retain(|_, told| told.at_ns > middle);
        last.retain(|_, socket| sockets.contains_key(socket));
        cookies.retain(|_, socket| sockets.contains_key(socket));
    }
}

/// An error is always some socket's; a RST without one answered a segment that nobody was there for.
fn speaks_of_a_socket(event: &Event) -> bool {
    event.name != "tcp_send_reset"
}

/// A life begins: by a call, or by a child of a listener.
fn is_first(event: &Event) -> bool {
    event.old_state.is_some() && matches!(event.state, Some(TcpState::SynSent | TcpState::SynRecv))
}

/// The socket is one of its own: a RST may also be sent by a listener, or in TIME-WAIT.
fn is_full(event: &Event) -> bool {
    match event.name {
        "inet_sock_set_state" => true,
        "tcp_receive_reset" => event.socket.is_some(),
        _ => {
            event.socket.is_some()
                && !matches!(
                    event.state,
                    None | Some(TcpState::Listen | TcpState::TimeWait | TcpState::SynRecv)
                )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: (u16, u16) = (4000, 80);

    fn event(name: &'static str, socket: Option<u64>) -> Event {
        let at = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        Event { local: at(PORTS.0), peer: at(PORTS.1), socket, ..Event::new(1, name) }
    }

    fn enters(socket: u64, old: TcpState, new: TcpState) -> Event {
        Event { old_state: Some(old), state: Some(new), ..event("inet_sock_set_state", Some(socket)) }
    }

    fn dies(socket: u64, cookie: u64) -> Event {
        Event { cookie: Some(cookie), ..event(Event::DESTROYED, Some(socket)) }
    }

    /// Keeps the names of the events.
    fn take(all: &mut BySocket<Vec<&'static str>>, event: &Event) {
        if let Some(heard) = all.of(event) {
            heard.value.push(event.name);
        }
    }

    #[test]
    fn the_same_ends_in_two_namespaces_are_two_connections() {
        let mut all = BySocket::new(10);
        for socket in [1, 2] {
            take(&mut all, &enters(socket, TcpState::Close, TcpState::SynSent));
        }
        take(&mut all, &event("tcp_receive_reset", Some(1)));
        take(&mut all, &enters(1, TcpState::SynSent, TcpState::Close));
        take(&mut all, &event("inet_sk_error_report", None));
        take(&mut all, &dies(2, 72));
        take(&mut all, &dies(1, 71));
        assert_eq!(all.ended(72), Some(vec!["inet_sock_set_state"]));
        let first =
            ["inet_sock_set_state", "tcp_receive_reset", "inet_sock_set_state", "inet_sk_error_report"];
        assert_eq!(all.ended(71), Some(first.to_vec()));
        assert_eq!(all.ended(71), None);
    }

    #[test]
    fn a_name_that_is_given_to_another_is_another_s() {
        let mut all = BySocket::new(10);
        take(&mut all, &enters(1, TcpState::SynRecv, TcpState::Established));
        take(&mut all, &dies(1, 71));
        // Linux: tcp_v4_do_rcv() answers when the socket has been destroyed.
        take(&mut all, &Event { state: Some(TcpState::Close), ..event("tcp_send_reset", Some(1)) });
        take(&mut all, &enters(1, TcpState::SynRecv, TcpState::Established));
        take(&mut all, &event("tcp_receive_reset", Some(1)));
        assert_eq!(all.ended(71), Some(vec!["inet_sock_set_state", "tcp_send_reset"]));
        take(&mut all, &dies(1, 72));
        assert!(all.untold(1).is_empty(), "it has only just ended");
        assert_eq!(all.untold(2), [["inet_sock_set_state", "tcp_receive_reset"]]);
    }

    #[test]
    fn what_no_connection_said_is_kept_for_none() {
        let mut all: BySocket<Vec<&str>> = BySocket::new(10);
        let reset = |socket, state| Event { state, ..event("tcp_send_reset", socket) };
        assert!(all.of(&reset(None, None)).is_none());
        assert!(all.of(&reset(Some(1), Some(TcpState::Listen))).is_none());
        assert!(all.of(&event("inet_sk_error_report", None)).is_none());
    }

    #[test]
    fn of_too_many_the_older_half_is_forgotten() {
        let mut all: BySocket<Vec<&str>> = BySocket::new(8);
        for n in 0..9 {
            let begins = enters(n, TcpState::SynRecv, TcpState::Established);
            take(&mut all, &Event { at_ns: n, ..begins });
        }
        assert_eq!((all.sockets.len(), all.last.len()), (4, 1));
        assert!(all.take(0).is_none() && all.take(8).is_some());
    }
}
