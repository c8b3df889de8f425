//! The program behind `lastack run`: so many dealings a second, each with an ending that is known beforehand.
//!
//! Owns:    which dealing comes when (by number, from a seed), [`WORKERS`] threads that perform them, the tally.
//! Rules:   a lost RST is never repeated by TCP, so whoever waits for one asks once more: that is how real programs find
//!          out, and the link is lossy on purpose.
//! Not here: the server (`service`).

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::Noise;
use super::service::{FAREWELL, is_noise};
use crate::clock;
use crate::resolver::{self, Manner, Transport};

/// Dealings that may be under way at once: what bounds the load when the link is slow.
const WORKERS: u64 = 24;
/// Connections that are held open all the time and used now and then.
pub const HELD: usize = 16;
/// How often one of the held connections is used.
const HELD_PAUSE: Duration = Duration::from_secs(4);
/// How long one wait inside a dealing may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for a RST that may have been lost before asking again.
const RST_PATIENCE: Duration = Duration::from_secs(5);
/// A short answer's size at most; a bulk transfer's size.
const SHORT: u64 = 20_000;
const BULK: u64 = 1 << 20;
/// Failures that are told in words.
const FAILURES: usize = 20;
/// The name the resolver knows.
pub const NAME: &str = "soak.test";
/// The program's resolver, as `lastack run` gives it.
const RESOLVER: &str = "10.0.2.3:53";

/// What to do, for how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The service, as the program calls it.
    pub service: SocketAddr,
    /// Where nobody listens.
    pub nobody: SocketAddr,
    /// How long.
    pub time: Duration,
    /// Dealings a second.
    pub per_second: f64,
    /// Which dealings in which order.
    pub seed: u64,
}

/// One kind of dealing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dealing {
    /// Connect, one answer, the client closes first.
    Short,
    /// Connect, one answer, the server closes first.
    ServerCloses,
    /// Ten answers on one connection.
    KeepAlive,
    /// A megabyte down.
    BulkDown,
    /// A megabyte up.
    BulkUp,
    /// The client's FIN ends the request, the answer follows.
    HalfCloseUp,
    /// The server's FIN ends the answer, more from the client follows.
    HalfCloseDown,
    /// A name over UDP.
    NameUdp,
    /// A name over TCP.
    NameTcp,
    /// The server resets in the middle of an answer.
    ServerResets,
    /// The client resets in the middle of an answer.
    ClientResets,
    /// Nobody listens.
    Refused,
}

use Dealing::*;

/// Of a hundred dealings.
const MIX: [(Dealing, u64); 12] = [
    (Short, 40),
    (ServerCloses, 15),
    (KeepAlive, 8),
    (BulkDown, 3),
    (BulkUp, 3),
    (HalfCloseUp, 6),
    (HalfCloseDown, 6),
    (NameUdp, 10),
    (NameTcp, 2),
    (ServerResets, 3),
    (ClientResets, 2),
    (Refused, 2),
];

impl Dealing {
    fn of(number: u64) -> Self {
        let mut left = number % 100;
        for (dealing, share) in MIX {
            if left < share {
                return dealing;
            }
            left -= share;
        }
        Short
    }

    fn name(self) -> &'static str {
        match self {
            Short => "short",
            ServerCloses => "server closes",
            KeepAlive => "keep-alive",
            BulkDown => "bulk down",
            BulkUp => "bulk up",
            HalfCloseUp => "half-close up",
            HalfCloseDown => "half-close down",
            NameUdp => "name, UDP",
            NameTcp => "name, TCP",
            ServerResets => "server resets",
            ClientResets => "client resets",
            Refused => "refused",
        }
    }
}

/// What was done and how it went.
#[derive(Debug, Default)]
struct Tally {
    done: BTreeMap<&'static str, u64>,
    failed: u64,
    failures: Vec<String>,
    bytes: u64,
}

