//! Published ports: programs inside that serve clients outside.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lastack_e2e::journal::Connection;
use lastack_e2e::process::{Process, run};
use lastack_e2e::runner::{Runner, User, lastack_as, on_a_host_of_its_own};
use lastack_e2e::{clock, needs, servers};
use rustix::process::Signal;

use crate::{LONG, SHORT, each_user, needs_run};

/// What a server that listens says on its standard output.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that runs behind `lastack run`, with what it wrote.
struct Run {
    process: Process,
    runner: Runner,
}

impl Run {
    /// `python3 SCRIPT`, which prints a line when it listens.
    fn python(user: User, flags: &[&str], script: &str) -> Self {
        let runner = Runner::new(user).flags(flags);
        fs::write(runner.dir().join("script.py"), script).unwrap();
        let mut command = runner.command("python3");
        command.args(["-u", "script.py"]).stdin(Stdio::null());
        Self::start(command, runner)
    }

    fn start(mut command: Command, runner: Runner) -> Self {
        let output = |name: &str| fs::File::create(runner.dir().join(name)).unwrap();
        command.stdout(output("stdout")).stderr(output("stderr"));
        let process = Process::spawn(&mut command).unwrap();
        let run = Self { process, runner };
        let listens = clock::until(PATIENCE, || (!run.said("stdout").is_empty()).then_some(()));
        assert!(listens.is_some(), "it does not listen: {}", run.said("stderr"));
        run
    }

    fn said(&self, name: &str) -> String {
        fs::read_to_string(self.runner.dir().join(name)).unwrap_or_default()
    }

    /// Ends the program; gives the journal's connections.
    fn end(mut self) -> (Vec<Connection>, Runner) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait_within(SHORT).unwrap();
        assert!(status.is_some(), "lastack ends with its program: {}", self.said("stderr"));
        (self.runner.journal(), self.runner)
    }
}

/// A web server whose log names its clients; HTTP/1.1, as wrk wants it.
const HTTP: &str = "
import http.server, socket, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 1024
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
server = Server(('::', 8080), Handler)
print('listens')
server.serve_forever()
";

fn get(to: SocketAddr) -> std::io::Result<(SocketAddr, String)> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let own = stream.local_addr()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok((own, answer))
}

#[test]
fn clients_are_served_from_their_own_addresses_over_both_families() {
    needs_run!();
    needs!("python3");
    each_user(|user| {
        let port = servers::free_port().unwrap();
        let run = Run::python(user, &["--publish", &format!("{port}:8080")], HTTP);
        let v4 = SocketAddr::from(([127, 0, 0, 1], port));
        let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
        let mut clients = Vec::new();
        for at in [v4, v6, v4] {
            let (own, answer) = get(at).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
            clients.push((at, own));
        }
        let log = run.said("stderr");
        assert!(log.contains("::ffff:10.0.2.2 - -") && log.contains("fd00:6c61::2 - -"), "{log}");
        let (journal, _runner) = run.end();
        assert_eq!(journal.len(), 3);
        for (at, own) in clients {
            let line = journal.iter().find(|line| line.text("host_remote") == own.to_string());
            let line = line.unwrap_or_else(|| panic!("{own} is not in {journal:?}"));
            let (inside, seen) = if at.is_ipv4() {
                ("10.0.2.100", "10.0.2.2")
            } else {
                ("[fd00:6c61::100]", "[fd00:6c61::2]")
            };
            for (name, value) in [
                ("direction", "in".to_owned()),
                ("process", "python3".to_owned()),
                ("local", format!("{inside}:8080")),
                ("remote", format!("{seen}:{}", own.port())),
                ("host_local", at.to_string()),
                ("how", "fin".to_owned()),
                ("lost_data", "false".to_owned()),
            ] {
                assert_eq!(line.text(name), value, "{name}: {line:?}");
            }
        }
    });
}

