//! One TCP connection: small parts that never point at each other, and one conductor.

pub(crate) mod context;
pub mod options;
pub(crate) mod send;
pub mod seq;
pub mod state;
