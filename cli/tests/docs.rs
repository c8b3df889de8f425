//! `docs/rules/` is made of the rules themselves, a page each in both languages; `docs/stories.md` of the stories.

use std::fmt::Write as _;
use std::path::Path;

use lastack_lab::stories::{ALL as ALL_STORIES, OnLinux, by_id};
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
    let _ = write!(out, "\nWatch it happen / 观看经过: `lastack lab run {}`\n", rule.story());
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

/// The index of stories; each is also told by `lastack lab show ID`.
fn stories() -> String {
    let mut out = String::from(
        "<!-- Generated from lab/src/stories/tales. LASTACK_BLESS=1 cargo test -p lastack-cli --test docs -->\n\n\
         # Stories / 故事\n\n\
         Connection lives to be watched: `lastack lab run ID` plays one between two stacks in virtual time and draws it;\n\
         `--target both` puts this machine's Linux beside it; `--sysctl NAME=VALUE` says what a knob changes; `--svg FILE` makes a picture.\n\
         Each must end as written in its file, on the stack and on Linux: `cargo test -p lastack-lab --test stories_stack --test stories_kernel`.\n\n",
    );
    for story in ALL_STORIES {
        let linux = match story.on_linux {
            OnLinux::AsItIs => "plays it as it is, within seconds".to_owned(),
            OnLinux::Short([]) => "plays it with shorter waits; `--full` takes its time".to_owned(),
            OnLinux::Short(settings) => {
                let list: Vec<String> =
                    settings.iter().map(|(name, value)| format!("`{name}={value}`")).collect();
                format!("plays it shortened by {}; `--full` takes its time", list.join(", "))
            }
            OnLinux::Never(why) => format!("does not play it: {}", why.en),
        };
        let _ = write!(out, "## {}\n\n{}\n\n{}\n\n", story.id, story.title.en, story.title.zh);
        if let [rule] = story.rules {
            let _ = writeln!(out, "- finding: [{rule}](rules/{}.md)", story.id);
        }
        let _ = writeln!(out, "- Linux {linux}");
        for knob in story.knobs {
            let _ = writeln!(out, "- `--sysctl {}={}`: {}", knob.name, knob.value, knob.effect.en);
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
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
    fresh(&root.join("stories.md"), &stories());
}

#[test]
fn every_rule_has_its_story() {
    for rule in ALL {
        let story = by_id(&rule.story()).unwrap_or_else(|| panic!("{} has no story", rule.id));
        assert_eq!(story.rules, [rule.id]);
    }
    for id in ALL_STORIES.iter().flat_map(|story| story.rules) {
        assert!(Rule::by_id(id).is_some(), "{id} is no rule");
    }
}
