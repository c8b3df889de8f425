//! Every story with this machine's kernel on the taught end: it must end as on our stack.
//!
//! Stories are told in their short form, those that take at most five seconds; LASTACK_STORIES_FULL=1 tells them all
//! in full (the longest that Linux can play takes minutes; hours are left out). Needs root (or a user namespace with
//! CAP_NET_ADMIN) and /dev/net/tun; says SKIPPED loudly without, fails instead under LASTACK_REQUIRE_E2E=1.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lastack_lab::stories::{ALL, OnLinux, Options, Story, by_id};

/// Stories at a time: they mostly wait.
const JOBS: usize = 4;
/// Seconds of real time a story may take in the short and in the full run.
const SHORT: Duration = Duration::from_secs(5);
const FULL: Duration = Duration::from_secs(600);

fn play(story: &Story, options: &Options) -> Vec<String> {
    match story.on_kernel(options) {
        Ok(record) => story.ending.differences(&record, options.short),
        Err(error) => vec![error.to_string()],
    }
}

#[test]
fn stories_end_on_linux_as_on_our_stack() {
    let first = by_id("reset-no-listener").expect("a story that takes no time");
    if let Err(why) = first.on_kernel(&Options::default()) {
        assert!(std::env::var_os("LASTACK_REQUIRE_E2E").is_none(), "the kernel target is required: {why}");
        eprintln!("SKIPPED: no story was played by the kernel: {why}");
        return;
    }
    let full = std::env::var_os("LASTACK_STORIES_FULL").is_some();
    let options = Options { short: !full, ..Options::default() };
    let limit = if full { FULL } else { SHORT };
    let work: Vec<&Story> = ALL
        .iter()
        .copied()
        .filter(|story| !matches!(story.on_linux, OnLinux::Never(_)))
        // In virtual time it is known at once how long Linux will take.
        .filter(|story| story.on_stack(&options).is_ok_and(|record| record.end <= limit))
        .collect();
    assert!(work.len() >= 20, "only {} stories are short enough", work.len());
    let next = AtomicUsize::new(0);
    let suspects = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                while let Some(story) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !play(story, &options).is_empty() {
                        suspects.lock().expect("no holder panics").push(*story);
                    }
                }
            });
        }
    });
    // A machine too busy for a story's times says nothing about the kernel: such a story is played again alone.
    let wrong: Vec<String> = suspects
        .into_inner()
        .expect("no holder panics")
        .into_iter()
        .filter_map(|story| {
            let differences = play(story, &options);
            (!differences.is_empty()).then(|| format!("{}:\n  {}", story.id, differences.join("\n  ")))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), work.len(), wrong.join("\n"));
}
