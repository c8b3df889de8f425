//! The league table of TCP closings: what Linux answered to every cell of the matrix, beside lastack and smoltcp.
//!
//! Owns:    asking, comparing, counting, and the page `docs/league.md`.
//! Input:   `lab/matrix/linux-6.18.tsv`, recorded from the kernel.
//! Rules:   fair to a small stack: an answer is the packets (flags, numbers, options) and the next state. Padding of options, the
//!          window's size, timestamps' values and the error an application is told do not count.
//! Not here: the cells (`lastack_lab::matrix`).

use core::fmt::Write as _;
use std::collections::BTreeMap;

use lastack_lab::matrix::{Cell, KINDS, PLACES, ask, cells, world};
use lastack_lab::run::record_with_state;
use lastack_lab::script::parse;
use lastack_lab::stack::StackTarget;
use lastack_lab::target::World;

use crate::smoltcp_host::SmoltcpHost;

/// smoltcp's version, as `Cargo.toml` has it.
pub const SMOLTCP: &str = "0.14";

/// How a stack's answer compares with Linux's.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Standing {
    Same,
    /// Its own answer.
    Differs(String),
    /// The state cannot be reached; where it is instead.
    Unreachable(String),
}

/// One cell with every answer.
struct Row {
    cell: Cell,
    linux: String,
    lastack: Standing,
    smoltcp: Standing,
}

/// The page.
///
/// # Panics
/// The recording does not have the cells of this version of the lab.
pub fn document(recorded: &str) -> String {
    let world = world();
    let lines: Vec<&str> = recorded.lines().collect();
    let cells = cells();
    assert_eq!(lines.len(), cells.len(), "the recording has every cell: record it again");
    let rows: Vec<Row> = cells
        .into_iter()
        .zip(lines)
        .map(|(cell, line)| {
            let linux =
                line.strip_prefix(&cell.name()).map(str::trim_start).expect("cells are in their order");
            let linux = plain(linux);
            let lastack = ask(&cell, &mut StackTarget::new(&world), &world);
            let lastack = standing(&linux, lastack.map_err(|failure| failure.message));
            let smoltcp = match smoltcp_reaches(&cell, &world) {
                Ok(()) => {
                    let answer = ask(&cell, &mut SmoltcpHost::new(&world, cell.timestamps), &world);
                    standing(&linux, answer.map_err(|failure| failure.message))
                }
                Err(instead) => Standing::Unreachable(instead),
            };
            Row { cell, linux, lastack, smoltcp }
        })
        .collect();
    page(&rows)
}

fn standing(linux: &str, answer: Result<String, String>) -> Standing {
    match answer.map(|answer| plain(&answer)) {
        Ok(answer) if answer == linux => Standing::Same,
        Ok(answer) | Err(answer) => Standing::Differs(answer),
    }
}

/// Is smoltcp in the cell's state when the segment comes? `Err`: where it is instead.
fn smoltcp_reaches(cell: &Cell, world: &World) -> Result<(), String> {
    let script = cell.script();
    let lines: Vec<&str> = script.lines().collect();
    let stimulus = lines.iter().rposition(|line| line.contains(" < ")).expect("every cell has a segment");

    let before = parse(&(lines[..stimulus].join("\n") + "\n")).expect("a part of a script is a script");
    let mut host = SmoltcpHost::new(world, cell.timestamps);
    let (_, state) = record_with_state(&before, world, &mut host).map_err(|failure| failure.message)?;
    let wanted = cell.place.state.split('/').next().unwrap_or_default();
    let is = state.unwrap_or("none");
    if is == wanted { Ok(()) } else { Err(is.to_owned()) }
}

/// Without what does not count: `win N`, timestamps' values, `SO_ERROR`.
fn plain(answer: &str) -> String {
    let part = |part: &str| -> Option<String> {
        if part.starts_with("SO_ERROR") {
            return None;
        }
        let mut out: Vec<String> = Vec::new();
        let mut words = part.split(' ').peekable();
        while let Some(word) = words.next() {
            match word {
                "win" => {
                    words.next();
                }
                "val" | "ecr" => {
                    let number = words.next().unwrap_or_default();
                    let end: String = number.chars().skip_while(char::is_ascii_digit).collect();
                    if let (Some(last), false) = (out.last_mut(), end.is_empty()) {
                        last.push_str(&end);
                    }
                }
                word => out.push(word.to_owned()),
            }
        }
        Some(options_alone(&out.join(" ")))
    };
    answer.split("; ").filter_map(part).collect::<Vec<_>>().join("; ")
}

/// Options in one order and without padding, which is a matter of taste.
fn options_alone(packet: &str) -> String {
    let Some((head, rest)) = packet.split_once(" <") else { return packet.to_owned() };
    let list = rest.trim_end_matches('>');
    let mut options: Vec<&str> = list.split(',').filter(|option| !matches!(*option, "nop" | "eol")).collect();
    options.sort_unstable();
    format!("{head} <{}>", options.join(","))
}

#[derive(Clone, Copy, Default)]
struct Score {
    same: usize,
    differs: usize,
    unreachable: usize,
}

impl Score {
    fn add(&mut self, standing: &Standing) {
        match standing {
            Standing::Same => self.same += 1,
            Standing::Differs(_) => self.differs += 1,
            Standing::Unreachable(_) => self.unreachable += 1,
        }
    }

    fn columns(self) -> String {
        format!("{} | {} | {}", self.same, self.differs, self.unreachable)
    }
}

