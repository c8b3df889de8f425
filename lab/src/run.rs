//! The interpreter: plays the application and the peer of one script and judges what the host sends.
//!
//! Owns:    the event loop, the script's clock, and who is the connection under test.
//! Input:   a [`Script`] and a [`Target`].
//! Output:  `Ok`, or a [`Failure`] with expected and actual in script notation and the log so far.
//! Rules:   packet-script language, sections 3–9.
//! Differs: explicit ports choose (or make) a connection, so that a script can have several; code blocks are
//!          judged when reached; `check_ts_ecr` compares echoes; TCP checksums are verified.

mod calls;
mod compare;
mod control;
mod directive;
mod failure;
mod flow;
mod life;
mod live;
mod options;
mod packets;
mod record;

use core::time::Duration;
use std::collections::BTreeMap;
use std::path::Path;

pub use failure::{Failure, FailureKind};
pub use life::state_life;
pub use options::RunOptions;
pub use record::{Recorded, Recording, TAIL, record, record_whole, record_with_state};

use crate::script::assertion::{self, Variables};
use crate::script::ast::{Action, Event, Script, When};
use crate::script::print::{action_text, seconds};
use crate::target::{Fd, Target, World};
use directive::Directive;
use flow::Flow;

/// The world a script asks for, to make its target with.
///
/// # Errors
/// An option whose value is not understood.
pub fn world_of(script: &Script, path: &Path) -> Result<World, Failure> {
    RunOptions::of(script).and_then(|options| options.world(path)).map_err(Failure::invalid_option)
}

/// Runs `script` against `target`.
///
/// # Errors
/// The first thing that is not as the script says.
pub fn run(script: &Script, world: &World, target: &mut dyn Target) -> Result<(), Failure> {
    let options = RunOptions::of(script).map_err(Failure::invalid_option)?;
    let mut run = Run::new(script, world, options, target);
    let result = run.play();
    let result = result.map_err(|failure| run.finish_failure(failure));
    run.end();
    let cleanup = script.cleanup.as_deref().map_or(Ok(()), |text| run.command(text));
    result.and(cleanup.map_err(|failure| run.finish_failure(failure)))
}

struct Run<'a> {
    script: &'a Script,
    world: &'a World,
    options: RunOptions,
    target: &'a mut dyn Target,
    /// The target's clock at the script's time 0.
    origin: Duration,
    /// Line of the event being played.
    line: u32,
    /// What happened, for failures.
    log: Vec<String>,
    fds: BTreeMap<i64, Fd>,
    flows: Vec<Flow>,
    /// Index of the connection under test.
    current: Option<usize>,
    /// Port of the last `bind`.
    bound_port: u16,
    pending: Option<calls::Pending>,
    variables: Variables,
    /// How long a recording watches the host after the last event.
    tail: Duration,
    /// A recording's call is blocked.
    waits: bool,
}

/// Where an event stands in time, on the script's clock.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    from: Duration,
    to: Duration,
    /// `*`
    any: bool,
    tolerance: Duration,
}

impl<'a> Run<'a> {
    fn new(script: &'a Script, world: &'a World, options: RunOptions, target: &'a mut dyn Target) -> Self {
        Self {
            script,
            world,
            bound_port: options.bind_port,
            options,
            target,
            origin: Duration::ZERO,
            line: 0,
            log: Vec::new(),
            fds: BTreeMap::new(),
            flows: Vec::new(),
            current: None,
            pending: None,
            variables: assertion_constants(),
            tail: TAIL,
            waits: false,
        }
    }

    fn play(&mut self) -> Result<(), Failure> {
        if let Some(init) = &self.script.init {
            self.command(init)?;
        }
        self.origin = self.target.now();
        let mut previous: Option<(&Event, Schedule)> = None;
        let mut reference = Duration::ZERO;
        for event in &self.script.events {
            self.line = event.line;
            let schedule = self.schedule(event, previous, reference);
            let finished = self.event(event, schedule)?;
            // What has happened by now counts, not what was planned; a packet has happened when it left.
            reference = finished.unwrap_or_else(|| self.now());
            previous = Some((event, schedule));
        }
        self.finish_pending()
    }

