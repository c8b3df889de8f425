//! The server side of the soak: HTTP as far as the load needs it, on the host's loopback, one thread a connection.
//!
//! | request | what happens |
//! |---|---|
//! | `GET /noise/SEED/BYTES` | answered; the connection stays for the next request |
//! | `GET /close/SEED/BYTES` | answered, then the server closes first |
//! | `PUT /sink/SEED/BYTES` | the body is compared with the seed's noise: 204 or 409 |
//! | `PUT /until-eof/SEED/BYTES` | the same for a body that ends with the client's FIN; then the server closes |
//! | `GET /half/SEED/BYTES` | answered, the server's FIN follows, then [`FAREWELL`] bytes of noise must come from the client |
//! | `GET /reset/SEED/BYTES` | half of it is sent, then the server resets the connection |

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Noise;

/// What the client sends behind the server's FIN.
pub const FAREWELL: usize = 4000;
/// How long a peer may be silent: longer than any retransmission on the link takes, and a held connection's pause.
const PATIENCE: Duration = Duration::from_secs(180);
/// Faults that are remembered in words.
const FAULTS: usize = 20;

/// The server; its threads end with the process.
#[derive(Debug)]
pub struct Service {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

/// What the server saw.
#[derive(Debug, Default)]
struct Seen {
    connections: AtomicU64,
    resets: AtomicU64,
    farewells: AtomicU64,
    faults: Mutex<Vec<String>>,
}

impl Service {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// There is none.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, seen) = (listener.local_addr()?, Arc::new(Seen::default()));
        let shared = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let seen = shared.clone();
                std::thread::spawn(move || seen.serve(stream));
            }
        });
        Ok(Self { address, seen })
    }

    /// Connections accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// Connections the other end reset.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.seen.resets.load(Ordering::Relaxed)
    }

    /// Right [`FAREWELL`]s behind the server's FIN.
    #[must_use]
    pub fn farewells(&self) -> u64 {
        self.seen.farewells.load(Ordering::Relaxed)
    }

    /// What was not as agreed, the first of it.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.seen.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Seen {
    fn serve(&self, stream: TcpStream) {
        match converse(self, stream) {
            Ok(()) => {}
            // EPIPE is the second sight of the same reset.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) =>
            {
                self.resets.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => self.fault(format!("server: {error}")),
        }
    }

    fn fault(&self, what: String) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < FAULTS {
            faults.push(what);
        }
    }
}

fn converse(seen: &Seen, stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(request) = Request::read(&mut reader)? {
        let Request { what, seed, bytes } = request;
        match what.as_str() {
            "noise" => answer(&mut writer, seed, bytes, bytes)?,
            "close" => return answer(&mut writer, seed, bytes, bytes),
            "half" => {
                answer(&mut writer, seed, bytes, bytes)?;
                writer.shutdown(Shutdown::Write)?;
                let mut farewell = Vec::new();
                reader.read_to_end(&mut farewell)?;
                if farewell == Noise::bytes(seed, FAREWELL) {
                    seen.farewells.fetch_add(1, Ordering::Relaxed);
                } else {
                    seen.fault(format!("seed {seed}: the farewell is {} other bytes", farewell.len()));
                }
                return Ok(());
            }
            "reset" => {
                answer(&mut writer, seed, bytes, bytes / 2)?;
                return socket2::SockRef::from(&writer).set_linger(Some(Duration::ZERO));
            }
            "sink" => {
                let same = is_noise(&mut (&mut reader).take(bytes), seed, bytes)?;
                writer.write_all(verdict(same))?;
            }
            "until-eof" => {
                let same = is_noise(&mut reader, seed, bytes)?;
                return writer.write_all(verdict(same));
            }
            other => return Err(io::Error::other(format!("no such request: {other}"))),
        }
    }
    Ok(())
}

/// One request's first line; the header fields say nothing this server needs.
struct Request {
    what: String,
    seed: u64,
    bytes: u64,
}

impl Request {
    /// `None`: the client has closed.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut field = String::new();
        while reader.read_line(&mut field)? > 2 {
            field.clear();
        }
        let wrong = || io::Error::other(format!("not a request: {line:?}"));
        let path = line.split(' ').nth(1).ok_or_else(wrong)?;
        let mut parts = path.split('/').skip(1);
        let what = parts.next().ok_or_else(wrong)?.to_owned();
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or_else(wrong);
        Ok(Some(Self { what, seed: number()?, bytes: number()? }))
    }
}

/// An answer of `bytes` bytes, of which `sent` are sent.
fn answer(writer: &mut impl Write, seed: u64, bytes: u64, sent: u64) -> io::Result<()> {
    write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")?;
    let mut noise = Noise::new(seed);
    let mut chunk = [0; 16 << 10];
    let mut left = usize::try_from(sent).map_err(io::Error::other)?;
    while left > 0 {
        let part = left.min(chunk.len());
        noise.fill(&mut chunk[..part]);
        writer.write_all(&chunk[..part])?;
        left -= part;
    }
    Ok(())
}

fn verdict(same: bool) -> &'static [u8] {
    if same {
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
    } else {
        b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n"
    }
}

/// Reads `from` to its end: is it the first `bytes` bytes of the noise of `seed`, and nothing else?
pub(super) fn is_noise(from: &mut impl Read, seed: u64, bytes: u64) -> io::Result<bool> {
    let mut noise = Noise::new(seed);
    let (mut got, mut expected) = ([0; 16 << 10], [0; 16 << 10]);
    let (mut total, mut same) = (0, true);
    loop {
        // Whole chunks: the noise comes in steps of eight bytes.
        let mut filled = 0;
        while filled < got.len() {
            match from.read(&mut got[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        noise.fill(&mut expected[..filled]);
        same &= got[..filled] == expected[..filled];
        total += filled as u64;
        if filled < got.len() {
            return Ok(same && total == bytes);
        }
    }
}