/// Carries the plan out and gives the tally: `{"done":{…},"failed":0,"failures":[],"bytes":…}`.
#[must_use]
pub fn run(plan: &Plan) -> Value {
    let tally = Mutex::new(Tally::default());
    let next = AtomicU64::new(0);
    let begin = clock::now();
    std::thread::scope(|scope| {
        scope.spawn(|| hold(plan, &tally));
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let ordinal = next.fetch_add(1, Ordering::Relaxed);
                    let due = Duration::from_secs_f64(ordinal as f64 / plan.per_second);
                    if due >= plan.time {
                        return;
                    }
                    clock::pause((begin + due).saturating_duration_since(clock::now()));
                    let mut noise = Noise::new(plan.seed ^ ordinal);
                    let (dealing, seed) = (Dealing::of(noise.next_number()), noise.next_number());
                    note(&tally, dealing.name(), seed, deal(plan, dealing, seed));
                }
            });
        }
    });
    let Tally { done, failed, failures, bytes } = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    json!({ "done": done, "failed": failed, "failures": failures, "bytes": bytes })
}

fn note(tally: &Mutex<Tally>, name: &'static str, seed: u64, result: io::Result<u64>) {
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    *tally.done.entry(name).or_default() += 1;
    match result {
        Ok(bytes) => tally.bytes += bytes,
        Err(error) => {
            tally.failed += 1;
            if tally.failures.len() < FAILURES {
                tally.failures.push(format!("{name}, seed {seed}: {error}"));
            }
        }
    }
}

/// Keeps [`HELD`] connections and uses one after the other until the time is over.
fn hold(plan: &Plan, tally: &Mutex<Tally>) {
    let end = clock::now() + plan.time;
    let mut held: Vec<io::Result<Client>> = (0..HELD).map(|_| Client::connect(plan.service)).collect();
    for round in 0.. {
        let left = end.saturating_duration_since(clock::now());
        clock::pause(left.min(HELD_PAUSE));
        if left <= HELD_PAUSE {
            return;
        }
        let seed = plan.seed ^ (round as u64) << 32;
        let result = match &mut held[round % HELD] {
            Ok(client) => client.get("noise", seed, seed % SHORT),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        note(tally, "on a held connection", seed, result);
    }
}

/// Performs one dealing; gives the bytes that were carried and found right.
fn deal(plan: &Plan, dealing: Dealing, seed: u64) -> io::Result<u64> {
    let short = 1 + seed % SHORT;
    match dealing {
        Refused => match TcpStream::connect_timeout(&plan.nobody, PATIENCE) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(0),
            Err(error) => return Err(error),
            Ok(_) => return Err(io::Error::other("connected where nobody listens")),
        },
        NameUdp => return name(Transport::Udp),
        NameTcp => return name(Transport::Tcp),
        _ => {}
    }
    let mut client = Client::connect(plan.service)?;
    match dealing {
        Short => client.get("noise", seed, short),
        KeepAlive => (0..10).try_fold(0, |sum, n| Ok(sum + client.get("noise", seed ^ n, short)?)),
        BulkDown => client.get("noise", seed, BULK),
        ServerCloses => Ok(client.get("close", seed, short)? + client.end()?),
        BulkUp => {
            client.ask("PUT", "sink", seed, BULK)?;
            client.send(&Noise::bytes(seed, 1 << 20))?;
            client.accepted()?;
            Ok(BULK)
        }
        HalfCloseUp => {
            client.ask("PUT", "until-eof", seed, short)?;
            client.send(&Noise::bytes(seed, usize::try_from(short).map_err(io::Error::other)?))?;
            client.stream.shutdown(Shutdown::Write)?;
            client.accepted()?;
            Ok(short + client.end()?)
        }
        HalfCloseDown => {
            let got = client.get("half", seed, short)? + client.end()?;
            client.send(&Noise::bytes(seed, FAREWELL))?;
            Ok(got + FAREWELL as u64)
        }
        ServerResets => client.be_reset(seed, short),
        ClientResets => {
            // More than all buffers on the way hold, so that the server is still sending.
            client.ask("GET", "noise", seed, 64 << 20)?;
            client.head()?;
            let got = 64 << 10;
            if !is_noise(&mut (&mut client.reader).take(got), seed, got)? {
                return Err(io::Error::other("other bytes than were sent"));
            }
            socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO))?;
            Ok(got)
        }
        Refused | NameUdp | NameTcp => Ok(0),
    }
}

