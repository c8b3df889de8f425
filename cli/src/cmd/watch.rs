//! `lastack watch`: the same as `ss` and `doctor`, live on a full screen; lines where there is none.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lastack_observe::clock;
use lastack_observe::filter::Filter;
use lastack_observe::group;
use lastack_observe::interrupt::Interrupt;
use lastack_observe::row::{Owner, Row};
use lastack_observe::snapshot::Snapshot;
use lastack_observe::source::Source;
use lastack_observe::source::kernel::{Detail, Query};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::json;

use crate::args::Globals;
use crate::failure::Failure;
use crate::source_args::{self, SourceArgs};
use crate::watch::draw;
use crate::watch::model::{Action, Key, Model};

/// Looking, and making of it what is shown, may take at most a quarter of the time: on a host with very many sockets
/// the pace falls.
const LOOK_SHARE: u32 = 4;
/// Owners are looked up more rarely, and not before something is on the screen: that walks through /proc.
const OWNER_SHARE: u32 = 20;

/// The command line of `watch`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  lastack watch                                every socket; ? shows the keys
  lastack watch --interval 0.1 state close-wait process = myapp

Without a terminal, or on a dumb one, a line a look is printed instead; with --json an object.")]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// Seconds between two looks
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    interval: f64,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    /// Which sockets at first
    #[arg(value_name = "FILTER", trailing_var_arg = true)]
    filter: Vec<String>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    if !(0.05..=3600.0).contains(&args.interval) {
        return Err(Failure::new(
            format!("--interval {} makes no sense", args.interval),
            "seconds, from 0.05 to 3600",
            "--interval 1",
        ));
    }
    let filter = source_args::filter(&args.filter)?;
    let smart = !globals.json
        && io::stdout().is_terminal()
        && io::stdin().is_terminal()
        && std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty());
    let need = match (filter.needs_owner(), smart) {
        (true, _) => Owners::First,
        (false, true) => Owners::Later,
        // Lines say states and rules.
        (false, false) => Owners::Never,
    };
    let mut looker = Looker {
        source: args.source.open()?,
        interval: Duration::from_secs_f64(args.interval),
        pace: Pace::default(),
        need,
        owned: None,
        owners: HashMap::new(),
    };
    let end =
        args.duration.map(|seconds| clock::monotonic() + Duration::from_secs_f64(seconds.clamp(0.0, 1e7)));
    let model = Model::new(args.filter.join(" "), filter);
    if smart { screen(looker, model, end, globals) } else { lines(&mut looker, model, end, globals) }
}

/// Whether it matters who has a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owners {
    /// The filter asks for it: from the first look on.
    First,
    /// It is shown: once there is something to show it beside.
    Later,
    Never,
}

/// When the next look is due.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// How long the last look took, and everything that was made of it.
    took: Duration,
    looked: Option<Instant>,
}

impl Pace {
    fn due_in(&self, interval: Duration, now: Instant) -> Duration {
        let pause = interval.max(self.took * LOOK_SHARE);
        self.looked.map_or(Duration::ZERO, |then| pause.saturating_sub(now.saturating_duration_since(then)))
    }
}

/// Looks at the source, no more often than it is worth.
struct Looker {
    source: Source,
    interval: Duration,
    pace: Pace,
    need: Owners,
    /// When owners were looked up, and how long that took.
    owned: Option<(Instant, Duration)>,
    owners: HashMap<u64, Owner>,
}

impl Looker {
    /// Until the next look is due.
    fn due_in(&self) -> Duration {
        self.pace.due_in(self.interval, clock::monotonic())
    }

    /// Looks, and lets `model` make of it what is shown.
    fn update(&mut self, model: &mut Model) -> Result<(), Failure> {
        let start = clock::monotonic();
        let query = Query { filter: Filter::everything(), detail: Detail::Full, owners: false, v6: None };
        let mut snapshot = self.source.snapshot(&query)?;
        let naming = self.name(&mut snapshot);
        model.update(snapshot);
        // Naming has a share of its own: it must not slow down the looks that do without.
        self.pace = Pace { took: start.elapsed().saturating_sub(naming), looked: Some(start) };
        Ok(())
    }

    /// Names owners: those that are remembered, or anew when that is due; gives how long it took.
    fn name(&mut self, snapshot: &mut Snapshot) -> Duration {
        let start = clock::monotonic();
        let due = match (self.owned, self.need) {
            (_, Owners::Never) => return Duration::ZERO,
            (Some((then, took)), _) => then.elapsed() > (took * OWNER_SHARE).max(Duration::from_secs(2)),
            (None, Owners::First) => true,
            (None, Owners::Later) => self.pace.looked.is_some(),
        };
        if due {
            let all: Vec<usize> = (0..snapshot.rows.len()).collect();
            self.source.name_owners(snapshot, &all);
            let named = |row: &Row| Some((row.socket.cookie, row.owner.clone()?));
            self.owners = snapshot.rows.iter().filter_map(named).collect();
            self.owned = Some((start, start.elapsed()));
        } else if !self.owners.is_empty() {
            for row in &mut snapshot.rows {
                row.owner = row.owner.take().or_else(|| self.owners.get(&row.socket.cookie).cloned());
            }
        }
        start.elapsed()
    }
}

