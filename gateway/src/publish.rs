//! Published ports: what comes to a port of the host reaches the program, from the address it came from.
//!
//! Owns:    [`Publisher`]: the ports that are published now; they may be changed at any time, from any thread.
//! Input:   connections and datagrams at the host's sockets.
//! Output:  connections from the stack to the program, from the client's own address; lines in the journal.
//! Rules:   the host's kernel has answered a client before the program is asked, so a refusal becomes a reset. The
//!          program must see whom it serves: a client keeps address and port; one of this host's loopback, which no
//!          kernel lets in from a link, appears as [`HOST`](crate::addresses::HOST). Rules for the way out do not
//!          apply: who publishes a port has allowed it.
//! Not here: an established connection (`carry`).

mod bind;
mod datagrams;
mod inward;
mod port;
mod servers;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

pub use bind::PublishError;
pub use port::{HostPort, Port, PortError};
pub(crate) use servers::Servers;

use crate::owner::{Owner, Protocol};
use crate::session::Session;
use crate::sys;
use crate::udp::Flows;
use datagrams::Desk;
use inward::Door;

/// Clients of one port that may wait for the program's answer; beyond, the host's own queue of connections fills, and then
/// its kernel lets SYNs wait.
const MAX_WAITING: usize = 1024;

/// The published ports of one run. Clones are the same ports.
#[derive(Clone, Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    session: Arc<Session>,
    flows: Arc<Flows>,
    runtime: Handle,
    ports: Mutex<Vec<Open>>,
}

/// A port that is open.
#[derive(Debug)]
struct Open {
    port: Port,
    places: Vec<SocketAddr>,
    counts: Arc<Counts>,
    tasks: Vec<JoinHandle<()>>,
}

/// What has come to one port.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    total: AtomicU64,
    open: AtomicU64,
}

/// Counts one client of a port as open until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Counts>);

impl Counts {
    /// One more has come.
    pub(crate) fn come(self: &Arc<Self>) -> Counted {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A published port as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// Which.
    pub port: Port,
    /// Where it is had on the host.
    pub places: Vec<SocketAddr>,
    /// Connections or flows that came by it and live.
    pub open: u64,
    /// How many came.
    pub total: u64,
    /// Who serves it inside; `None`: nobody now, or that cannot be told.
    pub server: Option<Owner>,
}

impl Publisher {
    /// Nothing is published yet. To be called in the runtime that is to serve.
    pub(crate) fn new(session: Arc<Session>, flows: Arc<Flows>) -> Self {
        let shared = Shared { session, flows, runtime: Handle::current(), ports: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Publishes `port`. From when this returns, clients are served.
    ///
    /// # Errors
    /// The host's port cannot be had.
    pub fn add(&self, port: Port) -> Result<Published, PublishError> {
        let Shared { session, runtime, .. } = &*self.shared;
        if session.is_ownerless() {
            return Err(PublishError::Ending);
        }
        let mut ports = self.ports();
        if let Some(known) = ports.iter().find(|known| known.port.host_port() == port.host_port()) {
            return Err(PublishError::Published(known.port));
        }
        let _entered = runtime.enter();
        let register = |(fd, at)| match sys::register(fd, Interest::READABLE) {
            Ok(socket) => Ok((socket, at)),
            Err(error) => Err(PublishError::Other(at, error)),
        };
        // All sockets of a port, or none: nobody is served before.
        let sockets = bind::bind(&port)?.into_iter().map(register).collect::<Result<Vec<_>, _>>()?;
        let places = sockets.iter().map(|(_, at)| *at).collect();
        let counts = Arc::<Counts>::default();
        let waiting = Arc::new(Semaphore::new(MAX_WAITING));
        let serve = |(socket, at)| runtime.spawn(self.serve(port, socket, at, &counts, &waiting));
        let tasks = sockets.into_iter().map(serve).collect();
        let open = Open { port, places, counts, tasks };
        let published = open.published(session);
        ports.push(open);
        Ok(published)
    }

    /// Serves who comes to `socket`, until nobody is left inside to answer.
    fn serve(
        &self,
        port: Port,
        socket: AsyncFd<OwnedFd>,
        place: SocketAddr,
        counts: &Arc<Counts>,
        waiting: &Arc<Semaphore>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (session, counts, inside) = (self.shared.session.clone(), counts.clone(), port.inside);
        let (flows, waiting) = (self.shared.flows.clone(), waiting.clone());
        async move {
            let ownerless = session.clone();
            let serve = async {
                match port.protocol {
                    Protocol::Tcp => Door { session, waiting, counts, inside }.serve(&socket).await,
                    Protocol::Udp => Desk { session, flows, counts, inside, place }.serve(&socket).await,
                }
            };
            tokio::select! {
                () = ownerless.ownerless() => {}
                () = serve => {}
            }
        }
    }

    /// Takes a port back: nobody new is served; who is served is served on. Resolves when the host's port is free again;
    /// false: it was not published.
    pub async fn remove(&self, port: HostPort) -> bool {
        let removed = {
            let mut ports = self.ports();
            let at = ports.iter().position(|known| known.port.host_port() == port);
            at.map(|at| ports.remove(at))
        };
        let Some(mut removed) = removed else { return false };
        for task in removed.tasks.drain(..) {
            task.abort();
            // Aborted on purpose; when it is gone its socket is too.
            let _ = task.await;
        }
        true
    }

    /// [`Publisher::remove`] for a thread outside the runtime; it waits.
    pub fn remove_and_wait(&self, port: HostPort) -> bool {
        let (tell, told) = std::sync::mpsc::channel();
        let this = self.clone();
        self.shared.runtime.spawn(async move {
            // Nobody waits any more: nobody minds.
            let _ = tell.send(this.remove(port).await);
        });
        // A runtime that has ended serves nobody.
        told.recv().unwrap_or(true)
    }

    /// What is published now, in the order in which it was.
    pub fn list(&self) -> Vec<Published> {
        self.ports().iter().map(|open| open.published(&self.shared.session)).collect()
    }

    /// Nobody new is served any more.
    pub(crate) fn close(&self) {
        self.ports().clear();
    }

    fn ports(&self) -> MutexGuard<'_, Vec<Open>> {
        self.shared.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn published(&self, session: &Session) -> Published {
        Published {
            port: self.port,
            places: self.places.clone(),
            open: self.counts.open.load(Ordering::Relaxed),
            total: self.counts.total.load(Ordering::Relaxed),
            server: session.server(self.port.protocol, self.port.inside),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
