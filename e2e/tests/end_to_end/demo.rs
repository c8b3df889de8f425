//! `lastack demo`: as root, as an ordinary user, and where namespaces are refused.

use std::process::Command;
use std::time::Duration;

use lastack_e2e::process::{Finished, run};
use lastack_e2e::runner::{User, lastack_as};
use lastack_e2e::{binaries, clock, needs, servers};

/// Ten seconds are promised; a machine that builds and tests beside it may take longer.
const LIMIT: Duration = Duration::from_secs(40);

#[track_caller]
fn assert_tells_the_story(ended: &Finished) {
    assert_eq!(ended.code(), Some(0), "{}\n{}", ended.stderr, ended.text());
    let told = ended.text() + &ended.stderr;
    for word in ["FIN-WAIT-1", "refused", "unread"] {
        assert!(told.contains(word), "nothing about {word}:\n{told}");
    }
    assert!(!told.contains("panicked"), "{told}");
}

#[test]
fn as_whoever_runs_the_tests() {
    let begin = clock::now();
    let ended = run(Command::new(binaries::lastack()).arg("demo"), LIMIT).unwrap();
    println!("{:?}", clock::now() - begin);
    assert_tells_the_story(&ended);
}

#[test]
fn as_an_ordinary_user() {
    if !needs::is_root() {
        needs::skip("the other demo test runs as an ordinary user already");
        return;
    }
    let dir = servers::directory().unwrap();
    let ended = run(lastack_as(User::Nobody, dir.path()).arg("demo").current_dir("/"), LIMIT).unwrap();
    assert_tells_the_story(&ended);
}

#[test]
fn where_namespaces_are_refused_it_says_so_and_runs_in_memory() {
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; echo 0 > /proc/sys/user/max_net_namespaces; exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(binaries::lastack())
        .arg("demo");
    let ended = run(&mut command, LIMIT).unwrap();
    if ended.stderr.contains("unshare failed") {
        needs::skip("this machine allows no user namespace, so none can be made that refuses further ones");
        return;
    }
    assert_tells_the_story(&ended);
    let told = ended.text() + &ended.stderr;
    assert!(told.contains("memory"), "it says which device it uses:\n{told}");
}
