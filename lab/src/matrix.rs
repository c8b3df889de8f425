//! The matrix: every state × every kind of segment × every place relative to the window, with and without timestamps.
//!
//! Owns:    the cells (generated, not written by hand) and what a host answered: packets, next state, what the
//!          application is told.
//! Input:   a target to ask. Linux's answers are kept as data (`matrix/linux-6.18.tsv`); the stack must give the same.
//! Rules:   RFC 9293 3.10.7; specification 1.4–1.6, 2.3, 5.2.

use core::fmt::Write as _;
use std::path::Path;

use crate::run::{self, Failure, Recorded};
use crate::script::parse;
use crate::target::{Target, World};

/// Where a connection is when the segment arrives.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// `ss`'s name; `FIN-WAIT-2/orphan` is the mini socket.
    pub state: &'static str,
    /// How it gets there, after the handshake's options are known (`@` is replaced by `<options>`).
    preamble: &'static str,
    /// The peer's next sequence number, and the acknowledgment it sends, in the script's numbers.
    rcv_nxt: u32,
    ack: u32,
    /// A descriptor that can be asked for an error.
    fd: Option<u32>,
}

const SERVER: &str = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 bind(3, ..., ...) = 0\n+0 listen(3, 1) = 0\n\
                      +0 < S 0:0(0) win 65535 <SYN>\n";

/// Every state a segment can meet.
pub const PLACES: [Place; 11] = [
    Place { state: "SYN-RECV", preamble: "", rcv_nxt: 1, ack: 1, fd: None },
    Place { state: "ESTAB", preamble: "open", rcv_nxt: 1, ack: 1, fd: Some(4) },
    Place {
        state: "FIN-WAIT-1",
        preamble: "open +.01 shutdown(4, SHUT_WR) = 0",
        rcv_nxt: 1,
        ack: 1,
        fd: Some(4),
    },
    Place { state: "FIN-WAIT-1/orphan", preamble: "open +.01 close(4) = 0", rcv_nxt: 1, ack: 1, fd: None },
    Place {
        state: "FIN-WAIT-2",
        preamble: "open +.01 shutdown(4, SHUT_WR) = 0|+.01 < . 1:1(0) ack 2 win 65535@",
        rcv_nxt: 1,
        ack: 2,
        fd: Some(4),
    },
    Place {
        state: "FIN-WAIT-2/orphan",
        preamble: "open +.01 close(4) = 0|+.01 < . 1:1(0) ack 2 win 65535@",
        rcv_nxt: 1,
        ack: 2,
        fd: None,
    },
    Place {
        state: "CLOSING",
        preamble: "open +.01 close(4) = 0|+.01 < F. 1:1(0) ack 1 win 65535@",
        rcv_nxt: 2,
        ack: 1,
        fd: None,
    },
    Place {
        state: "TIME-WAIT",
        preamble: "open +.01 close(4) = 0|+.01 < F. 1:1(0) ack 2 win 65535@",
        rcv_nxt: 2,
        ack: 2,
        fd: None,
    },
    Place {
        state: "CLOSE-WAIT",
        preamble: "open +.01 < F. 1:1(0) ack 1 win 65535@",
        rcv_nxt: 2,
        ack: 1,
        fd: Some(4),
    },
    Place {
        state: "LAST-ACK",
        preamble: "open +.01 < F. 1:1(0) ack 1 win 65535@|+.02 close(4) = 0",
        rcv_nxt: 2,
        ack: 1,
        fd: None,
    },
    Place {
        state: "ESTAB/unread",
        preamble: "open +.01 < P. 1:101(100) ack 1 win 65535@",
        rcv_nxt: 101,
        ack: 1,
        fd: Some(4),
    },
];

/// Kinds of segment: flags and payload bytes.
pub const KINDS: [(&str, u32); 8] =
    [("R", 0), ("R.", 0), ("S", 0), ("S.", 0), ("F.", 0), (".", 0), ("P.", 10), ("-", 10)];

/// Places relative to the window, for a segment that takes `len` numbers; `edge` is the first number beyond it.
const POSITIONS: [&str; 5] = ["left", "left-edge", "inside", "right-edge", "right"];

/// One cell.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The state.
    pub place: Place,
    /// Flags.
    pub flags: &'static str,
    /// Payload bytes.
    pub len: u32,
    /// Where it lies.
    pub position: &'static str,
    /// The connection has timestamps.
    pub timestamps: bool,
}

