//! Flags that contradict each other are refused: none is passed over in silence.

use std::process::Command;

/// Of each: the exit code, the command line, what the first line must name.
const REFUSED: &[(i32, &str, &str)] = &[
    (2, "ss --source web --netns 1", "--netns"),
    (2, "ss --source web --all-netns", "--all-netns"),
    (2, "ss --source web --from FILE", "--from"),
    (2, "ss --netns 1 --all-netns", "--all-netns"),
    (2, "ss --netns 1 --from FILE", "--from"),
    (2, "ss --group-by state -i", "--info"),
    (2, "ss --group-by state -s", "--summary"),
    (2, "ss --group-by state,peer -p", "--processes"),
    (2, "ss --group-by peer,peer", "twice"),
    (2, "ss -s -o", "--options"),
    (2, "ss -si", "--info"),
    (2, "ss -tsp", "--processes"),
    (2, "ss -se", "--extended"),
    (2, "ss -ms", "--memory"),
    (2, "doctor --source web --netns 1", "--netns"),
    (2, "doctor --source web --all-netns", "--all-netns"),
    (2, "doctor --from FILE --interval 3", "--interval"),
    (2, "doctor --explain close-wait.leak --min-count 3", "--explain"),
    (2, "doctor --explain close-wait.leak --netns 1", "--explain"),
    (2, "doctor --what-if tcp_fin_timeout=5 --min-age 3s", "--what-if"),
    (2, "watch --source web --netns 1", "--netns"),
    (2, "watch --from FILE", "live"),
    (2, "trace --source web --netns 1", "--netns"),
    (2, "trace --netns 1", "namespace"),
    (2, "trace --netns 1 --count 1", "namespace"),
    (2, "trace --source web --drops", "--drops"),
    (2, "trace --source web --ends", "--ends"),
    (2, "trace --from FILE --stacks", "--stacks"),
    (2, "trace --from FILE --duration 1", "--duration"),
    (2, "trace --count 1 --duration 2", "--duration"),
    (2, "trace --count 1 --stacks", "--stacks"),
    (2, "trace --per-process", "--count"),
    (2, "trace --ends --all-netns", "namespace"),
    (2, "kill --source web --netns 1 dport = :1", "--netns"),
    (2, "sysctl --source web --netns 1", "--netns"),
    (2, "sysctl --all-netns", "one network namespace"),
    (2, "sysctl tcp_sack=1 --all-netns", "one network namespace"),
    (2, "record --source web --netns 1", "--netns"),
    (2, "record --all-netns", "namespace"),
    (2, "export --source web --netns 1", "--netns"),
    (2, "export --print alerts --duration 3", "--print"),
    (125, "lab run clean-close --full", "--full"),
    (125, "lab check . --short", "--short"),
    (125, "run --json --report text -- true", "--json"),
    (125, "run --report none --output FILE -- true", "--output"),
    (125, "run --queue 100 -- true", "--queue"),
    (125, "run --observe --deny * -- true", "--observe"),
];

#[test]
fn flags_that_contradict_each_other_are_refused_in_three_lines() {
    let folder = tempfile::tempdir().expect("a directory");
    for (code, line, named) in REFUSED {
        let output = Command::new(env!("CARGO_BIN_EXE_lastack"))
            .args(line.split(' '))
            .current_dir(folder.path())
            .env("LANG", "C")
            .output()
            .expect("starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(*code), "{line}: {said}");
        let lines: Vec<&str> = said.lines().collect();
        let begins = |at: usize, with: &str| lines.get(at).is_some_and(|line| line.starts_with(with));
        assert!(begins(0, "error: ") && begins(1, "cause: ") && begins(2, "try: "), "{line}: {said}");
        assert_eq!(lines.len(), 3, "{line}: {said}");
        assert!(said.contains(named), "{line}: {said}");
        assert!(output.stdout.is_empty(), "{line}");
    }
    let left: Vec<_> = folder.path().read_dir().expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
}
