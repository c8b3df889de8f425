//! How long a connection stays in a state, measured on Linux and on the stack side by side.
//!
//! Owns:    the cases of issue and specification 3.3–3.5 ([`CASES`]), measuring one on a host, the page `docs/timing.md`.
//! Input:   scripts that lead into the state; the host's own tables say when it ends.
//! Rules:   a timer of Linux is never early and late by at most one slot of its wheel (specification 7); what is allowed
//!          is the sum over the timers of the case, and one jiffy.
//! Not here: running cases side by side in time (`examples/timing.rs`).

use core::fmt::Write as _;
use core::time::Duration;
use std::path::Path;

use crate::run::{self, Failure};
use crate::script::parse;
use crate::target::{Target, World};

/// One measured life.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What is measured.
    pub name: &'static str,
    /// `ss`'s name of the state.
    pub state: &'static str,
    /// What bounds it.
    pub rule: &'static str,
    /// Leads into the state.
    script: &'static str,
    /// The peer answers every packet with this (`<` line without a time).
    answer: Option<&'static str>,
    /// How long each timer of the life runs, milliseconds: what lateness may add up from.
    timers: &'static [u32],
}

const SERVER: &str = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 bind(3, ..., ...) = 0\n+0 listen(3, 1) = 0\n\
    +0 < S 0:0(0) win 65535 <mss 1460,nop,nop,sackOK>\n";
const ACCEPT: &str = "+.002 < . 1:1(0) ack 1 win 65535\n+0 accept(3, ..., ...) = 4\n";

/// Loss probe, then retransmissions doubled.
const FIN_8: &[u32] = &[204, 204, 408, 816, 1632, 3264, 6528, 13_056, 26_112, 52_224];

/// Everything issue 3 asks to be shown.
pub const CASES: [Case; 11] = [
    Case {
        name: "orphan FIN-WAIT-1, silent peer",
        state: "FIN-WAIT-1",
        rule: "tcp_orphan_retries=0 (as 8)",
        script: "+.01 close(4) = 0\n",
        answer: None,
        timers: FIN_8,
    },
    Case {
        name: "orphan FIN-WAIT-1, silent peer",
        state: "FIN-WAIT-1",
        rule: "tcp_orphan_retries=1",
        script: "`sysctl -q net.ipv4.tcp_orphan_retries=1`\n+.01 close(4) = 0\n",
        answer: None,
        timers: &[204, 204, 408, 816],
    },
    Case {
        name: "orphan FIN-WAIT-1, silent peer",
        state: "FIN-WAIT-1",
        rule: "tcp_orphan_retries=3",
        script: "`sysctl -q net.ipv4.tcp_orphan_retries=3`\n+.01 close(4) = 0\n",
        answer: None,
        timers: &[204, 204, 408, 816, 1632, 3264],
    },
    Case {
        name: "orphan FIN-WAIT-1, zero window, probes answered",
        state: "FIN-WAIT-1",
        rule: "RTO_MAX reached",
        script: "+0 write(4, ..., 1000) = 1000\n+.01 < . 1:1(0) ack 1001 win 0\n+0 close(4) = 0\n",
        answer: Some("< . 1:1(0) ack 1001 win 0"),
        timers: &[204, 408, 816, 1632, 3264, 6528, 13_056, 26_112, 52_224, 104_448, 120_000],
    },
    Case {
        name: "orphan FIN-WAIT-2",
        state: "FIN-WAIT-2",
        rule: "tcp_fin_timeout=3",
        script: "`sysctl -q net.ipv4.tcp_fin_timeout=3`\n+.01 close(4) = 0\n+.01 < . 1:1(0) ack 2 win 65535\n",
        answer: None,
        timers: &[3000],
    },
    Case {
        name: "orphan FIN-WAIT-2",
        state: "FIN-WAIT-2",
        rule: "tcp_fin_timeout=60",
        script: "`sysctl -q net.ipv4.tcp_fin_timeout=60`\n+.01 close(4) = 0\n+.01 < . 1:1(0) ack 2 win 65535\n",
        answer: None,
        timers: &[60_000],
    },
    Case {
        name: "orphan FIN-WAIT-2",
        state: "FIN-WAIT-2",
        rule: "tcp_fin_timeout=61: twice (61 - 60) s",
        script: "`sysctl -q net.ipv4.tcp_fin_timeout=61`\n+.01 close(4) = 0\n+.01 < . 1:1(0) ack 2 win 65535\n",
        answer: None,
        timers: &[1000, 1000],
    },
    Case {
        name: "orphan FIN-WAIT-2",
        state: "FIN-WAIT-2",
        rule: "tcp_fin_timeout=90: twice (90 - 60) s",
        script: "`sysctl -q net.ipv4.tcp_fin_timeout=90`\n+.01 close(4) = 0\n+.01 < . 1:1(0) ack 2 win 65535\n",
        answer: None,
        timers: &[30_000, 30_000],
    },
    Case {
        name: "TIME-WAIT",
        state: "TIME-WAIT",
        rule: "60 s, whatever tcp_fin_timeout says (3)",
        script: "`sysctl -q net.ipv4.tcp_fin_timeout=3`\n+.01 close(4) = 0\n+.01 < F. 1:1(0) ack 2 win 65535\n",
        answer: None,
        timers: &[60_000],
    },
    Case {
        name: "SYN-SENT, silent peer",
        state: "SYN-SENT",
        rule: "tcp_syn_retries=6, tcp_syn_linear_timeouts=4",
        script: "client",
        answer: None,
        timers: &[1000, 1000, 1000, 1000, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000],
    },
    Case {
        name: "SYN-RECV, silent peer",
        state: "SYN-RECV",
        rule: "tcp_synack_retries=5",
        script: "half-open",
        answer: None,
        timers: &[1000, 2000, 4000, 8000, 16_000, 32_000],
    },
];

