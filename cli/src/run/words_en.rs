//! Explanations in English.

use std::net::IpAddr;

use lastack_gateway::inject::{Event, Injected};
use lastack_gateway::journal::{
    Certainty, ClosedBy, Connection, Direction, Flow, FlowEnd, FlowProtocol, How, Reason,
};
use lastack_gateway::limits::{Limit, Reached};

use lastack_core::error::errno::ENETUNREACH;

use super::words::{Explanation, bytes, only_the_cause_is_uncertain, time};

const DRAIN: &str =
    "read to end of file before close, or shutdown(SHUT_WR) and read until the other end has closed";
const DRAIN_IF_YOURS: &str =
    "if the server is yours: read to end of file before close, or shutdown(SHUT_WR) and drain";
const DRAIN_IF_YOUR_CLIENT: &str =
    "if the client is yours: read to end of file before close, or shutdown(SHUT_WR) and drain";

pub(super) fn explain(c: &Connection) -> Explanation {
    let program = c.owner.as_ref().map_or("the program", |owner| &*owner.process);
    let mut explanation = ending(c, program);
    if !only_the_cause_is_uncertain(c) {
        explanation.text.insert_str(0, known_by(c.verdict.certainty));
    }
    if let Some(injected) = c.injected {
        explanation.text = format!("{} {}", forced(injected, program), explanation.text);
    }
    if c.lost_up > 0 {
        let lost = bytes(c.lost_up);
        explanation.text += &format!(
            " {lost} that {program} had sent and seen acknowledged were never acknowledged by the remote end's kernel."
        );
    }
    if c.lost_down > 0 {
        let lost = bytes(c.lost_down);
        explanation.text +=
            &format!(" {lost} that the remote end had sent were never acknowledged by {program}'s kernel.");
    }
    explanation
}

/// What stands before a claim that was not seen.
const fn known_by(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Observed => "",
        Certainty::Inferred => "Inferred: ",
        Certainty::Possible => "Possible: ",
    }
}

/// What `--inject` did.
fn forced(injected: Injected, program: &str) -> String {
    let what = match injected.event {
        Event::Reset => format!("both ends got RST; {program} saw ECONNRESET."),
        Event::Stall => format!("nothing was read or written any more; {program} saw a peer that is frozen."),
        Event::ZeroWindow => {
            format!("the window was 0 from then on; {program}'s kernel can send no more and only probes it.")
        }
        Event::BlackHole => {
            format!(
                "its packets vanished; {program}'s kernel sends again and again until it gives up (ETIMEDOUT)."
            )
        }
        Event::HalfOpen => {
            format!(
                "the connection was forgotten without a word; {program}'s next packet gets RST (ECONNRESET)."
            )
        }
    };
    let (at, carried) = (time(injected.at_us), bytes(injected.bytes));
    format!("Forced by --inject {} after {at} and {carried}: {what}", injected.event.name())
}

