//! What the interpreter asks of a host under test; Linux and the stack both answer it.
//!
//! Owns:    the trait [`Target`], the calls with live descriptors, and what they give back.
//! Not here: script numbers and names (`crate::run` has turned them into live ones).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use lastack_core::observe::TimerKind;
use lastack_core::tcp::state::TcpState;

use crate::script::assertion::Variables;

/// A live file descriptor, as the host under test numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Fd(pub i32);

/// How a script's world is made.
#[derive(Clone, PartialEq, Debug)]
pub struct World {
    /// Which addresses the host has and how its sockets are made.
    pub ip: IpVersion,
    /// The host under test.
    pub local: IpAddr,
    /// The simulated peer.
    pub remote: IpAddr,
    /// Largest packet of the link, bytes.
    pub mtu: u32,
    /// Where shell commands run.
    pub directory: std::path::PathBuf,
}

/// The `ip_version` option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IpVersion {
    /// AF_INET sockets, IPv4 packets.
    V4,
    /// AF_INET6 sockets, IPv6 packets.
    V6,
    /// AF_INET6 sockets, IPv4 packets.
    Mapped,
}

impl IpVersion {
    /// The family that `socket(..., …)` gets.
    pub fn socket_family(self) -> i32 {
        if self == Self::V4 { libc::AF_INET } else { libc::AF_INET6 }
    }

    /// `address` as sockets of this world write it.
    pub fn socket_address(self, address: SocketAddr) -> SocketAddr {
        match (self, address.ip()) {
            (Self::Mapped, IpAddr::V4(ip)) => {
                SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), address.port())
            }
            _ => address,
        }
    }
}

/// A system call with live values.
#[derive(Clone, PartialEq, Debug)]
pub enum Call {
    /// `socket`
    Socket {
        /// AF_INET or AF_INET6.
        family: i32,
        /// SOCK_STREAM or SOCK_DGRAM with flags.
        kind: i32,
        /// IPPROTO_TCP, …
        protocol: i32,
    },
    /// `bind`
    Bind(Fd, SocketAddr),
    /// `listen`
    Listen(Fd, i32),
    /// `accept`
    Accept(Fd),
    /// `connect`; `None` is AF_UNSPEC: disconnect.
    Connect(Fd, Option<SocketAddr>),
    /// `read`, `readv`, `recv`, `recvfrom`, `recvmsg`
    Receive {
        /// The socket.
        fd: Fd,
        /// Buffer sizes; one unless `readv` or `recvmsg`.
        lens: Vec<usize>,
        /// MSG_*.
        flags: i32,
        /// Which call it is.
        via: Via,
    },
    /// `write`, `writev`, `send`, `sendto`, `sendmsg`
    Send {
        /// The socket.
        fd: Fd,
        /// Buffer sizes; one unless `writev` or `sendmsg`.
        lens: Vec<usize>,
        /// MSG_*.
        flags: i32,
        /// Which call it is.
        via: Via,
        /// Destination, where the call names one.
        to: Option<SocketAddr>,
    },
    /// `close`
    Close(Fd),
    /// `shutdown`
    Shutdown(Fd, i32),
    /// `fcntl`
    Fcntl(Fd, i32, i32),
    /// `ioctl` with an `int *`.
    Ioctl(Fd, u64),
    /// `setsockopt`
    SetOption(Fd, i32, i32, OptionValue),
    /// `getsockopt` with a buffer of this many bytes.
    GetOption(Fd, i32, i32, usize),
    /// `poll`
    Poll(Vec<(Fd, i16)>, i32),
    /// `epoll_create`
    EpollCreate,
    /// `epoll_ctl`: epoll, operation, descriptor, mask, data.
    EpollCtl(Fd, i32, Fd, u32, u64),
    /// `epoll_wait`: epoll, most events, milliseconds.
    EpollWait(Fd, i32, i32),
    /// `open`: path, O_*.
    Open(String, i32),
    /// `pipe`
    Pipe,
    /// `sendfile`
    SendFile {
        /// The socket.
        to: Fd,
        /// The file.
        from: Fd,
        /// Where in the file; `None`: where it stands, which moves.
        offset: Option<u64>,
        /// Bytes, at most.
        len: usize,
    },
    /// `splice` between a socket and a pipe, without offsets.
    Splice {
        /// The socket, or the pipe's reading end.
        from: Fd,
        /// The socket, or the pipe's writing end.
        to: Fd,
        /// Bytes, at most.
        len: usize,
        /// SPLICE_F_*.
        flags: u32,
    },
}

/// Which of the calls that move bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// `read`, `readv`, `write`, `writev`
    ReadWrite,
    /// `recv`, `send`, `recvfrom`, `sendto`
    Socket,
    /// `recvmsg`, `sendmsg`
    Message,
}

/// What `setsockopt` is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptionValue {
    /// An int.
    Int(i32),
    /// `{onoff, linger}`
    Linger(i32, i32),
    /// Bytes: a congestion control's name.
    Bytes(Vec<u8>),
}

