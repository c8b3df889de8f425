//! Tables and numbers for people.

use std::io::{self, Write};

/// Columns aligned by their widest cell; the last is not padded.
#[derive(Debug, Default)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    right: Vec<bool>,
    rows: Vec<(Vec<String>, Option<String>)>,
}

impl Table {
    /// A table with these columns; those with `true` are right-aligned.
    pub(crate) fn new(columns: &[(&'static str, bool)]) -> Self {
        Self {
            header: columns.iter().map(|column| column.0).collect(),
            right: columns.iter().map(|column| column.1).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, cells: Vec<String>) {
        self.rows.push((cells, None));
    }

    /// A row with a second line under it.
    pub(crate) fn push_with_detail(&mut self, cells: Vec<String>, detail: String) {
        self.rows.push((cells, Some(detail)));
    }

    pub(crate) fn write(&self, out: &mut dyn Write, with_header: bool) -> io::Result<()> {
        let mut widths: Vec<usize> =
            self.header.iter().map(|name| if with_header { name.len() } else { 0 }).collect();
        for (row, _) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if with_header {
            let cells: Vec<String> = self.header.iter().map(|name| (*name).to_owned()).collect();
            self.line(out, &widths, &cells)?;
        }
        for (row, detail) in &self.rows {
            self.line(out, &widths, row)?;
            if let Some(detail) = detail {
                writeln!(out, "\t {detail}")?;
            }
        }
        Ok(())
    }

    fn line(&self, out: &mut dyn Write, widths: &[usize], cells: &[String]) -> io::Result<()> {
        let mut text = String::new();
        for (index, cell) in cells.iter().enumerate() {
            if index > 0 {
                text.push_str("  ");
            }
            let pad = widths[index] - cell.chars().count();
            if self.right[index] {
                text.extend(std::iter::repeat_n(' ', pad));
            }
            text.push_str(cell);
            if !self.right[index] && index + 1 < cells.len() {
                text.extend(std::iter::repeat_n(' ', pad));
            }
        }
        writeln!(out, "{}", text.trim_end())
    }
}
