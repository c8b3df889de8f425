//! One TCP connection: small parts that never point at each other, and one conductor.

pub(crate) mod ack_policy;
pub(crate) mod congestion;
pub(crate) mod connection;
pub(crate) mod context;
pub(crate) mod ecn;
pub mod fast_open;
pub(crate) mod half_open;
pub(crate) mod metrics;
pub(crate) mod mss;
pub mod options;
pub(crate) mod paws;
pub(crate) mod rate_limit;
pub(crate) mod receive;
pub(crate) mod reorder;
pub(crate) mod reset;
pub(crate) mod send;
pub mod seq;
pub mod state;
pub(crate) mod time_wait;
pub(crate) mod urgent;
