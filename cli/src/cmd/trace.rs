//! `lastack trace`: events as they happen.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use lastack_core::observe::{EventMask, TcpInfo};
use lastack_observe::clock;
use lastack_observe::filter::{Filter, StateSet};
use lastack_observe::interrupt::Interrupt;
use lastack_observe::row::Row;
use lastack_observe::source::kernel::{Endings, TraceOptions, Tracer};
use lastack_observe::trace::Event;
use lastack_observe::words;
use serde_json::json;

use crate::args::Globals;
use crate::failure::Failure;
use crate::seconds;
use crate::source_args::{self, SourceArgs};
use crate::text::Paint;

mod count;

/// At most so long between two looks at the rings.
const TICK: Duration = Duration::from_millis(100);
/// Frames of a call stack that are shown.
const FRAMES: usize = 12;

/// The command line of `trace`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sudo lastack trace dport = :443           state changes, retransmits and resets of these
  sudo lastack trace --count 10             how often each event happened in ten seconds
  sudo lastack trace --count 10 --per-process dport = :443
  lastack trace --from trace.pcap           states, repeats and resets that a capture shows

As root it reads the kernel's tracepoints, which see every network namespace of the host. Without, it tells \
the ends of connections of one namespace with their last figures, but neither opens nor reasons.

A process is named where it is the one that acted (connect, listen, close); in parentheses it is the one that last \
acted on the socket, as when the peer's packets change it.")]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// Count events for so many seconds instead of showing them: every tcp:* of the host, as perf stat does; with a
    /// filter or by process, those that are shown without --count
    #[arg(long, value_name = "SECONDS", value_parser = seconds::length, conflicts_with_all = ["duration", "stacks"])]
    count: Option<Duration>,
    /// Count them by process
    #[arg(long, requires = "count")]
    per_process: bool,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds::length, conflicts_with = "from")]
    duration: Option<Duration>,
    /// Dropped IP packets with their reasons, too
    #[arg(long)]
    drops: bool,
    /// The kernel's call stack of each event
    #[arg(long)]
    stacks: bool,
    /// Only the ends of connections, which needs no privilege
    #[arg(long, conflicts_with_all = ["drops", "stacks", "count"])]
    ends: bool,
    /// Which connections, for example: dport = :443 (a state means the one entered)
    #[arg(value_name = "FILTER", trailing_var_arg = true)]
    filter: Vec<String>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    args.check()?;
    let mut filter = source_args::filter(&args.filter)?;
    if !filter.names_states {
        filter.states = StateSet::ALL;
    }
    if let Some(length) = args.count {
        return count::run(args, filter, length, globals);
    }
    let mut shown = Shown::new(args, filter, globals);
    if args.source.is_file() {
        return args.captured(&mut shown);
    }
    if let Some(name) = args.source.stack_name() {
        let refused = |error: io::Error| args.source.refused(&error);
        let mut events = args.source.stack(name)?.into_events(EventMask::ALL).map_err(refused)?;
        while shown.goes_on() && events.wait(TICK, &mut |event| shown.show(&event)).map_err(refused)? {
            shown.flush()?;
        }
        return shown.summary(events.lost());
    }
    if args.ends {
        return args.ends_only(&mut shown);
    }
    match Tracer::open(TraceOptions { drops: args.drops, stacks: args.stacks, forks: false, ends: false }) {
        Ok(mut tracer) => {
            while shown.goes_on() {
                tracer.wait(TICK, &mut |event| shown.show(&event)).map_err(|error| refused(&error))?;
                shown.flush()?;
            }
            // What happened before the interrupt and is still in the rings belongs to the stream.
            tracer.wait(Duration::ZERO, &mut |event| shown.show(&event)).map_err(|error| refused(&error))?;
            shown.summary(tracer.lost())
        }
        Err(error) if args.drops || args.stacks => Err(refused(&error)),
        Err(error) => {
            say!("note: only the ends of connections are seen: {}; {}", error, grant(&error));
            args.ends_only(&mut shown)
        }
    }
}

impl Args {
    /// Refuses what the source named cannot tell.
    fn check(&self) -> Result<(), Failure> {
        self.source.check()?;
        let has_kernel = !self.source.is_file() && self.source.stack_name().is_none();
        let of_kernel = [("--drops", self.drops), ("--stacks", self.stacks), ("--ends", self.ends)];
        if let Some((flag, _)) = of_kernel.iter().find(|(_, given)| *given && !has_kernel) {
            return Err(Failure::new(
                format!("{flag} asks the kernel"),
                "a file and a lastack tell all they have without it",
                format!("the same command without {flag}"),
            ));
        }
        if self.source.is_elsewhere() && !self.ends {
            return Err(Failure::new(
                "tracepoints cannot be asked for one network namespace",
                "they see the events of all of them and do not say of which",
                "--ends with --netns, or a filter without it: lastack trace src 10.0.0.1",
            ));
        }
        Ok(())
    }

    /// The events that a capture's packets show.
    fn captured(&self, shown: &mut Shown) -> Result<ExitCode, Failure> {
        match self.source.capture(|event| shown.show(&event))? {
            Some(_) => {
                shown.flush()?;
                shown.summary(0)
            }
            None => Err(Failure::new(
                "events cannot be read from this file",
                "it is no capture: a snapshot has no events",
                "a pcap or pcapng file, for example of tcpdump -w FILE or lastack run --pcap FILE",
            )),
        }
    }

