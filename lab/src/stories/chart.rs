//! A sequence chart as rows: what stands on one line, whatever it is drawn with.
//!
//! Owns:    which moments share a row, which repetitions are folded, and how two runs are laid side by side.
//! Input:   one [`Record`], or two of the same story.
//! Output:  [`Row`]s in the order of time.
//! Not here: columns, colours, languages (the command).

use core::time::Duration;

use super::record::{Role, Segment, What};
use super::words::{Text, count};
use super::{Fate, Record, Side};

mod align;
mod fold;

pub use align::side_by_side;

/// One line of a chart.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// When; for a fold, when the first of what is folded was sent.
    pub at: Duration,
    /// In a chart of two runs, when it happened in the second; `None`: not at all.
    pub second: Option<Duration>,
    /// In a chart of two runs: it happened in one of them only, or with other figures.
    pub differs: Option<Differs>,
    /// Which connection.
    pub flow: Option<usize>,
    /// What stands in each end's lane, line by line.
    pub lanes: [Vec<Cell>; 2],
    /// What stands between the lanes.
    pub middle: Middle,
}

/// How a row of two runs differs.
#[derive(Clone, PartialEq, Debug)]
pub enum Differs {
    /// Only the first run has it.
    OnlyFirst,
    /// Only the second run has it.
    OnlySecond,
    /// Both have it; the second's figures are these.
    Figures(String),
}

/// Something in an end's lane.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// A call and what it gave.
    Call(String, String),
    /// The state the end is in from here on; `None`: the socket is gone.
    State(Option<&'static str>),
    /// A timer was the reason for the segment, or ended the state: its name by `ss`.
    Timer(&'static str),
}

/// What stands between the lanes.
#[derive(Clone, PartialEq, Debug)]
pub enum Middle {
    /// Nothing: the lifelines only.
    Nothing,
    /// The teller's words, across everything.
    Says(Text),
    /// A segment.
    Arrow(Segment),
    /// What was left out because it repeats.
    Fold(Fold),
}

/// What was left out.
#[derive(Clone, PartialEq, Debug)]
pub enum Fold {
    /// Data in one direction, with the acknowledgments of the other.
    Data {
        /// Who sent it.
        from: Side,
        /// Segments with data.
        segments: usize,
        /// Their bytes.
        bytes: u64,
        /// Acknowledgments that came back.
        acks: usize,
        /// The window at the end, as the other end announced it.
        window: Option<u32>,
    },
    /// The row (or the two rows) above, again and again.
    Repeats {
        /// Who sent what repeats.
        from: Side,
        /// How many times more.
        times: usize,
        /// Distance of the first and last two of them.
        apart: (Duration, Duration),
        /// Each is answered.
        answered: bool,
    },
}

/// Why an end changed its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    Arrival,
    Departure,
    Call,
}

/// Two things so close in time are one moment; Linux's state is noticed a little after its packet.
const TOGETHER: Duration = Duration::from_millis(8);

/// The rows of one run.
pub fn rows(record: &Record) -> Vec<Row> {
    fold::repeats(fold::data(unfolded(record)))
}