/// A host's own network namespace, with addresses that are not of its loopback.
#[test]
fn a_client_elsewhere_keeps_its_address_in_the_servers_log() {
    needs_run!();
    needs!("ip", "curl", "python3");
    if !needs::is_root() {
        needs::skip("needs root");
        return;
    }
    let dir = servers::directory().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::write(dir.path().join("script.py"), HTTP).unwrap();
    let script = "
        ip link set lo up; ip address add 203.0.113.9/32 dev lo; ip -6 address add 2001:db8:9::9/128 dev lo nodad
        \"$@\" run FLAGS --name p --publish 8080:8080 --json --output journal -- python3 -u script.py >out 2>log &
        for i in $(seq 200); do grep -q listens out && break; sleep 0.05; done
        curl -sS --fail -o got --interface 203.0.113.9 http://203.0.113.9:8080/
        curl -sS --fail -o got --interface 2001:db8:9::9 'http://[2001:db8:9::9]:8080/'
        kill $!; wait $! || true
        cat log";
    let script = script.replace("FLAGS", &lastack_e2e::runner::device_flags().join(" "));
    let mut command = on_a_host_of_its_own(User::Current, dir.path(), &script);
    let log = run(&mut command, SHORT).unwrap().expect_success("curl").text();
    assert!(log.contains("::ffff:203.0.113.9 - -") && log.contains("2001:db8:9::9 - -"), "{log}");
}

#[test]
fn many_clients_are_served_right() {
    needs_run!();
    needs!("python3", "wrk");
    let clients = if needs::long() { "1000" } else { "64" };
    let time = if needs::long() { "20s" } else { "3s" };
    let port = servers::free_port().unwrap();
    let run_inside = Run::python(User::Current, &["--publish", &format!("127.0.0.1:{port}:8080")], HTTP);
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c", clients, "-d", time, "--timeout", "30s", &format!("http://127.0.0.1:{port}/")]);
    let report = run(&mut wrk, LONG).unwrap().expect_success("wrk").text();
    println!("{report}");
    assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    let served = run_inside.said("stderr").lines().filter(|line| line.contains(" 200 ")).count();
    let (journal, _runner) = run_inside.end();
    assert!(served >= journal.len(), "{served} requests over {} connections", journal.len());
    assert!(journal.len() >= clients.parse().unwrap(), "{} connections", journal.len());
    for line in &journal {
        assert_eq!(
            (line.text("direction"), line.text("process")),
            ("in".into(), "python3".into()),
            "{line:?}"
        );
    }
}

/// Serves each client until it says `bye`, whatever others do.
const ECHO: &str = "
import socket, threading
def serve(client):
    try:
        while (data := client.recv(65536)):
            client.sendall(data)
        client.close()
    except OSError as error:
        print('lost', error.errno)
server = socket.create_server(('0.0.0.0', 7))
print('listens')
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
";

#[test]
fn a_client_that_resets_does_not_disturb_the_others() {
    needs_run!();
    needs!("python3");
    each_user(|user| {
        let port = servers::free_port().unwrap();
        let run = Run::python(user, &["--publish", &format!("127.0.0.1:{port}:7")], ECHO);
        let connect = || {
            let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        };
        let echo = |stream: &mut TcpStream, text: &[u8]| {
            stream.write_all(text).unwrap();
            let mut got = vec![0; text.len()];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(got, text);
        };
        let mut others: Vec<_> = (0..8).map(|_| connect()).collect();
        for other in &mut others {
            echo(other, b"before");
        }
        for _ in 0..4 {
            let mut rude = connect();
            echo(&mut rude, b"hello");
            rustix::net::sockopt::set_socket_linger(&rude, Some(Duration::ZERO)).unwrap();
        }
        for other in &mut others {
            echo(other, b"after");
            other.shutdown(Shutdown::Write).unwrap();
            assert_eq!(other.read(&mut [0; 1]).unwrap(), 0);
        }
        drop(others);
        let lost =
            clock::until(PATIENCE, || (run.said("stdout").matches("lost 104").count() == 4).then_some(()));
        assert!(lost.is_some(), "the server sees four resets: {}", run.said("stdout"));
        let (journal, _runner) = run.end();
        let how = |how: &str| journal.iter().filter(|line| line.text("how") == how).count();
        assert_eq!((how("fin"), how("reset")), (8, 4));
        for line in journal.iter().filter(|line| line.text("how") == "reset") {
            assert_eq!(line.text("closed_by"), "remote", "{line:?}");
        }
    });
}

/// A server that listens only when told to, on the address it is told.
const LATE: &str = "
import os, socket, time
print('started')
while not os.path.exists('listen'): time.sleep(0.01)
host = open('listen').read()
server = socket.create_server((host, 9000))
print('listens')
while True:
    client = server.accept()[0]
    client.recv(1)
    client.close()