/// Every cell, in a fixed order.
pub fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for place in PLACES {
        for (flags, len) in KINDS {
            for position in POSITIONS {
                for timestamps in [false, true] {
                    cells.push(Cell { place, flags, len, position, timestamps });
                }
            }
        }
    }
    cells
}

impl Cell {
    /// The cell's name: its first four columns.
    pub fn name(&self) -> String {
        let timestamps = if self.timestamps { "ts" } else { "no-ts" };
        format!("{}\t{}({})\t{}\t{timestamps}", self.place.state, self.flags, self.len, self.position)
    }

    /// The script that leads there and sends the segment.
    pub fn script(&self) -> String {
        let syn =
            if self.timestamps { "mss 1460,sackOK,TS val 100 ecr 0" } else { "mss 1460,nop,nop,sackOK" };
        let mut clock = 100;
        let mut options = |step: u32| {
            clock += step;
            if self.timestamps { format!(" <nop,nop,TS val {clock} ecr 500>") } else { String::new() }
        };
        let mut text = String::from("--tcp_ts_ecr_scaled\n`sysctl -q net.ipv4.tcp_invalid_ratelimit=0`\n");
        text.push_str(&SERVER.replace("SYN", syn));
        if let Some(rest) = self.place.preamble.strip_prefix("open") {
            let _ =
                writeln!(text, "+.01 < . 1:1(0) ack 1 win 65535{}\n+0 accept(3, ..., ...) = 4", options(10));
            for event in rest.split('|').map(str::trim).filter(|event| !event.is_empty()) {
                let _ = writeln!(text, "{}", event.replace('@', &options(10)));
            }
        }
        // A known gap, so that neither a delayed ACK (40 ms) nor a repetition (200 ms) falls into the answer.
        let seq = self.seq();
        let (flags, len, ack) = (self.flags, self.len, self.place.ack);
        let ack = if flags.contains('.') { format!(" ack {ack}") } else { String::new() };
        let options = match flags {
            // Whatever ACK they carry is the peer's: no echo without one.
            "R" | "S" | "-" if self.timestamps => format!(" <nop,nop,TS val {} ecr 0>", 190),
            _ => options(60),
        };
        let _ =
            writeln!(text, "+.06 < {flags} {seq}:{}({len}){ack} win 65535{options}", seq.wrapping_add(len));
        if let Some(fd) = self.place.fd {
            let _ = writeln!(text, "+.06 getsockopt({fd}, SOL_SOCKET, SO_ERROR, [0], [4]) = 0");
        }
        let _ = writeln!(text, "+.01 ioctl(3, SIOCINQ, [0]) = 0");
        text
    }

    fn seq(&self) -> u32 {
        let next = self.place.rcv_nxt;
        // The window after the handshake, and never smaller: 44 × 1460, or 45 × 1448 with timestamps.
        let edge = 1 + if self.timestamps { 65_160 } else { 64_240 };
        // In segments with SYN the script's numbers are the wire's, with an initial number of 0: the same.
        match self.position {
            "left" => next.wrapping_sub(20),
            "left-edge" => next,
            "inside" => next + 100,
            "right-edge" => edge,
            _ => edge + 1000,
        }
    }
}

/// Asks a target: what happens from the segment on, one line.
///
/// # Errors
/// The cell could not be played.
pub fn ask(cell: &Cell, target: &mut dyn Target, world: &World) -> Result<String, Failure> {
    let script = parse(&cell.script()).expect("a generated script is in the language");
    let last_inbound = script.events.iter().filter(|event| event.is_inbound()).map(|event| event.line).max();
    let (recorded, state) = run::record_with_state(&script, world, target)?;
    let after = |entry: &&Recorded| Some(entry.line) >= last_inbound;
    let mut answer: Vec<String> = recorded.iter().filter(after).filter_map(shown).collect();
    answer.push(state.unwrap_or("none").to_owned());
    Ok(answer.join("; "))
}

fn shown(entry: &Recorded) -> Option<String> {
    if entry.text.starts_with("> ") {
        return Some(entry.text.clone());
    }
    let value = entry.text.strip_prefix("getsockopt")?.rsplit(" = ").next()?;
    // `0 [111, 0, 0, 0]`
    let errno = value.trim_start_matches("0 [").split(',').next()?.parse().unwrap_or(0);
    (errno != 0).then(|| format!("SO_ERROR {}", crate::script::symbols::errno_name(errno)))
}

/// The world every cell plays in.
pub fn world() -> World {
    let script = parse("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3").expect("a script");
    run::world_of(&script, Path::new("")).expect("defaults are understood")
}
