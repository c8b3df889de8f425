//! Tracepoints through perf: state changes, resets with reasons, retransmits, drops, of the whole host.
//!
//! Owns:    a ring for each processor and the formats that read them.
//! Output:  [`Event`]s in order of time; how many were lost; or mere counts ([`Counting`]).
//! Rules:   `linux-tcp` 10.4. Tracepoints see every network namespace. The process shown by the kernel is
//!          whoever ran: it is taken over only where it is the one that acted.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lastack_core::tcp::state::TcpState;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::commands::{Commands, Told};
use super::descriptors::Room;
use super::tracefs::{self, Format};
use super::{netlink::u32_at, netlink::u64_at};
use crate::clock;
use crate::sys::{Mode, Perf, Ring};
use crate::trace::Event;

/// Sockets whose owner is remembered at most.
const MOST_OWNERS: usize = 1 << 20;
/// Rings that can end a wait when they fill.
const MOST_POLLED: usize = 256;
const RECORD_LOST: u32 = 2;
const RECORD_COMM: u32 = 3;
const RECORD_FORK: u32 = 7;
const RECORD_SAMPLE: u32 = 9;

/// Which events to listen to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TraceOptions {
    /// Dropped packets with their reasons, too (`skb:kfree_skb`, IP packets only).
    pub drops: bool,
    /// The kernel's call stack of each event.
    pub stacks: bool,
    /// New processes, too ([`Event::FORK`]).
    pub forks: bool,
    /// The end of each socket with its cookie, too ([`Event::DESTROYED`]).
    pub ends: bool,
}

/// What a life is made of: state changes, resets, repeats, ends and errors.
const LIFE: [&str; 6] = [
    "sock/inet_sock_set_state",
    "tcp/tcp_send_reset",
    "tcp/tcp_receive_reset",
    "tcp/tcp_retransmit_skb",
    "tcp/tcp_retransmit_synack",
    "sock/inet_sk_error_report",
];
const DROPS: &str = "skb/kfree_skb";
const ENDS: &str = "tcp/tcp_destroy_sock";

