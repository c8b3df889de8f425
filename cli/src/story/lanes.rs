//! The states of both ends against time: a lane an end, a column for each moment at which something changed.

use core::time::Duration;
use std::io::{self, Write};

use lastack_lab::stories::words::time;
use lastack_lab::stories::{Record, Side, outline};

use super::Layout;
use crate::text::width;

/// More connections than this are not drawn; their ends are counted elsewhere.
pub(crate) const MOST: usize = 4;
/// Changes so close are one column.
const TOGETHER: Duration = Duration::from_millis(6);

/// One end of one connection: when it entered which state; `None`: it is gone.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) states: Vec<(Duration, Option<&'static str>)>,
}

/// Every lane of a record, in order.
pub(crate) fn of(record: &Record, layout: &Layout) -> Vec<Lane> {
    let mut lanes = Vec::new();
    for flow in 0..record.flows.len().min(MOST) {
        for side in Side::BOTH {
            let states = record.states(side, flow);
            if states.is_empty() {
                continue;
            }
            let number = if record.flows.len() > 1 { format!(" #{}", flow + 1) } else { String::new() };
            lanes.push(Lane { name: format!("{}{number}", outline::side_name(side, layout.lang)), states });
        }
    }
    lanes
}

/// Draws the lanes; not to scale.
pub(crate) fn draw(record: &Record, layout: &Layout, out: &mut dyn Write) -> io::Result<()> {
    let lanes = of(record, layout);
    let mut points: Vec<Duration> =
        lanes.iter().flat_map(|lane| lane.states.iter().map(|(at, _)| *at)).collect();
    points.push(record.end);
    points.sort_unstable();
    points.dedup_by(|later, earlier| {
        let same = |a: &Duration, b: &Duration| time(a.as_secs_f64()) == time(b.as_secs_f64());
        later.saturating_sub(*earlier) <= TOGETHER || same(later, earlier)
    });
    let name = lanes.iter().map(|lane| width(&lane.name)).max().unwrap_or(0) + 2;
    // How wide each column must be for its time and for the states that begin there.
    let widths: Vec<usize> = points
        .iter()
        .enumerate()
        .map(|(n, point)| {
            let labels = lanes.iter().filter_map(|lane| entered(lane, *point, points.get(n + 1)));
            let longest = labels.map(|state| state.unwrap_or("gone").len()).max().unwrap_or(0);
            longest.max(width(&time(point.as_secs_f64()))) + 2
        })
        .collect();
    let mut from = 0;
    while from < points.len() {
        let mut to = from;
        let mut taken = name + 2;
        while to < points.len() && (to == from || taken + widths[to] <= layout.columns) {
            taken += widths[to];
            to += 1;
        }
        band(&lanes, &points, &widths, from..to, name, layout, out)?;
        from = to;
        if from < points.len() {
            writeln!(out)?;
        }
    }
    Ok(())
}

fn band(
    lanes: &[Lane],
    points: &[Duration],
    widths: &[usize],
    range: core::ops::Range<usize>,
    name: usize,
    layout: &Layout,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut head = " ".repeat(name + 2);
    for n in range.clone() {
        let at = time(points[n].as_secs_f64());
        head.push_str(&at);
        head.push_str(&" ".repeat(widths[n] - width(&at)));
    }
    writeln!(out, "{}", layout.paint.dim(head.trim_end()))?;
    for lane in lanes {
        // An end that is gone, or has not begun, has no line here.
        let lives = range.clone().any(|n| {
            let next = points.get(n + 1);
            entered(lane, points[n], next).is_some() || state_at(lane, points[n], next).is_some()
        });
        if !lives {
            continue;
        }
        let mut line = format!("  {}{}", lane.name, " ".repeat(name - width(&lane.name)));
        for n in range.clone() {
            let here = entered(lane, points[n], points.get(n + 1));
            let state = state_at(lane, points[n], points.get(n + 1));
            let label = here.map_or("", |state| state.unwrap_or("gone"));
            let is_last = n + 1 == points.len();
            let fill = if state.is_none() || is_last { " " } else { layout.pick("─", "-") };
            // A space on each side of a name.
            let next_is_name = n + 1 < range.end && entered(lane, points[n + 1], points.get(n + 2)).is_some();
            let (before, after) = (usize::from(!label.is_empty()), usize::from(next_is_name));
            line.push_str(&layout.paint.bold(label));
            line.push_str(&" ".repeat(before));
            line.push_str(&fill.repeat(widths[n] - label.len() - before - after));
            line.push_str(&" ".repeat(after));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// The state entered in the column from `point` to `next`: the last one, if there were several.
fn entered(lane: &Lane, point: Duration, next: Option<&Duration>) -> Option<Option<&'static str>> {
    let inside = |at: Duration| at >= point && next.is_none_or(|next| at < *next);
    lane.states.iter().rev().find(|(at, _)| inside(*at)).map(|(_, state)| *state)
}

fn state_at(lane: &Lane, point: Duration, next: Option<&Duration>) -> Option<&'static str> {
    let before = lane.states.iter().rev().find(|(at, _)| *at <= point || next.is_some_and(|next| at < next));
    before.and_then(|(_, state)| *state)
}
