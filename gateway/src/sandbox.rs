//! A network namespace with one program in it, made without privileges.
//!
//! Owns:    [`Sandbox`], the parent's side: starting the helper, its user map, the link's descriptor, the program's fate.
//! Input:   [`SandboxConfig`]; signals to pass on.
//! Output:  the link and a sock_diag descriptor of the namespace, then [`ProgramEvent`]s.
//! Rules:   the helper is this same binary, run anew with one thread: `unshare` with CLONE_NEWUSER refuses a process
//!          that has a runtime's threads. [`enter_if_asked`] must therefore be the first thing in `main`.
//! Not here: the network behind the device (`forward`).

mod failure;
mod files;
mod helper;
mod link;
mod message;
pub(crate) mod processes;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};

use lastack::{Device, Tun, Veth};
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use failure::{SandboxError, Stage};
pub use link::{DeviceChoice, DeviceKind};
use message::{FromHelper, ToHelper};

use crate::{signals, sys};

const HELPER: &str = "__sandbox";

/// What to run, and in what kind of namespace.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// The program, looked up in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// MTU of the program's interface, bytes, 1280..=65521. Default 1500.
    pub mtu: u32,
    /// The program sees itself as uid 0.
    pub root_map: bool,
    /// The program inherits every descriptor, not only 0, 1 and 2.
    pub keeps_descriptors: bool,
    /// The program's link.
    pub device: DeviceChoice,
    /// Whether there is a default route for IPv4, for IPv6. Without it the addresses of [`crate::addresses`] are still
    /// reached. Default both.
    pub default_routes: [bool; 2],
    /// A directory that the program sees empty: where control sockets are.
    pub hidden: Option<PathBuf>,
}

impl SandboxConfig {
    /// `program` with `arguments`, MTU 1500, the user's own uid, the best link there is.
    pub fn new(program: impl Into<OsString>, arguments: impl IntoIterator<Item = OsString>) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().collect(),
            mtu: 1500,
            root_map: false,
            keeps_descriptors: false,
            device: DeviceChoice::default(),
            default_routes: [true; 2],
            hidden: None,
        }
    }
}

/// What the namespace turned out to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The link.
    pub device: DeviceKind,
    /// A TUN was tried first, and this errno was the answer.
    pub tun_refused: Option<i32>,
    /// There is a user namespace (root does without where they are refused).
    pub user_namespace: bool,
    /// IPv6 is configured.
    pub ipv6: bool,
    /// `/etc/resolv.conf` leads to the stack.
    pub resolver: bool,
    /// The namespace's port range, `tcp_tw_reuse` and `ip_unprivileged_port_start` are set.
    pub sysctls: bool,
}

/// What became of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgramEvent {
    /// It runs under this process id.
    Started(u32),
    /// It could not be executed: this errno.
    NotStarted(i32),
    /// It was stopped by this signal, as by Ctrl-Z.
    Stopped(i32),
    /// It exited with this status (128 + N for signal N).
    Exited(u8),
    /// No process is left inside; the last event.
    AllGone,
}

/// A namespace that waits for its program, or has it. Dropping it ends whatever runs inside.
#[derive(Debug)]
pub struct Sandbox {
    socket: OwnedFd,
    helper: Child,
    facts: Facts,
    mtu: u32,
    link: Option<OwnedFd>,
    diag: Option<OwnedFd>,
}

/// Becomes the sandbox's helper when this process was started as such. Call it first in `main`, before any thread
/// or runtime exists; it returns at once in every other process.
pub fn enter_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == OsStr::new(HELPER)).then(|| helper::main(arguments))
}

