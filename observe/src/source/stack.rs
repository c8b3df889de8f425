//! A running lastack as a source, over its control socket.
//!
//! Owns:    one connection to the socket; the server's name, process and clock.
//! Output:  [`Snapshot`]s, [`Event`]s; sockets ended and settings written.
//! Rules:   [`lastack_core::observe::control`]. The directory must be ours and nobody else's to write.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lastack_core::observe::control::{self, Reply, Request};
use lastack_core::observe::{self, EventKind, EventMask, Gauges, SocketRow, TimerKind};
use lastack_core::tcp::state::TcpState;

use crate::filter::Filter;
use crate::row::Row;
use crate::snapshot::{HostGauges, Namespace, Snapshot};
use crate::trace::Event;

/// The unit of `tcp_mem`.
const PAGE: u64 = 4096;
/// A server answers at once; this long without an answer is a fault.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest line a server may send.
const LINE_LIMIT: u64 = 1 << 20;
/// Settings that rules and predictions read.
pub const SETTINGS: &[&str] = &[
    "tcp_fin_timeout",
    "tcp_orphan_retries",
    "tcp_retries2",
    "tcp_syn_retries",
    "tcp_syn_linear_timeouts",
    "tcp_synack_retries",
    "tcp_max_tw_buckets",
    "tcp_max_orphans",
    "tcp_max_syn_backlog",
    "tcp_mem",
    "tcp_syncookies",
    "tcp_tw_reuse",
    "tcp_tw_reuse_delay",
    "tcp_timestamps",
    "tcp_keepalive_time",
    "tcp_keepalive_intvl",
    "tcp_keepalive_probes",
    "tcp_abort_on_overflow",
    "tcp_rto_max_ms",
    "tcp_timewait_len",
    "ip_local_port_range",
];

/// A connection to a running lastack.
#[derive(Debug)]
pub struct Stack {
    stream: BufReader<UnixStream>,
    name: String,
    pid: u32,
}

impl Stack {
    /// Connects to the stack called `name`, or run by the process of that number.
    ///
    /// # Errors
    /// `NotFound` when there is none, with the names there are; `PermissionDenied` when the directory or the
    /// stack is another user's; `InvalidData` when the server speaks another protocol.
    pub fn open(name: &str) -> io::Result<Self> {
        let directory = directory()?;
        if let Some(file) = control::file_name(name)
            && let Ok(stack) = Self::connect(&directory.join(file))
        {
            return Ok(stack);
        }
        let mut running = Self::all_in(&directory)?;
        if let Some(at) = running.iter().position(|stack| name.parse() == Ok(stack.pid)) {
            return Ok(running.swap_remove(at));
        }
        let names: Vec<&str> = running.iter().map(Self::name).collect();
        let known = if names.is_empty() {
            "none runs".to_owned()
        } else {
            format!("those that run: {}", names.join(" "))
        };
        Err(io::Error::new(io::ErrorKind::NotFound, known))
    }

