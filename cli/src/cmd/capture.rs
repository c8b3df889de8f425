//! A capture's connections for people and for machines: how each went, why, and how that is known.

use std::io::{self, Write};

use lastack_observe::source::capture::{Capture, Conversation, How};
use lastack_observe::words::{self, Lang};
use serde_json::{Value, json};

use crate::run::words::time;
use crate::text::{Paint, paragraph};

/// Connections that are told one by one; of more only those that went wrong.
const LISTED: usize = 20;

/// Writes the connections: all when they are few, else those that did not end cleanly, at most [`LISTED`].
pub(crate) fn report(capture: &Capture, lang: Lang, paint: &Paint, out: &mut dyn Write) -> io::Result<()> {
    let all = capture.conversations();
    let few = all.len() <= LISTED;
    let told = all.iter().enumerate().filter(|(_, connection)| few || connection.how() != How::Fin);
    for (index, connection) in told.clone().take(LISTED) {
        let [first, second] = connection.addresses();
        let mut head = format!("#{}  {first} → {second}", index + 1);
        if let Some(us) = connection.handshake_us() {
            head.push_str(&format!("   SYN {}", time(us)));
        }
        let (begin, end) = connection.seen_ns();
        head.push_str(&format!("  {}", time(end.saturating_sub(begin) / 1000)));
        let [up, down] = connection.bytes();
        head.push_str(&format!("  ↑ {}  ↓ {}", words::bytes(up), words::bytes(down)));
        let [ours, theirs] = connection.repeats();
        if ours + theirs > 0 {
            head.push_str(&format!("  ⟳ {ours}/{theirs}"));
        }
        writeln!(out, "{}", paint.bold(&head))?;
        let (words, certainty) = connection.explain(capture.ends_ns());
        paragraph(out, "    ", &format!("{} ({})", words.get(lang), certainty.name()))?;
    }
    let left = told.count().saturating_sub(LISTED);
    if left > 0 {
        match lang {
            Lang::En => writeln!(out, "… and {left} more that did not end cleanly (--json has all)")?,
            Lang::Zh => writeln!(out, "……还有 {left} 个没有正常结束（--json 列出全部）")?,
        }
    }
    let count = |how: How| all.iter().filter(|connection| connection.how() == how).count();
    let (clean, reset, refused, open) =
        (count(How::Fin), count(How::Reset), count(How::Refused), count(How::Open));
    let segments = capture.figures().segments;
    let line = match lang {
        Lang::En => format!(
            "{} connections in {segments} segments · {clean} closed cleanly · {reset} reset · {refused} refused · {open} not ended",
            all.len()
        ),
        Lang::Zh => format!(
            "{segments} 个报文中有 {} 个连接 · 正常关闭 {clean} · 被重置 {reset} · 被拒绝 {refused} · 未结束 {open}",
            all.len()
        ),
    };
    writeln!(out, "{}\n", paint.bold(&line))
}

/// Every connection as JSON; unknown values are absent.
pub(crate) fn values(capture: &Capture, lang: Lang) -> Vec<Value> {
    capture.conversations().iter().map(|connection| value(connection, capture.ends_ns(), lang)).collect()
}

fn value(connection: &Conversation, ends_ns: u64, lang: Lang) -> Value {
    let ([first, second], [up, down]) = (connection.addresses(), connection.bytes());
    let [ours, theirs] = connection.repeats();
    let (begin, end) = connection.seen_ns();
    let (words, certainty) = connection.explain(ends_ns);
    let mut value = json!({
        "first": first.to_string(), "second": second.to_string(), "begin_ns": begin, "end_ns": end,
        "bytes_up": up, "bytes_down": down, "repeats_up": ours, "repeats_down": theirs,
        "how": connection.how().name(), "closed_by": connection.closed_by(),
        "certainty": certainty.name(), "explanation": words.get(lang),
    });
    let [to_second, to_first] = connection.rtt_us();
    for (name, us) in [
        ("handshake_us", connection.handshake_us()),
        ("rtt_to_second_us", to_second),
        ("rtt_to_first_us", to_first),
    ] {
        if let Some(us) = us {
            value[name] = us.into();
        }
    }
    if let Some(reason) = connection.reason() {
        value["reason"] = reason.into();
    }
    value
}
