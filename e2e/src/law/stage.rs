//! One performance of one case: a client behind a carrier, a server in the remote namespace (or the other way round), and
//! what was seen.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::actor::{Actor, Answer, Counters};
use crate::arena::{Arena, HOST_V4, PROGRAM_V4, SERVER_V4};
use crate::binaries;
use crate::carrier::{Carrier, Seat};

/// Who saw something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The program behind the carrier, and its namespace's kernel.
    Client,
    /// The program it talks to, and that one's kernel.
    Server,
}

/// One thing seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// By whom.
    pub side: Side,
    /// What was asked: `read`, `close`, `kernel state`, …
    pub what: String,
    /// What came: `ECONNRESET`, `100 bytes`, …
    pub came: String,
}

/// Which way the connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The client is behind the carrier, the server in the remote namespace.
    Out,
    /// The server is behind the carrier, which publishes its port; the client is in the remote namespace.
    In,
}

/// The two actors of a performance and what has been seen so far.
#[derive(Debug)]
pub struct Stage {
    client: Actor,
    server: Actor,
    counters: [Counters; 2],
    server_address: SocketAddr,
    way: Way,
    seen: Vec<Seen>,
}

impl Stage {
    /// Starts both actors; nothing is connected yet. A lastack writes its journal to `journal`.
    ///
    /// # Errors
    /// One of them does not start or does not answer.
    pub fn open(arena: &Arena, seat: &Seat, journal: &Path) -> io::Result<Self> {
        Self::open_with(arena, seat, journal, &[])
    }

    /// The same; `more` flags go to `lastack run` and mean nothing to others.
    ///
    /// # Errors
    /// As [`Stage::open`].
    pub fn open_with(arena: &Arena, seat: &Seat, journal: &Path, more: &[&str]) -> io::Result<Self> {
        let actor: PathBuf = binaries::actor().to_path_buf();
        let journal = journal.to_string_lossy();
        let flags = [&["--report", "json", "--output", &journal], more].concat();
        let mut server = Actor::start(arena.in_remote().arg(&actor))?;
        let mut client = Actor::start(&mut seat.command_with(&flags, &actor))?;
        let (c, s) = (client.step("counters"), server.step("counters"));
        let port = server.step("listen [::]:0").port();
        if c.result != "ok" || s.result != "ok" || port == 0 {
            return Err(io::Error::other(format!(
                "the actors do not answer: client {}, server {}",
                c.result, s.result
            )));
        }
        let server_address = SocketAddr::new(SERVER_V4.parse().expect("a constant address"), port);
        let counters = [c.counters(), s.counters()];
        Ok(Self { client, server, counters, server_address, way: Way::Out, seen: Vec::new() })
    }

    /// The same the other way round: the server behind `seat`, which is `carrier`'s and publishes its port, the same
    /// inside and on the host. No two performances should have one: TIME-WAITs stay.
    ///
    /// # Errors
    /// As [`Stage::open`].
    pub fn open_published(
        arena: &Arena,
        carrier: Carrier,
        seat: &Seat,
        journal: &Path,
        port: u16,
    ) -> io::Result<Self> {
        let actor: PathBuf = binaries::actor().to_path_buf();
        let journal = journal.to_string_lossy();
        let published = format!("{port}:{port}");
        let flags = ["--report", "json", "--output", &journal, "--publish", &published];
        let mut server = Actor::start(&mut seat.command_with(&flags, &actor))?;
        let mut client = Actor::start(arena.in_remote().arg(&actor))?;
        let (c, s) = (client.step("counters"), server.step("counters"));
        let listens = server.step(&format!("listen [::]:{port}"));
        if c.result != "ok" || s.result != "ok" || listens.port() != port {
            return Err(io::Error::other(format!(
                "the actors do not answer: client {}, server {}, listen {}",
                c.result, s.result, listens.result
            )));
        }
        // Without a carrier the server is where it is; with one, its host stands for it.
        let host = if carrier == Carrier::Direct { PROGRAM_V4 } else { HOST_V4 };
        let server_address = SocketAddr::new(host.parse().expect("a constant address"), port);
        let counters = [c.counters(), s.counters()];
        Ok(Self { client, server, counters, server_address, way: Way::In, seen: Vec::new() })
    }

    /// Where the server listens (IPv4).
    #[must_use]
    pub fn server_address(&self) -> SocketAddr {
        self.server_address
    }

