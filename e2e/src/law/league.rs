//! Plays every case on every carrier and sets the results side by side: `docs/closing-law.md`.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::{Case, Seen, Side, Stage, Way, closing, errno};
use crate::arena::Arena;
use crate::carrier::{Carrier, DEFAULT_MTU, Seat};
use crate::journal;

/// The laws: name, cases, and which way their connections are made.
pub const LAWS: [(&str, &[Case], Way); 3] = [
    ("errno", errno::CASES, Way::Out),
    ("closing", closing::CASES, Way::Out),
    ("published closing", closing::CASES, Way::In),
];

/// The port of the first published server; the arena's namespaces have no others.
const FIRST_PUBLISHED: u16 = 7100;

/// What one case showed on one carrier.
#[derive(Clone, Debug)]
pub struct Performance {
    /// Which carrier.
    pub carrier: Carrier,
    /// What was seen, in order; an error text if the carrier could not perform.
    pub seen: Result<Vec<Seen>, String>,
    /// What lastack's journal says differently from what must be there; empty on other carriers.
    pub journal_faults: Vec<String>,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// One of [`LAWS`].
    pub law: &'static str,
    /// The case.
    pub case: Case,
    /// One performance a carrier, plain Linux first.
    pub performances: Vec<Performance>,
}

impl Row {
    /// Where `performance` departs from plain Linux: `(what Linux shows, what it shows)`; `None` marks a missing one.
    #[must_use]
    pub fn departures(&self, performance: &Performance) -> Vec<(Option<Seen>, Option<Seen>)> {
        let Some(Ok(linux)) =
            self.performances.iter().find(|p| p.carrier == Carrier::Direct).map(|p| &p.seen)
        else {
            return Vec::new();
        };
        let Ok(theirs) = &performance.seen else { return Vec::new() };
        let mut rest: Vec<&Seen> = theirs.iter().collect();
        let mut departures = Vec::new();
        for expected in linux {
            // The same question asked twice is matched in order.
            let at = rest.iter().position(|seen| seen.side == expected.side && seen.what == expected.what);
            let found = at.map(|at| rest.remove(at));
            if found != Some(expected) {
                departures.push((Some(expected.clone()), found.cloned()));
            }
        }
        departures.extend(rest.into_iter().map(|extra| (None, Some(extra.clone()))));
        departures
    }
}

/// Plays the cases whose id contains `filter` on `carriers`; plain Linux always plays. `progress` is told each case's id.
///
/// # Errors
/// The test network cannot be built.
pub fn play(carriers: &[Carrier], filter: &str, mut progress: impl FnMut(&str)) -> io::Result<Vec<Row>> {
    let arena = Arena::build()?;
    let scratch = tempfile::tempdir()?;
    let playing = Carrier::ALL.into_iter().filter(|c| *c == Carrier::Direct || carriers.contains(c));
    let seats: Vec<(Carrier, Result<Seat, String>)> =
        playing.map(|carrier| (carrier, seat(&arena, carrier))).collect();
    let mut rows = Vec::new();
    let all = LAWS.iter().flat_map(|(law, cases, way)| cases.iter().map(move |case| (*law, *case, *way)));
    for (law, case, way) in all.filter(|(_, case, _)| case.id.contains(filter)) {
        progress(case.id);
        // The others publish in ways of their own, which are not set up here.
        let plays =
            |carrier: Carrier| way == Way::Out || [Carrier::Direct, Carrier::Lastack].contains(&carrier);
        let file = scratch.path().join(rows.len().to_string());
        let port = FIRST_PUBLISHED + rows.len() as u16;
        let perform =
            |(carrier, seat): &(Carrier, _)| perform(&arena, *carrier, seat, &case, way, &file, port);
        let performances = seats.iter().filter(|(carrier, _)| plays(*carrier)).map(perform).collect();
        rows.push(Row { law, case, performances });
    }
    Ok(rows)
}

fn seat(arena: &Arena, carrier: Carrier) -> Result<Seat, String> {
    match carrier.unavailable() {
        Some(why) => Err(why),
        None => {
            let seat = carrier.seat(arena, DEFAULT_MTU).map_err(|error| error.to_string())?;
            seat.await_ipv6();
            Ok(seat)
        }
    }
}

