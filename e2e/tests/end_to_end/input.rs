//! Bad input gets three lines that say what, why and what to do; CMD's own status is passed on.

use std::process::Command;

use lastack_e2e::process::{Finished, run};
use lastack_e2e::runner::{Runner, User, as_nobody, copy_for_all};
use lastack_e2e::{binaries, needs, servers};

use crate::{SHORT, each_user, needs_run};

fn lastack(args: &[&str]) -> Finished {
    run(Command::new(binaries::lastack()).args(args), SHORT).expect("lastack starts")
}

#[track_caller]
fn assert_three_lines(ended: &Finished, code: i32) {
    assert_eq!(ended.code(), Some(code), "{}", ended.stderr);
    for line in ["error: ", "cause: ", "try: "] {
        assert!(ended.stderr.lines().any(|l| l.starts_with(line)), "no `{line}` line in:\n{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    assert!(ended.stdout.is_empty(), "errors belong on standard error: {}", ended.text());
}

#[test]
fn an_unknown_flag_is_our_failure() {
    assert_three_lines(&lastack(&["run", "--no-such-flag", "--", "true"]), 125);
}

#[test]
fn a_missing_program_argument_is_our_failure() {
    assert_three_lines(&lastack(&["run"]), 125);
    assert_three_lines(&lastack(&["run", "--"]), 125);
}

#[test]
fn malformed_rules_are_our_failure() {
    for rule in ["10.0.0.0/33", "10.0.0.1:port", "", "host:99999", "[::1"] {
        assert_three_lines(&lastack(&["run", "--deny", rule, "--", "true"]), 125);
    }
}

#[test]
fn malformed_impairments_and_injections_are_our_failure() {
    for [flag, value] in [
        ["--loss", "150%"],
        ["--loss", "5%,10.0.0.0/33"],
        ["--delay", "x"],
        ["--rate", "0"],
        ["--queue", "10"],
        ["--reorder", "5%/"],
        ["--duplicate", ""],
        ["--inject", "foo@"],
        ["--inject", "rst"],
        ["--inject", "rst@5"],
        ["--inject", "explode@5s"],
    ] {
        assert_three_lines(&lastack(&["run", flag, value, "--", "true"]), 125);
    }
    assert_three_lines(&lastack(&["run", "--loss", "1%", "--loss", "2%", "--", "true"]), 125);
}

#[test]
fn an_output_file_that_cannot_be_written_is_our_failure() {
    needs_run!();
    assert_three_lines(&lastack(&["run", "--json", "--output", "/nowhere/journal", "--", "true"]), 125);
    assert_three_lines(&lastack(&["run", "--pcap", "/nowhere/capture", "--", "true"]), 125);
}

#[test]
fn a_program_not_found_is_127_and_one_not_executable_126() {
    needs_run!();
    assert_three_lines(&lastack(&["run", "--", "no-such-program-anywhere"]), 127);
    assert_three_lines(&lastack(&["run", "--", "/no/such/program"]), 127);
    assert_three_lines(&lastack(&["run", "--", "/etc/passwd"]), 126);
}

#[test]
fn the_status_of_the_program_is_passed_on() {
    needs_run!();
    each_user(|user| {
        let code = |script: &str| Runner::new(user).run("sh", &["-c", script], SHORT).code();
        assert_eq!(code("exit 0"), Some(0));
        assert_eq!(code("exit 3"), Some(3));
        assert_eq!(code("kill -TERM $$"), Some(128 + 15));
        assert_eq!(code("kill -KILL $$"), Some(128 + 9));
    });
}

#[test]
fn standard_streams_are_the_programs_own() {
    needs_run!();
    let runner = Runner::new(User::Current);
    let mut command = runner.command("sh");
    command.args(["-c", "cat; echo told >&2"]);
    let ended = lastack_e2e::process::run_with_input(&mut command, b"passed through", SHORT).unwrap();
    assert_eq!(ended.text(), "passed through");
    assert_eq!(ended.stderr, "told\n", "with --report json --output, nothing of ours is on standard error");
}

#[test]
fn without_permission_the_missing_one_is_named() {
    if !needs::is_root() || needs::tun_is_for_everyone() {
        needs::skip("needs root, and a /dev/net/tun that is not open to all");
        return;
    }
    let dir = servers::directory().unwrap();
    let copy = copy_for_all(binaries::lastack(), dir.path()).unwrap();
    let mut command = as_nobody(false);
    command.arg(copy).args(["run", "--device", "tun", "--", "true"]).current_dir("/");
    let ended = run(&mut command, SHORT).unwrap();
    assert_three_lines(&ended, 125);
    assert!(ended.stderr.contains("/dev/net/tun"), "{}", ended.stderr);
}