    /// A step that prepares the scene: seen only if it does not do what it should.
    pub fn prepare(&mut self, side: Side, step: &str) -> Answer {
        let answer = self.actor(side).step(step);
        if answer.result != "ok" {
            self.note(side, without_address(step), &answer.phrase());
        }
        answer
    }

    /// A step whose outcome is part of the law.
    pub fn see(&mut self, side: Side, what: &str, step: &str) {
        let answer = self.actor(side).step(step);
        self.note(side, what, &answer.phrase());
    }

    /// Lets `side` do `steps` while the other goes on; [`Stage::join`] waits for them.
    pub fn meanwhile(&mut self, side: Side, steps: &[&str]) {
        for step in steps {
            self.actor(side).ask(step);
        }
    }

    /// Waits for the steps `side` was given by [`Stage::meanwhile`]; seen only if they did not do what they should.
    pub fn join(&mut self, side: Side, steps: &[&str]) {
        for step in steps {
            let answer = self.actor(side).answer();
            if answer.result != "ok" {
                self.note(side, step, &answer.phrase());
            }
        }
    }

    /// The same step asked of both before either answers; both outcomes are part of the law.
    pub fn see_both(&mut self, what: &str, step: &str) {
        self.client.ask(step);
        self.server.ask(step);
        let (c, s) = (self.client.answer(), self.server.answer());
        self.note(Side::Client, what, &c.phrase());
        self.note(Side::Server, what, &s.phrase());
    }

    /// Connects client and server.
    pub fn connect(&mut self) {
        let address = self.server_address;
        self.prepare(Side::Client, &format!("connect {address}"));
        self.prepare(Side::Server, "accept");
    }

    /// Connects, then moves `up` bytes to the server and `down` bytes to the client, all of them read.
    pub fn talk(&mut self, up: u64, down: u64) {
        self.connect();
        self.prepare(Side::Client, &format!("send {up}"));
        self.prepare(Side::Server, &format!("recv {up}"));
        self.prepare(Side::Server, &format!("send {down}"));
        self.prepare(Side::Client, &format!("recv {down}"));
    }

    /// What both kernels keep and have counted when all has come to rest.
    pub fn see_kernels(&mut self) {
        for side in [Side::Client, Side::Server] {
            self.see_kernel(side);
        }
    }

    /// What one side's kernel keeps and has counted when all has come to rest.
    pub fn see_kernel(&mut self, side: Side) {
        let states = self.actor(side).step("settle").result;
        self.note(side, "kernel keeps", &states);
        let now = self.actor(side).step("counters").counters();
        let counted = now.since(&self.counters[side as usize]);
        self.note(side, "kernel counted", &counted);
    }

    /// As [`Stage::see_kernels`], without the states: for a close whose TIME-WAIT may fall to either side.
    pub fn see_reset_counters(&mut self) {
        for side in [Side::Client, Side::Server] {
            self.actor(side).step("settle");
            let now = self.actor(side).step("counters").counters();
            let counted = now.since(&self.counters[side as usize]);
            self.note(side, "kernel counted", &counted);
        }
    }

    /// Records something that was seen.
    pub fn note(&mut self, side: Side, what: &str, came: &str) {
        self.seen.push(Seen { side, what: what.to_owned(), came: came.to_owned() });
    }

    /// What has been seen so far.
    #[must_use]
    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// Ends the client's program, which is behind the carrier, and waits for the carrier to end: seen is whether it did within `limit`.
    pub fn end_program(&mut self, limit: Duration) {
        let ended = matches!(self.client.finish(limit), Ok(Some(_)));
        self.note(Side::Client, "end of the run", if ended { "ok" } else { "not within the limit" });
    }

    /// Ends both actors and gives what was seen. A carrier that does not end with its program is seen too.
    pub fn finish(mut self) -> Vec<Seen> {
        let (behind, other, side) = match self.way {
            Way::Out => (&mut self.client, &mut self.server, Side::Client),
            Way::In => (&mut self.server, &mut self.client, Side::Server),
        };
        let _ = other.finish(Duration::from_secs(5));
        if !matches!(behind.finish(Duration::from_secs(90)), Ok(Some(_))) {
            self.note(side, "end of the program", "still running after 90 s");
        }
        self.seen
    }

    fn actor(&mut self, side: Side) -> &mut Actor {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

/// The port differs from one performance to the next.
fn without_address(step: &str) -> &str {
    if step.starts_with("connect ") { "connect" } else { step }
}