    fn now(&mut self) -> Duration {
        self.target.now().saturating_sub(self.origin)
    }

    fn schedule(&self, event: &Event, previous: Option<(&Event, Schedule)>, reference: Duration) -> Schedule {
        let before = previous.map_or(Duration::ZERO, |(_, schedule)| schedule.from);
        // Trains of inbound packets do not drift.
        let train = |event: &Event| matches!(event.action, Action::Inbound(_));
        let reference = match previous {
            Some((last, schedule)) if train(last) && train(event) => schedule.from,
            _ => reference,
        };
        let (from, to, any) = match event.when {
            When::At(at) => (at, at, false),
            When::After(after) => (reference + after, reference + after, false),
            When::Between(from, to) => (from, to, false),
            When::AfterBetween(from, to) => (reference + from, reference + to, false),
            When::Any => (reference, reference, true),
        };
        Schedule { from, to, any, tolerance: self.options.tolerance(from.saturating_sub(before)) }
    }

    /// Plays one event. `Some`: it happened at this time rather than now.
    fn event(&mut self, event: &Event, schedule: Schedule) -> Result<Option<Duration>, Failure> {
        if let Action::Outbound(packet) = &event.action {
            let at = self.expect_packet(packet, schedule)?;
            self.note(at, &action_text(&event.action));
            return Ok((!schedule.any).then_some(at));
        }
        self.wait(schedule)?;
        let at = self.now();
        self.note(at, &action_text(&event.action));
        match &event.action {
            Action::Inbound(packet) => self.inject_packet(packet)?,
            Action::Call(call) => self.call(call, event, schedule)?,
            Action::Command(text) => self.command(text)?,
            Action::Code(text) => self.code(text)?,
            Action::Outbound(_) => unreachable!("returned above"),
        }
        Ok(None)
    }

    /// Waits for the time of something this side does. Being late is the machine's fault, not the host's.
    fn wait(&mut self, schedule: Schedule) -> Result<(), Failure> {
        self.target.sleep_until(self.origin + schedule.from);
        let now = self.now();
        if now > schedule.to + schedule.tolerance {
            let message = format!(
                "the lab itself was late: due at {}, now {} (tolerance {})",
                seconds(schedule.from),
                seconds(now),
                seconds(schedule.tolerance)
            );
            return Err(self.failure(FailureKind::Late, message));
        }
        Ok(())
    }

    fn code(&mut self, text: &str) -> Result<(), Failure> {
        let fd = self.current.and_then(|at| self.flows[at].fd);
        if let Some(fd) = fd {
            let facts =
                self.target.socket_info(fd).map_err(|error| self.failure(FailureKind::Script, error.0))?;
            self.variables.extend(facts);
        }
        let mut variables = core::mem::take(&mut self.variables);
        let result = assertion::run(text, &mut variables);
        self.variables = variables;
        result.map_err(|error| {
            let kind = match error {
                assertion::AssertionError::Failed { .. } => FailureKind::Mismatch,
                assertion::AssertionError::Invalid(_) => FailureKind::Script,
            };
            self.failure(kind, error.to_string())
        })
    }

    fn command(&mut self, text: &str) -> Result<(), Failure> {
        let directives =
            directive::recognise(text).map_err(|message| self.failure(FailureKind::Script, message))?;
        for directive in directives {
            match directive {
                Directive::Apply(setting) => {
                    self.target
                        .apply(&setting)
                        .map_err(|error| self.failure(FailureKind::Command, error.0))?;
                }
                Directive::Counter { name, expected } => self.check_counter(&name, expected)?,
                Directive::State { state, timer } => self.check_state(state, timer)?,
            }
        }
        Ok(())
    }

