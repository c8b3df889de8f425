//! Reads TCP connections from any source and explains them.
//!
//! The modules in reading order: [`row`] (one socket with all that is known about it), [`snapshot`] (all
//! of them at one moment, with counters and knobs), [`source`] (where snapshots come from), [`filter`]
//! (`ss`'s grammar, and ours), [`trace`] (events as they happen), [`sysctl`] (knobs explained), [`kill`]
//! (what ending does), [`record`] (who had what), [`closed`] (lives that ended), [`live`] (watching all of it), [`explain`] (one socket in a sentence), [`export`] (metrics), [`group`] (sums over them), [`json`] (as documents), [`doctor`] (what is wrong and why), [`words`] (the languages texts are written in).
//!
//! # Example
//! ```
//! use lastack_observe::filter::Filter;
//! let filter = Filter::parse(&["state", "fin-wait-1", "dst", "10.0.0.0/8", "sport = :443"])?;
//! assert!(filter.states.contains(lastack_core::tcp::state::TcpState::FinWait1));
//! # Ok::<(), lastack_observe::filter::FilterError>(())
//! ```

pub mod clock;
pub mod closed;
pub mod doctor;
pub mod explain;
pub mod export;
pub mod filter;
pub mod group;
pub mod interrupt;
pub mod json;
pub mod kill;
pub mod live;
pub mod record;
pub mod row;
pub mod snapshot;
pub mod source;
mod sys;
pub mod sysctl;
pub mod trace;
pub mod words;