/// Looks [`NAME`] up; over UDP a lost question is asked again, as resolvers do.
fn name(over: Transport) -> io::Result<u64> {
    let server = RESOLVER.parse().map_err(io::Error::other)?;
    let mut tries = 0;
    loop {
        tries += 1;
        match resolver::ask(server, NAME, Manner { over, ..Manner::default() }) {
            Ok(told) if told.addresses == [ADDRESS] => return Ok(0),
            Ok(told) => return Err(io::Error::other(format!("{} {:?}", told.rcode, told.addresses))),
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && over == Transport::Udp && tries < 6 => {}
            Err(error) => return Err(error),
        }
    }
}

/// What [`NAME`] stands for.
pub const ADDRESS: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// A connection to the service.
struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn connect(service: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&service, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Self { stream, reader })
    }

    fn ask(&mut self, method: &str, what: &str, seed: u64, bytes: u64) -> io::Result<()> {
        self.send(format!("{method} /{what}/{seed}/{bytes} HTTP/1.1\r\nHost: soak\r\n\r\n").as_bytes())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// One answer, compared with what it must be.
    fn get(&mut self, what: &str, seed: u64, bytes: u64) -> io::Result<u64> {
        self.ask("GET", what, seed, bytes)?;
        self.head()?;
        if is_noise(&mut (&mut self.reader).take(bytes), seed, bytes)? {
            Ok(bytes)
        } else {
            Err(io::Error::other("other bytes than were sent, or fewer"))
        }
    }

    /// The answer to an upload.
    fn accepted(&mut self) -> io::Result<()> {
        let status = self.head()?;
        if status == "204" {
            Ok(())
        } else {
            Err(io::Error::other(format!("the server got other bytes: {status}")))
        }
    }

    /// Reads an answer's head; gives its status.
    fn head(&mut self) -> io::Result<String> {
        let (mut line, mut field) = (String::new(), String::new());
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while self.reader.read_line(&mut field)? > 2 {
            field.clear();
        }
        Ok(line.split(' ').nth(1).unwrap_or_default().to_owned())
    }

    /// Nothing but the other end's FIN may follow.
    fn end(&mut self) -> io::Result<u64> {
        match self.reader.read(&mut [0])? {
            0 => Ok(0),
            _ => Err(io::Error::other("more than was promised")),
        }
    }

    /// The answer must break off with ECONNRESET, and be right as far as it came.
    fn be_reset(&mut self, seed: u64, bytes: u64) -> io::Result<u64> {
        self.ask("GET", "reset", seed, bytes)?;
        self.stream.set_read_timeout(Some(RST_PATIENCE))?;
        let mut got = Vec::new();
        for _ in 0..6 {
            match self.reader.read_to_end(&mut got) {
                Ok(_) => return Err(io::Error::other("FIN where a reset was sent")),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    let body =
                        got.windows(4).position(|four| four == b"\r\n\r\n").map_or(got.len(), |at| at + 4);
                    let body = &got[body..];
                    return if body == Noise::bytes(seed, body.len()) {
                        Ok(body.len() as u64)
                    } else {
                        Err(io::Error::other("other bytes than were sent before the reset"))
                    };
                }
                // The RST may have been lost; it is not repeated, but answers whoever asks.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self.send(b"?") {
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                    _ => {}
                },
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("no reset came"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_a_hundred_and_every_dealing_comes() {
        assert_eq!(MIX.iter().map(|(_, share)| share).sum::<u64>(), 100);
        for (dealing, share) in MIX {
            let count = (0..100).filter(|number| Dealing::of(*number) == dealing).count();
            assert_eq!(count as u64, share, "{dealing:?}");
        }
    }
}