fn perform(
    arena: &Arena,
    carrier: Carrier,
    seat: &Result<Seat, String>,
    case: &Case,
    way: Way,
    file: &Path,
    port: u16,
) -> Performance {
    let stage = |seat| match way {
        Way::Out => Stage::open(arena, seat, file),
        Way::In => Stage::open_published(arena, carrier, seat, file, port),
    };
    let seen = match seat {
        Ok(seat) => stage(seat).map(|stage| play_one(stage, case)).map_err(|error| error.to_string()),
        Err(error) => Err(error.clone()),
    };
    let verdict = match way {
        Way::Out => case.journal,
        Way::In => case.journal.map(super::Verdict::mirrored),
    };
    let journal_faults = match (carrier, &seen, verdict) {
        (Carrier::Lastack, Ok(_), Some(verdict)) => match journal::connections(file) {
            Ok(lines) => match lines.as_slice() {
                [line] => verdict.differences(line),
                lines => vec![format!("{} connections are journalled, not 1", lines.len())],
            },
            Err(error) => vec![error],
        },
        _ => Vec::new(),
    };
    Performance { carrier, seen, journal_faults }
}

fn play_one(mut stage: Stage, case: &Case) -> Vec<Seen> {
    (case.play)(&mut stage);
    stage.finish()
}

/// The rows as one JSON document.
#[must_use]
pub fn to_json(rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows.iter().map(row_to_json).collect();
    json!({ "schema": 1, "cases": rows })
}

fn row_to_json(row: &Row) -> Value {
    let performances = row.performances.iter().map(|performance| {
        let seen = match &performance.seen {
            Ok(seen) => json!(seen.iter().map(told).collect::<Vec<_>>()),
            Err(error) => json!({ "error": error }),
        };
        let departures: Vec<String> = row.departures(performance).iter().map(told_departure).collect();
        (
            performance.carrier.name().to_owned(),
            json!({ "seen": seen, "departures": departures, "journal_faults": performance.journal_faults }),
        )
    });
    let performances: serde_json::Map<String, Value> = performances.collect();
    json!({ "law": row.law, "case": row.case.id, "title": row.case.title, "carriers": performances })
}

/// The rows as Markdown tables, one a law.
#[must_use]
pub fn to_markdown(rows: &[Row]) -> String {
    let mut out = String::new();
    for (law, ..) in LAWS {
        let of_law: Vec<&Row> = rows.iter().filter(|row| row.law == law).collect();
        let Some(first) = of_law.first() else { continue };
        let carriers: Vec<Carrier> = first.performances.iter().map(|p| p.carrier).collect();
        let _ = writeln!(out, "## The {law} law\n");
        let _ = write!(out, "| case | plain Linux |");
        for carrier in &carriers[1..] {
            let _ = write!(out, " {} |", carrier.name());
        }
        let _ = writeln!(out, "\n|{}", "---|".repeat(carriers.len() + 1));
        for row in &of_law {
            let _ = write!(out, "| **{}**<br>{} |", row.case.id, row.case.title);
            for performance in &row.performances {
                let _ = write!(out, " {} |", cell(row, performance));
            }
            out.push('\n');
        }
        let _ = write!(out, "| **as plain Linux** | |");
        for carrier in &carriers[1..] {
            let same = of_law
                .iter()
                .filter(|row| row.performances.iter().any(|p| p.carrier == *carrier && is_same(row, p)));
            let _ = write!(out, " **{} of {}** |", same.count(), of_law.len());
        }
        out.push_str("\n\n");
    }
    out
}

/// Whether a performance shows exactly what plain Linux shows and its journal is right.
#[must_use]
pub fn is_same(row: &Row, performance: &Performance) -> bool {
    performance.seen.is_ok()
        && row.departures(performance).is_empty()
        && performance.journal_faults.is_empty()
}

fn cell(row: &Row, performance: &Performance) -> String {
    let text = match &performance.seen {
        Err(error) => format!("not run: {error}"),
        Ok(seen) if performance.carrier == Carrier::Direct => {
            seen.iter().map(told).collect::<Vec<_>>().join("<br>")
        }
        Ok(_) if is_same(row, performance) => "same".to_owned(),
        Ok(_) => {
            let departures = row.departures(performance);
            let mut lines: Vec<String> = departures.iter().map(told_departure).collect();
            lines.extend(performance.journal_faults.iter().map(|fault| format!("journal: {fault}")));
            format!("**differs**<br>{}", lines.join("<br>"))
        }
    };
    text.replace('|', "\\|")
}

fn told(seen: &Seen) -> String {
    format!("{} {}: {}", side(seen.side), seen.what, seen.came)
}

fn told_departure((expected, found): &(Option<Seen>, Option<Seen>)) -> String {
    match (expected, found) {
        (_, Some(found)) => told(found),
        (Some(expected), None) => format!("{} {}: nothing", side(expected.side), expected.what),
        (None, None) => String::new(),
    }
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}
