//! A bad link loses packets and no bytes; a seed repeats what it did; what is forced looks real.

use std::process::Command;

use lastack_e2e::binaries;
use lastack_e2e::needs::long;
use lastack_e2e::process::run;
use lastack_e2e::runner::{HOST_V4, Runner, User};
use lastack_e2e::servers::Server;
use serde_json::Value;

use crate::{LONG, assert_same_content, each_user, needs_run, write_noise};

const BAD: [&str; 10] =
    ["--loss", "5%", "--delay", "20", "--reorder", "5%", "--duplicate", "1%", "--seed", "7"];

/// The account of the link in a run's journal.
fn link(runner: &Runner) -> Value {
    let text = std::fs::read_to_string(runner.dir().join("journal.json")).expect("a journal");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
    let accounts: Vec<Value> = lines.filter(|line| line["event"] == "impairments").collect();
    assert_eq!(accounts.len(), 1, "{text}");
    accounts[0].clone()
}

/// Hashes of the decisions at powers of two.
fn decisions(account: &Value, direction: &str) -> Vec<(u64, String)> {
    let marks = account["rules"][0][direction]["decisions"].as_array().expect("marks");
    let read = |mark: &Value| (mark[0].as_u64().unwrap(), mark[1].as_str().unwrap().to_owned());
    marks.iter().map(read).filter(|(ordinal, _)| ordinal.is_power_of_two()).collect()
}

#[test]
fn what_crosses_a_bad_link_is_whole_and_a_seed_repeats_its_decisions() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    let size = if long() { 16 << 20 } else { 1 << 20 };
    let source = nginx.dir.path().join("source");
    write_noise(&source, size);
    write_noise(&nginx.content().join("answer"), size);
    let accounts: Vec<Value> = (0..2)
        .map(|n| {
            let runner = Runner::new(User::Current).flags(&BAD);
            let at = format!("http://{HOST_V4}:{}", nginx.port);
            let put = format!("put-{n}");
            let script = format!(
                "curl -sS --fail -o got {at}/answer && curl -sS --fail -T {} {at}/{put}",
                source.display()
            );
            runner.run("sh", &["-c", &script], LONG).expect_success(&script);
            assert_same_content(&nginx.content().join("answer"), &runner.dir().join("got"));
            assert_same_content(&source, &nginx.content().join(&put));
            assert!(runner.journal().iter().all(|line| line.text("how") == "fin"), "{:?}", runner.journal());
            link(&runner)
        })
        .collect();
    for account in &accounts {
        assert_eq!(account["seed"], 7);
        assert_eq!(
            account["asked"],
            serde_json::json!(["--loss 5%", "--delay 20", "--reorder 5%", "--duplicate 1%"])
        );
        for direction in ["up", "down"] {
            let told = &account["rules"][0][direction];
            for what in ["lost", "held_back", "overtaken", "duplicated"] {
                assert!(told[what].as_u64().unwrap() > 0, "{direction} {what}: {told}");
            }
            // A timer may be late on a busy machine, and 50 µs early on any.
            assert!(told["delay_us"]["min"].as_u64().unwrap() >= 19_950, "{told}");
            let (packets, lost) = (told["packets"].as_u64().unwrap(), told["lost"].as_u64().unwrap());
            println!("{direction}: {lost} of {packets} lost, {}", told["delay_us"]);
        }
    }
    for direction in ["up", "down"] {
        let [one, two] = [0, 1].map(|n| decisions(&accounts[n], direction));
        let both = one.len().min(two.len());
        assert!(both >= 8, "more than a hundred packets {direction}: {one:?}");
        assert_eq!(one[..both], two[..both], "seed 7, {direction}");
    }
}

#[test]
fn flags_are_for_one_direction_or_one_destination_alone() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("page"), 300_000);
    each_user(|user| {
        let other = format!("20%,{HOST_V4}:1");
        let runner = Runner::new(user).flags(&["--loss", &other, "--duplicate", "down:100%"]);
        let url = format!("http://{HOST_V4}:{}/page", nginx.port);
        runner.run("curl", &["-sS", "--fail", "-o", "got", &url], LONG).expect_success("curl");
        assert_same_content(&nginx.content().join("page"), &runner.dir().join("got"));
        let account = link(&runner);
        assert_eq!(account["rules"][0]["up"]["packets"], 0, "{account}");
        let rest = &account["rules"][1];
        assert_eq!((&rest["up"]["duplicated"], &rest["up"]["lost"]), (&Value::from(0), &Value::from(0)));
        assert_eq!(rest["down"]["duplicated"], rest["down"]["packets"], "{account}");
    });
}

#[test]
fn what_is_forced_looks_real_to_programs_and_kernels() {
    needs_run!();
    needs!("ip", "ss", "unshare", "nsenter");
    let play = binaries::build("lastack-e2e", "forced-law");
    let _ = (binaries::lastack(), binaries::actor());
    let ended = run(&mut Command::new(play), LONG).unwrap();
    println!("{}", ended.text());
    assert!(ended.success(), "{}\n{}", ended.text(), ended.stderr);
    assert_eq!(ended.text().matches(": the same\n").count(), 5, "{}", ended.text());
}
