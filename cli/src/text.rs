//! Text for people: wrapped lines and a little colour.

use std::io::{self, Write};

/// Lines no longer than this many columns.
const WIDTH: usize = 100;

/// Writes text; colours only when asked.
#[derive(Debug)]
pub(crate) struct Paint {
    pub(crate) colored: bool,
}

impl Paint {
    fn wrap_in(&self, code: &str, text: &str) -> String {
        if self.colored { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.wrap_in("1", text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.wrap_in("2", text)
    }

    pub(crate) fn red(&self, text: &str) -> String {
        self.wrap_in("1;31", text)
    }

    pub(crate) fn yellow(&self, text: &str) -> String {
        self.wrap_in("1;33", text)
    }

    pub(crate) fn blue(&self, text: &str) -> String {
        self.wrap_in("1;34", text)
    }
}

/// Writes `text` wrapped, its first line behind `first`, the others indented as far.
pub(crate) fn paragraph(out: &mut dyn Write, first: &str, text: &str) -> io::Result<()> {
    paragraph_within(out, WIDTH, first, text)
}

/// The same in so many columns.
pub(crate) fn paragraph_within(
    out: &mut dyn Write,
    columns: usize,
    first: &str,
    text: &str,
) -> io::Result<()> {
    let indent = width(first);
    for (index, line) in wrap(text, columns.saturating_sub(indent).max(20)).into_iter().enumerate() {
        if index == 0 {
            writeln!(out, "{first}{line}")?;
        } else {
            writeln!(out, "{:indent$}{line}", "")?;
        }
    }
    Ok(())
}

/// The columns of the terminal, between 80 and 120; 100 where there is none.
pub(crate) fn columns() -> usize {
    let set = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let asked = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    set.or_else(asked).filter(|columns| *columns > 0).unwrap_or(WIDTH).clamp(80, 120)
}

/// Breaks at spaces, and anywhere between Chinese characters.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut word = String::new();
    let mut flush = |line: &mut String, word: &mut String| {
        if width(line) + width(word) > columns && !line.trim().is_empty() {
            lines.push(line.trim_end().to_owned());
            *line = word.trim_start().to_owned();
        } else {
            line.push_str(word);
        }
        word.clear();
    };
    for c in text.chars() {
        // A closing mark must not begin a line: it stays with what is before it.
        let glued = matches!(c, '，' | '。' | '、' | '；' | '：' | '）' | '”');
        if (is_wide(c) && !glued) || c == ' ' {
            flush(&mut line, &mut word);
        }
        word.push(c);
    }
    flush(&mut line, &mut word);
    if !line.is_empty() {
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// Columns on a terminal.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(|c| if is_wide(c) { 2 } else { 1 }).sum()
}

fn is_wide(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe4f}' | '\u{ff00}'..='\u{ff60}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_nothing_is_lost() {
        for text in [
            "The peer's program reads slower than ours writes, or not at all; its buffer is full.",
            "接收程序读得比发送方写得慢，或根本不读；缓冲区已满，其内核以 window 0 告知。",
        ] {
            let lines = wrap(text, 24);
            assert!(lines.len() > 2);
            assert!(lines.iter().all(|line| width(line) <= 26), "{lines:?}");
            let joined: String = lines.concat().split_whitespace().collect();
            assert_eq!(joined, text.split_whitespace().collect::<String>());
        }
    }
}
