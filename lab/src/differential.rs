//! Differential testing: random calls and segments, played to Linux and to the stack, answers compared.
//!
//! Owns:    [`mod@generate`] (a script from a seed), [`Judge`] (do both hosts answer alike?), [`minimise()`] (the shortest
//!          script that still shows a difference), [`as_script()`] (that script with Linux's answers, for the suite).
//! Input:   a seed and a [`Kind`]; the same pair gives the same script for ever.
//! Rules:   what the kernel answers is right. Initial sequence numbers, timestamps' values and timers' lateness do not
//!          count: a kernel's answer is also right when the stack gives it for the same script played a little later, with timers
//!          that are late as on Linux's wheel, or with a handshake's round trip longer by up to a tick.
//! Not here: the program that runs many of them (`examples/differential.rs`).

mod compare;
mod generate;
mod judge;
mod minimise;
mod random;
mod story;
mod write;

pub use compare::{Difference, first_difference};
pub use generate::{Kind, generate};
pub use judge::{Judge, Judgement};
pub use minimise::minimise;
pub use write::as_script;
