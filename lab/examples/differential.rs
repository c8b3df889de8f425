//! Asks Linux and the stack the same random questions:
//! `cargo run --release -p lastack-lab --example differential -- --seed 1 --count 1000 [--kind close] [--minimise DIR]`.
//!
//! Prints one line for each script answered differently and a summary; with `--minimise` the shortest script of each
//! kind of difference is written to DIR as a `.pkt` with Linux's answers. `--show SEED` prints a seed's script and
//! both answers. `--file FILE` asks a question of one's own instead: `>` lines are ignored, `%{ snd_cwnd lost }%` asks
//! for facts; with `--minimise` it is written to DIR with Linux's answers, alike or not. Needs what the lab's kernel target needs (root, /dev/net/tun).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use lastack_lab::differential::{Judge, Judgement, Kind, as_script, generate, minimise};
use lastack_lab::kernel::CubicAllowed;
use lastack_lab::runner::clock;
use lastack_lab::script::print::print;
use lastack_lab::script::{Script, parse};

const USAGE: &str = "usage: differential [--seed N] [--count N] [--seconds N] [--jobs N] [--kind KIND] [--minimise DIR] [--show] [--file FILE]…
  KIND: handshake receive send close options errors backlog timers (default: all of them in turn)";

#[derive(Debug)]
struct Args {
    seed: u64,
    count: u64,
    seconds: u64,
    jobs: usize,
    kind: Option<Kind>,
    minimise: Option<PathBuf>,
    show: bool,
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(what) => {
            eprintln!("error: {what}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let cubic = CubicAllowed::ensure();
    if let Some(notice) = cubic.as_ref().ok().and_then(|cubic| cubic.notice.as_ref()) {
        eprintln!("{notice}");
    }
    std::panic::set_hook(Box::new(|_| {}));
    if args.show && args.files.is_empty() {
        return show(&args);
    }
    if !args.files.is_empty() {
        return ask_files(&args);
    }
    let judge = Judge::default();
    let tally = Mutex::new(Tally::default());
    let next = AtomicU64::new(0);
    let begun = clock();
    let in_time = || args.seconds == 0 || clock().saturating_sub(begun) < Duration::from_secs(args.seconds);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= args.count || !in_time() {
                        return;
                    }
                    one(&judge, &args, number, &tally);
                }
            });
        }
    });
    let tally = tally.into_inner().expect("no holder panics");
    println!(
        "{} scripts: {} answered alike, {} alike but for a timer's last milliseconds, {} not steady on Linux, \
         {} not playable, {} different",
        tally.same + tally.later + tally.unsteady + tally.unplayable + tally.different,
        tally.same,
        tally.later,
        tally.unsteady,
        tally.unplayable,
        tally.different
    );
    for (what, seeds) in &tally.kinds {
        println!("  {:>4}  {what}  (first: {})", seeds.len(), seeds[0]);
    }
    ExitCode::from(u8::from(tally.different > 0))
}

#[derive(Debug, Default)]
struct Tally {
    same: u64,
    later: u64,
    unsteady: u64,
    unplayable: u64,
    different: u64,
    /// What differs → the scripts that showed it.
    kinds: BTreeMap<String, Vec<String>>,
}

fn script_of(args: &Args, number: u64) -> (String, Script) {
    let seed = args.seed + number;
    let kind = args.kind.unwrap_or(Kind::ALL[(seed % Kind::ALL.len() as u64) as usize]);
    (format!("--kind {} --seed {seed}", kind.name()), generate(seed, kind))
}

