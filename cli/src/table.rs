//! Tables and numbers for people.

use std::fmt::Write as _;
use std::io::{self, Write};

use unicode_width::UnicodeWidthStr as _;

/// Text kept before it is written: with a full block the columns' widths are settled for what it has. A longer table's
/// columns may grow from block to block, as those of iproute2's `ss` do.
const BLOCK: usize = 256 * 1024;

/// Columns aligned by their widest cell; the last is not padded.
///
/// Cells lie one behind the other in one text, so that a row costs no allocation: fill them with [`Table::cell`], end
/// the row with [`Table::end_row`], and call [`Table::drain`] now and then where the rows may be very many.
#[derive(Debug, Default)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    right: Vec<bool>,
    widths: Vec<usize>,
    header_is_due: bool,
    text: String,
    /// Where in `text` each cell ends: a row's columns, and its second line, which may be empty.
    ends: Vec<usize>,
    /// Cells of the row that is being filled.
    filled: usize,
    page: String,
}

impl Table {
    /// A table with these columns; those with `true` are right-aligned.
    pub(crate) fn new(columns: &[(&'static str, bool)]) -> Self {
        Self {
            header: columns.iter().map(|column| column.0).collect(),
            right: columns.iter().map(|column| column.1).collect(),
            widths: vec![0; columns.len()],
            header_is_due: true,
            ..Self::default()
        }
    }

    /// Writes the next cell of the row: `spell` appends to the text it is given.
    pub(crate) fn cell(&mut self, spell: impl FnOnce(&mut String)) {
        let start = self.text.len();
        spell(&mut self.text);
        let width = width(&self.text[start..]);
        if let Some(widest) = self.widths.get_mut(self.filled) {
            *widest = width.max(*widest);
        }
        self.filled += 1;
        self.ends.push(self.text.len());
    }

    /// Ends the row; `detail` appends its second line, if there is to be one.
    pub(crate) fn end_row(&mut self, detail: impl FnOnce(&mut String)) {
        // A row may leave its last cells out.
        while self.filled < self.header.len() {
            self.cell(|_| {});
        }
        detail(&mut self.text);
        self.ends.push(self.text.len());
        self.filled = 0;
    }

    pub(crate) fn push(&mut self, cells: Vec<String>) {
        for cell in cells {
            self.cell(|text| text.push_str(&cell));
        }
        self.end_row(|_| {});
    }

    /// Writes what there is once it is a block.
    pub(crate) fn drain(&mut self, out: &mut dyn Write, with_header: bool) -> io::Result<()> {
        if self.text.len() < BLOCK { Ok(()) } else { self.write(out, with_header) }
    }

    /// Writes what there is, under the header if that has not been written yet.
    pub(crate) fn write(&mut self, out: &mut dyn Write, with_header: bool) -> io::Result<()> {
        let mut page = std::mem::take(&mut self.page);
        if with_header && std::mem::take(&mut self.header_is_due) {
            for (width, name) in self.widths.iter_mut().zip(&self.header) {
                *width = self::width(name).max(*width);
            }
            self.line(&mut page, self.header.iter().copied());
        }
        let mut start = 0;
        for ends in self.ends.chunks_exact(self.header.len() + 1) {
            let (mut from, detail_from) = (start, ends[self.header.len() - 1]);
            self.line(
                &mut page,
                ends[..self.header.len()]
                    .iter()
                    .map(|end| &self.text[std::mem::replace(&mut from, *end)..*end]),
            );
            start = ends[self.header.len()];
            if detail_from < start {
                let _ = writeln!(page, "\t {}", &self.text[detail_from..start]);
            }
        }
        self.text.clear();
        self.ends.clear();
        out.write_all(page.as_bytes())?;
        page.clear();
        self.page = page;
        Ok(())
    }

    fn line<'a>(&self, page: &mut String, cells: impl Iterator<Item = &'a str>) {
        let start = page.len();
        for (index, cell) in cells.enumerate() {
            if index > 0 {
                page.push_str("  ");
            }
            let pad = self.widths[index] - width(cell);
            if self.right[index] {
                spaces(page, pad);
            }
            page.push_str(cell);
            if !self.right[index] && index + 1 < self.header.len() {
                spaces(page, pad);
            }
        }
        page.truncate(start.max(page.trim_end_matches(' ').len()));
        page.push('\n');
    }
}

/// Cells of a terminal: a Chinese character takes two.
fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

fn spaces(page: &mut String, mut count: usize) {
    const SPACES: &str = "                                ";
    while count > 0 {
        let some = count.min(SPACES.len());
        page.push_str(&SPACES[..some]);
        count -= some;
    }
}

/// Appends a number.
pub(crate) fn number(text: &mut String, n: impl itoa::Integer) {
    text.push_str(itoa::Buffer::new().format(n));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &mut Table, with_header: bool) -> String {
        let mut out = Vec::new();
        table.write(&mut out, with_header).expect("a Vec takes all");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("State", false), ("Q", true), ("Who", false)]);
        table.push(vec!["ESTAB".to_owned(), "1000".to_owned(), "名".to_owned()]);
        for cell in ["X", "7"] {
            table.cell(|text| text.push_str(cell));
        }
        table.end_row(|text| text.push_str("more"));
        assert_eq!(written(&mut table, true), "State     Q  Who\nESTAB  1000  名\nX         7\n\t more\n");
    }

    #[test]
    fn chinese_is_twice_as_wide() {
        let mut table = Table::new(&[("协议", false), ("主机", true), ("打开", true)]);
        table.push(["tcp", "[::]:80", "2"].map(str::to_owned).to_vec());
        assert_eq!(written(&mut table, true), "协议     主机  打开\ntcp   [::]:80     2\n");
    }

    #[test]
    fn without_a_header_its_names_take_no_width() {
        let mut table = Table::new(&[("A long name", false), ("B", true)]);
        table.push(vec!["x".to_owned(), "22".to_owned()]);
        assert_eq!(written(&mut table, false), "x  22\n");
    }

    #[test]
    fn a_long_table_is_written_in_blocks_and_loses_nothing() {
        let mut table = Table::new(&[("N", true), ("Square", true)]);
        let mut out = Vec::new();
        let rows = 60_000u64;
        for n in 0..rows {
            table.cell(|text| number(text, n));
            table.cell(|text| number(text, n * n));
            table.end_row(|_| {});
            table.drain(&mut out, true).expect("a Vec takes all");
            assert!(table.text.len() < BLOCK, "no more than a block is kept");
        }
        assert!(!out.is_empty(), "blocks have gone out before the end");
        table.write(&mut out, true).expect("a Vec takes all");
        let text = String::from_utf8(out).expect("text");
        let mut lines = text.lines();
        assert_eq!(lines.next().map(|line| line.split_whitespace().count()), Some(2), "one header");
        for n in 0..rows {
            let line = lines.next().expect("a line a row");
            let cells: Vec<u64> =
                line.split_whitespace().map(|cell| cell.parse().expect("a number")).collect();
            assert_eq!(cells, [n, n * n]);
        }
        assert_eq!(lines.next(), None);
    }
}
