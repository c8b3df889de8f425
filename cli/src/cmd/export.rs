//! `lastack export`: metrics for Prometheus, and a log of closed connections.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lastack_observe::clock;
use lastack_observe::doctor::{self, Limits};
use lastack_observe::export::{Exporter, files};
use lastack_observe::interrupt::Interrupt;
use lastack_observe::live::{Live, News};

use super::record::open_output;
use crate::args::Globals;
use crate::failure::Failure;
use crate::seconds;
use crate::source_args::SourceArgs;

/// Until a scrape is answered, where nobody else asks.
const TICK: Duration = Duration::from_millis(50);
/// For a client to ask, and again to take its answer: one that is slower is not a scraper.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(500);
/// Longer requests are not answered.
const MAX_REQUEST: usize = 8192;
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The command line of `export`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sudo lastack export --listen 127.0.0.1:9435            /metrics for Prometheus
  sudo lastack export --ndjson /var/log/closed.ndjson    and a line for each connection that ends
  lastack export --source NAME                           of a lastack that runs, until it ends

What goes with it: lastack export --print dashboard|alerts|unit-export|unit-record")]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// Where /metrics is served
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9435")]
    listen: SocketAddr,
    /// A line for each connection that ends is appended here
    #[arg(long, value_name = "FILE")]
    ndjson: Option<PathBuf>,
    /// Seconds between two looks at all sockets
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds::pause)]
    interval: Duration,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds::length)]
    duration: Option<Duration>,
    /// Print a file that goes with the exporter, and end
    #[arg(long, value_name = "WHAT", value_parser = ["dashboard", "alerts", "unit-export", "unit-record"], conflicts_with_all = [
        "listen", "ndjson", "interval", "duration", "source", "netns", "all_netns", "from",
    ])]
    print: Option<String>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    if let Some(what) = &args.print {
        let text = match what.as_str() {
            "dashboard" => files::dashboard(),
            "alerts" => files::alerts(),
            unit => files::unit(unit.trim_start_matches("unit-")).unwrap_or_default(),
        };
        io::stdout().write_all(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut live = args.source.watch(args.interval)?;
    let mut output = args.ndjson.as_deref().map(open_output).transpose()?;
    let listener = TcpListener::bind(args.listen).map_err(|error| {
        Failure::new(
            format!("cannot listen on {}", args.listen),
            error.to_string(),
            "--listen 127.0.0.1:0, or another port",
        )
    })?;
    listener.set_nonblocking(true)?;
    let refused = |error: io::Error| args.source.refused(&error);
    if let Some(error) = live.refused() {
        say!("note: reasons of resets and how connections end are not seen: {error}; sudo lastack export");
    }
    let url = format!("http://{}/metrics", listener.local_addr()?);
    if globals.json {
        writeln!(io::stdout(), "{}", serde_json::json!({"schema": 1, "event": "serving", "url": url}))?;
    } else {
        say!("serving {url}");
    }
    let mut exporter = Exporter::new(live.refused().is_none());
    let (interrupt, start) = (Interrupt::catch(), clock::monotonic());
    let mut over = false;
    while !over {
        // What ended before the interrupt and has not been read yet belongs to it.
        over = interrupt.raised()
            || live.ended()
            || args.duration.is_some_and(|length| start.elapsed() >= length);
        let mut lines = String::new();
        let mut each = |news| match news {
            News::Closed(closed) => {
                exporter.closed(&closed);
                if output.is_some() {
                    lines.push_str(&closed.to_json().to_string());
                    lines.push('\n');
                }
            }
            News::Reset(event) => {
                let direction = if event.name == "tcp_send_reset" { "sent" } else { "received" };
                exporter.reset(direction, event.reason.as_deref().unwrap_or("none"));
            }
        };
        live.tick(if over { Duration::ZERO } else { TICK }, &mut each).map_err(refused)?;
        if let Some(file) = &mut output {
            file.write_all(lines.as_bytes())?;
        }
        // One a turn, however many wait: what ends is told in time.
        if let Ok((client, _)) = listener.accept() {
            exporter.set_lost(live.lost());
            // A scraper that goes away in the middle is its own affair.
            let _ = answer(client, &exporter, &live);
        }
    }
    if let Some(name) = args.source.stack_name().filter(|_| live.ended()) {
        say!("{name} has ended");
    }
    Ok(ExitCode::SUCCESS)
}

/// A client with a time until which it is waited for, in however small pieces it comes.
struct Client {
    stream: TcpStream,
    end: Instant,
}

impl Client {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        Ok(Self { stream, end: clock::monotonic() + CLIENT_TIMEOUT })
    }

    /// What is left of its time.
    fn patience(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(clock::monotonic());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Client {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.patience()?)?;
        self.stream.read(into)
    }
}

impl Write for Client {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.patience()?)?;
        self.stream.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn answer(stream: TcpStream, exporter: &Exporter, live: &Live) -> io::Result<()> {
    let mut client = Client::new(stream)?;
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|four| four == b"\r\n\r\n") && request.len() < MAX_REQUEST {
        match client.read(&mut piece)? {
            0 => break,
            length => request.extend(&piece[..length]),
        }
    }
    let line = String::from_utf8_lossy(&request);
    let mut words = line.split_whitespace();
    let (status, kind, body) =
        match (words.next(), words.next().map(|path| path.split('?').next().unwrap_or(path))) {
            (Some("GET"), Some("/metrics")) => {
                let (now, before) = live.snapshots();
                let findings = doctor::examine(now, before, &Limits::default());
                match exporter.render(now, &findings) {
                    Ok(text) => ("200 OK", CONTENT_TYPE, text),
                    Err(_) => ("500 Internal Server Error", "text/plain", "formatting failed\n".to_owned()),
                }
            }
            (Some("GET"), Some("/")) => ("200 OK", "text/plain", "lastack export: see /metrics\n".to_owned()),
            (Some("GET"), _) => ("404 Not Found", "text/plain", "see /metrics\n".to_owned()),
            _ => ("405 Method Not Allowed", "text/plain", "only GET\n".to_owned()),
        };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // What it took to make the answer was not the client's time.
    client.end = clock::monotonic() + CLIENT_TIMEOUT;
    client.write_all(head.as_bytes())?;
    client.write_all(body.as_bytes())?;
    // Close in an orderly way: our FIN, then the client's, so that nothing is reset.
    client.stream.shutdown(std::net::Shutdown::Write)?;
    while client.read(&mut piece).is_ok_and(|length| length > 0) {}
    Ok(())
}
