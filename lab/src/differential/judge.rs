//! Both hosts play a script; do they answer alike?

use core::time::Duration;
use std::path::Path;

use lastack_core::observe::Counters;

use super::compare::{Difference, first_difference};
use crate::kernel::with_kernel;
use crate::run::{self, Failure, FailureKind, Recording, TAIL};
use crate::script::Script;
use crate::script::ast::{Action, Body, Event, Packet, When};
use crate::stack::StackTarget;
use crate::target::TargetError;

/// How a script was answered.
#[derive(Clone, PartialEq, Debug)]
pub enum Judgement {
    /// Alike.
    Same,
    /// Alike when the stack is asked a little earlier or later: something depended on a timer's last milliseconds.
    SameLater,
    /// Linux answered differently from one time to the next.
    Unsteady,
    /// The script could not be played, and why.
    Unplayable(String),
    /// Linux gave this answer twice, the stack another one.
    Different(Box<(Difference, Recording)>),
}

/// Asks both hosts.
#[derive(Debug)]
pub struct Judge {
    counters: Vec<String>,
}

/// Counters that say how a host works inside, or that are not a script's doing.
const NOT_COMPARED: &[&str] = &[
    "TcpExtTCPHPHits",
    "TcpExtTCPHPAcks",
    "TcpExtTCPPureAcks",
    "TcpExtTCPBacklogCoalesce",
    "TcpExtTCPAutoCorking",
    "TcpExtTCPWantZeroWindowAdv",
    "TcpExtTCPKeepAlive",
];

/// The wheel's slot for timers of 2 to 16 seconds: where in it the machine's clock was when a script began is not known, and
/// decides how late each timer of the script is.
const SLOT_MS: u64 = 256;

/// One jiffy at HZ=250.
const TICK_MS: u64 = 4;

/// Times the kernel is asked when the lab itself was late.
const ATTEMPTS: u32 = 6;

impl Default for Judge {
    fn default() -> Self {
        let named = |info: &lastack_core::observe::CounterInfo| format!("{}{}", info.group, info.name);
        let mut counters: Vec<String> =
            Counters::INFO.iter().filter(|info| matches!(info.group, "Tcp" | "TcpExt")).map(named).collect();
        counters.retain(|name| !NOT_COMPARED.contains(&name.as_str()));
        Self { counters }
    }
}

impl Judge {
    /// Plays `script` to both.
    ///
    /// # Errors
    /// The kernel target cannot be made here.
    pub fn judge(&self, script: &Script) -> Result<Judgement, TargetError> {
        let stack = match self.ask_stack(script) {
            Ok(recording) => recording,
            Err(failure) if failure.kind == FailureKind::Mismatch => {
                let what = "the stack panicked".to_owned();
                let difference = Difference { what, kernel: String::new(), stack: failure.message };
                return Ok(Judgement::Different(Box::new((difference, Recording::default()))));
            }
            Err(failure) => return Ok(Judgement::Unplayable(failure.message)),
        };
        let first = match self.ask_kernel(script)? {
            Ok(recording) => recording,
            Err(failure) => return Ok(Judgement::Unplayable(failure.message)),
        };
        if first_difference(&first, &stack).is_none() {
            return Ok(Judgement::Same);
        }
        if self.is_answered_later(script, &first) {
            return Ok(Judgement::SameLater);
        }
        let again = match self.ask_kernel(script)? {
            Ok(recording) => recording,
            Err(failure) => return Ok(Judgement::Unplayable(failure.message)),
        };
        match first_difference(&again, &stack) {
            None => Ok(Judgement::SameLater),
            Some(_) if self.is_answered_later(script, &again) => Ok(Judgement::SameLater),
            Some(_) if first_difference(&again, &first).is_some() => Ok(Judgement::Unsteady),
            Some(difference) => Ok(Judgement::Different(Box::new((difference, again)))),
        }
    }

