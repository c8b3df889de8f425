//! Packets as written: IP info, TCP, UDP, ICMP.
//!
//! Rules: packet-script language, section 4.

use super::ast::{Body, IcmpSpec, IpInfo, OptionsSpec, Packet, Quoted, TcpSpec, Tos};
use super::cursor::Cursor;
use super::parse::ParseError;
use crate::packet::{AccEcnOrder, TcpFlags, TcpOption, flags_from_ace, options_len};

pub(super) fn packet(cursor: &mut Cursor<'_>, inbound: bool) -> Result<Packet, ParseError> {
    let ip = ip_info(cursor, inbound)?;
    let body = match cursor.peek_word()? {
        "udp" => udp(cursor)?,
        "icmp" => icmp(cursor)?,
        _ => tcp(cursor, inbound)?,
    };
    Ok(Packet { ip, body })
}

fn ip_info(cursor: &mut Cursor<'_>, inbound: bool) -> Result<IpInfo, ParseError> {
    let close = if cursor.take("[")? {
        "]"
    } else if cursor.take("(")? {
        ")"
    } else {
        return Ok(IpInfo::default());
    };
    let mut info = IpInfo::default();
    loop {
        match cursor.word()?.as_str() {
            "noecn" => info.tos = Some(Tos::Ecn(0)),
            "ect1" => info.tos = Some(Tos::Ecn(1)),
            "ect0" => info.tos = Some(Tos::Ecn(2)),
            "ce" => info.tos = Some(Tos::Ecn(3)),
            "ect01" if inbound => return cursor.error("ect01 is for outbound packets"),
            "ect01" => info.tos = Some(Tos::AnyEct),
            "tos" => info.tos = Some(Tos::Whole(cursor.int_as("TOS")?)),
            "flowlabel" => info.flow_label = Some(cursor.int_as("flow label")?),
            "ttl" => info.ttl = Some(cursor.int_as("TTL")?),
            other => return cursor.error(format!("`{other}` says nothing about an IP header")),
        }
        if cursor.take(close)? {
            return Ok(info);
        }
        cursor.expect(",")?;
    }
}

fn ports(cursor: &mut Cursor<'_>) -> Result<Option<(u16, u16)>, ParseError> {
    if !cursor.sees_digit()? {
        return Ok(None);
    }
    let from = cursor.int_as("port")?;
    cursor.expect(">")?;
    Ok(Some((from, cursor.int_as("port")?)))
}

/// `SEQ:END(LEN)`
fn range(cursor: &mut Cursor<'_>) -> Result<(u32, u32), ParseError> {
    let seq: u32 = cursor.int_as("sequence number")?;
    cursor.expect(":")?;
    let end: u32 = cursor.int_as("sequence number")?;
    cursor.expect("(")?;
    let len: u32 = cursor.int_as("length")?;
    cursor.expect(")")?;
    if len > 65535 {
        return cursor.error(format!("length {len} is above 65535"));
    }
    if seq.wrapping_add(len) != end {
        return cursor.error(format!("{seq}:{end}({len}) does not add up"));
    }
    Ok((seq, len))
}

fn tcp(cursor: &mut Cursor<'_>, inbound: bool) -> Result<Body, ParseError> {
    let ports = ports(cursor)?;
    let (flags, ace) = flags(cursor)?;
    let (seq, len) = range(cursor)?;
    let ack = if cursor.take_word("ack")? { cursor.int_as("ack")? } else { 0 };
    let win = if cursor.take_word("win")? { Some(cursor.int_as("window")?) } else { None };
    if inbound && win.is_none() {
        return cursor.error("an inbound segment needs `win N`");
    }
    let urg = if cursor.take_word("urg")? { cursor.int_as("urgent pointer")? } else { 0 };
    let options = options(cursor, inbound)?;
    Ok(Body::Tcp(TcpSpec { ports, flags, ace, seq, len, ack, win, urg, options }))
}

fn flags(cursor: &mut Cursor<'_>) -> Result<(TcpFlags, Option<u8>), ParseError> {
    cursor.skip_blank()?;
    let rest = cursor.rest();
    let len = rest.find(|c: char| c.is_whitespace()).unwrap_or(rest.len());
    let mut flags = TcpFlags::NONE;
    let mut ace = None;
    if &rest[..len] != "-" {
        for letter in rest[..len].chars() {
            match letter {
                'S' => flags = flags | TcpFlags::SYN,
                'F' => flags = flags | TcpFlags::FIN,
                'R' => flags = flags | TcpFlags::RST,
                'P' => flags = flags | TcpFlags::PSH,
                '.' => flags = flags | TcpFlags::ACK,
                'U' => flags = flags | TcpFlags::URG,
                'E' => flags = flags | TcpFlags::ECE,
                'W' => flags = flags | TcpFlags::CWR,
                'A' => flags = flags | TcpFlags::AE,
                '0'..='7' => ace = Some(letter as u8 - b'0'),
                other => return cursor.error(format!("`{other}` is not a TCP flag")),
            }
        }
    }
    if let Some(count) = ace {
        if flags.intersects(TcpFlags::ECE | TcpFlags::CWR | TcpFlags::AE) {
            return cursor.error("an ACE digit cannot be mixed with E, W or A");
        }
        flags = flags | flags_from_ace(count);
    }
    if len == 0 {
        return cursor.error("expected TCP flags");
    }
    cursor.advance(len);
    Ok((flags, ace))
}

