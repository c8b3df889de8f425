//! A stack that runs: the handle to open sockets on it and to look into it.

use std::io;
use std::sync::Arc;

use lastack_core::Stack;
use lastack_core::observe::{Counters, EventMask, SocketRow};
use lastack_core::stack::{AnyOptions, Config, Gone, KillTarget, SysctlError};
use lastack_core::tcp::state::TcpState;
use lastack_core::time::Instant;

use crate::clock::Clock;
use crate::device::Device;
use crate::driver::Driver;
use crate::events::Events;
use crate::incoming::Incoming;
use crate::shard::{Handle, LinkCounters, Shard};

/// A running TCP/IP stack. Clones are the same stack.
///
/// # Example
/// ```no_run
/// use lastack::{Config, Net, TcpListener, Tun, TunOptions};
/// # async fn example() -> std::io::Result<()> {
/// let tun = Tun::open(&TunOptions::new().address([10, 9, 0, 1].into(), 24).up())?;
/// let config = Config { addresses: vec![([10, 9, 0, 2].into(), 24)], ..Config::default() };
/// let (net, driver) = Net::start(tun, config)?;
/// tokio::spawn(driver);
/// let listener = TcpListener::bind(&net, "10.9.0.2:80").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Net {
    handle: Handle,
}

impl Net {
    /// A stack on `device`, and the driver that has to be polled for anything to happen.
    ///
    /// `config.mtu` is replaced by the device's. An all-zero `config.seed`, the default, is replaced by random
    /// bytes from the OS.
    ///
    /// # Errors
    /// The OS gives no random bytes.
    pub fn start(device: impl Device, mut config: Config) -> io::Result<(Self, Driver)> {
        config.mtu = device.capabilities().mtu;
        if config.seed == [0; 32] {
            let mut filled = 0;
            while filled < config.seed.len() {
                filled += rustix::rand::getrandom(
                    &mut config.seed[filled..],
                    rustix::rand::GetRandomFlags::empty(),
                )?;
            }
        }
        let clock = Clock::start();
        let stack = Stack::new(config, clock.now());
        let shard = Arc::new(Shard::new(clock, stack, Box::new(device)));
        let driver = Driver::new(shard.clone());
        Ok((Self { handle: Handle::new(shard) }, driver))
    }

    /// A stack on `device` whose driver runs in a thread of its own: for programs without tokio, with the
    /// sockets of [`blocking`](crate::blocking). The thread ends as [`Driver`] says.
    ///
    /// # Errors
    /// As [`Net::start`]; or the thread cannot be started.
    pub fn spawn_thread(device: impl Device, config: Config) -> io::Result<Self> {
        let (net, driver) = Self::start(device, config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("lastack-driver".into()).spawn(move || {
            // How it ended is told by every socket.
            let _ = runtime.block_on(driver);
        })?;
        Ok(net)
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Every SYN for a destination that no listener has, to be decided one by one. At most one a stack.
    ///
    /// # Errors
    /// `AddrInUse`: there is one already.
    pub fn incoming(&self, options: AnyOptions) -> io::Result<Incoming> {
        Incoming::new(&self.handle, options)
    }

    /// Events of these groups, from now on.
    pub fn events(&self, mask: EventMask) -> Events {
        Events::new(self.handle.shard().clone(), mask)
    }

    /// A row for every socket, in a stable order.
    pub fn sockets(&self) -> Vec<SocketRow> {
        self.handle.look(|state, now| state.stack.sockets(now).collect())
    }

    /// How many sockets of all kinds there are.
    pub fn socket_count(&self) -> usize {
        self.handle.look(|state, _| state.stack.socket_count())
    }

    /// The stack's counters.
    pub fn counters(&self) -> Counters {
        self.handle.look(|state, _| state.stack.counters().clone())
    }

    /// The link's counters.
    pub fn link_counters(&self) -> LinkCounters {
        let rx_dropped = self.handle.device.rx_dropped();
        self.handle.look(|state, _| LinkCounters { rx_dropped, ..state.link })
    }

    /// The stack's clock: nanoseconds since the Unix epoch, monotonic.
    pub fn now(&self) -> Instant {
        self.handle.clock.now()
    }

    /// Ends a socket in any state, as Linux's `SOCK_DESTROY` does. Gives the state it was in.
    ///
    /// # Errors
    /// There is no such socket.
    pub fn kill(&self, target: KillTarget) -> Result<TcpState, Gone> {
        self.handle.with(|state, now| state.stack.kill(now, target))
    }

    /// Reads a setting by Linux's name, as `/proc/sys` prints it.
    ///
    /// # Errors
    /// There is no such setting, or it does not apply to a stack.
    pub fn sysctl(&self, name: &str) -> Result<String, SysctlError> {
        self.handle.look(|state, _| state.stack.sysctl_get(name))
    }

    /// Writes a setting by Linux's name.
    ///
    /// # Errors
    /// As Linux: unknown, out of range, read-only.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<(), SysctlError> {
        self.handle.with(|state, _| state.stack.sysctl_set(name, value))
    }
}
