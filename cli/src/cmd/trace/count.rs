//! `lastack trace --count`: how often each event happens.
//!
//! Of the whole host the kernel counts by itself, as for `perf stat -a`: nothing can be lost. Of some connections, or by
//! process, the events are read and counted here; what did not fit into a ring is told.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lastack_observe::clock;
use lastack_observe::filter::{Filter, StateSet};
use lastack_observe::interrupt::Interrupt;
use lastack_observe::source::kernel::{Counting, TraceOptions, Tracer};
use lastack_observe::trace::Event;
use lastack_observe::words;
use serde_json::{Map, Value, json};

use super::{Args, TICK, chosen, refused};
use crate::args::Globals;
use crate::failure::Failure;
use crate::table::Table;

/// A process, where one is known to have acted on the socket.
type Actor = Option<(Arc<str>, u32)>;

pub(super) fn run(
    args: &Args,
    filter: Filter,
    length: Duration,
    globals: &Globals,
) -> Result<ExitCode, Failure> {
    if args.source.is_file() || args.source.stack_name().is_some() {
        return Err(Failure::new(
            "--count counts the kernel's events",
            "a file and a stack have none of those; the last line of their trace has counts",
            "the same command without --count",
        ));
    }
    let begun = || say!("counting for {}; Ctrl-C ends it", words::duration(length.as_millis() as u64));
    let out = &mut BufWriter::new(io::stdout().lock());
    let everything = filter.is_empty() && filter.states == StateSet::ALL;
    if everything && !args.per_process && !args.drops {
        let counting = Counting::open().map_err(|error| refused(&error))?;
        begun();
        let took = wait(length, |left| {
            clock::pause(left);
            Ok(())
        })?;
        totals(&counting.read()?, took, 0, globals.json, out)?;
    } else {
        let options = TraceOptions { drops: args.drops, ..TraceOptions::default() };
        let mut tracer = Tracer::open(options).map_err(|error| refused(&error))?;
        begun();
        let mut counts: BTreeMap<(&'static str, Actor), u64> = BTreeMap::new();
        let mut count = |event: Event| {
            if chosen(&filter, &event) {
                let actor = event.owner.map(|(pid, comm)| (comm, pid)).filter(|_| args.per_process);
                *counts.entry((event.name, actor)).or_default() += 1;
            }
        };
        let took = wait(length, |left| tracer.wait(left, &mut count).map(drop))?;
        tracer.wait(Duration::ZERO, &mut count)?;
        let (names, lost) = (tracer.names(), tracer.lost());
        if args.per_process {
            by_process(&names, &counts, took, lost, globals.json, out)?;
        } else {
            let of = |name: &str| counts.get(&(short(name), None)).copied().unwrap_or(0);
            let all: Vec<(String, u64)> = names.into_iter().map(|name| (name.clone(), of(&name))).collect();
            totals(&all, took, lost, globals.json, out)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Does `step` again and again, at most [`TICK`] long each time, for `length` or until Ctrl-C; gives how long that was.
fn wait(length: Duration, mut step: impl FnMut(Duration) -> io::Result<()>) -> io::Result<Duration> {
    let (interrupt, start) = (Interrupt::catch(), clock::monotonic());
    while !interrupt.raised() && start.elapsed() < length {
        step(length.saturating_sub(start.elapsed()).min(TICK))?;
    }
    Ok(start.elapsed())
}

/// `tcp:tcp_send_reset` without its group.
fn short(name: &str) -> &str {
    name.split_once(':').map_or(name, |(_, tail)| tail)
}

fn totals(
    counts: &[(String, u64)],
    took: Duration,
    lost: u64,
    as_json: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    if as_json {
        let counts: Map<String, Value> = counts.iter().map(|(name, n)| (name.clone(), (*n).into())).collect();
        return document(json!({"counts": counts}), took, lost, out);
    }
    let mut table = Table::new(&[("Count", true), ("Event", false)]);
    for (name, n) in counts {
        table.push(vec![n.to_string(), name.clone()]);
    }
    table.write(out, true)?;
    ending(took, lost, out)
}

/// A line for each process and event; `-` are those of which no process is known, such as what a packet made happen.
fn by_process(
    names: &[String],
    counts: &BTreeMap<(&'static str, Actor), u64>,
    took: Duration,
    lost: u64,
    as_json: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let full = |name: &str| {
        names.iter().find(|full| short(full) == name).map_or_else(|| name.to_owned(), Clone::clone)
    };
    let mut processes: BTreeMap<&Actor, Vec<(String, u64)>> = BTreeMap::new();
    for ((name, actor), n) in counts {
        processes.entry(actor).or_default().push((full(name), *n));
    }
    let mut processes: Vec<_> = processes.into_iter().collect();
    let sum = |counts: &[(String, u64)]| counts.iter().map(|(_, n)| n).sum::<u64>();
    processes.sort_by_key(|(_, counts)| std::cmp::Reverse(sum(counts)));
    if as_json {
        let list: Vec<Value> = processes
            .into_iter()
            .map(|(actor, counts)| {
                let counts: Map<String, Value> =
                    counts.into_iter().map(|(name, n)| (name, n.into())).collect();
                match actor {
                    Some((comm, pid)) => json!({"pid": pid, "comm": **comm, "counts": counts}),
                    None => json!({"counts": counts}),
                }
            })
            .collect();
        return document(json!({"processes": list}), took, lost, out);
    }
    let mut table = Table::new(&[("Count", true), ("Process", false), ("Event", false)]);
    for (actor, counts) in processes {
        let process = actor.as_ref().map_or_else(|| "-".to_owned(), |(comm, pid)| format!("{comm}/{pid}"));
        for (name, n) in counts {
            table.push(vec![n.to_string(), process.clone(), name]);
        }
    }
    table.write(out, true)?;
    ending(took, lost, out)
}

fn document(mut content: Value, took: Duration, lost: u64, out: &mut dyn Write) -> io::Result<()> {
    content["schema"] = 1.into();
    content["duration_ms"] = (took.as_millis() as u64).into();
    content["lost"] = lost.into();
    writeln!(out, "{content}")
}

fn ending(took: Duration, lost: u64, out: &mut dyn Write) -> io::Result<()> {
    let lost = if lost > 0 { format!(", {lost} lost") } else { String::new() };
    writeln!(out, "in {}{lost}", words::duration(took.as_millis() as u64))
}
