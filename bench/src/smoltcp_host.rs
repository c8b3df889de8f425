//! smoltcp as a host of the lab: the same stimuli as Linux and the stack get, through its own API.
//!
//! Owns:    [`SmoltcpHost`]: an interface on a wire of packets, and TCP sockets that listen on one port.
//! Differs: smoltcp has no descriptors and no accept queue: the listening socket becomes the connection, and another one
//!          listens in its place, as its documentation advises. It has no owner of a connection either: `close` and
//!          `shutdown(SHUT_WR)` are the same call. Errors are not told afterwards.
//! Not here: what the answers are worth (`league`).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::VecDeque;

use lastack_core::tcp::state::TcpState;
use lastack_lab::script::assertion::Variables;
use lastack_lab::target::{
    Call, Done, Fd, Outcome, Output, Sent, Setting, SocketFacts, Target, TargetError, World,
};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint, Ipv4Address};

/// The listener's descriptor, in the lab's numbers.
const LISTENER: Fd = Fd(3);

/// smoltcp with an application on it, in virtual time.
pub struct SmoltcpHost {
    now: Duration,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    /// Sockets on the port, in the order in which they began to listen.
    handles: Vec<SocketHandle>,
    port: u16,
    timestamps: bool,
    sent: VecDeque<Sent>,
}

impl std::fmt::Debug for SmoltcpHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmoltcpHost")
            .field("now", &self.now)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl SmoltcpHost {
    /// A fresh host. `timestamps`: its sockets have a timestamp clock, without which smoltcp does not offer them.
    pub fn new(world: &World, timestamps: bool) -> Self {
        let mut wire = Wire { mtu: world.mtu as usize, ..Wire::default() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = 7;
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        let IpAddr::V4(local) = world.local else { panic!("the matrix is IPv4") };
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::Ipv4(local), 16)).expect("room for one address");
        });
        let gateway = Ipv4Address::new(192, 168, 0, 2);
        interface.routes_mut().add_default_ipv4_route(gateway).expect("room for one route");
        Self {
            now: Duration::from_secs(1000),
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            handles: Vec::new(),
            port: 0,
            timestamps,
            sent: VecDeque::new(),
        }
    }

    fn instant(&self) -> Instant {
        Instant::from_micros(self.now.as_micros() as i64)
    }

    /// Another socket listens on the port.
    fn listen(&mut self) -> bool {
        // The window Linux begins with, so that the places relative to it are the same numbers.
        let window = if self.timestamps { 65_160 } else { 64_240 };
        let mut socket = Socket::new(SocketBuffer::new(vec![0; window]), SocketBuffer::new(vec![0; 65_536]));
        // Its default of 10 ms would fall behind the end of what is recorded.
        socket.set_ack_delay(None);
        if self.timestamps {
            socket.set_tsval_generator(Some(|| 500));
        }
        let listens = socket.listen(self.port).is_ok();
        self.handles.push(self.sockets.add(socket));
        listens
    }

    /// The socket that is, or was last, a connection.
    fn connection(&mut self) -> Option<&mut Socket<'static>> {
        let handle = self.handles.first().copied()?;
        Some(self.sockets.get_mut::<Socket<'_>>(handle))
    }

    /// Lets smoltcp work until nothing changes; what it sent is kept with the time.
    fn work(&mut self) {
        for _ in 0..32 {
            let now = self.instant();
            self.interface.poll(now, &mut self.wire, &mut self.sockets);
            let quiet = self.wire.outbound.is_empty() && self.wire.inbound.is_empty();
            while let Some(bytes) = self.wire.outbound.pop_front() {
                self.sent.push_back(Sent { at: self.now, bytes });
            }
            if quiet {
                break;
            }
        }
        let all_taken = self
            .handles
            .iter()
            .all(|handle| self.sockets.get::<Socket<'_>>(*handle).state() != State::Listen);
        if self.port != 0 && all_taken && self.handles.len() < 3 {
            self.listen();
        }
    }

    /// To the next thing that happens by itself, at most to `limit`. False: `limit` is reached.
    fn step(&mut self, limit: Duration) -> bool {
        let now = self.instant();
        let next = self.interface.poll_at(now, &self.sockets);
        let next = next.map(|at| Duration::from_micros(at.total_micros().max(0) as u64));
        match next.filter(|at| *at <= limit && *at > self.now) {
            Some(at) => {
                self.now = at;
                self.work();
                true
            }
            None => {
                self.now = self.now.max(limit);
                false
            }
        }
    }
}

