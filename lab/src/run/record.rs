//! Recording: plays a script's own side at fixed times and writes down what the host does, without judging it.
//!
//! Input:   a script whose `>` lines are ignored; `%{ … }%` blocks ask for the socket's facts.
//! Output:  [`Recorded`] entries on the script's clock; two hosts given the same script can be compared.
//! Differs: times are a timeline fixed beforehand (each event after the one before it), so that both hosts get the
//!          same stimuli at the same moments whatever they answer.

use core::time::Duration;

use super::calls::names_fd;
use super::{Failure, FailureKind, Run, RunOptions};
use crate::packet::{TcpOption, WirePacket};
use crate::script::Script;
use crate::script::assertion::Value;
use crate::script::ast::{Action, Body, Event, IpInfo, OptionsSpec, Packet, TcpSpec, When};
use crate::script::print::{action_text, packet_text};
use crate::script::symbols::errno_name;
use crate::target::{Outcome, Target, World};

/// What happened, and when.
#[derive(Clone, PartialEq, Debug)]
pub struct Recorded {
    /// On the script's clock.
    pub at: Duration,
    /// Line of the event that came before it.
    pub line: u32,
    /// `> …`, a call with its result, or facts.
    pub text: String,
    /// What a call gave.
    pub outcome: Option<Outcome>,
}

/// Fields of `TCP_INFO` that a code block records.
const FACTS: [&str; 32] = [
    "state",
    "ca_state",
    "retransmits",
    "probes",
    "backoff",
    "snd_cwnd",
    "snd_ssthresh",
    "unacked",
    "sacked",
    "lost",
    "retrans",
    "reordering",
    "snd_mss",
    "rcv_mss",
    "notsent_bytes",
    "delivered",
    "advmss",
    "pmtu",
    "snd_wnd",
    "reord_seen",
    "dsack_dups",
    "rcv_ooopack",
    "segs_in",
    "segs_out",
    "data_segs_in",
    "data_segs_out",
    "bytes_sent",
    "bytes_acked",
    "bytes_received",
    "bytes_retrans",
    "total_rto",
    "total_rto_recoveries",
];

/// A recording with what the host's tables said at its end.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Recording {
    /// What happened, in order.
    pub entries: Vec<Recorded>,
    /// State of the last connection; `None`: it is gone.
    pub state: Option<&'static str>,
    /// The counters that were asked for and that the host has.
    pub counters: Vec<(String, u64)>,
}

/// Plays `script` against `target` and records its answers.
///
/// # Errors
/// The script makes no sense, or the lab itself was late.
pub fn record(script: &Script, world: &World, target: &mut dyn Target) -> Result<Vec<Recorded>, Failure> {
    record_whole(script, world, target, TAIL, &[]).map(|recording| recording.entries)
}

/// The same, and the state of the last connection when the recording ends; `None`: it is gone.
///
/// # Errors
/// As [`record`].
pub fn record_with_state(
    script: &Script,
    world: &World,
    target: &mut dyn Target,
) -> Result<(Vec<Recorded>, Option<&'static str>), Failure> {
    let recording = record_whole(script, world, target, Duration::ZERO, &[])?;
    Ok((recording.entries, recording.state))
}

/// How long a recording watches the host after the last event, unless told otherwise.
pub const TAIL: Duration = Duration::from_millis(500);

/// The same with the state, and with these counters (`nstat`'s names), read after `tail`.
///
/// # Errors
/// As [`record`].
pub fn record_whole(
    script: &Script,
    world: &World,
    target: &mut dyn Target,
    tail: Duration,
    counters: &[String],
) -> Result<Recording, Failure> {
    let options = RunOptions::of(script).map_err(Failure::invalid_option)?;
    let mut run = Run::new(script, world, options, target);
    run.options.ts_ecr_scaled = true;
    run.tail = tail;
    let mut entries = Vec::new();
    let result = run.play_recording(&mut entries);
    // That a blocked call returned is learnt when the host is asked next, which may be after packets that came later.
    entries.sort_by_key(|entry| entry.at);
    let pair = run.current.map(|at| (run.flows[at].local, run.flows[at].remote));
    let facts = pair.map(|(local, remote)| run.target.socket_state(local, remote));
    let facts = facts.transpose().map_err(|error| run.failure(FailureKind::Command, error.0));
    let counters = counters
        .iter()
        .filter_map(|name| run.target.counter(name).ok().map(|value| (name.clone(), value)))
        .collect();
    run.end();
    result?;
    Ok(Recording { entries, state: facts?.flatten().map(|facts| facts.state.name()), counters })
}

