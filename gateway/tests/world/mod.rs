//! A program's stack and a gateway in this process, joined by a memory device.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::net::SocketAddr;
use std::time::Duration;

use lastack::{Config, Memory, Net, TcpStream};
use lastack_gateway::addresses;
use lastack_gateway::journal::{ClosedBy, Connection, Entry, Flow, How, Reason};
use lastack_gateway::{Gateway, GatewayConfig, Note};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Longer than anything here takes on a busy machine; only a bug waits so long.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct World {
    /// The program's stack.
    pub(crate) client: Net,
    pub(crate) gateway: Gateway,
    pub(crate) notes: mpsc::UnboundedReceiver<Note>,
}

impl World {
    pub(crate) fn new(config: GatewayConfig) -> Self {
        let (near, far) = Memory::pair(1500);
        let stack = Config { addresses: addresses::STACK.to_vec(), any_address: true, ..Config::default() };
        let (net, driver) = Net::start(near, stack).unwrap();
        let guest = Config { addresses: addresses::GUEST.to_vec(), ..Config::default() };
        let (client, client_driver) = Net::start(far, guest).unwrap();
        tokio::spawn(driver);
        tokio::spawn(client_driver);
        let (sender, notes) = mpsc::unbounded_channel();
        let gateway = Gateway::start(net, config, move |note| drop(sender.send(note))).unwrap();
        Self { client, gateway, notes }
    }

    /// A client's connection to a server of this host, and the server's end of it.
    pub(crate) async fn connect(&self, listener: &TcpListener) -> (TcpStream, tokio::net::TcpStream) {
        let client = self.dial(listener.local_addr().unwrap().port()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    pub(crate) async fn dial(&self, port: u16) -> std::io::Result<TcpStream> {
        TcpStream::connect(&self.client, inside(port)).await
    }

    /// Stops the gateway; what it told then.
    pub(crate) async fn stop(mut self) -> Vec<Entry> {
        self.gateway.stop().await;
        let mut entries = Vec::new();
        while let Ok(note) = self.notes.try_recv() {
            if let Note::Ended(entry) = note {
                entries.push(entry);
            }
        }
        entries
    }

    pub(crate) async fn entry(&mut self) -> Entry {
        loop {
            if let Note::Ended(entry) = self.notes.recv().await.expect("the gateway runs") {
                return entry;
            }
        }
    }

    pub(crate) async fn connection(&mut self) -> Connection {
        match self.entry().await {
            Entry::Connection(connection) => connection,
            other => panic!("no connection: {other:?}"),
        }
    }

    pub(crate) async fn flow(&mut self) -> Flow {
        match self.entry().await {
            Entry::Flow(flow) => flow,
            other => panic!("no flow: {other:?}"),
        }
    }
}

pub(crate) fn inside(port: u16) -> SocketAddr {
    SocketAddr::new(addresses::HOST[0], port)
}

pub(crate) fn test(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, story).await.expect("it hangs") });
}

pub(crate) async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub(crate) fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

pub(crate) fn told(c: &Connection) -> (ClosedBy, How, Option<Reason>) {
    (c.verdict.closed_by, c.verdict.how, c.verdict.reason)
}
