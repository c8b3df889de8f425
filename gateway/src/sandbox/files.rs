//! What the program's view of the file system needs so that its names are looked up through the stack.
//!
//! Owns:    private mounts over `resolv.conf`, `nsswitch.conf`, nscd's and resolved's sockets, and a hidden directory.
//! Rules:   a tmpfs is mounted over a directory for a moment, files are made in it and bound where they belong,
//!          then it is unmounted: the bound files stay, nothing is left in anybody's temporary directory.
//! Differs: a host that replaces `/etc/resolv.conf` by rename detaches the binding; the stack then forwards
//!          whatever resolver address the program asks, so names still resolve.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// Makes every mount private to this mount namespace.
pub(super) fn make_private() -> io::Result<()> {
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)?)
}

/// Points names to `resolvers`; true when `/etc/resolv.conf` could be bound.
pub(super) fn point_names_to(resolvers: &[std::net::IpAddr]) -> io::Result<bool> {
    // Read before anything is covered: either may be a link into what is.
    let switch = fs::read("/etc/nsswitch.conf").ok().map(|text| String::from_utf8_lossy(&text).into_owned());
    let resolv = resolv_conf(resolvers, &crate::addresses::read("/etc/resolv.conf"));
    // nss-resolve and nscd speak over sockets in the file system, which a network namespace does not cut.
    for directory in ["/run/nscd", "/var/run/nscd", "/run/systemd/resolve"] {
        if Path::new(directory).is_dir() {
            mount_tmpfs(Path::new(directory))?;
        }
    }
    let Some(workshop) =
        ["/tmp", "/var/tmp", "/mnt", "/run"].into_iter().map(PathBuf::from).find(|path| path.is_dir())
    else {
        return Ok(false);
    };
    mount_tmpfs(&workshop)?;
    let done = bind_files(&workshop, &resolv, switch.as_deref());
    rustix::mount::unmount(&workshop, UnmountFlags::DETACH)?;
    done
}

fn bind_files(workshop: &Path, resolv: &str, switch: Option<&str>) -> io::Result<bool> {
    if let Some(switch) = switch {
        let file = workshop.join("nsswitch.conf");
        fs::write(&file, hosts_by_files_and_dns(switch))?;
        bind(&file, Path::new("/etc/nsswitch.conf"))?;
    }
    let file = workshop.join("resolv.conf");
    fs::write(&file, resolv)?;
    let target = Path::new("/etc/resolv.conf");
    // A symbolic link into a directory that is now an empty tmpfs has no end: make it one.
    if fs::metadata(target).is_err()
        && let Ok(end) = fs::read_link(target)
    {
        let _ = fs::write(Path::new("/etc").join(end), "");
    }
    match bind(&file, target) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Covers `directory`, if it exists, with an empty file system.
pub(super) fn hide(directory: &Path) -> io::Result<()> {
    if directory.is_dir() { mount_tmpfs(directory) } else { Ok(()) }
}

fn mount_tmpfs(on: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("lastack", on, "tmpfs", flags, Some(c"mode=0755,size=1m"))?)
}

fn bind(file: &Path, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_bind(file, target)?)
}

/// The host's search list and options are kept, its name servers are not.
fn resolv_conf(resolvers: &[std::net::IpAddr], host: &str) -> String {
    let mut text = String::from("# Written by lastack run: names go through its stack.\n");
    for resolver in resolvers {
        text.push_str(&format!("nameserver {resolver}\n"));
    }
    for line in host.lines().map(str::trim) {
        if ["search ", "domain ", "options "].iter().any(|keep| line.starts_with(keep)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// `hosts:` by files and DNS only: other sources (resolve, mdns, nscd) bypass the stack.
fn hosts_by_files_and_dns(switch: &str) -> String {
    let mut text = String::new();
    for line in switch.lines().filter(|line| !line.trim_start().starts_with("hosts:")) {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("hosts: files dns\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_keeps_search_and_options_only() {
        let host = "nameserver 192.0.2.1\nsearch corp.example\noptions edns0 trust-ad\n# note\n";
        let text = resolv_conf(&["10.0.2.3".parse().unwrap()], host);
        assert!(text.contains("nameserver 10.0.2.3\n"));
        assert!(text.contains("search corp.example\n") && text.contains("options edns0 trust-ad\n"));
        assert!(!text.contains("192.0.2.1"));
    }

    #[test]
    fn nsswitch_hosts_line_is_replaced() {
        let text = hosts_by_files_and_dns("passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n");
        assert_eq!(text, "passwd: files\nhosts: files dns\n");
    }
}
