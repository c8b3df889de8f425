//! What every connection and flow of one run shares.
//!
//! Owns:    [`Session`]: where addresses lead, what is allowed, who is whose, what is written down, when to stop.
//! Not here: connections (`forward`), flows (`udp`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use lastack::Net;
use tokio::sync::{Notify, Semaphore, watch};

use crate::aborts::{AbortCounters, Match};
use crate::addresses::{Addresses, GUEST};
use crate::beside::Beside;
use crate::dns::Names;
use crate::host::LARGE_READ;
use crate::inject::Injections;
use crate::journal::{ClosedBy, Direction, Entry};
pub(crate) use crate::limits::Limit;
use crate::limits::Limits;
use crate::owner::{Owner, Owners, Protocol};
use crate::pool::Pool;
use crate::publish::{Counted, Servers};
use crate::relay::Policy;
use crate::rules::{Rules, Verdict};
use crate::sandbox::DeviceKind;

/// Connections that are a crowd: of 0, 8 and 24, 8 gave the most connections a second to 32 clients that connect again and again.
const CROWD: usize = 8;

/// How a gateway behaves.
#[derive(Debug)]
pub struct GatewayConfig {
    /// Where addresses lead.
    pub addresses: Addresses,
    /// What is allowed.
    pub rules: Rules,
    /// Names that need not be looked up to be known: those of `/etc/hosts`. Default none.
    pub names: Arc<Names>,
    /// Names that may be looked up at a time; more questions are dropped. Default 1024.
    pub max_lookups: usize,
    /// How connections are relayed.
    pub policy: Policy,
    /// SYNs that may wait for the host's answer; more are dropped and come again. Default 4096.
    pub max_pending: u32,
    /// Connections at a time; more are refused. Default: as many as the host and the stack have room for.
    pub max_connections: usize,
    /// UDP flows at a time; more are dropped. Default 4096.
    pub max_flows: usize,
    /// Silence that ends a UDP flow. Default 60 s.
    pub udp_idle: Duration,
    /// What is forced on connections. Default: nothing.
    pub injections: Injections,
    /// The program's namespace, where there is one.
    pub namespace: Option<Namespace>,
}

/// What tells owners and reasons: the inside of a sandbox.
#[derive(Debug)]
pub struct Namespace {
    /// A sock_diag socket of the namespace.
    pub sock_diag: OwnedFd,
    /// A process that lives in it as long as anything; the program's processes descend from it.
    pub helper_pid: u32,
    /// The program's link.
    pub device: DeviceKind,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            addresses: Addresses { host_loopback: true, resolvers: Vec::new() },
            rules: Rules::default(),
            names: Arc::default(),
            max_lookups: 1024,
            policy: Policy::default(),
            max_pending: 4096,
            max_connections: usize::MAX,
            max_flows: 4096,
            udp_idle: Duration::from_secs(60),
            injections: Injections::default(),
            namespace: None,
        }
    }
}

/// What is told while it happens.
#[derive(Clone, PartialEq, Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every note is an ending")]
pub enum Note {
    /// A connection was established.
    Opened(Opened),
    /// A connection or flow has ended.
    Ended(Entry),
}

/// A connection that was just established.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Its number in this run.
    pub id: u64,
    /// Who opened it.
    pub direction: Direction,
    /// Whose it is, where that could be told.
    pub owner: Option<Owner>,
    /// The program's end.
    pub local: SocketAddr,
    /// The other end as the program used it.
    pub remote: SocketAddr,
    /// Where it really went, or came from.
    pub host_remote: SocketAddr,
    /// From SYN to established, microseconds; `None`: nobody saw the SYN.
    pub handshake_us: Option<u64>,
}

/// Is told every [`Note`]. Must not wait: it runs where the packets do.
pub type Listener = dyn Fn(Note) + Send + Sync;

/// How far a run has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    /// The program runs.
    Running,
    /// No process is left: what is on its way still goes on.
    Ownerless,
    /// Everything ends now.
    Over,
}

