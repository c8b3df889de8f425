//! Text → syntax tree, by recursive descent.
//!
//! Input:   the script's text.
//! Output:  a [`Script`], or the first error with its line.
//! Rules:   packet-script language, sections 1–3, 7. Packets are in `packet_parser`.

use core::time::Duration;

use super::ast::{Action, Event, Expr, Field, Script, ScriptOption, Syscall, When};
use super::cursor::{Cursor, Definition, Number};
use super::packet_parser::packet;

/// Where and why a script cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// Line, from 1.
    pub line: u32,
    /// What was expected.
    pub message: String,
}

impl core::fmt::Display for ParseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl core::error::Error for ParseError {}

/// Reads a script.
///
/// # Errors
/// The first line that is not in the language.
///
/// # Example
/// ```
/// let script = lastack_lab::script::parse("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 close(3) = 0").unwrap();
/// assert_eq!(script.events.len(), 2);
/// assert_eq!(script.events[1].line, 2);
/// ```
pub fn parse(text: &str) -> Result<Script, ParseError> {
    let mut cursor = Cursor::new(text);
    let mut script = Script { options: options(&mut cursor)?, ..Script::default() };
    if let Some(command) = untimed_command(&mut cursor)? {
        script.init = Some(command);
    }
    loop {
        cursor.skip_blank()?;
        if cursor.rest().is_empty() {
            break;
        }
        if let Some(command) = untimed_command(&mut cursor)? {
            cursor.skip_blank()?;
            if !cursor.rest().is_empty() {
                return cursor.error("a command without a time is the cleanup and must come last");
            }
            script.cleanup = Some(command);
            break;
        }
        let event = event(&mut cursor)?;
        script.events.push(event);
    }
    check_first_event(&cursor, &script)?;
    Ok(script)
}

fn check_first_event(cursor: &Cursor<'_>, script: &Script) -> Result<(), ParseError> {
    let Some(first) = script.events.first() else { return cursor.error("the script has no events") };
    match first.when {
        When::At(Duration::ZERO) | When::After(Duration::ZERO) => Ok(()),
        _ => Err(ParseError { line: first.line, message: "the first event must be at time 0".to_owned() }),
    }
}

fn options(cursor: &mut Cursor<'_>) -> Result<Vec<ScriptOption>, ParseError> {
    let mut options = Vec::new();
    while cursor.take("--")? {
        let name = cursor.word()?;
        let value = if cursor.rest().starts_with('=') {
            cursor.advance(1);
            option_value(cursor)?
        } else {
            String::new()
        };
        if name == "define" {
            let (word, definition) = definition(cursor, &value)?;
            cursor.definitions.insert(word, definition);
        }
        options.push(ScriptOption { name, value });
    }
    Ok(options)
}

/// Up to the next blank; quotes and back-quotes may hold blanks.
fn option_value(cursor: &mut Cursor<'_>) -> Result<String, ParseError> {
    let rest = cursor.rest();
    let mut quote = None;
    let mut len = rest.len();
    for (at, c) in rest.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if c.is_whitespace() => {
                len = at;
                break;
            }
            None => {}
        }
    }
    if quote.is_some() {
        return cursor.error("a quoted option value is never closed");
    }
    cursor.advance(len);
    Ok(rest[..len].to_owned())
}

fn definition(cursor: &Cursor<'_>, text: &str) -> Result<(String, Definition), ParseError> {
    let Some((name, value)) = text.split_once('=') else {
        return cursor.error("--define needs NAME=value");
    };
    let quoted = |q: char| value.strip_prefix(q).and_then(|v| v.strip_suffix(q)).map(str::to_owned);
    let definition = if let Some(text) = quoted('"') {
        Definition::Str(text)
    } else if let Some(text) = quoted('`') {
        Definition::Command(text)
    } else if let Ok(number) = value.parse() {
        Definition::Int(number)
    } else {
        Definition::Word(value.to_owned())
    };
    Ok((name.to_owned(), definition))
}

fn untimed_command(cursor: &mut Cursor<'_>) -> Result<Option<String>, ParseError> {
    if cursor.sees("`")? {
        return cursor.command().map(Some);
    }
    let word = cursor.peek_word()?;
    if let Some(Definition::Command(text)) = cursor.definitions.get(word).cloned() {
        cursor.advance(word.len());
        return Ok(Some(text));
    }
    Ok(None)
}