fn page(rows: &[Row]) -> String {
    let mut all = [Score::default(); 2];
    let mut by_state: BTreeMap<&str, [Score; 2]> = BTreeMap::new();
    let mut by_kind: BTreeMap<&str, [Score; 2]> = BTreeMap::new();
    for row in rows {
        for (at, standing) in [&row.lastack, &row.smoltcp].into_iter().enumerate() {
            all[at].add(standing);
            by_state.entry(row.cell.place.state).or_default()[at].add(standing);
            by_kind.entry(row.cell.flags).or_default()[at].add(standing);
        }
    }
    let mut out = format!(
        "# A league table of TCP closings\n\n\
         Made by `cargo run -p lastack-bench --bin league > docs/league.md`; do not edit.\n\n\
         Every state a segment can meet × every kind of segment × five places relative to the window × with and without \
         timestamps: {} cells. Linux 6.18 was asked each of them and its answers are kept (`lab/matrix/linux-6.18.tsv`); \
         here lastack, in virtual time, and smoltcp {SMOLTCP}, through its own API, get the same stimuli.\n\n\
         An answer is the packets (flags, sequence and acknowledgment numbers, options) and the state afterwards. Padding and order of \
         options, the size of the window, timestamps' values and the error an application is told do not count here: smoltcp has \
         buffers where Linux has auto-tuning, and tells no error afterwards. (lastack is held to all three by \
         `lab/tests/matrix_stack.rs`.)\n\n\
         How smoltcp is driven: one socket listens and becomes the connection, a second one listens in its place, as its \
         documentation advises; buffers as large as Linux's first window; delayed ACKs off, so that its ACKs fall into what is \
         recorded; a timestamp clock where the cell has timestamps. It has no owner of a connection, so `close` and `shutdown` \
         are the same call, and the rows of orphans are its ordinary states. Differing from Linux is not always wrong: the \
         RFCs leave room, and smoltcp is made for small devices.\n\n",
        rows.len()
    );
    let head = |out: &mut String, what: &str| {
        let _ = writeln!(
            out,
            "| {what} | cells | lastack: as Linux | different | not reachable | smoltcp: as Linux | different | not reachable |\n\
             |---|---|---|---|---|---|---|---|"
        );
    };
    let line = |out: &mut String, name: &str, scores: [Score; 2]| {
        let cells = scores[0].same + scores[0].differs + scores[0].unreachable;
        let _ = writeln!(out, "| {name} | {cells} | {} | {} |", scores[0].columns(), scores[1].columns());
    };
    out.push_str("## By state\n\n");
    head(&mut out, "state");
    for place in PLACES {
        line(&mut out, place.state, by_state[place.state]);
    }
    line(&mut out, "**all**", all);
    out.push_str("\n## By kind of segment\n\n`-` is data without any flag.\n\n");
    head(&mut out, "segment");
    for (flags, _) in KINDS {
        line(&mut out, &format!("`{flags}`"), by_kind[flags]);
    }
    differences(&mut out, rows);
    out
}

/// Cells that are not as Linux, those with and without timestamps on one line where the answers are the same.
fn differences(out: &mut String, rows: &[Row]) {
    out.push_str(
        "\n## Cells that differ\n\nPlaces: left of the window, at its left edge, inside, at the right edge (the first number \
         beyond it), right of it. Answers are packets in the lab's notation, then the state; `none`: the connection is gone.\n",
    );
    for place in PLACES {
        let mut lines = Vec::new();
        for row in rows.iter().filter(|row| row.cell.place.state == place.state) {
            for (stack, standing) in [("lastack", &row.lastack), ("smoltcp", &row.smoltcp)] {
                let theirs = match standing {
                    Standing::Same => continue,
                    Standing::Differs(answer) => answer.clone(),
                    Standing::Unreachable(instead) => format!("not reachable: it is in {instead}"),
                };
                let bare = |text: &str| text.replace(" <TS>", "").replace("TS,", "");
                let key = format!(
                    "| `{}({})` | {} | {{}} | {stack} | {} | {} |",
                    row.cell.flags,
                    row.cell.len,
                    row.cell.position,
                    bare(&row.linux),
                    bare(&theirs)
                );
                let timestamps = if row.cell.timestamps { "with" } else { "without" };
                match lines.iter_mut().find(|(known, _): &&mut (String, &str)| *known == key) {
                    Some((_, when)) => *when = "both",
                    None => lines.push((key, timestamps)),
                }
            }
        }
        if lines.is_empty() {
            continue;
        }
        let _ = writeln!(
            out,
            "\n### {}\n\n| segment | place | timestamps | stack | Linux | its answer |\n|---|---|---|---|---|---|",
            place.state
        );
        for (key, timestamps) in lines {
            let _ = writeln!(out, "{}", key.replace("{}", timestamps));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_count_is_left_out() {
        assert_eq!(
            plain("> . 1:1(0) ack 1 win 64240 <nop,nop,TS val 0 ecr 100>; SO_ERROR ECONNRESET; ESTAB"),
            "> . 1:1(0) ack 1 <TS>; ESTAB"
        );
        assert_eq!(
            plain("> . 1:1(0) ack 1 win 9 <sack 101:111,TS val 3 ecr 4>; ESTAB"),
            "> . 1:1(0) ack 1 <TS,sack 101:111>; ESTAB"
        );
        assert_eq!(plain("> R 0:0(0) win 0; none"), "> R 0:0(0); none");
    }
}
