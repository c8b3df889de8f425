//! One TCP connection: small parts that never point at each other, and one conductor.

pub(crate) mod connection;
pub(crate) mod context;
pub(crate) mod half_open;
pub mod options;
pub(crate) mod send;
pub mod seq;
pub mod state;
pub(crate) mod time_wait;
