//! The law of what is forced: `--inject` shows a program and its kernel what a real peer's doing shows them.
//!
//! Each case is played twice with the same client steps: plainly, beside a peer that really does it, and behind `lastack run`
//! with the injection, beside a peer that does nothing. What becomes of that peer is not the law's: it is looked at, and compared with
//! what `docs/impairments.md` says.

use std::io;
use std::time::Duration;

use super::{Seen, Side, Stage};
use crate::arena::{Arena, shell};
use crate::carrier::{Carrier, DEFAULT_MTU};
use crate::journal;

/// The program's address, as the remote knows it.
const PROGRAM: &str = "10.0.2.100";
/// Payload bytes that have gone up when it happens.
const AT: &str = "1000";
/// How long a run may take to end when its program has. Half of what one waits for a connection that still has something to carry.
const END: Duration = Duration::from_secs(30);

/// One thing that can be forced.
#[derive(Clone, Copy, Debug)]
pub struct Forced {
    /// Its name after `--inject`.
    pub event: &'static str,
    /// What the real peer does after it has read 1000 bytes.
    peer: fn(&mut Stage, &Arena) -> io::Result<()>,
    /// What the program does then.
    client: fn(&mut Stage),
    /// What the peer that does nothing does meanwhile, behind `--inject`; before the program does anything.
    meanwhile: fn(&mut Stage),
    /// What it does afterwards, until the program has ended.
    remote: fn(&mut Stage),
    /// What is seen of that.
    remote_sees: &'static [&'static str],
    /// `TCP_USER_TIMEOUT` of the program's connection, where its kernel is to give up within the test.
    gives_up_ms: Option<u32>,
    /// What has to be in the journal as `how`.
    how: &'static str,
}

/// All of them.
pub const CASES: &[Forced] = &[
    Forced {
        event: "rst",
        peer: |stage, _| {
            stage.prepare(Side::Server, "linger-0");
            stage.prepare(Side::Server, "close");
            Ok(())
        },
        client: |stage| {
            stage.see(Side::Client, "poll", "wait err,hup,rdhup");
            stage.see(Side::Client, "SO_ERROR", "so-error");
            stage.see(Side::Client, "read", "recv 1");
            stage.see(Side::Client, "write", "send 1");
            stage.see_kernel(Side::Client);
        },
        meanwhile: |_| {},
        // While the program still lives.
        remote: |stage| {
            see_reset(stage);
            stage.end_program(END);
        },
        remote_sees: &["poll RDHUP ERR HUP", "read ECONNRESET", "end of the run ok"],
        gives_up_ms: None,
        how: "reset",
    },
    Forced {
        event: "stall",
        // A reader that reads no more, and is frozen, so that it writes nothing either.
        peer: |_, _| Ok(()),
        client: |stage| {
            stage.prepare(Side::Client, "patience 1000");
            stage.see(Side::Client, "write", "fill");
            stage.see(Side::Client, "kernel's timer", "wait-timer ESTAB/persist");
            stage.see(Side::Client, "read", "recv 1");
        },
        // It writes: the program must not see it.
        meanwhile: |stage| {
            stage.prepare(Side::Server, "send 1000");
        },
        remote: see_nothing_come_then_reset,
        remote_sees: NOTHING_CAME_THEN_RESET,
        gives_up_ms: None,
        how: "open",
    },
    Forced {
        event: "zero-window",
        // A reader that reads no more: its window is zero when its buffer is full. (A buffer made smaller meanwhile would
        // drop what it had offered to take, and be retransmitted to.) It writes.
        peer: |_, _| Ok(()),
        client: |stage| {
            stage.prepare(Side::Client, "patience 1000");
            stage.see(Side::Client, "write", "fill");
            stage.see(Side::Client, "kernel's timer", "wait-timer ESTAB/persist");
            stage.see(Side::Server, "write", "send 1000");
            stage.see(Side::Client, "read", "recv 1000");
            stage.see(Side::Client, "write again", "send 1");
        },
        meanwhile: |_| {},
        remote: see_nothing_come_then_reset,
        remote_sees: NOTHING_CAME_THEN_RESET,
        gives_up_ms: None,
        how: "open",
    },
    Forced {
        event: "blackhole",
        // The peer's answers have no way back.
        peer: |_, arena| in_remote(arena, "add"),
        client: |stage| {
            stage.see(Side::Client, "write", "send 1000");
            stage.see(Side::Client, "kernel's timer", "wait-timer ESTAB/on");
            // TCP_USER_TIMEOUT of 3 s: what the kernel would do by itself in a quarter of an hour.
            stage.see(Side::Client, "read", "recv 1");
            stage.see(Side::Client, "write again", "send 1");
            stage.see_kernel(Side::Client);
        },
        meanwhile: |stage| {
            stage.prepare(Side::Server, "send 1000");
        },
        remote: see_nothing_come_then_reset,
        remote_sees: NOTHING_CAME_THEN_RESET,
        gives_up_ms: Some(3000),
        how: "open",
    },
    Forced {
        event: "half-open",
        // Its kernel forgets the connection, and nobody hears of it.
        peer: |_, arena| {
            in_remote(arena, "add")?;
            destroy(arena)?;
            in_remote(arena, "del")
        },
        client: |stage| {
            stage.see(Side::Client, "kernel's timer", "wait-timer ESTAB/off");
            stage.see(Side::Client, "write", "send 1000");
            stage.see(Side::Client, "poll", "wait err,hup,rdhup");
            stage.see(Side::Client, "read", "recv 1");
            stage.see_kernel(Side::Client);
        },
        meanwhile: |_| {},
        remote: |stage| {
            see_reset(stage);
            stage.end_program(END);
        },
        remote_sees: &["poll RDHUP ERR HUP", "read ECONNRESET", "end of the run ok"],
        gives_up_ms: None,
        how: "killed",
    },
];

