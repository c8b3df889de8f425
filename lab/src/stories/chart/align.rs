//! Lays two runs of one story side by side: what both have is one row with two times.

use super::{Cell, Differs, Fold, Middle, Row};
use crate::stories::Fate;

/// One chart of two runs; the second's times are in [`Row::second`].
pub fn side_by_side(first: &[Row], second: &[Row]) -> Vec<Row> {
    let (a, b): (Vec<String>, Vec<String>) =
        (first.iter().map(shape).collect(), second.iter().map(shape).collect());
    // Longest common subsequence; charts have tens of rows.
    let mut longest = vec![vec![0u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i][j] = if a[i] == b[j] {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            let mut row = Row { second: Some(second[j].at), ..first[i].clone() };
            let (here, there) = (figures(&first[i]), figures(&second[j]));
            row.differs = (here != there).then_some(Differs::Figures(there));
            out.push(row);
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || i < a.len() && longest[i + 1][j] >= longest[i][j + 1] {
            out.push(Row { differs: Some(Differs::OnlyFirst), ..first[i].clone() });
            i += 1;
        } else {
            let at = second[j].at;
            out.push(Row { second: Some(at), differs: Some(Differs::OnlySecond), ..second[j].clone() });
            j += 1;
        }
    }
    out
}

/// What must be equal for two rows to be the same event.
fn shape(row: &Row) -> String {
    let mut out = format!("{:?} ", row.flow);
    for lane in &row.lanes {
        for cell in lane {
            match cell {
                Cell::Call(call, result) => {
                    let errno = if result.starts_with('E') { result } else { "" };
                    out.push_str(&format!("{call}{errno} "));
                }
                Cell::State(state) => out.push_str(state.unwrap_or("gone")),
                // How well a timer can be told from other reasons depends on the clock.
                Cell::Timer(_) => {}
            }
        }
        out.push('|');
    }
    match &row.middle {
        Middle::Nothing => {}
        Middle::Says(text) => out.push_str(text.en),
        Middle::Arrow(segment) => {
            let flags = segment.flags.replace("PSH,", "");
            let arrives = matches!(segment.fate, Fate::Arrives { .. });
            let has_data = segment.len > 0;
            out.push_str(&format!("{:?} {flags} {:?} {arrives} {has_data}", segment.from, segment.role));
        }
        Middle::Fold(Fold::Data { from, .. }) => out.push_str(&format!("data {from:?}")),
        Middle::Fold(Fold::Repeats { from, .. }) => out.push_str(&format!("repeats {from:?}")),
    }
    out
}

/// The figures of a row that two runs should share. Windows may differ a little, and counts of acknowledgments do.
fn figures(row: &Row) -> String {
    match &row.middle {
        Middle::Arrow(segment) => {
            segment.text(usize::MAX).split(" win ").next().unwrap_or_default().to_owned()
        }
        Middle::Fold(Fold::Data { bytes, .. }) => bytes.to_string(),
        Middle::Fold(Fold::Repeats { times, .. }) => times.to_string(),
        Middle::Nothing | Middle::Says(_) => row
            .lanes
            .iter()
            .flatten()
            .filter_map(|cell| if let Cell::Call(_, result) = cell { Some(result.as_str()) } else { None })
            .collect(),
    }
}
