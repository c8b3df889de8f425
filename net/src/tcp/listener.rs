//! A listener.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use lastack_core::error::AcceptError;
use lastack_core::id::ListenerId;
use lastack_core::stack::ListenOptions;
use lastack_core::tcp::options::TcpOption;
use tokio::net::ToSocketAddrs;

use super::TcpStream;
use crate::connection::{Connection, os_error};
use crate::net::Net;
use crate::shard::Handle;
use crate::waiters::READ;

/// A TCP socket that listens.
///
/// # Example
/// ```
/// use lastack::{Config, Memory, Net, TcpListener};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (device, _other_end) = Memory::pair(1500);
/// let config = Config { addresses: vec![([10, 0, 0, 1].into(), 24)], ..Config::default() };
/// let (net, driver) = Net::start(device, config)?;
/// tokio::spawn(driver);
/// let listener = TcpListener::bind(&net, "10.0.0.1:0").await?;
/// assert_ne!(listener.local_addr()?.port(), 0);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TcpListener {
    handle: Handle,
    id: ListenerId,
    local: SocketAddr,
}

impl TcpListener {
    /// Listens on `addr`, with `SO_REUSEADDR` and a backlog of 1024 as tokio does.
    ///
    /// # Errors
    /// Those of Linux's `bind` and `listen`: `AddrInUse`, `AddrNotAvailable`, …
    pub async fn bind(net: &Net, addr: impl ToSocketAddrs) -> io::Result<Self> {
        let mut last = None;
        for addr in tokio::net::lookup_host(addr).await? {
            let mut options = ListenOptions::new(addr);
            options.backlog = 1024;
            options.options.reuseaddr = true;
            match Self::bind_with(net, options) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on")))
    }

    /// Listens as `options` say.
    ///
    /// # Errors
    /// As [`TcpListener::bind`].
    pub fn bind_with(net: &Net, options: ListenOptions) -> io::Result<Self> {
        net.handle().with(|state, now| {
            state.check_running()?;
            let id = state.stack.listen(now, options).map_err(|error| os_error(error.errno()))?;
            let local = state.stack.listener_addr(id).expect("the stack has just given this id");
            Ok(Self { handle: net.handle().clone(), id, local })
        })
    }

    /// The oldest finished connection and who made it. Cancel safe: a dropped call takes no connection.
    ///
    /// # Errors
    /// The stack has stopped.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`TcpListener::accept`]. Any number of tasks may wait.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.poll_accept_connection(cx).map_ok(|connection| {
            let peer = connection.peer_addr();
            (TcpStream::new(connection), peer)
        })
    }

    pub(crate) fn poll_accept_connection(&self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        self.handle.with(|state, now| match state.stack.accept(now, self.id) {
            Ok(id) => Poll::Ready(Ok(Connection::adopt(self.handle.clone(), id, state))),
            Err(AcceptError::WouldBlock) => match state.check_running() {
                Ok(()) => {
                    state.waiters.listeners.wait(self.id, READ, cx.waker());
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            },
            Err(error) => Poll::Ready(Err(os_error(error.errno()))),
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where it listens, with the port that was chosen.
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    /// Sets an option for connections to come.
    ///
    /// # Errors
    /// `InvalidInput` where Linux answers `EINVAL`.
    pub fn set_option(&self, option: TcpOption) -> io::Result<()> {
        self.handle.with(|state, _| {
            state.stack.set_listener_option(self.id, option).map_err(|error| os_error(error.errno()))
        })
    }
}

/// Half-open connections are forgotten, finished ones that nobody accepted are reset.
impl Drop for TcpListener {
    fn drop(&mut self) {
        self.handle.with(|state, now| {
            state.stack.close_listener(now, self.id);
            state.waiters.listeners.forget(self.id);
        });
    }
}