    /// Every one of this user that runs, by name.
    ///
    /// # Errors
    /// `PermissionDenied` when the directory of control sockets is somebody else's.
    pub fn running() -> io::Result<Vec<Self>> {
        match directory() {
            Ok(directory) => Self::all_in(&directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn all_in(directory: &Path) -> io::Result<Vec<Self>> {
        let sockets = fs::read_dir(directory)?.flatten().map(|entry| entry.path());
        let sockets = sockets.filter(|path| path.extension().is_some_and(|extension| extension == "sock"));
        // A socket nobody serves any more refuses the connection.
        let mut running: Vec<Self> = sockets.filter_map(|path| Self::connect(&path).ok()).collect();
        running.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(running)
    }

    fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut this = Self { stream: BufReader::new(stream), name: String::new(), pid: 0 };
        match this.reply()? {
            Reply::Hello { protocol: control::PROTOCOL, name, pid, .. } => {
                (this.name, this.pid) = (name, pid);
                Ok(this)
            }
            _ => Err(invalid("the server speaks another protocol; use the same version of lastack")),
        }
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Everything the stack knows; sockets that `filter` chooses.
    ///
    /// # Errors
    /// When the server goes away.
    pub fn snapshot(&mut self, filter: &Filter) -> io::Result<Snapshot> {
        let mut rows = Vec::new();
        self.ask(&Request::Sockets, &mut |reply| {
            if let Reply::Socket(socket) = reply {
                rows.push(row(*socket));
            }
        })?;
        let mut space = Namespace { name: self.name.clone(), ..Namespace::default() };
        let mut gauges = Gauges::default();
        self.ask(&Request::Counters, &mut |reply| match reply {
            Reply::Counter { group, name, value }
                if matches!(group.as_str(), "Tcp" | "TcpExt" | "Lastack") =>
            {
                space.counters.insert(name, value);
            }
            Reply::Gauges(now) => gauges = now,
            _ => {}
        })?;
        for name in SETTINGS {
            if let Ok(value) = self.sysctl(name, None) {
                // As the kernel's are kept: Linux puts tabs between numbers.
                let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
                space.sysctls.insert((*name).to_owned(), value);
            }
        }
        let mut snapshot = whole(self.name.clone(), crate::clock::unix_ns(), rows, space, gauges);
        snapshot.rows.retain(|row| filter.matches(row));
        Ok(snapshot)
    }

    /// Ends one socket.
    ///
    /// # Errors
    /// `NotFound` when it has gone already.
    pub fn destroy(&mut self, cookie: u64) -> io::Result<()> {
        self.ask(&Request::Kill { cookie }, &mut |_| {})
    }

    /// Reads a setting, or writes it.
    ///
    /// # Errors
    /// `NotFound` for a setting the stack does not have, `InvalidInput` for a value it does not take.
    pub fn sysctl(&mut self, name: &str, value: Option<&str>) -> io::Result<String> {
        let request = Request::Sysctl { name: name.to_owned(), value: value.map(str::to_owned) };
        let mut answer = None;
        self.ask(&request, &mut |reply| {
            if let Reply::Sysctl { value, .. } = reply {
                answer = Some(value);
            }
        })?;
        answer.ok_or_else(|| invalid("the server gave no value"))
    }

    /// The ports of the host that lead to the program behind the stack, as [`Reply::Published`].
    ///
    /// # Errors
    /// `Unsupported`: the stack publishes none, as it has no program behind it.
    pub fn published(&mut self) -> io::Result<Vec<Reply>> {
        self.collect(&Request::Published)
    }

    /// Publishes a port, `[ADDR:]HOST:INSIDE[/udp]`; gives it as it is now.
    ///
    /// # Errors
    /// `AddrInUse`, `PermissionDenied`, `AddrNotAvailable`, `AlreadyExists`: the host's port cannot be had.
    pub fn publish(&mut self, port: &str) -> io::Result<Vec<Reply>> {
        self.collect(&Request::Publish { port: port.to_owned() })
    }

    /// Takes a port back, `[ADDR:]HOST[/udp]`.
    ///
    /// # Errors
    /// `NotFound`: it is not published.
    pub fn unpublish(&mut self, port: &str) -> io::Result<()> {
        self.ask(&Request::Unpublish { port: port.to_owned() }, &mut |_| {})
    }

    fn collect(&mut self, request: &Request) -> io::Result<Vec<Reply>> {
        let mut replies = Vec::new();
        self.ask(request, &mut |reply| replies.push(reply))?;
        Ok(replies)
    }

    /// Turns the connection into a stream of the events that `mask` chooses.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn into_events(mut self, mask: EventMask) -> io::Result<StackEvents> {
        self.ask(&Request::Events { mask }, &mut |_| {})?;
        Ok(StackEvents { stack: self, partial: Vec::new(), lost: 0 })
    }

    fn ask(&mut self, request: &Request, each: &mut dyn FnMut(Reply)) -> io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        loop {
            match self.reply()? {
                Reply::End => return Ok(()),
                Reply::Error { message, errno } => {
                    let kind = io::Error::from_raw_os_error(errno).kind();
                    return Err(io::Error::new(kind, Refusal { message, errno }));
                }
                reply @ (Reply::Killed { .. } | Reply::Sysctl { .. }) => {
                    each(reply);
                    return Ok(());
                }
                reply => each(reply),
            }
        }
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        let length =
            self.stream.by_ref().take(LINE_LIMIT).read_line(&mut line).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(
                        io::ErrorKind::TimedOut,
                        "it has not answered for ten seconds: is it stopped?",
                    ),
                    _ => error,
                }
            })?;
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stack has ended"));
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// What a stack that refuses says: the payload of the error that this becomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    message: String,
    errno: i32,
}

impl Refusal {
    /// The errno in `error`, if a stack has refused; else 0.
    pub fn errno(error: &io::Error) -> i32 {
        let refusal = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>());
        refusal.map_or(0, |refusal| refusal.errno)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// Events of a stack, as they happen.
#[derive(Debug)]
pub struct StackEvents {
    stack: Stack,
    partial: Vec<u8>,
    lost: u64,
}

impl StackEvents {
    /// Waits at most `timeout` and hands what came to `each`; false when the stack has ended.
    ///
    /// # Errors
    /// When reading fails.
    pub fn wait(&mut self, timeout: Duration, each: &mut dyn FnMut(Event)) -> io::Result<bool> {
        self.wait_raw(timeout, &mut |event| each(event_of(&event)))
    }