/// What connections and flows share.
pub(crate) struct Session {
    pub(crate) net: Net,
    pub(crate) addresses: Addresses,
    pub(crate) rules: Rules,
    pub(crate) names: Arc<Names>,
    /// One permit a lookup that is under way.
    pub(crate) lookups: Arc<Semaphore>,
    pub(crate) policy: Policy,
    pub(crate) pool: Arc<Pool>,
    max_connections: usize,
    pub(crate) max_flows: usize,
    pub(crate) udp_idle: Duration,
    limits: Limits,
    pub(crate) injections: Injections,
    phase: watch::Sender<Phase>,
    /// Tells [`Phase::Over`] to the many that wait for nothing else: a waiter of this is smaller than one of `phase`.
    over: Notify,
    pub(crate) device: Option<DeviceKind>,
    owners: Option<Mutex<Owners>>,
    servers: Mutex<Servers>,
    inside_aborts: Option<Mutex<AbortCounters>>,
    outside_aborts: Mutex<AbortCounters>,
    listener: Box<Listener>,
    /// Where this machine has a second processor.
    beside: Option<Beside>,
    next_id: AtomicU64,
    open: AtomicUsize,
    idle: Notify,
}

impl Session {
    pub(crate) fn new(net: Net, config: GatewayConfig, listener: Box<Listener>) -> Self {
        let GatewayConfig {
            addresses,
            rules,
            names,
            max_lookups,
            policy,
            max_pending: _,
            max_connections,
            max_flows,
            udp_idle,
            injections,
            namespace,
        } = config;
        let inside_aborts = namespace.as_ref().map(|inside| AbortCounters::of_process(inside.helper_pid));
        Self {
            net,
            addresses,
            rules,
            names,
            lookups: Arc::new(Semaphore::new(max_lookups)),
            policy,
            pool: Pool::new(LARGE_READ),
            max_connections,
            max_flows,
            udp_idle,
            limits: Limits::default(),
            injections,
            phase: watch::Sender::new(Phase::Running),
            over: Notify::new(),
            device: namespace.as_ref().map(|inside| inside.device),
            owners: namespace.map(|inside| Mutex::new(owners(inside))),
            servers: Mutex::default(),
            inside_aborts: inside_aborts.map(Mutex::new),
            outside_aborts: Mutex::new(AbortCounters::of_process(std::process::id())),
            listener,
            beside: thread::available_parallelism()
                .is_ok_and(|processors| processors.get() > 1)
                .then(Beside::start)
                .and_then(Result::ok),
            next_id: AtomicU64::new(1),
            open: AtomicUsize::new(0),
            idle: Notify::new(),
        }
    }

    /// May the program go to `remote`, by its address or a name that was answered with it?
    pub(crate) fn verdict(&self, remote: SocketAddr) -> Verdict {
        if self.rules.is_empty() {
            return Verdict::Allow;
        }
        self.rules.verdict(remote, &self.names.of(remote.ip()))
    }

