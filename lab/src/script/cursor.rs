//! The lexer: a position in the text and the small steps that move it.
//!
//! The language's tokens depend on the place (`.` is a flag word, a float's start or part of `...`), so
//! tokens are taken on demand by the parser, which knows the place, instead of in a pass of their own.
//! Rules: packet-script language, "Lexical rules".

use std::collections::BTreeMap;

use super::parse::ParseError;

/// What a defined word stands for (`--define=NAME=value`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Definition {
    Word(String),
    Int(i64),
    Str(String),
    Command(String),
}

#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    pub(super) definitions: BTreeMap<String, Definition>,
}

/// A number as read: whole, or with a fraction (only times have one).
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1, definitions: BTreeMap::new() }
    }

    pub(super) fn line(&self) -> u32 {
        self.line
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn error<T>(&self, message: impl Into<String>) -> Result<T, ParseError> {
        let found: String = self.rest().chars().take_while(|c| *c != '\n').take(40).collect();
        let message = message.into();
        let near = if found.is_empty() { "the end of the script".to_owned() } else { format!("`{found}`") };
        Err(ParseError { line: self.line, message: format!("{message}, near {near}") })
    }

    pub(super) fn advance(&mut self, bytes: usize) {
        let passed = &self.text[self.at..self.at + bytes];
        self.line += passed.matches('\n').count() as u32;
        self.at += bytes;
    }

    /// Skips blanks and comments.
    pub(super) fn skip_blank(&mut self) -> Result<(), ParseError> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.advance(blank);
            let rest = self.rest();
            if rest.starts_with("//") {
                self.advance(rest.find('\n').unwrap_or(rest.len()));
            } else if rest.starts_with("/*") {
                match rest.find("*/") {
                    Some(end) => self.advance(end + 2),
                    None => return self.error("a comment is never closed"),
                }
            } else {
                return Ok(());
            }
        }
    }

    /// True (and nothing moves) when `token` comes next, after blanks.
    pub(super) fn sees(&mut self, token: &str) -> Result<bool, ParseError> {
        self.skip_blank()?;
        Ok(self.rest().starts_with(token))
    }

    pub(super) fn sees_digit(&mut self) -> Result<bool, ParseError> {
        self.skip_blank()?;
        Ok(self.rest().starts_with(|c: char| c.is_ascii_digit()))
    }

    /// Takes `token` if it comes next.
    pub(super) fn take(&mut self, token: &str) -> Result<bool, ParseError> {
        let seen = self.sees(token)?;
        if seen {
            self.advance(token.len());
        }
        Ok(seen)
    }

    pub(super) fn expect(&mut self, token: &str) -> Result<(), ParseError> {
        if self.take(token)? { Ok(()) } else { self.error(format!("expected `{token}`")) }
    }

    /// The word that comes next, not taken; substitutions are not applied.
    pub(super) fn peek_word(&mut self) -> Result<&'a str, ParseError> {
        self.skip_blank()?;
        let rest = self.rest();
        let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        Ok(&rest[..len])
    }

    /// Takes `word` if exactly this word comes next.
    pub(super) fn take_word(&mut self, word: &str) -> Result<bool, ParseError> {
        let seen = self.peek_word()? == word;
        if seen {
            self.advance(word.len());
        }
        Ok(seen)
    }

    pub(super) fn word(&mut self) -> Result<String, ParseError> {
        let word = self.peek_word()?;
        if word.is_empty() {
            return self.error("expected a word");
        }
        self.advance(word.len());
        match self.definitions.get(word) {
            Some(Definition::Word(other)) => Ok(other.clone()),
            _ => Ok(word.to_owned()),
        }
    }

    /// What the next word was defined as, if it was; the word is taken then.
    pub(super) fn take_defined(&mut self) -> Result<Option<Definition>, ParseError> {
        let word = self.peek_word()?;
        let definition = self.definitions.get(word).cloned();
        if definition.is_some() {
            self.advance(word.len());
        }
        Ok(definition)
    }

    /// A non-negative number, decimal or hexadecimal, possibly with a fraction.
    pub(super) fn number(&mut self) -> Result<Number, ParseError> {
        self.skip_blank()?;
        let rest = self.rest();
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let len = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
            return match u64::from_str_radix(&hex[..len], 16) {
                Ok(value) => {
                    self.advance(2 + len);
                    Ok(Number::Int(value as i64))
                }
                Err(_) => self.error("not a hexadecimal number"),
            };
        }
        let digits = |s: &str| s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
        let whole = digits(rest);
        let after = &rest[whole..];
        // `0...1` is a number, three dots, a number.
        let fraction =
            if after.starts_with('.') && !after.starts_with("...") { digits(&after[1..]) } else { 0 };
        if fraction > 0 {
            let text = &rest[..whole + 1 + fraction];
            self.advance(text.len());
            let text = if text.starts_with('.') { format!("0{text}") } else { text.to_owned() };
            return Ok(Number::Float(text.parse().expect("digits, a dot, digits: a float")));
        }
        match rest[..whole].parse() {
            Ok(value) => {
                self.advance(whole);
                Ok(Number::Int(value))
            }
            Err(_) => match self.take_defined()? {
                Some(Definition::Int(value)) => Ok(Number::Int(value)),
                _ => self.error("expected a number"),
            },
        }
    }

    /// A whole number, possibly negative.
    pub(super) fn int(&mut self) -> Result<i64, ParseError> {
        let negative = self.take("-")?;
        match self.number()? {
            Number::Int(value) => Ok(if negative { value.wrapping_neg() } else { value }),
            Number::Float(_) => self.error("expected a whole number"),
        }
    }

    /// A whole number in the range of `T`.
    pub(super) fn int_as<T: TryFrom<i64>>(&mut self, what: &str) -> Result<T, ParseError> {
        let value = self.int()?;
        match T::try_from(value) {
            Ok(value) => Ok(value),
            Err(_) => self.error(format!("{what} {value} is out of range")),
        }
    }

    /// Hexadecimal digits as bytes, from a bare word such as `3021b9d889017eeb`.
    pub(super) fn hex_bytes(&mut self) -> Result<Vec<u8>, ParseError> {
        let word = match self.take_defined()? {
            Some(Definition::Word(word)) => word,
            Some(Definition::Int(value)) => value.to_string(),
            Some(_) => return self.error("expected hexadecimal digits"),
            None => self.word()?,
        };
        let digits = word.as_bytes();
        let pair = |pair: &[u8]| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
        match bytes {
            Some(bytes) if digits.len().is_multiple_of(2) => Ok(bytes),
            _ => self.error(format!("`{word}` is not a row of hexadecimal byte pairs")),
        }
    }

    /// `"…"`, neighbours joined, escapes left in place.
    pub(super) fn string(&mut self) -> Result<String, ParseError> {
        let mut joined = String::new();
        self.expect("\"")?;
        loop {
            joined.push_str(&self.until_closing('"', "string")?);
            if !self.take("\"")? {
                return Ok(joined);
            }
        }
    }

    /// `` `…` ``; a backslash escapes the next character.
    pub(super) fn command(&mut self) -> Result<String, ParseError> {
        self.expect("`")?;
        let text = self.until_closing('`', "command")?;
        let text = text.replace("\\`", "`");
        Ok(text.trim().to_owned())
    }

    fn until_closing(&mut self, close: char, what: &str) -> Result<String, ParseError> {
        let rest = self.rest();
        let mut escaped = false;
        for (at, c) in rest.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == close => {
                    self.advance(at + close.len_utf8());
                    return Ok(rest[..at].to_owned());
                }
                _ => {}
            }
        }
        self.error(format!("a {what} is never closed"))
    }

    /// `%{ … }%`
    pub(super) fn code(&mut self) -> Result<String, ParseError> {
        self.expect("%{")?;
        let rest = self.rest();
        let Some(end) = rest.find("}%") else { return self.error("a code block is never closed") };
        self.advance(end + 2);
        Ok(rest[..end].trim().to_owned())
    }

    /// `(any text)`, nested parentheses balanced: a comment after an errno.
    pub(super) fn parenthesised(&mut self) -> Result<(), ParseError> {
        self.expect("(")?;
        let mut depth = 1;
        for (at, c) in self.rest().char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.advance(at + 1);
                return Ok(());
            }
        }
        self.error("a parenthesis is never closed")
    }
}
