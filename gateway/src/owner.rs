//! Whose socket is it? The process behind a connection, while its socket still has one.
//!
//! Owns:    [`Owners`]: one sock_diag question for the inode, then the descriptors of the processes inside.
//! Rules:   sock_diag(7); `/proc/PID/fd`. A bounded number of look-ups and of descriptors a second, so that ten thousand
//!          connections a second, or one program with as many, are not spent on names: beyond it, the owner is told only
//!          while one process is all there is. An inode's number names one socket as long as the host is up, so what a
//!          walk through a process's descriptors has met is not looked for again.
//! Differs: a UDP question has its two ends the other way round, as `udp_dump_one` has had from the start.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use lastack::core::time::Instant;

use crate::netlink::{Message, Netlink};
use crate::sandbox::processes::{descendants, tree_below};

/// A process, as it was when it was asked about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Its id, in the host's numbering.
    pub pid: u32,
    /// Its name (`/proc/PID/comm`).
    pub process: Arc<str>,
    /// The service or container it is in, where its control group says so.
    pub cgroup: Option<Arc<str>>,
}

impl Owner {
    /// The process of that number as it is now; `None`: it is gone.
    pub fn of_process(pid: u32) -> Option<Self> {
        Process::open(pid)?.now()
    }
}

/// A process that can be asked again what it is called: the files stay its own when its number is another's.
#[derive(Debug)]
struct Process {
    pid: u32,
    comm: File,
    cgroup: Option<File>,
}

impl Process {
    fn open(pid: u32) -> Option<Self> {
        let comm = File::open(format!("/proc/{pid}/comm")).ok()?;
        Some(Self { pid, comm, cgroup: File::open(format!("/proc/{pid}/cgroup")).ok() })
    }

    /// As it is now; `None`: it is gone.
    fn now(&self) -> Option<Owner> {
        let comm = text(&self.comm)?;
        let groups = self.cgroup.as_ref().and_then(text).unwrap_or_default();
        Some(Owner { pid: self.pid, process: Arc::from(comm.trim_end()), cgroup: unit(&groups) })
    }
}

/// What a small file of `/proc` says now, from its beginning.
fn text(file: &File) -> Option<String> {
    let mut bytes = [0; 4096];
    let length = file.read_at(&mut bytes, 0).ok()?;
    Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

/// The service, scope or container that `/proc/PID/cgroup` names: the last part of the path that is no slice.
fn unit(groups: &str) -> Option<Arc<str>> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.rsplit('/').find_map(|part| {
        let id = part.trim_end_matches(".scope").rsplit('-').next().unwrap_or(part);
        if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Some(format!("container:{}", &id[..12]).into());
        }
        (part.ends_with(".service") || part.ends_with(".scope")).then(|| part.into())
    })
}

/// Transport protocol of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a second may spend on names.
#[derive(Debug)]
struct Budget {
    lookups: u32,
    descriptors: usize,
}

impl Budget {
    const A_SECOND: Self = Self { lookups: 1000, descriptors: 20_000 };
}

/// How long the list of processes is trusted when look-ups are spent.
const LIST_AGE: Duration = Duration::from_millis(500);

/// Finds owners of sockets in one namespace.
#[derive(Debug)]
pub struct Owners {
    diag: Netlink,
    /// The program's interface.
    link: u32,
    /// Every process inside descends from this one.
    top: u32,
    /// Who held the socket that was asked for last.
    last: Option<Holder>,
    left: Budget,
    refilled: Instant,
    sole: Option<Owner>,
    listed: Option<Instant>,
}

impl Owners {
    /// Asks `diag`, a sock_diag socket of the namespace, about descendants of `top`. `link` is the number of the interface
    /// that connections come by, or 0: sockets that are bound to one (`SO_BINDTODEVICE`) are found by their own only.
    pub fn new(diag: OwnedFd, top: u32, link: u32) -> Self {
        Self {
            diag: Netlink::from(diag),
            link,
            top,
            last: None,
            left: Budget::A_SECOND,
            refilled: Instant::ZERO,
            sole: None,
            listed: None,
        }
    }