/// An open trace.
#[derive(Debug)]
pub struct Tracer {
    rings: Vec<Ring>,
    /// The last socket that each of the rings told of.
    told: Vec<Option<(Ends, u64)>>,
    /// Those that write into another's ring: open for as long as it.
    others: Vec<Perf>,
    formats: BTreeMap<u64, (&'static str, Format)>,
    stacks: bool,
    forks: bool,
    symbols: Option<Symbols>,
    commands: Commands,
    owners: Owners,
    /// Read already, but newer than what every ring has been read up to.
    early: Vec<(u64, Record)>,
    lost: u64,
    /// Unix time less monotonic time, nanoseconds.
    epoch_ns: u64,
}

impl Tracer {
    /// Opens the tracepoints on every processor.
    ///
    /// # Errors
    /// `PermissionDenied` without root or `CAP_PERFMON`; `NotFound` without tracefs; `QuotaExceeded` where this process may
    /// not have as many descriptors as that takes.
    pub fn open(options: TraceOptions) -> io::Result<Self> {
        let mut wanted: Vec<String> = LIFE.iter().map(|name| (*name).to_owned()).collect();
        if options.drops {
            wanted.push(DROPS.to_owned());
        }
        if options.ends {
            wanted.push(ENDS.to_owned());
        }
        let found = tracefs::formats(&wanted)?;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "this kernel has no TCP tracepoints"));
        }
        let mut this = Self {
            rings: Vec::new(),
            told: Vec::new(),
            others: Vec::new(),
            formats: BTreeMap::new(),
            stacks: options.stacks,
            forks: options.forks,
            symbols: options.stacks.then(Symbols::read),
            commands: Commands::default(),
            owners: Owners::default(),
            early: Vec::new(),
            lost: 0,
            epoch_ns: clock::unix_ns().saturating_sub(clock::monotonic_ns()),
        };
        let cpus = cpus();
        let room = Room::make(found.len(), cpus.len())?;
        for cpu in cpus {
            let mut ring: Option<Ring> = None;
            for (path, format) in &found {
                // One for each ring tells of names; the others would say it again.
                let mode = Mode::Sample { stacks: options.stacks, names: ring.is_none() };
                let perf = open(format.id, cpu, mode, &room)?;
                match &ring {
                    None => {
                        let first = Ring::new(perf)?;
                        if let Some(filter) = filter_of(path) {
                            first.set_filter(filter)?;
                        }
                        ring = Some(first);
                    }
                    Some(ring) => {
                        if let Some(filter) = filter_of(path) {
                            perf.set_filter(filter)?;
                        }
                        perf.write_into(ring)?;
                        this.others.push(perf);
                    }
                }
            }
            this.rings.extend(ring);
        }
        for (path, format) in found {
            this.formats.insert(format.id, (name_of(&path), format));
        }
        this.told.resize(this.rings.len(), None);
        for ring in &this.rings {
            ring.enable()?;
        }
        for perf in &this.others {
            perf.enable()?;
        }
        Ok(this)
    }

    /// Waits at most `timeout` and hands the events so far to `each`, in order of time.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn wait(&mut self, timeout: Duration, each: &mut dyn FnMut(Event)) -> io::Result<usize> {
        let timespec = Timespec::try_from(timeout).ok();
        // poll(2) takes no more than the limit of descriptors; the rings of the others are read all the same.
        let rings = self.rings.iter().take(MOST_POLLED);
        let mut fds: Vec<PollFd<'_>> =
            rings.map(|ring| PollFd::from_borrowed_fd(ring.as_fd(), PollFlags::IN)).collect();
        match poll(&mut fds, timespec.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // A ring that is read later may have older records than one that is read now: what is newer than this waits.
        let complete_ns = clock::monotonic_ns();
        let Self {
            rings,
            told,
            formats,
            stacks,
            forks,
            symbols,
            commands,
            owners,
            early,
            lost,
            epoch_ns,
            ..
        } = self;
        let mut records = std::mem::take(early);
        for (ring, told) in rings.iter_mut().zip(told) {
            ring.drain(&mut |kind, body| match kind {
                RECORD_SAMPLE => {
                    let mut event = decode(body, formats, *stacks, symbols.as_ref(), *epoch_ns);
                    if let Some(event) = &mut event {
                        name_socket(event, told);
                    }
                    records.extend(u64_at(body, 8).zip(event.map(Record::Event)));
                }
                RECORD_LOST => *lost += u64_at(body, 8).unwrap_or(0),
                RECORD_COMM => records.extend(time_of(body).zip(Told::of_comm(body).map(Record::Told))),
                RECORD_FORK => records.extend(time_of(body).zip(Told::of_fork(body).map(Record::Told))),
                _ => {}
            });
        }
        records.sort_by_key(|(at_ns, _)| *at_ns);
        *early = records.split_off(records.partition_point(|(at_ns, _)| *at_ns <= complete_ns));
        let mut count = 0;
        for (at_ns, record) in records {
            match record {
                Record::Told(told) => {
                    if let Told::Forked { pid, parent } = told
                        && *forks
                    {
                        let event = Event::new(at_ns.wrapping_add(*epoch_ns), Event::FORK);
                        count += 1;
                        each(Event { pid: Some(parent), child: Some(pid), ..event });
                    }
                    commands.take(told);
                }
                Record::Event(mut event) => {
                    event.comm = event.pid.and_then(|pid| commands.of(pid));
                    owners.attribute(&mut event);
                    count += 1;
                    each(*event);
                }
            }
        }
        Ok(count)
    }

    /// The events that are read, in perf's way of naming them (`tcp:tcp_send_reset`).
    pub fn names(&self) -> Vec<String> {
        let known = LIFE.iter().chain([&DROPS, &ENDS]);
        let read = |path: &&&str| self.formats.values().any(|(name, _)| *name == name_of(path));
        known.filter(read).map(|path| path.replace('/', ":")).collect()
    }

    /// Events that did not fit into a ring.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// Who last acted on which socket, from its first act to the socket's end: what packets make happen to it later is nobody's
/// act, but somebody's connection.
#[derive(Debug, Default)]
struct Owners(HashMap<u64, (u32, Arc<str>)>);

impl Owners {
    fn attribute(&mut self, event: &mut Event) {
        let Some(socket) = event.socket else { return };
        // An address that is used again, whose end was lost: this is another connection.
        if event.state == Some(TcpState::SynRecv) && event.old_state.is_some() {
            self.0.remove(&socket);
        }
        if let (Some(pid), Some(comm)) = (event.pid, &event.comm)
            && (self.0.len() < MOST_OWNERS || self.0.contains_key(&socket))
        {
            self.0.insert(socket, (pid, Arc::clone(comm)));
        }
        event.owner = self.0.get(&socket).cloned();
        if event.state == Some(TcpState::Close) && event.old_state.is_some() {
            self.0.remove(&socket);
        }
    }
}