fn see_reset(stage: &mut Stage) {
    stage.see(Side::Server, "poll", "wait err,hup,rdhup");
    stage.see(Side::Server, "read", "recv 1");
}

/// Nothing that the program wrote comes; and when it has ended, neither it nor what was stalled is waited for.
fn see_nothing_come_then_reset(stage: &mut Stage) {
    stage.prepare(Side::Server, "patience 500");
    stage.see(Side::Server, "read", "recv 1");
    stage.end_program(END);
    see_reset(stage);
}

const NOTHING_CAME_THEN_RESET: &[&str] =
    &["read timeout", "end of the run ok", "poll RDHUP ERR HUP", "read ECONNRESET"];

fn in_remote(arena: &Arena, verb: &str) -> io::Result<()> {
    shell(&format!("ip route {verb} blackhole {PROGRAM}/32"), Some(arena.remote_id()))
}

fn destroy(arena: &Arena) -> io::Result<()> {
    shell(&format!("ss --kill --no-header --tcp state established dst {PROGRAM}"), Some(arena.remote_id()))
}

/// What one case showed.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The case.
    pub event: &'static str,
    /// Beside a peer that really does it.
    pub real: Vec<Seen>,
    /// Behind `lastack run --inject`.
    pub forced: Vec<Seen>,
    /// What the peer behind it saw.
    pub remote: Vec<Seen>,
    /// What that must be.
    pub remote_sees: &'static [&'static str],
    /// What the journal says differently from what must be there.
    pub journal_faults: Vec<String>,
}

impl Shown {
    /// True when program and kernel cannot tell the forced from the real, and the peer saw what is said of it.
    #[must_use]
    pub fn is_same(&self) -> bool {
        let remote = self.remote.iter().map(|seen| format!("{} {}", seen.what, seen.came));
        self.real == self.forced
            && self.journal_faults.is_empty()
            && remote.eq(self.remote_sees.iter().copied())
    }
}

/// Plays a case both ways.
///
/// # Errors
/// The network or an actor cannot be set up.
pub fn play(arena: &Arena, case: &Forced) -> io::Result<Shown> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("journal");
    let real = {
        let seat = Carrier::Direct.seat(arena, DEFAULT_MTU)?;
        let mut stage = Stage::open(arena, &seat, &file)?;
        begin(&mut stage, case);
        let done = (case.peer)(&mut stage, arena);
        if done.is_ok() {
            (case.client)(&mut stage);
        }
        let seen = stage.finish();
        // Whether there or not: the next case needs the way.
        let _ = in_remote(arena, "del");
        done?;
        seen
    };
    let seat = Carrier::Lastack.seat(arena, DEFAULT_MTU)?;
    let injection = format!("{}@{AT}B", case.event);
    let mut stage = Stage::open_with(arena, &seat, &file, &["--inject", &injection])?;
    begin(&mut stage, case);
    (case.meanwhile)(&mut stage);
    (case.client)(&mut stage);
    let client_has_seen = stage.seen().len();
    (case.remote)(&mut stage);
    let mut forced = stage.finish();
    let remote = forced.split_off(client_has_seen);
    let (remote_sees, journal_faults) = (case.remote_sees, journal_faults(&file, case));
    Ok(Shown { event: case.event, real, forced, remote, remote_sees, journal_faults })
}

/// A connection that has carried what is needed.
fn begin(stage: &mut Stage, case: &Forced) {
    let address = stage.server_address();
    let gives_up = case.gives_up_ms.map_or_else(String::new, |ms| ms.to_string());
    stage.prepare(Side::Client, &format!("connect {address} {gives_up}"));
    stage.prepare(Side::Server, "accept");
    stage.prepare(Side::Client, &format!("send {AT}"));
    stage.prepare(Side::Server, &format!("recv {AT}"));
}

fn journal_faults(file: &std::path::Path, case: &Forced) -> Vec<String> {
    let lines = match journal::connections(file) {
        Ok(lines) => lines,
        Err(error) => return vec![error],
    };
    let [line] = lines.as_slice() else { return vec![format!("{} connections", lines.len())] };
    let expected = [
        ("reason", "injected"),
        ("certainty", "observed"),
        ("how", case.how),
        ("injected.event", case.event),
        ("injected.bytes", AT),
    ];
    let differs = |(path, value): &(&str, &str)| line.text(path) != *value;
    expected
        .iter()
        .filter(|entry| differs(entry))
        .map(|(path, value)| format!("{path} is {}, not {value}", line.text(path)))
        .collect()
}
