//! One TCP connection.

pub mod options;
pub mod seq;
pub mod state;