";

#[test]
fn before_anybody_listens_clients_are_reset_and_the_reason_is_named() {
    needs_run!();
    needs!("python3");
    each_user(|user| {
        for (host, reason) in [("0.0.0.0", None), ("127.0.0.1", Some("listens-on-loopback"))] {
            let port = servers::free_port().unwrap();
            let run = Run::python(user, &["--publish", &format!("127.0.0.1:{port}:9000")], LATE);
            let outcome = || {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                // Whichever call comes first behind the reset is told of it.
                let error = match stream.write_all(b"ab") {
                    Ok(()) => stream.read(&mut [0; 1]).unwrap_err(),
                    Err(error) => error,
                };
                error.raw_os_error()
            };
            assert_eq!(outcome(), Some(104), "ECONNRESET");
            fs::write(run.runner.dir().join("listen.new"), host).unwrap();
            fs::rename(run.runner.dir().join("listen.new"), run.runner.dir().join("listen")).unwrap();
            let listens = clock::until(PATIENCE, || run.said("stdout").contains("listens").then_some(()));
            assert!(listens.is_some());
            assert_eq!(outcome(), Some(104), "refused, or closed with a byte unread");
            let (journal, _runner) = run.end();
            let told: Vec<_> = journal.iter().map(|line| (line.text("how"), line.text("reason"))).collect();
            let refused = |reason: &str| ("refused".to_owned(), reason.to_owned());
            assert_eq!(told[0], refused("no-listener"));
            match reason {
                Some(reason) => assert_eq!(told[1], refused(reason)),
                // The namespace's counters tell, as for a connection of the program's own.
                None => assert_eq!(told[1], ("reset".to_owned(), "closed-with-unread-data".to_owned())),
            }
            assert_eq!(journal[1].text("process"), "python3");
            assert!(journal.iter().all(|line| line.text("closed_by") == "program"), "{journal:?}");
        }
    });
}

/// `lastack publish`, as the user of the run.
fn publish(user: User, dir: &Path, args: &[&str]) -> lastack_e2e::process::Finished {
    let mut command = lastack_as(user, dir);
    command.arg("publish").args(args);
    run(&mut command, SHORT).unwrap()
}

#[test]
fn ports_are_changed_while_the_program_runs() {
    needs_run!();
    needs!("python3");
    each_user(|user| {
        let (one, two) = (servers::free_port().unwrap(), servers::free_port().unwrap());
        let name = format!("e2e-publish-{}-{one}", std::process::id());
        let run = Run::python(user, &["--name", &name, "--publish", &format!("127.0.0.1:{one}:8080")], HTTP);
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let served = |port| get(at(port)).is_ok();
        assert!(served(one) && !served(two));
        let dir = run.runner.dir();
        let second = format!("127.0.0.1:{two}:8080");
        let list = publish(user, dir, &[&name, &second]).expect_success("publish").text();
        assert!(list.contains(&format!("127.0.0.1:{two}")) && list.contains("python3"), "{list}");
        let mut kept = TcpStream::connect(at(one)).unwrap();
        kept.set_read_timeout(Some(PATIENCE)).unwrap();
        publish(user, dir, &[&name, "--remove", &format!("127.0.0.1:{one}")]).expect_success("--remove");
        assert!(!served(one) && served(two));
        kept.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        kept.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "who was connected is served on: {answer}");
        drop(kept);
        let json = publish(user, dir, &[&name, "--json"]).expect_success("--json").text();
        let document: serde_json::Value = serde_json::from_str(&json).unwrap();
        let ports = document["published"].as_array().unwrap();
        assert_eq!((ports.len(), &ports[0]["port"]), (1, &second.clone().into()), "{json}");
        assert_eq!((&ports[0]["process"], &ports[0]["inside"]), (&"python3".into(), &8080.into()), "{json}");
        let all = publish(user, dir, &[]).expect_success("publish alone").text();
        let line = all.lines().find(|line| line.starts_with(&name)).expect("the run is among all of them");
        assert!(line.contains(&format!("127.0.0.1:{two}")), "{all}");
        for (args, cause) in [
            (&[name.as_str(), &second][..], "publishes"),
            (&[&second], "the name comes first"),
            (&[&name, "--remove", "7"], "not published"),
            (&[&name, "8080"], "HOST:INSIDE"),
        ] {
            let refused = publish(user, dir, args);
            assert_eq!(refused.code(), Some(2), "{args:?}");
            let lines: Vec<_> = refused.stderr.lines().collect();
            assert_eq!(lines.len(), 3, "{}", refused.stderr);
            assert!(lines[1].starts_with("cause: ") && lines[1].contains(cause), "{}", refused.stderr);
        }
        drop(run.end());
    });
}

