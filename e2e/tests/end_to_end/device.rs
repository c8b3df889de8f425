//! Which link the program gets, which routes, and many runs at once or one in another.

use std::path::Path;
use std::process::Command;

use lastack_e2e::process::{Finished, Process, run};
use lastack_e2e::runner::{self, HOST_V4, Runner, User, as_nobody, copy_for_all, on_a_host_of_its_own};
use lastack_e2e::servers::Server;
use lastack_e2e::{binaries, journal, needs, servers};

use crate::{SHORT, each_user, needs_run, write_noise};

#[test]
fn nobody_before_a_closed_tun_gets_a_veth_and_is_told() {
    needs_run!();
    needs!("nginx", "curl");
    if !needs::is_root() || needs::tun_is_for_everyone() {
        needs::skip("needs root, and a /dev/net/tun that is not open to all");
        return;
    }
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("file"), 1_000_000);
    let dir = servers::directory().unwrap();
    let copy = copy_for_all(binaries::lastack(), dir.path()).unwrap();
    let url = format!("http://{HOST_V4}:{}/file", nginx.port);
    let lastack = |flags: &[&str]| {
        let mut command = as_nobody(false);
        command.arg(&copy).arg("run").args(flags).args(["--", "curl", "-sS", "-o", "/dev/null", &url]);
        run(command.current_dir("/"), SHORT).unwrap().expect_success("curl")
    };
    assert!(lastack(&[]).stderr.ends_with(" · over veth\n"));
    let line: serde_json::Value = serde_json::from_str(&lastack(&["--json"]).stderr).expect("one line");
    assert_eq!(
        (&line["device"], &line["bytes_down"].as_u64().map(|n| n > 1_000_000)),
        (&"veth".into(), &Some(true))
    );
}

#[test]
fn each_link_is_had_for_the_asking() {
    needs_run!();
    if !needs::is_root() {
        needs::skip("needs root");
        return;
    }
    for (device, interface) in [("tun", "tun0"), ("veth", "veth0")] {
        if device == "tun" && !Path::new("/dev/net/tun").exists() {
            needs::skip("there is no /dev/net/tun");
            continue;
        }
        let mut command = Command::new(binaries::lastack());
        command.args(["run", "--device", device, "--mtu", "9000", "--", "cat", "/proc/net/dev"]);
        let devices = run(&mut command, SHORT).unwrap().expect_success(device).text();
        assert!(devices.contains(interface), "{devices}");
        let count = devices.lines().filter(|line| line.contains(':')).count();
        assert_eq!(count, 2, "lo and {interface}: {devices}");
    }
}

/// Runs `script` in a network namespace of its own, in which `$1` is `lastack`.
fn in_host(user: User, script: &str) -> (Finished, tempfile::TempDir) {
    let dir = servers::directory().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut command = on_a_host_of_its_own(user, dir.path(), script);
    (run(&mut command, SHORT).unwrap(), dir)
}

#[test]
fn a_family_the_host_lacks_has_no_default_route_inside() {
    needs_run!();
    needs!("ip");
    if !needs::is_root() {
        needs::skip("needs root");
        return;
    }
    let host = |addresses: &str| {
        format!(
            "ip link set lo up; ip link add to-net type veth peer name net; ip link set to-net up; ip link set net up
             {addresses}
             exec \"$@\" run {} --report none -- sh -c 'ip -4 route show default | wc -l; ip -6 route show default | wc -l
             ip -6 route get fd00:6c61::2 | wc -l; ip -4 route get 10.0.2.2 | grep -c dev'",
            runner::device_flags().join(" ")
        )
    };
    let v4 = "ip address add 192.0.2.1/24 dev to-net; ip route add default via 192.0.2.254";
    let v6 = "ip address add 2001:db8:1::1/64 dev to-net nodad; ip -6 route add default via 2001:db8:1::fe";
    for (addresses, routes) in [
        (v4.to_owned(), "1\n0\n1\n1\n"),
        (v6.to_owned(), "0\n1\n1\n1\n"),
        (format!("{v4}; {v6}"), "1\n1\n1\n1\n"),
        // Offline: the stack answers, so that the attempt is in the journal.
        (String::new(), "1\n1\n1\n1\n"),
    ] {
        let (ended, _dir) = in_host(User::Current, &host(&addresses));
        assert_eq!(ended.expect_success("routes").text(), routes, "{addresses}");
    }
}

#[test]
fn a_run_in_a_run_goes_through_both() {
    needs_run!();
    needs!("ip", "redis-server", "redis-cli");
    if !needs::is_root() {
        needs::skip("needs root");
        return;
    }
    // Not the host's loopback: to the inner run that is the outer run's namespace.
    let script = "
        ip link set lo up; ip address add 203.0.113.9/32 dev lo
        redis-server --bind 203.0.113.9 --port 6399 --save '' --protected-mode no >redis.log &
        trap \"kill $!; wait\" EXIT
        for i in $(seq 100); do redis-cli -h 203.0.113.9 -p 6399 ping >ping 2>&1 && break; sleep 0.1; done
        grep -q PONG ping
        \"$@\" run FLAGS --json --output outer -- \"$@\" run FLAGS --json --output inner -- \
            redis-cli -h 203.0.113.9 -p 6399 echo through-both";
    let script = script.replace("FLAGS", &runner::device_flags().join(" "));
    let (ended, dir) = in_host(User::Current, &script);
    assert!(ended.expect_success("nested").text().contains("through-both"));
    for file in ["outer", "inner"] {
        let connections = journal::connections(&dir.path().join(file)).unwrap();
        assert_eq!(connections.len(), 1, "{file}");
        assert_eq!(connections[0].text("remote"), "203.0.113.9:6399", "{file}");
        assert_eq!(connections[0].text("how"), "fin", "{file}");
    }
    assert_eq!(journal::connections(&dir.path().join("inner")).unwrap()[0].text("process"), "redis-cli");
}

#[test]
fn twenty_runs_side_by_side_do_not_meet() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("file"), 2_000_000);
    let url = format!("http://{HOST_V4}:{}/file", nginx.port);
    each_user(|user| {
        let runners: Vec<Runner> = (0..20).map(|_| Runner::new(user)).collect();
        let mut processes: Vec<Process> = runners
            .iter()
            .map(|runner| {
                let mut command = runner.command("curl");
                Process::spawn(command.args(["-sS", "--fail", "-o", "got", &url])).unwrap()
            })
            .collect();
        for (process, runner) in processes.iter_mut().zip(&runners) {
            let status = process.wait_within(SHORT).unwrap();
            assert!(status.is_some_and(|status| status.success()), "{status:?}");
            crate::assert_same_content(&nginx.content().join("file"), &runner.dir().join("got"));
            let connections = runner.journal();
            assert_eq!(connections.len(), 1);
            assert_eq!(
                (connections[0].text("process"), connections[0].text("how")),
                ("curl".into(), "fin".into())
            );
        }
    });
}
