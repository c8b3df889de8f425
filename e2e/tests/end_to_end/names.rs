//! Names: which resolver is asked, by which way, and rules by name: permitted names work, others are not even asked for, and there is
//! no way round the resolver.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use lastack_e2e::process::{run, run_with_input};
use lastack_e2e::resolver::Resolver;
use lastack_e2e::runner::{HOST_V4, HOST_V6, Runner, User, copy_for_all, device_flags, on_a_host_of_its_own};
use lastack_e2e::servers::{self, Server};
use lastack_e2e::{binaries, journal, needs};
use serde_json::Value;

use crate::{SHORT, each_user, needs_run, write_noise};

/// What the host's loopback is called inside.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));
/// The same, IPv6.
const HOST_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x6c61, 0, 0, 0, 0, 0, 2));
/// A resolver that a program believes in; nothing is ever sent there.
const ELSEWHERE: &str = "203.0.113.53:53";

/// curl's exit statuses.
const COULD_NOT_RESOLVE: Option<i32> = Some(6);
const COULD_NOT_CONNECT: Option<i32> = Some(7);

fn resolver() -> Resolver {
    let names = ["example.test", "a.pkg.test", "secret.test", "big.example.test", "big.pkg.test", "pkg.test"];
    let mut zone = names.map(|name| (name, HOST)).to_vec();
    zone.push(("six.pkg.test", HOST_IPV6));
    Resolver::start(&zone).unwrap()
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
    each_user(|user| {
        let resolver = resolver();
        let runner = runner(user, &resolver);
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
    });
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

#[test]
fn permitted_questions_and_their_answers_pass_bit_for_bit() {
    needs_run!();
    each_user(|user| {
        let resolver = resolver();
        let runner = runner(user, &resolver);
        let ask = |how: &str| format!("ask 10.0.2.3:53 big.pkg.test {how}\n");
        let answers = actor(&runner, &["edns", "", "tcp", "edns tcp"].map(ask).concat());
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let exchanges = resolver.exchanges();
        assert_eq!((answers.len(), exchanges.len()), (4, 4));
        for (answer, exchange) in answers.iter().zip(&exchanges) {
            assert_eq!(answer["query"], hex(&exchange.query));
            assert_eq!(answer["reply"], hex(&exchange.reply));
        }
        let told = |answer: &Value| {
            (
                answer["truncated"] == true,
                answer["addresses"].as_array().unwrap().len(),
                answer["reply"].as_str().unwrap().len() / 2 > 1500,
            )
        };
        let whole = (false, 1, true);
        // A datagram that takes two packets; one that says it is not all; and all of it over TCP.
        assert_eq!(answers.iter().map(told).collect::<Vec<_>>(), [whole, (true, 0, false), whole, whole]);
    });
}

#[test]
fn addresses_of_ipv6_are_permitted_once_they_were_answered() {
    needs_run!();
    let resolver = resolver();
    let [v4, v6] = ["127.0.0.1:0", "[::1]:0"].map(|at| TcpListener::bind(at).unwrap());
    let [port_v4, port_v6] = [&v4, &v6].map(|listener| listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for mut stream in v6.incoming().flatten() {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let runner = runner(User::Current, &resolver);
    let steps = format!(
        "connect [{HOST_IPV6}]:{port_v6}\nask 10.0.2.3:53 six.pkg.test\nconnect [{HOST_IPV6}]:{port_v6}
         ask 10.0.2.3:53 six.pkg.test aaaa\nconnect [{HOST_IPV6}]:{port_v6}\nconnect 10.0.2.2:{port_v4}\n"
    );
    let answers = actor(&runner, &steps);
    let results: Vec<_> = answers.iter().map(|answer| answer["result"].as_str().unwrap()).collect();
    let refused = "ECONNREFUSED";
    assert_eq!(results, [refused, "NoError", refused, "NoError", "ok", refused]);
    assert_eq!(answers[1]["addresses"], serde_json::json!([]));
    assert_eq!(answers[3]["addresses"], serde_json::json!([HOST_IPV6]));
    let journal = runner.journal();
    let told: Vec<_> = journal.iter().map(|line| (line.text("remote"), line.text("reason"))).collect();
    let line = |remote: String, reason: &str| (remote, reason.to_owned());
    let to_v6 = |reason: &str| line(format!("[{HOST_IPV6}]:{port_v6}"), reason);
    let denied = "denied-by-rule";
    assert_eq!(
        told,
        [to_v6(denied), to_v6(denied), line(format!("10.0.2.2:{port_v4}"), denied), to_v6("null")]
    );
}

/// Answers each question for an address with what it is told, and says that it was asked.
const NAME_SERVER: &str = "
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], int(sys.argv[2])))
print('listens', flush=True)
while True:
    question, client = server.recvfrom(4096)
    print('asked', flush=True)
    header = question[:2] + bytes.fromhex('81800001000100000000')
    answer = bytes.fromhex('c00c00010001000000050004') + socket.inet_aton(sys.argv[3])
    server.sendto(header + question[12:] + answer, client)
