//! What the documents say of the repository is so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e/ is in the repository").to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Our own crates among the dependencies of the crate in `directory`; development dependencies count.
fn own_dependencies(directory: &str) -> BTreeSet<String> {
    let manifest = read(&format!("{directory}/Cargo.toml"));
    let mut in_dependencies = false;
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        }
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        if in_dependencies && (name == "lastack" || name.starts_with("lastack-")) {
            found.insert(name.to_owned());
        }
    }
    found
}

#[test]
fn crates_depend_only_along_the_allowed_arrows() {
    // ARCHITECTURE.md, section 1.
    let allowed: [(&str, &[&str]); 8] = [
        ("core", &[]),
        ("net", &["lastack-core"]),
        ("gateway", &["lastack", "lastack-core"]),
        ("observe", &["lastack-core"]),
        ("lab", &["lastack", "lastack-core"]),
        ("cli", &["lastack", "lastack-core", "lastack-gateway", "lastack-lab", "lastack-observe"]),
        ("e2e", &[]),
        ("bench", &["lastack-core", "lastack-e2e", "lastack-lab"]),
    ];
    for (directory, arrows) in allowed {
        let arrows: BTreeSet<String> = arrows.iter().map(|name| (*name).to_owned()).collect();
        let more: Vec<String> = own_dependencies(directory).difference(&arrows).cloned().collect();
        assert!(
            more.is_empty(),
            "{directory} depends on {more:?}, for which there is no arrow in ARCHITECTURE.md"
        );
    }
}

#[test]
fn unsafe_is_forbidden_where_it_is_said_to_be() {
    for file in ["core/src/lib.rs", "cli/src/main.rs", "e2e/src/lib.rs"] {
        assert!(read(file).contains("#![forbid(unsafe_code)]"), "{file}");
    }
}

/// The `path/with.extension` words in back quotes.
fn quoted_paths(text: &str) -> Vec<String> {
    let words = text.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| {
        let ours = [
            "core/", "net/", "gateway/", "observe/", "lab/", "cli/", "e2e/", "bench/", "docs/", ".ci/",
            "fuzz/",
        ];
        ours.iter().any(|dir| word.starts_with(dir)) && !word.contains([' ', '*', '{'])
    };
    words.filter(is_path).map(str::to_owned).collect()
}

#[test]
fn files_named_in_the_documents_exist() {
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "README.zh-CN.md"] {
        let text = read(document);
        let paths = quoted_paths(&text);
        let missing: Vec<&String> = paths.iter().filter(|path| !root().join(path).exists()).collect();
        assert!(missing.is_empty(), "{document} names {missing:?}");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let dead: Vec<&str> =
            links.filter(|link| !link.contains("://") && !root().join(link).exists()).collect();
        assert!(dead.is_empty(), "{document} links to {dead:?}");
    }
}

/// `FILE::FUNCTION` is a test.
fn assert_is_test(test: &str) {
    let (file, function) = test.split_once("::").expect("FILE::FUNCTION");
    let source = read(file);
    let at = source.find(&format!("fn {function}()")).unwrap_or_else(|| panic!("{test} is not there"));
    let above = source[..at].trim_end();
    assert!(above.ends_with("#[test]"), "{test} is no test");
}

#[test]
fn every_feature_of_run_that_is_claimed_names_its_tests() {
    let text = read("docs/run-features.md");
    let mut claimed = 0;
    for row in text.lines().filter_map(|line| line.strip_prefix("| ")).skip(1) {
        let cells: Vec<&str> = row.trim_end_matches('|').split(" |").map(str::trim).collect();
        let [feature, .., ours, tests] = cells.as_slice() else { panic!("too few cells: {row}") };
        assert_eq!(cells.len(), 7, "{feature}");
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        // `Y…` is a claim, `N…` is none.
        assert_eq!(ours.starts_with('Y'), !tests.is_empty(), "{feature}: {ours}");
        assert!(ours.starts_with(['Y', 'N']), "{feature}: {ours}");
        claimed += u32::from(!tests.is_empty());
        tests.into_iter().for_each(assert_is_test);
    }
    assert!(claimed >= 30, "{claimed}");
}

#[test]
fn every_excerpt_has_its_tests_and_they_exist() {
    let text = read("docs/acceptance.md");
    let mut told = BTreeSet::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| ")) {
        let Some(excerpt) = row.split('.').next().and_then(|number| number.parse::<u8>().ok()) else {
            continue;
        };
        let tests: Vec<&str> = row.split('`').skip(1).step_by(2).filter(|word| word.contains("::")).collect();
        assert!(!tests.is_empty(), "excerpt {excerpt} has no test");
        tests.into_iter().for_each(assert_is_test);
        let files = quoted_paths(row).into_iter().filter(|path| !path.contains("::"));
        for file in files {
            assert!(root().join(&file).exists(), "excerpt {excerpt} names {file}");
        }
        told.insert(excerpt);
    }
    // 1, 15 and 21 are noise.
    assert_eq!(told, (2..=20).filter(|excerpt| *excerpt != 15).collect());
}

#[test]
fn both_readmes_have_the_same_commands() {
    let commands = |document: &str| {
        let text = read(document);
        let blocks: Vec<&str> = text.split("```").skip(1).step_by(2).collect();
        let lines = blocks.iter().flat_map(|block| block.lines());
        let commands = lines
            .filter(|line| ["cargo ", "lastack ", "$ ", "sudo "].iter().any(|start| line.starts_with(start)));
        commands.map(|line| line.split('#').next().unwrap_or_default().trim().to_owned()).collect::<Vec<_>>()
    };
    let english = commands("README.md");
    assert!(english.contains(&"cargo run --release -- demo".to_owned()), "{english:?}");
    assert!(english.contains(&"cargo test --workspace".to_owned()), "{english:?}");
    assert_eq!(english, commands("README.zh-CN.md"));
}

/// All files of ours: not what cargo and git keep.
fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a readable directory").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if [".git", "target", "artifacts", "corpus", "out"].contains(&&*name.to_string_lossy()) {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    let mut all = Vec::new();
    files(&root(), &mut all);
    // Put together here, so that this file is not one of them.
    let places = ["work", "root", "home"].map(|dir| format!("/{dir}/"));
    let allowed = ["/home/user/"];
    let mut found = Vec::new();
    for file in all {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            let line = allowed.iter().fold(line.to_owned(), |line, ok| line.replace(ok, ""));
            // A path begins after a space, a quote or a bracket, not in the middle of another one.
            let at = |place: &String| {
                line.match_indices(place.as_str()).any(|(at, _)| {
                    at == 0 || !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-$}/*".contains(c))
                })
            };
            if places.iter().any(at) {
                found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
