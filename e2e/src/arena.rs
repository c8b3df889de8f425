//! Three private network namespaces, so that no other traffic of the machine is in the counters:
//!
//! ```text
//! program 10.0.2.100 ── 10.0.2.2 host 192.0.2.1 ── 192.0.2.254 remote (servers on 203.0.113.7, fd00:bb::7)
//! ```
//!
//! Plain Linux crosses the host as through a router; lastack, pasta and slirp4netns run *in* the host namespace and
//! make the program's own. What answers is the same for all: `remote`, which also has addresses that are
//! unreachable, prohibited, unknown and silent. Nothing is left behind: the namespaces live as long as their processes.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::{Process, run};

/// Where the servers of the remote namespace are.
pub const SERVER_V4: &str = "203.0.113.7";
/// The same, IPv6.
pub const SERVER_V6: &str = "fd00:bb::7";
/// The host, as the remote namespace reaches it.
pub const HOST_V4: &str = "192.0.2.1";
/// The program's namespace on plain Linux, as the remote namespace reaches it.
pub const PROGRAM_V4: &str = "10.0.2.100";
/// The router answers "host unreachable" (ICMP 3/1).
pub const HOST_UNREACHABLE: &str = "198.51.100.1";
/// The router says nothing.
pub const SILENT: &str = "198.51.100.2";
/// The router answers "administratively prohibited" (ICMP 3/13).
pub const PROHIBITED: &str = "198.51.100.3";
/// The router has no way there: "network unreachable" (ICMP 3/0).
pub const NET_UNREACHABLE: &str = "198.51.100.4";
/// The host itself says "host unreachable".
pub const HOST_REFUSES: &str = "198.51.100.5";
/// The router answers "no route" (ICMPv6 1/0).
pub const UNREACHABLE_V6: &str = "fd00:dead::1";

const MARK: &str = "LASTACK_E2E_ARENA";

/// The three namespaces; this process is in the host's.
#[derive(Debug)]
pub struct Arena {
    remote: Process,
    program: Process,
}

impl Arena {
    /// Starts this program again inside a fresh network namespace, unless that has happened already.
    ///
    /// # Errors
    /// The system allows no namespaces; the text says what to try.
    pub fn enter() -> io::Result<()> {
        if std::env::var_os(MARK).is_some() {
            return Ok(());
        }
        let mut command = Command::new("unshare");
        // Not root: a user namespace in which we may configure the network one.
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--net", "--"]).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
        Err(command.env(MARK, "1").exec())
    }

    /// Configures the host namespace this process is in, and makes the other two.
    ///
    /// # Errors
    /// A command of iproute2 fails, with its text.
    pub fn build() -> io::Result<Self> {
        let (remote, program) = (namespace()?, namespace()?);
        let arena = Self { remote, program };
        let (r, p) = (arena.remote.id().to_string(), arena.program.id().to_string());
        shell(&HOST.replace("$R", &r).replace("$P", &p), None)?;
        shell(REMOTE, Some(arena.remote.id()))?;
        shell(PROGRAM, Some(arena.program.id()))?;
        Ok(arena)
    }

    /// A command that runs in the remote namespace.
    #[must_use]
    pub fn in_remote(&self) -> Command {
        in_namespace(self.remote.id())
    }

    /// The process that holds the remote namespace.
    #[must_use]
    pub fn remote_id(&self) -> u32 {
        self.remote.id()
    }

    /// The process that holds plain Linux's program namespace.
    #[must_use]
    pub fn program_id(&self) -> u32 {
        self.program.id()
    }

    /// Sets the MTU on both ends of the pair between program and host.
    ///
    /// # Errors
    /// The kernel refuses that size.
    pub fn set_program_mtu(&self, mtu: u32) -> io::Result<()> {
        shell(&format!("ip link set to-program mtu {mtu}"), None)?;
        shell(&format!("ip link set to-host mtu {mtu}"), Some(self.program.id()))
    }
}

/// A process that holds a new network namespace until it is dropped or its parent is gone (end of its input).
///
/// # Errors
/// The namespace cannot be made.
pub fn namespace() -> io::Result<Process> {
    let mut process = Process::spawn(Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()))?;
    let own = std::fs::read_link("/proc/self/ns/net")?;
    let path = format!("/proc/{}/ns/net", process.id());
    let made = crate::clock::until(Duration::from_secs(5), || {
        std::fs::read_link(&path).ok().filter(|theirs| *theirs != own)
    });
    match made {
        Some(_) => Ok(process),
        None => {
            let status = process.wait_within(Duration::ZERO)?;
            Err(io::Error::other(format!("unshare --net made no namespace ({status:?})")))
        }
    }
}

/// A command in the network namespace of process `pid`; add the program and its arguments.
#[must_use]
pub fn in_namespace(pid: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--net", "--target", &pid.to_string(), "--"]);
    command
}

/// Runs `script` line by line in this namespace or that of process `pid`; stops at the first failure.
///
/// # Errors
/// That failure, with the shell's text.
pub fn shell(script: &str, pid: Option<u32>) -> io::Result<()> {
    let mut command = match pid {
        Some(pid) => in_namespace(pid),
        None => Command::new("env"),
    };
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    command.args(["sh", "-ec", script]).env("PATH", path);
    let finished = run(&mut command, Duration::from_secs(20))?;
    if finished.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("could not set up the test network: {}", finished.stderr.trim())))
}

const HOST: &str = "
ip link set lo up
ip link add to-remote type veth peer name to-host netns $R
ip link add to-program type veth peer name to-host netns $P
ip addr add 192.0.2.1/24 dev to-remote
ip -6 addr add fd00:aa::1/64 dev to-remote nodad
ip addr add 10.0.2.2/24 dev to-program
ip -6 addr add fd00:6c61::2/64 dev to-program nodad
ip link set to-remote up
ip link set to-program up
ip route add default via 192.0.2.254
ip -6 route add default via fd00:aa::fe
ip route add unreachable 198.51.100.5
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
echo 0 > /proc/sys/net/ipv6/icmp/ratelimit
";

const REMOTE: &str = "
ip link set lo up
ip addr add 203.0.113.7/32 dev lo
ip -6 addr add fd00:bb::7/128 dev lo nodad
ip addr add 192.0.2.254/24 dev to-host
ip -6 addr add fd00:aa::fe/64 dev to-host nodad
ip link set to-host up
ip route add 10.0.2.0/24 via 192.0.2.1
ip -6 route add fd00:6c61::/64 via fd00:aa::1
ip route add unreachable 198.51.100.1
ip route add blackhole 198.51.100.2
ip route add prohibit 198.51.100.3
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
echo 0 > /proc/sys/net/ipv6/icmp/ratelimit
";

const PROGRAM: &str = "
ip link set lo up
ip addr add 10.0.2.100/24 dev to-host
ip -6 addr add fd00:6c61::100/64 dev to-host nodad
ip link set to-host up
ip route add default via 10.0.2.2
ip -6 route add default via fd00:6c61::2
";