fn one(judge: &Judge, args: &Args, number: u64, tally: &Mutex<Tally>) {
    let (name, script) = script_of(args, number);
    let judgement = match judge.judge(&script) {
        Ok(judgement) => judgement,
        Err(error) => Judgement::Unplayable(error.0),
    };
    let mut counts = tally.lock().expect("no holder panics");
    let (difference, recording) = match judgement {
        Judgement::Same => return counts.same += 1,
        Judgement::SameLater => return counts.later += 1,
        Judgement::Unsteady => return counts.unsteady += 1,
        Judgement::Unplayable(why) => {
            counts.unplayable += 1;
            return println!("{name}: not playable: {why}");
        }
        Judgement::Different(found) => *found,
    };
    counts.different += 1;
    let seen = counts.kinds.entry(difference.what.clone()).or_default();
    seen.push(name.clone());
    let is_new = seen.len() == 1;
    drop(counts);
    println!("{name}: {}\n  linux  {}\n  stack  {}", difference.what, difference.kernel, difference.stack);
    let Some(directory) = args.minimise.as_ref().filter(|_| is_new) else { return };
    let (mut least, mut answer) = (script.clone(), (difference.clone(), recording));
    least = minimise(&least, |candidate| match judge.judge(candidate) {
        Ok(Judgement::Different(found)) if found.0.what == difference.what => {
            answer = *found;
            true
        }
        _ => false,
    });
    let comment = format!(
        "Found by `differential {name}`: {}.\nThe stack: {}\nduration: short",
        difference.what, answer.0.stack
    );
    let text = as_script(&least, &answer.1, &difference.what, &comment);
    let letters = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let file = directory.join(format!("{}.pkt", difference.what.chars().map(letters).collect::<String>()));
    match std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&file, text)) {
        Ok(()) => println!("  wrote  {}", file.display()),
        Err(error) => println!("  cannot write {}: {error}", file.display()),
    }
}

/// A seed's script and both answers.
fn show(args: &Args) -> ExitCode {
    let (name, script) = script_of(args, 0);
    println!("// {name}\n{}", print(&script));
    match Judge::default().both(&script) {
        Ok([linux, stack]) => {
            println!("// Linux\n{linux}// the stack\n{stack}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Questions written by hand, several at a time.
fn ask_files(args: &Args) -> ExitCode {
    let judge = Judge::default();
    let next = AtomicUsize::new(0);
    let differ = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.min(args.files.len()) {
            scope.spawn(|| {
                while let Some(file) = args.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let text =
                        ask_file(&judge, file, args).unwrap_or_else(|error| format!("not playable: {error}"));
                    differ.fetch_add(u64::from(!text.starts_with("alike")), Ordering::Relaxed);
                    println!("{}: {text}", file.display());
                }
            });
        }
    });
    ExitCode::from(u8::from(differ.into_inner() > 0))
}

fn ask_file(judge: &Judge, file: &Path, args: &Args) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let script = parse(&text).map_err(|error| error.to_string())?;
    let answer = judge.kernel(&script).map_err(|error| error.to_string())?;
    if let Some(directory) = &args.minimise {
        let comment: String = text
            .lines()
            .map_while(|line| line.strip_prefix("// "))
            .fold(String::new(), |all, line| all + line + "\n");
        let file = directory.join(file.file_name().unwrap_or_default());
        std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
        std::fs::write(file, as_script(&script, &answer, "", &comment)).map_err(|error| error.to_string())?;
    }
    Ok(match judge.judge(&script).map_err(|error| error.to_string())? {
        Judgement::Different(found) => {
            let [linux, stack] = judge.both(&script).map_err(|error| error.to_string())?;
            let difference = found.0;
            format!(
                "{}\n  linux  {}\n  stack  {}\n-- linux\n{linux}-- stack\n{stack}",
                difference.what, difference.kernel, difference.stack
            )
        }
        Judgement::Unplayable(why) => format!("not playable: {why}"),
        Judgement::Unsteady => "not steady on Linux".to_owned(),
        Judgement::Same | Judgement::SameLater if args.show => {
            let [linux, stack] = judge.both(&script).map_err(|error| error.to_string())?;
            format!("alike\n-- linux\n{linux}-- stack\n{stack}")
        }
        Judgement::Same | Judgement::SameLater => "alike".to_owned(),
    })
}

fn args() -> Result<Args, String> {
    let mut args = Args {
        seed: 1,
        count: 1000,
        seconds: 0,
        jobs: 24,
        kind: None,
        minimise: None,
        show: false,
        files: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--show" {
            args.show = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word} {value}: not a number"));
        match word.as_str() {
            "--seed" => args.seed = number()?,
            "--count" => args.count = number()?,
            "--seconds" => args.seconds = number()?,
            "--jobs" => args.jobs = number()?.clamp(1, 256) as usize,
            "--kind" => {
                let kind = Kind::ALL.into_iter().find(|kind| kind.name() == value);
                args.kind = Some(kind.ok_or_else(|| format!("there is no kind `{value}`"))?);
            }
            "--file" => args.files.push(PathBuf::from(value)),
            "--minimise" => args.minimise = Some(PathBuf::from(value)),
            _ => return Err(format!("{word} is not known")),
        }
    }
    Ok(args)
}
