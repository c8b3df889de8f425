//! Runs lastack-core on a real machine: devices, a driver, and sockets for tokio and for threads.
//!
//! The modules in reading order: [`device`] (what a link must offer), [`tun`], [`veth`], [`memory`], [`capture`]
//! with [`pcapng`], [`impair`] (the links); [`clock`]; [`net`] and [`driver`] (a stack that runs); [`tcp`], [`incoming`], [`udp`], [`ping`]
//! (sockets for tokio), [`blocking`] (sockets for threads); [`events`] (what happens); [`control`] (for other
//! processes to look in).
//!
//! Two stacks joined inside the process; on a real machine [`Tun::open`] takes [`Memory`]'s place:
//!
//! ```
//! use lastack::{Config, Memory, Net, TcpListener, TcpStream};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> std::io::Result<()> {
//!     let (left, right) = Memory::pair(1500);
//!     let at = |last| Config { addresses: vec![([10, 0, 0, last].into(), 24)], ..Config::default() };
//!     let (server, server_driver) = Net::start(left, at(1))?;
//!     let (client, client_driver) = Net::start(right, at(2))?;
//!     tokio::spawn(server_driver);
//!     tokio::spawn(client_driver);
//!
//!     let listener = TcpListener::bind(&server, "10.0.0.1:80").await?;
//!     let mut stream = TcpStream::connect(&client, "10.0.0.1:80").await?;
//!     let (mut accepted, peer) = listener.accept().await?;
//!     stream.write_all(b"hello").await?;
//!     stream.shutdown().await?;
//!     let mut text = String::new();
//!     accepted.read_to_string(&mut text).await?;
//!     println!("{peer} says {text}; what TCP did: {:?}", stream.tcp_info());
//!     Ok(())
//! }
//! ```
#![deny(missing_docs)]

pub mod blocking;
mod busy_poll;
pub mod capture;
pub mod clock;
mod connection;
pub mod control;
mod descriptor;
pub mod device;
pub mod driver;
pub mod events;
pub mod impair;
pub mod incoming;
pub mod memory;
pub mod net;
mod park;
pub mod pcapng;
pub mod ping;
mod received;
mod rx_buffers;
mod shard;
mod sys;
pub mod tcp;
pub mod tun;
pub mod udp;
pub mod veth;
mod virtio;
mod waiters;

pub use capture::Capture;
pub use device::{Capabilities, Device};
pub use driver::Driver;
pub use events::{Events, Observed};
pub use impair::Impaired;
pub use incoming::{Incoming, PendingConnection};
pub use memory::Memory;
pub use net::Net;
pub use ping::PingAny;
pub use shard::LinkCounters;
pub use tcp::{TcpListener, TcpStream};
pub use tun::{Tun, TunOptions};
pub use udp::{UdpAny, UdpSocket};
pub use veth::Veth;

pub use lastack_core as core;
pub use lastack_core::stack::{AnyOptions, Config, Datagram, ListenOptions, Ping, Readiness, Unreachable};
pub use lastack_core::tcp::options::{TcpOption, TcpOptions};
