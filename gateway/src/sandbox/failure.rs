//! Why a sandbox could not be made, and the exact remedy.
//!
//! Owns:    [`Stage`], [`SandboxError`] and their three lines: error, cause, try.
//! Rules:   the remedies that were tried by hand are named as commands; each names the permission it grants.

use std::fmt;
use std::io;

/// Which step failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Stage {
    /// Starting the helper process.
    Spawn = 0,
    /// Entering new namespaces.
    Namespaces = 1,
    /// Writing the user and group maps.
    Maps = 2,
    /// Opening the TUN device.
    Tun = 3,
    /// Addresses, routes and the interface's settings.
    Interface = 4,
    /// Making mounts private.
    Mounts = 5,
    /// The descriptor that names socket owners.
    SockDiag = 6,
    /// The talk between parent and helper.
    Talk = 7,
}

impl Stage {
    pub(super) fn from_number(number: i32) -> Self {
        [Self::Spawn, Self::Namespaces, Self::Maps, Self::Tun, Self::Interface, Self::Mounts, Self::SockDiag]
            .into_iter()
            .find(|stage| *stage as i32 == number)
            .unwrap_or(Self::Talk)
    }
}

/// A sandbox could not be made.
#[derive(Debug)]
pub struct SandboxError {
    /// Which step.
    pub stage: Stage,
    /// What the kernel said.
    pub source: io::Error,
    hints: Hints,
}

/// What of this machine's settings forbids it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Hints {
    apparmor_restricts: bool,
    userns_clone_off: bool,
    no_user_namespaces: bool,
    tun_missing: bool,
    root: bool,
}

impl SandboxError {
    pub(super) fn new(stage: Stage, source: io::Error) -> Self {
        let setting =
            |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let hints = Hints {
            apparmor_restricts: setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1",
            userns_clone_off: setting("/proc/sys/kernel/unprivileged_userns_clone") == "0",
            no_user_namespaces: setting("/proc/sys/user/max_user_namespaces") == "0",
            tun_missing: !std::path::Path::new("/dev/net/tun").exists(),
            root: rustix::process::geteuid().is_root(),
        };
        Self { stage, source, hints }
    }

    /// True when namespaces themselves are refused, so that only an in-process stack can be shown here.
    pub fn is_refused_namespace(&self) -> bool {
        matches!(self.stage, Stage::Namespaces | Stage::Maps | Stage::Mounts | Stage::Tun)
    }

    /// What happened.
    pub fn what(&self) -> String {
        match self.stage {
            Stage::Spawn | Stage::Talk => "the sandbox's helper process did not start".to_owned(),
            Stage::Namespaces | Stage::Maps | Stage::Mounts => {
                "cannot make a network namespace for the program".to_owned()
            }
            Stage::Tun => "cannot open the TUN device".to_owned(),
            Stage::Interface | Stage::SockDiag => "cannot set up the namespace's network".to_owned(),
        }
    }