";

/// A host with a resolver of its own, and a name server elsewhere that a program may know.
#[test]
fn other_name_servers_are_asked_themselves_where_no_rule_is() {
    needs_run!();
    needs!("ip", "python3");
    if !needs::is_root() {
        needs::skip("needs root");
        return;
    }
    for (rules, told, asked) in [
        ("", ["192.0.2.53", "192.0.2.1"], [1, 1]),
        ("--allow example.test", ["192.0.2.1", "192.0.2.1"], [2, 0]),
        // A rule that names the server stands above.
        ("--allow example.test --allow 203.0.113.53:53", ["192.0.2.53", "192.0.2.1"], [1, 1]),
    ] {
        let dir = servers::directory().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(dir.path().join("server.py"), NAME_SERVER).unwrap();
        let actor = copy_for_all(binaries::actor(), dir.path()).unwrap();
        let script = format!(
            "ip link set lo up; ip address add 203.0.113.53/32 dev lo
             python3 server.py 127.0.0.1 5353 192.0.2.1 >own & own=$!
             python3 server.py 203.0.113.53 53 192.0.2.53 >other & other=$!
             trap 'kill $own $other; wait' EXIT
             for i in $(seq 200); do grep -q listens own && grep -q listens other && break; sleep 0.05; done
             printf 'ask {ELSEWHERE} example.test\\nask 10.0.2.3:53 example.test\\n' |
                 \"$@\" run {} {rules} --dns 127.0.0.1:5353 --json --output journal -- {}",
            device_flags().join(" "),
            actor.display()
        );
        let mut command = on_a_host_of_its_own(User::Current, dir.path(), &script);
        let text = run(&mut command, SHORT).unwrap().expect_success("the actor").text();
        let answers = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let addresses: Vec<_> = answers.map(|answer| answer["addresses"][0].clone()).collect();
        assert_eq!(addresses, told, "{rules}");
        let count = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap().matches("asked").count();
        assert_eq!([count("own"), count("other")], asked, "{rules}");
        let file = dir.path().join("journal");
        let [lookups, flows] = [journal::lookups(&file).unwrap(), journal::flows(&file).unwrap()];
        assert_eq!([lookups.len(), flows.len()], asked, "{rules}: {lookups:?} {flows:?}");
        assert!(flows.iter().all(|flow| flow.text("remote") == ELSEWHERE), "{flows:?}");
    }
}

/// Listens where nscd and resolved do; whoever asks there has no answer.
const BYPASSES: &str = "
import os, socket
sockets = []
for path in '/run/nscd/socket', '/run/systemd/resolve/io.systemd.Resolve':
    sockets.append(socket.socket(socket.AF_UNIX))
    sockets[-1].bind(path)
    os.chmod(path, 0o777)
    sockets[-1].listen()
print('listens', flush=True)
import time
time.sleep(1000)
";

