//! `lastack doctor`: stuck sockets, cause, cure, and the advice that does not help.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use lastack_observe::doctor::what_if::{self, Prediction};
use lastack_observe::doctor::{self, Finding, Limits, Rule, Severity};
use lastack_observe::snapshot::Snapshot;
use lastack_observe::source::Source;
use lastack_observe::source::capture::Capture;
use lastack_observe::source::kernel::Query;
use lastack_observe::words::Lang;
use lastack_observe::{clock, group, json};
use serde_json::{Map, Value, json};

use crate::args::Globals;
use crate::cmd::capture;
use crate::failure::Failure;
use crate::seconds;
use crate::source_args::SourceArgs;
use crate::text::{Paint, paragraph};

mod run_check;

use run_check::RunCheck;

/// The command line of `doctor`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  lastack doctor                                  this host, within two seconds, no root needed
  lastack doctor --what-if tcp_fin_timeout=30     what that knob would change, and what not
  lastack doctor --from trace.pcap                how each connection of a capture went, and why

Exit status: 0 nothing found at --fail-on's level, 1 findings, 2 usage or failure.")]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// Sockets that make a pile; each rule's own (usually 20) unless set
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    min_count: Option<u32>,
    /// For how long they must have been so
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    min_age: u64,
    /// Share of a limit that counts as near it
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u64).range(1..=1000))]
    near_percent: u64,
    /// Share of repeated segments that counts as a storm
    #[arg(long, value_name = "PERCENT", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1000))]
    retransmit_percent: u64,
    /// Resets a second that count as a storm
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    resets_per_second: u64,
    /// After how long idle a middlebox may have forgotten a connection
    #[arg(long, value_name = "TIME", default_value = "350s", value_parser = duration)]
    middlebox_idle: u64,
    /// Exit with 1 only for findings at least this bad
    #[arg(long, value_name = "LEVEL", value_parser = severity, default_value = "warning")]
    fail_on: Severity,
    /// Seconds between the two looks that give rates; 0 looks once
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds::pause_or_none, conflicts_with = "from")]
    interval: Duration,
    /// The page of one rule, or of `all`
    #[arg(long, value_name = "ID", conflicts_with_all = [
        "what_if", "source", "netns", "all_netns", "from", "interval", "fail_on", "min_count", "min_age", "near_percent", "retransmit_percent", "resets_per_second", "middlebox_idle",
    ])]
    explain: Option<String>,
    /// What a knob would change, before it is set
    #[arg(long, value_name = "NAME=VALUE", conflicts_with_all = [
        "fail_on", "min_count", "min_age", "near_percent", "retransmit_percent", "resets_per_second", "middlebox_idle",
    ])]
    what_if: Option<String>,
}

