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
    /// Making a veth pair and its packet socket.
    Veth = 8,
}

impl Stage {
    pub(super) fn from_number(number: i32) -> Self {
        use Stage::{Interface, Maps, Mounts, Namespaces, SockDiag, Spawn, Talk, Tun, Veth};
        [Spawn, Namespaces, Maps, Tun, Interface, Mounts, SockDiag, Veth]
            .into_iter()
            .find(|stage| *stage as i32 == number)
            .unwrap_or(Talk)
    }
}

/// A sandbox could not be made.
#[derive(Debug)]
pub struct SandboxError {
    /// Which step.
    pub stage: Stage,
    /// What the kernel said.
    pub source: io::Error,
    /// What it had said about a TUN, where a veth pair was tried after it.
    pub tun_refused: Option<io::Error>,
    hints: Hints,
}

/// What of this machine's settings forbids it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Hints {
    apparmor_restricts: bool,
    userns_clone_off: bool,
    /// The `user.max_*_namespaces` that is 0.
    no_namespaces: Option<&'static str>,
    tun_missing: bool,
    proc_missing: bool,
    /// A seccomp filter is in force.
    seccomp: bool,
    /// The root directory is no mount's root.
    chroot: bool,
    root: bool,
    /// Where this binary is.
    binary: String,
}

impl Hints {
    fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let setting = |path: &str| read(path).trim().to_owned();
        let limits = ["user.max_user_namespaces", "user.max_net_namespaces", "user.max_mnt_namespaces"];
        let mounts = read("/proc/self/mountinfo");
        Self {
            apparmor_restricts: setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1",
            userns_clone_off: setting("/proc/sys/kernel/unprivileged_userns_clone") == "0",
            no_namespaces: limits
                .into_iter()
                .find(|limit| setting(&format!("/proc/sys/{}", limit.replace('.', "/"))) == "0"),
            tun_missing: !std::path::Path::new("/dev/net/tun").exists(),
            proc_missing: mounts.is_empty(),
            seccomp: read("/proc/self/status").lines().any(|line| line == "Seccomp:\t2"),
            // proc_pid_mountinfo(5): the fifth field is the mount point, seen from this process's root.
            chroot: !mounts.is_empty() && !mounts.lines().any(|line| line.split(' ').nth(4) == Some("/")),
            root: rustix::process::geteuid().is_root(),
            binary: std::env::current_exe()
                .map_or_else(|_| "/usr/bin/lastack".to_owned(), |path| path.display().to_string()),
        }
    }
}

impl SandboxError {
    pub(super) fn new(stage: Stage, source: io::Error) -> Self {
        Self { stage, source, tun_refused: None, hints: Hints::look() }
    }

    /// A TUN was tried before, and refused with this errno.
    pub(super) fn after_tun(self, errno: Option<i32>) -> Self {
        Self { tun_refused: errno.map(io::Error::from_raw_os_error), ..self }
    }

    /// True when namespaces or every kind of link are refused, so that only a stack in this process can be shown here.
    pub fn is_refused_namespace(&self) -> bool {
        matches!(self.stage, Stage::Namespaces | Stage::Maps | Stage::Mounts | Stage::Tun | Stage::Veth)
    }

    /// What happened.
    pub fn what(&self) -> String {
        match self.stage {
            Stage::Spawn | Stage::Talk => "the sandbox's helper process did not start".to_owned(),
            Stage::Namespaces | Stage::Maps | Stage::Mounts => {
                "cannot make a network namespace for the program".to_owned()
            }
            Stage::Tun => "cannot open the TUN device".to_owned(),
            Stage::Veth if self.tun_refused.is_some() => {
                "cannot make a link for the program: neither a TUN device nor a veth pair".to_owned()
            }
            Stage::Veth => "cannot make a veth pair".to_owned(),
            Stage::Interface | Stage::SockDiag => "cannot set up the namespace's network".to_owned(),
        }
    }

    /// Why, and what to do: the second and third line.
    pub fn cause_and_remedy(&self) -> (String, String) {
        let (cause, remedy) = match (self.stage, &self.tun_refused) {
            (Stage::Veth, Some(tun)) => {
                let (tun, tun_remedy) = self.link(Stage::Tun, tun);
                let (veth, veth_remedy) = self.link(Stage::Veth, &self.source);
                let remedy = if veth_remedy.is_empty() {
                    tun_remedy
                } else {
                    format!("{tun_remedy}; or {veth_remedy}")
                };
                (format!("{tun}; {veth}"), remedy)
            }
            // It was asked for: there is another that needs none of this.
            (Stage::Tun, _) => {
                let (cause, remedy) = self.link(Stage::Tun, &self.source);
                (cause, format!("--device veth, or leave it out; for a TUN: {remedy}"))
            }
            (Stage::Veth, _) => self.link(Stage::Veth, &self.source),
            _ => self.namespace(),
        };
        if self.is_refused_namespace() {
            (cause, format!("{remedy}; or, without a namespace: lastack run --observe -- CMD"))
        } else {
            (cause, remedy)
        }
    }

