//! `lastack lab check`: packet scripts, judged by the stack and by Linux.
//!
//! Owns: the report for people and as JSON, the exit code (0 all passed, 1 some failed).
//! Not here: running scripts (`lastack_lab::runner`).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lastack_lab::kernel::CubicAllowed;
use lastack_lab::runner::{Case, TargetKind, Verdict, check_all, find_scripts};

use super::TargetArg;
use crate::args::Globals;
use crate::failure::Failure;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Scripts, or directories of `*.pkt`
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Which host plays: our stack in virtual time, Linux in a namespace in real time, or both
    #[arg(long, value_enum, default_value_t = TargetArg::Stack)]
    target: TargetArg,
    /// Scripts run at a time; default 16 on the kernel (they mostly wait), one a core on the stack
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Run each script so many times; it passes when it passes every time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Leave out scripts marked `// duration: long` on the kernel
    #[arg(long)]
    short: bool,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    if args.short && args.target == TargetArg::Stack {
        return Err(Failure::new(
            "--short leaves scripts out on Linux only",
            "in virtual time none of them takes long",
            "--target kernel or both, or without --short",
        ));
    }
    let unreadable = |error: io::Error| {
        Failure::new("cannot read the scripts", error.to_string(), "lastack lab check lab/scripts")
    };
    let files = find_scripts(&args.paths).map_err(unreadable)?;
    if files.is_empty() {
        let where_ = args.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        return Err(Failure::new(
            "no script to check",
            format!("there is no *.pkt under {where_}"),
            "name a file",
        ));
    }
    let cases =
        files.iter().map(|file| Case::load(file)).collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
    let mut verdicts = Vec::new();
    for kind in args.target.kinds() {
        let on_kernel = *kind == TargetKind::Kernel;
        let cubic = if on_kernel { Some(allow_cubic()?) } else { None };
        if let Some(notice) = cubic.as_ref().and_then(|cubic| cubic.notice.as_ref()) {
            say!("lab: {notice}");
        }
        let once = cases.iter().filter(|case| !(on_kernel && args.short && case.is_long));
        let work: Vec<(Case, TargetKind)> =
            (0..args.repeat).flat_map(|_| once.clone().map(|case| (case.clone(), *kind))).collect();
        let jobs = args.jobs.map_or_else(|| if on_kernel { 16 } else { cores() }, usize::from);
        verdicts.extend(check_all(&work, jobs, |verdict| {
            if globals.json {
                print_json_line(verdict);
            } else if let Some(failure) = &verdict.failure {
                let shown = format!("{} [{}]", verdict.script.display(), verdict.target.name());
                // A closed pipe is found by the summary below.
                let _ = writeln!(io::stdout(), "{}", failure.text(&shown));
            }
        }));
    }
    if !globals.json {
        print_summary(&verdicts, &mut io::stdout().lock())?;
    }
    Ok(ExitCode::from(u8::from(verdicts.iter().any(|verdict| verdict.failure.is_some()))))
}

fn allow_cubic() -> Result<CubicAllowed, Failure> {
    CubicAllowed::ensure().map_err(|error| {
        Failure::new(
            "the kernel target cannot be prepared",
            error.to_string(),
            "run as root, or use --target stack, which needs no privilege",
        )
    })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn print_json_line(verdict: &Verdict) {
    let mut line = serde_json::json!({ "schema": 1, "event": "script" });
    let fields = serde_json::to_value(verdict).expect("a verdict is plain data");
    if let (Some(line), serde_json::Value::Object(fields)) = (line.as_object_mut(), fields) {
        line.extend(fields);
    }
    let _ = writeln!(io::stdout(), "{line}");
}

/// Passed and all, by folder and target.
fn print_summary(verdicts: &[Verdict], out: &mut impl Write) -> Result<(), Failure> {
    let mut folders: BTreeMap<(&Path, TargetKind), (usize, usize)> = BTreeMap::new();
    let mut totals: BTreeMap<TargetKind, (usize, usize)> = BTreeMap::new();
    for verdict in verdicts {
        let folder = verdict.script.parent().unwrap_or(Path::new(""));
        let passed = usize::from(verdict.failure.is_none());
        let counts =
            [folders.entry((folder, verdict.target)).or_default(), totals.entry(verdict.target).or_default()];
        for (good, all) in counts {
            *good += passed;
            *all += 1;
        }
    }
    for ((folder, target), (good, all)) in &folders {
        writeln!(out, "{:<6}  {good:>3} of {all:>3}  {}", target.name(), folder.display())?;
    }
    for (target, (good, all)) in &totals {
        writeln!(out, "{:<6}  {good:>3} of {all:>3}  passed in all", target.name())?;
    }
    Ok(())
}