    /// The next number of a connection or flow.
    pub(crate) fn number(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The thread beside this one, when so many connections are open that it is worth the way.
    pub(crate) fn beside(&self) -> Option<&Beside> {
        self.beside.as_ref().filter(|_| self.open() >= CROWD)
    }

    pub(crate) fn tell(&self, note: Note) {
        (self.listener)(note);
    }

    pub(crate) fn owner(&self, protocol: Protocol, local: SocketAddr, remote: SocketAddr) -> Option<Owner> {
        lock(self.owners.as_ref()?).owner(self.net.now(), protocol, local, remote)
    }

    /// Who serves `port` of the program's address, if anybody is known to.
    pub(crate) fn server(&self, protocol: Protocol, port: u16) -> Option<Owner> {
        let now = self.net.now();
        if let Some(known) = lock(&self.servers).get(now, protocol, port) {
            return Some(known);
        }
        let found =
            GUEST.into_iter().find_map(|(ip, _)| self.listener(protocol, SocketAddr::new(ip, port)))?;
        lock(&self.servers).put(now, protocol, port, found.clone());
        Some(found)
    }

    /// Who of the program's listens on `port` of its own loopback, if anybody.
    pub(crate) fn listens_on_loopback(&self, port: u16) -> Option<Owner> {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        loopback.into_iter().find_map(|ip| self.listener(Protocol::Tcp, SocketAddr::new(ip, port)))
    }

    /// The owner of a socket that takes what nobody else has: one that listens, or is not connected.
    fn listener(&self, protocol: Protocol, at: SocketAddr) -> Option<Owner> {
        let nobody: IpAddr =
            if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        self.owner(protocol, at, SocketAddr::new(nobody, 0))
    }

    /// False: the program has no such socket (any more). True where that cannot be told.
    pub(crate) fn has_socket(&self, protocol: Protocol, local: SocketAddr, remote: SocketAddr) -> bool {
        self.owners.as_ref().is_none_or(|owners| lock(owners).has_socket(protocol, local, remote))
    }

    /// Whether somebody takes what comes to the program's `local` from `remote`; `None` where that cannot be told, or
    /// would cost more look-ups than a second has.
    pub(crate) fn takes(&self, protocol: Protocol, local: SocketAddr, remote: SocketAddr) -> Option<bool> {
        lock(self.owners.as_ref()?).takes(self.net.now(), protocol, local, remote)
    }

    /// What the kernel that sent a RST counted for it; `remote` is where the connection went.
    pub(crate) fn claim_abort(&self, by: ClosedBy, remote: SocketAddr) -> Option<Match> {
        let now = self.net.now();
        match by {
            ClosedBy::Program => lock(self.inside_aborts.as_ref()?).claim(now),
            // Only a remote end on this host has counters we can read.
            _ if remote.ip().is_loopback() => match lock(&self.outside_aborts).claim(now) {
                Some(Match::Single(abort)) => Some(Match::Single(abort)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Forgets what the host's counters did: it belongs to somebody else's connections.
    pub(crate) fn refresh_aborts(&self) {
        lock(&self.outside_aborts).refresh();
    }

    /// False: there is one connection too many, which is written down.
    pub(crate) fn has_room(&self) -> bool {
        let has_room = self.open() <= self.max_connections;
        if !has_room {
            self.limit_bit(Limit::Connections);
        }
        has_room
    }

    /// A limit has turned something away.
    pub(crate) fn limit_bit(&self, limit: Limit) {
        self.limits.bit(limit, self.net.now());
    }

    /// Writes down which limits were reached.
    pub(crate) fn tell_limits(&self) {
        self.limits.add(Limit::PendingConnections, self.net.counters().pending_overflow, None);
        for reached in self.limits.take() {
            self.tell(Note::Ended(Entry::Limit(reached)));
        }
    }

    /// Connections that are open or being made.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until no connection is open or being made.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.open() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Goes on to `phase`; never back.
    pub(crate) fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|known| {
            let is_later = *known < phase;
            *known = phase.max(*known);
            is_later
        });
        if phase == Phase::Over {
            self.over.notify_waiters();
        }
    }

    /// Resolves when everything is to end. Every connection waits for it: this future is small.
    pub(crate) async fn over(&self) {
        // Before the look, so that no end falls in between.
        let over = self.over.notified();
        if *self.phase.borrow() != Phase::Over {
            over.await;
        }
    }

    /// No process is left that could wait for a connection.
    pub(crate) fn is_ownerless(&self) -> bool {
        *self.phase.borrow() >= Phase::Ownerless
    }

    /// Resolves when no process is left that could wait for a connection.
    pub(crate) async fn ownerless(&self) {
        // No error: the sender is ours.
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= Phase::Ownerless).await;
    }

    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn count_open(self: &Arc<Self>) -> OpenGuard {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenGuard { session: self.clone(), counted: None }
    }

    /// The same for one that came by a published port.
    pub(crate) fn count_published(self: &Arc<Self>, counted: Counted) -> OpenGuard {
        let mut guard = self.count_open();
        guard.counted = Some(counted);
        guard
    }
}

fn owners(inside: Namespace) -> Owners {
    // The socket's own namespace has the interface.
    let link = rustix::net::netdevice::name_to_index(&inside.sock_diag, inside.device.interface());
    Owners::new(inside.sock_diag, inside.helper_pid, link.unwrap_or(0))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that counts as open.
pub(crate) struct OpenGuard {
    session: Arc<Session>,
    /// It is open at its port too.
    counted: Option<Counted>,
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        drop(self.counted.take());
        if self.session.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.session.idle.notify_waiters();
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("addresses", &self.addresses)
            .field("rules", &self.rules)
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}