/// Answers each datagram with itself.
const UDP_ECHO: &str = "
import socket
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.bind(('0.0.0.0', 5000))
print('listens')
while True:
    data, client = echo.recvfrom(4096)
    echo.sendto(data, client)
";

#[test]
fn ports_of_datagrams_are_changed_while_the_program_runs() {
    needs_run!();
    needs!("python3");
    each_user(|user| {
        let port = servers::free_port().unwrap();
        let name = format!("e2e-publish-udp-{}-{port}", std::process::id());
        let run = Run::python(user, &["--name", &name], UDP_ECHO);
        let dir = run.runner.dir();
        let host = format!("127.0.0.1:{port}");
        let client = || {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.connect(&host).unwrap();
            client
        };
        let asked = |client: &UdpSocket, word: &str| {
            client.send(word.as_bytes())?;
            let mut got = [0; 16];
            let len = client.recv(&mut got)?;
            std::io::Result::Ok(String::from_utf8_lossy(&got[..len]).into_owned())
        };
        let refused = |client: UdpSocket| {
            let error = asked(&client, "nobody").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        };
        refused(client());
        let added =
            publish(user, dir, &[&name, &format!("{host}:5000/udp")]).expect_success("publish").text();
        assert!(added.contains(&host) && added.contains("udp"), "{added}");
        let kept = client();
        assert_eq!(asked(&kept, "one").unwrap(), "one");
        publish(user, dir, &[&name, "--remove", &format!("{host}/udp")]).expect_success("--remove");
        refused(client());
        assert_eq!(asked(&kept, "two").unwrap(), "two", "who is served is served on");
        let json = publish(user, dir, &[&name, "--json"]).expect_success("--json").text();
        let document: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(document["published"], serde_json::json!([]), "{json}");
        let (_, runner) = run.end();
        let flows = runner.flows();
        assert_eq!((flows.len(), flows[0].number("datagrams_down")), (1, 2), "{flows:?}");
    });
}

/// So many SYNs to a port of the loopback from ports that nobody has: the kernel answers each SYN-ACK with RST.
const SYNS: &str = r"
import socket, struct, sys
port = int(sys.argv[1])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
ends = socket.inet_aton('127.0.0.1') * 2
for own in range(900, 950):
    syn = struct.pack('!HHIIBBHHH', own, port, 7, 0, 0x50, 2, 65535, 0, 0)
    n = sum(struct.unpack('!16H', ends + struct.pack('!BBH', 0, 6, 20) + syn))
    n = (n & 0xffff) + (n >> 16)
    raw.sendto(syn[:16] + struct.pack('!H', ~((n & 0xffff) + (n >> 16)) & 0xffff) + syn[18:], ('127.0.0.1', 0))
";

#[test]
fn probes_of_a_published_port_leave_nothing_behind() {
    needs_run!();
    needs!("python3");
    each_user(|user| {
        const PROBES: usize = 50;
        let port = servers::free_port().unwrap();
        let run = Run::python(user, &["--publish", &format!("127.0.0.1:{port}:8080")], HTTP);
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let descriptors = || fs::read_dir(format!("/proc/{}/fd", run.process.id())).unwrap().count();
        get(at).unwrap();
        let mut before = descriptors();
        // What the first client took is given back soon.
        clock::until(SHORT, || {
            (std::mem::replace(&mut before, descriptors()) == descriptors()).then_some(())
        });
        for _ in 0..PROBES {
            let probe = TcpStream::connect(at).unwrap();
            rustix::net::sockopt::set_socket_linger(&probe, Some(Duration::ZERO)).unwrap();
        }
        if needs::is_root() {
            let mut syns = Command::new("python3");
            syns.args(["-c", SYNS, &port.to_string()]);
            lastack_e2e::process::run(&mut syns, SHORT).unwrap().expect_success("SYNs");
        }
        assert!(get(at).unwrap().1.starts_with("HTTP/1.1 200"));
        let given_back = || (descriptors() <= before).then_some(());
        clock::until(SHORT, given_back)
            .unwrap_or_else(|| panic!("{} descriptors, {before} before", descriptors()));
        let (journal, _runner) = run.end();
        let probes: Vec<_> = journal.iter().filter(|line| line.text("how") != "fin").collect();
        assert_eq!((probes.len(), journal.len()), (PROBES, PROBES + 2), "a SYN alone is no connection");
        for probe in probes {
            assert_eq!(
                (probe.text("how"), probe.text("closed_by")),
                ("reset".into(), "remote".into()),
                "{probe:?}"
            );
        }
    });
}

