//! Connection stories and packet scripts: how connections end, in the stack and in Linux.
//!
//! Reading order: [`script`] (the language), [`packet`] (the wire, seen by the judge), [`stories`] (connection lives, told).
//!
//! # Example
//! ```
//! let script = lastack_lab::script::parse("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3").unwrap();
//! assert_eq!(lastack_lab::script::print::print(&script), "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n");
//! ```
#![deny(unreachable_pub)]

pub mod differential;
pub mod fidelity;
pub mod kernel;
pub mod matrix;
pub mod packet;
pub mod posix;
pub mod run;
pub mod runner;
pub mod script;
pub mod stack;
pub mod stories;
mod sys;
pub mod target;
pub mod tcp_info;
pub mod timing;
