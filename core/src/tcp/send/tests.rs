//! The sending half against a peer of a few lines, in virtual time.

mod handshake;
mod harness;
mod path;
mod timeouts;
