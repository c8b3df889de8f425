//! Every finding on a stack of ours: each story is played in virtual time, and the doctor looks at both ends as it
//! does at a running lastack.

use std::collections::BTreeSet;
use std::time::Duration;

use lastack_core::Stack;
use lastack_core::time::Instant;
use lastack_lab::stories::{self, Options, Scene, Story};
use lastack_observe::doctor::{ALL, Limits, examine};
use lastack_observe::snapshot::{Namespace, Snapshot};
use lastack_observe::source::stack;

/// What a look over the control socket gives of `stack`.
fn snapshot(stack: &Stack, now: Instant) -> Snapshot {
    let mut space = Namespace { name: "story".to_owned(), ..Namespace::default() };
    for (info, value) in stack.counters().iter() {
        space.counters.insert(info.name.to_owned(), value);
    }
    for name in stack::SETTINGS {
        if let Ok(value) = stack.sysctl_get(name) {
            space.sysctls.insert((*name).to_owned(), value);
        }
    }
    let rows = stack.sockets(now).map(stack::row).collect();
    stack::whole("story".to_owned(), now.as_nanos(), rows, space, stack.gauges())
}

/// The findings at any moment of a story: one socket is a pile here, and short ages count.
fn findings(story: &Story) -> BTreeSet<&'static str> {
    let limits =
        Limits { min_count: Some(1), min_age_ms: 500, middlebox_idle_ms: 300_000, ..Limits::default() };
    let mut before: [Option<(Duration, Snapshot)>; 2] = [None, None];
    let mut found = BTreeSet::new();
    let mut look = |scene: Scene<'_>| {
        let now = snapshot(scene.stack, scene.now);
        let last = &mut before[scene.side as usize];
        let earlier = last.as_ref().map(|(_, snapshot)| snapshot);
        found.extend(examine(&now, earlier, &limits).into_iter().map(|finding| finding.rule.id));
        // Rates are over a second or more, as the command has them.
        if last.as_ref().is_none_or(|(at, _)| scene.at.saturating_sub(*at) >= Duration::from_secs(1)) {
            *last = Some((scene.at, now));
        }
    };
    story.watched(&Options::default(), &mut look).unwrap_or_else(|e| panic!("{}: {e:?}", story.id));
    found
}

#[test]
fn each_story_gives_the_findings_it_names_on_a_stack() {
    let mut wrong = Vec::new();
    for story in stories::ALL.iter().filter(|story| !story.rules.is_empty()) {
        let found = findings(story);
        let missing: Vec<_> = story.rules.iter().filter(|rule| !found.contains(*rule)).collect();
        if !missing.is_empty() {
            wrong.push(format!("{}: {missing:?} not among {found:?}", story.id));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_rule_has_a_story() {
    for rule in ALL {
        let story = stories::by_id(&rule.story()).unwrap_or_else(|| panic!("no story tells {}", rule.id));
        assert!(story.rules.contains(&rule.id), "{}", rule.id);
    }
}

#[test]
fn healthy_connections_give_no_finding() {
    for id in ["clean-close", "half-close"] {
        let story = stories::by_id(id).expect("it is told");
        assert!(story.rules.is_empty());
        let found = findings(story);
        // Their TIME-WAIT is there, as it must be, and one socket is a pile here.
        let others: Vec<_> = found.iter().filter(|id| !id.starts_with("time-wait.")).collect();
        assert!(others.is_empty(), "{id}: {others:?}");
    }
}