impl Sandbox {
    /// Makes the namespace; the program does not run before [`Sandbox::start`].
    ///
    /// # Errors
    /// Where the kernel or a policy refuses; the error names the remedy.
    pub fn create(config: &SandboxConfig) -> Result<Self, SandboxError> {
        let failed = |stage| move |error| SandboxError::new(stage, error);
        let (socket, theirs) = message::pair().map_err(failed(Stage::Spawn))?;
        let mut command = Command::new("/proc/self/exe");
        command
            .args([HELPER, &helper::socket_argument(&theirs), &config.mtu.to_string()])
            .args([config.root_map, config.keeps_descriptors].map(|yes| if yes { "1" } else { "0" }))
            .arg(config.device.number().to_string())
            .args(config.default_routes.map(|route| if route { "1" } else { "0" }))
            .arg(config.hidden.as_deref().map_or(OsStr::new(""), |path| path.as_os_str()))
            .arg(&config.program)
            .args(&config.arguments);
        let helper =
            sys::spawn(&mut command, &signals::READ, Some(theirs.as_fd())).map_err(failed(Stage::Spawn))?;
        drop(theirs);
        let mut sandbox = Self {
            socket,
            helper,
            facts: Facts {
                device: DeviceKind::Tun,
                tun_refused: None,
                user_namespace: false,
                ipv6: false,
                resolver: false,
                sysctls: false,
            },
            mtu: config.mtu,
            link: None,
            diag: None,
        };
        sandbox.settle()?;
        Ok(sandbox)
    }

    /// Talks with the helper until the namespace is ready.
    fn settle(&mut self) -> Result<(), SandboxError> {
        loop {
            let talk = |error| SandboxError::new(Stage::Talk, error);
            match FromHelper::receive(&self.socket, RecvFlags::empty()).map_err(talk)? {
                Some((FromHelper::Unshared { user }, _)) => {
                    self.facts.user_namespace = user;
                    let written = user && self.write_full_maps();
                    ToHelper::Maps { written }.send(&self.socket).map_err(talk)?;
                }
                Some((FromHelper::TunRefused(errno), _)) => self.facts.tun_refused = Some(errno),
                Some((FromHelper::Ready { veth, ipv6, resolver, sysctls }, fds)) => {
                    let mut fds = fds.into_iter();
                    (self.link, self.diag) = (fds.next(), fds.next());
                    let device = if veth { DeviceKind::Veth } else { DeviceKind::Tun };
                    self.facts = Facts { device, ipv6, resolver, sysctls, ..self.facts };
                    return Ok(());
                }
                Some((FromHelper::Failed(stage, errno), _)) => {
                    let error = SandboxError::new(stage, io::Error::from_raw_os_error(errno));
                    return Err(error.after_tun(self.facts.tun_refused));
                }
                Some(_) => return Err(talk(io::Error::from(io::ErrorKind::InvalidData))),
                None => return Err(talk(io::Error::from(io::ErrorKind::UnexpectedEof))),
            }
        }
    }

    /// As root: every id that exists here exists inside under the same number, so that programs can change user
    /// (a 0→0 map breaks nginx and sshd). False: not permitted, the helper maps its own id only.
    fn write_full_maps(&self) -> bool {
        if !rustix::process::geteuid().is_root() {
            return false;
        }
        let pid = self.helper.id();
        ["uid_map", "gid_map"].into_iter().all(|name| {
            fs::read_to_string(format!("/proc/self/{name}"))
                .and_then(|own| fs::write(format!("/proc/{pid}/{name}"), identity_map(&own)))
                .is_ok()
        })
    }

    /// What the namespace has.
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// The stack's end of the link; `None` when it was taken already.
    ///
    /// # Errors
    /// The link cannot be used.
    pub fn take_device(&mut self) -> io::Result<Option<Box<dyn Device>>> {
        let Some(fd) = self.link.take() else { return Ok(None) };
        Ok(Some(match self.facts.device {
            DeviceKind::Tun => Box::new(Tun::from_fd(fd, self.mtu)?),
            DeviceKind::Veth => Box::new(Veth::from_fd(fd, self.mtu, link::PROGRAM_MAC)?),
        }))
    }

