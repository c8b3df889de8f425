//! The sequence chart on a terminal: time, the client's lane, what crosses the wire, the server's lane.

use std::io::{self, Write};

use lastack_lab::stories::chart::{Cell, Differs, Middle, Row};
use lastack_lab::stories::record::Segment;
use lastack_lab::stories::words::time;
use lastack_lab::stories::{Fate, Side};

use super::{Layout, cell_text, fold_text, legend, segment_text};
use crate::text::{width, wrap};

/// Columns of a time, its space included.
const TIME: usize = 12;

/// What the chart shows.
#[derive(Debug)]
pub(crate) struct Chart<'r> {
    pub(crate) rows: &'r [Row],
    /// The heads of the lanes.
    pub(crate) heads: [String; 2],
    /// Two runs: the heads of their times.
    pub(crate) runs: Option<[String; 2]>,
    /// More than one connection: they are numbered.
    pub(crate) many: bool,
}

/// Where everything stands.
struct Columns {
    mark: usize,
    times: usize,
    number: usize,
    lane: usize,
    middle: usize,
}

impl Columns {
    fn new(chart: &Chart<'_>, layout: &Layout) -> Self {
        let (mark, times) = if chart.runs.is_some() { (2, 2 * TIME) } else { (0, TIME) };
        let number = if chart.many { 3 } else { 0 };
        let left = layout.columns - mark - times - number - 4;
        // Lanes are a little narrower than what is between them.
        let lane = (left * 28 / 100).clamp(11, 26);
        Self { mark, times, number, lane, middle: left - 2 * lane }
    }

    fn before_lanes(&self) -> usize {
        self.mark + self.times + self.number
    }
}

/// Draws the chart.
pub(crate) fn draw(chart: &Chart<'_>, layout: &Layout, out: &mut dyn Write) -> io::Result<()> {
    let columns = Columns::new(chart, layout);
    for line in wrap(legend(layout.lang), layout.columns - 4) {
        writeln!(out, "  {}", layout.paint.dim(&line))?;
    }
    head(chart, &columns, layout, out)?;
    let mut last = [String::new(), String::new()];
    for row in chart.rows {
        if let Middle::Says(text) = &row.middle {
            says(text.get(layout.lang), &columns, layout, out)?;
            continue;
        }
        let shown = times(row, chart.runs.is_some());
        for (line, cells) in lines(row, &columns, layout).into_iter().enumerate() {
            let mark = if line == 0 { mark(row, layout) } else { String::new() };
            let time = if line == 0 && shown != last { shown.clone() } else { Default::default() };
            let number =
                if line == 0 && chart.many { row.flow.map(|flow| format!("#{} ", flow + 1)) } else { None };
            let time = if chart.runs.is_some() {
                format!("{:>11} {:>11} ", time[0], time[1])
            } else {
                format!("{:>11} ", time[0])
            };
            let pad = |text: &str, to: usize| " ".repeat(to.saturating_sub(width(text)));
            let bar = layout.paint.dim(layout.pick("│", "|"));
            let number = number.unwrap_or_default();
            let Line { left, middle, right } = cells;
            let line = format!(
                "{}{}{}{number}{} {}{} {bar}{middle}{bar} {}",
                layout.paint.red(&mark),
                pad(&mark, columns.mark),
                layout.paint.dim(&time),
                pad(&number, columns.number),
                left.painted,
                pad(&left.plain, columns.lane),
                right.painted
            );
            writeln!(out, "{}", line.trim_end())?;
        }
        last = shown;
        if let Some(Differs::Figures(there)) = &row.differs {
            let there = format!("{}Linux: {there}", " ".repeat(columns.before_lanes() + columns.lane + 3));
            writeln!(out, "{}", layout.paint.yellow(&there))?;
        }
    }
    Ok(())
}

fn head(chart: &Chart<'_>, columns: &Columns, layout: &Layout, out: &mut dyn Write) -> io::Result<()> {
    let time = match &chart.runs {
        Some([first, second]) => format!("  {first:>11} {second:>11} "),
        None => format!("{:>11} ", ""),
    };
    let lead = time + &" ".repeat(columns.number + 1);
    let pad =
        columns.lane + columns.middle + 4 - width(&chart.heads[0]).min(columns.lane + columns.middle + 3);
    writeln!(
        out,
        "{lead}{}{}{}",
        layout.paint.bold(&chart.heads[0]),
        " ".repeat(pad),
        layout.paint.bold(&chart.heads[1])
    )
}

