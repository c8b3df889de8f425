//! Egress rules by address: a denied connection is refused at once and journalled.

use lastack_e2e::runner::{HOST_V4, Runner};
use lastack_e2e::servers::Server;

use crate::{SHORT, each_user, needs_run, write_noise};

/// curl's exit status for a refused connection.
const COULD_NOT_CONNECT: Option<i32> = Some(7);

#[test]
fn a_denied_address_is_refused_and_journalled() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("file"), 1000);
    let at = format!("{HOST_V4}:{}", nginx.port);
    let url = format!("http://{at}/file");
    each_user(|user| {
        for rule in [at.clone(), HOST_V4.to_owned(), "10.0.2.0/24".to_owned(), "*".to_owned()] {
            let runner = Runner::new(user).flags(&["--deny", &rule]);
            let ended = runner.run("curl", &["-sS", "-o", "got", &url], SHORT);
            assert_eq!(ended.code(), COULD_NOT_CONNECT, "--deny {rule}: {}", ended.stderr);
            assert!(
                ended.stderr.contains("Connection refused") || ended.stderr.contains("Couldn't connect"),
                "{}",
                ended.stderr
            );
            let journal = runner.journal();
            assert_eq!(journal.len(), 1, "--deny {rule}: {journal:?}");
            for (field, value) in [
                ("how", "denied"),
                ("closed_by", "lastack"),
                ("reason", "denied-by-rule"),
                ("certainty", "observed"),
                ("remote", &at),
            ] {
                assert_eq!(journal[0].text(field), value, "--deny {rule}: {field}");
            }
        }
    });
}

#[test]
fn with_allow_rules_alone_the_rest_is_denied() {
    needs_run!();
    needs!("nginx", "curl");
    let (allowed, other) = (Server::nginx().unwrap(), Server::nginx().unwrap());
    for nginx in [&allowed, &other] {
        write_noise(&nginx.content().join("file"), 1000);
    }
    let rule = format!("{HOST_V4}:{}", allowed.port);
    let url = |port| format!("http://{HOST_V4}:{port}/file");
    let runner = Runner::new(lastack_e2e::runner::User::Current).flags(&["--allow", &rule]);
    runner
        .run("curl", &["-sS", "--fail", "-o", "got", &url(allowed.port)], SHORT)
        .expect_success("the allowed one");
    assert_eq!(runner.run("curl", &["-sS", "-o", "got", &url(other.port)], SHORT).code(), COULD_NOT_CONNECT);
}

#[test]
fn the_first_rule_that_matches_wins() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("file"), 1000);
    let at = format!("{HOST_V4}:{}", nginx.port);
    let url = format!("http://{at}/file");
    let code = |flags: &[&str]| {
        let runner = Runner::new(lastack_e2e::runner::User::Current).flags(flags);
        runner.run("curl", &["-sS", "--fail", "-o", "got", &url], SHORT).code()
    };
    assert_eq!(code(&["--allow", &at, "--deny", "*"]), Some(0));
    assert_eq!(code(&["--deny", "*", "--allow", &at]), COULD_NOT_CONNECT);
    assert_eq!(code(&["--deny", "203.0.113.0/24"]), Some(0), "what no rule names is allowed");
}
