//! `lastack lab list`, `show` and `run`: stories, told.
//!
//! Owns: which runs a command line asks for, the page around the chart, the JSON document.
//! Not here: playing (`lastack_lab::stories`), drawing (`crate::story`), the rules' texts (`lastack_observe::doctor`).

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lastack_lab::stories::chart::{self, Row};
use lastack_lab::stories::outline::{self, Difference, Value};
use lastack_lab::stories::words::{Lang, time};
use lastack_lab::stories::{self, OnLinux, Options, Record, Side, Story};
use lastack_observe::doctor::Rule;
use lastack_observe::words as observe;
use serde_json::json;

use super::TargetArg;
use crate::args::Globals;
use crate::failure::Failure;
use crate::story::chart::Chart;
use crate::story::{Layout, lanes, svg};
use crate::text::{Paint, columns, paragraph_within};

#[derive(clap::Args, Debug)]
pub(crate) struct ShowArgs {
    /// A story, as `lastack lab list` names it
    id: String,
}

#[derive(clap::Args, Debug)]
pub(crate) struct RunArgs {
    /// A story, as `lastack lab list` names it
    id: String,
    /// Who plays: our stack in virtual time, Linux in a namespace in real time, or both side by side
    #[arg(long, value_enum, default_value_t = TargetArg::Stack)]
    target: TargetArg,
    /// Play it again with this setting of the end the story is about, and say what became different (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// On Linux: with the default settings even where that takes minutes
    #[arg(long)]
    full: bool,
    /// Write the chart as a picture too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Real time blurs what virtual time shows exactly.
const REAL_SLACK: Duration = Duration::from_millis(80);
const VIRTUAL_SLACK: Duration = Duration::from_millis(1);

fn find(id: &str) -> Result<&'static Story, Failure> {
    stories::by_id(id).ok_or_else(|| {
        // A finding's name is a story's with a dot.
        let dashed = id.replace('.', "-");
        let next = match stories::by_id(&dashed) {
            Some(story) => format!("lastack lab run {}", story.id),
            None => "lastack lab list".to_owned(),
        };
        Failure::new(
            format!("there is no story `{id}`"),
            "stories have the names that `lab list` shows",
            next,
        )
    })
}

fn lang(globals: &Globals) -> Lang {
    match globals.lang() {
        observe::Lang::En => Lang::En,
        observe::Lang::Zh => Lang::Zh,
    }
}

fn layout(globals: &Globals) -> Layout {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    Layout {
        columns: columns(),
        ascii: dumb,
        lang: lang(globals),
        paint: Paint { colored: globals.colored() },
    }
}

/// The rules a story tells, as `doctor` has them.
fn rules(story: &Story) -> impl Iterator<Item = &'static Rule> {
    story.rules.iter().filter_map(|id| Rule::by_id(id))
}

