//! `lastack sysctl`: what a knob really bounds, its default, the common misconception.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use lastack_observe::filter::Filter;
use lastack_observe::json;
use lastack_observe::snapshot::{Namespace, Snapshot};
use lastack_observe::source::kernel::{Detail, Query};
use lastack_observe::sysctl::{self, Knob, Reach};
use lastack_observe::words::Lang;
use serde_json::{Map, Value, json};

use crate::args::Globals;
use crate::failure::Failure;
use crate::source_args::SourceArgs;
use crate::table::Table;
use crate::text::{Paint, paragraph, wrap};

/// The command line of `sysctl`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  lastack sysctl tcp_fin_timeout          value, default, what it bounds, what people wrongly think
  lastack sysctl tcp_orphan_retries=3     set it (root), and say what changes

Without a name: all knobs, one a line, those that are not at their default first.")]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// A knob, or an assignment; with or without net.ipv4.
    #[arg(value_name = "NAME[=VALUE]")]
    assignment: Option<String>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    if args.source.is_everywhere() {
        return Err(Failure::new(
            "sysctl shows and sets what one network namespace has",
            "--all-netns names them all",
            "--netns PATH, or without it for this one",
        ));
    }
    let lang = globals.lang();
    let paint = Paint { colored: globals.colored() };
    let out = &mut BufWriter::new(io::stdout().lock());
    let (knob, value) = match &args.assignment {
        None => (None, None),
        Some(text) => {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) if value.trim().is_empty() => return Err(no_value(name.trim())),
                Some((name, value)) => (name.trim(), Some(value.trim())),
                None => (text.as_str(), None),
            };
            (Some(Knob::by_name(name).ok_or_else(|| unknown(name))?), value)
        }
    };
    if let (Some(knob), Some(value)) = (knob, value) {
        let mut source = args.source.open()?;
        source.set_sysctl(knob.name, value).map_err(|error| refused(knob, value, &error))?;
    }
    let query = Query { filter: Filter::everything(), detail: Detail::Full, owners: false, v6: None };
    let snapshot = args.source.snapshot(&query)?;
    match (knob, globals.json) {
        (Some(knob), true) => {
            let mut document = value_of(knob, &snapshot, lang);
            document["schema"] = json::SCHEMA.into();
            writeln!(out, "{document}")?;
        }
        (None, true) => {
            let all: Vec<Value> = sysctl::ALL.iter().map(|knob| value_of(knob, &snapshot, lang)).collect();
            writeln!(out, "{}", json!({"schema": json::SCHEMA, "source": snapshot.source, "sysctls": all}))?;
        }
        (Some(knob), false) => page(knob, &snapshot, lang, &paint, out)?,
        (None, false) => list(&snapshot, lang, out)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn unknown(name: &str) -> Failure {
    let bare = sysctl::bare(name);
    // Those that begin alike, else those that share a word.
    let alike = |known: &str| known.bytes().zip(bare.bytes()).take_while(|(a, b)| a == b).count();
    let known = || sysctl::ALL.iter().map(|knob| knob.name);
    let longest = known().map(alike).max().filter(|length| *length > "tcp_x".len());
    let shares_word = |known: &&str| bare.split('_').any(|part| part.len() > 3 && known.contains(part));
    let close: Vec<&str> = match longest {
        Some(longest) => known().filter(|name| alike(name) == longest).take(6).collect(),
        None => known().filter(shares_word).take(6).collect(),
    };
    let cause = if bare == "tcp_tw_recycle" {
        "it was removed in Linux 4.12: it broke clients behind NAT, and random timestamp offsets made it useless".to_owned()
    } else if bare == "tcp_timewait_len" {
        "Linux has no knob for the length of TIME-WAIT: 60 s is a constant of the kernel".to_owned()
    } else {
        "it is no net.ipv4.tcp_* knob that is known here".to_owned()
    };
    let next = if close.is_empty() { "lastack sysctl".to_owned() } else { close.join(" ") };
    Failure::new(format!("there is no knob `{name}`"), cause, next)
}

fn no_value(name: &str) -> Failure {
    Failure::new(
        format!("`{name}=` sets nothing"),
        "no value stands behind the =",
        format!("lastack sysctl {name} shows its value"),
    )
}

fn refused(knob: &Knob, value: &str, error: &io::Error) -> Failure {
    let name = knob.full_name();
    let (cause, next) = match error.kind() {
        io::ErrorKind::PermissionDenied => (
            "writing it needs root in the network namespace".to_owned(),
            format!("sudo lastack sysctl {name}={value}"),
        ),
        io::ErrorKind::InvalidInput => {
            ("the kernel refuses the value".to_owned(), format!("a value of this kind: {}", knob.values))
        }
        io::ErrorKind::NotFound => match knob.reach {
            Reach::Host => (
                "it belongs to the whole host and is not shown in this namespace".to_owned(),
                "the same in the initial namespace".to_owned(),
            ),
            Reach::Namespace => ("this kernel does not have it".to_owned(), "uname -r".to_owned()),
        },
        _ => (error.to_string(), format!("a value of this kind: {}", knob.values)),
    };
    Failure::new(format!("{name} was not set to {value}"), cause, next)
}

/// The value in the first namespace; `None` when it does not have the knob.
fn current<'a>(knob: &Knob, snapshot: &'a Snapshot) -> Option<&'a str> {
    snapshot.namespaces.first().and_then(|space: &Namespace| space.sysctls.get(knob.name)).map(String::as_str)
}