    /// Linux's answer.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn kernel(&self, script: &Script) -> Result<Recording, TargetError> {
        self.ask_kernel(script)?.map_err(|failure| TargetError(failure.message))
    }

    /// Both answers as text, Linux's first.
    ///
    /// # Errors
    /// One of them cannot be asked.
    pub fn both(&self, script: &Script) -> Result<[String; 2], TargetError> {
        let failed = |failure: Failure| TargetError(failure.message);
        let kernel = self.ask_kernel(script)?.map_err(failed)?;
        let stack = self.ask_stack(script).map_err(failed)?;
        let shown = |recording: &Recording| {
            let entry = |entry: &run::Recorded| {
                format!("{:>9.6} {:>3}: {}\n", entry.at.as_secs_f64(), entry.line, entry.text)
            };
            let counts = recording.counters.iter().filter(|(_, value)| *value > 0);
            let counts: String = counts.map(|(name, value)| format!(" {name}={value}")).collect();
            let entries: String = recording.entries.iter().map(entry).collect();
            format!("{entries}state {}{counts}\n", recording.state.unwrap_or("none"))
        };
        Ok([shown(&kernel), shown(&stack)])
    }

    /// The stack gives this answer when its timers are as late as the kernel's, or when the same events come a little
    /// earlier or later (the lab was late).
    fn is_answered_later(&self, script: &Script, kernel: &Recording) -> bool {
        let shifted = [-0.001, 0.001, 0.004].into_iter().map(|shift| (shift, None));
        let late = (0..SLOT_MS).flat_map(|phase| {
            [0., 0.001].into_iter().map(move |shift| (shift, Some(Duration::from_millis(phase))))
        });
        let is_answer = |script: &Script, phase| {
            self.ask_stack_so(script, phase).is_ok_and(|stack| first_difference(kernel, &stack).is_none())
        };
        if shifted.chain(late).any(|(shift, phase)| is_answer(&shifted_by(script, shift), phase)) {
            return true;
        }
        // Linux measures a longer round trip than the script says, and its time-outs are whole ticks, doubled with each repeat.
        let slow = (1..=TICK_MS).map(|late| with_late_handshake(script, Duration::from_millis(late)));
        slow.into_iter()
            .any(|script| (0..SLOT_MS).any(|phase| is_answer(&script, Some(Duration::from_millis(phase)))))
    }

    fn ask_stack(&self, script: &Script) -> Result<Recording, Failure> {
        self.ask_stack_so(script, None)
    }

    /// `phase`: with timers as late as the kernel's.
    fn ask_stack_so(&self, script: &Script, phase: Option<Duration>) -> Result<Recording, Failure> {
        let world = run::world_of(script, Path::new(""))?;
        let play = || {
            let mut target = match phase {
                Some(phase) => StackTarget::with_late_timers(&world, phase),
                None => StackTarget::new(&world),
            };
            run::record_whole(script, &world, &mut target, TAIL, &self.counters)
        };
        std::panic::catch_unwind(play).unwrap_or_else(|panic| Err(crate::runner::panicked(&*panic)))
    }

    /// Linux's answer; the outer error says that there is no kernel target here.
    fn ask_kernel(&self, script: &Script) -> Result<Result<Recording, Failure>, TargetError> {
        let world = match run::world_of(script, Path::new("")) {
            Ok(world) => world,
            Err(failure) => return Ok(Err(failure)),
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            let play = |target: &mut crate::kernel::KernelTarget| {
                run::record_whole(script, &world, target, TAIL, &self.counters)
            };
            match with_kernel(&world, play)? {
                Err(failure) if failure.kind == FailureKind::Late && attempts < ATTEMPTS => {}
                result => return Ok(result),
            }
        }
    }
}

/// The same script with gaps longer by `shift` seconds; short ones stay.
fn shifted_by(script: &Script, shift: f64) -> Script {
    let mut script = script.clone();
    for event in &mut script.events {
        if let When::After(gap) = event.when
            && gap >= Duration::from_millis(5)
        {
            event.when = When::After(Duration::from_secs_f64((gap.as_secs_f64() + shift).max(0.001)));
        }
    }
    script
}

/// The same script with the first ACK, which ends the handshake's round trip, later by `late`; what follows is where it was.
fn with_late_handshake(script: &Script, late: Duration) -> Script {
    let mut script = script.clone();
    let is_first_ack = |event: &Event| matches!(&event.action, Action::Inbound(Packet { body: Body::Tcp(tcp), .. }) if tcp.flags.ack());
    let Some(at) = script.events.iter().position(is_first_ack) else { return script };
    let mut owed = late;
    for (place, event) in script.events[at..].iter_mut().enumerate() {
        let When::After(gap) = &mut event.when else { break };
        if place == 0 {
            *gap += late;
        } else {
            let paid = owed.min(*gap);
            *gap -= paid;
            owed -= paid;
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::parse;
    use crate::script::print::print;

    #[test]
    fn only_the_first_ack_comes_later() {
        let text = "0 close(1) = 0\n+0.01 < S 0:0(0) win 1\n+0.01 < . 1:1(0) ack 1 win 1\n+0.002 close(2) = 0\n\
                    +0 close(3) = 0\n+0.01 close(4) = 0\n+0.01 close(5) = 0\n";
        let late = with_late_handshake(&parse(text).unwrap(), Duration::from_millis(3));
        let expected = "0 close(1) = 0\n+0.01 < S 0:0(0) win 1\n+0.013 < . 1:1(0) ack 1 win 1\n+0 close(2) = 0\n\
                        +0 close(3) = 0\n+0.009 close(4) = 0\n+0.01 close(5) = 0\n";
        assert_eq!(print(&late), print(&parse(expected).unwrap()));
    }
}