fn event(cursor: &mut Cursor<'_>) -> Result<Event, ParseError> {
    let line = cursor.line();
    let (when, end) = time(cursor)?;
    let action = if cursor.take("<")? {
        Action::Inbound(packet(cursor, true)?)
    } else if cursor.take(">")? {
        Action::Outbound(packet(cursor, false)?)
    } else if cursor.sees("`")? {
        Action::Command(cursor.command()?)
    } else if cursor.sees("%{")? {
        Action::Code(cursor.code()?)
    } else if let Some(command) = untimed_command(cursor)? {
        Action::Command(command)
    } else {
        Action::Call(syscall(cursor)?)
    };
    let ranged = matches!(when, When::Any | When::Between(..) | When::AfterBetween(..));
    if ranged && !matches!(action, Action::Outbound(_)) {
        return Err(ParseError {
            line,
            message: "only an outbound packet may have a range or `*`".to_owned(),
        });
    }
    if end.is_some() && !matches!(action, Action::Call(_)) {
        return Err(ParseError { line, message: "only a system call may block (`TIME...TIME2`)".to_owned() });
    }
    Ok(Event { line, when, end, action })
}

fn time(cursor: &mut Cursor<'_>) -> Result<(When, Option<Duration>), ParseError> {
    if cursor.take("*")? {
        return Ok((When::Any, None));
    }
    let relative = cursor.take("+")?;
    let start = seconds(cursor)?;
    if cursor.take("~")? {
        let relative_end = cursor.take("+")?;
        if relative != relative_end {
            return cursor.error("both ends of a range must be relative, or neither");
        }
        let end = seconds(cursor)?;
        if end < start {
            return cursor.error("the range ends before it starts");
        }
        let when = if relative { When::AfterBetween(start, end) } else { When::Between(start, end) };
        return Ok((when, None));
    }
    let when = if relative { When::After(start) } else { When::At(start) };
    if cursor.take("...")? {
        cursor.take("+")?;
        let end = seconds(cursor)?;
        if end < start {
            return cursor.error("the call returns before it starts");
        }
        return Ok((when, Some(end)));
    }
    Ok((when, None))
}

fn seconds(cursor: &mut Cursor<'_>) -> Result<Duration, ParseError> {
    match cursor.number()? {
        Number::Int(whole) => Ok(Duration::from_secs(whole.unsigned_abs())),
        // Microseconds are the language's resolution; rounding keeps `.1` exact.
        Number::Float(value) => Ok(Duration::from_micros((value * 1e6).round() as u64)),
    }
}

fn syscall(cursor: &mut Cursor<'_>) -> Result<Syscall, ParseError> {
    let name = cursor.word()?;
    cursor.expect("(")?;
    let args = list(cursor, ")")?;
    cursor.expect("=")?;
    let result = expr(cursor)?;
    let mut errno = None;
    if cursor.peek_word()?.starts_with(|c: char| c.is_ascii_uppercase()) {
        errno = Some(cursor.word()?);
    }
    if cursor.sees("(")? {
        cursor.parenthesised()?;
    }
    Ok(Syscall { name, args, result, errno })
}

/// Expressions separated by commas up to `close`, which is taken.
fn list(cursor: &mut Cursor<'_>, close: &str) -> Result<Vec<Expr>, ParseError> {
    let mut items = Vec::new();
    if cursor.take(close)? {
        return Ok(items);
    }
    loop {
        items.push(expr(cursor)?);
        if cursor.take(close)? {
            return Ok(items);
        }
        cursor.expect(",")?;
    }
}

fn expr(cursor: &mut Cursor<'_>) -> Result<Expr, ParseError> {
    let first = term(cursor)?;
    if !cursor.sees("|")? {
        return Ok(first);
    }
    let mut parts = vec![first];
    while cursor.take("|")? {
        parts.push(term(cursor)?);
    }
    Ok(Expr::Union(parts))
}