    /// The owner of the program's socket from `local` to `remote`, both as the program sees them.
    pub fn owner(
        &mut self,
        now: Instant,
        protocol: Protocol,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Option<Owner> {
        if !self.may_look_up(now) || self.left.descriptors == 0 {
            return self.sole_process(now);
        }
        let inode = self.inode(protocol, local, remote).ok().flatten()?;
        let known = self.last.as_ref().filter(|holder| holder.sockets.contains(&inode));
        // A process that holds one socket of ours soon holds another.
        if let Some(owner) = known.and_then(|holder| holder.process.now()) {
            return Some(owner);
        }
        let before = self.last.as_ref().map(|holder| holder.process.pid);
        let others = || tree_below(self.top).into_iter().filter(|pid| Some(*pid) != before);
        let mut candidates = before.into_iter().chain(std::iter::once_with(others).flatten());
        let holder = candidates.find_map(|pid| {
            let holder = Holder::walk(pid, &mut self.left.descriptors)?;
            holder.sockets.contains(&inode).then_some(holder)
        })?;
        self.last.insert(holder).process.now()
    }

    /// False when the program's kernel has no socket from `local` to `remote` any more, nobody's included: what a process
    /// wrote before it was gone is still sent. Not counted: whoever asks again and again pauses in between.
    pub fn has_socket(&self, protocol: Protocol, local: SocketAddr, remote: SocketAddr) -> bool {
        !matches!(self.socket(protocol, local, remote), Ok(None))
    }

    /// Whether the program has a socket that takes what comes to `local` from `remote`; `None`: this second's look-ups
    /// are spent, or the kernel did not say.
    pub fn takes(
        &mut self,
        now: Instant,
        protocol: Protocol,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Option<bool> {
        let inode = self.may_look_up(now).then(|| self.inode(protocol, local, remote))?;
        Some(inode.ok()?.is_some())
    }

    /// Takes one look-up from what this second may spend.
    fn may_look_up(&mut self, now: Instant) -> bool {
        if now.saturating_since(self.refilled) >= Duration::from_secs(1) {
            (self.left, self.refilled) = (Budget::A_SECOND, now);
        }
        let left = self.left.lookups.checked_sub(1);
        self.left.lookups = left.unwrap_or(0);
        left.is_some()
    }

    fn sole_process(&mut self, now: Instant) -> Option<Owner> {
        if self.listed.is_none_or(|at| now.saturating_since(at) >= LIST_AGE) {
            self.listed = Some(now);
            self.sole = match descendants(self.top)[..] {
                [pid] => Owner::of_process(pid),
                _ => None,
            };
        }
        self.sole.clone()
    }

    /// The socket's inode; `None`: no such socket, or nobody holds it any more.
    fn inode(&self, protocol: Protocol, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
        Ok(self.socket(protocol, local, remote)?.filter(|inode| *inode != 0))
    }

    /// The socket's inode, 0 when nobody holds it any more; `None`: no such socket.
    fn socket(&self, protocol: Protocol, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
        let answer = match self.diag.ask(question(protocol, local, remote, self.link)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            answer => answer?,
        };
        let number = answer.get(68..72).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some(u32::from_ne_bytes(number.try_into().expect("four bytes"))))
    }
}

/// `struct inet_diag_req_v2` for one socket.
fn question(protocol: Protocol, local: SocketAddr, remote: SocketAddr, link: u32) -> Message {
    let (number, source, destination) = match protocol {
        Protocol::Tcp => (libc::IPPROTO_TCP, local, remote),
        Protocol::Udp => (libc::IPPROTO_UDP, remote, local),
    };
    let mut fixed = [0_u8; 56];
    fixed[0] = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u8;
    fixed[1] = number as u8;
    fixed[4..8].fill(0xff); // every state
    fixed[8..10].copy_from_slice(&source.port().to_be_bytes());
    fixed[10..12].copy_from_slice(&destination.port().to_be_bytes());
    put(&mut fixed[12..28], source.ip());
    put(&mut fixed[28..44], destination.ip());
    fixed[44..48].copy_from_slice(&link.to_ne_bytes());
    fixed[48..56].fill(0xff); // any cookie
    Message::new(SOCK_DIAG_BY_FAMILY, 0, &fixed)
}

fn put(to: &mut [u8], ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => to[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => to.copy_from_slice(&v6.octets()),
    }
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// A process and the sockets it had when its descriptors were walked through.
#[derive(Debug)]
struct Holder {
    process: Process,
    sockets: HashSet<u32>,
}

impl Holder {
    /// Walks through the descriptors of `pid`, `left` at most; `None`: it is gone, or not ours to look at.
    fn walk(pid: u32, left: &mut usize) -> Option<Self> {
        let process = Process::open(pid)?;
        let mut sockets = HashSet::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten().take(*left) {
            *left -= 1;
            sockets.extend(fs::read_link(entry.path()).ok().and_then(|link| socket_inode(link.to_str()?)));
        }
        Some(Self { process, sockets })
    }
}

/// `socket:[4711]`.
fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    /// The interface of this test's connections.
    const LOOPBACK: u32 = 1;

    /// Looks below this test's parent, so that the test itself is inside.
    fn owners() -> Owners {
        let parent = rustix::process::getppid().expect("a parent").as_raw_nonzero().get();
        Owners::new(Netlink::sock_diag().unwrap().into(), parent.cast_unsigned(), LOOPBACK)
    }

    #[test]
    fn connection_of_this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let owner = owners().owner(Instant::ZERO, Protocol::Tcp, local, remote).expect("found");
        assert_eq!(owner.pid, std::process::id());
        drop(stream);
        assert_eq!(
            owners().owner(Instant::ZERO, Protocol::Tcp, local, remote),
            None,
            "closed: nobody holds it"
        );
        assert!(owners().has_socket(Protocol::Tcp, local, remote), "and its kernel serves it to its end");
        assert!(!owners().has_socket(Protocol::Tcp, local, "127.0.0.1:9".parse().unwrap()));
    }

