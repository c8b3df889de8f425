//! Forwards datagrams: one connected host socket a flow, as long as anybody sends.
//!
//! Owns:    [`Flows`], the bounded table of flows; what the program sends first.
//! Rules:   a flow is one pair of addresses. Rules and addresses are those of connections. What comes to a published port
//!          begins a flow too (`publish`), and then the program's answers find it here.
//! Not here: carrying a flow's datagrams (`flow`), questions for the resolver (`dns`).

mod flow;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lastack::{Datagram, UdpAny, Unreachable};
use tokio::sync::{Notify, mpsc};

pub(crate) use flow::{Carrier, Sent};

use crate::addresses::Destination;
use crate::dns::{self, Route};
use crate::journal::{self, Direction, Flow, FlowEnd, FlowProtocol};
use crate::owner::Protocol;
use crate::rules::Verdict;
use crate::session::{Limit, Note, Session};

/// Datagrams that may wait for one flow's socket; more are dropped, as a socket buffer would.
const QUEUE: usize = 256;

/// The program's end, and the other as the program uses it.
pub(crate) type Pair = (SocketAddr, SocketAddr);

/// All flows of a run.
#[derive(Debug)]
pub(crate) struct Flows {
    /// What the stack has for datagrams.
    pub(crate) any: UdpAny,
    /// By the pair; what the program sends goes to its flow.
    table: Mutex<HashMap<Pair, Entry>>,
    emptied: Notify,
}

/// A flow in the table.
#[derive(Clone, Debug)]
struct Entry {
    queue: mpsc::Sender<Sent>,
    came: Arc<Came>,
}

/// What came for a flow without passing its own socket.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) datagrams: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// What a flow that was just entered in the table begins with.
pub(crate) struct Begun {
    /// What the program sends.
    pub(crate) datagrams: mpsc::Receiver<Sent>,
    pub(crate) came: Arc<Came>,
    /// Takes it out of the table again.
    pub(crate) entered: Entered,
}

/// A flow that is in the table, until this is dropped.
pub(crate) struct Entered {
    flows: Arc<Flows>,
    pair: Pair,
    came: Arc<Came>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut table = self.flows.table();
        // The next flow of this pair may have begun: this one's queue was closed.
        if table.get(&self.pair).is_some_and(|entry| Arc::ptr_eq(&entry.came, &self.came)) {
            table.remove(&self.pair);
        }
        if table.is_empty() {
            self.flows.emptied.notify_waiters();
        }
    }
}