/// What a call gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The return value; -1 with an errno.
    pub value: i64,
    /// 0 unless `value` is -1.
    pub errno: i32,
    /// What the call wrote.
    pub output: Output,
}

impl Outcome {
    /// A call that gave `value` and wrote nothing.
    pub fn ok(value: i64) -> Self {
        Self { value, errno: 0, output: Output::None }
    }

    /// A call that failed.
    pub fn error(errno: i32) -> Self {
        Self { value: -1, errno, output: Output::None }
    }

    /// The same with output.
    pub fn with(self, output: Output) -> Self {
        Self { output, ..self }
    }
}

/// What a call wrote to its arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Nothing of interest.
    None,
    /// `pipe`: the end to read and the one to write.
    Pair(Fd, Fd),
    /// `accept`: the other end.
    Peer(SocketAddr),
    /// `ioctl`: the int.
    Int(i32),
    /// `getsockopt`: the bytes.
    Bytes(Vec<u8>),
    /// `getsockopt` that failed for want of room: the bytes it needs.
    Needs(usize),
    /// `poll`: the returned masks.
    Ready(Vec<i16>),
    /// `epoll_wait`: masks and data.
    Events(Vec<(u32, u64)>),
    /// `recvmsg`: the message flags and the control messages.
    Message {
        /// `msg_flags`
        flags: i32,
        /// In the order they were written.
        control: Vec<Control>,
    },
}

/// A control message of `recvmsg`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// `TCP_CM_INQ`: the bytes that wait.
    Inq(i32),
    /// `IP_RECVERR` or `IPV6_RECVERR`: one entry of the error queue.
    Error(ExtendedError),
    /// `SCM_TIMESTAMPING`: the software stamp, on the target's clock.
    Timestamp(Duration),
}

/// Linux `struct sock_extended_err`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtendedError {
    /// It came as `IPV6_RECVERR`.
    pub v6: bool,
    /// `ee_errno`
    pub errno: u32,
    /// `ee_origin`
    pub origin: u8,
    /// `ee_type`
    pub kind: u8,
    /// `ee_code`
    pub code: u8,
    /// `ee_info`
    pub info: u32,
    /// `ee_data`
    pub data: u32,
}

/// A call that has returned.
#[derive(Clone, PartialEq, Debug)]
pub struct Done {
    /// When it returned, on the target's clock.
    pub at: Duration,
    /// What it gave.
    pub outcome: Outcome,
}

/// A packet the host sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// When it left the host, on the target's clock.
    pub at: Duration,
    /// From the IP header on.
    pub bytes: Vec<u8>,
}

/// A socket as the host's own tables show it, descriptor or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketFacts {
    /// Its state.
    pub state: TcpState,
    /// The timer it waits for, as `ss -o` names it.
    pub timer: Option<TimerKind>,
}

/// What a script asks for beside calls and packets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Setting {
    /// A sysctl by its full name (`net.ipv4.tcp_sack`) and its new value.
    Sysctl(String, String),
    /// A shell command nobody recognised.
    Shell(String),
}

/// A target could not do what it must; the script is not to blame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetError(pub String);

impl core::fmt::Display for TargetError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for TargetError {}

/// A host under test with an application on it and a wire to the peer.
///
/// Times are durations since an epoch of the target's own. A target in real time waits; one in virtual time
/// moves its clock, timer by timer.
pub trait Target {
    /// `kernel` or `stack`.
    fn name(&self) -> &'static str;
    /// The clock.
    fn now(&mut self) -> Duration;
    /// How long a call that must return at once may take.
    fn patience(&self) -> Duration;
    /// Lets time pass until `at`.
    fn sleep_until(&mut self, at: Duration);
    /// The peer sends a packet.
    ///
    /// # Errors
    /// The wire is broken.
    fn inject(&mut self, packet: &[u8]) -> Result<(), TargetError>;
    /// The next packet the host sent; waits for it until `deadline`.
    ///
    /// # Errors
    /// The wire is broken.
    fn receive(&mut self, deadline: Duration) -> Result<Option<Sent>, TargetError>;
    /// The application makes a call. `None`: it blocks.
    fn begin_call(&mut self, call: &Call) -> Option<Done>;
    /// Waits for the call that blocks, until `deadline`.
    fn await_call(&mut self, deadline: Duration) -> Option<Done>;
    /// Changes the host or its surroundings.
    ///
    /// # Errors
    /// It is refused or not possible here.
    fn apply(&mut self, setting: &Setting) -> Result<(), TargetError>;
    /// `tcpi_*`, `SK_MEMINFO_*` of a socket.
    ///
    /// # Errors
    /// Not a TCP socket.
    fn socket_info(&mut self, fd: Fd) -> Result<Variables, TargetError>;
    /// The socket of a pair in the host's tables, if any.
    ///
    /// # Errors
    /// The tables cannot be read.
    fn socket_state(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<SocketFacts>, TargetError>;
    /// A counter by `nstat`'s name, for example `TcpExtTCPTimeouts`.
    ///
    /// # Errors
    /// No such counter.
    fn counter(&mut self, name: &str) -> Result<u64, TargetError>;
}
