//! The packet-script language: text ↔ syntax tree.
//!
//! Reading order: [`ast`] (what a script is), [`parse`](mod@parse) (text → tree), [`print`](mod@print) (tree → text),
//! [`assertion`] (the `%{ … }%` blocks), [`symbols`] (names → Linux numbers).

pub mod assertion;
pub mod ast;
mod cursor;
mod packet_parser;
pub mod parse;
pub mod print;
pub mod symbols;

pub use ast::Script;
pub use parse::{ParseError, parse};
