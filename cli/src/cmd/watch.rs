//! `lastack watch`: the same as `ss` and `doctor`, live on a full screen; lines where there is none.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lastack_observe::clock;
use lastack_observe::filter::Filter;
use lastack_observe::group;
use lastack_observe::interrupt::Interrupt;
use lastack_observe::row::Row;
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

/// A look may take at most a quarter of the time: on a host with very many sockets the pace falls.
const LOOK_SHARE: u32 = 4;
/// Owners are looked up more rarely: that walks through /proc.
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
    let mut looker = Looker {
        source: args.source.open()?,
        interval: Duration::from_secs_f64(args.interval),
        took: Duration::ZERO,
        looked: None,
        owned: None,
        owners: std::collections::HashMap::new(),
    };
    let end =
        args.duration.map(|seconds| clock::monotonic() + Duration::from_secs_f64(seconds.clamp(0.0, 1e7)));
    let smart = io::stdout().is_terminal()
        && io::stdin().is_terminal()
        && std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty());
    let model = Model::new(args.filter.join(" "), filter);
    if smart && !globals.json {
        screen(looker, model, end, globals)
    } else {
        lines(&mut looker, model, end, globals)
    }
}

/// Looks at the source, no more often than it is worth.
struct Looker {
    source: Source,
    interval: Duration,
    took: Duration,
    looked: Option<Instant>,
    owned: Option<(Instant, Duration)>,
    owners: std::collections::HashMap<u64, lastack_observe::row::Owner>,
}

impl Looker {
    /// Until the next look is due.
    fn due_in(&self) -> Duration {
        let pause = self.interval.max(self.took * LOOK_SHARE);
        self.looked.map_or(Duration::ZERO, |then| pause.saturating_sub(then.elapsed()))
    }

    fn look(&mut self) -> Result<Snapshot, Failure> {
        let start = clock::monotonic();
        let owners = self
            .owned
            .is_none_or(|(then, took)| then.elapsed() > (took * OWNER_SHARE).max(Duration::from_secs(2)));
        let query = Query { filter: Filter::everything(), detail: Detail::Full, owners, v6: None };
        let mut snapshot = self.source.snapshot(&query)?;
        if owners {
            self.owned = Some((start, start.elapsed()));
            self.owners = snapshot
                .rows
                .iter()
                .filter_map(|row| Some((row.socket.cookie, row.owner.clone()?)))
                .collect();
        } else {
            self.took = start.elapsed();
            for row in &mut snapshot.rows {
                row.owner = row.owner.take().or_else(|| self.owners.get(&row.socket.cookie).cloned());
            }
        }
        self.looked = Some(start);
        Ok(snapshot)
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
                model.update(looker.look()?);
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
                        looker.looked = None;
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
        model.update(looker.look()?);
        let rows: Vec<Row> = model.shown.iter().map(|index| model.now.rows[*index].clone()).collect();
        let groups = group::by(&rows, &[group::Key::State]);
        if globals.json {
            let states: serde_json::Map<_, _> =
                groups.iter().map(|g| (g.values[0].clone(), g.count.into())).collect();
            let findings: Vec<_> = model
                .findings
                .iter()
                .map(|f| json!({"id": f.rule.id, "severity": f.severity.name(), "count": f.count}))
                .collect();
            let line = json!({"event": "summary", "at_ns": model.now.taken_ns, "total": rows.len(), "states": states, "findings": findings});
            writeln!(out, "{line}")?;
        } else {
            let states: Vec<String> = groups.iter().map(|g| format!("{} {}", g.values[0], g.count)).collect();
            let findings: Vec<String> =
                model.findings.iter().map(|f| format!("{} × {}", f.rule.id, f.count)).collect();
            let findings =
                if findings.is_empty() { String::new() } else { format!("  | {}", findings.join(", ")) };
            writeln!(out, "{} sockets  {}{findings}", rows.len(), states.join("  "))?;
        }
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}
