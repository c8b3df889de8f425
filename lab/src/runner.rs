//! Runs many scripts, several at a time, and says how each ended.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::kernel;
use crate::run::{self, Failure, FailureKind};
use crate::script::{Script, parse};
use crate::stack::StackTarget;
use crate::sys;

/// Which host a script runs against.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// Our stack in virtual time.
    Stack,
    /// Linux in a namespace, in real time.
    Kernel,
}

impl TargetKind {
    /// `stack` or `kernel`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stack => "stack",
            Self::Kernel => "kernel",
        }
    }
}

/// How one script ended on one target.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Verdict {
    /// The script.
    pub script: PathBuf,
    /// The target.
    pub target: TargetKind,
    /// Real time it took, milliseconds.
    pub duration_ms: u64,
    /// Runs it took: more than one when the lab itself was late.
    pub attempts: u32,
    /// `None`: it passed.
    pub failure: Option<Failure>,
}

/// A script with where it came from.
#[derive(Clone, PartialEq, Debug)]
pub struct Case {
    /// The file.
    pub path: PathBuf,
    /// Its tree, or why there is none.
    pub script: Result<Script, Failure>,
    /// `// duration: long`
    pub is_long: bool,
}

impl Case {
    /// Reads a script.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(path: &Path) -> std::io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let is_long = text.lines().take(12).any(|line| line.trim() == "// duration: long");
        let script = parse(&text)
            .map_err(|error| Failure::before_start(FailureKind::Script, error.line, error.message));
        Ok(Self { path: path.to_path_buf(), script, is_long })
    }
}

/// Every `.pkt` file under `paths`, in the order of their names.
///
/// # Errors
/// A path that cannot be read.
pub fn find_scripts(paths: &[PathBuf]) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut entries: Vec<PathBuf> = std::fs::read_dir(path)?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<_, _>>()?;
            entries.retain(|entry| entry.is_dir() || entry.extension().is_some_and(|ext| ext == "pkt"));
            entries.sort();
            found.extend(find_scripts(&entries)?);
        } else {
            std::fs::metadata(path)
                .map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            found.push(path.clone());
        }
    }
    Ok(found)
}

/// Times a kernel run is repeated when the lab itself could not keep time.
const ATTEMPTS: u32 = 3;

/// Runs one script on one target.
pub fn check(case: &Case, target: TargetKind) -> Verdict {
    let begun = sys::now();
    let mut attempts = 0;
    let failure = loop {
        attempts += 1;
        let result = case.script.clone().and_then(|script| check_once(&script, &case.path, target));
        match result {
            Err(failure) if failure.kind == FailureKind::Late && attempts < ATTEMPTS => {}
            result => break result.err(),
        }
    };
    let duration_ms = sys::now().saturating_sub(begun).as_millis() as u64;
    Verdict { script: case.path.clone(), target, duration_ms, attempts, failure }
}

fn check_once(script: &Script, path: &Path, target: TargetKind) -> Result<(), Failure> {
    let world = run::world_of(script, path)?;
    match target {
        TargetKind::Kernel => kernel::with_kernel(&world, |target| run::run(script, &world, target))
            .unwrap_or_else(|error| Err(Failure::before_start(FailureKind::Target, 0, error.0))),
        TargetKind::Stack => {
            // A stack that panics has failed this script, not the run.
            let play = || run::run(script, &world, &mut StackTarget::new(&world));
            std::panic::catch_unwind(play).unwrap_or_else(|panic| Err(panicked(&*panic)))
        }
    }
}

pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().cloned();
    let text =
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
    Failure::before_start(FailureKind::Mismatch, 0, format!("the stack panicked: {text}"))
}

/// Runs `work` (case, target) with at most `jobs` at a time; `tell` gets each verdict as it comes.
pub fn check_all(work: &[(Case, TargetKind)], jobs: usize, tell: impl Fn(&Verdict) + Sync) -> Vec<Verdict> {
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(Vec::with_capacity(work.len()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, work.len().max(1)) {
            scope.spawn(|| {
                while let Some((case, target)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = check(case, *target);
                    tell(&verdict);
                    verdicts.lock().expect("no holder panics").push(verdict);
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().expect("no holder panics");
    verdicts.sort_by(|a, b| (&a.script, a.target).cmp(&(&b.script, b.target)));
    verdicts
}

/// Real time since the Unix epoch, for progress lines.
pub fn clock() -> Duration {
    sys::now()
}
