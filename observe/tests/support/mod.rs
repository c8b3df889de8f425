//! Worlds for end-to-end tests: a fresh network namespace, and sockets in chosen states.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

pub(crate) mod host;
pub(crate) mod sets;

/// What has not happened by then does not: longer than any state that a test waits out.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `test` in a network namespace of its own, on a thread that ends there.
///
/// Where namespaces cannot be made the test says so loudly, and fails if `LASTACK_REQUIRE_E2E=1`.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let worker = std::thread::spawn(move || {
        #[allow(deprecated, reason = "this thread shares nothing that a namespace change could surprise")]
        let made = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET);
        if let Err(error) = made {
            skipped(&format!("cannot make a network namespace: {error}"));
            return;
        }
        run("ip", &["link", "set", "lo", "up"]);
        test();
    });
    if let Err(panic) = worker.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Says that a test did not run.
pub(crate) fn skipped(why: &str) {
    assert!(std::env::var_os("LASTACK_REQUIRE_E2E").is_none_or(|v| v != "1"), "required, but {why}");
    eprintln!("SKIPPED: {why}");
}

/// Runs a command in the calling thread's namespace and gives its standard output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A connected pair on the loopback: client, server.
pub(crate) fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    let (server, _) = listener.accept().expect("accepts");
    (client, server)
}

/// Tries `check` until it gives something; the kernel's transitions are quick but not immediate.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = lastack_observe::clock::monotonic() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(lastack_observe::clock::monotonic() < end, "never happened: {what}");
        lastack_observe::clock::pause(Duration::from_millis(25));
    }
}

/// Sockets in many states, kept alive.
pub(crate) struct Zoo {
    pub(crate) kept: Vec<TcpStream>,
    pub(crate) listeners: Vec<TcpListener>,
}

/// Listeners, ESTAB, CLOSE-WAIT, FIN-WAIT-2, TIME-WAIT, on IPv4, IPv6 and mapped addresses.
pub(crate) fn zoo() -> Zoo {
    let mut zoo = Zoo { kept: Vec::new(), listeners: Vec::new() };
    for address in ["127.0.0.1:7001", "127.0.0.2:7002", "[::1]:7003", "[::]:7004"] {
        zoo.listeners.push(TcpListener::bind(address).expect("binds"));
    }
    let targets: [SocketAddr; 5] = [
        "127.0.0.1:7001".parse().expect("address"),
        "127.0.0.2:7002".parse().expect("address"),
        "[::1]:7003".parse().expect("address"),
        "[::1]:7004".parse().expect("address"),
        "127.0.0.1:7004".parse().expect("address"),
    ];
    for (index, target) in targets.into_iter().enumerate() {
        let listener = &zoo.listeners[index.min(3)];
        for role in 0..4 {
            let mut client = TcpStream::connect(target).expect("connects");
            let (mut server, _) = listener.accept().expect("accepts");
            match role {
                0 => {
                    client.write_all(b"unread").expect("writes");
                    zoo.kept.extend([client, server]);
                }
                1 => {
                    // FIN-WAIT-2 (owned) and CLOSE-WAIT.
                    client.shutdown(Shutdown::Write).expect("shuts");
                    zoo.kept.extend([client, server]);
                }
                2 => {
                    // TIME-WAIT at the client's end.
                    drop(client);
                    let mut rest = Vec::new();
                    server.read_to_end(&mut rest).expect("reads");
                    drop(server);
                }
                _ => {
                    server.write_all(b"x").expect("writes");
                    zoo.kept.extend([client, server]);
                }
            }
        }
    }
    // The ACK of a FIN may be delayed.
    eventually("the zoo settles", || run("ss", &["-Htn", "state", "fin-wait-1"]).is_empty().then_some(()));
    zoo
}

/// Lets this process open as many files as it may.
pub(crate) fn many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("raises a soft limit");
}

/// Sets a knob of the calling thread's namespace.
pub(crate) fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).unwrap_or_else(|e| panic!("{name}: {e}"));
}

/// A second namespace joined by a wire: 10.7.0.1 is here, 10.7.0.2 there.
pub(crate) struct Neighbour {
    jobs: std::sync::mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Neighbour {
    pub(crate) fn new() -> Self {
        let (jobs, todo) = std::sync::mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (ready, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            #[allow(
                deprecated,
                reason = "this thread shares nothing that a namespace change could surprise"
            )]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("a second namespace");
            let path = format!("/proc/{}/task/{}/ns/net", std::process::id(), rustix::thread::gettid());
            ready.send(path).expect("somebody waits");
            for job in todo {
                job();
            }
        });
        let path = wait.recv().expect("the thread starts");
        run("ip", &["link", "add", "here", "type", "veth", "peer", "name", "there", "netns", &path]);
        run("ip", &["link", "set", "here", "up"]);
        run("ip", &["addr", "add", "10.7.0.1/16", "dev", "here"]);
        let this = Self { jobs };
        this.run(|| {
            run("ip", &["link", "set", "there", "up"]);
            run("ip", &["addr", "add", "10.7.0.2/16", "dev", "there"]);
        });
        this
    }

    /// Does something over there and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, wait) = std::sync::mpsc::channel();
        let job = move || done.send(job()).expect("somebody waits");
        self.jobs.send(Box::new(job)).expect("the neighbour lives");
        wait.recv().expect("the job ends")
    }

    /// From now on it answers nothing: its address is gone, its link and our knowledge of it stay.
    pub(crate) fn falls_silent(&self) {
        self.run(|| run("ip", &["addr", "flush", "dev", "there"]));
    }
}

/// Writes to `stream` until its queue and the peer's are full.
pub(crate) fn fill(stream: &TcpStream) {
    stream.set_nonblocking(true).expect("a flag");
    let mut quiet = 0;
    while quiet < 3 {
        match (&*stream).write(&[7; 65536]) {
            Ok(_) => quiet = 0,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                quiet += 1;
                lastack_observe::clock::pause(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sends a SYN with a forged source to 10.7.0.1 of this namespace.
pub(crate) fn forged_syn(source: std::net::Ipv4Addr, port: u16) {
    use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, sendto, socket};
    let target = std::net::Ipv4Addr::new(10, 7, 0, 1);
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0];
    packet.extend(source.octets());
    packet.extend(target.octets());
    let mut tcp = vec![0u8; 20];
    tcp[0..2].copy_from_slice(&40_000u16.to_be_bytes());
    tcp[2..4].copy_from_slice(&port.to_be_bytes());
    tcp[4..8].copy_from_slice(&u32::from(source).to_be_bytes());
    (tcp[12], tcp[13]) = (5 << 4, 2);
    tcp[14..16].copy_from_slice(&64_000u16.to_be_bytes());
    // Pseudo header, then the segment.
    let mut summed = packet[12..20].to_vec();
    summed.extend([0, 6, 0, 20]);
    summed.extend(&tcp);
    let mut sum: u32 = summed.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    tcp[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet.extend(tcp);
    let raw = Protocol::from_raw(std::num::NonZeroU32::new(255).expect("IPPROTO_RAW is not 0"));
    let fd = socket(AddressFamily::INET, SocketType::RAW, Some(raw)).expect("a raw socket");
    let to = std::net::SocketAddrV4::new(target, 0);
    sendto(&fd, &packet, SendFlags::empty(), &to).expect("sends");
}
