//! Two stacks on a link inside the process.

#![allow(dead_code, reason = "each test file uses a part")]

use lastack::{Config, Memory, Net};

/// The first stack's address.
pub(crate) const SERVER: &str = "10.0.0.1";
/// The second stack's.
pub(crate) const CLIENT: &str = "10.0.0.2";

/// Settings of the stack at 10.0.0.`last` and fd00::`last`.
pub(crate) fn config(last: u8) -> Config {
    Config {
        seed: [last; 32],
        addresses: vec![
            ([10, 0, 0, last].into(), 24),
            ([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into(), 64),
        ],
        ..Config::default()
    }
}

/// A server's and a client's stack, driven by tasks of this runtime.
pub(crate) fn pair() -> (Net, Net) {
    let (left, right) = Memory::pair(1500);
    let (server, server_driver) = Net::start(left, config(1)).unwrap();
    let (client, client_driver) = Net::start(right, config(2)).unwrap();
    tokio::spawn(server_driver);
    tokio::spawn(client_driver);
    (server, client)
}

/// A server's and a client's stack, driven by threads.
pub(crate) fn pair_of_threads() -> (Net, Net) {
    let (left, right) = Memory::pair(1500);
    (Net::spawn_thread(left, config(1)).unwrap(), Net::spawn_thread(right, config(2)).unwrap())
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 251 + at) as u8).collect()
}
