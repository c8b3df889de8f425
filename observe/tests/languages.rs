//! Every text for users exists in both languages and says the same values: the sources are read, because a text made of
//! what was found exists only once it has been found.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lastack_observe::doctor;
use lastack_observe::sysctl;
use lastack_observe::words::Text;

/// Directories whose texts are in pairs.
const SOURCES: [&str; 4] = ["observe/src", "cli/src", "gateway/src", "lab/src/stories"];

#[test]
fn every_pair_of_texts_says_the_same_values() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut pairs, mut wrong) = (0, Vec::new());
    for directory in SOURCES {
        for file in rust_files(&root.join(directory)) {
            let source = fs::read_to_string(&file).expect("reads");
            for call in ["says!(", "text("] {
                for (en, zh) in calls(&source, call) {
                    pairs += 1;
                    let mut bad = Vec::new();
                    if is_chinese(&en) {
                        bad.push("the first is not English".to_owned());
                    }
                    if !is_chinese(&zh) && en != zh && !en.is_empty() {
                        bad.push("the second is not Chinese".to_owned());
                    }
                    if call == "says!(" && placeholders(&en) != placeholders(&zh) {
                        bad.push(format!("values: {:?}, {:?}", placeholders(&en), placeholders(&zh)));
                    }
                    if identifiers(&en) != identifiers(&zh) {
                        bad.push(format!("names: {:?}, {:?}", identifiers(&en), identifiers(&zh)));
                    }
                    if !bad.is_empty() {
                        wrong.push(format!("{}: {bad:?}\n  {en}\n  {zh}", file.display()));
                    }
                }
            }
        }
    }
    assert!(pairs > 400, "the scanner finds them: {pairs}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_and_knob_has_both_languages() {
    let both = |what: &str, text: Text| {
        assert!(!text.en.is_empty() && !is_chinese(text.en), "{what}: {}", text.en);
        assert!(is_chinese(text.zh), "{what}: {}", text.zh);
    };
    for rule in doctor::ALL {
        for text in [rule.title, rule.evidence, rule.cause].iter().chain(rule.fix).chain(rule.myth) {
            both(rule.id, *text);
        }
        assert!(!rule.fix.is_empty(), "{} helps nobody", rule.id);
    }
    for knob in sysctl::ALL {
        both(knob.name, knob.meaning);
        if !knob.myth.en.is_empty() || !knob.myth.zh.is_empty() {
            both(knob.name, knob.myth);
        }
    }
}

#[test]
fn the_scanner_reads_rust_s_literals() {
    let source = "x(says!(\"a {b} \\\n   \\\"c\\\"\", \"{b} 字\")); text(name, \"no pair\"); text(\n\"d_e\",\n\"字 d_e\",\n)";
    assert_eq!(calls(source, "says!("), [("a {b} \"c\"".to_owned(), "{b} 字".to_owned())]);
    assert_eq!(calls(source, "text("), [("d_e".to_owned(), "字 d_e".to_owned())]);
    assert_eq!(placeholders("{b} {{no}} {c:>3}"), ["b", "c"].map(str::to_owned).into());
    assert_eq!(
        identifiers("set tcp_mem, EADDRNOTAVAIL and SO_LINGER."),
        ["tcp_mem", "SO_LINGER"].map(str::to_owned).into()
    );
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display())).flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The two literals of every `call("…", "…")`.
fn calls(source: &str, call: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices(call) {
        // `context(` is another function.
        if source[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let Some((en, rest)) = literal(&source[at + call.len()..]) else { continue };
        let Some(rest) = rest.trim_start().strip_prefix(',') else { continue };
        let Some((zh, _)) = literal(rest) else { continue };
        found.push((en, zh));
    }
    found
}

/// A string literal at the start of `source`, and what follows it.
fn literal(source: &str) -> Option<(String, &str)> {
    let body = source.trim_start().strip_prefix('"')?;
    let (mut text, mut rest) = (String::new(), body.chars());
    loop {
        match rest.next()? {
            '"' => return Some((text, rest.as_str())),
            '\\' => match rest.next()? {
                '\n' => rest = rest.as_str().trim_start().chars(),
                'n' => text.push('\n'),
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
}

fn is_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

/// Names of the values in a format string.
fn placeholders(format: &str) -> BTreeSet<String> {
    let plain = format.replace("{{", "").replace("}}", "");
    let inside = plain.split('{').skip(1).filter_map(|part| part.split('}').next());
    inside.map(|value| value.split(':').next().unwrap_or(value).to_owned()).collect()
}

/// Words with an underscore: names that are the same in every language.
fn identifiers(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.trim_matches('_').contains('_')).map(str::to_owned).collect()
}
