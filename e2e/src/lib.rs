//! Proves `lastack run` with real programs, beside plain Linux, pasta and slirp4netns.
//!
//! | module | is |
//! |---|---|
//! | [`clock`] | the one place that reads the clock and pauses |
//! | [`process`] | child processes that cannot outlive their test, and waiting with an upper bound |
//! | [`mod@needs`] | what a test needs from the machine; the loud `SKIPPED` |
//! | [`binaries`] | where the `lastack` under test and our own helpers are |
//! | [`arena`] | three private network namespaces: the program's, the host's, the remote's |
//! | [`carrier`] | the ways a program's packets can travel: plain Linux, lastack, pasta, slirp4netns |
//! | [`actor`] | a program that makes socket calls on request and reports what they returned |
//! | [`law`] | the errno law and the closing law, case by case, and the league table |
//! | [`servers`] | nginx, redis, sshd … on ports of their own |
//! | [`resolver`] | a name server for tests |
//! | [`runner`] | `lastack run` as this user or as nobody, with its journal |
//! | [`journal`] | what `lastack run --report json` wrote |
//! | [`soak`] | hours of mixed load, and whether it stays flat |
//!
//! The end-to-end tests are in `e2e/tests`; `docs/closing-law.md` is made by
//! `cargo run --release -p lastack-e2e --bin closing-law -- --write`.

#![forbid(unsafe_code)]

pub mod actor;
pub mod arena;
pub mod binaries;
pub mod carrier;
pub mod clock;
pub mod journal;
pub mod law;
pub mod needs;
pub mod process;
pub mod resolver;
pub mod runner;
pub mod servers;
pub mod soak;
