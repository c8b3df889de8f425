//! `lastack ss`: sockets, as iproute2's `ss -t` shows them, with owners, ages and groups.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use lastack_core::tcp::state::TcpState;
use lastack_observe::filter::{Filter, StateSet};
use lastack_observe::group::{Group, Groups, Key};
use lastack_observe::json;
use lastack_observe::row::Row;
use lastack_observe::snapshot::{HostGauges, Namespace, Snapshot};
use lastack_observe::source::kernel::{Detail, Query};
use lastack_observe::words::{self, Lang, Words, says};
use serde_json::json;

use crate::args::Globals;
use crate::failure::Failure;
use crate::source_args::{self, SourceArgs};
use crate::table::{Table, number};

mod info;
pub(crate) mod spell;

/// The command line of `ss`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  lastack ss -o state fin-wait-1                    stuck closes, with the timer they wait for
  lastack ss -p --group-by state,peer,process -a    who has how many of what, with whom, since when

The filter is iproute2's (see ss(8)); `and` and `or` bind equally, from left to right, as there.

More words: pid, process, timer (on, persist, keepalive, timewait, none), recvq, sendq (> 1M), age (> 60s), \
uid, cookie, orphan. Ages are lower bounds inferred from timers unless `lastack record` runs.")]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// Sockets of every state; of -a and -l the later counts, as in iproute2
    #[arg(short, long, overrides_with = "listening")]
    all: bool,
    /// Only listening sockets
    #[arg(short, long, overrides_with = "all")]
    listening: bool,
    /// TCP, which is all there is here
    #[arg(short, long)]
    tcp: bool,
    /// Numbers instead of names, which is so anyway
    #[arg(short, long)]
    numeric: bool,
    /// Timers
    #[arg(short, long)]
    options: bool,
    /// TCP internals (tcp_info)
    #[arg(short, long)]
    info: bool,
    /// Owner: process, or who it was
    #[arg(short, long)]
    processes: bool,
    /// User, inode, cookie, control group, age, and the timer
    #[arg(short, long)]
    extended: bool,
    /// Memory
    #[arg(short, long)]
    memory: bool,
    /// Counts by state instead of sockets
    #[arg(short, long, conflicts_with_all = ["options", "info", "processes", "extended", "memory"])]
    summary: bool,
    /// No header; JSON never has one
    #[arg(short = 'H', long)]
    no_header: bool,
    /// Only IPv4
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only IPv6
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Typed by habit (`-tunlp`): said to be missing, not refused
    #[arg(short, long, hide = true)]
    udp: bool,
    #[arg(short = 'E', long, hide = true)]
    events: bool,
    #[arg(short = 'K', long, hide = true)]
    kill: bool,
    #[arg(short = 'N', long = "net", value_name = "NSNAME", hide = true)]
    net: Option<String>,
    /// Sums instead of sockets: a list of state, peer, process, sport, dport, timer, netns
    #[arg(long, value_name = "KEYS", value_delimiter = ',', conflicts_with_all = ["options", "info", "extended", "memory", "summary"])]
    group_by: Vec<String>,
    /// Which sockets, for example: state fin-wait-1 dst 10.0.0.0/8 sport = :443
    #[arg(value_name = "FILTER", trailing_var_arg = true)]
    filter: Vec<String>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    args.elsewhere()?;
    let keys = keys(&args.group_by, args.processes)?;
    let keys = if args.summary { vec![Key::State] } else { keys };
    let filter = args.filter()?;
    // A count by state needs no more than the states.
    let detailed =
        !args.summary && (globals.json || args.info || args.memory || args.extended || !keys.is_empty());
    let query = Query {
        filter,
        detail: if detailed { Detail::Full } else { Detail::Brief },
        owners: args.processes || (globals.json && keys.is_empty()) || keys.contains(&Key::Process),
        v6: args.family(),
    };
    let out = &mut BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    let rest = if keys.is_empty() {
        args.list(&query, globals.json, out)?
    } else {
        let (groups, rest) = args.sums(&query, &keys)?;
        if args.summary {
            if globals.json {
                summary_document(groups, &rest, out)?;
            } else {
                summary(groups, &rest, args.no_header, globals.lang(), out)?;
            }
        } else {
            self::groups(&groups, &rest, &keys, args.no_header, globals.json, out)?;
        }
        rest
    };
    out.flush()?;
    if !globals.json {
        for missing in &rest.missing {
            say!("note: {}; {}", missing.what, missing.grant);
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Flags of iproute2's `ss` that have another place here.
    fn elsewhere(&self) -> Result<(), Failure> {
        let other = |flag: &str, cause: &str, next: String| {
            Err(Failure::new(format!("ss has no {flag} here"), cause.to_owned(), next))
        };
        let filter = self.filter.join(" ");
        if self.events {
            return other(
                "-E",
                "a command of its own tells ends, and more",
                format!("lastack trace --ends {filter}"),
            );
        }
        if self.kill {
            return other(
                "-K",
                "a command of its own asks first",
                format!("lastack kill --dry-run {filter}"),
            );
        }
        if let Some(name) = &self.net {
            return other("-N", "every command has the same flag for it", format!("--netns {name}"));
        }
        if self.udp {
            say!("note: TCP only; for UDP: ss -u");
        }
        Ok(())
    }

    /// `-a` and `-l` choose states only where the filter names none, as in `ss`.
    fn filter(&self) -> Result<Filter, Failure> {
        let mut filter = source_args::filter(&self.filter)?;
        if !filter.names_states {
            filter.states = match (self.all || self.summary, self.listening) {
                (true, _) => StateSet::ALL,
                (false, true) => StateSet::of(TcpState::Listen).or(StateSet::of(TcpState::Close)),
                (false, false) => filter.states,
            };
        }
        Ok(filter)
    }

    fn family(&self) -> Option<bool> {
        if self.ipv4 { Some(false) } else { self.ipv6.then_some(true) }
    }

    /// Writes the sockets; gives what else the snapshot says.
    fn list(&self, query: &Query, as_json: bool, out: &mut dyn Write) -> Result<Snapshot, Failure> {
        // Nothing about one line depends on another: none needs to be kept.
        if !as_json && !query.owners && !self.source.is_file() {
            return self.stream(query, out);
        }
        let mut snapshot = self.source.snapshot(query)?;
        if as_json {
            json::write_snapshot(&snapshot, out)?;
        } else {
            self.sockets(&snapshot.rows, out)?;
        }
        snapshot.rows.clear();
        Ok(snapshot)
    }

    /// Writes every socket as the source tells it; a reader that goes away ends the dump.
    fn stream(&self, query: &Query, out: &mut dyn Write) -> Result<Snapshot, Failure> {
        let mut source = self.source.open()?;
        let mut table = self.table();
        let mut written = Ok(());
        source
            .each(query, &mut |row| {
                self.socket(row, &mut table);
                written = table.drain(out, !self.no_header);
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .map_err(|error| self.source.refused(&error))?;
        written?;
        table.write(out, !self.no_header)?;
        Ok(Snapshot { missing: source.missing().to_vec(), ..Snapshot::default() })
    }

    /// Sums the sockets up by `keys`; they are kept only where that needs their owners.
    fn sums(&self, query: &Query, keys: &[Key]) -> Result<(Vec<Group>, Snapshot), Failure> {
        let mut groups = Groups::new(keys);
        let mut add = |row: &Row| groups.add(row);
        let rest = if query.owners || self.source.is_file() {
            let mut snapshot = self.source.snapshot(query)?;
            std::mem::take(&mut snapshot.rows).iter().for_each(add);
            snapshot
        } else {
            let mut each = |row: &Row| {
                add(row);
                ControlFlow::Continue(())
            };
            let mut source = self.source.open()?;
            let refused = |error: io::Error| self.source.refused(&error);
            source.each(query, &mut each).map_err(refused)?;
            source.frame().map_err(refused)?
        };
        Ok((groups.finish(), rest))
    }

    fn sockets(&self, rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
        let mut table = self.table();
        for row in rows {
            self.socket(row, &mut table);
            table.drain(out, !self.no_header)?;
        }
        table.write(out, !self.no_header)
    }

    fn table(&self) -> Table {
        let mut columns = vec![
            ("State", false),
            ("Recv-Q", true),
            ("Send-Q", true),
            ("Local Address:Port", true),
            ("Peer Address:Port", false),
        ];
        if self.processes {
            columns.push(("Process", false));
        }
        if self.options || self.extended {
            columns.push(("Timer", false));
        }
        if self.extended {
            columns.push(("Extended", false));
        }
        Table::new(&columns)
    }

    /// Adds one socket's line, or two.
    fn socket(&self, row: &Row, table: &mut Table) {
        let socket = &row.socket;
        table.cell(|text| text.push_str(socket.state.name()));
        table.cell(|text| number(text, socket.recv_q));
        table.cell(|text| number(text, socket.send_q));
        table.cell(|text| spell::push_address(text, socket.local, row.v6only));
        table.cell(|text| spell::push_address(text, socket.remote, row.v6only));
        if self.processes {
            table
                .cell(|text| text.push_str(&row.owner.as_ref().map_or_else(|| "-".to_owned(), spell::owner)));
        }
        if self.options || self.extended {
            table
                .cell(|text| text.push_str(&socket.timer.map_or_else(|| "-".to_owned(), spell::timer_of_ss)));
        }
        if self.extended {
            table.cell(|text| text.push_str(&spell::extended(row)));
        }
        table.end_row(|text| {
            let memory = row.memory.as_ref().filter(|_| self.memory);
            if let Some(memory) = memory {
                text.push_str(&spell::memory(memory));
            }
            if let Some(found) = socket.info.as_deref().filter(|_| self.info) {
                if memory.is_some() {
                    text.push(' ');
                }
                info::line(text, found, socket.state, row.congestion.as_deref());
            }
        });
    }
}

fn keys(names: &[String], owners: bool) -> Result<Vec<Key>, Failure> {
    let mut keys = Vec::new();
    for name in names {
        let refused =
            |cause| Failure::new(format!("cannot group by `{name}`"), cause, "--group-by state,peer");
        let key = Key::by_name(name)
            .ok_or_else(|| refused("the keys are state, peer, process, sport, dport, timer, netns"))?;
        if keys.contains(&key) {
            return Err(refused("it is named twice"));
        }
        keys.push(key);
    }
    if owners && !keys.is_empty() && !keys.contains(&Key::Process) {
        return Err(Failure::new(
            format!("--processes and --group-by {} leave no place for the owners", names.join(",")),
            "sockets of several owners are in one sum",
            format!("--group-by {},process", names.join(",")),
        ));
    }
    Ok(keys)
}

/// In the order of the states' table.
fn by_state(mut groups: Vec<Group>) -> Vec<Group> {
    groups.sort_by_key(|group| {
        TcpState::ALL.iter().position(|state| state.name() == group.values[0]).unwrap_or(usize::MAX)
    });
    groups
}

/// Sockets that are used, and those that only wait.
fn in_use(rest: &Snapshot) -> (u64, u64) {
    let sum = |of: fn(&Namespace) -> u64| rest.namespaces.iter().map(of).sum();
    (sum(|namespace| namespace.inuse), sum(|namespace| namespace.timewait))
}

fn summary_document(groups: Vec<Group>, rest: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
    let groups = by_state(groups);
    let total: u64 = groups.iter().map(|group| group.count).sum();
    let (inuse, timewait) = in_use(rest);
    let host = rest.host;
    let states: serde_json::Map<String, serde_json::Value> =
        groups.iter().map(|group| (group.values[0].clone(), json!(group.count))).collect();
    let document = json!({
        "schema": json::SCHEMA, "source": rest.source, "taken_ns": rest.taken_ns,
        "total": total, "states": states,
        "inuse": inuse, "timewait_minis": timewait,
        "host": {"orphans": host.orphans, "allocated": host.allocated, "memory_pages": host.memory_pages},
    });
    writeln!(out, "{document}")
}

fn summary(
    groups: Vec<Group>,
    rest: &Snapshot,
    no_header: bool,
    lang: Lang,
    out: &mut dyn Write,
) -> io::Result<()> {
    let groups = by_state(groups);
    let mut table = Table::new(&[
        ("State", false),
        ("Count", true),
        ("Oldest", true),
        ("Recv-Q", true),
        ("Send-Q", true),
    ]);
    for group in &groups {
        table.push(figures(group));
    }
    let total: u64 = groups.iter().map(|group| group.count).sum();
    table.push(vec!["total".to_owned(), total.to_string()]);
    table.write(out, !no_header)?;
    writeln!(out, "\n{}", in_all(rest).get(lang))
}

/// What the states do not tell.
fn in_all(rest: &Snapshot) -> Words {
    let (inuse, timewait) = in_use(rest);
    let HostGauges { orphans, allocated, .. } = rest.host;
    let memory = words::bytes(rest.host.memory_bytes());
    let namespace = says!(
        "in use {inuse}, mini sockets {timewait} (TIME-WAIT and orphaned FIN-WAIT-2)",
        "使用中 {inuse}，精简套接字 {timewait}（TIME-WAIT 和孤儿 FIN-WAIT-2）"
    );
    // A stack shares its orphans and its memory with nobody.
    let whole = if rest.source == "kernel" {
        says!(
            "whole host: orphans {orphans}, allocated {allocated}, TCP memory {memory}",
            "整台主机：孤儿 {orphans}，已分配 {allocated}，TCP 内存 {memory}"
        )
    } else {
        let source = &rest.source;
        says!(
            "the stack of {source}: orphans {orphans}, bytes in queues {memory}",
            "{source} 的协议栈：孤儿 {orphans}，队列中 {memory}"
        )
    };
    Words { en: format!("{}\n{}", namespace.en, whole.en), zh: format!("{}\n{}", namespace.zh, whole.zh) }
}

fn figures(group: &Group) -> Vec<String> {
    let mut cells = group.values.clone();
    cells.push(group.count.to_string());
    cells.push(group.oldest_ms.map_or_else(|| "-".to_owned(), words::duration));
    cells.push(group.recv_q.to_string());
    cells.push(group.send_q.to_string());
    cells
}

fn groups(
    groups: &[Group],
    rest: &Snapshot,
    keys: &[Key],
    no_header: bool,
    as_json: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    if as_json {
        let list: Vec<serde_json::Value> = groups
            .iter()
            .map(|group| {
                let mut object: serde_json::Map<String, serde_json::Value> = keys
                    .iter()
                    .zip(&group.values)
                    .map(|(key, v)| (key.name().to_owned(), json!(v)))
                    .collect();
                object.insert("count".to_owned(), json!(group.count));
                if let Some(oldest) = group.oldest_ms {
                    object.insert("oldest_ms".to_owned(), json!(oldest));
                }
                object.insert("recv_q".to_owned(), json!(group.recv_q));
                object.insert("send_q".to_owned(), json!(group.send_q));
                object.into()
            })
            .collect();
        let document = json!({
            "schema": json::SCHEMA, "source": rest.source, "taken_ns": rest.taken_ns, "groups": list,
        });
        return writeln!(out, "{document}");
    }
    let mut columns: Vec<(&'static str, bool)> = keys.iter().map(|key| (key.name(), false)).collect();
    columns.extend([("count", true), ("oldest", true), ("recv-q", true), ("send-q", true)]);
    let mut table = Table::new(&columns);
    for group in groups {
        table.push(figures(group));
    }
    table.write(out, !no_header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_summary_ends_with_is_in_both_languages_and_names_whose_it_is() {
        let space = Namespace { inuse: 3, timewait: 2, ..Namespace::default() };
        let host = HostGauges { orphans: 1, allocated: 9, memory_pages: 2, page_size: 4096 };
        let mut rest = Snapshot { namespaces: vec![space.clone(), space], host, ..Snapshot::default() };
        rest.source = "kernel".to_owned();
        assert_eq!(
            in_all(&rest),
            Words {
                en: "in use 6, mini sockets 4 (TIME-WAIT and orphaned FIN-WAIT-2)\n\
                     whole host: orphans 1, allocated 9, TCP memory 8.1 kB"
                    .to_owned(),
                zh: "使用中 6，精简套接字 4（TIME-WAIT 和孤儿 FIN-WAIT-2）\n\
                     整台主机：孤儿 1，已分配 9，TCP 内存 8.1 kB"
                    .to_owned(),
            }
        );
        rest.source = "web".to_owned();
        let Words { en, zh } = in_all(&rest);
        assert!(en.ends_with("\nthe stack of web: orphans 1, bytes in queues 8.1 kB"), "{en}");
        assert!(zh.ends_with("\nweb 的协议栈：孤儿 1，队列中 8.1 kB"), "{zh}");
    }
}