/// Present sockets the knob bears on.
fn touched(knob: &Knob, snapshot: &Snapshot) -> Option<usize> {
    knob.touches.map(|touches| snapshot.rows.iter().filter(|row| touches(row)).count())
}

fn value_of(knob: &Knob, snapshot: &Snapshot, lang: Lang) -> Value {
    let mut object = Map::new();
    object.insert("name".to_owned(), knob.full_name().into());
    if let Some(value) = current(knob, snapshot) {
        object.insert("value".to_owned(), value.into());
    }
    if !knob.default.is_empty() {
        object.insert("default".to_owned(), knob.default.into());
    }
    object.insert("values".to_owned(), knob.values.into());
    object.insert("reach".to_owned(), if knob.reach == Reach::Host { "host" } else { "namespace" }.into());
    object.insert("meaning".to_owned(), knob.meaning.get(lang).into());
    if !knob.myth.en.is_empty() {
        object.insert("myth".to_owned(), knob.myth.get(lang).into());
    }
    if let Some(count) = touched(knob, snapshot) {
        object.insert("sockets".to_owned(), count.into());
    }
    object.into()
}

fn page(knob: &Knob, snapshot: &Snapshot, lang: Lang, paint: &Paint, out: &mut dyn Write) -> io::Result<()> {
    let value = current(knob, snapshot).unwrap_or("-");
    let default = if knob.default.is_empty() { "-" } else { knob.default };
    writeln!(out, "{} = {value}", paint.bold(&knob.full_name()))?;
    let english = lang == Lang::En;
    let label = |en: &'static str, zh: &'static str| if english { en } else { zh };
    paragraph(out, label("  default    ", "  默认       "), default)?;
    paragraph(out, label("  values     ", "  取值       "), &knob.values_in(lang))?;
    let reach = match (knob.reach, english) {
        (Reach::Namespace, true) => "this network namespace",
        (Reach::Namespace, false) => "本网络命名空间",
        (Reach::Host, true) => "the whole host",
        (Reach::Host, false) => "整台主机",
    };
    paragraph(out, label("  reaches    ", "  范围       "), reach)?;
    paragraph(out, label("  really     ", "  真正作用   "), knob.meaning.get(lang))?;
    if !knob.myth.en.is_empty() {
        paragraph(out, label("  but not    ", "  误解       "), knob.myth.get(lang))?;
    }
    if let Some(count) = touched(knob, snapshot) {
        let text = if english {
            format!("{count} of {} present sockets", snapshot.rows.len())
        } else {
            format!("当前 {} 个套接字中的 {count} 个", snapshot.rows.len())
        };
        paragraph(out, label("  bears on   ", "  涉及       "), &text)?;
    }
    Ok(())
}

/// As much of a meaning as a line of a list has room for.
fn beginning(meaning: &str) -> String {
    const ROOM: usize = 60;
    match wrap(meaning, ROOM).split_first() {
        Some((first, [])) => first.clone(),
        Some((first, _)) => format!("{} …", first.trim_end_matches([',', ';', ':', '，', '；', '：'])),
        None => String::new(),
    }
}

fn list(snapshot: &Snapshot, lang: Lang, out: &mut dyn Write) -> io::Result<()> {
    let differs = |knob: &&Knob| {
        current(knob, snapshot).is_some_and(|value| {
            !knob.default.is_empty()
                && value != knob.default
                && knob.default.starts_with(|c: char| c.is_ascii_digit())
        })
    };
    let mut knobs: Vec<&Knob> = sysctl::ALL.iter().filter(|knob| current(knob, snapshot).is_some()).collect();
    knobs.sort_by_key(|knob| !differs(knob));
    let mut table =
        Table::new(&[("", false), ("Name", false), ("Value", true), ("Default", true), ("", false)]);
    for knob in knobs {
        table.push(vec![
            if differs(&knob) { "*" } else { " " }.to_owned(),
            knob.name.to_owned(),
            current(knob, snapshot).unwrap_or("-").to_owned(),
            knob.default.to_owned(),
            beginning(knob.meaning.get(lang)),
        ]);
    }
    table.write(out, true)
}
