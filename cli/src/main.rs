//! The `lastack` command.
#![forbid(unsafe_code)]

fn main() {}