fn unfolded(record: &Record) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for moment in &record.moments {
        let at = moment.at;
        match &moment.what {
            What::Says { text } => rows.push(Row::new(at, None, Middle::Says(*text))),
            What::Call { side, flow, call, result } => {
                let mut row = Row::new(at, *flow, Middle::Nothing);
                row.lanes[*side as usize].push(Cell::Call(call.clone(), result.clone()));
                rows.push(row);
            }
            What::Segment(segment) => {
                let mut row = Row::new(at, Some(segment.flow), Middle::Arrow(segment.clone()));
                if let Some(timer) = timer_of(segment) {
                    row.lanes[segment.from as usize].push(Cell::Timer(timer));
                }
                rows.push(row);
            }
            // When all else has its row: Linux's state may be noticed a little before the packet that goes with it.
            What::State { .. } => {}
        }
    }
    for moment in &record.moments {
        let What::State { side, flow, state, timer } = &moment.what else { continue };
        let (at, lane) = (moment.at, *side as usize);
        // What arrives decides, then what leaves, then a call.
        let cause = [Cause::Arrival, Cause::Departure, Cause::Call]
            .into_iter()
            .find_map(|cause| rows.iter().rposition(|row| row.is(cause, at, *side, *flow)));
        match cause {
            Some(row) => rows[row].lanes[lane].push(Cell::State(*state)),
            None => {
                let mut row = Row::new(at, Some(*flow), Middle::Nothing);
                row.lanes[lane].extend(timer.map(Cell::Timer));
                row.lanes[lane].push(Cell::State(*state));
                rows.insert(rows.partition_point(|other| other.at <= at), row);
            }
        }
    }
    rows
}

/// The timer that made an end send, as far as the segment tells.
fn timer_of(segment: &Segment) -> Option<&'static str> {
    match segment.role {
        Role::WindowProbe => Some("persist"),
        Role::KeepaliveProbe => Some("keepalive"),
        Role::Again if segment.by_timer => Some("on"),
        Role::Again | Role::First => None,
    }
}

impl Row {
    fn new(at: Duration, flow: Option<usize>, middle: Middle) -> Self {
        Self { at, second: None, differs: None, flow, lanes: Default::default(), middle }
    }

    /// A change of state of `side` at `at` can have this cause in this row.
    fn is(&self, cause: Cause, at: Duration, side: Side, flow: usize) -> bool {
        let lane = &self.lanes[side as usize];
        if self.flow != Some(flow) || lane.iter().any(|cell| matches!(cell, Cell::State(_))) {
            return false;
        }
        let when = match (cause, self.arrow()) {
            (Cause::Arrival, Some(segment)) if segment.from != side => match segment.fate {
                Fate::Arrives { at } => Some(at),
                Fate::Lost | Fate::Forgotten => None,
            },
            (Cause::Departure, Some(segment)) if segment.from == side => Some(self.at),
            (Cause::Call, None) if lane.iter().any(|cell| matches!(cell, Cell::Call(..))) => Some(self.at),
            _ => None,
        };
        when.is_some_and(|when| at.abs_diff(when) <= TOGETHER)
    }

    /// The segment it shows.
    pub fn arrow(&self) -> Option<&Segment> {
        match &self.middle {
            Middle::Arrow(segment) => Some(segment),
            Middle::Nothing | Middle::Says(_) | Middle::Fold(_) => None,
        }
    }
}

impl Segment {
    /// `SYN,ACK 0 ack 1 win 65160`, the longest form that has at most `columns`. PSH is left out: it says nothing here.
    pub fn text(&self, columns: usize) -> String {
        let flags: Vec<&str> = self.flags.split(',').filter(|flag| *flag != "PSH").collect();
        let flags = flags.join(",");
        let takes = self.len > 0 || self.flags.contains("SYN") || self.flags.contains("FIN");
        let range = match (self.len, takes) {
            (0, _) => self.seq.to_string(),
            (len, _) => format!("{}:{}", self.seq, self.seq.wrapping_add(len)),
        };
        let ack = self.ack.map_or_else(String::new, |ack| format!(" ack {ack}"));
        let win = if self.flags.contains("RST") { String::new() } else { format!(" win {}", self.win) };
        let length = if self.len > 0 { format!(" ({})", count(u64::from(self.len))) } else { String::new() };
        let range = if takes || self.role != Role::First { format!(" {range}") } else { String::new() };
        let forms = [
            format!("{flags}{range}{length}{ack}{win}"),
            format!("{flags}{range}{ack}{win}"),
            format!("{flags}{range}{win}"),
            format!("{flags}{range}"),
        ];
        let fits = forms.iter().find(|form| form.len() <= columns);
        fits.cloned().unwrap_or(flags)
    }
}