impl Target for SmoltcpHost {
    fn name(&self) -> &'static str {
        "smoltcp"
    }

    fn now(&mut self) -> Duration {
        self.now
    }

    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep_until(&mut self, at: Duration) {
        while self.step(at) {}
    }

    fn inject(&mut self, packet: &[u8]) -> Result<(), TargetError> {
        self.wire.inbound.push_back(packet.to_vec());
        self.work();
        Ok(())
    }

    fn receive(&mut self, deadline: Duration) -> Result<Option<Sent>, TargetError> {
        loop {
            if let Some(sent) = self.sent.pop_front() {
                return Ok(Some(sent));
            }
            if !self.step(deadline) {
                return Ok(self.sent.pop_front());
            }
        }
    }

    fn begin_call(&mut self, call: &Call) -> Option<Done> {
        let outcome = match call {
            Call::Socket { .. } => Outcome::ok(LISTENER.0.into()),
            Call::Bind(_, address) => {
                self.port = address.port();
                Outcome::ok(0)
            }
            Call::Listen(..) => Outcome::ok(if self.listen() { 0 } else { -1 }),
            Call::Accept(_) => {
                let remote = self.connection().and_then(|socket| socket.remote_endpoint());
                let peer = remote.map_or(Output::None, |remote| Output::Peer(address(remote)));
                Outcome::ok(4).with(peer)
            }
            Call::Close(_) | Call::Shutdown(..) => {
                if let Some(socket) = self.connection() {
                    socket.close();
                }
                Outcome::ok(0)
            }
            Call::GetOption(..) => Outcome::ok(0).with(Output::Bytes(vec![0; 4])),
            Call::Ioctl(..) => Outcome::ok(0).with(Output::Int(0)),
            _ => Outcome::error(38), // ENOSYS: the matrix makes no other call
        };
        self.work();
        Some(Done { at: self.now, outcome })
    }

    fn await_call(&mut self, _: Duration) -> Option<Done> {
        None
    }

    fn apply(&mut self, _: &Setting) -> Result<(), TargetError> {
        // It has no sysctls; what the matrix sets (no limit on challenge ACKs) it has no counterpart of.
        Ok(())
    }

    fn socket_info(&mut self, _: Fd) -> Result<Variables, TargetError> {
        Err(TargetError("smoltcp has no TCP_INFO".to_owned()))
    }

    fn socket_state(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<SocketFacts>, TargetError> {
        for handle in &self.handles {
            let socket = self.sockets.get::<Socket<'_>>(*handle);
            let is = |end: Option<IpEndpoint>, known| end.map(address) == Some(known);
            if is(socket.local_endpoint(), local) && is(socket.remote_endpoint(), remote) {
                return Ok(state(socket.state()).map(|state| SocketFacts { state, timer: None }));
            }
        }
        Ok(None)
    }

    fn counter(&mut self, name: &str) -> Result<u64, TargetError> {
        Err(TargetError(format!("smoltcp has no counter {name}")))
    }
}

fn address(end: IpEndpoint) -> SocketAddr {
    SocketAddr::new(end.addr.into(), end.port)
}

/// As the tables of a host show it; a closed socket is in none.
fn state(state: State) -> Option<TcpState> {
    Some(match state {
        State::Closed => return None,
        State::Listen => TcpState::Listen,
        State::SynSent => TcpState::SynSent,
        // Linux shows a server's half-open connection under the same name.
        State::SynReceived => TcpState::SynRecv,
        State::Established => TcpState::Established,
        State::FinWait1 => TcpState::FinWait1,
        State::FinWait2 => TcpState::FinWait2,
        State::CloseWait => TcpState::CloseWait,
        State::Closing => TcpState::Closing,
        State::LastAck => TcpState::LastAck,
        State::TimeWait => TcpState::TimeWait,
    })
}

/// Two queues of packets.
#[derive(Debug, Default)]
struct Wire {
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
    mtu: usize,
}

impl Device for Wire {
    type RxToken<'a> = Inbound;
    type TxToken<'a> = Outbound<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Inbound, Outbound<'_>)> {
        let packet = self.inbound.pop_front()?;
        Some((Inbound(packet), Outbound(&mut self.outbound)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outbound<'_>> {
        Some(Outbound(&mut self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

struct Inbound(Vec<u8>);

impl RxToken for Inbound {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

struct Outbound<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Outbound<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, work: F) -> R {
        let mut packet = vec![0; len];
        let result = work(&mut packet);
        self.0.push_back(packet);
        result
    }
}
