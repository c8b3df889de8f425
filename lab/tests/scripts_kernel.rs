//! Every short script of the suite, judged by this machine's kernel.
//!
//! Needs root (or a user namespace with CAP_NET_ADMIN) and /dev/net/tun; says SKIPPED loudly without, fails
//! instead under LASTACK_REQUIRE_E2E=1.

use std::path::PathBuf;

use lastack_lab::kernel::{CubicAllowed, with_kernel};
use lastack_lab::run::{FailureKind, world_of};
use lastack_lab::runner::{Case, TargetKind, check_all, find_scripts};
use lastack_lab::script::parse;

/// Scripts at a time: they mostly wait.
const JOBS: usize = 12;

fn suite() -> Vec<Case> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let files = find_scripts(&[root]).expect("the suite is readable");
    files.iter().map(|file| Case::load(file).expect("a script is readable")).collect()
}

#[test]
fn short_scripts_pass_on_the_kernel() {
    let script = parse("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3").expect("a script");
    let world = world_of(&script, &PathBuf::new()).expect("a world");
    let cubic = CubicAllowed::ensure();
    let ready = cubic
        .as_ref()
        .map(|_| ())
        .map_err(ToString::to_string)
        .and_then(|()| with_kernel(&world, |_| ()).map_err(|error| error.to_string()));
    if let Err(why) = ready {
        assert!(std::env::var_os("LASTACK_REQUIRE_E2E").is_none(), "the kernel target is required: {why}");
        eprintln!("SKIPPED: no script ran on the kernel: {why}");
        return;
    }
    let work: Vec<_> =
        suite().into_iter().filter(|case| !case.is_long).map(|case| (case, TargetKind::Kernel)).collect();
    assert!(work.len() >= 100, "the suite is there: {} scripts", work.len());
    let verdicts = check_all(&work, JOBS, |_| {});
    // A machine too busy for the script's times says nothing about the kernel: such a script is run again alone.
    let again: Vec<_> = verdicts
        .iter()
        .filter(|verdict| verdict.failure.is_some())
        .filter_map(|verdict| work.iter().find(|(case, _)| case.path == verdict.script).cloned())
        .collect();
    let failures: Vec<String> = check_all(&again, 1, |_| {})
        .into_iter()
        .filter_map(|verdict| verdict.failure.map(|failure| (verdict.script, failure)))
        .filter(|(_, failure)| failure.kind != FailureKind::Late)
        .map(|(script, failure)| failure.text(&script.display().to_string()))
        .collect();
    assert!(failures.is_empty(), "{} of {} differ:\n{}", failures.len(), work.len(), failures.join("\n"));
}
