//! Puts a program behind the lastack TCP/IP stack.
//!
//! In reading order: [`sandbox`] makes the namespace; [`Gateway`] forwards what comes out of it, [`addresses`] says
//! where to and [`rules`] whether, [`dns`] which names; [`publish`] lets what is outside come in; [`host`] is the host's side of a
//! connection, [`relay`] joins both sides,
//! [`inject`] is what may be forced on them;
//! [`owner`] says whose it is, [`aborts`] and [`verdict`] how and why it ended, [`journal`] writes it down.
//! [`confine`] is what program and carrier give up before; [`program`] runs one without any of this.
#![deny(missing_docs)]

pub mod aborts;
pub mod addresses;
mod beside;
mod carry;
pub mod confine;
pub mod dns;
mod forward;
pub mod host;
pub mod inject;
pub mod journal;
pub mod limits;
mod netlink;
pub mod owner;
mod ping;
pub mod pool;
pub mod program;
pub mod publish;
pub mod relay;
pub mod rules;
pub mod sandbox;
mod session;
pub mod signals;
#[cfg(test)]
mod stage;
mod sys;
mod udp;
pub mod verdict;

pub use forward::Gateway;
pub use session::{GatewayConfig, Listener, Namespace, Note, Opened};
