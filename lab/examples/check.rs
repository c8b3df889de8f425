//! Checks packet scripts from a program: `cargo run -p lastack-lab --example check -- kernel lab/scripts`.

use std::path::PathBuf;
use std::process::ExitCode;

use lastack_lab::kernel::CubicAllowed;
use lastack_lab::runner::{Case, TargetKind, check_all, find_scripts};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (kind, jobs) = match args.next().as_deref() {
        Some("kernel") => (TargetKind::Kernel, 16),
        Some("stack") => (TargetKind::Stack, 2),
        _ => {
            eprintln!("usage: check kernel|stack FILE|DIR…");
            return ExitCode::from(2);
        }
    };
    let paths: Vec<PathBuf> = args.map(PathBuf::from).collect();
    let cases: Result<Vec<Case>, _> =
        find_scripts(&paths).and_then(|files| files.iter().map(|file| Case::load(file)).collect());
    let cases = match cases {
        Ok(cases) => cases,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let _cubic = (kind == TargetKind::Kernel).then(CubicAllowed::ensure);
    let work: Vec<_> = cases.into_iter().map(|case| (case, kind)).collect();
    let verdicts = check_all(&work, jobs, |verdict| {
        if let Some(failure) = &verdict.failure {
            eprintln!("{}", failure.text(&verdict.script.display().to_string()));
        }
    });
    let failed = verdicts.iter().filter(|verdict| verdict.failure.is_some()).count();
    println!("{} passed, {failed} failed", verdicts.len() - failed);
    ExitCode::from(u8::from(failed > 0))
}