/// `lab list`
pub(crate) fn list(globals: &Globals) -> Result<ExitCode, Failure> {
    let layout = layout(globals);
    let mut out = BufWriter::new(io::stdout().lock());
    if globals.json {
        let stories: Vec<_> = stories::ALL.iter().map(|story| about(story, layout.lang)).collect();
        writeln!(out, "{}", json!({"schema": 1, "stories": stories}))?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let widest = stories::ALL.iter().map(|story| story.id.len()).max().unwrap_or(0);
    for story in stories::ALL {
        let pad = " ".repeat(widest - story.id.len() + 2);
        let first = format!("{}{pad}", story.id);
        let mut text = Vec::new();
        paragraph_within(&mut text, layout.columns, &first, story.title.get(layout.lang))?;
        let text = String::from_utf8_lossy(&text).replacen(story.id, &layout.paint.bold(story.id), 1);
        write!(out, "{text}")?;
    }
    let end = match layout.lang {
        Lang::En => "\nlastack lab run ID plays one; --target both puts Linux beside it.",
        Lang::Zh => "\nlastack lab run ID 播放一个故事；--target both 与 Linux 并排对照。",
    };
    writeln!(out, "{end}")?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// A story as JSON, without playing it.
fn about(story: &Story, lang: Lang) -> serde_json::Value {
    let what: Vec<&str> = story.what.iter().map(|text| text.get(lang)).collect();
    let knobs: Vec<_> = story
        .knobs
        .iter()
        .map(|knob| {
            let effect = knob.effect.get(lang);
            json!({"name": knob.name, "value": knob.value, "changes": knob.changes, "effect": effect})
        })
        .collect();
    let linux = match story.on_linux {
        OnLinux::AsItIs => json!({"plays": "as-it-is"}),
        OnLinux::Short(settings) => json!({"plays": "shortened", "settings": settings}),
        OnLinux::Never(why) => json!({"plays": "never", "why": why.get(lang)}),
    };
    json!({"id": story.id, "title": story.title.get(lang), "rules": story.rules, "excerpts": story.excerpts,
        "what": what, "taught": story.taught, "settings": story.settings, "knobs": knobs, "linux": linux})
}

/// `lab show`
pub(crate) fn show(args: &ShowArgs, globals: &Globals) -> Result<ExitCode, Failure> {
    let story = find(&args.id)?;
    let layout = layout(globals);
    let mut out = BufWriter::new(io::stdout().lock());
    if globals.json {
        let mut page = about(story, layout.lang);
        page["schema"] = json!(1);
        writeln!(out, "{page}")?;
    } else {
        heading(story, &layout, &mut out)?;
        reasons(story, &layout, &mut out)?;
        knobs(story, &layout, &mut out)?;
        let how = match (layout.lang, story.on_linux) {
            (Lang::En, OnLinux::AsItIs) => {
                "Linux plays it as it is, within seconds: --target both".to_owned()
            }
            (Lang::Zh, OnLinux::AsItIs) => "Linux 可在数秒内照样播放：--target both".to_owned(),
            (Lang::En, OnLinux::Short(settings)) => {
                format!(
                    "Linux plays it in a short form{}; in full with --full: --target both",
                    with(settings)
                )
            }
            (Lang::Zh, OnLinux::Short(settings)) => {
                format!("Linux 播放缩短的形式{}；用 --full 播放完整形式：--target both", with(settings))
            }
            (Lang::En, OnLinux::Never(why)) => format!("Linux does not play it: {}", why.en),
            (Lang::Zh, OnLinux::Never(why)) => format!("Linux 不播放它：{}", why.zh),
        };
        writeln!(out)?;
        paragraph_within(&mut out, layout.columns, "", &how)?;
        writeln!(out, "lastack lab run {}", story.id)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn with(settings: &[(&str, &str)]) -> String {
    if settings.is_empty() {
        return String::new();
    }
    let list: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!(" ({})", list.join(", "))
}

// ---- run

/// One played run.
struct Run {
    on_kernel: bool,
    options: Options,
    record: Record,
}

impl Run {
    fn name(&self) -> &'static str {
        if self.on_kernel { "kernel" } else { "stack" }
    }
}

/// `lab run`
pub(crate) fn run(args: &RunArgs, globals: &Globals) -> Result<ExitCode, Failure> {
    let story = find(&args.id)?;
    let layout = layout(globals);
    let sysctls = args.sysctl.iter().map(|text| assignment(text)).collect::<Result<Vec<_>, _>>()?;
    let on_linux = args.target != TargetArg::Stack;
    if args.full && !on_linux {
        return Err(Failure::new(
            "--full is about Linux",
            "in virtual time a story is always played in full",
            format!("lastack lab run {} --target both --full", story.id),
        ));
    }
    if let (true, OnLinux::Never(why)) = (on_linux, story.on_linux) {
        return Err(Failure::new(
            format!("Linux cannot play {}", story.id),
            why.en,
            format!("lastack lab run {}", story.id),
        ));
    }
    let short = on_linux && !args.full;
    let plain = Options { short, sysctls: Vec::new() };
    let asked = Options { short, sysctls };

    // In virtual time, so it is known at once how long Linux will take.
    let ours = play(story, &asked, false)?;
    let before = if asked.sysctls.is_empty() { None } else { Some(play(story, &plain, false)?) };
    let (run, before, beside) = match args.target {
        TargetArg::Stack => (ours, before, None),
        TargetArg::Kernel => {
            let length = before.as_ref().map_or(Duration::ZERO, |run| run.record.end);
            progress(story, short, ours.record.end + length, &layout);
            let before = before.map(|_| play(story, &plain, true)).transpose()?;
            (play(story, &asked, true)?, before, None)
        }
        TargetArg::Both => {
            progress(story, short, ours.record.end, &layout);
            let linux = play(story, &asked, true)?;
            (ours, before, Some(linux))
        }
    };
    let changed = before.as_ref().map(|before| {
        outline::differences(
            &before.record,
            &run.record,
            if run.on_kernel { REAL_SLACK } else { VIRTUAL_SLACK },
        )
    });
    let apart = beside.as_ref().map(|linux| outline::differences(&run.record, &linux.record, REAL_SLACK));
    let telling = Telling { story, run: &run, beside: beside.as_ref(), changed, apart, layout: &layout };

    if let Some(path) = &args.svg {
        std::fs::write(path, telling.picture()).map_err(|error| {
            Failure::new(format!("cannot write {}", path.display()), error.to_string(), "--svg story.svg")
        })?;
    }
    let mut out = BufWriter::new(io::stdout().lock());
    if globals.json {
        writeln!(out, "{}", telling.document())?;
    } else {
        telling.tell(&mut out)?;
    }
    out.flush()?;
    // With a setting of one's own it may end in another way; without, it must not.
    let wrong = asked.sysctls.is_empty() && telling.runs().any(|run| !telling.ending(run).is_empty());
    Ok(ExitCode::from(u8::from(wrong)))
}

fn assignment(text: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(Failure::new(
            format!("`{text}` sets nothing"),
            "--sysctl takes NAME=VALUE",
            "--sysctl tcp_orphan_retries=3",
        )),
    }
}

fn play(story: &Story, options: &Options, on_kernel: bool) -> Result<Run, Failure> {
    let played = if on_kernel { story.on_kernel(options) } else { story.on_stack(options) };
    let record = played.map_err(|error| {
        let next = if on_kernel {
            format!("run as root, or without Linux: lastack lab run {}", story.id)
        } else {
            "lastack sysctl shows the settings there are".to_owned()
        };
        Failure::new(format!("{} cannot be played", story.id), error.to_string(), next)
    })?;
    Ok(Run { on_kernel, options: options.clone(), record })
}

/// Real time is announced before it is spent.
fn progress(story: &Story, short: bool, length: Duration, layout: &Layout) {
    let length = time(length.as_secs_f64().round().max(1.0)).replace(".000", "").replace(".0", "");
    let how = match (layout.lang, short && story.has_short_form()) {
        (_, false) => String::new(),
        (Lang::En, true) => {
            format!(" in its short form{}; --full plays it with the defaults", with(story.short_settings()))
        }
        (Lang::Zh, true) => format!("，缩短形式{}；--full 使用默认设置", with(story.short_settings())),
    };
    match layout.lang {
        Lang::En => say!("lab: Linux plays this in real time, about {length}{how}"),
        Lang::Zh => say!("lab：Linux 以真实时间播放，约 {length}{how}"),
    }
}

/// Everything there is to tell about a run.
struct Telling<'a> {
    story: &'static Story,
    run: &'a Run,
    beside: Option<&'a Run>,
    /// What a setting changed.
    changed: Option<Vec<Difference>>,
    /// What Linux does differently.
    apart: Option<Vec<Difference>>,
    layout: &'a Layout,
}

impl Telling<'_> {
    fn runs(&self) -> impl Iterator<Item = &Run> {
        core::iter::once(self.run).chain(self.beside)
    }

    fn ending(&self, run: &Run) -> Vec<String> {
        if run.options.sysctls.is_empty() {
            self.story.ending.differences(&run.record, run.options.short && self.story.has_short_form())
        } else {
            Vec::new()
        }
    }

    fn many(&self) -> bool {
        self.run.record.flows.len() > 1
    }

    fn rows(&self) -> Vec<Row> {
        let rows = chart::rows(&self.run.record);
        match self.beside {
            Some(linux) => chart::side_by_side(&rows, &chart::rows(&linux.record)),
            None => rows,
        }
    }

    /// The ends' names with who plays them.
    fn heads(&self) -> [String; 2] {
        Side::BOTH.map(|side| {
            let name = outline::side_name(side, self.layout.lang);
            let is_taught = side == self.story.taught;
            let player = match (self.run.on_kernel, self.beside.is_some(), self.layout.lang) {
                (true, _, _) if is_taught => " (Linux)".to_owned(),
                (_, true, Lang::En) if is_taught => " (our stack | Linux)".to_owned(),
                (_, true, Lang::Zh) if is_taught => "（本栈 | Linux）".to_owned(),
                _ => String::new(),
            };
            format!("{name}{player}")
        })
    }

    fn picture(&self) -> String {
        let title = format!("{}: {}", self.story.id, self.story.title.get(self.layout.lang));
        svg::draw(&title, &self.heads(), &self.rows(), self.many(), self.layout.lang)
    }

    fn document(&self) -> serde_json::Value {
        let runs: Vec<_> = self
            .runs()
            .map(|run| {
                json!({"target": run.name(), "short": run.options.short && self.story.has_short_form(),
                    "sysctls": run.options.sysctls, "as_expected": self.ending(run).is_empty(),
                    "unexpected": self.ending(run), "record": run.record, "outline": outline::outline(&run.record)})
            })
            .collect();
        let mut document =
            json!({"schema": 1, "story": self.story.id, "taught": self.story.taught, "runs": runs});
        if let Some(changed) = &self.changed {
            document["changed_by_sysctl"] = json!(changed);
        }
        if let Some(apart) = &self.apart {
            document["stack_and_kernel_differ"] = json!(apart);
        }
        document
    }

    fn tell(&self, out: &mut dyn Write) -> io::Result<()> {
        let layout = self.layout;
        heading(self.story, layout, out)?;
        if self.run.options.short && self.story.has_short_form() {
            let settings = with(self.story.short_settings());
            writeln!(out)?;
            let told = match layout.lang {
                Lang::En => format!("Told here in its short form, for real time{settings}."),
                Lang::Zh => format!("这里为真实时间而缩短{settings}。"),
            };
            paragraph_within(out, layout.columns, "  ", &layout.paint.yellow(&told))?;
        }
        title(out, layout, "What crosses the wire", "线路上发生了什么")?;
        let both = ["our stack", "Linux"];
        let runs = self.beside.map(|_| match layout.lang {
            Lang::En => both.map(str::to_owned),
            Lang::Zh => ["本栈".to_owned(), "Linux".to_owned()],
        });
        let rows = self.rows();
        let chart = Chart { rows: &rows, heads: self.heads(), runs, many: self.many() };
        crate::story::chart::draw(&chart, layout, out)?;

        title(out, layout, "States against time (not to scale)", "状态与时间（不按比例）")?;
        lanes::draw(&self.run.record, layout, out)?;
        self.counters(out)?;
        self.comparison(out)?;
        for run in self.runs() {
            for wrong in self.ending(run) {
                let lead = if layout.lang == Lang::En { "not as expected" } else { "与预期不符" };
                writeln!(out, "{}", layout.paint.red(&format!("{lead} [{}]: {wrong}", run.name())))?;
            }
        }
        reasons(self.story, layout, out)?;
        knobs(self.story, layout, out)
    }

    /// Counters that moved, an end a line.
    fn counters(&self, out: &mut dyn Write) -> io::Result<()> {
        let layout = self.layout;
        title(out, layout, "Counters that moved (nstat's names)", "变动的计数器（nstat 的名字）")?;
        for side in Side::BOTH {
            let moved: Vec<String> = self.run.record.counters[side as usize]
                .iter()
                .map(|(name, by)| {
                    let there = self.beside.map(|linux| linux.record.counter(side, name));
                    match there.filter(|there| there != by) {
                        Some(there) => format!("{name} {by} (Linux {there})"),
                        None => format!("{name} {by}"),
                    }
                })
                .collect();
            let text = if moved.is_empty() { "–".to_owned() } else { moved.join("  ") };
            let name = outline::side_name(side, layout.lang);
            let pad = if layout.lang == Lang::En { 8 } else { 6 };
            let first = format!("  {name}{}", " ".repeat(pad - name.chars().count() + 2));
            paragraph_within(out, layout.columns, &first, &text)?;
        }
        Ok(())
    }

    fn comparison(&self, out: &mut dyn Write) -> io::Result<()> {
        let layout = self.layout;
        if let Some(changed) = &self.changed {
            let list: Vec<String> =
                self.run.options.sysctls.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let list = list.join(" ");
            title(out, layout, &format!("What {list} changes"), &format!("{list} 改变了什么"))?;
            let none = [
                "nothing: it ends in the same way, after the same time",
                "什么也没有：同样的结局，同样的时间",
            ];
            self.table(changed, [["before", "now"], ["之前", "现在"]], none, out)?;
        }
        if let Some(apart) = &self.apart {
            title(out, layout, "Our stack beside Linux", "本栈与 Linux 对照")?;
            let none = [
                "no difference: the same states, errors, segments and counters, the same times within 80 ms or 4 %",
                "没有差异：状态、错误、报文段和计数器相同，时间相差不超过 80 毫秒或 4 %",
            ];
            self.table(apart, [["our stack", "Linux"], ["本栈", "Linux"]], none, out)?;
        }
        Ok(())
    }

    fn table(
        &self,
        differences: &[Difference],
        heads: [[&str; 2]; 2],
        none: [&str; 2],
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let layout = self.layout;
        let index = usize::from(layout.lang == Lang::Zh);
        if differences.is_empty() {
            return paragraph_within(out, layout.columns, "  ", none[index]);
        }
        for difference in differences {
            let subject = difference.subject.text(layout.lang, self.many());
            let (first, second) =
                (Value::text(difference.first.as_ref()), Value::text(difference.second.as_ref()));
            let heads = heads[index];
            if first.len() + second.len() > 30 {
                writeln!(out, "  {subject}")?;
                paragraph_within(out, layout.columns, &format!("    {}: ", heads[0]), &first)?;
                paragraph_within(out, layout.columns, &format!("    {}: ", heads[1]), &second)?;
            } else {
                let text = format!("{}: {first}   {}: {}", heads[0], heads[1], layout.paint.bold(&second));
                writeln!(out, "  {subject}   {text}")?;
            }
        }
        Ok(())
    }
}

