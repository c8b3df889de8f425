//! The load: one thread and epoll, so that what is measured is the carrier.
//!
//! ```text
//! load serve                                    # prints {"echo":PORT,"echo_then_close":PORT,"sink":PORT,"source":PORT,"hold":PORT}
//! load bulk-up|bulk-down ADDR SECONDS           # 256 KiB writes; the first half second does not count
//! load short-server-closes|short-client-closes ADDR SECONDS [COUNT]   # 32 at a time: connect, 64 B there, 64 B back, close
//! load ping-pong ADDR SECONDS                   # one connection, 64 B, TCP_NODELAY
//! load hold ADDR FEW MANY                       # FEW idle connections, a line read from standard input, then MANY
//! ```
//! A client prints one JSON object (`figure`, `errors`, `stalls`, …), keeps its process until its input ends (so that what its
//! connections left behind can be looked at), and exits.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use lastack_e2e::clock;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

const CHUNK: usize = 256 * 1024;
const PARALLEL: u64 = 32;
const MESSAGE: usize = 64;
/// Ends a bulk transfer; everything else is `x`.
const LAST: u8 = b'.';
const WARM_UP: Duration = Duration::from_millis(500);
/// Nothing moving for this long is a stall.
const STALL: Duration = Duration::from_secs(1);

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    raise_descriptor_limit();
    let result = match words.as_slice() {
        ["serve"] => return serve(),
        ["hold", at, few, many] => return hold(address(at)?, count(few)?, count(many)?),
        [mode, at, seconds] => measure(mode, address(at)?, duration(seconds)?, u64::MAX),
        [mode, at, seconds, most] => measure(mode, address(at)?, duration(seconds)?, count(most)? as u64),
        _ => Err(usage()),
    };
    let failed =
        |error: io::Error| json!({ "figure": 0, "errors": 1, "stalls": 0, "reasons": [error.to_string()] });
    say(&result.unwrap_or_else(failed))?;
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

fn measure(mode: &str, at: SocketAddr, time: Duration, most: u64) -> io::Result<Value> {
    match mode {
        "bulk-up" => bulk_up(at, time),
        "bulk-down" => bulk_down(at, time),
        "short-server-closes" => short(at, time, most, true),
        "short-client-closes" => short(at, time, most, false),
        "ping-pong" => ping_pong(at, time),
        _ => Err(usage()),
    }
}

// ---- server ----

fn serve() -> io::Result<()> {
    let (echo, echo_then_close) = (listen()?, listen()?);
    let (sink, source, hold) = (listen()?, listen()?, listen()?);
    say(&json!({
        "echo": port(&echo)?, "echo_then_close": port(&echo_then_close)?,
        "sink": port(&sink)?, "source": port(&source)?, "hold": port(&hold)?,
    }))?;
    std::thread::spawn(move || each(&sink, sink_one));
    std::thread::spawn(move || each(&source, source_one));
    std::thread::spawn(move || echo_all(&hold, false));
    std::thread::spawn(move || echo_all(&echo_then_close, true));
    std::thread::spawn(move || echo_all(&echo, false));
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

fn each(listener: &TcpListener, serve: fn(TcpStream) -> io::Result<()>) {
    for stream in listener.incoming().flatten() {
        let spawned = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || drop(serve(stream)));
        drop(spawned);
    }
}

/// Reads up to the [`LAST`] byte, then says how many bytes there were. (Not up to the FIN: one of the carriers measured cannot
/// carry a half-close, and that is not what is measured here.)
fn sink_one(mut stream: TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0u64;
    loop {
        let n = stream.read(&mut chunk)?;
        bytes += n as u64;
        if n == 0 || chunk[n - 1] == LAST {
            break;
        }
    }
    stream.write_all(&bytes.to_be_bytes())?;
    stream.read(&mut chunk).map(drop)
}

