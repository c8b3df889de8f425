//! Runs lastack-core on a real machine: devices, a driver, and sockets for tokio and for threads.
//!
//! The modules in reading order: [`device`] (what a link must offer), [`tun`], [`memory`], [`capture`] with
//! [`pcapng`] (the links), [`clock`].
#![deny(missing_docs)]

pub mod capture;
pub mod clock;
pub mod device;
pub mod memory;
pub mod pcapng;
mod rx_buffers;
mod sys;
pub mod tun;

pub use capture::Capture;
pub use device::{Capabilities, Device};
pub use memory::Memory;
pub use tun::{Tun, TunOptions};

pub use lastack_core as core;
