//! Puts a program behind the lastack TCP/IP stack.
//!
//! In reading order: [`sandbox`] makes the namespace, [`addresses`] says what its addresses mean, [`rules`] which of
//! them are allowed; [`host`] is the host's side of a connection, [`owner`] whose it is, [`aborts`] why it was reset.
#![deny(missing_docs)]

pub mod aborts;
pub mod addresses;
pub mod host;
pub mod journal;
mod netlink;
pub mod owner;
pub mod rules;
pub mod sandbox;
mod sys;