/// Writes until the other side sends a byte, then closes.
fn source_one(mut stream: TcpStream) -> io::Result<()> {
    let chunk = vec![b'x'; CHUNK];
    let mut control = stream.try_clone()?;
    let stop = std::thread::spawn(move || control.read(&mut [0; 1]));
    while !stop.is_finished() {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

/// Echoes messages on all connections; with `close_first`, closes after the first echo.
fn echo_all(listener: &TcpListener, close_first: bool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let poll = Poll::new()?;
    poll.add(listener, 0, EventFlags::IN)?;
    let mut streams: HashMap<u64, TcpStream> = HashMap::new();
    let mut next = 1;
    loop {
        for (id, _) in poll.wait(None)? {
            if id == 0 {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    poll.add(&stream, next, EventFlags::IN)?;
                    streams.insert(next, stream);
                    next += 1;
                }
                continue;
            }
            let Some(stream) = streams.get_mut(&id) else { continue };
            let mut message = [0; MESSAGE];
            let over = match stream.read(&mut message) {
                Ok(0) => true,
                Ok(n) => stream.write_all(&message[..n]).is_err() || close_first,
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            };
            if over {
                streams.remove(&id);
            }
        }
    }
}

// ---- clients ----

fn bulk_up(at: SocketAddr, time: Duration) -> io::Result<Value> {
    let mut stream = connect(at)?;
    let chunk = vec![b'x'; CHUNK];
    let mut meter = Meter::start(time);
    while !meter.is_over() {
        let n = stream.write(&chunk)?;
        meter.add(n);
    }
    stream.write_all(&[LAST])?;
    let mut received = [0; 8];
    stream.read_exact(&mut received)?;
    let missing = (meter.total + 1).abs_diff(u64::from_be_bytes(received));
    Ok(meter.result(missing))
}

fn bulk_down(at: SocketAddr, time: Duration) -> io::Result<Value> {
    let mut stream = connect(at)?;
    let mut chunk = vec![0; CHUNK];
    let mut meter = Meter::start(time);
    while !meter.is_over() {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => meter.add(n),
        }
    }
    stream.write_all(&[LAST])?;
    while stream.read(&mut chunk)? > 0 {}
    Ok(meter.result(0))
}

/// Counts bytes after the warm-up, and stalls.
struct Meter {
    begin: std::time::Instant,
    end: std::time::Instant,
    last: std::time::Instant,
    first: Option<std::time::Instant>,
    total: u64,
    counted: u64,
    stalls: u64,
}

impl Meter {
    fn start(time: Duration) -> Self {
        let now = clock::now();
        Self {
            begin: now + WARM_UP,
            end: now + WARM_UP + time,
            last: now,
            first: None,
            total: 0,
            counted: 0,
            stalls: 0,
        }
    }

    fn is_over(&self) -> bool {
        self.last >= self.end
    }

    fn add(&mut self, bytes: usize) {
        let now = clock::now();
        self.stalls += u64::from(now - self.last > STALL);
        self.last = now;
        self.total += bytes as u64;
        if now >= self.begin {
            // The first piece after the warm-up starts the clock and does not count.
            if self.first.is_some() {
                self.counted += bytes as u64;
            } else {
                self.first = Some(now);
            }
        }
    }

    fn result(&self, missing: u64) -> Value {
        let time = self.first.map_or(0.0, |first| (self.last - first).as_secs_f64());
        let gbit = if time > 0.0 { self.counted as f64 * 8.0 / time / 1e9 } else { 0.0 };
        json!({ "figure": gbit, "unit": "Gbit/s", "errors": missing, "stalls": self.stalls })
    }
}

fn ping_pong(at: SocketAddr, time: Duration) -> io::Result<Value> {
    let mut stream = connect(at)?;
    stream.set_nodelay(true)?;
    let mut message = [b'x'; MESSAGE];
    let (begin, mut trips, mut stalls) = (clock::now(), 0u64, 0u64);
    let mut last = begin;
    while last - begin < time {
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        let now = clock::now();
        stalls += u64::from(now - last > STALL);
        last = now;
        trips += 1;
    }
    let rate = trips as f64 / (last - begin).as_secs_f64();
    Ok(json!({ "figure": rate, "unit": "round trips/s", "errors": 0, "stalls": stalls }))
}

/// One short connection on its way.
struct Short {
    socket: Socket,
    since: std::time::Instant,
    sent: bool,
    received: usize,
}

