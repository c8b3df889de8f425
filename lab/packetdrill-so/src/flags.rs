//! `--so_flags=FILE`: `NAME=VALUE` lines, read when the first socket is made and again whenever the file has changed.
//!
//! Names: Linux's sysctls (`net.ipv4.` and dots or slashes as one likes), and `local_ip`, `mtu`. `remote_ip`,
//! `ip_version` and what a stack has no use for are accepted and ignored. A `local_ip` or
//! `mtu` that the file does not give is the tool's own (`--local_ip`, and `--mtu`, which its runners set for IPv6).

use core::net::IpAddr;
use core::str::FromStr;
use std::path::PathBuf;
use std::time::SystemTime;

use lastack_core::stack::{Config, Stack};

/// The settings file of a run, and how much of it has been taken over.
#[derive(Debug, Default)]
pub(crate) struct FlagsFile {
    path: Option<PathBuf>,
    seen: Option<(u64, SystemTime)>,
    applied: Vec<(String, String)>,
}

impl FlagsFile {
    pub(crate) fn new(path: Option<String>) -> Self {
        Self { path: path.map(PathBuf::from), ..Self::default() }
    }

    /// What the file says now. Later lines win; a file that cannot be read is an empty one.
    pub(crate) fn read(&mut self) -> Flags {
        self.seen = self.stamp();
        let text = self.path.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        Flags::parse(&text)
    }

    /// A script may set things in its middle: makes the stack's settings those of the file if it has changed.
    pub(crate) fn refresh(&mut self, stack: &mut Stack) {
        if self.path.is_some() && self.stamp() != self.seen {
            let flags = self.read();
            self.apply(&flags, stack);
        }
    }

    /// Lines that were applied before are not applied again, unless one before them has changed. Settings the stack does not
    /// have are not the script's fault.
    pub(crate) fn apply(&mut self, flags: &Flags, stack: &mut Stack) {
        let old = if flags.sysctls.starts_with(&self.applied) { self.applied.len() } else { 0 };
        for (name, value) in &flags.sysctls[old..] {
            let _ = stack.sysctl_set(name, value);
        }
        self.applied.clone_from(&flags.sysctls);
    }

    fn stamp(&self) -> Option<(u64, SystemTime)> {
        let about = std::fs::metadata(self.path.as_ref()?).ok()?;
        Some((about.len(), about.modified().ok()?))
    }
}

/// The settings of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    local: Option<IpAddr>,
    mtu: Option<u32>,
    sysctls: Vec<(String, String)>,
}

impl Flags {
    fn parse(text: &str) -> Self {
        let mut flags = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once('=') else { continue };
            let name = name.trim().trim_start_matches("/proc/sys/").replace('/', ".");
            let value = value.trim().trim_matches('"');
            match name.as_str() {
                "local_ip" => flags.local = value.parse().ok().or(flags.local),
                "mtu" => flags.mtu = value.parse().ok().or(flags.mtu),
                "remote_ip" | "ip_version" => {}
                _ => flags.sysctls.push((name, value.to_owned())),
            }
        }
        flags
    }

    /// The stack's configuration. Without `local_ip` the addresses of the public runners are its own.
    pub(crate) fn config(&self) -> Config {
        let usual = ["192.168.0.1", "fd3d:0a0b:17d6::1"].map(|text| text.parse().expect("an address"));
        let addresses = self
            .local
            .or_else(|| tools_own("--local_ip="))
            .into_iter()
            .chain(usual)
            .map(|ip: IpAddr| (ip, if ip.is_ipv4() { 16 } else { 64 }));
        Config {
            seed: [7; 32],
            addresses: addresses.collect(),
            any_address: true,
            mtu: self.mtu.or_else(|| tools_own("--mtu=")).unwrap_or(1500),
            ..Config::default()
        }
    }
}

/// What an option says on the command line of the program that has loaded this library.
fn tools_own<T: FromStr>(option: &str) -> Option<T> {
    std::env::args().rev().find_map(|arg| arg.strip_prefix(option)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastack_core::time::Instant;

    #[test]
    fn every_spelling_of_a_setting_arrives() {
        let flags = Flags::parse(
            "mtu=1520\nlocal_ip=10.0.0.1\nnet.ipv4.tcp_sack=0\n/proc/sys/net/ipv4/tcp_fin_timeout=3\ntcp_retries2=5\n\
             tcp_rmem=\"4096 5000 6000000\"\nno_such_thing=1\nnonsense",
        );
        let config = flags.config();
        assert_eq!((config.mtu, config.addresses[0].0.to_string().as_str()), (1520, "10.0.0.1"));
        let mut stack = Stack::new(config, Instant::ZERO);
        FlagsFile::default().apply(&flags, &mut stack);
        let sysctl = stack.sysctl();
        assert!(!sysctl.tcp_sack);
        assert_eq!((sysctl.tcp_fin_timeout.as_secs(), sysctl.tcp_retries2, sysctl.tcp_rmem[1]), (3, 5, 5000));
    }

    #[test]
    fn lines_written_later_arrive_when_asked_for_again() {
        let file = std::env::temp_dir().join(format!("lastack-flags-{}", std::process::id()));
        std::fs::write(&file, "tcp_sack=0\ntcp_retries2=5\n").expect("a file");
        let mut flags = FlagsFile::new(Some(file.display().to_string()));
        let first = flags.read();
        let mut stack = Stack::new(first.config(), Instant::ZERO);
        flags.apply(&first, &mut stack);
        stack.sysctl_set("tcp_retries2", "9").expect("in range");
        flags.refresh(&mut stack);
        assert_eq!(stack.sysctl().tcp_retries2, 9, "unchanged: left alone");
        std::fs::write(&file, "tcp_sack=0\ntcp_retries2=5\nnet.ipv4.tcp_stdurg=1\n").expect("a file");
        flags.refresh(&mut stack);
        assert_eq!((stack.sysctl().tcp_retries2, stack.sysctl().tcp_stdurg), (9, true), "only what is new");
        std::fs::write(&file, "tcp_sack=1\ntcp_retries2=6\n").expect("a file");
        flags.refresh(&mut stack);
        assert_eq!((stack.sysctl().tcp_retries2, stack.sysctl().tcp_sack), (6, true), "written anew");
        std::fs::remove_file(&file).expect("it was there");
    }
}