impl Run<'_> {
    pub(super) fn play_recording(&mut self, out: &mut Vec<Recorded>) -> Result<(), Failure> {
        if let Some(init) = &self.script.init {
            self.command(init)?;
        }
        self.origin = self.target.now();
        let mut due = Duration::ZERO;
        for event in &self.script.events {
            due = match event.when {
                When::At(at) => at,
                When::After(after) if !matches!(event.action, Action::Outbound(_)) => due + after,
                _ => continue,
            };
            self.collect(due, out)?;
            self.line = event.line;
            let late = self.now().saturating_sub(due);
            if late > self.options.tolerance(Duration::ZERO) {
                return Err(self.failure(FailureKind::Late, format!("the lab itself was late by {late:?}")));
            }
            self.act(event, out)?;
        }
        self.collect(due + self.tail, out)
    }

    /// Everything the host sends until `until`.
    pub(super) fn collect(&mut self, until: Duration, out: &mut Vec<Recorded>) -> Result<(), Failure> {
        let deadline = self.origin + until;
        loop {
            let now = self.target.now();
            if let Some(done) = self.target.await_call(now) {
                self.waits = false;
                let at = done.at.saturating_sub(self.origin);
                let text = format!("returned {}", result_text(&done.outcome));
                out.push(Recorded { outcome: Some(done.outcome), ..self.recorded(at, text) });
            }
            let received = self.target.receive(deadline);
            let sent = received.map_err(|error| self.failure(FailureKind::Target, error.0))?;
            let Some(sent) = sent else { return Ok(()) };
            let at = sent.at.saturating_sub(self.origin);
            match WirePacket::parse(&sent.bytes) {
                Ok(WirePacket::Tcp(live)) => {
                    let local = core::net::SocketAddr::new(live.ip.src, live.src_port);
                    let remote = core::net::SocketAddr::new(live.ip.dst, live.dst_port);
                    let owner = self.flows.iter().rposition(|flow| {
                        flow.is_between(local, remote) || flow.awaits_first_syn && flow.remote == remote
                    });
                    let Some(owner) = owner else { continue };
                    let flow = &mut self.flows[owner];
                    flow.awaits_first_syn = false;
                    flow.local = local;
                    let options = flow.name_timestamps(&live.options);
                    flow.learn(&live, 0, Some(&options));
                    let shown = flow.to_script(&live);
                    let options = shown.options.iter().map(without_clock).collect();
                    let spec = TcpSpec {
                        ports: (owner + 1 != self.flows.len()).then_some((live.src_port, live.dst_port)),
                        flags: shown.flags,
                        ace: None,
                        seq: shown.seq,
                        len: shown.len,
                        ack: shown.ack,
                        win: Some(shown.win),
                        urg: shown.urg,
                        options: OptionsSpec::Exactly(options),
                    };
                    let packet = Packet { ip: IpInfo::default(), body: Body::Tcp(spec) };
                    out.push(self.recorded(at, format!("> {}", packet_text(&packet))));
                }
                Ok(WirePacket::Icmp(icmp)) => {
                    out.push(self.recorded(at, format!("> icmp type_{} code_{}", icmp.kind, icmp.code)));
                }
                Ok(WirePacket::Udp(_) | WirePacket::Other(_)) => {}
                Err(malformed) => out.push(self.recorded(at, format!("> broken: {malformed}"))),
            }
        }
    }

    fn recorded(&self, at: Duration, text: String) -> Recorded {
        Recorded { at, line: self.line, text, outcome: None }
    }

    fn act(&mut self, event: &Event, out: &mut Vec<Recorded>) -> Result<(), Failure> {
        let at = self.now();
        match &event.action {
            Action::Inbound(packet) => self.inject_packet(packet)?,
            Action::Call(call) => {
                let text = action_text(&event.action);
                let asked = text.split(" = ").next().unwrap_or_default();
                // One application thread: while a call blocks there is no other. A call on what was never opened
                // cannot be made on any host.
                if self.waits || self.live_call(call).is_err() {
                    out.push(self.recorded(at, format!("{asked} = not made")));
                    return Ok(());
                }
                let outcome = self.make_call(call)?;
                self.waits = outcome.is_none();
                let shown = match &outcome {
                    // Which number a descriptor gets is the host's business; a script has its own.
                    Some(outcome) if names_fd(call) && outcome.value >= 0 => "open".to_owned(),
                    Some(outcome) => result_text(outcome),
                    None => "blocks".to_owned(),
                };
                let text = format!("{asked} = {shown}");
                out.push(Recorded { outcome, ..self.recorded(at, text) });
            }
            Action::Command(text) => self.command(text)?,
            Action::Code(_) => {
                let fd = self.current.and_then(|at| self.flows[at].fd);
                let facts = fd.and_then(|fd| self.target.socket_info(fd).ok());
                let Some(facts) = facts else { return Ok(()) };
                let value = |name: &&str| match facts.get(&format!("tcpi_{name}")) {
                    Some(Value::Int(value)) => format!("{name}:{value}"),
                    _ => format!("{name}:?"),
                };
                let text = FACTS.iter().map(value).collect::<Vec<_>>().join(" ");
                out.push(self.recorded(at, text));
            }
            Action::Outbound(_) => {}
        }
        Ok(())
    }
}

fn result_text(outcome: &crate::target::Outcome) -> String {
    use crate::target::{Control, Output};
    let value = if outcome.value < 0 { errno_name(outcome.errno) } else { outcome.value.to_string() };
    match &outcome.output {
        Output::None | Output::Peer(_) => value,
        Output::Bytes(bytes) => format!("{value} {bytes:?}"),
        Output::Message { flags, control } => {
            let clockless = |message: &Control| match message {
                Control::Timestamp(_) => "Timestamp".to_owned(),
                other => format!("{other:?}"),
            };
            let control: Vec<String> = control.iter().map(clockless).collect();
            format!("{value} flags {flags:#x} {}", control.join(" "))
        }
        other => format!("{value} {other:?}"),
    }
}

/// The host's clock differs from run to run; what it echoes does not.
fn without_clock(option: &TcpOption) -> TcpOption {
    match option {
        TcpOption::Timestamps { ecr, .. } => TcpOption::Timestamps { val: 0, ecr: *ecr },
        other => other.clone(),
    }
}
