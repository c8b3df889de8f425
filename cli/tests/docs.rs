//! `docs/rules/` is made of the rules themselves: a page each, in both languages.

use std::fmt::Write as _;
use std::path::Path;

use lastack_observe::doctor::{ALL, Rule};
use lastack_observe::sysctl;
use lastack_observe::words::{Lang, Text};

fn page(rule: &Rule) -> String {
    let mut out = format!(
        "<!-- Generated from observe/src/doctor/rules. LASTACK_BLESS=1 cargo test -p lastack-cli --test docs -->\n\n# {}\n",
        rule.id
    );
    for (lang, names) in [
        (Lang::En, ["Evidence", "Cause", "What helps", "What does not"]),
        (Lang::Zh, ["证据", "原因", "有效做法", "无效做法"]),
    ] {
        let list = |texts: &[Text], mark: &str| {
            texts.iter().fold(String::new(), |mut all, text| {
                let _ = writeln!(all, "{mark} {}", text.get(lang));
                all
            })
        };
        let _ = write!(
            out,
            "\n## {}\n\n**{}:** {}\n\n**{}:** {}\n\n**{}:**\n\n{}",
            rule.title.get(lang),
            names[0],
            rule.evidence.get(lang),
            names[1],
            rule.cause.get(lang),
            names[2],
            list(rule.fix, "1."),
        );
        if !rule.myth.is_empty() {
            let _ = write!(out, "\n**{}:**\n\n{}", names[3], list(rule.myth, "-"));
        }
    }
    out
}

fn knobs() -> String {
    let mut out = String::from(
        "<!-- Generated from observe/src/sysctl. LASTACK_BLESS=1 cargo test -p lastack-cli --test docs -->\n\n# What the knobs really bound\n",
    );
    for knob in sysctl::ALL {
        let default = if knob.default.is_empty() { "depends on the machine" } else { knob.default };
        let _ = write!(
            out,
            "\n## {}\n\nDefault: {default}. Values: {}.\n\n{}.\n",
            knob.full_name(),
            knob.values,
            knob.meaning.en
        );
        if !knob.myth.en.is_empty() {
            let _ = write!(out, "\n*But not:* {}.\n", knob.myth.en);
        }
        let _ = write!(out, "\n{}。\n", knob.meaning.zh);
        if !knob.myth.zh.is_empty() {
            let _ = write!(out, "\n*误解：* {}。\n", knob.myth.zh);
        }
    }
    out
}

fn fresh(path: &Path, text: &str) {
    if std::env::var_os("LASTACK_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("makes it");
        std::fs::write(path, text).expect("writes");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == text,
        "{} is not fresh: LASTACK_BLESS=1 cargo test -p lastack-cli --test docs",
        path.display()
    );
}

#[test]
fn pages_are_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut index = String::from(
        "<!-- Generated from observe/src/doctor/rules. LASTACK_BLESS=1 cargo test -p lastack-cli --test docs -->\n\n# Rules of `lastack doctor`\n\n",
    );
    for rule in ALL {
        let file = format!("{}.md", rule.story());
        fresh(&root.join("rules").join(&file), &page(rule));
        let _ = writeln!(index, "- [{}]({file}): {} / {}", rule.id, rule.title.en, rule.title.zh);
    }
    fresh(&root.join("rules/README.md"), &index);
    fresh(&root.join("sysctl.md"), &knobs());
}
