//! Watching: how long a connection stays in a state, by the host's own tables.
//!
//! Input:   a script that leads there, and what the peer answers to each packet afterwards.

use core::time::Duration;

use super::{Failure, FailureKind, Run, RunOptions};
use crate::script::Script;
use crate::script::ast::Action;
use crate::target::{Target, World};

/// Between two looks at the tables.
const LOOK: Duration = crate::timing::POLL;
/// A state that lasts longer is not bounded.
const PATIENCE: Duration = Duration::from_secs(600);

/// Plays `script` and gives the time from its last event until the connection is no longer in `state`; the peer answers
/// every packet in between with the one event of `answer`.
///
/// # Errors
/// The state was not reached, or lasts longer than ten minutes.
pub fn state_life(
    script: &Script,
    answer: Option<&Script>,
    state: &str,
    world: &World,
    target: &mut dyn Target,
) -> Result<Duration, Failure> {
    let options = RunOptions::of(script).map_err(Failure::invalid_option)?;
    let mut run = Run::new(script, world, options, target);
    let result = run.watch(answer, state);
    run.end();
    result
}

impl Run<'_> {
    fn watch(&mut self, answer: Option<&Script>, state: &str) -> Result<Duration, Failure> {
        self.tail = Duration::ZERO;
        self.play_recording(&mut Vec::new())?;
        let begun = self.now();
        let answer = answer.and_then(|answer| match &answer.events.first()?.action {
            Action::Inbound(packet) => Some(packet.clone()),
            _ => None,
        });
        let mut seen = false;
        loop {
            let pair = self.current.map(|at| (self.flows[at].local, self.flows[at].remote));
            let Some((local, remote)) = pair else {
                return Err(self.failure(FailureKind::Script, "no connection is under test".to_owned()));
            };
            let facts = self.target.socket_state(local, remote);
            let facts = facts.map_err(|error| self.failure(FailureKind::Target, error.0))?;
            let is = facts.is_some_and(|facts| facts.state.name() == state);
            let now = self.now();
            match (is, seen) {
                (true, _) => seen = true,
                (false, true) => return Ok(now.saturating_sub(begun)),
                (false, false) if now > begun + Duration::from_secs(1) => {
                    return Err(self.failure(FailureKind::Mismatch, format!("{state} was never reached")));
                }
                (false, false) => {}
            }
            if now > begun + PATIENCE {
                return Err(self.failure(FailureKind::Mismatch, format!("{state} does not end")));
            }
            let mut packets = Vec::new();
            self.collect(now + LOOK, &mut packets)?;
            if let Some(answer) = &answer {
                for _ in packets.iter().filter(|entry| entry.text.starts_with("> ")) {
                    self.inject_packet(answer)?;
                }
            }
        }
    }
}
