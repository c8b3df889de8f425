//! Puts a program behind the lastack TCP/IP stack.
//!
//! In reading order: [`sandbox`] makes the namespace, [`addresses`] says what its addresses mean.
#![deny(missing_docs)]

pub mod addresses;
mod netlink;
pub mod sandbox;
mod sys;
