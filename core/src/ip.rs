//! What IP does besides carrying: reassembly, errors and answers, path MTU.
//!
//! In: a [`crate::wire::Packet`] that is not simply TCP or UDP for us. Each part is a plain value that the stack owns
//! and asks; none sends by itself, and none grows without bound.

pub mod fragments;
pub mod icmp;
pub mod pmtu;

pub(crate) mod by_address;
