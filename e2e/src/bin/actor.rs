//! A program that makes socket calls on request and reports exactly what they returned.
//!
//! One step a line on standard input, one JSON object a line on standard output:
//! `connect 10.0.2.2:80` → `{"result":"ECONNREFUSED","step":"connect"}`. The errno law and the closing law are told in these
//! steps, so the same program runs plain, behind lastack, pasta and slirp4netns.
//! Every blocking call is bounded by [`PATIENCE`], or by what `patience MILLISECONDS` says; one that waits longer reports `timeout`.

use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use lastack_e2e::actor::{Counters, errno_name, sockets_of_port, timers_of_port};
use lastack_e2e::clock;
use lastack_e2e::resolver::{Manner, Transport};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Actor {
    listener: Option<Socket>,
    stream: Option<Socket>,
    /// Local port of the latest stream, kept after it is closed.
    port: u16,
}

fn main() {
    let mut actor = Actor::default();
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((&step, args)) = words.split_first() else { continue };
        let mut answer =
            actor.perform(step, args).unwrap_or_else(|error| json!({ "result": errno_name(&error) }));
        answer["step"] = json!(step);
        let mut out = io::stdout().lock();
        if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
            break;
        }
    }
}

impl Actor {
    fn perform(&mut self, step: &str, args: &[&str]) -> io::Result<Value> {
        let number = |at: usize| args.get(at).and_then(|word| word.parse::<u64>().ok()).ok_or(usage());
        match step {
            "listen" => self.listen(address(args)?),
            "accept" => self.accept(),
            "wait-pending" => self.wait_pending(),
            "close-listener" => {
                self.listener = None;
                Ok(ok())
            }
            "connect" => self.connect(address(args)?, args.get(1).and_then(|n| n.parse().ok())),
            "send" => self.send(number(0)?),
            "send-until-error" => self.send_until_error(),
            "recv" => self.recv(number(0)?),
            "recv-to-end" => self.recv(u64::MAX),
            "wait" => self.wait(args.first().copied().unwrap_or_default()),
            "wait-unread" => self.wait_unread(number(0)?),
            "shutdown-write" => self.stream()?.shutdown(Shutdown::Write).map(|()| ok()),
            "shutdown-read" => self.stream()?.shutdown(Shutdown::Read).map(|()| ok()),
            "linger-0" => self.stream()?.set_linger(Some(Duration::ZERO)).map(|()| ok()),
            "receive-buffer" => self.set_receive_buffer(number(0)?),
            "close" => self.close(),
            "close-at" => {
                let at = number(0)?;
                while clock::monotonic_ns() < at {}
                self.close()
            }
            "so-error" => self.so_error(),
            "patience" => self.set_patience(Duration::from_millis(number(0)?)),
            "fill" => self.fill(),
            "wait-timer" => {
                Ok(json!({ "result": wait_timer(self.port, args.first().copied().unwrap_or_default()) }))
            }
            "udp" => udp(address(args)?),
            "ask" => ask(args),
            "settle" => Ok(json!({ "result": settle(self.port) })),
            "counters" => Ok(json!({ "result": "ok", "counters": Counters::read()?.to_json() })),
            "exit" => std::process::exit(0),
            "send-and-exit" => {
                let _ = self.send(number(0)?)?;
                std::process::exit(0)
            }
            "die" => {
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                unreachable!("SIGKILL cannot be survived")
            }
            _ => Err(usage()),
        }
    }

    fn stream(&self) -> io::Result<&Socket> {
        self.stream
            .as_ref()
            .ok_or_else(|| io::Error::from_raw_os_error(rustix::io::Errno::BADF.raw_os_error()))
    }

