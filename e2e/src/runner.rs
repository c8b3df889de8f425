//! `lastack run` as a test starts it: as this user or as nobody (uid 65534), with a journal of its own.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::journal::{self, Connection};
use crate::process::{Finished, run};
use crate::{binaries, needs, servers};

/// The host's loopback as programs behind `lastack run` call it.
pub const HOST_V4: &str = "10.0.2.2";
/// The same, IPv6, as it stands in a URL.
pub const HOST_V6: &str = "[fd00:6c61::2]";

/// Which link the programs get: `LASTACK_E2E_DEVICE=veth`, or whatever `--device auto` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// What `lastack run` takes by itself; nobody gets a `/dev/net/tun` of its own.
    Auto,
    /// A veth pair; nobody finds the machine's `/dev/net/tun`, which is root's, and must take the veth by itself.
    Veth,
}

/// The link the tests run over.
///
/// # Panics
/// `LASTACK_E2E_DEVICE` is something else than `veth`.
#[must_use]
pub fn device() -> Device {
    match std::env::var("LASTACK_E2E_DEVICE").as_deref() {
        Err(_) | Ok("" | "auto") => Device::Auto,
        Ok("veth") => Device::Veth,
        Ok(other) => panic!("LASTACK_E2E_DEVICE={other}: `veth` or nothing"),
    }
}

/// The flags of `lastack run` that choose the link for a program of this user.
#[must_use]
pub fn device_flags() -> &'static [&'static str] {
    match device() {
        Device::Auto => &[],
        Device::Veth => &["--device", "veth"],
    }
}

/// Who runs `lastack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the test.
    Current,
    /// uid 65534 without groups, from root, with a `/dev/net/tun` of its own that it may open; over a veth, with the
    /// machine's, which it may not.
    Nobody,
}

/// The users a test can be run as: both as root, else only ourselves.
#[must_use]
pub fn users() -> Vec<User> {
    if needs::is_root() { vec![User::Current, User::Nobody] } else { vec![User::Current] }
}

/// Why `lastack run` cannot be tested here at all, if so.
#[must_use]
pub fn unavailable() -> Option<String> {
    needs::missing(&["setpriv", "unshare"])
}

/// Whether nobody is given a TUN: there is one to give, and it is not the veth that is to be tested.
fn nobody_has_tun() -> bool {
    device() == Device::Auto && Path::new("/dev/net/tun").exists()
}

/// One `lastack run`, not yet started.
#[derive(Debug)]
pub struct Runner {
    user: User,
    flags: Vec<String>,
    dir: TempDir,
}

impl Runner {
    /// As `user`, with its JSON journal in a directory of its own.
    ///
    /// # Panics
    /// No directory for temporary files.
    #[must_use]
    pub fn new(user: User) -> Self {
        let dir = servers::directory().expect("a directory for temporary files");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("our own directory");
        let journal = dir.path().join("journal.json").display().to_string();
        let mut flags = vec!["--report", "json", "--output", &journal];
        if user == User::Current {
            // Nobody has to take the right one by itself.
            flags.extend(device_flags());
        }
        let flags = flags.into_iter().map(str::to_owned).collect();
        Self { user, flags, dir }
    }

    /// Adds flags.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// A directory the program may write to, removed when this is dropped.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `lastack run … -- program`; add the program's arguments.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = lastack_as(self.user, self.dir.path());
        command.arg("run").args(&self.flags).arg("--").arg(program.as_ref());
        command.current_dir(self.dir.path());
        command
    }

    /// Runs `program args…` to its end, at most for `limit`.
    ///
    /// # Panics
    /// `lastack` cannot be started.
    #[must_use]
    pub fn run(&self, program: &str, args: &[&str], limit: Duration) -> Finished {
        run(self.command(program).args(args), limit).expect("lastack starts")
    }

    /// The connections in its journal.
    ///
    /// # Panics
    /// There is none, or it is not JSON lines.
    #[must_use]
    pub fn journal(&self) -> Vec<Connection> {
        journal::connections(&self.dir.path().join("journal.json")).expect("the journal is JSON lines")
    }

    /// The UDP flows in its journal.
    ///
    /// # Panics
    /// There is none, or it is not JSON lines.
    #[must_use]
    pub fn flows(&self) -> Vec<journal::Line> {
        journal::flows(&self.dir.path().join("journal.json")).expect("the journal is JSON lines")
    }

    /// The limits in its journal.
    ///
    /// # Panics
    /// There is none, or it is not JSON lines.
    #[must_use]
    pub fn limits(&self) -> Vec<journal::Line> {
        journal::limits(&self.dir.path().join("journal.json")).expect("the journal is JSON lines")
    }

    /// The lookups in its journal.
    ///
    /// # Panics
    /// There is none, or it is not JSON lines.
    #[must_use]
    pub fn lookups(&self) -> Vec<journal::Line> {
        journal::lookups(&self.dir.path().join("journal.json")).expect("the journal is JSON lines")
    }
}

/// `lastack` as `user`; add the subcommand. `dir` is a directory that user may enter.
///
/// # Panics
/// The program cannot be copied to where nobody may execute it.
#[must_use]
pub fn lastack_as(user: User, dir: &Path) -> Command {
    let lastack = binaries::lastack();
    match user {
        User::Current => Command::new(lastack),
        User::Nobody => {
            let copy = copy_for_all(lastack, dir).expect("our own temporary directory");
            // Not `dir` itself: the directory of control sockets is called as the program.
            let runtime = dir.join("runtime");
            fs::create_dir_all(&runtime).expect("our own temporary directory");
            fs::set_permissions(&runtime, fs::Permissions::from_mode(0o777)).expect("our own directory");
            let mut command = as_nobody(nobody_has_tun());
            command.arg(copy).env("XDG_RUNTIME_DIR", runtime).env("HOME", dir);
            command
        }
    }
}

/// `script` on a host of its own, a network namespace, where `"$@"` is `lastack` as `user`. It runs in `dir`, which that user
/// may enter. Only root can.
///
/// # Panics
/// As [`lastack_as`].
#[must_use]
pub fn on_a_host_of_its_own(user: User, dir: &Path, script: &str) -> Command {
    let lastack = lastack_as(user, dir);
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-ec", script, "sh"]);
    command.arg(lastack.get_program()).args(lastack.get_args()).current_dir(dir);
    command.envs(lastack.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// A command as uid 65534; with `tun`, in a mount namespace whose `/dev/net/tun` it may open. Only root can.
#[must_use]
pub fn as_nobody(tun: bool) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", if tun { NOBODY_WITH_TUN } else { NOBODY }, "sh"]);
    command
}

/// A copy of `program` in `dir` that everybody may execute: a build directory may be closed to others.
///
/// # Errors
/// It cannot be written.
pub fn copy_for_all(program: &Path, dir: &Path) -> io::Result<PathBuf> {
    let copy = dir.join(program.file_name().unwrap_or_default());
    if !copy.exists() {
        fs::copy(program, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    }
    Ok(copy)
}

const NOBODY: &str = "exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"";

/// A node with open permissions in a private mount namespace: the machine's own is not touched.
const NOBODY_WITH_TUN: &str = "
mount -t tmpfs -o size=4k,nr_inodes=4,mode=755 lastack-e2e /mnt
mknod -m 666 /mnt/tun c 10 200
mount --bind /mnt/tun /dev/net/tun
umount -l /mnt
exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"";