fn term(cursor: &mut Cursor<'_>) -> Result<Expr, ParseError> {
    if cursor.take("...")? {
        return Ok(Expr::Fill);
    }
    if cursor.sees("\"")? {
        return cursor.string().map(Expr::Str);
    }
    if cursor.take("[")? {
        return list(cursor, "]").map(Expr::List);
    }
    if cursor.take("{")? {
        return fields(cursor).map(Expr::Struct);
    }
    if cursor.sees("-")? || cursor.sees_digit()? {
        return cursor.int().map(Expr::Int);
    }
    match cursor.take_defined()? {
        Some(Definition::Int(value)) => return Ok(Expr::Int(value)),
        Some(Definition::Str(text)) => return Ok(Expr::Str(text)),
        Some(Definition::Word(word)) => return Ok(Expr::Symbol(word)),
        Some(Definition::Command(_)) => return cursor.error("a command cannot be an argument"),
        None => {}
    }
    let word = cursor.word()?;
    if cursor.rest().starts_with('(') {
        cursor.advance(1);
        return Ok(Expr::Apply(word, list(cursor, ")")?));
    }
    Ok(Expr::Symbol(word))
}

fn fields(cursor: &mut Cursor<'_>) -> Result<Vec<Field>, ParseError> {
    let mut fields = Vec::new();
    if cursor.take("}")? {
        return Ok(fields);
    }
    loop {
        let value = expr(cursor)?;
        let field = match value {
            Expr::Symbol(name) if cursor.take("=")? => {
                Field { name: Some(name), arg: None, value: expr(cursor)? }
            }
            Expr::Apply(name, mut args) if cursor.take("=")? => {
                Field { name: Some(name), arg: args.pop(), value: expr(cursor)? }
            }
            value => Field { name: None, arg: None, value },
        };
        fields.push(field);
        if cursor.take("}")? {
            return Ok(fields);
        }
        cursor.expect(",")?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::ast::{Body, OptionsSpec};
    use super::super::print::print;
    use super::*;
    use crate::packet::TcpOption;

    fn round_trip(text: &str) -> Script {
        let script = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let printed = print(&script);
        let mut again = parse(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
        for (event, original) in again.events.iter_mut().zip(&script.events) {
            event.line = original.line;
        }
        assert_eq!(again, script, "printed as:\n{printed}");
        script
    }

    #[test]
    fn a_script_has_options_an_init_command_events_and_a_cleanup() {
        let script = round_trip(
            "--tolerance_usecs=2000 // comment\n--strict_segments\n`sysctl -q net.ipv4.tcp_sack=0`\n\
             0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n/* two\nlines */ +.25 close(3) = 0\n`true`\n",
        );
        assert_eq!(script.option("tolerance_usecs"), Some("2000"));
        assert_eq!(script.option("strict_segments"), Some(""));
        assert_eq!(script.init.as_deref(), Some("sysctl -q net.ipv4.tcp_sack=0"));
        assert_eq!(script.events[1].when, When::After(Duration::from_millis(250)));
        assert_eq!(script.events[1].line, 6);
        assert_eq!(script.cleanup.as_deref(), Some("true"));
    }

    #[test]
    fn times_come_in_all_forms() {
        let script = round_trip(
            "+0 close(3) = 0\n0.2~0.3 > . 1:1(0) ack 1\n+.2~+.3 > . 1:1(0) ack 1\n* > . 1:1(0) ack 1\n\
             +0...0.5 read(3, ..., 10) = 10\n1.0 ... 1.5 connect(3, ..., ...) = -1 ETIMEDOUT (Connection (timed) out)\n",
        );
        let forms: Vec<_> = script.events.iter().map(|event| (event.when, event.end)).collect();
        let ms = Duration::from_millis;
        assert_eq!(forms[1].0, When::Between(ms(200), ms(300)));
        assert_eq!(forms[2].0, When::AfterBetween(ms(200), ms(300)));
        assert_eq!(forms[3].0, When::Any);
        assert_eq!(forms[4], (When::After(ms(0)), Some(ms(500))));
        assert_eq!(forms[5], (When::At(ms(1000)), Some(ms(1500))));
    }

    #[test]
    fn packets_carry_flags_numbers_and_ordered_options() {
        let script = round_trip(
            "0 < [ect0] SEW 0:0(0) win 32792 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>\n\
             +0 > (noecn) P.5 1:1001(1000) ack 1 win 229 urg 3 <nop, nop, sack 1001:2001 3001:4001>\n\
             +0 > 8080 > 40000 R. 5:5(0) ack 1 <...>\n+0 < - 1:1(0) win 0\n+0 > F 1:1(0) ack 1",
        );
        let Action::Outbound(packet) = &script.events[1].action else { panic!("an outbound packet") };
        let Body::Tcp(tcp) = &packet.body else { panic!("a TCP segment") };
        assert_eq!(
            (tcp.seq, tcp.len, tcp.ack, tcp.win, tcp.urg, tcp.ace),
            (1, 1000, 1, Some(229), 3, Some(5))
        );
        let expected =
            vec![TcpOption::Nop, TcpOption::Nop, TcpOption::Sack(vec![(1001, 2001), (3001, 4001)])];
        assert_eq!(tcp.options, OptionsSpec::Exactly(expected));
    }

    #[test]
    fn arguments_nest() {
        let script = round_trip(
            "0 setsockopt(3, SOL_SOCKET, SO_LINGER, {onoff=1, linger=0}, 8) = 0\n\
             +0 sendmsg(4, {msg_name(...)=..., msg_iov(2)=[{...,5},{...,6}], msg_flags=0}, MSG_MORE|MSG_DONTWAIT) = 11\n\
             +0 poll([{fd=4, events=POLLIN|POLLOUT, revents=POLLOUT}], 1, -1) = 1\n\
             +0 setsockopt(3, SOL_TCP, TCP_CONGESTION, \"re\" \"no\", 4) = 0\n+0 write(4, ..., 0x10) = -1 EPIPE",
        );
        let Action::Call(call) = &script.events[3].action else { panic!("a call") };
        assert_eq!(call.args[3], Expr::Str("reno".to_owned()));
        let Action::Call(call) = &script.events[4].action else { panic!("a call") };
        assert_eq!((&call.result, call.errno.as_deref()), (&Expr::Int(-1), Some("EPIPE")));
    }

    #[test]
    fn icmp_and_udp_are_read() {
        round_trip(
            "0 < icmp unreachable frag_needed mtu 1200 [1:1461(1460)]\n+0 < udp 53 > 4000 (100)\n\
             +0 < icmp unreachable host_unreachable [0:0(0)]\n+0 > udp (8)\n+0 < icmp type_3 code_1 [udp (8)]",
        );
    }

    #[test]
    fn definitions_replace_words() {
        let script =
            parse("--define=N=7\n--define=OPT=TCP_NODELAY\n0 setsockopt(3, SOL_TCP, OPT, [N], 4) = 0")
                .unwrap();
        let Action::Call(call) = &script.events[0].action else { panic!("a call") };
        assert_eq!(call.args[2], Expr::Symbol("TCP_NODELAY".to_owned()));
        assert_eq!(call.args[3], Expr::List(vec![Expr::Int(7)]));
    }

    #[test]
    fn errors_name_the_line() {
        let line = |text: &str| parse(text).expect_err(text).line;
        assert_eq!(line("0 close(3) = 0\n+0 < S 0:5(0) win 1"), 2, "END must equal SEQ+LEN");
        assert_eq!(line("0 close(3) = 0\n+0 < . 1:1(0) ack 1"), 2, "win is mandatory inbound");
        assert_eq!(line("0 close(3) = 0\n\n+0 < Q 1:1(0) win 1"), 3, "Q is no flag");
        assert_eq!(line("+1 close(3) = 0"), 1, "the first event is at 0");
        assert_eq!(line("0 close(3) = 0\n* close(3) = 0"), 2, "only packets may be any time");
        assert_eq!(line("0 close(3 = 0"), 1);
        assert_eq!(line("0 < S 0:0(0) win 1 <mss 1460,nop>"), 1, "options must fill whole words");
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        let seed = "0 < [ce] S. 0:0(0) ack 1 win 5 <TS val 1 ecr 2>\n+0...1 f({a(1)=2}, [..., \"x\"]) = -1 E (c)\n`a` %{ b }%";
        for cut in 0..seed.len() {
            let _ = parse(&seed[..cut]);
            let _ = parse(&seed[cut..]);
        }
    }
}