    fn check_counter(&mut self, name: &str, expected: u64) -> Result<(), Failure> {
        let actual = self.target.counter(name).map_err(|error| self.failure(FailureKind::Script, error.0))?;
        if actual == expected {
            return Ok(());
        }
        Err(self.mismatch(
            "a counter is not as expected",
            format!("{name}={expected}"),
            format!("{name}={actual}"),
        ))
    }

    fn check_state(&mut self, state: Option<String>, timer: Option<String>) -> Result<(), Failure> {
        let Some(flow) = self.current.map(|at| &self.flows[at]) else {
            return Err(self.failure(FailureKind::Script, "no connection is under test".to_owned()));
        };
        let (local, remote) = (flow.local, flow.remote);
        let facts = self
            .target
            .socket_state(local, remote)
            .map_err(|error| self.failure(FailureKind::Command, error.0))?;
        let shown = |state: Option<&str>, timer: Option<&str>| {
            let timer = timer.map(|timer| format!(" timer {timer}")).unwrap_or_default();
            format!("{}{timer}", state.unwrap_or("none"))
        };
        let actual_state = facts.map(|facts| facts.state.name());
        let actual_timer = facts.map(|facts| facts.timer.map_or("off", |timer| timer.name()));
        let agrees =
            state.as_deref() == actual_state && (timer.is_none() || timer.as_deref() == actual_timer);
        if agrees {
            return Ok(());
        }
        Err(self.mismatch(
            "the socket's state is not as expected",
            shown(state.as_deref(), timer.as_deref()),
            shown(actual_state, actual_timer.filter(|_| timer.is_some())),
        ))
    }

    fn note(&mut self, at: Duration, text: &str) {
        self.log.push(format!("{:>4}:  {:>12}  {text}", self.line, format!("{:.6}", at.as_secs_f64())));
    }

    fn failure(&self, kind: FailureKind, message: String) -> Failure {
        Failure { kind, line: self.line, message, expected: None, actual: None, log: Vec::new() }
    }

    fn mismatch(&self, message: &str, expected: String, actual: String) -> Failure {
        Failure {
            expected: Some(expected),
            actual: Some(actual),
            ..self.failure(FailureKind::Mismatch, message.to_owned())
        }
    }

    fn finish_failure(&mut self, failure: Failure) -> Failure {
        Failure { log: core::mem::take(&mut self.log), ..failure }
    }
}

/// The names a code block knows without a socket.
fn assertion_constants() -> Variables {
    const NAMES: [(&str, i128); 26] = [
        ("TCP_ESTABLISHED", 1),
        ("TCP_SYN_SENT", 2),
        ("TCP_SYN_RECV", 3),
        ("TCP_FIN_WAIT1", 4),
        ("TCP_FIN_WAIT2", 5),
        ("TCP_TIME_WAIT", 6),
        ("TCP_CLOSE", 7),
        ("TCP_CLOSE_WAIT", 8),
        ("TCP_LAST_ACK", 9),
        ("TCP_LISTEN", 10),
        ("TCP_CLOSING", 11),
        ("TCP_CA_Open", 0),
        ("TCP_CA_Disorder", 1),
        ("TCP_CA_CWR", 2),
        ("TCP_CA_Recovery", 3),
        ("TCP_CA_Loss", 4),
        ("TCPI_OPT_TIMESTAMPS", 1),
        ("TCPI_OPT_SACK", 2),
        ("TCPI_OPT_WSCALE", 4),
        ("TCPI_OPT_ECN", 8),
        ("TCPI_OPT_ECN_SEEN", 16),
        ("TCPI_OPT_SYN_DATA", 32),
        ("TCPI_OPT_USEC_TS", 64),
        ("TCPI_OPT_TFO_CHILD", 128),
        ("TCP_INFINITE_SSTHRESH", 0x7fff_ffff),
        ("TCP_NEW_SYN_RECV", 12),
    ];
    NAMES.into_iter().map(|(name, value)| (name.to_owned(), assertion::Value::Int(value))).collect()
}