/// One socket that takes datagrams and never answers; nobody at the other port.
const SINK: &str = "
import socket, time
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.bind(('0.0.0.0', 514))
print('listens')
time.sleep(1000)
";

#[test]
fn datagrams_to_a_server_that_never_answers_are_not_refused_and_those_to_nobody_are() {
    needs_run!();
    needs!("python3");
    each_user(|user| {
        let [sink, nobody] = [(); 2].map(|()| servers::free_port().unwrap());
        let name = format!("e2e-sink-{}-{sink}", std::process::id());
        let ports =
            [(sink, 514), (nobody, 515)].map(|(host, inside)| format!("127.0.0.1:{host}:{inside}/udp"));
        let flags = ["--name", &name, "--publish", &ports[0], "--publish", &ports[1]];
        let run = Run::python(user, &flags, SINK);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for port in [sink, nobody] {
            client.send_to(b"a line", ("127.0.0.1", port)).unwrap();
        }
        let have_come = || {
            let json = publish(user, run.runner.dir(), &[&name, "--json"]).expect_success("--json").text();
            let document: serde_json::Value = serde_json::from_str(&json).unwrap();
            document["published"].as_array().unwrap().iter().all(|port| port["total"] == 1).then_some(())
        };
        clock::until(PATIENCE, have_come).expect("both are taken");
        let (_, runner) = run.end();
        let mut ends: Vec<_> =
            runner.flows().iter().map(|flow| (flow.text("local"), flow.text("how"))).collect();
        ends.sort();
        let told = |local: &str, how: &str| (local.to_owned(), how.to_owned());
        assert_eq!(ends, [told("10.0.2.100:514", "idle"), told("10.0.2.100:515", "refused")]);
    });
}

#[test]
fn a_port_that_cannot_be_had_is_named_and_nothing_is_run() {
    needs_run!();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let number = taken.local_addr().unwrap().port();
    let udp = taken_udp.local_addr().unwrap().port();
    each_user(|user| {
        let mut cases = vec![
            (format!("127.0.0.1:{number}:80"), "another socket of this host has"),
            (format!("{number}:80"), "another socket of this host has"),
            (format!("127.0.0.1:{udp}:53/udp"), "another socket of this host has"),
            ("192.0.2.77:18080:80".to_owned(), "no address of this host"),
            ("8080".to_owned(), "HOST:INSIDE"),
            ("8080:99999".to_owned(), "`99999` is no port"),
            ("::1:8080:80".to_owned(), "in brackets"),
            ("8080:80/sctp".to_owned(), "`sctp` is no protocol"),
        ];
        if user == User::Nobody {
            cases.push(("127.0.0.1:81:80".to_owned(), "only root may have it"));
        }
        for (port, cause) in cases {
            let runner = Runner::new(user).flags(&["--publish", &port]);
            let ended = runner.run("touch", &["ran"], SHORT);
            assert_eq!(ended.code(), Some(125), "{port}: {}", ended.stderr);
            let lines: Vec<_> = ended.stderr.lines().collect();
            assert_eq!(lines.len(), 3, "{port}: {}", ended.stderr);
            assert!(lines[0].starts_with("error: ") && lines[0].contains(&port), "{}", ended.stderr);
            assert!(lines[1].starts_with("cause: ") && lines[1].contains(cause), "{port}: {}", ended.stderr);
            assert!(lines[2].starts_with("try:   "), "{}", ended.stderr);
            assert!(!runner.dir().join("ran").exists(), "{port}");
        }
    });
}