    fn namespace(&self) -> (String, String) {
        let errno = self.source.raw_os_error().unwrap_or(0);
        let said = |text: &str| format!("{text} ({})", self.source);
        let hints = &self.hints;
        match (self.stage, errno) {
            // On Ubuntu 23.10 and later unshare succeeds, and everything after it is refused.
            (_, libc::EPERM | libc::EACCES) if hints.apparmor_restricts && !hints.root => (
                said("AppArmor restricts unprivileged user namespaces: kernel.apparmor_restrict_unprivileged_userns is 1"),
                format!(
                    "echo 'abi <abi/4.0>, profile lastack {} flags=(unconfined) {{ userns, }}' | \
                     sudo tee /etc/apparmor.d/lastack && sudo apparmor_parser -r /etc/apparmor.d/lastack; or run as root",
                    hints.binary
                ),
            ),
            (Stage::Namespaces, libc::EPERM) if hints.userns_clone_off && !hints.root => (
                said("this kernel refuses user namespaces to ordinary users: kernel.unprivileged_userns_clone is 0"),
                "sudo sysctl kernel.unprivileged_userns_clone=1; or run as root".to_owned(),
            ),
            (Stage::Namespaces, libc::ENOSPC) => match hints.no_namespaces {
                Some(limit) => (
                    said(&format!("namespaces are switched off: {limit} is 0")),
                    format!("sudo sysctl {limit}=15000; or run as root"),
                ),
                None => (
                    said("the limit of namespaces is reached (user.max_user_namespaces, user.max_net_namespaces), or 32 are nested"),
                    "sudo sysctl user.max_user_namespaces=15000 user.max_net_namespaces=15000".to_owned(),
                ),
            },
            // user_namespaces(7): EPERM for a caller in a chroot.
            (Stage::Namespaces, libc::EPERM) if hints.chroot => (
                said("this is a chroot: Linux makes no user namespace in one"),
                "run lastack outside of it; or enter the directory by pivot_root instead of chroot: \
                 `sudo systemd-nspawn -D DIR`"
                    .to_owned(),
            ),
            (Stage::Mounts, libc::EINVAL) if hints.chroot => (
                said("this is a chroot whose directory is no mount: its mounts cannot be made private"),
                "run lastack outside of it; or make the directory a mount before chroot: `sudo mount --bind DIR DIR`"
                    .to_owned(),
            ),
            (Stage::Namespaces, libc::EPERM | libc::EACCES | libc::ENOSYS) if hints.seccomp => (
                said("a seccomp filter refuses unshare, as containers' default profiles do"),
                "docker or podman: --security-opt seccomp=unconfined (or a profile that allows unshare, mount and setns); \
                 Kubernetes: seccompProfile type Unconfined; or run outside the container"
                    .to_owned(),
            ),
            (Stage::Namespaces, libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EINVAL) => (
                said("unshare is refused by this kernel or a security module"),
                "look for CONFIG_USER_NS in the kernel's configuration and for the refusal in `dmesg`; or run as root".to_owned(),
            ),
            (Stage::Maps, _) => (
                said("the user map could not be written"),
                "run lastack from a file system without nosuid restrictions, as an ordinary user or as root".to_owned(),
            ),
            (Stage::Mounts, _) => (
                said("mounts could not be made private"),
                "docker or podman: --security-opt apparmor=unconfined or --cap-add SYS_ADMIN; or run outside the container"
                    .to_owned(),
            ),
            (Stage::Spawn | Stage::Talk, _) if hints.proc_missing => (
                said("/proc is not mounted"),
                "mount it: `sudo mount -t proc proc /proc`".to_owned(),
            ),
            (Stage::Spawn | Stage::Talk, _) => (
                self.source.to_string(),
                "check that the lastack binary can be executed from where it is, and the process limit (ulimit -u)".to_owned(),
            ),
            _ => (
                self.source.to_string(),
                "report the kernel's version (uname -r) with this message".to_owned(),
            ),
        }
    }

