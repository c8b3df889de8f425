//! The ways a program's packets can travel from its own network namespace to the host's.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::arena::{Arena, in_namespace, namespace};
use crate::process::{Process, run};
use crate::{binaries, needs};

/// What `lastack run` gives the program's interface unless told otherwise.
pub const DEFAULT_MTU: u32 = 1500;

/// A way to travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// Plain Linux: a veth pair, the host forwards.
    Direct,
    /// `lastack run`.
    Lastack,
    /// pasta, from the passt project.
    Pasta,
    /// slirp4netns, on libslirp.
    Slirp4netns,
}

/// A carrier set up: commands can be run behind it.
#[derive(Debug)]
pub struct Seat {
    kind: Kind,
    /// MTU of the program's interface.
    mtu: u32,
}

#[derive(Debug)]
enum Kind {
    Direct { program: u32 },
    Lastack { program: PathBuf },
    Pasta { program: PathBuf },
    Slirp4netns { namespace: Process, carrier: Process },
}

impl Carrier {
    /// All, in the order of the league table.
    pub const ALL: [Self; 4] = [Self::Direct, Self::Lastack, Self::Pasta, Self::Slirp4netns];

    /// Its name in tables and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "linux",
            Self::Lastack => "lastack",
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// The carrier of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|carrier| carrier.name() == name)
    }

    /// The host's loopback, as the program must call it.
    #[must_use]
    pub fn host_loopback(self) -> &'static str {
        match self {
            Self::Direct | Self::Lastack | Self::Slirp4netns => "10.0.2.2",
            // pasta maps the address of the host's gateway.
            Self::Pasta => "192.0.2.254",
        }
    }

    /// The version that runs here.
    #[must_use]
    pub fn version(self) -> String {
        let first_line = |program: &Path, args: &[&str]| {
            let output = run(Command::new(program).args(args), Duration::from_secs(5)).ok();
            output.and_then(|o| o.text().lines().next().map(str::to_owned)).unwrap_or_default()
        };
        match self {
            Self::Direct => {
                format!("Linux {}", rustix::system::uname().release().to_string_lossy())
            }
            Self::Lastack => first_line(binaries::lastack(), &["--version"]),
            Self::Pasta => {
                // Debian's pasta calls its own version unknown; the package knows.
                let version = first_line(Path::new("dpkg-query"), &["-W", "-f", "${Version}", "passt"]);
                format!("pasta {version}")
            }
            Self::Slirp4netns => first_line(Path::new("slirp4netns"), &["--version"]).replace(" version", ""),
        }
    }

    /// Why it cannot run here, if so.
    #[must_use]
    pub fn unavailable(self) -> Option<String> {
        match self {
            Self::Direct | Self::Lastack => needs::missing(&["ip", "unshare", "nsenter"]),
            Self::Pasta => needs::missing(&["pasta"]),
            Self::Slirp4netns => needs::missing(&["slirp4netns"]),
        }
    }

    /// Sets it up in the host namespace of `arena`, with that MTU on the program's side.
    ///
    /// # Errors
    /// It is not installed or does not come up.
    pub fn seat(self, arena: &Arena, mtu: u32) -> io::Result<Seat> {
        let installed = |name: &str| {
            needs::find(name)
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{name} is not installed")))
        };
        let kind = match self {
            Self::Direct => {
                arena.set_program_mtu(mtu)?;
                Kind::Direct { program: arena.program_id() }
            }
            Self::Lastack => Kind::Lastack { program: binaries::lastack().to_path_buf() },
            Self::Pasta => Kind::Pasta { program: installed("pasta")? },
            Self::Slirp4netns => slirp4netns(&installed("slirp4netns")?, mtu)?,
        };
        Ok(Seat { kind, mtu })
    }
}

impl Seat {
    /// A command that runs `program` behind this carrier; add the program's arguments.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.command_with(&[], program)
    }

    /// The same; `flags` go to `lastack run` and mean nothing to the others.
    pub fn command_with(&self, flags: &[&str], program: impl AsRef<Path>) -> Command {
        let mut command = match &self.kind {
            Kind::Direct { program } => in_namespace(*program),
            Kind::Lastack { program } => {
                let mut command = Command::new(program);
                command.arg("run");
                if self.mtu != DEFAULT_MTU {
                    command.args(["--mtu", &self.mtu.to_string()]);
                }
                command.args(crate::runner::device_flags()).args(flags).arg("--");
                command
            }
            Kind::Pasta { program } => {
                let mut command = Command::new(program);
                let mtu = self.mtu.to_string();
                command.args(["--runas", "0", "--quiet", "--config-net", "--foreground", "-m", &mtu, "--"]);
                command.stderr(Stdio::null());
                command
            }
            Kind::Slirp4netns { namespace, .. } => in_namespace(namespace.id()),
        };
        command.arg(program.as_ref());
        command
    }

    /// Waits until the program's side has IPv6, which slirp4netns gives by router advertisement seconds after IPv4.
    pub fn await_ipv6(&self) {
        let Kind::Slirp4netns { namespace, .. } = &self.kind else { return };
        // Without it the IPv6 cases show what they show.
        let _ = crate::clock::until(Duration::from_secs(5), || {
            let addresses = std::fs::read_to_string(format!("/proc/{}/net/if_inet6", namespace.id())).ok()?;
            let global = |line: &str| line.ends_with("tap0") && line.split_whitespace().nth(3) == Some("00");
            addresses.lines().any(global).then_some(())
        });
    }

    /// The carrier's own process where it is one that stays for the seat's life.
    #[must_use]
    pub fn resident(&self) -> Option<u32> {
        match &self.kind {
            Kind::Slirp4netns { carrier, .. } => Some(carrier.id()),
            Kind::Direct { .. } | Kind::Lastack { .. } | Kind::Pasta { .. } => None,
        }
    }
}

fn slirp4netns(program: &Path, mtu: u32) -> io::Result<Kind> {
    let namespace = namespace()?;
    let mut command = Command::new(program);
    command.args([
        "--configure",
        "--enable-ipv6",
        &format!("--mtu={mtu}"),
        &namespace.id().to_string(),
        "tap0",
    ]);
    let carrier = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let up = crate::clock::until(Duration::from_secs(10), || {
        let route = std::fs::read_to_string(format!("/proc/{}/net/route", namespace.id())).ok()?;
        // The default route comes last.
        route.lines().any(|line| line.starts_with("tap0\t00000000")).then_some(())
    });
    up.ok_or_else(|| io::Error::other("slirp4netns did not configure its interface within 10 s"))?;
    Ok(Kind::Slirp4netns { namespace, carrier })
}
