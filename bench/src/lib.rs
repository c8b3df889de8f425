//! Comparisons with peers, in one interleaved series: `bench/run.sh`, results in `bench/RESULTS.md`.
//!
//! | | is |
//! |---|---|
//! | bin `bench` | the series: rounds over rows over carriers, medians, ratios, the gate |
//! | bin `load` | the load: bulk, short connections, ping-pong, idle connections |
//! | bin `yardstick` | a forwarder without TCP on a TUN: what a stack of zero cost would reach here |
//! | [`contest`] | who is measured, and how a load is run behind each |
//! | bin `league` | Linux's recorded answers beside lastack's and smoltcp's: `docs/league.md` |
//! | [`league`] | the 880 cells asked, compared, counted |
//! | [`smoltcp_host`] | smoltcp as a host of the lab |
//! | [`figures`] | medians, ratios, the table |
//! | bin `operator` | `ss`, `trace`, `record`, `export`, `watch` on 100,000 sockets and under the highest rate of short connections: `bench/OPERATOR.md` |
//! | [`short_lives`] | short connections, as many as this machine gives |
//! | [`followers`] | who follows them, and at what price |
//! | [`screen`] | a terminal for `watch` |
//! | [`tun`] | opens the yardstick's TUN |
//! | [`raw_dump`] | the yardstick of listing sockets |
//! | [`usage`] | processor time and memory of a child |
//!
//! A figure counts only if its gate holds: no error, no stall, nothing left behind. A row that fails it is printed as failed.

pub mod contest;
pub mod figures;
pub mod followers;
pub mod league;
pub mod raw_dump;
pub mod screen;
pub mod short_lives;
pub mod smoltcp_host;
pub mod tun;
pub mod usage;