    #[test]
    fn socket_that_is_bound_to_its_interface_is_found() {
        crate::stage::play(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let remote = listener.local_addr().unwrap();
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind_device(Some(b"lo")).unwrap();
            let stream = socket.connect(remote).await.unwrap();
            let local = stream.local_addr().unwrap();
            assert!(owners().has_socket(Protocol::Tcp, local, remote));
            let owner = owners().owner(Instant::ZERO, Protocol::Tcp, local, remote).expect("found");
            assert_eq!(owner.pid, std::process::id());
        });
    }

    #[test]
    fn datagram_socket_of_this_process_is_found() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(peer.local_addr().unwrap()).unwrap();
        let (local, remote) = (socket.local_addr().unwrap(), peer.local_addr().unwrap());
        let owner = owners().owner(Instant::ZERO, Protocol::Udp, local, remote).expect("found");
        assert_eq!(owner.pid, std::process::id());
    }

    #[test]
    fn services_and_containers_are_named() {
        let hash = "4f".repeat(32);
        for (groups, expected) in [
            ("1:cpu:/\n0::/system.slice/nginx.service\n".to_owned(), Some("nginx.service")),
            (format!("0::/system.slice/docker-{hash}.scope\n"), Some("container:4f4f4f4f4f4f")),
            (format!("0::/kubepods/pod1/{hash}\n"), Some("container:4f4f4f4f4f4f")),
            ("0::/user.slice/session-3.scope\n".to_owned(), Some("session-3.scope")),
            ("0::/user.slice\n".to_owned(), None),
            ("0::/\n".to_owned(), None),
        ] {
            assert_eq!(unit(&groups).as_deref(), expected, "{groups}");
        }
    }

    #[test]
    fn look_ups_are_bounded_a_second() {
        // Nobody is below a process that does not exist.
        let mut owners = Owners::new(Netlink::sock_diag().unwrap().into(), u32::MAX, LOOPBACK);
        owners.left.lookups = 1;
        let nowhere = "127.0.0.1:9".parse().unwrap();
        for _ in 0..3 {
            assert_eq!(owners.owner(Instant::ZERO, Protocol::Tcp, nowhere, nowhere), None);
        }
        assert_eq!(owners.left.lookups, 0);
        assert_eq!(owners.takes(Instant::ZERO, Protocol::Udp, nowhere, nowhere), None, "not known, not no");
        owners.owner(Instant::from_millis(1000), Protocol::Tcp, nowhere, nowhere);
        assert_eq!(owners.takes(Instant::from_millis(1000), Protocol::Udp, nowhere, nowhere), Some(false));
        assert_eq!(owners.left.lookups, Budget::A_SECOND.lookups - 2);
    }

    #[test]
    fn descriptors_are_bounded_and_those_once_met_cost_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let streams: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(at).unwrap()).collect();
        let mut owners = owners();
        let mut cost = Vec::new();
        for stream in &streams {
            let before = owners.left.descriptors;
            let found = owners.owner(Instant::ZERO, Protocol::Tcp, stream.local_addr().unwrap(), at);
            assert_eq!(found.map(|owner| owner.pid), Some(std::process::id()));
            cost.push(before - owners.left.descriptors);
        }
        assert!(cost[0] >= 21, "{cost:?}");
        assert_eq!(cost[1..], [0; 19]);

        let later = TcpStream::connect(at).unwrap();
        owners.left.descriptors = 3;
        assert_eq!(owners.owner(Instant::ZERO, Protocol::Tcp, later.local_addr().unwrap(), at), None);
        assert_eq!(owners.left.descriptors, 0);
    }
}
