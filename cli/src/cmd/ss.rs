//! `lastack ss`: sockets, as iproute2's `ss -t` shows them, with owners, ages and groups.

use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use lastack_core::observe::{TcpInfo, TimerRow};
use lastack_core::tcp::state::TcpState;
use lastack_observe::filter::{Filter, StateSet};
use lastack_observe::group::{self, Key};
use lastack_observe::json;
use lastack_observe::row::{Owner, OwnerHow, Row};
use lastack_observe::snapshot::Snapshot;
use lastack_observe::source::kernel::{Detail, Query};
use lastack_observe::words;
use serde_json::json;

use crate::args::Globals;
use crate::failure::Failure;
use crate::source_args::{self, SourceArgs};
use crate::table::Table;

/// The command line of `ss`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  lastack ss -o state fin-wait-1                    stuck closes, with the timer they wait for
  lastack ss -p --group-by state,peer,process -a    who has how many of what, with whom, since when

The filter is iproute2's (see ss(8)); `and` and `or` bind equally, from left to right, as there.
More words: pid, process, timer (on, persist, keepalive, timewait, none), recvq, sendq (> 1M), age (> 60s),
uid, cookie, orphan. Ages are lower bounds inferred from timers unless `lastack record` runs.")]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// Sockets of every state
    #[arg(short, long)]
    all: bool,
    /// Only listening sockets
    #[arg(short, long)]
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
    /// User, inode, cookie, control group, age
    #[arg(short, long)]
    extended: bool,
    /// Memory
    #[arg(short, long)]
    memory: bool,
    /// Counts by state instead of sockets
    #[arg(short, long)]
    summary: bool,
    /// No header
    #[arg(short = 'H', long)]
    no_header: bool,
    /// Only IPv4
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only IPv6
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Sums instead of sockets: a list of state, peer, process, sport, dport, timer, netns
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    group_by: Vec<String>,
    /// Which sockets, for example: state fin-wait-1 dst 10.0.0.0/8 sport = :443
    #[arg(value_name = "FILTER", trailing_var_arg = true)]
    filter: Vec<String>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    let keys = keys(&args.group_by)?;
    let filter = args.filter()?;
    let detailed = globals.json || args.info || args.memory || args.extended || !keys.is_empty();
    let query = Query {
        filter,
        detail: if detailed { Detail::Full } else { Detail::Brief },
        owners: args.processes || (globals.json && !args.summary) || keys.contains(&Key::Process),
        v6: args.family(),
    };
    let out = &mut BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    let snapshot = args.source.snapshot(&query)?;
    if args.summary {
        summary(&snapshot, globals.json, out)?;
    } else if !keys.is_empty() {
        groups(&snapshot, &keys, args.no_header, globals.json, out)?;
    } else if globals.json {
        json::write_snapshot(&snapshot, out)?;
    } else {
        args.sockets(&snapshot.rows, out)?;
    }
    out.flush()?;
    if !globals.json {
        for missing in &snapshot.missing {
            eprintln!("note: {}; {}", missing.what, missing.grant);
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
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

    fn sockets(&self, rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
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
        if self.options {
            columns.push(("Timer", false));
        }
        if self.extended {
            columns.push(("Extended", false));
        }
        let mut table = Table::new(&columns);
        for row in rows {
            let socket = &row.socket;
            let mut cells = vec![
                socket.state.name().to_owned(),
                socket.recv_q.to_string(),
                socket.send_q.to_string(),
                address(socket.local, row.v6only),
                address(socket.remote, row.v6only),
            ];
            if self.processes {
                cells.push(row.owner.as_ref().map_or_else(|| "-".to_owned(), owner));
            }
            if self.options {
                cells.push(socket.timer.map_or_else(|| "-".to_owned(), timer));
            }
            if self.extended {
                cells.push(extended(row));
            }
            let mut details = Vec::new();
            if self.memory
                && let Some(m) = row.memory
            {
                details.push(format!(
                    "skmem:(r{},rb{},t{},tb{},f{},w{},o{},bl{},d{})",
                    m.rmem_alloc,
                    m.rcvbuf,
                    m.wmem_alloc,
                    m.sndbuf,
                    m.fwd_alloc,
                    m.wmem_queued,
                    m.optmem,
                    m.backlog,
                    m.drops
                ));
            }
            if self.info
                && let Some(found) = socket.info.as_deref()
            {
                details.push(info(found, row.congestion.as_deref()));
            }
            if !details.is_empty() {
                table.push_with_detail(cells, details.join(" "));
            } else {
                table.push(cells);
            }
        }
        table.write(out, !self.no_header)
    }
}

fn keys(names: &[String]) -> Result<Vec<Key>, Failure> {
    names
        .iter()
        .map(|name| {
            Key::by_name(name).ok_or_else(|| {
                Failure::new(
                    format!("cannot group by `{name}`"),
                    "the keys are state, peer, process, sport, dport, timer, netns",
                    "--group-by state,peer",
                )
            })
        })
        .collect()
}

/// An address as `ss` writes it: a port 0 and an unspecified dual-stack address are `*`.
pub(crate) fn address(address: SocketAddr, v6only: bool) -> String {
    let port = if address.port() == 0 { "*".to_owned() } else { address.port().to_string() };
    match address.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() && !v6only => format!("*:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
        IpAddr::V4(ip) => format!("{ip}:{port}"),
    }
}

/// `nginx/71,fd=12`, `nginx/71 (former, by port)`.
pub(crate) fn owner(owner: &Owner) -> String {
    let mut text = owner.comm.to_string();
    if let Some(pid) = owner.pid {
        text.push_str(&format!("/{pid}"));
    }
    if let Some(fd) = owner.fd {
        text.push_str(&format!(",fd={fd}"));
    }
    let how = match owner.how {
        OwnerHow::Descriptor => None,
        OwnerHow::Recorded => Some("recorded"),
        OwnerHow::Cgroup => Some("by cgroup"),
        OwnerHow::Listener => Some("by port"),
    };
    match (owner.former, how) {
        (true, Some(how)) => text.push_str(&format!(" (former, {how})")),
        (true, None) => text.push_str(" (former)"),
        (false, Some(how)) => text.push_str(&format!(" ({how})")),
        (false, None) => {}
    }
    text
}

/// `persist,8.1s,5`: which timer, when, after how many repeats.
pub(crate) fn timer(timer: TimerRow) -> String {
    format!("{},{},{}", timer.kind.name(), words::duration(timer.expires_ms.into()), timer.retrans)
}

fn extended(row: &Row) -> String {
    let mut parts = Vec::new();
    if let Some(uid) = row.uid {
        parts.push(format!("uid:{uid}"));
    }
    parts.push(format!("ino:{} sk:{:x}", row.inode, row.socket.cookie));
    if let Some(cgroup) = row.cgroup {
        parts.push(format!("cgroup:{cgroup}"));
    }
    if row.interface != 0 {
        parts.push(format!("dev:{}", row.interface));
    }
    if let Some(mark) = row.mark.filter(|mark| *mark != 0) {
        parts.push(format!("fwmark:{mark:#x}"));
    }
    if row.socket.orphan {
        parts.push("orphan".to_owned());
    } else if row.is_unaccepted() {
        parts.push("unaccepted".to_owned());
    }
    if let Some(age) = row.condition_age_ms() {
        let sign = if row.socket.state_age_ms.is_some() { "" } else { ">=" };
        parts.push(format!("age:{sign}{}", words::duration(age)));
    }
    // ss's arrows: which directions are shut.
    match row.shutdown {
        Some(0) => parts.push("<->".to_owned()),
        Some(1) => parts.push("-->".to_owned()),
        Some(2) => parts.push("<--".to_owned()),
        Some(3) => parts.push("---".to_owned()),
        _ => {}
    }
    parts.join(" ")
}

/// Words of a line; a number that is zero is left out.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn push(&mut self, word: String) {
        self.0.push(word);
    }

    fn number(&mut self, name: &str, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.0.push(format!("{name}:{value}"));
        }
    }
}

