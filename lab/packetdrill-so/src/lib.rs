//! The stack as a shared object for the original packetdrill tool (`--so_filename`), in virtual time.
//!
//! `packetdrill --so_filename=liblastack_packetdrill.so --so_flags=FILE script.pkt`, with
//! `LD_PRELOAD=liblastack_getsockopt.so` for scripts with `%{ … }%` blocks.
//!
//! Reading order: [`host`] (who waits for whom; safe), `abi` (the C table), `control` (control messages), `flags` (the settings file).
#![deny(unreachable_pub)]

mod abi;
mod control;
mod flags;
pub mod host;

pub use abi::{Interface, packetdrill_interface_init};