fn ending(c: &Connection, program: &str) -> Explanation {
    let verdict = c.verdict;
    let to = c.host_remote.unwrap_or(c.remote);
    match (verdict.how, verdict.reason) {
        (How::Fin, _) => Explanation::new(
            match verdict.closed_by {
                ClosedBy::Program => format!(
                    "{program} closed first (FIN), the remote end followed. TIME-WAIT is on {program}'s side, in its kernel, for 60 s."
                ),
                ClosedBy::Remote => format!(
                    "The remote end closed first (FIN), {program} followed. TIME-WAIT is on the remote end's side."
                ),
                _ => format!(
                    "{program} and the remote end closed at the same time: each sent FIN before it had the other's."
                ),
            },
            None,
        ),
        (How::Reset, reason) => reset(c, program, reason),
        (How::Refused, Some(Reason::ProgramGone)) => {
            Explanation::new(format!("{program} was gone before the connection was made."), None)
        }
        (How::Refused, Some(Reason::ConnectionLimit)) => Explanation::new(
            "As many connections as --max-connections allows were open: this one was refused.",
            Some("a higher --max-connections, or close what is idle: lastack ss --source NAME"),
        ),
        (How::Refused, Some(Reason::HostLimit)) => Explanation::new(
            "No source port was free for it inside: it was refused.",
            Some("look at lastack ss --source NAME: one client has tens of thousands of connections"),
        ),
        (How::Refused, Some(Reason::ListensOnLoopback)) => Explanation::new(
            format!(
                "{program} listens on its own loopback (127.0.0.1 or ::1), where nobody outside can come: nobody listens on {}. The client saw ECONNRESET, because this host had taken its connection already.",
                c.local
            ),
            Some("let it listen on 0.0.0.0 or 10.0.2.100, IPv6: [::] or [fd00:6c61::100]"),
        ),
        (How::Refused, _) if c.direction == Direction::In => Explanation::new(
            format!(
                "Nobody inside listens on {}. The client saw ECONNRESET, because this host had taken its connection already.",
                c.local
            ),
            Some(
                "check that the server runs, and wait until it listens: lastack publish NAME tells who does",
            ),
        ),
        (How::Refused, _) => Explanation::new(
            format!("Nobody listens on {to}: the SYN was answered with RST. {program} saw ECONNREFUSED."),
            Some("check that the server runs and on which address it listens: ss -tln"),
        ),
        (How::Timeout, Some(Reason::KeepaliveTimeout)) => Explanation::new(
            "Keepalive probes went unanswered: the other end is gone without a word.",
            Some("look for a crashed host, a pulled cable, or a middlebox that forgot the connection"),
        ),
        (How::Timeout, Some(Reason::RetriesExhausted)) => Explanation::new(
            "Data was sent again and again and never acknowledged: the path or the other end is gone.",
            Some(
                "look for a crashed host or a firewall that drops: ss -ti shows retransmissions while it happens",
            ),
        ),
        (How::Timeout, Some(Reason::Injected)) => Explanation::new("Then the stack gave up too.", None),
        (How::Killed, Some(Reason::Injected)) => {
            Explanation::new("That itself put nothing on the wire.", None)
        }
        (How::Timeout, Some(Reason::ProgramGone)) => Explanation::new(
            format!("Nobody answered the SYN to {to}, and {program} stopped waiting."),
            Some("a firewall that drops, or a wrong address: a closed port would have answered at once"),
        ),
        (How::Timeout, _) if c.direction == Direction::In => Explanation::new(
            format!(
                "{program}'s kernel did not answer the SYN to {}: its queue of connections that wait for accept is full, or the link lost it.",
                c.local
            ),
            Some(
                "accept connections sooner, or listen with a larger backlog: ss -ltn shows the queue (Recv-Q, Send-Q)",
            ),
        ),
        (How::Timeout, _) => Explanation::new(
            format!(
                "Nobody answered the SYN to {to}. {program} sees ETIMEDOUT when its own kernel gives up."
            ),
            Some("a firewall that drops, or a wrong address: a closed port would have answered at once"),
        ),
        (How::Unreachable, Some(Reason::Prohibited)) => Explanation::new(
            format!("A rule of this host's routing or firewall forbids {to}."),
            Some("look at `ip rule`, `ip route get ADDRESS` and the firewall on this host"),
        ),
        (How::Unreachable, _) if c.host_errno == Some(ENETUNREACH) => Explanation::new(
            format!("This host has no route to {to}. {program} saw ENETUNREACH."),
            Some(
                "look at `ip route get ADDRESS` on this host; no IPv6 route is common and harmless where IPv4 follows",
            ),
        ),
        (How::Unreachable, _) => Explanation::new(
            format!("The host {to} cannot be reached. {program} saw EHOSTUNREACH."),
            Some("look at `ip route get ADDRESS` and `ip neigh` on this host"),
        ),
        (How::Denied, Some(Reason::LoopbackClosed)) => Explanation::new(
            format!(
                "--no-host-loopback: the host's loopback is closed to the program. {program} saw ECONNREFUSED."
            ),
            Some("leave --no-host-loopback off, or let the server listen on an address of the network"),
        ),
        (How::Denied, Some(Reason::MartianDestination)) => Explanation::new(
            format!(
                "No packet on a link may be for {}: it stands for a host's own inside, or for everybody. The SYN was dropped, as Linux drops it; {program} saw silence.",
                c.remote
            ),
            Some("10.0.2.2 and fd00:6c61::2 are this host's loopback, where rules let the program"),
        ),
        (How::Denied, _) => Explanation::new(
            format!("A rule forbids {}. {program} saw ECONNREFUSED; nothing left this host.", c.remote),
            Some("add --allow for it before the rule that denies it, if it should be reached"),
        ),
        (How::Killed, _) => {
            Explanation::new(format!("Ended by command (lastack kill). {program} saw ECONNRESET."), None)
        }
        (How::Open, _) => Explanation::new("Still open when the run ended.", None),
    }
}