/// The teller's words, across everything.
fn says(text: &str, columns: &Columns, layout: &Layout, out: &mut dyn Write) -> io::Result<()> {
    let lead = columns.mark + 2;
    for line in wrap(text, layout.columns - lead - 2) {
        writeln!(out, "{}{}", " ".repeat(lead), layout.paint.blue(&line))?;
    }
    Ok(())
}

fn times(row: &Row, two: bool) -> [String; 2] {
    let shown = |at: core::time::Duration| time(at.as_secs_f64());
    if !two {
        return [shown(row.at), String::new()];
    }
    let first = if row.differs == Some(Differs::OnlySecond) { String::new() } else { shown(row.at) };
    [first, row.second.map(shown).unwrap_or_default()]
}

fn mark(row: &Row, layout: &Layout) -> String {
    if row.differs.is_some() { layout.pick("≠ ", "! ").to_owned() } else { String::new() }
}

/// A piece of a line, with and without colours.
#[derive(Clone, Default)]
struct Piece {
    plain: String,
    painted: String,
}

struct Line {
    left: Piece,
    middle: String,
    right: Piece,
}

fn lines(row: &Row, columns: &Columns, layout: &Layout) -> Vec<Line> {
    let lanes = [0, 1].map(|side| lane(&row.lanes[side], columns.lane, layout));
    let middle = middle(row, columns.middle, layout);
    let count = lanes[0].len().max(lanes[1].len()).max(1);
    let empty = " ".repeat(columns.middle);
    (0..count)
        .map(|line| Line {
            left: lanes[0].get(line).cloned().unwrap_or_default(),
            middle: if line == 0 { middle.clone() } else { empty.clone() },
            right: lanes[1].get(line).cloned().unwrap_or_default(),
        })
        .collect()
}

fn lane(cells: &[Cell], columns: usize, layout: &Layout) -> Vec<Piece> {
    cells
        .iter()
        .flat_map(|cell| {
            let text = cell_text(cell, layout.lang);
            wrap(&text, columns).into_iter().map(move |plain| {
                let painted = match cell {
                    Cell::Call(_, result) if result.starts_with('E') => layout.paint.red(&plain),
                    Cell::Call(..) => plain.clone(),
                    Cell::State(_) => layout.paint.bold(&plain),
                    Cell::Timer(_) => layout.paint.yellow(&plain),
                };
                Piece { plain, painted }
            })
        })
        .collect()
}

fn middle(row: &Row, columns: usize, layout: &Layout) -> String {
    match &row.middle {
        Middle::Nothing | Middle::Says(_) => " ".repeat(columns),
        Middle::Arrow(segment) => arrow(segment, columns, layout),
        Middle::Fold(fold) => {
            let dots = layout.pick("⋮", ":");
            let line = format!(" {dots} {}", fold_text(fold, layout.lang, columns - 4));
            let pad = " ".repeat(columns.saturating_sub(width(&line)));
            layout.paint.dim(&format!("{line}{pad}"))
        }
    }
}

/// `── SYN 0 win 64240 ───▶`, or with its end on the way where it was lost.
fn arrow(segment: &Segment, columns: usize, layout: &Layout) -> String {
    let dash = layout.pick("─", "-");
    let lost = !matches!(segment.fate, Fate::Arrives { .. });
    let why = match segment.fate {
        Fate::Arrives { .. } => "",
        Fate::Lost => layout.words(" lost", " 丢失"),
        Fate::Forgotten => layout.words(" dropped", " 被丢弃"),
    };
    let room = columns - 6 - width(why);
    let text = segment_text(segment, layout.lang, room);
    let fill = columns - 4 - width(&text) - if lost { 2 + width(why) } else { 1 };
    let (head, cross) = match segment.from {
        Side::Client => (layout.pick("▶", ">"), layout.pick("✗", "x")),
        Side::Server => (layout.pick("◀", "<"), layout.pick("✗", "x")),
    };
    let (short, long) = (dash.to_owned(), dash.repeat(fill));
    let line = match (segment.from, lost) {
        (Side::Client, false) => format!("{short} {text} {long}{dash}{head}"),
        (Side::Server, false) => format!("{head}{dash}{long} {text} {short}"),
        (Side::Client, true) => format!("{short} {text} {}{cross}{why}{}", long, "  "),
        (Side::Server, true) => format!(
            "{}{}{cross}{} {text} {short}",
            "  ",
            why.trim_start().to_owned() + if why.is_empty() { "" } else { " " },
            long
        ),
    };
    let pad = " ".repeat(columns.saturating_sub(width(&line)));
    let line = if segment.from == Side::Client { line + &pad } else { pad + &line };
    if lost || segment.flags.contains("RST") { layout.paint.red(&line) } else { line }
}