fn screen(
    mut looker: Looker,
    mut model: Model,
    end: Option<Instant>,
    globals: &Globals,
) -> Result<ExitCode, Failure> {
    let lang = globals.lang().into();
    let mut terminal = ratatui::try_init()?;
    let mut work = || -> Result<(), Failure> {
        loop {
            if end.is_some_and(|end| clock::monotonic() >= end) {
                return Ok(());
            }
            if !model.paused && looker.due_in().is_zero() {
                looker.update(&mut model)?;
            }
            let mut page = 1;
            terminal.draw(|frame| page = draw::draw(frame, &model, lang))?;
            let wait = if model.paused { Duration::from_millis(500) } else { looker.due_in() };
            if event::poll(wait.clamp(Duration::from_millis(1), Duration::from_millis(500)))?
                && let Event::Key(pressed) = event::read()?
                && pressed.kind == KeyEventKind::Press
            {
                if pressed.code == KeyCode::Char('c') && pressed.modifiers.contains(KeyModifiers::CONTROL) {
                    return Ok(());
                }
                let Some(key) = key_of(pressed.code) else { continue };
                match model.key(key, page) {
                    Action::Nothing => {}
                    Action::Quit => return Ok(()),
                    Action::Kill(rows) => {
                        model.message = kill(&mut looker.source, &rows);
                        looker.pace = Pace::default();
                    }
                }
            }
        }
    };
    let done = work();
    ratatui::restore();
    done.map(|()| ExitCode::SUCCESS)
}

fn key_of(code: KeyCode) -> Option<Key> {
    Some(match code {
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}

fn kill(source: &mut Source, rows: &[Row]) -> String {
    let (mut ended, mut gone, mut refused) = (0, 0, None);
    for row in rows {
        match source.destroy(row) {
            Ok(()) => ended += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => gone += 1,
            Err(error) => refused = Some(error),
        }
    }
    let refused =
        refused.map_or_else(String::new, |error| format!("; refused: {error} (sudo lastack watch)"));
    format!("{ended} ended, {gone} had gone already{refused}")
}

/// A line, or an object, a look.
fn lines(
    looker: &mut Looker,
    mut model: Model,
    end: Option<Instant>,
    globals: &Globals,
) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::catch();
    let mut out = io::stdout().lock();
    while !interrupt.raised() && end.is_none_or(|end| clock::monotonic() < end) {
        let due = looker.due_in();
        if !due.is_zero() {
            clock::pause(due.min(Duration::from_millis(100)));
            continue;
        }
        looker.update(&mut model)?;
        let (total, groups) = (model.shown.len(), group::by(model.chosen(), &[group::Key::State]));
        if globals.json {
            let states: serde_json::Map<_, _> =
                groups.iter().map(|g| (g.values[0].clone(), g.count.into())).collect();
            let findings: Vec<_> = model
                .findings
                .iter()
                .map(|f| json!({"id": f.rule.id, "severity": f.severity.name(), "count": f.count}))
                .collect();
            let line = json!({"event": "summary", "at_ns": model.now.taken_ns, "total": total, "states": states, "findings": findings});
            writeln!(out, "{line}")?;
        } else {
            let states: Vec<String> = groups.iter().map(|g| format!("{} {}", g.values[0], g.count)).collect();
            let findings: Vec<String> =
                model.findings.iter().map(|f| format!("{} × {}", f.rule.id, f.count)).collect();
            let findings =
                if findings.is_empty() { String::new() } else { format!("  | {}", findings.join(", ")) };
            writeln!(out, "{total} sockets  {}{findings}", states.join("  "))?;
        }
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_takes_at_most_a_quarter_of_the_time() {
        let start = clock::monotonic();
        let (interval, ms) = (Duration::from_millis(100), Duration::from_millis);
        assert!(Pace::default().due_in(interval, start).is_zero(), "the first is due at once");
        for (took, due) in [(0, 100), (20, 100), (25, 100), (30, 120), (900, 3600)] {
            let pace = Pace { took: ms(took), looked: Some(start) };
            assert_eq!(pace.due_in(interval, start), ms(due), "a look of {took} ms");
            assert_eq!(pace.due_in(interval, start + ms(took)), ms(due - took), "and all of it at its end");
            assert!(pace.due_in(interval, start + ms(due)).is_zero());
        }
    }
}