// ---- the parts of a page

fn title(out: &mut dyn Write, layout: &Layout, en: &str, zh: &str) -> io::Result<()> {
    let text = if layout.lang == Lang::En { en } else { zh };
    writeln!(out, "\n{}", layout.paint.bold(text))
}

fn heading(story: &Story, layout: &Layout, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", layout.paint.bold(story.id))?;
    paragraph_within(out, layout.columns, "", story.title.get(layout.lang))?;
    for text in story.what {
        writeln!(out)?;
        paragraph_within(out, layout.columns, "  ", text.get(layout.lang))?;
    }
    Ok(())
}

/// Cause, cure and myths: `doctor`'s own words.
fn reasons(story: &Story, layout: &Layout, out: &mut dyn Write) -> io::Result<()> {
    let lang = match layout.lang {
        Lang::En => observe::Lang::En,
        Lang::Zh => observe::Lang::Zh,
    };
    let heads = match layout.lang {
        Lang::En => ["cause      ", "what helps ", "what not   "],
        Lang::Zh => ["原因       ", "有效做法   ", "无效做法   "],
    };
    for rule in rules(story) {
        let found = format!("doctor: {}", rule.id);
        title(out, layout, &found, &found)?;
        paragraph_within(out, layout.columns, &format!("  {}", heads[0]), rule.cause.get(lang))?;
        for (head, texts) in [(heads[1], rule.fix), (heads[2], rule.myth)] {
            for (n, text) in texts.iter().enumerate() {
                let first = if n == 0 { format!("  {head}") } else { " ".repeat(13) };
                paragraph_within(out, layout.columns, &format!("{first}· "), text.get(lang))?;
            }
        }
    }
    Ok(())
}

fn knobs(story: &Story, layout: &Layout, out: &mut dyn Write) -> io::Result<()> {
    if story.knobs.is_empty() {
        return Ok(());
    }
    title(out, layout, "Knobs to try", "可以试试的参数")?;
    for knob in story.knobs {
        let value = if knob.value.contains(' ') {
            format!("'{}={}'", knob.name, knob.value)
        } else {
            format!("{}={}", knob.name, knob.value)
        };
        writeln!(out, "  lastack lab run {} --sysctl {value}", story.id)?;
        paragraph_within(out, layout.columns, "      ", knob.effect.get(layout.lang))?;
    }
    Ok(())
}
