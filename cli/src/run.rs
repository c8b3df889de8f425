//! What `lastack run` and `lastack demo` are made of: the session behind the stack, and what is said about it.
//!
//! [`words`] explains a record in two languages; [`report`] is the text at the end.

pub(crate) mod report;
pub(crate) mod words;
mod words_en;
mod words_zh;