    /// As [`StackEvents::wait`], with all that the stack says of each.
    pub(crate) fn wait_raw(
        &mut self,
        timeout: Duration,
        each: &mut dyn FnMut(observe::Event),
    ) -> io::Result<bool> {
        self.stack.stream.get_ref().set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        loop {
            // A line may come in pieces: what is there of it is kept.
            let room = LINE_LIMIT.saturating_sub(self.partial.len() as u64);
            match self.stack.stream.by_ref().take(room).read_until(b'\n', &mut self.partial) {
                Ok(_) if self.partial.ends_with(b"\n") => {
                    match serde_json::from_slice(&self.partial)? {
                        Reply::Event(event) => each(*event),
                        Reply::Lost { count } => self.lost += count,
                        _ => {}
                    }
                    self.partial.clear();
                    // However fast they come: what has not been read yet is for the next time.
                    if !self.stack.stream.buffer().contains(&b'\n') {
                        return Ok(true);
                    }
                }
                Ok(_) if self.partial.len() as u64 >= LINE_LIMIT => {
                    return Err(invalid("a line of the server is too long"));
                }
                Ok(_) => return Ok(false),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) =>
                {
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Events that were not told.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl Drop for StackEvents {
    fn drop(&mut self) {
        let _ = self.stack.stream.get_ref().shutdown(Shutdown::Both);
    }
}

/// Where the control sockets are; somebody else's directory is not trusted.
fn directory() -> io::Result<PathBuf> {
    let runtime =
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|directory| directory.is_dir());
    let uid = rustix::process::geteuid().as_raw();
    let directory = control::directory(runtime.as_deref(), uid);
    let found = fs::symlink_metadata(&directory).map_err(|error| {
        io::Error::new(error.kind(), "none runs (there is no directory of control sockets)")
    })?;
    let trusted = found.is_dir() && found.uid() == uid && found.mode() & 0o022 == 0;
    if !trusted {
        let message = format!("{} is not a directory of yours alone", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(directory)
}

/// A snapshot of a stack: all its rows, its counters and settings, and what it has in use.
pub fn whole(
    source: String,
    taken_ns: u64,
    rows: Vec<Row>,
    mut space: Namespace,
    gauges: Gauges,
) -> Snapshot {
    space.timewait = rows.iter().filter(|row| row.uid.is_none()).count() as u64;
    space.inuse = rows.len() as u64 - space.timewait;
    let host = HostGauges {
        orphans: gauges.orphans,
        allocated: space.inuse,
        memory_pages: gauges.queued_bytes.div_ceil(PAGE),
        page_size: PAGE,
    };
    Snapshot { source, taken_ns, rows, namespaces: vec![space], host, missing: Vec::new() }
}

/// A row of a stack's table: what only a kernel has is absent.
pub fn row(socket: SocketRow) -> Row {
    let record = matches!(socket.state, TcpState::TimeWait | TcpState::NewSynRecv)
        || socket.timer.is_some_and(|timer| timer.kind == TimerKind::TimeWait);
    Row { uid: (!record).then_some(0), ..Row::from(socket) }
}

/// An event of a stack's, in the words of a trace.
pub(crate) fn event_of(event: &observe::Event) -> Event {
    let mut out = Event::new(event.at.as_nanos(), event.kind.name());
    out.cookie = Some(event.cookie).filter(|cookie| *cookie != 0);
    out.local = event.tuple.map(|tuple| tuple.local);
    out.peer = event.tuple.map(|tuple| tuple.remote);
    match &event.kind {
        EventKind::StateChange { old, new } => (out.old_state, out.state) = (Some(*old), Some(*new)),
        EventKind::ResetSent(reason) => out.reason = Some(reason.name().into()),
        EventKind::Retransmit { state, .. } => out.state = Some(*state),
        EventKind::CongestionState(state) => out.reason = Some(state.name().into()),
        EventKind::Error(error) => out.error = Some(error.errno()),
        EventKind::Drop(reason) => out.reason = Some(reason.name().into()),
        _ => {}
    }
    out
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's end, and the events it sends.
    fn events() -> (UnixStream, StackEvents) {
        let (server, client) = UnixStream::pair().expect("a pair");
        let stack = Stack { stream: BufReader::new(client), name: String::new(), pid: 0 };
        (server, StackEvents { stack, partial: Vec::new(), lost: 0 })
    }

    #[test]
    fn a_server_that_never_stops_is_left_between_two_lines_and_pieces_are_kept() {
        let (mut server, mut events) = events();
        let line = serde_json::to_string(&Reply::Lost { count: 1 }).expect("a line") + "\n";
        // More than is read at once, the last line in two pieces.
        let many = line.repeat(1000);
        let (begin, end) = many.split_at(many.len() - 5);
        server.write_all(begin.as_bytes()).expect("writes");
        let wait = |events: &mut StackEvents| events.wait(Duration::from_millis(1), &mut |_| {});
        assert!(wait(&mut events).expect("reads"));
        let first = events.lost();
        assert!(first > 0 && first < 999, "{first}");
        while events.lost() < 999 {
            assert!(wait(&mut events).expect("reads"));
        }
        assert!(wait(&mut events).expect("nothing whole came"));
        server.write_all(end.as_bytes()).expect("writes");
        assert!(wait(&mut events).expect("reads"));
        assert_eq!(events.lost(), 1000);
        drop(server);
        assert!(!wait(&mut events).expect("the end"));
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let (mut server, mut events) = events();
        let writer = std::thread::spawn(move || server.write_all(&vec![b' '; LINE_LIMIT as usize + 1]));
        let refused = std::iter::repeat_with(|| events.wait(Duration::from_secs(5), &mut |_| {}))
            .find_map(Result::err)
            .expect("an error");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        drop(events);
        let _ = writer.join().expect("no panic");
    }
}
