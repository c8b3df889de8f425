//! One file a subcommand: its arguments, its work, its output.

pub(crate) mod capture;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod kill;
pub(crate) mod lab;
pub(crate) mod publish;
pub(crate) mod record;
pub(crate) mod run;
pub(crate) mod ss;
pub(crate) mod sysctl;
pub(crate) mod trace;
pub(crate) mod watch;