fn short(at: SocketAddr, time: Duration, most: u64, server_closes: bool) -> io::Result<Value> {
    let poll = Poll::new()?;
    let begin = clock::now();
    let end = begin + time;
    let mut going: HashMap<u64, Short> = HashMap::new();
    let (mut next, mut finished, mut errors, mut stalls) = (0u64, 0u64, 0u64, 0u64);
    let mut reasons: HashMap<String, u64> = HashMap::new();
    let mut last = begin;
    loop {
        while (going.len() as u64) < PARALLEL && next < most && clock::now() < end {
            match start_short(at) {
                Ok(socket) => {
                    poll.add(&socket, next, EventFlags::IN | EventFlags::OUT)?;
                    going.insert(next, Short { socket, since: clock::now(), sent: false, received: 0 });
                }
                Err(error) => {
                    errors += 1;
                    *reasons.entry(error.to_string()).or_default() += 1;
                }
            }
            next += 1;
        }
        if going.is_empty() && (next >= most || clock::now() >= end) {
            break;
        }
        let events = poll.wait(Some(STALL))?;
        if events.is_empty() {
            stalls += 1;
            // Whatever is still on its way 10 s after the end will not come.
            if clock::now() > end + 10 * STALL {
                errors += going.len() as u64;
                *reasons.entry("never finished".to_owned()).or_default() += going.len() as u64;
                break;
            }
        }
        for (id, flags) in events {
            let Some(one) = going.get_mut(&id) else { continue };
            match step_short(one, flags, server_closes) {
                Ok(false) => {
                    if one.sent {
                        poll.change(&one.socket, id, EventFlags::IN)?;
                    }
                }
                Ok(true) => {
                    finished += 1;
                    last = clock::now();
                    stalls += u64::from(last - one.since > STALL);
                    going.remove(&id);
                }
                Err(error) => {
                    errors += 1;
                    *reasons.entry(error.to_string()).or_default() += 1;
                    going.remove(&id);
                }
            }
        }
    }
    let rate = finished as f64 / (last - begin).as_secs_f64().max(f64::EPSILON);
    let mut reasons: Vec<String> = reasons.into_iter().map(|(reason, n)| format!("{n} × {reason}")).collect();
    reasons.sort();
    Ok(json!({
        "figure": rate, "unit": "connections/s", "finished": finished, "errors": errors, "stalls": stalls, "reasons": reasons,
    }))
}

fn start_short(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&SockAddr::from(at)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// `Ok(true)` when the connection has lived its whole life.
fn step_short(one: &mut Short, flags: EventFlags, server_closes: bool) -> io::Result<bool> {
    if !one.sent && flags.intersects(EventFlags::OUT | EventFlags::ERR) {
        if let Some(error) = one.socket.take_error()? {
            return Err(error);
        }
        one.socket.send(&[b'x'; MESSAGE])?;
        one.sent = true;
    }
    if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) && one.sent {
        loop {
            match (&one.socket).read(&mut [0; MESSAGE]) {
                Ok(0) if one.received == MESSAGE => return Ok(true),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => one.received += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if one.received == MESSAGE && !server_closes {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn hold(at: SocketAddr, few: usize, many: usize) -> io::Result<()> {
    let mut held = Vec::with_capacity(many);
    for wanted in [few, many] {
        while held.len() < wanted {
            held.push(connect(at)?);
        }
        say(&json!({ "open": held.len() }))?;
        io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}

// ---- small things ----

/// Thousands of idle connections are more than the 1,024 descriptors a process usually may have.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // What is not granted is told by the connection that fails.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, Duration::from_secs(10))?;
    // A stalled carrier must not hold the series for ever.
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

fn usage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "see the first lines of bench/src/bin/load.rs")
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::from(([0, 0, 0, 0], 0))))?;
    // std's backlog of 128 would measure SYN retries.
    socket.listen(4096)?;
    Ok(socket.into())
}

fn port(listener: &TcpListener) -> io::Result<u16> {
    Ok(listener.local_addr()?.port())
}

fn say(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

fn address(word: &str) -> io::Result<SocketAddr> {
    word.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("not an address: {word}")))
}

fn duration(word: &str) -> io::Result<Duration> {
    let seconds: f64 =
        word.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a number of seconds"))?;
    Ok(Duration::from_secs_f64(seconds))
}

fn count(word: &str) -> io::Result<usize> {
    word.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a number"))
}

/// A thin epoll.
struct Poll(rustix::fd::OwnedFd);

impl Poll {
    fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    fn add(&self, fd: &impl AsFd, id: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, EventData::new_u64(id), flags)?)
    }

    fn change(&self, fd: &impl AsFd, id: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, EventData::new_u64(id), flags)?)
    }

    fn wait(&self, limit: Option<Duration>) -> io::Result<Vec<(u64, EventFlags)>> {
        let limit = limit.map(|limit| rustix::event::Timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        let mut events = Vec::with_capacity(256);
        epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut events), limit.as_ref())?;
        Ok(events.iter().map(|event| (event.data.u64(), event.flags)).collect())
    }
}