/// `ss -i`'s words, with the unit in the name where `ss` leaves it out.
fn info(info: &TcpInfo, congestion: Option<&str>) -> String {
    let mut words = Words::default();
    for (bit, name) in [(1, "ts"), (2, "sack"), (8, "ecn"), (16, "ecnseen"), (32, "fastopen")] {
        if info.options & bit != 0 {
            words.push(name.to_owned());
        }
    }
    words.0.extend(congestion.map(str::to_owned));
    if info.options & 4 != 0 {
        words.push(format!("wscale:{},{}", info.snd_wscale, info.rcv_wscale));
    }
    let ms = |us: u32| format!("{}.{:03}", us / 1000, us % 1000);
    words.number("rto", info.rto / 1000);
    words.number("backoff", info.backoff);
    if info.rtt != 0 {
        words.push(format!("rtt:{}/{}", ms(info.rtt), ms(info.rttvar)));
    }
    words.number("ato", info.ato / 1000);
    words.number("mss", info.snd_mss);
    words.number("pmtu", info.pmtu);
    words.number("rcvmss", info.rcv_mss);
    words.number("advmss", info.advmss);
    words.number("cwnd", info.snd_cwnd);
    if info.snd_ssthresh < 0x7fff_ffff {
        words.number("ssthresh", info.snd_ssthresh);
    }
    words.number("bytes_sent", info.bytes_sent);
    words.number("bytes_retrans", info.bytes_retrans);
    words.number("bytes_acked", info.bytes_acked);
    words.number("bytes_received", info.bytes_received);
    words.number("segs_out", info.segs_out);
    words.number("segs_in", info.segs_in);
    words.number("data_segs_out", info.data_segs_out);
    words.number("data_segs_in", info.data_segs_in);
    words.number("lastsnd", info.last_data_sent);
    words.number("lastrcv", info.last_data_recv);
    words.number("lastack", info.last_ack_recv);
    words.number("delivery_rate", info.delivery_rate);
    words.number("delivered", info.delivered);
    words.number("busy_us", info.busy_time);
    words.number("rwnd_limited_us", info.rwnd_limited);
    words.number("sndbuf_limited_us", info.sndbuf_limited);
    words.number("unacked", info.unacked);
    if info.retrans != 0 || info.total_retrans != 0 {
        words.push(format!("retrans:{}/{}", info.retrans, info.total_retrans));
    }
    words.number("lost", info.lost);
    words.number("sacked", info.sacked);
    words.number("dsack_dups", info.dsack_dups);
    if info.reordering != 3 {
        words.number("reordering", info.reordering);
    }
    words.number("reord_seen", info.reord_seen);
    words.number("rcv_rtt_us", info.rcv_rtt);
    words.number("rcv_space", info.rcv_space);
    words.number("rcv_ssthresh", info.rcv_ssthresh);
    words.number("notsent", info.notsent_bytes);
    if info.min_rtt != u32::MAX && info.min_rtt != 0 {
        words.push(format!("minrtt:{}", ms(info.min_rtt)));
    }
    words.number("rcv_ooopack", info.rcv_ooopack);
    // A closed window is news: it is said even though it is zero.
    words.push(format!("snd_wnd:{} rcv_wnd:{}", info.snd_wnd, info.rcv_wnd));
    if info.total_rto != 0 {
        words.push(format!("rtos:{} ({}ms)", info.total_rto, info.total_rto_time));
    }
    words.0.join(" ")
}

