//! The `--name=value` lines that change how a script runs.

use core::net::IpAddr;
use core::time::Duration;
use std::path::Path;

use crate::script::ast::Script;
use crate::target::{IpVersion, World};

/// A script's options with their defaults (packet-script language, section 2).
#[derive(Clone, PartialEq, Debug)]
pub struct RunOptions {
    /// `ip_version`
    pub ip: IpVersion,
    /// `local_ip`
    pub local: IpAddr,
    /// `remote_ip`, without the prefix.
    pub remote: IpAddr,
    /// `bind_port`
    pub bind_port: u16,
    /// `connect_port`
    pub connect_port: u16,
    /// `mtu`
    pub mtu: u32,
    /// `tolerance_usecs`
    pub tolerance: Duration,
    /// `tolerance_percent`
    pub tolerance_percent: f64,
    /// `tcp_ts_tick_usecs`; zero: values are not checked.
    pub ts_tick: Duration,
    /// `tcp_ts_ecr_scaled`
    pub ts_ecr_scaled: bool,
    /// `check_ts_ecr`: ours; compares the echo of every outbound segment.
    pub check_ts_ecr: bool,
    /// `strict_segments`
    pub strict_segments: bool,
}

impl RunOptions {
    /// Reads them.
    ///
    /// # Errors
    /// A value that is not understood.
    pub fn of(script: &Script) -> Result<Self, String> {
        let ip = match script.option("ip_version").unwrap_or("ipv4") {
            "ipv4" => IpVersion::V4,
            "ipv6" => IpVersion::V6,
            "ipv4-mapped-ipv6" => IpVersion::Mapped,
            other => return Err(format!("--ip_version={other}: not ipv4, ipv6 or ipv4-mapped-ipv6")),
        };
        let (local, remote, mtu) = match ip {
            IpVersion::V6 => ("fd3d:0a0b:17d6::1", "fd3d:fa7b:d17d::1", "1520"),
            IpVersion::V4 | IpVersion::Mapped => ("192.168.0.1", "192.0.2.1", "1500"),
        };
        let text = |name: &str, default: &'static str| script.option(name).unwrap_or(default).to_owned();
        let remote = text("remote_ip", remote);
        Ok(Self {
            ip,
            local: parse("local_ip", &text("local_ip", local))?,
            remote: parse("remote_ip", remote.split('/').next().unwrap_or(&remote))?,
            bind_port: parse("bind_port", &text("bind_port", "8080"))?,
            connect_port: parse("connect_port", &text("connect_port", "8080"))?,
            mtu: parse("mtu", &text("mtu", mtu))?,
            tolerance: Duration::from_micros(parse("tolerance_usecs", &text("tolerance_usecs", "4000"))?),
            tolerance_percent: parse("tolerance_percent", &text("tolerance_percent", "12.5"))?,
            ts_tick: Duration::from_micros(parse("tcp_ts_tick_usecs", &text("tcp_ts_tick_usecs", "0"))?),
            ts_ecr_scaled: script.option("tcp_ts_ecr_scaled").is_some(),
            check_ts_ecr: script.option("check_ts_ecr").is_some(),
            strict_segments: script.option("strict_segments").is_some(),
        })
    }

    pub(super) fn world(&self, path: &Path) -> Result<World, String> {
        if self.local.is_ipv4() != self.remote.is_ipv4() || self.local.is_ipv6() != (self.ip == IpVersion::V6)
        {
            return Err(format!("{} and {} do not fit the IP version", self.local, self.remote));
        }
        let directory = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        Ok(World { ip: self.ip, local: self.local, remote: self.remote, mtu: self.mtu, directory })
    }

    /// Section 3: the larger of the absolute and the relative tolerance, for an event `distance` after the one before.
    pub fn tolerance(&self, distance: Duration) -> Duration {
        self.tolerance.max(distance.mul_f64(self.tolerance_percent / 100.0))
    }
}

fn parse<T: core::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("--{name}={value}: not understood"))
}