    /// A sock_diag socket of the namespace; `None` when it was taken already.
    pub fn take_sock_diag(&mut self) -> Option<OwnedFd> {
        self.diag.take()
    }

    /// A process that is in the namespace as long as anything is: `/proc/PID/net` is the namespace's.
    pub fn helper_pid(&self) -> u32 {
        self.helper.id()
    }

    /// Starts the program. Its fate comes by [`Sandbox::events`].
    ///
    /// # Errors
    /// When the helper is gone.
    pub fn start(&self) -> io::Result<()> {
        ToHelper::Go.send(&self.socket)
    }

    /// Sends `signal` to the program. Nothing happens when it has ended.
    pub fn signal(&self, signal: i32) {
        let _ = ToHelper::Signal(signal).send(&self.socket);
    }

    /// Sends SIGKILL to everything inside.
    pub fn kill_leftovers(&self) {
        let _ = ToHelper::KillLeftovers.send(&self.socket);
    }

    /// The program's events, for the runtime this is called in.
    ///
    /// # Errors
    /// When the descriptor cannot be registered.
    pub fn events(&self) -> io::Result<ProgramEvents> {
        Ok(ProgramEvents { socket: sys::register(self.socket.try_clone()?, Interest::READABLE)? })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The helper ends everything inside, then itself, when its socket ends; a second end of it may be held by
        // `ProgramEvents`, so it is shut down, not only closed.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let _ = self.helper.wait();
    }
}

/// Where a program's events are read.
#[derive(Debug)]
pub struct ProgramEvents {
    socket: AsyncFd<OwnedFd>,
}

impl ProgramEvents {
    /// The next event; [`ProgramEvent::AllGone`] for ever when the helper is gone.
    pub async fn next(&self) -> ProgramEvent {
        loop {
            let Ok(mut ready) = self.socket.readable().await else { return ProgramEvent::AllGone };
            match ready.try_io(|socket| FromHelper::receive(socket.get_ref(), RecvFlags::DONTWAIT)) {
                Ok(Ok(Some((message, _)))) => match message {
                    FromHelper::Started { pid } => return ProgramEvent::Started(pid),
                    FromHelper::NotStarted(errno) => return ProgramEvent::NotStarted(errno),
                    FromHelper::Stopped(signal) => return ProgramEvent::Stopped(signal),
                    FromHelper::Exited(status) => return ProgramEvent::Exited(exit_status(status)),
                    FromHelper::AllGone => return ProgramEvent::AllGone,
                    FromHelper::Unshared { .. }
                    | FromHelper::TunRefused(_)
                    | FromHelper::Ready { .. }
                    | FromHelper::Failed(..) => {}
                },
                Ok(Ok(None) | Err(_)) => return ProgramEvent::AllGone,
                Err(_would_block) => {}
            }
        }
    }
}

/// The shell's number for a wait status: the exit code, or 128 + the signal.
pub(crate) fn exit_status(status: i32) -> u8 {
    if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status) as u8
    } else {
        libc::WEXITSTATUS(status) as u8
    }
}

/// A map in which every id that `own` (`/proc/self/uid_map`) has inside is itself.
fn identity_map(own: &str) -> String {
    let mut map = String::new();
    for line in own.lines() {
        let mut words = line.split_whitespace();
        if let (Some(inside), Some(_), Some(count)) = (words.next(), words.next(), words.next()) {
            map.push_str(&format!("{inside} {inside} {count}\n"));
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_map_keeps_the_ranges_that_exist() {
        assert_eq!(identity_map("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity_map("0 100000 65536\n65536 1000 1\n"), "0 0 65536\n65536 65536 1\n");
    }

    #[test]
    fn exit_status_is_the_shells() {
        assert_eq!(exit_status(3 << 8), 3);
        assert_eq!(exit_status(libc::SIGKILL), 128 + 9);
    }
}