/// What is examined.
struct Look {
    /// The live source, to ask who has the sockets of a finding.
    source: Option<Source>,
    before: Option<Snapshot>,
    now: Snapshot,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    let out = &mut BufWriter::new(io::stdout().lock());
    let lang = globals.lang();
    let paint = Paint { colored: globals.colored() };
    if let Some(id) = &args.explain {
        explain(id, lang, globals.json, &paint, out)?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut limits = args.limits();
    let capture = args.source.capture(|_| {})?;
    let Look { mut source, before, mut now } = match &capture {
        Some(capture) => {
            limits.usual_pile = 1;
            let (before, now) = capture.snapshots();
            Look { source: None, before: Some(before), now }
        }
        None => args.look()?,
    };
    if let Some(assignment) = &args.what_if {
        predict(assignment, &now, before.as_ref(), lang, globals.json, &paint, out)?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let findings = doctor::examine_then_name(&mut now, before.as_ref(), &limits, |now, ill| {
        if let Some(source) = &mut source {
            source.name_owners(now, ill);
        }
    });
    // Of this host and nothing else: a file, another namespace or a stack says nothing about it.
    let runs = args.source.is_own_kernel().then(RunCheck::now);
    if globals.json {
        document(&findings, &now, capture.as_ref(), runs.as_ref(), lang, out)?;
    } else {
        if let Some(capture) = &capture {
            capture::report(capture, lang, &paint, out)?;
        }
        report(&findings, &now, lang, &paint, out)?;
        if let Some(runs) = &runs {
            runs.write(lang, out)?;
        }
    }
    out.flush()?;
    let worst = findings.iter().map(|finding| finding.severity).max();
    Ok(ExitCode::from(u8::from(worst.is_some_and(|worst| worst >= args.fail_on))))
}

impl Args {
    fn limits(&self) -> Limits {
        Limits {
            min_count: self.min_count.map(|count| count as usize),
            usual_pile: doctor::PILE,
            min_age_ms: self.min_age,
            near_percent: self.near_percent,
            retransmit_percent: self.retransmit_percent,
            resets_per_second: self.resets_per_second,
            middlebox_idle_ms: self.middlebox_idle,
        }
    }

    /// Looks once or, where rates matter, twice. Owners are not looked up: most hosts' findings need none.
    fn look(&self) -> Result<Look, Failure> {
        let query = Query { owners: false, ..Query::everything() };
        if self.source.is_file() {
            return Ok(Look { source: None, before: None, now: self.source.snapshot(&query)? });
        }
        let mut source = self.source.open()?;
        let mut before = None;
        let refused = |error: io::Error| self.source.refused(&error);
        if !self.interval.is_zero() {
            // Rates need counters only: the first look leaves the sockets out.
            before = Some(source.frame().map_err(refused)?);
            clock::pause(self.interval);
        }
        let now = source.snapshot(&query).map_err(refused)?;
        Ok(Look { source: Some(source), before, now })
    }
}

fn duration(text: &str) -> Result<u64, String> {
    lastack_observe::filter::duration_ms(text).map_err(|error| error.message)
}

fn severity(text: &str) -> Result<Severity, String> {
    [Severity::Info, Severity::Warning, Severity::Error]
        .into_iter()
        .find(|severity| severity.name() == text)
        .ok_or_else(|| "info, warning or error".to_owned())
}

pub(crate) fn document(
    findings: &[Finding],
    now: &Snapshot,
    capture: Option<&Capture>,
    runs: Option<&RunCheck>,
    lang: Lang,
    out: &mut dyn Write,
) -> io::Result<()> {
    let findings: Vec<Value> = findings.iter().map(|finding| finding_value(finding, lang)).collect();
    let mut document = json!({
        "schema": json::SCHEMA, "source": now.source, "taken_ns": now.taken_ns,
        "sockets": now.rows.len(), "findings": findings,
    });
    if let Some(capture) = capture {
        document["connections"] = capture::values(capture, lang).into();
    }
    if let Some(runs) = runs {
        document["run"] = runs.to_json();
    }
    if !now.missing.is_empty() {
        document["missing"] =
            now.missing.iter().map(|m| json!({"what": m.what, "grant": m.grant})).collect::<Vec<_>>().into();
    }
    writeln!(out, "{document}")
}

fn finding_value(finding: &Finding, lang: Lang) -> Value {
    let Finding { rule, severity, certainty, count, evidence, owners, peers, ports, sockets } = finding;
    let texts = |list: &[lastack_observe::words::Text]| list.iter().map(|t| t.get(lang)).collect::<Vec<_>>();
    let owners: Vec<Value> = owners
        .iter()
        .map(|owner| {
            let mut object = Map::new();
            if let Some(pid) = owner.pid {
                object.insert("pid".to_owned(), pid.into());
            }
            object.insert("comm".to_owned(), owner.comm.clone().into());
            object.insert("count".to_owned(), owner.count.into());
            object.insert("former".to_owned(), owner.former.into());
            object.insert("how".to_owned(), owner.how.name().into());
            object.into()
        })
        .collect();
    json!({
        "id": rule.id,
        "severity": severity.name(),
        "title": rule.title.get(lang),
        "count": count,
        "certainty": certainty.name(),
        "evidence": evidence.iter().map(|words| words.get(lang)).collect::<Vec<_>>(),
        "owners": owners,
        "peers": peers.iter().map(|(addr, count)| json!({"addr": addr, "count": count})).collect::<Vec<_>>(),
        "ports": ports
            .iter()
            .map(|at| json!({"port": at.port, "side": if at.ours { "local" } else { "peer" }, "count": at.count}))
            .collect::<Vec<_>>(),
        "cause": rule.cause.get(lang),
        "fix": texts(rule.fix),
        "myth": texts(rule.myth),
        "sockets": sockets.iter().map(json::row_value).collect::<Vec<_>>(),
        "story": rule.story(),
    })
}

/// The headings of a report.
struct Labels {
    evidence: &'static str,
    cause: &'static str,
    fix: &'static str,
    myth: &'static str,
    who: &'static str,
    peers: &'static str,
    ports: &'static str,
    story: &'static str,
}

const fn labels(lang: Lang) -> Labels {
    match lang {
        Lang::En => Labels {
            evidence: "  evidence   ",
            cause: "  cause      ",
            fix: "  what helps ",
            myth: "  what not   ",
            who: "  who        ",
            peers: "  with whom  ",
            ports: "  where      ",
            story: "  watch it   ",
        },
        Lang::Zh => Labels {
            evidence: "  证据       ",
            cause: "  原因       ",
            fix: "  有效做法   ",
            myth: "  无效做法   ",
            who: "  本机进程   ",
            peers: "  对端       ",
            ports: "  端口       ",
            story: "  观看经过   ",
        },
    }
}

const INDENT: &str = "             ";

/// Writes findings for people.
pub(crate) fn report(
    findings: &[Finding],
    now: &Snapshot,
    lang: Lang,
    paint: &Paint,
    out: &mut dyn Write,
) -> io::Result<()> {
    for finding in findings {
        heading(finding, lang, paint, out)?;
        details(finding, lang, out)?;
        writeln!(out)?;
    }
    let states = group::by(&now.rows, &[group::Key::State]);
    let states: Vec<String> =
        states.iter().map(|group| format!("{} {}", group.count, group.values[0])).collect();
    let sockets = match (now.rows.len(), states.join(", ")) {
        (count, list) if list.is_empty() => count.to_string(),
        (count, list) => format!("{count} ({list})"),
    };
    let rules = doctor::ALL.len();
    let end = match (lang, findings.len()) {
        (Lang::En, 0) => format!("TCP sockets: {sockets}. {rules} rules: nothing wrong found."),
        (Lang::Zh, 0) => format!("TCP 套接字：{sockets}。{rules} 条规则：未发现问题。"),
        (Lang::En, n) => format!(
            "TCP sockets: {sockets}. {rules} rules: {n} {}. A rule's page: lastack doctor --explain ID",
            if n == 1 { "finding" } else { "findings" }
        ),
        (Lang::Zh, n) => format!(
            "TCP 套接字：{sockets}。{rules} 条规则：发现 {n} 项。规则说明：lastack doctor --explain ID"
        ),
    };
    writeln!(out, "{}", paint.bold(&end))?;
    for missing in &now.missing {
        paragraph(
            out,
            if lang == Lang::En { "not seen: " } else { "未能读取：" },
            &format!("{}; {}", missing.what, missing.grant),
        )?;
    }
    Ok(())
}

fn heading(finding: &Finding, lang: Lang, paint: &Paint, out: &mut dyn Write) -> io::Result<()> {
    let severity = match (lang, finding.severity) {
        (Lang::En, severity) => severity.name(),
        (Lang::Zh, Severity::Info) => "信息",
        (Lang::Zh, Severity::Warning) => "警告",
        (Lang::Zh, Severity::Error) => "错误",
    };
    let severity = match finding.severity {
        Severity::Info => paint.blue(severity),
        Severity::Warning => paint.yellow(severity),
        Severity::Error => paint.red(severity),
    };
    let count = finding.count;
    let certainty = finding.certainty.name();
    writeln!(
        out,
        "{severity}  {}  {}",
        paint.bold(finding.rule.id),
        paint.dim(&format!("{count} × {certainty}"))
    )?;
    paragraph(out, "  ", finding.rule.title.get(lang))
}

fn details(finding: &Finding, lang: Lang, out: &mut dyn Write) -> io::Result<()> {
    let labels = labels(lang);
    list(out, labels.evidence, finding.evidence.iter().map(|words| words.get(lang).to_owned()))?;
    paragraph(out, labels.cause, finding.rule.cause.get(lang))?;
    numbered(out, labels.fix, finding.rule.fix, lang)?;
    list(out, labels.myth, finding.rule.myth.iter().map(|text| text.get(lang).to_owned()))?;
    let owners = finding.owners.iter().map(|owner| {
        let name = owner.pid.map_or_else(|| owner.comm.clone(), |pid| format!("{}/{pid}", owner.comm));
        let former = match (lang, owner.former) {
            (_, false) => String::new(),
            (Lang::En, true) => format!(" (former, by {})", owner.how.name()),
            (Lang::Zh, true) => format!("（曾持有，依据 {}）", owner.how.name()),
        };
        format!("{name}{former}: {}", owner.count)
    });
    joined(out, labels.who, owners)?;
    joined(out, labels.peers, finding.peers.iter().map(|(peer, count)| format!("{peer}: {count}")))?;
    let ports = finding.ports.iter().map(|at| {
        let side = match (lang, at.ours) {
            (Lang::En, true) => "our port",
            (Lang::En, false) => "their port",
            (Lang::Zh, true) => "本端端口",
            (Lang::Zh, false) => "对端端口",
        };
        format!("{side} {}: {}", at.port, at.count)
    });
    joined(out, labels.ports, ports)?;
    writeln!(out, "{}lastack lab run {}", labels.story, finding.rule.story())
}

fn list(out: &mut dyn Write, label: &str, items: impl Iterator<Item = String>) -> io::Result<()> {
    for (index, item) in items.enumerate() {
        paragraph(out, &format!("{}· ", if index == 0 { label } else { INDENT }), &item)?;
    }
    Ok(())
}

fn numbered(
    out: &mut dyn Write,
    label: &str,
    items: &[lastack_observe::words::Text],
    lang: Lang,
) -> io::Result<()> {
    for (index, item) in items.iter().enumerate() {
        let first = if index == 0 { label } else { INDENT };
        paragraph(out, &format!("{first}{}. ", index + 1), item.get(lang))?;
    }
    Ok(())
}

fn joined(out: &mut dyn Write, label: &str, items: impl Iterator<Item = String>) -> io::Result<()> {
    let text = items.collect::<Vec<_>>().join(", ");
    if text.is_empty() { Ok(()) } else { paragraph(out, label, &text) }
}

fn explain(id: &str, lang: Lang, as_json: bool, paint: &Paint, out: &mut dyn Write) -> Result<(), Failure> {
    let rules: Vec<&'static Rule> = match id {
        "all" => doctor::ALL.to_vec(),
        // A story's name is its rule's, spelt for files.
        _ => doctor::ALL.iter().copied().filter(|rule| rule.id == id || rule.story() == id).collect(),
    };
    if rules.is_empty() {
        let near = doctor::ALL.iter().map(|rule| rule.id).filter(|known| known.contains(id));
        let near: Vec<&str> = near.collect();
        let known: Vec<&str> = doctor::ALL.iter().map(|rule| rule.id).collect();
        return Err(Failure::new(
            format!("there is no rule `{id}`"),
            format!("the rules are {}", known.join(" ")),
            match near[..] {
                [first, ..] if !id.is_empty() => format!("lastack doctor --explain {first}"),
                _ => "lastack doctor --explain all".to_owned(),
            },
        ));
    }
    if as_json {
        let texts =
            |list: &[lastack_observe::words::Text]| list.iter().map(|t| t.get(lang)).collect::<Vec<_>>();
        let pages: Vec<Value> = rules
            .iter()
            .map(|rule| {
                json!({"id": rule.id, "title": rule.title.get(lang), "evidence": rule.evidence.get(lang),
                    "cause": rule.cause.get(lang), "fix": texts(rule.fix), "myth": texts(rule.myth), "story": rule.story()})
            })
            .collect();
        writeln!(out, "{}", json!({"schema": json::SCHEMA, "rules": pages}))?;
        return Ok(());
    }
    let labels = labels(lang);
    for rule in rules {
        writeln!(out, "{}", paint.bold(rule.id))?;
        paragraph(out, "  ", rule.title.get(lang))?;
        paragraph(out, labels.evidence, rule.evidence.get(lang))?;
        paragraph(out, labels.cause, rule.cause.get(lang))?;
        numbered(out, labels.fix, rule.fix, lang)?;
        list(out, labels.myth, rule.myth.iter().map(|text| text.get(lang).to_owned()))?;
        writeln!(out, "{}lastack lab run {}", labels.story, rule.story())?;
        writeln!(out)?;
    }
    Ok(())
}

fn predict(
    assignment: &str,
    now: &Snapshot,
    before: Option<&Snapshot>,
    lang: Lang,
    as_json: bool,
    paint: &Paint,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let Some((name, value)) =
        assignment.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty())
    else {
        return Err(Failure::new(
            format!("`{assignment}` sets nothing"),
            "--what-if takes NAME=VALUE",
            "--what-if tcp_fin_timeout=30",
        ));
    };
    let predictions = what_if::predict(now, before, name, value).map_err(|unknown| match unknown {
        what_if::Unknown::Knob => Failure::new(
            format!("there is no model for `{name}`"),
            format!("there is one for {}", what_if::KNOBS.join(" ")),
            format!("lastack sysctl {name} tells what it bounds"),
        ),
        what_if::Unknown::Value => Failure::new(
            format!("`{value}` is not a value that {name} takes"),
            "the kernel would refuse it too",
            format!("lastack sysctl {name}"),
        ),
    })?;
    if as_json {
        let list: Vec<Value> = predictions
            .iter()
            .map(|Prediction { what, now, then, certainty }| {
                json!({"what": what.get(lang), "now": now, "then": then, "changes": now != then, "certainty": certainty.name()})
            })
            .collect();
        let document = json!({"schema": json::SCHEMA, "source": now.source, "what_if": {"name": name, "value": value}, "predictions": list});
        writeln!(out, "{document}")?;
        return Ok(());
    }
    writeln!(out, "{}", paint.bold(&format!("{name} = {value}")))?;
    for prediction in &predictions {
        let figures = match (prediction.now == prediction.then, lang) {
            (false, _) => format!("{} → {}", prediction.now, prediction.then),
            (true, Lang::En) => format!("{} (unchanged)", prediction.now),
            (true, Lang::Zh) => format!("{}（不变）", prediction.now),
        };
        let certainty = paint.dim(prediction.certainty.name());
        paragraph(out, "  ", prediction.what.get(lang))?;
        writeln!(out, "      {}  {certainty}", paint.bold(&figures))?;
    }
    Ok(())
}