    fn ends_only(&self, shown: &mut Shown) -> Result<ExitCode, Failure> {
        let refused = |error: io::Error| self.source.refused(&error);
        let mut endings = Endings::open(&self.source.one_namespace()?).map_err(refused)?;
        let mut over = false;
        while !over {
            over = !shown.goes_on();
            // What ended before the interrupt and has not been read yet belongs to the stream.
            let mut each = |row: Row| {
                let mut event = Event::new(clock::unix_ns(), "ended");
                (event.local, event.peer) = (Some(row.socket.local), Some(row.socket.remote));
                event.cookie = Some(row.socket.cookie);
                event.row = Some(Box::new(row));
                shown.show(&event);
            };
            endings.wait(if over { Duration::ZERO } else { TICK }, &mut each).map_err(refused)?;
            shown.flush()?;
        }
        shown.summary(endings.overflows())
    }
}

fn grant(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "sudo lastack trace, or setcap cap_perfmon,cap_dac_read_search+ep on the binary"
        }
        io::ErrorKind::NotFound => "sudo mount -t tracefs tracefs /sys/kernel/tracing",
        io::ErrorKind::QuotaExceeded => "ulimit -n 65536 as root; in a unit LimitNOFILE=65536",
        _ => "sudo sysctl kernel.perf_event_paranoid=1",
    }
}

fn refused(error: &io::Error) -> Failure {
    Failure::new("cannot read the kernel's tracepoints", error.to_string(), grant(error))
}

/// The stream of events: filtered, printed, counted.
struct Shown {
    filter: Filter,
    as_json: bool,
    paint: Paint,
    out: BufWriter<io::Stdout>,
    failed: Option<io::Error>,
    counts: BTreeMap<&'static str, u64>,
    interrupt: Interrupt,
    start: std::time::Instant,
    duration: Option<Duration>,
}

impl Shown {
    fn new(args: &Args, filter: Filter, globals: &Globals) -> Self {
        Self {
            filter,
            as_json: globals.json,
            paint: Paint { colored: globals.colored() },
            out: BufWriter::new(io::stdout()),
            failed: None,
            counts: BTreeMap::new(),
            interrupt: Interrupt::catch(),
            start: clock::monotonic(),
            duration: args.duration,
        }
    }

    fn goes_on(&self) -> bool {
        !self.interrupt.raised() && self.duration.is_none_or(|length| self.start.elapsed() < length)
    }

    fn show(&mut self, event: &Event) {
        if !chosen(&self.filter, event) {
            return;
        }
        *self.counts.entry(event.name).or_default() += 1;
        let line = if self.as_json { event.to_json().to_string() } else { self.line(event) };
        if let Err(error) = writeln!(self.out, "{line}") {
            self.failed.get_or_insert(error);
        }
    }

    fn line(&self, event: &Event) -> String {
        let mut parts = vec![time_of_day(event.at_ns), self.paint.bold(&format!("{:<21}", event.name))];
        if let (Some(local), Some(peer)) = (event.local, event.peer) {
            parts.push(format!("{local} → {peer}"));
        }
        match (event.old_state, event.state) {
            (Some(old), Some(new)) => parts.push(format!("{old} → {new}")),
            (None, Some(state)) => parts.push(state.to_string()),
            _ => {}
        }
        if let Some(reason) = &event.reason {
            parts.push(self.paint.yellow(reason));
        }
        if let Some(error) = event.error {
            parts.push(io::Error::from_raw_os_error(error).to_string());
        }
        if let Some(comm) = &event.comm {
            parts.push(format!("{comm}/{}", event.pid.unwrap_or(0)));
        } else if let Some((pid, comm)) = &event.owner {
            parts.push(format!("({comm}/{pid})"));
        }
        if let Some(info) = event.row.as_ref().and_then(|row| row.socket.info.as_deref()) {
            parts.push(last_figures(info));
        }
        let mut line = parts.join("  ");
        for frame in event.stack.iter().take(FRAMES) {
            line.push_str("\n        ");
            line.push_str(frame);
        }
        line
    }

    fn flush(&mut self) -> Result<(), Failure> {
        match self.failed.take() {
            Some(error) => Err(error.into()),
            None => Ok(self.out.flush()?),
        }
    }

    fn summary(&mut self, lost: u64) -> Result<ExitCode, Failure> {
        let total: u64 = self.counts.values().sum();
        if self.as_json {
            let line = json!({"event": "summary", "counts": self.counts, "total": total, "lost": lost});
            writeln!(self.out, "{line}")?;
        } else {
            let counts: Vec<String> = self.counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
            let lost = if lost > 0 { format!(", {lost} lost") } else { String::new() };
            let list = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
            writeln!(self.out, "{total} events{list}{lost}")?;
        }
        self.out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// An event of which the addresses are not known is shown only where everything is.
fn chosen(filter: &Filter, event: &Event) -> bool {
    let everything = filter.is_empty() && filter.states == StateSet::ALL;
    everything || event.as_row().is_some_and(|row| filter.matches(&row))
}

/// `HH:MM:SS.micros`, UTC.
fn time_of_day(at_ns: u64) -> String {
    let us = at_ns / 1000 % 86_400_000_000;
    let s = us / 1_000_000;
    format!("{:02}:{:02}:{:02}.{:06}", s / 3600, s / 60 % 60, s % 60, us % 1_000_000)
}

fn last_figures(info: &TcpInfo) -> String {
    let mut text = format!("↑ {} ↓ {}", words::bytes(info.bytes_acked), words::bytes(info.bytes_received));
    if info.rtt > 0 {
        text.push_str(&format!("  rtt {}us", info.rtt));
    }
    if info.total_retrans > 0 {
        text.push_str(&format!("  retrans {}", info.total_retrans));
    }
    text
}
