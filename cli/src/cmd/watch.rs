//! `lastack watch`: the same as `ss` and `doctor`, live on a full screen; lines where there is none.

use std::io::{self, IsTerminal as _, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lastack_observe::clock;
use lastack_observe::doctor::Finding;
use lastack_observe::filter::Filter;
use lastack_observe::group::{Group, Groups, Key as GroupKey};
use lastack_observe::interrupt::Interrupt;
use lastack_observe::row::Row;
use lastack_observe::source::Source;
use lastack_observe::source::kernel::{Detail, Query};
use lastack_observe::words::{Lang, Words, duration, says};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::json;

use crate::args::Globals;
use crate::failure::Failure;
use crate::seconds;
use crate::source_args::{self, SourceArgs};
use crate::watch::draw;
use crate::watch::looker::{Looker, Owners, Pace};
use crate::watch::model::{Action, Key, Model, all_states_unless_named};

/// A whole look, and what is made of it, may take a quarter of a core: on a host with very many sockets the pace falls.
const LOOK_SHARE: u32 = 4;
/// A line's count of the states may take half of one: it is made for programs, which ask for the pace they want.
const LINE_SHARE: u32 = 2;
/// Lines need the states from one look and the findings from another: those may take an eighth, once a second at most.
const FINDINGS_SHARE: u32 = 8;
const FINDINGS_PAUSE: Duration = Duration::from_secs(1);
/// The screen is drawn, and what it shows read again, so often; both may take a quarter of a core.
const FRAME: Duration = Duration::from_millis(100);
const FRAME_SHARE: u32 = 4;
/// A key is looked for at least so often, also where nothing else is due.
const IDLE: Duration = Duration::from_millis(500);

/// The command line of `watch`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  lastack watch                                every socket; ? shows the keys
  lastack watch --interval 0.1 state close-wait process = myapp

The sockets on the screen are read again ten times a second, all of them every --interval, or more rarely where \
that would take more than a quarter of a core; the screen says how old the last look at all is.

Without a terminal, or on a dumb one, a line a look is printed instead; with --json an object.")]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// Seconds between two looks at all sockets
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds::pause)]
    interval: Duration,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds::length)]
    duration: Option<Duration>,
    /// Which sockets at first
    #[arg(value_name = "FILTER", trailing_var_arg = true)]
    filter: Vec<String>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    let filter = source_args::filter(&args.filter)?;
    let smart = !globals.json
        && io::stdout().is_terminal()
        && io::stdin().is_terminal()
        && std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty());
    let end = args.duration.map(|length| clock::monotonic() + length);
    let (look, own) = (args.source.open()?, args.source.open()?);
    if smart {
        let need = if filter.needs_owner() { Owners::First } else { Owners::Later };
        let looker = Looker::start(look, need, Pace::new(args.interval, LOOK_SHARE))?;
        let model = Model::new(args.filter.join(" "), filter);
        screen(looker, own, &args.source, model, end, globals.lang())
    } else {
        // Lines say states and rules: nobody's name.
        let pace = Pace::new(args.interval.max(FINDINGS_PAUSE), FINDINGS_SHARE);
        let looker = Looker::start(look, Owners::Never, pace)?;
        let pace = Pace::new(args.interval, LINE_SHARE);
        lines(looker, own, &args.source, all_states_unless_named(filter), pace, end, globals.json)
    }
}

