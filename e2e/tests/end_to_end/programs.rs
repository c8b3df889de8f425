//! Programs people use, unmodified.

use std::process::Command;

use lastack_e2e::process::{run, run_with_input};
use lastack_e2e::runner::{HOST_V4, Runner, User, as_nobody};
use lastack_e2e::servers::Server;

use crate::{SHORT, each_user, needs_run, write_noise};

#[test]
fn iperf3_measures_both_ways() {
    needs_run!();
    needs!("iperf3");
    let iperf3 = Server::iperf3().unwrap();
    let port = iperf3.port.to_string();
    each_user(|user| {
        for extra in [&[][..], &["-R"], &["-P", "4"]] {
            let runner = Runner::new(user);
            let mut args = vec!["-c", HOST_V4, "-p", &port, "-t", "1", "-J"];
            args.extend(extra);
            let ended = runner.run("iperf3", &args, SHORT).expect_success(&format!("iperf3 {extra:?}"));
            let report: serde_json::Value = serde_json::from_str(&ended.text()).expect("iperf3 -J");
            let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap_or(0);
            assert!(received > 1_000_000, "{extra:?}: {received} bytes received in 1 s");
            let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0);
            println!("iperf3 {extra:?} as {user:?}: {:.2} Gbit/s", bits / 1e9);
        }
    });
}

#[test]
fn redis_benchmark_gets_every_answer() {
    needs_run!();
    needs!("redis-server", "redis-benchmark");
    let redis = Server::redis().unwrap();
    let port = redis.port.to_string();
    each_user(|user| {
        let runner = Runner::new(user);
        let args = [
            "-h",
            HOST_V4,
            "-p",
            &port,
            "-n",
            "5000",
            "-c",
            "50",
            "-t",
            "set,get,lpush",
            "-d",
            "300",
            "--csv",
        ];
        let ended = runner.run("redis-benchmark", &args, SHORT).expect_success("redis-benchmark");
        for command in ["SET", "GET", "LPUSH"] {
            assert!(ended.text().contains(&format!("\"{command}\"")), "no {command}: {}", ended.text());
        }
        let pipelined = ["-h", HOST_V4, "-p", &port, "-n", "20000", "-P", "64", "-t", "set", "--csv"];
        runner.run("redis-benchmark", &pipelined, SHORT).expect_success("redis-benchmark -P 64");
    });
}

#[test]
fn openssl_s_client_talks_tls() {
    needs_run!();
    needs!("openssl");
    let server = Server::openssl().unwrap();
    let certificate = server.dir.path().join("cert.pem").display().to_string();
    let at = format!("{HOST_V4}:{}", server.port);
    each_user(|user| {
        let runner = Runner::new(user);
        let mut command = runner.command("openssl");
        command.args([
            "s_client",
            "-connect",
            &at,
            "-CAfile",
            &certificate,
            "-verify_return_error",
            "-ign_eof",
        ]);
        let ended = run_with_input(&mut command, b"GET / HTTP/1.0\r\n\r\n", SHORT).unwrap();
        let text = ended.expect_success("openssl s_client").text();
        assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
        assert!(text.contains("HTTP/1.0 200 ok"), "{text}");
    });
}

#[test]
fn git_clones_over_http() {
    needs_run!();
    needs!("git", "nginx");
    let nginx = Server::nginx().unwrap();
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args([
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@lastack.test",
            "-c",
            "init.defaultBranch=main",
        ]);
        command
            .args(args)
            .current_dir(nginx.content())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", nginx.dir.path());
        run(&mut command, SHORT).unwrap().expect_success(&format!("git {args:?}")).text()
    };
    git(&["init", "-q", "work"]);
    for n in 0..20 {
        write_noise(&nginx.content().join(format!("work/file-{n}")), 10_000 + n);
    }
    git(&["-C", "work", "add", "-A"]);
    git(&["-C", "work", "commit", "-qm", "twenty files"]);
    git(&["clone", "-q", "--bare", "work", "repository.git"]);
    // The "dumb" protocol: nginx serves files, git finds its way by info/refs.
    git(&["-C", "repository.git", "update-server-info"]);
    let head = git(&["-C", "work", "rev-parse", "HEAD"]);
    let url = format!("http://{HOST_V4}:{}/repository.git", nginx.port);
    each_user(|user| {
        let runner = Runner::new(user);
        let mut clone = runner.command("git");
        clone.args(["clone", "-q", &url, "copy"]).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", runner.dir());
        run(&mut clone, SHORT).unwrap().expect_success("git clone");
        let mut check = match user {
            User::Current => Command::new("git"),
            User::Nobody => as_nobody(false),
        };
        if user == User::Nobody {
            check.arg("git");
        }
        check.args(["-C", "copy", "rev-parse", "HEAD"]).current_dir(runner.dir()).env("HOME", runner.dir());
        assert_eq!(run(&mut check, SHORT).unwrap().expect_success("git rev-parse").text(), head);
        assert!(runner.journal().iter().all(|line| line.text("how") == "fin"), "{:?}", runner.journal());
    });
}

#[test]
fn ssh_runs_a_command_and_passes_data_and_status() {
    needs_run!();
    needs!("sshd", "ssh", "ssh-keygen");
    let sshd = Server::sshd().unwrap();
    let key = sshd.dir.path().join("client").display().to_string();
    let port = sshd.port.to_string();
    let options =
        ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR"];
    let runner = Runner::new(User::Current);
    let ssh = |remote: &str, input: &[u8]| {
        let mut command = runner.command("ssh");
        for option in options {
            command.args(["-o", option]);
        }
        command.args(["-F", "none", "-i", &key, "-p", &port, HOST_V4, remote]);
        run_with_input(&mut command, input, SHORT).unwrap()
    };
    let data: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    let echoed = ssh("cat", &data).expect_success("ssh cat");
    assert!(echoed.stdout == data, "{} of {} bytes came back, or others", echoed.stdout.len(), data.len());
    assert_eq!(ssh("exit 3", b"").code(), Some(3), "the remote command's status");
}