    /// Cause and remedy of a link that could not be made.
    fn link(&self, stage: Stage, source: &io::Error) -> (String, String) {
        let said = |text: &str| format!("{text} ({source})");
        let hints = &self.hints;
        match (stage, source.raw_os_error().unwrap_or(0)) {
            (Stage::Tun, libc::EACCES) if !hints.root => (
                said("/dev/net/tun may not be opened by this user"),
                "sudo chmod 666 /dev/net/tun".to_owned(),
            ),
            (Stage::Tun, libc::EACCES | libc::EPERM) => (
                said("/dev/net/tun may not be used here: a device cgroup or a missing capability"),
                "in a container: --device /dev/net/tun --cap-add NET_ADMIN".to_owned(),
            ),
            (Stage::Tun, libc::ENOENT | libc::ENODEV | libc::ENXIO) => (
                said(if hints.tun_missing {
                    "there is no /dev/net/tun"
                } else {
                    "/dev/net/tun has no driver behind it"
                }),
                "sudo modprobe tun; in a container: --device /dev/net/tun".to_owned(),
            ),
            (Stage::Tun, _) => (said("/dev/net/tun cannot be used"), "sudo modprobe tun".to_owned()),
            (_, libc::EOPNOTSUPP) => (said("this kernel has no veth"), "sudo modprobe veth".to_owned()),
            (_, libc::EAFNOSUPPORT) => {
                (said("this kernel has no packet sockets"), "sudo modprobe af_packet".to_owned())
            }
            (_, libc::ENOSPC) => (
                said("a veth pair takes a second network namespace, and the limit is reached"),
                "sudo sysctl user.max_net_namespaces=15000".to_owned(),
            ),
            (_, libc::EPERM | libc::EACCES) if hints.seccomp => (
                said("a veth pair is refused by a seccomp filter"),
                "--security-opt seccomp=unconfined".to_owned(),
            ),
            (_, libc::EPERM | libc::EACCES) => (
                said("a veth pair or its packet socket is refused"),
                "give the container the capabilities: --cap-add NET_ADMIN --cap-add NET_RAW".to_owned(),
            ),
            _ => (said("a veth pair could not be made"), String::new()),
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
        let source = io::Error::from_raw_os_error(errno);
        SandboxError { stage, source, tun_refused: None, hints }.cause_and_remedy()
    }

    #[test]
    fn tun_without_permission_names_the_chmod() {
        let (cause, remedy) = error(Stage::Tun, libc::EACCES, Hints::default());
        assert!(cause.contains("/dev/net/tun"), "{cause}");
        assert!(
            remedy.starts_with("--device veth") && remedy.contains("sudo chmod 666 /dev/net/tun"),
            "{remedy}"
        );
    }

    #[test]
    fn each_refusal_names_its_own_setting() {
        let hints = Hints { binary: "/opt/lastack".to_owned(), ..Hints::default() };
        let apparmor = Hints { apparmor_restricts: true, ..hints.clone() };
        let (cause, remedy) = error(Stage::Maps, libc::EPERM, apparmor);
        assert!(cause.contains("apparmor_restrict_unprivileged_userns"), "{cause}");
        assert!(remedy.contains("profile lastack /opt/lastack flags=(unconfined) { userns, }"), "{remedy}");
        let debian = Hints { userns_clone_off: true, ..hints.clone() };
        assert!(error(Stage::Namespaces, libc::EPERM, debian).1.contains("unprivileged_userns_clone=1"));
        let limit = Hints { no_namespaces: Some("user.max_net_namespaces"), ..hints.clone() };
        assert!(
            error(Stage::Namespaces, libc::ENOSPC, limit).1.contains("sysctl user.max_net_namespaces=15000")
        );
        let filtered = Hints { seccomp: true, ..hints.clone() };
        assert!(error(Stage::Namespaces, libc::EPERM, filtered).1.contains("seccomp=unconfined"));
        let chroot = Hints { chroot: true, ..hints.clone() };
        assert!(error(Stage::Namespaces, libc::EPERM, chroot).0.contains("chroot"));
        let bare = Hints { tun_missing: true, ..hints };
        assert!(error(Stage::Tun, libc::ENOENT, bare).1.contains("--device /dev/net/tun"));
    }

    #[test]
    fn two_refused_links_are_both_explained() {
        let source = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        let error = SandboxError { stage: Stage::Veth, source, tun_refused: None, hints: Hints::default() }
            .after_tun(Some(libc::EACCES));
        let (cause, remedy) = error.cause_and_remedy();
        assert!(error.what().contains("neither a TUN device nor a veth pair"));
        assert!(cause.contains("/dev/net/tun") && cause.contains("no veth"), "{cause}");
        assert!(remedy.contains("chmod 666") && remedy.contains("modprobe veth"), "{remedy}");
    }

    #[test]
    fn where_a_namespace_is_refused_observing_is_offered() {
        let offer = "lastack run --observe -- CMD";
        assert!(error(Stage::Namespaces, libc::EPERM, Hints::default()).1.contains(offer));
        assert!(error(Stage::Veth, libc::EPERM, Hints::default()).1.contains(offer));
        assert!(!error(Stage::Spawn, libc::EAGAIN, Hints::default()).1.contains(offer));
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
            Stage::Veth,
        ] {
            assert_eq!(Stage::from_number(stage as i32), stage);
        }
    }
}
