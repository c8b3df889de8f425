//! `--so_flags=FILE`: `NAME=VALUE` lines, read when the first socket is made.
//!
//! Names: Linux's sysctls (`net.ipv4.` and dots or slashes as one likes), and `local_ip`, `mtu`. `remote_ip`,
//! `ip_version` and what a stack has no use for are accepted and ignored.

use core::net::IpAddr;

use lastack_core::stack::{Config, Stack};

/// The settings of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    local: Option<IpAddr>,
    mtu: Option<u32>,
    sysctls: Vec<(String, String)>,
}

impl Flags {
    /// Later lines win; a file that cannot be read is an empty one.
    pub(crate) fn read(path: Option<&str>) -> Self {
        let text = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        Self::parse(&text)
    }

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
        let addresses =
            self.local.into_iter().chain(usual).map(|ip: IpAddr| (ip, if ip.is_ipv4() { 16 } else { 64 }));
        Config {
            seed: [7; 32],
            addresses: addresses.collect(),
            any_address: true,
            mtu: self.mtu.unwrap_or(1500),
            ..Config::default()
        }
    }

    /// Settings the stack does not have are not the script's fault.
    pub(crate) fn apply(&self, stack: &mut Stack) {
        for (name, value) in &self.sysctls {
            let _ = stack.sysctl_set(name, value);
        }
    }
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
        flags.apply(&mut stack);
        let sysctl = stack.sysctl();
        assert!(!sysctl.tcp_sack);
        assert_eq!((sysctl.tcp_fin_timeout.as_secs(), sysctl.tcp_retries2, sysctl.tcp_rmem[1]), (3, 5, 5000));
    }
}
