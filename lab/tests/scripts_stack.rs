//! The whole suite on the stack, in virtual time; what is known to differ is named, and must differ.

use std::path::{Path, PathBuf};

use lastack_lab::fidelity::{KNOWN, document};
use lastack_lab::runner::{Case, TargetKind, check_all, find_scripts};

#[test]
fn scripts_pass_on_the_stack() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let files = find_scripts(std::slice::from_ref(&root)).expect("the suite is readable");
    assert!(files.len() >= 100, "the suite is there: {} scripts", files.len());
    let work: Vec<_> = files
        .iter()
        .map(|file| (Case::load(file).expect("a script is readable"), TargetKind::Stack))
        .collect();
    let known = |script: &Path| KNOWN.iter().any(|(name, _)| root.join(name) == script);
    let mut wrong = Vec::new();
    for verdict in check_all(&work, 2, |_| {}) {
        match verdict.failure {
            Some(failure) if !known(&verdict.script) => {
                wrong.push(failure.text(&verdict.script.display().to_string()));
            }
            None if known(&verdict.script) => {
                wrong.push(format!("{}: passes; take it off KNOWN", verdict.script.display()));
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), work.len(), wrong.join("\n"));
}

#[test]
fn the_table_of_behaviours_is_fresh() {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = std::fs::read_to_string(crate_root.join("../docs/linux-fidelity.md")).unwrap_or_default();
    let now = document(&crate_root.join("scripts")).expect("the suite is readable");
    assert!(
        committed == now,
        "docs/linux-fidelity.md is old: cargo run -p lastack-lab --example fidelity > docs/linux-fidelity.md"
    );
}