    fn listen(&mut self, at: SocketAddr) -> io::Result<Value> {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(at))?;
        socket.listen(16)?;
        self.port = local_port(&socket)?;
        self.listener = Some(socket);
        Ok(json!({ "result": "ok", "port": self.port }))
    }

    fn accept(&mut self) -> io::Result<Value> {
        let listener = self.listener.as_ref().ok_or_else(usage)?;
        if ready(listener, PollFlags::IN)?.is_empty() {
            return Ok(json!({ "result": "timeout" }));
        }
        let (stream, _) = listener.accept()?;
        self.take(stream)
    }

    /// Until a connection waits to be accepted.
    fn wait_pending(&self) -> io::Result<Value> {
        let listener = self.listener.as_ref().ok_or_else(usage)?;
        let came = !ready(listener, PollFlags::IN)?.is_empty();
        Ok(json!({ "result": if came { "ok" } else { "timeout" } }))
    }

    /// `patience_ms` makes the kernel itself give up a silent address within seconds (`TCP_USER_TIMEOUT`).
    fn connect(&mut self, to: SocketAddr, patience_ms: Option<u64>) -> io::Result<Value> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(patience_ms) = patience_ms {
            socket.set_tcp_user_timeout(Some(Duration::from_millis(patience_ms)))?;
        }
        // SO_SNDTIMEO bounds connect(): EINPROGRESS when it ends.
        socket.set_write_timeout(Some(2 * PATIENCE))?;
        match socket.connect(&SockAddr::from(to)) {
            Ok(()) => self.take(socket),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Ok(json!({ "result": "timeout" }))
            }
            Err(e) => Err(e),
        }
    }

    fn take(&mut self, stream: Socket) -> io::Result<Value> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        self.port = local_port(&stream)?;
        self.stream = Some(stream);
        Ok(json!({ "result": "ok", "port": self.port }))
    }

    fn send(&mut self, bytes: u64) -> io::Result<Value> {
        let chunk = [b'x'; 64 * 1024];
        let mut sent = 0;
        while sent < bytes {
            let piece = usize::try_from(bytes - sent).unwrap_or(usize::MAX).min(chunk.len());
            match self.stream()?.send(&chunk[..piece]) {
                Ok(n) => sent += n as u64,
                Err(error) => return Ok(json!({ "result": errno_name(&error), "bytes": sent })),
            }
        }
        Ok(json!({ "result": "ok", "bytes": sent }))
    }

    fn set_patience(&mut self, patience: Duration) -> io::Result<Value> {
        let stream = self.stream()?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(ok())
    }

    /// Sends until the kernel takes nothing more within our patience; how much it took is its own affair.
    fn fill(&mut self) -> io::Result<Value> {
        let sent = self.send(u64::MAX)?;
        Ok(json!({ "result": sent["result"] }))
    }

    /// One byte every 20 ms until the kernel refuses: how a program learns that its peer is gone.
    fn send_until_error(&mut self) -> io::Result<Value> {
        let error = clock::until(PATIENCE, || {
            let error = self.stream().and_then(|stream| stream.send(b"x")).err();
            if error.is_none() {
                clock::pause(Duration::from_millis(20));
            }
            error
        });
        Ok(json!({ "result": error.map_or_else(|| "no error".to_owned(), |e| errno_name(&e)) }))
    }

    /// Reads until `bytes` are there, the peer's FIN, or an error.
    fn recv(&mut self, bytes: u64) -> io::Result<Value> {
        let mut chunk = vec![0; 256 * 1024];
        let mut read = 0;
        while read < bytes {
            let piece = usize::try_from(bytes - read).unwrap_or(usize::MAX).min(chunk.len());
            match self.stream()?.read(&mut chunk[..piece]) {
                Ok(0) => return Ok(json!({ "result": "eof", "bytes": read })),
                Ok(n) => read += n as u64,
                Err(error) => return Ok(json!({ "result": errno_name(&error), "bytes": read })),
            }
        }
        Ok(json!({ "result": "ok", "bytes": read }))
    }

    /// Waits for one of the poll flags given (`in`, `rdhup`, `err`, `hup`); reports all that are set.
    fn wait(&mut self, flags: &str) -> io::Result<Value> {
        let mut wanted = PollFlags::empty();
        for flag in flags.split(',') {
            wanted |= match flag {
                "in" => PollFlags::IN,
                "rdhup" => PollFlags::RDHUP,
                "err" => PollFlags::ERR,
                "hup" => PollFlags::HUP,
                _ => return Err(usage()),
            };
        }
        let stream = self.stream()?;
        let mut seen = ready(stream, wanted)?;
        // Linux tcp_reset(), tcp_done(): the error stands a moment before the state does, and the state before the shutdown.
        let rest = PollFlags::HUP | (wanted & PollFlags::RDHUP);
        let is_half = |seen: PollFlags| seen.contains(PollFlags::ERR) && !seen.contains(rest);
        if is_half(seen) {
            let whole = || ready(stream, wanted).ok().filter(|seen| !is_half(*seen));
            seen = clock::until(Duration::from_millis(100), whole).unwrap_or(seen);
        }
        let names = [
            (PollFlags::IN, "IN"),
            (PollFlags::RDHUP, "RDHUP"),
            (PollFlags::ERR, "ERR"),
            (PollFlags::HUP, "HUP"),
        ];
        let set: Vec<&str> =
            names.iter().filter(|(flag, _)| seen.contains(*flag)).map(|(_, name)| *name).collect();
        Ok(json!({ "result": if set.is_empty() { "timeout".to_owned() } else { set.join(" ") } }))
    }

    fn wait_unread(&mut self, bytes: u64) -> io::Result<Value> {
        let stream = self.stream()?;
        let there = clock::until(PATIENCE, || {
            let unread = rustix::io::ioctl_fionread(stream).unwrap_or(0);
            (unread >= bytes).then_some(unread)
        });
        Ok(json!({ "result": if there.is_some() { "ok" } else { "timeout" } }))
    }

    fn set_receive_buffer(&mut self, bytes: u64) -> io::Result<Value> {
        let bytes = usize::try_from(bytes).map_err(|_| usage())?;
        let socket = self.stream.as_ref().or(self.listener.as_ref()).ok_or_else(usage)?;
        socket.set_recv_buffer_size(bytes).map(|()| ok())
    }

    fn close(&mut self) -> io::Result<Value> {
        match self.stream.take() {
            Some(_) => Ok(ok()),
            None => Err(usage()),
        }
    }

    fn so_error(&mut self) -> io::Result<Value> {
        let error = self.stream()?.take_error()?;
        Ok(json!({ "result": error.map_or_else(|| "none".to_owned(), |e| errno_name(&e)) }))
    }
}

