//! The calls of the two programs: each is made, and told with what it gave.
//!
//! Owns:    sockets as stories hold them, and how a call is written in a chart.
//! Rules:   no call blocks; a step that must wait lets time pass on the stage.

use core::net::SocketAddr;
use core::time::Duration;

use lastack_core::observe::SocketRow;
use lastack_core::tcp::state::TcpState;

use super::{Socket, Stage, Told};
use crate::script::symbols;
use crate::stories::Side;
use crate::stories::record::{Moment, What};
use crate::stories::words::count;
use crate::sys;
use crate::target::{Call, Fd, OptionValue, Outcome, Output, TargetError, Via};

/// The largest write of an application.
const CHUNK: usize = 64 * 1024;

/// A backlog nobody will fill.
const DEFAULT_BACKLOG: i32 = 128;

/// When a call began, and what had been noticed by then.
#[derive(Clone, Copy, Debug)]
struct Cue {
    at: Duration,
    place: usize,
}

impl Stage<'_> {
    fn call(&mut self, side: Side, call: &Call) -> Told<Outcome> {
        if self.is_real {
            self.now = sys::now();
        }
        self.hosts[side as usize].step_to(self.now);
        self.collect()?;
        self.watch.reason(self.elapsed(), side);
        let outcome = self.hosts[side as usize].call(call)?;
        self.collect()?;
        self.look()?;
        Ok(outcome)
    }

    /// A call that must not fail, or the story cannot be told.
    fn must(&mut self, side: Side, call: &Call) -> Told<Outcome> {
        let outcome = self.call(side, call)?;
        if outcome.value < 0 {
            let name = errno_name(outcome.errno);
            return Err(TargetError(format!("the {} cannot do {call:?}: {name}", side.name())));
        }
        Ok(outcome)
    }

    /// A call is told where it began, before what it caused.
    fn told(&mut self, cue: Cue, socket: Socket, call: String, result: String) {
        let Socket { side, flow, .. } = socket;
        let what = What::Call { side, flow, call, result };
        self.watch.moments.insert(cue.place, Moment { at: cue.at, what });
    }

    fn socket(&mut self, side: Side) -> Told<Socket> {
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
        let call = Call::Socket { family: libc::AF_INET, kind, protocol: libc::IPPROTO_TCP };
        let fd = Fd(self.must(side, &call)?.value as i32);
        Ok(Socket { side, fd, flow: None })
    }

    /// The server's program listens.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn listen(&mut self, port: u16, backlog: i32) -> Told<Socket> {
        let cue = self.cue()?;
        let socket = self.socket(Side::Server)?;
        self.set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, OptionValue::Int(1))?;
        let address = SocketAddr::new(Side::Server.address(), port);
        self.must(Side::Server, &Call::Bind(socket.fd, address))?;
        self.must(Side::Server, &Call::Listen(socket.fd, backlog))?;
        let what = if backlog == DEFAULT_BACKLOG {
            format!("listen(:{port})")
        } else {
            format!("listen(:{port}, {backlog})")
        };
        self.told(cue, socket, what, String::new());
        Ok(socket)
    }

    /// The client's program begins a connection.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn connect(&mut self, port: u16) -> Told<Socket> {
        let cue = self.cue()?;
        let mut socket = self.socket(Side::Client)?;
        let to = SocketAddr::new(Side::Server.address(), port);
        let before = self.watch.flows.len();
        let outcome = self.call(Side::Client, &Call::Connect(socket.fd, Some(to)))?;
        if self.watch.flows.len() == before && outcome.errno == libc::EINPROGRESS {
            // Linux's SYN is noticed a moment after the call returned.
            let limit = Duration::from_millis(100);
            self.until(limit, |stage| stage.watch.flows.len() > before)?;
        }
        let failed = outcome.value < 0 && outcome.errno != libc::EINPROGRESS;
        socket.flow = (!failed && self.watch.flows.len() > before).then(|| self.watch.flows.len() - 1);
        let result = if failed { errno_name(outcome.errno) } else { String::new() };
        self.told(cue, socket, format!("connect(:{port})"), result);
        Ok(socket)
    }

    /// Waits for a connection attempt to end, at most `limit`; says how, if it failed.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn connected(&mut self, socket: Socket, limit: Duration) -> Told<bool> {
        let open = |stage: &Self| {
            let state = socket.flow.and_then(|flow| stage.watch.state(socket.side, flow));
            !matches!(state, Some(TcpState::SynSent | TcpState::SynRecv))
        };
        self.until(limit, |stage| open(stage))?;
        let call = Call::GetOption(socket.fd, libc::SOL_SOCKET, libc::SO_ERROR, 4);
        let errno = match self.must(socket.side, &call)?.output {
            Output::Bytes(bytes) => bytes.try_into().map_or(0, i32::from_ne_bytes),
            _ => 0,
        };
        if errno != 0 {
            let cue = self.cue()?;
            self.told(cue, socket, "connect()".to_owned(), errno_name(errno));
        }
        Ok(errno == 0 && open(self))
    }

    /// The server's program accepts, if there is something to accept.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn accept(&mut self, listener: Socket) -> Told<Option<Socket>> {
        let cue = self.cue()?;
        let outcome = self.call(listener.side, &Call::Accept(listener.fd))?;
        if outcome.value < 0 {
            return Ok(None);
        }
        let flow = match outcome.output {
            Output::Peer(peer) => self.watch.flows.iter().rposition(|flow| flow.client == peer),
            _ => None,
        };
        let socket = Socket { side: listener.side, fd: Fd(outcome.value as i32), flow };
        self.told(cue, socket, "accept()".to_owned(), String::new());
        Ok(Some(socket))
    }

    /// A connection from the client's program to the server's, both ends: listen, connect, accept.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn establish(&mut self, port: u16) -> Told<(Socket, Socket)> {
        let listener = self.listen(port, DEFAULT_BACKLOG)?;
        self.establish_at(listener, port)
    }

    /// The same with a listener that is there already.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn establish_at(&mut self, listener: Socket, port: u16) -> Told<(Socket, Socket)> {
        let client = self.connect(port)?;
        self.accepted(listener, client)
    }

    /// Waits until the server's program could accept `client`, which has begun to connect.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn accepted(&mut self, listener: Socket, client: Socket) -> Told<(Socket, Socket)> {
        let flow = client.flow.ok_or_else(|| TargetError("no connection was begun".to_owned()))?;
        let established =
            |stage: &mut Self| stage.watch.state(Side::Server, flow) == Some(TcpState::Established);
        if !self.until(Duration::from_secs(10), established)? {
            return Err(TargetError("the connection was not established".to_owned()));
        }
        let server = self.accept(listener)?;
        server
            .map(|server| (client, server))
            .ok_or_else(|| TargetError("there is nothing to accept".to_owned()))
    }

    /// Sets an option, silently.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn set_option(&mut self, socket: Socket, level: i32, name: i32, value: OptionValue) -> Told<()> {
        self.must(socket.side, &Call::SetOption(socket.fd, level, name, value)).map(drop)
    }

    /// The program writes so many bytes; says what the call gave unless it took them all.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn write(&mut self, socket: Socket, bytes: usize) -> Told<()> {
        let cue = self.cue()?;
        let outcome = self.send(socket, bytes)?;
        let result = match outcome.value {
            -1 => errno_name(outcome.errno),
            taken if taken as usize == bytes => String::new(),
            taken => format!("= {}", count(taken as u64)),
        };
        self.told(cue, socket, format!("write({})", count(bytes as u64)), result);
        Ok(())
    }

    /// The program writes whenever it can, until for `quiet` the socket took nothing more, or `most` are written.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn write_all_it_takes(&mut self, socket: Socket, most: usize, quiet: Duration) -> Told<usize> {
        let cue = self.cue()?;
        let mut written = 0;
        let mut failed = 0;
        loop {
            let mut took = false;
            while written < most {
                let outcome = self.send(socket, CHUNK.min(most - written))?;
                if outcome.value <= 0 {
                    failed = outcome.errno;
                    break;
                }
                written += outcome.value as usize;
                took = true;
            }
            if written >= most || failed != libc::EAGAIN && failed != 0 {
                break;
            }
            // Room comes with acknowledgments.
            let before = self.rows(socket.side)?;
            let room = |stage: &mut Self| {
                let now = stage.rows(socket.side).unwrap_or_default();
                freed(&before, &now)
            };
            if !self.until(quiet, room)? && !took {
                break;
            }
        }
        let full = if failed == libc::EAGAIN && written < most { ", then EAGAIN" } else { "" };
        let result = format!("= {}{full}", count(written as u64));
        self.told(cue, socket, "write(…)".to_owned(), result);
        Ok(written)
    }

    fn send(&mut self, socket: Socket, bytes: usize) -> Told<Outcome> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let call = Call::Send { fd: socket.fd, lens: vec![bytes], flags, via: Via::Socket, to: None };
        self.call(socket.side, &call)
    }

    fn receive(&mut self, socket: Socket, most: usize) -> Told<Outcome> {
        let flags = libc::MSG_DONTWAIT;
        let call = Call::Receive { fd: socket.fd, lens: vec![most], flags, via: Via::Socket };
        self.call(socket.side, &call)
    }

    /// The program reads once.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn read(&mut self, socket: Socket, most: usize) -> Told<()> {
        let cue = self.cue()?;
        let outcome = self.receive(socket, most)?;
        let result = match outcome.value {
            -1 => errno_name(outcome.errno),
            0 => "= 0 (end of file)".to_owned(),
            bytes => format!("= {}", count(bytes as u64)),
        };
        self.told(cue, socket, "read()".to_owned(), result);
        Ok(())
    }

    /// The program reads all that arrives within `limit`, until the end of file or an error; says how much.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn read_all(&mut self, socket: Socket, limit: Duration) -> Told<()> {
        let cue = self.cue()?;
        let end = self.now + limit;
        let mut total = 0u64;
        let result = loop {
            let outcome = self.receive(socket, 1 << 20)?;
            match outcome.value {
                -1 if outcome.errno == libc::EAGAIN => {
                    let unread = |stage: &mut Self| stage.has_news(socket);
                    let left = end.saturating_sub(self.now);
                    if left.is_zero() || !self.until(left, unread)? {
                        break format!("= {}", count(total));
                    }
                }
                -1 => break format!("{} after {}", errno_name(outcome.errno), count(total)),
                0 => break format!("= {}, then end of file", count(total)),
                bytes => total += bytes as u64,
            }
        };
        self.told(cue, socket, "read(…)".to_owned(), result);
        Ok(())
    }

    /// There is something to read for a socket, or it is gone.
    fn has_news(&mut self, socket: Socket) -> bool {
        let rows = self.rows(socket.side).unwrap_or_default();
        let found = self.watch.connections(socket.side, &rows).find(|(flow, _)| Some(*flow) == socket.flow);
        found.is_none_or(|(_, row)| {
            row.recv_q > 0
                || !matches!(row.state, TcpState::Established | TcpState::FinWait1 | TcpState::FinWait2)
        })
    }

    /// The program closes the socket.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn close(&mut self, socket: Socket) -> Told<()> {
        let cue = self.cue()?;
        self.told(cue, socket, "close()".to_owned(), String::new());
        self.must(socket.side, &Call::Close(socket.fd))?;
        self.look()
    }

    /// The program closes its sending direction only.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn shutdown_write(&mut self, socket: Socket) -> Told<()> {
        let cue = self.cue()?;
        self.told(cue, socket, "shutdown(WR)".to_owned(), String::new());
        self.must(socket.side, &Call::Shutdown(socket.fd, libc::SHUT_WR))?;
        self.look()
    }

    /// Sets an option and says so.
    ///
    /// # Errors
    /// The lab's machinery failed.
    pub fn option(
        &mut self,
        socket: Socket,
        what: &str,
        level: i32,
        name: i32,
        value: OptionValue,
    ) -> Told<()> {
        let cue = self.cue()?;
        self.told(cue, socket, format!("setsockopt({what})"), String::new());
        self.set_option(socket, level, name, value)
    }

    /// The time and place of what comes now.
    fn cue(&mut self) -> Told<Cue> {
        if self.is_real {
            self.now = sys::now();
        }
        self.collect()?;
        Ok(Cue { at: self.elapsed(), place: self.watch.moments.len() })
    }
}

/// Some send queue became shorter, or a socket disappeared.
fn freed(before: &[SocketRow], now: &[SocketRow]) -> bool {
    before.iter().any(|old| {
        let same = now.iter().find(|row| row.local == old.local && row.remote == old.remote);
        same.is_none_or(|row| row.send_q < old.send_q)
    })
}

fn errno_name(errno: i32) -> String {
    symbols::errno_name(errno)
}
