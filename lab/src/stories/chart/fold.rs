//! Leaves out what only repeats, and says how much that was.

use super::{Fold, Middle, Row};
use crate::stories::Fate;
use crate::stories::record::Role;

/// So many segments of data in a row are shown as one line.
const MANY_DATA: usize = 4;
/// A repetition is folded when it occurs at least so often; the first two and the last are shown.
const MANY_REPEATS: usize = 5;

/// Folds runs of plain data with their acknowledgments.
pub(super) fn data(rows: Vec<Row>) -> Vec<Row> {
    let mut out: Vec<Row> = Vec::new();
    let mut rest = rows.as_slice();
    while let Some(first) = rest.first() {
        let run = data_run(rest);
        let data = rest[..run].iter().filter(|row| row.arrow().is_some_and(|s| s.len > 0)).count();
        if data >= MANY_DATA {
            out.push(fold_data(&rest[..run]));
            rest = &rest[run..];
        } else {
            out.push(first.clone());
            rest = &rest[1..];
        }
    }
    out
}

/// How many rows from the first on are new data of one end or acknowledgments of the other, and nothing else.
fn data_run(rows: &[Row]) -> usize {
    let Some(first) = rows.first().and_then(Row::arrow).filter(|segment| segment.len > 0) else { return 0 };
    rows.iter()
        .take_while(|row| {
            let plain = row.lanes.iter().all(Vec::is_empty);
            row.arrow().is_some_and(|segment| {
                let arrives = matches!(segment.fate, Fate::Arrives { .. });
                let only_ack = !segment.flags.contains("FIN") && !segment.flags.contains("RST");
                let has_data = segment.len > 0;
                plain
                    && arrives
                    && only_ack
                    && segment.flow == first.flow
                    && segment.role == Role::First
                    && has_data == (segment.from == first.from)
            })
        })
        .count()
}

fn fold_data(rows: &[Row]) -> Row {
    let sent: Vec<_> = rows.iter().filter_map(Row::arrow).collect();
    let from = sent[0].from;
    let data = sent.iter().filter(|segment| segment.len > 0);
    let fold = Fold::Data {
        from,
        segments: data.clone().count(),
        bytes: data.map(|segment| u64::from(segment.len)).sum(),
        acks: sent.iter().filter(|segment| segment.len == 0).count(),
        window: sent.iter().rev().find(|segment| segment.from != from).map(|segment| segment.win),
    };
    Row::new(rows[0].at, rows[0].flow, Middle::Fold(fold))
}

/// Folds one row, or a row and its answer, that repeats.
pub(super) fn repeats(rows: Vec<Row>) -> Vec<Row> {
    let mut out: Vec<Row> = Vec::new();
    let mut rest = rows.as_slice();
    while let Some(first) = rest.first() {
        let found = [1, 2].into_iter().find_map(|period| {
            let times = repetitions(rest, period);
            (times >= MANY_REPEATS).then_some((period, times))
        });
        let Some((period, times)) = found else {
            out.push(first.clone());
            rest = &rest[1..];
            continue;
        };
        let shown = 2 * period;
        let last = (times - 1) * period;
        out.extend_from_slice(&rest[..shown]);
        let distance = |n: usize| rest[(n + 1) * period].at.saturating_sub(rest[n * period].at);
        let from = rest[0].arrow().expect("only arrows repeat").from;
        let fold = Fold::Repeats {
            from,
            times: times - 3,
            apart: (distance(1), distance(times - 2)),
            answered: period == 2,
        };
        out.push(Row::new(rest[shown].at, rest[0].flow, Middle::Fold(fold)));
        out.extend_from_slice(&rest[last..last + period]);
        rest = &rest[last + period..];
    }
    out
}

/// How often the first `period` rows follow one another.
fn repetitions(rows: &[Row], period: usize) -> usize {
    if !rows.first().is_some_and(is_repetition) {
        return 0;
    }
    rows.chunks_exact(period)
        .take_while(|chunk| chunk.iter().zip(rows).all(|(row, first)| alike(row, first)))
        .count()
}

/// Probes and retransmissions repeat; their answers repeat with them.
fn is_repetition(row: &Row) -> bool {
    row.arrow().is_some_and(|segment| segment.role != Role::First)
}

fn alike(row: &Row, first: &Row) -> bool {
    let (Some(a), Some(b)) = (row.arrow(), first.arrow()) else { return false };
    let lost = |fate: &Fate| core::mem::discriminant(fate);
    row.lanes == first.lanes
        && (a.from, a.flow, &a.flags, a.seq, a.len, a.ack, a.win, a.role)
            == (b.from, b.flow, &b.flags, b.seq, b.len, b.ack, b.win, b.role)
        && lost(&a.fate) == lost(&b.fate)
}
