//! Every story on the stack, in virtual time.

use std::collections::BTreeSet;
use std::time::Duration;

use lastack_lab::stories::{ALL, OnLinux, Options, outline};

#[test]
fn every_story_ends_as_it_must() {
    let mut wrong = Vec::new();
    for story in ALL {
        for short in [false, true] {
            match story.on_stack(&Options { short, ..Options::default() }) {
                Ok(record) => {
                    let differences = story.ending.differences(&record, short);
                    if !differences.is_empty() {
                        wrong.push(format!("{} (short: {short}):\n  {}", story.id, differences.join("\n  ")));
                    }
                }
                Err(error) => wrong.push(format!("{} (short: {short}): {error}", story.id)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_knob_changes_what_its_story_says_it_does_and_a_myth_changes_nothing() {
    let mut wrong = Vec::new();
    for story in ALL {
        let plain = story.on_stack(&Options::default()).expect("the story plays");
        for knob in story.knobs {
            let sysctls = vec![(knob.name.to_owned(), knob.value.to_owned())];
            let turned = match story.on_stack(&Options { sysctls, ..Options::default() }) {
                Ok(turned) => turned,
                Err(error) => {
                    wrong.push(format!("{}: {error}", story.id));
                    continue;
                }
            };
            let differences = outline::differences(&plain, &turned, Duration::from_millis(1));
            if differences.is_empty() == knob.changes {
                let (id, name, value) = (story.id, knob.name, knob.value);
                wrong.push(format!("{id}: {name}={value} changes: {differences:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_story_is_the_same_every_time() {
    for story in ALL {
        let play = || {
            let record = story.on_stack(&Options::default()).expect("the story plays");
            format!("{record:?}")
        };
        assert_eq!(play(), play(), "{}", story.id);
    }
}

#[test]
fn every_excerpt_is_told_and_names_are_in_order() {
    let told: BTreeSet<u8> = ALL.iter().flat_map(|story| story.excerpts.iter().copied()).collect();
    // 1, 15 and 21 of the collection are noise.
    let expected: BTreeSet<u8> = (2..=20).filter(|excerpt| *excerpt != 15).collect();
    assert_eq!(told, expected);
    let ids: BTreeSet<&str> = ALL.iter().map(|story| story.id).collect();
    assert_eq!(ids.len(), ALL.len(), "two stories have one name");
    for story in ALL {
        for rule in story.rules {
            assert_eq!(rule.replace('.', "-"), story.id, "a finding's story has its name");
        }
        assert!(!story.what.is_empty() && !story.title.zh.is_empty(), "{}", story.id);
        let reason = matches!(story.on_linux, OnLinux::Never(why) if why.en.is_empty());
        assert!(!reason, "{}: why Linux cannot play it", story.id);
    }
}
