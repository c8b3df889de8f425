//! A program's stack and a session in this process, without a gateway: for tests of the session's parts.

use std::sync::Arc;
use std::time::Duration;

use lastack::{Config, Memory, Net, UdpAny};
use tokio::sync::mpsc;

use crate::addresses;
use crate::journal::{Entry, Flow};
use crate::session::{GatewayConfig, Note, Session};
use crate::udp::Flows;

/// Longer than anything here takes on a busy machine; only a bug waits so long.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    /// The program's stack.
    pub(crate) program: Net,
    pub(crate) session: Arc<Session>,
    pub(crate) flows: Arc<Flows>,
    notes: mpsc::UnboundedReceiver<Note>,
}

impl Stage {
    /// To be called in a runtime ([`play`]).
    pub(crate) fn new(config: GatewayConfig) -> Self {
        let (near, far) = Memory::pair(1500);
        let stack = Config { addresses: addresses::STACK.to_vec(), any_address: true, ..Config::default() };
        let (net, driver) = Net::start(near, stack).unwrap();
        let guest = Config { addresses: addresses::GUEST.to_vec(), ..Config::default() };
        let (program, program_driver) = Net::start(far, guest).unwrap();
        tokio::spawn(driver);
        tokio::spawn(program_driver);
        let flows = Flows::new(UdpAny::bind(&net).unwrap());
        let (sender, notes) = mpsc::unbounded_channel();
        let session = Session::new(net, config, Box::new(move |note| drop(sender.send(note))));
        Self { program, session: Arc::new(session), flows, notes }
    }

    /// The next flow that has ended.
    pub(crate) async fn flow(&mut self) -> Flow {
        loop {
            if let Note::Ended(Entry::Flow(flow)) = self.notes.recv().await.expect("the session lives") {
                return flow;
            }
        }
    }
}

/// Runs `story` in a runtime of its own.
pub(crate) fn play(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, story).await.expect("it hangs") });
}