fn summary(snapshot: &Snapshot, as_json: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut groups = group::by(&snapshot.rows, &[Key::State]);
    groups.sort_by_key(|group| {
        TcpState::ALL.iter().position(|state| state.name() == group.values[0]).unwrap_or(usize::MAX)
    });
    let namespaces = &snapshot.namespaces;
    let inuse: u64 = namespaces.iter().map(|namespace| namespace.inuse).sum();
    let timewait: u64 = namespaces.iter().map(|namespace| namespace.timewait).sum();
    let host = snapshot.host;
    if as_json {
        let states: serde_json::Map<String, serde_json::Value> =
            groups.iter().map(|group| (group.values[0].clone(), json!(group.count))).collect();
        let document = json!({
            "schema": json::SCHEMA, "source": snapshot.source, "taken_ns": snapshot.taken_ns,
            "total": snapshot.rows.len(), "states": states,
            "inuse": inuse, "timewait_minis": timewait,
            "host": {"orphans": host.orphans, "allocated": host.allocated, "memory_pages": host.memory_pages},
        });
        return writeln!(out, "{document}");
    }
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
    table.push(vec![
        "total".to_owned(),
        snapshot.rows.len().to_string(),
        String::new(),
        String::new(),
        String::new(),
    ]);
    table.write(out, true)?;
    writeln!(
        out,
        "\nin use {inuse}, mini sockets {timewait} (TIME-WAIT and orphaned FIN-WAIT-2)\n\
         whole host: orphans {}, allocated {}, TCP memory {}",
        host.orphans,
        host.allocated,
        words::bytes(host.memory_pages * host.page_size)
    )
}

fn figures(group: &group::Group) -> Vec<String> {
    let mut cells = group.values.clone();
    cells.push(group.count.to_string());
    cells.push(group.oldest_ms.map_or_else(|| "-".to_owned(), words::duration));
    cells.push(group.recv_q.to_string());
    cells.push(group.send_q.to_string());
    cells
}

fn groups(
    snapshot: &Snapshot,
    keys: &[Key],
    no_header: bool,
    as_json: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let groups = group::by(&snapshot.rows, keys);
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
            "schema": json::SCHEMA, "source": snapshot.source, "taken_ns": snapshot.taken_ns, "groups": list,
        });
        return writeln!(out, "{document}");
    }
    let mut columns: Vec<(&'static str, bool)> = keys.iter().map(|key| (key.name(), false)).collect();
    columns.extend([("count", true), ("oldest", true), ("recv-q", true), ("send-q", true)]);
    let mut table = Table::new(&columns);
    for group in &groups {
        table.push(figures(group));
    }
    table.write(out, !no_header)
}