/// Both ends of an event, as they are told.
type Ends = (Option<SocketAddr>, Option<SocketAddr>);

/// An error does not name its socket. Linux: tcp_done_with_error() reports it when it has changed the state, on the same
/// processor, and nothing of the network comes in between.
fn name_socket(event: &mut Event, told: &mut Option<(Ends, u64)>) {
    let ends = (event.local, event.peer);
    match event.socket {
        Some(socket) => *told = Some((ends, socket)),
        None if event.name == "inet_sk_error_report" => {
            event.socket = told.filter(|(before, _)| *before == ends).map(|(_, socket)| socket);
        }
        None => {}
    }
}

/// What one record of a ring says.
#[derive(Debug)]
enum Record {
    Event(Box<Event>),
    Told(Told),
}

/// The time at the end of every record that is not a sample (`sample_id_all`: TID, TIME).
fn time_of(body: &[u8]) -> Option<u64> {
    u64_at(body, body.len().checked_sub(8)?)
}

/// Counts of events on the whole host, as `perf stat` counts them.
#[derive(Debug)]
pub struct Counting {
    counters: Vec<(String, Vec<Perf>)>,
}

impl Counting {
    /// Begins to count every `tcp:*` event and `sock:inet_sock_set_state`.
    ///
    /// # Errors
    /// As [`Tracer::open`].
    pub fn open() -> io::Result<Self> {
        let mut wanted = tracefs::names_of("tcp")?;
        wanted.push(LIFE[0].to_owned());
        let mut counters = Vec::new();
        let (found, cpus) = (tracefs::formats(&wanted)?, cpus());
        let room = Room::make(found.len(), cpus.len())?;
        for (path, format) in found {
            let perfs = cpus
                .iter()
                .copied()
                .map(|cpu| open(format.id, cpu, Mode::Count, &room))
                .collect::<io::Result<_>>()?;
            counters.push((path.replace('/', ":"), perfs));
        }
        let this = Self { counters };
        for perf in this.counters.iter().flat_map(|(_, perfs)| perfs) {
            perf.enable()?;
        }
        Ok(this)
    }

    /// Event names with how often they have happened since.
    ///
    /// # Errors
    /// When a counter cannot be read.
    pub fn read(&self) -> io::Result<Vec<(String, u64)>> {
        self.counters
            .iter()
            .map(|(name, perfs)| {
                let count = perfs.iter().map(Perf::read_count).sum::<io::Result<u64>>()?;
                Ok((name.clone(), count))
            })
            .collect()
    }
}

fn open(id: u64, cpu: u32, mode: Mode, room: &Room) -> io::Result<Perf> {
    let perf = Perf::open(id, cpu, mode)?;
    match room.place() {
        Some(place) => perf.moved_to(place),
        None => Ok(perf),
    }
}

/// Processors that are switched on.
fn cpus() -> Vec<u32> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_else(|_| "0".to_owned());
    text.trim()
        .split(',')
        .flat_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: u32 = first.parse().unwrap_or(0);
            first..=last.parse().unwrap_or(first)
        })
        .collect()
}

/// What the kernel may drop before it writes a record.
fn filter_of(path: &str) -> Option<&'static str> {
    match path {
        "sock/inet_sock_set_state" | "sock/inet_sk_error_report" => Some("protocol == 6"),
        // IPv4 and IPv6; 2 is "no reason given", which is how every consumed packet ends.
        DROPS => Some("reason > 2 && (protocol == 0x800 || protocol == 0x86dd)"),
        _ => None,
    }
}

fn name_of(path: &str) -> &'static str {
    LIFE.iter()
        .chain([&DROPS, &ENDS])
        .find(|known| **known == path)
        .and_then(|known| known.split('/').nth(1))
        .unwrap_or("?")
}