fn reset(c: &Connection, program: &str, reason: Option<Reason>) -> Explanation {
    let by_program = c.verdict.ended_by == ClosedBy::Program;
    let who = if by_program { program } else { "the remote end" };
    let drain = match (by_program, c.direction) {
        (true, _) => DRAIN,
        (false, Direction::Out) => DRAIN_IF_YOURS,
        (false, Direction::In) => DRAIN_IF_YOUR_CLIENT,
    };
    // That it was reset was seen; why may be less certain.
    let because = match c.verdict.certainty {
        Certainty::Observed => ": ".to_owned(),
        less => format!(". {}", known_by(less)),
    };
    match reason {
        Some(Reason::ClosedWithUnreadData) => Explanation::new(
            format!(
                "RESET by {who}{because}it closed with data unread, so its kernel sent RST instead of FIN (RFC 2525 2.17)."
            ),
            Some(drain),
        ),
        Some(Reason::LingerZero) => Explanation::new(
            format!(
                "RESET by {who}{because}it closed with SO_LINGER and zero seconds, which sends RST and discards what was not sent."
            ),
            Some("leave SO_LINGER off unless losing data is meant; TIME-WAIT is no reason to set it"),
        ),
        Some(Reason::DataAfterClose) => Explanation::new(
            format!(
                "RESET by {who}{because}it had closed already when more data came, so its kernel answered with RST."
            ),
            Some("close only when the other end has said everything: the protocol must tell who speaks last"),
        ),
        Some(Reason::Injected) => Explanation::new("RESET by lastack.", None),
        Some(Reason::IdleTimeout) => Explanation::new(
            format!(
                "RESET by lastack{because}no byte had moved either way for as long as --tcp-idle allows. Both ends saw ECONNRESET."
            ),
            Some(
                "a longer --tcp-idle, or a protocol that says something now and then (keepalive probes carry nothing)",
            ),
        ),
        Some(Reason::HostLimit) => Explanation::new(
            "RESET by lastack: this host had no port, descriptor or memory left for it.",
            Some("look at `ulimit -n`, `ss -s` and the host's ip_local_port_range"),
        ),
        _ if by_program => Explanation::new(
            format!(
                "RESET by {who}. Its kernel's counters do not tell why. Possible: it closed with data unread, or with SO_LINGER 0, or was killed with data unread."
            ),
            Some(drain),
        ),
        _ => Explanation::new(
            format!(
                "RESET by {who}. Possible: it closed with data unread, so its kernel sent RST instead of FIN (RFC 2525 2.17), or it set SO_LINGER 0, or it was gone. {program} saw ECONNRESET."
            ),
            Some(drain),
        ),
    }
}

