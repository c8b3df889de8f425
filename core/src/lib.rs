//! A TCP/IP stack that behaves like Linux's, as a pure function of packets, commands and time.
//!
//! The modules in reading order: [`time`], [`wire`] (bytes ↔ values), [`ip`]
//! (reassembly, ICMP, path MTU), [`tcp`] (one connection), [`observe`]
//! (what can be seen).
#![forbid(unsafe_code)]
#![deny(missing_docs, unreachable_pub)]

pub mod error;
pub mod id;
pub mod ip;
pub mod observe;
#[allow(dead_code, reason = "parts of the stack whose glue is being written")]
pub(crate) mod rng;
pub mod stack;
pub mod sysctl;
pub mod tcp;
pub mod time;
pub mod wire;

pub use stack::{Config, SocketEvent, Stack};