/// A sample: TID, TIME, CALLCHAIN where asked for, RAW.
fn decode(
    body: &[u8],
    formats: &BTreeMap<u64, (&'static str, Format)>,
    stacks: bool,
    symbols: Option<&Symbols>,
    epoch_ns: u64,
) -> Option<Box<Event>> {
    let pid = u32_at(body, 0)?;
    let at_ns = u64_at(body, 8)?.wrapping_add(epoch_ns);
    let mut at = 16;
    let mut stack = Vec::new();
    if stacks {
        let count = usize::try_from(u64_at(body, at)?).ok()?;
        at += 8;
        for index in 0..count {
            // Addresses near the top are marks ("kernel", "user"), not addresses.
            let address = u64_at(body, at + index * 8)?;
            if address < u64::MAX - 4096 {
                stack.extend(symbols.map(|symbols| symbols.name(address)));
            }
        }
        at += count * 8;
    }
    let length = usize::try_from(u32_at(body, at)?).ok()?;
    let record = body.get(at + 4..at + 4 + length)?;
    let id = u64::from(super::netlink::u16_at(record, 0)?);
    let (name, format) = formats.get(&id)?;
    let mut event = Event { stack, ..Event::new(at_ns, name) };
    fill(&mut event, format, record, pid);
    Some(Box::new(event))
}

fn fill(event: &mut Event, format: &Format, record: &[u8], pid: u32) {
    let state =
        |name| format.number(record, name).and_then(|n| u8::try_from(n).ok()).and_then(TcpState::from_number);
    if event.name == "tcp_send_reset" {
        (event.local, event.peer) = (sockaddr(format, record, "saddr"), sockaddr(format, record, "daddr"));
    } else if format.has("sport") {
        (event.local, event.peer) = (end(format, record, "s"), end(format, record, "d"));
    }
    event.socket = format.number(record, "skaddr").filter(|address| *address != 0);
    event.cookie = format.number(record, "sock_cookie").filter(|cookie| *cookie != 0);
    event.reason = format.symbol(record, "reason");
    event.state = state("newstate").or_else(|| state("state"));
    event.old_state = state("oldstate");
    let signed = |name| format.number(record, name).map(|n| (n as u32).cast_signed());
    event.error = signed("error").or_else(|| signed("err")).filter(|error| *error != 0).map(i32::abs);
    if acted(event) && pid != 0 {
        event.pid = Some(pid);
    }
}

/// Changes that only a program's own call makes.
fn acted(event: &Event) -> bool {
    matches!(
        (event.old_state, event.state),
        (Some(TcpState::Close), Some(TcpState::SynSent | TcpState::Listen))
            | (Some(TcpState::Established), Some(TcpState::FinWait1))
            | (Some(TcpState::CloseWait), Some(TcpState::LastAck))
            | (Some(TcpState::Listen), Some(TcpState::Close))
    )
}

/// `sport`, `saddr`, `saddr_v6`.
fn end(format: &Format, record: &[u8], side: &str) -> Option<SocketAddr> {
    let port = u16::try_from(format.number(record, &format!("{side}port"))?).ok()?;
    let ip = if format.number(record, "family")? == 10 {
        let octets: [u8; 16] = format.bytes(record, &format!("{side}addr_v6"))?.try_into().ok()?;
        IpAddr::V6(Ipv6Addr::from(octets))
    } else {
        let octets: [u8; 4] = format.bytes(record, &format!("{side}addr"))?.try_into().ok()?;
        IpAddr::V4(Ipv4Addr::from(octets))
    };
    Some(SocketAddr::new(ip, port))
}

/// A `struct sockaddr_in6` that may hold a `sockaddr_in`.
fn sockaddr(format: &Format, record: &[u8], name: &str) -> Option<SocketAddr> {
    let bytes = format.bytes(record, name)?;
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) {
        2 => {
            let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(octets)), port))
        }
        10 => {
            let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), port))
        }
        _ => None,
    }
}

/// The kernel's functions by address.
#[derive(Debug)]
struct Symbols(Vec<(u64, Arc<str>)>);

impl Symbols {
    fn read() -> Self {
        let text = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        let mut all: Vec<(u64, Arc<str>)> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let address = u64::from_str_radix(words.next()?, 16).ok().filter(|address| *address != 0)?;
                let kind = words.next()?;
                matches!(kind, "t" | "T" | "w" | "W").then_some(())?;
                Some((address, words.next()?.into()))
            })
            .collect();
        all.sort_unstable();
        Self(all)
    }

    fn name(&self, address: u64) -> String {
        let index = self.0.partition_point(|(start, _)| *start <= address);
        match index.checked_sub(1).and_then(|index| self.0.get(index)) {
            Some((start, name)) => format!("{name}+{:#x}", address - start),
            None => format!("{address:#x}"),
        }
    }
}
