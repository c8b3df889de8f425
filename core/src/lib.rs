//! A TCP/IP stack that behaves like Linux's, as a pure function of packets, commands and time.
//!
//! The modules in reading order: [`time`], [`wire`] (bytes ↔ values), [`ip`]
//! (reassembly, ICMP, path MTU), [`tcp`] (one connection), [`stack`] (the door: many connections), [`observe`]
//! (what can be seen), [`sysctl`] (settings by Linux's names), [`impair`] (what a bad
//! wire does to packets), [`sim`] (stacks and bad wires in virtual time).
#![forbid(unsafe_code)]
#![deny(missing_docs, unreachable_pub)]

pub mod error;
pub mod id;
pub mod impair;
pub mod ip;
pub mod observe;
pub(crate) mod ping;
pub(crate) mod rng;
pub mod sim;
pub mod stack;
pub mod sysctl;
pub mod tcp;
pub mod time;
pub(crate) mod udp;
pub mod wire;

pub use stack::{Config, SocketEvent, Stack};