fn options(cursor: &mut Cursor<'_>, inbound: bool) -> Result<OptionsSpec, ParseError> {
    if !cursor.take("<")? {
        return Ok(OptionsSpec::Exactly(Vec::new()));
    }
    if cursor.take("...")? {
        cursor.expect(">")?;
        if inbound {
            return cursor.error("`<...>` is for outbound segments");
        }
        return Ok(OptionsSpec::Any);
    }
    let mut options = Vec::new();
    loop {
        options.push(option(cursor)?);
        if cursor.take(">")? {
            break;
        }
        cursor.expect(",")?;
    }
    let len = options_len(&options);
    if !len.is_multiple_of(4) || len > 40 {
        return cursor.error(format!("the options take {len} bytes: not a multiple of 4 up to 40"));
    }
    Ok(OptionsSpec::Exactly(options))
}

fn option(cursor: &mut Cursor<'_>) -> Result<TcpOption, ParseError> {
    let word = cursor.word()?;
    Ok(match word.as_str() {
        "mss" => TcpOption::Mss(cursor.int_as("mss")?),
        "wscale" => TcpOption::WindowScale(cursor.int_as("wscale")?),
        "sackOK" => TcpOption::SackPermitted,
        "nop" => TcpOption::Nop,
        "eol" => TcpOption::Eol,
        "TS" => {
            let named = |cursor: &mut Cursor<'_>, name: &str| match cursor.take_word(name)? {
                true => cursor.int_as("timestamp"),
                false => cursor.error(format!("expected `{name}`")),
            };
            TcpOption::Timestamps { val: named(cursor, "val")?, ecr: named(cursor, "ecr")? }
        }
        "sack" => {
            let mut blocks = Vec::new();
            while cursor.sees_digit()? {
                let start = cursor.int_as("sequence number")?;
                cursor.expect(":")?;
                blocks.push((start, cursor.int_as("sequence number")?));
            }
            if blocks.len() > 4 {
                return cursor.error("at most 4 SACK blocks");
            }
            TcpOption::Sack(blocks)
        }
        "FO" | "FOEXP" => {
            let bare = cursor.sees(",")? || cursor.sees(">")?;
            let cookie = if bare { Vec::new() } else { cursor.hex_bytes()? };
            TcpOption::FastOpen { experimental: word == "FOEXP", cookie }
        }
        "md5" => TcpOption::Md5(cursor.hex_bytes()?),
        "ECN" => acc_ecn(cursor)?,
        other => return cursor.error(format!("`{other}` is not a TCP option")),
    })
}

/// `ECN e0b N ceb N e1b N` (kind 172) or the other way round (174); trailing counters may be left out.
fn acc_ecn(cursor: &mut Cursor<'_>) -> Result<TcpOption, ParseError> {
    let first = cursor.peek_word()?;
    let (order, names) = match first {
        "e1b" => (AccEcnOrder::E1First, ["e1b", "ceb", "e0b"]),
        _ => (AccEcnOrder::E0First, ["e0b", "ceb", "e1b"]),
    };
    let mut counters = Vec::new();
    for name in names {
        if !cursor.take_word(name)? {
            break;
        }
        let value: u32 = cursor.int_as("ECN counter")?;
        if value >= 1 << 24 {
            return cursor.error("an ECN counter has 24 bits");
        }
        counters.push(value);
    }
    Ok(TcpOption::AccEcn { order, counters })
}

fn udp(cursor: &mut Cursor<'_>) -> Result<Body, ParseError> {
    cursor.take_word("udp")?;
    let ports = ports(cursor)?;
    cursor.expect("(")?;
    let len = cursor.int_as("length")?;
    cursor.expect(")")?;
    Ok(Body::Udp { ports, len })
}

fn icmp(cursor: &mut Cursor<'_>) -> Result<Body, ParseError> {
    cursor.take_word("icmp")?;
    let kind = cursor.word()?;
    let code = match cursor.peek_word()? {
        "" | "mtu" | "id" => None,
        word if word.starts_with(|c: char| c.is_ascii_digit()) => None,
        _ => Some(cursor.word()?),
    };
    let mtu = if cursor.take_word("mtu")? { Some(cursor.int_as("mtu")?) } else { None };
    let id = if cursor.take_word("id")? { Some(cursor.int_as("id")?) } else { None };
    let mut quoted = Quoted::Tcp { seq: 0, len: 0 };
    if cursor.take("[")? {
        if cursor.take_word("udp")? {
            cursor.expect("(")?;
            quoted = Quoted::Udp { len: cursor.int_as("length")? };
            cursor.expect(")")?;
        } else {
            let (seq, len) = range(cursor)?;
            quoted = Quoted::Tcp { seq, len };
        }
        cursor.expect("]")?;
    }
    Ok(Body::Icmp(IcmpSpec { kind, code, mtu, id, quoted }))
}
