//! Syntax tree → text; packets in script notation, for scripts written by programs and for failures.
//!
//! Output parses back to the same tree (tested on every construct).

use core::fmt::Write;
use core::time::Duration;

use super::ast::{
    Action, Body, Event, Expr, IcmpSpec, IpInfo, OptionsSpec, Packet, Quoted, Script, Syscall, TcpSpec, Tos,
    When,
};
use crate::packet::{TcpFlags, TcpOption};

/// The whole script.
pub fn print(script: &Script) -> String {
    let mut out = String::new();
    for option in &script.options {
        let _ = match option.value.as_str() {
            "" => writeln!(out, "--{}", option.name),
            value => writeln!(out, "--{}={value}", option.name),
        };
    }
    if let Some(command) = &script.init {
        let _ = writeln!(out, "`{}`\n", command.replace('`', "\\`"));
    }
    for event in &script.events {
        out.push_str(&event_text(event));
        out.push('\n');
    }
    if let Some(command) = &script.cleanup {
        let _ = writeln!(out, "`{}`", command.replace('`', "\\`"));
    }
    out
}

/// One event on a line, its time in front.
pub fn event_text(event: &Event) -> String {
    let time = match (event.when, event.end) {
        (When::At(at), None) => seconds(at),
        (When::At(at), Some(end)) => format!("{}...{}", seconds(at), seconds(end)),
        (When::After(after), None) => format!("+{}", seconds(after)),
        (When::After(after), Some(end)) => format!("+{}...{}", seconds(after), seconds(end)),
        (When::Between(from, to), _) => format!("{}~{}", seconds(from), seconds(to)),
        (When::AfterBetween(from, to), _) => format!("+{}~+{}", seconds(from), seconds(to)),
        (When::Any, _) => "*".to_owned(),
    };
    format!("{time} {}", action_text(&event.action))
}

/// What an event does, without its time.
pub fn action_text(action: &Action) -> String {
    match action {
        Action::Inbound(packet) => format!("< {}", packet_text(packet)),
        Action::Outbound(packet) => format!("> {}", packet_text(packet)),
        Action::Call(call) => call_text(call),
        Action::Command(text) => format!("`{}`", text.replace('`', "\\`")),
        Action::Code(text) => format!("%{{ {text} }}%"),
    }
}

/// Seconds with at most six digits of fraction and no trailing zeros.
pub fn seconds(time: Duration) -> String {
    let micros = time.subsec_micros();
    if micros == 0 {
        return time.as_secs().to_string();
    }
    let text = format!("{}.{micros:06}", time.as_secs());
    text.trim_end_matches('0').to_owned()
}

/// A packet in script notation.
pub fn packet_text(packet: &Packet) -> String {
    let mut out = ip_info(&packet.ip);
    match &packet.body {
        Body::Tcp(tcp) => out.push_str(&tcp_text(tcp)),
        Body::Udp { ports: Some((src, dst)), len } => {
            let _ = write!(out, "udp {src} > {dst} ({len})");
        }
        Body::Udp { ports: None, len } => {
            let _ = write!(out, "udp ({len})");
        }
        Body::Icmp(icmp) => out.push_str(&icmp_text(icmp)),
    }
    out
}

fn ip_info(ip: &IpInfo) -> String {
    let mut parts = Vec::new();
    match ip.tos {
        Some(Tos::Ecn(bits)) => parts.push(["noecn", "ect1", "ect0", "ce"][usize::from(bits & 3)].to_owned()),
        Some(Tos::AnyEct) => parts.push("ect01".to_owned()),
        Some(Tos::Whole(tos)) => parts.push(format!("tos {tos:#04x}")),
        None => {}
    }
    if let Some(label) = ip.flow_label {
        parts.push(format!("flowlabel {label:#x}"));
    }
    if let Some(ttl) = ip.ttl {
        parts.push(format!("ttl {ttl}"));
    }
    if parts.is_empty() { String::new() } else { format!("[{}] ", parts.join(", ")) }
}

