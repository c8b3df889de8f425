//! The processes inside a sandbox: every descendant of one process.
//!
//! Owns:    reading parents from `/proc`, and signals to a whole tree.
//! Rules:   the top is a child subreaper (prctl(2)), so whoever loses its parent is adopted by it and stays in the tree.

use std::fs;

use rustix::process::{Pid, Signal};

/// Every living descendant of `top`, not `top` itself, in no particular order.
pub(crate) fn descendants(top: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(parent) = fs::read(entry.path().join("stat"))
            .ok()
            .and_then(|stat| living_parent(&String::from_utf8_lossy(&stat)))
        {
            parents.push((pid, parent));
        }
    }
    let mut tree = vec![top];
    let mut next = 0;
    while next < tree.len() {
        let parent = tree[next];
        tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    tree.split_off(1)
}

/// The same as [`descendants`] at the cost of the tree alone, zombies included: for looks many times a second. Where
/// the kernel has no lists of children (CONFIG_PROC_CHILDREN), every process is looked at after all.
pub(crate) fn tree_below(top: u32) -> Vec<u32> {
    if fs::metadata(format!("/proc/{top}/task/{top}/children")).is_err() {
        return descendants(top);
    }
    let (mut tree, mut next) = (vec![top], 0);
    while next < tree.len() {
        // A child belongs to the thread that made it.
        for task in fs::read_dir(format!("/proc/{}/task", tree[next])).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            tree.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        next += 1;
    }
    tree.split_off(1)
}

/// The parent in a line of `/proc/PID/stat`; `None` for a zombie. The name in parentheses may hold anything.
fn living_parent(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    (state != "Z" && state != "X").then_some(())?;
    fields.next()?.parse().ok()
}

/// Sends `signal` to each of `pids`; who is gone already is gone.
pub(super) fn signal_all(pids: &[u32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_is_found_behind_a_hostile_name() {
        assert_eq!(living_parent("12 (a) b) S 7 12 12"), Some(7));
        assert_eq!(living_parent("12 (a) Z 7 12 12"), None, "a zombie is not alive");
        assert_eq!(living_parent("12 (a"), None);
    }

    /// The kernel cuts a name after 15 bytes, in the middle of a character too: `/proc/PID/stat` need not be UTF-8.
    #[test]
    fn name_that_is_not_utf8_hides_no_descendant() {
        let dir = std::env::temp_dir().join(format!("lastack-names-{}", std::process::id()));
        fs::create_dir(&dir).expect("a directory");
        let name = dir.join("a一个名字很长的程序");
        std::os::unix::fs::symlink("/bin/sleep", &name).expect("a link");
        let mut child = std::process::Command::new(&name).arg("60").spawn().expect("sleep");
        let stat = fs::read(format!("/proc/{}/stat", child.id())).expect("its line");
        let found = descendants(std::process::id()).contains(&child.id());
        child.kill().expect("killed");
        child.wait().expect("reaped");
        fs::remove_dir_all(&dir).expect("removed");
        assert!(std::str::from_utf8(&stat).is_err(), "the name was not cut: {stat:?}");
        assert!(found, "it has a parent all the same");
    }

    #[test]
    fn child_is_a_descendant_until_it_ends() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        assert!(descendants(std::process::id()).contains(&child.id()));
        assert!(tree_below(std::process::id()).contains(&child.id()));
        signal_all(&[child.id()], Signal::KILL);
        child.wait().expect("reaped");
        assert!(!descendants(std::process::id()).contains(&child.id()));
    }
}
