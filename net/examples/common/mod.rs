//! The link of the examples: a TUN to this machine's kernel. The kernel is 10.9.0.1, the stack 10.9.0.2.

use std::io;

use lastack::{Config, Net, Tun, TunOptions};

/// Opens the TUN.
pub(crate) fn tun() -> io::Result<Tun> {
    Tun::open(&TunOptions::new().address([10, 9, 0, 1].into(), 24).up())
}

/// The stack's settings.
pub(crate) fn config() -> Config {
    Config { addresses: vec![([10, 9, 0, 2].into(), 24)], ..Config::default() }
}

/// A stack on the TUN, driven by a thread of its own.
#[allow(dead_code, reason = "the tokio examples drive it themselves")]
pub(crate) fn net() -> io::Result<Net> {
    Net::spawn_thread(tun()?, config())
}