impl Flows {
    pub(crate) fn new(any: UdpAny) -> Arc<Self> {
        Arc::new(Self { any, table: Mutex::default(), emptied: Notify::new() })
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Pair, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is none.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.table().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// The queue of a flow that lives.
    fn queue(&self, pair: &Pair) -> Option<mpsc::Sender<Sent>> {
        // A closed one belongs to a flow that is just ending.
        self.table().get(pair).map(|entry| &entry.queue).filter(|queue| !queue.is_closed()).cloned()
    }

    /// A datagram of `len` bytes has come from outside; false: it belongs to no flow.
    pub(crate) fn came(&self, pair: &Pair, len: usize) -> bool {
        let table = self.table();
        let Some(entry) = table.get(pair).filter(|entry| !entry.queue.is_closed()) else { return false };
        entry.came.datagrams.fetch_add(1, Ordering::Relaxed);
        entry.came.bytes.fetch_add(len as u64, Ordering::Relaxed);
        true
    }

    /// Enters a flow; `None`: there are as many as there may be.
    pub(crate) fn enter(self: &Arc<Self>, session: &Session, pair: Pair) -> Option<Begun> {
        let mut table = self.table();
        if table.len() >= session.max_flows {
            session.limit_bit(Limit::Flows);
            return None;
        }
        let (queue, datagrams) = mpsc::channel(QUEUE);
        let came = Arc::<Came>::default();
        table.insert(pair, Entry { queue, came: came.clone() });
        let entered = Entered { flows: self.clone(), pair, came: came.clone() };
        Some(Begun { datagrams, came, entered })
    }
}

/// Forwards what the program sends, until the stack has stopped.
pub(crate) async fn forward(session: Arc<Session>, flows: Arc<Flows>) {
    while let Ok(datagram) = flows.any.recv().await {
        let pair = (datagram.from, datagram.to);
        if let Some(queue) = flows.queue(&pair) {
            // A full queue drops the datagram.
            if queue.try_send(Sent::of(datagram)).is_err() {
                session.limit_bit(Limit::FlowQueue);
            }
        } else if dns::route(&session, datagram.to) == Some(Route::Resolver) {
            dns::datagram(&session, &flows, datagram);
        } else {
            begin(&session, &flows, datagram);
        }
    }
}

/// The record of a flow that begins now; whose it is, is not asked.
pub(crate) fn blank(session: &Session, direction: Direction, (local, remote): Pair) -> Flow {
    Flow {
        id: session.number(),
        protocol: FlowProtocol::Udp,
        owner: None,
        local,
        remote,
        host_local: None,
        host_remote: None,
        device: session.device,
        direction,
        opened: session.net.now(),
        duration_us: 0,
        bytes_up: 0,
        bytes_down: 0,
        datagrams_up: 0,
        datagrams_down: 0,
        how: FlowEnd::Idle,
    }
}

/// The record of a flow that the program begins now.
fn outgoing(session: &Session, pair: Pair) -> Flow {
    Flow { owner: session.owner(Protocol::Udp, pair.0, pair.1), ..blank(session, Direction::Out, pair) }
}

fn begin(session: &Arc<Session>, flows: &Arc<Flows>, first: Datagram) {
    let verdict = match dns::route(session, first.to) {
        Some(Route::Server) => Verdict::Allow,
        Some(Route::Refused) => Verdict::Deny,
        Some(Route::Resolver) | None => session.verdict(first.to),
    };
    let destination = match verdict {
        Verdict::Allow => match session.addresses.destination(first.to) {
            Destination::Host(to) => Ok(to),
            Destination::Closed => Err(FlowEnd::LoopbackClosed),
            Destination::Nobody => Err(FlowEnd::Refused),
            Destination::Martian => Err(FlowEnd::MartianDestination),
        },
        Verdict::Deny => Err(FlowEnd::Denied),
    };
    let pair = (first.from, first.to);
    let to = match destination {
        Ok(to) => to,
        Err(how) => {
            // Linux says nothing about what it takes for a martian.
            if how != FlowEnd::MartianDestination {
                flows.any.unreachable(&first, Unreachable::Port);
            }
            let flow = Flow { how, ..outgoing(session, pair) };
            session.tell(Note::Ended(journal::Entry::Flow(flow)));
            return;
        }
    };
    let Some(begun) = flows.enter(session, pair) else { return };
    let flow = Flow { host_remote: Some(to), ..outgoing(session, pair) };
    // The queue is empty and open: the first datagram fits.
    let _ = flows.queue(&pair).is_some_and(|queue| queue.try_send(Sent::of(first)).is_ok());
    let carrier = Carrier::new(session.clone(), flows.clone(), flow);
    tokio::spawn(carrier.run(begun, async move { flow::connected(to).await }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::GatewayConfig;
    use crate::stage::{Stage, play};

    #[test]
    fn a_flow_that_ends_late_leaves_the_next_of_its_pair_in_the_table() {
        play(async {
            let Stage { session, flows, .. } = Stage::new(GatewayConfig::default());
            let pair = ("10.0.2.100:4000".parse().unwrap(), "192.0.2.1:9".parse().unwrap());
            let Begun { datagrams, entered, .. } = flows.enter(&session, pair).unwrap();
            drop(datagrams);
            assert!(flows.queue(&pair).is_none(), "it is ending");
            let next = flows.enter(&session, pair).unwrap();
            drop(entered);
            assert!(flows.queue(&pair).is_some());
            drop(next);
            flows.empty().await;
        });
    }
}
