//! Replays the committed fuzz corpus: what the fuzzer once reached stays without a finding.

use std::path::Path;

mod fuzzing;

/// Every input of `target`, with its name should it fail.
fn replay(target: &str, harness: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> = corpus
        .read_dir()
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus for {target}");
    for file in files {
        let bytes = std::fs::read(&file).expect("a readable file");
        if let Err(panic) = std::panic::catch_unwind(|| harness(&bytes)) {
            eprintln!("input: {}", file.display());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn wire_corpus_has_no_finding() {
    replay("wire", fuzzing::wire::run);
}

#[test]
fn stack_arbitrary_corpus_has_no_finding() {
    replay("stack_arbitrary", fuzzing::stack_arbitrary::run);
}

#[test]
fn stack_mutated_corpus_has_no_finding() {
    replay("stack_mutated", fuzzing::stack_mutated::run);
}