/// A TCP segment in script notation.
pub fn tcp_text(tcp: &TcpSpec) -> String {
    let mut out = String::new();
    if let Some((src, dst)) = tcp.ports {
        let _ = write!(out, "{src} > {dst} ");
    }
    match tcp.ace {
        Some(ace) => {
            let plain = tcp.flags.without(TcpFlags::AE | TcpFlags::CWR | TcpFlags::ECE);
            let letters = if plain == TcpFlags::NONE { String::new() } else { plain.to_string() };
            let _ = write!(out, "{letters}{ace}");
        }
        None => {
            let _ = write!(out, "{}", tcp.flags);
        }
    }
    let _ = write!(out, " {}:{}({})", tcp.seq, tcp.seq.wrapping_add(tcp.len), tcp.len);
    if tcp.flags.ack() || tcp.ack != 0 {
        let _ = write!(out, " ack {}", tcp.ack);
    }
    if let Some(win) = tcp.win {
        let _ = write!(out, " win {win}");
    }
    if tcp.urg != 0 {
        let _ = write!(out, " urg {}", tcp.urg);
    }
    match &tcp.options {
        OptionsSpec::Any => out.push_str(" <...>"),
        OptionsSpec::Exactly(options) if options.is_empty() => {}
        OptionsSpec::Exactly(options) => {
            let _ = write!(out, " <{}>", options_text(options));
        }
    }
    out
}

/// The options between the angle brackets.
pub fn options_text(options: &[TcpOption]) -> String {
    options.iter().map(option_text).collect::<Vec<_>>().join(",")
}

fn option_text(option: &TcpOption) -> String {
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    match option {
        TcpOption::Eol => "eol".to_owned(),
        TcpOption::Nop => "nop".to_owned(),
        TcpOption::Mss(mss) => format!("mss {mss}"),
        TcpOption::WindowScale(shift) => format!("wscale {shift}"),
        TcpOption::SackPermitted => "sackOK".to_owned(),
        TcpOption::Sack(blocks) => {
            blocks.iter().fold("sack".to_owned(), |text, (start, end)| text + &format!(" {start}:{end}"))
        }
        TcpOption::Timestamps { val, ecr } => format!("TS val {val} ecr {ecr}"),
        TcpOption::Md5(digest) => format!("md5 {}", hex(digest)),
        TcpOption::FastOpen { experimental, cookie } => {
            let name = if *experimental { "FOEXP" } else { "FO" };
            if cookie.is_empty() { name.to_owned() } else { format!("{name} {}", hex(cookie)) }
        }
        TcpOption::AccEcn { order, counters } => {
            let pairs = order.names().into_iter().zip(counters);
            pairs.fold("ECN".to_owned(), |text, (name, counter)| text + &format!(" {name} {counter}"))
        }
        TcpOption::Unknown(kind, data) => format!("kind-{kind} {}", hex(data)),
    }
}

fn icmp_text(icmp: &IcmpSpec) -> String {
    let mut out = format!("icmp {}", icmp.kind);
    if let Some(code) = &icmp.code {
        let _ = write!(out, " {code}");
    }
    if let Some(mtu) = icmp.mtu {
        let _ = write!(out, " mtu {mtu}");
    }
    if let Some(id) = icmp.id {
        let _ = write!(out, " id {id}");
    }
    let _ = match icmp.quoted {
        Quoted::Tcp { seq, len } => write!(out, " [{seq}:{}({len})]", seq.wrapping_add(len)),
        Quoted::Udp { len } => write!(out, " [udp ({len})]"),
    };
    out
}

fn call_text(call: &Syscall) -> String {
    let errno = call.errno.as_ref().map(|errno| format!(" {errno}")).unwrap_or_default();
    format!("{}({}) = {}{errno}", call.name, exprs(&call.args), expr_text(&call.result))
}

fn exprs(items: &[Expr]) -> String {
    items.iter().map(expr_text).collect::<Vec<_>>().join(", ")
}

/// An argument as written.
pub fn expr_text(expr: &Expr) -> String {
    match expr {
        Expr::Int(value) => value.to_string(),
        Expr::Symbol(name) => name.clone(),
        Expr::Union(parts) => parts.iter().map(expr_text).collect::<Vec<_>>().join("|"),
        Expr::Str(text) => format!("\"{text}\""),
        Expr::Fill => "...".to_owned(),
        Expr::List(items) => format!("[{}]", exprs(items)),
        Expr::Apply(name, args) => format!("{name}({})", exprs(args)),
        Expr::Struct(fields) => {
            let field = |field: &super::ast::Field| {
                let value = expr_text(&field.value);
                match (&field.name, &field.arg) {
                    (Some(name), Some(arg)) => format!("{name}({})={value}", expr_text(arg)),
                    (Some(name), None) => format!("{name}={value}"),
                    (None, _) => value,
                }
            };
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
    }
}