/// `ask SERVER NAME [tcp] [aaaa] [edns]`: the address of a name, and both messages in hexadecimal.
fn ask(args: &[&str]) -> io::Result<Value> {
    let name = args.get(1).copied().ok_or_else(usage)?;
    let is = |word: &str| args[2..].contains(&word);
    let over = if is("tcp") { Transport::Tcp } else { Transport::Udp };
    let manner = Manner { over, ipv6: is("aaaa"), edns: is("edns") };
    let told = lastack_e2e::resolver::ask(address(args)?, name, manner)?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(json!({
        "result": told.rcode,
        "addresses": told.addresses,
        "truncated": told.truncated,
        "query": hex(&told.query),
        "reply": hex(&told.reply),
    }))
}

/// A connected UDP socket's send, then what its `recv` says (a closed port answers with ICMP).
fn udp(to: SocketAddr) -> io::Result<Value> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
    socket.set_read_timeout(Some(PATIENCE / 5))?;
    socket.connect(&SockAddr::from(to))?;
    socket.send(b"?")?;
    let n = (&socket).read(&mut [0; 16])?;
    Ok(json!({ "result": "ok", "bytes": n }))
}

/// Waits until no socket on `port` is on its way to another state by itself; gives the states that stay.
fn settle(port: u16) -> String {
    let passing = ["FIN-WAIT-1", "CLOSING", "LAST-ACK", "SYN-SENT", "SYN-RECV"];
    let states = || sockets_of_port(port).into_iter().filter(|state| state != "LISTEN").collect::<Vec<_>>();
    // An orphan's FIN-WAIT-2 and an ESTAB that is about to be reset pass too, but may also stay: give them a moment.
    let waiting = ["FIN-WAIT-2", "ESTAB", "CLOSE-WAIT"];
    let is = |names: &[&str]| states().iter().any(|state| names.contains(&state.as_str()));
    let _ = clock::until(Duration::from_secs(5), || (!is(&passing)).then_some(()));
    let _ = clock::until(Duration::from_millis(500), || (!is(&waiting) && !is(&passing)).then_some(()));
    // One reading of /proc/net/tcp may miss a socket that is about to become a mini socket; it never invents one.
    let some = || Some(states()).filter(|states| !states.is_empty());
    let mut left = clock::until(Duration::from_millis(100), some).unwrap_or_default();
    left.sort();
    if left.is_empty() { "none".to_owned() } else { left.join(" ") }
}

/// Waits until the socket on `port` is in a state with a timer, as `ss -o` has them: `ESTAB persist`. Gives what it is in.
fn wait_timer(port: u16, wanted: &str) -> String {
    let wanted = wanted.replace('/', " ");
    let now = || timers_of_port(port).join(", ");
    let _ = clock::until(PATIENCE, || (now() == wanted).then_some(()));
    now()
}

fn ready(socket: &Socket, flags: PollFlags) -> io::Result<PollFlags> {
    let timeout = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    let mut fds = [PollFd::new(socket, flags)];
    poll(&mut fds, Some(&timeout))?;
    Ok(fds[0].revents())
}

fn local_port(socket: &Socket) -> io::Result<u16> {
    Ok(socket.local_addr()?.as_socket().map_or(0, |addr| addr.port()))
}

fn address(args: &[&str]) -> io::Result<SocketAddr> {
    args.first().and_then(|word| word.parse().ok()).ok_or_else(usage)
}

fn ok() -> Value {
    json!({ "result": "ok" })
}

fn usage() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::INVAL.raw_os_error())
}