impl Case {
    fn text(&self) -> String {
        match self.script {
            "client" => "0 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3\n\
                         +0 connect(3, ..., ...) = -1 EINPROGRESS\n"
                .to_owned(),
            "half-open" => SERVER.to_owned(),
            script => {
                let (settings, rest) = match script.strip_prefix('`').and_then(|rest| rest.split_once("`\n"))
                {
                    Some((settings, rest)) => (format!("`{settings}`\n"), rest),
                    None => (String::new(), script),
                };
                format!("{settings}{SERVER}{ACCEPT}{rest}")
            }
        }
    }

    /// What Linux's timers may add: one slot of the wheel each (specification 7), and a jiffy; where an RTO backs off, Linux
    /// has rounded it up to a jiffy before it doubled it, which adds up to 4 ms in 200.
    pub fn allowed(&self) -> Duration {
        let slot = |ms: &u32| match ms / 4 {
            0..63 => 4,
            63..504 => 32,
            504..4032 => 256,
            4032..32_256 => 2048,
            _ => 16_384,
        };
        let total: u64 = self.timers.iter().map(|ms| u64::from(*ms)).sum();
        let rounding = if self.timers.first() == Some(&204) { total * 4 / 200 } else { 0 };
        Duration::from_millis(4 + rounding + self.timers.iter().map(slot).sum::<u64>())
    }

    /// How long a host keeps the state.
    ///
    /// # Errors
    /// The state was not reached, or the host could not be asked.
    pub fn measure(&self, world: &World, target: &mut dyn Target) -> Result<Duration, Failure> {
        let script = parse(&self.text()).expect("a case is in the language");
        let answer =
            self.answer.map(|answer| parse(&format!("0 {answer}\n")).expect("an answer is in the language"));
        run::state_life(&script, answer.as_ref(), self.state, world, target)
    }
}

/// The world every case plays in.
pub fn world() -> World {
    let script = parse("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3").expect("a script");
    run::world_of(&script, Path::new("")).expect("defaults are understood")
}

/// Both hosts' measurements of a case; `Err`: what went wrong.
pub type Measured = (Case, Result<Duration, String>, Result<Duration, String>);

/// The stack agrees with what was measured on Linux.
pub fn agrees(case: &Case, linux: Duration, stack: Duration) -> bool {
    // The stack's timers are on time; Linux's never early (but for the jiffy in which the clock was read).
    let jiffy = Duration::from_millis(4);
    linux + jiffy + POLL >= stack && linux <= stack + case.allowed() + POLL
}

/// How often the tables are read.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// The page.
pub fn document(measured: &[Measured]) -> String {
    let mut out = String::from(
        "# How long a state lasts: Linux and the stack side by side\n\n\
         Made by `cargo run --release -p lastack-lab --example timing > docs/timing.md` (six minutes: the longest case is 330 s); \
         do not edit.\n\n\
         Both hosts are led into the state by the same script; their own tables say when the connection is gone. Linux 6.18 runs in \
         a namespace of its own in real time, all cases side by side; the stack runs in virtual time. Linux's timers are never early \
         and late by up to one slot of its timer wheel, which grows with the time to run (4 ms below 0.25 s, 32 ms below 2 s, \
         256 ms below 16 s, 2 s below 129 s, 16 s above); *allowed* is the sum over the timers of the case, one jiffy, and the 20 ms \
         between two looks at the tables; and where an RTO backs off, 2 % for Linux's rounding of the RTO to a jiffy before it \
         is doubled. The stack's timers fire when they are due.\n\n\
         | state | bounded by | Linux, s | stack, s | difference, s | allowed, s | |\n|---|---|---|---|---|---|---|\n",
    );
    for (case, linux, stack) in measured {
        let allowed = (case.allowed() + POLL).as_secs_f64();
        let line = match (linux, stack) {
            (Ok(linux), Ok(stack)) => {
                let verdict = if agrees(case, *linux, *stack) { "agree" } else { "**differ**" };
                let (l, s) = (linux.as_secs_f64(), stack.as_secs_f64());
                format!("{l:.3} | {s:.3} | {:+.3} | {allowed:.3} | {verdict}", l - s)
            }
            (linux, stack) => {
                let shown = |result: &Result<Duration, String>| match result {
                    Ok(time) => format!("{:.3}", time.as_secs_f64()),
                    Err(why) => why.clone(),
                };
                format!("{} | {} | - | {allowed:.3} | **not measured**", shown(linux), shown(stack))
            }
        };
        let _ = writeln!(out, "| {} | `{}` | {line} |", case.name, case.rule);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::StackTarget;

    /// Specification 3.5 and 13: the stack's own times, which need no kernel.
    #[test]
    fn the_stack_keeps_every_state_as_long_as_the_formula_says() {
        // A round trip of 2 ms: probe after 204 ms, RTO 202 ms; where the window closes a second one of 10 ms makes it 203 ms.
        let expected = [103.426, 1.618, 6.466, 327.67, 3.0, 60.0, 2.0, 60.0, 60.0, 131.0, 63.0];
        let world = world();
        for (case, expected) in CASES.iter().zip(expected) {
            let life = case.measure(&world, &mut StackTarget::new(&world)).expect("a state is reached");
            let apart = (life.as_secs_f64() - expected).abs();
            // The tables are read every 20 ms, and each round trip is a little more than its milliseconds.
            assert!(apart <= 0.02 + expected / 2000., "{} ({}): {life:?}", case.name, case.rule);
        }
    }
}
