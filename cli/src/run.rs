//! What `lastack run` and `lastack demo` are made of.
//!
//! [`session`] runs a program behind the stack from start to end, [`observe`] one that stays where it is; [`journal`] takes down what happens, [`words`]
//! explains it in two languages, [`report`] is the text at the end; [`rules`] reads `--allow` and `--deny`,
//! [`publish`] `--publish`, [`impair`] and [`inject`] what is to go wrong, [`quantity`] their numbers; [`impaired`] is the account of the link,
//! [`pcap_file`] the file of `--pcap`, [`warning`] what a journal lacks.
//! [`scenes`] are the connections that `demo` shows.

pub(crate) mod impair;
pub(crate) mod impaired;
pub(crate) mod inject;
pub(crate) mod journal;
pub(crate) mod observe;
pub(crate) mod pcap_file;
pub(crate) mod publish;
mod quantity;
pub(crate) mod report;
pub(crate) mod rules;
pub(crate) mod scenes;
pub(crate) mod session;
pub(crate) mod warning;
pub(crate) mod words;
mod words_en;
mod words_zh;
