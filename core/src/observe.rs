//! The observation vocabulary: counters, events, reasons, rows. Linux's names wherever Linux has one.
//!
//! Four channels: [`counters`] always count; every drop, reset and ending has a [`reason`]; [`event`]s are
//! recorded only when their group is asked for; [`info`] is a snapshot on request.
//! Reading changes nothing. What a source cannot know is `None`.

pub mod control;
pub mod counters;
pub mod event;
pub mod info;
pub mod life;
pub mod reason;

pub use counters::{CounterInfo, Counters};
pub use event::{Event, EventKind, EventLog, EventMask};
pub use info::{CaState, Gauges, SocketRow, TcpInfo, TimerKind, TimerRow};
pub use life::{Ending, Life, Side};
pub use reason::{DropReason, ResetReason};