    /// Why, and what to do: the second and third line.
    pub fn cause_and_remedy(&self) -> (String, String) {
        let errno = self.source.raw_os_error().unwrap_or(0);
        let said = |text: &str| format!("{text} ({})", self.source);
        let hints = self.hints;
        match (self.stage, errno) {
            // On Ubuntu 23.10 and later unshare succeeds, and everything after it is refused.
            (_, libc::EPERM | libc::EACCES) if hints.apparmor_restricts && !hints.root => (
                said("AppArmor restricts unprivileged user namespaces: kernel.apparmor_restrict_unprivileged_userns is 1"),
                "allow it for lastack: write `profile lastack /path/to/lastack flags=(unconfined) { userns, }` to \
                 /etc/apparmor.d/lastack and run `sudo apparmor_parser -r /etc/apparmor.d/lastack`; or run as root"
                    .to_owned(),
            ),
            (Stage::Namespaces, libc::EPERM) if hints.userns_clone_off => (
                said("this kernel refuses user namespaces to ordinary users: kernel.unprivileged_userns_clone is 0"),
                "sudo sysctl kernel.unprivileged_userns_clone=1, or run as root".to_owned(),
            ),
            (Stage::Namespaces, libc::ENOSPC) => (
                said(if hints.no_user_namespaces {
                    "user namespaces are switched off: user.max_user_namespaces is 0"
                } else {
                    "the limit of namespaces is reached (user.max_user_namespaces, user.max_net_namespaces)"
                }),
                "sudo sysctl user.max_user_namespaces=15000, or run as root".to_owned(),
            ),
            (Stage::Namespaces, libc::EPERM | libc::EACCES | libc::ENOSYS) => (
                said("unshare is refused: a container's seccomp profile does that"),
                "allow unshare in the container's seccomp profile (docker: --security-opt seccomp=unconfined), \
                 or run outside the container"
                    .to_owned(),
            ),
            (Stage::Tun, libc::EACCES | libc::EPERM) if !hints.root => (
                said("/dev/net/tun may not be opened by this user"),
                "sudo chmod 666 /dev/net/tun, or run as root".to_owned(),
            ),
            (Stage::Tun, libc::EACCES | libc::EPERM) => (
                said("/dev/net/tun may not be opened here"),
                "give the container the device and the permission: --device /dev/net/tun --cap-add NET_ADMIN".to_owned(),
            ),
            (Stage::Tun, libc::ENOENT | libc::ENODEV | libc::ENXIO) if hints.tun_missing || errno != libc::ENOENT => (
                said("there is no TUN device here"),
                "sudo modprobe tun; in a container: --device /dev/net/tun".to_owned(),
            ),
            (Stage::Maps, _) => (
                said("the user map could not be written"),
                "run lastack from a file system without nosuid restrictions, as an ordinary user or as root".to_owned(),
            ),
            (Stage::Mounts, _) => (
                said("mounts could not be made private"),
                "run outside the container, or give it CAP_SYS_ADMIN".to_owned(),
            ),
            (Stage::Spawn | Stage::Talk, _) => (
                self.source.to_string(),
                "check that the lastack binary can be executed from where it is, and the process limit (ulimit -u)".to_owned(),
            ),
            _ => (
                self.source.to_string(),
                "run `lastack doctor` here and report the kernel's version (uname -r) with this message".to_owned(),
            ),
        }
    }
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cause, _) = self.cause_and_remedy();
        write!(f, "{}: {cause}", self.what())
    }
}

impl std::error::Error for SandboxError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(stage: Stage, errno: i32, hints: Hints) -> (String, String) {
        SandboxError { stage, source: io::Error::from_raw_os_error(errno), hints }.cause_and_remedy()
    }

    #[test]
    fn tun_without_permission_names_the_chmod() {
        let (cause, remedy) = error(Stage::Tun, libc::EACCES, Hints::default());
        assert!(cause.contains("/dev/net/tun"), "{cause}");
        assert!(remedy.contains("sudo chmod 666 /dev/net/tun"), "{remedy}");
    }

    #[test]
    fn each_refusal_names_its_own_setting() {
        let apparmor = Hints { apparmor_restricts: true, ..Hints::default() };
        assert!(
            error(Stage::Maps, libc::EPERM, apparmor).0.contains("apparmor_restrict_unprivileged_userns")
        );
        let debian = Hints { userns_clone_off: true, ..Hints::default() };
        assert!(error(Stage::Namespaces, libc::EPERM, debian).1.contains("unprivileged_userns_clone=1"));
        let limit = Hints { no_user_namespaces: true, ..Hints::default() };
        assert!(error(Stage::Namespaces, libc::ENOSPC, limit).1.contains("max_user_namespaces"));
        assert!(error(Stage::Namespaces, libc::EPERM, Hints::default()).0.contains("seccomp"));
        let bare = Hints { tun_missing: true, ..Hints::default() };
        assert!(error(Stage::Tun, libc::ENOENT, bare).1.contains("--device /dev/net/tun"));
    }

    #[test]
    fn every_stage_survives_its_number() {
        for stage in [
            Stage::Spawn,
            Stage::Namespaces,
            Stage::Maps,
            Stage::Tun,
            Stage::Interface,
            Stage::Mounts,
            Stage::SockDiag,
            Stage::Talk,
        ] {
            assert_eq!(Stage::from_number(stage as i32), stage);
        }
    }
}