fn screen(
    mut looker: Looker,
    mut source: Source,
    named: &SourceArgs,
    mut model: Model,
    end: Option<Instant>,
    lang: Lang,
) -> Result<ExitCode, Failure> {
    // Before the terminal is taken: whoever ends us by SIGINT or SIGTERM is to have it back.
    let interrupt = Interrupt::catch();
    let mut terminal = ratatui::try_init()?;
    let mut frames = Pace::new(FRAME, FRAME_SHARE);
    let (mut page, mut looks, mut pictures) = (1, 0u64, 0u64);
    let began = clock::monotonic();
    let mut work = || -> Result<(), Failure> {
        loop {
            let (start, used) = (clock::monotonic(), clock::thread_time());
            if interrupt.raised() || end.is_some_and(|end| start >= end) {
                return Ok(());
            }
            if !model.paused {
                if let Some(look) = looker.turn().map_err(|error| named.refused(&error))? {
                    model.update(look);
                    looks += 1;
                }
                // What cannot be read again is as old as the last look.
                if let Ok(fresh) = source.reread(&model.now.rows, &model.visible(page)) {
                    model.refresh(fresh, clock::unix_ns());
                }
            }
            terminal.draw(|frame| page = draw::draw(frame, &model, clock::unix_ns(), lang))?;
            pictures += 1;
            frames.done(start, clock::thread_time().saturating_sub(used));
            let wait = if model.paused { IDLE } else { frames.due_in(clock::monotonic()) };
            if !event::poll(wait.max(Duration::from_millis(1)))? {
                continue;
            }
            // All keys that wait are done before the next picture: holding one down must not lag behind.
            while event::poll(Duration::ZERO)? {
                let Event::Key(pressed) = event::read()? else { continue };
                if pressed.kind == KeyEventKind::Release {
                    continue;
                }
                if pressed.modifiers.contains(KeyModifiers::CONTROL) {
                    if pressed.code == KeyCode::Char('c') {
                        return Ok(());
                    }
                    continue;
                }
                let Some(key) = key_of(pressed.code) else { continue };
                match model.key(key, page) {
                    Action::Nothing => {}
                    Action::Quit => return Ok(()),
                    Action::Kill(rows) => {
                        model.message = Some(kill(&mut source, &rows));
                        looker.hurry();
                    }
                }
            }
        }
    };
    let done = work();
    ratatui::restore();
    // It shows the cursor again: before the last line, not behind it.
    drop(terminal);
    done?;
    let (sockets, took) = (model.now.rows.len(), duration(began.elapsed().as_millis() as u64));
    let said = says!(
        "{sockets} sockets, {looks} looks, {pictures} pictures in {took}",
        "{took} 内：{sockets} 个套接字，全表读取 {looks} 次，画面 {pictures} 幅"
    );
    writeln!(io::stdout(), "{}", said.get(lang))?;
    Ok(ExitCode::SUCCESS)
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

fn kill(source: &mut Source, rows: &[Row]) -> Words {
    let (mut ended, mut gone, mut refused) = (0, 0, None);
    for row in rows {
        match source.destroy(row) {
            Ok(()) => ended += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => gone += 1,
            Err(error) => refused = Some(error),
        }
    }
    let mut said = Words {
        en: format!("{ended} ended, {gone} had gone already"),
        zh: format!("结束了 {ended} 个，{gone} 个此前已消失"),
    };
    if let Some(error) = refused {
        said.en.push_str(&format!("; refused: {error} (sudo lastack watch)"));
        said.zh.push_str(&format!("；被拒绝：{error}（sudo lastack watch）"));
    }
    said
}

/// A line, or an object, a look: the states of the sockets chosen, counted as the source tells them, and the last findings.
fn lines(
    mut looker: Looker,
    mut source: Source,
    named: &SourceArgs,
    filter: Filter,
    mut pace: Pace,
    end: Option<Instant>,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::catch();
    let mut out = io::stdout().lock();
    let query = Query { filter, detail: Detail::Brief, owners: false, v6: None };
    let refused = |error: io::Error| named.refused(&error);
    let mut findings = looker.wait().map_err(refused)?.findings;
    // However short the time: one line there is.
    let mut told = false;
    loop {
        let (start, used) = (clock::monotonic(), clock::thread_time());
        if told && (interrupt.raised() || end.is_some_and(|end| start >= end)) {
            return Ok(ExitCode::SUCCESS);
        }
        let due = pace.due_in(start);
        if !due.is_zero() {
            clock::pause(due.min(FRAME));
            continue;
        }
        if let Some(look) = looker.turn().map_err(refused)? {
            findings = look.findings;
        }
        let at_ns = clock::unix_ns();
        let mut groups = Groups::new(&[GroupKey::State]);
        let mut each = |row: &Row| {
            groups.add(row);
            ControlFlow::Continue(())
        };
        source.each(&query, &mut each).map_err(refused)?;
        pace.done(start, clock::thread_time().saturating_sub(used));
        line(&groups.finish(), &findings, at_ns, as_json, &mut out)?;
        told = true;
    }
}

fn line(
    groups: &[Group],
    findings: &[Finding],
    at_ns: u64,
    as_json: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let total: u64 = groups.iter().map(|group| group.count).sum();
    if as_json {
        let states: serde_json::Map<_, _> =
            groups.iter().map(|group| (group.values[0].clone(), group.count.into())).collect();
        let findings: Vec<_> = findings
            .iter()
            .map(|f| json!({"id": f.rule.id, "severity": f.severity.name(), "count": f.count}))
            .collect();
        let line = json!({"event": "summary", "at_ns": at_ns, "total": total, "states": states, "findings": findings});
        writeln!(out, "{line}")?;
    } else {
        let states: Vec<String> =
            groups.iter().map(|group| format!("{} {}", group.values[0], group.count)).collect();
        let findings: Vec<String> =
            findings.iter().map(|finding| format!("{} × {}", finding.rule.id, finding.count)).collect();
        let findings =
            if findings.is_empty() { String::new() } else { format!("  | {}", findings.join(", ")) };
        let sockets = if total == 1 { "socket" } else { "sockets" };
        writeln!(out, "{total} {sockets}  {}{findings}", states.join("  "))?;
    }
    out.flush()
}