/// A host as systemd-resolved and nscd set it up: names are looked up over sockets in the file system, which no network namespace cuts.
#[test]
fn names_go_through_the_stack_on_a_host_with_resolved_and_nscd() {
    needs_run!();
    needs!("python3", "getent", "curl", "nginx");
    if !needs::is_root() {
        needs::skip("needs root");
        return;
    }
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("file"), 1000);
    each_user(|user| {
        let resolver = resolver();
        let dir = servers::directory().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(dir.path().join("bypasses.py"), BYPASSES).unwrap();
        let inside = format!(
            "cat /etc/resolv.conf; grep hosts: /etc/nsswitch.conf
             for socket in /run/nscd/socket /run/systemd/resolve/io.systemd.Resolve; do test ! -e $socket; done
             getent ahostsv4 example.test | head -1
             curl -sS --fail -o got http://in-hosts.test:{port}/file
             curl -sS -o got http://other-in-hosts.test:{port}/file || echo denied $?",
            port = nginx.port
        );
        fs::write(dir.path().join("inside"), inside).unwrap();
        let script = format!(
            "mount --make-rprivate /
             mkdir etc; cp -a /etc/. etc; mount --bind etc /etc
             mount -t tmpfs -o mode=755 none /run; mkdir -p /run/systemd/resolve /run/nscd
             echo 'nameserver 127.0.0.53
             options edns0
             search .' >/run/systemd/resolve/stub-resolv.conf
             ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
             sed -i 's/^hosts:.*/hosts: resolve [!UNAVAIL=return] files dns/' /etc/nsswitch.conf
             printf '127.0.0.1 localhost\\n{HOST_IPV6} in-hosts.test\\n203.0.113.9 other-in-hosts.test\\n' >hosts; mount --bind hosts /etc/hosts
             python3 bypasses.py >bypasses & trap \"kill $!; wait\" EXIT
             for i in $(seq 200); do grep -q listens bypasses && break; sleep 0.05; done
             test -S /run/nscd/socket; test -S /run/systemd/resolve/io.systemd.Resolve
             \"$@\" run --allow example.test --allow in-hosts.test --deny '*' --dns {} --json --output journal -- sh -e inside",
            resolver.address
        );
        let mut command = Command::new("unshare");
        let lastack = lastack_e2e::runner::lastack_as(user, dir.path());
        command.args(["--mount", "sh", "-ec", &script, "sh"]);
        command.arg(lastack.get_program()).args(lastack.get_args()).current_dir(dir.path());
        command.envs(lastack.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let text = run(&mut command, SHORT).unwrap().expect_success("names").text();
        let lines: Vec<_> = text.lines().collect();
        let [written, v4, v6, options, search, switch, address, denied] = lines[..] else { panic!("{text}") };
        assert!(written.starts_with('#'), "{text}");
        assert_eq!([v4, v6], ["nameserver 10.0.2.3", "nameserver fd00:6c61::3"]);
        assert_eq!([options, search, switch], ["options edns0", "search .", "hosts: files dns"]);
        assert_eq!(address.split_whitespace().collect::<Vec<_>>(), [HOST_V4, "STREAM", "example.test"]);
        assert_eq!(denied, "denied 7");
        assert!(resolver.asked().iter().all(|name| name == "example.test"), "{:?}", resolver.asked());
        let file = dir.path().join("journal");
        let lookups = journal::lookups(&file).unwrap();
        assert!(
            lookups
                .iter()
                .any(|lookup| lookup.text("name") == "example.test" && lookup.text("how") == "answered")
        );
        let connections = journal::connections(&file).unwrap();
        let told: Vec<_> =
            connections.iter().map(|line| (line.text("remote"), line.text("reason"))).collect();
        let line = |host: &str, reason: &str| (format!("{host}:{}", nginx.port), reason.to_owned());
        assert_eq!(told, [line(HOST_V6, "null"), line("203.0.113.9", "denied-by-rule")]);
    });
}
