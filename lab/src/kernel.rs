//! The kernel as target: Linux's own TCP in a fresh network namespace, in real time.
//!
//! Owns:    [`with_kernel`], which makes a namespace with one TUN device on a thread of its own, and
//!          [`KernelTarget`]. Packets leave the host's stack through `tun0`; a packet socket there gives them
//!          with the kernel's timestamps, so that a busy lab does not blur times.
//! Input:   root (or CAP_NET_ADMIN and CAP_NET_RAW over a namespace of one's own), `/dev/net/tun`, `ip`.
//! Differs: the baseline is fixed here (congestion control, buffers), because a new namespace copies these from
//!          the machine.

mod application;
mod congestion;
mod diag;
mod tables;

use core::net::SocketAddr;
use core::time::Duration;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use lastack_core::observe::SocketRow;

pub use congestion::CubicAllowed;

use crate::script::assertion::Variables;
use crate::sys;
use crate::target::{Call, Done, Fd, IpVersion, Sent, Setting, SocketFacts, Target, TargetError, World};
use application::Application;

/// Baseline of every namespace: Linux's defaults, where a namespace would copy the machine's own.
const BASELINE: [(&str, &str); 7] = [
    ("net.ipv4.tcp_rmem", "4096 131072 33554432"),
    ("net.ipv4.tcp_wmem", "4096 16384 4194304"),
    ("net.ipv4.tcp_congestion_control", "cubic"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.tcp_ecn", "2"),
    ("net.ipv4.ip_no_pmtu_disc", "0"),
];

const DEVICE: &str = "tun0";

/// Linux in a namespace, with an application thread in it.
#[derive(Debug)]
pub struct KernelTarget {
    tun: OwnedFd,
    sniffer: OwnedFd,
    diag: OwnedFd,
    application: Application,
    directory: std::path::PathBuf,
    buffer: Vec<u8>,
}

/// Runs `work` with a kernel target in a network namespace that lasts as long as the call.
///
/// # Errors
/// What is missing on this machine to make one, with the permission that grants it.
pub fn with_kernel<T: Send>(
    world: &World,
    work: impl FnOnce(&mut KernelTarget) -> T + Send,
) -> Result<T, TargetError> {
    // A thread of its own: only a thread that ends can give its namespace back.
    std::thread::scope(|scope| {
        let inside = || {
            sys::unshare_network_and_files().map_err(|errno| {
                refused(
                    "a network namespace",
                    errno,
                    "run as root, or inside `unshare --user --map-root-user --net`",
                )
            })?;
            let mut target = KernelTarget::new(world)?;
            Ok(work(&mut target))
        };
        scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn refused(what: &str, errno: i32, permission: &str) -> TargetError {
    TargetError(format!("cannot make {what}: {}; {permission}", sys::os_error(errno)))
}

impl KernelTarget {
    /// On a thread that is alone in its network namespace.
    fn new(world: &World) -> Result<Self, TargetError> {
        sys::allow_interrupts();
        let v6 = world.ip == IpVersion::V6;
        let disabled = if v6 { "0" } else { "1" };
        for scope in ["all", "default"] {
            write_sysctl(&format!("net.ipv6.conf.{scope}.disable_ipv6"), disabled)?;
            write_sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0")?;
            write_sysctl(&format!("net.ipv6.conf.{scope}.router_solicitations"), "0")?;
        }
        for (name, value) in BASELINE {
            write_sysctl(name, value)?;
        }
        let tun = sys::open_tun(DEVICE).map_err(|errno| {
            refused("a TUN device", errno, "it needs /dev/net/tun, readable and writable")
        })?;
        let prefix = if v6 { 64 } else { 16 };
        let (local, remote, mtu) = (world.local, world.remote, world.mtu);
        let addressing = if v6 { " nodad" } else { "" };
        let generation = if v6 { format!("link set dev {DEVICE} addrgenmode none\n") } else { String::new() };
        let host = if v6 { 128 } else { 32 };
        ip_batch(&format!(
            "link set dev lo up\n{generation}link set dev {DEVICE} mtu {mtu} up\n\
             address add {local}/{prefix} dev {DEVICE}{addressing}\nroute replace {remote}/{host} dev {DEVICE}\n"
        ))?;
        let sniffer = sys::open_sniffer(DEVICE)
            .map_err(|errno| refused("a packet socket", errno, "it needs CAP_NET_RAW in the namespace"))?;
        let diag = sys::open_sock_diag()
            .map_err(|errno| refused("a sock_diag socket", errno, "the kernel needs CONFIG_INET_DIAG"))?;
        // Where this is refused the lab still works, only less punctually.
        sys::raise_priority();
        Ok(Self {
            tun,
            sniffer,
            diag,
            application: Application::start(),
            directory: world.directory.clone(),
            buffer: vec![0; 1 << 17],
        })
    }

    /// The socket between two addresses, if there is one.
    pub(crate) fn row(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<SocketRow>, TargetError> {
        diag::row(&self.diag, local, remote)
    }

    /// Packets on TUN's own queue have been seen by the sniffer; the queue must not fill.
    fn drain_tun(&mut self) {
        while sys::read_some(&self.tun, &mut self.buffer) > 0 {}
    }
}

impl Target for KernelTarget {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn now(&mut self) -> Duration {
        sys::now()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn sleep_until(&mut self, at: Duration) {
        loop {
            let left = at.saturating_sub(sys::now());
            if left.is_zero() {
                return;
            }
            sys::sleep(left);
        }
    }

    fn inject(&mut self, packet: &[u8]) -> Result<(), TargetError> {
        self.drain_tun();
        sys::write_all(&self.tun, packet)
            .map_err(|errno| TargetError(format!("cannot write to {DEVICE}: {}", sys::os_error(errno))))
    }

    fn receive(&mut self, deadline: Duration) -> Result<Option<Sent>, TargetError> {
        loop {
            self.drain_tun();
            match sys::read_sniffer(&self.sniffer, &mut self.buffer) {
                Ok(Some(packet)) if packet.outgoing => {
                    return Ok(Some(Sent { at: packet.at, bytes: self.buffer[..packet.len].to_vec() }));
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    let left = deadline.saturating_sub(sys::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    sys::wait_readable(&self.sniffer, left);
                }
                Err(errno) => {
                    return Err(TargetError(format!(
                        "cannot read packets of {DEVICE}: {}",
                        sys::os_error(errno)
                    )));
                }
            }
        }
    }

    fn begin_call(&mut self, call: &Call) -> Option<Done> {
        self.application.begin(call)
    }

    fn await_call(&mut self, deadline: Duration) -> Option<Done> {
        self.application.wait(deadline.saturating_sub(sys::now()))
    }

    fn apply(&mut self, setting: &Setting) -> Result<(), TargetError> {
        match setting {
            Setting::Sysctl(name, value) => write_sysctl(name, value),
            Setting::Shell(text) => shell(text, &self.directory),
        }
    }

    fn socket_info(&mut self, fd: Fd) -> Result<Variables, TargetError> {
        tables::socket_info(fd)
    }

    fn socket_state(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<SocketFacts>, TargetError> {
        tables::socket_state(local, remote)
    }

    fn counter(&mut self, name: &str) -> Result<u64, TargetError> {
        tables::counter(name)
    }
}

/// In this thread's network namespace: `/proc/sys/net` shows the reader's own.
fn write_sysctl(name: &str, value: &str) -> Result<(), TargetError> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::write(&path, value)
        .map_err(|error| TargetError(format!("cannot set {name} to `{value}`: {error}")))
}

fn ip_batch(commands: &str) -> Result<(), TargetError> {
    let failed = |what: &str| TargetError(format!("`ip -batch` {what}; it is part of iproute2"));
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&format!("cannot run: {error}")))?;
    let mut input = child.stdin.take().expect("a piped standard input");
    input.write_all(commands.as_bytes()).map_err(|error| failed(&format!("does not read: {error}")))?;
    drop(input);
    let output = child.wait_with_output().map_err(|error| failed(&format!("cannot be awaited: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(&format!("failed: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

fn shell(text: &str, directory: &std::path::Path) -> Result<(), TargetError> {
    let directory = if directory.as_os_str().is_empty() { std::path::Path::new(".") } else { directory };
    let output = Command::new("sh")
        .args(["-c", text])
        .current_dir(directory)
        .env("PACKETDRILL_PID", std::process::id().to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| TargetError(format!("cannot run the shell: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(TargetError(format!("`{text}` failed ({}): {}", output.status, said.trim())))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;
    use crate::run::world_of;

    /// What a child of another thread would inherit is what the process's first thread has.
    #[test]
    fn what_a_target_opens_no_other_thread_has() {
        let script = crate::script::parse("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3").expect("a script");
        let world = world_of(&script, std::path::Path::new("")).expect("a world");
        // Without it no namespace can be made.
        let _cubic = CubicAllowed::ensure();
        let seen = with_kernel(&world, |target| {
            let link =
                |who: &str| std::fs::read_link(format!("/proc/{who}/fd/{}", target.tun.as_raw_fd())).ok();
            (link("thread-self"), link("self"))
        });
        match seen {
            Ok((here, leader)) => assert!(here.is_some() && here != leader, "{here:?} {leader:?}"),
            Err(why) => {
                assert!(
                    std::env::var_os("LASTACK_REQUIRE_E2E").is_none_or(|v| v != "1"),
                    "required, but {why}"
                );
                eprintln!("SKIPPED: no kernel target: {why}");
            }
        }
    }
}