pub(super) fn explain_flow(flow: &Flow) -> String {
    if flow.direction == Direction::In {
        return explain_flow_in(flow);
    }
    let to = flow.host_remote.unwrap_or(flow.remote);
    if flow.protocol == FlowProtocol::Icmp {
        return explain_pings(flow, to.ip());
    }
    match flow.how {
        FlowEnd::Idle if flow.datagrams_down == 0 => format!("Nothing came back from {to}."),
        FlowEnd::Idle => "Datagrams went both ways until nobody sent any more.".to_owned(),
        FlowEnd::Refused => format!("Nobody listens on {to}: ICMP port unreachable came back."),
        FlowEnd::Unreachable => format!("This host cannot send to {to}."),
        FlowEnd::Denied => format!("A rule forbids {}.", flow.remote),
        FlowEnd::LoopbackClosed => {
            "--no-host-loopback: the host's loopback is closed to the program; ICMP port unreachable came back.".to_owned()
        }
        FlowEnd::MartianDestination => martian(flow),
        FlowEnd::NotPermitted => format!("This host does not let its user send to {to}."),
    }
}

fn martian(flow: &Flow) -> String {
    let to = flow.remote.ip();
    format!("No packet on a link may be for {to}: it was dropped without an answer, as Linux drops it.")
}

fn explain_pings(flow: &Flow, to: IpAddr) -> String {
    let (sent, answered) = (flow.datagrams_up, flow.datagrams_down);
    match flow.how {
        FlowEnd::Idle => format!("{to} answered {answered} of {sent} pings."),
        FlowEnd::Refused | FlowEnd::Unreachable => {
            format!("This host cannot reach {to}; {answered} of {sent} pings were answered.")
        }
        FlowEnd::Denied | FlowEnd::LoopbackClosed => format!("A rule forbids {to}."),
        FlowEnd::MartianDestination => martian(flow),
        FlowEnd::NotPermitted => {
            "This host does not let its user ping: the group is not in net.ipv4.ping_group_range \
             (sudo sysctl net.ipv4.ping_group_range='0 2147483647')."
                .to_owned()
        }
    }
}

/// A flow that a client of a published port began.
fn explain_flow_in(flow: &Flow) -> String {
    let (local, client) = (flow.local, flow.host_remote.unwrap_or(flow.remote));
    match flow.how {
        FlowEnd::Refused if flow.datagrams_up == 0 => {
            format!("No socket inside had {local}/udp, and nothing was answered.")
        }
        FlowEnd::Idle if flow.datagrams_up == 0 => format!("Nothing was answered from {local}/udp."),
        FlowEnd::Idle => "Datagrams went both ways until nobody sent any more.".to_owned(),
        FlowEnd::Refused => {
            format!("The client's port {client} was closed: ICMP port unreachable came back.")
        }
        FlowEnd::Unreachable => format!("This host cannot send to the client {client}."),
        FlowEnd::Denied | FlowEnd::LoopbackClosed | FlowEnd::MartianDestination => {
            format!("A rule forbids {client}.")
        }
        FlowEnd::NotPermitted => format!("This host does not let its user send to the client {client}."),
    }
}

pub(super) fn explain_limit(reached: &Reached) -> String {
    let count = reached.turned_away;
    // `1 ping was`, `2 pings were`.
    let was = |one: &str| if count == 1 { format!("1 {one} was") } else { format!("{count} {one}s were") };
    match reached.limit {
        Limit::Connections => format!("--max-connections: {} refused.", was("connection")),
        Limit::PendingConnections => {
            let they = if count == 1 { "it" } else { "they" };
            format!(
                "{} dropped while thousands waited for this host's answer; {they} came again.",
                was("SYN")
            )
        }
        Limit::Flows => {
            format!("--max-flows: {} dropped that would have begun a UDP flow.", was("datagram"))
        }
        Limit::FlowQueue => {
            format!("{} dropped: the program sent faster than this host took.", was("datagram"))
        }
        Limit::Lookups => {
            let questions = if count == 1 { "question for a name was" } else { "questions for names were" };
            format!("{count} {questions} dropped while a thousand waited for an answer.")
        }
        Limit::Pings => format!("{} dropped while many waited for an answer.", was("ping")),
    }
}
