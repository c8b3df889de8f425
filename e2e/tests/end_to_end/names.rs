//! Rules by name: permitted names work, others are not even asked for, and there is no way round the resolver.

use std::net::Ipv4Addr;

use lastack_e2e::binaries;
use lastack_e2e::process::run_with_input;
use lastack_e2e::resolver::Resolver;
use lastack_e2e::runner::{HOST_V4, Runner, User, copy_for_all};
use lastack_e2e::servers::Server;
use serde_json::Value;

use crate::{SHORT, each_user, needs_run, write_noise};

/// What the host's loopback is called inside.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// A resolver that a program believes in; nothing is ever sent there.
const ELSEWHERE: &str = "203.0.113.53:53";

/// curl's exit statuses.
const COULD_NOT_RESOLVE: Option<i32> = Some(6);
const COULD_NOT_CONNECT: Option<i32> = Some(7);

fn resolver() -> Resolver {
    let names = ["example.test", "a.pkg.test", "secret.test", "big.example.test", "pkg.test"];
    Resolver::start(&names.map(|name| (name, HOST))).unwrap()
}

/// The contract's rules.
const RULES: [&str; 6] = ["--allow", "example.test", "--allow", "*.pkg.test", "--deny", "*"];

fn runner(user: User, resolver: &Resolver) -> Runner {
    Runner::new(user).flags(&RULES).flags(&["--dns", &resolver.address.to_string()])
}

/// The journal's lookups of `name`: how they ended, and over what.
fn lookups(runner: &Runner, name: &str) -> Vec<(String, String)> {
    let all = runner.lookups();
    let of = all.iter().filter(|lookup| lookup.text("name") == name);
    of.map(|lookup| (lookup.text("how"), lookup.text("protocol"))).collect()
}

/// The answers of the actor to `steps`.
fn actor(runner: &Runner, steps: &str) -> Vec<Value> {
    let actor = copy_for_all(binaries::actor(), runner.dir()).unwrap();
    let ended = run_with_input(&mut runner.command(&actor), steps.as_bytes(), SHORT).unwrap();
    let text = ended.expect_success("the actor").text();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn permitted_names_work_and_all_else_is_refused_and_journalled() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("file"), 1000);
    each_user(|user| {
        let resolver = resolver();
        let get = |host: &str| {
            let runner = runner(user, &resolver);
            let url = format!("http://{host}:{}/file", nginx.port);
            let code = runner.run("curl", &["-sS", "--fail", "-o", "got", &url], SHORT).code();
            (code, runner)
        };
        for name in ["example.test", "a.pkg.test", "EXAMPLE.test"] {
            let (code, runner) = get(name);
            assert_eq!(code, Some(0), "{name}");
            assert_eq!(runner.journal()[0].text("how"), "fin", "{name}");
        }
        // The domain of `*.pkg.test` is not below itself.
        for name in ["secret.test", "pkg.test"] {
            let (code, runner) = get(name);
            assert_eq!(code, COULD_NOT_RESOLVE, "{name}");
            assert!(runner.journal().is_empty(), "{name}");
            assert!(lookups(&runner, name).iter().all(|(how, _)| how == "denied"), "{name}");
            assert!(!lookups(&runner, name).is_empty(), "{name}");
        }
        // The same server by its address: it was answered to nobody in this run.
        let (code, runner) = get(HOST_V4);
        assert_eq!(code, COULD_NOT_CONNECT);
        assert_eq!(runner.journal()[0].text("reason"), "denied-by-rule");
        assert!(!resolver.asked().iter().any(|name| name == "secret.test" || name == "pkg.test"));
    });
}

#[test]
fn program_that_ignores_resolv_conf_is_caught_too() {
    needs_run!();
    let resolver = resolver();
    let runner = runner(User::Current, &resolver);
    let steps = format!(
        "ask {ELSEWHERE} secret.test\nask {ELSEWHERE} secret.test tcp\nask {ELSEWHERE} example.test\nask 10.0.2.3:53 example.test tcp\n"
    );
    let answers = actor(&runner, &steps);
    let rcodes: Vec<_> = answers.iter().map(|answer| answer["result"].as_str().unwrap()).collect();
    assert_eq!(rcodes, ["NameError", "NameError", "NoError", "NoError"]);
    assert_eq!(answers[2]["addresses"][0], "10.0.2.2");
    let tuple = |how: &str, protocol: &str| (how.to_owned(), protocol.to_owned());
    assert_eq!(lookups(&runner, "secret.test"), [tuple("denied", "udp"), tuple("denied", "tcp")]);
    assert_eq!(lookups(&runner, "example.test"), [tuple("answered", "udp"), tuple("answered", "tcp")]);
    assert!(!resolver.asked().contains(&"secret.test".to_owned()));
    let connections = runner.journal();
    assert_eq!(connections.len(), 2, "two lookups were over TCP");
    for connection in connections {
        assert_eq!([connection.text("how"), connection.text("closed_by")], ["fin", "program"]);
    }
}

#[test]
fn truncated_answers_come_whole_over_tcp() {
    needs_run!();
    let resolver = resolver();
    let runner = Runner::new(User::Current).flags(&["--dns", &resolver.address.to_string()]);
    let answers = actor(&runner, "ask 10.0.2.3:53 big.example.test\nask 10.0.2.3:53 big.example.test tcp\n");
    assert_eq!((&answers[0]["truncated"], &answers[1]["truncated"]), (&true.into(), &false.into()));
    assert_eq!(answers[1]["addresses"][0], "10.0.2.2");
}

#[test]
fn resolver_that_is_down_is_a_failure_and_no_silence() {
    needs_run!();
    let closed = lastack_e2e::servers::free_port().unwrap();
    let runner = Runner::new(User::Current).flags(&["--dns", &format!("127.0.0.1:{closed}")]);
    let answers = actor(&runner, "ask 10.0.2.3:53 example.test\n");
    assert_eq!(answers[0]["result"], "ServerFailure");
    assert_eq!(lookups(&runner, "example.test")[0].0, "failed");
}

#[test]
fn server_that_a_rule_names_is_asked_itself() {
    needs_run!();
    let resolver = resolver();
    let port = resolver.address.port();
    assert_ne!(port, 53);
    // Port 53 alone is the resolver's; elsewhere it is a connection like others.
    let runner = Runner::new(User::Current).flags(&["--deny", "10.0.2.3"]);
    let answers = actor(&runner, "ask 10.0.2.3:53 example.test\n");
    assert_eq!(answers[0]["result"], "ECONNREFUSED", "the rule names the resolver's own address");
}
